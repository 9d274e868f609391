"""Turns one counter that moves in steps into one monotone function F(t), with a hard interval around each point.

A change of value between two readings makes a *knot*: the counter reached E at some instant in ``(lo, hi]``. Between knots F
is linear, with a *bend* where the power stepped (:func:`~impactsdk.energy.knot.bent`). From the knots alone, and the powers
that the device cannot leave, each point has an interval that always holds; nothing in it rests on the estimate of the tick, or
on bends. Everything here is pure: time comes in with the readings.

When the counter was refreshed, within the certain window, :mod:`impactsdk.energy.tick` estimates.
"""

from __future__ import annotations

import math

from impactsdk.energy.doubt import Doubt
from impactsdk.energy.knot import NEVER_NS, Knot, bent
from impactsdk.energy.tick import Tick
from impactsdk.model import Channel

__all__ = ["SILENCE_NS", "Curve"]

_STALL_NS = 500_000_000
"""How long a counter whose tick is unknown may stand still before F is taken as flat, """
_FIRST_STALL_NS = 4_500_000_000
"""and how long the first time: it may tick as slowly as that, and then what it shows late belongs to what waits."""
SILENCE_NS = 1_000_000_000
"""How long a device may not answer, by default, before spans stop waiting for it."""
_PATIENCE_NS = 30_000_000_000
"""The same where a long tick was found out, at most: one that was declared is meant."""


