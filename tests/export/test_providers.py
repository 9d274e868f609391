"""Where results go: the application's providers, OTLP, or the journal; what the application has set is never replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from impactsdk import Meter, Settings
from impactsdk.testing import SimulatedSource
from tests.kit import bench, journals, metrics_in, plain, script, spans_in

PROVIDERS = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
traces, values = TracerProvider(), MeterProvider([reader])
traces.add_span_processor(SimpleSpanProcessor(exporter))
"""


def _script(body: str) -> str:
    return PROVIDERS + body


def test_the_global_providers_are_used_and_not_replaced(tmp_path: Path) -> None:
    output, errors = script(
        _script("""
import impactsdk
trace.set_tracer_provider(traces)
metrics.set_meter_provider(values)
impactsdk.measured("x")(lambda: None)()
assert impactsdk.flush()
print([span.name for span in exporter.get_finished_spans()])
data = reader.get_metrics_data()
names = {m.name for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}
print("impact.operation.count" in names)
print(trace.get_tracer_provider() is traces, metrics.get_meter_provider() is values)
impactsdk.shutdown()
with traces.get_tracer("theirs").start_as_current_span("theirs"): pass
print([span.name for span in exporter.get_finished_spans()])
"""),
        tmp_path,
    )
    assert output.splitlines() == ["['x']", "True", "True True", "['x', 'theirs']"]
    assert errors == ""
    assert not (tmp_path / "impact").exists()


def test_without_anything_a_journal_and_a_summary_are_written_and_nothing_global_is_set(tmp_path: Path) -> None:
    output, errors = script(
        """
from opentelemetry import metrics, trace
from impactsdk import measured, configure
before = (type(trace.get_tracer_provider()), type(metrics.get_meter_provider()))
measured("x")(lambda: None)()
print((type(trace.get_tracer_provider()), type(metrics.get_meter_provider())) == before)
""",
        tmp_path,
    )
    assert output == "True\n"
    assert "details in impact" in errors
    (lines,) = journals(tmp_path)
    assert [span["name"] for span in spans_in(lines)] == ["x"]


def test_export_none_leaves_nothing_though_the_application_has_providers(tmp_path: Path) -> None:
    output, errors = script(
        _script("""
trace.set_tracer_provider(traces)
import impactsdk
impactsdk.measured("x")(lambda: None)()
impactsdk.flush()
print(len(exporter.get_finished_spans()), impactsdk.configure().totals().operations["x"].count)
"""),
        tmp_path,
        IMPACTSDK_EXPORT="none",
    )
    assert (output, errors) == ("0 1\n", "")
    assert not (tmp_path / "impact").exists()


@pytest.mark.parametrize("export", ["otel,journal", "journal,summary", "otel,journal,summary", "journal"])
def test_outputs_can_be_combined(tmp_path: Path, export: str) -> None:
    output, errors = script(
        _script("""
trace.set_tracer_provider(traces)
metrics.set_meter_provider(values)
import impactsdk
for _ in range(3):
    impactsdk.measured("x")(lambda: None)()
impactsdk.shutdown()
print(len(exporter.get_finished_spans()))
data = reader.get_metrics_data()
print([p.value for r in (data.resource_metrics if data else ()) for s in r.scope_metrics for m in s.metrics
       if m.name == "impact.operation.count" for p in m.data.data_points])
"""),
        tmp_path,
        IMPACTSDK_EXPORT=export,
    )
    otel = "otel" in export
    assert output.splitlines() == [str(3 if otel else 0), "[3]" if otel else "[]"]
    assert ("impactsdk:" in errors) == ("summary" in export)
    (lines,) = journals(tmp_path)
    assert len(spans_in(lines)) == 3
    counts = [
        point["asInt"]
        for metric in metrics_in(lines)
        if metric["name"] == "impact.operation.count"
        for point in metric["sum"]["dataPoints"]
    ]
    assert counts == ["3"]


