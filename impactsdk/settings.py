"""One frozen :class:`Settings`; the only reader of the environment.

Each setting is taken from the argument, else from ``IMPACTSDK_<NAME>``, else from its default. Whoever asks for settings is
told of a bad value at once, by an error that says where it came from; whoever only measures, by a warning.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from impactsdk import setting_values as parse
from impactsdk.errors import ConfigurationError
from impactsdk.model import Boundary
from impactsdk.protocols import EnergySource, FactorProvider
from impactsdk.semconv import ENV_OTEL_DISABLED, ENV_PREFIX, ENV_RUNTIME_DIR

__all__ = ["Settings"]

_VARIABLES_READ = ("IMPACTSDK_", "OTEL_", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "LOCAL_", "SLURM_", "OMPI_")
_OF_OTHERS = (
    "POWERCAP_ROOT",
    "RUNTIME_DIR",
    "TARIFF",
    "ELECTRICITY_MAPS_TOKEN",
    "ELECTRICITY_MAPS_URL",
    "ELECTRICITY_MAPS_ZONE",
    "UK_CARBON_INTENSITY_URL",
)
"""Variables of ours that are no settings."""


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "service_name": parse.text,
    "export": parse.exports,
    "directory": parse.directory,
    "boundary": parse.boundary,
    "interval_s": parse.positive_seconds,
    "sources": parse.sources,
    "region": parse.text,
    "pue": parse.pue,
    "wue": parse.not_negative,
    "factors": parse.factors,
    "carbon_intensity_g_per_kwh": parse.not_negative,
    "carbon_intensity_market_g_per_kwh": parse.not_negative,
    "water_intensity_l_per_kwh": parse.not_negative,
    "embodied_kg": parse.not_negative,
    "lifetime_years": parse.positive,
    "resource_share": parse.share,
    "price_per_kwh": parse.not_negative,
    "compute_price_per_hour": parse.not_negative,
    "purchase_price": parse.not_negative,
    "value_per_unit": parse.not_negative,
    "currency": parse.currency,
    "enrich": parse.flag,
    "shutdown_timeout_s": parse.positive_seconds,
    "disabled": parse.flag,
}


class _Environment(Mapping[str, str]):
    """The variables as they were; can be copied and pickled, as Python's own read-only mapping cannot."""

    __slots__ = ("_variables",)

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._variables = dict(variables or {})

    def __getitem__(self, name: str) -> str:
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a meter measures and where it sends what it finds. Build one with :meth:`load`.

    Args:
        service_name: ``service.name`` of the resource; default: ``OTEL_SERVICE_NAME`` or what OpenTelemetry falls back to.
        export: Where results go: ``None`` for ``auto``, ``()`` for nowhere, else any of ``otel``, ``journal``,
            ``summary``, ``console``, ``prometheus``.
        directory: Where the journal is written.
        boundary: ``process``, ``cgroup`` or ``machine``.
        interval_s: The longest time between two readings while regions begin and end, seconds. Once none has for a second,
            devices that count by themselves are read every 0.4 s (or this, if it is longer) until one does.
        sources: Names or objects; ``None`` for detection.
        region: Where the machine stands: a country (``FR``), a US state (``US-CA``), an eGRID code or a cloud region
            (``aws:eu-west-3``). Default: what the OpenTelemetry resource or the cloud's own variables say, else unknown.
        pue: Facility energy over IT energy, >= 1. Default: that of the cloud region; elsewhere the IT energy alone is counted.
        wue: Water used on site per kWh of IT energy, litres. Default: that of the cloud region.
        factors: Names or objects of providers of impact factors, best first; the bundled tables always come last.
            ``()``: only what is set here.
        carbon_intensity_g_per_kwh: Of the electricity, gCO2e per kWh, location-based. Default: from ``factors``.
        carbon_intensity_market_g_per_kwh: The same by what you have contracted (market-based), reported beside.
        water_intensity_l_per_kwh: Water consumed by the generation of the electricity. Default: from ``factors``.
        embodied_kg: Manufacture of the hardware that the process uses, kgCO2e. Default: from tables, by device.
        lifetime_years: Over which manufacture and purchase are spread. Default: from tables.
        resource_share: The part of the machine that is reserved for this process, > 0 to 1. Default: all of it; in a virtual
            machine its threads over those of an assumed host.
        price_per_kwh: Of the electricity, in ``currency``. Default: from ``factors``.
        compute_price_per_hour: Rent of the machine, in ``currency``, electricity included.
        purchase_price: Of the machine, in ``currency``; instead of a rent.
        value_per_unit: What one functional unit is worth to you, in ``currency``.
        currency: ISO 4217 code of all prices.
        enrich: Put energy on the spans of other instrumentations, too, as :class:`impactsdk.EnergySpanProcessor` does.
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
    factors: tuple[FactorProvider | str, ...] | None = None
    carbon_intensity_g_per_kwh: float | None = None
    carbon_intensity_market_g_per_kwh: float | None = None
    water_intensity_l_per_kwh: float | None = None
    embodied_kg: float | None = None
    lifetime_years: float | None = None
    resource_share: float | None = None
    price_per_kwh: float | None = None
    compute_price_per_hour: float | None = None
    purchase_price: float | None = None
    value_per_unit: float | None = None
    currency: str = "USD"
    enrich: bool = False
    shutdown_timeout_s: float = 5.0
    disabled: bool = False
    environ: Mapping[str, str] = field(default_factory=_Environment, repr=False)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, /, **arguments: Any) -> Settings:
        """Settings from ``arguments``, else from ``environ`` (default: this process's), else the defaults.

        An argument that is ``None`` counts as not given.

        Raises:
            ConfigurationError: A name is not known, or a value is not usable; the message says where it came from.
        """
        variables = _Environment(os.environ if environ is None else environ)
        for name in arguments:
            if name not in _PARSERS:
                raise ConfigurationError(f"{name}: there is no such setting; the settings are {', '.join(_PARSERS)}")
        values: dict[str, Any] = {"environ": variables}
        for name, meaning in _PARSERS.items():
            given = arguments.get(name)
            variable = ENV_PREFIX + name.upper()
            if given is not None:
                values[name] = _parsed(meaning, given, name)
            elif variables.get(variable, "").strip():
                values[name] = _parsed(meaning, variables[variable], variable)
        if arguments.get("disabled") is None and not values.get("disabled"):
            # The OpenTelemetry specification: only "true" disables, anything else does not.
            values["disabled"] = variables.get(ENV_OTEL_DISABLED, "").strip().lower() == "true"
        settings = cls(**values)
        if settings.compute_price_per_hour is not None and settings.purchase_price is not None:
            raise ConfigurationError(
                "compute_price_per_hour and purchase_price: a machine is rented or bought; set one of them"
            )
        return settings

    @classmethod
    def of_environment(cls, check: Callable[[Settings], None], tell: Callable[[str], None]) -> Settings:
        """Settings from this process's variables for code that never asked for any: what cannot be used is told, and left out.

        ``check`` raises ``ConfigurationError`` for what can only be found out elsewhere, such as whether a source exists.
        """
        try:
            settings = cls.load()
            check(settings)
        except ConfigurationError:
            pass
        else:
            return settings
        usable, told = dict(os.environ), []
        settable = {variable: usable.pop(variable) for name in _PARSERS if (variable := ENV_PREFIX + name.upper()) in usable}
        for variable, value in settable.items():
            try:
                check(cls.load({**usable, variable: value}))
                usable[variable] = value
            except ConfigurationError as error:  # noqa: PERF203 - each variable may be wrong for itself
                told.append(f"{variable} is left out, and its default holds: {error}")
        settings = cls.load(usable)
        for message in () if settings.disabled else told:
            tell(message)
        return settings

    def names(self) -> dict[str, Any]:
        """The settings by name, without the environment; to be shown or compared."""
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "environ"}

    def misspelt(self) -> dict[str, str]:
        """Variables that look like ones of ours and are none, each with the name that is nearest."""
        known = [ENV_PREFIX + name for name in (*map(str.upper, _PARSERS), *_OF_OTHERS)]
        strange = [name for name in self.environ if name.startswith(ENV_PREFIX) and name not in known]
        if not strange:
            return {}
        import difflib

        nearest = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.8) for name in strange}
        return {name: found[0] for name, found in nearest.items() if found}

    def same_as(self, other: Settings) -> bool:
        """Whether both ask for the same; of the environment only what somebody here reads counts.

        Where processes meet is settled once: ``handed_down`` sets it for a while.
        """
        mine, theirs = (
            {
                name: value
                for name, value in settings.environ.items()
                if name.startswith(_VARIABLES_READ) and name != ENV_RUNTIME_DIR
            }
            for settings in (self, other)
        )
        return self.names() == other.names() and mine == theirs


def _parsed(meaning: Callable[[Any], Any], value: Any, origin: str) -> Any:
    try:
        return meaning(value)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{origin}={_shown(value)}: expected {error}") from None


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a message about a bad value must not fail over the value
        return f"<{type(value).__name__}>"
    return text if len(text) <= 200 else text[:200] + "..."
