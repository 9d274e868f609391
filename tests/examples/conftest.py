"""Makes ``examples`` importable, behind an installed impactsdk, so that the wheel is what is tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


# Answers a line of JSON, which is Python that sets ``answer``, with a line of JSON: its value and the traceback, one of them
# null. What the example prints goes to stderr.
_SERVE = f"""
import json, os, sys, traceback
answers, sys.stdout = sys.stdout, sys.stderr
sys.path.append({ROOT!r})
from examples.bert.__main__ import _ENVIRONMENT
os.environ.update(_ENVIRONMENT)
from examples.bert import workload
for line in sys.stdin:
    names, trouble = {{}}, None
    try:
        exec(json.loads(line), names)
    except Exception:
        trouble = traceback.format_exc()
    print(json.dumps([names.get("answer"), trouble]), file=answers, flush=True)
"""


@pytest.fixture(scope="module")
def inside(
    tmp_path_factory: pytest.TempPathFactory, environment: Callable[..., dict[str, str]]
) -> Iterator[Callable[[str], Any]]:
    """Run Python that sets ``answer`` where TensorFlow is loaded, once for all tests of a module; its value as JSON has it."""
    folder = tmp_path_factory.mktemp("inside")
    with (
        (folder / "stderr").open("w+") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            cwd=folder,
            env=environment(IMPACTSDK_EXPORT="none"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):

        def inside(code: str) -> Any:
            assert process.stdin is not None and process.stdout is not None
            print(json.dumps(code), file=process.stdin, flush=True)
            line = process.stdout.readline()
            assert line, (folder / "stderr").read_text()
            answer, trouble = json.loads(line)
            assert trouble is None, trouble
            return answer

        yield inside
