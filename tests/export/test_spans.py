"""Spans: right parents, true durations, attributes with right values and listed names, and nothing lost by sampling."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler, TraceIdRatioBased

from impactsdk import DegradedWarning, Meter, Settings, semconv
from impactsdk.testing import FakeClock, SimulatedSource
from tests.kit import attributes, bench, conserved

LISTED = {value for name, value in vars(semconv).items() if name.isupper() and isinstance(value, str)}


def test_parents_are_right_among_foreign_spans() -> None:
    with bench() as here:
        with here.tracer.start_as_current_span("request"), here.measured("outer"):
            with here.tracer.start_as_current_span("query"), here.measured("inner"):
                pass
            with here.measured("second"):
                pass
        assert here.parent_of("request") is None
        assert here.parent_of("outer") == "request"
        assert here.parent_of("query") == "outer"
        assert here.parent_of("inner") == "query"
        assert here.parent_of("second") == "outer"


def test_a_span_ends_when_its_block_did_and_not_when_its_energy_was_known() -> None:
    clock = FakeClock(unix_s=1_700_000_000.0)
    with bench(sources=[SimulatedSource(100.0, tick_s=0.1)], clock=clock) as here:
        clock.advance(0.05)
        with here.measured("outer"):
            clock.advance(1.0)
            with here.measured("inner"):
                clock.advance(0.02)
        clock.advance(2.0)
        here.meter.flush()
        outer, inner = here.spans["outer"], here.spans["inner"]
        assert outer.start_time == 1_700_000_000_050_000_000
        assert outer.end_time == 1_700_000_001_070_000_000
        assert inner.start_time == 1_700_000_001_050_000_000
        assert inner.end_time == outer.end_time


def test_the_duration_is_monotonic_though_the_wall_clock_is_set_back() -> None:
    class Jumping(FakeClock):
        offset_ns = 0

        def unix_ns(self) -> int:
            return super().unix_ns() + self.offset_ns

    clock = Jumping()
    with bench(clock=clock) as here:
        with here.measured("x"):
            clock.advance(1.0)
            clock.offset_ns = -3_600_000_000_000
        clock.advance(0.2)
        span = here.spans["x"]
        assert span.end_time is not None
        assert span.start_time is not None
        assert span.end_time - span.start_time == 1_000_000_000


def test_all_attributes_have_the_values_of_the_measurement() -> None:
    clock = FakeClock()
    sources: Any = [SimulatedSource(100.0), SimulatedSource(40.0, type="cpu", id="sim:1", nature="estimated")]
    with bench(sources=sources, clock=clock) as here:
        with here.measured("outer", unit="sentence", attributes={"epoch": 3}) as region:
            region.add_units(32)
            clock.advance(1.0)
            with here.measured("inner"):
                clock.advance(0.5)
        clock.advance(0.3)
        result = region.result()
        span = here.spans["outer"]
        found = attributes(span)
        assert found["epoch"] == 3
        assert found["impact.operation"] == "outer"
        assert found["impact.energy.inclusive"] == pytest.approx(210.0) == result.energy_j
        assert found["impact.energy.self"] == pytest.approx(140.0) == result.self_energy_j
        assert found["impact.energy.gpu"] == pytest.approx(100.0)
        assert found["impact.energy.cpu"] == pytest.approx(40.0)
        assert found["impact.energy.self_low"] <= found["impact.energy.self"] <= found["impact.energy.self_high"]
        assert found["impact.energy.inclusive_low"] <= 210.0 + 1e-9
        assert found["impact.energy.inclusive_high"] >= 210.0 - 1e-9
        assert found["impact.power.mean"] == pytest.approx(140.0)
        assert found["impact.coverage"] == 1.0
        assert found["impact.quality"] == "estimated"
        assert found["impact.nature"] == "estimated"
        assert found["impact.method"] == "simulated"
        assert found["impact.boundary"] == "process"
        assert found["impact.completeness"] == "operational+embodied"
        assert found["impact.attribution"] == "exclusive"
        assert found["impact.functional_unit.name"] == "sentence"
        assert found["impact.functional_unit.count"] == 32
        ours = {name for name in found if name.startswith(("impact.", "hw.", "error."))}
        by_type = {semconv.ENERGY_TYPE_PREFIX + kind for kind in ("gpu", "cpu")}
        assert ours <= LISTED | by_type
        assert (result.trace_id, result.span_id) == (f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}")


def test_what_is_unknown_is_left_out_of_a_span() -> None:
    with bench(sources=[]) as here:
        with here.measured("x"):
            pass
        found = attributes(here.spans["x"])
        assert found["impact.quality"] == "absent"
        assert found["impact.coverage"] == 0.0
        assert not [
            name for name in found if name.startswith(("impact.energy", "impact.power", "impact.nature", "impact.method"))
        ]


def test_self_energies_of_all_spans_add_up_to_what_was_attributed() -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:
        with here.measured("a"):
            clock.advance(0.1)
            for _ in range(3):
                with here.measured("b"):
                    clock.advance(0.2)
                    with here.measured("c"):
                        clock.advance(0.05)
        clock.advance(0.3)
        totals = here.totals()
        own = math.fsum(attributes(span)["impact.energy.self"] for span in here.all_spans)
        assert own == pytest.approx(totals.attributed_j, rel=1e-9)
        conserved(totals)


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, TraceIdRatioBased(0.01), ALWAYS_ON], ids=["off", "1%", "on"])
def test_sampling_changes_no_total(sampler: Sampler) -> None:
    clock = FakeClock()
    with bench(clock=clock, sampler=sampler) as here:
        for _ in range(50):
            with here.measured("x") as region, here.measured("y"):
                clock.advance(0.01)
        clock.advance(0.3)
        totals = here.totals()
        assert totals.operations["y"].energy_j == pytest.approx(50.0)
        assert totals.operations["x"].count == 50
        assert region.result().energy_j == pytest.approx(1.0)
        conserved(totals)
        if sampler is ALWAYS_OFF:
            assert here.all_spans == ()


def test_a_measurement_names_no_span_that_was_not_recorded() -> None:
    with bench(sampler=ALWAYS_OFF) as here:
        with here.tracer.start_as_current_span("of the application"), here.measured("x") as region:
            pass
        assert (region.result().trace_id, region.result().span_id) == (None, None)


def test_the_user_may_write_on_the_current_span_and_even_end_it(caplog: pytest.LogCaptureFixture) -> None:
    with bench() as here:
        with here.measured("x"):
            trace.get_current_span().set_attribute("theirs", 1)
        assert attributes(here.spans["x"])["theirs"] == 1
        with caplog.at_level(logging.CRITICAL, logger="opentelemetry.sdk.trace"), here.measured("y"):
            trace.get_current_span().end()
        assert here.totals().operations["y"].count == 1


def test_a_processor_that_fails_is_told_once_and_loses_no_joule() -> None:
    class Failing(SpanProcessor):
        def on_end(self, span: object) -> None:
            raise RuntimeError("no backend")

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return True  # older SDKs take what the base class returns for a failure

    with bench() as here:
        here.provider.add_span_processor(Failing())
        with pytest.warns(DegradedWarning, match="could not be handed on") as caught:
            for _ in range(3):
                with here.measured("x") as region:
                    pass
            totals = here.totals()
        assert len(caught) == 1
        assert totals.operations["x"].count == 3
        assert region.result().energy_j is not None
        conserved(totals)


def test_a_tracer_that_fails_is_told_once_and_the_function_runs() -> None:
    class Failing(trace.NoOpTracer):
        def start_span(self, *args: object, **kwargs: object) -> trace.Span:
            raise RuntimeError("no tracer")

    class Provider(trace.NoOpTracerProvider):
        def get_tracer(self, *args: object, **kwargs: object) -> trace.Tracer:
            return Failing()

    with Meter(Settings.load({}), sources=[SimulatedSource(100.0)], tracer_provider=Provider()) as meter:
        with pytest.warns(DegradedWarning, match="could not start a span") as caught:
            for _ in range(3):
                assert meter.measured("x")(lambda: 7)() == 7
        assert len(caught) == 1
        meter.flush()
        assert meter.totals().operations["x"].count == 3


def test_a_processor_that_is_slow_holds_up_no_caller() -> None:
    class Slow(SpanProcessor):
        def on_end(self, span: object) -> None:
            time.sleep(0.05)

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return True

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Slow())
    with Meter(Settings.load({}), sources=[SimulatedSource(100.0)], tracer_provider=provider) as meter:
        function = meter.measured("x")(lambda: None)
        function()
        begun = time.thread_time()
        for _ in range(10):
            function()
        assert time.thread_time() - begun < 0.5
        assert meter.flush()
        assert meter.totals().operations["x"].count == 11


@contextmanager
def limit_of_attributes(limit: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", limit)
        yield


@pytest.mark.parametrize(("given", "ours"), [(3, 13), (15, 1), (16, 0), (40, 0)])
def test_where_a_span_has_a_limit_of_attributes_ours_push_out_none_of_the_users(
    given: int, ours: int, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = {f"key {number}": number for number in range(given)}
    with limit_of_attributes("16"), bench() as here:
        with here.measured("x", attributes=theirs) as region:
            caplog.clear()  # what the SDK says of more than 16 of the user's own
        assert here.totals().operations["x"].count == 1
        span = here.spans["x"]
        found = attributes(span)
        assert {name for name in found if name.startswith("key ")} == set(list(theirs)[-16:])
        assert len(found) == min(given, 16) + ours
        assert ("impact.energy.self" in found) is (ours > 0)
        assert {"impact.quality", "impact.energy.inclusive_high"} <= found.keys() or ours < 13
        assert span.dropped_attributes > max(0, given - 16)
        assert not caplog.records
        assert region.result().energy_j is not None


def test_a_span_without_a_limit_takes_all_of_ours() -> None:
    with limit_of_attributes(""), bench() as here:
        with here.measured("x", attributes={"theirs": 1}):
            pass
        assert {"theirs", "impact.energy.self", "impact.energy.gpu"} <= attributes(here.spans["x"]).keys()
