"""One measured region, as the caller's thread makes it: two clock readings, one context variable, two appends.

Nothing here touches hardware, takes a lock or waits. What a region cost is found later, in the sampler's thread.
"""

from __future__ import annotations

import contextlib
import threading
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry.trace import get_current_span

from impactsdk.errors import ConfigurationError, RegionError
from impactsdk.model import Measurement
from impactsdk.number import number_of
from impactsdk.recorder import Recorder, Spec, checked_timeout_s

if TYPE_CHECKING:
    from opentelemetry.trace import Span


__all__ = [
    "LONGEST_NAME",
    "PAUSE",
    "RESUME",
    "Region",
    "checked_units",
    "current_region",
    "deeper",
    "innermost",
    "leave",
    "new_region",
    "open_ancestor",
    "parent_of",
]

_R = TypeVar("_R", bound="Region")
PAUSE, RESUME = "pause", "resume"
LONGEST_NAME = 256
_MOST_UNITS = 1e100
"""At once: so that no sum of them is infinite, which no journal could hold."""
_NOT_YET = -1


class Region:
    """One region that was entered: what ``with measured(...) as m`` gives.

    Small, since an inner loop makes many before the next reading: what the ledger knows of it is its :attr:`entry`, made in the
    sampler's thread.
    """

    __slots__ = (
        "around",
        "clones",
        "enter_ns",
        "entry",
        "exit_ns",
        "interrupted",
        "latest",
        "measurement",
        "own_token",
        "parent",
        "recorder",
        "settled",
        "spec",
        "synced",
        "token",
        "units",
        "waiter",
    )

    spec: Spec
    recorder: Recorder | None
    parent: Region | None
    """The region that this one is part of; fixed for good."""
    entry: Any
    """Its :class:`~impactsdk.energy.entry.Entry`: missing until the sampler's thread has seen it, ``None`` until it is settled
    when it began."""
    span: Span | None = None
    """Only a :class:`~impactsdk.spanned.SpanRegion` has one."""
    enter_ns: int
    exit_ns: int | None
    synced: bool
    units: float | None
    """Functional units added so far; ``None`` if none were."""
    around: Region | None
    """Another meter's region, if that was the innermost one when this began; else missing."""
    clones: list[Region]
    latest: Region
    """What was entered last with this block; missing unless that was done more than once."""
    token: Token[Region | None] | None
    own_token: Token[Region | None] | None
    interrupted: bool
    settled: bool
    waiter: threading.Event | None
    measurement: Measurement | None

    @property
    def name(self) -> str:
        """The operation."""
        return self.spec.name

    @property
    def unit(self) -> str | None:
        """The functional unit."""
        return self.spec.unit

    def add_units(self, units: float) -> None:
        """Add functional units done by this region: sentences, tokens, requests.

        Raises:
            RegionError: The region is closed.
            ConfigurationError: ``units`` is not a finite number >= 0, or is above 1e100.
        """
        if self.recorder is None or self.exit_ns is not None:
            self._add_elsewhere(units)
            return
        kind = units.__class__
        if not ((kind is int or kind is float) and 0 <= units <= _MOST_UNITS):
            units = checked_units(units)
        self.units = (self.units or 0.0) + units

    def result(self, timeout_s: float = 5.0) -> Measurement:
        """What the region cost. Waits for the readings that cover its end, usually less than 225 ms.

        At the beginning of a run it may be 4.5 s if a device's counter stands still: that may be one that ticks slowly.

        Raises:
            RegionError: The region is still open or was never entered, or was opened in another process.
            SettleTimeoutError: No covering reading came within ``timeout_s`` seconds (0 if negative).
            ConfigurationError: ``timeout_s`` is no number.
        """
        if self.recorder is None:
            raise RegionError(f"{self.name!r} was never entered: there is nothing to tell")
        last = getattr(self, "latest", None)
        if last is not None:  # this block was entered more than once
            measurement: Measurement = last.result(timeout_s)
            return measurement
        if self.exit_ns is None:
            raise RegionError(f"{self.name!r} is still open: its energy is known only after the block; ask then")
        return self.recorder.wait_for(self, checked_timeout_s(timeout_s))

    # --- entering and leaving: every instruction here is paid by the caller ------------------------------------------------

    def __enter__(self) -> Region:
        host = self.spec.host
        session: Any = host.session
        if session is None:
            session = host.begin()
        if self.recorder is not None:
            self = self._again()
        # Before others can see that it is entered: another thread may enter the same block at any moment.
        self.token = self.exit_ns = self.parent = None
        self.recorder = session
        parent = _get()
        if parent is not None and (parent.recorder is not session or parent.exit_ns is not None):
            parent = self._within(parent, session)
        if session.spans is not None:
            parent = _among_spans(parent, session)
        self.parent = parent
        # Bound to names first: until 3.12 a call of something that lies in a slot is looked up anew each time.
        now_ns, append = session.now_ns, session.append
        self.enter_ns = now_ns()
        try:
            append(self)
            self.token = _set(self)  # only now: what a signal handler measures must not begin before its parent
            if session.attention:
                session.attend()
        except BaseException:  # of a signal's handler: nothing of ours raises
            self._undo()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        session: Any = self.recorder
        if session is None:
            raise self._never_entered()
        token = self.token
        if token is None:
            again = self._entered_last()
            if again is None:
                self._leave_again(error)
                return
            self = again
            session, token = self.recorder, self.token
            assert token is not None
        try:
            now_ns, append = session.now_ns, session.append
            at_ns = now_ns()
            try:
                _reset(token)
            except (ValueError, RuntimeError):  # another context, or left before
                self._leave_oddly(at_ns, error)
                return
            self.token = None  # let go of it now: one object less per region for the garbage collector to look at
            self.exit_ns = at_ns
            append(self)
        except BaseException:  # of a signal's handler: nothing of ours raises
            self._undo()
            raise
        if session.attention:
            session.attend()

    def _undo(self) -> None:
        """An interrupt came in the middle of entering or leaving: it is closed, and out of the context."""
        recorder: Any = self.recorder
        at_ns = recorder.now_ns()
        if getattr(self, "enter_ns", None) is None:
            self.enter_ns = at_ns
        if self.exit_ns is None:
            self.exit_ns = max(at_ns, self.enter_ns)
        token, self.token = self.token, None
        if token is not None or _get() is self:
            with contextlib.suppress(ValueError, RuntimeError):
                _reset(token) if token is not None else _set(self.parent)
        self.leave_context(None)
        # Whether it had been appended is not known; what is closed may be closed again.
        recorder.append(self)
        recorder.append(self)
        recorder.awaited = True

    def leave_context(self, error: BaseException | None) -> None:
        """Its span leaves the context, if it has one."""

    def leave_spans(self) -> None:
        """What begins now is no part of its span, if it has one."""

    def note_error(self, error: BaseException) -> None:
        """Put on its span, if it has one, what the block ended with."""

    def _never_entered(self) -> RegionError:
        return RegionError(f"{self.name!r} was never entered: it cannot be left")

    # --- blocks entered more than once, left in another order, or in another context ---------------------------------------

    alike: type[Region]
    """What is made when one block object is entered once more."""

    def _again(self) -> Region:
        """One block object entered once more: each entering is a region of its own, and this object finds the right one."""
        try:
            clones = self.clones
        except AttributeError:
            clones = self.clones = []
            self.own_token, self.token = self.token, None
        clone = self.latest = self.alike()
        clone.spec = self.spec
        clone.recorder = clone.units = None
        clone.exit_ns = _NOT_YET  # other threads look through the clones for what is open
        clones.append(clone)
        return clone

    def _add_elsewhere(self, units: float) -> None:
        """To the region that is open here, of a block that was entered more than once; an error if there is none.

        To none, where the meter was closed and the block goes on: what it does now is not measured.
        """
        region = _get()
        clones = getattr(self, "clones", ())
        while region is not None and region not in clones:
            region = region.parent
        if region is not None and region.exit_ns is None:
            region.add_units(units)
        elif any(cut_short(one) for one in (self, *clones)):
            checked_units(units)
        else:
            raise RegionError(f"{self.name!r} is not open; add units inside the block")

    def _within(self, innermost: Region, session: Recorder) -> Region | None:
        """The region of this session that it is part of, where the innermost one of this context is not."""
        if innermost.recorder is not session:
            self.around = innermost  # another meter's, inside which there may be one of ours
        return open_ancestor(innermost, session)

    def _entered_last(self) -> Region | None:
        """The region that this object was entered as last, if that is the innermost one: mostly it is what is left."""
        clones = getattr(self, "clones", None)
        if clones:
            last: Region = clones[-1]
            if last is _get() and last.token is not None:
                del clones[-1]
                return last
        return None

    def _leave_again(self, error: BaseException | None) -> None:
        """Left before, or entered more than once: then it is mostly the innermost region that is meant."""
        region, clones = _get(), getattr(self, "clones", None)
        if clones and region in clones:
            clones.remove(region)
            region.__exit__(None, error, None)  # type: ignore[union-attr]
        elif self.recorder is not None:
            self._leave_oddly(self.recorder.now_ns(), error)

    def leave_out_of_order(self) -> None:
        """Leave it where it may not be the innermost: a ledger-only region does not look, as that costs the caller."""
        if self.recorder is not None:
            self._leave_oddly(self.recorder.now_ns(), None)

    def _leave_oddly(self, at_ns: int, error: BaseException | None) -> None:
        clones: list[Region] = getattr(self, "clones", [])
        mine = [region for region in (self, *clones) if region.exit_ns is None or cut_short(region)]
        inside: list[Region] = []
        region = _get()
        while region is not None and region not in mine:
            inside.append(region)
            region = region.parent
        if region is None:
            if not mine:
                return
            inside, region = [], mine[-1]
        if region in clones:
            clones.remove(region)
        region.exit_ns = at_ns
        region.leave_spans()
        with contextlib.suppress(ValueError, RuntimeError, TypeError):  # elsewhere there is nothing to restore
            _reset(region._own_token)  # type: ignore[arg-type]
            region.leave_context(None)
            for other in inside:
                other._out_of_place()
        region.token = region.own_token = None
        if error is not None:
            region.note_error(error)
        recorder: Any = region.recorder
        recorder.append(region)
        if region.spec.span:  # else it may be settled with others, later
            recorder.awaited = True

    def _out_of_place(self) -> None:
        """Still open, but out of the context: when it is left it must not bring back what is around it."""
        self.token = self.own_token = None

    def forget(self) -> None:
        """Once it is settled: let go of the regions around it, so that tasks that each begin the next make no endless chain."""
        if not getattr(self, "interrupted", False):  # else its block is still to be left
            self.token = None
        self.entry.parent = self.entry.owner = None
        if self.parent is not None:
            self.parent = open_ancestor(self.parent, self.recorder)  # type: ignore[arg-type]
        around = getattr(self, "around", None)
        if around is not None:  # for what begins inside it after it: as its parent
            self.around = open_ancestor(around, around.recorder)

    @property
    def _own_token(self) -> Token[Region | None] | None:
        return self.own_token if hasattr(self, "clones") else self.token


