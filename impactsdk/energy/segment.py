"""Stretches of time in which every channel's curve is straight: what the ledger divides among regions.

A segment also answers, for a point inside it, how far the credited energy may be from the true one; and it carries running
sums (time without an answer, energy that may have been lost) so that a region needs to look only at its two ends.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from impactsdk.energy.curve import Curve
from impactsdk.energy.knot import NEVER_NS, Knot

__all__ = ["NOTHING_UNSEEN", "Lane", "Segment", "Timeline", "Unseen"]

_at_ns = attrgetter("at_ns")


class Unseen(NamedTuple):
    """A running sum, since the beginning, of what was used unseen at the most.

    ``unbounded_ns``: time for which nothing bounds it. ``lost_j``: what no counter will ever tell. ``early_j``: what may have
    been counted though it was used before the first reading. ``late_j``: what was told when its time was settled without it.
    """

    unbounded_ns: float
    lost_j: float
    early_j: float
    late_j: float

    def since(self, begun: Unseen) -> tuple[float, float, float]:
        """How much was added since: joules lost (infinite if nothing bounds them), early and late ones."""
        if self is begun:
            return 0.0, 0.0, 0.0
        lost_j = math.inf if self.unbounded_ns > begun.unbounded_ns else max(0.0, self.lost_j - begun.lost_j)
        return lost_j, max(0.0, self.early_j - begun.early_j), max(0.0, self.late_j - begun.late_j)


NOTHING_UNSEEN = Unseen(0.0, 0.0, 0.0, 0.0)


class Lane(NamedTuple):
    """One channel's curve where it is straight: the interval that ends at ``knot`` and all knots that say something about it.

    A counter that was reset says nothing across the reset. Where the interval is itself lost, a region that ends in it is
    judged by what came before (``until``), one that begins in it by what came after (``since``).
    """

    curve: Curve
    knot: Knot
    previous: Knot
    since: tuple[Knot, ...]
    until: tuple[Knot, ...]
    rate: float

    def error_j(self, at_ns: int, *, ending: bool) -> tuple[float, float]:
        """How far the true own energy up to ``at_ns`` may lie from the credited one: ``(low <= 0, high >= 0)``."""
        own_j = self.own_j(at_ns)
        least_j, most_j = self.possible_j(at_ns, ending=ending)
        gain = self.gain
        return gain * min(0.0, least_j - own_j), gain * max(0.0, most_j - own_j)

    def _shared_j(self, at_ns: int, least_j: float, most_j: float) -> tuple[float, float]:
        """The same where only the share of a whole interval is known, and not when in it this process ran."""
        first = last = self.since.index(self.knot)
        while self.since[last].bend and last + 1 < len(self.since):
            last += 1
        while first > 0 and self.since[first - 1].bend:
            first -= 1
        start = self.since[first - 1] if first > 0 else self.previous
        end, parts = self.since[last], self.since[first : last + 1]
        own_j, most_w = end.own_j - start.own_j, self.curve.max_power_w * 1e-9
        low_j = own_j - sum(part.over_j for part in parts)
        if end.hi_ns > at_ns:
            low_j -= most_w * (end.hi_ns - at_ns)
        high_j = own_j + sum(part.spare_j for part in parts)
        if at_ns > start.lo_ns > NEVER_NS:
            high_j = min(high_j, most_w * (at_ns - start.lo_ns))
        return min(least_j, start.own_j + max(0.0, low_j)), max(most_j, start.own_j + high_j + self.knot.unseen_j)

    def own_j(self, at_ns: int) -> float:
        """The credited own energy up to ``at_ns``."""
        return self.knot.own_j - self.rate * (self.knot.at_ns - at_ns)

    def possible_j(self, at_ns: int, *, ending: bool) -> tuple[float, float]:
        """The least and the most that the own energy up to ``at_ns`` can be."""
        around, anchor = (self.until, self.previous) if ending and self.knot.lost else (self.since, self.knot)
        least_j, most_j = self.curve.bounds_j(at_ns, around)
        least_j, most_j = _own_at(least_j, anchor, around), _own_at(most_j, anchor, around)
        if self.knot.spare_j or self.knot.over_j or self.knot.unseen_j:
            return self._shared_j(at_ns, least_j, most_j)
        return least_j, most_j

    def blur_ns(self, at_ns: int) -> int:
        """How far ``at_ns`` is from the nearest knot; a bend is none."""
        return min(abs(at_ns - knot.at_ns) for knot in {self.knot, self.previous, *self.since} if not knot.bend)

    @property
    def gain(self) -> float:
        """How much more than the nominal energy a model's upper estimate allows: all of it may fall on one side of a point."""
        return max(knot.high_gain for knot in self.since) if self.curve.stretched else 1.0


