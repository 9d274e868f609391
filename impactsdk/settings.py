"""One frozen :class:`Settings`; the only reader of the environment.

Each setting is taken from the argument, else from ``IMPACTSDK_<NAME>``, else from its default. A bad value is an error at
once and says where it came from.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
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


def _number(text: Any, *, expected: str, low: float, strict: bool) -> float:
    try:
        value = math.nan if isinstance(text, bool) else float(text)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(expected) from None
    if not math.isfinite(value) or value < low or (strict and value == low):
        raise ValueError(expected)
    return value


def _positive_seconds(value: Any) -> float:
    return _number(value, expected="a number of seconds > 0", low=0.0, strict=True)


def _not_negative(value: Any) -> float:
    return _number(value, expected="a number >= 0", low=0.0, strict=False)


def _pue(value: Any) -> float:
    return _number(value, expected="a number >= 1 (facility energy over IT energy)", low=1.0, strict=False)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("text that is not empty")
    return value.strip()


def _currency(value: Any) -> str:
    if not isinstance(value, str) or len(value.strip()) != 3 or not value.strip().isalpha():
        raise ValueError("an ISO 4217 code of three letters, such as EUR")
    return value.strip().upper()


def _boundary(value: Any) -> Boundary:
    if value not in get_args(Boundary):
        raise ValueError("one of " + ", ".join(get_args(Boundary)))
    return cast(Boundary, value)


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
    if not isinstance(value, str | os.PathLike) or not str(value).strip():
        raise ValueError("a path")
    return Path(value).expanduser()


def _exports(value: Any) -> tuple[str, ...] | None:
    """``None`` stands for ``auto``."""
    words = [word.strip().lower() for word in value.split(",")] if isinstance(value, str) else list(value)
    if words == ["auto"]:
        return None
    if words == ["none"]:
        return ()
    if not words or any(word not in EXPORTS for word in words):
        raise ValueError("auto, none, or a comma list of " + ", ".join(EXPORTS))
    return tuple(dict.fromkeys(words))


def _sources(value: Any) -> tuple[EnergySource | str, ...] | None:
    """``None`` stands for detection."""
    items = [word.strip() for word in value.split(",")] if isinstance(value, str) else list(value)
    if items == ["auto"]:
        return None
    if items == ["none"]:
        return ()
    for item in items:
        if isinstance(item, str) and item and item not in ("auto", "none"):
            continue
        if not isinstance(item, str) and isinstance(item, EnergySource) and not isinstance(item, type):
            continue
        raise ValueError("auto, none, or source names (nvml, rapl, cpu_model) or objects with open, read and close")
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
    def load(cls, environ: Mapping[str, str] | None = None, **arguments: Any) -> Settings:
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
                values[name] = _parsed(parse, given, f"{name}={given!r}")
            elif variables.get(variable, "").strip():
                values[name] = _parsed(parse, variables[variable], f"{variable}={variables[variable]!r}")
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


def _parsed(parse: Callable[[Any], Any], value: Any, origin: str) -> Any:
    try:
        return parse(value)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{origin}: expected {error}") from None
