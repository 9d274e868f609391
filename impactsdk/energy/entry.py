"""One region as the ledger sees it, and the tally of a name. Apart from the ledger, so that a region can be made without it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from impactsdk.energy.vector import EXTRAS, HIGH, LOW

if TYPE_CHECKING:
    from impactsdk.energy.segment import Segment

__all__ = ["Entry", "Tally", "drifted_j"]


class Tally:
    """What the finished regions of one name owe together."""

    __slots__ = (
        "answered",
        "count",
        "counted",
        "credits",
        "duration_ns",
        "early_j",
        "end_ns",
        "end_segment",
        "error_j",
        "inner_units",
        "inside_j",
        "lost_j",
        "name",
        "tau",
        "touched",
        "unit",
        "units",
    )

    def __init__(self, name: str, unit: str | None) -> None:
        self.name, self.unit = name, unit
        self.count = self.duration_ns = 0
        self.answered = 0  # a bit for each channel that has answered in one of them
        self.units: float | None = None
        self.counted = 0  # of how many of them the units are known
        self.inside_j = 0.0  # what was measured inside of those whose units are known
        self.inner_units = 0.0  # those that a region around it counts again, in the same unit
        self.error_j = 0.0  # how far the truth may lie from what they are credited with, at the most
        self.lost_j = self.early_j = 0.0  # what they may have used unseen, and are credited with though it was used before
        self.end_ns: int | None = None  # when the last of them ended, if it was then the only innermost one
        self.end_segment = 0  # the number of the segment in which that was
        self.tau = 0.0
        self.credits: list[float] | None = None
        self.touched = False


class Entry:
    """One region as the ledger sees it. Whoever makes it sets ``parent`` and ``tally``."""

    __slots__ = (
        "active",
        "again",
        "alone",
        "broken",
        "child_error_j",
        "child_tau",
        "children",
        "concurrent",
        "credits",
        "crowds",
        "end_drift",
        "end_ns",
        "end_segment",
        "end_weight",
        "error_j",
        "generator",
        "inclusive",
        "kin",
        "occludes",
        "on_drift",
        "on_error_j",
        "on_ns",
        "on_segment",
        "on_tau",
        "open",
        "owner",
        "parent",
        "saved_j",
        "start_drift",
        "start_ns",
        "start_segment",
        "start_weight",
        "strewn",
        "suspended",
        "tally",
        "tau",
        "touched",
    )

    owner: Any
    """What it is the entry of."""
    parent: Entry | None
    """The region that this one is part of; fixed for good."""
    occludes: Entry | None
    """The region that this one hides while it runs; differs from the parent for a generator with another consumer."""
    tally: Tally
    start_ns: int
    end_ns: int
    open: bool
    active: bool
    """Innermost at this moment, hence one of the W."""
    suspended: bool
    children: int
    """How many regions hide this one now."""
    kin: int
    """How many regions have this one as their parent and are open."""
    concurrent: bool
    """Some of its subtree ran beside some other of it or outlived it, or none of it ran for a time: F(end) - F(start) is then
    not its energy, nor that of the region that it is part of."""
    broken: bool
    """It was open while a generator was suspended inside which it is: F(end) - F(start) is then not its energy."""
    generator: bool
    """It is that generator's own region: what it is part of may well be whole."""
    credits: list[float] | None
    inclusive: list[float] | None
    tau: float
    child_tau: float
    """Virtual time in the current segment, not yet turned into joules: own, and of finished children."""
    touched: bool
    error_j: float
    child_error_j: float
    saved_j: float
    """Of the error at its beginning and at the end of the last one of its name: as much as certainly cancels out."""
    alone: bool
    """Whether nothing but it and what it contains was open meanwhile, however much of that at once: all was used inside."""
    crowds: int
    strewn: bool
    """Whether not all that it has begun ended inside of it, or some of it ran only at times."""
    again: bool
    """Whether it became innermost a second time, as an epoch does between two steps."""
    on_ns: int
    on_error_j: float
    on_segment: Segment
    on_tau: float
    on_drift: tuple[int, float]
    start_segment: Segment
    start_weight: int
    start_drift: tuple[int, float]
    end_segment: Segment
    end_weight: int
    end_drift: tuple[int, float]

    @property
    def has_inner(self) -> bool:
        """Whether regions have ended inside it."""
        return self.inclusive is not None or self.child_tau != 0.0

    def self_j(self) -> list[float]:
        """Own energy by channel, then what stands behind the channels in each vector. For a finished region."""
        tau = self.tau
        rated = [rate * tau for rate in self.end_segment.rates]
        return rated if self.credits is None else [a + b for a, b in zip(self.credits, rated, strict=True)]

    def inside_j(self) -> float:
        """Joules of the regions that have finished inside of it."""
        rated_j = self.child_tau * math.fsum(self.end_segment.rates[:-EXTRAS]) if self.child_tau else 0.0
        return rated_j if self.inclusive is None else rated_j + math.fsum(self.inclusive[:-EXTRAS])

    def inclusive_j(self) -> list[float]:
        """The same with the finished descendants."""
        tau = self.tau + self.child_tau
        total = [rate * tau for rate in self.end_segment.rates]
        for part in (self.credits, self.inclusive):
            if part is not None:
                total = [a + b for a, b in zip(total, part, strict=True)]
        return total

    def interval_j(self, *, missed_ns: int = 0, surplus_ns: int = 0) -> tuple[float, float]:
        """The interval that holds the true inclusive energy; the upper end is infinite if nothing bounds it.

        Args:
            missed_ns: How much longer the region was open than the ledger knows.
            surplus_ns: How much longer the ledger took it for open than it was.
        """
        inclusive = self.inclusive_j()
        slack_low_j, slack_high_j = inclusive[LOW], inclusive[HIGH]
        energy_j = math.fsum(inclusive[:-EXTRAS])
        lost_j, early_j = self.unseen_j(missed_ns=missed_ns, surplus_ns=surplus_ns)
        if (self.concurrent or self.broken) and not self.alone:
            error_j = self.error_j + self.child_error_j
            low_j, high_j = energy_j - error_j, energy_j + error_j
        else:
            start_low_j, start_high_j = self.start_segment.error_at_j(self.start_ns, ending=False)
            end_low_j, end_high_j = self.end_segment.error_at_j(self.end_ns, ending=True)
            start_weight, end_weight = (1, 1) if self.alone else (self.start_weight, self.end_weight)
            drift_j = 0.0 if self.alone else drifted_j(self.start_drift, self.end_drift)
            low_j = energy_j + end_low_j / end_weight - start_high_j / start_weight - drift_j
            high_j = energy_j + end_high_j / end_weight - start_low_j / start_weight + drift_j
        low_j -= slack_low_j + early_j
        most_j = self._most_j(missed_ns)
        return max(0.0, min(low_j, energy_j)), max(min(high_j + slack_high_j + lost_j, most_j), energy_j)

    def self_interval_j(self, low_j: float, high_j: float, *, missed_ns: int = 0, surplus_ns: int = 0) -> tuple[float, float]:
        """The interval that holds the true own energy, given that of the inclusive one."""
        if not self.has_inner:
            return low_j, high_j
        own = self.self_j()
        energy_j = math.fsum(own[:-EXTRAS])
        lost_j, early_j = self.unseen_j(missed_ns=missed_ns, surplus_ns=surplus_ns)
        own_low_j = max(0.0, min(energy_j - self.error_j - own[LOW] - early_j, energy_j))
        return own_low_j, max(energy_j, min(high_j, energy_j + self.error_j + own[HIGH] + lost_j))

    def unseen_j(self, *, missed_ns: int = 0, surplus_ns: int = 0) -> tuple[float, float]:
        """What may have been used without being counted, and counted without having been used, while the region was open."""
        begun = self.start_segment.unseen_until(self.start_ns)
        lost_j, early_j, late_j = self.end_segment.unseen_until(self.end_ns).since(begun)
        lost_j += late_j  # it was counted, but to nobody's charge
        if missed_ns > 0:
            lost_j += self.end_segment.max_w * missed_ns * 1e-9
        if surplus_ns > 0:
            early_j += self.end_segment.max_w * surplus_ns * 1e-9
        return lost_j, early_j

    def _most_j(self, missed_ns: int) -> float:
        """What all devices can have used while the region was open."""
        open_ns = self.end_ns - self.start_ns + missed_ns
        return self.end_segment.max_w * open_ns * 1e-9 if open_ns > 0 else 0.0

    def answered(self) -> int:
        """A bit for each channel that is known to have answered while the region was open."""
        known = ~(self.start_segment.silent & self.end_segment.silent)
        bits = 0
        for number, energy_j in enumerate(self.inclusive_j()[:-EXTRAS]):
            if energy_j or known >> number & 1:
                bits |= 1 << number
        return bits

    def failed_ns(self) -> float:
        """How long the devices did not answer while the region was open, as a mean over the channels."""
        return self.end_segment.failed_ns(self.end_ns) - self.start_segment.failed_ns(self.start_ns)


def drifted_j(since: tuple[int, float], until: tuple[int, float]) -> float:
    """The difference of two (epoch, joules) marks; without bound across epochs."""
    return until[1] - since[1] if since[0] == until[0] else math.inf
