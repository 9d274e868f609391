"""What counts as a number where somebody else's code gives one."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["number_of"]


def number_of(value: Any) -> float:
    """``value`` as a float; NaN if it is no number.

    Text and truth values can be made a float, and are none: also numpy's, which is no subclass of Python's.
    """
    if isinstance(value, str | bytes | bytearray) or type(value).__name__ in ("bool", "bool_"):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
