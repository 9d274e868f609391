"""Energy on the spans of other instrumentations."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, TraceIdRatioBased

from impactsdk import EnergySpanProcessor, Meter, Settings
from impactsdk.testing import FakeClock, SimulatedSource
from tests.kit import script


class App:
    """An application with a provider of its own and a meter that puts energy on its spans."""

    def __init__(self, meter: Meter, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
        self.meter, self.provider, self._exporter = meter, provider, exporter
        self.tracer = provider.get_tracer("of the application")

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.all_spans}

    @property
    def all_spans(self) -> tuple[ReadableSpan, ...]:
        self.provider.force_flush()
        return self._exporter.get_finished_spans()


@contextmanager
def app(*, clock: FakeClock | None = None, sampler: Any = None, **settings: Any) -> Iterator[App]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    meter = Meter(
        Settings.load({}, export="otel", **settings), sources=[SimulatedSource(100.0)], tracer_provider=provider, clock=clock
    )
    if not settings.get("enrich"):
        provider.add_span_processor(EnergySpanProcessor(SimpleSpanProcessor(exporter), meter))
    else:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        meter.enrich()
    try:
        yield App(meter, provider, exporter)
    finally:
        meter.close()
        provider.shutdown()


def of(span: ReadableSpan, name: str = "impact.energy.self") -> Any:
    return (span.attributes or {}).get(name)


def test_a_span_of_another_instrumentation_carries_the_energy_of_its_time() -> None:
    clock = FakeClock()
    with app(clock=clock) as here:
        with here.tracer.start_as_current_span("query", attributes={"db.system": "sqlite"}) as span:
            span.add_event("connected")
            clock.advance(2.0)
        clock.advance(1.0)
        found = here.spans["query"]
        assert of(found) == pytest.approx(200.0)
        assert of(found, "db.system") == "sqlite"
        assert of(found, "impact.quality") == "measured"
        assert [event.name for event in found.events] == ["connected"]
        assert found.context == span.get_span_context()
        assert found.instrumentation_scope.name == "of the application"
        assert found.end_time is not None


def test_spans_and_measured_regions_inside_each_other_share_each_joule_once() -> None:
    clock = FakeClock()
    with app(clock=clock) as here:
        with here.tracer.start_as_current_span("request"):
            clock.advance(1.0)
            with here.meter.measured("model"):
                clock.advance(2.0)
                with here.tracer.start_as_current_span("kernel"):
                    clock.advance(4.0)
                with here.meter.measured("step", span=False):
                    clock.advance(8.0)
        clock.advance(1.0)
        spans = here.spans
        own = {name: of(spans[name]) for name in ("request", "model", "kernel")}
        assert own == pytest.approx({"request": 100.0, "model": 200.0, "kernel": 400.0})
        assert of(spans["request"], "impact.energy.inclusive") == pytest.approx(1500.0)
        assert of(spans["model"], "impact.energy.inclusive") == pytest.approx(1400.0)
        totals = here.meter.totals()
        assert totals.attributed_j == pytest.approx(1500.0)
        assert math.fsum(operation.energy_j or 0.0 for operation in totals.operations.values()) == pytest.approx(1500.0)


def test_a_ledger_only_region_in_a_foreign_span_in_a_region_belongs_to_the_span() -> None:
    clock = FakeClock()
    with app(clock=clock) as here:
        with here.meter.measured("outer"), here.tracer.start_as_current_span("request"):
            with here.meter.measured("step", span=False):
                clock.advance(3.0)
            clock.advance(1.0)
        clock.advance(1.0)
        assert of(here.spans["request"]) == pytest.approx(100.0)
        assert of(here.spans["request"], "impact.energy.inclusive") == pytest.approx(400.0)
        assert of(here.spans["outer"]) == pytest.approx(0.0, abs=1e-9)


def test_a_span_that_continues_in_another_thread_keeps_its_parent() -> None:
    clock = FakeClock()
    with app(clock=clock) as here:
        with here.meter.measured("outer"):
            context = trace.set_span_in_context(trace.get_current_span())

            def work() -> None:
                with here.tracer.start_as_current_span("elsewhere", context=context):
                    clock.advance(2.0)

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        clock.advance(1.0)
        assert of(here.spans["elsewhere"]) == pytest.approx(200.0)
        assert of(here.spans["outer"], "impact.energy.inclusive") == pytest.approx(200.0)
        assert of(here.spans["outer"]) == pytest.approx(0.0, abs=1e-9)


def test_forty_thousand_spans_of_eight_threads_are_all_exported_once_with_energy() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    with Meter(Settings.load({}, export="none"), sources=[SimulatedSource(100.0)]) as meter:
        batch = BatchSpanProcessor(exporter, max_queue_size=100_000, schedule_delay_millis=200)
        provider.add_span_processor(EnergySpanProcessor(batch, meter))
        tracer = provider.get_tracer("app")

        def work() -> None:
            for _ in range(5_000):
                with tracer.start_as_current_span("request"):
                    pass

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert provider.force_flush(60_000)
        spans = exporter.get_finished_spans()
        assert len(spans) == len({span.context.span_id for span in spans}) == 40_000
        assert all(of(span, "impact.quality") is not None for span in spans)
        totals = meter.totals()
        assert totals.operations["request"].count == 40_000
        assert math.fsum(of(span) for span in spans) == pytest.approx(totals.attributed_j, rel=1e-9)
        provider.shutdown()


def test_asyncio_tasks_keep_their_own_parents() -> None:
    with app() as here:

        async def request(number: int) -> None:
            with here.tracer.start_as_current_span(f"request {number}"):
                await asyncio.sleep(0.02)
                with here.meter.measured(f"inside {number}"):
                    await asyncio.sleep(0.02)

        async def many() -> None:
            await asyncio.gather(*(request(number) for number in range(5)))

        asyncio.run(many())
        spans = here.spans
        for number in range(5):
            outer, inner = spans[f"request {number}"], spans[f"inside {number}"]
            assert inner.parent is not None
            assert inner.parent.span_id == outer.context.span_id
            together = of(outer) + of(inner)
            assert of(outer, "impact.energy.inclusive") == pytest.approx(together, rel=1e-9)
        assert math.fsum(of(span) for span in spans.values()) == pytest.approx(here.meter.totals().attributed_j, rel=1e-9)


@pytest.mark.parametrize(("sampler", "kept"), [(ALWAYS_OFF, 0), (TraceIdRatioBased(0.01), None), (None, 200)])
def test_the_totals_are_the_ledgers_whatever_the_sampler_drops(sampler: Any, kept: int | None) -> None:
    clock = FakeClock()
    with app(clock=clock, sampler=sampler) as here:
        for _ in range(200):
            with here.meter.measured("step"):
                clock.advance(0.1)
        clock.advance(1.0)
        here.meter.flush()
        totals = here.meter.totals()
        assert totals.operations["step"].energy_j == pytest.approx(2_000.0, rel=1e-9)
        assert totals.operations["step"].count == 200
        assert kept is None or len(here.all_spans) == kept


def test_tokens_of_an_inference_call_are_its_unit_and_that_of_the_region_around_it() -> None:
    clock = FakeClock()
    with app(clock=clock) as here:
        with here.meter.measured("answer"):
            for _ in range(2):
                with here.tracer.start_as_current_span("chat tiny") as span:
                    clock.advance(1.0)
                    span.set_attribute("gen_ai.usage.output_tokens", 50)
        with here.meter.measured("batch", unit="document") as batch:
            batch.add_units(1)
            with here.tracer.start_as_current_span("chat tiny", attributes={"gen_ai.usage.output_tokens": 7}):
                clock.advance(1.0)
        clock.advance(1.0)
        spans = here.spans
        assert of(spans["answer"], "impact.functional_unit.name") == "token"
        assert of(spans["answer"], "impact.functional_unit.count") == 100
        assert of(spans["answer"], "impact.functional_unit.energy") == pytest.approx(2.0)
        assert of(spans["batch"], "impact.functional_unit.name") == "document"
        operation = here.meter.totals().operations["chat tiny"]
        assert (operation.unit, operation.units) == ("token", 107)


def test_a_span_that_was_never_current_and_ended_late_has_the_energy_of_its_own_time() -> None:
    clock = FakeClock()
    with app(clock=clock) as here:
        with here.meter.measured("first"):
            clock.advance(0.5)
        span = here.tracer.start_span("batch", start_time=clock.unix_ns())
        clock.advance(1.0)
        end_ns = clock.unix_ns()
        clock.advance(0.06)
        span.end(end_time=end_ns)
        clock.advance(1.0)
        assert of(here.spans["batch"], "impact.energy.inclusive") == pytest.approx(100.0, rel=0.05)


def test_enrich_stands_before_the_processors_that_are_there_and_goes_again() -> None:
    clock = FakeClock()
    with app(clock=clock, enrich=True) as here:
        with here.tracer.start_as_current_span("query"):
            clock.advance(1.0)
        clock.advance(1.0)
        assert of(here.spans["query"]) == pytest.approx(100.0)
        here.meter.close()
        with here.tracer.start_as_current_span("after"):
            clock.advance(1.0)
        assert of(here.spans["after"]) is None


def test_our_own_spans_are_not_counted_twice() -> None:
    clock = FakeClock()
    with app(clock=clock, enrich=True) as here:
        with here.meter.measured("mine"):
            clock.advance(1.0)
        clock.advance(1.0)
        here.meter.flush()
        assert [span.name for span in here.all_spans] == ["mine"]
        assert here.meter.totals().attributed_j == pytest.approx(100.0)
        assert here.meter.totals().operations["mine"].count == 1


def test_spans_that_are_open_when_the_meter_closes_are_exported_as_they_are() -> None:
    with app() as here:
        with here.tracer.start_as_current_span("long"):
            here.meter.close()
        assert of(here.spans["long"]) is None


def test_a_processor_that_fails_reaches_nobody() -> None:
    class Failing(SimpleSpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise RuntimeError("no")

    provider = TracerProvider(shutdown_on_exit=False)
    with Meter(Settings.load({}, export="none"), sources=[SimulatedSource(1.0)]) as meter:
        provider.add_span_processor(EnergySpanProcessor(Failing(InMemorySpanExporter()), meter))
        with pytest.warns(UserWarning, match="could not be handed on"):
            with provider.get_tracer("app").start_as_current_span("x"):
                time.sleep(0.01)
            meter.flush()
        assert meter.totals().operations["x"].count == 1


def test_two_lines_are_enough_for_a_script_with_a_provider_of_its_own(tmp_path: Path) -> None:
    text = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import os
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
import impactsdk
from impactsdk.testing import SimulatedSource
impactsdk.configure(enrich=True, sources=[SimulatedSource(50.0)])
tracer = trace.get_tracer("app")
with tracer.start_as_current_span("parent"):
    sum(range(500_000))
child = os.fork()
if child == 0:
    with tracer.start_as_current_span("in the child"):
        sum(range(500_000))
    provider.force_flush()
    names = [span.name for span in exporter.get_finished_spans() if span.attributes.get("impact.energy.self") is not None]
    print("child", names.count("parent") <= 1, "in the child" in names, flush=True)
    os._exit(0)
os.waitpid(child, 0)
provider.force_flush()
assert trace.get_tracer_provider() is provider
print("parent", [(span.name, span.attributes["impact.energy.self"] >= 0) for span in exporter.get_finished_spans()])
"""
    out, _ = script(text, tmp_path)
    assert "child True True" in out
    assert "parent [('parent', True)]" in out


