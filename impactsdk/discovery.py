"""Which sources measure: what the user passed, else what ``IMPACTSDK_SOURCES`` names, else what is found here.

Built-in sources are found through the entry-point group ``impactsdk.sources`` like anyone else's. Sources that cover the
same thing (``covers``) are alternatives: the best that opens is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from impactsdk.errors import ConfigurationError, SourceUnavailableError
from impactsdk.protocols import EnergySource
from impactsdk.semconv import SOURCES_GROUP
from impactsdk.settings import Settings

__all__ = ["candidates", "check"]

_Complain = Callable[[str, str], None]


def _found() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=SOURCES_GROUP)}


def check(settings: Settings) -> None:
    """Say at once that a named source does not exist.

    Raises:
        ConfigurationError: It names the sources that do.
    """
    named = [source for source in settings.sources or () if isinstance(source, str)]
    if named:
        known = _found()
        for name in named:
            if name not in known:
                raise ConfigurationError(
                    f"sources: there is no source {name!r}; installed are {', '.join(sorted(known)) or 'none'}"
                )


def candidates(settings: Settings, complain: _Complain) -> Iterator[list[EnergySource]]:
    """Groups of alternatives, best first; of each group the first that opens is to be used."""
    if settings.sources is not None:
        for item in settings.sources:
            source = _made(_found()[item], settings, complain) if isinstance(item, str) else item
            if source is not None:
                yield [source]
        return
    groups: dict[str, list[EnergySource]] = {}
    for name, point in sorted(_found().items()):
        source = _made(point, settings, complain)
        if source is not None:
            groups.setdefault(str(getattr(source, "covers", None) or name), []).append(source)
    for group in groups.values():
        yield sorted(group, key=lambda source: int(getattr(source, "rank", 50)))


def _made(point: EntryPoint, settings: Settings, complain: _Complain) -> EnergySource | None:
    try:
        factory: Any = point.load()
        source: EnergySource = factory(settings)
    except SourceUnavailableError as error:
        complain(f"open:{point.name}", f"{point.name}: {error}")
    except Exception as error:  # noqa: BLE001 - somebody else's plug-in must not stop the measuring
        complain(f"open:{point.name}", f"{point.name} could not be loaded: {type(error).__name__}: {error}")
    else:
        return source
    return None
