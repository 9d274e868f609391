"""What nobody waits for is taken into the account later, several readings at once: the account is the same."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impactsdk.energy.curve import Curve
from impactsdk.energy.knot import Knot
from impactsdk.energy.probe import Probe
from impactsdk.energy.registry import Registry
from impactsdk.energy.share import Clocks, CpuShare
from impactsdk.model import Channel, Reading
from impactsdk.testing import FakeClock

HOSTS = Channel("sim:0", "cpu", "sim", tick_s=0.0, sharing="cpu_time", host_range_j=math.inf, max_power_w=1e6)


class Script:
    """A source of two counters that answers in turn as it is told."""

    name = "script"
    lazy = True

    def __init__(self, answers: list[Any]) -> None:
        self._answers = iter(answers)

    def open(self, clock: Any) -> list[Channel]:
        return [Channel(id=f"s:{n}", type="cpu", method="s", tick_s=0.0, max_power_w=1e4) for n in range(2)]

    def read(self) -> Iterator[Reading]:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        for number, energy_j in enumerate(answer):
            yield Reading(f"s:{number}", energy_j)

    def close(self) -> None: ...


def knots_of(answers: list[Any], looks: list[bool]) -> tuple[list[Any], set[str]]:
    """What stands in the curves after these answers; where ``looks`` says so, a reading may wait, and is divided by the clocks
    of its time."""
    clock, warned = FakeClock(), set()
    probe = Probe(Script(answers), clock, lambda key, message: warned.add(message), 0.1)
    probe.open()
    turn = 0

    def took(curve: Curve, knot: Knot | None, clocks: object) -> None:
        if knot is not None and len(curve.knots) > 1:
            curve.divide(0.1 * ((clocks if isinstance(clocks, int) else turn) % 10), between=(0.0, 1.0))

    for turn, may_wait in enumerate(looks):
        clock.advance(0.1)
        look: Callable[[], object] | None = (lambda now=turn: now) if may_wait else None
        probe.poll(took, lambda: False, look=look)
    probe.catch_up(took)
    facts = [
        [(k.at_ns, k.lo_ns, k.hi_ns, k.energy_j, k.own_j, k.share, k.failed, k.bend) for k in curve.knots]
        for curve in probe.curves.values()
    ]
    return facts, warned


ANSWER = st.one_of(
    st.tuples(st.floats(0, 50), st.floats(0, 50)),
    st.tuples(st.floats(0, 50), st.none()),
    st.just(OSError("away")),
    st.tuples(st.floats(0, 50)),
    st.tuples(st.just(-1e6), st.just(1e9)),
)


@settings(max_examples=150)
@given(st.lists(st.tuples(ANSWER, st.booleans()), min_size=2, max_size=30))
def test_a_curve_is_the_same_whenever_its_readings_are_taken_into_it(turns: list[tuple[Any, bool]]) -> None:
    shown_j, answers = [1000.0, 1000.0], []
    for answer, _ in turns:
        if isinstance(answer, tuple):
            given_j = [None if rise is None else shown_j[n] + rise for n, rise in enumerate(answer)]
            shown_j = [
                before if now is None or not 0 <= now - before < 1e3 else now
                for before, now in zip(shown_j, [*given_j, None], strict=False)
            ]
            answers.append(given_j)
        else:
            answers.append(answer)
    at_once, warned = knots_of(answers, [False] * len(turns))
    later, warned_later = knots_of(answers, [may_wait for _, may_wait in turns])
    assert later == at_once
    assert warned_later == warned


def test_a_source_that_hangs_leaves_its_gap_after_what_was_kept() -> None:
    clock = FakeClock()
    probe = Probe(Script([(0.0, 0.0), (5.0, 5.0), (10.0, 10.0)]), clock, lambda key, message: None, 0.1)
    probe.open()
    for look in (None, lambda: 1, lambda: 1):
        clock.advance(0.1)
        probe.poll(lambda *_: None, lambda: False, look=look)
    probe.give_up()
    probe.catch_up(lambda *_: None)
    for curve in probe.curves.values():
        assert [knot.failed for knot in curve.knots] == [True, False, False]  # the first says nothing of what was before it
        assert curve.lost_readings == 1


# --- divided among processes ----------------------------------------------------------------------------------------------


class Member:
    """A measuring process, with clocks of the test's."""

    def __init__(self, directory: Path, world: World) -> None:
        self.registry, self.world, self.own_s, self.used_j = Registry(directory), world, 0.0, 0.0
        self.registry.join(boundary="process", cgroup=None, boards=[])
        self.share = CpuShare(
            "process", self.registry, directory=directory, own_s=lambda: self.own_s, busy_s=lambda: world.busy_s
        )
        self._kept: list[tuple[float, float, Clocks]] = []
        self._shown_j: float | None = None

    def read(self, *, may_wait: bool) -> None:
        clocks = self.share.sample()._replace(process_s=self.own_s)
        step_j = 0.0 if self._shown_j is None else self.world.energy_j - self._shown_j
        first, self._shown_j = self._shown_j is None, self.world.energy_j
        self._kept.append((step_j, self.world.energy_j, clocks))
        if first or not may_wait or not self.share.may_wait():
            self.catch_up()

    def catch_up(self) -> None:
        with self.share.together():
            for step_j, shown_j, clocks in self._kept:
                told = self.share.part(HOSTS, 0, 0.0, step_j, shown_j, clocks)
                assert told is not None
                self.used_j += told[0] * step_j
        self._kept.clear()

    def leave(self) -> None:
        self.share.leave()
        self.registry.leave()


