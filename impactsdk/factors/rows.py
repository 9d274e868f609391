"""The rows of one bundled table, read when they are first asked for and then kept.

``data/SOURCES.md`` says where each table comes from, under which licence, and what to know before trusting it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

__all__ = ["Row", "number", "rows", "whole_number"]

Row = Mapping[str, str]
"""Column to text; an empty text is unknown, never zero."""


@cache
def rows(table: str) -> tuple[Row, ...]:
    """The rows of ``data/<table>.csv``, in the file's order.

    Raises:
        FileNotFoundError: There is no such table.
    """
    import csv  # here, as below: a session that asks for no table need not load them
    import pkgutil  # reads wheels and zip files as importlib.resources does, and is loaded in a tenth of its time

    text = pkgutil.get_data("impactsdk.factors", f"data/{table}.csv")
    if text is None:  # a loader that has no data at all
        raise FileNotFoundError(f"impactsdk/factors/data/{table}.csv")
    return tuple(csv.DictReader(text.decode("utf-8").splitlines()))


def number(text: str) -> float | None:
    """The number in a field; ``None`` if it is empty."""
    return float(text) if text else None


def whole_number(text: str) -> int | None:
    """The year or count in a field; ``None`` if it is empty."""
    return int(text) if text else None
