"""What regions find when nothing is measured: disabled, or closed. It costs one branch and records nothing."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from impactsdk.energy.ledger import Tally
from impactsdk.model import Measurement
from impactsdk.region import Region

__all__ = ["OFF", "OffSession"]


class OffSession:
    """A session that is none."""

    off = True
    tracer = None
    asleep = False
    now_ns = staticmethod(time.perf_counter_ns)
    unix_ns = staticmethod(time.time_ns)

    def __init__(self) -> None:
        self.events: deque[tuple[int, int, Any, Any]] = deque(maxlen=0)
        self.tallies: dict[str, Tally] = {}

    def tally(self, name: str, unit: str | None) -> Tally:
        """An account that nobody keeps."""
        return Tally(name, unit)

    def wake(self) -> None:
        """There is nobody to wake."""

    def relieve(self) -> None:
        """Nothing waits."""

    def complain(self, key: str, message: str) -> None:
        """Nothing of ours runs that could fail."""

    def wait_for(self, region: Region, timeout_s: float) -> Measurement:
        """A measurement that says that nothing was measured."""
        assert region.exit_ns is not None
        return Measurement(
            name=region.name,
            start_unix_ns=time.time_ns() - time.perf_counter_ns() + region.enter_ns,
            duration_s=(region.exit_ns - region.enter_ns) * 1e-9,
            energy_j=None,
            self_energy_j=None,
            energy_low_j=None,
            energy_high_j=None,
            self_energy_low_j=None,
            self_energy_high_j=None,
            energy_by_type={},
            self_energy_by_type={},
            nature=None,
            method=None,
            boundary="process",
            quality="absent",
            coverage=0.0,
            unit=region.unit,
            units=region.units,
        )


OFF = OffSession()
