"""Where results go: the application's own providers if it has them, else OTLP if the environment says where, else a journal.

The global providers are looked at and never replaced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry import metrics, trace

from impactsdk import application, lifecycle, semconv
from impactsdk.export.exporters import Signal, endpoint, exporter, named
from impactsdk.export.journal import Journal
from impactsdk.export.metrics import Account, instruments_on
from impactsdk.export.outputs import Outputs
from impactsdk.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

__all__ = ["Outputs", "came_late", "resolve"]

_T = TypeVar("_T")
_Complain = Callable[[str, str], None]
_MOST_SETS = 20_000
_SIGNALS: tuple[Signal, Signal] = ("traces", "metrics")


def resolve(
    settings: Settings,
    tracer_provider: trace.TracerProvider | None,
    meter_provider: metrics.MeterProvider | None,
    version: str,
    complain: _Complain,
    *,
    facts: Mapping[str, float | str] | None = None,
) -> Outputs:
    """The outputs that the settings, the arguments, the application and the environment ask for, in this order.

    ``facts`` go into the resource of the providers that are made here. What cannot be had is told and left out.
    """
    resolving = _Resolving(settings, version, complain, facts or {})
    try:
        resolving.decide(tracer_provider, meter_provider)
    except Exception as error:  # noqa: BLE001 - somebody else's; joules are counted all the same
        complain("outputs", f"not all outputs could be set up ({error!r}): what goes nowhere is in totals() alone")
    return resolving.outputs


def came_late(settings: Settings, used: Sequence[object]) -> list[str]:
    """The providers of its own that the application has set only after it was decided where results go."""
    if settings.export is not None and "otel" not in settings.export:
        return []
    late = []
    for name, method, of_app, variable in (
        ("TracerProvider", "get_tracer", application.tracer_provider, "OTEL_PYTHON_TRACER_PROVIDER"),
        ("MeterProvider", "get_meter", application.meter_provider, "OTEL_PYTHON_METER_PROVIDER"),
    ):
        # One that a variable names was there at the beginning, or cannot be had, which is logged whenever it is asked for.
        if variable not in settings.environ and not any(hasattr(one, method) for one in used) and of_app() is not None:
            late.append(name)
    return late


def _roomy(reader: Callable[..., Any], *arguments: Any) -> Any:
    """A reader that takes a set of attributes for each name that the totals tell apart, several times over."""
    from opentelemetry.sdk.metrics import Histogram, ObservableCounter, ObservableGauge, ObservableUpDownCounter

    kinds = (Histogram, ObservableCounter, ObservableGauge, ObservableUpDownCounter)
    try:
        return reader(*arguments, cardinality_limits=dict.fromkeys(kinds, _MOST_SETS))
    except TypeError:  # an older one knows no limits
        return reader(*arguments)


def _stays_here(reader: Any) -> None:
    """In the child of a fork a reader of somebody else's may go on and send what the parent has counted a second time."""
    collect, pid = reader.collect, os.getpid()

    def collect_here(*arguments: Any, **options: Any) -> None:
        if os.getpid() == pid:
            collect(*arguments, **options)

    reader.collect = collect_here


