"""Resident memory after a great many regions and spans: it must not grow with their number."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

from impactsdk import Meter

from .bench_meter import open_meter, provider, waiting_events
from .table import Table, verdict

LIMIT_MB = 5.0


def _resident_mb() -> float:
    import psutil

    gc.collect()
    return float(psutil.Process().memory_info().rss) / 1e6


def _work(meter: Meter, number: int, *, span: bool, at_once: int) -> int:
    """So many regions; returns the most events that waited to be settled."""
    measured = meter.measured
    waited = 0
    for done in range(number):
        with measured("step", span=span):
            pass
        if done % 1_000 == 999:
            waited = max(waited, waiting_events(meter))
        if done % at_once == at_once - 1:
            meter.flush(60.0)
    meter.flush(60.0)
    return waited


def run(*, quick: bool = False) -> Iterator[Table]:
    """One table."""
    columns = ["what", "warm-up", "then", "seconds", "most waiting", "MB before", "MB after", "growth", "limit", ""]
    table = Table("Resident memory", columns)
    traces = provider()
    # What, whether they are spans, how many come before all is settled, how many warm up, how many count.
    for what, span, at_once, warm_up, number in (
        ("regions, 10,000 at a time", False, 10_000, 100_000, 1_000_000),
        ("spans, 1,000 at a time", True, 1_000, 10_000, 100_000),
        ("regions, as fast as they go", False, 10_000_000, 1_000_000, 1_000_000),
    ):
        if quick:
            warm_up, number = 20, 200
        with open_meter(traces=traces) as meter:
            _work(meter, warm_up, span=span, at_once=at_once)
            before_mb, started_s = _resident_mb(), time.perf_counter()
            waited = _work(meter, number, span=span, at_once=at_once)
            elapsed_s = time.perf_counter() - started_s
            growth_mb = _resident_mb() - before_mb
            counted = sum(operation.count for operation in meter.totals().operations.values())
        cells = [
            f"{warm_up:,}",
            f"{number:,}",
            f"{elapsed_s:.1f}",
            f"{waited:,}",
            f"{before_mb:.1f}",
            f"{before_mb + growth_mb:.1f}",
        ]
        table.add(what, *cells, f"{growth_mb:+.1f}", f"<= {LIMIT_MB:g}", verdict(growth_mb, LIMIT_MB))
        if counted != warm_up + number:
            table.note(f"{what}: only {counted:,} were counted at the end")
    traces.shutdown()
    table.note(
        "most waiting: events (two per region) that wait for a reading; at full speed that is all that came within a tick,"
    )
    table.note("which is memory that is used again and does not grow with the number of regions")
    yield table
