"""The user's own figures. They win over every table and every network."""

from __future__ import annotations

from collections.abc import Sequence

from impactsdk.factor import Factor, Kind, Place
from impactsdk.settings import Settings

__all__ = ["UserConstants"]


class UserConstants:
    """What the settings say, as factors; each holds everywhere and always."""

    name = "user"
    trouble: str | None = None

    def __init__(self, settings: Settings) -> None:
        kg = settings.embodied_kg
        per_kwh = f"{{{settings.currency}}}/(kW.h)"
        given: tuple[tuple[Kind, float | None, str, str | None], ...] = (
            (
                "carbon_intensity",
                settings.carbon_intensity_g_per_kwh,
                "g{CO2e}/(kW.h)",
                None,
            ),
            ("carbon_intensity_market", settings.carbon_intensity_market_g_per_kwh, "g{CO2e}/(kW.h)", "market_based"),
            ("water_intensity", settings.water_intensity_l_per_kwh, "L/(kW.h)", None),
            ("price", settings.price_per_kwh, per_kwh, None),
            ("pue", settings.pue, "1", None),
            ("wue", settings.wue, "L/(kW.h)", None),
            ("embodied", None if kg is None else kg * 1000, "g{CO2e}", None),
            ("lifetime", settings.lifetime_years, "a", None),
            ("resource_share", settings.resource_share, "1", None),
            ("compute_price", settings.compute_price_per_hour, f"{{{settings.currency}}}/h", "electricity_included"),
            ("purchase_price", settings.purchase_price, f"{{{settings.currency}}}", None),
            ("unit_value", settings.value_per_unit, f"{{{settings.currency}}}", None),
        )
        self._factors = tuple(
            Factor(kind, value, unit, "user", low=value, high=value, place=settings.region, scope=scope)
            for kind, value, unit, scope in given
            if value is not None
        )

    def factors(self, *, place: Place | None, unix_ns: int) -> Sequence[Factor]:
        """All that was set."""
        return self._factors

    def close(self) -> None:
        """There is nothing to let go of."""
