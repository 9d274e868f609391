"""The values that travel between the rooms: channels, readings, measurements, totals and impacts.

All are frozen. A number's name ends in its unit; ``None`` means unknown and is never replaced by zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from impactsdk.factor import Factor, Nature

__all__ = [
    "Boundary",
    "Channel",
    "Impact",
    "Measurement",
    "Nature",
    "Operation",
    "Quality",
    "Reading",
    "Sharing",
    "Totals",
]

Boundary = Literal["process", "cgroup", "machine"]
Quality = Literal["measured", "interpolated", "bounded", "estimated", "partial", "absent"]
Sharing = Literal["exclusive", "cpu_time", "board"]

_LONGEST_TICK_S = 3600.0
"""Baseboard controllers refresh within seconds, smart plugs within minutes and meters of a utility each quarter of an hour; a
declared tick beyond an hour is in another unit than seconds, and no region would ever be settled."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One stream of energy: a GPU board, a CPU package, a DRAM domain.

    Args:
        id: Stable over restarts, e.g. ``gpu:GPU-<uuid>`` or ``cpu:package-0``; becomes ``hw.id``.
        type: ``hw.type`` of the OpenTelemetry hardware conventions: ``gpu``, ``cpu``, ``memory``, ...
        method: How the joules are found, with a version where that matters: ``nvml.total_energy``, ``rapl.package``.
        nature: ``measured`` for a counter, ``calculated`` for integrated power, ``estimated`` for a model.
        tick_s: The longest time between two refreshes of the counter, where the source knows it. ``0.0`` says that each
            reading is exact at the instant of reading. ``None`` says unknown: the tick is then observed. An hour at the most; a
            region is settled a tick later.
        max_power_w: A power that the device cannot exceed; it narrows the interval of short spans. ``None``: no such bound.
        min_power_w: A power that the device cannot go below.
        resolution_j: The step of the counter.
        sharing: Who else uses the device. ``exclusive``: nobody. ``cpu_time``: every process of the machine, by busy CPU
            time. ``board``: perhaps other measuring processes; split between those that are known.
        host_range_j: For a counter that shows every process of the host the same joules: after how many it begins anew,
            ``math.inf`` if it never does. ``None``: each process that reads it sees a start of its own. It lets processes that
            measure at the same time divide one energy instead of each its own view of it.
        name: What a person calls it, e.g. the model of the board; becomes ``hw.name``.
        parent: The id of the device that contains this one; becomes ``hw.parent``.
        scope: What the counter covers where that is not the device alone, e.g. ``module`` on Grace Hopper (CPU and GPU) or
            ``board`` for a MIG slice (the whole parent board: an upper bound).
    """

    id: str
    type: str
    method: str
    nature: Nature = "measured"
    tick_s: float | None = None
    max_power_w: float | None = None
    min_power_w: float = 0.0
    resolution_j: float = 0.0
    sharing: Sharing = "exclusive"
    host_range_j: float | None = None
    name: str | None = None
    parent: str | None = None
    scope: str | None = None

    def check(self) -> None:
        """Whether this can be worked with.

        Raises:
            ValueError: A field is of another kind than is said here; the message names it.
        """
        for name in ("id", "type", "method"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"the channel's {name} must be text that is not empty, not {getattr(self, name)!r}")
        for name, words in (("nature", get_args(Nature)), ("sharing", get_args(Sharing))):
            if getattr(self, name) not in words:
                raise ValueError(f"{self.id}: {name}={getattr(self, name)!r}: expected one of {', '.join(words)}")
        for name in ("name", "parent", "scope"):
            if not (getattr(self, name) is None or isinstance(getattr(self, name), str)):
                raise ValueError(f"{self.id}: {name}={getattr(self, name)!r}: expected text or None")
        for name, unknown, endless in (
            ("tick_s", True, False),
            ("max_power_w", True, True),
            ("min_power_w", False, False),
            ("resolution_j", False, False),
            ("host_range_j", True, True),
        ):
            value = getattr(self, name)
            if value is None and unknown:
                continue
            known = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
            if not known or (math.isinf(value) and not endless):
                raise ValueError(f"{self.id}: {name}={value!r}: expected a number >= 0{' or None' if unknown else ''}")
        if self.tick_s is not None and self.tick_s > _LONGEST_TICK_S:
            raise ValueError(f"{self.id}: tick_s={self.tick_s!r}: expected seconds, {_LONGEST_TICK_S:g} at the most")
        if self.max_power_w is not None and self.max_power_w < self.min_power_w:
            raise ValueError(f"{self.id}: max_power_w={self.max_power_w!r} is below min_power_w={self.min_power_w!r}")


@dataclass(frozen=True, slots=True)
class Reading:
    """What one channel's counter showed: cumulative joules since some fixed but arbitrary start.

    Args:
        channel_id: The :class:`Channel` that was read.
        energy_j: Cumulative joules; ``None`` if the device did not answer, which makes a gap and never a zero.
        low_j: For a model, the same integral with its lower estimate of power; ``None`` for a counter.
        high_j: For a model, the same integral with its upper estimate of power; ``None`` for a counter.
        error: Why ``energy_j`` is ``None``.
    """

    channel_id: str
    energy_j: float | None
    low_j: float | None = None
    high_j: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Impact:
    """What joules and seconds cost. A field is ``None`` while a factor for it is not known; :attr:`reasons` says why.

    Args:
        carbon_g: Operational emissions, location-based, gCO2e; power usage effectiveness (PUE) included where it is known.
        carbon_market_g: The same with the market-based factor that the user gave.
        embodied_g: Share of the hardware's manufacture, gCO2e.
        water_l: Water consumed on site and by the generation of the electricity, litres.
        water_onsite_l: The part of it that is consumed on site; ``None`` if that is unknown.
        cost: Price of the electricity, in ``currency``.
        compute_cost: Rent of the machine, or its purchase price spread over its lifetime, in ``currency``.
        margin: Value of the functional units less these costs, in ``currency``; a rent contains the electricity.
        currency: ISO 4217 code.
        damage_usd: Social cost of the carbon (operational, and embodied where known), USD of 2020.
        health_daly: Disability-adjusted life years, from carbon and water.
        biodiversity_species_yr: Potentially lost species times years, from carbon and water.
        sci_g_per_unit: Software Carbon Intensity (ISO/IEC 21031:2024), gCO2e per functional unit: operational and, where it
            is known, embodied.
        nature: The weakest of the energy's nature and of the factors' that make carbon.
        completeness: ``operational`` or ``operational+embodied``: what ``sci_g_per_unit``, damage and the like contain.
        intervals: For each field that is known, its low and high end: the energy's interval times the factor's range.
        factors: The factors used.
        reasons: For what is unknown or left out, why, and which setting changes that.
    """

    carbon_g: float | None = None
    carbon_market_g: float | None = None
    embodied_g: float | None = None
    water_l: float | None = None
    water_onsite_l: float | None = None
    cost: float | None = None
    compute_cost: float | None = None
    margin: float | None = None
    currency: str | None = None
    damage_usd: float | None = None
    health_daly: float | None = None
    biodiversity_species_yr: float | None = None
    sci_g_per_unit: float | None = None
    nature: Nature | None = None
    completeness: str | None = None
    intervals: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    factors: tuple[Factor, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one finished region cost.

    Args:
        name: The operation.
        start_unix_ns: Wall-clock start, nanoseconds since 1970. Only a stamp; ``duration_s`` is monotonic.
        duration_s: From entering to leaving, seconds.
        energy_j: Inclusive: own energy plus that of the finished descendants in this process. Never sum it over spans.
        self_energy_j: What this region owes alone. The only one that may be summed over spans.
        energy_low_j: Lower end of the interval that holds the true ``energy_j``.
        energy_high_j: Upper end; ``None`` if no upper bound is known.
        self_energy_low_j: Lower end of the interval that holds the true ``self_energy_j``.
        self_energy_high_j: Upper end of it.
        energy_by_type: ``energy_j`` by ``hw.type``; sums to ``energy_j``.
        self_energy_by_type: ``self_energy_j`` by ``hw.type``; sums to ``self_energy_j``.
        nature: The weakest nature among the channels: ``measured``, ``calculated``, ``estimated``.
        method: The channels' methods, joined by ``+``; ``None`` if there was no channel.
        boundary: ``process``, ``cgroup`` or ``machine``.
        quality: See ``impactsdk.model.Quality`` and the README.
        coverage: Part of the duration for which the devices answered, 0 to 1.
        attribution: How shared devices were divided: ``exclusive``, ``cpu_time_share``, ``time_share``, joined by ``+``.
        scope: What is counted beside the devices themselves: ``module`` (a GPU with its CPU and memory), ``board`` (all of a
            board that is cut into MIG slices: an upper bound); ``None``: nothing.
        synced: For ``sync=True``: whether accelerators were waited for; ``None`` where that was not asked for.
        unit: The functional unit, e.g. ``sentence``.
        units: How many of them this region did; ``None`` if unknown.
        impact: What ``energy_j`` and the time of this region and its descendants cost. Never sum it over spans.
        self_impact: What ``self_energy_j`` and the region's own time cost: the one to be summed.
        self_duration_s: The region's own part of the time: ``duration_s`` less that of its descendants; regions that run at
            once share it. ``None`` if it is not known.
        trace_id: The span's trace, 32 hexadecimal digits; ``None`` without a recorded span.
        span_id: The span, 16 hexadecimal digits.
    """

    name: str
    start_unix_ns: int
    duration_s: float
    energy_j: float | None
    self_energy_j: float | None
    energy_low_j: float | None
    energy_high_j: float | None
    self_energy_low_j: float | None
    self_energy_high_j: float | None
    energy_by_type: dict[str, float]
    self_energy_by_type: dict[str, float]
    nature: Nature | None
    method: str | None
    boundary: Boundary
    quality: Quality
    coverage: float
    attribution: str | None = None
    scope: str | None = None
    unit: str | None = None
    units: float | None = None
    impact: Impact = field(default_factory=Impact)
    self_impact: Impact = field(default_factory=Impact)
    self_duration_s: float | None = None
    synced: bool | None = None
    trace_id: str | None = None
    span_id: str | None = None

    @property
    def power_w(self) -> float | None:
        """Mean inclusive power over the duration, watts."""
        return None if self.energy_j is None or self.duration_s <= 0 else self.energy_j / self.duration_s


