from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.energy.two_processes import energy_j


def run(*arguments: tuple[str, str, str]) -> list[dict[str, Any]]:
    """Processes that measure one device at the same time, and what each of them counted."""
    script = Path(__file__).with_name("two_processes.py")
    children = [
        subprocess.Popen([sys.executable, str(script), *argument], stdout=subprocess.PIPE, text=True) for argument in arguments
    ]
    answers = []
    for child in children:
        out, _ = child.communicate(timeout=60)
        assert child.returncode == 0
        answers.append(json.loads(out))
    return answers


@pytest.mark.parametrize("boundary", ["process", "cgroup"])
@pytest.mark.parametrize("sharing", ["board", "cpu_time"])
def test_what_two_processes_count_of_one_device_is_never_more_than_it_used(sharing: str, boundary: str) -> None:
    # One stays on when the other is gone.
    answers = run((sharing, boundary, "1.6"), (sharing, boundary, "0.8"))
    first_ns = min(answer["begun_ns"] for answer in answers)
    last_ns = max(answer["closed_ns"] for answer in answers)
    used_j = energy_j(last_ns) - energy_j(first_ns)
    own_j = sum(answer["own_j"] for answer in answers)
    assert own_j <= used_j * (1 + 1e-9)
    assert own_j >= 0.1 * used_j
    for answer in answers:
        assert answer["own_j"] + answer["others_j"] == pytest.approx(answer["counted_j"], rel=1e-9)
        assert 0.0 < answer["attributed_j"] <= answer["own_j"]
        assert answer["counted_j"] <= used_j * (1 + 1e-12)  # both are sums


def test_two_that_begin_and_end_together_have_half_a_board_each() -> None:
    answers = run(("board", "process", "1.0"), ("board", "process", "1.0"))
    for answer in answers:
        alone_ns = max(one["begun_ns"] for one in answers) - min(one["begun_ns"] for one in answers)
        alone_ns += max(one["closed_ns"] for one in answers) - min(one["ended_ns"] for one in answers)
        alone_j = 200.0 * (alone_ns + 300_000_000) * 1e-9
        assert answer["own_j"] == pytest.approx(answer["counted_j"] / 2, abs=alone_j)


def test_where_the_boundary_is_the_machine_each_counts_everything() -> None:
    (answer,) = run(("board", "machine", "0.3"))
    assert answer["own_j"] == pytest.approx(answer["counted_j"], rel=1e-9)
