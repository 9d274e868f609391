"""One measured region, as the caller's thread makes it: two clock readings, one context variable, two appends.

Nothing here touches hardware, takes a lock or waits. What a region cost is found later, in the sampler's thread.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry import context as otel_context
from opentelemetry.trace import Span, Status, StatusCode, get_current_span, set_span_in_context

from impactsdk.energy.entry import Entry
from impactsdk.errors import ConfigurationError, RegionError
from impactsdk.model import Measurement
from impactsdk.semconv import ERROR_TYPE

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

__all__ = [
    "LONGEST_NAME",
    "PAUSE",
    "RESUME",
    "Host",
    "Recorder",
    "Region",
    "Spec",
    "checked_units",
    "current_region",
    "deeper",
    "innermost",
    "leave",
    "open_ancestor",
]

PAUSE, RESUME = "pause", "resume"
LONGEST_NAME = 256
_MOST_UNITS = 1e300


class Recorder:
    """What a region needs of the session it belongs to. Slots, because every region looks these up.

    ``append`` takes a region when it is entered and again when it is left, and ``(at_ns, kind, region, leaf, consumer)`` when
    a generator pauses or goes on. ``attention`` asks the next region to call :meth:`attend`. ``off``: nothing is measured.
    ``dead``: it stayed behind in the parent of a fork.
    """

    __slots__ = ("append", "attention", "dead", "now_ns", "off", "spans", "tracer", "unix_ns")

    append: Callable[[Any], None]
    attention: bool
    dead: bool
    now_ns: Callable[[], int]
    off: bool
    spans: dict[int, Any] | None
    """While other instrumentations' spans are measured, too: their regions and ours by span id."""
    tracer: Tracer | None
    unix_ns: Callable[[], int]

    def attend(self) -> None:
        """The sampler sleeps long and has to be woken, or more events wait than should."""

    def wait_for(self, region: Region, timeout_s: float) -> Measurement:
        """The measurement of a closed region."""
        raise NotImplementedError

    def complain(self, key: str, message: str) -> None:
        """Say once that something of ours failed."""


class Host(Protocol):
    """Whoever has the session: a meter."""

    @property
    def session(self) -> Recorder | None:
        """What runs now."""

    def begin(self) -> Recorder:
        """The session, started if need be."""


class Spec:
    """What ``measured(...)`` was told; shared by all regions of that kind."""

    __slots__ = ("attributes", "count", "host", "name", "span", "sync", "unit")

    def __init__(
        self,
        host: Host,
        name: str,
        unit: str | None,
        count: Callable[[Any], float] | None,
        attributes: Mapping[str, Any] | None,
        span: bool,
        sync: bool = False,
    ) -> None:
        self.host, self.name, self.unit, self.count = host, name, unit, count
        self.attributes, self.span, self.sync = attributes, span, sync

    def __reduce__(self) -> tuple[Any, ...]:
        return Spec, (self.host, self.name, self.unit, self.count, self.attributes, self.span, self.sync)