Region.alike = Region


def new_region(kind: type[_R], spec: Spec) -> _R:
    """A region to be entered."""
    region = kind()
    region.spec = spec
    region.recorder = region.units = None
    return region


innermost: ContextVar[Region | None] = ContextVar("impactsdk_region", default=None)
_get, _set, _reset = innermost.get, innermost.set, innermost.reset


def checked_units(units: float) -> float:
    """``units`` as a finite number >= 0, or an error that says so."""
    value = number_of(units)
    if not 0 <= value <= _MOST_UNITS:
        raise ConfigurationError(f"units={units!r}: expected a finite number >= 0 (at most {_MOST_UNITS:g})")
    return value


def cut_short(region: Region) -> bool:
    """Whether its meter was closed while its block goes on: it is settled, and still to be left."""
    return getattr(region, "interrupted", False) and region._own_token is not None


def current_region() -> Region | None:
    """The innermost region of this context whose block has not been left, whichever meter it belongs to."""
    region = _get()
    while region is not None and ((region.exit_ns is not None and not cut_short(region)) or region.recorder.dead):  # type: ignore[union-attr]
        region = region.parent
    return region


def open_ancestor(region: Region | None, recorder: Recorder) -> Region | None:
    """The innermost region that is still open and belongs to this session (not to another meter, nor to the parent process)."""
    while region is not None and (region.exit_ns is not None or region.recorder is not recorder):
        region = getattr(region, "around", None) or region.parent
    return region


def parent_of(recorder: Recorder) -> Region | None:
    """The region that one which begins here and now is part of."""
    parent = open_ancestor(_get(), recorder)
    return parent if recorder.spans is None else _among_spans(parent, recorder)


def _among_spans(parent: Region | None, recorder: Recorder) -> Region | None:
    """The innermost region, those of other instrumentations' spans included."""
    spans = recorder.spans
    assert spans is not None
    above = spans.get(get_current_span().get_span_context().span_id)
    return deeper(parent, above if above is not None and above.exit_ns is None else None)


def deeper(one: Region | None, other: Region | None) -> Region | None:
    """Of two open regions the one that lies inside the other; ``one`` if they are not related."""
    if one is None or other is None:
        return other if one is None else one
    above: Any = other
    while above is not None:
        if above is one:
            return other
        above = above.parent
    return one


def leave(region: Region, error: BaseException | None = None) -> None:
    """Leave a region that a decorator opened, if it has not been: an interrupt may have come before it was open."""
    if getattr(region, "enter_ns", None) is not None and (region.exit_ns is None or cut_short(region)):
        region.__exit__(None, error, None)
