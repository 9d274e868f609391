"""An interrupt may come anywhere, also inside ours: the region is closed, and what comes after it is measured as ever."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

import impactsdk
from impactsdk.testing import FakeClock
from tests.kit import Bench, bench, conserved


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
