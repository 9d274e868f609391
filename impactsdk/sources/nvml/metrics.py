"""One board's cumulative joules: its counter, or the integral of its power.

Sources: nvml.h 13.0 on ``nvmlDeviceGetTotalEnergyConsumption`` ("for Volta or newer fully supported devices", which is not the
whole truth, so it is called to find out) and on ``nvmlDeviceGetPowerUsage`` ("on Ampere (except GA100) or newer GPUs, the API
returns power averaged over 1 sec interval; on GA100 and older architectures, instantaneous power is returned").
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from impactsdk.model import Nature
from impactsdk.protocols import Clock
from impactsdk.sources.nvml.driver import BOARD_GONE, NOT_SUPPORTED, TRANSIENT, Driver, explained

__all__ = [
    "EnergyCounter",
    "ImplausiblePowerError",
    "Metric",
    "NoMetricError",
    "PowerIntegral",
    "UnopenedCounter",
    "metric_of",
    "power_limit_w",
]

POWER_INSTANT_FIELD = 186  # NVML_FI_DEV_POWER_INSTANT; the numbers of fields above 192 differ between releases
MODULE_SCOPE = 1  # NVML_POWER_SCOPE_MODULE
VALUE_TYPES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""The member of ``nvmlValue_t`` that holds the answer, by ``nvmlValueType_t``."""
GA100 = (8, 0)
"""The compute capability of A100 and A30, alone in its generation."""
AVERAGED_TICK_S = 1.0
INSTANT_TICK_S = 0.1
"""The slowest refresh of an instantaneous reading that has been published: 100 ms (Yang et al., arXiv 2312.02741)."""


class ImplausiblePowerError(Exception):
    """The driver answered with a power that the board cannot have."""


class NoMetricError(Exception):
    """The board has neither an energy counter nor a power reading; the message says why."""


class Metric(Protocol):
    """A way to read one board's cumulative joules, with what a :class:`~impactsdk.model.Channel` says of it."""

    method: str
    nature: Nature
    tick_s: float | None
    scope: str | None

    @property
    def interval_j(self) -> tuple[float, float] | None:
        """The lower and the upper estimate of the same joules as of the last answer; ``None`` for a counter."""

    def energy_j(self) -> float:
        """Ask the board now: cumulative joules.

        Raises:
            ImplausiblePowerError: The answer cannot be true.
            pynvml.NVMLError: There was no answer.
        """


