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
from impactsdk.energy.registry import Peer, Registry

__all__ = ["ProcessTree"]

_COST_LIMIT = 400
"""Looking at other processes may cost one part in so many of the time."""
_LONGEST_S = 1.0
_WORK_S = 0.001


class ProcessTree:
    """CPU seconds of a process and its descendants, those that measure for themselves (and theirs) left out."""

    def __init__(self, registry: Registry, pid: int | None = None) -> None:
        import psutil

        self._registry = registry
        self._me = psutil.Process(pid)
        self._is_self = pid is None
        self._known: dict[int, float] = {}
        """Descendants, and what was reaped by each of them."""
        self._last_s: dict[int, tuple[float, float]] = {}
        """What of each of them is counted: what its clock showed, and what it had reaped."""
        self._awaited: dict[str, int] = {}
        self._met: set[str] = set()
        self._stopped: set[str] = set()
        """Those that had ceased to measure when descendants were last looked for."""
        self._newest: bytes | None = None
        self._scan_at = self._read_at = 0.0
        self._children_s = self._debt_s = 0.0
        self.blind = False
        """Whether descendants may have used more than was seen when they were last looked at."""
        self.working = False
        """Whether descendants had used anything worth mentioning when they were last looked at."""
        self._reaped_s = self._reaped_now_s()
        self._scan(_newest_process(), first=True)
        self._scan_at = 0.0  # what is begun next is looked for at once
        self._gone(registry.peers())

    def _reaped_now_s(self) -> float:
        times = os.times() if self._is_self else self._me.cpu_times()
        return float(times.children_user + times.children_system)

    def own_s(self) -> float:
        """Cumulative seconds since this object was made, for the descendants; since its start, for the process itself."""
        if self._childless():
            self.blind = self.working = False
            return time.process_time() + self._children_s
        now, newest = time.perf_counter(), _newest_process()
        may_scan, may_read = now >= self._scan_at, now >= self._read_at
        peers = self._registry.peers() if may_read or self._awaited else {}
        wanted = newest is None or newest != self._newest or self._one_has_stopped(peers)
        if may_scan and (wanted or now >= self._scan_at + _LONGEST_S):
            self._scan(newest)
        if may_read:
            self._read_children(newest, peers)
        self.blind = not may_read or (wanted and not may_scan)
        if self._is_self:
            return time.process_time() + self._children_s
        own = self._me.cpu_times()
        return float(own.user + own.system) + self._children_s

    def _one_has_stopped(self, peers: dict[str, Peer]) -> bool:
        """Whether a descendant has ceased to measure for itself since the last look, and may go on without: it is ours then."""
        return any(key in peers and peers[key].left_ns is not None for key in self._awaited.keys() - self._stopped)

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

    def _read_children(self, newest: bytes | None, peers: dict[str, Peer]) -> None:
        """Add what the descendants used since the last look; one that ended moves into its parent's reaped time."""
        started_s = time.thread_time()
        if any(peer.pid in self._known and (peer.left_ns is None or key not in self._met) for key, peer in peers.items()):
            self._scan(newest)  # one of them has begun to measure for itself: from now on it is not ours, nor are its children
        gone = False
        for _ in range(3):  # until nothing ends while we look: what is gone is then certainly in the reaped time
            gone = self._gone(peers) or gone
            reaped_s = self._reaped_now_s()
            clocks_s = {pid: _clock_s(pid) for pid in self._known}
            peers = self._registry.peers()
            if not self._gone(peers):
                break
            gone = True
        if gone or None in clocks_s.values():  # what it used is in what its parent has reaped, or soon will be
            for pid in self._known:
                self._known[pid] = _reaped_by_s(pid)
            clocks_s = {pid: None if clock_s is None else _clock_s(pid) for pid, clock_s in clocks_s.items()}
        gained_s, living_s = reaped_s - self._reaped_s, 0.0
        self._reaped_s = reaped_s
        for pid, clock_s in clocks_s.items():
            if clock_s is None:
                gained_s -= sum(self._last_s.pop(pid, ()))
                del self._known[pid]
            else:
                last_s, last_reaped_s = self._last_s.get(pid, (clock_s, self._known[pid]))
                living_s += clock_s - last_s
                gained_s += self._known[pid] - last_reaped_s
                self._last_s[pid] = clock_s, self._known[pid]
        if gone:  # the whole time of one that measured is now in somebody's reaped time: it counted that itself
            gained_s = 0.0
        gained_s += living_s
        self.working = gained_s > _WORK_S
        self._children_s += max(0.0, gained_s + self._debt_s)
        # One that ended between the two looks above is missed now and seen in its parent's reaped time the next time; one
        # that nobody reaped never is, so that the debt is not kept for longer.
        self._debt_s = min(0.0, gained_s)
        self._read_at = time.perf_counter() + min(_COST_LIMIT * (time.thread_time() - started_s), _LONGEST_S)

    def _gone(self, peers: dict[str, Peer]) -> bool:
        """Whether a descendant that measured for itself has ceased to exist since the last look."""
        family = {self._me.pid, *self._known}
        self._met &= peers.keys()
        for key, peer in peers.items():
            if key not in self._met and peer.parent_pid in family and peer.pid != self._me.pid:
                self._met.add(key)
                self._awaited[key] = peer.pid
        gone = [key for key, pid in self._awaited.items() if not _exists(pid)]
        for key in gone:
            del self._awaited[key]
        return bool(gone)

    def _scan(self, newest: bytes | None = None, *, first: bool = False) -> None:
        now, started_s = time.perf_counter(), time.thread_time()
        peers = self._registry.peers()
        measuring = {peer.pid for peer in peers.values() if peer.left_ns is None}
        parents = _descendants(self._me.pid)
        excluded: set[int] = set()
        for pid in parents:
            line, at = [], pid
            while at in parents and at not in excluded and at not in measuring:
                line.append(at)
                at = parents[at]
            if at in parents:
                excluded.update(line, {at})
        for pid in measuring & (self._known.keys() - parents.keys()):  # its parent has ended since it became known
            excluded.update({pid}, _descendants(pid))
        left = {key: peer.pid for key, peer in peers.items() if peer.left_ns is not None and peer.pid in parents}
        theirs = set(left.values())
        for pid in excluded.union(pid for key, pid in left.items() if key not in self._met):
            self._known.pop(pid, None)
            self._last_s.pop(pid, None)
        self._met.update(left)
        born_after = time.time() - max(2 * _LONGEST_S, now - self._scan_at + 2 * _LONGEST_S) if not first else None
        anew: set[int] = set()
        for pid, parent in parents.items():
            if pid in excluded:
                continue
            known = pid in self._known
            reaped_s = self._known[pid] = _reaped_by_s(pid)
            if known:
                continue
            # What a child that was born since the last scan has used so far is ours; an older one is taken from here. So is
            # one that has measured for itself until now, and what it has begun meanwhile: that was counted there.
            if pid in theirs or parent in anew:
                anew.add(pid)
            young = born_after is not None and pid not in anew and _born(pid) >= born_after
            clock_s = None if young else _clock_s(pid)
            self._last_s[pid] = (0.0, 0.0) if clock_s is None else (clock_s, reaped_s)
        self._awaited = {key: pid for key, pid in self._awaited.items() if pid not in self._known}
        self._stopped = {key for key, peer in peers.items() if peer.left_ns is not None}
        self._newest = newest
        self._scan_at = time.perf_counter() + min(_COST_LIMIT * (time.thread_time() - started_s), _LONGEST_S)


def _newest_process() -> bytes | None:
    """The number that was given last to a process or a thread (proc(5), ``loadavg``); ``None`` if that is not told.

    While it stays there are no new descendants: to ask costs a tenth of what looking for them does.
    """
    number = _text("/proc/loadavg").rpartition(b" ")[2].strip()
    return number if number.strip(b"0") else None


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


def _clock_s(pid: int) -> float | None:
    """CPU seconds of a process; ``None`` if it is gone."""
    clock_s = process_clock_s(pid)
    return _clock_by_psutil_s(pid) if clock_s is None else clock_s


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
    if process_clock_s(pid) is not None:  # a twentieth of the price, and for as long as nobody has reaped it
        return True
    import psutil

    return bool(psutil.pid_exists(pid))


def _born(pid: int) -> float:
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return 0.0
