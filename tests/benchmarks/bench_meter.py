"""The meters that the benchmarks of cost run on, and the tracer that they are held against."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from impactsdk import DegradedWarning, EnergySource, Meter, Settings
from impactsdk.sources.cpu_model import CpuModelSource
from impactsdk.testing import SimulatedSource

__all__ = ["open_meter", "provider", "sampler_cpu_s", "two_sources", "waiting_events"]


class NullExporter(SpanExporter):
    """Takes all spans and keeps none."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def provider() -> TracerProvider:
    """What an application sets up: a batch processor before an exporter, here one that costs nothing."""
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(NullExporter()))
    return made


def two_sources() -> list[EnergySource]:
    """A board whose counter moves every 100 ms, as NVML's do, and the model of this machine's CPU."""
    return [SimulatedSource(200.0, tick_s=0.1), CpuModelSource()]


@contextmanager
def open_meter(*, sources: Sequence[EnergySource] | None = None, traces: TracerProvider | None = None) -> Iterator[Meter]:
    """A meter on ``two_sources`` that sends its spans to ``traces``, or nowhere."""
    settings = Settings.load(export="none" if traces is None else "otel")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegradedWarning)  # that the CPU's energy is modelled is as it should be
        meter = Meter(settings, sources=two_sources() if sources is None else sources, tracer_provider=traces)
        try:
            yield meter
        finally:
            meter.close()


def sampler_cpu_s(meter: Meter) -> float:
    """What the background thread has used so far; zero before the first region."""
    running: Any = meter.session
    return 0.0 if running is None else float(running.snapshot().sampler_cpu_s)


def waiting_events(meter: Meter) -> int:
    """Events that the background thread has not taken yet, two for each region."""
    running: Any = meter.session
    return 0 if running is None else len(running.events)
