"""The one background thread: its share of a core while regions are open, while none is, and before the first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from impactsdk import Meter
from impactsdk.clock import SystemClock

from .bench_meter import open_meter, sampler_cpu_s, two_sources
from .table import Table, verdict

OPEN_LIMIT, IDLE_LIMIT = 0.5, 0.05


def _percent(
    meter: Meter, wait_s: float, step: Callable[[], AbstractContextManager[object]] | None = None
) -> tuple[float, float]:
    """CPU of the sampler as it says itself, and of the whole process, which only sleeps here; percent of one core."""
    sampler_s, process_s, wall_s = sampler_cpu_s(meter), time.process_time(), time.perf_counter()
    if step is None:
        time.sleep(wait_s)
    else:
        for _ in range(round(wait_s / 0.1)):
            with step():
                time.sleep(0.1)
    elapsed_s = time.perf_counter() - wall_s
    process_s = time.process_time() - process_s
    return 100 * (sampler_cpu_s(meter) - sampler_s) / elapsed_s, 100 * process_s / elapsed_s


def _bare(wait_s: float) -> float:
    """Percent of a core that a thread uses which only waits and reads as the sampler does while steps begin and end.

    Twice per tick of 100 ms, just before and just after it, it reads the board, the second time the CPU model and the process's
    time, too, and forgets what they showed.
    """
    clock, (board, model) = SystemClock(), two_sources()
    board.open(clock)
    model.open(clock)
    used_s: list[float] = []

    def waits_and_reads() -> None:
        waker, before_s = clock.waker(), 0.0
        for turn in range(-2, max(2, round(wait_s / 0.1))):
            if turn == 0:
                before_s = time.thread_time()
            waker.wait(0.094)
            list(board.read())
            waker.wait(0.006)
            list(board.read())
            list(model.read())
            time.process_time()
        used_s.append(time.thread_time() - before_s)

    thread = threading.Thread(target=waits_and_reads)
    thread.start()
    thread.join()
    return 100 * used_s[0] / max(0.2, wait_s)


def _threads() -> int:
    return sum(thread.name.startswith("impactsdk") for thread in threading.enumerate())


def run(*, quick: bool = False) -> Iterator[Table]:
    """One table."""
    open_s, idle_s = (0.2, 0.2) if quick else (12.0, 20.4)
    table = Table(
        "The sampler with two sources (a board that ticks at 100 ms, the CPU model)",
        ["when", "value", "of the whole process", "limit", ""],
    )
    with open_meter() as meter:
        before = _threads()
        table.add("threads before the first region", str(before), str(threading.active_count()), "0", verdict(before, 0))
        with meter.measured("first", span=False):
            time.sleep(0.05 if quick else 2.0)  # until the tick is known
        with meter.measured("open", span=False):
            own, process = _percent(meter, open_s)
        table.add("% of a core, a region open", f"{own:.3f}", f"{process:.3f}", f"<= {OPEN_LIMIT:g}", verdict(own, OPEN_LIMIT))
        with meter.measured("stepping", span=False):
            own, process = _percent(meter, open_s, step=lambda: meter.measured("step", span=False))
        table.add("% of a core, ten steps a second", f"{own:.3f}", "", f"<= {OPEN_LIMIT:g}", verdict(own, OPEN_LIMIT))
        table.add("the same waits and readings, bare", f"{_bare(open_s):.3f}", "", "", "")
        time.sleep(0.05 if quick else 1.5)  # the sampler lingers for a second
        own, process = _percent(meter, idle_s)
        table.add("% of a core, none open", f"{own:.3f}", f"{process:.3f}", f"<= {IDLE_LIMIT:g}", verdict(own, IDLE_LIMIT))
    table.add("threads after close", str(_threads()), str(threading.active_count()), "0", verdict(_threads(), 0))
    table.note("bare: a thread that waits and reads as the sampler does while steps begin and end, and makes nothing of it")
    table.note("a region open: nothing begins or ends in it, and after a second of that the devices are read less often")
    yield table
