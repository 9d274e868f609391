"""The cost of an event with 10,000 regions open at once, against 10."""

from __future__ import annotations

import contextvars
import gc
import time
from collections.abc import Iterator
from typing import Any

from impactsdk import Channel, Meter
from impactsdk.energy.curve import Curve
from impactsdk.energy.entry import Entry, Tally
from impactsdk.energy.ledger import Ledger
from impactsdk.energy.segment import Timeline

from .bench_meter import open_meter, sampler_cpu_s
from .table import Table, verdict
from .timing import in_turns, median, median_ratio

LIMIT = 2.0
_STEP_NS = 25_000_000
_EVENT_NS = 1_000


class _Books:
    """A ledger on one exact channel with so many regions open, which opens and closes one more, again and again."""

    def __init__(self, regions: int) -> None:
        self._curve = Curve(Channel("sim:0", "gpu", "simulated", tick_s=0.0))
        self._curve.add(0.0, 0, 0)
        self._timeline = Timeline([self._curve], 0)
        self._ledger = Ledger(1, 0)
        self._tally = Tally("step", None)
        self._at_ns = 0
        self._parent = None
        for segment in self._next():
            self._ledger.begin(segment)
            for _ in range(regions):
                self._ledger.start(self._entry(), None, self._at_ns)
            self._ledger.close()

    def _entry(self) -> Entry:
        entry = Entry()
        entry.parent, entry.tally = None, self._tally
        return entry

    def _next(self) -> Any:
        self._at_ns += _STEP_NS
        self._curve.add(self._at_ns * 1e-7, self._at_ns, self._at_ns)
        return self._timeline.advance(self._at_ns)

    def events(self, segments: int, per_segment: int) -> None:
        """Open and close ``per_segment`` regions in each of so many segments."""
        for _ in range(segments):
            at_ns = self._at_ns
            for segment in self._next():
                self._ledger.begin(segment)
                for _ in range(per_segment):
                    entry = self._entry()
                    self._ledger.start(entry, None, at_ns)
                    self._ledger.end(entry, at_ns + _EVENT_NS)
                    at_ns += 2 * _EVENT_NS
                self._ledger.close()


class _Crowd:
    """A meter with so many regions open, each in a context of its own as requests are."""

    def __init__(self, meter: Meter, regions: int) -> None:
        self.meter = meter
        self._open = []
        for _ in range(regions):
            context, region = contextvars.Context(), meter.measured("request", span=False)
            context.run(region.__enter__)
            self._open.append((context, region))
        time.sleep(0.3)
        meter.flush()

    def background_ns(self) -> int:
        return round(sampler_cpu_s(self.meter) * 1e9)

    def steps(self, number: int) -> None:
        """Open and close so many more."""
        for _ in range(number):
            with self.meter.measured("step", span=False):
                pass

    def settled_ns(self, number: int) -> int:
        """The sampler's CPU for so many."""
        before_ns = self.background_ns()
        self.steps(number)
        self.meter.flush()
        return self.background_ns() - before_ns

    def leave(self) -> None:
        for context, region in self._open:
            context.run(region.__exit__, None, None, None)


def run(*, quick: bool = False) -> Iterator[Table]:
    """One table."""
    many = 200 if quick else 10_000
    segments, per_segment, rounds = (2, 20, 3) if quick else (5, 400, 61)
    table = Table("Regions open at once: cost of one more", ["what", f"us with {many:,}", "us with 10", "ratio", "limit", ""])

    def row(what: str, number: int, few_ns: list[int], many_ns: list[int]) -> None:
        ratio = median_ratio(many_ns, few_ns)
        table.add(
            what,
            median(many_ns) / number / 1e3,
            median(few_ns) / number / 1e3,
            f"{ratio:.2f}",
            f"<= {LIMIT:g}",
            verdict(ratio, LIMIT),
        )

    few, crowd = _Books(10), _Books(many)
    gc.collect()
    gc.freeze()
    times = in_turns(
        {"few": lambda: few.events(segments, per_segment), "many": lambda: crowd.events(segments, per_segment)}, rounds=rounds
    )
    row("ledger: open and close", segments * per_segment, times["few"], times["many"])
    with open_meter() as one, open_meter() as other:
        two = _Crowd(one, 10), _Crowd(other, many)
        gc.collect()
        gc.freeze()
        steps = segments * per_segment
        works = {"few": lambda: two[0].steps(steps), "many": lambda: two[1].steps(steps)}
        times = in_turns(works, rounds=rounds, between=lambda: time.sleep(0.01))
        row("caller: enter and leave", steps, times["few"], times["many"])
        settled = [[each.settled_ns(steps) for each in two] for _ in range(max(3, rounds // 4))]
        row("sampler's CPU, polls included", steps, *(list(each) for each in zip(*settled, strict=True)))
        for each in two:
            each.leave()
    gc.unfreeze()
    table.note(f"the limit of {LIMIT:g} is ours: what is open must not matter, and this is far from 1,000 times")
    yield table
