"""What fails costs one warning and a truthful quality; the measured code returns what it returns."""

from __future__ import annotations

import asyncio
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.metrics import Meter as OTelMeter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider, Tracer

from impactsdk import Channel, DegradedWarning, Measurement, Meter, Reading, Settings, SourceFailedError, SourceUnavailableError
from impactsdk.lifecycle import SAMPLER
from impactsdk.protocols import Clock, EnergySource
from impactsdk.testing import FakeClock, SimulatedSource
from tests.kit import bench, conserved, journals, metrics_in


def _fail(error: BaseException, *, on: Callable[[int], bool]) -> Callable[[int], None]:
    def fail(number: int) -> None:
        if on(number):
            raise error

    return fail


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("bad"), KeyError("x"), ZeroDivisionError()], ids=repr)
def test_a_source_that_fails_for_a_while_leaves_a_gap_that_is_told(error: Exception) -> None:
    clock = FakeClock()
    begun = clock.now_ns()

    def fail(_: int) -> None:
        if 1.0 < (clock.now_ns() - begun) / 1e9 < 1.5:
            raise error

    with bench(sources=[SimulatedSource(100.0, fail=fail)], clock=clock) as here:
        with pytest.warns(DegradedWarning, match="simulated:sim:0") as caught:
            with here.measured("before"):
                clock.advance(0.8)
            clock.advance(0.15)
            with here.measured("over the gap") as over:
                clock.advance(1.0)
            clock.advance(1.0)
            with here.measured("after") as after:
                clock.advance(1.0)
            clock.advance(0.5)
            here.meter.flush()
        assert len(caught) == 1
        assert over.result().quality == "partial"
        assert over.result().coverage < 1.0
        assert after.result().quality == "measured"
        assert after.result().energy_j == pytest.approx(100.0)
        conserved(here.totals())


def test_a_source_that_gives_up_ends_and_the_others_go_on() -> None:
    clock = FakeClock()
    failing = SimulatedSource(50.0, id="sim:1", fail=_fail(SourceFailedError("the board fell off"), on=lambda n: n > 3))
    with bench(sources=[SimulatedSource(100.0), failing], clock=clock) as here:
        with pytest.warns(DegradedWarning, match="the board fell off") as caught:
            with here.measured("x"):
                clock.advance(2.0)
            clock.advance(2.5)
            with here.measured("later") as later:
                clock.advance(1.0)
            clock.advance(1.0)
            here.meter.flush()
        assert len(caught) == 1
        assert failing.closed
        result = later.result()
        assert result.energy_j == pytest.approx(100.0)
        assert result.quality == "partial"
        conserved(here.totals())


@pytest.mark.parametrize(
    "source",
    [
        SimulatedSource(1.0, fail_open=SourceUnavailableError("not for you")),
        SimulatedSource(1.0, fail_open=RuntimeError("boom")),
    ],
    ids=["unavailable", "a mistake of the source"],
)
def test_a_source_that_does_not_open_is_told_and_measuring_goes_on(source: EnergySource) -> None:
    with bench(sources=[source, SimulatedSource(100.0, id="sim:1")]) as here:
        with pytest.warns(DegradedWarning, match="not for you|boom") as caught, here.measured("x") as region:
            pass
        assert len(caught) == 1
        assert region.result().energy_j is not None


class Odd:
    """A source that answers what no source should."""

    name = "odd"

    def __init__(self, channels: Any, readings: Callable[[], Any]) -> None:
        self._channels, self._readings = channels, readings

    def open(self, clock: Clock) -> Any:
        return self._channels

    def read(self) -> Any:
        return self._readings()

    def close(self) -> None:
        raise RuntimeError("cannot even be closed")


ONE = [Channel(id="odd:0", type="gpu", method="odd", tick_s=0.0)]


