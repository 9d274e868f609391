"""An interrupt may come anywhere, also inside ours: the region is closed, and what comes after it is measured as ever."""

from __future__ import annotations

import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import impactsdk
from impactsdk import Meter, Settings
from impactsdk.testing import FakeClock, SimulatedSource
from tests.kit import Bench, bench, conserved, script

posix = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="there are no such signals here")


class Interrupt(BaseException):
    """As Ctrl-C, or a handler of SIGALRM, raises."""


def attended(here: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next region that looks after the sampler is interrupted while it does."""
    session: Any = here.meter.session
    attend = session.attend

    def interrupted() -> None:
        session.attention = False
        session.attend = attend
        raise Interrupt

    monkeypatch.setattr(session, "attend", interrupted)
    session.attention = True


@pytest.mark.parametrize("span", [True, False])
@pytest.mark.parametrize("decorated", [True, False])
def test_while_a_region_is_entered(span: bool, decorated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:
        with here.measured("before"):
            clock.advance(1.0)

        @here.measured("interrupted", span=span)
        def work() -> None:
            raise AssertionError("it was interrupted before")

        here.meter.flush()
        attended(here, monkeypatch)
        with pytest.raises(Interrupt):
            if decorated:
                work()
            else:
                with here.measured("interrupted", span=span):
                    raise AssertionError("it was interrupted before")
        assert impactsdk.current() is None
        assert not here.tracer.start_span("another").parent  # type: ignore[attr-defined]
        with here.measured("after") as after:
            clock.advance(1.0)
        clock.advance(3.0)
        assert after.result().energy_j == pytest.approx(100.0)
        totals = here.totals()
        conserved(totals)
        assert totals.operations["interrupted"].count == 1
        assert totals.unattributed_j == pytest.approx(300.0, rel=0.1)


@pytest.mark.parametrize("span", [True, False])
def test_while_a_region_is_left(span: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:
        with here.measured("before"):
            clock.advance(1.0)
        with pytest.raises(Interrupt), here.measured("interrupted", span=span):
            clock.advance(1.0)
            here.meter.session.now_ns = _once(here.meter.session)  # type: ignore[union-attr, method-assign]
        assert impactsdk.current() is None
        with here.measured("after") as after:
            clock.advance(1.0)
        clock.advance(3.0)
        assert after.result().energy_j == pytest.approx(100.0)
        totals = here.totals()
        conserved(totals)
        assert totals.operations["interrupted"].energy_j == pytest.approx(100.0)


def _once(session: Any) -> Any:
    now_ns = session.now_ns

    def interrupted() -> int:
        session.now_ns = now_ns
        raise Interrupt

    return interrupted


def test_while_it_waits_for_the_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def synchronize(_device: int) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    torch = types.ModuleType("torch")
    torch.cuda = types.SimpleNamespace(  # type: ignore[attr-defined]
        is_available=lambda: True, is_initialized=lambda: True, device_count=lambda: 1, synchronize=synchronize
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    clock = FakeClock()
    with bench(clock=clock) as here:
        with pytest.raises(KeyboardInterrupt), here.measured("step", sync=True):
            clock.advance(1.0)
        assert impactsdk.current() is None
        clock.advance(5.0)
        totals = here.totals()
    assert totals.operations["step"].energy_j == pytest.approx(100.0)
    conserved(totals)


# --- while something begins or ends -------------------------------------------------------------------------------------------


@contextmanager
def handling(handler: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """What is given sends the main thread a signal, which has ``handler`` called there; then it waits a little for that."""

    def send() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        time.sleep(0.3)

    before = signal.signal(signal.SIGALRM, lambda *_: handler())
    try:
        yield send
    finally:
        signal.signal(signal.SIGALRM, before)


def interrupt() -> None:
    raise Interrupt


@posix
def test_a_close_that_is_interrupted_goes_on_and_is_waited_for_when_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    before = provider._active_span_processor._span_processors
    settings = Settings.load({}, export="summary", enrich=True)
    meter = Meter(settings, sources=[SimulatedSource(100.0)], tracer_provider=provider)
    with handling(interrupt) as send:
        with meter.measured("x"):
            time.sleep(0.01)
        meter.flush()
        meter.listeners.append(lambda _: send())
        with meter.measured("y"), pytest.raises(Interrupt):
            meter.close()
        assert meter.close()
    assert sorted(meter.totals().operations) == ["x", "y"]
    assert provider._active_span_processor._span_processors == before
    assert capsys.readouterr().err.count("impactsdk: this process used") == 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("impactsdk")]


@posix
def test_after_a_configure_that_was_interrupted_what_follows_is_measured_as_it_says() -> None:
    meter = impactsdk.configure(export="none", sources=[SimulatedSource(100.0)])
    with handling(interrupt) as send:
        with impactsdk.measured("x"):
            pass
        meter.flush()
        meter.listeners.append(lambda measurement: send() if measurement.name == "y" else None)
        with impactsdk.measured("y"), pytest.raises(Interrupt):
            impactsdk.configure(export="none", sources=[SimulatedSource(100.0)], service_name="new")
        with impactsdk.measured("z") as region:
            time.sleep(0.01)
        assert region.result().energy_j is not None
    assert impactsdk.configure().settings.service_name == "new"
    assert impactsdk.shutdown()


@posix
def test_a_handler_that_closes_while_the_totals_are_looked_at_does_not_wait_for_itself() -> None:
    closed = []
    meter = Meter(Settings.load({}, export="none"), sources=[SimulatedSource(100.0)])
    with handling(lambda: closed.append(meter.close())):
        with meter.measured("x"):
            pass
        session: Any = meter.session
        snapshot = session.accounts.snapshot

        def struck(*arguments: Any) -> Any:
            session.accounts.snapshot = snapshot
            with meter.measured("y"):
                pass
            signal.raise_signal(signal.SIGALRM)
            return snapshot(*arguments)

        session.accounts.snapshot = struck
        meter.totals()
        assert closed == [False], "it cannot end while the totals are looked at"
        assert meter.close()
    assert sorted(meter.totals().operations) == ["x", "y"]


@posix
@pytest.mark.parametrize("what", ["shutdown", "configure"])
def test_what_a_handler_asks_for_while_the_first_region_begins_is_done(what: str) -> None:
    class Struck(SimulatedSource):
        def open(self, clock: Any) -> Any:
            if not asked:
                send()
            return super().open(clock)

    def handler() -> None:
        asked.append(what)
        if what == "shutdown":
            impactsdk.shutdown()
        else:
            impactsdk.configure(export="none", sources=[source], service_name="new")

    asked: list[str] = []
    source = Struck(100.0)
    meter = impactsdk.configure(export="none", sources=[source])
    with handling(handler) as send:
        with impactsdk.measured("x") as region:
            time.sleep(0.01)
        assert asked == [what]
        session: Any = meter.session
        assert session.off == (what == "shutdown")
        assert (region.result().energy_j is None) == (what == "shutdown")
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("impactsdk")]
        assert len(threads) == (what == "configure"), "of what was begun in vain nothing is left"
        if what == "configure":
            assert session.settings.service_name == "new"
    assert impactsdk.shutdown()


@posix
@pytest.mark.parametrize("what", ["configure(service_name='handler')", "shutdown()"])
def test_a_handler_waits_for_no_thread_that_waits_for_what_it_has_interrupted(tmp_path: Path, what: str) -> None:
    output, _ = script(
        f"""
import faulthandler, signal, threading, time, warnings
import impactsdk
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

faulthandler.dump_traceback_later(30, exit=True)
warnings.simplefilter("ignore")
other = threading.Thread(target=impactsdk.configure, kwargs={{"service_name": "other"}})

class Striking(TracerProvider):
    def get_tracer(self, *arguments, **options):
        if other.ident is None:
            other.start()
            while impactsdk.meter.default_meter()._turning_to is None:
                time.sleep(0.01)
            signal.raise_signal(signal.SIGALRM)
        return super().get_tracer(*arguments, **options)

signal.signal(signal.SIGALRM, lambda *_: impactsdk.{what})
trace.set_tracer_provider(Striking(shutdown_on_exit=False))
with impactsdk.measured("x"):
    pass
other.join()
print(impactsdk.configure().settings.service_name)
""",
        tmp_path,
    )
    assert output == "other\n"
