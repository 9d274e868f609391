"""The points that F goes through: those that a counter showed, and those between them at which the power stepped."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["NEVER_NS", "Knot", "bent"]

NEVER_NS = -(1 << 62)
_STEP = 0.1
"""A change of power by less than this part is not worth a bend."""


@dataclass(slots=True, eq=False)
class Knot:
    """The counter reached ``energy_j`` at ``at_ns`` (best estimate), certainly within ``(lo_ns, hi_ns]``.

    ``own_j`` is this process's part of it, up to here. What follows speaks of the interval that ends here: ``share``, this
    process's part of its energy; ``failed``, the device did not answer for some of it; ``lost``, what it used is not known
    (``lost_j`` at the most), as before the ``first``; ``late_j``, energy of a time that was settled without it; ``over_j`` and
    ``spare_j``, how much less and more than its share may be this process's, since the clocks that it is found by move in
    steps; ``stray_j``, by how much what is wrong by that adds up with each interval; ``unseen_j``, what this process may have
    used before and is owed in this share or a later one; the gains of a model's lower and upper estimate. ``real`` is false
    where F was only agreed to be flat so that spans need not wait for a device that stands still or does not answer, or has a
    ``bend`` within an interval; the fields of a bend are that interval's.
    """

    at_ns: int
    lo_ns: int
    hi_ns: int
    energy_j: float
    own_j: float = 0.0
    share: float = 1.0
    real: bool = True
    bend: bool = False
    first: bool = False
    failed: bool = False
    lost: bool = False
    lost_j: float = 0.0
    late_j: float = 0.0
    over_j: float = 0.0
    stray_j: float = 0.0
    unseen_j: float = 0.0
    spare_j: float = 0.0
    low_gain: float = 1.0
    high_gain: float = 1.0


def bent(before: Knot, start: Knot, end: Knot, after: Knot) -> Knot | None:
    """The point between ``start`` and ``end`` at which the power stepped, if it did; their shares are changed to fit.

    If the mean power of an interval lies between those of the intervals around it, there is just one instant at which a step
    from the one to the other gives its energy. (Placing a discontinuity inside a cell by its neighbours is known as subcell
    resolution: Harten 1989, J. Comput. Phys. 83, 148-184.) A straight line would charge a region that is itself the burst of
    power (P_high - P_low) T / 3 too little on average, T being the time between knots.

    It is this process's own power that is looked at, which is what regions are charged; others' is taken as steady.
    """
    elapsed_ns, own_j = end.at_ns - start.at_ns, end.own_j - start.own_j
    left = (start.own_j - before.own_j) / (start.at_ns - before.at_ns)
    mean = own_j / elapsed_ns
    right = (after.own_j - end.own_j) / (after.at_ns - end.at_ns)
    if not min(left, right) < mean < max(left, right) or abs(left - right) < _STEP * max(left, right):
        return None
    until_ns = round((mean - right) / (left - right) * elapsed_ns)
    if not 0 < until_ns < elapsed_ns:
        return None
    at_ns, step_j = start.at_ns + until_ns, min(left * until_ns, own_j)
    others_j = max(0.0, end.energy_j - start.energy_j - own_j)
    bend = replace(end, at_ns=at_ns, lo_ns=at_ns, hi_ns=at_ns, real=False, bend=True, own_j=start.own_j + step_j)
    bend.energy_j = min(start.energy_j + step_j + others_j * until_ns / elapsed_ns, end.energy_j)
    bend.share, end.share = _share(start, bend), _share(bend, end)
    part = until_ns / elapsed_ns
    bend.over_j, bend.spare_j = part * end.over_j, part * end.spare_j
    bend.stray_j, end.stray_j = end.stray_j, 0.0
    end.over_j, end.spare_j = end.over_j - bend.over_j, end.spare_j - bend.spare_j
    return bend


def _share(start: Knot, end: Knot) -> float:
    """This process's part between two points."""
    all_j = end.energy_j - start.energy_j
    return min(max((end.own_j - start.own_j) / all_j, 0.0), 1.0) if all_j > 0 else end.share
