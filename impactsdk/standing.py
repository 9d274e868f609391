"""What stands in an application's TracerProvider while we measure, and is taken out again.

OpenTelemetry has no public way to put something before the processors that are there; what is changed is the inside of its SDK,
under the SDK's own lock, and only where it is as expected.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from impactsdk.foreign import HoldingProcessor, SpanHost

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

__all__ = ["attach", "guard"]

_METHODS = ("add_span_processor", "force_flush", "shutdown")
_LOCK_S = 1.0
_LONGEST_S = 2.0
"""What ending our spans may take of the time for a flush."""


def _composite(provider: Any) -> Any:
    """What a provider keeps its processors in, in order; ``None`` if its inside is not as expected: it is not public."""
    composite = getattr(provider, "_active_span_processor", None)
    known = isinstance(getattr(composite, "_span_processors", None), tuple) and hasattr(composite, "__dict__")
    return composite if known and all(hasattr(composite, name) for name in _METHODS) else None


class _Standing(HoldingProcessor):
    """What :func:`attach` puts before the processors that a provider has."""

    def __init__(self, rest: Any, host: SpanHost, before: tuple[SpanProcessor, ...]) -> None:
        super().__init__(rest, host)
        self.rest, self.host = rest, host
        self.before = before
        """What the provider had, in order."""


@contextmanager
def _locked(composite: Any) -> Iterator[None]:
    """While its processors are changed, as the SDK does: what another thread adds meanwhile would be lost."""
    lock: Any = getattr(composite, "_lock", None)
    # Not for ever: it may be held by what a signal has interrupted whose handler closes us, or by nobody after a fork.
    held = hasattr(lock, "acquire") and lock.acquire(timeout=_LOCK_S)
    try:
        yield
    finally:
        if held:
            lock.release()


def _standing(composite: Any) -> list[_Standing]:
    return [one for one in composite._span_processors if isinstance(one, _Standing)]


class _Over:
    """In the place of one method of what a provider keeps its processors in, which is called in the end."""

    def __init__(self, composite: Any, name: str) -> None:
        self.composite, self._name = composite, name
        self._patched = name in vars(composite)
        self.original = getattr(composite, name)
        setattr(composite, name, self)

    def restore(self) -> None:
        """As it was, unless somebody else has put theirs over it: that still leads here, and on to the original."""
        if vars(self.composite).get(self._name) is self:
            delattr(self.composite, self._name)
            if self._patched:
                setattr(self.composite, self._name, self.original)


class _Adding(_Over):
    """What the application adds later stands behind ours, too."""

    def __call__(self, span_processor: SpanProcessor) -> None:
        with _locked(self.composite):
            standing = _standing(self.composite)
            if standing:
                standing[-1].rest.add_span_processor(span_processor)
                return
        self.original(span_processor)


def attach(provider: Any, host: SpanHost) -> Callable[[], None] | None:
    """Put a :class:`HoldingProcessor` before all processors that a provider has; return what takes it out again.

    OpenTelemetry has no public way to do that; ``None`` if it cannot be done with this provider. Of several meters the first
    one puts its energy on the spans; once it has gone, the next.
    """
    composite = _composite(provider)
    if composite is None:
        return None
    from opentelemetry.sdk.trace import SynchronousMultiSpanProcessor

    rest: Any = SynchronousMultiSpanProcessor()  # type: ignore[no-untyped-call]
    with _locked(composite):
        before = composite._span_processors
        if not _standing(composite):
            _Adding(composite, "add_span_processor")
        rest._span_processors = tuple(one for one in before if not isinstance(one, HoldingProcessor))
        holders = [one for one in before if isinstance(one, HoldingProcessor)]  # these hold for themselves
        composite._span_processors = (_Standing(rest, host, before), *holders)
    return lambda: _detach(composite, host)


def _detach(composite: Any, host: SpanHost) -> None:
    """Give what stands behind this host's processors to the next meter's, or back to the provider as it was."""
    with _locked(composite):
        mine = [one for one in _standing(composite) if one.host is host]
        heir = next((one.host for one in reversed(_standing(composite)) if one.host is not host), None)
        left: list[Any] = []
        for one in composite._span_processors:
            if one not in mine:
                left.append(one)
            elif heir is None:
                left.extend(one.rest._span_processors)
            elif one.rest._span_processors:
                left.append(_Standing(one.rest, heir, one.before))
        if heir is None:
            before = [processor for one in reversed(mine) for processor in one.before]  # the oldest stands last
            left.sort(key=lambda one: before.index(one) if one in before else len(before))
        composite._span_processors = tuple(left)  # at once, so that no span meets a processor twice or never
        adding = vars(composite).get("add_span_processor")
        if heir is None and isinstance(adding, _Adding):
            adding.restore()
    for one in mine:
        one.let_go()


class _Gate(_Over):
    """Our own spans are ended before an application's provider flushes or shuts down: their energy is known in a moment.

    No processor: one that sends several spans at a time would flush the others meanwhile.
    """

    def __init__(self, composite: Any, name: str) -> None:
        super().__init__(composite, name)
        self.sessions: list[Any] = []

    def __call__(self, timeout_millis: int = 30_000) -> Any:
        begun_s = time.monotonic()
        for session in tuple(self.sessions):
            if not session.dead:
                self._end_spans(session, min(timeout_millis / 1000, _LONGEST_S))
        if self._name == "shutdown":
            return self.original()
        return self.original(max(0, timeout_millis - round((time.monotonic() - begun_s) * 1000)))

    @staticmethod
    def _end_spans(session: Any, timeout_s: float) -> None:
        try:
            session.flush_ledger(timeout_s)
        except Exception as error:  # noqa: BLE001 - the application's own spans have to be sent
            session.complain("gate", f"spans could not be ended before their provider was flushed: {error!r}")


def guard(provider: Any, session: Any) -> Callable[[], None] | None:
    """Have a session's spans ended before a provider flushes or shuts down; return what undoes that. As :func:`attach`."""
    composite = _composite(provider)
    if composite is None:
        return None
    with _locked(composite):
        gates = []
        for name in _METHODS[1:]:
            gate = vars(composite).get(name)
            gates.append(gate if isinstance(gate, _Gate) else _Gate(composite, name))
            gates[-1].sessions.append(session)

    def remove() -> None:
        with _locked(composite):
            for gate in gates:
                gate.sessions = [one for one in gate.sessions if one is not session and not one.dead]
                if not gate.sessions:
                    gate.restore()

    return remove
