"""Events into the ledger: what callers appended, put in order and applied segment by segment. In the sampler's thread."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from impactsdk.accounts import Accounts
from impactsdk.energy.entry import Entry
from impactsdk.energy.ledger import Ledger
from impactsdk.energy.segment import Timeline
from impactsdk.region import PAUSE, Region

__all__ = ["Books"]

_log = logging.getLogger(__name__)
_MANY = 20_000
"""Events that may wait for a counter that has not moved yet and may be a slow one: they weigh some ten megabytes."""
_LONG_NS = 4_400_000_000
"""How long after its end a region may wait for the second tick of a counter: a little less than ``result()`` does."""
_Step = tuple[int, str, Region, Region, "Region | None"]
"""A generator that pauses or goes on; see :class:`~impactsdk.recorder.Recorder`."""


class Books:
    """The ledger, the time that it has settled, and the events that still wait for a reading."""

    def __init__(self, events: deque[Any], accounts: Accounts, complain: Callable[[str, str], None]) -> None:
        self.ledger: Ledger | None = None
        # What waits for a reading, in order: when it happened, and what. Two lists and no pairs: callers' threads pay for
        # each object that the garbage collector has to look at.
        self._stamps: list[int] = []
        self._pending: list[Region | _Step] = []
        self._events, self._accounts, self._complain = events, accounts, complain
        self._timeline: Timeline | None = None

    @property
    def pending(self) -> int:
        """How many events wait for a reading."""
        return len(self._pending)

    @property
    def waiting(self) -> bool:
        """Whether events wait for a reading, or to be looked at."""
        return bool(self._events or self._pending)

    @property
    def busy(self) -> bool:
        """Whether regions are open or events wait."""
        return bool(self.waiting or (self.ledger is not None and self.ledger.open_entries))

    def settled(self, until_ns: int) -> bool:
        """Whether everything up to then is accounted for."""
        if self._events or (self._stamps and self._stamps[0] <= until_ns):
            return False
        return self._timeline is not None and self._timeline.until_ns >= until_ns

    def begin(self, now_ns: int) -> Ledger:
        """The ledger, opened at the first reading that all devices have given."""
        if self.ledger is None:
            curves = self._accounts.curves
            start_ns = max([curve.knots[0].at_ns for curve in curves if curve.knots], default=now_ns)
            self._timeline = Timeline(curves, start_ns)
            self.ledger = Ledger(len(curves), start_ns)
        return self.ledger

    def advance(self, now_ns: int, *, final: bool = False) -> list[Region]:
        """Bring the ledger up to the latest instant that all curves agree on; return the regions that ended by then."""
        ended: list[Region] = []
        ledger, stamps, pending = self.begin(now_ns), self._stamps, self._pending
        assert self._timeline is not None
        if self._events:
            self._drain()
        if stamps:
            self._mind_patience(now_ns)
        done = 0
        late = bool(stamps) and stamps[0] <= self._timeline.until_ns
        segments = list(self._timeline.advance(now_ns, final=final, late=late))
        for segment in segments:
            ledger.begin(segment)
            # At the very end what comes after the last reading is taken as happening with it.
            everything = final and segment is segments[-1]
            while done < len(stamps) and (everything or stamps[done] <= segment.end_ns):
                done += 1
                try:
                    self._apply(ledger, pending[done - 1], min(stamps[done - 1], segment.end_ns), ended)
                except Exception:  # noqa: BLE001 - one event must not stand in the way of all others
                    _log.exception("impactsdk made a mistake; one region is lost, measuring goes on")
            ledger.close()
        del stamps[:done], pending[:done]
        return ended

    def _mind_patience(self, now_ns: int) -> None:
        """Of a counter that may be a slow one not everything is waited for, if too many wait or one for too long."""
        many, curves = len(self._stamps) > _MANY, self._accounts.curves
        if not many and (now_ns - self._stamps[0] < _LONG_NS or not any(curve.expectant for curve in curves)):
            return
        ended_ns = (event.exit_ns for event in self._pending if isinstance(event, Region) and event.exit_ns is not None)
        if many or now_ns - min(ended_ns, default=now_ns) > _LONG_NS:
            for curve in curves:
                curve.expectant = False
                curve.patient = curve.patient and not many

    def interrupt(self, at_ns: int) -> None:
        """The process ends: regions that are open end with it, the innermost first."""
        self._drain()
        begun: list[Region] = [] if self.ledger is None else [entry.owner for entry in self.ledger.open_entries]
        # Of those that have begun after the last reading no more is known than that.
        begun += [event for event in self._pending if isinstance(event, Region) and event.entry is None]
        for region in reversed(begun):
            if region.exit_ns is None:
                region.interrupted = True  # first: whoever sees that it has ended has to see why
                region.exit_ns = max(at_ns, region.enter_ns)
            self._events.append(region)

    def _drain(self) -> None:
        """Take over what has been appended, and put it in order: threads stamp first and append then."""
        events, stamps, pending = self._events, self._stamps, self._pending
        last_ns, ordered = stamps[-1] if stamps else 0, True
        for _ in range(len(events)):
            event = events.popleft()
            if event.__class__ is tuple:
                at_ns = event[0]
            elif hasattr(event, "entry"):
                at_ns = event.exit_ns
            else:
                event.entry = None  # seen
                at_ns = event.enter_ns
            ordered = ordered and last_ns <= at_ns
            last_ns = at_ns
            stamps.append(at_ns)
            pending.append(event)
        if not ordered:
            order = sorted(range(len(stamps)), key=stamps.__getitem__)
            stamps[:] = [stamps[index] for index in order]
            pending[:] = [pending[index] for index in order]

    def _apply(self, ledger: Ledger, event: Region | _Step, at_ns: int, ended: list[Region]) -> None:
        if isinstance(event, tuple):
            _, kind, region, leaf, consumer = event
            entry = region.entry
            if entry is None or not entry.open:
                return  # it was closed when the process ended
            if kind == PAUSE:
                ledger.pause(entry, leaf.entry, at_ns)
            else:
                ledger.resume(entry, leaf.entry, None if consumer is None else consumer.entry, at_ns)
            return
        entry = event.entry
        if entry is None:
            event.entry = entry = Entry()
            entry.owner, entry.open = event, False
            entry.tally = self._accounts.tally(event.spec.name, event.spec.unit, self._complain)
            entry.parent = None if event.parent is None else event.parent.entry
            ledger.start(entry, entry.parent, at_ns)
        elif entry.open:  # else it was closed when the process ended
            ledger.end(entry, at_ns)
            ended.append(event)