@dataclass(frozen=True, slots=True)
class Operation:
    """The finished regions of one name, added up.

    Args:
        count: How many have finished.
        duration_s: Their durations, added; regions that overlap or nest count each.
        energy_j: Their *self* energies, added; ``None`` while no device answered.
        energy_by_type: The same by ``hw.type``.
        unit: The functional unit.
        units: How many of them were reported; ``None`` if none was ever.
        impact: What these joules and the regions' own time cost; per functional unit only where every call reported its units.
        self_duration_s: Their own parts of the time, added.
        counted: How many of the calls reported their units.
        inside_j: Joules of the regions that had finished inside of those: other operations' own, never to be added up. ``None``
            where that is not known, as of a journal.
    """

    count: int
    duration_s: float
    energy_j: float | None
    energy_by_type: dict[str, float]
    unit: str | None
    units: float | None
    impact: Impact = field(default_factory=Impact)
    self_duration_s: float = 0.0
    counted: int = 0
    inside_j: float | None = None

    @property
    def energy_per_unit_j(self) -> float | None:
        """Inclusive joules per functional unit, those of an epoch's steps too.

        ``None`` where a call has not reported its units: its joules have done some, too.
        """
        if self.energy_j is None or self.inside_j is None or not self.units or self.counted < self.count:
            return None
        return (self.energy_j + self.inside_j) / self.units


@dataclass(frozen=True, slots=True)
class Totals:
    """The account of a meter: ``attributed_j + unattributed_j + others_j`` is what the counters say was used.

    Args:
        channels: Per channel id, joules counted since the meter's first reading, up to the last settled instant. What a device
            shows that tells of a time before (``tick_s``) is taken to be half of that old.
        attributed_j: Self energy of all regions, open ones included.
        unattributed_j: Energy of this boundary while no region was open.
        others_j: What the machine used for someone else.
        operations: Per name, the finished regions.
        impact: What ``attributed_j + unattributed_j`` and the time since measuring began cost.
        duration_s: That time, seconds.
    """

    channels: dict[str, float]
    attributed_j: float
    unattributed_j: float
    others_j: float
    operations: dict[str, Operation]
    impact: Impact = field(default_factory=Impact)
    duration_s: float = 0.0