def test_two_exporters_get_the_same_energy_and_it_counts_once() -> None:
    clock = FakeClock()
    exporters = [InMemorySpanExporter(), InMemorySpanExporter()]
    provider = TracerProvider(shutdown_on_exit=False)
    with Meter(Settings.load({}, export="none"), sources=[SimulatedSource(100.0)], clock=clock) as meter:
        for exporter in exporters:
            provider.add_span_processor(EnergySpanProcessor(SimpleSpanProcessor(exporter), meter))
        with provider.get_tracer("app").start_as_current_span("outer"):
            clock.advance(1.0)
            with provider.get_tracer("app").start_as_current_span("inner"):
                clock.advance(2.0)
        clock.advance(1.0)
        provider.force_flush()
        found = [{span.name: of(span, "impact.energy.inclusive") for span in one.get_finished_spans()} for one in exporters]
        assert found[0] == pytest.approx({"outer": 300.0, "inner": 200.0})
        assert found[1] == pytest.approx(found[0])
        assert meter.totals().operations["inner"].count == 1
        provider.shutdown()


def test_a_processor_that_is_added_after_enrich_gets_the_energy_too_and_stays_afterwards() -> None:
    clock = FakeClock()
    late = InMemorySpanExporter()
    with app(clock=clock, enrich=True) as here:
        here.provider.add_span_processor(SimpleSpanProcessor(late))
        with here.tracer.start_as_current_span("query"):
            clock.advance(1.0)
        clock.advance(1.0)
        here.provider.force_flush()
        assert of(late.get_finished_spans()[0]) == pytest.approx(100.0)
        here.meter.close()
        with here.tracer.start_as_current_span("after"):
            pass
        here.provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
        assert [span.name for span in late.get_finished_spans()] == ["query", "after"]


