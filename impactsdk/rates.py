"""What a joule, a second and a functional unit cost: factors multiplied out once, with their ranges.

Everything is linear in energy E (of the IT equipment, kWh), own time t and functional units R:

- operational carbon ``E x PUE x I`` and ``SCI = (O + M) / R``: ISO/IEC 21031:2024 (SCI), location-based
- embodied carbon ``M = TE x t / EL x RR / ToR``: the same
- water ``E x (WUE + PUE x W)``: Li, Yang, Islam and Ren, "Making AI less thirsty", 2023 (arXiv:2304.03271)
- electricity ``E x PUE x price``; compute ``t x rent``, or ``t x purchase price / lifetime``
- damage, health, biodiversity: carbon and water times their factors (US EPA 2023; ReCiPe 2016)

PUE is the power usage effectiveness (ISO/IEC 30134-2): facility energy over IT energy. Where it is unknown the energy of the
IT equipment alone is counted, and the reasons say so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from impactsdk.factor import Factor, Kind, Nature, weakest

__all__ = ["J_PER_KWH", "S_PER_YEAR", "Line", "Rates", "mixed", "rates_of", "together"]

J_PER_KWH = 3_600_000.0
S_PER_YEAR = 8_760 * 3_600.0
"""Of 365 days, as in the SCI specification's own example."""

_MOST_FACTORS = 64
"""How many are told of what spans many changes: a live grid has a new one every few minutes."""
_NONE = (0.0, 0.0, 0.0)
_Band = tuple[float, float, float]
"""Low, value, high."""


class Line(NamedTuple):
    """One field of an impact: how much of it a joule and a second cost."""

    name: str
    per_j: _Band | None
    per_s: _Band


@dataclass(frozen=True, slots=True)
class Rates:
    """What a joule, a second and a unit cost at one time, multiplied out of the factors once.

    Attributes:
        factors: The factors that are in it.
        completeness: ``operational`` or ``operational+embodied``.
        nature: The weakest of the factors that make carbon: ``estimated`` for the world's average at an unknown place.
        reasons: Why a field is unknown or leaves something out.
    """

    factors: tuple[Factor, ...] = ()
    completeness: str = "operational"
    nature: Nature = "calculated"
    reasons: Mapping[str, str] = field(default_factory=dict)
    currency: str | None = None
    unit_value: float | None = None
    rented: bool = False
    lines: tuple[Line, ...] = ()


def rates_of(
    factors: Iterable[Factor], *, currency: str, shared: Sequence[Factor] = (), reasons: Mapping[Kind, str] | None = None
) -> Rates:
    """The rates that follow from ``factors``: one of a kind, but for ``embodied``, of which there is one for each device.

    Args:
        factors: What is known.
        currency: Of all prices among them.
        shared: Those of the ``embodied`` factors to which ``resource_share`` applies: the parts of a machine of which this
            boundary has reserved only a share.
        reasons: Per kind, why no factor of it is known.
    """
    known: dict[Kind, Factor] = {}
    devices: list[Factor] = []
    for factor in factors:
        if factor.kind == "embodied":
            devices.append(factor)
        else:
            known.setdefault(factor.kind, factor)
    bands = {kind: _band(factor) for kind, factor in known.items()}
    why: dict[str, str] = {str(kind): text for kind, text in (reasons or {}).items()}
    pue = bands.get("pue", (1.0, 1.0, 1.0))
    per_kwh: dict[str, _Band] = {}
    if "carbon_intensity" in bands:
        per_kwh["carbon_g"] = _times(pue, bands["carbon_intensity"])
    if "carbon_intensity_market" in bands:
        per_kwh["carbon_market_g"] = _times(pue, bands["carbon_intensity_market"])
    if "water_intensity" in bands:
        per_kwh["water_l"] = _plus(_times(pue, bands["water_intensity"]), bands.get("wue", _NONE))
    if "wue" in bands:
        per_kwh["water_onsite_l"] = bands["wue"]
    if "price" in bands:
        per_kwh["cost"] = _times(pue, bands["price"])
    per_s: dict[str, _Band] = {}
    if devices and "lifetime" in bands:
        per_s["embodied_g"] = _embodied_per_s(devices, shared, bands["lifetime"], bands.get("resource_share"))
    if "compute_price" in bands:
        per_s["compute_cost"] = _scaled(bands["compute_price"], 1 / 3600)
    elif "purchase_price" in bands and "lifetime" in bands:
        per_s["compute_cost"] = _over(bands["purchase_price"], _scaled(bands["lifetime"], S_PER_YEAR))
    lines = [Line(name, _scaled(band, 1 / J_PER_KWH), per_s.get(name, _NONE)) for name, band in per_kwh.items()]
    lines += [Line(name, None, band) for name, band in per_s.items()]
    lines += _endpoints({line.name: line for line in lines}, bands)
    if not {"pue"} <= known.keys():
        why.setdefault("pue", "power usage effectiveness is unknown: the energy of the computers alone is counted")
    used = (*known.values(), *devices)
    return Rates(
        factors=used,
        completeness="operational+embodied" if "embodied_g" in per_s else "operational",
        nature=weakest("calculated", *(known[kind].nature for kind in ("carbon_intensity", "pue") if kind in known)),
        reasons=why,
        currency=currency,
        unit_value=known["unit_value"].value if "unit_value" in known else None,
        rented="compute_price" in bands,
        lines=tuple(lines),
    )


