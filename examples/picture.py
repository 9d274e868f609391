"""Draw a recorded run: power over time above, what was running below. ``python examples/picture.py RUN.jsonl > run.svg``

It reads the journal, which is OTLP/JSON lines, and needs nothing but the standard library.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

WIDTH, LEFT, RIGHT, TOP, PLOT, BAR = 960, 60, 20, 34, 150, 22


def attributes(encoded: list[dict[str, Any]]) -> dict[str, Any]:
    """OTLP's list of keys and values as a mapping; an empty value is legal."""
    return {item["key"]: next(iter(item["value"].values()), None) for item in encoded}


def requests(path: Path) -> Iterator[dict[str, Any]]:
    """The lines that are whole; the last one of a killed process may not be, and end within a character."""
    # Not splitlines(), which also ends a line where an attribute has U+2028.
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                request = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(request, dict):
                yield request


def load(path: Path) -> tuple[list[dict[str, Any]], dict[str, list[tuple[float, float]]]]:
    """The spans, and per device the points (seconds since 1970, cumulative joules)."""
    spans: list[dict[str, Any]] = []
    energy: dict[str, list[tuple[float, float]]] = {}
    for request in requests(path):
        for resource in request.get("resourceSpans", []):
            spans += [span for scope in resource["scopeSpans"] for span in scope["spans"]]
        for resource in request.get("resourceMetrics", []):
            for scope in resource["scopeMetrics"]:
                for metric in scope["metrics"]:
                    if metric["name"] == "hw.energy":
                        for point in metric["sum"]["dataPoints"]:
                            device = attributes(point["attributes"])["hw.id"]
                            energy.setdefault(device, []).append((int(point["timeUnixNano"]) * 1e-9, float(point["asDouble"])))
    return spans, energy


def power(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Mean watts between neighbouring points, at their middle."""
    steps = zip(sorted(points), sorted(points)[1:], strict=False)
    return [((t0 + t1) / 2, (e1 - e0) / (t1 - t0)) for (t0, e0), (t1, e1) in steps if t1 - t0 > 0.2]


def rounded_up(watts: float) -> float:
    """The next of 1, 2, 4, 8 times a power of ten: its quarters are round numbers, too."""
    power_of_ten = 10.0 ** math.floor(math.log10(max(watts, 1e-9)))
    return next(step * power_of_ten for step in (1, 2, 4, 8, 10) if step * power_of_ten >= watts)


def rows(spans: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Spans by depth of nesting; what is shorter than a pixel stays out."""
    by_id = {span["spanId"]: span for span in spans}
    levels: dict[int, list[dict[str, Any]]] = {}
    for span in spans:
        depth, parent = 0, by_id.get(span.get("parentSpanId", ""))
        while parent is not None and depth < len(spans):  # else they go round in a circle
            depth, parent = depth + 1, by_id.get(parent.get("parentSpanId", ""))
        levels.setdefault(depth, []).append(span)
    return [levels[depth] for depth in sorted(levels)]


def draw(spans: list[dict[str, Any]], energy: dict[str, list[tuple[float, float]]]) -> str:
    """The picture as SVG."""
    start = min(int(span["startTimeUnixNano"]) for span in spans) * 1e-9
    end = max(int(span["endTimeUnixNano"]) for span in spans) * 1e-9
    curves = {device: power(points) for device, points in energy.items()}
    top_w = rounded_up(max([watts for curve in curves.values() for _, watts in curve] or [1.0]) * 1.05)
    levels = rows(spans)
    height = TOP + PLOT + 30 + BAR * len(levels) + 20

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (at - start) / max(end - start, 1e-6)

    def y(watts: float) -> float:
        return TOP + PLOT * (1 - watts / top_w)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="13">power, watts: {escape(", ".join(curves))}</text>',
    ]
    for tick in range(5):
        watts = top_w * tick / 4
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(watts):.1f}" y2="{y(watts):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(watts) + 4:.1f}" text-anchor="end">{watts:.3g}</text>')
    for colour, curve in zip(("#c0392b", "#2471a3", "#1e8449", "#7d3c98"), curves.values(), strict=False):
        line = " ".join(f"{x(at):.1f},{y(watts):.1f}" for at, watts in curve if start <= at <= end)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    for level, members in enumerate(levels):
        at_y = TOP + PLOT + 20 + BAR * level
        for span in members:
            begin, stop = int(span["startTimeUnixNano"]) * 1e-9, int(span["endTimeUnixNano"]) * 1e-9
            width = x(stop) - x(begin)
            if width < 1:
                continue
            energy_j = attributes(span["attributes"]).get("impact.energy.inclusive")
            short = "" if energy_j is None else f"{float(energy_j):{'.0f' if float(energy_j) >= 10 else '.2g'}} J"
            label = f"{span['name']}  {short}".strip()
            parts.append(
                f'<rect x="{x(begin):.1f}" y="{at_y}" width="{max(width - 0.6, 0.6):.1f}" height="{BAR - 4}" fill="#aed6f1">'
                f"<title>{escape(label)}</title></rect>"
            )
            shown = next((text for text in (label, short) if text and width > 6.2 * len(text)), "")
            parts.append(f'<text x="{x(begin) + 4:.1f}" y="{at_y + 13}">{escape(shown)}</text>')
    for tick in range(7):
        at = start + (end - start) * tick / 6
        parts.append(f'<text x="{x(at):.1f}" y="{height - 6}" text-anchor="middle">{at - start:.0f} s</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> int:
    """Draw the run named on the command line."""
    if len(sys.argv) != 2:
        print("usage: python examples/picture.py impact/run-....jsonl > run.svg", file=sys.stderr)
        return 2
    name = sys.argv[1]
    try:
        spans, energy = load(Path(name))
        picture = draw(spans, energy) if spans else ""
    except OSError as error:
        return _told(f"{name} cannot be read: {error.strerror or error}", 2)
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        return _told(f"{name} is no journal of impactsdk: {type(error).__name__}: {error}", 2)
    if not picture:
        return _told(f"{name}: there is no finished span in it", 1)
    if sys.stdout is None:  # the shell has closed it
        return _told("the picture cannot be written: there is no standard output", 2)
    try:
        sys.stdout.buffer.write(picture.encode("utf-8", "replace"))  # whatever the terminal's encoding: SVG is UTF-8
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else it fails again at exit
        return _told(f"the picture cannot be written: {error.strerror or error}", 2)
    return 0


def _told(sentence: str, status: int) -> int:
    print(sentence, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
