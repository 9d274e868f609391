"""Times of several pieces of work that take turns, and the ratios between them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["in_turns", "median", "median_ratio", "thread_ns"]


def thread_ns(work: Callable[[], object]) -> int:
    """CPU time of this thread for one call; what other threads and processes do meanwhile does not count."""
    before_ns = time.thread_time_ns()
    work()
    return time.thread_time_ns() - before_ns


def in_turns(
    works: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    clock: Callable[[Callable[[], object]], int] = thread_ns,
    between: Callable[[], object] | None = None,
) -> dict[str, list[int]]:
    """Nanoseconds of each piece of work in each round; every other round goes through them backward.

    The garbage collector stays on, since it is on for users too. ``between`` is called after each piece, outside its time.
    """
    for work in works.values():
        work()
    gc.collect()
    times: dict[str, list[int]] = {name: [] for name in works}
    for turn in range(rounds):
        for name in list(works)[:: 1 if turn % 2 else -1]:
            times[name].append(clock(works[name]))
            if between is not None:
                between()
    return times


def median(values: Iterable[float]) -> float:
    """The median."""
    return float(statistics.median(values))


def median_ratio(ours: Sequence[float], reference: Sequence[float]) -> float:
    """The median over rounds of ours over the reference in the same round."""
    return median(a / b for a, b in zip(ours, reference, strict=True))
