"""impactsdk.testing: what users test their own measured code with."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import impactsdk
from impactsdk import Meter, Settings, measured
from impactsdk.testing import FakeClock, SimulatedSource, capture, wait_until
from tests.kit import bench


@measured("work")
def work() -> int:
    return 3


def test_decorated_code_is_captured_and_nothing_is_left() -> None:
    before = impactsdk.meter.default_meter().session
    with capture(power_w=50.0) as measurements:
        assert work() == 3
        assert len(measurements) == 1
        assert measurements[0].name == "work"
    assert impactsdk.meter.default_meter().session is before
    assert len(measurements) == 1


def test_the_energy_is_that_of_the_simulated_device() -> None:
    clock = FakeClock()
    with capture(lambda second: 10.0 * second, clock=clock) as measurements:
        with measured("x"):
            clock.advance(2.0)
        clock.advance(0.2)
        assert measurements[0].energy_j == pytest.approx(20.0)


def test_captures_may_be_nested_and_each_sees_its_own() -> None:
    with capture() as outer:
        work()
        with capture() as inner:
            work()
            work()
        work()
    assert (len(outer), len(inner)) == (2, 2)


def test_a_capture_sees_the_regions_of_other_threads_but_not_those_begun_before_it() -> None:
    with bench():
        with capture() as outer:
            started, go_on = threading.Event(), threading.Event()

            def before() -> None:
                with measured("begun before"):
                    started.set()
                    go_on.wait()

            thread = threading.Thread(target=before)
            thread.start()
            started.wait()
            with capture() as inner:
                other = threading.Thread(target=work)
                other.start()
                other.join()
                go_on.set()
                thread.join()
            assert [measurement.name for measurement in inner] == ["work"]
        assert [measurement.name for measurement in outer] == ["begun before"]


def test_a_capture_is_undone_when_the_test_fails() -> None:
    default = impactsdk.meter.default_meter()
    before = default.session
    with pytest.raises(ZeroDivisionError), capture():
        work()
        raise ZeroDivisionError
    assert default.session is before
    assert not default.listeners


def test_what_ended_before_a_test_failed_is_captured_and_its_error_comes_out_as_it_was() -> None:
    error = ZeroDivisionError("in the test")
    with bench() as here:
        for meter in (None, here.meter):
            with pytest.raises(ZeroDivisionError) as caught, capture(meter=meter) as measurements:
                with (here.measured if meter else measured)("x"):
                    pass
                raise error
            assert caught.value is error
            assert error.__cause__ is error.__context__ is None
            assert [measurement.name for measurement in measurements.all] == ["x"]
        assert not here.meter.listeners


def test_a_capture_works_where_the_environment_switches_everything_off() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_SDK_DISABLED", "true")
        patch.setenv("IMPACTSDK_DISABLED", "1")
        with capture() as measurements:
            work()
        assert len(measurements) == 1


def test_captured_measurements_are_a_sequence() -> None:
    with capture() as measurements:
        for _ in range(3):
            work()
        with measured("other"):
            pass
        assert [measurement.name for measurement in measurements] == ["work"] * 3 + ["other"]
        assert len(measurements.named("work")) == 3
        assert measurements[-1].name == "other"
        assert len(measurements[1:3]) == 2
        with pytest.raises(IndexError):
            measurements[4]


def test_looking_through_what_was_captured_waits_once() -> None:
    waits = []

    class Counting(Meter):
        def flush(self, timeout_s: float = 5.0) -> bool:
            waits.append(timeout_s)
            return super().flush(timeout_s)

    with Counting(Settings.load({}, export="none"), sources=[SimulatedSource(1.0)]) as meter, capture(meter=meter) as found:
        for _ in range(3):
            with meter.measured("x"):
                pass
        assert len(found.named("x")) == 3
        assert len(waits) == 1


def test_another_meter_can_be_listened_to() -> None:
    with bench() as here:
        with capture(meter=here.meter) as measurements, here.measured("x"):
            pass
        assert [measurement.name for measurement in measurements] == ["x"]
        with here.measured("y"):
            pass
        here.meter.flush()
        assert len(measurements) == 1
        assert not here.meter.listeners


def test_shutting_down_inside_a_capture_is_undone_with_it() -> None:
    with capture():
        work()
        impactsdk.shutdown()
        assert work() == 3
    with capture() as measurements:
        work()
    assert len(measurements) == 1


def test_a_fake_clock_moves_only_when_told() -> None:
    clock = FakeClock(5.0, unix_s=100.0)
    assert clock.now_ns() == 5_000_000_000
    assert clock.unix_ns() == 100_000_000_000
    clock.advance(1.5)
    assert clock.now_ns() == 6_500_000_000
    assert clock.unix_ns() == 101_500_000_000


def test_the_truth_of_a_simulated_source_is_known() -> None:
    clock = FakeClock()
    source = SimulatedSource(lambda second: 100.0 * math.sin(second) ** 2)
    source.open(clock)
    start_ns = clock.now_ns()
    clock.advance(math.pi)
    truth = 100.0 * math.pi / 2
    assert source.true_energy_j(start_ns, clock.now_ns()) == pytest.approx(truth, rel=1e-4)
    (reading,) = source.read()
    assert reading.energy_j == pytest.approx(truth, rel=1e-4)


def test_a_simulated_source_starts_anew_on_another_clock_and_goes_on_with_the_same() -> None:
    source = SimulatedSource(lambda second: 10.0 * second)
    for clock in (FakeClock(), FakeClock(5.0)):
        with capture(sources=[source], clock=clock) as measurements:
            with measured("x"):
                clock.advance(2.0)
            clock.advance(1.0)
            assert measurements[0].energy_j == pytest.approx(20.0)
    with capture(sources=[source], clock=clock) as measurements:
        with measured("x"):
            clock.advance(1.0)
        clock.advance(1.0)
        assert measurements[0].energy_j == pytest.approx(35.0)


def test_a_simulated_source_that_two_meters_share_goes_on_when_the_second_opens_it() -> None:
    source = SimulatedSource(100.0)
    with bench(sources=[source]) as here, here.measured("x"):  # each meter has a system clock of its own
        (before,) = source.read()
        with capture(sources=[source]):
            work()
        (after,) = source.read()
        assert after.energy_j > before.energy_j > 0.0


def test_a_simulated_counter_moves_in_ticks() -> None:
    clock = FakeClock()
    source = SimulatedSource(100.0, tick_s=0.1, phase_s=0.03)
    source.open(clock)
    shown = []
    for _ in range(6):
        clock.advance(0.05)
        shown.extend(reading.energy_j for reading in source.read())
    assert shown == pytest.approx([3.0, 3.0, 13.0, 13.0, 23.0, 23.0])


def test_waiting_ends_when_it_should() -> None:
    assert wait_until(lambda: True)
    assert not wait_until(lambda: False, timeout_s=0.01)


def test_what_is_configured_inside_a_capture_ends_with_it_and_configure_without_names_leaves_it() -> None:
    outer = SimulatedSource(50.0)
    impactsdk.configure(export="none", sources=[outer])
    clock = FakeClock()
    with capture(100.0, clock=clock) as captured:
        for name in ("x", "y"):
            with impactsdk.measured(name):
                clock.advance(1.0)
            impactsdk.configure()
    assert [measurement.energy_j for measurement in captured] == pytest.approx([100.0, 100.0])
    with capture():
        impactsdk.configure(region="FR", export="none", sources=[SimulatedSource(7.0)])
    meter = impactsdk.configure()
    assert meter.settings.region is None
    assert meter.settings.sources == (outer,)


@pytest.fixture
def exported() -> Iterator[tuple[TracerProvider, InMemorySpanExporter]]:
    """The application's provider, and where its spans arrive."""
    provider, exporter = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
        yield provider, exporter
        impactsdk.shutdown()
    provider.shutdown()


