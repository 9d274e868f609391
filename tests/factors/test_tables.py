from __future__ import annotations

import calendar
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impactsdk.factor import Factor, Kind, Place
from impactsdk.factors.places import place_of
from impactsdk.factors.rows import number, rows
from impactsdk.factors.tables import BundledTables, from_settings, price_for, reasons
from impactsdk.protocols import FactorProvider
from impactsdk.settings import Settings

PLACES: list[Place | None] = [
    None,
    *(place_of(row["code"]) for table in ("grid_intensity", "grid_intensity_us_egrid") for row in rows(table)),
    *(place_of(row["code"]) for row in rows("electricity_price_us_state")),
    *(place_of(f"{row['provider']}:{row['region']}") for row in rows("cloud_regions")),
]
places = st.sampled_from(PLACES)
currencies = st.sampled_from(["USD", "EUR", "GBP", "usd"])
times_ns = st.integers(-(2**80), 2**80)
LOCAL: set[Kind] = {"carbon_intensity", "water_intensity", "price", "pue", "wue"}
EVERYWHERE: set[Kind] = {
    "social_cost_of_carbon",
    "health_of_carbon",
    "health_of_water",
    "biodiversity_of_carbon",
    "biodiversity_of_water",
}


def year_ns(year: int) -> int:
    return calendar.timegm((year, 7, 1, 0, 0, 0)) * 10**9


def known(text: str | None, currency: str = "USD", year: int = 2025) -> dict[Kind, Factor]:
    place = None if text is None else place_of(text)
    found = BundledTables(currency=currency).factors(place=place, unix_ns=year_ns(year))
    return {factor.kind: factor for factor in found}


def range_of(factor: Factor) -> tuple[float | None, float | None]:
    return factor.low, factor.high


# --- what always holds -------------------------------------------------------------------------------------------------------


@given(places, currencies, times_ns)
def test_every_factor_is_positive_and_inside_its_interval(place: Place | None, currency: str, unix_ns: int) -> None:
    for factor in BundledTables(currency=currency).factors(place=place, unix_ns=unix_ns):
        assert 0 < factor.value < math.inf
        if factor.low is None or factor.high is None:
            assert factor.low is factor.high
        else:
            assert 0 < factor.low <= factor.value <= factor.high < math.inf


@given(places, currencies, times_ns)
def test_there_is_one_factor_of_a_kind_with_its_whole_origin(place: Place | None, currency: str, unix_ns: int) -> None:
    found = BundledTables(currency=currency).factors(place=place, unix_ns=unix_ns)
    assert len({factor.kind for factor in found}) == len(found)
    assert {factor.kind for factor in found} >= EVERYWHERE
    for factor in found:
        assert factor.source and factor.place and factor.scope and factor.unit
        assert factor.year is not None and 2010 <= factor.year <= 2080


@given(places, currencies)
def test_each_kind_is_known_or_there_is_a_reason_with_a_remedy(place: Place | None, currency: str) -> None:
    found = {factor.kind for factor in BundledTables(currency=currency).factors(place=place, unix_ns=0)}
    why = reasons(place, currency)
    assert found & LOCAL | set(why) == LOCAL
    assert not found & set(why)
    for sentence in why.values():
        assert "IMPACTSDK_" in sentence
        assert "None" not in sentence


@given(places)
def test_carbon_intensity_is_never_surer_than_ten_per_cent(place: Place | None) -> None:
    factor = next(f for f in BundledTables().factors(place=place, unix_ns=0) if f.kind == "carbon_intensity")
    assert factor.low is not None and factor.high is not None
    assert factor.low <= factor.value * 0.9
    assert factor.high >= factor.value * 1.1


def test_no_table_holds_what_is_not_a_number() -> None:
    columns = {"grid_intensity": ["g_co2e_per_kwh"], "cloud_regions": ["g_co2e_per_kwh", "pue", "wue_l_per_kwh"]}
    for table, names in columns.items():
        for row in rows(table):
            assert all(value is None or math.isfinite(value) for value in (number(row[name]) for name in names))


def test_the_same_question_is_answered_from_memory() -> None:
    tables, place = BundledTables(), place_of("FR")
    first = tables.factors(place=place, unix_ns=year_ns(2025))
    assert tables.factors(place=place, unix_ns=year_ns(2025) + 10**9) is first


def test_it_is_a_provider_without_trouble() -> None:
    tables = from_settings(Settings(currency="EUR"))
    assert isinstance(tables, FactorProvider)
    assert (tables.name, tables.trouble) == ("tables", None)
    tables.close()
    prices = [f for f in tables.factors(place=place_of("FR"), unix_ns=0) if f.kind == "price"]
    assert [price.unit for price in prices] == ["{EUR}/(kW.h)"]


