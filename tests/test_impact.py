"""Joules and seconds into impacts: figures computed by hand, units, and what holds for any factors."""

from __future__ import annotations

import math
from typing import get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from impactsdk import Impact
from impactsdk.factor import Factor, Kind
from impactsdk.factors.places import place_of
from impactsdk.factors.tables import BundledTables
from impactsdk.impact import NOTHING, Use, added, impact_of
from impactsdk.rates import J_PER_KWH, S_PER_YEAR, Rates, mixed, rates_of

HOUR_S = 3_600.0
IN_2025_NS = 1_750_000_000 * 10**9
NEEDS: dict[str, tuple[set[Kind], ...]] = {
    "carbon_g": ({"carbon_intensity"},),
    "carbon_market_g": ({"carbon_intensity_market"},),
    "water_l": ({"water_intensity"},),
    "water_onsite_l": ({"wue"},),
    "cost": ({"price"},),
    "embodied_g": ({"embodied", "lifetime"},),
    "compute_cost": ({"compute_price"}, {"purchase_price", "lifetime"}),
    "damage_usd": ({"carbon_intensity", "social_cost_of_carbon"},),
    "health_daly": ({"carbon_intensity", "health_of_carbon"},),
    "biodiversity_species_yr": ({"carbon_intensity", "biodiversity_of_carbon"},),
}
PER_S = ("embodied_g", "compute_cost")
PER_J = tuple(name for name in NEEDS if name not in PER_S)
FIELDS = PER_J + PER_S
KINDS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind != "unit_value")


def factor(kind: Kind, value: float, low: float | None = None, high: float | None = None) -> Factor:
    return Factor(kind, value, "", "test", low=low, high=high)


def rates(**values: float) -> Rates:
    return rates_of([factor(kind, value) for kind, value in values.items()], currency="USD")  # type: ignore[arg-type]


def used(kwh: float = 0.0, hours: float = 0.0, units: float | None = None) -> Use:
    joules = kwh * J_PER_KWH
    return Use(joules, joules, joules, hours * HOUR_S, units)


def tabled(place: str) -> list[Factor]:
    return list(BundledTables().factors(place=place_of(place), unix_ns=IN_2025_NS))


def figures(impact: Impact) -> dict[str, float | None]:
    return {name: getattr(impact, name) for name in FIELDS}


def near(one: float | None, other: float | None) -> bool:
    return one is other if one is None or other is None else math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)


# --- by hand, to the last digit given ----------------------------------------------------------------------------------------


def test_a_kilowatt_hour_in_the_usa_with_a_pue_of_1_2_emits_461_28_grams() -> None:
    factors = [*tabled("USA"), factor("pue", 1.2)]
    assert next(f.value for f in factors if f.kind == "carbon_intensity") == 384.40
    assert impact_of(used(kwh=1), rates_of(factors, currency="USD")).carbon_g == pytest.approx(461.28, abs=1e-9)


def test_an_hour_of_a_whole_h100_is_4_680_grams_of_its_manufacture() -> None:
    assert round(impact_of(used(hours=1), rates(embodied=164_000, lifetime=4)).embodied_g or 0.0, 3) == 4.680


def test_the_example_of_the_sci_specification_comes_out() -> None:
    impact = impact_of(used(hours=1), rates(embodied=1_000_000, lifetime=4))
    assert round(impact.embodied_g or 0.0, 2) == 28.54


def test_a_kilowatt_hour_in_virginia_takes_3_7219_litres() -> None:
    values = {f.kind: f.value for f in tabled("aws:us-east-1") if f.kind in ("pue", "wue", "water_intensity")}
    assert values == {"pue": 1.15, "wue": 0.12, "water_intensity": 3.1321}
    impact = impact_of(used(kwh=1), rates_of(tabled("aws:us-east-1"), currency="USD"))
    assert round(impact.water_l or 0.0, 4) == 3.7219
    assert impact.water_onsite_l == pytest.approx(0.12)


def test_a_tonne_of_carbon_harms_as_much_as_published() -> None:
    kinds = ("social_cost_of_carbon", "health_of_carbon", "biodiversity_of_carbon")
    of_carbon = [f for f in tabled("USA") if f.kind in kinds]
    impact = impact_of(used(kwh=1_000), rates_of([*of_carbon, factor("carbon_intensity", 1_000)], currency="USD"))
    assert impact.carbon_g == 1_000_000
    assert impact.damage_usd == pytest.approx(210)
    assert impact.health_daly == pytest.approx(9.28e-4)
    assert f"{impact.biodiversity_species_yr:.3g}" == "2.8e-06"


