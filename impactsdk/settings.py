"""One frozen :class:`Settings`; the only reader of the environment.

Each setting is taken from the argument, else from ``IMPACTSDK_<NAME>``, else from its default. A bad value is an error at
once and says where it came from.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast, get_args

from impactsdk.errors import ConfigurationError
from impactsdk.model import Boundary
from impactsdk.protocols import EnergySource
from impactsdk.semconv import ENV_OTEL_DISABLED, ENV_PREFIX

__all__ = ["EXPORTS", "Settings"]

EXPORTS = ("otel", "journal", "summary")
_LONGEST_S = 86_400.0
_VARIABLES_READ = ("IMPACTSDK_", "OTEL_", "CUDA_", "NVIDIA_VISIBLE_DEVICES", "LOCAL_", "SLURM_", "OMPI_")


def _number(text: Any, *, expected: str, low: float, strict: bool, high: float = math.inf) -> float:
    try:
        value = math.nan if isinstance(text, bool | bytes) else float(text)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(expected) from None
    if not math.isfinite(value) or not low <= value <= high or (strict and value == low):
        raise ValueError(expected)
    return value


def _positive_seconds(value: Any) -> float:
    return _number(value, expected="a number of seconds > 0 (at most a day)", low=0.0, strict=True, high=_LONGEST_S)


def _not_negative(value: Any) -> float:
    return _number(value, expected="a number >= 0", low=0.0, strict=False)


def _pue(value: Any) -> float:
    return _number(value, expected="a number >= 1 (facility energy over IT energy)", low=1.0, strict=False)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("text that is not empty")
    return value.strip()


def _currency(value: Any) -> str:
    if not isinstance(value, str) or len(value.strip()) != 3 or not (value.isascii() and value.strip().isalpha()):
        raise ValueError("an ISO 4217 code of three letters, such as EUR")
    return value.strip().upper()


def _boundary(value: Any) -> Boundary:
    word = value.strip().lower() if isinstance(value, str) else None
    if word not in get_args(Boundary):
        raise ValueError("one of " + ", ".join(get_args(Boundary)))
    return cast(Boundary, word)


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("true or false")


def _directory(value: Any) -> Path:
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


def _exports(value: Any) -> tuple[str, ...] | None:
    """``None`` stands for ``auto``."""
    expected = "auto, none, or a comma list of " + ", ".join(EXPORTS)
    words = [word.lower() if isinstance(word, str) else word for word in _items(value, expected)]
    if words == ["auto"]:
        return None
    if words == ["none"]:
        return ()
    if any(word not in EXPORTS for word in words):
        raise ValueError(expected)
    return tuple(dict.fromkeys(words))


def _sources(value: Any) -> tuple[EnergySource | str, ...] | None:
    """``None`` stands for detection."""
    expected = "auto, none, or source names (nvml, rapl, cpu_model) or objects with open, read and close"
    items = _items(value, expected)
    if items == ["auto"]:
        return None
    if items == ["none"]:
        return ()
    for item in items:
        if isinstance(item, str) and item and item not in ("auto", "none"):
            continue
        if not isinstance(item, str) and isinstance(item, EnergySource) and not isinstance(item, type):
            continue
        raise ValueError(expected)
    return tuple(items)


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "service_name": _text,
    "export": _exports,
    "directory": _directory,
    "boundary": _boundary,
    "interval_s": _positive_seconds,
    "sources": _sources,
    "region": _text,
    "pue": _pue,
    "wue": _not_negative,
    "carbon_intensity_g_per_kwh": _not_negative,
    "price_per_kwh": _not_negative,
    "currency": _currency,
    "enrich": _flag,
    "shutdown_timeout_s": _positive_seconds,
    "disabled": _flag,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """How a meter measures and where it sends what it finds. Build one with :meth:`load`.

    Args:
        service_name: ``service.name`` of the resource; default: ``OTEL_SERVICE_NAME`` or what OpenTelemetry falls back to.
        export: Where results go: ``None`` for ``auto``, ``()`` for nowhere, else any of ``otel``, ``journal``, ``summary``.
        directory: Where the journal is written.
        boundary: ``process``, ``cgroup`` or ``machine``.
        interval_s: The longest time between two readings while a region is open, seconds.
        sources: Names or objects; ``None`` for detection.
        region: Where the machine stands, e.g. ``FR`` or ``aws:eu-west-3``. Recorded with the results.
        pue: Facility energy over IT energy, >= 1. Without it, impacts are those of the IT energy alone.
        wue: Water used on site per kWh of IT energy, litres. Recorded with the results.
        carbon_intensity_g_per_kwh: Of the electricity, gCO2e per kWh. Without it, carbon is unknown.
        price_per_kwh: Of the electricity, in ``currency``. Without it, cost is unknown.
        currency: ISO 4217 code.
        enrich: Reserved: energy on the spans of other instrumentations. Only ``False`` works in this version.
        shutdown_timeout_s: The most that leaving the process may wait for results to be written, seconds.
        disabled: Measure nothing. ``OTEL_SDK_DISABLED`` does the same.
        environ: The environment as it was, for sources that follow other people's variables.
    """

    service_name: str | None = None
    export: tuple[str, ...] | None = None
    directory: Path = Path("impact")
    boundary: Boundary = "process"
    interval_s: float = 0.1
    sources: tuple[EnergySource | str, ...] | None = None
    region: str | None = None
    pue: float | None = None
    wue: float | None = None
    carbon_intensity_g_per_kwh: float | None = None
    price_per_kwh: float | None = None
    currency: str = "USD"
    enrich: bool = False
    shutdown_timeout_s: float = 5.0
    disabled: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, /, **arguments: Any) -> Settings:
        """Settings from ``arguments``, else from ``environ`` (default: this process's), else the defaults.

        An argument that is ``None`` counts as not given.

        Raises:
            ConfigurationError: A name is not known, or a value is not usable; the message says where it came from.
        """
        variables = dict(os.environ if environ is None else environ)
        for name in arguments:
            if name not in _PARSERS:
                raise ConfigurationError(f"{name}: there is no such setting; the settings are {', '.join(_PARSERS)}")
        values: dict[str, Any] = {"environ": MappingProxyType(variables)}
        for name, parse in _PARSERS.items():
            given = arguments.get(name)
            variable = ENV_PREFIX + name.upper()
            if given is not None:
                values[name] = _parsed(parse, given, name)
            elif variables.get(variable, "").strip():
                values[name] = _parsed(parse, variables[variable], variable)
        if arguments.get("disabled") is None and not values.get("disabled"):
            # The OpenTelemetry specification: only "true" disables, anything else does not.
            values["disabled"] = variables.get(ENV_OTEL_DISABLED, "").strip().lower() == "true"
        settings = cls(**values)
        if settings.enrich:
            raise ConfigurationError(
                "enrich=True: this version cannot put energy on other instrumentations' spans yet; leave it off"
            )
        return settings

    def names(self) -> dict[str, Any]:
        """The settings by name, without the environment; to be shown or compared."""
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "environ"}

    def same_as(self, other: Settings) -> bool:
        """Whether both ask for the same; of the environment only what somebody here reads counts."""
        mine, theirs = (
            {name: value for name, value in settings.environ.items() if name.startswith(_VARIABLES_READ)}
            for settings in (self, other)
        )
        return self.names() == other.names() and mine == theirs


def _parsed(parse: Callable[[Any], Any], value: Any, origin: str) -> Any:
    try:
        return parse(value)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{origin}={_shown(value)}: expected {error}") from None


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a message about a bad value must not fail over the value
        return f"<{type(value).__name__}>"
    return text if len(text) <= 200 else text[:200] + "..."
