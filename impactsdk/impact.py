"""Joules, seconds and functional units into what they cost. Pure arithmetic: the numbers are those of :mod:`impactsdk.rates`.

All of it is linear, so impacts add up over spans as joules do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from impactsdk.factor import Nature, weakest
from impactsdk.model import Impact
from impactsdk.rates import Rates, together

__all__ = ["NOTHING", "Use", "added", "impact_of", "within"]


class Use(NamedTuple):
    """What is to be priced: joules with their interval, seconds of the machine, functional units."""

    energy_j: float | None
    low_j: float | None
    high_j: float | None
    seconds: float
    units: float | None = None
    nature: Nature = "measured"
    """Of the energy."""


NOTHING = Use(0.0, 0.0, 0.0, 0.0)


def impact_of(use: Use, rates: Rates) -> Impact:
    """What ``use`` costs at ``rates``."""
    energy_j, low_j, high_j, seconds, units, nature = use
    values: dict[str, Any] = {}
    intervals: dict[str, tuple[float, float | None]] = {}
    reasons = rates.reasons
    for name, per_j, per_s in rates.lines:
        low = seconds * per_s[0]
        value = seconds * per_s[1]
        high: float | None = seconds * per_s[2]
        if per_j is not None:
            if energy_j is None:
                continue
            low += max(0.0, low_j or 0.0) * per_j[0]
            value += energy_j * per_j[1]
            if high_j is not None:
                high += high_j * per_j[2]  # type: ignore[operator]
            elif per_j[2] > 0:
                high = None
        values[name] = value
        if per_j is None or low_j is not None:
            intervals[name] = (low, high)
    if energy_j is None:
        reasons = {**reasons, "energy": "no device answered"}
    currency = rates.currency if "cost" in values or "compute_cost" in values else None
    if units:
        _per_unit(values, intervals, units)
    if units is not None and rates.unit_value is not None:  # of no units the value is zero, and known
        expense = _expense(values, rented=rates.rented)
        if expense is None:
            reasons = {**reasons, "margin": "what the electricity costs is unknown: set IMPACTSDK_PRICE_PER_KWH"}
        else:
            currency = rates.currency
            worth = units * rates.unit_value
            values["margin"] = worth - expense
            ends = [intervals.get(name, (0.0, None)) for name in _spent_on(rented=rates.rented) if name in values]
            most = [high for _, high in ends if high is not None]
            if len(most) == len(ends):  # the more is spent, the less is left
                intervals["margin"] = (worth - math.fsum(most), worth - math.fsum(low for low, _ in ends))
    return Impact(
        currency=currency,
        nature=weakest(nature, rates.nature) if values else None,
        completeness=rates.completeness if values else None,
        intervals=intervals,
        factors=rates.factors,
        reasons=reasons,
        **values,
    )


def _per_unit(values: dict[str, Any], intervals: dict[str, tuple[float, float | None]], units: float) -> None:
    carbon_g = values.get("carbon_g")
    if carbon_g is None:
        return
    low, high = intervals.get("carbon_g", (None, None))
    if "embodied_g" in values:
        carbon_g += values["embodied_g"]
        more_low, more_high = intervals["embodied_g"]
        low = None if low is None else low + more_low
        high = None if high is None or more_high is None else high + more_high
    values["sci_g_per_unit"] = carbon_g / units
    if low is not None:
        intervals["sci_g_per_unit"] = (low / units, None if high is None else high / units)


def _spent_on(*, rented: bool) -> tuple[str, ...]:
    """A rent contains the electricity, a machine of one's own does not."""
    return ("compute_cost",) if rented else ("compute_cost", "cost")


def _expense(values: Mapping[str, Any], *, rented: bool) -> float | None:
    if not rented and "cost" not in values:
        return None
    return math.fsum(values.get(name, 0.0) for name in _spent_on(rented=rented))


_ADDED = (
    "carbon_g",
    "carbon_market_g",
    "embodied_g",
    "water_l",
    "water_onsite_l",
    "cost",
    "compute_cost",
    "margin",
    "damage_usd",
    "health_daly",
    "biodiversity_species_yr",
)


def within(part: Impact, whole: Impact) -> Impact:
    """``part`` with no interval that reaches beyond that of the ``whole``, which it is a part of."""
    intervals = dict(part.intervals)
    for name in _ADDED:
        most = whole.intervals.get(name, (0.0, None))[1]
        if most is not None and name != "margin" and getattr(part, name) is not None:
            low, high = intervals.get(name, (0.0, None))
            intervals[name] = (low, most if high is None else min(high, most))
    return replace(part, intervals=intervals)


def added(first: Impact, second: Impact, *, units: float | None = None) -> Impact:
    """Both together; ``units`` is how many functional units both did. What is unknown of one is unknown of the sum."""
    values: dict[str, Any] = {}
    intervals: dict[str, tuple[float, float | None]] = {}
    for name in _ADDED:
        one, other = getattr(first, name), getattr(second, name)
        if one is None or other is None:
            continue
        values[name] = one + other
        if name in first.intervals and name in second.intervals:
            (low, high), (low_too, high_too) = first.intervals[name], second.intervals[name]
            intervals[name] = (low + low_too, None if high is None or high_too is None else high + high_too)
    if units:
        _per_unit(values, intervals, units)
    return Impact(
        currency=first.currency or second.currency,
        nature=weakest(first.nature, second.nature) if first.nature and second.nature else first.nature or second.nature,
        completeness=min(filter(None, (first.completeness, second.completeness)), key=len, default=None),
        intervals=intervals,
        factors=together(first.factors, second.factors),
        reasons={**first.reasons, **second.reasons},
        **values,
    )
