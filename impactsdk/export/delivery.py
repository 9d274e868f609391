"""Sending without waiting for ever and without losing quietly: what a backend took, what it did not, and a bounded end.

The SDK's processors wait 7 to 30 s for a backend that does not answer, and tell nobody what they gave up.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from opentelemetry.context import Context
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from impactsdk import semconv
from impactsdk.export.dated import dated

__all__ = ["Bounded", "MetricDelivery", "SpanDelivery"]

_MOST_KEPT = 4096
"""Spans of which no receipt has come; twice what the SDK's queue holds by default."""


class SpanDelivery(SpanProcessor):
    """A batch processor that keeps each span until the exporter has taken it."""

    def __init__(self, exporter: SpanExporter, *, most_kept: int = _MOST_KEPT) -> None:
        self._lock = threading.Lock()
        self._kept: dict[int, ReadableSpan] = {}
        self._most_kept = most_kept
        self._ended = self._delivered = self._failed = 0
        self._forgotten_j = 0.0
        self.over = False
        """Whether nothing will be sent any more: what has no receipt then is lost."""
        self._batches = BatchSpanProcessor(_Receipts(exporter, self))

    @property
    def dropped(self) -> int:
        """Spans that the backend has not got; until the end only those of which that is certain."""
        return self._ended - self._delivered if self.over else self._failed

    @property
    def kept(self) -> list[ReadableSpan]:
        """The last spans of which no receipt has come."""
        with self._lock:
            return list(self._kept.values())

    @property
    def missing_j(self) -> float:
        """The own energy of all spans of which no receipt has come, J."""
        return self._forgotten_j + sum(map(_energy_j, self.kept))

    def settle(self, spans: Sequence[ReadableSpan], *, taken: bool) -> None:
        """The exporter is through with these."""
        with self._lock:
            if not taken:
                self._failed += len(spans)
                return
            for span in spans:
                if self._kept.pop(_key(span), None) is None:
                    self._forgotten_j -= _energy_j(span)
            self._delivered += len(spans)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing is known of it yet."""

    def on_end(self, span: ReadableSpan) -> None:
        """Hand it on to the batch."""
        context = span.context
        if context is None or not context.trace_flags.sampled:
            return
        with self._lock:
            self._ended += 1
            self._kept[_key(span)] = span
            if len(self._kept) > self._most_kept:
                self._forgotten_j += _energy_j(self._kept.pop(next(iter(self._kept))))
        self._batches.on_end(span)

    def shutdown(self) -> None:
        """Send what is left; that may take long, see :class:`Bounded`."""
        cast(SpanProcessor, self._batches).shutdown()

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Send what is there."""
        return self._batches.force_flush() if timeout_millis is None else self._batches.force_flush(timeout_millis)


class _Receipts(SpanExporter):
    def __init__(self, exporter: SpanExporter, delivery: SpanDelivery) -> None:
        self._exporter, self._delivery, self._pid = exporter, delivery, os.getpid()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if os.getpid() != self._pid:  # the child of a fork: they are the parent's, and so may be the lock
            return SpanExportResult.SUCCESS
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self._delivery.settle(spans, taken=result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _key(span: ReadableSpan) -> int:
    return 0 if span.context is None else span.context.span_id


def _energy_j(span: ReadableSpan) -> float:
    energy_j = (span.attributes or {}).get(semconv.ENERGY_SELF)
    return energy_j if isinstance(energy_j, float) else 0.0


class MetricDelivery(MetricExporter):
    """An exporter of which is known whether everything arrived: the last collection, and all that are not in the last.

    Cumulative metrics have all earlier ones in them; those of single intervals (delta temporality) have not. They count since
    this was made, which is when measuring begins.
    """

    def __init__(self, exporter: MetricExporter) -> None:
        # The reader asks the exporter for these, and an exporter has them from the user's variables.
        super().__init__(
            preferred_temporality=getattr(exporter, "_preferred_temporality", None),
            preferred_aggregation=getattr(exporter, "_preferred_aggregation", None),
        )
        self._exporter, self._pid = exporter, os.getpid()
        self._since_ns = time.time_ns()
        self.at_ns: Callable[[], int | None] = lambda: None
        """Asked for the instant on the wall clock whose values were collected last; ``None`` while that is not known."""
        self._last_arrived = self._interval_lost = False
        self.refused = False
        """Whether the last export that is over has failed."""

    @property
    def arrived(self) -> bool:
        """Whether the backend has everything up to the last export."""
        return self._last_arrived and not self._interval_lost

    @property
    def lacking(self) -> str:
        """What the backend has not got, in words; nothing if it has all."""
        return "" if self.arrived else "metrics of some intervals" if self._interval_lost else "the last metrics"

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Hand it on."""
        if os.getpid() != self._pid:  # the child of a fork: the reader goes on there, with what the parent has counted
            return MetricExportResult.SUCCESS
        self._last_arrived = False
        at_ns = self.at_ns()
        if at_ns is not None:
            metrics_data = dated(metrics_data, self._since_ns, at_ns)
        try:
            result = self._exporter.export(metrics_data, timeout_millis=timeout_millis, **kwargs)
            self._last_arrived = result is MetricExportResult.SUCCESS
        finally:
            self.refused = not self._last_arrived
            self._interval_lost = self._interval_lost or (not self._last_arrived and _of_an_interval(metrics_data))
        return result

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Let go of the connection."""
        self._exporter.shutdown(timeout_millis)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Hand it on."""
        return self._exporter.force_flush(timeout_millis)


def _of_an_interval(data: MetricsData) -> bool:
    """Whether something in it is not in the next collection again."""
    return any(
        getattr(metric.data, "aggregation_temporality", None) is AggregationTemporality.DELTA
        for of_resource in data.resource_metrics
        for of_scope in of_resource.scope_metrics
        for metric in of_scope.metrics
    )


class Bounded:
    """A provider that is flushed and shut down in a thread of its own, so that nobody waits for it longer than they want.

    The thread is there from the start: none can be started any more while the interpreter ends.
    """

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        self.error: Exception | None = None
        """What shutting down has raised."""
        self._jobs: queue.SimpleQueue[tuple[Callable[[], object], list[object], threading.Event] | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="impactsdk-export", daemon=True).start()

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Have everything sent; say whether that was done in time.

        Raises:
            Exception: What the provider's own method raised.
        """
        done, results = threading.Event(), cast("list[object]", [])
        self._jobs.put((lambda: self.provider.force_flush(max(1, round(timeout_millis))), results, done))
        if self._ended.is_set() or not done.wait(timeout_millis / 1000):
            return False
        if isinstance(results[0], Exception):
            raise results[0]
        return results[0] is not False

    def begin_shutdown(self) -> None:
        """Have everything sent and all let go of; see :meth:`wait`."""
        self._jobs.put(None)

    def wait(self, deadline_s: float) -> bool:
        """Wait for the shutdown until this instant of the monotonic clock; say whether it is done."""
        return self._ended.wait(max(0.0, deadline_s - time.monotonic()))

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, results, done = job
            try:
                results.append(call())
            except Exception as error:  # noqa: BLE001 - the caller's to see
                results.append(error)
            done.set()
        try:
            self.provider.shutdown()
        except Exception as error:  # noqa: BLE001 - somebody else's exporter
            self.error = error
        self._ended.set()