class World:
    busy_s = 0.0
    energy_j = 1000.0

    def runs(self, member: Member | None, seconds: float) -> None:
        """Somebody computes, at 100 W; the machine's busy time and the counter go along."""
        self.busy_s += seconds
        self.energy_j += 100.0 * seconds
        if member is not None:
            member.own_s += seconds
        time.sleep(0.0005)


@pytest.fixture
def clocks_of_the_test(monkeypatch: pytest.MonkeyPatch) -> dict[int, Member]:
    """Others see a member's clock by the number of its process; here each member has a number of its own."""
    members: dict[int, Member] = {}
    monkeypatch.setattr("impactsdk.energy.share.process_clock_s", lambda pid: members[pid].own_s)
    return members


def joined(members: dict[int, Member], directory: Path, world: World) -> Member:
    member = Member(directory, world)
    member.share._pid = 1 + len(members)
    members[member.share._pid] = member
    return member


def test_alone_it_owes_the_same_whether_it_divides_at_once_or_later(
    tmp_path: Path, clocks_of_the_test: dict[int, Member]
) -> None:
    found = []
    for may_wait in (False, True):
        world = World()
        one = joined(clocks_of_the_test, tmp_path / str(may_wait), world)
        one.read(may_wait=False)
        for turn in range(20):
            world.runs(one, 0.01 * (turn % 3))
            world.runs(None, 0.01 * (turn % 2))
            one.read(may_wait=may_wait)
            assert bool(one._kept) == may_wait
            if turn % 7 == 6:
                one.catch_up()
        one.catch_up()
        found.append(one.used_j)
        one.leave()
    assert found[1] == pytest.approx(found[0], rel=1e-12) == pytest.approx(100.0 * one.own_s)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_who_comes_while_readings_wait_counts_no_joule_that_is_counted_already(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    members: dict[int, Member] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("impactsdk.energy.share.process_clock_s", lambda pid: members[pid].own_s)
        world, directory = World(), tmp_path_factory.mktemp("pool")
        joined(members, directory, world).read(may_wait=False)
        try:
            for _ in range(data.draw(st.integers(5, 40))):
                what = data.draw(st.sampled_from(["run", "run", "idle", "read", "wait", "wait", "catch up", "join"]))
                member = data.draw(st.sampled_from(list(members.values())))
                if what == "run":
                    world.runs(member, 0.02)
                elif what == "idle":
                    world.runs(None, 0.02)
                elif what == "join" and len(members) < 4:
                    joined(members, directory, world).read(may_wait=False)
                elif what == "catch up":
                    member.catch_up()
                else:
                    member.read(may_wait=what == "wait")
            for member in members.values():
                member.read(may_wait=False)
                assert member.used_j <= 100.0 * member.own_s + 1e-6
            assert sum(member.used_j for member in members.values()) <= world.energy_j - 1000.0 + 1e-6
        finally:
            for member in members.values():
                member.leave()


def test_nothing_waits_once_somebody_else_divides_the_same(tmp_path: Path, clocks_of_the_test: dict[int, Member]) -> None:
    world = World()
    one = joined(clocks_of_the_test, tmp_path, world)
    one.read(may_wait=False)
    assert one.share.may_wait()
    two = joined(clocks_of_the_test, tmp_path, world)
    two.read(may_wait=False)
    assert not two.share.may_wait()
    world.runs(one, 0.06)
    one.read(may_wait=True)  # it cannot know yet
    one.catch_up()
    assert not one.share.may_wait()
    two.leave()
    world.runs(one, 0.06)
    one.read(may_wait=True)
    assert one.share.may_wait()
    assert one.used_j == pytest.approx(12.0)
    one.leave()


def test_nothing_waits_while_children_work_whose_time_others_cannot_see(
    tmp_path: Path, clocks_of_the_test: dict[int, Member]
) -> None:
    world = World()
    one = joined(clocks_of_the_test, tmp_path, world)
    one.read(may_wait=False)
    one.share.part(HOSTS, 0, 0.0, 0.0, world.energy_j, one.share.sample())
    assert one.share.may_wait()
    world.runs(one, 0.06)
    one.share.sample()
    assert not one.share.may_wait()  # this process's own clock has not moved by so much
    one.leave()
