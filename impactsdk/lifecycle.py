"""The end of the process, and its division: meters are closed by the one and begin anew after the other."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from typing import Protocol

__all__ = ["SAMPLER", "Lasting", "at_exit", "beginning", "in_sampler", "watch"]

SAMPLER = "impactsdk-sampler"
"""The name of the threads that read the devices."""
_FORK_WAIT_S = 10.0
"""Longer than it takes to import what measures, on a slow disk, and to wait for the sources."""


class Lasting(Protocol):
    """What has to know: a meter."""

    def close(self) -> bool:
        """The process ends."""

    def forked(self) -> None:
        """This is the child of a fork."""


_all: weakref.WeakSet[Lasting] = weakref.WeakSet()
_exit_pid: int | None = None
beginning = threading.RLock()
"""Held by whoever begins to measure, and by a fork. Look it up here each time: the child of a fork has another one."""
_forking: set[int] = set()


def watch(meter: Lasting) -> None:
    """Tell it of forks from now on, and of the end once :func:`at_exit` was called."""
    _all.add(meter)


def at_exit() -> None:
    """Have all meters closed when this process ends; asked at first use, so that the application's providers close later."""
    global _exit_pid
    if _exit_pid == os.getpid():
        return
    _exit_pid = os.getpid()
    atexit.register(_close_all)
    pools = sys.modules.get("multiprocessing.util")
    if pools is not None and hasattr(pools, "Finalize"):
        # Children of multiprocessing leave through os._exit, which runs these and not atexit.
        pools.Finalize(None, _close_all, exitpriority=100)


def _close_all() -> None:
    for meter in list(_all):
        meter.close()


def in_sampler() -> bool:
    """Whether the caller runs in a sampler's thread, for which others may be waiting: a source, a listener, an exporter."""
    return threading.current_thread().name == SAMPLER


def _before_fork() -> None:
    """Wait until what another thread has begun is done: half of it, such as an import's lock, would stay with the child."""
    if not in_sampler() and beginning.acquire(timeout=_FORK_WAIT_S):
        _forking.add(threading.get_ident())


def _after_fork() -> None:
    if threading.get_ident() in _forking:
        _forking.discard(threading.get_ident())
        beginning.release()


def _forked() -> None:
    global beginning
    beginning = threading.RLock()
    _forking.clear()
    for meter in list(_all):
        meter.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_forked)
