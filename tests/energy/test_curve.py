from __future__ import annotations

import bisect
import math
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from impactsdk.energy.curve import SILENCE_NS, Curve
from impactsdk.energy.segment import Timeline
from impactsdk.energy.vector import EXTRAS
from impactsdk.model import Channel
from tests.energy.world import MS, START_NS, TOP_W, Books, Device, devices, played

S = 1_000 * MS


def channel(tick_s: float | None = 0.0, max_power_w: float | None = None, **given: float) -> Channel:
    return Channel(id="gpu:0", type="gpu", method="test", tick_s=tick_s, max_power_w=max_power_w, **given)


def fed(readings: list[tuple[int, float | None]], **told: float | None) -> Curve:
    curve = Curve(channel(**told))  # type: ignore[arg-type]
    for at_ns, energy_j in readings:
        curve.add(energy_j, at_ns, at_ns)
    return curve


def points(curve: Curve) -> list[tuple[int, float]]:
    return [(knot.at_ns, knot.energy_j) for knot in curve.knots]


# --- the truth is within the interval, always -----------------------------------------------------------------------------

_wait = st.one_of(st.integers(1, 15 * MS), st.integers(1, 120 * MS), st.integers(1, 6 * S))  # idle stretches too
_what = st.sampled_from(["read", "read", "read", "fail", "absurd", "nan", "negative", "back in time"])
_poll = st.tuples(_wait, st.integers(0, 3 * MS), _what).map(lambda poll: [poll])
_steady = st.tuples(st.integers(3, 40), st.integers(5 * MS, 120 * MS)).map(lambda it: [(it[1], 0, "read")] * it[0])
_outage = st.tuples(st.integers(1, 4), st.integers(200 * MS, 2 * S)).map(lambda it: [(it[1], 0, "fail")] * it[0])
rhythm = st.lists(st.one_of(_poll, _steady, _outage), min_size=4, max_size=15).map(
    lambda parts: [poll for part in parts for poll in part]
)


@st.composite
def probed(draw: st.DrawFn) -> tuple[Device, list[tuple[int, int, str]], list[int]]:
    """A device, when it was read and what came of it, and the instants at which regions begin and end."""
    polls, at_ns = [], START_NS
    for wait_ns, width_ns, what in draw(rhythm):
        polls.append((at_ns, at_ns + width_ns, what if polls else "read"))
        at_ns += width_ns + wait_ns
    # Anywhere, and where it hurts: about the readings.
    near = st.tuples(st.sampled_from(polls), st.integers(-20 * MS, 20 * MS)).map(lambda it: max(START_NS, it[0][0] + it[1]))
    instants = draw(st.lists(st.one_of(near, st.integers(START_NS, at_ns)), min_size=2, max_size=12))
    resets = draw(st.one_of(st.just([]), st.just([]), st.lists(st.integers(START_NS, at_ns), max_size=1)))
    device = draw(devices(cuts_ns=draw(st.one_of(st.just([]), st.just(instants)))))
    device.resets_ns = tuple(sorted(resets)) if device.kind != "mean" else ()
    if device.tick_ns:  # a reset shows at a tick, like everything else
        device.resets_ns = tuple(device._ticked(reset_ns) for reset_ns in device.resets_ns)
    return device, polls, sorted(instants)


