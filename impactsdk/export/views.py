"""The account of a session at one instant, and what each metric shows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.metrics import Observation

from impactsdk import semconv
from impactsdk.model import Boundary, Channel, Impact, Totals
from impactsdk.rates import Rates

__all__ = [
    "Snapshot",
    "View",
    "carbon",
    "channel_attributes",
    "cost",
    "counted",
    "counts",
    "cpu_time",
    "dropped",
    "durations",
    "energy",
    "hw_energy",
    "hw_power",
    "intensity",
    "open_energy",
    "own_times",
    "samples",
    "units",
    "utilization",
    "water",
]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the metrics show, at one settled instant."""

    totals: Totals
    unix_ns: int
    """That instant, on the wall clock."""
    channels: tuple[Channel, ...]
    power_w: dict[str, float]
    utilization: dict[str, float]
    """Per channel, the part of the time in which the device was busy."""
    by_type_j: dict[str, dict[str, float]]
    """State (``attributed``, ``unattributed``, ``others``), then ``hw.type``: joules."""
    unattributed: Impact
    """What the energy and the time in which no region was open cost."""
    unattributed_s: float
    """How long that was."""
    rates: Rates
    """The factors that hold now."""
    boundary: Boundary
    samples: dict[str, int]
    sampler_cpu_s: float
    dropped: int


def channel_attributes(channel: Channel) -> dict[str, Any]:
    """The attributes of a device metric."""
    values = {
        semconv.HW_ID: channel.id,
        semconv.HW_TYPE: channel.type,
        semconv.HW_NAME: channel.name,
        semconv.HW_PARENT: channel.parent,
        semconv.HW_SCOPE: channel.scope,
        semconv.METHOD: channel.method,
        semconv.NATURE: channel.nature,
    }
    return {name: value for name, value in values.items() if value is not None}


View = Callable[[Snapshot], Iterable[Observation]]


def hw_energy(snapshot: Snapshot) -> Iterator[Observation]:
    """What each device has used."""
    for channel in snapshot.channels:
        if channel.id in snapshot.totals.channels:
            yield Observation(snapshot.totals.channels[channel.id], channel_attributes(channel))


def hw_power(snapshot: Snapshot) -> Iterator[Observation]:
    """Its power between the last two readings."""
    for channel in snapshot.channels:
        if channel.id in snapshot.power_w:
            yield Observation(snapshot.power_w[channel.id], channel_attributes(channel))


def utilization(snapshot: Snapshot) -> Iterator[Observation]:
    """How busy each board was."""
    for channel in snapshot.channels:
        if channel.type == "gpu" and channel.id in snapshot.utilization:
            yield Observation(snapshot.utilization[channel.id], channel_attributes(channel))


def energy(snapshot: Snapshot) -> Iterator[Observation]:
    """What each operation owes, and what belongs to none."""
    fixed = {semconv.BOUNDARY: snapshot.boundary}
    # First what there is once: a reader that takes only so many sets of attributes lumps the last ones together.
    for state, by_type in snapshot.by_type_j.items():
        if state != "attributed":
            for kind, energy_j in by_type.items():
                yield Observation(energy_j, {semconv.HW_TYPE: kind, semconv.STATE: state, **fixed})
    for name, operation in snapshot.totals.operations.items():
        for kind, energy_j in operation.energy_by_type.items():
            yield Observation(energy_j, {semconv.OPERATION: name, semconv.HW_TYPE: kind, semconv.STATE: "attributed", **fixed})


def open_energy(snapshot: Snapshot) -> Iterator[Observation]:
    """What regions that are still open owe so far."""
    finished: dict[str, float] = {}
    for operation in snapshot.totals.operations.values():
        for kind, energy_j in operation.energy_by_type.items():
            finished[kind] = finished.get(kind, 0.0) + energy_j
    for kind, energy_j in snapshot.by_type_j.get("attributed", {}).items():
        rest_j = energy_j - finished.get(kind, 0.0)
        # What is left of rounding is nobody's.
        yield Observation(
            rest_j if rest_j > 1e-9 * energy_j else 0.0, {semconv.HW_TYPE: kind, semconv.BOUNDARY: snapshot.boundary}
        )


def _impacts(snapshot: Snapshot) -> Iterator[tuple[Impact, dict[str, Any]]]:
    """The impact of each operation, and of what belonged to none, with the declarations that go with each value."""
    fixed = {semconv.BOUNDARY: snapshot.boundary, semconv.METHOD: "+".join(dict.fromkeys(c.method for c in snapshot.channels))}
    yield snapshot.unattributed, {semconv.STATE: "unattributed", **fixed}
    for name, operation in snapshot.totals.operations.items():
        unit = {} if operation.unit is None else {semconv.FUNCTIONAL_UNIT_NAME: operation.unit}
        yield operation.impact, {semconv.OPERATION: name, semconv.STATE: "attributed", **unit, **fixed}