@pytest.mark.parametrize("first_closed", [0, 1])
def test_two_meters_that_enrich_one_provider_leave_it_as_it_was_in_whichever_order_they_close(first_closed: int) -> None:
    clock = FakeClock()
    early, late = InMemorySpanExporter(), InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    settings = Settings.load({}, export="otel", enrich=True)
    meters = [
        Meter(settings, sources=[SimulatedSource(power_w)], tracer_provider=provider, clock=clock) for power_w in (100.0, 30.0)
    ]
    provider.add_span_processor(SimpleSpanProcessor(early))
    with Meter(Settings.load({}, export="none"), sources=[SimulatedSource(1.0)], clock=clock) as third:
        provider.add_span_processor(EnergySpanProcessor(SimpleSpanProcessor(InMemorySpanExporter()), third))
        provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
        composite: Any = provider._active_span_processor
        before, tracer = composite._span_processors, provider.get_tracer("app")
        for meter in meters:
            meter.enrich()
            with meter.measured("begins"):
                pass
        added = SimpleSpanProcessor(late)
        provider.add_span_processor(added)

        def energy_of(name: str) -> list[Any]:
            with tracer.start_as_current_span(name):
                clock.advance(1.0)
            clock.advance(1.0)
            provider.force_flush()
            return [of(span) for one in (early, late) for span in one.get_finished_spans() if span.name == name]

        assert energy_of("both") == pytest.approx([100.0, 100.0])
        meters.pop(first_closed).close()
        assert energy_of("one") == pytest.approx([(30.0, 100.0)[first_closed]] * 2)
        meters.pop().close()
        assert energy_of("none") == [None, None]
        assert composite._span_processors == (*before, added)
        assert "add_span_processor" not in vars(composite)
    provider.shutdown()


