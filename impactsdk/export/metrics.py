"""The ledger as OpenTelemetry metrics: observable instruments, read when the user's reader asks, and one histogram.

Totals come from the ledger and not from spans, so sampling, queue overflow and lost exports cannot change them.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import Span

from impactsdk import semconv
from impactsdk.model import Boundary, Channel, Impact, Totals
from impactsdk.rates import Rates

__all__ = ["Account", "Instruments", "Snapshot", "channel_attributes", "instruments_on"]

_ONE_COLLECTION_S = 0.1
"""A collection takes a few milliseconds; what comes later is another one."""
_BUCKETS_J = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the metrics show, at one settled instant."""

    totals: Totals
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


class Account(Protocol):
    """What is measured by: a session."""

    def snapshot(self) -> Snapshot:
        """Everything at the last settled instant."""


_View = Callable[[Snapshot], Iterable[Observation]]
_Sums = dict[tuple[tuple[str, Any], ...], float]
_NEVER: tuple[float, dict[_View, _Sums], list[Snapshot]] = (-math.inf, {}, [])
_of_provider: weakref.WeakKeyDictionary[MeterProvider, Instruments] = weakref.WeakKeyDictionary()


def instruments_on(provider: MeterProvider, version: str) -> Instruments:
    """The instruments on a provider, made once: OpenTelemetry can neither unregister a callback nor have two of one name."""
    try:
        instruments = _of_provider.get(provider)
        if instruments is None:
            instruments = _of_provider[provider] = Instruments(provider, version)
    except TypeError:  # a provider of somebody else's that cannot be a key
        instruments = Instruments(provider, version)
    return instruments


