"""Spans and metrics as OTLP/JSON, the encoding of the OpenTelemetry file format: one export request a line.

Our own because the official encoder pins one minor version of the SDK. The rules are those of the OTLP specification
("JSON Protobuf Encoding"): lowerCamelCase keys, ids in hexadecimal, 64-bit integers as text, enums as numbers.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import Metric, MetricsData
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext

__all__ = ["encode_metrics", "encode_spans"]

_KNOWN_IF_REMOTE, _REMOTE = 0x100, 0x200


def encode_spans(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    """An ``ExportTraceServiceRequest`` of finished spans, grouped by resource and scope."""
    groups: dict[tuple[int, int], tuple[Resource, InstrumentationScope | None, list[dict[str, Any]]]] = {}
    for span in spans:
        key = (id(span.resource), id(span.instrumentation_scope))
        groups.setdefault(key, (span.resource, span.instrumentation_scope, []))[2].append(_span(span))
    return {
        "resourceSpans": [
            {**_resource(resource), "scopeSpans": [{**_scope(scope), "spans": encoded}]}
            for resource, scope, encoded in groups.values()
        ]
    }


def encode_metrics(data: MetricsData) -> dict[str, Any]:
    """An ``ExportMetricsServiceRequest``."""
    return {
        "resourceMetrics": [
            {
                **_resource(of_resource.resource),
                "scopeMetrics": [
                    {**_scope(of_scope.scope), "metrics": [_metric(metric) for metric in of_scope.metrics]}
                    for of_scope in of_resource.scope_metrics
                ],
            }
            for of_resource in data.resource_metrics
        ]
    }


def _span(span: ReadableSpan) -> dict[str, Any]:
    context = span.get_span_context()
    assert context is not None
    encoded: dict[str, Any] = {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        "flags": _flags(context.trace_flags, span.parent),
        "name": span.name,
        "kind": span.kind.value + 1,
        "startTimeUnixNano": str(span.start_time or 0),
        "endTimeUnixNano": str(span.end_time or 0),
        "attributes": _attributes(span.attributes),
        "status": {"code": span.status.status_code.value},
    }
    if context.trace_state:
        encoded["traceState"] = context.trace_state.to_header()
    if span.parent is not None:
        encoded["parentSpanId"] = f"{span.parent.span_id:016x}"
    if span.status.description:
        encoded["status"]["message"] = span.status.description
    if span.events:
        encoded["events"] = [
            {"timeUnixNano": str(event.timestamp), "name": event.name, **_limited(event.attributes)} for event in span.events
        ]
    if span.links:
        encoded["links"] = [
            {
                "traceId": f"{link.context.trace_id:032x}",
                "spanId": f"{link.context.span_id:016x}",
                "flags": _flags(link.context.trace_flags, link.context),
                **_limited(link.attributes),
            }
            for link in span.links
        ]
    dropped = {
        "droppedAttributesCount": span.dropped_attributes,
        "droppedEventsCount": span.dropped_events,
        "droppedLinksCount": span.dropped_links,
    }
    encoded.update({key: count for key, count in dropped.items() if count})
    return encoded


def _limited(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """The attributes of an event or a link, and how many a limit has left out."""
    dropped = getattr(attributes, "dropped", 0)
    return {"attributes": _attributes(attributes), **({"droppedAttributesCount": dropped} if dropped else {})}


def _flags(flags: int, context: SpanContext | None) -> int:
    """The flags of W3C, and above them that it is known whether a context (of a parent, of a link) is another process's."""
    return int(flags) | _KNOWN_IF_REMOTE | (_REMOTE if context is not None and context.is_remote else 0)


def _metric(metric: Metric) -> dict[str, Any]:
    data: Any = metric.data
    encoded: dict[str, Any] = {"name": metric.name, "unit": metric.unit or "", "description": metric.description or ""}
    points = [_point(point) for point in data.data_points]
    kind = type(data).__name__
    if kind == "Gauge":
        encoded["gauge"] = {"dataPoints": points}
    else:
        body = {"dataPoints": points, "aggregationTemporality": data.aggregation_temporality.value}
        if kind == "Sum":
            body["isMonotonic"] = data.is_monotonic
        encoded[{"Sum": "sum", "Histogram": "histogram", "ExponentialHistogram": "exponentialHistogram"}[kind]] = body
    return encoded