class _Resolving:
    """What :func:`resolve` has found out so far."""

    def __init__(self, settings: Settings, version: str, complain: _Complain, facts: Mapping[str, float | str]) -> None:
        self._settings, self._environ, self._version, self._complain = settings, settings.environ, version, complain
        self._facts = facts
        self._resource: Resource | None = None
        self.outputs = Outputs()
        self._in_vain = False
        """Whether an output that was asked for cannot be had."""

    def decide(self, of_app_traces: trace.TracerProvider | None, of_app_metrics: metrics.MeterProvider | None) -> None:
        """See :func:`resolve`."""
        outputs, wanted = self.outputs, self._settings.export
        if wanted is None or "otel" in wanted:
            of_app_traces = of_app_traces or application.tracer_provider()
            of_app_metrics = of_app_metrics or application.meter_provider()
        of_app = of_app_traces is not None or of_app_metrics is not None
        endpoints = {signal: endpoint(self._environ, signal) for signal in _SIGNALS}
        # OTLP is what OpenTelemetry takes where nothing else is said, but only where somebody wants OpenTelemetry; and where
        # only one signal has an endpoint, the other has nowhere to go.
        unsaid = wanted is not None and not any(endpoints.values())
        spans, values = (named(self._environ, signal, default=unsaid or endpoints[signal] is not None) for signal in _SIGNALS)
        if wanted is None:
            wanted = ("otel",) if of_app or spans or values else ("journal", "summary")
        if of_app or "otel" not in wanted:
            spans, values = [], []
        if "console" in wanted:
            spans, values = ["console", *spans], ["console", *values]
        if of_app_traces is not None:
            spans = []  # a span has one provider; what else becomes of it is the application's business
        if "prometheus" in wanted:
            values.append("prometheus")
        provider = self._traces(dict.fromkeys(spans))
        for name in dict.fromkeys(values):
            self._made(self._metrics, name)
        if of_app:  # an argument counts whatever is exported otherwise
            provider = of_app_traces or provider
            outputs.used += [used for used in (of_app_traces, of_app_metrics) if used is not None]
            outputs.meter_providers += [of_app_metrics] if of_app_metrics is not None else []
        outputs.summary = "summary" in wanted
        if "journal" in wanted or self._in_vain:
            provider = self._journal(provider)
        if outputs.deliveries or outputs.arrivals:
            outputs.spare = self._spare_journal
            outputs.endpoints = (endpoints["traces"], endpoints["metrics"])
        if provider is not None:  # the last, since it may be somebody else's that fails
            outputs.tracer = provider.get_tracer(semconv.SCOPE_NAME, self._version, schema_url=semconv.SCHEMA_URL)

    def _made(self, make: Callable[..., _T], *arguments: Any, **options: Any) -> _T | None:
        """What ``make`` makes; ``None``, and a complaint, where the SDK refuses what an ``OTEL_*`` variable says."""
        try:
            return make(*arguments, **options)
        except Exception as error:  # noqa: BLE001 - as when it is imported, or threads are over; joules are counted all the same
            self._in_vain = True
            why = " ".join(str(error).split()) or repr(error)
            self._complain(
                f"output:{why}",
                f"an output could not be set up ({why}): look at the OTEL_* variables; its results are in the journal, as far "
                "as that can be written, and in totals()",
            )
            return None

    def _described(self) -> Resource:
        if self._resource is None:
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource

            name = self._settings.service_name
            facts = {**self._facts, **({"service.name": name} if name else {})}
            try:
                with lifecycle.asking_others():  # the detectors run in threads, and may measure
                    self._resource = Resource.create(facts)
            except Exception as error:  # noqa: BLE001 - a detector of somebody else's, or a name that is none
                # Detectors need threads, and once the main thread has returned there are no new pools.
                if not isinstance(error, RuntimeError):
                    self._complain("resource", f"OpenTelemetry cannot find out what this process is ({error!r})")
                self._resource = Resource({"service.name": "unknown_service:python"}).merge(OTELResourceDetector().detect())
                self._resource = self._resource.merge(Resource(facts))
        return self._resource

    def _traces(self, names: Mapping[str, None]) -> trace.TracerProvider | None:
        found = {name: its for name in names if (its := self._exporter("traces", name)) is not None}
        return self._made(self._sending, found) if found else None

    def _sending(self, found: Mapping[str, Any]) -> trace.TracerProvider:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from impactsdk.export.delivery import Bounded, SpanDelivery
        from impactsdk.export.ids import OwnIds

        provider = TracerProvider(id_generator=OwnIds(), resource=self._described(), shutdown_on_exit=False)
        for name, its in found.items():
            if name == "console":
                provider.add_span_processor(BatchSpanProcessor(its))
            else:
                self.outputs.deliveries.append(SpanDelivery(its))
                provider.add_span_processor(self.outputs.deliveries[-1])
        self.outputs.owned.append(Bounded(provider))
        return provider

    def _metrics(self, name: str) -> None:
        from impactsdk.export.delivery import Bounded

        provider = self._scraped() if name == "prometheus" else self._pushed(name)
        if provider is not None:
            self.outputs.meter_providers.append(provider)
            self.outputs.owned.append(Bounded(provider))

    def _pushed(self, name: str) -> metrics.MeterProvider | None:
        its = self._exporter("metrics", name)
        if its is None:
            return None
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

        from impactsdk.export.delivery import MetricDelivery

        if isinstance(its, MetricReader):
            _stays_here(its)
            return MeterProvider([its], resource=self._described(), shutdown_on_exit=False)
        delivery = MetricDelivery(its)
        reader = _roomy(PeriodicExportingMetricReader, delivery)
        try:
            provider = MeterProvider([reader], resource=self._described(), shutdown_on_exit=False)
        except BaseException:
            reader.shutdown()  # its thread runs already
            raise
        if name != "console":
            self.outputs.arrivals.append(delivery)
        delivery.at_ns = instruments_on(provider, self._version).at_ns
        return provider

    def _scraped(self) -> metrics.MeterProvider | None:
        from impactsdk.export.scrape import ScrapedProvider, address

        try:
            return ScrapedProvider(self._described(), *address(self._environ))
        except ImportError:
            why, remedy = "its exporter is not installed", "pip install 'impactsdk[prometheus]'"
        except OSError as error:
            why = str(error)
            remedy = "choose another place with OTEL_EXPORTER_PROMETHEUS_HOST and OTEL_EXPORTER_PROMETHEUS_PORT"
        self._in_vain = True
        self._complain("prometheus", f"Prometheus cannot be served: {why}: {remedy}; the journal is written instead")
        return None

    def _exporter(self, signal: Any, name: str) -> Any:
        found = exporter(self._environ, signal, name, self._complain)
        self._in_vain = self._in_vain or found is None
        return found

    def _journal(self, provider: trace.TracerProvider | None) -> trace.TracerProvider | None:
        self.outputs.journal, values = self._unwritten()
        self.outputs.meter_providers += [] if values is None else [values]
        return provider or self._made(self._not_sending)

    def _not_sending(self) -> trace.TracerProvider:
        """No processor: a span goes into the journal when the sampler's thread ends it."""
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        from impactsdk.export.ids import OwnIds

        provider = TracerProvider(id_generator=OwnIds(), sampler=ALWAYS_ON, resource=self._described(), shutdown_on_exit=False)
        self.outputs.owned.append(provider)
        return provider

    def _spare_journal(self, account: Account) -> Journal:
        """A journal that nobody asked for. It has the totals of now; only the histogram sees calls when they happen."""
        journal, values = self._unwritten()
        if values is not None:
            instruments_on(values, self._version).attach(account)
        return journal

    def _unwritten(self) -> tuple[Journal, metrics.MeterProvider | None]:
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader

        reader = _roomy(InMemoryMetricReader)
        values = self._made(self._collected_by, reader)
        if values is None:
            reader = None  # spans alone, then, and what the devices count
        return Journal(self._settings.directory, self._described(), reader, self._version, self._complain), values

    def _collected_by(self, reader: Any) -> metrics.MeterProvider:
        from opentelemetry.sdk.metrics import MeterProvider

        provider = MeterProvider([reader], resource=self._described(), shutdown_on_exit=False)
        self.outputs.owned.append(provider)
        return provider