# --- carbon ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "grams", "scope", "year"),
    [
        ("USA", 384.40, "lifecycle", 2025),
        ("FRA", 41.44, "lifecycle", 2025),
        ("POL", 588.60, "lifecycle", 2025),
        ("WORLD", 458.29, "lifecycle", 2025),
        ("US-EGRID-AVG", 340.84, "direct_generation", 2024),
        ("CAMX", 183.78, "direct_generation", 2024),
    ],
)
def test_golden_carbon_intensities(text: str, grams: float, scope: str, year: int) -> None:
    factor = known(text)["carbon_intensity"]
    assert (factor.value, factor.unit, factor.scope, factor.year) == (grams, "g{CO2e}/(kW.h)", scope, year)
    assert factor.nature == ("estimated" if text == "WORLD" else "calculated")


@pytest.mark.parametrize("text", ["aws:us-east-1", "gcp:us-east1", "US-CA"])
def test_a_part_of_a_country_gets_the_countrys_lifecycle_figure(text: str) -> None:
    factor = known(text)["carbon_intensity"]
    assert (factor.value, factor.scope, factor.source, factor.place) == (384.40, "lifecycle", "owid-ember-2026", "US")


def test_what_others_say_of_a_region_widens_the_interval() -> None:
    assert range_of(known("FR")["carbon_intensity"]) == pytest.approx((41.44 * 0.9, 41.44 * 1.1))
    assert range_of(known("gcp:europe-west9")["carbon_intensity"]) == pytest.approx((16.3, 41.44 * 1.1))
    assert range_of(known("aws:us-east-1")["carbon_intensity"]) == pytest.approx((290.62, 384.40 * 1.1))
    assert range_of(known("gcp:us-east1")["carbon_intensity"]) == pytest.approx((384.40 * 0.9, 575.77))
    assert "16.3 (google-region-carbon-2024)" in str(known("gcp:europe-west9")["carbon_intensity"].note)


@pytest.mark.parametrize("text", ["US-WA", "aws:us-gov-west-1"])
def test_a_part_of_the_usa_without_a_subregion_may_be_any_of_them(text: str) -> None:
    factor = known(text)["carbon_intensity"]
    assert range_of(factor) == (123.65, 674.97)
    assert factor.nature == "estimated"


@pytest.mark.parametrize("text", [None, "WORLD"])
def test_an_unknown_place_is_the_world_with_the_range_over_all_countries(text: str | None) -> None:
    found = known(text)
    carbon, water = found["carbon_intensity"], found["water_intensity"]
    assert (carbon.value, *range_of(carbon), carbon.nature) == (458.29, 20.83, 1306.27, "estimated")
    assert (water.value, *range_of(water), water.nature) == (3.908, 1.1185, 18.6033, "estimated")
    assert set(found) == EVERYWHERE | {"carbon_intensity", "water_intensity"}


def test_an_unknown_place_says_which_setting_would_help() -> None:
    assert "IMPACTSDK_REGION" in str(known(None)["carbon_intensity"].note)
    assert all("IMPACTSDK_REGION" in sentence for sentence in reasons(None, "USD").values())


def test_a_country_without_a_row_gets_nothing_of_the_worlds() -> None:
    nowhere = Place("CF", "Central African Republic", "CF", "CAF")
    found = {factor.kind for factor in BundledTables().factors(place=nowhere, unix_ns=0)}
    assert found == EVERYWHERE
    assert reasons(nowhere, "USD")["carbon_intensity"] == (
        "no carbon intensity of Central African Republic is bundled: set IMPACTSDK_CARBON_INTENSITY_G_PER_KWH"
    )


# --- water, price ------------------------------------------------------------------------------------------------------------


def test_water_is_known_within_a_factor_of_two() -> None:
    factor = known("aws:us-east-1")["water_intensity"]
    assert (factor.value, *range_of(factor)) == pytest.approx((3.1321, 3.1321 / 2, 3.1321 * 2))
    assert (factor.unit, factor.scope, factor.source) == ("L/(kW.h)", "consumption", "wri-2020")


def test_a_country_without_water_is_not_given_the_worlds() -> None:
    assert "water_intensity" not in known("KE")
    assert "water_intensity" not in known("EU")
    assert "IMPACTSDK_WATER_INTENSITY_L_PER_KWH" in reasons(place_of("KE"), "USD")["water_intensity"]


def test_a_price_is_industrys_with_wholesale_in_the_interval() -> None:
    euros, dollars = known("FR", "EUR")["price"], known("FR", "USD")["price"]
    assert (euros.value, *range_of(euros), euros.unit) == (0.0942, 0.06282, 0.0942, "{EUR}/(kW.h)")
    assert (dollars.value, *range_of(dollars), dollars.unit) == (0.102, 0.07099, 0.102, "{USD}/(kW.h)")
    assert (euros.scope, euros.source) == ("industrial_ex_tax", "eurostat-nrg_pc_205")
    assert "ecb-fx" not in str(euros.note) and "ecb-fx" in str(dollars.note)


def test_a_price_without_another_row_has_no_interval() -> None:
    assert range_of(known("AL")["price"]) == (None, None)
    assert range_of(known("US-CA")["price"]) == (None, None)


