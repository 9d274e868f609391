"""A measured span against a bare ``with tracer.start_as_current_span()`` on the same provider with a batch processor."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

from opentelemetry.trace import Tracer

from impactsdk import Meter

from .bench_meter import open_meter, provider, sampler_cpu_s
from .table import Table, verdict
from .timing import in_turns, median, median_ratio

LIMIT = 1.0
_WORK = 4_000
"""Turns of a loop: some 0.1 ms of work inside each span, and as much after it."""


def _work(turns: int = _WORK) -> None:
    for _ in range(turns):
        pass


def _crowded(meter: Meter, tracer: Tracer, *, spans: int, rounds: int) -> tuple[dict[str, list[int]], float]:
    """Batches as fast as they go; nanoseconds of thread CPU, and microseconds of the sampler's per span."""

    @meter.measured("decorated")
    def decorated() -> None:
        pass

    def ours() -> None:
        for _ in range(spans):
            with meter.measured("ours"):
                pass

    def called() -> None:
        for _ in range(spans):
            decorated()

    def bare() -> None:
        for _ in range(spans):
            with tracer.start_as_current_span("bare"):
                pass

    before_s = sampler_cpu_s(meter)
    times = in_turns({"measured": ours, "decorated": called, "bare": bare}, rounds=rounds, between=lambda: time.sleep(0.004))
    meter.flush()
    return times, 1e6 * (sampler_cpu_s(meter) - before_s) / (2 * spans * (rounds + 1))


def _paced(enter: Callable[[], Any], *, spans: int) -> list[int]:
    """Wall nanoseconds that each span adds to work inside and after it: entering plus leaving."""
    now_ns = time.perf_counter_ns
    spent = []
    for _ in range(spans):
        before_ns = now_ns()
        with enter():
            inside_ns = now_ns()
            _work()
            leaving_ns = now_ns()
        after_ns = now_ns()
        spent.append(after_ns - leaving_ns + inside_ns - before_ns)
        _work()
    return spent


def run(*, quick: bool = False) -> Iterator[Table]:
    """One table."""
    spans, rounds = (10, 3) if quick else (100, 201)
    traces = provider()
    tracer = traces.get_tracer("reference")
    table = Table("A measured span against a bare OpenTelemetry span", ["what", "measured us", "bare us", "ratio", "limit", ""])
    with open_meter(traces=traces) as meter:
        with meter.measured("first"):
            pass
        # What the process has loaded is no business of the collections that spans set off.
        gc.collect()
        gc.freeze()
        times, background_us = _crowded(meter, tracer, spans=spans, rounds=rounds)
        for name, what in (("measured", "thread CPU, block, as fast as it goes"), ("decorated", "thread CPU, decorator")):
            ratio = median_ratio(times[name], times["bare"])
            ours_us, bare_us = (median(times[key]) / spans / 1e3 for key in (name, "bare"))
            table.add(what, ours_us, bare_us, f"{ratio:.2f}", f"<= {LIMIT:g}", verdict(ratio, LIMIT))
        ours, bare = [], []
        for _ in range(rounds):
            ours.append(_paced(lambda: meter.measured("paced"), spans=spans // 5))
            bare.append(_paced(lambda: tracer.start_as_current_span("paced"), spans=spans // 5))
        pairs = [([median(a)], [median(b)]) for a, b in zip(ours, bare, strict=True)]
        ratio = median(median_ratio(a, b) for a, b in pairs)
        flat = [sorted(value for batch in batches for value in batch) for batches in (ours, bare)]
        table.add(
            "wall, paced work, median",
            *(median(each) / 1e3 for each in flat),
            f"{ratio:.2f}",
            f"<= {LIMIT:g}",
            verdict(ratio, LIMIT),
        )
        late = [each[int(0.99 * len(each))] / 1e3 for each in flat]
        table.add("wall, paced work, 99th percentile", *late, f"{late[0] / late[1]:.2f}", "", "")
        table.note(f"in the background: {background_us:.1f} us of the sampler's CPU per span (attributes, end, polls);")
        table.note("the bare span pays its processor in the caller's thread, the measured one in the background")
        meter.flush()
    traces.shutdown()
    yield table