def test_otlp_without_its_exporter_warns_once_and_writes_a_journal(tmp_path: Path) -> None:
    _, errors = script(
        """
import sys
sys.modules["opentelemetry.exporter"] = None  # not installed
from impactsdk import measured
for _ in range(3):
    measured("x")(lambda: None)()
""",
        tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
    )
    assert errors.count("DegradedWarning") == 1
    assert "pip install 'impactsdk[otlp]'" in errors
    (lines,) = journals(tmp_path)
    assert len(spans_in(lines)) == 3


def test_providers_that_are_given_win_over_everything(tmp_path: Path) -> None:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    with bench(export="none") as here:
        with here.measured("x"):
            pass
        assert set(here.spans) == {"x"}
    provider = TracerProvider(shutdown_on_exit=False)
    meter = Meter(Settings.load(settings), sources=[SimulatedSource(100.0)], tracer_provider=provider)
    with meter, meter.measured("x") as region:
        pass
    assert region.span is not None
    assert not (tmp_path / "impact").exists()
    provider.get_tracer("x").start_span("still usable").end()


def test_a_meter_shuts_down_only_what_it_has_made() -> None:
    class Watched(TracerProvider):
        shut = False

        def shutdown(self) -> None:
            self.shut = True
            super().shutdown()

    class WatchedMeters(MeterProvider):
        shut = False

        def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
            self.shut = True
            super().shutdown(timeout_millis)

    traces, values = Watched(shutdown_on_exit=False), WatchedMeters(shutdown_on_exit=False)
    with Meter(Settings.load({}), sources=[], tracer_provider=traces, meter_provider=values) as meter, meter.measured("x"):
        pass
    assert (traces.shut, values.shut) == (False, False)
    traces.shutdown()
    values.shutdown()
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    assert type(metrics.get_meter_provider()).__name__ == "_ProxyMeterProvider"


def test_the_service_is_named_as_the_application_says(tmp_path: Path) -> None:
    for number, environment in enumerate(({"OTEL_SERVICE_NAME": "named"}, {"IMPACTSDK_SERVICE_NAME": "named"})):
        folder = tmp_path / str(number)
        folder.mkdir()
        script("from impactsdk import measured\nmeasured('x')(lambda: None)()\n", folder, **environment)
        text = next((folder / "impact").glob("*.jsonl")).read_text(encoding="utf-8")
        assert '{"key":"service.name","value":{"stringValue":"named"}}' in text


REFUSED = [
    ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1", "totals"),
    ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "abc", "totals"),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "bogus", "spans"),
    ("OTEL_PYTHON_TRACER_PROVIDER", "bogus", "spans totals"),
    ("OTEL_PYTHON_METER_PROVIDER", "bogus", "totals"),
    ("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "bogus", "spans totals"),
]


@pytest.mark.parametrize(("variable", "value", "kept"), REFUSED, ids=[name for name, _, _ in REFUSED])
def test_a_variable_that_opentelemetry_refuses_does_not_stop_the_measuring(
    tmp_path: Path, variable: str, value: str, kept: str
) -> None:
    output, errors = script(
        """
import time
import impactsdk
from impactsdk.testing import SimulatedSource
impactsdk.configure(sources=[SimulatedSource(100.0)], export="journal")
with impactsdk.measured("x") as region:
    time.sleep(0.01)
print(region.result().energy_j > 0, impactsdk.shutdown(), impactsdk.configure().totals().operations["x"].count)
""",
        tmp_path,
        **{variable: value},
    )
    assert output == "True True 1\n"
    assert errors.count("DegradedWarning") <= 1
    (lines,) = journals(tmp_path)
    if "spans" in kept:
        assert [span["name"] for span in spans_in(lines)] == ["x"]
    if "totals" in kept:
        assert "impact.energy" in {metric["name"] for metric in metrics_in(lines)}


