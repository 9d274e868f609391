from __future__ import annotations

import bisect
import fcntl
import math
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impactsdk import Meter, Settings, devices
from impactsdk.energy import share as shares
from impactsdk.energy.machine import MachineClock
from impactsdk.energy.registry import Registry
from impactsdk.energy.share import CpuShare
from impactsdk.model import Channel, Reading
from impactsdk.testing import FakeClock

ALONE = Channel("sim:0", "cpu", "sim", tick_s=0.0, sharing="cpu_time")
HOSTS = Channel("sim:0", "cpu", "sim", tick_s=0.0, sharing="cpu_time", host_range_j=math.inf, max_power_w=1e6)


def part_of(share: CpuShare, *arguments: Any) -> float:
    told = share.part(*arguments)
    assert told is not None
    part, least, most = told[:3]
    assert 0.0 <= least <= most <= 1.0
    return part


class Clocks:
    """The machine and one process in it, as clocks show them."""

    def __init__(self) -> None:
        self.own_s = self.busy_s = 0.0


def parts(own: list[float], busy: list[float]) -> list[float]:
    """The part of each interval of 100 ms and one joule, from what the clocks show in turn."""
    clocks = iter(own), iter(busy)
    share = CpuShare("process", Registry(Path()), own_s=lambda: next(clocks[0]), busy_s=lambda: next(clocks[1]))
    part_of(share, ALONE, 0, 0.0, 0.0, 0.0)
    found = []
    for turn in range(1, len(own)):
        share.sample()
        found.append(part_of(share, ALONE, turn * 100_000_000, float(turn), 1.0, 0.0))
    return found


def test_the_part_is_own_time_over_busy_time() -> None:
    assert parts([5.0, 6.0, 6.0, 9.0], [100.0, 102.0, 104.0, 108.0]) == pytest.approx([0.5, 0.0, 0.75])


def test_nothing_is_ours_while_nothing_is_busy() -> None:
    assert parts([5.0, 5.0], [100.0, 100.0]) == [0.0]


