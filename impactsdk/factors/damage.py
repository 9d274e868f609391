"""What carbon and water do in the end: money lost, years of life, species. Factors that hold everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from impactsdk.factor import Factor, Kind
from impactsdk.factors.rows import rows, whole_number

__all__ = ["endpoints", "social_cost"]


def social_cost(year: int) -> Factor:
    """EPA, Report on the Social Cost of Greenhouse Gases (2023): linear between its years, constant beyond them."""
    value, low, high = (_social_cost_at(year, rate) for rate in ("0.02", "0.025", "0.015"))
    table = rows("social_cost_carbon")
    first, last = int(table[0]["emission_year"]), int(table[-1]["emission_year"])
    return Factor(
        "social_cost_of_carbon",
        value,
        "{USD2020}/t",
        table[0]["source"],
        low=low,
        high=high,
        place="WORLD",
        year=min(max(year, first), last),
        scope="2 % near-term discount rate",
        note="the interval spans discount rates of 2.5 % and 1.5 %",
    )


def _social_cost_at(year: int, rate: str) -> float:
    points = [
        (int(row["emission_year"]), float(row["usd2020_per_tco2"]))
        for row in rows("social_cost_carbon")
        if row["near_term_discount_rate"] == rate
    ]
    before, usd = points[0]
    for after, next_usd in points:
        if year <= before:
            break
        if year < after:
            return usd + (next_usd - usd) * (year - before) / (after - before)
        before, usd = after, next_usd
    return usd


def endpoints() -> Iterator[Factor]:
    """ReCiPe 2016 v1.1: the hierarchist's view, with the least and the most of all three as interval."""
    land_and_rivers = ("terrestrial_ecosystems", "freshwater_ecosystems")
    yield _endpoint("health_of_carbon", "climate_change", ("human_health",), "DALY/kg")
    yield _endpoint("health_of_water", "water_consumption", ("human_health",), "DALY/m3")
    yield _endpoint("biodiversity_of_carbon", "climate_change", land_and_rivers, "species.yr/kg")
    yield _endpoint("biodiversity_of_water", "water_consumption", land_and_rivers, "species.yr/m3")


def _endpoint(kind: Kind, midpoint: str, endpoints: Sequence[str], unit: str) -> Factor:
    parts = [row for row in rows("endpoints") if row["midpoint"] == midpoint and row["endpoint"] in endpoints]
    views = {view: sum(float(row[view]) for row in parts) for view in ("individualist", "hierarchist", "egalitarian")}
    return Factor(
        kind,
        views["hierarchist"],
        unit,
        parts[0]["source"],
        low=min(views.values()),
        high=max(views.values()),
        place="WORLD",
        year=whole_number(parts[0]["year"]),
        scope="ReCiPe 2016 hierarchist",
        note="a world average; the interval spans the individualist, hierarchist and egalitarian perspectives",
    )