# --- units -------------------------------------------------------------------------------------------------------------------


def test_harm_is_per_kilogram_tonne_and_cubic_metre() -> None:
    made = rates(
        carbon_intensity=500,
        water_intensity=2,
        embodied=35_040,
        lifetime=4,
        social_cost_of_carbon=200,
        health_of_carbon=3e-6,
        health_of_water=5e-6,
        biodiversity_of_carbon=7e-9,
        biodiversity_of_water=11e-9,
    )
    impact = impact_of(used(kwh=10, hours=1_000), made)  # 5 kg and 20 L from electricity, 1 kg from manufacture
    assert impact.embodied_g == pytest.approx(1_000)
    assert impact.damage_usd == pytest.approx(0.006 * 200)
    assert impact.health_daly == pytest.approx(6 * 3e-6 + 0.020 * 5e-6)
    assert impact.biodiversity_species_yr == pytest.approx(6 * 7e-9 + 0.020 * 11e-9)


def test_a_machine_is_paid_by_the_hour_or_over_its_life() -> None:
    rented, bought = impact_of(used(hours=3), rates(compute_price=2)), rates(purchase_price=35_040, lifetime=4)
    assert rented.compute_cost == pytest.approx(6)
    assert impact_of(used(hours=5), bought).compute_cost == pytest.approx(5)
    assert impact_of(used(hours=5), bought).currency == "USD"
    assert impact_of(used(kwh=2), rates(price=0.25, pue=1.5)).cost == pytest.approx(0.75)


@given(st.floats(1, 3))
def test_pue_counts_once_and_only_for_what_comes_over_the_wire(pue: float) -> None:
    others = {"embodied": 1e6, "lifetime": 4, "compute_price": 2, "wue": 0.5}
    wired = {"carbon_intensity": 400, "carbon_intensity_market": 50, "water_intensity": 3, "price": 0.2}
    plain, more = (
        figures(impact_of(used(kwh=1, hours=1), rates(**others, **wired, **with_pue))) for with_pue in ({}, {"pue": pue})
    )
    assert more["carbon_g"] == pytest.approx(400 * pue)
    assert more["carbon_market_g"] == pytest.approx(50 * pue)
    assert more["cost"] == pytest.approx(0.2 * pue)
    assert more["water_l"] == pytest.approx(3 * pue + 0.5)
    for name in ("water_onsite_l", "embodied_g", "compute_cost"):
        assert more[name] == plain[name]


def test_a_share_applies_to_the_shared_devices_alone() -> None:
    board, server = factor("embodied", 70_080), factor("embodied", 35_040)
    rest = [factor("lifetime", 4), factor("resource_share", 0.25)]
    for shared, grams in (([], 3.0), ([server], 2.25), ([board, server], 0.75)):
        assert impact_of(used(hours=1), rates_of([board, server, *rest], currency="USD", shared=shared)).embodied_g == grams


def test_the_shortest_life_makes_the_high_end_of_manufacture() -> None:
    made = rates_of([factor("embodied", 164_000, 82_000, 273_000), factor("lifetime", 4, 3, 6)], currency="USD")
    year = impact_of(used(hours=8_760), made)
    assert (year.embodied_g, *year.intervals["embodied_g"]) == pytest.approx((164_000 / 4, 82_000 / 6, 273_000 / 3))


# --- for any factors ---------------------------------------------------------------------------------------------------------


@st.composite
def any_factors(draw: st.DrawFn) -> list[Factor]:
    made = []
    for kind in draw(st.sets(st.sampled_from(KINDS))):
        least = {"pue": 1.0, "lifetime": 0.5}.get(kind, 0.0)
        low, value, high = sorted(draw(st.lists(st.floats(least, 1e4, width=32), min_size=3, max_size=3)))
        ranged = draw(st.booleans())
        made.append(factor(kind, value, low if ranged else None, high if ranged else None))
    return made


any_rates = any_factors().map(lambda made: rates_of(made, currency="USD"))


@st.composite
def any_use(draw: st.DrawFn, units: bool = True) -> Use:
    low, value, high = sorted(draw(st.lists(st.floats(0, 1e9), min_size=3, max_size=3)))
    return Use(value, low, high, draw(st.floats(0, 1e7)), draw(st.none() | st.floats(0.5, 1e6)) if units else None)