def _embodied_per_s(devices: Sequence[Factor], shared: Sequence[Factor], lifetime_a: _Band, share: _Band | None) -> _Band:
    total = _NONE
    for device in devices:
        band = _band(device)
        total = _plus(total, _times(band, share) if share is not None and device in shared else band)
    return _over(total, _scaled(lifetime_a, S_PER_YEAR))


def _endpoints(lines: Mapping[str, Line], bands: Mapping[Kind, _Band]) -> list[Line]:
    """Damage, health and biodiversity: of operational and embodied carbon together, and of water."""
    if "carbon_g" not in lines:
        return []
    per_j = lines["carbon_g"].per_j or _NONE
    per_s = lines["embodied_g"].per_s if "embodied_g" in lines else _NONE
    made = []
    if "social_cost_of_carbon" in bands:
        per_g = _scaled(bands["social_cost_of_carbon"], 1e-6)
        made.append(Line("damage_usd", _times(per_j, per_g), _times(per_s, per_g)))
    of_water: tuple[tuple[str, Kind, Kind], ...] = (
        ("health_daly", "health_of_carbon", "health_of_water"),
        ("biodiversity_species_yr", "biodiversity_of_carbon", "biodiversity_of_water"),
    )
    for name, of_carbon_kind, of_water_kind in of_water:
        if of_carbon_kind in bands:
            per_g = _scaled(bands[of_carbon_kind], 1e-3)
            by_carbon = _times(per_j, per_g)
            if "water_l" in lines and of_water_kind in bands:
                by_carbon = _plus(by_carbon, _times(lines["water_l"].per_j or _NONE, _scaled(bands[of_water_kind], 1e-3)))
            made.append(Line(name, by_carbon, _times(per_s, per_g)))
    return made


def mixed(parts: Sequence[tuple[float, Rates]]) -> Rates:
    """The mean of several rates, each with its weight: what held one after another while a long region ran.

    What is unknown for a part of the time is unknown for all of it.
    """
    total = math.fsum(weight for weight, _ in parts)
    if len(parts) == 1 or total <= 0:
        return parts[-1][1]
    by_name: dict[str, Line] = {}
    names = set.intersection(*({line.name for line in rates.lines} for _, rates in parts))
    for weight, rates in parts:
        for line in rates.lines:
            if line.name in names:
                per_j = None if line.per_j is None else _scaled(line.per_j, weight / total)
                per_s = _scaled(line.per_s, weight / total)
                before = by_name.get(line.name)
                if before is not None:
                    per_j = per_j if per_j is None or before.per_j is None else _plus(per_j, before.per_j)
                    per_s = _plus(per_s, before.per_s)
                by_name[line.name] = Line(line.name, per_j, per_s)
    factors: tuple[Factor, ...] = ()
    reasons: dict[str, str] = {}
    for _, rates in parts[-_MOST_FACTORS:]:
        factors = together(factors, rates.factors)
    for _, rates in parts:
        reasons.update(rates.reasons)
    last = parts[-1][1]
    return Rates(
        factors=factors,
        completeness=last.completeness if "embodied_g" in names else "operational",
        nature=weakest(*(rates.nature for _, rates in parts)),
        reasons=reasons,
        currency=last.currency,
        unit_value=last.unit_value,
        rented=last.rented,
        lines=tuple(by_name.values()),
    )


def _band(factor: Factor) -> _Band:
    value = factor.value
    return (
        value if factor.low is None else min(factor.low, value),
        value,
        value if factor.high is None else max(factor.high, value),
    )


def _times(one: _Band, other: _Band) -> _Band:
    return one[0] * other[0], one[1] * other[1], one[2] * other[2]


def _plus(one: _Band, other: _Band) -> _Band:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def _scaled(band: _Band, by: float) -> _Band:
    return band[0] * by, band[1] * by, band[2] * by


def _over(band: _Band, by: _Band) -> _Band:
    return band[0] / by[2], band[1] / by[1], band[2] / by[0]


def together(first: tuple[Factor, ...], second: tuple[Factor, ...]) -> tuple[Factor, ...]:
    """The factors of both, each once: those of ``second``, which are the later ones, and of the others as many as are kept."""
    if first is second or first == second or not second:
        return first
    later = set(second)
    earlier = [factor for factor in first if factor not in later]
    return (*earlier[max(0, len(earlier) + len(second) - _MOST_FACTORS) :], *second)
