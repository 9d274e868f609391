"""The short examples run as their users run them, and print what they are there for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from impactsdk import Meter, Settings
from impactsdk.testing import SimulatedSource
from tests.integrations.frameworks import needs

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, folder: Path, *arguments: str) -> str:
    """Run an example in an empty folder, by the machine's own devices or none; its output."""
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=folder,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1", "IMPACTSDK_EXPORT": "none"},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
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


def test_the_picture_has_spans_with_every_kind_of_separator_in_an_attribute(tmp_path: Path) -> None:
    odd = "a\u2028b\u2029c\x85d\x1ce\x0bf"
    meter = Meter(Settings.load({}, export="journal", directory=tmp_path), sources=[SimulatedSource(100.0)])
    with meter, meter.measured("odd", attributes={"text": odd}):
        pass
    (journal,) = tmp_path.glob("run-*.jsonl")
    assert "<title>odd" in run("picture.py", tmp_path, str(journal))


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
