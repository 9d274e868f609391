"""How right the energy of a span is, against a known truth and beside what others do with the same device."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from impactsdk import Channel
from impactsdk.energy.curve import Curve
from impactsdk.energy.entry import Entry, Tally
from impactsdk.energy.ledger import Ledger
from impactsdk.energy.segment import Timeline

from .loads import BUSY_W, Bursts, Counter, Poller, SquareWave
from .table import Table

LENGTHS_S = (0.005, 0.02, 0.1, 0.3, 1.0, 10.0)
TICKS_S = (0.02, 0.1)
_WARM_UP_S = 4.0
_PERIOD_S = 0.25
_LIMIT_W = 1.1 * BUSY_W


@dataclass(slots=True)
class Estimates:
    """One span's joules: the truth, and what each rule says."""

    truth_j: float
    ours_j: float
    low_j: float
    high_j: float
    boundary_j: float
    power_j: float


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _plan(
    length_s: float, number: int, rng: random.Random, *, aligned: bool, after_s: float = _WARM_UP_S
) -> list[tuple[float, float]]:
    spans_s, at_s = [], after_s
    for index in range(number):
        # About so long: over a whole number of ticks, readings at the boundaries would be exact by chance.
        span_s = length_s * rng.uniform(0.8, 1.2)
        if index:
            at_s += length_s * rng.uniform(0.7, 1.3) if aligned else rng.uniform(0.02, 0.3)
        spans_s.append((at_s, at_s + span_s))
        at_s += span_s
    return spans_s


def _measure(counter: Counter, spans_s: list[tuple[float, float]], poller: Poller) -> list[Entry]:
    """The spans as entries of a ledger on a curve that is fed as the sampler would; the curve is not told the tick."""
    curve = Curve(Channel("sim:0", "gpu", "simulated", max_power_w=_LIMIT_W))
    events = [(_ns(at_s), number, at_s == span[1]) for number, span in enumerate(spans_s) for at_s in span]
    entries = [Entry() for _ in spans_s]
    tally = Tally("span", None)
    timeline: Timeline | None = None
    ledger = Ledger(1, 0)
    done, at_s, end_s = 0, 0.0, spans_s[-1][1] + 1.0
    while at_s < end_s:
        curve.add(counter.energy_j(at_s + poller.READ_S / 2), _ns(at_s), _ns(at_s + poller.READ_S))
        now_ns = _ns(at_s + poller.READ_S)
        if timeline is None:
            timeline, ledger = Timeline([curve], curve.knots[0].at_ns), Ledger(1, curve.knots[0].at_ns)
        for segment in timeline.advance(now_ns):
            ledger.begin(segment)
            while done < len(events) and events[done][0] <= segment.end_ns:
                event_ns, number, ends = events[done]
                entry = entries[number]
                if ends:
                    ledger.end(entry, event_ns)
                else:
                    entry.parent, entry.tally = None, tally
                    ledger.start(entry, None, event_ns)
                done += 1
            ledger.close()
        at_s = 1e-9 * min(max(curve.due_ns(now_ns), now_ns + 1_000_000), now_ns + 100_000_000) + poller.late_s()
    return entries


def estimates(
    length_s: float, tick_s: float, *, aligned: bool, number: int, seed: int, after_s: float = _WARM_UP_S
) -> list[Estimates]:
    """So many spans on one device, the first about so long after it was read for the first time."""
    rng = random.Random(seed)
    spans_s = _plan(length_s, number, rng, aligned=aligned, after_s=after_s)
    load = Bursts(spans_s) if aligned else SquareWave(_PERIOD_S, rng.uniform(0, _PERIOD_S))
    counter = Counter(load, tick_s, rng.uniform(0, tick_s))
    found = []
    for (start_s, end_s), entry in zip(spans_s, _measure(counter, spans_s, Poller(seed)), strict=True):
        truth_j = load.energy_j(end_s) - load.energy_j(start_s)
        ours_j = math.fsum(entry.inclusive_j()[:-2])
        boundary_j = counter.energy_j(end_s) - counter.energy_j(start_s)
        # Just before the end: what a reading in the last statement of the span would show.
        power_j = counter.power_w(end_s - 1e-6) * (end_s - start_s)
        found.append(Estimates(truth_j, ours_j, *entry.interval_j(), boundary_j, power_j))
    return found


