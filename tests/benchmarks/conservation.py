"""Whether every joule is counted once: random mixes on a real meter and the real clock, against the counters themselves."""

from __future__ import annotations

import asyncio
import contextlib
import math
import multiprocessing
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from impactsdk import Meter, Reading, Settings
from impactsdk.testing import SimulatedSource, capture

from .table import Table, verdict

LIMIT = 1e-9


class Seen(SimulatedSource):
    """Remembers the first and the last value that it showed."""

    first_j: float | None = None
    last_j: float = 0.0

    def read(self) -> Iterator[Reading]:
        for reading in super().read():
            assert reading.energy_j is not None
            self.first_j = reading.energy_j if self.first_j is None else self.first_j
            self.last_j = reading.energy_j
            yield reading


def _power_w(at_s: float) -> float:
    return 180.0 + 120.0 * math.sin(37.0 * at_s) * math.sin(3.1 * at_s)


def _sources(kind: str) -> list[Seen]:
    fast = Seen(_power_w, id="sim:0", tick_s=0.02, max_power_w=330.0)
    slow = Seen(_power_w, id="sim:1", tick_s=0.1, phase_s=0.013)
    if kind == "one counter":
        return [fast]
    return [fast, slow, Seen(90.0, id="sim:2", type="cpu", sharing="cpu_time"), Seen(20.0, id="sim:3", type="memory")]


@dataclass(frozen=True)
class Balance:
    """The books of one meter at its end."""

    where: str
    regions: int
    counted_j: float
    covered: float
    deviation: float


class Mix:
    """A random mix of everything that opens and closes regions, for so long."""

    def __init__(self, meter: Meter, seed: int, seconds: float) -> None:
        self.meter, self.until_s = meter, time.perf_counter() + seconds
        self._random = random.Random(seed)

    def going(self) -> bool:
        return time.perf_counter() < self.until_s

    def wait_s(self) -> float:
        return self._random.choice((0.0, 0.0005, 0.003, 0.02))

    def region(self, name: str) -> Any:
        return self.meter.measured(name, span=self._random.random() < 0.5)

    def nested(self, depth: int = 0) -> None:
        with self.region(f"nested {depth}"):
            time.sleep(self.wait_s())
            while depth < 4 and self._random.random() < 0.5 and self.going():
                self.nested(depth + 1)

    def failing(self) -> None:
        with contextlib.suppress(ValueError), self.region("failing"), self.region("failing inside"):
            time.sleep(self.wait_s())
            raise ValueError

    def generated(self) -> None:
        @self.meter.measured("generator", span=False)
        def items() -> Iterator[int]:
            for item in range(5):
                with self.region("in the generator"):
                    time.sleep(self.wait_s() / 4)
                yield item

        given = items()
        for item in given:
            with self.region("consumer"):
                time.sleep(self.wait_s() / 4)
            if item == 3 and self._random.random() < 0.5:
                break
        given.close()

    def threaded(self) -> None:
        threads = [threading.Thread(target=self.nested) for _ in range(3)]
        with self.region("threads"):
            for thread in threads:
                thread.start()
        for thread in threads:  # some outlive the region
            thread.join()

    def concurrent(self) -> None:
        @self.meter.measured("async generator")
        async def items() -> AsyncIterator[int]:
            for item in range(3):
                await asyncio.sleep(self.wait_s() / 4)
                yield item

        @self.meter.measured("task")
        async def task() -> None:
            async with self.region("in the task"):
                await asyncio.sleep(self.wait_s())
            async for _ in items():
                await asyncio.sleep(0)

        async def all_of_them() -> None:
            with self.region("gather"):
                running = [asyncio.ensure_future(task()) for _ in range(5)]
                await asyncio.sleep(self.wait_s())
                running[0].cancel()
                await asyncio.gather(*running, return_exceptions=True)

        asyncio.run(all_of_them())

    def all_kinds(self) -> None:
        """One after the other, in random order."""
        kinds: list[Callable[[], None]] = [self.nested, self.failing, self.generated, self.threaded, self.concurrent]
        while self.going():
            self._random.choice(kinds)()
            time.sleep(self.wait_s())


