"""The real clock: the system's monotonic counter, its wall clock, and an event to sleep on."""

from __future__ import annotations

import contextlib
import threading
import time

__all__ = ["SystemClock"]


class _LockWaker:
    """A bare lock: a signal handler or a finalizer may release it in the middle of anything, where an Event would deadlock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was set already
            self._lock.release()

    def wait(self, timeout_s: float) -> bool:
        return self._lock.acquire(timeout=min(timeout_s, threading.TIMEOUT_MAX))


class SystemClock:
    """Time as it is."""

    now_ns = staticmethod(time.perf_counter_ns)
    unix_ns = staticmethod(time.time_ns)
    thread_s = staticmethod(time.thread_time)

    def waker(self) -> _LockWaker:
        """A new thing to sleep on."""
        return _LockWaker()
