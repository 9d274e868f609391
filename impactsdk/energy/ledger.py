"""Who owes which joule: fair queueing's virtual time, over regions instead of network flows.

Per channel dV = dF / W, where W counts the open *innermost* regions. A region that becomes innermost notes V; when it stops
being so it is credited with what V has gained. With W = 0 the energy is unattributed. Conservation, nesting and additivity
follow; one event costs O(1), whatever is open. (The idea is that of weighted fair queueing: Demers, Keshav and Shenker 1989;
Parekh and Gallager 1993.)

Within one :class:`~impactsdk.energy.segment.Segment` all channels are straight, so only a scalar has to be kept there, the
virtual *time* tau with dtau = dt / W; it is turned into joules per channel once, when the segment closes. That is what makes
an event cheap however many channels there are.
"""

from __future__ import annotations

import math

from impactsdk.energy.segment import Segment

__all__ = ["Entry", "Ledger", "Tally"]


class Tally:
    """What the finished regions of one name owe together."""

    __slots__ = ("count", "credits", "duration_ns", "failed", "name", "tau", "touched", "unit", "units")

    def __init__(self, name: str, unit: str | None) -> None:
        self.name, self.unit = name, unit
        self.count = self.duration_ns = 0
        self.units: float | None = None
        self.tau = 0.0
        self.credits: list[float] | None = None
        self.touched = False


class Entry:
    """One region as the ledger sees it. The caller's thread only sets ``parent`` and ``tally``."""

    __slots__ = (
        "active",
        "broken",
        "child_error_j",
        "child_tau",
        "children",
        "concurrent",
        "credits",
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
        "on_segment",
        "on_tau",
        "open",
        "parent",
        "start_drift",
        "start_ns",
        "start_segment",
        "start_weight",
        "suspended",
        "tally",
        "tau",
        "touched",
    )

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
    on_segment: Segment
    on_tau: float
    on_drift: tuple[int, float]
    start_segment: Segment
    start_weight: int
    start_drift: tuple[int, float]
    end_segment: Segment
    end_weight: int
    end_drift: tuple[int, float]

    def self_j(self) -> list[float]:
        """Own energy by channel, then the models' slack down and up. For a finished region."""
        tau = self.tau
        rated = [rate * tau for rate in self.end_segment.rates]
        return rated if self.credits is None else [a + b for a, b in zip(self.credits, rated, strict=True)]

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
        slack_low_j, slack_high_j = inclusive[-2], inclusive[-1]
        energy_j = math.fsum(inclusive[:-2])
        lost_j, early_j = self._unseen_j(missed_ns)
        if self.concurrent or self.broken:
            error_j = self.error_j + self.child_error_j
            low_j, high_j = energy_j - error_j, energy_j + error_j
        else:
            start_low_j, start_high_j = self.start_segment.error_at_j(self.start_ns, ending=False)
            end_low_j, end_high_j = self.end_segment.error_at_j(self.end_ns, ending=True)
            drift_j = _drifted_j(self.start_drift, self.end_drift)
            low_j = energy_j + end_low_j / self.end_weight - start_high_j / self.start_weight - drift_j
            high_j = energy_j + end_high_j / self.end_weight - start_low_j / self.start_weight + drift_j
        low_j -= slack_low_j + early_j
        if surplus_ns > 0:
            low_j -= self.end_segment.max_w * surplus_ns * 1e-9
        most_j = self._most_j(missed_ns)
        return max(0.0, min(low_j, energy_j)), max(min(high_j + slack_high_j + lost_j, most_j), energy_j)

    def self_interval_j(self, low_j: float, high_j: float, *, missed_ns: int = 0, surplus_ns: int = 0) -> tuple[float, float]:
        """The interval that holds the true own energy, given that of the inclusive one."""
        if self.inclusive is None and self.child_tau == 0.0:
            return low_j, high_j
        own = self.self_j()
        energy_j = math.fsum(own[:-2])
        lost_j, early_j = self._unseen_j(missed_ns)
        surplus_j = self.end_segment.max_w * surplus_ns * 1e-9 if surplus_ns > 0 else 0.0
        own_low_j = max(0.0, min(energy_j - self.error_j - own[-2] - early_j - surplus_j, energy_j))
        return own_low_j, max(energy_j, min(high_j, energy_j + self.error_j + own[-1] + lost_j))

    def _unseen_j(self, missed_ns: int) -> tuple[float, float]:
        """What may have been used without being counted, and counted without having been used, while the region was open."""
        unbounded_ns, lost_j, early_j = (
            end - start
            for end, start in zip(
                self.end_segment.lost_until(self.end_ns), self.start_segment.lost_until(self.start_ns), strict=True
            )
        )
        if missed_ns > 0:
            lost_j += self.end_segment.max_w * missed_ns * 1e-9
        return math.inf if unbounded_ns > 0 else max(0.0, lost_j), max(0.0, early_j)

    def _most_j(self, missed_ns: int) -> float:
        """What all devices can have used while the region was open."""
        open_ns = self.end_ns - self.start_ns + missed_ns
        return self.end_segment.max_w * open_ns * 1e-9 if open_ns > 0 else 0.0

    def failed_ns(self) -> float:
        """How long the devices did not answer while the region was open, as a mean over the channels."""
        return self.end_segment.failed_ns(self.end_ns) - self.start_segment.failed_ns(self.start_ns)


