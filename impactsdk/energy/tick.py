"""When a counter is refreshed: as its source declares, else as readings show.

The time that the estimate predicts only places a change *within* its certain window (a phase-locked loop), which brings the
error near that of exact tick times when the counter is read four times a tick.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from impactsdk.energy.knot import NEVER_NS

__all__ = ["Tick"]

_FAST_NS = 10_000_000
"""A counter that has changed at each of many readings this far apart ticks at least this fast."""
_FAST_RUN = 30
_EXACT_NS = 4_000_000
_SLOWEST_NS = 100_000_000
_FOLLOWED = 4
"""Over so many the ticks can be counted without looking at each."""
_WIDEST, _NARROWEST = 1 / 8, 1 / 32
"""How far from a tick it is read before and after it, in periods: less and less while the tick is found between the two."""


class Tick:
    """The period and the phase of one counter.

    Args:
        declared_ns: The longest time that a value may be old; ``None`` if the period has to be observed.
    """

    def __init__(self, declared_ns: int | None) -> None:
        self.declared_ns = declared_ns
        self.period_ns: float | None = declared_ns
        """``None`` while unknown."""
        self.exact = declared_ns is not None and declared_ns <= _EXACT_NS
        """Whether each reading shows the energy up to then."""
        self._gaps: deque[int] = deque(maxlen=16)
        self._changes_in_a_row = 0
        self._in_phase = True
        self._seen_ns = 0  # the last tick that was seen to happen, in a window narrower than the period
        self._next_to = True  # whether no tick has been let pass since
        self._margin = _WIDEST
        self._unguarded = 0  # ticks in a row that were looked at only from behind
        self.sparing = 1
        """Of so many useful looks one is worth its price: of so many ticks one is looked at from both sides, the others from
        behind."""

    def still(self) -> None:
        """A reading showed nothing new."""
        self._changes_in_a_row = 0

    def first(self, before_ns: int, after_ns: int) -> tuple[int, int]:
        """As :meth:`place`, of the first value that is read, of which it is not known since when it is shown."""
        if self.declared_ns is None:
            return NEVER_NS, (before_ns + after_ns) // 2
        return before_ns - self.declared_ns, (before_ns + after_ns - self.declared_ns) // 2

    def place(self, seen_ns: int, before_ns: int, after_ns: int, *, begun: bool) -> tuple[int, int]:
        """When the counter took the value that a reading between ``before_ns`` and ``after_ns`` was the first to show.

        Returns:
            The lower end of the certain window, and the best estimate.

        Args:
            seen_ns: Just before the last reading that showed the value before it.
            begun: Whether it is certain since when that one was shown.
        """
        if self.declared_ns is not None:
            # Also for a value that has changed since the last reading: one that is a mean over the tick changes at each
            # reading, and yet may tell of an instant before the last one.
            return self.first(before_ns, after_ns)
        return seen_ns, self._place(seen_ns, after_ns, begun=begun)

    def _place(self, lo_ns: int, hi_ns: int, *, begun: bool) -> int:
        middle_ns, window_ns, period_ns = (lo_ns + hi_ns) // 2, hi_ns - lo_ns, self.period_ns
        self._changes_in_a_row += 1
        if self._is_fast:
            self.period_ns = _FAST_NS
            return max(middle_ns, hi_ns - _FAST_NS // 2)
        if self.sparing > 1 and self._in_phase and period_ns is not None and period_ns / 2 < window_ns <= 1.5 * period_ns:
            after_ns = (hi_ns - self._seen_ns) % period_ns
            if after_ns < period_ns / 2:  # as was meant; else it came long before it was expected
                self._unguarded += 1
                return max(round(hi_ns - after_ns), lo_ns + 1)
        if self._in_phase and period_ns is not None and period_ns < window_ns <= (_FOLLOWED + 0.5) * period_ns:
            # Some ticks were let pass on purpose: the value is that of the last one, and says nothing about the period.
            self._next_to = False
            return max(round(self._seen_ns + (hi_ns - self._seen_ns) // period_ns * period_ns), lo_ns + 1)
        if window_ns > (period_ns or 200_000_000):  # read late, as after idling: the last tick is a fresh one
            self._in_phase = self._next_to = False
            return hi_ns - round(min(window_ns, period_ns or 50_000_000) / 2)
        if not self._in_phase or not begun:
            self._in_phase = self._next_to = begun
            self._seen_ns = middle_ns
            return middle_ns
        at_ns, before_ns = middle_ns, self._seen_ns
        if period_ns is not None:
            ticks = max(1, round((middle_ns - before_ns) / period_ns))
            at_ns = min(max(round(before_ns + ticks * period_ns), lo_ns + 1), hi_ns)
            # A slow loop: one window says little about the period, sixteen say much.
            self.period_ns = period_ns + 0.1 * ((at_ns - before_ns) / ticks - period_ns)
        if self._next_to:
            self._gaps.append((at_ns - before_ns) // (1 + self._unguarded))
            if period_ns is not None:
                caught = 2 * window_ns <= period_ns
                self._margin = max(0.97 * self._margin, _NARROWEST) if caught else min(2 * self._margin, _WIDEST)
        self._seen_ns, self._next_to, self._unguarded = at_ns, True, 0
        if self.period_ns is None:
            if len(self._gaps) >= 3:
                self.period_ns = float(median(self._gaps))
        elif len(self._gaps) == 16 and not 0.6 < median(self._gaps) / self.period_ns < 1.6:
            self.period_ns = float(median(self._gaps))
        return at_ns

    def due_ns(self, last_ns: int, now_ns: int, *, within_ns: int = 0) -> int:
        """When the next reading is worth most: just before the next tick after that of ``last_ns``, and then just after it.

        So two readings a tick are enough to know well when it was. Or before that tick of those ``within_ns`` of the last one
        which comes last: the ones between need not be seen.
        """
        even_ns, period_ns = now_ns + self.poll_ns, self.period_ns
        if self.declared_ns is not None or period_ns is None or not self._in_phase or self._is_fast:
            return even_ns
        # A tick that was found in a wide window is found better if the next one is not let pass.
        ticks = max(1, min(within_ns // period_ns, _FOLLOWED)) if last_ns == self._seen_ns else 1
        margin_ns = (self._margin if ticks == 1 and self._next_to else _WIDEST) * period_ns
        tick_ns = last_ns + ticks * period_ns
        guarded = ticks > 1 or not self._next_to or self._unguarded + 1 >= self.sparing
        if guarded and now_ns < tick_ns - 2 * margin_ns:
            return round(tick_ns - margin_ns)
        if now_ns < tick_ns:
            return round(tick_ns + margin_ns)
        return min(even_ns, round(now_ns + max(2 * margin_ns, now_ns - tick_ns)))  # it is late, or has ceased to tick

    @property
    def _is_fast(self) -> bool:
        return self._changes_in_a_row >= _FAST_RUN and (self.period_ns or math.inf) <= 1.6 * _FAST_NS

    @property
    def observed(self) -> bool:
        """Whether it is known from the readings when the counter ticks."""
        return self.declared_ns is None and self.period_ns is not None

    @property
    def poll_ns(self) -> int:
        """How often the counter deserves to be read while regions begin and end: a quarter of its tick, 10 to 100 ms.

        ``sparing`` makes it up to as many times more, while that says about as much: a counter whose tick is known is looked at
        twice in it, or each 50 ms; one that is exact as often as ever, since its energy lies where it is looked at.
        """
        if self.exact:
            return _SLOWEST_NS
        if self.period_ns is None:
            return _FAST_NS * self.sparing
        if self.declared_ns is None and self._is_fast:
            return _SLOWEST_NS
        poll_ns = min(max(round(self.period_ns / 4), _FAST_NS), _SLOWEST_NS)
        if self.declared_ns is not None:
            return min(self.sparing * poll_ns, _SLOWEST_NS)
        return min(self.sparing * poll_ns, max(poll_ns, round(self.period_ns / 2), _SLOWEST_NS // 2))


def median(values: Sequence[int]) -> float:
    """The middle value. Not the library's, whose import would take longer than that of this package."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return float(ordered[middle]) if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
