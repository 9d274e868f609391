"""What turns joules and seconds into impacts: one number each, with its place, year, scope and source.

A factor never travels as a bare number. ``low`` and ``high`` are the range that its source, or the disagreement of several
sources, leaves open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Factor", "Kind", "Nature", "Place", "weakest"]

Nature = Literal["measured", "calculated", "estimated", "forecast"]

_FROM_STRONG_TO_WEAK: tuple[Nature, ...] = ("measured", "calculated", "estimated", "forecast")


def weakest(*natures: Nature) -> Nature:
    """The one that promises least."""
    return _FROM_STRONG_TO_WEAK[max(map(_FROM_STRONG_TO_WEAK.index, natures))]


Kind = Literal[
    "carbon_intensity",
    "carbon_intensity_market",
    "water_intensity",
    "price",
    "pue",
    "wue",
    "embodied",
    "lifetime",
    "resource_share",
    "compute_price",
    "purchase_price",
    "unit_value",
    "social_cost_of_carbon",
    "health_of_carbon",
    "health_of_water",
    "biodiversity_of_carbon",
    "biodiversity_of_water",
]


@dataclass(frozen=True, slots=True)
class Factor:
    """One number with its origin.

    Args:
        kind: What it is a factor for.
        value: In ``unit``.
        unit: UCUM where it has a word for it, e.g. ``g{CO2e}/(kW.h)``, ``L/(kW.h)``, ``{EUR}/(kW.h)``, ``1``, ``a`` (years).
        source: Which table, provider or person it comes from, e.g. ``owid-ember-2026``, ``user``.
        low: Lower end of its range; ``None`` if no range is known.
        high: Upper end of its range.
        place: The grid zone, region or device that it holds for.
        year: The year of the data.
        scope: What is inside: ``lifecycle``, ``direct_generation``, ``operational``, ``cradle_to_gate``, ``industrial``, ...
        nature: ``calculated`` for published figures, ``estimated`` for stand-ins, ``forecast`` for what lies ahead.
        note: One sentence on what to know before trusting it.
    """

    kind: Kind
    value: float
    unit: str
    source: str
    low: float | None = None
    high: float | None = None
    place: str | None = None
    year: int | None = None
    scope: str | None = None
    nature: Nature = "calculated"
    note: str | None = None

    def __str__(self) -> str:
        """``carbon_intensity=41.44 g{CO2e}/(kW.h), FRA, 2025, lifecycle, owid-ember-2026``."""
        unit = "" if self.unit == "1" else f" {self.unit}"
        words = [f"{self.kind}={self.value:.6g}{unit}", self.place, self.year, self.scope, self.source]
        return ", ".join(str(word) for word in words if word is not None)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the machine stands, as far as tables care.

    Args:
        code: What it is called here: ``FR``, ``US-CA``, ``US-EGRID-CAMX``, ``aws:eu-west-3``.
        name: For people.
        iso2: Country, two letters (ISO 3166-1).
        iso3: Country, three letters.
        state: US state, ``US-CA``.
        egrid: US eGRID subregion, ``US-EGRID-CAMX``, where one was asked for or follows from a cloud region.
        provider: ``aws``, ``azure`` or ``gcp``.
        cloud_region: The provider's name of the region.
        set_by: ``user``, ``resource`` (OpenTelemetry's ``cloud.*``) or ``environment`` (the cloud's own variables).
    """

    code: str
    name: str
    iso2: str | None = None
    iso3: str | None = None
    state: str | None = None
    egrid: str | None = None
    provider: str | None = None
    cloud_region: str | None = None
    set_by: str = "user"