@settings(max_examples=400)
@given(probed())
def test_the_truth_lies_in_the_interval_for_any_power_any_tick_and_any_reading(case) -> None:
    device, polls, instants = case
    # One region after the other.
    steps, last_ns = [(0, "start", 0, 0)], instants[0]
    for at_ns in instants[1:]:
        steps += [(at_ns - last_ns, "end", 1, 0), (0, "start", 0, 0)]
        last_ns = at_ns
    events, parties = played([(instants[0] - START_NS, "nothing", 0, 0), *steps])
    books = Books([device], events)
    for before_ns, after_ns, what in polls:
        shown_j = device.shown_j((before_ns + after_ns) // 2)
        if what == "back in time":
            books.curves[0].add(shown_j, before_ns - 60 * S, after_ns - 60 * S)
        else:
            lie_j = {"read": shown_j, "absurd": shown_j + 1e12, "nan": math.nan, "negative": -1.0}.get(what)
            books.curves[0].add(lie_j, before_ns, after_ns)
        books.settle(after_ns)
    # Two absurd readings in a row look like a counter that was set to another value, which costs two more.
    for number in range(4):
        at_ns = polls[-1][1] + (number + 1) * 10 * MS
        books.read(0, at_ns, at_ns)
        books.settle(at_ns)
    at_ns = max(at_ns, max(instants) + 8 * MS) + 1
    books.settle(at_ns, final=True)
    assert not books.events
    owed_j = math.fsum(party.self_j()[0] for party in parties) + books.ledger.unattributed_j[0]
    assert owed_j == pytest.approx(books.ledger.channels_j[0], rel=1e-9, abs=1e-9)
    for party, event in zip(parties, [event for event in events if event[1] == "start"], strict=True):
        begun_ns = event[0]
        ended_ns = next(event[0] for event in events if event[1] == "end" and event[2] is party)
        truth_j = (device.true_nj(ended_ns) - device.true_nj(begun_ns)) * 1e-9
        missed_ns = max(0, party.start_ns - begun_ns) + max(0, ended_ns - party.end_ns)
        low_j, high_j = party.interval_j(missed_ns=missed_ns, surplus_ns=max(0, party.end_ns - ended_ns))
        assert low_j - 1e-6 <= truth_j <= high_j + 1e-6, (begun_ns, ended_ns)
        assert low_j <= math.fsum(party.inclusive_j()[:-EXTRAS]) <= high_j


@settings(max_examples=60)
@given(devices(), rhythm)
def test_a_curve_never_falls_and_never_passes_the_counter(device, waits) -> None:
    curve, at_ns, first_j = Curve(device.channel()), START_NS, None
    timeline, until_ns = None, 0
    for wait_ns, width_ns, what in waits:
        shown_j = device.shown_j(at_ns + width_ns // 2)
        first_j = shown_j if first_j is None else first_j
        curve.add(None if what == "fail" and curve.knots else shown_j, at_ns, at_ns + width_ns)
        assert curve.knots[-1].energy_j <= shown_j - first_j + 1e-9
        timeline = timeline or Timeline([curve], curve.knots[0].at_ns)
        for segment in timeline.advance(at_ns + width_ns):
            assert segment.start_ns >= until_ns
            assert min(segment.total_rates) >= 0
            # Within the rounding of the levels: a step over a nanosecond is a great rate.
            rounding = 4 * math.ulp(shown_j) / (segment.end_ns - segment.start_ns)
            assert segment.total_rates[0] >= (segment.rates[0] + segment.late_rates[0]) * (1 - 1e-12) - rounding
            until_ns = segment.end_ns
        at_ns += width_ns + wait_ns
        assert [knot.at_ns for knot in curve.knots] == sorted({knot.at_ns for knot in curve.knots})
        assert len(curve.knots) < 4 + 40  # memory: what is settled is dropped


@st.composite
def models(draw: st.DrawFn) -> tuple[list[tuple[int, float, float, float, float]], int, int]:
    """Readings of a model that knows how wrong it may be: instant, nominal, low, high, truth."""
    at_ns, nominal, low, high, truth = START_NS, 5.0, 3.0, 9.0, 0.0
    rows = [(at_ns, nominal, low, high, truth)]
    for _ in range(draw(st.integers(5, 20))):
        at_ns += draw(st.integers(1 * MS, 150 * MS))
        step = draw(st.floats(0.01, 20))
        down, up = draw(st.floats(0, 1)), draw(st.floats(1, 3))
        nominal, low, high = nominal + step, low + step * down, high + step * up
        truth += step * (down + (up - down) * draw(st.floats(0, 1)))
        rows.append((at_ns, nominal, low, high, truth))
    begin = draw(st.integers(0, len(rows) - 3))
    return rows, begin, draw(st.integers(begin + 1, len(rows) - 2))


@settings(max_examples=80)
@given(models(), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0]))
def test_what_a_model_may_be_wrong_by_is_in_the_interval_wherever_in_the_step_it_was_used(case, first, last) -> None:
    rows, begin, end = case
    start_ns = rows[begin][0] + round(0.3 * (rows[begin + 1][0] - rows[begin][0]))
    end_ns = rows[end][0] + round(0.6 * (rows[end + 1][0] - rows[end][0]))
    end_ns = max(end_ns, start_ns)
    # All of a step may have been used before, in or after the region's part of it.
    if begin == end:
        truth_j = (rows[end + 1][4] - rows[end][4]) * first * last
    else:
        truth_j = (rows[begin + 1][4] - rows[begin][4]) * first + rows[end][4] - rows[begin + 1][4]
        truth_j += (rows[end + 1][4] - rows[end][4]) * last
    events, (party, *_) = played([(start_ns - START_NS, "nothing", 0, 0), (0, "start", 0, 0), (end_ns - start_ns, "end", 1, 0)])
    books = Books([Device([0], limit=False)], events)
    for at_ns, nominal, low, high, _ in rows:
        books.curves[0].add(nominal, at_ns, at_ns, low, high)
        books.settle(at_ns)
    books.settle(rows[-1][0], final=True)
    low_j, high_j = party.interval_j()
    assert low_j - 1e-6 <= truth_j <= high_j + 1e-6


