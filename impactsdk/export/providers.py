"""Where results go: the application's own providers if it has them, else OTLP if the environment says where, else a journal.

The global providers are looked at and never replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace

from impactsdk import semconv
from impactsdk.export.journal import Journal
from impactsdk.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

__all__ = ["Outputs", "resolve"]

_OTLP_VARIABLES = tuple(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT" for signal in ("", "TRACES_", "METRICS_"))


@dataclass(slots=True)
class Outputs:
    """The outputs of one session. ``owned`` are the providers that we made and must shut down."""

    tracer: trace.Tracer | None = None
    meter_providers: list[metrics.MeterProvider] = field(default_factory=list)
    journal: Journal | None = None
    summary: bool = False
    owned: list[Any] = field(default_factory=list)
    used: list[Any] = field(default_factory=list)


def resolve(
    settings: Settings,
    tracer_provider: trace.TracerProvider | None,
    meter_provider: metrics.MeterProvider | None,
    version: str,
    complain: Callable[[str, str], None],
    *,
    facts: Mapping[str, float | str] | None = None,
) -> Outputs:
    """The outputs that the settings, the arguments, the application and the environment ask for, in this order.

    ``facts`` go into the resource of the providers that are made here.
    """
    of_app_traces, of_app_metrics = tracer_provider, meter_provider
    wanted = settings.export
    if wanted is None or "otel" in wanted:
        of_app_traces = of_app_traces or _app_tracer_provider()
        of_app_metrics = of_app_metrics or _app_meter_provider()
    otlp = any(settings.environ.get(variable, "").strip() for variable in _OTLP_VARIABLES)
    if wanted is None:
        wanted = ("otel",) if of_app_traces or of_app_metrics or otlp else ("journal", "summary")
    outputs = Outputs(summary="summary" in wanted)
    facts = facts or {}
    provider = None
    if of_app_traces or of_app_metrics:  # an argument counts whatever is exported otherwise
        provider = of_app_traces
        outputs.used += [used for used in (of_app_traces, of_app_metrics) if used is not None]
        outputs.meter_providers += [of_app_metrics] if of_app_metrics is not None else []
    elif "otel" in wanted:
        provider = _otlp(settings, facts, outputs, complain)
        if provider is None and "journal" not in wanted:
            wanted = (*wanted, "journal")
    if "journal" in wanted:
        provider = _journal(settings, facts, outputs, provider, version, complain)
    if provider is not None:
        outputs.tracer = provider.get_tracer(semconv.SCOPE_NAME, version, schema_url=semconv.SCHEMA_URL)
    return outputs


def _app_tracer_provider() -> trace.TracerProvider | None:
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider) else provider


def _app_meter_provider() -> metrics.MeterProvider | None:
    provider = metrics.get_meter_provider()
    # The proxy's class is not public; it is what is there while nobody has set one.
    unset = isinstance(provider, metrics.NoOpMeterProvider) or type(provider).__name__ == "_ProxyMeterProvider"
    return None if unset else provider


def _resource(settings: Settings, facts: Mapping[str, float | str]) -> Resource:
    from opentelemetry.sdk.resources import Resource

    return Resource.create({**facts, **({"service.name": settings.service_name} if settings.service_name else {})})


def _otlp(
    settings: Settings, facts: Mapping[str, float | str], outputs: Outputs, complain: Callable[[str, str], None]
) -> trace.TracerProvider | None:
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        complain(
            "otlp",
            "results should go out over OTLP, but its exporter is not installed: pip install 'impactsdk[otlp]'; "
            "they are written to the journal instead",
        )
        return None
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = _resource(settings, facts)
    traces = TracerProvider(resource=resource, shutdown_on_exit=False)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    values = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    outputs.meter_providers.append(values)
    outputs.owned += [traces, values]
    return traces


def _journal(
    settings: Settings,
    facts: Mapping[str, float | str],
    outputs: Outputs,
    provider: trace.TracerProvider | None,
    version: str,
    complain: Callable[[str, str], None],
) -> trace.TracerProvider:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    resource = _resource(settings, facts)
    reader = InMemoryMetricReader()
    values = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    outputs.meter_providers.append(values)
    outputs.owned.append(values)
    outputs.journal = Journal(settings.directory, resource, reader, version, complain)
    if provider is None:
        # No processor: a span goes into the journal when the sampler's thread ends it.
        provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        outputs.owned.append(provider)
    return provider
