"""Numbers in units that a person can read: never 0.000001 kg."""

from __future__ import annotations

__all__ = ["carbon", "energy", "money", "scaled", "water"]

_PREFIXES = ((1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_UNKNOWN = "unknown"


def scaled(value: float | None, unit: str, *, largest: str = "M") -> str:
    """``value`` with three digits and the prefix that fits, at most ``largest``."""
    if value is None:
        return _UNKNOWN
    if value == 0:
        return f"0 {unit}"
    prefixes = _PREFIXES[[prefix for _, prefix in _PREFIXES].index(largest) :]
    for factor, prefix in prefixes:
        # As it will be shown: 999.6 m is 1.
        if abs(float(f"{value / factor:.3g}")) >= 1:
            return f"{_short(value / factor)} {prefix}{unit}"
    factor, prefix = prefixes[-1]
    if abs(value) < 1e-3 * factor:
        return f"less than 0.001 {prefix}{unit}"
    return f"{_short(value / factor)} {prefix}{unit}"


def energy(energy_j: float | None) -> str:
    """Joules, with one decimal place where there are some, from 360 kJ on as kWh."""
    if energy_j is None:
        return _UNKNOWN
    size = abs(energy_j)
    if size >= 3.6e5:
        return f"{energy_j / 3.6e6:.3f} kWh"
    if size >= 1e4:
        return f"{energy_j / 1e3:.1f} kJ"
    if size >= 1 or size == 0:
        return f"{energy_j:.1f} J"
    return scaled(energy_j, "J")


def carbon(carbon_g: float | None) -> str:
    """Grams of CO2e, from a million on as tonnes."""
    if carbon_g is not None and abs(carbon_g) >= 1e6:
        return f"{_short(carbon_g / 1e6)} tCO2e"
    return scaled(carbon_g, "gCO2e", largest="k")


def water(water_l: float | None) -> str:
    """Litres, from a thousand on as cubic metres."""
    if water_l is not None and abs(water_l) >= 1e3:
        return f"{_short(water_l / 1e3)} m3"
    return scaled(water_l, "L", largest="")


_WITHOUT_CENTS = frozenset(("CLP", "ISK", "JPY", "KRW", "PYG", "UGX", "VND", "XAF", "XOF"))
"""Currencies that ISO 4217 gives no decimals."""


def money(amount: float | None, currency: str | None) -> str:
    """The currency, from a hundredth down its cents, below a thousandth of a cent with a prefix."""
    if amount is None or currency is None:
        return _UNKNOWN
    size = abs(amount)
    if size >= 1:
        return f"{amount:,.2f} {currency}"
    if size >= 1e-5 and currency not in _WITHOUT_CENTS:
        return f"{_short(amount * 100)} cents ({currency})"
    return scaled(amount, currency, largest="")


def _short(value: float) -> str:
    """Three significant digits, never in scientific notation."""
    text = f"{value:.3g}"
    return f"{float(text):,.0f}" if "e" in text and abs(value) >= 1 else text