class Instruments:
    """Our instruments on one MeterProvider, for all sessions that use it, one after another or at the same time.

    A counter shows the sum over the sessions and keeps what those that are closed have measured: the application's provider
    collects a last time after us.
    """

    def __init__(self, provider: MeterProvider, version: str) -> None:
        self._accounts: list[Account] = []
        self._past: dict[_View, _Sums] = {}
        self._lock = threading.Lock()
        self._look = _NEVER

        def observe(view: _View) -> Callable[[CallbackOptions], Iterable[Observation]]:
            def callback(options: CallbackOptions) -> Iterable[Observation]:
                past, snapshots = self._looked(anew=view is _hw_energy)
                sums = dict(past.get(view, {}))
                for snapshot in snapshots:
                    _add(sums, view(snapshot))
                return [Observation(value, dict(attributes)) for attributes, value in sums.items()]

            return callback

        meter = provider.get_meter(semconv.SCOPE_NAME, version, schema_url=semconv.SCHEMA_URL)
        meter.create_observable_counter(
            semconv.METRIC_HW_ENERGY, [observe(_hw_energy)], "J", "Energy that the device has used since measuring began"
        )
        meter.create_observable_gauge(semconv.METRIC_HW_POWER, [observe(_hw_power)], "W", "Power between the last two readings")
        meter.create_observable_gauge(
            semconv.METRIC_GPU_UTILIZATION, [observe(_utilization)], "1", "Part of the time in which the board was busy"
        )
        meter.create_observable_counter(
            semconv.METRIC_ENERGY,
            [observe(_energy)],
            "J",
            "Own energy of each operation; with its states it adds up to hw.energy",
        )
        meter.create_observable_up_down_counter(
            semconv.METRIC_OPEN_ENERGY, [observe(_open_energy)], "J", "Own energy of regions that are still open"
        )
        meter.create_observable_counter(
            semconv.METRIC_CARBON, [observe(_carbon)], "g{CO2e}", "Operational and embodied emissions of each operation"
        )
        meter.create_observable_counter(
            semconv.METRIC_WATER, [observe(_water)], "L", "Water consumed on site and by generation"
        )
        meter.create_observable_counter(
            semconv.METRIC_COST, [observe(_cost)], "{currency}", "Price of electricity and of computers"
        )
        meter.create_observable_gauge(
            semconv.METRIC_CARBON_INTENSITY, [observe(_intensity)], "g{CO2e}/(kW.h)", "The factor that is in force"
        )
        meter.create_observable_counter(
            semconv.METRIC_OPERATION_DURATION, [observe(_durations)], "s", "Durations of the finished calls, added"
        )
        meter.create_observable_counter(
            semconv.METRIC_OPERATION_OWN_TIME,
            [observe(_own_times)],
            "s",
            "Own time of each operation; with its states, wall time",
        )
        meter.create_observable_counter(semconv.METRIC_OPERATION_COUNT, [observe(_counts)], "{call}", "Finished calls")
        meter.create_observable_counter(
            semconv.METRIC_FUNCTIONAL_UNITS, [observe(_units)], "{unit}", "Functional units done by each operation"
        )
        meter.create_observable_counter(semconv.METRIC_SDK_SAMPLES, [observe(_samples)], "{sample}", "Rounds of readings")
        meter.create_observable_counter(
            semconv.METRIC_SDK_CPU_TIME, [observe(_cpu_time)], "s", "CPU time of the sampler's thread: what measuring costs"
        )
        meter.create_observable_counter(
            semconv.METRIC_SDK_DROPPED, [observe(_dropped)], "{span}", "Spans that could not be exported or written"
        )
        described = ("J", "Inclusive energy of one call")
        try:
            self._histogram = meter.create_histogram(
                semconv.METRIC_OPERATION_ENERGY, *described, explicit_bucket_boundaries_advisory=_BUCKETS_J
            )
        except TypeError:  # a provider that does not know the advisory parameter
            self._histogram = meter.create_histogram(semconv.METRIC_OPERATION_ENERGY, *described)

    def _looked(self, *, anew: bool) -> tuple[dict[_View, _Sums], list[Snapshot]]:
        """The same values for all instruments of one collection, so that they add up; the first instrument takes them."""
        taken_s, past, snapshots = self._look
        if anew or time.monotonic() - taken_s > _ONE_COLLECTION_S:
            with self._lock:
                accounts, past = list(self._accounts), {view: dict(sums) for view, sums in self._past.items()}
            snapshots = [account.snapshot() for account in accounts]
            self._look = (time.monotonic(), past, snapshots)
        return past, snapshots

    def attach(self, account: Account) -> None:
        """Show what this session measures, too."""
        with self._lock:
            self._accounts.append(account)
            self._look = _NEVER

    def retire(self, account: Account) -> None:
        """A session is closed: keep its last values."""
        last = account.snapshot()
        with self._lock:
            self._look = _NEVER
            if account in self._accounts:
                self._accounts.remove(account)
                for view in _COUNTERS:
                    _add(self._past.setdefault(view, {}), view(last))

    def forsake(self) -> None:
        """In the child of a fork: all that was measured so far is the parent's, and is shown by it."""
        self._lock = threading.Lock()
        self._accounts, self._past, self._look = [], {}, _NEVER

    def record(self, name: str, energy_j: float, span: Span | None) -> None:
        """One finished call; its span, if sampled, becomes the exemplar."""
        context = None if span is None else trace.set_span_in_context(span)
        with contextlib.suppress(TypeError):
            self._histogram.record(energy_j, {semconv.OPERATION: name}, context)


def _add(sums: _Sums, observations: Iterable[Observation]) -> None:
    for seen in observations:
        attributes = tuple((seen.attributes or {}).items())
        sums[attributes] = sums.get(attributes, 0) + seen.value


def _hw_energy(snapshot: Snapshot) -> Iterator[Observation]:
    for channel in snapshot.channels:
        if channel.id in snapshot.totals.channels:
            yield Observation(snapshot.totals.channels[channel.id], channel_attributes(channel))


def _hw_power(snapshot: Snapshot) -> Iterator[Observation]:
    for channel in snapshot.channels:
        if channel.id in snapshot.power_w:
            yield Observation(snapshot.power_w[channel.id], channel_attributes(channel))


def _utilization(snapshot: Snapshot) -> Iterator[Observation]:
    for channel in snapshot.channels:
        if channel.type == "gpu" and channel.id in snapshot.utilization:
            yield Observation(snapshot.utilization[channel.id], channel_attributes(channel))


