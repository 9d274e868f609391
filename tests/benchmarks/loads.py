"""Devices whose energy is known exactly: a load, and a counter that shows it in ticks."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Sequence

__all__ = ["BUSY_W", "IDLE_W", "Bursts", "Counter", "Poller", "SquareWave"]

IDLE_W, BUSY_W = 60.0, 300.0
_BEFORE_J = 1_000.0
"""What the counter shows at the beginning."""


class SquareWave:
    """Busy for the first half of each period, idle for the second."""

    def __init__(self, period_s: float, phase_s: float) -> None:
        self._period_s, self._phase_s = period_s, phase_s

    def power_w(self, at_s: float) -> float:
        return BUSY_W if (at_s + self._phase_s) % self._period_s < self._period_s / 2 else IDLE_W

    def energy_j(self, at_s: float) -> float:
        """Since some fixed instant."""
        periods, rest_s = divmod(at_s + self._phase_s, self._period_s)
        half_s = self._period_s / 2
        busy_s = periods * half_s + min(rest_s, half_s)
        return IDLE_W * at_s + (BUSY_W - IDLE_W) * busy_s


class Bursts:
    """Busy exactly while one of the spans is open, idle between them."""

    def __init__(self, spans_s: Sequence[tuple[float, float]]) -> None:
        self._spans_s = spans_s
        self._starts_s = [start_s for start_s, _ in spans_s]
        self._busy_before_s = [0.0]
        for start_s, end_s in spans_s:
            self._busy_before_s.append(self._busy_before_s[-1] + end_s - start_s)

    def power_w(self, at_s: float) -> float:
        index = bisect_right(self._starts_s, at_s) - 1
        return BUSY_W if index >= 0 and at_s < self._spans_s[index][1] else IDLE_W

    def energy_j(self, at_s: float) -> float:
        """Since some fixed instant."""
        index = bisect_right(self._starts_s, at_s) - 1
        busy_s = 0.0
        if index >= 0:
            start_s, end_s = self._spans_s[index]
            busy_s = self._busy_before_s[index] + min(at_s, end_s) - start_s
        return IDLE_W * at_s + (BUSY_W - IDLE_W) * busy_s


class Counter:
    """What a device shows: energy and power as they were at its last tick."""

    def __init__(self, load: SquareWave | Bursts, tick_s: float, phase_s: float) -> None:
        self.load, self.tick_s, self._phase_s = load, tick_s, phase_s

    def _shown_at_s(self, at_s: float) -> float:
        return math.floor((at_s - self._phase_s) / self.tick_s) * self.tick_s + self._phase_s

    def energy_j(self, at_s: float) -> float:
        return _BEFORE_J + self.load.energy_j(self._shown_at_s(at_s))

    def power_w(self, at_s: float) -> float:
        return self.load.power_w(self._shown_at_s(at_s))


class Poller:
    """When the sampler's thread reads, as it was seen to on a machine at work: late by a little, now and then by 5 ms or more.

    A reading itself takes 60 us. Five milliseconds are the interpreter's switch interval, which a loop in plain Python uses up.
    """

    READ_S = 60e-6

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def late_s(self) -> float:
        """How much later than planned the next reading is."""
        late_s = self._random.expovariate(1 / 0.0004)
        return late_s + self._random.uniform(0.002, 0.008) if self._random.random() < 0.03 else late_s