def _errors(spans: list[Estimates], rule: str) -> tuple[float, float]:
    """Root mean square and mean of the errors, percent of the mean truth."""
    mean_j = math.fsum(span.truth_j for span in spans) / len(spans)
    errors = [100 * (getattr(span, rule) - span.truth_j) / mean_j for span in spans]
    return math.sqrt(math.fsum(error * error for error in errors) / len(errors)), math.fsum(errors) / len(errors)


def _spans(length_s: float, tick_s: float, *, aligned: bool, first: bool, quick: bool) -> list[Estimates]:
    devices, number = (1, 4) if quick else (12, 10 if length_s >= 10 else 40)
    if first:  # of each run only the first span, just after the first reading: it has to be known what that reading is worth
        devices, number = devices * number, 1
    return [
        span
        for seed in range(devices)
        for span in estimates(
            length_s, tick_s, aligned=aligned, number=number, seed=seed, after_s=0.001 if first else _WARM_UP_S
        )
    ]


def _table(title: str, *, aligned: bool, quick: bool, first: bool = False) -> Table:
    columns = ["span, tick", "ours", "at the boundaries", "power x duration", "truth in [low, high]", "half-width", ""]
    table = Table(title, columns)
    for tick_s in TICKS_S:
        for length_s in LENGTHS_S:
            spans = _spans(length_s, tick_s, aligned=aligned, first=first, quick=quick)
            errors = [_errors(spans, rule) for rule in ("ours_j", "boundary_j", "power_j")]
            inside = sum(span.low_j - 1e-9 <= span.truth_j <= span.high_j + 1e-9 for span in spans)
            half = math.fsum((span.high_j - span.low_j) / 2 for span in spans) / math.fsum(span.truth_j for span in spans)
            marks = [] if errors[0][0] <= min(errors[1][0], errors[2][0]) else ["not the best"]
            marks += [] if inside == len(spans) else [f"{len(spans) - inside} outside"]
            table.add(
                f"{1e3 * length_s:g} ms, {1e3 * tick_s:g} ms",
                *(f"{rmse:.1f} ({bias:+.1f})" for rmse, bias in errors),
                f"{100 * inside / len(spans):.1f} %",
                f"{100 * half:.1f} %",
                ", ".join(marks) or "ok",
            )
    return table


def run(*, quick: bool = False) -> Iterator[Table]:
    """Three tables."""
    columns = "RMSE (bias) in percent of the mean"
    table = _table(f"Spans at random phase, 60/300 W square wave of 250 ms: {columns}", aligned=False, quick=quick)
    yield table
    yield _table(f"The first span of a run, the same load: {columns}", aligned=False, quick=quick, first=True)
    table = _table(f"Spans that are the 300 W burst, about as long at 60 W between them: {columns}", aligned=True, quick=quick)
    table.note(
        "at the boundaries: the counter read at entering and at leaving, subtracted, as Zeus does where there is a counter"
    )
    table.note("power x duration: the power that the device shows just before leaving, times the duration, as CodeCarbon does")
    table.note(
        "  where it has no counter; energy and power are refreshed at the same ticks, so here it sees an instant of the burst,"
    )
    table.note(
        "  whose power is constant: it is exact as soon as a tick lies in the span, and would not be with any other load"
    )
    table.note(
        "ours: read just before and just after each tick, as it was observed, with a limit of 330 W; a step of power is placed"
    )
    table.note("  by the ticks around it, which takes one whole tick of the burst: spans shorter than two ticks have none")
    yield table
