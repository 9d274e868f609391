"""A plain table: a title, columns, rows, and notes below."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Table", "number", "verdict"]


def verdict(value: float, limit: float) -> str:
    """``ok`` if the value keeps its limit."""
    return "ok" if value <= limit else "over"


def number(value: float, digits: int = 3) -> str:
    """So many significant digits, without an exponent where that can be read."""
    if value and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits - 1}e}"
    text = f"{value:.{digits}g}"
    return f"{float(text):,.0f}" if "e" in text else text


class Table:
    """Cells are text or numbers; a number is shown with three significant digits."""

    def __init__(self, title: str, columns: Sequence[str]) -> None:
        self.title, self.columns = title, list(columns)
        self.rows: list[list[str]] = []
        self.notes: list[str] = []

    def add(self, *cells: str | float) -> None:
        """Add one row."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        self.rows.append([cell if isinstance(cell, str) else number(cell) for cell in cells])

    def note(self, text: str) -> None:
        """Add a line below the table."""
        self.notes.append(text)

    def __str__(self) -> str:
        widths = [max(len(row[index]) for row in [self.columns, *self.rows]) for index in range(len(self.columns))]
        lines = [self.title, "=" * len(self.title)]
        for row in [self.columns, *self.rows]:
            first, *rest = (
                cell.ljust(width) if not at else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            lines.append("  ".join([first, *rest]).rstrip())
            if row is self.columns:
                lines.append("  ".join("-" * width for width in widths))
        return "\n".join([*lines, *self.notes, ""])
