"""The real bindings on a compiled library in the driver's place: two boards whose power over time is known, and every error."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C compiler"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the library's name is that of Linux"),
]

MEASURE = """
import json, os, time, warnings
warnings.simplefilter("ignore")
from impactsdk import Meter, Settings
meter = Meter(Settings.load(export="none", boundary="machine", sources="nvml"))
with meter.measured("learn"):
    time.sleep(0.6)            # until the ticks are known
with meter.measured("work") as region:
    time.sleep(float(os.environ["WORK_S"]))
found = region.result(10)
session = meter.session
print(json.dumps({
    "energy_j": found.energy_j, "low_j": found.energy_low_j, "high_j": found.energy_high_j, "quality": found.quality,
    "method": found.method, "nature": found.nature, "start_ns": region.enter_ns, "end_ns": region.exit_ns,
    "channels": meter.totals().channels,
    "utilization": session.snapshot().utilization, "complaints": list(session.complaints.values()),
}))
meter.close()
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("nvml_stand_in.c")
    assert COMPILER is not None
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", str(folder / "libnvidia-ml.so.1"), str(source)], check=True)
    return folder


def measured(library: Path, *, work_s: float = 1.3, error: str = "") -> tuple[dict[str, Any], int]:
    """What a process with this library in its path measures, and when time began for the boards."""
    begun_ns = time.perf_counter_ns()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("IMPACTSDK_", "CUDA_", "OTEL_"))},
        "LD_LIBRARY_PATH": str(library),
        "STAND_IN_T0_NS": str(begun_ns),
        "STAND_IN_ERROR": error,
        "WORK_S": str(work_s),
    }
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), begun_ns


def true_j(board: int, ns: int) -> float:
    seconds = ns * 1e-9
    if board == 1:
        return 250.0 * seconds
    halves, rest_s = divmod(seconds, 0.5)
    return (halves // 2) * 200.0 + (50.0 + 300.0 * rest_s if halves % 2 else 100.0 * rest_s)


def test_two_boards_are_measured_as_they_truly_used(library: Path) -> None:
    found, begun_ns = measured(library)
    assert set(found["channels"]) == {
        "gpu:GPU-00000000-aaaa-0000-0000-000000000000",
        "gpu:GPU-11111111-bbbb-0000-0000-000000000000",
    }
    start_ns, end_ns = found["start_ns"] - begun_ns, found["end_ns"] - begun_ns
    truth_j = math.fsum(true_j(board, end_ns) - true_j(board, start_ns) for board in (0, 1))
    assert found["low_j"] <= truth_j <= found["high_j"]
    assert found["energy_j"] == pytest.approx(truth_j, rel=0.1)
    assert found["method"] == "nvml.total_energy"
    assert found["quality"] in ("measured", "interpolated")
    assert found["complaints"] == []
    assert found["utilization"] == {
        "gpu:GPU-00000000-aaaa-0000-0000-000000000000": 0.35,
        "gpu:GPU-11111111-bbbb-0000-0000-000000000000": 0.8,
    }


@pytest.mark.parametrize("code", [3, 9, 12, 13, 15, 16, 17, 18, 21, 999])
def test_whatever_error_comes_later_the_program_runs_and_the_number_says_so(library: Path, code: int) -> None:
    found, _ = measured(library, work_s=0.4, error=f"nvmlDeviceGetTotalEnergyConsumption:{code}:12")
    assert found["quality"] in ("partial", "absent")
    assert found["energy_j"] is None or 0.0 <= found["energy_j"] < 0.4 * 550
    assert found["complaints"], "a board that stops answering is said"


@pytest.mark.parametrize(
    ("function", "code"),
    [
        *(("nvmlInitWithFlags", code) for code in (9, 12, 17, 18, 999)),
        *(("nvmlDeviceGetHandleByIndex_v2", code) for code in (4, 15, 999)),
    ],
)
def test_a_driver_or_boards_that_cannot_be_opened_leave_the_energy_unknown(library: Path, function: str, code: int) -> None:
    found, _ = measured(library, work_s=0.0, error=f"{function}:{code}:1")
    assert (found["energy_j"], found["quality"], found["channels"]) == (None, "absent", {})


@pytest.mark.parametrize("code", [3, 13])
def test_boards_without_an_energy_counter_are_measured_by_their_power_and_say_so(library: Path, code: int) -> None:
    found, _ = measured(library, work_s=1.0, error=f"nvmlDeviceGetTotalEnergyConsumption:{code}:1")
    assert found["method"] != "nvml.total_energy"
    assert 1.0 * 350 * 0.8 < found["energy_j"] < 1.0 * 550 * 1.3
    assert found["nature"] == "calculated"