def _energy(snapshot: Snapshot) -> Iterator[Observation]:
    fixed = {semconv.BOUNDARY: snapshot.boundary}
    for name, operation in snapshot.totals.operations.items():
        for kind, energy_j in operation.energy_by_type.items():
            yield Observation(energy_j, {semconv.OPERATION: name, semconv.HW_TYPE: kind, semconv.STATE: "attributed", **fixed})
    for state, by_type in snapshot.by_type_j.items():
        if state != "attributed":
            for kind, energy_j in by_type.items():
                yield Observation(energy_j, {semconv.HW_TYPE: kind, semconv.STATE: state, **fixed})


def _open_energy(snapshot: Snapshot) -> Iterator[Observation]:
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
    for name, operation in snapshot.totals.operations.items():
        unit = {} if operation.unit is None else {semconv.FUNCTIONAL_UNIT_NAME: operation.unit}
        yield operation.impact, {semconv.OPERATION: name, semconv.STATE: "attributed", **unit, **fixed}
    yield snapshot.unattributed, {semconv.STATE: "unattributed", **fixed}


def _declared(impact: Impact, attributes: dict[str, Any]) -> dict[str, Any]:
    return {**attributes, semconv.NATURE: impact.nature, semconv.COMPLETENESS: impact.completeness}


def _carbon(snapshot: Snapshot) -> Iterator[Observation]:
    for impact, attributes in _impacts(snapshot):
        for scope, carbon_g in (("operational", impact.carbon_g), ("embodied", impact.embodied_g)):
            if carbon_g is not None:
                yield Observation(carbon_g, {**_declared(impact, attributes), semconv.IMPACT_SCOPE: scope})


def _water(snapshot: Snapshot) -> Iterator[Observation]:
    for impact, attributes in _impacts(snapshot):
        generation_l = impact.water_l
        if generation_l is not None and impact.water_onsite_l is not None:
            generation_l -= impact.water_onsite_l
        for kind, water_l in (("onsite", impact.water_onsite_l), ("generation", generation_l)):
            if water_l is not None:
                yield Observation(water_l, {**_declared(impact, attributes), semconv.WATER_KIND: kind})


def _cost(snapshot: Snapshot) -> Iterator[Observation]:
    for impact, attributes in _impacts(snapshot):
        for kind, cost in (("electricity", impact.cost), ("compute", impact.compute_cost)):
            if cost is not None:
                money = {semconv.COST_KIND: kind, semconv.COST_CURRENCY: impact.currency}
                yield Observation(cost, {**_declared(impact, attributes), **money})


def _intensity(snapshot: Snapshot) -> Iterator[Observation]:
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


def _durations(snapshot: Snapshot) -> Iterator[Observation]:
    for name, operation in snapshot.totals.operations.items():
        yield Observation(operation.duration_s, {semconv.OPERATION: name})


def _own_times(snapshot: Snapshot) -> Iterator[Observation]:
    for name, operation in snapshot.totals.operations.items():
        yield Observation(operation.self_duration_s, {semconv.OPERATION: name, semconv.STATE: "attributed"})
    yield Observation(snapshot.unattributed_s, {semconv.STATE: "unattributed"})


def _counts(snapshot: Snapshot) -> Iterator[Observation]:
    for name, operation in snapshot.totals.operations.items():
        yield Observation(operation.count, {semconv.OPERATION: name})


def _units(snapshot: Snapshot) -> Iterator[Observation]:
    for name, operation in snapshot.totals.operations.items():
        if operation.units is not None:
            unit = {} if operation.unit is None else {semconv.FUNCTIONAL_UNIT_NAME: operation.unit}
            yield Observation(operation.units, {semconv.OPERATION: name, **unit})


def _samples(snapshot: Snapshot) -> Iterator[Observation]:
    for source, count in snapshot.samples.items():
        yield Observation(count, {semconv.SOURCE: source})


def _cpu_time(snapshot: Snapshot) -> Iterator[Observation]:
    yield Observation(snapshot.sampler_cpu_s)


def _dropped(snapshot: Snapshot) -> Iterator[Observation]:
    yield Observation(snapshot.dropped)


_COUNTERS: tuple[_View, ...] = (
    _hw_energy,
    _energy,
    _carbon,
    _water,
    _cost,
    _durations,
    _own_times,
    _counts,
    _units,
    _samples,
    _cpu_time,
    _dropped,
)
