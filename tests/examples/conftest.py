"""Makes ``examples`` importable, behind an installed impactsdk, so that the wheel is what is tested."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)

_BOOT = f"import runpy, sys; sys.path.append({ROOT!r}); runpy.run_module('examples.bert', run_name='__main__', alter_sys=True)"


@pytest.fixture(scope="module")
def command() -> Callable[..., list[str]]:
    """The command line that runs the example; ``before`` is Python to execute first."""

    def command(*arguments: object, before: str = "") -> list[str]:
        return [sys.executable, "-c", f"{before}\n{_BOOT}", *map(str, arguments)]

    return command


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """This process's environment with an empty hub cache, no proxies and the changes."""

    def environment(**changes: str) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_", "IMPACTSDK_"))
        }
        return {**kept, "HF_HOME": str(tmp_path_factory.getbasetemp() / "hub"), "no_proxy": "*", **changes}

    return environment


@pytest.fixture(scope="module")
def run_example(
    tmp_path_factory: pytest.TempPathFactory,
    command: Callable[..., list[str]],
    environment: Callable[..., dict[str, str]],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the example as its users do, in an empty folder, and return what it printed."""

    def run(*arguments: object, before: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments, before=before),
            cwd=tmp_path_factory.mktemp("run"),
            env=environment(**changes),
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )

    return run
