"""What regions find when nothing is measured: disabled, or closed. It costs one branch and records nothing."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from impactsdk.model import Measurement
from impactsdk.recorder import Recorder
from impactsdk.region import Region

__all__ = ["OFF", "OffSession"]


class OffSession(Recorder):
    """A session that is none: it takes everything and keeps nothing."""

    __slots__ = ()

    def __init__(self) -> None:
        self.append = deque[Any](maxlen=0).append
        self.attention = self.awaited = self.dead = False
        self.off, self.tracer, self.spans = True, None, None
        self.now_ns, self.unix_ns = time.perf_counter_ns, time.time_ns

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
