"""Between two ticks the power may have stepped: then F bends there, and a region that is the burst gets the whole of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impactsdk import Meter, Settings
from impactsdk.energy.curve import Curve
from impactsdk.energy.segment import Segment, Timeline
from impactsdk.model import Channel
from impactsdk.testing import FakeClock, SimulatedSource
from tests.energy.world import MS, START_NS

TICK_NS = 100 * MS
IDLE_W, BUSY_W = 60.0, 300.0
Power = Callable[[float], float]


def ticking(
    levels_j: list[float],
    *,
    failing: frozenset[int] = frozenset(),
    final: frozenset[int] = frozenset(),
    settle: bool = True,
) -> tuple[Curve, list[Segment]]:
    """A counter that shows one level after the other, a tick each, read just before and just after each tick."""
    curve = Curve(Channel(id="gpu:0", type="gpu", method="test", max_power_w=400.0))
    segments: list[Segment] = []
    timeline: Timeline | None = None
    for number, (before_j, level_j) in enumerate(itertools.pairwise([0.0, *levels_j])):
        tick_ns = START_NS + number * TICK_NS
        curve.add(None if number in failing else before_j, tick_ns - MS, tick_ns - MS)
        curve.add(level_j, tick_ns + MS, tick_ns + MS)
        timeline = timeline or Timeline([curve], curve.knots[0].at_ns)
        if settle:
            segments += timeline.advance(tick_ns + MS, final=number in final)
    if not settle and timeline is not None:
        segments += timeline.advance(tick_ns + MS)
    return curve, segments


def energy_j(segments: list[Segment], start_ns: int, end_ns: int) -> float:
    return math.fsum(
        segment.total_rates[0] * max(0, min(segment.end_ns, end_ns) - max(segment.start_ns, start_ns)) for segment in segments
    )


def levels(power_w: list[float], between_w: dict[int, float] | None = None) -> list[float]:
    """What the counter shows after each tick; ``between_w`` are mean powers of single ticks."""
    power_w = [(between_w or {}).get(number, watts) for number, watts in enumerate(power_w)]
    return list(itertools.accumulate(watts * TICK_NS * 1e-9 for watts in power_w))


@pytest.mark.parametrize("part", [0.1, 0.37, 0.5, 0.9])
@pytest.mark.parametrize(("first_w", "then_w"), [(IDLE_W, BUSY_W), (BUSY_W, IDLE_W)])
def test_a_step_of_power_between_two_ticks_is_found_where_it_was(part: float, first_w: float, then_w: float) -> None:
    mixed_w = part * first_w + (1 - part) * then_w
    _, segments = ticking(levels([first_w] * 10 + [then_w] * 10, {10: mixed_w}))
    step_ns = START_NS + 9 * TICK_NS + round(part * TICK_NS)  # the tick numbered 10 began one tick before it was shown
    before_ns, after_ns = START_NS + 6 * TICK_NS, START_NS + 14 * TICK_NS
    assert energy_j(segments, before_ns, step_ns) == pytest.approx(first_w * (step_ns - before_ns) * 1e-9, rel=0.01, abs=0.01)
    assert energy_j(segments, step_ns, after_ns) == pytest.approx(then_w * (after_ns - step_ns) * 1e-9, rel=0.01, abs=0.01)


@given(st.lists(st.sampled_from([0.0, 1.0, 60.0, 61.0, 180.0, 299.0, 300.0]) | st.floats(0, 400), min_size=8, max_size=30))
def test_whatever_bends_each_tick_keeps_its_energy_and_nothing_runs_backwards(power_w: list[float]) -> None:
    curve, segments = ticking(shown_j := levels(power_w))
    for segment in segments:
        assert segment.total_rates[0] >= 0.0
        assert segment.end_ns > segment.start_ns
    assert all(one.end_ns == next_.start_ns for one, next_ in itertools.pairwise(segments))
    knots = [knot for knot in curve.knots if knot.real]
    for before, after in itertools.pairwise(knot for knot in knots if segments and knot.at_ns <= segments[-1].end_ns):
        assert energy_j(segments, before.at_ns, after.at_ns) == pytest.approx(after.energy_j - before.energy_j, abs=1e-9)
    assert knots[-1].energy_j == pytest.approx(shown_j[-1], abs=1e-9)


@given(
    st.lists(st.sampled_from([1.0, 60.0, 180.0, 300.0]), min_size=8, max_size=30), st.frozensets(st.integers(0, 29), max_size=3)
)
def test_what_was_settled_before_its_time_does_not_bend_any_more(power_w: list[float], final: frozenset[int]) -> None:
    shown_j = levels(power_w)
    _, segments = ticking(shown_j, final=final | {len(power_w) - 1})
    assert all(one.end_ns == next_.start_ns for one, next_ in itertools.pairwise(segments))
    assert min(segment.total_rates[0] for segment in segments) >= 0.0
    assert energy_j(segments, 0, segments[-1].end_ns) == pytest.approx(shown_j[-1], abs=1e-9)


@pytest.mark.parametrize(
    ("why", "power_w", "failing"),
    [
        ("a burst within one tick says nothing of where", [IDLE_W] * 10 + [200.0] + [IDLE_W] * 10, frozenset()),
        ("a change by a few percent", [200.0] * 10 + [202.0] + [204.0] * 10, frozenset()),
        ("the device did not answer meanwhile", [IDLE_W] * 10 + [200.0] + [BUSY_W] * 10, frozenset({10})),
        ("nor just after", [IDLE_W] * 10 + [200.0] + [BUSY_W] * 10, frozenset({11})),
    ],
)
def test_where_the_ticks_do_not_say_where_it_stepped_nothing_is_bent(
    why: str, power_w: list[float], failing: frozenset[int]
) -> None:
    curve, _ = ticking(levels(power_w), failing=failing, settle=False)
    assert len(power_w) == 21
    assert not any(knot.bend for knot in curve.knots), why


def test_a_bend_is_no_reading_for_the_interval_and_for_what_had_to_be_interpolated() -> None:
    curve, segments = ticking(levels([IDLE_W] * 10 + [180.0] + [BUSY_W] * 5), settle=False)
    (bend,) = [knot for knot in curve.knots if knot.bend]
    assert bend.at_ns == pytest.approx(START_NS + 9.5 * TICK_NS, abs=3 * MS)
    segment = next(segment for segment in segments if segment.start_ns == bend.at_ns)
    assert segment.blur_ns(bend.at_ns) == pytest.approx(TICK_NS / 2, abs=3 * MS)
    low_j, high_j = segment.error_at_j(bend.at_ns, ending=True)
    # All of the tick's 18 J may have been used after, or before: the bend is an estimate, the interval is not.
    assert low_j == pytest.approx(-IDLE_W * 0.05, abs=0.1)
    assert high_j == pytest.approx(BUSY_W * 0.05, abs=0.1)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
@pytest.mark.parametrize(("first_w", "then_w"), [(0.0, 200.0), (200.0, 20.0)])
def test_where_others_use_the_device_too_it_bends_where_our_own_power_steps(part: float, first_w: float, then_w: float) -> None:
    others_w = 40.0
    curve = Curve(Channel(id="cpu:0", type="cpu", method="test", tick_s=0.0, sharing="cpu_time"))
    curve.add(0.0, START_NS, START_NS)
    timeline, segments, level_j = Timeline([curve], START_NS), [], 0.0
    for number in range(1, 20):
        own_w = first_w if number < 10 else then_w if number > 10 else part * first_w + (1 - part) * then_w
        level_j += (own_w + others_w) * TICK_NS * 1e-9
        curve.add(level_j, START_NS + number * TICK_NS, START_NS + number * TICK_NS)
        curve.divide(own_w / (own_w + others_w))
        segments += timeline.advance(START_NS + number * TICK_NS)
    step_ns = START_NS + 9 * TICK_NS + round(part * TICK_NS)
    for segment in segments:
        own_w = first_w if segment.end_ns <= step_ns + 1 else then_w
        assert segment.rates[0] * 1e9 == pytest.approx(own_w, rel=1e-6, abs=1e-6)
        assert segment.total_rates[0] * 1e9 == pytest.approx(own_w + others_w, rel=1e-6)


def measured(power_w: Power, start_s: float, length_s: float, *, phase_s: float, tick_s: float = 0.1) -> tuple[float, float]:
    """What a region from ``start_s`` on is charged, and the truth."""
    clock = FakeClock()
    source = SimulatedSource(power_w, tick_s=tick_s, max_power_w=350.0, phase_s=phase_s)
    with Meter(Settings.load({}, export="none"), sources=[source], clock=clock) as meter:
        with meter.measured("before", span=False):
            clock.advance(start_s)
        start_ns = clock.now_ns()
        with meter.measured("burst", span=False) as burst:
            clock.advance(length_s)
        end_ns = clock.now_ns()
        with meter.measured("after", span=False):
            clock.advance(2.0)
        found = burst.result()
    truth_j = source.true_energy_j(start_ns, end_ns)
    assert found.energy_low_j is not None
    assert found.energy_high_j is not None
    assert found.energy_low_j <= truth_j <= found.energy_high_j
    assert found.energy_j is not None
    return found.energy_j, truth_j


@pytest.mark.parametrize("phase_s", [0.0, 0.013, 0.05, 0.081])
@pytest.mark.parametrize("length_s", [0.25, 0.3, 1.0])
@pytest.mark.parametrize("tick_s", [0.1, 0.0])
def test_a_region_that_is_the_burst_of_power_is_charged_the_burst(phase_s: float, length_s: float, tick_s: float) -> None:
    start_s = 5.0 + phase_s  # of a counter without a tick it is the readings, every 100 ms, that have a phase
    energy_j, truth_j = measured(
        lambda at_s: BUSY_W if start_s <= at_s < start_s + length_s else IDLE_W,
        start_s,
        length_s,
        phase_s=2 * phase_s if tick_s else 0.0,
        tick_s=tick_s,
    )
    # Straight between ticks, it would on average be (300 W - 60 W) x 100 ms / 3 too little: 8.9 % of 300 ms.
    assert energy_j == pytest.approx(truth_j, rel=0.02)


def test_the_ledger_still_adds_up_where_it_bends() -> None:
    clock = FakeClock()
    source = SimulatedSource(lambda at_s: BUSY_W if at_s % 0.7 < 0.31 else IDLE_W, tick_s=0.1, max_power_w=350.0)
    with Meter(Settings.load({}, export="none"), sources=[source], clock=clock) as meter:
        for _ in range(40):
            with meter.measured("step", span=False):
                clock.advance(0.17)
            clock.advance(0.06)
        clock.advance(1.0)
        assert meter.flush()
        totals = meter.totals()
    owed_j = totals.attributed_j + totals.unattributed_j + totals.others_j
    assert owed_j == pytest.approx(sum(totals.channels.values()), rel=1e-12)
