"""The bundled tables: published yearly figures for a place. They need no network and no key.

One scope by default. Compilations of grid intensity differ by what they count: Ember's country figures are lifecycle figures
of what the country generates; EPA's eGRID counts combustion only; Google's regional figures count combustion, weighted by the
hour, of what is consumed there. For South Carolina that is 384 (the country's), 291 and 576 g. So every place gets its
country's lifecycle figure, an eGRID figure is given to who asks for an eGRID subregion by name, and what the other sources say
of the same region widens the interval.

How wide at least: two compilations of the same data for the same year differ by 2.5 % in the median country, and by more than
10 % in 41 of 212. Hence 10 % either way.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from impactsdk.factor import Factor, Kind, Nature, Place
from impactsdk.factors.damage import endpoints, social_cost
from impactsdk.factors.places import PROVIDERS
from impactsdk.factors.rows import Row, number, rows, whole_number
from impactsdk.settings import Settings

__all__ = ["BundledTables", "from_settings", "price_for", "reasons"]

_PER_KWH = "/(kW.h)"
_CARBON_UNIT = "g{CO2e}" + _PER_KWH
_WATER_UNIT = "L" + _PER_KWH
_INTENSITY_SPREAD = 0.10
_WATER_FACTOR = 2.0
_LAST_UNIX_NS = 4_000_000_000 * 10**9  # 2096, later than any table

# AWS publishes water by areas; its regions are named after them. The first prefix that fits counts.
_AWS_AREAS = (
    (("us-", "ca-", "mx-"), "North America"),
    (("sa-",), "Central/South America"),
    (("eu-",), "Europe"),
    (("af-", "il-", "me-"), "EMEA"),
    (("cn-",), "APAC"),
    (("ap-",), "Asia Pacific (excl. China)"),
)

_SET_REGION = "IMPACTSDK_REGION, e.g. to FR, US-CA or aws:eu-west-3"
_UNKNOWN_PLACE = f"a world average, because where this machine stands is not known: set {_SET_REGION}"
_SETTINGS: Mapping[Kind, str] = {
    "carbon_intensity": "IMPACTSDK_CARBON_INTENSITY_G_PER_KWH",
    "water_intensity": "IMPACTSDK_WATER_INTENSITY_L_PER_KWH",
    "price": "IMPACTSDK_PRICE_PER_KWH",
    "pue": "IMPACTSDK_PUE",
    "wue": "IMPACTSDK_WUE",
}


class BundledTables:
    """Yearly figures from the tables in the package.

    Args:
        currency: ISO 4217 code of the price that is wanted. Prices are known in USD and, in Europe, in EUR.
    """

    name = "tables"
    trouble: str | None = None

    def __init__(self, *, currency: str = "USD") -> None:
        self._currency = currency.upper()

    def factors(self, *, place: Place | None, unix_ns: int) -> Sequence[Factor]:
        """What is known of that place, at most one factor of a kind.

        Of the time only the year counts, and only for the social cost of carbon. An unknown place gets the world's carbon and
        water intensity with the range over all countries, and neither price, PUE nor WUE.
        """
        year = time.gmtime(min(max(unix_ns, 0), _LAST_UNIX_NS) // 10**9).tm_year
        return _factors(place, year, self._currency)

    def close(self) -> None:
        """There is nothing to let go of."""


def from_settings(settings: Settings) -> BundledTables:
    """The tables, with prices in the currency of the settings."""
    return BundledTables(currency=settings.currency)


def reasons(place: Place | None, currency: str) -> Mapping[Kind, str]:
    """For each kind that the tables do not know there: why, and the setting that helps, in one sentence.

    Only of ``carbon_intensity``, ``water_intensity``, ``price``, ``pue`` and ``wue``: the others hold everywhere.
    """
    known = {factor.kind for factor in _factors(place, 2025, currency.upper())}  # the year makes no difference here
    found: dict[Kind, str] = {}
    for kind, setting in _SETTINGS.items():
        if kind not in known:
            why, remedy = _reason(kind, place, currency.upper())
            found[kind] = f"{why}: set {setting}" if remedy is None else f"{why}: set {remedy}, or {setting}"
    return found


def price_for(place: Place, currency: str) -> Factor | None:
    """What industry pays for a kWh there, in ``currency``; ``None`` if no row has it in that currency.

    In Europe excluding all taxes and levies (Eurostat, band of 20 to 70 GWh a year), with the wholesale price in the interval;
    in the USA the sector's average of the state or, with the range over the states, of the country (EIA).
    """
    if place.state is not None:
        row = _first("electricity_price_us_state", code=place.state)
        if row is None or currency != "USD":
            return None
        return _price(row, float(row["usd_per_kwh"]), currency, place.state)
    of_country = [row for row in rows("electricity_price") if row["iso3"] == place.iso3]
    industrial = next((row for row in of_country if row["price_type"].startswith("industrial")), None)
    value = None if industrial is None else _price_in(industrial, currency)
    if industrial is None or value is None:
        return None
    others = [price for row in of_country if (price := _price_in(row, currency)) is not None]
    if place.iso3 == "USA":
        others += [float(row["usd_per_kwh"]) for row in rows("electricity_price_us_state")]
    return _price(industrial, value, currency, place.iso2, others)


@lru_cache(maxsize=64)
def _factors(place: Place | None, year: int, currency: str) -> tuple[Factor, ...]:
    local: tuple[Factor | None, ...]
    if place is None:
        local = (_somewhere(_world("grid_intensity"), _UNKNOWN_PLACE), _somewhere_water(_UNKNOWN_PLACE))
    else:
        local = (_carbon(place), _water(place), price_for(place, currency), _pue(place), _wue(place))
    return (*(factor for factor in local if factor is not None), social_cost(year), *endpoints())


# --- carbon ------------------------------------------------------------------------------------------------------------------


def _carbon(place: Place) -> Factor | None:
    if place.code.startswith("US-EGRID-"):
        row = _first("grid_intensity_us_egrid", code=place.code)
        return None if row is None else _intensity(row, note="combustion only: neither fuel supply nor line losses")
    row = _first("grid_intensity", code=place.iso3 or place.code)
    if row is None:
        return None
    if row["kind"] == "aggregate":
        return _somewhere(row, "an average of many countries; the interval spans all countries of the world")
    if place.cloud_region is None and place.state is None:
        return _intensity(row)
    found = list(_regional_intensities(place))
    if found:
        said = " and ".join(f"{value:g} ({source})" for value, source in found)
        note = f"the figure of the country; the interval spans what is said of the region: {said}"
        return _intensity(row, [value for value, _ in found], note=note)
    if place.iso3 == "USA":  # a part of a country whose parts differ by a factor of five
        others = [float(part["g_co2e_per_kwh"]) for part in rows("grid_intensity_us_egrid") if part["iso3"] == "USA"]
        note = "the figure of the country; the interval spans its subregions: set IMPACTSDK_REGION to one, e.g. US-EGRID-CAMX"
        return _intensity(row, others, nature="estimated", note=note)
    return _intensity(row, note="the figure of the country")


def _regional_intensities(place: Place) -> Iterator[tuple[float, str]]:
    """What other sources say of the very region, with the source."""
    egrid = None if place.egrid is None else _first("grid_intensity_us_egrid", code=place.egrid)
    if egrid is not None:
        yield float(egrid["g_co2e_per_kwh"]), egrid["source"]
    region = _region(place)
    providers_own = None if region is None else number(region["g_co2e_per_kwh"])
    if region is not None and providers_own is not None:
        yield providers_own, region["source_carbon"]


def _intensity(row: Row, others: Iterable[float] = (), *, nature: Nature = "calculated", note: str | None = None) -> Factor:
    value = float(row["g_co2e_per_kwh"])
    low, high = value * (1 - _INTENSITY_SPREAD), value * (1 + _INTENSITY_SPREAD)
    return Factor(
        "carbon_intensity",
        value,
        _CARBON_UNIT,
        row["source"],
        low=min(low, *others, high),
        high=max(low, *others, high),
        place=row["iso2"] if row["kind"] == "country" else row["code"],
        year=whole_number(row["year"]),
        scope=row["scope"],
        nature=nature,
        note=note,
    )


def _somewhere(row: Row, note: str) -> Factor:
    others = [float(country["g_co2e_per_kwh"]) for country in rows("grid_intensity") if country["kind"] == "country"]
    return _intensity(row, others, nature="estimated", note=note)


# --- water -------------------------------------------------------------------------------------------------------------------


def _water(place: Place) -> Factor | None:
    row = _first("water_intensity", code=place.iso3 or place.code)
    if row is None:
        return None
    if row["kind"] == "aggregate":
        return _somewhere_water("an average of the world; the interval spans all countries that are known")
    value = float(row["l_per_kwh"])
    note = "includes evaporation from reservoirs; uncertain by a factor of two, mixes of about 2016"
    return _water_factor(row, value / _WATER_FACTOR, value * _WATER_FACTOR, "calculated", note)


def _somewhere_water(note: str) -> Factor:
    countries = [float(row["l_per_kwh"]) for row in rows("water_intensity") if row["kind"] == "country"]
    return _water_factor(_world("water_intensity"), min(countries), max(countries), "estimated", note)


def _water_factor(row: Row, low: float, high: float, nature: Nature, note: str) -> Factor:
    return Factor(
        "water_intensity",
        float(row["l_per_kwh"]),
        _WATER_UNIT,
        row["source"],
        low=low,
        high=high,
        place=row["iso2"] or row["code"],
        year=whole_number(row["year"]),
        scope=row["metric"],
        nature=nature,
        note=note,
    )


# --- price -------------------------------------------------------------------------------------------------------------------


def _price_in(row: Row, currency: str) -> float | None:
    if row["currency"] == currency:
        return number(row["price_per_kwh"])
    return number(row["usd_per_kwh"]) if currency == "USD" else None


def _price(row: Row, value: float, currency: str, place: str | None, others: Sequence[float] = ()) -> Factor:
    converted = row.get("currency", currency) != currency
    note = "the average of industry: data centres may pay less or more"
    return Factor(
        "price",
        value,
        f"{{{currency}}}{_PER_KWH}",
        row["source"],
        low=min(others) if len(others) > 1 else None,
        high=max(others) if len(others) > 1 else None,
        place=place,
        year=whole_number(row["year"]),
        scope=row["price_type"],
        note=f"{note}; converted at the mean rate of the year (ecb-fx)" if converted else note,
    )


# --- the data centre ---------------------------------------------------------------------------------------------------------


def _pue(place: Place) -> Factor | None:
    region = _region(place)
    if region is not None and region["pue"]:
        return _facility("pue", region["pue"], "1", region["source_pue"], region["pue_year"], place.code, "region")
    return _fleets("pue", "pue", "1", place, "global")


def _wue(place: Place) -> Factor | None:
    region = _region(place)
    if region is not None and region["wue_l_per_kwh"]:
        own = region["wue_l_per_kwh"], _WATER_UNIT, region["source_wue"], region["wue_year"]
        return _facility("wue", *own, place.code, "region")
    areas = _AWS_AREAS if place.provider == "aws" else ()
    area = next((area for prefixes, area in areas if (place.cloud_region or "").startswith(prefixes)), "global")
    return _fleets("wue", "wue_l_per_kwh", _WATER_UNIT, place, area)


def _fleets(kind: Kind, metric: str, unit: str, place: Place, area: str) -> Factor | None:
    """The provider's latest average over an area, for a region of which it says nothing."""
    if place.cloud_region is None:
        return None
    published = [row for row in rows("facility_defaults") if row["provider"] == place.provider and row["metric"] == metric]
    of_area = [row for row in published if row["area"] == area]
    if not of_area:
        return None
    latest = max(of_area, key=lambda row: row["year"])
    others = [float(row["value"]) for row in published]
    others += [float(row[metric]) for row in rows("cloud_regions") if row["provider"] == place.provider and row[metric]]
    where = f"{place.provider}, {area}"
    return _facility(kind, latest["value"], unit, latest["source"], latest["year"], where, "provider_average", others)