def test_own_time_beyond_the_machines_is_carried_into_the_next_interval() -> None:
    assert parts([0.0, 0.03, 0.03, 0.03], [0.0, 0.02, 0.04, 0.06]) == pytest.approx([1.0, 0.5, 0.0])


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.floats(0, 0.1), st.floats(0, 0.1)), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.01, 0.04]),
)
def test_the_part_is_never_above_one_and_comes_to_the_truth_over_time(used, step_s: float) -> None:
    # The machine's clock moves in steps, the process's does not.
    own, busy, true_s, others_s = [0.0], [0.0], 0.0, 0.0
    for own_s, other_s in used:
        true_s += own_s
        others_s += other_s
        own.append(true_s)
        total_s = true_s + others_s
        busy.append(total_s // step_s * step_s if step_s else total_s)
    found = parts([*own, true_s], [*busy, true_s + others_s])
    assert all(0.0 <= part <= 1.0 for part in found)
    gained = [after - before for before, after in zip(busy, [*busy[1:], true_s + others_s], strict=True)]
    assert math.fsum(part * gain_s for part, gain_s in zip(found, gained, strict=True)) == pytest.approx(true_s, abs=1e-9)


def test_cpu_time_that_found_no_room_is_unseen_energy_until_it_has_been_divided() -> None:
    own, busy = iter([0.0, 0.05, 0.05, 0.05]), iter([0.0, 0.03, 0.09, 0.1])
    share = CpuShare("process", Registry(Path()), own_s=lambda: next(own), busy_s=lambda: next(busy))
    part_of(share, ALONE, 0, 0.0, 0.0, 0.0)
    told = []
    for turn in range(1, 4):
        share.sample()
        told.append(share.part(ALONE, turn * 100_000_000, 3.0 * turn, 3.0, 0.0))
    assert [part.share for part in told if part] == pytest.approx([1.0, 1 / 3, 0.0])
    assert [part.unseen_j for part in told if part] == pytest.approx([0.0, 0.02 * 3.0 / 0.03, 0.0])


def test_all_that_children_may_have_used_is_allowed_for_until_they_have_been_looked_at(tmp_path, monkeypatch) -> None:
    registry, busy = Registry(tmp_path), iter([0.0, 0.0, 0.1, 0.2, 0.3, 0.4])
    registry.join(boundary="process", cgroup=None, boards=[])
    share = CpuShare("process", registry, busy_s=lambda: next(busy))
    tree, told = share._tree, []
    assert tree is not None
    monkeypatch.setattr(share, "_own", lambda: 5.0)
    share.sample()
    part_of(share, ALONE, 0, 0.0, 0.0, 0.0)
    for turn, tree.blind in enumerate((True, True, False, False), start=1):
        share.sample()
        told.append(share.part(ALONE, turn * 100_000_000, 3.0 * turn, 3.0, 0.0))
    assert [(part.share, part.most, part.unseen_j) for part in told if part] == [
        (0.0, 1.0, 0.0),
        (0.0, 1.0, 3.0),
        (0.0, 0.0, 6.0),
        (0.0, 0.0, 0.0),
    ]
    registry.leave()


class Bursts:
    """CPU seconds of something that runs now and then, on some cores."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.at_s, self.used_s = [0.0], [0.0]
        while self.at_s[-1] < 100:
            length_s = rng.uniform(0.02, 0.3)
            self.at_s.append(self.at_s[-1] + length_s)
            self.used_s.append(self.used_s[-1] + length_s * rng.choice([0, 0, 1]))

    def by(self, at_s: float) -> float:
        index = bisect.bisect_right(self.at_s, at_s) - 1
        pace = (self.used_s[index + 1] - self.used_s[index]) / (self.at_s[index + 1] - self.at_s[index])
        return self.used_s[index] + pace * (at_s - self.at_s[index])


@pytest.mark.parametrize("seed", range(4))
def test_the_true_energy_of_a_long_region_lies_in_its_interval_though_clocks_move_in_steps(seed: int, monkeypatch) -> None:
    # Each second of a core costs 10 J, and how much of what is used is this process's changes from one reading to the next.
    own, others, clock = Bursts(seed), Bursts(seed + 100), FakeClock()
    begun_ns = clock.now_ns()

    def own_s() -> float:
        return own.by((clock.now_ns() - begun_ns) * 1e-9)

    def busy_s() -> float:
        return own_s() + others.by((clock.now_ns() - begun_ns) * 1e-9)

    class Cpu:
        name = "cpu"

        def open(self, clock: object) -> list[Channel]:
            return [Channel("cpu:0", "cpu", "counter", tick_s=0.0, max_power_w=40.0, sharing="cpu_time")]

        def read(self) -> list[Reading]:
            return [Reading("cpu:0", 10.0 * busy_s())]

        def close(self) -> None:
            pass

    def share(boundary: Any, registry: Registry, **_: object) -> CpuShare:
        return CpuShare(boundary, registry, own_s=own_s, busy_s=lambda: math.floor(busy_s() * 100 + 1e-7) / 100)

    monkeypatch.setattr(devices, "CpuShare", share)
    with Meter(Settings.load({}, export="none"), sources=[Cpu()], clock=clock) as meter:
        with meter.measured("warm"):
            clock.advance(1.03)
        before_s = own_s()
        with meter.measured("job") as job:
            clock.advance(30.0)
        true_j = 10.0 * (own_s() - before_s)
        clock.advance(1.0)
        told = job.result()
    assert told.energy_low_j is not None
    assert told.energy_high_j is not None
    assert told.energy_low_j <= true_j <= told.energy_high_j
    assert told.energy_high_j - told.energy_low_j < 0.3 * true_j


def test_clocks_that_go_back_take_nothing_away() -> None:
    assert all(0.0 <= part <= 1.0 for part in parts([5.0, 4.0, 5.0, 6.0], [9.0, 8.0, 9.0, 11.0]))


def test_the_machine_is_at_least_as_busy_as_this_process() -> None:
    machine = MachineClock()
    before_s, own_s = machine.busy_and_total_s()[0], time.process_time()
    while time.process_time() < own_s + 0.2:
        pass
    assert machine.busy_and_total_s()[0] - before_s >= 0.15
    machine.close()
    machine.close()


def test_the_part_follows_the_process_when_it_burns(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.join(boundary="process", cgroup=None, boards=[])
    share = CpuShare("process", registry)
    part_of(share, ALONE, 0, 0.0, 0.0, 0.0)
    until_s = time.process_time() + 0.3
    while time.process_time() < until_s:
        pass
    share.sample()
    assert 0.05 < part_of(share, ALONE, 1_000_000_000, 1.0, 1.0, 0.0) <= 1.0
    registry.leave()


# --- several processes --------------------------------------------------------------------------------------------------------


def member(directory: Path, clocks: Clocks) -> CpuShare:
    registry = Registry(directory)
    registry.join(boundary="process", cgroup=None, boards=[])
    share = CpuShare("process", registry, directory=directory, own_s=lambda: clocks.own_s, busy_s=lambda: clocks.busy_s)
    share._pid = 0  # its clock is one of the test's and not that of this process
    return share


def left(*shares: CpuShare) -> None:
    for share in shares:
        share.leave()
        share._registry.leave()


def test_two_that_share_have_each_joule_once_whenever_they_read(tmp_path: Path) -> None:
    clocks = [Clocks(), Clocks()]
    one, two = (member(tmp_path, each) for each in clocks)
    for share in (one, two):
        assert part_of(share, HOSTS, 0, 0.0, 0.0, 100.0) == 0.0
    time.sleep(0.06)
    for each in clocks:
        each.busy_s = 0.04
    clocks[0].own_s, clocks[1].own_s = 0.01, 0.03
    two.sample()
    assert part_of(two, HOSTS, 0, 0.0, 40.0, 140.0) == pytest.approx(0.75)
    one.sample()
    assert part_of(one, HOSTS, 0, 0.0, 40.0, 140.0) == 0.0  # it said nothing of its work when that was divided: next time
    time.sleep(0.001)
    for each in clocks:
        each.busy_s += 0.01
    one.sample()
    assert part_of(one, HOSTS, 0, 0.0, 10.0, 150.0) == pytest.approx(1.0)
    two.sample()
    assert part_of(two, HOSTS, 0, 0.0, 10.0, 150.0) == 0.0
    left(one, two)
    assert not list(tmp_path.glob("*.pool"))


def test_cpu_time_that_others_have_left_no_room_for_is_not_made_up_for_by_what_runs_later(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shares, "_CARRY_S", 0.05)
    clocks, others = Clocks(), Clocks()
    share, other = member(tmp_path, clocks), member(tmp_path, others)
    for each in (share, other):
        part_of(each, HOSTS, 0, 0.0, 0.0, 100.0)
    found, strays = [], []
    for turn in range(1, 5):
        clocks.own_s, clocks.busy_s = 1.0, 0.1 * turn  # children of this one have worked, which the other could not see
        time.sleep(0.001)
        share.sample()
        told = share.part(HOSTS, 0, 0.0, 10.0, 100.0 + 10.0 * turn)
        assert told is not None
        found.append(told.share)
        strays.append(told.stray_j)
    assert found == pytest.approx([1.0, 1.0, 0.5, 0.0])
    assert strays[1] >= 0.75 * 100.0  # what was given up may have been used all the same
    left(share, other)


def test_what_was_used_while_another_process_holds_the_pool_is_allowed_for_until_it_is_given(tmp_path: Path) -> None:
    clocks, told = Clocks(), []
    share = member(tmp_path, clocks)
    part_of(share, HOSTS, 0, 0.0, 0.0, 100.0)
    other = os.open(next(tmp_path.glob("*.pool")), os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)
    for turn in range(1, 4):
        if turn == 3:
            os.close(other)
        else:
            clocks.own_s += 0.5
        clocks.busy_s = 1.0 * turn
        time.sleep(0.001)
        share.sample()
        told.append(share.part(HOSTS, 0, 0.0, 10.0, 100.0 + 10.0 * turn))
    assert [part.held for part in told] == [True, True, False]
    assert [part.share for part in told] == pytest.approx([0.0, 0.0, 1.0])  # all of the 10 J of both comes with the third
    assert min(part.most for part in told[:2]) >= 0.5
    assert told[1].unseen_j >= 5.0
    assert told[2].unseen_j >= 10.0
    left(share)


def test_what_one_reading_gives_another_process_waits_for_it(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.join(boundary="process", cgroup=None, boards=[])
    clocks = Clocks()
    own = CpuShare("process", registry, directory=tmp_path, own_s=time.process_time, busy_s=lambda: clocks.busy_s)
    other = member(tmp_path, clocks)
    assert part_of(own, HOSTS, 0, 0.0, 0.0, 100.0) == part_of(other, HOSTS, 0, 0.0, 0.0, 100.0) == 0.0
    begun_s = time.process_time()
    while time.process_time() - begun_s < 0.06:
        pass
    clocks.busy_s = 1.0
    other.sample()
    # It has done nothing itself; the clock of the first shows its work.
    assert part_of(other, HOSTS, 0, 0.0, 10.0, 110.0) == 0.0
    own.sample()
    used_s = time.process_time() - begun_s
    assert part_of(own, HOSTS, 0, 0.0, 10.0, 110.0) == pytest.approx(used_s, rel=0.3)
    left(own, other)


def test_who_has_children_at_work_that_another_cannot_see_tells_of_them_though_nothing_is_measured(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.join(boundary="process", cgroup=None, boards=[])
    parent = CpuShare("process", registry, directory=tmp_path)
    tree = parent._tree
    assert tree is not None
    part_of(parent, HOSTS, 0, 0.0, 0.0, 100.0)
    tree.working = True
    assert not parent.unseen_by_others
    other = member(tmp_path, Clocks())
    part_of(other, HOSTS, 0, 0.0, 0.0, 100.0)
    parent.sample()
    tree.working = True
    part_of(parent, HOSTS, 0, 0.0, 0.0, 100.0)
    assert parent.unseen_by_others
    tree.working = False
    assert not parent.unseen_by_others
    left(parent, other)


def test_a_directory_in_which_nothing_can_be_written_leaves_one_alone_and_says_why(tmp_path: Path) -> None:
    clocks = Clocks()
    share = member(tmp_path, clocks)
    (tmp_path / "a file").write_text("")
    share._directory = tmp_path / "a file"
    for turn in range(1, 3):
        part = part_of(share, HOSTS, turn * 100_000_000, float(turn), 1.0, float(turn))
        clocks.own_s, clocks.busy_s = 0.05 * turn, 0.1 * turn
        share.sample()
    assert part == pytest.approx(0.5)
    assert share.error
    left(share)


def test_who_is_killed_is_dropped_and_takes_no_part_any_more(tmp_path: Path) -> None:
    clocks = Clocks()
    share, gone = member(tmp_path, clocks), member(tmp_path, clocks)
    for each in (share, gone):
        part_of(each, HOSTS, 0, 0.0, 0.0, 100.0)
    gone._let_go()
    gone._registry.forsake()
    share._checked_ns = time.perf_counter_ns() - 2_000_000_000
    time.sleep(0.06)
    clocks.own_s, clocks.busy_s = 0.05, 0.05
    share.sample()
    share._registry._stamp = None
    assert part_of(share, HOSTS, 0, 0.0, 10.0, 110.0) == pytest.approx(1.0)
    left(share)
    assert not list(tmp_path.glob("*.pool"))