def test_enrich_inside_a_capture_ends_with_it(exported: tuple[TracerProvider, InMemorySpanExporter]) -> None:
    provider, exporter = exported
    before = provider._active_span_processor._span_processors
    with capture():
        impactsdk.configure(enrich=True, export="none", sources=[SimulatedSource(100.0)])
        with provider.get_tracer("app").start_as_current_span("inside"):
            pass
    assert provider._active_span_processor._span_processors == before
    with provider.get_tracer("app").start_as_current_span("after"):
        pass
    spans = {span.name: span.attributes or {} for span in exporter.get_finished_spans()}
    assert "impact.energy.self" in spans["inside"]
    assert "impact.energy.self" not in spans["after"]
    assert impactsdk.meter.default_meter().session is None


@pytest.mark.parametrize("inside", ["nothing", "configure", "enrich", "shutdown"])
def test_enrich_outside_a_capture_goes_on_after_it(exported: tuple[TracerProvider, InMemorySpanExporter], inside: str) -> None:
    provider, exporter = exported
    before = provider._active_span_processor._span_processors
    impactsdk.configure(enrich=True, export="none", sources=[SimulatedSource(100.0)])
    with provider.get_tracer("app").start_as_current_span("before"):
        pass
    assert impactsdk.flush()
    with capture():
        work()
        if inside in ("configure", "enrich"):
            impactsdk.configure(enrich=inside == "enrich", export="none", sources=[SimulatedSource(100.0)])
            work()
        if inside == "shutdown":
            impactsdk.shutdown()
    with provider.get_tracer("app").start_as_current_span("after"):
        pass
    assert impactsdk.flush()
    spans = {span.name: span.attributes or {} for span in exporter.get_finished_spans()}
    assert all("impact.energy.self" in spans[name] for name in ("before", "after"))
    assert impactsdk.shutdown()
    assert provider._active_span_processor._span_processors == before


def test_a_meter_may_be_reset_inside_a_capture() -> None:
    with capture() as measurements:
        work()
        impactsdk.meter.default_meter().reset()
    assert [measurement.name for measurement in measurements.all] == ["work"]


def test_a_listener_that_closes_inside_a_capture_leaves_the_totals_outside_it_alone() -> None:
    meter = impactsdk.configure(export="none", sources=[SimulatedSource(1.0)])
    with capture():
        closed: list[bool] = []
        meter.listeners.append(lambda _: closed.append(impactsdk.shutdown()))
        work()
        assert wait_until(lambda: bool(closed))
    with measured("own"):
        pass
    for _ in range(2):
        assert impactsdk.shutdown()
        assert list(meter.totals().operations) == ["own"]


def test_a_meter_that_was_shut_down_inside_measures_again_with_the_same_device() -> None:
    with capture() as measurements:
        for _ in range(2):
            with measured("x"):
                pass
            assert impactsdk.shutdown()
            assert impactsdk.configure() is measurements.meter
        with measured("x") as region:
            pass
        assert region.result().method == "simulated"
    assert len(measurements.all) == 3