def total(uses: list[Use]) -> Use:
    return Use(*(math.fsum(use[index] or 0.0 for use in uses) for index in range(4)))


@given(any_use(units=False), any_rates, st.floats(0, 1e3))
def test_impacts_are_linear_in_energy_and_time(use: Use, made: Rates, by: float) -> None:
    energy_j, low_j, high_j, seconds = (number * by for number in use[:4])  # type: ignore[operator]
    one, scaled = impact_of(use, made), impact_of(Use(energy_j, low_j, high_j, seconds), made)
    by_energy = impact_of(Use(energy_j, low_j, high_j, 0.0), made)
    by_time = impact_of(Use(0.0, 0.0, 0.0, seconds), made)
    for name in FIELDS:
        value = getattr(one, name)
        assert near(getattr(scaled, name), None if value is None else value * by)
        assert near(getattr(added(by_energy, by_time), name), getattr(scaled, name))


@given(st.lists(any_use(units=False), min_size=1, max_size=6), any_rates)
def test_the_impact_of_a_sum_is_the_sum_of_the_impacts(uses: list[Use], made: Rates) -> None:
    whole, parts = impact_of(total(uses), made), impact_of(NOTHING, made)
    for use in uses:
        parts = added(parts, impact_of(use, made))
    assert all(near(getattr(whole, name), getattr(parts, name)) for name in FIELDS)
    assert whole.intervals.keys() == parts.intervals.keys()
    for name, ends in whole.intervals.items():
        assert all(map(near, ends, parts.intervals[name]))
    assert (parts.completeness, parts.nature, parts.factors) == (whole.completeness, whole.nature, whole.factors)


@given(any_use(), any_rates)
def test_every_value_lies_in_its_interval(use: Use, made: Rates) -> None:
    impact = impact_of(use, made)
    names = [name for name in (*FIELDS, "sci_g_per_unit") if getattr(impact, name) is not None]
    assert set(names) == set(impact.intervals)
    for name in names:
        low, high = impact.intervals[name]
        assert high is not None
        assert 0 <= low <= getattr(impact, name) * (1 + 1e-12)
        assert getattr(impact, name) <= high * (1 + 1e-12)


@given(any_use(), any_factors())
def test_what_lacks_a_factor_is_unknown_and_never_zero(use: Use, made: list[Factor]) -> None:
    known = {each.kind for each in made}
    missing: list[Kind] = [kind for kind in KINDS if kind not in known]
    impact = impact_of(use, rates_of(made, currency="USD", reasons={kind: f"no {kind}" for kind in missing}))
    for name, ways in NEEDS.items():
        assert (getattr(impact, name) is not None) == any(needed <= known for needed in ways), name
    assert all(impact.reasons[kind] for kind in missing)
    assert set(impact.factors) == set(made)
    assert (impact.currency is None) == (impact.cost is None and impact.compute_cost is None)


@given(any_rates, st.floats(0, 1e6))
def test_unknown_energy_leaves_what_time_costs(made: Rates, seconds: float) -> None:
    known, unknown = impact_of(Use(1.0, 1.0, 1.0, seconds), made), impact_of(Use(None, None, None, seconds), made)
    assert all(getattr(unknown, name) is None for name in PER_J)
    assert all(getattr(unknown, name) == getattr(known, name) for name in PER_S)
    assert set(unknown.intervals) == set(known.intervals) & set(PER_S)
    assert unknown.reasons["energy"] == "no device answered"


@given(any_use(), any_rates)
def test_energy_without_an_end_has_impacts_without_it(use: Use, made: Rates) -> None:
    endless, blurred = impact_of(use._replace(high_j=None), made), impact_of(use._replace(low_j=None), made)
    for line in made.lines:
        bounded = line.per_j is None or line.per_j[2] == 0
        assert (endless.intervals[line.name][1] is not None) == bounded
        assert (line.name in blurred.intervals) == (line.per_j is None)
    assert figures(endless) == figures(blurred) == figures(impact_of(use, made))


# --- per unit, and in money --------------------------------------------------------------------------------------------------


