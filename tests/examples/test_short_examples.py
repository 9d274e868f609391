"""The short examples run as their users run them, and print what they are there for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from impactsdk import Meter, Settings
from impactsdk.testing import SimulatedSource
from tests.integrations.frameworks import needs

EXAMPLES = Path(__file__).parents[2] / "examples"


def start(
    name: str, folder: Path, *arguments: str, variables: Mapping[str, str] | None = None, **streams: Any
) -> subprocess.CompletedProcess[str]:
    """Run an example in an empty folder, by the machine's own devices or none."""
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=folder,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1", "IMPACTSDK_EXPORT": "none", **(variables or {})},
        text=True,
        timeout=170,
        check=False,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    )


def run(name: str, folder: Path, *arguments: str) -> str:
    """What an example prints."""
    ran = start(name, folder, *arguments)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("name", ["blocks", "custom_source", "decorate", "keras_callback", "torch_loop", "trainer_callback"])
def test_each_says_how_to_run_it(name: str) -> None:
    assert f"Run: ``python examples/{name}.py`" in (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")


def test_decorate(tmp_path: Path) -> None:
    output = run("decorate.py", tmp_path)
    assert re.search(r"^encode +18 calls .* 2010 sentence$", output, re.MULTILINE)
    assert re.search(r"^serve +10 calls .* 10 request$", output, re.MULTILINE)
    assert re.search(r"^batches +1 calls .* 8 batch$", output, re.MULTILINE)


def test_blocks(tmp_path: Path) -> None:
    output = run("blocks.py", tmp_path)
    assert output.count("epoch ") == 3
    assert output.endswith("150 steps, 2400 samples\n")


def test_custom_source(tmp_path: Path) -> None:
    output = run("custom_source.py", tmp_path)
    found = re.fullmatch(r"[\d.]+ s, ([\d.]+) J, (\d+) W, calculated by plug.watts\n", output)
    assert found is not None, output
    assert 140 <= float(found[2]) <= 260, "its power is between 150 and 250 W"


@pytest.mark.parametrize("name", ["blocks", "custom_source", "decorate", "foreign_spans"])
def test_with_measuring_switched_off_they_run_all_the_same(name: str, tmp_path: Path) -> None:
    ran = start(f"{name}.py", tmp_path, variables={"IMPACTSDK_DISABLED": "1"})
    assert ran.returncode == 0, ran.stderr


def test_what_is_scraped_is_ended_by_an_interrupt_without_a_traceback(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.append({str(EXAMPLES.parent)!r})\n"  # last: what is installed is what is tested
        "from examples import prometheus_scrape as example\n"
        "def interrupt(turns): raise KeyboardInterrupt\n"
        "example.train = interrupt\n"
        "example.main(60.0)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, "Traceback" in ran.stderr) == (0, False), ran.stderr


def recorded(folder: Path, **attributes: Any) -> Path:
    meter = Meter(Settings.load({}, export="journal", directory=folder), sources=[SimulatedSource(100.0)])
    with meter, meter.measured("odd", attributes=attributes):
        pass
    (journal,) = folder.glob("run-*.jsonl")
    return journal


def test_the_picture_of_a_killed_run_has_what_is_whole(tmp_path: Path) -> None:
    journal = recorded(tmp_path)
    with journal.open("ab") as lines:
        lines.write(b"[1, 2]\n7\n" + b"[" * 200_000 + '\n{"resourceSpans": "é'.encode()[:-1])
    assert "<title>odd" in run("picture.py", tmp_path, str(journal))


@pytest.mark.parametrize(
    ("content", "said", "status"),
    [
        (None, "cannot be read: No such file", 2),
        (Path.mkdir, "cannot be read: Is a directory", 2),
        (b"\x1f\x8b\x08\x00\xff\n", "there is no finished span in it", 1),
        (b'{"resourceSpans": [{}]}', "is no journal of impactsdk: KeyError: 'scopeSpans'", 2),
        (b'{"resourceSpans": 7}', "is no journal of impactsdk: TypeError", 2),
    ],
)
def test_the_picture_of_something_else_is_a_sentence(tmp_path: Path, content: Any, said: str, status: int) -> None:
    place = tmp_path / "run.jsonl"
    if callable(content):
        content(place)
    elif content is not None:
        place.write_bytes(content)
    ran = start("picture.py", tmp_path, str(place))
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (status, "", 1)
    assert said in ran.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_picture_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ran = start("picture.py", tmp_path, str(recorded(tmp_path)), stdout=full)
    assert (ran.returncode, ran.stderr) == (2, "the picture cannot be written: No space left on device\n")


def test_a_picture_without_a_standard_output_is_a_sentence(tmp_path: Path) -> None:
    journal = recorded(tmp_path)
    command = f"{sys.executable} {EXAMPLES / 'picture.py'} {journal} >&-"
    ran = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (2, "the picture cannot be written: there is no standard output\n")


def test_the_picture_has_spans_that_are_their_own_parents_or_have_an_empty_attribute(tmp_path: Path) -> None:
    journal = recorded(tmp_path)
    requests = [json.loads(line) for line in journal.read_text("utf-8").splitlines()]
    spans = [
        span for one in requests for part in one.get("resourceSpans", []) for of in part["scopeSpans"] for span in of["spans"]
    ]
    for span in spans:
        span["parentSpanId"] = span["spanId"]
        span["attributes"].append({"key": "empty", "value": {}})
    journal.write_text("".join(json.dumps(one) + "\n" for one in requests), "utf-8")
    assert "<title>odd" in run("picture.py", tmp_path, str(journal))


def test_the_picture_has_spans_with_every_kind_of_separator_in_an_attribute(tmp_path: Path) -> None:
    odd = "a\u2028b\u2029c\x85d\x1ce\x0bf"
    assert "<title>odd" in run("picture.py", tmp_path, str(recorded(tmp_path, text=odd)))


@pytest.mark.bert
@needs("tensorflow", "tf_keras", "keras")
@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_keras_callback(package: str, tmp_path: Path) -> None:
    lines = run("keras_callback.py", tmp_path, package).splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2", "epoch 3"]
    assert all("J per sample" in line for line in lines)


@needs("torch")
def test_torch_loop(tmp_path: Path) -> None:
    lines = run("torch_loop.py", tmp_path).splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2", "epoch 3"]


@needs("torch", "transformers", "accelerate")
def test_trainer_callback(tmp_path: Path) -> None:
    assert "step 50: " in run("trainer_callback.py", tmp_path)
