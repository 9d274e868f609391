"""Energy on spans that other instrumentations make: FastAPI's, a database client's, an LLM library's.

A processor that stands before the application's own. Each span that begins becomes a region of the ledger, so that nothing is
counted twice; when it ends it is held for the readings that cover its end (at most about 225 ms) and then handed on as a copy
with our attributes. A span that cannot be measured is handed on as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from impactsdk import semconv
from impactsdk.export.spans import attributes_of, fitting
from impactsdk.lifecycle import waited_for
from impactsdk.model import Measurement
from impactsdk.recorder import Host, Spec
from impactsdk.region import LONGEST_NAME, Region, deeper, innermost, new_region, open_ancestor

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

    _Base = SpanProcessor
else:
    _Base = object  # importing impactsdk loads no SDK; providers ask for these methods and no more

__all__ = ["HoldingProcessor", "SpanHost"]

_MOST_NAMES = 2_000
_LATE_NS = 50_000_000
"""A span that began or ended longer ago than this was given its time by hand."""


class SpanHost(Host, Protocol):
    """A meter, as far as it deals with other people's spans."""

    def hold(self, processor: HoldingProcessor) -> None:
        """Keep it in mind: from now on regions look for these spans, too."""


class _Foreign(Region):
    """The region of somebody else's span."""

    __slots__ = ("holders", "readable")

    readable: ReadableSpan
    holders: list[HoldingProcessor]
    """Usually one; an application may export through two."""

    def hand_on(self, measurement: Measurement | None) -> None:
        """It is settled: the span goes on its way."""
        for holder in self.holders:
            holder.release(self, measurement)


