from __future__ import annotations

import dataclasses
import math
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impactsdk.energy.ledger import Ledger
from impactsdk.energy.vector import EXTRAS
from tests.energy.world import MS, START_NS, TOP_W, Books, Device, Party, Reference, devices, moves, played, tallies_j

polls = st.lists(st.tuples(st.integers(0, 120 * MS), st.integers(0, 2 * MS), st.booleans()), min_size=1, max_size=12)


def kept(books: Books, events: list, waits: list[tuple[int, int, bool]], *, failing: bool = False) -> None:
    """Poll until everything is settled, in the rhythm of ``waits``, and settle after each poll."""
    last_ns = events[-1][0] if events else START_NS
    at_ns, turn = START_NS - 500 * MS, 0
    while at_ns < last_ns + 1_000 * MS:
        wait_ns, width_ns, fails = waits[turn % len(waits)]
        for number in range(len(books.curves)):
            at_ns += wait_ns // 4
            books.read(number, at_ns, at_ns + width_ns, fails=fails and failing and turn > 0 and turn % 3 == number % 3)
            at_ns += width_ns + 1
        at_ns += 1 * MS + wait_ns
        turn += 1
        books.settle(at_ns)
    books.settle(at_ns, final=True)
    assert not books.events


@settings(max_examples=80)
@given(moves, st.lists(st.integers(0, TOP_W), min_size=1, max_size=3), polls)
def test_every_joule_is_owed_once_and_by_whom_the_slow_account_says(steps, watts, waits) -> None:
    # Constant power, exactly read: F is the truth, and every number can be compared with rational arithmetic.
    events, parties = played(steps)
    books = Books([Device([power_w]) for power_w in watts], events)
    kept(books, events, waits)
    reference = Reference(books.devices, parties)
    for event in events:
        reference.take(event)
    ledger = books.ledger
    total_j = math.fsum(ledger.channels_j)
    near = 1e-9 * max(1.0, total_j)
    assert ledger.weight == 0
    assert not ledger.open_entries
    for party in parties:
        own, inclusive = party.self_j()[:-EXTRAS], party.inclusive_j()[:-EXTRAS]
        assert own == pytest.approx([float(joules) for joules in party.own], abs=near)
        assert inclusive == pytest.approx([float(a + b) for a, b in zip(party.own, party.below, strict=True)], abs=near)
        assert min(own) >= -near
        assert all(whole >= part - near for whole, part in zip(inclusive, own, strict=True))
        if party.start_ns == party.end_ns:
            assert own == pytest.approx([0.0] * len(watts), abs=near)
    for index in range(len(watts)):
        owed_j = math.fsum(party.self_j()[index] for party in parties)
        assert owed_j == pytest.approx(ledger.attributed_j[index], abs=near)
        assert owed_j + ledger.unattributed_j[index] == pytest.approx(ledger.channels_j[index], abs=near)
        assert tallies_j(parties, len(watts))[index] == pytest.approx(owed_j, abs=near)
    assert sum(tally.count for tally in {id(p.tally): p.tally for p in parties}.values()) == len(parties)


@settings(max_examples=120)
@given(moves, st.lists(devices(), min_size=1, max_size=2), polls, st.booleans(), st.booleans())
def test_whatever_the_counters_do_nothing_is_lost_and_the_truth_is_within_the_interval(
    steps, machines, waits, failing, bursts
) -> None:
    events, parties = played(steps)
    if bursts:
        machines = [dataclasses.replace(machine, cuts_ns=[event[0] for event in events]) for machine in machines]
    books = Books(machines, events)
    kept(books, events, waits, failing=failing)
    reference = Reference(machines, parties)
    for event in events:
        reference.take(event)
    ledger = books.ledger
    for index, curve in enumerate(books.curves):
        total_j = ledger.channels_j[index]
        owed_j = math.fsum(party.self_j()[index] for party in parties)
        assert owed_j + ledger.unattributed_j[index] == pytest.approx(total_j, rel=1e-9, abs=1e-9)
        assert 0.0 <= total_j <= curve.knots[-1].energy_j + 1e-9
    for party in parties:
        own, whole = sum(party.own), sum(party.own) + sum(party.below)
        low_j, high_j = party.interval_j(missed_ns=party.spans_ns[1] - party.end_ns if party.end_ns < party.spans_ns[1] else 0)
        assert low_j <= party_j(party) <= high_j
        within(low_j, whole, high_j, party)
        within(*_around(party.self_interval_j(low_j, high_j), own), party)
        assert min(party.self_j()) >= -1e-9


def party_j(party: Party) -> float:
    return math.fsum(party.inclusive_j()[:-EXTRAS])


def _around(interval: tuple[float, float], truth: Fraction) -> tuple[float, Fraction, float]:
    return interval[0], truth, interval[1]


def within(low_j: float, truth: Fraction, high_j: float, party: Party) -> None:
    near = 1e-6
    assert low_j - near <= float(truth) <= high_j + near, (party.number, party.concurrent, party.broken, party.spans_ns)


