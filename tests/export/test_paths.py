"""Ways out of the process: OTLP over HTTP and gRPC, a Prometheus endpoint, the console; and what a bad backend may cost."""

from __future__ import annotations

import contextlib
import json
import math
import re
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from impactsdk.export.delivery import Bounded, SpanDelivery
from impactsdk.export.exporters import named
from impactsdk.export.scrape import address
from tests.kit import journals, metrics_in, script, spans_in

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra otlp")
pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc", reason="needs the extra otlp-grpc")
pytest.importorskip("opentelemetry.exporter.prometheus", reason="needs the extra prometheus")
pytest.importorskip("opentelemetry.proto", reason="reads what was sent")

from tests.export.receivers import out_of_order, over_grpc, over_http

RECEIVERS = {"http/protobuf": over_http, "grpc": over_grpc}
START = """
import json, time
import impactsdk
from impactsdk import configure, measured
from impactsdk.testing import SimulatedSource
configure(sources=[SimulatedSource(100.0)])
"""
SOME = (
    START
    + """
for _ in range(12):
    with measured("x"):
        time.sleep(0.005)
"""
)
SUM = "print(json.dumps(sum(r.energy_j for r in impactsdk.configure().totals().operations.values())))\n"


def _energies(spans: Sequence[object]) -> float:
    return math.fsum(
        item.value.double_value
        for span in spans
        for item in span.attributes  # type: ignore[attr-defined]
        if item.key == "impact.energy.self"
    )


# --- OTLP ------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", RECEIVERS)
def test_otlp_carries_everything_as_the_variables_say(tmp_path: Path, protocol: str) -> None:
    with RECEIVERS[protocol]() as received:
        output, errors = script(
            SOME + "impactsdk.flush()\n" + SUM,
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_HEADERS="x-tenant=blue",
            OTEL_RESOURCE_ATTRIBUTES="team=red",
            OTEL_SERVICE_NAME="trainer",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="5",
        )
    energy_j = json.loads(output)
    assert errors == ""
    assert [span.name for span in received.spans] == ["x"] * 12
    assert max(len(s.spans) for sent in received.traces for r in sent.resource_spans for s in r.scope_spans) == 5
    assert {headers["x-tenant"] for headers in received.headers} == {"blue"}
    assert (received.resource["team"], received.resource["service.name"]) == ("red", "trainer")
    assert math.isclose(_energies(received.spans), energy_j, rel_tol=1e-9)
    in_x = [value for attributes, value in received.sums("impact.energy") if attributes.get("impact.operation") == "x"]
    assert math.isclose(math.fsum(in_x), energy_j, rel_tol=1e-9)
    assert received.sums("impact.sdk.export.dropped") == [({}, 0.0)]
    assert not (tmp_path / "impact").exists()


def test_each_signal_may_have_a_protocol_and_an_endpoint_of_its_own(tmp_path: Path) -> None:
    with over_grpc() as traces, over_http() as values:
        script(
            SOME,
            tmp_path,
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=traces.endpoint,
            OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="grpc",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=values.endpoint + "/v1/metrics",
        )
    assert (len(traces.spans), traces.metrics, values.traces) == (12, [], [])
    assert values.sums("impact.operation.count") == [({"impact.operation": "x"}, 12.0)]


@pytest.mark.parametrize("off", ["OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"])
def test_a_signal_can_be_turned_off(tmp_path: Path, off: str) -> None:
    with over_http() as received:
        _, errors = script(SOME, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint, **{off: "none"})
    assert errors == ""
    assert (len(received.spans), bool(received.metrics)) == ((0, True) if "TRACES" in off else (12, False))


@pytest.mark.parametrize(("sampler", "ratio"), [("always_off", "1"), ("traceidratio", "0.01"), ("always_on", "1")])
def test_totals_do_not_depend_on_what_is_sampled(tmp_path: Path, sampler: str, ratio: str) -> None:
    with over_http() as received:
        output, errors = script(
            START + "for _ in range(300):\n    with measured('x'): pass\nimpactsdk.flush()\n" + SUM,
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint,
            OTEL_TRACES_SAMPLER=sampler,
            OTEL_TRACES_SAMPLER_ARG=ratio,
        )
    assert errors == ""
    assert len(received.spans) < 50 if sampler != "always_on" else len(received.spans) == 300
    in_x = [value for attributes, value in received.sums("impact.energy") if attributes.get("impact.operation") == "x"]
    assert math.isclose(math.fsum(in_x), json.loads(output), rel_tol=1e-9)


