"""A ``span=False`` region against the least that any such thing must do: a context variable, two clock readings, an append."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any

from .bench_meter import open_meter, sampler_cpu_s
from .table import Table, verdict
from .timing import in_turns, median, median_ratio

LIMIT = 3.0
_variable: ContextVar[Any] = ContextVar("floor", default=None)
_events: deque[Any] = deque()


def floor(times: int) -> None:
    """The bare statements."""
    set_, reset, now_ns, append = _variable.set, _variable.reset, time.perf_counter_ns, _events.append
    for _ in range(times):
        token = set_(None)
        start_ns = now_ns()
        append((start_ns, now_ns()))
        reset(token)
    _events.clear()


class Minimal:
    """The same as a block."""

    __slots__ = ("start_ns", "token")

    token: Token[Any]

    def __enter__(self, set_: Any = _variable.set, now_ns: Any = time.perf_counter_ns) -> Minimal:
        self.token = set_(self)
        self.start_ns = now_ns()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        now_ns: Any = time.perf_counter_ns,
        reset: Any = _variable.reset,
        append: Any = _events.append,
    ) -> None:
        append((self.start_ns, now_ns()))
        reset(self.token)


def minimal(times: int) -> None:
    """The floor inside the smallest class with ``__enter__`` and ``__exit__``, a new object each time."""
    for _ in range(times):
        with Minimal():
            pass
    _events.clear()


def run(*, quick: bool = False) -> Iterator[Table]:
    """One table."""
    times, rounds = (20, 3) if quick else (500, 301)

    def nothing() -> None:
        pass

    def calls(function: Callable[[], None]) -> None:
        for _ in range(times):
            function()

    with open_meter() as meter:
        measured = meter.measured

        decorated = measured("decorator", span=False)(nothing)

        def block() -> None:
            for _ in range(times):
                with measured("block", span=False):
                    pass

        def with_units() -> None:
            for _ in range(times):
                with measured("units", span=False, unit="sentence") as region:
                    region.add_units(8)

        def kept() -> None:
            region = measured("reused", span=False)
            for _ in range(times):
                with region:
                    pass

        works: dict[str, Callable[[], object]] = {
            "floor, bare statements": lambda: floor(times),
            "floor, inside a class": lambda: minimal(times),
            "block": block,
            "block with units": with_units,
            "one block object, reused": kept,
            "decorator": lambda: calls(decorated),
            "the plain call": lambda: calls(nothing),
        }
        times_ns = in_turns(works, rounds=rounds, between=lambda: time.sleep(0.001))
        meter.flush()
        background_us = sampler_cpu_s(meter) * 1e6 / (4 * times * (rounds + 1))
    bare, inside = times_ns["floor, bare statements"], times_ns["floor, inside a class"]
    times_ns["decorator less the plain call"] = [
        a - b for a, b in zip(times_ns["decorator"], times_ns["the plain call"], strict=True)
    ]
    table = Table("A region without a span (caller's thread CPU)", ["what", "us", "/ bare floor", "/ class floor", "limit", ""])
    for name, spent_ns in times_ns.items():
        ratio = median_ratio(spent_ns, bare)
        judged = name not in works or name in ("block", "one block object, reused")
        limit = (f"<= {LIMIT:g}", verdict(ratio, LIMIT)) if judged else ("", "")
        table.add(name, median(spent_ns) / times / 1e3, f"{ratio:.2f}", f"{median_ratio(spent_ns, inside):.2f}", *limit)
    table.note(f"in the background: {background_us:.2f} us of CPU per region, reading two sources included")
    yield table