class Segment:
    """One stretch ``[start_ns, end_ns)``. Rates are joules per nanosecond.

    ``rates`` has one own rate per channel, then how much less and how much more the models' bounds would credit, then that of
    time: a region's own seconds are divided as its joules are.
    ``silent`` has a bit for each channel that did not answer.
    ``v`` is the ledger's virtual energy at the start, in the same layout. ``unseen`` is what may have been used unseen from the
    beginning to the start of this segment: the very same object for as long as that grows by nothing.
    """

    error_j: float
    """A bound on the error at any point of it."""

    __slots__ = (
        "_lanes",
        "end_ns",
        "error_j",
        "failed",
        "failed_rate",
        "late_rates",
        "lost_rate",
        "max_w",
        "most_rate",
        "rates",
        "silent",
        "start_ns",
        "total_rates",
        "unbounded",
        "unseen",
        "v",
    )

    def __init__(self, start_ns: int, end_ns: int, curves: Sequence[Curve]) -> None:
        self.start_ns, self.end_ns = start_ns, end_ns
        self._lanes: list[Lane] = []
        self.rates: list[float] = []
        self.total_rates: list[float] = []
        self.late_rates: list[float] = []
        self.max_w = self.failed_rate = self.failed = 0.0
        self.unseen, self.lost_rate, self.unbounded = NOTHING_UNSEEN, 0.0, False
        self.v: list[float] = []
        slack_low = slack_high = 0.0
        self.silent = 0
        for number, curve in enumerate(curves):
            limit_w = curve.max_power_w
            self.max_w += limit_w
            lane = _lane(curve, start_ns)
            if lane is None or lane.knot.failed:
                self.silent |= 1 << number
            if lane is None:
                self._add(0.0, 0.0, 0.0)
                self.failed_rate += 1 / len(curves)
                self.unbounded = self.unbounded or math.isinf(limit_w)
                self.lost_rate += 0.0 if math.isinf(limit_w) else limit_w * 1e-9
                continue
            self._lanes.append(lane)
            knot, previous, rate = lane.knot, lane.previous, lane.rate
            width_ns = knot.at_ns - previous.at_ns
            self._add(rate, (knot.energy_j - previous.energy_j) / width_ns, knot.share * knot.late_j / width_ns)
            slack_low += rate * (1 - knot.low_gain)
            slack_high += rate * (knot.high_gain - 1)
            self.failed_rate += knot.failed / len(curves)
        self.most_rate = self.max_w * 1e-9 + math.fsum(self.rates)
        """More than can be used, or credited, in a nanosecond."""
        self.rates += [slack_low, slack_high, 1e-9]

    def _add(self, rate: float, total_rate: float, late_rate: float) -> None:
        self.rates.append(rate)
        self.total_rates.append(total_rate)
        self.late_rates.append(late_rate)

    def failed_ns(self, at_ns: int) -> float:
        """Time without an answer since the beginning, as a mean over the channels."""
        return self.failed + self.failed_rate * (at_ns - self.start_ns)

    def unseen_until(self, at_ns: int) -> Unseen:
        """What may have been used unseen since the beginning."""
        unseen = self.unseen
        if not self.lost_rate and not self.unbounded:
            return unseen
        elapsed_ns = at_ns - self.start_ns
        return unseen._replace(
            unbounded_ns=unseen.unbounded_ns + self.unbounded * elapsed_ns, lost_j=unseen.lost_j + self.lost_rate * elapsed_ns
        )

    def follow(self, unseen: Unseen | None) -> None:
        """Take over the sum so far, ``None`` at the beginning, and add what is met at the start of this segment.

        Energy of a time that was settled without it, or that a reset has swallowed, is met at one instant, the end of that
        time: a region that begins or ends within it has it in the interval around that point.
        """
        unbounded_ns, lost_j, early_j, late_j = NOTHING_UNSEEN if unseen is None else unseen
        for lane in self._lanes:
            knot, previous = lane.knot, lane.previous
            begins = previous.at_ns == self.start_ns
            if unseen is None and not (begins and previous.first):
                # It was read before the others, and where it was at their beginning is uncertain.
                low_j, high_j = lane.error_j(self.start_ns, ending=False)
                unbounded_ns += math.isinf(low_j)
                lost_j += -low_j if math.isfinite(low_j) else 0.0
                early_j += high_j
            if unseen is None:  # nor is it known when what is charged to nobody was used
                early_j += knot.share * knot.late_j * lane.gain * (knot.at_ns - self.start_ns) / (knot.at_ns - previous.at_ns)
            if not begins:
                continue
            late_j += knot.share * knot.late_j * lane.gain
            stray_j = knot.stray_j * lane.gain
            lost_j, early_j = lost_j + stray_j, early_j + stray_j
            if previous.lost:
                unbounded_ns += math.isinf(previous.lost_j)
                lost_j += previous.lost_j if math.isfinite(previous.lost_j) else 0.0
                if previous.first:
                    early_j += lane.error_j(self.start_ns, ending=False)[1]
        met = (unbounded_ns, lost_j, early_j, late_j)
        self.unseen = unseen if unseen is not None and met == unseen else Unseen(*met)

    def error_at_j(self, at_ns: int, *, ending: bool) -> tuple[float, float]:
        """How far the true own energy up to ``at_ns`` may lie below and above the credited one: ``(low <= 0, high >= 0)``.

        ``ending`` says that it is asked for the end of a region.
        """
        low_j = high_j = 0.0
        for lane in self._lanes:
            lane_low_j, lane_high_j = lane.error_j(at_ns, ending=ending)
            low_j += lane_low_j
            high_j += lane_high_j
        return low_j, high_j

    def blur_ns(self, at_ns: int) -> int:
        """How far ``at_ns`` is from the nearest knot, at most, over the channels: the time that had to be interpolated."""
        return max((lane.blur_ns(at_ns) for lane in self._lanes), default=0)

    def __getattr__(self, name: str) -> float:
        """``error_j`` is computed when it is asked for, and from then on is there: the ledger asks at each event."""
        if name != "error_j":
            raise AttributeError(name)
        self.error_j = 0.0
        for lane in self._lanes:
            for ending in (False, True) if lane.knot.lost else (False,):
                most_j = lane.possible_j(self.end_ns, ending=ending)[1]
                least_j = lane.possible_j(self.start_ns, ending=ending)[0]
                error_j = max(most_j - lane.own_j(self.start_ns), lane.own_j(self.end_ns) - least_j, 0.0)
                self.error_j += lane.gain * error_j
        return self.error_j


