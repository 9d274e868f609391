"""The intervals of operations and totals: in order, whatever the factors do, and never narrower than what is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impactsdk import DegradedWarning, Impact, Meter, Settings, Totals
from impactsdk.factor import Factor, Place
from impactsdk.model import Channel, Reading
from impactsdk.protocols import Clock
from impactsdk.testing import FakeClock, SimulatedSource

PER_KWH = 3.6e6
"""A price at which a joule costs one."""


class Tariff:
    """A price for each so many seconds; ``None`` where none is known."""

    name = "tariff"
    trouble: str | None = None

    def __init__(self, prices: Sequence[float | None], every_s: float) -> None:
        self._prices, self._every_ns = prices, round(every_s * 1e9)

    def factors(self, *, place: Place | None, unix_ns: int) -> Sequence[Factor]:
        price = self._prices[unix_ns // self._every_ns % len(self._prices)]
        return [] if price is None else [Factor("price", price, "{USD}/(kW.h)", "contract", low=price / 2, high=price * 2)]

    def close(self) -> None:
        pass


def in_order(impact: Impact) -> None:
    for name, (low, high) in impact.intervals.items():
        value = getattr(impact, name)
        assert low <= value * (1 + 1e-9) + 1e-12, name
        assert high is None or value <= high * (1 + 1e-9) + 1e-12, name


@st.composite
def any_work(draw: st.DrawFn) -> list[tuple[str, float, float]]:
    """Names, and for how long each works and then nobody does, seconds."""
    one = st.tuples(st.sampled_from("abc"), st.sampled_from([0.003, 0.06, 0.14, 1.7]), st.sampled_from([0.0, 0.01, 0.3]))
    return draw(st.lists(one, min_size=1, max_size=25))


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from([None, 0.0, 0.1, 0.3, 2.0]), min_size=1, max_size=4),
    st.sampled_from([0.5, 1.0, 4.0]),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.booleans(),
    any_work(),
)
def test_no_interval_is_turned_round_and_each_holds_the_truth_while_a_tariff_changes(
    prices: list[float | None], every_s: float, tick_s: float, limited: bool, work: list[tuple[str, float, float]]
) -> None:
    clock = FakeClock()
    source = SimulatedSource(
        lambda second: 300.0 if second % 0.7 < 0.2 else 60.0, tick_s=tick_s, max_power_w=400.0 if limited else None
    )
    chosen = Settings.load({}, export="none", region="FR", embodied_kg=1_000, lifetime_years=4)
    with Meter(chosen, sources=[source], factors=[Tariff(prices, every_s), "tables"], clock=clock) as meter:
        begun_ns, used_j = clock.now_ns(), dict.fromkeys("abc", 0.0)
        with meter.measured("around"):
            for name, seconds, pause_s in work:
                with meter.measured(name) as region:
                    clock.advance(seconds)
                assert region.exit_ns is not None
                used_j[name] += source.true_energy_j(region.enter_ns, region.exit_ns)
                clock.advance(pause_s)
        clock.advance(0.05)
        meter.close()
    all_j = source.true_energy_j(begun_ns, clock.now_ns())
    totals = meter.totals()
    (intensity,) = [factor for factor in totals.impact.factors if factor.kind == "carbon_intensity"]
    (pue,) = [factor.value for factor in totals.impact.factors if factor.kind == "pue"] or [1.0]
    per_j = pue * intensity.value / PER_KWH
    for name, impact in [("", totals.impact), *((name, found.impact) for name, found in totals.operations.items())]:
        in_order(impact)
        if name != "around":
            true_g = per_j * (used_j[name] if name else all_j)
            low_g, high_g = impact.intervals["carbon_g"]
            assert low_g <= true_g + 1e-9
            assert high_g is None or true_g <= high_g + 1e-9


def test_the_totals_stay_exact_to_a_few_ticks_while_a_tariff_changes() -> None:
    clock = FakeClock()
    source = SimulatedSource(300.0, tick_s=0.1, max_power_w=400.0)
    meter = Meter(Settings.load({}, export="none"), sources=[source], factors=[Tariff([1.0, 3.0], 10.0)], clock=clock)
    with meter:
        for _ in range(100):
            with meter.measured("forward"):
                clock.advance(0.06)
            with meter.measured("backward"):
                clock.advance(0.14)
        meter.close()
    impact = meter.totals().impact
    low, high = impact.intervals["cost"]
    assert impact.cost is not None
    assert high is not None
    # The factor's own range is from a half to the double. Each of the two changes comes between two ticks.
    assert low > 0.42 * impact.cost
    assert high < 2.3 * impact.cost


# --- what was used unseen ----------------------------------------------------------------------------------------------------


def joules(
    source: SimulatedSource, seconds: float = 10.3, before: Callable[[FakeClock], None] = lambda _: None
) -> tuple[float, Totals]:
    """What one region of so many seconds truly used, and the totals, in which a joule costs one."""
    clock = FakeClock()
    chosen = Settings.load({}, export="none", price_per_kwh=PER_KWH)
    with Meter(chosen, sources=[source], clock=clock) as meter:
        before(clock)
        begun_ns = clock.now_ns()
        with meter.measured("work"):
            clock.advance(seconds)
        used_j = source.true_energy_j(begun_ns, clock.now_ns())
        meter.close()
    return used_j, meter.totals()


def test_what_nothing_bounds_has_no_upper_end_in_totals_either() -> None:
    source = SimulatedSource(lambda second: 50.0 + 50.0 * (int(second * 1.3) % 2), tick_s=1.0, phase_s=0.5)
    used_j, totals = joules(source)
    for impact in (totals.impact, totals.operations["work"].impact):
        low, high = impact.intervals["cost"]
        assert low <= used_j
        assert high is None
    assert totals.impact.intervals["cost"][0] > 0.8 * used_j


@pytest.mark.parametrize("tick_s", [0.0, 0.1])
def test_what_a_reset_has_swallowed_is_in_the_intervals_of_the_operation_and_of_the_totals(tick_s: float) -> None:
    def fail(_: int) -> float | None:
        elapsed_s = (source._clock.now_ns() - source._opened_ns) / 1e9  # type: ignore[union-attr]
        return source._shown_j(source._clock.now_ns()) - 405.0 if elapsed_s >= 4.05 else None  # type: ignore[union-attr]

    source = SimulatedSource(100.0, tick_s=tick_s, max_power_w=100.0, fail=fail)
    used_j, totals = joules(source)
    assert totals.attributed_j < used_j - 1.0, "nothing was lost"
    for impact in (totals.impact, totals.operations["work"].impact):
        low, high = impact.intervals["cost"]
        assert high is not None
        assert low <= used_j <= high + 1e-6
        assert high < used_j + 50.0


def test_what_was_used_before_a_device_answered_first_is_in_the_intervals() -> None:
    def fail(number: int) -> None:
        if number < 5:
            raise OSError("not yet")

    with pytest.warns(DegradedWarning, match="not yet"):
        used_j, totals = joules(SimulatedSource(100.0, max_power_w=100.0, fail=fail))
    assert totals.attributed_j < used_j - 1.0, "it answered at once"
    low, high = totals.operations["work"].impact.intervals["cost"]
    assert high is not None
    assert low <= used_j <= high + 1e-6


@pytest.mark.parametrize("phase", [0.2, 0.97])
def test_what_the_first_tick_shows_of_the_time_before_is_in_the_interval_of_the_totals(phase: float) -> None:
    """Nobody is charged with it, yet it is among the joules of all."""

    class Board:
        name, lazy, counts = "board", True, True

        def open(self, clock: Clock) -> Sequence[Channel]:
            self.now_ns, self.begun_ns = clock.now_ns, clock.now_ns()
            return [Channel("gpu:0", type="gpu", method="test", max_power_w=400.0)]

        def read(self) -> Iterator[Reading]:
            second = ((self.now_ns() - self.begun_ns) / 1e9 + phase) // 1 - phase
            yield Reading("gpu:0", 1_000.0 + second * (60.0 if second >= 0 else 300.0))

        def close(self) -> None:
            pass

    clock = FakeClock()
    with Meter(Settings.load({}, export="none", price_per_kwh=PER_KWH), sources=[Board()], clock=clock) as meter:
        with meter.measured("work"):
            for _ in range(100):
                clock.advance(0.1)
        meter.close()
    low, high = meter.totals().impact.intervals["cost"]
    assert high is not None
    assert low <= 600.0 <= high