class EnergyCounter:
    """The board's own counter, in millijoules since the driver was loaded.

    How often it is refreshed (20 to 100 ms, by model) is not documented: the tick is left to be observed. It is passed on as it
    is: that it falls when the driver is reloaded is for whoever reads it to see.
    """

    method = "nvml.total_energy"
    nature: Nature = "measured"
    tick_s: float | None = None
    scope: str | None = None
    interval_j: tuple[float, float] | None = None

    def __init__(self, driver: Driver, handle: Any) -> None:
        self._driver = driver
        self._handle = handle

    def energy_j(self) -> float:
        """The counter, joules."""
        return float(self._driver.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000


class UnopenedCounter(EnergyCounter):
    """The counter of a board that could not be opened; each reading tries again."""

    def __init__(self, driver: Driver, index: int) -> None:
        super().__init__(driver, None)
        self._index = index

    def energy_j(self) -> float:
        """The counter, joules, once the board can be opened."""
        if self._handle is None:
            self._handle = self._driver.nvmlDeviceGetHandleByIndex(self._index)
        return super().energy_j()


@dataclass(slots=True)
class PowerIntegral:
    """Power samples, integrated by the trapezoid rule from the first good one on.

    A sample's instant is the middle of its call. Where samples are missing, the trapezoid spans the gap, and the missing
    readings tell that it is one. On boards whose samples are means over the last second (``tick_s`` 1.0) the integral is that
    of the true power, about half a second late.

    **How wrong it may be.** An instantaneous sample may be ``tick_s`` old: a step of power is seen up to that time, and the
    time between two samples, late. As what rises falls again, each rise is given the error of both, its height times those
    times: for so long the lower estimate takes the least of the samples, and the upper one is as far above the trapezoid.
    This holds for certain where power steps no more than once between two refreshes. A faster load is in the interval if
    samples meet both its powers (where each has half of the time, it spans from one to the other: half their difference, the
    most that aliasing can do), but not if its period is near a multiple of the refreshes' and they meet one alone; nor is
    what A100 and H100 use in the three quarters of the time that they do not sample (Yang et al., arXiv 2312.02741). Nothing
    and the power limit would be bounds even then, and say nothing. A mean over a second misses nothing: what it is late by is
    in the tick, and its estimates are the two ends of each step.

    Args:
        clock: Where time comes from.
        sample_w: Asks the board for its power, watts.
        limit_w: The board's power limit; more than twice of it is no power that the board can have. ``None``: not known.
        method: ``nvml.power`` or ``nvml.power.module``.
        tick_s: The longest time that a sample speaks for.
        scope: ``module`` where the samples are of more than the board.
    """

    clock: Clock
    sample_w: Callable[[], float]
    limit_w: float | None
    method: str = "nvml.power"
    tick_s: float | None = AVERAGED_TICK_S
    scope: str | None = None
    nature: Nature = "calculated"
    _low_j: float = 0.0
    _sum_j: float = 0.0
    _high_j: float = 0.0
    _recent: deque[tuple[int, float]] = field(default_factory=deque)

    def energy_j(self) -> float:
        """The integral up to now, joules."""
        before_ns = self.clock.now_ns()
        power_w = self.sample_w()
        at_ns = (before_ns + self.clock.now_ns()) // 2
        self._check(power_w)
        recent = self._recent
        if recent:
            last_ns, last_w = recent[-1]
            step_s, mean_w = (at_ns - last_ns) * 1e-9, (last_w + power_w) / 2
            least_w = min(power_w, *(watts for _, watts in recent))
            self._low_j += least_w * step_s
            self._sum_j += mean_w * step_s
            self._high_j += (2 * mean_w - least_w) * step_s
        recent.append((at_ns, power_w))
        while recent[0][0] < at_ns - self._held_ns:
            recent.popleft()
        return self._sum_j

    @property
    def interval_j(self) -> tuple[float, float]:
        """The lower and the upper estimate of the integral, joules."""
        return self._low_j, self._high_j

    @property
    def _held_ns(self) -> int:
        """How old a sample may be that is no mean over the time before it."""
        return 0 if self.tick_s is None or self.tick_s > INSTANT_TICK_S else round(self.tick_s * 1e9)

    def _check(self, power_w: float) -> None:
        # Polled too fast, some drivers answer 0 W; the driver of some notebooks says 593 W at idle.
        if not math.isfinite(power_w) or power_w <= 0:
            raise ImplausiblePowerError(f"the driver says {power_w:g} W")
        if self.limit_w is not None and power_w > 2 * self.limit_w:
            raise ImplausiblePowerError(f"the driver says {power_w:g} W, of a board limited to {self.limit_w:g} W")


def metric_of(driver: Driver, handle: Any, clock: Clock, limit_w: float | None) -> Metric:
    """The best metric that the board answers to when called: its counter, its power, the power of its module.

    A metric whose call fails for the moment (a time-out, no data yet) is there.

    Raises:
        NoMetricError: It has none, or is lost.
    """
    tick_s = AVERAGED_TICK_S if _averages(driver, handle) else INSTANT_TICK_S
    metrics: dict[str, Metric] = {
        "energy counter": EnergyCounter(driver, handle),
        "power": PowerIntegral(clock, lambda: _power_w(driver, handle), limit_w, tick_s=tick_s),
        # The limit is the board's, not the module's.
        "module power": PowerIntegral(
            clock,
            lambda: _module_power_w(driver, handle),
            limit_w=None,
            method="nvml.power.module",
            tick_s=INSTANT_TICK_S,
            scope="module",
        ),
    }
    reasons = []
    for label, metric in metrics.items():
        missing = _missing(driver, metric)
        if missing is None:
            return metric
        reasons.append(f"no {label}: {missing}")
    raise NoMetricError(", ".join(reasons))


def _missing(driver: Driver, metric: Metric) -> str | None:
    try:
        metric.energy_j()
    except ImplausiblePowerError:
        return None
    except driver.NVMLError as error:
        if error.value in BOARD_GONE:
            raise NoMetricError(explained(error)) from error
        return None if error.value in TRANSIENT else explained(error)
    return None


def _power_w(driver: Driver, handle: Any) -> float:
    return float(driver.nvmlDeviceGetPowerUsage(handle)) / 1000


def _module_power_w(driver: Driver, handle: Any) -> float:
    """The power of the module that the board is part of, CPU included: what Grace Hopper answers where the board does not."""
    field = driver.nvmlDeviceGetFieldValues(handle, [(POWER_INSTANT_FIELD, MODULE_SCOPE)])[0]
    if field.nvmlReturn != 0:  # the call succeeds whatever becomes of the single fields
        raise driver.NVMLError(field.nvmlReturn)
    if field.valueType >= len(VALUE_TYPES):
        raise driver.NVMLError(NOT_SUPPORTED)
    return float(getattr(field.value, VALUE_TYPES[field.valueType])) / 1000


def _averages(driver: Driver, handle: Any) -> bool:
    """Whether the board's power is a mean over a second; taken to be, if it does not say what it is."""
    try:
        return tuple(driver.nvmlDeviceGetCudaComputeCapability(handle)) > GA100
    except driver.NVMLError:
        return True


def power_limit_w(driver: Driver, handle: Any) -> float | None:
    """The power limit that is enforced on the board, watts; ``None`` if the driver does not say."""
    try:
        limit_mw = driver.nvmlDeviceGetEnforcedPowerLimit(handle)
    except driver.NVMLError:
        return None
    return limit_mw / 1000 if limit_mw > 0 else None