def _facility(
    kind: Kind, value: str, unit: str, source: str, year: str, place: str, scope: str, others: Sequence[float] = ()
) -> Factor:
    return Factor(
        kind,
        float(value),
        unit,
        source,
        low=min(others) if others else None,
        high=max(others) if others else None,
        place=place,
        year=whole_number(year),
        scope=scope,
        nature="estimated" if others else "calculated",
        note="not published for this region; the interval spans what the provider publishes for others" if others else None,
    )


# --- looking up --------------------------------------------------------------------------------------------------------------


def _first(table: str, **wanted: str) -> Row | None:
    return next((row for row in rows(table) if all(row[column] == value for column, value in wanted.items())), None)


def _world(table: str) -> Row:
    return next(row for row in rows(table) if row["code"] == "WORLD")


def _region(place: Place) -> Row | None:
    if place.provider is None or place.cloud_region is None:
        return None
    return _first("cloud_regions", provider=place.provider, region=place.cloud_region)


def _reason(kind: Kind, place: Place | None, currency: str) -> tuple[str, str | None]:
    """Why it is not known, and what else than the kind's own setting would help."""
    if kind in ("pue", "wue") and (place is None or place.cloud_region is None):
        stands = "where this machine stands is not known" if place is None else f"{place.name} is no cloud region"
        return stands, "IMPACTSDK_REGION to a cloud region such as aws:eu-west-3"
    if place is None:
        return "where this machine stands is not known", _SET_REGION
    if kind in ("pue", "wue"):
        return f"{PROVIDERS.get(place.provider or '', place.provider)} publishes no {kind.upper()} that is bundled", None
    if kind == "price":
        other = next((other for other in ("USD", "EUR") if price_for(place, other) is not None), None)
        if other is not None:
            return f"the price of {place.name} is not bundled in {currency}", f"IMPACTSDK_CURRENCY={other}"
        return f"no industrial price of {place.name} is bundled", None
    return f"no {kind.replace('_', ' ')} of {place.name} is bundled", None