def test_metrics_are_sent_as_often_as_the_variable_says(tmp_path: Path) -> None:
    with over_http() as received:
        script(
            START + "with measured('x'): time.sleep(1.0)\n",
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint,
            OTEL_METRIC_EXPORT_INTERVAL="100",
        )
    assert len(received.metrics) >= 3


def test_what_is_sent_counts_since_measuring_began_and_is_stamped_when_it_was_so(tmp_path: Path) -> None:
    with over_http() as received:
        script(
            START + "for name in 'ab':\n    with measured(name): time.sleep(0.4)\n",
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint,
            OTEL_METRIC_EXPORT_INTERVAL="200",
        )
    points = [
        (metric.name, point)
        for sent in received.metrics
        for resource in sent.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in [*metric.sum.data_points, *metric.histogram.data_points]
    ]
    assert len({point.start_time_unix_nano for _, point in points}) == 1
    device = {point.time_unix_nano: point for name, point in points if name == "hw.energy"}
    assert len(device) >= 3
    for point in device.values():
        seconds = (point.time_unix_nano - point.start_time_unix_nano) * 1e-9
        assert 0.99 * point.as_double <= 100.0 * seconds < point.as_double + 200.0, "of 100 W; the first reading comes later"


def test_what_is_counted_by_the_interval_keeps_its_times(tmp_path: Path) -> None:
    with over_http() as received:
        script(
            START + "with measured('x'): time.sleep(0.5)\n",
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint,
            OTEL_METRIC_EXPORT_INTERVAL="200",
            OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta",
        )
    points = [
        point
        for sent in received.metrics
        for resource in sent.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.sum.data_points
        if metric.name == "hw.energy"
    ]
    assert len(points) >= 2
    assert points[0].time_unix_nano == points[1].start_time_unix_nano


def three_flushes(tmp_path: Path, endpoint: str, **variables: str) -> tuple[str, str]:
    """Three regions, each handed on at once."""
    code = START + "for _ in range(3):\n    with measured('x'): time.sleep(0.1)\n    impactsdk.flush()\n"
    return script(code, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, **variables)


def test_an_interval_that_was_refused_is_told_and_the_totals_are_written(tmp_path: Path) -> None:
    with over_http(refused=(2,)) as received:
        _, errors = three_flushes(
            tmp_path,
            received.endpoint,
            OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta",
            OTEL_TRACES_EXPORTER="none",
        )
    assert (
        f"impactsdk: metrics of some intervals could not be exported to {received.endpoint}; the totals are written" in errors
    )
    (lines,) = journals(tmp_path)
    counts = [metric for metric in metrics_in(lines) if metric["name"] == "impact.operation.count"]
    assert counts[-1]["sum"]["dataPoints"][0]["asInt"] == "3"


def test_a_flush_says_what_a_backend_has_refused_since_the_last_one(tmp_path: Path) -> None:
    with over_http(refused=(1, 4)) as received:  # the spans, and later a request of metrics, which come with each flush
        printed, _ = script(
            START + "with measured('x'): time.sleep(0.1)\nprint([impactsdk.flush() for _ in range(4)])\n",
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint,
        )
    assert printed == "[False, True, False, True]\n"


def test_of_cumulative_metrics_only_the_last_must_arrive(tmp_path: Path) -> None:
    with over_http(refused=(2,)) as received:
        _, errors = three_flushes(
            tmp_path,
            received.endpoint,
            OTEL_TRACES_EXPORTER="none",
        )
    assert "impactsdk:" not in errors
    assert received.sums("impact.operation.count") == [({"impact.operation": "x"}, 3.0)]
    assert journals(tmp_path) == []


def test_a_slow_backend_still_gets_everything(tmp_path: Path) -> None:
    with over_http(slow_s=0.4) as received:
        _, errors = script(SOME, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint)
    assert errors == ""
    assert len(received.spans) == 12
    assert received.sums("impact.operation.count") == [({"impact.operation": "x"}, 12.0)]


