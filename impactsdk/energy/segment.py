"""Stretches of time in which every channel's curve is straight: what the ledger divides among regions.

A segment also answers, for a point inside it, how far the credited energy may be from the true one; and it carries running
sums (time without an answer, energy that may have been lost) so that a region needs to look only at its two ends.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter

from impactsdk.energy.curve import Curve, Knot

__all__ = ["Segment", "Timeline"]

_at_ns = attrgetter("at_ns")


class Segment:
    """One stretch ``[start_ns, end_ns)``. Rates are joules per nanosecond.

    ``rates`` has one own rate per channel, then how much less and how much more the models' bounds would credit.
    ``v`` is the ledger's virtual energy at the start, in the same layout.
    """

    __slots__ = (
        "_error_j",
        "_lanes",
        "end_ns",
        "failed",
        "failed_rate",
        "late_rates",
        "lost_j",
        "lost_rate",
        "max_w",
        "own_rate",
        "rates",
        "start_ns",
        "total_rates",
        "v",
    )

    def __init__(self, start_ns: int, end_ns: int, lanes: list[tuple[Curve, Knot | None, tuple[Knot, ...], float]]) -> None:
        self.start_ns, self.end_ns = start_ns, end_ns
        self._lanes = lanes
        self._error_j: float | None = None
        self.rates = [rate for _, _, _, rate in lanes]
        self.own_rate = sum(self.rates)
        self.total_rates: list[float] = []
        limits_w = [curve.channel.max_power_w for curve, _, _, _ in lanes]
        self.max_w = sum(math.inf if limit_w is None else limit_w for limit_w in limits_w)
        self.late_rates = [0.0] * len(lanes)
        self.failed_rate = self.lost_rate = 0.0
        slack_low = slack_high = 0.0
        for index, (curve, knot, around, rate) in enumerate(lanes):
            if knot is None:
                self.total_rates.append(0.0)
                self.failed_rate += 1
                self.lost_rate += math.inf if curve.channel.max_power_w is None else curve.channel.max_power_w * 1e-9
                continue
            slack_low += rate * (1 - knot.low_gain)
            slack_high += rate * (knot.high_gain - 1)
            previous = around[around.index(knot) - 1]
            width_ns = knot.at_ns - previous.at_ns
            self.total_rates.append((knot.energy_j - previous.energy_j) / width_ns)
            self.late_rates[index] = knot.share * knot.late_j / width_ns
            self.lost_rate += self.late_rates[index]
            self.failed_rate += knot.failed
            if knot.lost:
                self.lost_rate += math.inf if curve.channel.max_power_w is None else curve.channel.max_power_w * 1e-9
        self.rates += [slack_low, slack_high]
        self.failed_rate /= max(1, len(lanes))
        self.failed = self.lost_j = 0.0
        self.v: list[float] = []

    def failed_ns(self, at_ns: int) -> float:
        """Time without an answer since the beginning, as a mean over the channels."""
        return self.failed + self.failed_rate * (at_ns - self.start_ns)

    def lost_until_j(self, at_ns: int) -> float:
        """The most that may have been used unseen since the beginning; infinite if nothing bounds it."""
        return self.lost_j + self.lost_rate * (at_ns - self.start_ns) if at_ns > self.start_ns else self.lost_j

    def error_at_j(self, at_ns: int) -> tuple[float, float]:
        """How far the true own energy up to ``at_ns`` may lie below and above the credited one: ``(low <= 0, high >= 0)``."""
        low_j = high_j = 0.0
        for curve, knot, around, rate in self._lanes:
            if knot is None:
                continue
            own_j = knot.own_j - rate * (knot.at_ns - at_ns)
            least_j, most_j = curve.bounds_j(at_ns, around)
            low_j += min(0.0, _own_at(least_j, knot, around) - own_j)
            high_j += max(0.0, _own_at(most_j, knot, around) - own_j)
        return low_j, high_j

    def blur_ns(self, at_ns: int) -> int:
        """How far ``at_ns`` is from the nearest knot, at most, over the channels: the time that had to be interpolated."""
        blur_ns = 0
        for _, knot, around, _ in self._lanes:
            if knot is not None:
                previous = around[around.index(knot) - 1]
                blur_ns = max(blur_ns, min(knot.at_ns - at_ns, at_ns - previous.at_ns))
        return blur_ns

    @property
    def error_j(self) -> float:
        """A bound on the error at any point of the segment; computed when first asked for."""
        if self._error_j is None:
            error_j = 0.0
            for curve, knot, around, rate in self._lanes:
                if knot is None:
                    continue
                start_own_j = knot.own_j - rate * (knot.at_ns - self.start_ns)
                end_own_j = knot.own_j - rate * (knot.at_ns - self.end_ns)
                most_j = _own_at(curve.bounds_j(self.end_ns, around)[1], knot, around)
                least_j = _own_at(curve.bounds_j(self.start_ns, around)[0], knot, around)
                error_j += max(most_j - start_own_j, end_own_j - least_j, 0.0)
            self._error_j = error_j
        return self._error_j


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
        self._failed_ns = 0.0
        self._lost_j = 0.0

    def advance(self, now_ns: int, *, final: bool = False) -> Iterator[Segment]:
        """The segments from where the last call ended up to where every curve is settled."""
        until_ns = min([curve.settled_ns(now_ns, final=final) for curve in self.curves], default=now_ns)
        if until_ns <= self.until_ns:
            if final:  # an empty one, for the events that are left
                yield self._cut(self.until_ns)
            return
        cuts = {knot.at_ns for curve in self.curves for knot in curve.knots if self.until_ns < knot.at_ns < until_ns}
        for end_ns in [*sorted(cuts), until_ns]:
            yield self._cut(end_ns)
        for curve in self.curves:
            curve.forget(self.until_ns)

    def _cut(self, end_ns: int) -> Segment:
        segment = Segment(self.until_ns, end_ns, [self._lane(curve) for curve in self.curves])
        segment.failed, segment.lost_j = self._failed_ns, self._lost_j
        self._failed_ns, self._lost_j = segment.failed_ns(end_ns), segment.lost_until_j(end_ns)
        self.until_ns = end_ns
        return segment

    def _lane(self, curve: Curve) -> tuple[Curve, Knot | None, tuple[Knot, ...], float]:
        knots = curve.knots
        index = bisect_right(knots, self.until_ns, key=_at_ns)
        if index == 0 or index == len(knots):
            return curve, None, (), 0.0
        knot, previous = knots[index], knots[index - 1]
        rate = (knot.own_j - previous.own_j) / (knot.at_ns - previous.at_ns)
        return curve, knot, tuple(knots[max(0, index - 3) : index + 4]), rate
