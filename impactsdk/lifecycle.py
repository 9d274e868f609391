"""The end of the process, and its division: meters are closed by the one and begin anew after the other."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["SAMPLER", "Lasting", "asking_others", "at_exit", "beginning", "importing", "keep", "waited_for", "watch"]

SAMPLER = "impactsdk-sampler"
"""The name of the threads that read the devices."""
_FORK_WAIT_S = 10.0
"""Longer than it takes to import what measures, on a slow disk, and to wait for the sources."""


class Lasting(Protocol):
    """What has to know: a meter."""

    def leave(self, waited_s: float, others: int) -> None:
        """The process ends; it has waited so long already, and that many others are still to be waited for."""

    def forked(self) -> None:
        """This is the child of a fork."""


_all: weakref.WeakSet[Lasting] = weakref.WeakSet()
_kept: set[Lasting] = set()
_exit_pid: int | None = None
_leaving_since: float | None = None
beginning = threading.RLock()
"""Held by whoever begins to measure, and by a fork. Look it up here each time: the child of a fork has another one."""
_forking: set[int] = set()
_known: set[threading.Thread] | None = None
"""While others' code is asked: the threads that there were before."""


def watch(meter: Lasting) -> None:
    """Tell it of forks from now on, and of the end once :func:`at_exit` was called."""
    _all.add(meter)


def keep(meter: Lasting, *, wanted: bool) -> None:
    """Let it last until it is closed, if that is wanted, though nobody else holds it any more."""
    (_kept.add if wanted else _kept.discard)(meter)


def at_exit() -> None:
    """Have all meters closed when this process ends; asked at first use, so that the application's providers close later."""
    global _exit_pid, _leaving_since
    _leaving_since = None  # whoever begins now has not been waited for
    if _exit_pid == os.getpid():
        return
    _exit_pid = os.getpid()
    atexit.register(_close_all)
    pools = sys.modules.get("multiprocessing.util")
    if pools is not None and hasattr(pools, "Finalize"):
        # Children of multiprocessing leave through os._exit, which runs these and not atexit.
        pools.Finalize(None, _close_all, exitpriority=100)


def _close_all() -> None:
    """Each may take its part of what is left of the time that exit may take; what one leaves over is for the others."""
    global _leaving_since
    since = time.monotonic() if _leaving_since is None else _leaving_since
    _leaving_since = since  # multiprocessing has this done first, and atexit once more; who begins meanwhile sets it back
    busy = [meter for meter in _all if meter in _kept]
    idle = _all.difference(busy)
    while busy:
        meter = busy.pop()
        meter.leave(time.monotonic() - since, len(busy))
    for meter in list(idle):  # these measure nothing from now on, either
        meter.leave(time.monotonic() - since, 0)


def waited_for() -> bool:
    """Whether others may be waiting for the caller's thread: a sampler's, or one that was started by what is asked."""
    thread, known = threading.current_thread(), _known  # another thread may set it back at any moment
    return thread.name == SAMPLER or (known is not None and thread not in known)


@contextmanager
def asking_others() -> Iterator[None]:
    """Around code of others that is run, while we begin, in threads which that then waits for: they must not wait for us."""
    global _known
    _known = set(threading.enumerate())
    try:
        yield
    finally:
        _known = None


@contextmanager
def importing() -> Iterator[None]:
    """Around what is imported late, unless that is done while beginning: a fork waits for it."""
    held = beginning  # in the child of a fork it is another one
    taken = held.acquire(timeout=0.0 if waited_for() else _FORK_WAIT_S)
    try:
        yield
    finally:
        if taken:
            held.release()


def _before_fork() -> None:
    """Wait until what another thread has begun is done: half of it, such as an import's lock, would stay with the child."""
    if not waited_for() and beginning.acquire(timeout=_FORK_WAIT_S):
        _forking.add(threading.get_ident())


def _after_fork() -> None:
    if threading.get_ident() in _forking:
        _forking.discard(threading.get_ident())
        beginning.release()


def _forked() -> None:
    global beginning, _known, _leaving_since
    beginning, _known, _leaving_since = threading.RLock(), None, None
    _forking.clear()
    for meter in list(_all):
        meter.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_forked)
