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

from impactsdk.energy.entry import Entry, Tally, drifted_j
from impactsdk.energy.segment import NOTHING_UNSEEN, Segment
from impactsdk.energy.vector import EXTRAS

__all__ = ["Ledger"]


class Ledger:
    """The account of one process. Feed it segments in order and, within each, events in order of time."""

    def __init__(self, channels: int, start_ns: int) -> None:
        width = channels + EXTRAS
        self.now_ns = start_ns
        self.weight = 0
        self.open_entries: dict[Entry, None] = {}
        self.channels_j = [0.0] * channels
        self.attributed_j = [0.0] * channels
        self.unattributed_j = [0.0] * channels
        self.attributed_extras = [0.0] * EXTRAS
        self.unattributed_extras = [0.0] * EXTRAS
        self._v = [0.0] * width
        self._drift = (0, 0.0)
        self._tau = 0.0
        self._busy_ns = 0
        self._segment = Segment(start_ns, start_ns, ())
        self._touched: list[Entry | Tally] = []
        self._number = 0  # of the segment
        self._crowds = 0  # how often something began that is in nothing else, while something else was open

    @property
    def error_j(self) -> tuple[float, float]:
        """How far below and above what is in the account the truth may lie now; infinite if nothing bounds it."""
        low_j, high_j = self._segment.error_at_j(self.now_ns, ending=True)
        return -low_j, high_j

    @property
    def open_error_j(self) -> float:
        """How far what the open regions owe may lie from what they are credited with so far, at the most."""
        error_j, now_j, unseen = 0.0, max(self.error_j), self._segment.unseen_until(self.now_ns)
        for entry in self.open_entries:
            error_j += entry.error_j + sum(unseen.since(entry.start_segment.unseen_until(entry.start_ns)))
            if entry.active:
                error_j += now_j / self.weight + drifted_j(entry.on_drift, self._drift)
        return error_j

    @property
    def unseen_j(self) -> tuple[float, float]:
        """What may have been used without being counted, and counted without having been used, since the beginning."""
        return self._segment.unseen_until(self.now_ns).since(NOTHING_UNSEEN)[:2]

    # --- time -----------------------------------------------------------------------------------------------------

    def begin(self, segment: Segment) -> None:
        """Enter the next segment; the one before must have been closed."""
        segment.v = self._v.copy()
        self._segment = segment
        self._number += 1
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
        for index, rate in enumerate(rates[-EXTRAS:]):
            self.attributed_extras[index] += rate * self._busy_ns
            self.unattributed_extras[index] += rate * idle_ns

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
        entry.tau = entry.child_tau = entry.child_error_j = entry.error_j = entry.saved_j = 0.0
        entry.credits = entry.inclusive = None
        entry.again = entry.touched = entry.concurrent = entry.broken = entry.generator = entry.suspended = entry.active = False
        entry.strewn = False
        if entry.parent is not None and entry.parent.open:
            entry.parent.kin += 1
            entry.alone = False
        else:
            self._crowds += bool(self.open_entries)
            entry.alone = not self.open_entries
        entry.crowds = self._crowds
        self._occlude(entry, occludes)
        self._activate(entry)
        entry.again = False
        self._weigh(weight)
        if self.weight == 1 and entry.tally.end_ns is not None:
            self._follow(entry)
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
        weight, alone = self.weight, entry.active and self.weight == 1
        if entry.active:
            entry.again = False
            self._deactivate(entry)
        else:
            entry.concurrent = True  # a child outlives it, or it is a generator that was given up
        if entry.kin:
            entry.concurrent = True
        entry.strewn = bool(entry.strewn or entry.kin or entry.generator or entry.broken)
        entry.alone = entry.alone and entry.crowds == self._crowds and not entry.strewn
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
            parent.strewn = parent.strewn or entry.strewn
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
        tally.error_j += entry.error_j - entry.saved_j
        # One that was not innermost has no error at its end, which the next one's could cancel.
        tally.end_ns, tally.end_segment = (self.now_ns if alone else None), self._number
        if entry.credits is None:
            tally.tau += entry.tau
            self._touch(tally)
        else:
            tally.credits = _added(tally.credits, entry.self_j(), 1.0)

    def _follow(self, entry: Entry) -> None:
        """One of a name begins when the last one has just ended: what F was off then, it is off now, but for the gap.

        In the gap no more can have been used, or credited, than the devices can draw.
        """
        tally, segment = entry.tally, self._segment
        assert tally.end_ns is not None
        if tally.end_segment == self._number:
            saved_j = 2 * segment.error_j - segment.most_rate * (self.now_ns - tally.end_ns)
            if 0.0 < saved_j < math.inf:
                entry.saved_j = saved_j
        tally.end_ns = None

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
        entry.on_ns = self.now_ns
        entry.again = True
        entry.on_error_j = self._segment.error_j / self.weight
        entry.error_j += entry.on_error_j

    def _deactivate(self, entry: Entry) -> None:
        error_j = self._segment.error_j / self.weight
        if entry.again and entry.on_segment is self._segment:
            saved_j = entry.on_error_j + error_j - self._segment.most_rate * (self.now_ns - entry.on_ns)
            if 0.0 < saved_j < math.inf:
                error_j -= saved_j
        if entry.on_drift is not self._drift:
            error_j += drifted_j(entry.on_drift, self._drift)
        entry.error_j += error_j
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


def _added(total: list[float] | None, rates: list[float], factor: float) -> list[float]:
    if total is None:
        return [rate * factor for rate in rates]
    return [before + rate * factor for before, rate in zip(total, rates, strict=True)]