class Region(Entry):
    """One region that was entered: what ``with measured(...) as m`` gives."""

    __slots__ = (
        "clones",
        "enter_ns",
        "exit_ns",
        "interrupted",
        "measurement",
        "otel_token",
        "own_token",
        "recorder",
        "seen",
        "settled",
        "span",
        "spec",
        "start_unix_ns",
        "synced",
        "token",
        "units",
        "waiter",
    )

    spec: Spec
    recorder: Recorder | None
    span: Span | None
    enter_ns: int
    exit_ns: int | None
    start_unix_ns: int
    synced: bool
    units: float
    clones: list[Region]
    token: Token[Region | None] | None
    own_token: Token[Region | None] | None
    otel_token: Token[Context] | None
    interrupted: bool
    seen: bool
    settled: bool
    waiter: threading.Event | None
    measurement: Measurement | None

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.recorder = None

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
            ConfigurationError: ``units`` is not a finite number >= 0.
        """
        if self.recorder is None or self.exit_ns is not None:
            raise RegionError(f"{self.name!r} is not open; add units inside the block")
        kind = units.__class__
        if not ((kind is int or kind is float) and 0 <= units <= _MOST_UNITS):
            units = checked_units(units)
        self.units = getattr(self, "units", 0.0) + units

    def result(self, timeout_s: float = 5.0) -> Measurement:
        """What the region cost. Waits for the reading that covers its end, usually less than 125 ms.

        Raises:
            RegionError: The region is still open or was never entered, or was opened in another process.
            SettleTimeoutError: No covering reading came within ``timeout_s`` seconds.
        """
        if self.recorder is None:
            raise RegionError(f"{self.name!r} was never entered: there is nothing to tell")
        if self.exit_ns is None:
            raise RegionError(f"{self.name!r} is still open: its energy is known only after the block; ask then")
        return self.recorder.wait_for(self, timeout_s)

    # --- entering and leaving: every instruction here is paid by the caller ------------------------------------------------

    def __enter__(self) -> Region:
        if self.recorder is not None:
            return self._again()
        spec = self.spec
        host = spec.host
        session: Any = host.session
        if session is None:
            session = host.begin()
            if self.recorder is not None:  # another thread entered the same block meanwhile
                return self._again()
        self.recorder = session
        parent = _get()
        if parent is not None and (parent.recorder is not session or parent.exit_ns is not None):
            parent = open_ancestor(parent, session)
        if session.spans is not None:
            parent = _among_spans(parent, session)
        self.parent = parent
        self.exit_ns = None
        if spec.span:
            self._start_span(session)
        # Bound to names first: until 3.12 a call of something that lies in a slot is looked up anew each time.
        now_ns, append = session.now_ns, session.append
        self.enter_ns = now_ns()
        append(self)
        self.token = _set(self)  # only now: what a signal handler measures must not begin before its parent
        if session.attention:
            session.attend()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        session: Any = self.recorder
        if session is None:
            raise RegionError(f"{self.name!r} was never entered: it cannot be left")
        now_ns = session.now_ns
        at_ns = now_ns()
        if self.spec.span:
            self._leave_span(at_ns, error)
            return
        try:
            _reset(self.token)  # type: ignore[arg-type]
        except (ValueError, RuntimeError, TypeError):  # another context, left before, or entered more than once
            self._leave_oddly(at_ns, error)
            return
        self.exit_ns = at_ns
        append = session.append
        append(self)

    def _leave_span(self, at_ns: int, error: BaseException | None) -> None:
        try:
            if _get() is not self:  # left before a span inside it, or one of those below
                raise ValueError
            _reset(self.token)  # type: ignore[arg-type]
        except (ValueError, RuntimeError, TypeError):  # another context, left before, or entered more than once
            self._leave_oddly(at_ns, error)
            return
        self.exit_ns = at_ns
        assert self.recorder is not None
        self.recorder.append(self)
        if self.span is not None:
            self.leave_context(error)

    def _start_span(self, session: Recorder) -> None:
        self.start_unix_ns = unix_ns = session.unix_ns()
        self.span = None
        if session.tracer is None:
            return
        try:
            spec = self.spec
            span = session.tracer.start_span(spec.name, attributes=spec.attributes, start_time=unix_ns)
            self.otel_token = otel_context.attach(set_span_in_context(span))
            self.span = span
            if session.spans is not None:
                session.spans[span.get_span_context().span_id] = self
        except Exception as error:  # noqa: BLE001 - a failing tracer must not reach the measured code
            session.complain("tracer", f"the tracer could not start a span ({error!r}); energy is still counted in the totals")

    def leave_context(self, error: BaseException | None) -> None:
        """The span leaves the context now; it is ended once its energy is known."""
        token, self.otel_token = self.otel_token, None
        if self.recorder.spans is not None:  # type: ignore[union-attr]
            self.recorder.spans.pop(self.span.get_span_context().span_id, None)  # type: ignore[union-attr]
        if token is not None:
            # Only after ours has shown that the context is the right one: OpenTelemetry logs an error where it is not.
            otel_context.detach(token)
        if error is not None:
            _note_error(self, error)

    # --- blocks entered more than once, left in another order, or in another context ---------------------------------------

    def _again(self) -> Region:
        """One block object entered once more: each entering is a region of its own, and this object finds the right one."""
        if not hasattr(self, "clones"):
            self.clones = []
            self.own_token, self.token = self.token, None
        clone = self._clone()
        self.clones.append(clone)
        return clone.__enter__()

    def _clone(self) -> Region:
        return Region(self.spec)

    def _leave_oddly(self, at_ns: int, error: BaseException | None) -> None:
        clones: list[Region] = getattr(self, "clones", [])
        mine = [region for region in (self, *clones) if region.exit_ns is None]
        inside: list[Region] = []
        region = _get()
        while region is not None and region not in mine:
            inside.append(region)
            region = region.parent  # type: ignore[assignment]
        if region is None:
            if not mine:
                return
            inside, region = [], mine[-1]
        if region in clones:
            clones.remove(region)
        region.exit_ns = at_ns
        with contextlib.suppress(ValueError, RuntimeError, TypeError):  # elsewhere there is nothing to restore
            _reset(region._own_token)  # type: ignore[arg-type]
            if region.has_span:
                region.leave_context(None)
            for other in inside:  # still open, but out of the context: when they are left they must not bring this one back
                other.otel_token = other.token = other.own_token = None
        recorder: Any = region.recorder
        recorder.append(region)
        if error is not None and region.has_span:
            _note_error(region, error)

    def forget(self) -> None:
        """Once it is settled: let go of the regions around it, so that tasks that each begin the next make no endless chain."""
        if not getattr(self, "interrupted", False):  # else its block is still to be left
            self.token = None
        if self.parent is not None:
            self.parent = open_ancestor(self.parent, self.recorder)  # type: ignore[arg-type]

    @property
    def _own_token(self) -> Token[Region | None] | None:
        return self.own_token if hasattr(self, "clones") else self.token

    @property
    def has_span(self) -> bool:
        """Whether a span was started for it."""
        return self.spec.span and self.span is not None


innermost: ContextVar[Region | None] = ContextVar("impactsdk_region", default=None)
_get, _set, _reset = innermost.get, innermost.set, innermost.reset


def checked_units(units: float) -> float:
    """``units`` as a finite number >= 0, or an error that says so."""
    try:
        value = float(units)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if isinstance(units, (bool, str)) or not math.isfinite(value) or value < 0:
        raise ConfigurationError(f"units={units!r}: expected a finite number >= 0")
    return value


def current_region() -> Region | None:
    """The innermost open region of this context, whichever meter it belongs to."""
    region = _get()
    while region is not None and (region.exit_ns is not None or region.recorder.dead):  # type: ignore[union-attr]
        region = region.parent  # type: ignore[assignment]
    return region


def open_ancestor(region: Region | None, recorder: Recorder) -> Region | None:
    """The innermost region that is still open and belongs to this session (not to another meter, nor to the parent process)."""
    while region is not None and (region.exit_ns is not None or region.recorder is not recorder):
        region = region.parent  # type: ignore[assignment]
    return region


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
    """Close a region that a decorator opened."""
    if region.exit_ns is None:
        region.__exit__(None, error, None)


def _note_error(region: Region, error: BaseException) -> None:
    span, recorder = region.span, region.recorder
    assert span is not None
    assert recorder is not None
    try:
        span.set_attribute(ERROR_TYPE, type(error).__qualname__)
        if isinstance(error, Exception) and span.is_recording():
            span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
            span.record_exception(error)
    except Exception as ours:  # noqa: BLE001 - recording the user's error must not replace it
        recorder.complain("tracer", f"an exception could not be recorded on its span ({ours!r})")
