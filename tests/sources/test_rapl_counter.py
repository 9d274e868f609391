from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impactsdk.sources.rapl import EnergyCounter

UNITS = 2**32

# What the kernel makes of a counter of 32 bits: units of so many picojoules, the range one unit short.
unit_pj = st.sampled_from([61_035_000, 15_258_000, 15_300_000])

# Any power up to the plausible one, for up to 200 s: 60 kJ, less than one turn of the smallest counter.
step_ns = st.integers(1, 100_000_000) | st.integers(100_000_000_000, 200_000_000_000)


def shown_uj(units: int, unit: int) -> int:
    return units % UNITS * unit // 1_000_000


@settings(deadline=None)
@given(
    unit=unit_pj,
    start=st.integers(0, UNITS - 1),
    steps=st.lists(st.tuples(st.floats(0, 1) | st.just(1.0), step_ns), min_size=1, max_size=50),
)
def test_the_sum_is_the_truth_whatever_the_start_and_the_steps(unit: int, start: int, steps: list[tuple[float, int]]) -> None:
    plausible_w = 300.0
    counter = EnergyCounter(shown_uj(UNITS - 1, unit), plausible_w)
    units, now_ns = start, 0
    first_j = counter.cumulative_j(shown_uj(units, unit), now_ns)
    last_j = first_j
    wraps = 0
    for share, passed_ns in steps:
        before = units
        units += int(share * plausible_w * passed_ns / 1e9 * 1e12 / unit)
        now_ns += passed_ns
        wraps += units // UNITS - before // UNITS
        energy_j = counter.cumulative_j(shown_uj(units, unit), now_ns)
        assert energy_j >= last_j
        last_j = energy_j
    truth_j = (units - start) * unit / 1e12
    # Two roundings to a microjoule, and one for each turn.
    assert abs(last_j - first_j - truth_j) <= (2 + wraps) * 1e-6 + 1e-12 * last_j


def test_a_wrap_right_after_a_reading_is_one_though_a_whole_tick_came_with_it() -> None:
    counter = EnergyCounter(262_143_328_850, 500.0)
    before_j = counter.cumulative_j(262_143_228_850, 0)
    assert counter.cumulative_j(300_000, 10_000) - before_j == pytest.approx(0.4, abs=1e-4)  # 400 W for 1 ms, seen after 10 us


@settings(deadline=None)
@given(
    before=st.integers(1, 262_143_328_850),
    fall=st.integers(1, 262_143_328_850),
    step_ns=st.integers(0, 100_000_000),
)
def test_a_decrease_is_a_wrap_if_plausible_and_else_passed_on(before: int, fall: int, step_ns: int) -> None:
    range_uj, plausible_w = 262_143_328_850, 500.0
    after = max(0, before - fall)
    counter = EnergyCounter(range_uj, plausible_w)
    first_j = counter.cumulative_j(before, 0)
    change_j = counter.cumulative_j(after, step_ns) - first_j
    as_wrap_j = (after - before + range_uj) / 1e6
    if change_j >= 0:
        assert as_wrap_j <= plausible_w * (step_ns / 1e9 + 0.002)
    else:
        assert abs(change_j - (after - before) / 1e6) < 1e-6
        assert as_wrap_j > plausible_w * step_ns / 1e9


def test_a_missing_range_takes_the_usual_resolution() -> None:
    counter = EnergyCounter(None, 500.0)
    assert counter.resolution_j == 61e-6
    assert counter.cumulative_j(2_000_000, 0) == 2.0
    assert counter.cumulative_j(1_000_000, 1) == 1.0