class HoldingProcessor(_Base):
    """Holds the spans of one provider until their energy is known. :class:`impactsdk.EnergySpanProcessor` tells the rest."""

    def __init__(self, next_processor: SpanProcessor, host: SpanHost) -> None:
        self.next_processor = next_processor
        self._host = host
        self._open: dict[int, _Foreign] = {}
        # No lock: a signal's handler may end a span in the middle of any of these lines.
        self._held: dict[int, _Foreign] = {}
        self._specs: dict[tuple[str, str | None], Spec] = {}
        host.hold(self)

    # --- what a provider calls, in the threads of the application --------------------------------------------------------

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """A span begins."""
        self.next_processor.on_start(span, parent_context)
        try:
            if not _ours(span):
                self._enter(span)
        except Exception as error:  # noqa: BLE001 - the application's span must begin
            self._complain(error)

    def _on_ending(self, span: Span) -> None:
        ending = getattr(self.next_processor, "_on_ending", None)
        if ending is not None:
            ending(span)

    def on_end(self, span: ReadableSpan) -> None:
        """A span has ended: hold it until its energy is known."""
        context = span.context
        region = None if context is None else self._open.pop(context.span_id, None)
        if region is None:
            self.next_processor.on_end(span)
            return
        recorder = cast("Any", region.recorder)
        region.readable = span
        try:
            if getattr(region, "interrupted", False):  # the meter was closed while it was open: nobody knows the rest
                self.next_processor.on_end(span)
                return
            if region.exit_ns is not None:  # another processor of this provider was told first
                self._held[id(region)] = region
                if getattr(region, "settled", False):
                    self.release(region, region.measurement)
                return
            recorder.spans.pop(context.span_id, None)
            at_ns = recorder.now_ns()
            tokens = _tokens(span.attributes)
            if tokens is not None:
                region.units = tokens
                region.spec = self._spec(region.spec.name, "token")
                _credit_tokens(region.parent, tokens)
            # Who ends a span late says when it ended.
            late_ns = 0 if span.end_time is None else max(0, recorder.unix_ns() - span.end_time)
            region.exit_ns = max(region.enter_ns, at_ns - (late_ns if late_ns > _LATE_NS else 0))
            session: Any = self._host.session
            if recorder is session and not session.dead:
                self._held[id(region)] = region
                recorder.append(region)
                recorder.awaited = True
                if recorder.attention:
                    recorder.attend()
                return
        except Exception as error:  # noqa: BLE001
            self._complain(error)
        self.next_processor.on_end(span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until the spans that are held have their energy and were exported."""
        session: Any = self._host.session
        if session is not None and not session.off:
            if session.within:  # a processor flushes with the span that it is given: the others are handed on after it
                return self.next_processor.force_flush(timeout_millis) is not False
            session.flush_ledger(timeout_millis / 1000)
        self.let_go()
        return self.next_processor.force_flush(timeout_millis) is not False

    def shutdown(self) -> None:
        """Hand on what is held, with its energy if that comes in time, and close the next processor."""
        session: Any = self._host.session
        if session is not None and not session.off and self._held:
            session.flush_ledger(1.0)
        self.let_go()
        self.next_processor.shutdown()

    # --- in the sampler's thread -----------------------------------------------------------------------------------------

    def release(self, region: _Foreign, measurement: Measurement | None) -> None:
        """Hand a held span on, once."""
        if self._held.pop(id(region), None) is None:
            return
        span = region.readable
        if measurement is not None:
            try:
                span = _with(span, attributes_of(measurement))
            except Exception as error:  # noqa: BLE001
                self._complain(error)
        self.next_processor.on_end(span)

    def let_go(self) -> None:
        """Hand on all spans that are still held, as they are."""
        for region in list(self._held.values()):
            try:
                self.release(region, None)
            except BaseException as error:  # noqa: PERF203 - the application's own processor; the next span goes on
                if not (isinstance(error, Exception) or waited_for()):
                    raise  # an interrupt of the caller's
                self._complain(error)

    def forsake(self) -> None:
        """In the child of a fork: the spans that are open or held are the parent's, and are exported by it."""
        self._open, self._held = {}, {}

    # --- helpers -----------------------------------------------------------------------------------------------------------

    def _enter(self, span: Span) -> None:
        session: Any = self._host.session
        begins = session is None  # the devices are opened now, while the span waits: that is not its time
        if session is None:
            session = self._host.begin()
        if session.off:
            return
        context = span.get_span_context()
        known = session.spans.get(context.span_id)
        if isinstance(known, _Foreign):
            known.holders.append(self)
            self._open[context.span_id] = known
            return
        region = new_region(_Foreign, self._spec(span.name, None))
        region.recorder, region.holders, region.exit_ns = session, [self], None
        above = session.spans.get(span.parent.span_id) if span.parent is not None else None
        region.parent = deeper(open_ancestor(innermost.get(), session), _of(above, session))
        session.spans[context.span_id] = self._open[context.span_id] = region
        late_ns = 0 if span.start_time is None or begins else session.unix_ns() - span.start_time
        region.enter_ns = session.now_ns() - (late_ns if late_ns > _LATE_NS else 0)
        session.append(region)
        if session.attention:
            session.attend()

    def _spec(self, name: str, unit: str | None) -> Spec:
        name = "".join(letter if letter.isprintable() else "?" for letter in name[:LONGEST_NAME]) or "(unnamed)"
        spec = self._specs.get((name, unit))
        if spec is None:
            spec = Spec(self._host, name, unit, None, None, span=False)
            if len(self._specs) < _MOST_NAMES:
                self._specs[name, unit] = spec
        return spec

    def _complain(self, error: BaseException) -> None:
        session: Any = self._host.session
        if session is not None:
            session.complain("foreign", f"another instrumentation's span could not be measured ({error!r}): it passes as it is")


def _ours(span: Span) -> bool:
    scope = span.instrumentation_scope
    return scope is not None and scope.name == semconv.SCOPE_NAME


def _of(region: Region | None, session: Any) -> Region | None:
    return region if region is not None and region.recorder is session and region.exit_ns is None else None


def _tokens(attributes: Mapping[str, Any] | None) -> float | None:
    value = None if attributes is None else attributes.get(semconv.GEN_AI_OUTPUT_TOKENS)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15 else None


def _credit_tokens(region: Any, tokens: float) -> None:
    """The measured region around an inference call did these tokens, unless it counts in another unit."""
    while isinstance(region, _Foreign):
        region = region.parent
    if region is None or region.exit_ns is not None or region.spec.unit not in (None, "token"):
        return
    if region.spec.unit is None:
        old = region.spec
        region.spec = Spec(old.host, old.name, "token", old.count, old.attributes, old.span)
    region.units = (region.units or 0.0) + tokens


def _with(span: ReadableSpan, more: Mapping[str, Any]) -> ReadableSpan:
    """A copy with those of the attributes that its limits leave room for; what they have dropped stays counted."""
    from opentelemetry.attributes import BoundedAttributes
    from opentelemetry.sdk.trace import ReadableSpan

    theirs = getattr(span, "_attributes", None)
    limits = (theirs.maxlen, theirs.max_value_len) if isinstance(theirs, BoundedAttributes) else (None, None)
    attributes = BoundedAttributes(limits[0], span.attributes, immutable=False, max_value_len=limits[1])
    attributes.dropped = span.dropped_attributes
    copy = ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        events=_counted(span, "events"),
        links=_counted(span, "links"),
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
    attributes.update(fitting(more, copy))
    return copy


def _counted(span: ReadableSpan, name: str) -> Any:
    """Its events or links, in the list that counts how many were dropped; that is not public."""
    kept = getattr(span, f"_{name}", None)
    return getattr(span, name) if kept is None else kept
