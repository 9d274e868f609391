"""A region with an OpenTelemetry span, which begins a moment before the region does and is ended once its energy is known."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context

from impactsdk.recorder import Recorder
from impactsdk.region import Region, innermost, parent_of
from impactsdk.semconv import ERROR_TYPE

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context

__all__ = ["SpanRegion"]


class SpanRegion(Region):
    """What ``with measured(...) as m`` gives by default; see :class:`Region`."""

    __slots__ = ("otel_token", "span", "start_ns", "start_unix_ns")

    span: Span | None
    """``None`` where there is no tracer, or it failed."""
    start_unix_ns: int
    start_ns: int
    """The same instant as ``start_unix_ns``, on the clock by which the end is found; the region begins a little later."""
    otel_token: Token[Context] | None

    @property
    def end_unix_ns(self) -> int:
        """Wall-clock end of what has been left."""
        assert self.exit_ns is not None
        return self.start_unix_ns + self.exit_ns - self.start_ns

    # Entering and leaving differ from Region's by the span alone; said twice, since each call inside costs the caller.

    def __enter__(self) -> Region:
        if self.recorder is not None:
            return self._again().__enter__()
        host = self.spec.host
        session: Any = host.session
        if session is None:
            session = host.begin()
            if self.recorder is not None:  # another thread entered the same block meanwhile
                return self._again().__enter__()
        self.token = self.exit_ns = self.parent = self.span = None
        self.recorder = session
        parent = innermost.get()
        if parent is not None and (parent.recorder is not session or parent.exit_ns is not None):
            self._within(parent, session)
        self.parent = parent_of(session)
        try:
            self._start_span(session)
            now_ns, append = session.now_ns, session.append
            self.enter_ns = now_ns()
            append(self)
            self.token = innermost.set(self)  # only now: what a signal handler measures must not begin before its parent
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
        try:
            at_ns = session.now_ns()
            try:
                if innermost.get() is not self:  # left before a span inside it, or one of those below
                    raise ValueError
                innermost.reset(self.token)  # type: ignore[arg-type]
            except (ValueError, RuntimeError, TypeError):  # another context, left before, or entered more than once
                self._leave_oddly(at_ns, error)
                return
            self.token = None
            self.exit_ns = at_ns
            if self.span is not None:
                self.leave_context(error)
            session.append(self)  # from here on its span may be ended at any moment
        except BaseException:  # of a signal's handler: nothing of ours raises
            self._undo()
            raise
        session.awaited = True
        if session.attention:
            session.attend()

    def _start_span(self, session: Recorder) -> None:
        self.start_unix_ns = unix_ns = session.unix_ns()
        self.start_ns = session.now_ns()
        if session.tracer is None:
            return
        try:
            spec = self.spec
            span = session.tracer.start_span(spec.name, attributes=spec.attributes, start_time=unix_ns)
            self.otel_token = None
            self.span = span
            self.otel_token = otel_context.attach(set_span_in_context(span))
            if session.spans is not None:
                session.spans[span.get_span_context().span_id] = self
        except Exception as error:  # noqa: BLE001 - a failing tracer must not reach the measured code
            session.complain("tracer", f"the tracer could not start a span ({error!r}); energy is still counted in the totals")

    def leave_context(self, error: BaseException | None) -> None:
        """The span leaves the context now; it is ended once its energy is known."""
        span, recorder = self.span, self.recorder
        if span is None or recorder is None:
            return
        token, self.otel_token = self.otel_token, None
        self.leave_spans()
        if token is not None:
            # Only after ours has shown that the context is the right one: OpenTelemetry logs an error where it is not.
            otel_context.detach(token)
        if error is not None:
            self.note_error(error)

    def leave_spans(self) -> None:
        """What begins now is no part of its span."""
        span, recorder = self.span, self.recorder
        if span is not None and recorder is not None and recorder.spans is not None:
            recorder.spans.pop(span.get_span_context().span_id, None)

    def forget(self) -> None:
        """Once it is settled: a generator's may have been put there again in another context."""
        self.leave_spans()
        super().forget()

    def note_error(self, error: BaseException) -> None:
        """Put on the span what the block ended with."""
        span, recorder = self.span, self.recorder
        if span is None or recorder is None:
            return
        try:
            if not span.is_recording():  # not sampled; or ended before its block, with the meter
                return
            span.set_attribute(ERROR_TYPE, type(error).__qualname__)
            if isinstance(error, Exception):
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))  # now: the error's own text may fail
                span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
                # When the block ended with it, and not now, which is after the span's end.
                span.record_exception(error, timestamp=None if self.exit_ns is None else self.end_unix_ns)
        except Exception as ours:  # noqa: BLE001 - recording the user's error must not replace it
            recorder.complain("tracer", f"an exception could not be recorded on its span ({ours!r})")

    def _out_of_place(self) -> None:
        super()._out_of_place()
        self.otel_token = None
