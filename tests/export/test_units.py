"""Numbers that a person can read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impactsdk.export.units import carbon, money, scaled, water


@pytest.mark.parametrize(
    ("grams", "text"),
    [
        (None, "unknown"),
        (0.0, "0 gCO2e"),
        (4.2e-7, "420 ngCO2e"),
        (0.00216, "2.16 mgCO2e"),
        (0.9996, "1 gCO2e"),
        (461.28, "461 gCO2e"),
        (1530.0, "1.53 kgCO2e"),
        (999_999.0, "1,000 kgCO2e"),
        (2.5e6, "2.5 tCO2e"),
    ],
)
def test_carbon_is_told_from_nanograms_to_tonnes(grams: float | None, text: str) -> None:
    assert carbon(grams) == text


@pytest.mark.parametrize(
    ("litres", "text"), [(None, "unknown"), (1.9e-4, "190 µL"), (0.25, "250 mL"), (12.0, "12 L"), (3700.0, "3.7 m3")]
)
def test_water_is_told_from_microlitres_to_cubic_metres(litres: float | None, text: str) -> None:
    assert water(litres) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "unknown"),
        (1234.567, "1,234.57 EUR"),
        (0.0421, "4.21 cents (EUR)"),
        (0.00042, "0.042 cents (EUR)"),
        (5.32e-6, "5.32 µEUR"),
        (-0.5, "-50 cents (EUR)"),
    ],
)
def test_money_is_told_in_cents_where_it_is_little(amount: float | None, text: str) -> None:
    assert money(amount, "EUR") == text


@given(st.floats(min_value=1e-12, max_value=1e12))
def test_no_number_is_shown_in_scientific_notation_or_as_nothing(value: float) -> None:
    for text in (carbon(value), water(value), money(value, "USD"), scaled(value, "Wh")):
        if text.startswith("less than"):
            assert value < 1e-11
            continue
        number = text.split(" ", maxsplit=1)[0].replace(",", "")
        assert "e" not in number
        assert float(number) > 0
