"""A few lines for the person at the terminal when the process ends."""

from __future__ import annotations

from pathlib import Path

from impactsdk.export.metrics import Snapshot
from impactsdk.model import Operation

__all__ = ["joules", "summarise"]

_MOST_OPERATIONS = 8


def joules(energy_j: float | None) -> str:
    """Energy in a unit that a person can read; ``unknown`` where it is."""
    if energy_j is None:
        return "unknown"
    size = abs(energy_j)
    if size >= 3.6e5:
        return f"{energy_j / 3.6e6:.3f} kWh"
    if size >= 1e4:
        return f"{energy_j / 1e3:.1f} kJ"
    if size >= 1 or size == 0:
        return f"{energy_j:.1f} J"
    return f"{energy_j * 1e3:.3g} mJ"


def summarise(snapshot: Snapshot, journal: Path | None) -> str:
    """What the run cost, how that was found, and where the details are."""
    totals = snapshot.totals
    operations = totals.operations
    if not operations:
        return ""
    known = bool(totals.channels)
    lines = []
    if known:
        total_j = totals.attributed_j + totals.unattributed_j
        others = f", {joules(totals.others_j)} of the machine for others" if totals.others_j > 0 else ""
        lines.append(
            f"impactsdk: this {snapshot.boundary} used {joules(total_j)}: {joules(totals.attributed_j)} in measured regions, "
            f"{joules(totals.unattributed_j)} outside{others}"
        )
    else:
        lines.append("impactsdk: the energy is unknown: no device could be read")
    ordered = sorted(operations.items(), key=lambda item: -(item[1].energy_j or 0.0))
    width = min(44, max(len(name) for name, _ in ordered[:_MOST_OPERATIONS]))
    lines += [f"  {name[:width]:<{width}}  {_operation(operation)}" for name, operation in ordered[:_MOST_OPERATIONS]]
    if len(ordered) > _MOST_OPERATIONS:
        lines.append(f"  and {len(ordered) - _MOST_OPERATIONS} more")
    if known:
        how = ", ".join(f"{channel.id} by {channel.method} ({channel.nature})" for channel in snapshot.channels[:4])
        more = f" and {len(snapshot.channels) - 4} more" if len(snapshot.channels) > 4 else ""
        lines.append(f"  from {how}{more}; boundary {snapshot.boundary}")
    if journal is not None:
        lines.append(f"  details in {journal}")
    return "\n".join(lines) + "\n"


def _operation(operation: Operation) -> str:
    text = f"{joules(operation.energy_j):>12}  {operation.duration_s:>9.2f} s  {operation.count:>6} x"
    if operation.units and operation.energy_j is not None:
        text += f"  {joules(operation.energy_j / operation.units)}/{operation.unit or 'unit'}"
    if operation.impact.carbon_g is not None:
        text += f"  {operation.impact.carbon_g:.3g} gCO2e"
    if operation.impact.cost is not None:
        text += f"  {operation.impact.cost:.3g} {operation.impact.currency}"
    return text
