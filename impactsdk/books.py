"""Events into the ledger: what callers appended, put in order and applied segment by segment. In the sampler's thread."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from impactsdk.accounts import Accounts
from impactsdk.energy.ledger import Ledger
from impactsdk.energy.segment import Timeline
from impactsdk.region import PAUSE, Region

__all__ = ["Books"]

_log = logging.getLogger(__name__)
_START, _END = "start", "end"
_Event = tuple[int, str, Region, "Region | None", "Region | None"]
_stamp = itemgetter(0)


class Books:
    """The ledger, the time that it has settled, and the events that still wait for a reading."""

    def __init__(self, events: deque[Any], accounts: Accounts, complain: Callable[[str, str], None]) -> None:
        self.ledger: Ledger | None = None
        self.pending: list[_Event] = []
        self._events, self._accounts, self._complain = events, accounts, complain
        self._timeline: Timeline | None = None

    @property
    def busy(self) -> bool:
        """Whether regions are open or events wait."""
        return bool(self._events or self.pending or (self.ledger is not None and self.ledger.open_entries))

    def settled(self, until_ns: int) -> bool:
        """Whether everything up to then is accounted for."""
        if self._events or (self.pending and self.pending[0][0] <= until_ns):
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
        ledger, pending = self.begin(now_ns), self.pending
        assert self._timeline is not None
        if self._events:
            self._drain()
        done = 0
        segments = list(self._timeline.advance(now_ns, final=final))
        for segment in segments:
            ledger.begin(segment)
            # At the very end what comes after the last reading is taken as happening with it.
            everything = final and segment is segments[-1]
            while done < len(pending) and (everything or pending[done][0] <= segment.end_ns):
                done += 1
                try:
                    self._apply(ledger, pending[done - 1], segment.end_ns, ended)
                except Exception:  # noqa: BLE001 - one event must not stand in the way of all others
                    _log.exception("impactsdk made a mistake; one region is lost, measuring goes on")
            ledger.close()
        del pending[:done]
        return ended

    def interrupt(self, at_ns: int) -> None:
        """The process ends: regions that are open end with it, the innermost first."""
        for entry in [] if self.ledger is None else reversed(list(self.ledger.open_entries)):
            region: Region = entry  # type: ignore[assignment]
            if region.exit_ns is None:
                region.exit_ns = at_ns
                region.interrupted = True
            self._events.append(region)

    def _drain(self) -> None:
        """Take over what has been appended, and put it in order: threads stamp first and append then."""
        events, pending = self._events, self.pending
        fresh: list[_Event] = []
        for _ in range(len(events)):
            event = events.popleft()
            if event.__class__ is tuple:
                fresh.append(event)
            elif getattr(event, "seen", False):
                fresh.append((event.exit_ns, _END, event, None, None))
            else:
                event.seen = True
                fresh.append((event.enter_ns, _START, event, None, None))
        fresh.sort(key=_stamp)
        late = bool(pending and fresh and fresh[0][0] < pending[-1][0])
        pending += fresh
        if late:
            pending.sort(key=_stamp)

    def _apply(self, ledger: Ledger, event: _Event, until_ns: int, ended: list[Region]) -> None:
        at_ns, kind, region, leaf, consumer = event
        at_ns = min(at_ns, until_ns)
        if kind == _START:
            region.tally = self._accounts.tally(region.spec.name, region.spec.unit, self._complain)
            ledger.start(region, region.parent, at_ns)
        elif not getattr(region, "open", False):
            return  # it was closed when the process ended
        elif kind == _END:
            ledger.end(region, at_ns)
            ended.append(region)
        elif kind == PAUSE:
            assert leaf is not None
            ledger.pause(region, leaf, at_ns)
        else:
            assert leaf is not None
            ledger.resume(region, leaf, consumer, at_ns)
