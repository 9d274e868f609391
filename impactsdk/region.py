"""One measured region, as the caller's thread makes it: two clock readings, one context variable, two events.

Nothing here touches hardware, takes a lock or waits. What a region cost is found later, in the sampler's thread.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry import context as otel_context
from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context

from impactsdk.energy.ledger import Entry, Tally
from impactsdk.errors import RegionError
from impactsdk.model import Measurement
from impactsdk.semconv import ERROR_TYPE

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

__all__ = ["END", "PAUSE", "RESUME", "START", "Host", "Recorder", "Region", "current_region", "enter", "leave", "pause", "resume"]

START, END, PAUSE, RESUME = range(4)
_LIMIT = 20_000
"""Events that may wait before a caller makes way for the sampler's thread."""

_current: ContextVar[Region | None] = ContextVar("impactsdk_region", default=None)


class Recorder(Protocol):
    """What a region needs of the session it belongs to."""

    events: deque[tuple[int, int, Any, Any]]
    tallies: dict[str, Tally]
    tracer: Tracer | None
    now_ns: Callable[[], int]
    unix_ns: Callable[[], int]
    asleep: bool

    def tally(self, name: str, unit: str | None) -> Tally:
        """The account of a name that is new, or whose unit is."""

    def wake(self) -> None:
        """A region was opened while the sampler slept long."""

    def relieve(self) -> None:
        """More events wait than should: make way."""

    def wait_for(self, region: Region, timeout_s: float) -> Measurement:
        """The measurement of a closed region."""

    def complain(self, key: str, message: str) -> None:
        """Say once that something of ours failed."""


class Host(Protocol):
    """Whoever has the session: a meter."""

    session: Any

    def begin(self) -> Any:
        """The session, started if need be; ``None`` if nothing is measured."""


class Region(Entry):
    """One region that was entered: what ``with measured(...) as m`` gives."""

    __slots__ = (
        "_otel_token",
        "_token",
        "attributes",
        "block",
        "enter_ns",
        "exit_ns",
        "interrupted",
        "measurement",
        "name",
        "settled",
        "span",
        "start_unix_ns",
        "recorder",
        "unit",
        "units",
        "waiter",
    )

    name: str
    recorder: Recorder
    span: Span | None
    exit_ns: int | None
    units: float | None
    _token: Token[Region | None] | None
    _otel_token: Token[Context] | None
    waiter: threading.Event | None

    def add_units(self, units: float) -> None:
        """Add functional units done by this region: sentences, tokens, requests.

        Raises:
            RegionError: The region is closed.
            ConfigurationError: ``units`` is not a finite number >= 0.
        """
        if self.exit_ns is not None:
            raise RegionError(f"{self.name!r} is closed; add units inside the block")
        self.units = (self.units or 0.0) + checked_units(units)

    def result(self, timeout_s: float = 5.0) -> Measurement:
        """What the region cost. Waits for the reading that covers its end, usually less than 125 ms.

        Raises:
            RegionError: The region is still open, or was opened in another process.
            SettleTimeoutError: No covering reading came within ``timeout_s`` seconds.
        """
        if self.exit_ns is None:
            raise RegionError(f"{self.name!r} is still open: its energy is known only after the block; ask then")
        return self.recorder.wait_for(self, timeout_s)


def checked_units(units: float) -> float:
    """``units`` as a finite number >= 0, or an error that says so."""
    from impactsdk.errors import ConfigurationError

    try:
        value = float(units)
    except (TypeError, ValueError):
        value = math.nan
    if isinstance(units, bool) or not math.isfinite(value) or value < 0:
        raise ConfigurationError(f"units={units!r}: expected a finite number >= 0")
    return value


def current_region() -> Region | None:
    """The innermost open region of this context, whichever meter it belongs to."""
    region = _current.get()
    while region is not None and region.exit_ns is not None:
        region = region.parent  # type: ignore[assignment]
    return region


def _open_ancestor(region: Region | None, recorder: Recorder) -> Region | None:
    """The innermost region that is still open and belongs to this session (not to another meter, nor to the parent process)."""
    while region is not None and (region.exit_ns is not None or region.recorder is not recorder):
        region = region.parent  # type: ignore[assignment]
    return region


