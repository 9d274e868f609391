"""The OTLP/JSON encoding, read back by the official protobuf messages where they are installed."""

from __future__ import annotations

import enum
import json
import math
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from impactsdk.export.otlp_json import encode_metrics, encode_spans


class Phase(str, enum.Enum):
    TRAIN = "train"


class Number(enum.IntEnum):
    THREE = 3


class Half(float):
    """As NumPy's numbers are: a float of another class."""

    def __str__(self) -> str:
        return "half"


def _span(**values: Any) -> ReadableSpan:
    context = SpanContext(0x1F, 0x2A, False, TraceFlags(1), TraceState([("vendor", "x")]))
    parent = SpanContext(0x1F, 0x0B, True)
    resource = Resource({"service.name": "here"})
    scope = InstrumentationScope("impactsdk", "1.0", "https://schema")
    filled = {"name": "x", "context": context, "parent": parent, "resource": resource, "instrumentation_scope": scope, **values}
    return ReadableSpan(**filled)


def _only(encoded: dict[str, Any]) -> dict[str, Any]:
    (resource,) = encoded["resourceSpans"]
    (scope,) = resource["scopeSpans"]
    (span,) = scope["spans"]
    return dict(span)


def test_a_span_by_hand() -> None:
    encoded = _only(encode_spans([_span(start_time=10, end_time=2**53 + 1, status=Status(StatusCode.ERROR, "why"))]))
    assert encoded == {
        "traceId": "0000000000000000000000000000001f",
        "spanId": "000000000000002a",
        "parentSpanId": "000000000000000b",
        "traceState": "vendor=x",
        "flags": 0x301,
        "name": "x",
        "kind": 1,
        "startTimeUnixNano": "10",
        "endTimeUnixNano": "9007199254740993",
        "attributes": [],
        "status": {"code": 2, "message": "why"},
    }


def test_what_a_limit_has_left_out_and_where_things_come_from_is_in_it() -> None:
    limits = SpanLimits(max_event_attributes=1, max_link_attributes=1)
    provider = TracerProvider(resource=Resource({"a": 1}, "https://r"), span_limits=limits, shutdown_on_exit=False)
    tracer = provider.get_tracer("here", "1", schema_url="https://s", attributes={"kind": "test"})
    far, near = SpanContext(5, 6, True, TraceFlags(1)), SpanContext(5, 7, False)
    span: Any = tracer.start_span("x", links=[Link(far, {"a": 1, "b": 2}), Link(near)])
    span.add_event("e", {"a": 1, "b": 2})
    span.end()
    encoded = encode_spans([span])
    (resource,) = encoded["resourceSpans"]
    (scope,) = resource["scopeSpans"]
    assert (resource["schemaUrl"], scope["schemaUrl"]) == ("https://r", "https://s")
    assert scope["scope"]["attributes"] == [{"key": "kind", "value": {"stringValue": "test"}}]
    event, links = _only(encoded)["events"][0], _only(encoded)["links"]
    assert (event["droppedAttributesCount"], len(event["attributes"])) == (1, 1)
    assert (links[0]["droppedAttributesCount"], len(links[0]["attributes"])) == (1, 1)
    assert [link["flags"] for link in links] == [0x301, 0x100]
    assert _only(encoded)["flags"] & 0x301 == 0x101, "it has no parent"


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("text", {"stringValue": "text"}),
        (True, {"boolValue": True}),
        (3, {"intValue": "3"}),
        (-(2**63), {"intValue": "-9223372036854775808"}),
        (2**63, {"stringValue": "9223372036854775808"}),
        (0.5, {"doubleValue": 0.5}),
        (math.nan, {"doubleValue": "NaN"}),
        (math.inf, {"doubleValue": "Infinity"}),
        (-math.inf, {"doubleValue": "-Infinity"}),
        (b"\x00\xff", {"bytesValue": "AP8="}),
        ((1, "a"), {"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "a"}]}}),
        (("a", None), {"arrayValue": {"values": [{"stringValue": "a"}, {}]}}),
        ({"k": 1}, {"kvlistValue": {"values": [{"key": "k", "value": {"intValue": "1"}}]}}),
        (Phase.TRAIN, {"stringValue": "train"}),
        (Number.THREE, {"intValue": "3"}),
        (Half(0.5), {"doubleValue": 0.5}),
        (complex(1, 2), {"stringValue": "(1+2j)"}),
    ],
    ids=repr,
)
def test_each_kind_of_value(value: Any, encoded: dict[str, Any]) -> None:
    (attribute,) = _only(encode_spans([_span(attributes={"key": value})]))["attributes"]
    assert attribute == {"key": "key", "value": encoded}
    json.dumps(attribute, allow_nan=False)