def _point(point: Any) -> dict[str, Any]:
    encoded: dict[str, Any] = {"attributes": _attributes(point.attributes), "timeUnixNano": str(point.time_unix_nano)}
    if getattr(point, "start_time_unix_nano", None):
        encoded["startTimeUnixNano"] = str(point.start_time_unix_nano)
    if getattr(point, "exemplars", None):
        encoded["exemplars"] = [_exemplar(exemplar) for exemplar in point.exemplars]
    if hasattr(point, "value"):
        encoded.update({"asInt": str(point.value)} if isinstance(point.value, int) else {"asDouble": _double(point.value)})
        return encoded
    encoded["count"] = str(point.count)
    encoded["sum"] = _double(point.sum)
    if point.count:
        encoded["min"], encoded["max"] = _double(point.min), _double(point.max)
    if hasattr(point, "bucket_counts"):
        encoded["bucketCounts"] = [str(count) for count in point.bucket_counts]
        encoded["explicitBounds"] = [_double(bound) for bound in point.explicit_bounds]
    else:
        encoded["scale"], encoded["zeroCount"] = point.scale, str(point.zero_count)
        for name, buckets in (("positive", point.positive), ("negative", point.negative)):
            encoded[name] = {"offset": buckets.offset, "bucketCounts": [str(count) for count in buckets.bucket_counts]}
    return encoded


def _exemplar(exemplar: Any) -> dict[str, Any]:
    encoded: dict[str, Any] = {
        "timeUnixNano": str(exemplar.time_unix_nano),
        "asDouble": _double(exemplar.value),
        "filteredAttributes": _attributes(exemplar.filtered_attributes),
    }
    if exemplar.trace_id is not None and exemplar.span_id is not None:
        encoded["traceId"], encoded["spanId"] = f"{exemplar.trace_id:032x}", f"{exemplar.span_id:016x}"
    return encoded


def _resource(resource: Resource) -> dict[str, Any]:
    encoded: dict[str, Any] = {"resource": {"attributes": _attributes(resource.attributes)}}
    if resource.schema_url:
        encoded["schemaUrl"] = resource.schema_url
    return encoded


def _scope(scope: InstrumentationScope | None) -> dict[str, Any]:
    if scope is None:
        return {"scope": {}}
    encoded: dict[str, Any] = {"scope": {"name": scope.name, "version": scope.version or ""}}
    if scope.attributes:
        encoded["scope"]["attributes"] = _attributes(scope.attributes)
    if scope.schema_url:
        encoded["schemaUrl"] = scope.schema_url
    return encoded


def _attributes(attributes: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in (attributes or {}).items()]


def _value(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    for kind, encode in _BY_TYPE.items():  # also their subclasses: members of an Enum, numbers of NumPy
        if isinstance(value, kind):
            return encode(value)
    if isinstance(value, Mapping):
        return {"kvlistValue": {"values": _attributes(value)}}
    if isinstance(value, Sequence):
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    return {"stringValue": str(value)}


def _integer(value: int) -> dict[str, Any]:
    """A 64-bit integer; a larger one is text, since the format has no other place for it."""
    return {"intValue": str(int(value))} if -(2**63) <= value < 2**63 else {"stringValue": str(int(value))}


_BY_TYPE: dict[type, Callable[[Any], dict[str, Any]]] = {
    str: lambda value: {"stringValue": str.__str__(value)},
    bool: lambda value: {"boolValue": value},
    int: _integer,
    float: lambda value: {"doubleValue": _double(value)},
    bytes: lambda value: {"bytesValue": base64.b64encode(value).decode()},
}


def _double(value: float) -> float | str:
    """JSON has no name for these; protobuf's JSON mapping has."""
    if math.isfinite(value):
        return float(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
