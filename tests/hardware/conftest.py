"""What the boards showed is printed at the end, with the model, the driver and the date."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import pytest

_FIGURES = pytest.StashKey[list[tuple[str, str]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = []


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Note a figure: what it is, and its value with the unit."""
    figures = request.config.stash[_FIGURES]
    return lambda what, value: figures.append((what, value))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = dict.fromkeys(config.stash[_FIGURES])
    if figures:
        terminalreporter.section(f"figures of this machine, {datetime.date.today()}")
        for what, value in figures:
            terminalreporter.line(f"{what:<52} {value}")