class Curve:
    """F(t) of one channel. Feed :meth:`add`; read :attr:`knots` up to :meth:`settled_ns`; then :meth:`forget`."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.knots: list[Knot] = []
        self.lost_readings = 0
        self.silence_ns = SILENCE_NS
        self._tick = Tick(None if channel.tick_s is None else round(channel.tick_s * 1e9))
        self.exact = self._tick.exact
        """Whether each reading shows the energy up to then."""
        self.stretched = False
        """Whether any knot has gains."""
        self._last_real: Knot | None = None
        self._previous_j = 0.0  # F at the last real knot but one
        self._raw_j = 0.0  # the counter at the last accepted reading
        self._raw_low_j: float | None = None
        self._raw_high_j: float | None = None
        self._seen_ns = NEVER_NS  # just before the last reading that showed the accepted value
        self._read_ns = NEVER_NS  # just before the last reading that was accepted
        self.answered_ns = NEVER_NS
        """Just after the last reading that was accepted."""
        self.at_once = False
        """Whether somebody asked for the readings that come: what they show is then settled without waiting for more."""
        self.patient = True
        """Whether it may stand still so long as the first time: it has not yet, and not too many wait for it."""
        self.expectant = True
        """Whether its second tick may be waited for: nobody has waited for that too long."""
        self._settled_ns = NEVER_NS
        self._bent_before: Knot | None = None
        self._failing = False
        self._doubt = Doubt(channel)

    # --- what comes in --------------------------------------------------------------------------------------------

    def add(
        self,
        energy_j: float | None,
        before_ns: int,
        after_ns: int,
        low_j: float | None = None,
        high_j: float | None = None,
    ) -> Knot | None:
        """Take one reading, taken between ``before_ns`` and ``after_ns``; return the knot it made, if any.

        Whoever knows this process's part of the interval then calls :meth:`divide`; until then all of it is its own.

        A reading that cannot be true is a gap, as a missing one is: not a number, negative, earlier than the last, or a
        step that would need an impossible power. A counter that goes back or jumps has to show it twice: then it was reset,
        and what it used meanwhile is lost, never guessed.
        """
        if energy_j is None or not math.isfinite(energy_j) or energy_j < 0 or after_ns < before_ns or before_ns < self._read_ns:
            self.lost_readings += 1
            self._failing = True
            return None
        if low_j is None or high_j is None or not (math.isfinite(low_j) and math.isfinite(high_j)):
            low_j = high_j = None
        last = self._last_real
        if last is None:
            return self._begin(energy_j, before_ns, after_ns, low_j, high_j)
        step_j = energy_j - self._raw_j
        # A counter that stood still shows at once what was used since it last moved.
        since_ns = self._seen_ns if self._tick.declared_ns is not None else min(self._seen_ns, last.at_ns)
        verdict = self._doubt.of(energy_j, self._raw_j, before_ns, after_ns, since_ns=since_ns, tick_ns=self.tick_ns)
        if verdict != "true":
            self.lost_readings += 1
            self._failing = True
            return self._restart(energy_j, before_ns, after_ns, low_j, high_j) if verdict == "anew" else None
        self._read_ns, self.answered_ns = before_ns, after_ns
        if step_j == 0 and self._tick.declared_ns is None:
            self._seen_ns = before_ns
            self._tick.still()
            return None
        return self._knot(step_j, energy_j, before_ns, after_ns, low_j, high_j)

    def _begin(self, energy_j: float, before_ns: int, after_ns: int, low_j: float | None, high_j: float | None) -> Knot:
        lo_ns, at_ns = self._tick.first(before_ns, after_ns)
        knot = Knot(at_ns, lo_ns, after_ns, 0.0, first=True, failed=True, lost=True)
        if math.isfinite(self.max_power_w):
            knot.lost_j = self.max_power_w * (knot.hi_ns - knot.at_ns) * 1e-9
        self._accept(knot, energy_j, before_ns, low_j, high_j)
        return knot

    def _restart(self, energy_j: float, before_ns: int, after_ns: int, low_j: float | None, high_j: float | None) -> Knot:
        previous, last = self.knots[-1], self._last_real
        assert last is not None
        # As at the beginning: the value may have been reached long before it was first seen.
        lo_ns, at_ns = self._tick.first(before_ns, after_ns)
        at_ns = max(previous.at_ns + 1, at_ns)
        knot = Knot(at_ns, lo_ns, max(after_ns, at_ns), previous.energy_j, failed=True, lost=True)
        since_ns = last.lo_ns if last.lo_ns > NEVER_NS else last.at_ns
        knot.lost_j = self.max_power_w * (knot.hi_ns - since_ns) * 1e-9
        self._doubt.begins_anew(self._raw_j, energy_j, after_ns)
        self._accept(knot, energy_j, before_ns, low_j, high_j)
        return knot

    def _knot(
        self, step_j: float, energy_j: float, before_ns: int, after_ns: int, low_j: float | None, high_j: float | None
    ) -> Knot:
        last = self._last_real
        assert last is not None
        self._bend()
        lo_ns, at_ns = self._tick.place(self._seen_ns, before_ns, after_ns, begun=last.lo_ns > NEVER_NS)
        at_ns = max(at_ns, self.knots[-1].at_ns + 1)
        knot = Knot(at_ns, lo_ns, max(after_ns, at_ns), last.energy_j + step_j, failed=self._failing)
        pseudo = self.knots[-1]
        if not pseudo.real:  # part of this step belongs to a time that was settled without it
            span_ns = at_ns - last.at_ns
            knot.late_j = step_j * (pseudo.at_ns - last.at_ns) / span_ns if span_ns > 0 else step_j
            knot.failed = knot.failed or pseudo.failed
        if step_j > 0 and low_j is not None and high_j is not None and None not in (self._raw_low_j, self._raw_high_j):
            knot.low_gain = min(max((low_j - (self._raw_low_j or 0.0)) / step_j, 0.0), 1.0)
            knot.high_gain = max((high_j - (self._raw_high_j or 0.0)) / step_j, 1.0)
            self.stretched = True
        if last.lo_ns > NEVER_NS:
            self._doubt.certainly_used(step_j, knot.hi_ns - last.lo_ns)
        if self._opening and not knot.failed:
            self._part_from_before(at_ns, step_j)
        self._accept(knot, energy_j, before_ns, low_j, high_j)
        return knot

    @property
    def _opening(self) -> bool:
        """Whether a counter whose tick has to be found out has ticked once since it was first read."""
        knots = self.knots
        return len(knots) == 2 and knots[0].first and knots[1].real and self._tick.declared_ns is None

    def _parted(self, *, final: bool) -> bool:
        """Whether the second tick is not waited for any longer; what the first one shows is then parted without it."""
        late = (final or not self.expectant) and self._read_ns > self.knots[1].hi_ns
        if late:
            self._part_from_before(self._read_ns, 0.0)
        return late

    def _part_from_before(self, until_ns: int, more_j: float) -> None:
        """The first tick shows a whole period's energy, a part of it used before the first reading: no region owes that.

        As it was before, or as it went on, ``more_j`` until then: of the two the greater power is taken for what came after the
        reading. So a steady load has its due, and so has one that begins with the first region.
        """
        begin, first = self.knots
        if self._settled_ns > begin.at_ns or first.failed or first.late_j:
            return
        step_j, since_ns, period_ns = first.energy_j - begin.energy_j, first.at_ns - begin.at_ns, until_ns - first.at_ns
        most_j = max(step_j / max(period_ns, since_ns), more_j / period_ns) * since_ns
        first.late_j = max(0.0, step_j - most_j)
        first.own_j -= first.share * first.late_j
        part = 1 - first.late_j / step_j
        first.over_j, first.spare_j = part * first.over_j, part * first.spare_j

    def _bend(self) -> None:
        """Now that the interval after it is known and divided: let the last but one bend where the power stepped, if it did."""
        knots = self.knots
        if not self.bends or knots[-1] is self._bent_before or len(knots) < 4 or knots[-3].at_ns < self._settled_ns:
            return
        self._bent_before = knots[-1]
        before = knots[-5] if knots[-4].bend else knots[-4]
        start, end, after = knots[-3:]
        if not before.real or any(knot.failed or knot.lost or knot.late_j or not knot.real for knot in (start, end, after)):
            return
        bend = bent(before, start, end, after)
        if bend is not None:
            knots.insert(-2, bend)

    def _accept(self, knot: Knot, energy_j: float, before_ns: int, low_j: float | None, high_j: float | None) -> None:
        self._previous_j = knot.energy_j if self._last_real is None else self._last_real.energy_j
        self.knots.append(knot)
        self._last_real = knot
        self.divide(1.0)
        self._raw_j, self._raw_low_j, self._raw_high_j = energy_j, low_j, high_j
        self._seen_ns = self._read_ns = before_ns
        self.answered_ns = max(self.answered_ns, knot.hi_ns)
        self._failing = False

    def window_ns(self) -> tuple[int, int]:
        """The time within which the energy of the last knot's interval was certainly used, as far as it is known."""
        knot = self.knots[-1]
        before = next((before for before in reversed(self.knots[:-1]) if before.real), knot)
        return max(before.lo_ns, self.knots[0].at_ns) if before.lo_ns > NEVER_NS else before.at_ns, knot.hi_ns

    def divide(self, share: float, most: float | None = None, *, between: tuple[float, float] | None = None) -> None:
        """Say what part of the last knot's interval this process owes, 0 to 1, and what it may owe at the most.

        ``between`` says it of a part that is only uncertain in this interval: what it owes too much now it owes less later.
        """
        knot, before = self.knots[-1], self.knots[-2] if len(self.knots) > 1 else None
        knot.share = share
        if most is not None and share > 0:
            knot.high_gain *= most / share
            self.stretched = True
        if before is not None:
            used_j = knot.energy_j - self._previous_j - knot.late_j
            knot.own_j = before.own_j + share * used_j
            if between is not None:
                knot.over_j, knot.spare_j = max(0.0, share - between[0]) * used_j, max(0.0, between[1] - share) * used_j

    @property
    def step_j(self) -> float:
        """What the interval that ends at the last knot adds to F."""
        return self.knots[-1].energy_j - self._previous_j

    @property
    def shown_j(self) -> float:
        """What the counter showed at the last accepted reading."""
        return self._raw_j

    @property
    def max_power_w(self) -> float:
        """A power that the device cannot exceed, as far as that has not been seen to be wrong; else infinite."""
        return self._doubt.max_power_w

    @property
    def tick_ns(self) -> float | None:
        """How often the counter is refreshed: declared by the source, else observed; ``None`` while unknown."""
        return self._tick.period_ns

    @property
    def bends(self) -> bool:
        """Whether F may bend within an interval, which is known one reading, or tick, later: only then it is settled."""
        return not self.at_once if self.exact else self._tick.observed

    @property
    def reach(self) -> int:
        """How many knots on each side say something about a point."""
        return 5 if self.bends else 3  # two of the five may be bends

    @property
    def poll_ns(self) -> int:
        """How often this counter deserves to be read while regions begin and end: a quarter of its tick, 10 to 100 ms."""
        return self._tick.poll_ns

    def spare(self, sparing: int) -> None:
        """Of so many looks that would be useful only one is worth its price."""
        self._tick.sparing = sparing

    def due_ns(self, now_ns: int, *, within_ns: int = 0) -> int:
        """When a reading is worth most: before and after a tick; with ``within_ns``, not before each of them."""
        last = self._last_real
        if last is None or self._failing:
            return now_ns + self._tick.poll_ns
        return self._tick.due_ns(last.at_ns, now_ns, within_ns=within_ns)

    @property
    def power_w(self) -> float | None:
        """Mean power between the last two knots; ``None`` before there are two."""
        if len(self.knots) < 2 or not self.knots[-1].real or self.knots[-1].failed:
            return None
        before, last = self.knots[-2:]
        return (last.energy_j - before.energy_j - last.late_j) / ((last.at_ns - before.at_ns) * 1e-9)

    # --- what goes out --------------------------------------------------------------------------------------------

    def settled_ns(self, now_ns: int, *, final: bool = False) -> int:
        """Up to when F will not change any more.

        Normally the lower end of the last knot's window; where F may yet bend after it, the last knot but one. A counter that
        stands still, or a device that does not answer, holds spans up only for a bounded time: then F is agreed to be flat,
        and what the device says later is accounted for as energy of that past time which no span is charged with. ``final``
        agrees at once.
        """
        if self.knots:
            self._bend()
        settled_ns = self._settled(now_ns, final=final)
        self._settled_ns = max(self._settled_ns, settled_ns)
        return settled_ns

    def _settled(self, now_ns: int, *, final: bool) -> int:
        last, newest = self._last_real, self.knots[-1] if self.knots else None
        if last is None or newest is None:
            return now_ns
        if not newest.real:
            settled_ns = newest.at_ns
        elif (self.bends or (self._opening and not self._parted(final=final))) and len(self.knots) > 1:
            settled_ns = self.knots[-2].at_ns
        else:
            settled_ns = min(last.lo_ns if last.lo_ns > NEVER_NS else last.at_ns, last.at_ns)
        if self.tick_ns is None:
            patience_ns = _FIRST_STALL_NS if self.patient else _STALL_NS
        else:
            patience_ns = max(150_000_000, round(2.5 * self.tick_ns))
        if self._tick.observed:
            patience_ns = min(patience_ns, _PATIENCE_NS)
        if now_ns - self.answered_ns > self.silence_ns or (final and self._failing):
            return self._agree(now_ns, failed=True)
        if self._read_ns - last.hi_ns > patience_ns or (final and self._read_ns > settled_ns):
            self.patient = False
            return self._agree(self._read_ns, failed=False)
        return settled_ns

    def _agree(self, until_ns: int, *, failed: bool) -> int:
        last = self.knots[-1]
        if until_ns <= last.at_ns:
            return last.at_ns
        if last.real:
            self.knots.append(Knot(until_ns, until_ns, until_ns, last.energy_j, last.own_j, real=False, failed=failed))
        else:
            last.at_ns = last.lo_ns = last.hi_ns = until_ns
            last.failed = last.failed or failed
        return until_ns

    def bounds_j(self, at_ns: int, around: tuple[Knot, ...]) -> tuple[float, float]:
        """The least and the most that the counter can truly have reached at ``at_ns``, given the knots ``around`` it."""
        low_j, high_j = -math.inf, math.inf
        min_w, max_w = self.channel.min_power_w * 1e-9, self.max_power_w * 1e-9
        for knot in around:
            if not knot.real:
                continue
            if knot.hi_ns <= at_ns:
                low_j = max(low_j, knot.energy_j + min_w * (at_ns - knot.hi_ns))
            else:
                low_j = max(low_j, knot.energy_j - max_w * (knot.hi_ns - at_ns))
            if knot.lo_ns >= at_ns:
                high_j = min(high_j, knot.energy_j - min_w * (knot.lo_ns - at_ns))
            elif knot.lo_ns > NEVER_NS:
                high_j = min(high_j, knot.energy_j + max_w * (at_ns - knot.lo_ns))
        step_j = self.channel.resolution_j
        return low_j - step_j, high_j + step_j

    def forget(self, before_ns: int) -> None:
        """Drop the knots that no point at or after ``before_ns`` needs."""
        unneeded = 0
        while unneeded + self.reach + 1 < len(self.knots) and self.knots[unneeded + self.reach].at_ns < before_ns:
            unneeded += 1
        del self.knots[:unneeded]
