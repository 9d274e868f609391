"""The plug-in points: what a source of energy readings, a provider of factors and a clock must offer.

A new device is a new class in a new file with this shape; nothing has to be registered to pass one to
:class:`impactsdk.Meter`. To be found without being passed, name a factory in the entry-point group ``impactsdk.sources``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from impactsdk.factor import Factor, Place
from impactsdk.model import Channel, Reading

__all__ = ["Clock", "EnergySource", "FactorProvider", "Waker"]


class Waker(Protocol):
    """What the sampler sleeps on."""

    def set(self) -> None:
        """Wake the sleeper now, or at once when it next sleeps."""

    def wait(self, timeout_s: float) -> bool:
        """Sleep until :meth:`set` or the time-out; say whether it was set, and forget that it was."""


class Clock(Protocol):
    """Where time comes from. :class:`impactsdk.testing.FakeClock` is the one for tests."""

    def now_ns(self) -> int:
        """Monotonic nanoseconds."""

    def unix_ns(self) -> int:
        """Wall-clock nanoseconds since 1970, for stamps only."""

    def waker(self) -> Waker:
        """A new thing to sleep on."""


@runtime_checkable
class EnergySource(Protocol):
    """A device, or a family of devices, that can say how many joules it has used.

    One that also has ``utilization() -> Mapping[str, float]`` is asked once a second how busy each channel's device is, 0 to 1.
    All methods are called from one background thread. A source whose device only knows watts integrates them itself; one whose
    device counts joules between the readings may say so with ``counts = True``, and is read less often while nothing begins
    or ends. (Where a channel's tick is not declared, that is taken for granted.)
    """

    name: str
    """Short and lower case: ``nvml``, ``rapl``."""

    def open(self, clock: Clock) -> Sequence[Channel]:
        """Find the devices and name their channels.

        Raises:
            SourceUnavailableError: There is no such device here, or it may not be read.
        """

    def read(self) -> Iterable[Reading]:
        """Read every channel once.

        Best written as a generator that yields each reading right after its device call, by a source that says so with
        ``lazy = True``: the reading is then stamped with the instants just before and after it, and else with those before and
        after the whole call. A channel that did not answer is a reading with ``energy_j=None``, or none at all.

        Raises:
            SourceFailedError: The devices are gone for good. Any other exception is a gap for all channels, and the next
                read is tried.
        """

    def close(self) -> None:
        """Let go of the devices. Called once, also after a failure."""


@runtime_checkable
class FactorProvider(Protocol):
    """Knows grams, litres or money per kWh for a place and a time.

    Called from the background thread about once a second, so it must answer from memory: whoever asks a network does so in a
    thread of its own and answers with what it has. A provider is found without being passed if a factory that takes the
    :class:`impactsdk.settings.Settings` stands in the entry-point group ``impactsdk.factors``.

    Attributes:
        name: Short and lower case: ``tables``, ``electricity_maps``.
        trouble: Why it cannot say what it should at the moment, in one sentence that ends in what to do; ``None`` if it can.
    """

    name: str
    trouble: str | None

    def factors(self, *, place: Place | None, unix_ns: int) -> Sequence[Factor]:
        """The factors that it knows for that place and time, at most one of a kind; empty if none.

        Args:
            place: Where; ``None`` if that is unknown.
            unix_ns: When, nanoseconds since 1970.
        """

    def close(self) -> None:
        """Let go of threads and connections. It may be asked again after that."""
