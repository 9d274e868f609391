"""What tests of measured code need: a clock that stands still, a source whose truth is known, and a capture of results.

These are the fakes that impactsdk tests itself with.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import overload

from impactsdk import meter as _meters
from impactsdk.errors import ConfigurationError
from impactsdk.meter import Meter
from impactsdk.model import Channel, Measurement, Nature, Reading, Sharing
from impactsdk.protocols import Clock, EnergySource
from impactsdk.settings import Settings

__all__ = ["Captured", "FakeClock", "SimulatedSource", "capture"]

_STEP_NS = 1_000_000


class _FakeWaker:
    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.is_set = False
        self.until_ns: int | None = None

    def set(self) -> None:
        with self._clock.condition:
            self.is_set = True
            self._clock.condition.notify_all()

    def wait(self, timeout_s: float) -> bool:
        clock = self._clock
        with clock.condition:
            self.until_ns = clock.now_ns() + max(1, round(timeout_s * 1e9))
            clock.condition.notify_all()
            clock.condition.wait_for(lambda: self.is_set or clock.now_ns() >= (self.until_ns or 0))
            was_set, self.is_set, self.until_ns = self.is_set, False, None
            return was_set


class FakeClock:
    """A clock that moves only when it is told to. Give it to a :class:`Meter`, run code, and :meth:`advance`.

    While it advances, the meter's thread is woken at each instant at which it wanted to be, and has finished its round before
    time goes on: what a test sees does not depend on the machine.
    """

    def __init__(self, start_s: float = 1_000.0, *, unix_s: float = 1_700_000_000.0) -> None:
        self._now_ns = round(start_s * 1e9)
        self._unix_offset_ns = round(unix_s * 1e9) - self._now_ns
        self._wakers: list[_FakeWaker] = []
        self.condition = threading.Condition()

    def now_ns(self) -> int:
        """Monotonic nanoseconds."""
        return self._now_ns

    def unix_ns(self) -> int:
        """Wall-clock nanoseconds."""
        return self._now_ns + self._unix_offset_ns

    def waker(self) -> _FakeWaker:
        """A new thing to sleep on."""
        waker = _FakeWaker(self)
        self._wakers.append(waker)
        return waker

    def advance(self, seconds: float) -> None:
        """Let so much time pass; whoever sleeps on this clock is woken in order."""
        end_ns = self._now_ns + round(seconds * 1e9)
        with self.condition:
            while True:
                self._settle()
                wakes_ns = [waker.until_ns for waker in self._wakers if waker.until_ns is not None]
                next_ns = min([end_ns, *(wake_ns for wake_ns in wakes_ns if wake_ns > self._now_ns)])
                if next_ns <= self._now_ns:
                    break
                self._now_ns = next_ns
                self.condition.notify_all()
                if next_ns == end_ns:
                    self._settle()
                    break

    def _settle(self) -> None:
        """Wait until every sleeper sleeps beyond now (or is gone, which the time-out stands for)."""

        def at_rest() -> bool:
            return all(
                waker.until_ns is None or (waker.until_ns > self._now_ns and not waker.is_set) for waker in self._wakers
            ) and any(waker.until_ns is not None for waker in self._wakers)

        if self._wakers:
            self.condition.wait_for(at_rest, timeout=0.5)


class SimulatedSource:
    """A source with a known truth: a device that draws ``power_w`` and shows it on a counter that moves every ``tick_s``.

    Args:
        power_w: Watts, a number or a function of the seconds since the source was opened. A function is integrated with the
            midpoint rule in steps of 1 ms. Opened again on the same clock the device goes on; on another one it starts anew.
        type: ``gpu``, ``cpu``, ``memory``.
        id: The channel's id.
        tick_s: How often the counter is refreshed; ``0.0`` makes it exact at each reading. A tick above zero is not told to
            the meter, as with real devices: it has to be observed.
        max_power_w: A power that is never exceeded, to be told to the meter. Default: ``power_w`` if that is a number.
        phase_s: When the first tick comes, seconds after opening.
        sharing: As of :class:`Channel`.
        nature: As of :class:`Channel`.
        fail: Called with the number of each reading (from 1) before it is taken; what it raises, the source raises. What it
            returns, if not ``None``, is shown instead of the true value.
        fail_open: Raised when the source is opened.
    """

    def __init__(
        self,
        power_w: float | Callable[[float], float],
        *,
        type: str = "gpu",  # noqa: A002 - the name of the attribute in the conventions
        id: str = "sim:0",  # noqa: A002
        tick_s: float = 0.0,
        max_power_w: float | None = None,
        phase_s: float = 0.0,
        sharing: Sharing = "exclusive",
        nature: Nature = "measured",
        fail: Callable[[int], float | None] | None = None,
        fail_open: Exception | None = None,
    ) -> None:
        if not callable(power_w) and not math.isfinite(power_w):
            raise ConfigurationError(f"power_w={power_w!r}: expected a finite number of watts or a function of seconds")
        if tick_s < 0 or not math.isfinite(tick_s):
            raise ConfigurationError(f"tick_s={tick_s!r}: expected seconds >= 0")
        self.counts = self.lazy = True
        self.name = f"simulated:{id}"
        self._power_w = power_w
        self._tick_ns = round(tick_s * 1e9)
        self._phase_ns = round(phase_s * 1e9)
        limit_w = max_power_w if max_power_w is not None or callable(power_w) else max(0.0, float(power_w))
        self.channel = Channel(
            id=id,
            type=type,
            method="simulated",
            nature=nature,
            tick_s=None if self._tick_ns else 0.0,
            max_power_w=limit_w,
            sharing=sharing,
        )
        self._fail, self._fail_open = fail, fail_open
        self._clock: Clock | None = None
        self._opened_ns = 0
        self._steps_j = [0.0]
        self._lock = threading.Lock()
        self.reads = 0
        self.closed = False

    def open(self, clock: Clock) -> Sequence[Channel]:
        """Start the device."""
        if self._fail_open is not None:
            raise self._fail_open
        # Not the objects: each meter has a SystemClock of its own, and they all tell one time.
        if self._clock is None or self._clock.now_ns != clock.now_ns:
            self._clock, self._opened_ns = clock, clock.now_ns()
        self.closed = False
        return [self.channel]

    def read(self) -> Iterator[Reading]:
        """Show the counter."""
        assert self._clock is not None
        self.reads += 1
        shown = self._fail(self.reads) if self._fail is not None else None
        yield Reading(self.channel.id, self._shown_j(self._clock.now_ns()) if shown is None else shown)

    def close(self) -> None:
        """Stop the device."""
        self.closed = True

    def true_energy_j(self, start_ns: int, end_ns: int) -> float:
        """The energy that the device truly used between two instants of the monotonic clock."""
        return self._until_j(end_ns) - self._until_j(start_ns)

    def _shown_j(self, at_ns: int) -> float:
        if self._tick_ns:
            ticks = (at_ns - self._opened_ns - self._phase_ns) // self._tick_ns
            at_ns = max(self._opened_ns, self._opened_ns + self._phase_ns + ticks * self._tick_ns)
        return self._until_j(at_ns)

    def _until_j(self, at_ns: int) -> float:
        elapsed_ns = at_ns - self._opened_ns
        power_w = self._power_w
        if not callable(power_w):
            return power_w * elapsed_ns * 1e-9
        if elapsed_ns <= 0:
            return 0.0
        steps, rest_ns = divmod(elapsed_ns, _STEP_NS)
        with self._lock:
            known = self._steps_j
            while len(known) <= steps:
                known.append(known[-1] + power_w((len(known) - 0.5) * _STEP_NS * 1e-9) * _STEP_NS * 1e-9)
            return known[steps] + power_w((steps + 0.5) * _STEP_NS * 1e-9) * rest_ns * 1e-9


class Captured(Sequence[Measurement]):
    """The measurements of the regions that have ended, in the order in which they were settled.

    Looking at it waits for those that have ended but are not settled yet.
    """

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.all: list[Measurement] = []

    @overload
    def __getitem__(self, index: int) -> Measurement: ...
    @overload
    def __getitem__(self, index: slice) -> list[Measurement]: ...
    def __getitem__(self, index: int | slice) -> Measurement | list[Measurement]:
        self.meter.flush()
        return self.all[index]

    def __iter__(self) -> Iterator[Measurement]:
        self.meter.flush()
        return iter(self.all.copy())

    def __len__(self) -> int:
        self.meter.flush()
        return len(self.all)

    def named(self, name: str) -> list[Measurement]:
        """Those of one operation."""
        return [measurement for measurement in self if measurement.name == name]


@contextmanager
def capture(
    power_w: float | Callable[[float], float] = 100.0,
    *,
    sources: Sequence[EnergySource] | None = None,
    meter: Meter | None = None,
    clock: Clock | None = None,
) -> Iterator[Captured]:
    """Collect measurements: ``with capture() as measurements: run(); assert measurements[0].energy_j``.

    Inside, the default meter is replaced by one that measures a simulated GPU of ``power_w`` watts (or ``sources``) and
    exports nothing, so that decorated code can be tested on any machine and leaves nothing behind. With ``meter``, that meter
    is listened to instead and nothing is replaced.
    """
    if meter is not None:
        with _listening(meter) as captured:
            yield captured
        return
    chosen = list(sources) if sources is not None else [SimulatedSource(power_w)]
    default = _meters.default_meter()
    settings = Settings.load(sources=chosen, export="none", disabled=False)
    with default.replaced(settings, clock), _listening(default) as captured:
        yield captured


@contextmanager
def _listening(meter: Meter) -> Iterator[Captured]:
    captured = Captured(meter)
    meter.listeners.append(captured.all.append)
    try:
        yield captured
    finally:
        try:
            meter.flush()
        finally:
            with contextlib.suppress(ValueError):  # the meter was reset
                meter.listeners.remove(captured.all.append)


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    """Wait in real time until ``condition`` holds; say whether it came to."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.002)
    return True
