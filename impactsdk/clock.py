"""The real clock: the system's monotonic counter, its wall clock, and an event to sleep on."""

from __future__ import annotations

import threading
import time

__all__ = ["SystemClock"]


class _EventWaker:
    def __init__(self) -> None:
        self._event = threading.Event()
        self.set = self._event.set

    def wait(self, timeout_s: float) -> bool:
        was_set = self._event.wait(timeout_s)
        self._event.clear()
        return was_set


class SystemClock:
    """Time as it is."""

    now_ns = staticmethod(time.perf_counter_ns)
    unix_ns = staticmethod(time.time_ns)

    def waker(self) -> _EventWaker:
        """A new thing to sleep on."""
        return _EventWaker()
