"""One source at work: read into its curves, and due again when it deserves it."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import GeneratorType

from impactsdk.energy.curve import SILENCE_NS, Curve, Knot
from impactsdk.errors import ImpactError, SourceFailedError, SourceUnavailableError
from impactsdk.model import Channel, Reading
from impactsdk.protocols import Clock, EnergySource

__all__ = ["IDLE_S", "Probe"]

IDLE_S = 10.0
_QUIET_S = 0.4
_SECOND_NS = 1_000_000_000
_Warn = Callable[[str, str], None]


class Probe:
    """One source at work: its curves, when it is due, and how it has been behaving."""

    def __init__(self, source: EnergySource, clock: Clock, warn: _Warn, interval_s: float) -> None:
        self.source, self.clock = source, clock
        self.name = str(getattr(source, "name", type(source).__name__))
        self.curves: dict[str, Curve] = {}
        self.samples = 0
        self.utilization: dict[str, float] = {}
        """How busy each device was, 0 to 1, where the source can say."""
        self._utilization_ns = 0
        self.immediate = False
        """Whether a reading now settles everything up to now: all its counters are finer than the time between readings."""
        self.counts = False
        """Whether the devices count by themselves: nothing is lost if nobody looks for a while."""
        self.dead = False
        self.hung = False
        self.due_ns = 0
        self._warn = warn
        self._interval_s = interval_s
        self._failures = 0
        self._opened = False

    def open(self) -> None:
        """Find the channels.

        Raises:
            SourceUnavailableError: As the source says; or it failed in another way, which is put in these words.
        """
        try:
            channels = list(self.source.open(self.clock))
            for channel in channels:
                if not isinstance(channel, Channel):
                    raise TypeError(f"open() must return impactsdk.model.Channel objects, not {type(channel).__name__}")
                self.curves[channel.id] = Curve(channel)
                self.curves[channel.id].silence_ns = max(SILENCE_NS, round(3e9 * self._interval_s))
        except SourceUnavailableError:
            raise
        except BaseException as error:  # even an exit: it is our thread, not the user's, that would end
            raise SourceUnavailableError(f"{self.name} could not be opened: {_said(error)}") from error
        ticks_s = [curve.channel.tick_s for curve in self.curves.values()]
        self.immediate = all(tick_s is not None and tick_s <= 0.004 for tick_s in ticks_s)
        self.counts = all(tick_s is None for tick_s in ticks_s) or bool(getattr(self.source, "counts", False))
        self._opened = True

    @property
    def period_s(self) -> float:
        """How often it deserves to be read while regions are open."""
        if self._failures:
            return float(min(self._interval_s * 2 ** min(self._failures, 6), IDLE_S))
        return min([curve.poll_s for curve in self.curves.values()] + [self._interval_s])

    def poll(self, took: Callable[[Curve, Knot | None], None], unwanted: Callable[[], bool], *, quiet: bool = False) -> None:
        """Read all channels once into their curves; a failure is a gap. Stops quietly once it is ``unwanted``.

        ``quiet``: nothing begins or ends at present, and the next reading may be later if nothing is lost by that.
        """
        now_ns = self.clock.now_ns
        silent = self.curves.copy()
        problem = ""
        begun_ns = before_ns = now_ns()
        try:
            readings = self.source.read()
            lazily = type(readings) is GeneratorType
            for reading in readings:
                after_ns = now_ns()
                if unwanted():
                    return
                curve = silent.pop(getattr(reading, "channel_id", ""), None)
                if not isinstance(reading, Reading) or curve is None:
                    problem = problem or f"read() gave {reading!r}, which is no reading of one of its channels"
                    continue
                lost = curve.lost_readings
                low_j, high_j = _number(reading.low_j), _number(reading.high_j)
                knot = curve.add(_number(reading.energy_j), before_ns, after_ns, low_j, high_j)
                if curve.lost_readings > lost:
                    problem = (
                        problem or reading.error or f"{curve.channel.id} showed {reading.energy_j!r}, which cannot be true"
                    )
                took(curve, knot)
                before_ns = after_ns if lazily else begun_ns
        except SourceFailedError as error:
            problem, self.dead = f"{_said(error)}; its energy is unknown from here on", True
        except BaseException as error:  # noqa: BLE001 - whatever a device does, the measured code must not notice
            problem = _said(error)
        if unwanted():
            return
        done_ns = now_ns()
        for curve in silent.values():
            curve.add(None, done_ns, done_ns)
            problem = problem or f"{curve.channel.id} did not answer"
        self.samples += 1
        self._failures = self._failures + 1 if problem and len(silent) == len(self.curves) else 0
        if problem:
            self._warn(f"read:{self.name}", f"{self.name}: {problem}; spans over the gap are marked partial")
        self.due_ns = self._due_ns(done_ns, quiet=quiet)
        if self.dead:
            self.close()
        elif done_ns >= self._utilization_ns:
            self._utilization_ns = done_ns + _SECOND_NS
            self._look_at_utilization()

    def _due_ns(self, now_ns: int, *, quiet: bool) -> int:
        due_ns = now_ns + round(self.period_s * 1e9)
        if self._failures:
            return due_ns
        rest_ns = round(max(_QUIET_S, self._interval_s) * 1e9) if quiet and self.counts else 0
        if rest_ns and self.immediate:
            return now_ns + rest_ns
        expected_ns = min((curve.expects_ns(now_ns, within_ns=rest_ns) for curve in self.curves.values()), default=0)
        return max(due_ns, min(expected_ns, now_ns + (rest_ns or round(self._interval_s * 1e9))))

    def _look_at_utilization(self) -> None:
        ask = getattr(self.source, "utilization", None)
        if ask is not None:
            try:
                self.utilization = {name: float(part) for name, part in ask().items() if 0.0 <= part <= 1.0}
            except Exception:  # noqa: BLE001 - beside the point: energy is what has to be right
                self.utilization = {}

    def give_up(self) -> None:
        """It hangs: leave a gap and do not touch it until the call has returned."""
        self.hung = True
        at_ns = self.clock.now_ns()
        for curve in self.curves.values():
            curve.add(None, at_ns, at_ns)

    def close(self) -> None:
        """Let go of the device; whatever that raises is of no use to anybody."""
        if self._opened:
            self._opened = False
            try:
                self.source.close()
            except Exception as error:  # noqa: BLE001
                self._warn(f"close:{self.name}", f"{self.name} could not be closed: {_said(error)}")


def _number(value: object) -> float | None:
    """What a source gave as a number; not a number if it is none."""
    if value.__class__ is float:
        return value
    if value is None or isinstance(value, str | bytes):
        return None if value is None else math.nan
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _said(error: BaseException) -> str:
    """An error in a few words: its message, with its type where that is not one of ours."""
    words = str(error).strip()
    if isinstance(error, ImpactError):
        return words or type(error).__name__
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