@pytest.mark.parametrize(
    ("missing", "extra", "variables"),
    [
        ("opentelemetry.exporter.otlp.proto.http", "otlp", {"IMPACTSDK_EXPORT": "otel"}),
        ("opentelemetry.exporter.otlp.proto.grpc", "otlp-grpc", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}),
        ("opentelemetry.exporter.prometheus", "prometheus", {"IMPACTSDK_EXPORT": "prometheus"}),
    ],
)
def test_what_is_not_installed_is_named_once_and_the_journal_is_written(
    tmp_path: Path, missing: str, extra: str, variables: dict[str, str]
) -> None:
    _, errors = script(
        f"import sys\nsys.modules[{missing!r}] = None\n" + SOME,
        tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
        **variables,
    )
    assert errors.count("DegradedWarning") == 1
    assert f"pip install 'impactsdk[{extra}]'" in errors
    (lines,) = journals(tmp_path)
    assert len(spans_in(lines)) == 12


def test_a_protocol_that_is_none_is_told_and_http_is_used(tmp_path: Path) -> None:
    with over_http() as received:
        _, errors = script(SOME, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint, OTEL_EXPORTER_OTLP_PROTOCOL="pigeon")
    assert errors.count("DegradedWarning") == 1
    assert "OTEL_EXPORTER_OTLP_PROTOCOL='pigeon': expected http/protobuf or grpc" in errors
    assert len(received.spans) == 12


def test_an_exporter_that_nobody_knows_is_told_and_the_journal_is_written(tmp_path: Path) -> None:
    _, errors = script(SOME, tmp_path, OTEL_TRACES_EXPORTER="pigeon")
    assert "'pigeon'" in errors
    assert "OTEL_TRACES_EXPORTER" in errors
    (lines,) = journals(tmp_path)
    assert len(spans_in(lines)) == 12


def test_what_the_variables_name() -> None:
    assert named({}, "traces", default=True) == ["otlp"]
    assert named({}, "traces", default=False) == []
    assert named({"OTEL_TRACES_EXPORTER": " console , otlp,console"}, "traces", default=False) == ["console", "otlp"]
    assert named({"OTEL_METRICS_EXPORTER": "none"}, "metrics", default=True) == []


# --- console ------------------------------------------------------------------------------------


def test_the_console_shows_spans_and_metrics_on_standard_output(tmp_path: Path) -> None:
    output, errors = script(SOME, tmp_path, IMPACTSDK_EXPORT="console")
    assert errors == ""
    assert output.count('"impact.energy.self"') == 12
    assert '"impact.operation.count"' in output
    assert len(set(re.findall(r'"start_time_unix_nano": (\d+)', output))) == 1
    assert not (tmp_path / "impact").exists()


def test_only_what_the_variables_name_goes_to_the_console(tmp_path: Path) -> None:
    output, errors = script(SOME, tmp_path, OTEL_TRACES_EXPORTER="console")
    assert errors == ""
    assert output.count('"impact.energy.self"') == 12
    assert "impact.operation.count" not in output


# --- Prometheus ------------------------------------------------------------------------------------

SCRAPE = """
import os, urllib.request, socket
port = int(os.environ["OTEL_EXPORTER_PROMETHEUS_PORT"])
def scrape(): return urllib.request.urlopen(f"http://localhost:{port}/metrics", timeout=10).read().decode()
"""


def _port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def _sum(text: str, name: str) -> float:
    return math.fsum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"{name}[{{ ]", line))


@pytest.mark.parametrize("how", ["IMPACTSDK_EXPORT", "OTEL_METRICS_EXPORTER"])
def test_prometheus_is_served_until_the_end_and_adds_up(tmp_path: Path, how: str) -> None:
    output, errors = script(
        SOME
        + SCRAPE
        + """
impactsdk.flush()
print(scrape())
impactsdk.shutdown()
with socket.socket() as again:
    again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    again.bind(("127.0.0.1", port))  # it is free again
""",
        tmp_path,
        OTEL_EXPORTER_PROMETHEUS_PORT=_port(),
        **{how: "prometheus"},
    )
    assert errors == ""
    assert 'impact_operation="x"' in output
    assert output.count("\ntarget_info{") == 1
    assert 'impact_operation_energy_joules_bucket{impact_operation="x"' in output
    assert math.isclose(_sum(output, "impact_energy_joules_total"), _sum(output, "hw_energy_joules_total"), rel_tol=1e-6)
    assert not (tmp_path / "impact").exists()