def test_what_somebody_else_puts_over_a_provider_is_left_alone_and_works_after_we_have_gone() -> None:
    exporter = InMemorySpanExporter()
    with app(enrich=True) as here:
        composite: Any = here.provider._active_span_processor
        ours, added = composite.add_span_processor, []

        def theirs(span_processor: Any) -> None:
            added.append(span_processor)
            ours(span_processor)

        composite.add_span_processor = theirs
        here.meter.close()
        here.provider.add_span_processor(SimpleSpanProcessor(exporter))
        with here.tracer.start_as_current_span("after"):
            pass
        assert len(added) == len(exporter.get_finished_spans()) == 1


@pytest.mark.parametrize("end", ["force_flush", "shutdown"])
def test_our_spans_are_ended_before_the_applications_provider_flushes_or_shuts_down(tmp_path: Path, end: str) -> None:
    text = f"""
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
import impactsdk
from impactsdk.testing import SimulatedSource
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(formatter=lambda span: f"OUT {{span.name}}\\n")))
trace.set_tracer_provider(provider)
impactsdk.configure(sources=[SimulatedSource(50.0)])
with impactsdk.measured("train"):
    sum(range(300_000))
provider.{end}()
print("done", flush=True)
"""
    out, _ = script(text, tmp_path)
    assert out.splitlines()[:2] == ["OUT train", "done"]