def enter(
    recorder: Recorder, name: str, unit: str | None, attributes: Mapping[str, Any] | None, span: bool, block: object
) -> Region:
    """Open a region in the current context."""
    region = Region()
    parent = _current.get()
    if parent is not None and (parent.recorder is not recorder or parent.exit_ns is not None):
        parent = _open_ancestor(parent, recorder)
    region.parent = parent
    region.recorder = recorder
    region.name = name
    region.unit = unit
    region.block = block
    region.exit_ns = region.units = None
    tally = recorder.tallies.get(name)
    region.tally = tally if tally is not None and tally.unit == unit else recorder.tally(name, unit)
    if span and recorder.tracer is not None:
        region.start_unix_ns = unix_ns = recorder.unix_ns()
        try:
            region.span = started = recorder.tracer.start_span(name, attributes=attributes, start_time=unix_ns)
            region._otel_token = otel_context.attach(set_span_in_context(started))
        except Exception as error:  # noqa: BLE001 - a failing tracer must not reach the measured code
            region.span = region._otel_token = None
            recorder.complain("tracer", f"the tracer could not start a span ({error!r}); energy is still counted in the totals")
    else:
        region.span = None
    region._token = _current.set(region)
    region.enter_ns = at_ns = recorder.now_ns()
    recorder.events.append((at_ns, START, region, parent))
    if recorder.asleep:
        recorder.wake()
    return region


def leave(region: Region, error: BaseException | None = None) -> None:
    """Close a region; the span leaves the context now and is ended once its energy is known."""
    recorder = region.recorder
    at_ns = recorder.now_ns()
    if region.exit_ns is not None:
        return
    region.exit_ns = at_ns
    events = recorder.events
    events.append((at_ns, END, region, None))
    token, region._token = region._token, None
    if token is not None:
        _restore(region, token)
    if error is not None and region.span is not None:
        _note_error(region, error)
    if len(events) > _LIMIT:
        recorder.relieve()


def _restore(region: Region, token: Token[Region | None]) -> None:
    try:
        _current.reset(token)
    except ValueError:  # closed in another context than it was opened in: there is nothing to restore here
        return
    if region.span is not None and region._otel_token is not None:
        # Only after ours has shown that the context is the right one: OpenTelemetry logs an error where it is not.
        otel_context.detach(region._otel_token)
        region._otel_token = None


def _note_error(region: Region, error: BaseException) -> None:
    span = region.span
    assert span is not None
    try:
        if isinstance(error, Exception) and span.is_recording():
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        span.set_attribute(ERROR_TYPE, type(error).__qualname__)
    except Exception as ours:  # noqa: BLE001 - recording the user's error must not replace it
        region.recorder.complain("tracer", f"an exception could not be recorded on its span ({ours!r})")


# --- generators: their region is open only while they run -------------------------------------------------------------------


def pause(region: Region) -> Region:
    """A generator reached a yield: leave its context to the consumer; return the innermost region inside the generator."""
    recorder = region.recorder
    leaf = _current.get()
    if leaf is None or leaf.recorder is not recorder or leaf.exit_ns is not None:
        leaf = region
    recorder.events.append((recorder.now_ns(), PAUSE, region, leaf))
    token, region._token = region._token, None
    if token is not None:
        _restore(region, token)
    return leaf


def resume(region: Region, leaf: Region) -> None:
    """A generator is asked for its next item: run it in its own context again."""
    recorder = region.recorder
    consumer = _current.get()
    if consumer is not None and (consumer.recorder is not recorder or consumer.exit_ns is not None):
        consumer = _open_ancestor(consumer, recorder)
    innermost = leaf if leaf.exit_ns is None else region
    if region.span is not None:
        span = innermost.span if innermost.span is not None else region.span
        region._otel_token = otel_context.attach(set_span_in_context(span))
    region._token = _current.set(innermost)
    recorder.events.append((recorder.now_ns(), RESUME, region, (innermost, consumer)))
    if recorder.asleep:
        recorder.wake()
