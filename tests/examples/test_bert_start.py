"""How the example refuses to start or to go on: with one sentence and status 2. None of it loads TensorFlow."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

UNUSABLE = "import sys; sys.modules['tensorflow'] = None"


def test_a_hub_id_without_a_network_fails_at_once_with_a_sentence(run_example):
    done = run_example("--model", "bert-base-uncased", before=UNUSABLE, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 2
    assert (
        "bert-base-uncased: no such folder, not in the hub's local cache, and http://127.0.0.1:9 cannot be reached"
        in done.stderr
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("package", ["tensorflow", "tf_keras", "transformers", "sklearn", "tqdm"])
def test_a_missing_package_is_one_sentence_that_names_the_extra(run_example, package):
    done = run_example(before=f"import sys; sys.modules['{package}'] = None")
    assert done.returncode == 2
    assert "pip install 'impactsdk[bert]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_file_is_one_sentence_with_its_line(run_example, tmp_path):
    (tmp_path / "train.tsv").write_text("sentence\tlabel\nyes\t1\nno\n")
    done = run_example("--data", tmp_path, before=UNUSABLE)
    assert done.returncode == 2
    assert f"{tmp_path / 'train.tsv'}:3: expected 2 columns as in the header, found 1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_place_that_cannot_be_written_is_told_before_anything_is_trained(run_example, tmp_path):
    (tmp_path / "a file").touch()
    for place in (tmp_path / "a file", tmp_path / "a file" / "below"):
        done = run_example("--save", place, before=UNUSABLE)
        assert done.returncode == 2
        assert f"--save {place}: expected a folder to write into" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_mistyped_setting_is_one_sentence(run_example):
    done = run_example(before=UNUSABLE, IMPACTSDK_REGION="Frnce")
    assert done.returncode == 2
    assert "IMPACTSDK_REGION" in done.stderr
    assert "Traceback" not in done.stderr


def workload(*lines: str) -> str:
    """Python that puts these lines in the place of the workload."""
    code = "from examples.bert.checkpoint import ModelError\ndef run(options, data, source, *, record):\n"
    code += "".join(f"    {line}\n" for line in lines)
    name = "examples.bert.workload"
    root = str(Path(__file__).parents[2])
    return (
        f"import sys, types; sys.path.append({root!r})\n"
        f"sys.modules[{name!r}] = module = types.ModuleType({name!r})\nexec({code!r}, vars(module))"
    )


def test_a_run_that_cannot_go_on_ends_with_the_table_of_what_has_run(run_example):
    begun = "with record.block('finetune', 'bert.finetune.epoch'): raise ModelError('it has diverged')"
    done = run_example(before=workload("record.results['finetune'] = 'loss nan'", begun))
    assert done.returncode == 2
    assert "examples.bert: it has diverged\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert any(line.startswith("fine-tuning") and line.endswith("loss nan") for line in done.stdout.splitlines())
    assert run_example(before=workload("raise ModelError('no weights')")).stdout == ""


def test_results_go_to_stderr_where_stdout_cannot_be_written(command, environment, tmp_path):
    infer = "with record.block('infer', 'bert.infer'): record.show('inference, the first three sentences')"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command(before=workload(infer)),
            cwd=tmp_path,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=170,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.count("stdout cannot be written: No space left on device; the results follow here") == 1
    assert done.stderr.count("inference, the first three sentences") == 1
    assert "\nwhole run " in done.stderr
    assert "Traceback" not in done.stderr
