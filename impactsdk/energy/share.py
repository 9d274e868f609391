"""This process's part of the channels that others use, too: busy CPU time over the machine's busy CPU time.

What is used of a channel is divided once for all measuring processes of the host (:mod:`impactsdk.energy.pool`): each finds its
part when it reads.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from impactsdk.energy.cgroup import ROOT, CgroupAccount
from impactsdk.energy.cpu_time import ProcessTree
from impactsdk.energy.machine import MachineClock, namespace, process_clock_s
from impactsdk.energy.pool import Claim, Pool
from impactsdk.energy.pool_file import PoolFile
from impactsdk.energy.registry import Registry
from impactsdk.model import Boundary, Channel

__all__ = ["CpuShare"]

_RECHECK_NS = 1_000_000_000
_STEPS_S = 0.02
"""The kernel's clock of busy time may be wrong by a step of 10 ms at either end."""
_SLACK = 4
"""A device may exceed its limit for a moment; what would need so many times of it is a counter that was reset."""


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
        if own_s is not None:
            self._own = own_s
        elif boundary == "cgroup" and cgroup is not None:
            self._own = CgroupAccount(cgroup, registry, cgroup_root).own_s
            self._pid = 0  # the clock of this process says nothing about its group
        else:
            self._own = ProcessTree(registry).own_s
        self._key = "" if registry.me is None else registry.me.key
        self._alone: dict[str, Pool] = {}
        self._files: dict[str, PoolFile] = {}
        self._marks: dict[str, tuple[float, float]] = {}
        self._checked_ns = time.perf_counter_ns()
        self.error: str | None = None
        """Why the pools are not shared with other processes, if they should be."""
        self.own_s = self.clock_s = self.busy_s = 0.0
        self.sample()

    def sample(self) -> None:
        """Look at the clocks; to be done once before the channels that are read together are divided."""
        self.clock_s = time.process_time()
        self.own_s, self.busy_s = self._own(), self._busy()

    def part(
        self, channel: Channel, at_ns: int, used_j: float, step_j: float, shown_j: float
    ) -> tuple[float, float, float] | None:
        """This boundary's part, 0 to 1, of what a channel has used since it was last asked for; nothing the first time.

        With the least and the most that it can be, by clocks that move in steps: what is too much now is less next time.
        ``None``: it is not known yet, since another process does not let go of the pool; what is owed is given later.

        Args:
            channel: The channel.
            at_ns: When it was read, on the clock of the meter.
            used_j: What it has used since it was opened, as far as this process knows.
            step_j: What it has used since it was last asked for.
            shown_j: What its counter showed, which other processes see, too, if ``channel.host_range_j`` says so.
        """
        taken_j: float | None = None
        if channel.host_range_j is not None and self._directory is not None:
            try:
                taken_j = self._shared(self._directory, channel, step_j, shown_j)
                if taken_j is None:
                    return None
            except OSError as error:
                self.error, self._directory = error.strerror or str(error), None
                self._let_go()
        if taken_j is None:
            pool = self._alone.get(channel.id)
            self._alone[channel.id], taken_j = self._taken(pool, at_ns, used_j, step_j, math.inf, math.inf)
        own_s, busy_s = self._marks.get(channel.id, (self.own_s, self.busy_s))
        self._marks[channel.id] = (self.own_s, self.busy_s)
        part = min(1.0, taken_j / step_j) if step_j > 0 else 0.0
        return part, *_possible(max(0.0, self.own_s - own_s), max(0.0, self.busy_s - busy_s))

    def _shared(self, directory: Path, channel: Channel, step_j: float, shown_j: float) -> float | None:
        file = self._files.get(channel.id)
        if file is None:
            file = self._files[channel.id] = PoolFile(directory, channel.id)
        if not file.acquire():
            return None
        try:
            pool = file.read()
            if pool is not None and len(pool.claims) > 1:
                self._drop_the_dead(pool)
            now_ns = time.perf_counter_ns()
            assert channel.host_range_j is not None
            most_w = math.inf if channel.max_power_w is None else _SLACK * channel.max_power_w
            pool, taken_j = self._taken(pool, now_ns, shown_j, step_j, channel.host_range_j, most_w)
            file.write(pool)
        finally:
            file.release()
        return taken_j

    def _taken(
        self, pool: Pool | None, at_ns: int, energy_j: float, step_j: float, range_j: float, most_w: float
    ) -> tuple[Pool, float]:
        if pool is None:
            pool = Pool(at_ns, energy_j, self.busy_s)
        mine = pool.claims.get(self._key)
        if mine is not None:
            mine.own_s, mine.clock_s = self.own_s, self.clock_s
        used_s = {
            key: self.own_s if claim is mine else claim.now_s(self._clock_of(claim)) for key, claim in pool.claims.items()
        }
        pool.divide(at_ns, energy_j, self.busy_s, used_s, range_j=range_j, max_power_w=most_w)
        if mine is None:  # from here on
            pool.claims[self._key] = Claim(self._pid, namespace(), self.own_s, self.clock_s, self.own_s)
            return pool, 0.0
        return pool, pool.take(self._key, step_j)

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
    rest_s = busy_s - _STEPS_S
    return min(1.0, own_s / (max(own_s, busy_s) + _STEPS_S)), 1.0 if rest_s <= own_s else own_s / rest_s