def test_sci_is_operational_and_embodied_carbon_per_unit() -> None:
    grid = {"carbon_intensity": 400.0}
    whole = impact_of(used(kwh=2, hours=4, units=10), rates(**grid, embodied=35_040, lifetime=4))
    assert whole.sci_g_per_unit == pytest.approx((2 * 400 + 4) / 10)
    assert whole.completeness == "operational+embodied"
    alone = impact_of(used(kwh=2, hours=4, units=10), rates(**grid))
    assert (alone.sci_g_per_unit, alone.completeness) == (pytest.approx(80), "operational")
    for unknown in (impact_of(used(kwh=2), rates(**grid)), impact_of(used(kwh=2, units=0), rates(**grid))):
        assert unknown.sci_g_per_unit is None
    assert added(whole, whole, units=20).sci_g_per_unit == pytest.approx(whole.sci_g_per_unit)


@pytest.mark.parametrize(
    ("costs", "margin"),
    [
        ({"compute_price": 3.0}, 50 - 6.0),
        ({"compute_price": 3.0, "price": 0.5}, 50 - 6.0),  # a rent contains the electricity
        ({"purchase_price": 35_040.0, "lifetime": 4.0, "price": 0.5}, 50 - 2.0 - 2.0),
        ({"price": 0.5}, 50 - 2.0),
        ({"purchase_price": 35_040.0, "lifetime": 4.0}, None),
        ({}, None),
    ],
)
def test_the_margin_is_the_value_less_what_was_spent(costs: dict[str, float], margin: float | None) -> None:
    impact = impact_of(used(kwh=4, hours=2, units=10), rates(unit_value=5.0, **costs))
    assert impact.margin == (None if margin is None else pytest.approx(margin))
    if margin is None:
        assert "IMPACTSDK_PRICE_PER_KWH" in impact.reasons["margin"]
    assert impact_of(used(kwh=4, hours=2), rates(unit_value=5.0, **costs)).margin is None


# --- one after another -------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0.1, 1e3), any_rates), min_size=1, max_size=5), any_use(units=False))
def test_mixed_rates_are_the_mean_weighted_by_time(parts: list[tuple[float, Rates]], use: Use) -> None:
    impact = impact_of(use, mixed(parts))
    each = [(weight, impact_of(use, made)) for weight, made in parts]
    weights = math.fsum(weight for weight, _ in parts)
    for name in FIELDS:
        values = [getattr(one, name) for _, one in each]
        if None in values:
            assert getattr(impact, name) is None
            continue
        mean = math.fsum(weight * value for (weight, _), value in zip(each, values, strict=True)) / weights
        assert near(getattr(impact, name), mean)
        for end in (0, 1):
            ends = math.fsum(weight * (one.intervals[name][end] or 0.0) for weight, one in each) / weights
            assert near(impact.intervals[name][end], ends)


def test_what_is_unknown_of_one_is_unknown_of_the_sum() -> None:
    known, unknown = impact_of(used(kwh=1), rates(carbon_intensity=400, price=1)), impact_of(used(kwh=1), rates(price=1))
    both = added(known, unknown)
    assert (both.carbon_g, both.cost) == (None, pytest.approx(2))
    assert both.completeness == "operational"


@given(any_use(), any_rates)
def test_the_same_use_costs_the_same_at_mixed_equal_rates(use: Use, made: Rates) -> None:
    assume(made.lines)
    one, three = impact_of(use, made), impact_of(use, mixed([(1.0, made), (2.0, made)]))
    assert all(near(getattr(one, name), getattr(three, name)) for name in (*FIELDS, "margin", "sci_g_per_unit"))
    assert (one.factors, one.completeness, one.nature) == (three.factors, three.completeness, three.nature)


def test_the_margin_has_the_range_of_what_was_spent_turned_round() -> None:
    factors = [
        Factor("price", 0.2, "{USD}/(kW.h)", "test", low=0.1, high=0.4),
        Factor("purchase_price", S_PER_YEAR / 3600, "{USD}", "test"),
        Factor("lifetime", 1.0, "a", "test", low=0.5, high=2.0),
        Factor("unit_value", 10.0, "{USD}", "test"),
    ]
    use = Use(J_PER_KWH, J_PER_KWH, J_PER_KWH, 3600.0, 1.0)
    impact = impact_of(use, rates_of(factors, currency="USD"))
    assert impact.margin == pytest.approx(10 - 0.2 - 1.0)
    assert impact.intervals["margin"] == pytest.approx((10 - 0.4 - 2.0, 10 - 0.1 - 0.5))
    unbounded = impact_of(use._replace(high_j=None), rates_of(factors, currency="USD"))
    assert "margin" not in unbounded.intervals
