"""What the tests of the NVML source have in common: boards, a clock that stands, and the source opened on them."""

from __future__ import annotations

from typing import Any

import pytest

from impactsdk.errors import DegradedWarning
from impactsdk.model import Channel
from impactsdk.settings import Settings
from impactsdk.sources.nvml import NvmlSource, from_settings
from tests.sources.fake_nvml import FakeBoard

ENERGY, POWER = "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage"
A, B = "GPU-aaaa", "GPU-bbbb"


def two_boards(**first: Any) -> list[FakeBoard]:
    """Whose counters stand still, since they draw nothing."""
    return [FakeBoard(A, **{"power_mw": 0, **first}), FakeBoard(B, pci=(0, 2, 0), energy_mj=5_000, power_mw=0)]


def power_board(**changes: Any) -> FakeBoard:
    """A board that has power and no counter."""
    values: dict[str, Any] = {"uuid": A, "energy_mj": None, "power_mw": 100_000, "limit_mw": 200_000, **changes}
    return FakeBoard(**values)


class StandingClock:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self._now_ns = 1_000_000_000

    def now_ns(self) -> int:
        return self._now_ns

    def unix_ns(self) -> int:
        return self._now_ns

    def waker(self) -> Any:
        raise NotImplementedError("a source never sleeps")

    def move(self, seconds: float) -> None:
        self._now_ns += round(seconds * 1e9)


def opened(clock: StandingClock | None = None, **environ: str) -> tuple[NvmlSource, list[Channel]]:
    """A source opened under the environment ``environ``, and its channels."""
    source = from_settings(Settings.load(environ))
    return source, list(source.open(clock or StandingClock()))


def degraded(clock: StandingClock | None = None, **environ: str) -> tuple[NvmlSource, list[Channel], list[str]]:
    """The same, and what it warned of."""
    with pytest.warns(DegradedWarning) as caught:
        source, channels = opened(clock, **environ)
    return source, channels, [str(warning.message) for warning in caught]