@settings(max_examples=30)
@given(moves, st.randoms(use_true_random=False))
def test_the_order_of_ends_at_one_instant_does_not_matter(steps, chance: random.Random) -> None:
    # All that is open at the end is closed at the same instant: in any order each owes the same.
    def owed(shuffle: bool) -> list[list[float]]:
        events, parties = played(steps)
        first = list(events)
        while first and first[-1][0] == events[-1][0] and first[-1][1] == "end":
            first.pop()
        ends = events[len(first) :]
        if shuffle:
            chance.shuffle(ends)
        books = Books([Device([100])], [*first, *ends])
        kept(books, [*first, *ends], [(30 * MS, 0, False)])
        return [party.self_j() for party in parties]

    for before, after in zip(owed(False), owed(True), strict=True):
        assert before == pytest.approx(after, abs=1e-9)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 200 * MS), min_size=1, max_size=10), devices())
def test_regions_that_follow_each_other_add_up_to_one_over_all_of_them(widths, machine) -> None:
    def run(cuts: list[int]) -> float:
        steps = []
        for width_ns in cuts:
            steps += [(0, "start", 0, 0), (width_ns, "end", 1, 0)]
        events, parties = played(steps)
        books = Books([machine], events)
        kept(books, events, [(20 * MS, 0, False)])
        return math.fsum(party.self_j()[0] for party in parties)

    assert run(widths) == pytest.approx(run([sum(widths)]), rel=1e-9, abs=1e-7)


def test_a_generator_in_a_loop_leaves_the_interval_of_the_loop_as_narrow_as_if_it_were_not_measured() -> None:
    events, parties = played(
        [(0, "start", 0, 0), (0, "generate", 1, 0)]
        + [(3 * MS, "pause", 0, 0), (5 * MS, "resume", 2, 0)] * 40
        + [(0, "end", 1, 0), (1 * MS, "end", 1, 0)]
    )
    books = Books([Device([60, 300], kind="observed", tick_ns=20 * MS)], events)
    kept(books, events, [(4 * MS, 0, False)])
    loop, generator = parties
    assert not loop.concurrent
    assert generator.broken
    low_j, high_j = loop.interval_j()
    assert high_j - low_j < 15.0 < party_j(loop)


def test_a_region_that_is_open_for_days_keeps_its_account() -> None:
    day_ns = 86_400_000 * MS
    events, parties = played([(0, "start", 0, 0), (0, "start", 1, 0), (day_ns, "end", 1, 0), (5 * MS, "start", 1, 0)])
    books = Books([Device([300])], events)
    at_ns = START_NS - MS
    while at_ns < START_NS + day_ns + 100_000 * MS:
        books.read(0, at_ns, at_ns)
        books.settle(at_ns)
        at_ns += 60_000 * MS
    books.settle(at_ns, final=True)
    assert party_j(parties[1]) == pytest.approx(300 * 86_400, rel=1e-9)
    assert parties[2].self_j()[0] == pytest.approx(300 * 0.007, rel=1e-6)


def test_an_empty_ledger_owes_nothing() -> None:
    ledger = Ledger(2, 0)
    assert (ledger.weight, ledger.attributed_j, ledger.unattributed_j) == (0, [0.0, 0.0], [0.0, 0.0])


def bounded(steps: list[tuple[int, str, int, int]], power_w: list[int], number: int) -> None:
    """The truth is in the inclusive interval of the region ``number`` on a slow counter whose power changes at each event."""
    events, parties = played(steps)
    device = Device(power_w, kind="observed", tick_ns=100 * MS, limit=False, cuts_ns=[event[0] for event in events])
    books = Books([device], events)
    kept(books, events, [(5 * MS, 0, False)])
    reference = Reference([device], parties)
    for event in events:
        reference.take(event)
    party = parties[number]
    low_j, high_j = party.interval_j()
    assert low_j - 1e-6 <= float(sum(party.own) + sum(party.below)) <= high_j + 1e-6


@pytest.mark.parametrize("power_w", [[300, 1], [1, 300]])
def test_a_region_inside_a_generator_may_have_used_all_of_a_tick_in_the_parts_in_which_it_ran(power_w: list[int]) -> None:
    steps = [(5 * MS, "generate", 0, 0), (0, "start", 1, 0)]
    steps += [(20 * MS, "pause", 0, 0), (20 * MS, "resume", 0, 0), (20 * MS, "end", 1, 0), (0, "end", 1, 0)]
    bounded(steps, [1, *power_w, power_w[0], 1], 1)


@pytest.mark.parametrize("power_w", [[300, 1], [1, 300]])
def test_a_consumer_that_another_regions_generator_ran_in_is_not_charged_for_it_in_its_interval(power_w: list[int]) -> None:
    # Region 0 begins the generator 1 and ends; region 2 reads on from it.
    steps = [(5 * MS, "start", 0, 0), (0, "generate", 1, 0), (1 * MS, "pause", 0, 0), (0, "end", 0, 0)]
    steps += [(1 * MS, "start", 0, 0), (20 * MS, "resume", 1, 0), (20 * MS, "pause", 0, 0), (20 * MS, "end", 1, 0)]
    bounded(steps, [1, 1, 1, *power_w, power_w[0], 1], 2)