def test_a_provider_that_comes_late_is_said_and_configure_takes_it(tmp_path: Path) -> None:
    text = """
import warnings
warnings.simplefilter("always")
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
import impactsdk
from impactsdk.testing import SimulatedSource
impactsdk.configure(sources=[source := SimulatedSource(50.0)])
with impactsdk.measured("early"):
    pass
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda span: f"OUT {span.name}\\n")))
trace.set_tracer_provider(provider)
impactsdk.flush()
impactsdk.configure(sources=[source])
with impactsdk.measured("late"):
    pass
impactsdk.flush()
"""
    out, errors = script(text, tmp_path)
    assert "set its TracerProvider after something was measured" in errors
    assert out.splitlines() == ["OUT late"]


def test_a_signal_s_handler_may_end_a_span_while_another_is_being_held() -> None:
    with app() as here:
        composite: Any = here.provider._active_span_processor
        holding = composite._span_processors[0]

        class Interrupted(dict[int, Any]):
            def __setitem__(self, key: int, value: Any) -> None:
                super().__setitem__(key, value)
                if value.name == "interrupted":
                    here.tracer.start_span("of the handler").end()

        holding._held = Interrupted()
        thread = threading.Thread(target=lambda: here.tracer.start_span("interrupted").end(), daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        assert {name: of(span) is not None for name, span in here.spans.items()} == {
            "interrupted": True,
            "of the handler": True,
        }


@pytest.mark.parametrize("turn", ["attached", "detached"])
def test_a_processor_that_is_added_while_ours_comes_or_goes_is_not_lost(turn: str) -> None:
    with app(enrich=True) as here:
        composite: Any = here.provider._active_span_processor
        if turn == "attached":
            here.meter.close()
            other = Meter(Settings.load({}, export="otel", enrich=True), sources=[], tracer_provider=here.provider)
        added = SimpleSpanProcessor(InMemorySpanExporter())
        with composite._lock:  # as where another thread is in the middle of adding one
            before = composite._span_processors
            thread = threading.Thread(target=other.enrich if turn == "attached" else here.meter.close)
            thread.start()
            thread.join(0.2)
            composite._span_processors = (*before, added)
        thread.join()
        if turn == "attached":
            assert added not in composite._span_processors, "it stands behind ours"
            other.close()
        assert composite._span_processors[-1] is added
        assert [type(one) for one in composite._span_processors] == [SimpleSpanProcessor, SimpleSpanProcessor]
        assert "add_span_processor" not in vars(composite)


@pytest.mark.parametrize("enrich", [True, False])
@pytest.mark.parametrize("end", ["force_flush", "shutdown"])
def test_our_spans_are_ended_before_a_provider_whose_processors_work_in_parallel_flushes(end: str, enrich: bool) -> None:
    exporter, parallel = InMemorySpanExporter(), ConcurrentMultiSpanProcessor(3)
    provider = TracerProvider(active_span_processor=parallel, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    before = (parallel._span_processors, set(vars(parallel)))
    settings = Settings.load({}, export="otel", enrich=enrich)
    with Meter(settings, sources=[SimulatedSource(100.0, tick_s=0.05)], tracer_provider=provider) as meter:
        with meter.measured("op"):
            time.sleep(0.02)
        getattr(provider, end)()
        assert [span.name for span in exporter.get_finished_spans()] == ["op"]
    assert (parallel._span_processors, set(vars(parallel))) == before
    provider.shutdown()
    parallel._executor.shutdown()


def test_meters_that_share_a_provider_leave_its_flush_as_it_was_and_whoever_has_put_theirs_over_it_is_left_alone() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    composite: Any = provider._active_span_processor
    before = set(vars(composite))
    settings = Settings.load({}, export="otel")
    meters = [Meter(settings, sources=[SimulatedSource(1.0)], tracer_provider=provider) for _ in range(3)]
    for meter in meters[:2]:
        with meter.measured("x"):
            pass
    for meter in meters[:2]:
        meter.close()
    assert set(vars(composite)) == before
    with meters[2].measured("x"):
        pass
    ours, asked = composite.force_flush, []
    composite.force_flush = lambda timeout_millis: asked.append(timeout_millis) or ours(timeout_millis)
    meters[2].close()
    assert provider.force_flush(1_000)
    assert asked == [1_000]
    del composite.force_flush
    provider.shutdown()


def test_an_enriched_span_keeps_the_limits_of_its_provider_and_what_they_have_dropped() -> None:
    plain, ours = InMemorySpanExporter(), InMemorySpanExporter()
    limits = SpanLimits(max_events=2, max_links=1, max_span_attributes=8, max_span_attribute_length=5)
    provider = TracerProvider(span_limits=limits, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(plain))
    with Meter(Settings.load({}, export="none"), sources=[SimulatedSource(100.0)]) as meter:
        provider.add_span_processor(EnergySpanProcessor(SimpleSpanProcessor(ours), meter))
        links = [trace.Link(trace.SpanContext(1, number, is_remote=False)) for number in range(1, 4)]
        with provider.get_tracer("app").start_as_current_span("x", links=links) as span:
            for number in range(5):
                span.add_event(f"event {number}")
                span.set_attribute(f"theirs {number}", "0123456789")
        provider.force_flush()
    (before,), (after,) = plain.get_finished_spans(), ours.get_finished_spans()
    assert (after.dropped_events, after.dropped_links) == (before.dropped_events, before.dropped_links) == (3, 2)
    assert (after.events, after.links) == (before.events, before.links)
    attributes = dict(after.attributes or {})
    assert list(attributes)[:6] == [*(f"theirs {number}" for number in range(5)), "impact.energy.self"]
    assert len(attributes) == 8
    assert after.dropped_attributes > 10
    assert all(len(value) <= 5 for value in attributes.values() if isinstance(value, str))
    provider.shutdown()


def test_a_processor_that_flushes_at_each_span_takes_no_energy_from_those_that_are_still_held() -> None:
    clock = FakeClock()
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)

    class Eager(SimpleSpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            super().on_end(span)
            provider.force_flush()

    with Meter(Settings.load({}, export="none"), sources=[SimulatedSource(100.0)], clock=clock) as meter:
        provider.add_span_processor(EnergySpanProcessor(Eager(exporter), meter))
        tracer = provider.get_tracer("app")
        for _ in range(3):
            with tracer.start_as_current_span("x"):
                clock.advance(0.001)
        clock.advance(1.0)
        assert meter.flush()
        assert [of(span) is not None for span in exporter.get_finished_spans()] == [True, True, True]
    provider.shutdown()


def test_a_meter_is_closed_though_whoever_changes_the_provider_is_what_the_signal_interrupted() -> None:
    with app(enrich=True) as here:
        with here.meter.measured("x"):
            pass
        composite: Any = here.provider._active_span_processor
        with composite._lock:  # by this very thread, as where a handler of a signal closes
            assert here.meter.close()
        assert [type(one) for one in composite._span_processors] == [SimpleSpanProcessor]
        assert set(vars(composite)) == {"_span_processors", "_lock"}
