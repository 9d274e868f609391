"""Generators: their region is open only while they run, so that a consumer is not charged to what it consumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry.trace import set_span_in_context

from impactsdk.region import PAUSE, RESUME, Region, innermost, open_ancestor
from impactsdk.spanned import SpanRegion

if TYPE_CHECKING:
    from opentelemetry.context import Context

__all__ = ["pause", "resume"]


def pause(region: Region) -> Region:
    """A generator reached a yield: leave its context to the consumer; return the innermost region inside the generator."""
    recorder: Any = region.recorder
    leaf = innermost.get()
    if leaf is None or leaf.recorder is not recorder or leaf.exit_ns is not None:
        leaf = region
    recorder.append((recorder.now_ns(), PAUSE, region, leaf, None))
    try:
        innermost.reset(region.token)  # type: ignore[arg-type]
        region.leave_context(None)
    except (ValueError, RuntimeError):
        pass  # stepped in one context and paused in another: only an async generator driven by hand can
    return leaf


def resume(region: Region, leaf: Region, context: Context | None) -> None:
    """A generator is asked for its next item: run it in its own context again.

    What it had made current, such as a span of its own or baggage, is current again.
    """
    recorder: Any = region.recorder
    consumer = innermost.get()
    if consumer is not None and (consumer.recorder is not recorder or consumer.exit_ns is not None):
        consumer = open_ancestor(consumer, recorder)
    inside = leaf if leaf.exit_ns is None else region
    if isinstance(region, SpanRegion) and region.span is not None:
        if context is None or inside is not leaf:
            context = set_span_in_context(region.span)
        region.otel_token = otel_context.attach(context)
        if recorder.spans is not None:
            recorder.spans[region.span.get_span_context().span_id] = region
    region.token = innermost.set(inside)
    recorder.append((recorder.now_ns(), RESUME, region, inside, consumer))
    if recorder.attention:
        recorder.attend()
