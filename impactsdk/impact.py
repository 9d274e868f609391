"""Joules into what they cost, from factors that the user gave. Pure arithmetic; nothing is guessed.

Operational carbon: ``E_kWh x PUE x intensity`` (ISO/IEC 21031:2024, location-based). Electricity: ``E_kWh x PUE x price``.
Without the factor the field stays ``None``. Raw joules are always kept beside, so that other factors can be applied later.
"""

from __future__ import annotations

from impactsdk.model import Impact
from impactsdk.settings import Settings

__all__ = ["J_PER_KWH", "impact_of"]

J_PER_KWH = 3_600_000.0


def impact_of(energy_j: float | None, settings: Settings, *, units: float | None = None) -> Impact:
    """What ``energy_j`` joules cost under the user's own factors."""
    intensity, price = settings.carbon_intensity_g_per_kwh, settings.price_per_kwh
    if energy_j is None or (intensity is None and price is None):
        return Impact()
    facility_kwh = energy_j / J_PER_KWH * (1.0 if settings.pue is None else settings.pue)
    factors: list[dict[str, object]] = []
    if settings.pue is not None:
        factors.append({"name": "pue", "value": settings.pue, "unit": "1", "source": "user"})
    carbon_g = cost = sci_g = None
    if intensity is not None:
        carbon_g = facility_kwh * intensity
        sci_g = carbon_g / units if units else None
        factors.append({"name": "carbon_intensity", "value": intensity, "unit": "g{CO2e}/(kW.h)", "source": "user"})
    if price is not None:
        cost = facility_kwh * price
        factors.append({"name": "price", "value": price, "unit": f"{{{settings.currency}}}/(kW.h)", "source": "user"})
    return Impact(
        carbon_g=carbon_g,
        cost=cost,
        currency=None if price is None else settings.currency,
        sci_g_per_unit=sci_g,
        factors=tuple(factors),
    )
