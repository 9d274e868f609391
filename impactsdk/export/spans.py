"""A measurement as span attributes, and the late end of the span that carries them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.trace import Span

from impactsdk import semconv
from impactsdk.factor import Factor
from impactsdk.model import Measurement

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["attributes_of", "end_span", "fitting"]

_ON_SPANS = (
    "carbon_intensity",
    "carbon_intensity_market",
    "pue",
    "wue",
    "water_intensity",
    "price",
    "compute_price",
    "embodied",
)
_last_told: tuple[tuple[Factor, ...], str | None] = ((), None)


def _told(factors: tuple[Factor, ...]) -> str | None:
    """The factors behind the attributes in one text; they are the same ones for span after span."""
    global _last_told
    if _last_told[0] is not factors:
        _last_told = (factors, "; ".join(str(factor) for factor in factors if factor.kind in _ON_SPANS) or None)
    return _last_told[1]


def attributes_of(measurement: Measurement, *, interrupted: bool = False) -> dict[str, Any]:
    """The ``impact.*`` attributes of one span, the most important ones first; what is unknown is left out."""
    duration_s, self_j = measurement.duration_s, measurement.energy_j
    own = measurement.self_impact
    carbon_low_g, carbon_high_g = own.intervals.get("carbon_g", (None, None))
    values: dict[str, Any] = {
        semconv.ENERGY_SELF: measurement.self_energy_j,
        semconv.OPERATION: measurement.name,
        semconv.ENERGY_SELF_LOW: measurement.self_energy_low_j,
        semconv.ENERGY_SELF_HIGH: measurement.self_energy_high_j,
        semconv.QUALITY: measurement.quality,
        semconv.ENERGY_INCLUSIVE: measurement.energy_j,
        semconv.ENERGY_INCLUSIVE_LOW: measurement.energy_low_j,
        semconv.ENERGY_INCLUSIVE_HIGH: measurement.energy_high_j,
        semconv.NATURE: measurement.nature,
        semconv.METHOD: measurement.method,
        semconv.BOUNDARY: measurement.boundary,
        semconv.COVERAGE: measurement.coverage,
        semconv.FUNCTIONAL_UNIT_NAME: measurement.unit,
        semconv.FUNCTIONAL_UNIT_COUNT: measurement.units,
        semconv.ENERGY_PER_UNIT: measurement.energy_j / measurement.units
        if measurement.energy_j is not None and measurement.units
        else None,
        semconv.POWER_MEAN: None if self_j is None or duration_s <= 0 else self_j / duration_s,
        semconv.COMPLETENESS: own.completeness or "operational",
        semconv.ATTRIBUTION: measurement.attribution,
        semconv.HW_SCOPE: measurement.scope,
        semconv.SYNC: measurement.synced,
        semconv.INTERRUPTED: True if interrupted else None,
        semconv.DURATION_SELF: measurement.self_duration_s,
        semconv.CARBON_SELF: own.carbon_g,
        semconv.CARBON_SELF_LOW: carbon_low_g,
        semconv.CARBON_SELF_HIGH: carbon_high_g,
        semconv.CARBON_INCLUSIVE: measurement.impact.carbon_g,
        semconv.CARBON_MARKET: own.carbon_market_g,
        semconv.CARBON_EMBODIED: own.embodied_g,
        semconv.CARBON_NATURE: None if own.carbon_g is None else own.nature,
        semconv.SCI: measurement.impact.sci_g_per_unit,
        semconv.COST_SELF: own.cost,
        semconv.COST_COMPUTE: own.compute_cost,
        semconv.COST_CURRENCY: own.currency,
        semconv.WATER_SELF: own.water_l,
        semconv.FACTORS: _told(own.factors),
    }
    for kind, energy_j in measurement.self_energy_by_type.items():
        values[semconv.ENERGY_TYPE_PREFIX + kind] = energy_j
    return {name: value for name, value in values.items() if value is not None}


def end_span(span: Span, measurement: Measurement, end_unix_ns: int, *, interrupted: bool = False) -> None:
    """Put the energy on a span that left its context a moment ago, and end it at its true end."""
    if span.is_recording():
        span.set_attributes(fitting(attributes_of(measurement, interrupted=interrupted), span))
    span.end(end_time=end_unix_ns)


def fitting(ours: Mapping[str, Any], span: Span | ReadableSpan) -> Mapping[str, Any]:
    """Those of ours that a span has room for: beyond its limit each would push out one of the user's."""
    theirs = getattr(span, "_attributes", None)  # not public
    if not isinstance(theirs, BoundedAttributes) or theirs.maxlen is None or len(theirs) + len(ours) <= theirs.maxlen:
        return ours
    room = max(0, theirs.maxlen - len(theirs))
    theirs.dropped += len(ours) - room
    return dict(islice(ours.items(), room))
