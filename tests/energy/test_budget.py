from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impactsdk import Meter, Settings
from impactsdk.clock import SystemClock
from impactsdk.energy.budget import MOST_SPARING, Budget
from impactsdk.model import Channel, Reading
from impactsdk.testing import FakeClock, SimulatedSource


def fed(part: float, *, seconds: float = 30.0, budget: Budget | None = None) -> Budget:
    budget = budget or Budget()
    for _ in range(round(seconds)):
        budget.spent(part, 1.0)
    return budget


def test_where_a_look_is_cheap_there_are_as_many_as_are_useful() -> None:
    assert fed(0.001).sparing == 1


@pytest.mark.parametrize(("part", "sparing"), [(0.004, 2), (0.008, 4), (0.05, MOST_SPARING)])
def test_where_it_is_dear_there_are_as_many_less(part: float, sparing: int) -> None:
    budget = Budget()
    for _ in range(30):
        budget.spent(part / budget.sparing, 1.0)
    assert budget.sparing == sparing


def test_the_first_seconds_in_which_ticks_are_found_out_do_not_count() -> None:
    budget = Budget()
    assert not budget.spent(1.0, 2.0)
    assert budget.sparing == 1


def test_when_looks_are_cheap_again_there_are_more_of_them() -> None:
    budget = fed(0.05)
    assert budget.sparing == MOST_SPARING
    assert fed(0.0001, budget=budget).sparing == 1


@given(st.floats(0.0, 0.1), st.lists(st.floats(0.8, 1.25), min_size=40, max_size=40))
def test_it_comes_to_rest_though_the_price_of_a_look_varies_by_a_quarter(part: float, noise: list[float]) -> None:
    """Half the looks cost between half and all of the time: neither makes it go to and fro."""
    for left in (0.0, 0.5):
        budget, seen = Budget(), []
        for factor in noise:
            budget.spent(factor * 2.0 * part * (left + (1.0 - left) / budget.sparing), 2.0)
            seen.append(budget.sparing)
        changes = sum(before != after for before, after in itertools.pairwise(seen[10:]))
        assert changes <= 2


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


@pytest.mark.parametrize(("look_s", "fewer"), [(1e-6, False), (1e-3, True)])
def test_a_device_that_costs_much_to_read_is_read_less_often_and_its_joules_are_the_same(look_s: float, fewer: bool) -> None:
    clock = DearClock(look_s)
    board = Board(clock)
    with Meter(Settings.load({}, export="none"), sources=[board], clock=clock) as meter:
        with meter.measured("all", span=False) as whole:
            for _ in range(100):
                with meter.measured("step", span=False):
                    clock.advance(0.1)
            before = clock.looks
            for _ in range(100):
                with meter.measured("step", span=False):
                    clock.advance(0.1)
            looks_a_second = (clock.looks - before) / 10.0
        clock.advance(1.0)
        found = whole.result()
        step = meter.totals().operations["step"]
    assert (looks_a_second < 30) is fewer
    assert found.energy_j == pytest.approx(200.0 * 20.0, rel=0.01)
    assert found.energy_low_j <= 200.0 * 20.0 <= found.energy_high_j  # type: ignore[operator]
    assert step.count == 200


def test_the_price_is_that_of_the_thread_on_the_systems_clock() -> None:
    before_s = SystemClock().thread_s()
    begun_s = time.thread_time()
    while time.thread_time() - begun_s < 0.01:
        pass
    assert SystemClock().thread_s() - before_s >= 0.01
