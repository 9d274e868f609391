"""The real workload in a process of its own, with TensorFlow, tiny and short."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples.bert.generate import FOLDER
from impactsdk.report.balance import balance

pytestmark = [
    pytest.mark.bert,
    pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs impactsdk[bert]"),
]

PHASES = ("pre-training", "fine-tuning", "evaluation", "inference", "tracing", "whole run")


@dataclass(frozen=True)
class Run:
    stdout: str
    stderr: str
    saved: Path
    journals: Path


@pytest.fixture(scope="module")
def full_run(run_example, tmp_path_factory) -> Run:
    """All phases from scratch on a few rows, saved as a TensorFlow checkpoint."""
    saved, journals = tmp_path_factory.mktemp("saved"), tmp_path_factory.mktemp("journals")
    arguments = ("--phase", "all", "--epochs", 1, "--pretrain-epochs", 2, "--limit", 160, "--save", saved)
    done = run_example(*arguments, IMPACTSDK_DIRECTORY=str(journals))
    assert done.returncode == 0, done.stderr
    return Run(done.stdout, done.stderr, saved, journals)


def losses(stderr: str, phase: str) -> list[float]:
    return [float(found) for found in re.findall(rf"^{phase} epoch .* loss ([0-9.]+)", stderr, re.MULTILINE)]


def report_of(stdout: str) -> str:
    return stdout.partition("classification report, test")[2].partition("inference,")[0]


def sentences(stdout: str, title: str) -> int:
    found = re.search(rf"^{title} +\S+ +\S+ +\S+ +([0-9,]+) ", stdout, re.MULTILINE)
    assert found, stdout
    return int(found[1].replace(",", ""))


def test_the_table_has_every_phase_and_counts_every_sentence(full_run):
    lines = full_run.stdout.splitlines()
    for title in PHASES:
        assert any(line.startswith(title) for line in lines), title
    assert sentences(full_run.stdout, "pre-training") == 2 * 160
    assert sentences(full_run.stdout, "fine-tuning") == 160
    assert sentences(full_run.stdout, "evaluation") == 2 * 160  # dev after the epoch, test at the end
    assert sentences(full_run.stdout, "inference") == 160
    assert "Energy: " in full_run.stdout
    assert "synthetic" in full_run.stdout


def test_its_journal_adds_up_to_what_the_devices_counted(full_run):
    (journal,) = full_run.journals.glob("run-*.jsonl")
    found = balance(journal)
    assert found.adds_up, found
    assert found.spans > 10
    assert 0 < found.spans_j < found.regions_j < found.devices_j


def test_no_sentence_of_an_evaluation_pays_for_the_report_on_it(full_run):
    (journal,) = full_run.journals.glob("run-*.jsonl")
    requests = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    spans = [
        span
        for request in requests
        for of in request.get("resourceSpans", ())
        for scope in of["scopeSpans"]
        for span in scope["spans"]
    ]
    parents = {span["spanId"]: span["name"] for span in spans}
    reports = [span for span in spans if span["name"] == "bert.report"]
    assert [parents[span["parentSpanId"]] for span in reports] == ["bert.finetune", "bert"], "after the epoch and at the end"
    evaluations = [span["spanId"] for span in spans if span["name"] == "bert.evaluate"]
    assert len(evaluations) == 2
    assert not [span["name"] for span in spans if span.get("parentSpanId") in evaluations]


def test_pre_training_lowers_its_loss_and_each_epoch_has_one_line(full_run):
    first, second = losses(full_run.stderr, "pretrain")
    assert second < first
    assert len(losses(full_run.stderr, "finetune")) == 1
    assert "\r" not in full_run.stderr  # no bar where nobody watches


def test_the_test_set_gets_a_classification_report(full_run):
    assert re.search(r"accuracy +[01]\.[0-9]{3} +160", report_of(full_run.stdout))


def as_pytorch(source: Path, target: Path) -> Path:
    """The same checkpoint with the names and the orientation that PyTorch gives its tensors; PyTorch is not needed."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(source, target)
    tensors = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        *path, kind = name.removesuffix(":0").replace("layer_._", "layer.").split("/")
        kind = {"kernel": "weight", "gamma": "weight", "beta": "bias", "embeddings": "weight"}.get(kind, kind)
        tensors[".".join([*path, kind])] = tensor.T.copy() if name.endswith("/kernel:0") else tensor
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.mark.parametrize("form", ["tensorflow", "pytorch"])
def test_a_saved_classifier_is_loaded_from_either_format_and_answers_as_before(full_run, run_example, tmp_path, form):
    model = full_run.saved if form == "tensorflow" else as_pytorch(full_run.saved, tmp_path / "model")
    done = run_example("--model", model, "--phase", "evaluate", "infer", "--limit", 160)
    assert done.returncode == 0, done.stderr
    assert report_of(done.stdout) == report_of(full_run.stdout)
    assert "fine-tuning" not in done.stdout