def test_what_is_scraped_while_measuring_adds_up_each_time(tmp_path: Path) -> None:
    output, _ = script(
        START
        + SCRAPE
        + """
import threading
def work():
    for _ in range(400):
        with measured("x", span=False): time.sleep(0.001)
        time.sleep(0.001)
measured("first")(lambda: None)()
thread = threading.Thread(target=work)
thread.start()
while thread.is_alive():
    print(scrape() + "END")
""",
        tmp_path,
        OTEL_EXPORTER_PROMETHEUS_PORT=_port(),
        IMPACTSDK_EXPORT="prometheus",
    )
    scrapes = output.split("END")[:-1]
    assert len(scrapes) >= 3
    for text in scrapes:
        # A region that is open has its joules in no operation yet; one is at most a few milliseconds long.
        open_j = _sum(text, "hw_energy_joules_total") - _sum(text, "impact_energy_joules_total")
        assert -1e-6 <= open_j < 100.0 * 0.2


def test_a_port_that_is_taken_is_told_and_the_journal_is_written(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        _, errors = script(
            SOME,
            tmp_path,
            IMPACTSDK_EXPORT="prometheus",
            OTEL_EXPORTER_PROMETHEUS_PORT=str(taken.getsockname()[1]),
            OTEL_EXPORTER_PROMETHEUS_HOST="127.0.0.1",
        )
    assert errors.count("DegradedWarning") == 1
    assert "OTEL_EXPORTER_PROMETHEUS_PORT" in errors
    (lines,) = journals(tmp_path)
    assert len(spans_in(lines)) == 12


def test_a_child_does_not_keep_the_port(tmp_path: Path) -> None:
    script(
        SOME
        + SCRAPE
        + """
child = os.fork()
if not child:
    time.sleep(20)
    os._exit(0)
impactsdk.shutdown()
try:
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
        again.listen()
finally:
    os.kill(child, 9)
    os.waitpid(child, 0)
""",
        tmp_path,
        OTEL_EXPORTER_PROMETHEUS_PORT=_port(),
        OTEL_EXPORTER_PROMETHEUS_HOST="127.0.0.1",
        IMPACTSDK_EXPORT="prometheus",
    )


def test_where_prometheus_is_served() -> None:
    assert address({}) == ("localhost", 9464)
    assert address({"OTEL_EXPORTER_PROMETHEUS_HOST": "0.0.0.0", "OTEL_EXPORTER_PROMETHEUS_PORT": " 1 "}) == ("0.0.0.0", 1)
    for port in ("x", "-1", "65536", "1.5"):
        with pytest.raises(ValueError, match="OTEL_EXPORTER_PROMETHEUS_PORT"):
            address({"OTEL_EXPORTER_PROMETHEUS_PORT": port})


def test_the_applications_providers_are_used_beside(tmp_path: Path) -> None:
    output, errors = script(
        """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
traces, values = TracerProvider(), MeterProvider([reader])
traces.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(traces)
metrics.set_meter_provider(values)
"""
        + SOME
        + SCRAPE
        + """
impactsdk.flush()
print(len(exporter.get_finished_spans()), "impact_energy_joules_total" in scrape(), reader.get_metrics_data() is not None)
impactsdk.shutdown()
with traces.get_tracer("theirs").start_as_current_span("theirs"): pass
print(len(exporter.get_finished_spans()), trace.get_tracer_provider() is traces, metrics.get_meter_provider() is values)
""",
        tmp_path,
        IMPACTSDK_EXPORT="otel,prometheus",
        OTEL_EXPORTER_PROMETHEUS_PORT=_port(),
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
    )
    assert output.splitlines() == ["12 True True", "13 True True"]
    assert errors == ""


# --- a fork ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["exporter", "reader"])
def test_a_forked_child_sends_nothing_of_what_its_parent_has_measured(tmp_path: Path, kind: str) -> None:
    output, _ = script(
        f"""
import os
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from impactsdk.export import providers

def told(what):
    os.write(1, f"{{what}} {{os.getpid()}}\\n".encode())

class Spans(SpanExporter):
    def export(self, spans):
        told("spans")
        return SpanExportResult.SUCCESS

class Values(MetricExporter):
    def export(self, metrics_data, timeout_millis=10_000, **_):
        told("values")
        return MetricExportResult.SUCCESS
    def force_flush(self, timeout_millis=10_000): return True
    def shutdown(self, timeout_millis=30_000, **_): ...

def exporter(environ, signal, name, complain):
    if signal == "traces": return Spans()
    return Values() if {kind!r} == "exporter" else PeriodicExportingMetricReader(Values())

providers.exporter = exporter
{SOME}
impactsdk.flush()
with measured("open") as region:
    child = os.fork()
    if not child:
        region.span.end()
        time.sleep(0.5)
        os._exit(0)
os.waitpid(child, 0)
print(os.getpid(), flush=True)
impactsdk.shutdown()
""",
        tmp_path,
        IMPACTSDK_EXPORT="otel",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
        OTEL_METRIC_EXPORT_INTERVAL="50",
        OTEL_BSP_SCHEDULE_DELAY="50",
    )
    (parent,) = [line for line in output.splitlines() if " " not in line]
    assert {line for line in output.splitlines() if " " in line} == {f"spans {parent}", f"values {parent}"}


# --- a backend that is down ------------------------------------------------------------------------------------


def _dropped(lines: list[dict[str, object]]) -> int:
    counts = [metric for metric in metrics_in(lines) if metric["name"] == "impact.sdk.export.dropped"]
    return int(counts[-1]["sum"]["dataPoints"][0]["asInt"])


@pytest.mark.parametrize("protocol", RECEIVERS)
@pytest.mark.parametrize("how", ["refused", "silent"])
@pytest.mark.parametrize("export", ["auto", "otel,journal"])
def test_a_bad_backend_costs_a_bounded_time_and_no_result(tmp_path: Path, protocol: str, how: str, export: str) -> None:
    with out_of_order(how) as endpoint:
        output, errors = script(
            SOME + "print(time.monotonic())\n",
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            IMPACTSDK_SHUTDOWN_TIMEOUT_S="1",
            IMPACTSDK_EXPORT=export,
        )
        took_s = time.monotonic() - float(output)
    assert took_s < 4.0, f"{took_s} s; a second for us, the rest for the interpreter on a slow machine"
    (said,) = [line for line in errors.splitlines() if line.startswith("impactsdk: ")]
    assert re.match(r"impactsdk: 12 spans \(.*J\) and the last metrics could not be exported to " + endpoint, said)
    (lines,) = journals(tmp_path)
    assert [span["name"] for span in spans_in(lines)] == ["x"] * 12
    assert _dropped(lines) == 12
    counts = [metric for metric in metrics_in(lines) if metric["name"] == "impact.operation.count"]
    assert counts[-1]["sum"]["dataPoints"][0]["asInt"] == "12"


def test_no_password_is_shown(tmp_path: Path) -> None:
    with out_of_order("refused") as endpoint:
        _, errors = script(
            SOME,
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint.replace("//", "//user:se/cr@t@"),
            IMPACTSDK_SHUTDOWN_TIMEOUT_S="1",
        )
    (said,) = [line for line in errors.splitlines() if line.startswith("impactsdk: ")]
    assert f"could not be exported to {endpoint};" in said


def test_what_can_be_neither_exported_nor_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "impact").write_text("a file in its place")
    with out_of_order("refused") as endpoint:
        _, errors = script(SOME, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, IMPACTSDK_SHUTDOWN_TIMEOUT_S="1")
    (said,) = [line for line in errors.splitlines() if line.startswith("impactsdk: ")]
    assert f"could not be exported to {endpoint}, and 12 spans and the last totals could not be written to" in said


