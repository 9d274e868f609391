"""That each benchmark runs and prints its table. What it prints is not looked at: the sizes are tiny."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TITLES = {
    "spans": "A measured span",
    "regions": "A region without a span",
    "sampler": "The sampler",
    "imports": "import impactsdk",
    "impacts": "Impacts of one measurement",
    "crowd": "Regions open at once",
    "memory": "Resident memory",
    "accuracy": "Spans at random phase",
    "conservation": "Conservation",
}


def _run(name: str) -> str:
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", name]
    done = subprocess.run(command, cwd=ROOT, env=os.environ.copy(), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", TITLES)
def test_a_benchmark_runs_and_prints_its_table(name: str) -> None:
    shown = _run(name)
    assert shown.startswith(TITLES[name])
    assert "limit" in shown or "half-width" in shown


@pytest.mark.bert
def test_the_benchmark_of_the_example_runs_or_says_why_not() -> None:
    shown = _run("bert")
    assert "measured s" in shown or "skipped" in shown
