"""Metrics stamped with the instant whose values they are, and counted since measuring began.

OpenTelemetry stamps what it observes with the instant at which it asks, and begins each stream when it first asks for it: the
joules of minutes would lie in a millisecond, and each new operation would have another beginning.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import Metric, MetricsData

__all__ = ["dated"]


def dated(data: MetricsData, since_ns: int, at_ns: int) -> MetricsData:
    """The same metrics, as of ``at_ns`` and all since ``since_ns``: to a reader, another beginning is a reset.

    Sums and histograms of single intervals (delta temporality) stay as they are: those lie between two collections.
    """
    at_ns = max(since_ns, at_ns)
    resources = [
        replace(
            of_resource,
            scope_metrics=[
                replace(of_scope, metrics=[_metric(metric, since_ns, at_ns) for metric in of_scope.metrics])
                for of_scope in of_resource.scope_metrics
            ],
        )
        for of_resource in data.resource_metrics
    ]
    return replace(data, resource_metrics=resources)


def _metric(metric: Metric, since_ns: int, at_ns: int) -> Metric:
    from opentelemetry.sdk.metrics.export import AggregationTemporality

    body: Any = metric.data
    temporality = getattr(body, "aggregation_temporality", None)
    if temporality is AggregationTemporality.DELTA:
        return metric
    # A gauge has no beginning.
    times = {"time_unix_nano": at_ns} if temporality is None else {"time_unix_nano": at_ns, "start_time_unix_nano": since_ns}
    return replace(metric, data=replace(body, data_points=[replace(point, **times) for point in body.data_points]))
