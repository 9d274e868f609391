"""One trace over several processes: what a child has to be told so that its spans join its parent's.

Energy needs no telling: measuring processes find each other in the runtime directory, and a child that measures for itself is
left to itself by its parent. What is handed down is the place where they meet and the trace (W3C Trace Context, as environment
variables: ``TRACEPARENT``, ``TRACESTATE``). Baggage is not: it may hold what is nobody else's business.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from impactsdk.semconv import ENV_RUNTIME_DIR

__all__ = ["child_environment", "handed_down", "joined"]

_NAMES = ("traceparent", "tracestate")
_OWN = "TRACEPARENT"
"""Without a span of its own a process passes on what it was given."""
_w3c = TraceContextTextMapPropagator()


def child_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """``environ`` (default: this process's) for a child whose spans are to be part of the current one.

    ::

        subprocess.run([sys.executable, "worker.py"], env=impactsdk.child_environment())
    """
    given = dict(os.environ if environ is None else environ)
    handed = _handed(given)
    return {**(_without_trace(given) if _OWN in handed else given), **handed}


@contextmanager
def handed_down() -> Iterator[None]:
    """While this is open, children get the current span as their parent: for what takes no environment.

    ``multiprocessing`` with ``spawn`` or ``forkserver``, ``torchrun``'s launcher, ``ProcessPoolExecutor``: they inherit the
    environment of this process, which is as before afterwards. It is one for all threads: start children from one at a time.
    """
    before = {name: os.environ.get(name) for name in (*map(str.upper, _NAMES), ENV_RUNTIME_DIR)}
    handed = _handed(os.environ)
    for name in before:
        if name in handed:
            os.environ[name] = handed[name]
        elif name != ENV_RUNTIME_DIR and _OWN in handed:
            os.environ.pop(name, None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def joined(environ: Mapping[str, str] | None = None) -> Iterator[bool]:
    """In the child: spans inside are part of the parent's trace. Gives whether the parent has handed one down.

    A span that is already open here stays the parent: this is for the beginning of a process.
    """
    given = os.environ if environ is None else environ
    carrier = {name: given[name.upper()] for name in _NAMES if given.get(name.upper())}
    found = _w3c.extract(carrier)
    above = trace.get_current_span(found).get_span_context()
    if not above.is_valid or trace.get_current_span().get_span_context().is_valid:
        yield False
        return
    token = context.attach(found)
    try:
        yield True
    finally:
        context.detach(token)


def _handed(environ: Mapping[str, str]) -> dict[str, str]:
    from impactsdk.energy.registry import runtime_directory  # here: it takes a third of the time that importing all may

    carrier: dict[str, str] = {}
    _w3c.inject(carrier)
    handed = {name.upper(): value for name, value in carrier.items() if value}
    return {**handed, ENV_RUNTIME_DIR: str(runtime_directory(environ))}


def _without_trace(environ: Mapping[str, str]) -> dict[str, str]:
    """A child of a span of ours is no child of what this process itself was started by."""
    return {name: value for name, value in environ.items() if name.lower() not in _NAMES}