def test_a_state_has_its_own_price_and_the_country_spans_the_states() -> None:
    state, country = known("US-CA")["price"], known("aws:us-west-1")["price"]
    assert (state.value, state.place, state.scope) == (0.2153, "US-CA", "industrial")
    assert country.value == 0.0813
    assert country.low is not None and country.high is not None
    assert country.low < country.value < state.value < country.high


def test_there_is_no_price_in_a_currency_without_a_row() -> None:
    assert price_for(place_of("US"), "EUR") is None
    assert price_for(place_of("US-CA"), "EUR") is None
    assert price_for(place_of("FR"), "GBP") is None
    assert "IMPACTSDK_CURRENCY=USD" in reasons(place_of("US"), "EUR")["price"]
    assert "IMPACTSDK_PRICE_PER_KWH" in reasons(place_of("US"), "EUR")["price"]


def test_a_wholesale_price_alone_is_no_price() -> None:
    assert price_for(place_of("GB"), "EUR") is None
    assert reasons(place_of("GB"), "USD")["price"].startswith("no industrial price of United Kingdom is bundled")


# --- the data centre ---------------------------------------------------------------------------------------------------------


def test_a_region_that_publishes_has_its_own_figures() -> None:
    found = known("aws:us-east-1")
    for kind, value in (("pue", 1.15), ("wue", 0.12)):
        factor = found[kind]  # type: ignore[index]
        assert (factor.value, *range_of(factor), factor.scope) == (value, None, None, "region")
        assert (factor.place, factor.year, factor.source) == ("aws:us-east-1", 2024, "aws-sustainability-2024")


def test_another_region_gets_its_providers_latest_average() -> None:
    pue = known("aws:eu-west-3")["pue"]
    assert (pue.value, *range_of(pue), pue.year) == (1.14, 1.07, 1.46, 2025)
    assert (pue.scope, pue.nature, pue.unit) == ("provider_average", "estimated", "1")
    assert known("azure:francecentral")["wue"].value == 0.27
    assert known("gcp:europe-west9")["pue"].value == 1.1


@pytest.mark.parametrize(
    ("region", "litres"),
    [
        ("aws:eu-west-3", 0.04),
        ("aws:af-south-1", 0.12),
        ("aws:il-central-1", 0.12),
        ("aws:ap-south-1", 0.98),
        ("aws:cn-north-1", 0.27),
        ("aws:us-gov-east-1", 0.13),
    ],
)
def test_water_of_aws_is_that_of_the_area(region: str, litres: float) -> None:
    assert known(region)["wue"].value == litres


def test_where_there_is_no_cloud_the_data_centre_is_unknown() -> None:
    assert not {"pue", "wue"} & set(known("FR"))
    assert "IMPACTSDK_PUE" in reasons(place_of("FR"), "USD")["pue"]
    assert reasons(place_of("gcp:us-east1"), "USD") == {
        "wue": "Google Cloud publishes no WUE that is bundled: set IMPACTSDK_WUE"
    }


# --- damage ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("year", "dollars"),
    [(1970, 190), (2020, 190), (2025, 210), (2026, 214), (2030, 230), (2035, 250), (2079, 407), (2080, 410), (2090, 410)],
)
def test_the_social_cost_of_carbon_is_that_of_the_year(year: int, dollars: float) -> None:
    factor = known(None, year=year)["social_cost_of_carbon"]
    assert factor.value == pytest.approx(dollars)
    assert (factor.year, factor.unit) == (min(max(year, 2020), 2080), "{USD2020}/t")


def test_the_discount_rate_is_its_interval() -> None:
    factor = known("FR")["social_cost_of_carbon"]
    assert (factor.value, *range_of(factor), factor.scope) == (210, 130, 360, "2 % near-term discount rate")


@pytest.mark.parametrize(
    ("kind", "value", "low", "high", "unit"),
    [
        ("health_of_carbon", 9.28e-7, 8.12e-8, 1.25e-5, "DALY/kg"),
        ("health_of_water", 2.22e-6, 2.22e-6, 3.1e-6, "DALY/m3"),
        ("biodiversity_of_carbon", 2.8e-9 + 7.65e-14, 5.32e-10 + 1.45e-14, 2.5e-8 + 6.82e-13, "species.yr/kg"),
        ("biodiversity_of_water", 1.35e-8 + 6.04e-13, 6.04e-13, 1.35e-8 + 6.04e-13, "species.yr/m3"),
    ],
)
def test_endpoints_are_the_hierarchists_within_all_perspectives(
    kind: Kind, value: float, low: float, high: float, unit: str
) -> None:
    factor = known(None)[kind]
    assert (factor.value, *range_of(factor)) == pytest.approx((value, low, high), rel=1e-12)
    assert (factor.unit, factor.scope, factor.source) == (unit, "ReCiPe 2016 hierarchist", "recipe2016-v1.1")
