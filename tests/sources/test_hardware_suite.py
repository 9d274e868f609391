"""The suite for real boards works before it meets one: it is run on compiled libraries in the place of the driver's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMPILER = shutil.which("cc") or shutil.which("gcc")
HERE = Path(__file__).parent


@pytest.mark.skipif(COMPILER is None, reason="no C compiler")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the libraries' names are those of Linux")
def test_the_hardware_suite_prints_its_figures_where_there_is_a_board(tmp_path: Path) -> None:
    assert COMPILER is not None
    for name, stands_for in (("nvml_stand_in.c", "libnvidia-ml.so.1"), ("cuda_stand_in.c", "libcuda.so.1")):
        subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", str(tmp_path / stands_for), str(HERE / name)], check=True)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("IMPACTSDK_", "CUDA_", "OTEL_"))},
        "LD_LIBRARY_PATH": str(tmp_path),
        "STAND_IN_T0_NS": str(time.perf_counter_ns()),
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "hardware", "-p", "no:cacheprovider", str(HERE.parent / "hardware")],
        cwd=HERE.parents[1],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for figure in (
        "NVIDIA H100 80GB HBM3",
        "tick of the energy counter",
        "cost of one energy call",
        "launching beside 40 readings a second",
        "counter over integrated power, idle",
        "counter over integrated power, under load",
        "regions on the board",
    ):
        assert figure in done.stdout, done.stdout
