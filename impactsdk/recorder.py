"""What a region needs of whoever measures it, and what ``measured(...)`` was told about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from impactsdk.errors import ConfigurationError
from impactsdk.model import Measurement

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = ["Host", "Recorder", "Spec", "checked_timeout_s"]


def checked_timeout_s(timeout_s: float) -> float:
    """How long to wait; 0 where it is negative, as what is left until a deadline may be. An error if it is no number."""
    try:
        value = math.nan if isinstance(timeout_s, str | bytes) else float(timeout_s)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if math.isnan(value):
        raise ConfigurationError(f"timeout_s={timeout_s!r}: expected a number of seconds")
    return max(0.0, value)


class Recorder:
    """What a region needs of the session it belongs to. Slots, because every region looks these up.

    ``append`` takes a region when it is entered and again when it is left, and ``(at_ns, kind, region, leaf, consumer)`` when
    a generator pauses or goes on. ``attention`` asks the next region to call :meth:`attend`. ``awaited``: somebody waits for
    what has ended, such as a span's exporter. ``off``: nothing is measured. ``dead``: it stayed behind in the parent of a fork.
    """

    __slots__ = ("append", "attention", "awaited", "dead", "now_ns", "off", "spans", "tracer", "unix_ns")

    append: Callable[[Any], None]
    attention: bool
    awaited: bool
    dead: bool
    now_ns: Callable[[], int]
    off: bool
    spans: dict[int, Any] | None
    """While other instrumentations' spans are measured, too: their regions and ours by span id."""
    tracer: Tracer | None
    unix_ns: Callable[[], int]

    def attend(self) -> None:
        """The sampler sleeps long and has to be woken, or more events wait than should."""

    def wait_for(self, region: Any, timeout_s: float) -> Measurement:
        """The measurement of a closed region."""
        raise NotImplementedError

    def complain(self, key: str, message: str) -> None:
        """Say once that something of ours failed."""


class Host(Protocol):
    """Whoever has the session: a meter."""

    @property
    def session(self) -> Recorder | None:
        """What runs now."""

    def begin(self) -> Recorder:
        """The session, started if need be."""


class Spec:
    """What ``measured(...)`` was told; shared by all regions of that kind."""

    __slots__ = ("attributes", "count", "host", "name", "span", "sync", "unit")

    def __init__(
        self,
        host: Host,
        name: str,
        unit: str | None,
        count: Callable[[Any], float] | None,
        attributes: Mapping[str, Any] | None,
        span: bool,
        sync: bool = False,
    ) -> None:
        self.host, self.name, self.unit, self.count = host, name, unit, count
        self.attributes, self.span, self.sync = attributes, span, sync

    def __deepcopy__(self, memo: object) -> Spec:
        return self  # nothing in it changes, and its host is no part of what is copied

    def __reduce__(self) -> tuple[Any, ...]:
        return Spec, (self.host, self.name, self.unit, self.count, self.attributes, self.span, self.sync)