def accuracy(stdout: str) -> float:
    found = re.search(r"accuracy +([01]\.[0-9]{3}) ", report_of(stdout))
    assert found is not None
    return float(found[1])


def test_a_checkpoint_s_labels_keep_the_order_in_which_it_has_learnt_them(full_run, run_example, tmp_path):
    model = shutil.copytree(full_run.saved, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    # Not the alphabet's: what the shipped data calls 0 and 1 is here "worse" and "better".
    config["id2label"], config["label2id"] = {"0": "worse", "1": "better"}, {"worse": 0, "better": 1}
    (model / "config.json").write_text(json.dumps(config))
    rows = [line.split("\t") for line in (FOLDER / "test.tsv").read_text(encoding="utf-8").splitlines()[1:161]]
    for split in ("train", "dev", "test"):
        lines = [f"{sentence}\t{('worse', 'better')[int(label)]}\n" for sentence, label in rows]
        (tmp_path / f"{split}.tsv").write_text("sentence\tlabel\n" + "".join(lines), encoding="utf-8")
    done = run_example("--model", model, "--data", tmp_path, "--phase", "evaluate")
    assert done.returncode == 0, done.stderr
    assert accuracy(done.stdout) == accuracy(full_run.stdout)


def test_weights_of_something_else_are_refused_and_not_replaced_by_chance(full_run, run_example, tmp_path):
    from safetensors.numpy import load_file, save_file

    model = shutil.copytree(full_run.saved, tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    save_file({f"other.{name}": tensor for name, tensor in tensors.items()}, model / "model.safetensors", {"format": "tf"})
    done = run_example("--model", model, "--phase", "infer", "--limit", 20)
    assert done.returncode == 2
    assert "expected the weights of this BERT" in done.stderr
    (model / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    done = run_example("--model", model, "--phase", "infer", "--limit", 20)
    assert done.returncode == 2
    assert "the weights cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_classifier_that_cannot_be_saved_is_evaluated_and_told_all_the_same(full_run, run_example, tmp_path):
    # Stands for a full disk; the journal and the tokenizer fit in.
    small = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))"
    done = run_example("--model", full_run.saved, "--phase", "infer", "--limit", 20, "--save", tmp_path, before=small)
    assert done.returncode == 2
    assert f"--save {tmp_path}: the classifier cannot be saved: " in done.stderr
    assert "Traceback" not in done.stderr
    assert sentences(done.stdout, "inference") == 20


def test_a_checkpoint_learns_clue_s_many_labels_and_tests_may_have_none(full_run, run_example, tmp_path):
    labels = ("100", "104", "115")
    for split in ("train", "dev", "test"):
        rows = [{"sentence": f"the plot was {('warm', 'dull', 'cold')[n % 3]} {n}", "label": labels[n % 3]} for n in range(30)]
        lines = [json.dumps({"sentence": row["sentence"]} if split == "test" else row) + "\n" for row in rows]
        (tmp_path / f"{split}.json").write_text("".join(lines))
    done = run_example(
        "--model", as_pytorch(full_run.saved, tmp_path / "model"), "--data", tmp_path, "--epochs", 8, "--pretrain-epochs", 1,
        "--learning-rate", "1e-3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert losses(done.stderr, "finetune")[-1] < losses(done.stderr, "finetune")[0]
    assert "has no labels" in done.stderr
    assert "classification report, dev" in done.stdout
    assert all(re.search(rf"^ +{label} ", done.stdout, re.MULTILINE) for label in labels)
    assert "synthetic" not in done.stdout


def test_an_interrupt_ends_with_the_table_of_what_has_run(command, environment, tmp_path):
    process = subprocess.Popen(
        command("--phase", "finetune", "evaluate", "--epochs", 500, "--limit", 64),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell has its jobs ignore it
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("finetune epoch 2/"):
                process.send_signal(signal.SIGINT)
                break
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "interrupted; the table covers what has run" in stderr
    assert "Traceback" not in stderr
    assert sentences(stdout, "fine-tuning") >= 2 * 64
    assert "pre-training" not in stdout
