"""The CPU time of a process and of those descendants that do not measure for themselves.

Thread CPU time is not used: frameworks work on threads of their own.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import cache
from typing import Any

from impactsdk.energy.machine import process_clock_s
from impactsdk.energy.registry import Registry

__all__ = ["ProcessTree"]

_SCAN_S = 0.1
_COST_LIMIT = 400
"""Looking at other processes may cost one part in so many of the time."""
_LONGEST_S = 1.0


class ProcessTree:
    """CPU seconds of a process and its descendants, those that measure for themselves (and theirs) left out."""

    def __init__(self, registry: Registry, pid: int | None = None) -> None:
        import psutil

        self._registry = registry
        self._me = psutil.Process(pid)
        self._is_self = pid is None
        self._known: dict[int, float] = {}
        """Descendants, and what was reaped by each of them."""
        self._last_s: dict[int, float] = {}
        self._awaited: dict[str, int] = {}
        self._met: set[str] = set()
        self._scan_at = self._read_at = 0.0
        self._children_s = self._debt_s = 0.0
        self._reaped_s = self._reaped_now_s()
        self._scan(first=True)
        self._gone()

    def _reaped_now_s(self) -> float:
        times = os.times() if self._is_self else self._me.cpu_times()
        return float(times.children_user + times.children_system)

    def own_s(self) -> float:
        """Cumulative seconds since this object was made, for the descendants; since its start, for the process itself."""
        if self._childless():
            return time.process_time() + self._children_s
        now = time.perf_counter()
        if now >= self._scan_at:
            self._scan()
        if now >= self._read_at:
            self._read_children()
            self._read_at = now + min(_COST_LIMIT * (time.perf_counter() - now), _LONGEST_S)
        if self._is_self:
            return time.process_time() + self._children_s
        own = self._me.cpu_times()
        return float(own.user + own.system) + self._children_s

    def _childless(self) -> bool:
        """Whether there is no child and none was reaped since the last look: two calls instead of a walk through /proc."""
        if not self._is_self or self._known or self._awaited or self._reaped_now_s() != self._reaped_s:
            return False
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # only asks: whoever waits for a child still finds it
        except ChildProcessError:
            return True
        except (OSError, AttributeError):  # not on this system
            pass
        return False

    def _read_children(self) -> None:
        """Add what the descendants used since the last look; one that ended moves into its parent's reaped time."""
        measuring = {peer.pid for peer in self._registry.peers().values()}
        if not measuring.isdisjoint(self._known):
            self._scan()  # one of them has begun to measure for itself: from now on it is not ours, nor are its children
        gone = False
        for _ in range(3):  # until nothing ends while we look: what is gone is then certainly in the reaped time
            gone = self._gone() or gone
            reaped_s = self._reaped_now_s()
            totals_s = {pid: self._total_s(pid) for pid in self._known}
            if not self._gone():
                break
            gone = True
        if None in totals_s.values():  # what it used is in what its parent has reaped, or soon will be
            for pid in self._known:
                self._known[pid] = _reaped_by_s(pid)
            totals_s = {pid: None if total_s is None else self._total_s(pid) for pid, total_s in totals_s.items()}
        gained_s = reaped_s - self._reaped_s
        self._reaped_s = reaped_s
        for pid, total_s in totals_s.items():
            if total_s is None:
                gained_s -= self._last_s.pop(pid, 0.0)
                del self._known[pid]
            else:
                gained_s += total_s - self._last_s.get(pid, total_s)
                self._last_s[pid] = total_s
        if gone:  # the whole time of one that measured is now in somebody's reaped time: it counted that itself
            gained_s = 0.0
        self._children_s += max(0.0, gained_s + self._debt_s)
        # One that ended between the two looks above is missed now and seen in its parent's reaped time the next time; one
        # that nobody reaped never is, so that the debt is not kept for longer.
        self._debt_s = min(0.0, gained_s)

    def _total_s(self, pid: int) -> float | None:
        """What a descendant and those it has reaped have used; ``None`` if it is gone."""
        clock_s = process_clock_s(pid)
        if clock_s is None:
            clock_s = _clock_by_psutil_s(pid)
        return None if clock_s is None else clock_s + self._known.get(pid, 0.0)

    def _gone(self) -> bool:
        """Whether a descendant that measured for itself has ceased to exist since the last look."""
        family = {self._me.pid, *self._known}
        peers = self._registry.peers()
        self._met &= peers.keys()
        for key, peer in peers.items():
            if key not in self._met and peer.parent_pid in family and peer.pid != self._me.pid:
                self._met.add(key)
                self._awaited[key] = peer.pid
        gone = [key for key, pid in self._awaited.items() if not _exists(pid)]
        for key in gone:
            del self._awaited[key]
        return bool(gone)

    def _scan(self, *, first: bool = False) -> None:
        started = time.perf_counter()
        # Those that have left, too: what they used was theirs, and the rest is too little to tell apart.
        measuring = {peer.pid for peer in self._registry.peers().values()}
        parents = _descendants(self._me.pid)
        excluded: set[int] = set()
        for pid in parents:
            line, at = [], pid
            while at in parents and at not in excluded and at not in measuring:
                line.append(at)
                at = parents[at]
            if at in parents:
                excluded.update(line, {at})
        born_after = time.time() - max(2 * _LONGEST_S, started - self._scan_at + 2 * _LONGEST_S) if not first else None
        for pid in parents:
            if pid in excluded:
                self._known.pop(pid, None)
                self._last_s.pop(pid, None)
            elif pid in self._known:
                self._known[pid] = _reaped_by_s(pid)
            else:
                self._known[pid] = _reaped_by_s(pid)
                total_s = self._total_s(pid)
                # What a child that was born since the last scan has used so far is ours; an older one is taken from here.
                young = born_after is not None and _born(pid) >= born_after
                self._last_s[pid] = 0.0 if young or total_s is None else total_s
        self._scan_at = started + max(_SCAN_S, _COST_LIMIT * (time.perf_counter() - started))


def _descendants(pid: int) -> dict[int, int]:
    """The process numbers of all descendants, each with that of its parent."""
    if not _kernel_lists_children():
        import psutil

        with suppress(psutil.Error):
            return {child.pid: child.ppid() for child in psutil.Process(pid).children(recursive=True)}
        return {}
    parents: dict[int, int] = {}
    pending = [pid]
    while pending:
        parent = pending.pop()
        with suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):  # noqa: PTH208 - ten times a second
                children = [int(child) for child in _text(f"/proc/{parent}/task/{task}/children").split()]
                pending += [child for child in children if child not in parents]
                parents.update(dict.fromkeys(children, parent))
    return parents


@cache
def _kernel_lists_children() -> bool:
    """Whether Linux was built with CONFIG_PROC_CHILDREN; the way through all of /proc takes ten times as long."""
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")  # noqa: PTH110


def _text(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return file.read()
    except OSError:  # it ended
        return b""


def _reaped_by_s(pid: int) -> float:
    """CPU seconds of the children that a process has waited for (proc(5): cutime, cstime)."""
    words = _text(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    if len(words) > 14:
        return (int(words[13]) + int(words[14])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _clock_by_psutil_s(pid: int) -> float | None:
    """Where the kernel has no clock for another process."""
    import psutil

    try:
        times: Any = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    reaped_s = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return float(times.user + times.system + (0.0 if os.path.exists("/proc/self/stat") else reaped_s))  # noqa: PTH110


def _exists(pid: int) -> bool:
    import psutil

    return bool(psutil.pid_exists(pid))


def _born(pid: int) -> float:
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return 0.0