@pytest.mark.parametrize(
    ("channels", "readings"),
    [
        (None, list),
        ("channels", list),
        ([3], list),
        (ONE, lambda: None),
        (ONE, lambda: [None]),
        (ONE, lambda: ["reading"]),
        (ONE, lambda: [Reading("another", 1.0)]),
        (ONE, lambda: [Reading("odd:0", None)]),
        (ONE, lambda: [Reading("odd:0", "text")]),  # type: ignore[arg-type]
        (ONE, lambda: [Reading("odd:0", float("nan"))]),
        (ONE, lambda: [Reading("odd:0", -1.0)]),
        (ONE, list),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::impactsdk.DegradedWarning")
def test_nonsense_from_a_source_makes_no_number(channels: Any, readings: Callable[[], Any]) -> None:
    with bench(sources=[Odd(channels, readings)]) as here:  # type: ignore[list-item]
        with here.measured("x") as region:
            time.sleep(0.01)
        totals = here.totals()
        assert totals.operations["x"].count == 1
        assert totals.operations["x"].energy_j in (None, 0.0)
        result = region.result()
        assert result.energy_j is None
        assert result.quality == "absent"


def test_warnings_as_errors_do_not_reach_the_measured_code() -> None:
    with bench(sources=[SimulatedSource(1.0, fail_open=RuntimeError("boom"))]) as here, warnings.catch_warnings():
        warnings.simplefilter("error")
        function = here.measured("x", unit="item", count=lambda _: 1 / 0)(lambda: 5)
        assert [function(), function()] == [5, 5]
        assert here.totals().operations["x"].count == 2


def test_a_way_of_showing_warnings_that_fails_does_not_reach_it_either() -> None:
    def failing(*_: object, **__: object) -> None:
        raise OSError("standard error is closed")

    with bench() as here, warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = failing
        assert here.measured("x", unit="item", count=lambda _: 1 / 0)(lambda: 5)() == 5


def test_a_listener_that_fails_is_told_once() -> None:
    def failing(_: Measurement) -> None:
        raise RuntimeError("no")

    with bench() as here:
        here.meter.listeners.append(failing)
        with pytest.warns(DegradedWarning, match="could not be handed on") as caught:
            for _ in range(3):
                with here.measured("x"):
                    pass
            assert here.totals().operations["x"].count == 3
        assert len(caught) == 1


def test_a_source_that_hangs_is_left_behind_and_the_caller_is_not_held_up() -> None:
    import threading

    release = threading.Event()

    class Hanging(SimulatedSource):
        def read(self) -> Iterator[Reading]:
            if self.reads > 2:
                self.reads += 1
                release.wait(20)
            return super().read()

    meter = Meter(
        Settings.load({}, export="none", interval_s=0.02),
        sources=[SimulatedSource(100.0), Hanging(10.0, id="sim:hangs")],
    )
    function = meter.measured("x")(lambda: None)
    try:
        with pytest.warns(DegradedWarning, match="does not return from a device call") as caught:
            deadline = time.monotonic() + 10
            while not any("does not return" in str(warning.message) for warning in caught) and time.monotonic() < deadline:
                function()
                time.sleep(0.02)
                meter.flush(0.05)
        assert meter.flush(5.0)
        with meter.measured("later") as later:
            time.sleep(0.1)
        result = later.result()
        assert result.energy_by_type["gpu"] == pytest.approx(100.0 * result.duration_s, rel=0.3)
    finally:
        release.set()
        meter.close()
        for thread in threading.enumerate():
            if thread.name.startswith("impactsdk"):
                thread.join(5)


def test_a_tracer_provider_that_fails_is_told_once_and_joules_are_counted() -> None:
    class Failing(NoOpTracerProvider):
        def get_tracer(self, *args: object, **kwargs: object) -> Tracer:
            raise RuntimeError("half installed")

    with Meter(Settings.load({}), sources=[SimulatedSource(1.0)], tracer_provider=Failing()) as meter:
        function = meter.measured("x")(lambda: 5)
        with pytest.warns(DegradedWarning, match=r"not all outputs could be set up .*half installed") as caught:
            assert [function(), function()] == [5, 5]
        assert len(caught) == 1
        assert meter.flush()
        assert meter.totals().operations["x"].count == 2


def test_a_beginning_that_fails_is_told_once_and_the_function_runs() -> None:
    class Failing(NoOpMeterProvider):
        def get_meter(self, *args: object, **kwargs: object) -> OTelMeter:
            raise RuntimeError("half installed")

    with Meter(Settings.load({}), sources=[SimulatedSource(1.0)], meter_provider=Failing()) as meter:
        function = meter.measured("x")(lambda: 5)
        with pytest.warns(DegradedWarning, match=r"measuring could not begin \(RuntimeError\('half installed'\)\)") as caught:
            assert [function(), function()] == [5, 5]
        assert len(caught) == 1
        assert meter.flush()
        assert meter.totals().operations == {}


@pytest.mark.parametrize("trouble", ["a provider", "no thread"])
def test_a_beginning_that_fails_leaves_the_providers_as_they_were(trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(NoOpMeterProvider):
        def get_meter(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("half installed")

    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    composite: Any = provider._active_span_processor
    before = (composite._span_processors, sorted(vars(composite)))
    values = Failing() if trouble == "a provider" else MeterProvider([reader], shutdown_on_exit=False)
    threads = threading.active_count()
    if trouble == "no thread":
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if thread.name == SAMPLER:
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)
    settings = Settings.load({}, export="otel,console")
    with Meter(settings, sources=[SimulatedSource(1.0)], tracer_provider=provider, meter_provider=values) as meter:
        with pytest.warns(DegradedWarning, match="measuring could not begin"), meter.measured("x"):
            provider.get_tracer("app").start_span("theirs").end()
        assert (composite._span_processors, sorted(vars(composite))) == before
        assert threading.active_count() == threads, "our own providers have ended"
        assert provider.force_flush()
    assert [span.name for span in exporter.get_finished_spans()] == ["theirs"]
    if trouble == "no thread":
        assert reader.get_metrics_data() is not None
        values.shutdown()
    provider.shutdown()


EXITS = [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()]


@pytest.mark.parametrize("error", EXITS, ids=repr)
@pytest.mark.parametrize("who", ["listener", "processor", "utilization", "number"])
def test_an_exit_that_is_raised_in_the_sampler_s_thread_ends_nothing(who: str, error: BaseException) -> None:
    class Number(float):
        def __float__(self) -> float:
            raise error

    class Failing(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise error

    clock = FakeClock()
    odd: Any = SimulatedSource(50.0, id="odd:0", fail=lambda n: Number(1.0) if who == "number" and n == 3 else None)
    if who == "utilization":
        odd.utilization = lambda: (_ for _ in ()).throw(error)

    def listener(_: Measurement) -> None:
        raise error

    with bench(sources=[SimulatedSource(100.0), odd], clock=clock) as here, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if who == "processor":
            here.provider.add_span_processor(Failing())
        if who == "listener":
            here.meter.listeners.append(listener)
        for _ in range(3):
            with here.measured("x") as region:
                clock.advance(1.0)
            clock.advance(1.0)
            assert region.result().energy_by_type["gpu"] >= 100.0
        totals = here.totals()
        assert totals.operations["x"].count == 3
        conserved(totals)
        assert len(caught) == (who != "utilization")
        assert here.meter.close()


@pytest.mark.parametrize("error", [RuntimeError("stuck"), *EXITS], ids=repr)
def test_a_source_that_cannot_be_closed_keeps_nothing_from_being_written(error: BaseException, tmp_path: Path) -> None:
    class Stuck(SimulatedSource):
        def close(self) -> None:
            super().close()
            raise error

    settings = Settings.load({}, export="otel,journal", directory=str(tmp_path / "impact"))
    provider = TracerProvider(shutdown_on_exit=False)
    composite: Any = provider._active_span_processor
    before = (composite._span_processors, sorted(vars(composite)))
    second = SimulatedSource(10.0, id="sim:1")
    meter = Meter(settings, sources=[Stuck(100.0), second], tracer_provider=provider)
    with meter.measured("x"):
        pass
    with pytest.warns(DegradedWarning, match="could not be closed"):
        assert meter.close()
    assert second.closed
    assert (composite._span_processors, sorted(vars(composite))) == before
    assert any(metric["name"] == "impact.energy" for metric in metrics_in(journals(tmp_path)[0]))


def test_a_source_that_fails_in_saying_what_it_is_loses_neither_itself_nor_others() -> None:
    class Shy(SimulatedSource):
        @property
        def degraded(self) -> str:
            raise RuntimeError("not now")

        covers = utilization = degraded

    clock = FakeClock()
    with bench(sources=[SimulatedSource(100.0), Shy(50.0, type="cpu", id="shy:0")], clock=clock) as here:
        with here.measured("x") as region:
            clock.advance(1.0)
        clock.advance(1.0)
        assert region.result().energy_by_type == pytest.approx({"gpu": 100.0, "cpu": 50.0})


def test_an_error_whose_text_cannot_be_made_ends_nothing_either() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise KeyError("text")

    clock = FakeClock()

    def fail(number: int) -> None:
        if number == 3:
            raise MuteError

    with bench(sources=[SimulatedSource(100.0, fail=fail)], clock=clock) as here:
        with pytest.warns(DegradedWarning, match="Mute"), here.measured("x") as region:
            clock.advance(2.0)
        clock.advance(1.0)
        assert region.result().energy_j == pytest.approx(200.0)


def test_what_a_missed_reading_interpolates_is_in_the_spans_as_it_is_in_the_operation() -> None:
    clock = FakeClock()
    begun = clock.now_ns()

    def fail(_: int) -> None:
        if 2.0 <= (clock.now_ns() - begun) / 1e9 < 2.15:
            raise OSError("busy")

    with bench(sources=[SimulatedSource(100.0, fail=fail)], clock=clock) as here:
        steps = []
        with pytest.warns(DegradedWarning, match="busy"):
            for _ in range(100):
                with here.measured("step") as step:
                    clock.advance(0.05)
                steps.append(step)
            clock.advance(1.0)
        found = [step.result() for step in steps]
        operation = here.totals().operations["step"]
        conserved(here.totals())
    assert math.fsum(each.self_energy_j or 0.0 for each in found) == pytest.approx(operation.energy_j)
    assert operation.energy_j == pytest.approx(500.0)
    missed = [each for each in found if each.coverage == 0.0]
    assert missed
    assert {each.quality for each in missed} == {"partial"}


@pytest.mark.parametrize("seconds", [0.0, 0.0009, 0.0021])
def test_a_short_region_knows_as_little_of_a_dead_device_as_a_long_one(seconds: float) -> None:
    clock = FakeClock()
    begun = clock.now_ns()

    def fail(_: int) -> None:
        if clock.now_ns() - begun > 2_000_000_000:
            raise SourceFailedError("fell off the bus")

    for others in ([], [SimulatedSource(10.0, type="cpu", id="cpu")]):
        clock = FakeClock()
        with bench(sources=[SimulatedSource(300.0, fail=fail), *others], clock=clock) as here:
            with pytest.warns(DegradedWarning, match="fell off the bus"):
                with here.measured("warm"):
                    clock.advance(10.0)
                with here.measured("short") as short:
                    clock.advance(seconds)
                clock.advance(1.0)
                here.meter.flush()
            found = short.result()
        if others:
            assert (found.quality, found.coverage) == ("partial", 0.5)
            assert set(found.energy_by_type) == {"cpu"}
        else:
            assert (found.quality, found.coverage, found.energy_j) == ("absent", 0.0, None)
