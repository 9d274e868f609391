"""What every test must leave as it found it: threads, context, open files, environment, global providers."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from opentelemetry import metrics, trace

import impactsdk
from impactsdk.meter import default_meter

# For `tests.kit` and its like; at the end, so that impactsdk is the installed one and not this folder's.
sys.path.append(str(Path(__file__).parent.parent))

hypothesis_settings.register_profile("impactsdk", deadline=None, print_blob=True, database=None)
hypothesis_settings.load_profile("impactsdk")


def _open_files() -> set[str]:
    folder = Path("/proc/self/fd")
    found = set()
    if folder.is_dir():
        for link in folder.iterdir():
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith("/") and not target.startswith(("/dev/", "/proc/", "/sys/")):
                found.add(target)
    return found


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


@pytest.fixture(autouse=True)
def nothing_leaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test that leaves a thread, a region, a file, a variable or a provider behind, or that made us log an error."""
    for name in [name for name in os.environ if name.startswith(("IMPACTSDK_", "OTEL_", "CUDA_VISIBLE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("IMPACTSDK_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.chdir(tmp_path)
    environment, files = _environment(), _open_files()
    providers = (trace.get_tracer_provider(), metrics.get_meter_provider())
    yield
    default = default_meter()
    if default.session is not None and not default.session.off:
        default.close()
    default.reset()
    alive = [thread.name for thread in threading.enumerate() if thread.name.startswith("impactsdk")]
    for thread in threading.enumerate():
        if thread.name.startswith("impactsdk"):
            thread.join(1.0)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("impactsdk")], alive
    assert impactsdk.current() is None, "a region was left open in this context"
    assert _open_files() <= files, "a file was left open"
    assert _environment() == environment
    now = (trace.get_tracer_provider(), metrics.get_meter_provider())
    assert [type(provider) for provider in now] == [type(provider) for provider in providers]
    errors = [record for record in caplog.records if record.name.startswith("impactsdk") and record.levelno >= logging.ERROR]
    assert not errors, errors
