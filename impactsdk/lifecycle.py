"""The end of the process, and its division: meters are closed by the one and begin anew after the other."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from typing import Protocol

__all__ = ["Lasting", "at_exit", "watch"]


class Lasting(Protocol):
    """What has to know: a meter."""

    def close(self) -> bool:
        """The process ends."""

    def before_fork(self) -> None:
        """This process is about to be divided."""

    def after_fork(self) -> None:
        """This is the parent, and that is done."""

    def forked(self) -> None:
        """This is the child of a fork."""


_all: weakref.WeakSet[Lasting] = weakref.WeakSet()
_exit_pid: int | None = None


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


def _before_fork() -> None:
    for meter in list(_all):
        meter.before_fork()


def _after_fork() -> None:
    for meter in list(_all):
        meter.after_fork()


def _forked() -> None:
    for meter in list(_all):
        meter.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_forked)
