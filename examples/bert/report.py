"""The point of the example: what a sentence costs in each phase, and how that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .record import TRACING, WHOLE

TITLES = {
    "pretrain": "pre-training",
    "finetune": "fine-tuning",
    "evaluate": "evaluation",
    "infer": "inference",
    TRACING: TRACING,
    WHOLE: WHOLE,
}
UNKNOWN = "unknown"
_COSTS = ("phase", "carbon mg", "embodied mg", "water mL", "electricity", "SCI mg/sentence")
_HEADER = ("phase", "joules", "watts", "seconds", "sentences", "J/sentence", "how", "result")
# Weakest last: of several blocks, the sum is only as good as the weakest.
_NATURES = ("measured", "calculated", "estimated", "forecast")
_QUALITIES = ("measured", "interpolated", "bounded", "estimated", "partial", "absent")


@dataclass(frozen=True)
class Row:
    """The blocks of one phase added up; ``None`` where a number is unknown, or where there is nothing to count."""

    phase: str
    energy_j: float | None
    low_j: float | None
    high_j: float | None
    duration_s: float
    sentences: float | None
    how: str
    result: str = ""

    @property
    def power_w(self) -> float | None:
        """Mean power over the blocks."""
        return None if self.energy_j is None or self.duration_s <= 0 else self.energy_j / self.duration_s

    @property
    def per_sentence_j(self) -> float | None:
        """Joules per sentence."""
        return None if self.energy_j is None or not self.sentences else self.energy_j / self.sentences


def row(phase: str, blocks: Sequence[Any], *, result: str = "") -> Row:
    """Add the measurements of a phase's blocks; one unknown energy makes the sum unknown."""
    return Row(
        phase=phase,
        energy_j=_sum([block.energy_j for block in blocks]),
        low_j=_sum([block.energy_low_j for block in blocks]),
        high_j=_sum([block.energy_high_j for block in blocks]),
        duration_s=sum(block.duration_s for block in blocks),
        sentences=None if phase in (TRACING, WHOLE) else _sum([block.units for block in blocks]),
        how=_how(blocks),
        result=result,
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""
    lines = [_HEADER]
    for each in rows:
        counts = each.phase not in (TRACING, WHOLE)
        lines.append(
            (
                TITLES.get(each.phase, each.phase),
                _number(each.energy_j, 1),
                _number(each.power_w, 1),
                _number(each.duration_s, 2),
                _number(each.sentences, 0) if counts else "",
                _number(each.per_sentence_j, 4) if counts else "",
                each.how,
                each.result,
            )
        )
    return _aligned(lines)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    align = [str.ljust, *[str.rjust] * 5, str.ljust, str.ljust]
    return "\n".join(
        "  ".join(map(lambda place, cell, width: place(cell, width), align, line, widths)).rstrip() for line in lines
    )


def report(measurements: Mapping[str, Sequence[Any]], results: Mapping[str, str]) -> str:
    """The table of all phases that ran, the ratio between them, and how the numbers were obtained."""
    rows = [row(phase, measurements[phase], result=results.get(phase, "")) for phase in TITLES if measurements.get(phase)]
    parts = [table(rows)] if rows else ["no phase has run"]
    if ratio := _ratio(rows):
        parts.append(ratio)
    parts += _impacts(measurements)
    if rows:
        parts.append(_obtained(rows[-1], [block for blocks in measurements.values() for block in blocks]))
    return "\n".join(parts)


def shown(sentence: str) -> str:
    """A sentence on one line, a long one by its beginning."""
    line = " ".join(sentence.split())
    return line if len(line) <= 100 else f"{line[:97]}..."


def _impacts(measurements: Mapping[str, Sequence[Any]]) -> list[str]:
    """What those joules and seconds cost in carbon, water and money, and by which factors."""
    lines, last = [_COSTS], None
    for phase in TITLES:
        impacts = [block.impact for block in measurements.get(phase, ())]
        if not impacts:
            continue
        last = impacts[-1]
        carbon_g, embodied_g = _sum([impact.carbon_g for impact in impacts]), _sum([impact.embodied_g for impact in impacts])
        cost = _sum([impact.cost for impact in impacts])
        sentences = None if phase in (TRACING, WHOLE) else _sum([block.units for block in measurements[phase]])
        # Software Carbon Intensity: operational and embodied carbon per functional unit.
        sci_g = None if carbon_g is None or not sentences else (carbon_g + (embodied_g or 0.0)) / sentences
        lines.append(
            (
                TITLES.get(phase, phase),
                _short(carbon_g, 1e3),
                _short(embodied_g, 1e3),
                _short(_sum([impact.water_l for impact in impacts]), 1e3),
                UNKNOWN if cost is None else f"{cost:.3g} {last.currency}",
                _short(sci_g, 1e3) if sentences else "",
            )
        )
    if last is None or not last.factors:
        return []
    used = {factor.kind: factor for factor in last.factors}
    origin = [str(used[kind]) for kind in ("carbon_intensity", "water_intensity", "price") if kind in used]
    notes = [used["carbon_intensity"].note] if "carbon_intensity" in used and used["carbon_intensity"].note else []
    return ["", _aligned(lines), f"Factors: {'; '.join(origin)}.", *notes, ""]


def _short(value: float | None, scale: float) -> str:
    return UNKNOWN if value is None else f"{value * scale:.3g}"


def _ratio(rows: Sequence[Row]) -> str | None:
    costs = {each.phase: each.per_sentence_j for each in rows}
    base = costs.pop("infer", None)
    if not base:
        return None
    others = [f"{TITLES[phase]} {_number(cost / base, 1)} x" for phase, cost in costs.items() if cost is not None]
    return f"Joules per sentence relative to inference: {', '.join(others)}." if others else None


def _obtained(last: Row, blocks: Sequence[Any]) -> str:
    methods = " + ".join(dict.fromkeys(block.method for block in blocks if block.method))
    if not methods:
        return "Energy: unknown, for no device answered or measuring is switched off."
    between = ""
    if last.low_j is not None and last.high_j is not None:
        between = f" The true value of the {TITLES[last.phase]} row is between {last.low_j:,.1f} and {last.high_j:,.1f} J."
    boundaries = ", ".join(dict.fromkeys(str(block.boundary) for block in blocks))
    return (
        f"Energy: {methods} ({last.how}), boundary {boundaries}.{between}\n"
        "Tracing builds TensorFlow's graphs once per run and is kept apart from the phases; inference includes tokenising, "
        "evaluation does not; the whole run includes imports and loading."
    )


def _how(blocks: Sequence[Any]) -> str:
    if not blocks or any(block.nature is None for block in blocks):
        return UNKNOWN
    nature = max((block.nature for block in blocks), key=_NATURES.index)
    quality = max((block.quality for block in blocks), key=_QUALITIES.index)
    return nature if nature == quality else f"{nature}, {quality}"


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _number(value: float | None, digits: int) -> str:
    """So many decimals; a smaller number keeps two digits, for it is not zero."""
    if value is None:
        return UNKNOWN
    return f"{value:.2g}" if 0 < value < 0.95 * 10**-digits else f"{value:,.{digits}f}"
