"""The streams of a counter whose description changes while it grows, as when a live factor gives way to an estimate.

What describes a value (nature, method, completeness, unit) is among the attributes of its stream. Were the whole sum shown
under the new description, whoever adds up what is new would count all of it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from impactsdk import semconv

__all__ = ["Attributes", "Streams"]

_DESCRIBING = frozenset((semconv.NATURE, semconv.METHOD, semconv.COMPLETENESS, semconv.FUNCTIONAL_UNIT_NAME))

Attributes = tuple[tuple[str, Any], ...]


class Streams:
    """What the counters of one session have shown so far, each under its descriptions."""

    def __init__(self) -> None:
        self._last: dict[tuple[object, Attributes], tuple[Attributes, float, dict[Attributes, float]]] = {}
        """Of each counter and what it counts: the last description, the whole sum, and what stays with earlier descriptions."""

    def divide(self, counter: object, sums: Iterable[tuple[Attributes, float]]) -> Iterator[tuple[Attributes, float]]:
        """The same sums, where only what was added since the description changed has the new one."""
        for attributes, value in sums:
            key = (counter, tuple(item for item in attributes if item[0] not in _DESCRIBING))
            described, before, earlier = self._last.get(key, (attributes, value, {}))
            if described != attributes:
                earlier = {**earlier, described: before - sum(earlier.values())}
                earlier.pop(attributes, None)  # it is as it was: that goes on
            self._last[key] = (attributes, value, earlier)
            yield from earlier.items()
            yield attributes, value - sum(earlier.values())
