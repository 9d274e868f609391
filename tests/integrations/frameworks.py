"""Frameworks for the tests: stand-ins with their public interface, and whether the real ones are there."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

STAND_INS = Path(__file__).parent / "stand_ins"


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    """Import a stand-in for this test, in the place of the real one, which comes back afterwards."""
    package = name.partition(".")[0]
    for known in [known for known in sys.modules if known == package or known.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.syspath_prepend(str(STAND_INS))
    before = set(sys.modules)
    module = importlib.import_module(name)
    for new in set(sys.modules) - before:
        # So that it is taken out again: what was not there before is to be not there afterwards.
        loaded = sys.modules.pop(new)
        monkeypatch.setitem(sys.modules, new, loaded)
    return module


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip where one of the real ones is not installed. They are looked for and not loaded."""
    missing = [name for name in names if not _installed(name)]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