def _mixed(kind: str, seed: int, seconds: float, *, fork: bool) -> list[Balance]:
    """Run one mix and balance its books, and with ``fork`` those of a child forked in the midst of it too."""
    sources = _sources(kind)
    meter = Meter(Settings.load(export="none"), sources=sources)
    if not fork:
        return [_balanced(kind, meter, sources, Mix(meter, seed, seconds).all_kinds)]
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    mix = Mix(meter, seed, seconds)
    child = context.Process(target=_child, args=(meter, kind, seed + 1, seconds / 2, results))

    def forking() -> None:
        with meter.measured("forking"):  # so that regions are open and the sampler is at work
            mix.nested()
            child.start()
            mix.all_kinds()

    found = [_balanced(f"{kind}, parent", meter, sources, forking)]
    child.join(30.0)
    return found + ([] if results.empty() else [results.get()])


def _child(parents: Meter, kind: str, seed: int, seconds: float, results: Any) -> None:
    Mix(parents, seed, 0.05).all_kinds()  # regions on the parent's meter, which starts anew here
    parents.close()
    sources = _sources(kind)
    meter = Meter(Settings.load(export="none"), sources=sources)
    results.put(_balanced(f"{kind}, child", meter, sources, Mix(meter, seed, seconds).all_kinds))


def _balanced(where: str, meter: Meter, sources: list[Seen], work: Callable[[], None]) -> Balance:
    with capture(meter=meter) as captured:
        work()
        meter.flush(10.0)
        meter.close(10.0)
        measurements = captured.all
    totals = meter.totals()
    # One counter: its own values. Several are not read at the same instant: what their curves say, each over the same time.
    shown_j = math.fsum(source.last_j - (source.first_j or 0.0) for source in sources)
    counted_j = shown_j if len(sources) == 1 else math.fsum(totals.channels.values())
    self_j = math.fsum(measurement.self_energy_j or 0.0 for measurement in measurements)
    operations_j = math.fsum(operation.energy_j or 0.0 for operation in totals.operations.values())
    rest_j = totals.unattributed_j + totals.others_j
    off = max(abs(part_j + rest_j - counted_j) for part_j in (self_j, operations_j, totals.attributed_j))
    return Balance(where, len(measurements), counted_j, counted_j / shown_j, off / counted_j)


def run(*, quick: bool = False) -> Iterator[Table]:
    """One table."""
    seconds, mixes = (0.2, 1) if quick else (3.0, 3)
    columns = ["counters, process", "regions", "joules", "of the values shown", "worst relative deviation", "limit", ""]
    table = Table("Conservation: sum(self) + unattributed + others against the counters", columns)
    found: list[Balance] = []
    for kind in ("one counter", "four counters"):
        for fork in (False, True) if hasattr(os, "fork") else (False,):
            for seed in range(mixes):
                found += _mixed(kind, seed + 100 * fork, seconds, fork=fork)
    for where in dict.fromkeys(balance.where for balance in found):
        of_it = [balance for balance in found if balance.where == where]
        worst = max(balance.deviation for balance in of_it)
        regions, counted_j = sum(balance.regions for balance in of_it), math.fsum(balance.counted_j for balance in of_it)
        covered = min(balance.covered for balance in of_it)
        cells = [f"{regions:,}", f"{counted_j:.1f}", f"{100 * covered:.4f} %", f"{worst:.1e}"]
        table.add(where, *cells, f"<= {LIMIT:g}", verdict(worst, LIMIT))
    table.note(
        "nesting, threads, tasks (some cancelled), generators (some given up), exceptions; worst of the sums over measurements,"
    )
    table.note(
        "over totals by name, and as a total; one counter: against the values it showed first and last; four: one shared by"
    )
    table.note(
        "CPU time, against their curves, which leave out the instants between the first and the last readings of all four"
    )
    yield table
