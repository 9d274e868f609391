"""The machine's CPU clocks: how long its processors have been busy, and for how long they were counted at all.

Read some ten times a second while regions are open, by the CPU model and by the share of this process. The first line of
``/proc/stat`` is all that both need; psutil reads the whole file anew for each, which costs four times as much.
"""

from __future__ import annotations

import math
import os
import time
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["MachineClock", "busy_and_total_of", "namespace", "numbers_here", "process_clock_s"]

_TOGETHER_NS = 2_000_000
"""Whoever asks within this time of another is told the same: the kernel counts in steps of 10 ms."""

_last: tuple[int, tuple[float, float]] = (-_TOGETHER_NS, (0.0, 0.0))


class MachineClock:
    """Busy and all CPU seconds of the machine since it started, over all its processors.

    Waiting for a disk is idle; what a hypervisor gave to others (steal) was not ours.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def busy_and_total_s(self) -> tuple[float, float]:
        """The seconds now.

        Raises:
            OSError: They cannot be read.
            ValueError: They are not numbers, or the machine has not run at all.
        """
        global _last
        now_ns = time.perf_counter_ns()
        if not 0 <= now_ns - _last[0] < _TOGETHER_NS:
            _last = (now_ns, self._read_s())
        return _last[1]

    def close(self) -> None:
        """Close the file; it is opened anew if it is asked for again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    __del__ = close  # for those that a fork has left behind

    def _read_s(self) -> tuple[float, float]:
        try:
            if self._descriptor is None:
                self._descriptor = os.open("/proc/stat", os.O_RDONLY | os.O_CLOEXEC)
            # cpu user nice system idle iowait irq softirq steal guest guest_nice; the guests are in user and nice (proc(5)).
            words = os.pread(self._descriptor, 256, 0).split(b"\n", 1)[0].split(None, 9)
            if words[0] == b"cpu":
                user, nice, system, idle, iowait, irq, softirq, steal = map(int, words[1:9])
                busy = user + nice + system + irq + softirq
                return _checked(busy / _ticks_per_s(), (busy + idle + iowait + steal) / _ticks_per_s())
        except (OSError, ValueError, IndexError, AttributeError):
            pass
        import psutil

        return busy_and_total_of(psutil.cpu_times())


@cache
def namespace() -> int:
    """Of which numbering of processes this process's number is; 0 if that is not known."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def numbers_here(pid: int, of_namespace: int) -> tuple[int, int]:
    """The number here of a process that another numbering calls ``pid``, and that of its parent; 0 if it is not seen from here.

    A process is seen with the numbers that it has in all numberings around its own (``NSpid``, proc(5)).
    """
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if (folder / "ns/pid").stat().st_ino != of_namespace:
                continue
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
            if int(status["NSpid"].split()[-1]) == pid:
                return int(folder.name), int(status["PPid"])
        except (OSError, ValueError, KeyError, IndexError):  # another user's, or gone
            continue
    return 0, 0


def process_clock_s(pid: int) -> float | None:
    """CPU seconds of another process, to the nanosecond; ``None`` if it is gone, is none (0), or this is not Linux.

    The clock's number is made as ``clock_getcpuclockid(3)`` makes it: ``MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)`` in Linux's
    ``include/linux/posix-timers_types.h``.
    """
    if pid <= 0:
        return None
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except (OSError, OverflowError, TypeError, AttributeError):  # TypeError: Python 3.13, of a number too large for a clock
        return None


def busy_and_total_of(times: Any) -> tuple[float, float]:
    """The same from fields such as psutil's ``cpu_times``; one that a system does not have is zero.

    ``user`` and ``nice`` contain the guests; on Windows ``system`` contains the interrupts.
    """
    busy_s = sum(float(getattr(times, name, 0.0)) for name in ("user", "nice", "system", "irq", "softirq"))
    return _checked(busy_s, busy_s + sum(float(getattr(times, name, 0.0)) for name in ("idle", "iowait", "steal")))


def _checked(busy_s: float, total_s: float) -> tuple[float, float]:
    if not (math.isfinite(total_s) and total_s > 0):
        raise ValueError(f"the system's CPU times are {total_s:g} s")
    return busy_s, total_s


@cache
def _ticks_per_s() -> int:
    return os.sysconf("SC_CLK_TCK")