def _lane(curve: Curve, at_ns: int) -> Lane | None:
    """The straight piece that begins at or before ``at_ns``; ``None`` before the first reading."""
    knots, reach = curve.knots, curve.reach
    index = min(bisect_right(knots, at_ns, key=_at_ns), len(knots) - 1)
    if index < 1 or knots[0].at_ns > at_ns:
        return None
    knot, previous = knots[index], knots[index - 1]
    rate = (knot.own_j - previous.own_j) / (knot.at_ns - previous.at_ns)
    first = last = index  # of what is on the same side of any reset as the interval, or as its end where it is lost
    while not knots[first].lost and first > max(0, index - reach):
        first -= 1
    while last + 1 < min(len(knots), index + reach + 1) and not knots[last + 1].lost:
        last += 1
    since = tuple(knots[first : last + 1])
    if not knot.lost:
        return Lane(curve, knot, previous, since, since, rate)
    first = index - 1
    while not knots[first].lost and first > max(0, index - reach):
        first -= 1
    return Lane(curve, knot, previous, since, tuple(knots[first:index]), rate)


def _own_at(energy_j: float, knot: Knot, around: tuple[Knot, ...]) -> float:
    """This process's part of a counter level: each interval's energy at that interval's share, anchored at ``knot``.

    Beyond the knots at hand all energy counts as own, which keeps a bound a bound.
    """
    if math.isinf(energy_j):
        return energy_j
    index = around.index(knot)
    rest_j = energy_j - knot.energy_j
    own_j = knot.own_j
    while rest_j > 0 and index + 1 < len(around):
        index += 1
        step_j = min(rest_j, around[index].energy_j - around[index - 1].energy_j)
        own_j += step_j * around[index].share
        rest_j -= step_j
    while rest_j < 0 and index > 0:
        step_j = max(rest_j, around[index - 1].energy_j - around[index].energy_j)
        own_j += step_j * around[index].share
        rest_j -= step_j
        index -= 1
    return own_j + rest_j


class Timeline:
    """Cuts the time that all curves have settled into segments, once each and in order."""

    def __init__(self, curves: Sequence[Curve], start_ns: int) -> None:
        self.curves = curves
        self.until_ns = start_ns
        self._settled = False  # whether all curves have got as far as that
        self._failed_ns = 0.0
        self._unseen: Unseen | None = None

    def advance(self, now_ns: int, *, final: bool = False, late: bool = False) -> Iterator[Segment]:
        """The segments from where the last call ended up to where every curve is settled.

        If that is nowhere new, an empty one for the events that are left at the very end (``final``), or that belong to a time
        which is settled already (``late``).
        """
        until_ns = min([curve.settled_ns(now_ns, final=final) for curve in self.curves], default=now_ns)
        if until_ns <= self.until_ns:
            if final or (late and self._settled):
                yield self._cut(self.until_ns)
            return
        cuts = {knot.at_ns for curve in self.curves for knot in curve.knots if self.until_ns < knot.at_ns < until_ns}
        self._settled = True
        for end_ns in [*sorted(cuts), until_ns]:
            yield self._cut(end_ns)
        for curve in self.curves:
            curve.forget(self.until_ns)

    def _cut(self, end_ns: int) -> Segment:
        segment = Segment(self.until_ns, end_ns, self.curves)
        segment.failed = self._failed_ns
        segment.follow(self._unseen)
        self._failed_ns = segment.failed_ns(end_ns)
        if end_ns > segment.start_ns:  # else the next one meets the same
            self._unseen = segment.unseen_until(end_ns)
        self.until_ns = end_ns
        return segment