@pytest.mark.parametrize(
    "variables",
    [{"OTEL_BSP_MAX_QUEUE_SIZE": "100"}, {"OTEL_METRIC_EXPORT_INTERVAL": "0"}, {"OTEL_METRICS_EXEMPLAR_FILTER": "bogus"}],
    ids=lambda variables: next(iter(variables)),
)
def test_where_an_exporter_cannot_be_set_up_the_journal_is_written(tmp_path: Path, variables: dict[str, str]) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra otlp")
    _, errors = script(
        """
import threading, time
import impactsdk
from impactsdk.testing import SimulatedSource
impactsdk.configure(sources=[SimulatedSource(100.0)])
with impactsdk.measured("x"):
    time.sleep(0.01)
impactsdk.shutdown(1.0)
""",
        tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
        **variables,
    )
    assert errors.count("DegradedWarning") == 1
    assert "look at the OTEL_* variables" in errors
    if "OTEL_METRICS_EXEMPLAR_FILTER" in variables:
        assert "could not be exported to http://127.0.0.1:1, and the last totals could not be written to" in errors
        assert "either, all else is there" in errors
    (lines,) = journals(tmp_path)
    assert [span["name"] for span in spans_in(lines)] == ["x"]


@pytest.mark.parametrize("before", ["neither", "traces", "values"])
def test_each_provider_that_comes_late_is_said_and_configure_takes_it(tmp_path: Path, before: str) -> None:
    output, errors = script(
        _script(f"""
import impactsdk
from impactsdk.testing import SimulatedSource
impactsdk.configure(sources=[SimulatedSource(100.0)], export="otel")
if {before!r} == "traces": trace.set_tracer_provider(traces)
if {before!r} == "values": metrics.set_meter_provider(values)
impactsdk.measured("early")(lambda: None)()
impactsdk.flush()
if {before!r} != "traces": trace.set_tracer_provider(traces)
if {before!r} != "values": metrics.set_meter_provider(values)
impactsdk.flush()
impactsdk.configure()
impactsdk.measured("late")(lambda: None)()
impactsdk.flush()
print([span.name for span in exporter.get_finished_spans()])
points = [p for r in reader.get_metrics_data().resource_metrics for s in r.scope_metrics for m in s.metrics
          if m.name == "impact.operation.count" for p in m.data.data_points]
print(sorted(p.attributes["impact.operation"] for p in points))
"""),
        tmp_path,
    )
    spans, operations = output.splitlines()
    assert spans == ("['early', 'late']" if before == "traces" else "['late']")
    assert operations == ("['early', 'late']" if before == "values" else "['late']")
    assert ("set its TracerProvider after" in errors) == (before != "traces")
    assert ("set its MeterProvider after" in errors) == (before != "values")


def test_a_detector_of_resources_that_measures_holds_up_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "detector-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: detector\nVersion: 1.0\n", encoding="utf-8")
    (folder / "entry_points.txt").write_text("[opentelemetry_resource_detector]\nmine = detector:Mine\n", encoding="utf-8")
    (tmp_path / "detector.py").write_text(
        """
import impactsdk
from opentelemetry.sdk.resources import Resource, ResourceDetector

class Mine(ResourceDetector):
    def detect(self):
        with impactsdk.measured("detect"):
            meter = impactsdk.configure()
        return Resource({"found": str(meter.settings.service_name)})
""",
        encoding="utf-8",
    )
    output, errors = script(
        """
import faulthandler
faulthandler.dump_traceback_later(30, exit=True)  # it hangs
import impactsdk
from impactsdk.testing import SimulatedSource
impactsdk.configure(export="journal", service_name="name", sources=[SimulatedSource(100.0)])
with impactsdk.measured("x") as region:
    pass
print(region.result().energy_j is not None)
""",
        tmp_path,
        OTEL_EXPERIMENTAL_RESOURCE_DETECTORS="mine",
    )
    assert (output, errors) == ("True\n", "")
    [lines] = journals(tmp_path)
    resources = [plain(item["resource"]["attributes"]) for line in lines for item in line.get("resourceSpans", ())]
    assert [resource["found"] for resource in resources] == ["name"]
