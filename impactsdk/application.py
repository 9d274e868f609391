"""The OpenTelemetry providers that the application has set; looked at, and never replaced."""

from __future__ import annotations

import contextlib

from opentelemetry import metrics, trace

__all__ = ["meter_provider", "tracer_provider"]


def tracer_provider() -> trace.TracerProvider | None:
    """Its TracerProvider; ``None`` while it has set none."""
    # OTEL_PYTHON_TRACER_PROVIDER may name one that cannot be had: OpenTelemetry says so in its log and raises each time.
    with contextlib.suppress(Exception):
        provider = trace.get_tracer_provider()
        if not isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
            return provider
    return None


def meter_provider() -> metrics.MeterProvider | None:
    """Its MeterProvider; ``None`` while it has set none."""
    with contextlib.suppress(Exception):  # as above
        provider = metrics.get_meter_provider()
        # The proxy's class is not public; it is what is there while nobody has set one.
        if not isinstance(provider, metrics.NoOpMeterProvider) and type(provider).__name__ != "_ProxyMeterProvider":
            return provider
    return None
