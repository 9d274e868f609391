"""Boards that only know their power: what lies between two samples is in the interval of a region."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from impactsdk import Meter, Settings
from impactsdk.errors import DegradedWarning
from impactsdk.model import Measurement
from impactsdk.sources.nvml import from_settings
from impactsdk.testing import FakeClock
from tests.sources.fake_nvml import FakeDriver
from tests.sources.nvml_cases import StandingClock, degraded, power_board

LOW_W, HIGH_W = 20.0, 290.0


def square_wave_j(period_s: float) -> Callable[[float], float]:
    """Joules up to an instant, of a load that is half the time at each of two powers."""

    def until_j(at_s: float) -> float:
        periods, rest_s = divmod(at_s, period_s)
        high_s = periods * period_s / 2 + min(rest_s, period_s / 2)
        return LOW_W * at_s + (HIGH_W - LOW_W) * high_s

    return until_j


def measured_regions(
    until_j: Callable[[float], float], regions_s: Sequence[tuple[float, float]], *, capability: tuple[int, int], mean_s: float
) -> list[tuple[float, Measurement]]:
    """The truth and the measurement of regions, each a wait and a duration; samples are means over ``mean_s``."""
    clock = FakeClock()

    def power_mw() -> float:
        now_s = clock.now_ns() * 1e-9
        return 1000 * (until_j(now_s) - until_j(now_s - mean_s)) / mean_s

    board = power_board(power_mw=power_mw, limit_mw=300_000, capability=capability)
    asked, found = Settings.load({}, export="none"), []
    with FakeDriver([board]), warnings.catch_warnings():
        warnings.simplefilter("ignore", DegradedWarning)
        with Meter(asked, sources=[from_settings(asked)], clock=clock) as meter:
            for wait_s, duration_s in regions_s:
                clock.advance(wait_s)
                begun_s = clock.now_ns() * 1e-9
                with meter.measured("work") as work:
                    clock.advance(duration_s)
                found.append((until_j(clock.now_ns() * 1e-9) - until_j(begun_s), work))
            clock.advance(4.0)
            return [(truth_j, work.result()) for truth_j, work in found]


waits_s, durations_s = st.floats(0.0, 1.0), st.floats(0.3, 3.3)


@settings(max_examples=40)
@given(st.floats(0.052, 3.0), st.lists(st.tuples(waits_s, durations_s), min_size=2, max_size=5))  # read each 25 ms
@example(0.6, [(0.03 * number, 3.3) for number in range(20)])
def test_a_load_that_comes_and_goes_between_samples_is_in_the_interval(
    period_s: float, regions_s: list[tuple[float, float]]
) -> None:
    for truth_j, found in measured_regions(square_wave_j(period_s), regions_s, capability=(6, 1), mean_s=1e-6):
        assert found.energy_low_j is not None
        assert found.energy_high_j is not None
        assert found.energy_low_j <= truth_j <= found.energy_high_j
        assert found.quality == ("measured" if found.duration_s >= 2.0 else "interpolated")


@settings(max_examples=20)
@given(st.floats(0.05, 3.0), st.lists(st.tuples(waits_s, durations_s), min_size=2, max_size=3))
def test_means_over_a_second_hold_the_true_energy_within_a_second_of_either_end(
    period_s: float, regions_s: list[tuple[float, float]]
) -> None:
    for truth_j, found in measured_regions(square_wave_j(period_s), regions_s, capability=(8, 6), mean_s=1.0):
        assert found.energy_low_j is not None
        assert found.energy_high_j is not None
        assert found.energy_low_j <= truth_j <= found.energy_high_j


def test_the_interval_of_a_load_that_swings_still_says_something() -> None:
    regions_s = [(0.0, 1.0), *((0.1 * number, 3.0) for number in range(5))]
    for _, found in measured_regions(square_wave_j(2.0), regions_s, capability=(6, 1), mean_s=1e-6)[1:]:
        assert found.energy_j is not None
        assert found.energy_low_j is not None
        assert found.energy_high_j is not None
        assert 0.6 * found.energy_j < found.energy_low_j
        assert found.energy_high_j < 1.4 * found.energy_j


def test_a_steady_load_is_as_certain_as_its_samples_are_young() -> None:
    regions_s = [(0.0, 1.0), (0.1, 1.0), (3.0, 3.0)]
    measured = measured_regions(lambda at_s: 200.0 * at_s, regions_s, capability=(6, 1), mean_s=1e-6)
    for truth_j, found in measured[1:]:  # the first reading has none before it
        assert found.energy_j == pytest.approx(truth_j)
        assert found.energy_low_j == pytest.approx(truth_j, abs=200.0 * 0.12)
        assert found.energy_high_j == pytest.approx(truth_j, abs=200.0 * 0.12)


@pytest.mark.parametrize(
    ("capability", "steps_j"),
    [
        # A rise is as uncertain as the sample before it may be old: it may have come 100 ms before it was seen.
        ((6, 1), [(5.0, 10.0, 15.0), (5.0, 15.0, 25.0), (5.0, 15.0, 25.0), (15.0, 15.0, 15.0), (5.0, 10.0, 15.0)]),
        ((8, 6), [(5.0, 10.0, 15.0), (15.0, 15.0, 15.0), (15.0, 15.0, 15.0), (15.0, 15.0, 15.0), (5.0, 10.0, 15.0)]),
    ],
)
def test_each_step_of_the_integral_has_a_lower_and_an_upper_estimate(
    capability: tuple[int, int], steps_j: list[tuple[float, float, float]]
) -> None:
    clock, board = StandingClock(), power_board(limit_mw=400_000, capability=capability)
    shown = [(0.0, 0.0, 0.0)]
    with FakeDriver([board]):
        source, _, _ = degraded(clock)
        for power_mw in (300_000, 300_000, 300_000, 300_000, 100_000):
            clock.move(0.05)
            board.power_mw = power_mw
            (reading,) = source.read()
            assert reading.low_j is not None
            assert reading.energy_j is not None
            assert reading.high_j is not None
            shown.append((reading.low_j, reading.energy_j, reading.high_j))
    steps = [[after - before for before, after in zip(*pair, strict=True)] for pair in itertools.pairwise(shown)]
    assert steps == [pytest.approx(step) for step in steps_j]


def test_the_upper_estimate_is_that_of_the_whole_board_where_only_a_slice_is_asked_for() -> None:
    clock, board = StandingClock(), power_board(capability=(8, 0), mig=["MIG-1"])
    with FakeDriver([board]):
        source, _, _ = degraded(clock)
        clock.move(0.1)
        board.power_mw = 200_000
        (reading,) = source.read()
    assert (reading.low_j, reading.energy_j, reading.high_j) == pytest.approx((0.0, 15.0, 20.0))