class Ledger:
    """The account of one process. Feed it segments in order and, within each, events in order of time."""

    def __init__(self, channels: int, start_ns: int) -> None:
        width = channels + 2
        self.now_ns = start_ns
        self.weight = 0
        self.open_entries: dict[Entry, None] = {}
        self.channels_j = [0.0] * channels
        self.attributed_j = [0.0] * channels
        self.unattributed_j = [0.0] * channels
        self._v = [0.0] * width
        self._drift = (0, 0.0)
        self._tau = 0.0
        self._busy_ns = 0
        self._segment = Segment(start_ns, start_ns, ())
        self._touched: list[Entry | Tally] = []

    # --- time -----------------------------------------------------------------------------------------------------

    def begin(self, segment: Segment) -> None:
        """Enter the next segment; the one before must have been closed."""
        segment.v = self._v.copy()
        self._segment = segment
        self._tau = 0.0
        self._busy_ns = 0
        self.now_ns = segment.start_ns

    def close(self) -> None:
        """Turn the segment's virtual time into joules."""
        segment = self._segment
        self._advance(segment.end_ns)
        rates, tau, width_ns = segment.rates, self._tau, segment.end_ns - segment.start_ns
        for item in self._touched:
            item.touched = False
            if isinstance(item, Entry):
                if not item.open:
                    continue  # settled when it ended
                if item.child_tau:
                    item.inclusive = _added(item.inclusive, rates, item.child_tau)
                    item.child_tau = 0.0
            item.credits = _added(item.credits, rates, item.tau)
            item.tau = 0.0
        self._touched.clear()
        idle_ns = width_ns - self._busy_ns
        for index, rate in enumerate(rates):
            self._v[index] += rate * tau
        for index, rate in enumerate(segment.total_rates):
            self.channels_j[index] += rate * width_ns
            self.attributed_j[index] += rates[index] * self._busy_ns
            self.unattributed_j[index] += rates[index] * idle_ns + segment.late_rates[index] * width_ns

    def _advance(self, at_ns: int) -> None:
        elapsed_ns = at_ns - self.now_ns
        if elapsed_ns > 0:
            if self.weight:
                self._tau += elapsed_ns / self.weight
                self._busy_ns += elapsed_ns
            self.now_ns = at_ns

    # --- events; each is stamped, and one that comes late is taken as happening now ------------------------------------

    def start(self, entry: Entry, occludes: Entry | None, at_ns: int) -> None:
        """``entry`` opens and hides ``occludes``, the region that was innermost in that context."""
        self._advance(at_ns)
        weight = self.weight
        entry.start_ns = self.now_ns
        entry.open = True
        entry.children = entry.kin = 0
        entry.tau = entry.child_tau = entry.child_error_j = entry.error_j = 0.0
        entry.credits = entry.inclusive = None
        entry.touched = entry.concurrent = entry.broken = entry.generator = entry.suspended = entry.active = False
        if entry.parent is not None and entry.parent.open:
            entry.parent.kin += 1
        self._occlude(entry, occludes)
        self._activate(entry)
        self._weigh(weight)
        entry.start_segment = self._segment
        entry.start_weight = self.weight
        entry.start_drift = entry.on_drift = self._drift
        self.open_entries[entry] = None

    def end(self, entry: Entry, at_ns: int) -> None:
        """``entry`` closes; from now on it can be asked for its energy."""
        self._advance(at_ns)
        entry.end_ns = max(self.now_ns, entry.start_ns)
        entry.end_segment = self._segment
        entry.end_weight = max(1, self.weight)
        weight = self.weight
        if entry.active:
            self._deactivate(entry)
        else:
            entry.concurrent = True  # a child outlives it, or it is a generator that was given up
        if entry.kin:
            entry.concurrent = True
        entry.open = False
        del self.open_entries[entry]
        if entry.suspended and entry.occludes is not None:
            entry.occludes.suspended = True  # it was closed from outside the generator, which still does not run
        self._reveal(entry)
        self._weigh(weight)
        entry.end_drift = self._drift
        parent = entry.parent
        if parent is not None and parent.open:
            parent.kin -= 1
            parent.concurrent = parent.concurrent or entry.concurrent
            parent.broken = parent.broken or (entry.broken and not entry.generator)
            parent.child_error_j += entry.error_j + entry.child_error_j
            if entry.credits is None and entry.inclusive is None:
                parent.child_tau += entry.tau + entry.child_tau
                self._touch(parent)
            else:
                parent.inclusive = _added(parent.inclusive, entry.inclusive_j(), 1.0)
        tally = entry.tally
        tally.count += 1
        tally.duration_ns += entry.end_ns - entry.start_ns
        if entry.credits is None:
            tally.tau += entry.tau
            self._touch(tally)
        else:
            tally.credits = _added(tally.credits, entry.self_j(), 1.0)

    def pause(self, entry: Entry, leaf: Entry, at_ns: int) -> None:
        """A generator's region stops running at a yield; ``leaf`` is the innermost region inside it at that moment."""
        self._advance(at_ns)
        weight = self.weight
        if leaf.active:
            self._deactivate(leaf)
            self._touch(leaf)
        leaf.suspended = True
        entry.generator = entry.broken = leaf.broken = True
        self._reveal(entry)
        self._weigh(weight)

    def resume(self, entry: Entry, leaf: Entry, occludes: Entry | None, at_ns: int) -> None:
        """A generator's region runs again, asked by the context whose innermost region is ``occludes``."""
        self._advance(at_ns)
        weight = self.weight
        leaf.suspended = False
        self._occlude(entry, occludes)
        if leaf.open and not leaf.children and not leaf.active:
            self._activate(leaf)
        self._weigh(weight)

    # --- who is innermost ---------------------------------------------------------------------------------------------

    def _occlude(self, entry: Entry, occluded: Entry | None) -> None:
        if occluded is not None and not occluded.open:
            occluded = None
        entry.occludes = occluded
        if entry.parent is not None and entry.parent is not occluded:
            entry.parent.concurrent = True
        if occluded is None:
            return
        if entry.parent is not occluded:
            occluded.concurrent = True  # what runs in its stead is no part of it
        occluded.children += 1
        if occluded.active:
            self._deactivate(occluded)
            self._touch(occluded)
        else:
            occluded.concurrent = True

    def _reveal(self, entry: Entry) -> None:
        revealed, entry.occludes = entry.occludes, None
        if revealed is None:
            return
        revealed.children -= 1
        if revealed.open and not revealed.children and not revealed.suspended:
            self._activate(revealed)

    def _activate(self, entry: Entry) -> None:
        self.weight += 1
        entry.active = True
        entry.on_segment = self._segment
        entry.on_tau = self._tau
        entry.on_drift = self._drift
        entry.error_j += self._segment.error_j / self.weight

    def _deactivate(self, entry: Entry) -> None:
        entry.error_j += self._segment.error_j / self.weight + _drifted_j(entry.on_drift, self._drift)
        self.weight -= 1
        entry.active = False
        begun = entry.on_segment
        if begun is self._segment:
            entry.tau += self._tau - entry.on_tau
        else:
            # Lazily what closing each segment between would have credited: V now less V when it became innermost.
            gained = [now - (v + rate * entry.on_tau) for now, v, rate in zip(self._v, begun.v, begun.rates, strict=True)]
            entry.credits = _added(entry.credits, gained, 1.0)
            entry.tau += self._tau

    def _weigh(self, before: int) -> None:
        """Note what a change of W may have moved between regions that stay innermost across it."""
        if before != self.weight and before and self.weight:
            epoch, drift_j = self._drift
            moved_j = abs(1 / before - 1 / self.weight) * self._segment.error_j
            self._drift = (epoch, drift_j + moved_j) if math.isfinite(moved_j) else (epoch + 1, 0.0)

    def _touch(self, item: Entry | Tally) -> None:
        if not item.touched:
            item.touched = True
            self._touched.append(item)


def _drifted_j(since: tuple[int, float], until: tuple[int, float]) -> float:
    return until[1] - since[1] if since[0] == until[0] else math.inf


def _added(total: list[float] | None, rates: list[float], factor: float) -> list[float]:
    if total is None:
        return [rate * factor for rate in rates]
    return [before + rate * factor for before, rate in zip(total, rates, strict=True)]
