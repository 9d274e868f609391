"""This process's part of the channels that others use, too: busy CPU time over the machine's busy CPU time.

What is used of a channel is divided once for all measuring processes of the host (:mod:`impactsdk.energy.pool`): each finds its
part when it reads.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from impactsdk.energy.cgroup import ROOT, CgroupAccount
from impactsdk.energy.cpu_time import ProcessTree
from impactsdk.energy.machine import MachineClock, namespace, process_clock_s
from impactsdk.energy.pool import Claim, Pool
from impactsdk.energy.pool_file import PoolFile
from impactsdk.energy.registry import Registry
from impactsdk.model import Boundary, Channel

__all__ = ["NO_CLOCKS", "Clocks", "CpuShare", "Part"]

_RECHECK_NS = 1_000_000_000
_STEP_S = 0.01
"""By so much the kernel's clock of busy time may be wrong at either end."""
_UNSEEN_S = 0.005
_CARRY_S = 2 * _STEP_S * (os.cpu_count() or 1)
"""By so much CPU time may be ahead of the machine's, whose clock moves in steps for each processor."""
_SLACK = 4
"""A device may exceed its limit for a moment; what would need so many times of it is a counter that was reset."""


class Clocks(NamedTuple):
    """What the clocks showed at one instant: CPU seconds of this boundary, of this process alone, and of the machine.

    ``blind``: there may be more of the first, which are seen later.
    """

    at_ns: int
    own_s: float
    process_s: float
    busy_s: float
    blind: bool = False


class Part(NamedTuple):
    """A boundary's part, 0 to 1, of what a channel has used, and how wrong it may be.

    Args:
        share: The part.
        least: What it can be at least, by a clock that moves in steps: what is too much now is less the next time.
        most: What it can be at the most.
        stray_j: By how much that may fail to be so, since a busy second is worth more joules one time than the next.
        unseen_j: What the boundary may have used before and was not given yet: it is in this part or a later one.
        held: Whether nothing is known of it yet, since another process does not let go of the pool; it is given later.
    """

    share: float
    least: float
    most: float
    stray_j: float
    unseen_j: float
    held: bool = False


NO_CLOCKS = Clocks(0, 0.0, 0.0, 0.0)
"""Where nothing is shared by CPU time."""


class _Past(NamedTuple):
    """What there was of a channel the last time: joules per busy second, own and all, and what is still to come of before.

    That is seconds that found no room, joules that were given and not taken, and what children may have used that are not seen.
    """

    rate_w: float
    worth_w: float
    waiting_s: float = 0.0
    owed_j: float = 0.0
    hidden_j: float = 0.0

    @property
    def unseen_j(self) -> float:
        return self.waiting_s * self.worth_w + self.owed_j + self.hidden_j


class _Held:
    """A pool whose lock this process has."""

    def __init__(self, file: PoolFile, pool: Pool | None) -> None:
        self.file, self.pool = file, pool

    def put_back(self) -> None:
        try:
            if self.pool is not None:
                self.file.write(self.pool)
        finally:
            self.file.release()


