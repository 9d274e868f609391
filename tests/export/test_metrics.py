"""Metrics come from the ledger: they add up, survive the meter, and have exemplars that lead to traces."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from impactsdk import Meter, Settings, semconv
from impactsdk.factor import Factor, Place
from impactsdk.testing import FakeClock, SimulatedSource


class Collector:
    def __init__(self, temporality: AggregationTemporality = AggregationTemporality.CUMULATIVE) -> None:
        self.reader = InMemoryMetricReader(preferred_temporality={ObservableCounter: temporality})
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        if data is None:
            return []
        found = [
            metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        assert len(found) <= 1, "two streams of one name"
        return list(found[0].data.data_points) if found else []

    def values(self, name: str, *keys: str) -> dict[Any, float]:
        values: dict[Any, float] = {}
        for point in self.points(name):
            key = tuple(point.attributes.get(key) for key in keys)
            assert key not in values
            values[key if len(keys) != 1 else key[0]] = point.value
        return values


@pytest.fixture
def collector(caplog: pytest.LogCaptureFixture) -> Iterator[Collector]:
    made = Collector()
    with caplog.at_level(logging.WARNING):
        yield made
    assert [record.getMessage() for record in caplog.records if record.name.startswith("opentelemetry")] == []
    made.provider.shutdown()


def _meter(collector: Collector, clock: FakeClock, **more: Any) -> Meter:
    sources: Any = [SimulatedSource(100.0), SimulatedSource(20.0, type="cpu", id="sim:cpu")]
    return Meter(Settings.load({}), sources=sources, meter_provider=collector.provider, clock=clock, **more)


def _work(meter: Meter, clock: FakeClock) -> None:
    with meter.measured("outer", unit="item") as region:
        region.add_units(4)
        clock.advance(1.0)
        with meter.measured("inner"):
            clock.advance(0.5)
    clock.advance(0.25)
    assert meter.flush()


def test_with_what_is_open_they_add_up_at_any_moment(collector: Collector) -> None:
    clock = FakeClock()
    meter = _meter(collector, clock)
    with meter.measured("epoch"):
        for _ in range(3):
            with meter.measured("step", span=False):
                clock.advance(1.0)
        clock.advance(2.0)
        assert meter.flush()
        devices_j = sum(collector.values("hw.energy", "hw.id").values())
        finished_j = sum(collector.values("impact.energy", "impact.operation", "impact.state", "hw.type").values())
        open_j = sum(collector.values("impact.open.energy", "hw.type").values())
        assert open_j == pytest.approx(devices_j - finished_j)
        assert open_j > 0
    clock.advance(1.0)
    assert meter.flush()
    assert sum(collector.values("impact.open.energy", "hw.type").values()) == 0.0
    meter.close()


def test_the_energies_of_operations_and_states_add_up_to_the_devices(collector: Collector) -> None:
    clock = FakeClock()
    with _meter(collector, clock) as meter:
        _work(meter, clock)
        devices = collector.values("hw.energy", "hw.id", "hw.type")
        assert devices == {("sim:0", "gpu"): pytest.approx(175.0), ("sim:cpu", "cpu"): pytest.approx(35.0)}
        shares = collector.values("impact.energy", "impact.operation", "hw.type", "impact.state")
        assert shares["outer", "gpu", "attributed"] == pytest.approx(100.0)
        assert shares["inner", "cpu", "attributed"] == pytest.approx(10.0)
        assert shares[None, "gpu", "unattributed"] == pytest.approx(25.0)
        assert math.fsum(shares.values()) == pytest.approx(math.fsum(devices.values()), rel=1e-9)
        assert collector.values("impact.operation.count", "impact.operation") == {"outer": 1, "inner": 1}
        units = collector.values("impact.functional_unit", "impact.operation", "impact.functional_unit.name")
        assert units == {("outer", "item"): 4}
        assert collector.values("impact.operation.counted", "impact.operation") == {"outer": 1}
        assert collector.values("hw.power", "hw.id") == {"sim:0": pytest.approx(100.0), "sim:cpu": pytest.approx(20.0)}
        assert all(value > 0 for value in collector.values("impact.sdk.sample.count", "impact.source").values())
        assert collector.values("impact.sdk.export.dropped") == {(): 0}


def test_every_name_and_attribute_is_listed(collector: Collector) -> None:
    listed = {value for name, value in vars(semconv).items() if name.isupper() and isinstance(value, str)}
    clock = FakeClock()
    with _meter(collector, clock) as meter:
        _work(meter, clock)
        data = collector.reader.get_metrics_data()
        assert data is not None
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        assert [scope.scope.name for scope in scopes] == ["impactsdk"]
        for metric in scopes[0].metrics:
            assert metric.name in listed
            assert metric.unit
            assert metric.description
            for point in metric.data.data_points:
                assert set(point.attributes or {}) <= listed


def test_the_last_values_are_there_after_the_meter_is_closed(collector: Collector) -> None:
    clock = FakeClock()
    meter = _meter(collector, clock)
    _work(meter, clock)
    with meter.measured("last"):
        clock.advance(1.0)
    meter.close()
    del meter
    shares = collector.values("impact.energy", "impact.operation", "hw.type", "impact.state")
    assert shares["last", "gpu", "attributed"] == pytest.approx(100.0)
    assert math.fsum(shares.values()) == pytest.approx(math.fsum(collector.values("hw.energy", "hw.id").values()), rel=1e-9)


def test_one_meter_after_another_on_one_provider_add_up(collector: Collector) -> None:
    for _ in range(3):
        clock = FakeClock()
        with _meter(collector, clock) as meter:
            _work(meter, clock)
    assert collector.values("impact.operation.count", "impact.operation") == {"outer": 3, "inner": 3}
    shares = collector.values("impact.energy", "impact.operation", "hw.type", "impact.state")
    assert shares["outer", "gpu", "attributed"] == pytest.approx(300.0)
    devices = collector.values("hw.energy", "hw.id")
    assert math.fsum(shares.values()) == pytest.approx(math.fsum(devices.values()), rel=1e-9)
    assert collector.values("hw.power", "hw.id") == {}, "nothing is read any more"


def test_two_meters_at_once_on_one_provider_add_up(collector: Collector) -> None:
    clocks = [FakeClock(), FakeClock()]
    with _meter(collector, clocks[0]) as one, _meter(collector, clocks[1]) as other:
        _work(one, clocks[0])
        _work(other, clocks[1])
        assert collector.values("impact.operation.count", "impact.operation") == {"outer": 2, "inner": 2}


def test_the_histogram_has_each_call_with_a_trace_as_exemplar(collector: Collector) -> None:
    clock = FakeClock()
    provider = TracerProvider(shutdown_on_exit=False)
    with _meter(collector, clock, tracer_provider=provider) as meter:
        with meter.measured("outer") as outer:
            clock.advance(1.0)
            with meter.measured("inner"):
                clock.advance(0.5)
        with meter.measured("step", span=False) as step:
            clock.advance(0.1)
        clock.advance(0.2)
        step.result()  # a flush would collect, and exemplars are given once
        points = {point.attributes["impact.operation"]: point for point in collector.points("impact.operation.energy")}
        assert points["outer"].sum == pytest.approx(180.0), "inclusive"
        assert points["inner"].sum == pytest.approx(60.0)
        assert points["step"].sum == pytest.approx(12.0)
        (exemplar,) = points["outer"].exemplars
        assert f"{exemplar.trace_id:032x}" == outer.result().trace_id
        assert f"{exemplar.span_id:016x}" == outer.result().span_id
        assert not points["step"].exemplars
    provider.shutdown()


def test_head_sampling_changes_no_metric(collector: Collector) -> None:
    clock = FakeClock()
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    with _meter(collector, clock, tracer_provider=provider) as meter:
        _work(meter, clock)
        shares = collector.values("impact.energy", "impact.operation", "hw.type", "impact.state")
        assert shares["outer", "gpu", "attributed"] == pytest.approx(100.0)
        assert {point.attributes["impact.operation"] for point in collector.points("impact.operation.energy")} == {
            "outer",
            "inner",
        }
    provider.shutdown()


def test_without_devices_there_are_counts_and_no_energies(collector: Collector) -> None:
    meter = Meter(Settings.load({}), sources=[], meter_provider=collector.provider)
    with meter, meter.measured("x"):
        pass
    assert collector.values("hw.energy", "hw.id") == {}
    assert collector.values("impact.energy", "impact.operation") == {}
    assert collector.values("impact.operation.count", "impact.operation") == {"x": 1}
    assert collector.points("impact.operation.energy") == []


class _Grid:
    """A live factor that may give way to an estimate."""

    name = "grid"
    trouble = None
    nature: Any = "measured"

    def factors(self, *, place: Place | None, unix_ns: int) -> list[Factor]:
        return [Factor(kind="carbon_intensity", value=60.0, unit="g{CO2e}/(kW.h)", source="grid", nature=self.nature)]

    def close(self) -> None: ...


_CHANGING = ("impact.carbon", "impact.water", "impact.cost", "impact.functional_unit")


@pytest.mark.parametrize("temporality", [AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE])
def test_what_describes_a_value_may_change_and_nothing_is_counted_again(temporality: AggregationTemporality) -> None:
    collector, clock, grid = Collector(temporality), FakeClock(), _Grid()
    settings = Settings.load({}, region="FR", wue=0.2, price_per_kwh=0.2)
    meter = Meter(settings, sources=[SimulatedSource(1000.0)], factors=[grid], meter_provider=collector.provider, clock=clock)
    added: dict[str, dict[Any, float]] = {name: {} for name in _CHANGING}
    for nature, unit in (("measured", None), ("measured", "row"), ("estimated", "row"), ("measured", "row")):
        grid.nature = nature
        clock.advance(7200.0)
        with meter.measured("x", unit=unit) as region:
            region.add_units(2)
            clock.advance(1.0)
        clock.advance(0.25)
        region.result()  # a flush would collect, and what is new is given once
        data = collector.reader.get_metrics_data()
        assert data is not None
        for metric in data.resource_metrics[0].scope_metrics[0].metrics:
            if metric.name not in _CHANGING:
                continue
            for point in metric.data.data_points:
                if point.attributes.get("impact.operation") == "x":
                    key, of = tuple(sorted(point.attributes.items())), added[metric.name]
                    before = of.get(key, 0.0) if temporality is AggregationTemporality.DELTA else 0.0
                    assert point.value >= 0.0
                    of[key] = before + point.value
    operation = meter.totals().operations["x"]
    impact = operation.impact
    whole = (
        (impact.carbon_g or 0.0) + (impact.embodied_g or 0.0),
        impact.water_l,
        (impact.cost or 0.0) + (impact.compute_cost or 0.0),
        operation.units,
    )
    assert [math.fsum(values.values()) for values in added.values()] == [pytest.approx(value) for value in whole]
    natures = {dict(key)["impact.nature"] for key in added["impact.carbon"]}
    assert len(natures) == 2, "what was found before keeps its name"
    meter.close()
    collector.provider.shutdown()