# --- single readings that cannot be true ----------------------------------------------------------------------------------


@pytest.mark.parametrize("lie_j", [math.nan, math.inf, -math.inf, -5.0, 0.0, 1e15, None])
def test_one_reading_that_cannot_be_true_is_a_gap_and_changes_no_total(lie_j: float | None) -> None:
    curve = fed([(START_NS + n * 100 * MS, 1_000 + 10.0 * n) for n in range(5)])
    assert curve.add(lie_j, START_NS + 500 * MS, START_NS + 500 * MS) is None
    assert curve.lost_readings == 1
    knot = curve.add(1_060.0, START_NS + 600 * MS, START_NS + 600 * MS)
    assert knot is not None
    assert knot.failed
    assert not knot.lost
    assert knot.energy_j == 60.0


def test_a_reading_from_before_the_last_one_is_a_gap() -> None:
    curve = fed([(START_NS, 0.0), (START_NS + S, 100.0)])
    assert curve.add(50.0, START_NS + S // 2, START_NS + S // 2) is None
    assert curve.add(150.0, START_NS + 2 * S, START_NS + S) is None
    assert points(curve) == [(START_NS, 0.0), (START_NS + S, 100.0)]


@pytest.mark.parametrize("after_j", [0.0, 3.0, 1e9])
def test_a_counter_that_is_set_to_another_value_loses_what_it_used_meanwhile_and_invents_nothing(after_j: float) -> None:
    curve = fed([(START_NS + n * 100 * MS, 1_000 + 10.0 * n) for n in range(5)])
    for n in range(5, 9):
        curve.add(after_j + 10.0 * (n - 5), START_NS + n * 100 * MS, START_NS + n * 100 * MS)
    assert [knot.lost for knot in curve.knots[1:]] == [False] * 4 + [True] + [False] * 2
    assert curve.knots[-1].energy_j == 40.0 + 20.0


@settings(max_examples=30)
@given(st.floats(), st.floats(), st.floats())
@example(math.nan, 1.0, 2.0)
def test_a_models_bounds_that_are_no_numbers_do_not_reach_the_account(energy_j: float, low_j: float, high_j: float) -> None:
    curve = fed([(START_NS, 0.0), (START_NS + S, 10.0)])
    curve.add(20.0, START_NS + 2 * S, START_NS + 2 * S, low_j, high_j)
    curve.add(30.0, START_NS + 3 * S, START_NS + 3 * S, low_j, energy_j)
    for knot in curve.knots:
        assert 0.0 <= knot.low_gain <= 1.0 <= knot.high_gain < math.inf


# --- when the device does not answer, or stands still ---------------------------------------------------------------------


def test_what_was_used_in_an_outage_belongs_to_nobody_who_runs_when_the_device_is_back() -> None:
    # 300 W throughout; silent for five minutes; a region from the comeback on.
    device = Device([TOP_W], kind="observed", tick_ns=20 * MS)
    outage_ns = 300 * S
    events, (early, late) = played([(S, "start", 0, 0), (S, "end", 1, 0), (outage_ns, "start", 0, 0), (2 * S, "end", 1, 0)])
    books, at_ns = Books([device], events), START_NS
    while at_ns < START_NS + outage_ns + 6 * S:
        silent = START_NS + 3 * S <= at_ns < START_NS + 1 * S + outage_ns
        books.read(0, at_ns, at_ns, fails=silent)
        books.settle(at_ns)
        at_ns += 5 * S if silent else 10 * MS
    books.settle(at_ns, final=True)
    assert early.inclusive_j()[0] == pytest.approx(300.0, rel=0.05)
    assert late.inclusive_j()[0] == pytest.approx(600.0, rel=0.05)
    low_j, high_j = late.interval_j()
    assert low_j <= 600.0 <= high_j
    total_j = books.ledger.channels_j[0]
    assert total_j == pytest.approx(device.true_nj(at_ns) * 1e-9 - device.true_nj(START_NS) * 1e-9, rel=0.01)
    assert books.ledger.unattributed_j[0] == pytest.approx(total_j - 900.0, rel=0.01)


def test_a_region_in_an_outage_is_settled_after_a_second_and_says_how_much_it_may_have_missed() -> None:
    events, (party, *_) = played([(2 * S, "start", 0, 0), (1 * S, "end", 1, 0)])
    books = Books([Device([TOP_W])], events)
    books.read(0, START_NS, START_NS)
    for n in range(1, 60):
        books.read(0, START_NS + n * 100 * MS, START_NS + n * 100 * MS, fails=True)
        books.settle(START_NS + n * 100 * MS)
    assert not books.events
    assert books.timeline is not None
    assert START_NS + n * 100 * MS - books.timeline.until_ns <= SILENCE_NS
    assert party.inclusive_j()[0] == 0.0
    assert party.failed_ns() == pytest.approx(1 * S)
    assert party.interval_j() == (0.0, pytest.approx(300.0))


def test_a_counter_that_stands_still_holds_nobody_up_for_long() -> None:
    curve = fed([(START_NS, 7.0)], tick_s=None)
    timeline = Timeline([curve], START_NS)
    for n in range(1, 800):
        at_ns = START_NS + n * 10 * MS
        curve.add(7.0, at_ns, at_ns)
        for _ in timeline.advance(at_ns):
            pass
        # At first it may be one that ticks slowly.
        assert at_ns - timeline.until_ns <= (4_510 if n <= 451 else 510) * MS


def test_what_may_be_this_process_s_is_in_the_error_of_regions_that_run_beside_each_other_too() -> None:
    curve = fed([(START_NS, 0.0)], max_power_w=100.0)
    for n in (1, 2, 3):  # of an interval that seems to be others', clocks that move in steps leave so much open
        curve.add(10.0 * n, START_NS + n * 100 * MS, START_NS + n * 100 * MS)
        curve.divide(0.0, between=(0.0, 0.4))
    segments = list(Timeline([curve], START_NS).advance(START_NS + 300 * MS, final=True))
    assert len(segments) == 3
    assert all(segment.error_j == pytest.approx(4.0) for segment in segments)


def test_a_value_that_is_declared_to_lag_is_never_dated_later_than_its_tick_allows() -> None:
    # Read ten times a tick: a value may be as old as the tick, whether it has changed since the last reading or not.
    curve = fed([(START_NS + n * 100 * MS, 10.0 * (n // 3)) for n in range(30)], tick_s=1.0)
    for n, knot in enumerate(curve.knots):
        assert knot.lo_ns == START_NS + n * 100 * MS - S
        assert knot.lo_ns <= knot.at_ns <= knot.hi_ns


# --- the tick -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tick_ms", "poll_ms"), [(20, 10), (100, 10), (100, 25), (50, 10), (33, 10)])
@pytest.mark.parametrize("seed", range(3))
def test_the_tick_is_learnt_though_the_polls_are_late_at_random(tick_ms: int, poll_ms: int, seed: int) -> None:
    chance = random.Random(seed)
    device = Device([60, TOP_W, 200], kind="observed", tick_ns=tick_ms * MS, phase_ns=chance.randrange(100 * MS), limit=False)
    curve, at_ns = Curve(device.channel()), START_NS
    for _ in range(400):
        late_ns = round(abs(chance.gauss(0, 0.1 * poll_ms)) * MS)
        curve.add(device.shown_j(at_ns + late_ns), at_ns + late_ns, at_ns + late_ns + 100_000)
        at_ns += poll_ms * MS
    assert curve.tick_ns == pytest.approx(tick_ms * MS, rel=0.1)
    assert curve.poll_ns == pytest.approx(max(10, tick_ms / 4) * MS, rel=0.15)


def test_a_counter_that_changes_at_each_of_many_readings_is_read_no_faster_than_the_slowest() -> None:
    curve, at_ns = Curve(channel(tick_s=None)), START_NS
    for n in range(100):
        curve.add(float(n), at_ns, at_ns)
        at_ns += curve.poll_ns
    assert curve.poll_ns == 100 * MS
    assert curve.tick_ns == 10 * MS


@pytest.mark.parametrize("tick_ms", [50, 100, 100.7])
@pytest.mark.parametrize("seed", range(3))
def test_ticks_that_are_let_pass_are_counted_and_the_phase_is_kept(tick_ms: float, seed: int) -> None:
    chance = random.Random(seed)
    ticks_ns = [START_NS - chance.randrange(round(tick_ms * MS))]
    while ticks_ns[-1] < START_NS + 62 * S:
        ticks_ns.append(ticks_ns[-1] + round(tick_ms * MS + chance.gauss(0, 0.3 * MS)))
    curve, at_ns, reads, off_ms, counted = Curve(channel(tick_s=None)), START_NS, 0, [], 0
    while at_ns < START_NS + 60 * S:
        latest = bisect.bisect_right(ticks_ns, at_ns) - 1
        knot = curve.add(0.3 * (ticks_ns[latest] - ticks_ns[0]) / MS, at_ns - 20_000, at_ns + 20_000)
        quiet = at_ns > START_NS + 5 * S
        if quiet:
            reads += 1
            if knot is not None:
                counted += 1
                off_ms.append(abs(knot.at_ns - ticks_ns[latest]) / MS)
                assert knot.lo_ns <= ticks_ns[latest] <= knot.hi_ns
        within_ns = 400 * MS if quiet else 0
        due_ns = curve.due_ns(at_ns, within_ns=within_ns)
        at_ns = due_ns + round(abs(chance.gauss(0, 1.0)) * MS)
    assert reads < 55_000 / tick_ms  # half of the two a tick that it takes otherwise
    assert curve.tick_ns == pytest.approx(tick_ms * MS, rel=0.02)
    assert sorted(off_ms)[len(off_ms) // 2] < 0.1 * tick_ms
    assert counted > reads / 2


class Ticks:
    """A board that draws 300 W, whose counter ticks at known instants, and a curve that is read when it is due."""

    def __init__(self, tick_ms: float, jitter_ms: float, late_ms: float, *, seed: int, seconds: int) -> None:
        self._chance = random.Random(seed)
        self._late_ms = late_ms
        self.ticks_ns = [START_NS - self._chance.randrange(round(tick_ms * MS))]
        while self.ticks_ns[-1] < START_NS + (seconds + 2) * S:
            self.ticks_ns.append(self.ticks_ns[-1] + max(1, round(tick_ms * MS + self._chance.gauss(0, jitter_ms * MS))))
        self.curve, self.now_ns = Curve(channel(tick_s=None)), START_NS

    def read(self, *, within_ns: int = 0) -> tuple[int, int] | None:
        """Wait until it is due and read; how wide the window of a new value is, and how far off it was placed."""
        latest = bisect.bisect_right(self.ticks_ns, self.now_ns) - 1
        knot = self.curve.add(0.3 * (self.ticks_ns[latest] - self.ticks_ns[0]) / MS, self.now_ns - 20_000, self.now_ns + 20_000)
        found = None
        if knot is not None:
            assert knot.lo_ns <= self.ticks_ns[latest] <= knot.hi_ns or not latest or knot.first
            found = knot.hi_ns - knot.lo_ns, abs(knot.at_ns - self.ticks_ns[latest])
        self.curve.settled_ns(self.now_ns)
        self.curve.forget(self.now_ns - 2 * S)
        due_ns = self.curve.due_ns(self.now_ns, within_ns=within_ns)
        self.now_ns = due_ns + round(abs(self._chance.gauss(0, self._late_ms)) * MS)
        return found


@pytest.mark.parametrize("tick_ms", [20, 50, 100])
@pytest.mark.parametrize(("jitter_ms", "late_ms", "window"), [(0.0, 0.1, 0.1), (0.3, 0.3, 0.15), (0.1, 2.0, 0.4)])
def test_two_readings_a_tick_find_it_in_a_narrow_window(tick_ms: int, jitter_ms: float, late_ms: float, window: float) -> None:
    board = Ticks(tick_ms, jitter_ms, late_ms, seed=1, seconds=30)
    for _ in range(20_000 // tick_ms):  # the margin narrows while the tick is found within it
        board.read()
    since_ns, reads, found = board.now_ns, 0, []
    while board.now_ns < since_ns + 5 * S:
        reads += 1
        found.append(board.read())
    knots = [knot for knot in found if knot is not None]
    assert reads <= 2.3 * 5_000 / tick_ms
    assert len(knots) >= 0.95 * 5_000 / tick_ms
    assert sorted(wide_ns for wide_ns, _ in knots)[len(knots) // 2] <= window * tick_ms * MS
    assert sorted(off_ns for _, off_ns in knots)[len(knots) // 2] <= 0.05 * tick_ms * MS


def test_a_counter_that_ceases_to_tick_is_not_read_ever_faster() -> None:
    board = Ticks(100, 0.1, 0.1, seed=1, seconds=30)
    while board.now_ns < START_NS + 20 * S:
        board.read()
    del board.ticks_ns[bisect.bisect_right(board.ticks_ns, board.now_ns) :]
    stopped_ns, reads = board.now_ns, 0
    while board.now_ns < stopped_ns + S:
        board.read()
        reads += 1
    assert reads < 50  # every 25 ms, and a few around where the tick should have been


# --- sparing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparing", [2, 4])
@pytest.mark.parametrize(
    ("tick_ms", "jitter_ms", "late_ms"),
    [(tick_ms, jitter_ms, late_ms) for tick_ms in (20, 33.3, 50, 100) for jitter_ms, late_ms in ((0.0, 0.1), (0.3, 1.0))]
    + [(100, 2.0, 3.0)],
)
def test_where_looks_are_dear_there_are_fewer_of_them_and_a_tick_is_still_placed_where_it_was(
    tick_ms: float, sparing: int, jitter_ms: float, late_ms: float
) -> None:
    board = Ticks(tick_ms, jitter_ms, late_ms, seed=2, seconds=60)
    while board.now_ns < START_NS + 10 * S:
        board.read()
    board.curve.spare(sparing)
    since_ns, reads, found = board.now_ns, 0, []
    while board.now_ns < since_ns + 40 * S:
        reads += 1
        found.append(board.read(within_ns=100 * MS))  # which asserts that the tick is in its window
    knots = [knot for knot in found if knot is not None]
    assert reads <= (40 if tick_ms == 100 and sparing > 2 else 85) * 16  # 13 and 34 a second, where it is 20 to 100 otherwise
    assert board.curve.tick_ns == pytest.approx(tick_ms * MS, rel=0.03)
    assert sorted(off_ns for _, off_ns in knots)[len(knots) // 2] <= 0.08 * tick_ms * MS


def test_a_tick_that_changes_its_rate_is_found_out_by_a_sparing_reader_too() -> None:
    board = Ticks(100, 0.1, 0.3, seed=3, seconds=60)
    while board.now_ns < START_NS + 5 * S:
        board.read()
    board.curve.spare(2)
    kept = bisect.bisect_right(board.ticks_ns, board.now_ns)
    begun_ns = board.ticks_ns[kept - 1]
    board.ticks_ns[kept:] = [begun_ns + 40 * number * MS for number in range(1, 1_400)]
    while board.now_ns < START_NS + 50 * S:
        board.read(within_ns=100 * MS)
    assert board.curve.tick_ns == pytest.approx(40 * MS, rel=0.1)


def test_a_counter_that_never_moves_is_read_less_often_by_a_sparing_reader_and_one_that_is_exact_is_not() -> None:
    exact, still = Curve(channel(tick_s=0.0)), Curve(channel(tick_s=None))
    assert (exact.poll_ns, still.poll_ns) == (100 * MS, 10 * MS)
    for curve in (exact, still):
        curve.spare(4)
    assert (exact.poll_ns, still.poll_ns) == (100 * MS, 40 * MS)
