from __future__ import annotations

import time
from typing import Any

import pytest

from impactsdk import Meter, Settings
from impactsdk.clock import SystemClock
from impactsdk.energy.budget import SPARING, Budget
from impactsdk.model import Channel, Reading
from impactsdk.testing import FakeClock, SimulatedSource


def fed(budget: Budget, part: float, *, seconds: float) -> list[int]:
    """How sparing it is while looks cost that part of a core, less where there are fewer of them."""
    seen = []
    for _ in range(round(seconds)):
        budget.spent(part if budget.sparing == 1 else 0.7 * part, 1.0)
        seen.append(budget.sparing)
    return seen


def test_where_a_look_is_cheap_there_are_as_many_as_are_useful() -> None:
    assert set(fed(Budget(), 0.0025, seconds=100)) == {1}


@pytest.mark.parametrize("part", [0.0031, 0.05])
def test_where_it_is_dear_there_are_fewer_for_most_of_the_time(part: float) -> None:
    seen = fed(Budget(), part, seconds=200)
    assert set(seen) == {1, SPARING}
    assert seen.count(SPARING) > 0.9 * len(seen)


def test_the_first_seconds_in_which_ticks_are_found_out_do_not_count() -> None:
    budget = Budget()
    assert not budget.spent(1.0, 2.0)
    assert budget.sparing == 1


def test_one_dear_moment_does_not_make_it_sparing_for_good() -> None:
    budget = Budget()
    fed(budget, 0.0025, seconds=10)
    assert fed(budget, 0.02, seconds=2)[-1] == SPARING
    assert fed(budget, 0.0025, seconds=40)[-1] == 1


class DearClock(FakeClock):
    """A fake clock on which each look at a device takes ``look_s`` of the thread's time."""

    def __init__(self, look_s: float) -> None:
        super().__init__()
        self.looks, self._look_s = 0, look_s

    def thread_s(self) -> float:
        return self.looks * self._look_s


class Board:
    """A board that the clock charges for."""

    def __init__(self, clock: Any, tick_s: float | None = 0.05) -> None:
        self.name = "board"
        self._clock, self._board = clock, SimulatedSource(200.0, tick_s=tick_s)

    def open(self, clock: Any) -> list[Channel]:
        return list(self._board.open(clock))

    def read(self) -> list[Reading]:
        self._clock.looks += 1
        return list(self._board.read())

    def close(self) -> None:
        pass


def looks_in(meter: Meter, clock: DearClock, *, steps: int) -> int:
    """How often the device is read while so many steps of a tenth of a second are measured."""
    before = clock.looks
    for _ in range(steps):
        with meter.measured("step", span=False):
            clock.advance(0.1)
    return clock.looks - before


def test_what_is_exact_is_read_as_often_as_ever_however_dear_it_is() -> None:
    """Its energy lies where it is looked at: with fewer looks a burst of power would be charged too little."""
    clock = DearClock(1e-3)
    board = Board(clock, tick_s=0.0)
    with Meter(Settings.load({}, export="none"), sources=[board], clock=clock) as meter:
        looks_in(meter, clock, steps=200)
        assert looks_in(meter, clock, steps=50) >= 50


@pytest.mark.parametrize(("look_s", "fewer"), [(1e-6, False), (1e-3, True)])
def test_a_device_that_costs_much_to_read_is_read_less_often_and_its_joules_are_the_same(look_s: float, fewer: bool) -> None:
    clock = DearClock(look_s)
    board = Board(clock)
    with Meter(Settings.load({}, export="none"), sources=[board], clock=clock) as meter:
        with meter.measured("all", span=False) as whole:
            looks_in(meter, clock, steps=100)
            looks_a_second = looks_in(meter, clock, steps=100) / 10.0
        clock.advance(1.0)
        found = whole.result()
        step = meter.totals().operations["step"]
    assert (looks_a_second < 32) is fewer
    assert found.energy_j == pytest.approx(200.0 * 20.0, rel=0.01)
    assert found.energy_low_j <= 200.0 * 20.0 <= found.energy_high_j  # type: ignore[operator]
    assert step.count == 200


def test_the_price_is_that_of_the_thread_on_the_systems_clock() -> None:
    before_s = SystemClock().thread_s()
    begun_s = time.thread_time()
    while time.thread_time() - begun_s < 0.01:
        pass
    assert SystemClock().thread_s() - before_s >= 0.01