def test_a_standard_error_that_cannot_flush_costs_no_result(tmp_path: Path) -> None:
    with out_of_order("refused") as endpoint:
        output, _ = script(
            """
import sys
class Lines:
    lines = []
    def write(self, text): self.lines.append(text)
sys.stderr = Lines()
"""
            + SOME
            + """
impactsdk.shutdown()
print(sum("could not be exported" in line for line in Lines.lines))
sys.stderr = sys.__stderr__
""",
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            IMPACTSDK_SHUTDOWN_TIMEOUT_S="1",
        )
    assert output == "1\n"
    (lines,) = journals(tmp_path)
    assert len(spans_in(lines)) == 12


def test_the_loss_of_spans_is_told_to_the_backend_of_the_metrics(tmp_path: Path) -> None:
    with out_of_order("silent") as gone, over_http() as received:
        _, errors = script(
            SOME,
            tmp_path,
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=gone,
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=received.endpoint + "/v1/metrics",
            IMPACTSDK_SHUTDOWN_TIMEOUT_S="1",
        )
    assert "the last metrics" not in errors
    assert received.sums("impact.sdk.export.dropped") == [({}, 12.0)]


def test_a_flush_waits_no_longer_than_it_may(tmp_path: Path) -> None:
    with out_of_order("silent") as endpoint:
        output, _ = script(
            SOME + "begun = time.monotonic()\nprint(impactsdk.flush(0.5), time.monotonic() - begun < 3.0)\n",
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            IMPACTSDK_SHUTDOWN_TIMEOUT_S="1",
        )
    assert output == "False True\n"


