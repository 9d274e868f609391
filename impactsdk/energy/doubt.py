"""Whether what a counter shows can be true: drivers show zero for a while, and jumps that no device can have used."""

from __future__ import annotations

import math
from typing import Literal

from impactsdk.model import Channel

__all__ = ["Doubt", "Verdict"]

Verdict = Literal["true", "doubtful", "anew"]

_ABSURD_W = 1e6
"""No board, package or module uses a megawatt: a jump that implies more is not energy."""
_GLITCH_NS = 10_000_000_000
"""A counter that began anew and jumps back to where it was so soon was never reset."""
_JUMP_J = 500.0
"""Less may have been used at a stretch."""


class Doubt:
    """What is held against one counter's readings. A value that cannot be true has to be shown twice to be a beginning."""

    def __init__(self, channel: Channel) -> None:
        self._resolution_j = channel.resolution_j
        self.max_power_w = math.inf if channel.max_power_w is None else channel.max_power_w
        """A power that the device cannot exceed, as far as that has not been seen to be wrong; else infinite."""
        self._suspect: tuple[float, int] | None = None
        self._reset: tuple[float, float, int] | None = None  # what it had shown before, what it showed then, and when that was

    def of(
        self, energy_j: float, accepted_j: float, before_ns: int, after_ns: int, *, since_ns: int, tick_ns: float | None
    ) -> Verdict:
        """``anew``: it was reset, or was never reset though it seemed so: what it used meanwhile is not known.

        Args:
            energy_j: What it shows.
            accepted_j: What it showed when it was last believed.
            before_ns: Just before the reading.
            after_ns: Just after it.
            since_ns: Since when the rise may have been used.
            tick_ns: How often it is refreshed, as far as that is known.
        """
        step_j = energy_j - accepted_j
        if not self._plausible(step_j, after_ns - since_ns, tick_ns):
            suspect, self._suspect = self._suspect, (energy_j, before_ns)
            agrees = suspect is not None and self._plausible(energy_j - suspect[0], after_ns - suspect[1], tick_ns)
            if suspect is not None and not agrees and accepted_j < suspect[0] < energy_j:
                self.max_power_w = math.inf  # it goes on rising like that: what is wrong is the power, not the counter
            if agrees:
                return "anew"
            if not self._plausible(step_j, after_ns - since_ns, tick_ns):
                return "doubtful"
        self._suspect = None
        if self._reset is not None and self._was_no_reset(energy_j, step_j, after_ns):
            return "anew"
        return "true"

    def begins_anew(self, accepted_j: float, shown_j: float, after_ns: int) -> None:
        """What it shows now is a new beginning; before, it had shown ``accepted_j``."""
        self._suspect = None
        self._reset = (accepted_j, shown_j, after_ns) if shown_j < accepted_j else None

    def certainly_used(self, step_j: float, elapsed_ns: int) -> None:
        """It has used so much within so long: more than its limit says shows that the limit is wrong."""
        if step_j > 1.01 * self.max_power_w * elapsed_ns * 1e-9 + self._resolution_j:
            self.max_power_w = math.inf

    def _plausible(self, step_j: float, elapsed_ns: int, tick_ns: float | None) -> bool:
        """Whether the device can have used ``step_j`` since the last accepted value; a little slack for clocks and steps."""
        if step_j < 0:
            return False
        most_w = min(4 * self.max_power_w, _ABSURD_W)
        slack_ns = tick_ns if tick_ns is not None else 200_000_000
        return step_j <= most_w * (elapsed_ns + slack_ns) * 1e-9 + 2 * self._resolution_j + 1e-9

    def _was_no_reset(self, energy_j: float, step_j: float, after_ns: int) -> bool:
        """Whether a driver that showed nonsense, as zero for a while, shows the counter again: that step is no energy.

        One that was truly reset comes to the same value in many steps.
        """
        assert self._reset is not None
        before_j, shown_j, at_ns = self._reset
        if after_ns - at_ns > _GLITCH_NS:
            self._reset = None
            return False
        fall_j = before_j - shown_j
        return energy_j >= before_j and fall_j > _JUMP_J and step_j > 0.5 * fall_j