class CpuShare:
    """The parts of this boundary in channels that are shared by CPU time.

    Args:
        boundary: ``process`` or ``cgroup``.
        registry: The measuring processes of this host; this one has joined.
        directory: Where the pools are kept for all of them; ``None``: this process divides for itself alone.
        cgroup: The control group to be counted.
        own_s: The CPU seconds that count as own, instead of those of the boundary.
        busy_s: The machine's busy CPU seconds, instead of the system's.
    """

    def __init__(
        self,
        boundary: Boundary,
        registry: Registry,
        *,
        directory: Path | None = None,
        cgroup: str | None = None,
        cgroup_root: Path = ROOT,
        own_s: Callable[[], float] | None = None,
        busy_s: Callable[[], float] | None = None,
    ) -> None:
        self._registry = registry
        self._directory = None if registry.me is None else directory
        self._machine = MachineClock()
        machine = self._machine
        self._busy = busy_s or (lambda: machine.busy_and_total_s()[0])
        self._pid = os.getpid()
        self._tree: ProcessTree | None = None
        if own_s is not None:
            self._own = own_s
        elif boundary == "cgroup" and cgroup is not None:
            self._own = CgroupAccount(cgroup, registry, cgroup_root).own_s
            self._pid = 0  # the clock of this process says nothing about its group
        else:
            self._tree = ProcessTree(registry)
            self._own = self._tree.own_s
        self._key = "" if registry.me is None else registry.me.key
        self._alone: dict[str, Pool] = {}
        self._files: dict[str, PoolFile] = {}
        self._marks: dict[str, Clocks] = {}
        self._past: dict[str, _Past] = {}
        self._waiting = (0.0, 0.0)  # seconds that have found no room, and joules given and not taken, after the last division
        self._dropped_s = 0.0  # of those seconds, what was given up
        self._joint: set[str] = set()  # channels that others have claims on, too
        self._held: dict[str, _Held] | None = None
        self._checked_ns = time.perf_counter_ns()
        self.error: str | None = None
        """Why the pools are not shared with other processes, if they should be."""
        self._clocks = self._told = self.sample()

    def sample(self) -> Clocks:
        """Look at the clocks; to be done once before the channels that are read together are divided."""
        process_s = time.process_time()
        at_ns, own_s, busy_s = time.perf_counter_ns(), self._own(), self._busy()
        self._clocks = Clocks(at_ns, own_s, process_s, busy_s, self._tree is not None and self._tree.blind)
        return self._clocks

    def may_wait(self) -> bool:
        """Whether what is read now may be divided later, by the clocks of now: nobody else divides the same.

        Who comes meanwhile divides what was used until then by what the clock of this process shows. So nothing may wait where
        that clock does not say all that is used, as for a control group, or while children work.
        """
        if self._directory is None:
            return True
        unseen_s = (self._clocks.own_s - self._clocks.process_s) - (self._told.own_s - self._told.process_s)
        return self._pid != 0 and not self._joint and unseen_s < _UNSEEN_S

    @property
    def unseen_by_others(self) -> bool:
        """Whether others divide, too, and do not see what works for this boundary now: that is lost if it is not told soon."""
        return bool(self._joint) and (self._tree is None or self._tree.working)

    def part(
        self, channel: Channel, at_ns: int, used_j: float, step_j: float, shown_j: float, clocks: Clocks | None = None
    ) -> Part:
        """This boundary's part, 0 to 1, of what a channel has used since it was last asked for; nothing the first time.

        Args:
            channel: The channel.
            at_ns: When it was read, on the clock of the meter.
            used_j: What it has used since it was opened, as far as this process knows.
            step_j: What it has used since it was last asked for.
            shown_j: What its counter showed, which other processes see, too, if ``channel.host_range_j`` says so.
            clocks: What :meth:`sample` gave when it was read; by default what it gave last.
        """
        self._told = clocks = clocks or self._clocks
        before = self._marks.get(channel.id, clocks)
        self._marks[channel.id] = clocks
        own_s, busy_s = max(0.0, clocks.own_s - before.own_s), max(0.0, clocks.busy_s - before.busy_s)
        alone_j = step_j * min(1.0, own_s / busy_s) if busy_s > 0 else 0.0
        least, most = _possible(own_s, busy_s)
        most = 1.0 if clocks.blind else most
        taken_j: float | None = None
        if channel.host_range_j is not None and self._directory is not None:
            try:
                taken_j = self._shared(self._directory, channel, clocks, step_j, shown_j, alone_j)
                if taken_j is None:
                    past = self._past.get(channel.id) or _Past(0.0, 0.0)
                    self._past[channel.id] = past._replace(hidden_j=past.hidden_j + most * step_j)
                    return Part(0.0, 0.0, most, 0.0, past.unseen_j, held=True)
            except OSError as error:
                self._fail(error)
        if taken_j is None:
            pool = self._alone.get(channel.id)
            self._alone[channel.id], taken_j = self._taken(pool, clocks, at_ns, used_j, step_j, alone_j, math.inf, math.inf)
        part = min(1.0, taken_j / step_j) if step_j > 0 else 0.0
        worth_w = step_j / max(busy_s, _STEP_S)
        rate_w = part * worth_w
        past = self._past.get(channel.id) or _Past(rate_w, worth_w)
        if busy_s <= 0 or step_j <= 0:
            worth_w = past.worth_w
        # The error of one reading is there with the opposite sign in the next, times what a busy second is worth then.
        stray_j = abs(rate_w - past.rate_w) * _STEP_S / 2 + past.waiting_s * abs(worth_w - past.worth_w)
        stray_j += self._dropped_s * worth_w  # missing for good
        hidden_j = past.hidden_j + (1.0 - part) * step_j if clocks.blind else 0.0
        self._past[channel.id] = _Past(rate_w, worth_w, *self._waiting, hidden_j)
        return Part(part, least, most, stray_j, past.unseen_j)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is divided inside is so with the pools taken up once and put back once."""
        held: dict[str, _Held] = {}
        self._held = held
        try:
            yield
        finally:
            self._held = None
            try:
                for each in held.values():
                    each.put_back()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.error, self._directory = error.strerror or str(error), None
        if self._held is not None:
            self._held.clear()
        self._let_go()

    def _shared(
        self, directory: Path, channel: Channel, clocks: Clocks, step_j: float, shown_j: float, alone_j: float
    ) -> float | None:
        held = None if self._held is None else self._held.get(channel.id)
        if held is None:
            held = self._taken_up(directory, channel)
            if held is None:
                return None
        try:
            assert channel.host_range_j is not None
            most_w = math.inf if channel.max_power_w is None else _SLACK * channel.max_power_w
            held.pool, taken_j = self._taken(
                held.pool, clocks, clocks.at_ns, shown_j, step_j, alone_j, channel.host_range_j, most_w
            )
            (self._joint.add if len(held.pool.claims) > 1 else self._joint.discard)(channel.id)
        finally:
            if self._held is None:
                held.put_back()
        return taken_j

    def _taken_up(self, directory: Path, channel: Channel) -> _Held | None:
        file = self._files.get(channel.id)
        if file is None:
            file = self._files[channel.id] = PoolFile(directory, channel.id, self._registry.prepare)
        if not file.acquire():
            return None
        held = _Held(file, file.read())
        if self._held is not None:
            self._held[channel.id] = held
        if held.pool is not None and len(held.pool.claims) > 1:
            self._drop_the_dead(held.pool)
        return held

    def _taken(
        self,
        pool: Pool | None,
        clocks: Clocks,
        at_ns: int,
        energy_j: float,
        step_j: float,
        alone_j: float,
        range_j: float,
        most_w: float,
    ) -> tuple[Pool, float]:
        if pool is None:
            pool = Pool(at_ns, energy_j, clocks.busy_s)
        late = at_ns <= pool.at_ns
        mine = pool.claims.get(self._key)
        gained_s = 0.0 if mine is None else clocks.own_s - mine.own_s
        if mine is not None:
            mine.own_s, mine.clock_s = clocks.own_s, clocks.process_s
        used_s = {
            key: clocks.own_s if claim is mine else claim.now_s(self._clock_of(claim)) for key, claim in pool.claims.items()
        }
        pool.divide(at_ns, energy_j, clocks.busy_s, used_s, range_j=range_j, max_power_w=most_w)
        if mine is None:  # from here on
            self._waiting, self._dropped_s = (0.0, 0.0), 0.0
            pool.claims[self._key] = Claim(self._pid, namespace(), clocks.own_s, clocks.process_s, clocks.own_s)
            return pool, 0.0
        # Of what somebody else has divided since, not more than was used by then as it seems from here: the rest comes next.
        taken_j = pool.take(self._key, alone_j if late else step_j)
        dropped_s = 0.0
        if len(pool.claims) > 1 and pool.at_ns == at_ns:
            # Others have divided the time in which it was used. What is older than the last reading would be charged to what
            # runs now.
            dropped_s = max(0.0, mine.own_s - mine.served_s - max(gained_s, _CARRY_S))
            mine.served_s += dropped_s
        self._waiting, self._dropped_s = (mine.own_s - mine.served_s, mine.owed_j), dropped_s
        return pool, taken_j

    @staticmethod
    def _clock_of(claim: Claim) -> float | None:
        return process_clock_s(claim.pid) if claim.namespace == namespace() else None

    def _drop_the_dead(self, pool: Pool) -> None:
        now_ns = time.perf_counter_ns()
        if now_ns - self._checked_ns < _RECHECK_NS:
            return
        self._checked_ns = now_ns
        peers = self._registry.peers()
        for key in list(pool.claims):
            if key != self._key and (key not in peers or peers[key].left_ns is not None):
                del pool.claims[key]

    def leave(self) -> None:
        """Give up this process's claims; what it has not taken is nobody's."""
        for file in self._files.values():
            with suppress(OSError):  # the others see anyhow that this process is gone
                self._leave(file)
        self._let_go()

    def _leave(self, file: PoolFile) -> None:
        if not file.acquire():
            return
        try:
            pool = file.read()
            if pool is not None and pool.claims.pop(self._key, None) is not None:
                file.write(pool)
        finally:
            file.release()

    def forsake(self) -> None:
        """In the child of a fork: the claims are the parent's."""
        self._let_go()

    def _let_go(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._machine.close()


def _possible(own_s: float, busy_s: float) -> tuple[float, float]:
    """The least and the most that own CPU time can be of the machine's."""
    if own_s <= 0:
        return 0.0, 0.0
    rest_s = busy_s - 2 * _STEP_S
    return min(1.0, own_s / (max(own_s, busy_s) + 2 * _STEP_S)), 1.0 if rest_s <= own_s else own_s / rest_s
