"""What the text of a variable or the value of an argument means, setting by setting.

Each function gives the value, or raises ``ValueError`` or ``TypeError`` with the words for "expected ...".
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast, get_args

from impactsdk.model import Boundary
from impactsdk.protocols import EnergySource, FactorProvider

__all__ = [
    "boundary",
    "currency",
    "directory",
    "exports",
    "factors",
    "flag",
    "not_negative",
    "positive",
    "positive_seconds",
    "pue",
    "share",
    "sources",
    "text",
]

_EXPORTS = ("otel", "journal", "summary", "console", "prometheus")
_LONGEST_S = 86_400.0


def _number(text: Any, *, expected: str, low: float, strict: bool, high: float = math.inf) -> float:
    try:
        value = math.nan if isinstance(text, bool | bytes) else float(text)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(expected) from None
    if not math.isfinite(value) or not low <= value <= high or (strict and value == low):
        raise ValueError(expected)
    return value


def positive_seconds(value: Any) -> float:
    """Seconds > 0, at most a day."""
    return _number(value, expected="a number of seconds > 0 (at most a day)", low=0.0, strict=True, high=_LONGEST_S)


def not_negative(value: Any) -> float:
    """A finite number >= 0."""
    return _number(value, expected="a number >= 0", low=0.0, strict=False)


def pue(value: Any) -> float:
    """A number >= 1."""
    return _number(value, expected="a number >= 1 (facility energy over IT energy)", low=1.0, strict=False)


def text(value: Any) -> str:
    """Text that is not empty, without the blanks around it."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("text that is not empty")
    return value.strip()


def currency(value: Any) -> str:
    """An ISO 4217 code, in capitals."""
    if not isinstance(value, str) or len(value.strip()) != 3 or not (value.isascii() and value.strip().isalpha()):
        raise ValueError("an ISO 4217 code of three letters, such as EUR")
    return value.strip().upper()


def boundary(value: Any) -> Boundary:
    """``process``, ``cgroup`` or ``machine``."""
    word = value.strip().lower() if isinstance(value, str) else None
    if word not in get_args(Boundary):
        raise ValueError("one of " + ", ".join(get_args(Boundary)))
    return cast(Boundary, word)


def flag(value: Any) -> bool:
    """True or false, also as words."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("true or false")


def directory(value: Any) -> Path:
    """A path; ``~`` is the home directory."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ValueError("a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~ of somebody who has no home
        raise ValueError("a path; this home directory is not known") from None


def _items(value: Any, expected: str) -> list[Any]:
    if isinstance(value, str):
        return [word.strip() for word in value.split(",")]
    if isinstance(value, bytes | Mapping) or not isinstance(value, Iterable):
        raise TypeError(expected)
    return list(value)


def exports(value: Any) -> tuple[str, ...] | None:
    """Names of outputs; ``None`` stands for ``auto``."""
    expected = "auto, none, or a comma list of " + ", ".join(_EXPORTS)
    words = [word.lower() if isinstance(word, str) else word for word in _items(value, expected)]
    if words == ["auto"]:
        return None
    if words == ["none"]:
        return ()
    if any(word not in _EXPORTS for word in words):
        raise ValueError(expected)
    return tuple(dict.fromkeys(words))


def share(value: Any) -> float:
    """A number > 0 and at most 1."""
    return _number(value, expected="a number > 0 and at most 1", low=0.0, strict=True, high=1.0)


def positive(value: Any) -> float:
    """A finite number > 0."""
    return _number(value, expected="a number > 0", low=0.0, strict=True)


def _names_or_objects(value: Any, expected: str, *, fits: Callable[[Any], bool]) -> tuple[Any, ...] | None:
    items = _items(value, expected)
    if items == ["auto"]:
        return None
    if items == ["none"]:
        return ()
    for item in items:
        if not (item and item not in ("auto", "none") if isinstance(item, str) else not isinstance(item, type) and fits(item)):
            raise ValueError(expected)
    return tuple(items)


def factors(value: Any) -> tuple[FactorProvider | str, ...] | None:
    """Names or objects; ``None`` stands for the bundled tables."""
    expected = "auto, none, or provider names (tables, electricity_maps, uk_carbon_intensity, tariff) or objects with factors()"
    return _names_or_objects(value, expected, fits=lambda item: callable(getattr(item, "factors", None)))


def sources(value: Any) -> tuple[EnergySource | str, ...] | None:
    """Names or objects; ``None`` stands for detection."""
    expected = "auto, none, or source names (nvml, rapl, cpu_model) or objects with open, read and close"
    return _names_or_objects(value, expected, fits=lambda item: isinstance(item, EnergySource))