def _declared(impact: Impact, attributes: dict[str, Any]) -> dict[str, Any]:
    return {**attributes, semconv.NATURE: impact.nature, semconv.COMPLETENESS: impact.completeness}


def carbon(snapshot: Snapshot) -> Iterator[Observation]:
    """Operational and embodied emissions."""
    for impact, attributes in _impacts(snapshot):
        for scope, carbon_g in (("operational", impact.carbon_g), ("embodied", impact.embodied_g)):
            if carbon_g is not None:
                yield Observation(carbon_g, {**_declared(impact, attributes), semconv.IMPACT_SCOPE: scope})


def water(snapshot: Snapshot) -> Iterator[Observation]:
    """Water on site and of the generation."""
    for impact, attributes in _impacts(snapshot):
        generation_l = impact.water_l
        if generation_l is not None and impact.water_onsite_l is not None:
            generation_l -= impact.water_onsite_l
        for kind, water_l in (("onsite", impact.water_onsite_l), ("generation", generation_l)):
            if water_l is not None:
                yield Observation(water_l, {**_declared(impact, attributes), semconv.WATER_KIND: kind})


def cost(snapshot: Snapshot) -> Iterator[Observation]:
    """Electricity and computers."""
    for impact, attributes in _impacts(snapshot):
        for kind, cost in (("electricity", impact.cost), ("compute", impact.compute_cost)):
            if cost is not None:
                money = {semconv.COST_KIND: kind, semconv.COST_CURRENCY: impact.currency}
                yield Observation(cost, {**_declared(impact, attributes), **money})


def intensity(snapshot: Snapshot) -> Iterator[Observation]:
    """The factor that is in force."""
    for factor in snapshot.rates.factors:
        if factor.kind in ("carbon_intensity", "carbon_intensity_market"):
            values = {
                semconv.GRID_ZONE: factor.place,
                semconv.GRID_SIGNAL: "average",
                semconv.GRID_SCOPE: factor.scope,
                semconv.GRID_YEAR: factor.year,
                semconv.GRID_SOURCE: factor.source,
                semconv.NATURE: factor.nature,
            }
            yield Observation(factor.value, {name: value for name, value in values.items() if value is not None})


def durations(snapshot: Snapshot) -> Iterator[Observation]:
    """Durations of finished calls."""
    for name, operation in snapshot.totals.operations.items():
        yield Observation(operation.duration_s, {semconv.OPERATION: name})


def own_times(snapshot: Snapshot) -> Iterator[Observation]:
    """Own time, and the time outside."""
    yield Observation(snapshot.unattributed_s, {semconv.STATE: "unattributed"})
    for name, operation in snapshot.totals.operations.items():
        yield Observation(operation.self_duration_s, {semconv.OPERATION: name, semconv.STATE: "attributed"})


def counts(snapshot: Snapshot) -> Iterator[Observation]:
    """Finished calls."""
    for name, operation in snapshot.totals.operations.items():
        yield Observation(operation.count, {semconv.OPERATION: name})


def counted(snapshot: Snapshot) -> Iterator[Observation]:
    """Finished calls that reported their units: only where all did is energy over units a cost per unit."""
    for name, operation in snapshot.totals.operations.items():
        if operation.units is not None:
            yield Observation(operation.counted, {semconv.OPERATION: name})


def units(snapshot: Snapshot) -> Iterator[Observation]:
    """Functional units reported."""
    for name, operation in snapshot.totals.operations.items():
        if operation.units is not None:
            unit = {} if operation.unit is None else {semconv.FUNCTIONAL_UNIT_NAME: operation.unit}
            yield Observation(operation.units, {semconv.OPERATION: name, **unit})


def samples(snapshot: Snapshot) -> Iterator[Observation]:
    """Rounds of readings by source."""
    for source, count in snapshot.samples.items():
        yield Observation(count, {semconv.SOURCE: source})


def cpu_time(snapshot: Snapshot) -> Iterator[Observation]:
    """CPU time of the background thread."""
    yield Observation(snapshot.sampler_cpu_s)


def dropped(snapshot: Snapshot) -> Iterator[Observation]:
    """Spans that were lost."""
    yield Observation(snapshot.dropped)
