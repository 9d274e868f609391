"""The ledger as OpenTelemetry metrics: observable instruments, read when the user's reader asks, and one histogram.

Totals come from the ledger and not from spans, so sampling, queue overflow and lost exports cannot change them.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Protocol

from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import Span

from impactsdk import semconv
from impactsdk.export import views
from impactsdk.export.streams import Attributes, Streams
from impactsdk.export.views import Snapshot

__all__ = ["Account", "Instruments", "instruments_on"]

_ONE_COLLECTION_S = 0.1
"""A collection takes a few milliseconds; what comes later is another one."""
_BUCKETS_J = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6)


_SHOWN: tuple[tuple[str, str, views.View, str, str], ...] = (
    ("counter", semconv.METRIC_HW_ENERGY, views.hw_energy, "J", "Energy that the device has used since measuring began"),
    ("gauge", semconv.METRIC_HW_POWER, views.hw_power, "W", "Power between the last two readings"),
    ("gauge", semconv.METRIC_GPU_UTILIZATION, views.utilization, "1", "Part of the time in which the board was busy"),
    (
        "counter",
        semconv.METRIC_ENERGY,
        views.energy,
        "J",
        "Own energy of each operation, and of none",
    ),
    ("up_down_counter", semconv.METRIC_OPEN_ENERGY, views.open_energy, "J", "Own energy of regions that are still open"),
    ("counter", semconv.METRIC_CARBON, views.carbon, "g{CO2e}", "Operational and embodied emissions of each operation"),
    ("counter", semconv.METRIC_WATER, views.water, "L", "Water consumed on site and by generation"),
    ("counter", semconv.METRIC_COST, views.cost, "{currency}", "Price of electricity and of computers"),
    ("gauge", semconv.METRIC_CARBON_INTENSITY, views.intensity, "g{CO2e}/(kW.h)", "The factor that is in force"),
    ("counter", semconv.METRIC_OPERATION_DURATION, views.durations, "s", "Durations of the finished calls, added"),
    (
        "counter",
        semconv.METRIC_OPERATION_OWN_TIME,
        views.own_times,
        "s",
        "Own time of each operation, and of none",
    ),
    ("counter", semconv.METRIC_OPERATION_COUNT, views.counts, "{call}", "Finished calls"),
    ("counter", semconv.METRIC_OPERATION_COUNTED, views.counted, "{call}", "Finished calls that reported their units"),
    ("counter", semconv.METRIC_FUNCTIONAL_UNITS, views.units, "{unit}", "Functional units that each operation reported"),
    ("counter", semconv.METRIC_SDK_SAMPLES, views.samples, "{sample}", "Rounds of readings"),
    ("counter", semconv.METRIC_SDK_CPU_TIME, views.cpu_time, "s", "CPU time of the sampler's thread: our own cost"),
    ("counter", semconv.METRIC_SDK_DROPPED, views.dropped, "{span}", "Spans that could not be exported or written"),
)
"""Instrument, name, what it shows, unit, description. The first takes the values of a collection for all."""
_DESCRIBED = frozenset((views.carbon, views.water, views.cost, views.units))
"""The counters of which a value's description may change while it grows."""


class Account(Protocol):
    """What is measured by: a session."""

    def snapshot(self) -> Snapshot:
        """Everything at the last settled instant."""


_Sums = dict[Attributes, float]
_NEVER: tuple[float, dict[views.View, _Sums], list[tuple[Snapshot, Streams]]] = (-math.inf, {}, [])
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
        self._accounts: dict[Account, Streams] = {}
        self._past: dict[views.View, _Sums] = {}
        self._lock = threading.Lock()
        self._look = _NEVER

        def observe(view: views.View) -> Callable[[CallbackOptions], Iterable[Observation]]:
            def callback(options: CallbackOptions) -> Iterable[Observation]:
                past, snapshots = self._looked(anew=view is _SHOWN[0][2])
                sums = dict(past.get(view, {}))
                with self._lock:  # two readers may collect at the same time
                    for snapshot, streams in snapshots:
                        _add(sums, view, snapshot, streams)
                return [Observation(value, dict(attributes)) for attributes, value in sums.items()]

            return callback

        meter = provider.get_meter(semconv.SCOPE_NAME, version, schema_url=semconv.SCHEMA_URL)
        create = {
            "counter": meter.create_observable_counter,
            "gauge": meter.create_observable_gauge,
            "up_down_counter": meter.create_observable_up_down_counter,
        }
        for kind, name, view, unit, text in _SHOWN:
            create[kind](name, [observe(view)], unit, text)
        described = ("J", "Inclusive energy of one call")
        try:
            self._histogram = meter.create_histogram(
                semconv.METRIC_OPERATION_ENERGY, *described, explicit_bucket_boundaries_advisory=_BUCKETS_J
            )
        except TypeError:  # a provider that does not know the advisory parameter
            self._histogram = meter.create_histogram(semconv.METRIC_OPERATION_ENERGY, *described)

    def _looked(self, *, anew: bool) -> tuple[dict[views.View, _Sums], list[tuple[Snapshot, Streams]]]:
        """The same values for all instruments of one collection, so that they add up; the first instrument takes them."""
        taken_s, past, snapshots = self._look
        if anew or time.monotonic() - taken_s > _ONE_COLLECTION_S:
            with self._lock:
                accounts, past = dict(self._accounts), {view: dict(sums) for view, sums in self._past.items()}
            snapshots = [(account.snapshot(), streams) for account, streams in accounts.items()]
            self._look = (time.monotonic(), past, snapshots)
        return past, snapshots

    def at_ns(self) -> int | None:
        """The instant on the wall clock whose values were collected last; ``None`` if there are none."""
        return max((snapshot.unix_ns for snapshot, _ in self._look[2]), default=None)

    def attach(self, account: Account) -> None:
        """Show what this session measures, too."""
        with self._lock:
            self._accounts[account] = Streams()
            self._look = _NEVER

    def retire(self, account: Account) -> None:
        """A session is closed: keep its last values."""
        last = account.snapshot()
        with self._lock:
            self._look = _NEVER
            streams = self._accounts.pop(account, None)
            if streams is not None:
                for kind, _, view, _, _ in _SHOWN:
                    if kind == "counter":
                        _add(self._past.setdefault(view, {}), view, last, streams)

    def forsake(self) -> None:
        """In the child of a fork: all that was measured so far is the parent's, and is shown by it."""
        self._lock = threading.Lock()
        self._accounts, self._past, self._look = {}, {}, _NEVER

    def record(self, name: str, energy_j: float, span: Span | None) -> None:
        """One finished call; its span, if sampled, becomes the exemplar."""
        context = None if span is None else trace.set_span_in_context(span)
        with contextlib.suppress(TypeError):
            self._histogram.record(energy_j, {semconv.OPERATION: name}, context)


def _add(sums: _Sums, view: views.View, snapshot: Snapshot, streams: Streams) -> None:
    seen: Iterable[tuple[Attributes, float]]
    seen = [(tuple((observation.attributes or {}).items()), observation.value) for observation in view(snapshot)]
    for attributes, value in streams.divide(view, seen) if view in _DESCRIBED else seen:
        sums[attributes] = sums.get(attributes, 0) + value
