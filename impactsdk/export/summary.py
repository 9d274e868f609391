"""A few lines for the person at the terminal when the process ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from impactsdk.export.units import carbon, energy, money, scaled, water
from impactsdk.export.views import Snapshot
from impactsdk.model import Impact, Operation

__all__ = ["impact_lines", "summarise"]

_MOST_OPERATIONS = 8


def summarise(snapshot: Snapshot, journal: Path | None, *, lacks: str = "") -> str:
    """What the run cost, how that was found, and where the details are; ``lacks`` says which of them could not be written."""
    totals = snapshot.totals
    operations = totals.operations
    if not operations:
        return ""
    known = bool(totals.channels)
    lines = []
    if known:
        total_j = totals.attributed_j + totals.unattributed_j
        others = f", {energy(totals.others_j)} of the machine for others" if totals.others_j > 0 else ""
        lines.append(
            f"impactsdk: this {snapshot.boundary} used {energy(total_j)} ({scaled(total_j / 3600, 'Wh')}): "
            f"{energy(totals.attributed_j)} in measured regions, {energy(totals.unattributed_j)} outside{others}"
        )
    else:
        lines.append("impactsdk: the energy is unknown: no device could be read")
    ordered = sorted(operations.items(), key=lambda item: -(item[1].energy_j or 0.0))
    width = min(44, max(len(name) for name, _ in ordered[:_MOST_OPERATIONS]))
    lines += [f"  {name[:width]:<{width}}  {_operation(operation)}" for name, operation in ordered[:_MOST_OPERATIONS]]
    if len(ordered) > _MOST_OPERATIONS:
        lines.append(f"  and {len(ordered) - _MOST_OPERATIONS} more")
    lines += [f"  {line}" for line in impact_lines(totals.impact)]
    if known:
        how = ", ".join(f"{channel.id} by {channel.method} ({channel.nature})" for channel in snapshot.channels[:4])
        more = f" and {len(snapshot.channels) - 4} more" if len(snapshot.channels) > 4 else ""
        lines.append(f"  from {how}{more}; boundary {snapshot.boundary}")
    if journal is not None:
        lines.append(f"  details in {_from_here(journal)}{f', without {lacks}: they could not be written' if lacks else ''}")
    elif lacks:
        lines.append(f"  no details: {lacks} could not be written")
    return "\n".join(lines) + "\n"


def _from_here(path: Path) -> Path:
    """The short way to it, if there is one."""
    try:
        return path.relative_to(Path.cwd())
    except (OSError, ValueError):
        return path


def impact_lines(impact: Impact) -> list[str]:
    """Carbon, water and money with their ranges, and by which factors; one line more where the place is not known."""
    currency = impact.currency
    parts: tuple[tuple[str, Callable[[float], str]], ...] = (
        ("carbon_g", lambda value: f"{carbon(value)}{_between(impact, 'carbon_g', carbon)}"),
        ("carbon_market_g", lambda value: f"{carbon(value)} by contract"),
        ("embodied_g", lambda value: f"{carbon(value)}{_between(impact, 'embodied_g', carbon)} for making the hardware"),
        ("water_l", lambda value: f"{water(value)}{_between(impact, 'water_l', water)} of water"),
        ("cost", lambda value: f"{money(value, currency)} of electricity"),
        ("compute_cost", lambda value: f"{money(value, currency)} of computers"),
        ("margin", lambda value: f"margin {money(value, currency)}"),
    )
    said = [shown(value) for name, shown in parts if (value := getattr(impact, name)) is not None]
    lines = ["; ".join(said)] if said else []
    intensity = next((factor for factor in reversed(impact.factors) if factor.kind == "carbon_intensity"), None)
    if intensity is not None and impact.carbon_g is not None:
        origin = ", ".join(str(word) for word in (intensity.place, intensity.year, intensity.scope) if word is not None)
        spread = "" if intensity.low is None or intensity.high is None else f" ({intensity.low:.3g} to {intensity.high:.4g})"
        spread = "" if intensity.low == intensity.high else spread
        pue = next((f" x PUE {factor.value:.3g}" for factor in reversed(impact.factors) if factor.kind == "pue"), "")
        lines.append(f"at {intensity.value:.4g} gCO2e/kWh{spread}{pue}: {origin + ', ' if origin else ''}{intensity.source}")
        if intensity.nature == "estimated" and intensity.note:
            lines.append(intensity.note)
    elif "carbon_intensity" in impact.reasons and "energy" not in impact.reasons:
        lines.append(f"carbon is unknown: {impact.reasons['carbon_intensity']}")
    return lines


def _between(impact: Impact, name: str, shown: Callable[[float | None], str]) -> str:
    low, high = impact.intervals.get(name, (None, None))
    if low is None or low == high or (high is None and low <= 0.0):
        return ""
    return f" (at least {shown(low)})" if high is None else f" ({shown(low)} to {shown(high)})"


def _operation(operation: Operation) -> str:
    """Its own energy and time, without what is measured inside of it; per unit of what it does, with that."""
    text = f"{energy(operation.energy_j):>12}  {operation.self_duration_s:>9.2f} s  {operation.count:>6} x"
    unit = operation.unit or "unit"
    if (per_unit_j := operation.energy_per_unit_j) is not None:
        text += f"  {energy(per_unit_j)}/{unit}{' inclusive' if operation.inside_j else ''}"
    elif operation.counted < operation.count and operation.units:
        text += f"  {unit}s of {operation.counted} of {operation.count} calls known"
    impact = operation.impact
    if impact.carbon_g is not None and per_unit_j is not None and operation.units and not operation.inside_j:
        text += f"  {carbon(impact.carbon_g / operation.units)}/{unit}"
    elif impact.carbon_g is not None:
        text += f"  {carbon(impact.carbon_g)}"
    if impact.cost is not None:
        text += f"  {money(impact.cost, impact.currency)}"
    return text
