"""One block object, many ways of using it; and regions of several meters, and of meters that are gone."""

from __future__ import annotations

import contextvars
import copy
import functools
import pickle
import sys
import threading
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import impactsdk
from impactsdk import EnergySpanProcessor, Meter, RegionError, Settings
from impactsdk.testing import FakeClock, SimulatedSource, capture
from impactsdk.wrap import Measured
from tests.kit import bench, conserved


@pytest.mark.parametrize("span", [True, False])
def test_a_block_that_is_used_again_answers_for_the_last_time(span: bool) -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:
        step = here.measured("step", span=span, unit="item")
        for seconds in (1.0, 3.0, 5.0):
            with step:
                clock.advance(seconds)
                step.add_units(seconds)
            clock.advance(1.0)
            assert step.result().energy_j == pytest.approx(100.0 * seconds)
            assert step.result().units == seconds
        with pytest.raises(RegionError, match="not open"):
            step.add_units(1)
        totals = here.totals()
    assert totals.operations["step"].units == 9.0
    conserved(totals)


class Model:
    """Something of the user's that keeps a block."""

    def __init__(self, step: Measured) -> None:
        self.step = step


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("span", [True, False])
def test_what_keeps_a_block_that_was_used_can_be_copied_and_pickled(span: bool, sync: bool) -> None:
    with capture() as measurements:
        model = Model(impactsdk.measured("step", span=span, sync=sync, attributes={"a": 1}))
        for _ in range(2):
            with model.step:
                for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), Model(copy.copy(model.step))):
                    with pytest.raises(RegionError, match="never entered"):
                        twin.step.result()
                    with twin.step:
                        pass
        totals = measurements.meter.totals() if measurements.meter.flush() else None
        assert totals is not None
        assert totals.operations["step"].count == 2 + 2 * 3
        assert model.step.result().name == "step"
        conserved(totals)


def test_a_copy_of_another_meters_block_is_that_meters_too() -> None:
    with bench() as here:
        model = Model(here.measured("step", span=False))
        with model.step, copy.deepcopy(model).step:
            pass
        assert here.totals().operations["step"].count == 2
        with pytest.raises(TypeError, match="default meter"):
            pickle.dumps(model)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="until 3.11 threads switch between any two instructions")
def test_threads_that_enter_one_block_at_once_each_have_a_region_of_their_own() -> None:
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    errors: list[BaseException] = []
    try:
        with bench() as here:
            with here.measured("before"):
                pass
            for _ in range(60):
                block, together = here.measured("shared"), threading.Barrier(6)

                def enter(block=block, together=together) -> None:
                    together.wait()
                    try:
                        for _ in range(3):
                            with block:
                                pass
                    except BaseException as error:  # noqa: BLE001
                        errors.append(error)

                threads = [threading.Thread(target=enter) for _ in range(6)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            totals = here.totals()
    finally:
        sys.setswitchinterval(interval_s)
    assert not errors
    assert totals.operations["shared"].count == 60 * 6 * 3
    conserved(totals)


@pytest.mark.parametrize("span", [True, False])
def test_a_region_inside_another_meters_region_is_part_of_its_own_meters(span: bool) -> None:
    clock = FakeClock()
    settings = Settings.load({}, export="none")
    with (
        Meter(settings, sources=[SimulatedSource(100.0, id="a")], clock=clock) as one,
        Meter(settings, sources=[SimulatedSource(100.0, id="b")], clock=clock) as two,
    ):
        with one.measured("outer", span=span) as outer:
            clock.advance(1.0)
            with two.measured("library", span=span), one.measured("inner", span=span) as inner:
                clock.advance(1.0)
            clock.advance(1.0)
        clock.advance(2.0)
        assert outer.result().energy_j == pytest.approx(300.0)
        assert outer.result().self_energy_j == pytest.approx(200.0)
        assert inner.result().energy_j == pytest.approx(100.0)


@pytest.mark.parametrize("closed", [True, False])
def test_what_begins_inside_another_meters_block_is_part_of_what_is_around_it(closed: bool) -> None:
    clock = FakeClock()
    provider = TracerProvider(shutdown_on_exit=False)
    settings = Settings.load({}, export="none")
    enriching = Settings.load({}, export="none", enrich=True)
    with (
        Meter(enriching, sources=[SimulatedSource(100.0, id="a")], clock=clock, tracer_provider=provider) as one,
        Meter(settings, sources=[SimulatedSource(100.0, id="b")], clock=clock) as two,
    ):
        with one.measured("outer", span=False) as outer:
            clock.advance(1.0)
            with two.measured("library", span=False):
                if closed:
                    two.close()
                with one.measured("inner", span=False):
                    clock.advance(1.0)
                with provider.get_tracer("of the application").start_as_current_span("request"):
                    clock.advance(1.0)
        clock.advance(2.0)
        assert outer.result().energy_j == pytest.approx(300.0)
        assert outer.result().self_energy_j == pytest.approx(100.0)


@pytest.mark.parametrize("span", [True, False])
def test_a_generator_that_outlives_its_meter_is_not_kept_track_of(span: bool) -> None:
    meter = Meter(Settings.load({}, export="none"), sources=[SimulatedSource(100.0)])

    @meter.measured("data", span=span)
    def data() -> Iterator[int]:
        yield from range(1_000)

    numbers = data()
    next(numbers)
    session = meter.session
    meter.close()
    before = len(session.events)  # type: ignore[union-attr]
    assert list(numbers) == list(range(1, 1_000))
    assert len(session.events) == before  # type: ignore[union-attr]


def test_blocks_left_in_another_context_leave_nothing_among_the_spans() -> None:
    provider, exporter = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    with Meter(Settings.load({}, export="otel"), sources=[SimulatedSource(100.0)], tracer_provider=provider) as meter:
        provider.add_span_processor(EnergySpanProcessor(SimpleSpanProcessor(exporter), meter))
        for _ in range(20):
            block = meter.measured("dependency")
            contextvars.copy_context().run(block.__enter__)
            contextvars.copy_context().run(block.__exit__, None, None, None)
        meter.flush()
        assert not meter.session.spans  # type: ignore[union-attr]
    provider.shutdown()
    assert len(exporter.get_finished_spans()) == 20


def test_a_partial_of_an_object_stays_what_its_call_is() -> None:
    import asyncio
    import inspect

    class Model:
        async def __call__(self, prompt: str, times: int) -> str:
            await asyncio.sleep(0.01)
            return prompt * times

    with bench() as here:
        ask = here.measured("ask")(functools.partial(Model(), times=2))
        assert inspect.iscoroutinefunction(ask)
        assert asyncio.run(ask("ab")) == "abab"
        assert here.totals().operations["ask"].duration_s >= 0.01
