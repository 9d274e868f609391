"""Which sources measure and whose factors hold: what the user passed, else what the variables name, else what is found here.

Built-ins are found through the entry-point groups ``impactsdk.sources`` and ``impactsdk.factors`` like anyone else's, and are
listed here, too: a copy that is not installed, as a source tree on ``PYTHONPATH``, has no entry points. Sources that cover the
same thing (``covers``) are alternatives: the best that opens is used. A provider of factors other than the bundled tables works
only when it is named: it may ask a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any
from urllib.parse import unquote

from impactsdk import application
from impactsdk.errors import ConfigurationError, SourceUnavailableError
from impactsdk.factor import Place
from impactsdk.factors.places import detect, place_of
from impactsdk.factors.tables import BundledTables
from impactsdk.protocols import EnergySource, FactorProvider
from impactsdk.semconv import FACTORS_GROUP, SOURCES_GROUP
from impactsdk.settings import Settings

__all__ = ["candidates", "check", "factor_providers", "place_for"]

_Complain = Callable[[str, str], None]

_BUILT_IN = {
    SOURCES_GROUP: ("nvml", "rapl", "cpu_model"),
    FACTORS_GROUP: ("tables", "tariff", "electricity_maps", "uk_carbon_intensity"),
}


def _found(group: str = SOURCES_GROUP) -> dict[str, EntryPoint]:
    built_in = [EntryPoint(name, f"{group}.{name}:from_settings", group) for name in _BUILT_IN[group]]
    return {point.name: point for point in [*built_in, *entry_points(group=group)]}


def check(settings: Settings) -> None:
    """Say at once that a named source or provider does not exist or cannot be set up, or that a place does not.

    Raises:
        ConfigurationError: It says what there is instead.
    """
    for setting, group, noun in (("sources", SOURCES_GROUP, "source"), ("factors", FACTORS_GROUP, "provider of factors")):
        named = [item for item in getattr(settings, setting) or () if isinstance(item, str)]
        known = _found(group) if named else {}
        for name in named:
            if name not in known:
                raise ConfigurationError(
                    f"{setting}: there is no {noun} {name!r}; installed are {', '.join(sorted(known)) or 'none'}"
                )
    if settings.region is not None:
        try:
            place_of(settings.region)
        except ConfigurationError as error:
            raise ConfigurationError(f"region (IMPACTSDK_REGION): {error}") from None
    for item in settings.factors or ():
        if isinstance(item, str):
            try:
                _found(FACTORS_GROUP)[item].load()(settings).close()
            except ConfigurationError:
                raise
            except (Exception, SystemExit) as error:
                raise ConfigurationError(
                    f"factors: the provider {item!r} could not be loaded: {type(error).__name__}: {error}"
                ) from error


def place_for(settings: Settings, tracer_provider: object) -> Place | None:
    """Where this machine stands: as the user says, else the OpenTelemetry resource, else the cloud's own variables.

    Nothing is asked of a network, ever.
    """
    if settings.region is not None:
        return place_of(settings.region)
    provider = tracer_provider if tracer_provider is not None else application.tracer_provider()
    attributes = getattr(getattr(provider, "resource", None), "attributes", None)
    if not isinstance(attributes, Mapping):
        # What OpenTelemetry would read for a provider of our own.
        pairs = (pair.partition("=") for pair in settings.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","))
        attributes = {name.strip(): unquote(value.strip()) for name, _, value in pairs}
    return detect(attributes, settings.environ)


def factor_providers(settings: Settings, complain: _Complain) -> list[FactorProvider]:
    """The providers of factors, best first; the bundled tables come last unless the user wants none."""
    if settings.factors == ():
        return []
    given: list[FactorProvider] = []
    for item in settings.factors or ():
        made = _made(_found(FACTORS_GROUP)[item], settings, complain) if isinstance(item, str) else item
        if made is not None:
            given.append(made)
    if not any(isinstance(provider, BundledTables) for provider in given):
        given.append(BundledTables(currency=settings.currency))
    return given


def candidates(settings: Settings, complain: _Complain) -> Iterator[list[EnergySource]]:
    """Groups of alternatives, best first; of each group the first that opens is to be used."""
    groups: dict[str, list[EnergySource]] = {}
    if settings.sources is not None:
        for number, item in enumerate(settings.sources):
            source: Any = _made(_found()[item], settings, complain) if isinstance(item, str) else item
            if source is not None:
                # Of what is named, the first that opens, too; an object that is passed is always used.
                covers = str(getattr(source, "covers", None) or item) if isinstance(item, str) else f"object {number}"
                groups.setdefault(covers, []).append(source)
        yield from groups.values()
        return
    for name, point in sorted(_found().items()):
        source = _made(point, settings, complain)
        if source is not None:
            groups.setdefault(str(getattr(source, "covers", None) or name), []).append(source)
    for group in groups.values():
        yield sorted(group, key=lambda source: int(getattr(source, "rank", 50)))


def _made(point: EntryPoint, settings: Settings, complain: _Complain) -> Any:
    try:
        factory: Any = point.load()
        made = factory(settings)
    except SourceUnavailableError as error:
        complain(f"open:{point.name}", f"{point.name}: {error}")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - somebody else's plug-in must not stop the measuring
        complain(f"open:{point.name}", f"{point.name} could not be loaded: {type(error).__name__}: {error}")
    else:
        return made
    return None
