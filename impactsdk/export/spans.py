"""A measurement as span attributes, and the late end of the span that carries them."""

from __future__ import annotations

from typing import Any

from opentelemetry.trace import Span

from impactsdk import semconv
from impactsdk.model import Measurement

__all__ = ["attributes_of", "end_span"]


def attributes_of(measurement: Measurement, *, interrupted: bool = False) -> dict[str, Any]:
    """The ``impact.*`` attributes of one span; what is unknown is left out."""
    duration_s, self_j = measurement.duration_s, measurement.energy_j
    values: dict[str, Any] = {
        semconv.OPERATION: measurement.name,
        semconv.ENERGY_SELF: measurement.self_energy_j,
        semconv.ENERGY_SELF_LOW: measurement.self_energy_low_j,
        semconv.ENERGY_SELF_HIGH: measurement.self_energy_high_j,
        semconv.ENERGY_INCLUSIVE: measurement.energy_j,
        semconv.ENERGY_INCLUSIVE_LOW: measurement.energy_low_j,
        semconv.ENERGY_INCLUSIVE_HIGH: measurement.energy_high_j,
        semconv.POWER_MEAN: None if self_j is None or duration_s <= 0 else self_j / duration_s,
        semconv.COVERAGE: measurement.coverage,
        semconv.QUALITY: measurement.quality,
        semconv.NATURE: measurement.nature,
        semconv.METHOD: measurement.method,
        semconv.BOUNDARY: measurement.boundary,
        semconv.COMPLETENESS: "operational",
        semconv.ATTRIBUTION: measurement.attribution,
        semconv.FUNCTIONAL_UNIT_NAME: measurement.unit,
        semconv.FUNCTIONAL_UNIT_COUNT: measurement.units,
        semconv.INTERRUPTED: True if interrupted else None,
    }
    for kind, energy_j in measurement.self_energy_by_type.items():
        values[semconv.ENERGY_TYPE_PREFIX + kind] = energy_j
    return {name: value for name, value in values.items() if value is not None}


def end_span(span: Span, measurement: Measurement, end_unix_ns: int, *, interrupted: bool = False) -> None:
    """Put the energy on a span that left its context a moment ago, and end it at its true end."""
    if span.is_recording():
        span.set_attributes(attributes_of(measurement, interrupted=interrupted))
    span.end(end_time=end_unix_ns)