class _Exporter(SpanExporter):
    """Takes what it is told to take."""

    def __init__(self, *answers: SpanExportResult | Exception) -> None:
        self.answers = list(answers)
        self.taken: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        answer = self.answers.pop(0) if self.answers else SpanExportResult.SUCCESS
        if isinstance(answer, Exception):
            raise answer
        if answer is SpanExportResult.SUCCESS:
            self.taken += spans
        return answer


def _ended(delivery: SpanDelivery, count: int) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(delivery)
    for _ in range(count):
        span = provider.get_tracer("x").start_span("x")
        span.set_attribute("impact.energy.self", 2.0)
        span.end()


@pytest.mark.parametrize("answer", [SpanExportResult.FAILURE, RuntimeError("broken")])
def test_what_has_no_receipt_is_kept_and_counted(answer: SpanExportResult | Exception) -> None:
    exporter = _Exporter(answer)
    delivery = SpanDelivery(exporter)
    _ended(delivery, 3)
    delivery.force_flush()
    assert (delivery.dropped, len(delivery.kept), delivery.missing_j) == (3, 3, 6.0)
    _ended(delivery, 2)
    delivery.force_flush()
    assert (delivery.dropped, len(delivery.kept), len(exporter.taken)) == (3, 3, 2)
    delivery.shutdown()
    delivery.over = True
    assert (delivery.dropped, delivery.missing_j) == (3, 6.0)


def test_only_so_many_are_kept_and_all_are_counted() -> None:
    delivery = SpanDelivery(_Exporter(*[SpanExportResult.FAILURE] * 100), most_kept=10)
    _ended(delivery, 25)
    delivery.shutdown()
    delivery.over = True
    assert (delivery.dropped, len(delivery.kept), delivery.missing_j) == (25, 10, 50.0)


def test_what_is_forgotten_and_arrives_all_the_same_is_not_missing() -> None:
    delivery = SpanDelivery(_Exporter(), most_kept=1)
    _ended(delivery, 5)
    delivery.shutdown()
    delivery.over = True
    assert (delivery.dropped, delivery.kept, delivery.missing_j) == (0, [], 0.0)


def test_a_provider_that_fails_says_so_to_whoever_asks() -> None:
    class Broken:
        def force_flush(self, timeout_millis: int) -> bool:
            raise RuntimeError("flush")

        def shutdown(self) -> None:
            raise RuntimeError("shutdown")

    bounded = Bounded(Broken())
    with pytest.raises(RuntimeError, match="flush"):
        bounded.force_flush(1_000)
    bounded.begin_shutdown()
    assert bounded.wait(time.monotonic() + 10.0)
    assert str(bounded.error) == "shutdown"
    with contextlib.suppress(RuntimeError):
        assert bounded.force_flush(10) is False
