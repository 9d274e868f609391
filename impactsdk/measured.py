"""The face: ``@measured``, ``with measured(...)`` and ``track``, on the default meter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar, overload

from impactsdk.meter import default_meter
from impactsdk.region import Region, current_region
from impactsdk.wrap import Measured

__all__ = ["current", "measured", "track"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@overload
def measured(name: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def measured(
    name: str | None = None,
    *,
    unit: str | None = None,
    count: Callable[[Any], float] | None = None,
    attributes: Mapping[str, Any] | None = None,
    span: bool = True,
) -> Measured: ...
def measured(
    name: Any = None,
    *,
    unit: str | None = None,
    count: Callable[[Any], float] | None = None,
    attributes: Mapping[str, Any] | None = None,
    span: bool = True,
) -> Any:
    """Measure a function or a block: joules on an OpenTelemetry span, and in the totals.

    As ``@measured`` or ``@measured("encode", ...)`` it decorates a function, coroutine function, generator or async generator,
    which stays what it is. A coroutine's region stays open while it is suspended; a generator's is open only while it runs,
    so its consumer is not charged to it. As ``with measured("epoch") as m:`` (or ``async with``) it measures a block;
    ``m.add_units(n)`` counts functional units inside, ``m.result()`` after it gives the :class:`Measurement`.

    Args:
        name: Of the operation; totals are kept by it. Default for a function: its module and qualified name.
        unit: The functional unit, e.g. ``sentence`` or ``token``.
        count: For a decorator: from the result of a call (of a generator: from each item) to the units it did, e.g. ``len``.
        attributes: For the span. Nothing that is passed to a function is ever recorded.
        span: ``False`` keeps the region in the ledger only, with totals and histogram but no span: for inner loops.

    Raises:
        ConfigurationError: The name is empty, huge or not text, or another argument is not usable.
    """
    return default_meter().measured(name, unit=unit, count=count, attributes=attributes, span=span)


def track(iterable: Iterable[T], *, name: str = "track", unit: str | None = None, total: int | None = None) -> Iterator[T]:
    """Iterate and measure each turn of the loop's body as a ledger-only region; with ``unit``, each turn counts as one.

    ``total`` is the number of turns where ``iterable`` does not know it; this version shows no progress and ignores it.
    """
    return default_meter().track(iterable, name=name, unit=unit, total=total)


def current() -> Region | None:
    """The innermost open region of this thread or task, to add units to; ``None`` outside of any."""
    return current_region()