def test_spans_are_grouped_by_resource_and_scope() -> None:
    resource, scope = Resource({}), InstrumentationScope("a", None)
    spans = [_span(resource=resource, instrumentation_scope=scope) for _ in range(3)] + [_span()]
    encoded = encode_spans(spans)["resourceSpans"]
    assert [len(group["scopeSpans"][0]["spans"]) for group in encoded] == [3, 1]
    assert encoded[0]["scopeSpans"][0]["scope"] == {"name": "a", "version": ""}


def _metrics() -> Any:
    reader = InMemoryMetricReader()
    views = [View(instrument_name="exponential", aggregation=ExponentialBucketHistogramAggregation())]
    provider = MeterProvider([reader], views=views, shutdown_on_exit=False)
    meter = provider.get_meter("here", "1")
    context = trace.set_span_in_context(TracerProvider(shutdown_on_exit=False).get_tracer("x").start_span("x"))
    meter.create_counter("counter", "J", "of joules").add(3, {"a": "b"}, context)
    meter.create_up_down_counter("updown").add(-1.5)
    meter.create_gauge("gauge").set(7.5)
    meter.create_histogram("histogram").record(3.0, {}, context)
    meter.create_histogram("exponential").record(3.0)
    data = reader.get_metrics_data()
    provider.shutdown()
    return data


def test_each_kind_of_metric() -> None:
    encoded = encode_metrics(_metrics())
    (resource,) = encoded["resourceMetrics"]
    found = {metric["name"]: metric for metric in resource["scopeMetrics"][0]["metrics"]}
    assert found["counter"]["sum"]["isMonotonic"] is True
    assert found["counter"]["sum"]["aggregationTemporality"] == 2
    assert found["counter"]["sum"]["dataPoints"][0]["asInt"] == "3"
    assert len(found["counter"]["sum"]["dataPoints"][0]["exemplars"][0]["traceId"]) == 32
    assert found["updown"]["sum"]["isMonotonic"] is False
    assert found["updown"]["sum"]["dataPoints"][0]["asDouble"] == -1.5
    assert found["gauge"]["gauge"]["dataPoints"][0]["asDouble"] == 7.5
    histogram = found["histogram"]["histogram"]["dataPoints"][0]
    assert (histogram["count"], histogram["sum"], histogram["min"], histogram["max"]) == ("1", 3.0, 3.0, 3.0)
    assert len(histogram["bucketCounts"]) == len(histogram["explicitBounds"]) + 1
    assert len(histogram["exemplars"][0]["spanId"]) == 16
    assert found["exponential"]["exponentialHistogram"]["dataPoints"][0]["count"] == "1"


def _restore_ids(encoded: Any) -> Any:
    """OTLP/JSON writes ids in hexadecimal; protobuf's own JSON mapping wants base64."""
    import base64

    if isinstance(encoded, dict):
        return {
            key: base64.b64encode(bytes.fromhex(value)).decode()
            if key in ("traceId", "spanId", "parentSpanId") and isinstance(value, str)
            else _restore_ids(value)
            for key, value in encoded.items()
        }
    return [_restore_ids(item) for item in encoded] if isinstance(encoded, list) else encoded


def test_the_official_messages_can_read_it() -> None:
    pytest.importorskip("opentelemetry.proto")
    from google.protobuf import json_format
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("here", "1")
    span: Any = tracer.start_span(
        "x",
        kind=trace.SpanKind.SERVER,
        links=[Link(SpanContext(5, 6, False), {"why": "link"})],
        attributes={"a": [1, 2], "b": 2**70, "c": math.inf, "d": b"bytes"},
    )
    span.record_exception(ValueError("x"))
    span.end()
    traces = json_format.ParseDict(_restore_ids(encode_spans([span])), ExportTraceServiceRequest())
    read = traces.resource_spans[0].scope_spans[0].spans[0]
    assert read.name == "x"
    assert read.kind == 2
    assert int.from_bytes(read.trace_id, "big") == span.context.trace_id
    assert read.end_time_unix_nano == span.end_time
    assert read.events[0].name == "exception"
    assert len(read.links) == 1
    metrics = json_format.ParseDict(_restore_ids(encode_metrics(_metrics())), ExportMetricsServiceRequest())
    assert len(metrics.resource_metrics[0].scope_metrics[0].metrics) == 5
