"""One source at work: read into its curves, and due again when it deserves it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from types import GeneratorType
from typing import Any

from impactsdk.energy.curve import SILENCE_NS, Curve
from impactsdk.energy.knot import NEVER_NS, Knot
from impactsdk.errors import ImpactError, SourceFailedError, SourceUnavailableError
from impactsdk.model import Channel, Reading
from impactsdk.number import number_of
from impactsdk.protocols import Clock, EnergySource

__all__ = ["IDLE_S", "Probe", "Took", "told"]

IDLE_S = 10.0
_IDLE_NS = round(IDLE_S * 1e9)
_QUIET_NS = 400_000_000
_PAIRED = 2
"""So many counters are read just before and just after their ticks; more, each with a phase of its own, evenly."""
_SECOND_NS = 1_000_000_000
_LASTING_S = 30.0
"""What does not answer for so long is said, though an earlier failure that passed was said."""
_Warn = Callable[[str, str], None]
_Shown = list[tuple[Curve, Reading, int, int]]
"""Readings of one round, each with its curve and the instants just before and just after it."""
Took = Callable[[Curve, Knot | None, object], None]
"""Told of each curve that has taken a reading, the knot that made, and what the clocks said then (``None``: not known yet)."""


class Probe:
    """One source at work: its curves, when it is due, and how it has been behaving."""

    def __init__(self, source: EnergySource, clock: Clock, warn: _Warn, interval_s: float) -> None:
        self.source, self.clock = source, clock
        self.name = str(told(source, "name") or type(source).__name__)
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
        self.took_ns = 0
        """How long the last reading took."""
        self.period_ns = 0
        """How often it deserves to be read while regions begin and end."""
        self._warn = warn
        self._interval_ns = round(interval_s * 1e9)
        self._rest_ns = max(_QUIET_NS, self._interval_ns)
        self._curves: tuple[Curve, ...] = ()
        self._kept: list[tuple[_Shown, object]] = []
        self._failures = 0
        self._told: dict[str, int] = {}
        """When each channel that was warned of had last answered before."""
        self._sparing = 1
        self._opened = False
        self._looks_ns = (0, 0, 0, 0)  # the last readings but this

    def open(self) -> None:
        """Find the channels.

        Raises:
            SourceUnavailableError: As the source says; or it failed in another way, which is put in these words.
        """
        try:
            channels = list(self.source.open(self.clock))
            self._opened = True
            for channel in channels:
                if not isinstance(channel, Channel):
                    raise TypeError(f"open() must return impactsdk.model.Channel objects, not {type(channel).__name__}")
                channel.check()
                if channel.id in self.curves:
                    raise ValueError(f"two channels have the id {channel.id!r}; give each device an id of its own")
                self.curves[channel.id] = Curve(channel)
                self.curves[channel.id].silence_ns = max(SILENCE_NS, 3 * self._interval_ns)
        except SourceUnavailableError:
            raise
        except BaseException as error:  # even an exit: it is our thread, not the user's, that would end
            self.close()
            raise SourceUnavailableError(f"{self.name} could not be opened: {_said(error)}") from error
        self.immediate = all(curve.exact for curve in self.curves.values())
        self.counts = all(curve.channel.tick_s is None for curve in self.curves.values()) or bool(told(self.source, "counts"))
        self._curves = tuple(self.curves.values())

    def poll(
        self,
        took: Took,
        unwanted: Callable[[], bool],
        *,
        quiet: bool = False,
        asked: bool = False,
        look: Callable[[], object] | None = None,
    ) -> None:
        """Read all channels once into their curves; a failure is a gap. Stops quietly once it is ``unwanted``.

        ``asked``: somebody waits for what this reading can settle. ``quiet``: nothing begins or ends at present, and the next
        reading may be later if nothing is lost by that. ``look``: nobody waits; what settles at once may be kept until
        :meth:`catch_up`, beside what ``look`` says of the clocks, unless it says nothing.
        """
        now_ns = self.clock.now_ns
        silent = self.curves.copy()
        shown: _Shown = []
        problem = ""
        begun_ns = before_ns = now_ns()
        try:
            readings = self.source.read()
            # One that asks each device just before it yields says so; of any other, all were asked at some time in between.
            lazily = type(readings) is GeneratorType and getattr(self.source, "lazy", False)
            for reading in readings:
                after_ns = now_ns()
                if unwanted():
                    return
                curve = silent.pop(getattr(reading, "channel_id", ""), None)
                if not isinstance(reading, Reading) or curve is None:
                    problem = problem or f"read() gave {reading!r}, which is no reading of one of its channels"
                    continue
                shown.append((curve, reading, before_ns, after_ns))
                before_ns = after_ns if lazily else begun_ns
        except SourceFailedError as error:
            problem, self.dead = f"{_said(error)}; its energy is unknown from here on", True
        except BaseException as error:  # noqa: BLE001 - whatever a device does, the measured code must not notice
            problem = _said(error)
        if unwanted():
            return
        done_ns = now_ns()
        # What settles at once when somebody asks for it need not be looked at sooner: several together take half the time.
        may_keep = look is not None and not problem and not silent and all(each.energy_j is not None for _, each, _, _ in shown)
        clocks = look() if look is not None and may_keep else None
        if clocks is not None:
            self._kept.append((shown, clocks))
        else:
            self.catch_up(took)
            for each in self._curves:
                each.at_once = asked
            self._use(shown, None, took)
        for curve in silent.values():
            curve.add(None, done_ns, done_ns)
            if not problem:
                self._report("did not answer", (curve,), curve.channel.id)
        self.samples += 1
        self.took_ns = done_ns - begun_ns
        self._failures = self._failures + 1 if (problem or silent) and len(silent) == len(self.curves) else 0
        if problem:
            self._report(problem, silent.values())
        self.due_ns = self._due_ns(done_ns, quiet=quiet)
        if self.dead:
            self.close()
        elif done_ns >= self._utilization_ns:
            self._utilization_ns = done_ns + _SECOND_NS
            self._look_at_utilization()

    def catch_up(self, took: Took) -> None:
        """Take into the curves what was kept."""
        if not self._kept:
            return
        kept, self._kept = self._kept, []
        for curve in self._curves:
            curve.at_once = False
        for shown, clocks in kept:
            self._use(shown, clocks, took)
        if self.hung:
            self._leave_gap()

    def _use(self, shown: _Shown, clocks: object, took: Took) -> None:
        """Take readings into the curves; say what is wrong with them."""
        for curve, reading, before_ns, after_ns in shown:
            lost = curve.lost_readings
            try:
                low_j, high_j = _number(reading.low_j), _number(reading.high_j)
                knot = curve.add(_number(reading.energy_j), before_ns, after_ns, low_j, high_j)
                took(curve, knot, clocks)
                if curve.lost_readings > lost:
                    why = reading.error or f"showed {reading.energy_j!r}, which cannot be true"
                    self._report(why, (curve,), curve.channel.id)
            except BaseException as error:  # noqa: BLE001 - ours, or of what is no number; it must not end the thread
                self._report(_said(error), (curve,))
        for curve in self._curves:
            if math.isinf(curve.max_power_w) and curve.channel.max_power_w not in (None, math.inf):
                limit_w = curve.channel.max_power_w
                self._warn(f"limit:{curve.channel.id}", f"{curve.channel.id} drew more than the {limit_w:g} W it was said to")

    def _report(self, problem: str, curves: Iterable[Curve], channel_id: str = "") -> None:
        """Warn once of each channel, or of what is no single one's, and once more where a later failure lasts."""
        answered_ns = max((curve.answered_ns for curve in curves), default=NEVER_NS)
        silent_s = (self.clock.now_ns() - answered_ns) / 1e9
        # What concerns no curve, as a reading of a channel that does not exist, does not last: all have answered.
        later = self._told.setdefault(channel_id, answered_ns) != answered_ns
        lasts = later and answered_ns > NEVER_NS and silent_s > _LASTING_S
        told = ": ".join(filter(None, (self.name, channel_id, problem))) + (
            f" (no answer for {silent_s:.0f} s)" if lasts else ""
        )
        self._warn(f"read:{self.name}:{channel_id}:{lasts or self.dead}", f"{told}; spans over the gap are marked partial")

    def spare(self, sparing: int) -> None:
        """Of so many looks that would be useful only one is worth its price; where nothing is lost between them."""
        if self.counts:
            self._sparing = sparing
            for curve in self._curves:
                curve.spare(sparing)

    def _due_ns(self, now_ns: int, *, quiet: bool) -> int:
        interval_ns = self._interval_ns
        if self._failures:
            self.period_ns = min(interval_ns * 2 ** min(self._failures, 6), _IDLE_NS)
            return now_ns + self.period_ns
        rest_ns = self._rest_ns if quiet and self.counts else 0
        if rest_ns and self.immediate:
            return now_ns + rest_ns
        period_ns, due_ns = interval_ns, now_ns + (rest_ns or interval_ns)
        within_ns = rest_ns or (self._interval_ns if self._sparing > 1 else 0)
        for curve in self._curves:
            period_ns = min(period_ns, curve.poll_ns)
            due_ns = min(due_ns, curve.due_ns(now_ns, within_ns=within_ns))
        self.period_ns = period_ns
        if len(self._curves) > _PAIRED:
            due_ns = max(due_ns, now_ns + period_ns)
        if self._sparing > 1:
            return due_ns
        # Two readings may be close together; four are no closer than evenly spread ones.
        first_ns, self._looks_ns = self._looks_ns[0], (*self._looks_ns[1:], now_ns)
        return max(due_ns, first_ns + 4 * period_ns)

    def _look_at_utilization(self) -> None:
        ask = told(self.source, "utilization")
        if ask is not None:
            try:
                self.utilization = {name: float(part) for name, part in ask().items() if 0.0 <= part <= 1.0}
            except BaseException:  # noqa: BLE001 - beside the point: energy is what has to be right
                self.utilization = {}

    def give_up(self) -> None:
        """It hangs: leave a gap and do not touch it until the call has returned."""
        self.hung = True
        if not self._kept:  # else the gap comes after what was kept
            self._leave_gap()

    def _leave_gap(self) -> None:
        at_ns = self.clock.now_ns()
        for curve in self._curves:
            curve.add(None, at_ns, at_ns)

    def close(self) -> None:
        """Let go of the device; whatever that raises is of no use to anybody."""
        if self._opened:
            self._opened = False
            try:
                self.source.close()
            except BaseException as error:  # noqa: BLE001 - even an exit: there is more to be closed
                self._warn(f"close:{self.name}", f"{self.name} could not be closed: {_said(error)}")


def told(source: object, name: str) -> Any:
    """What a source says of itself under this name; ``None`` if it says nothing, or fails in saying it."""
    try:
        return getattr(source, name, None)
    except BaseException:  # noqa: BLE001 - a property of somebody else's
        return None


def _number(value: object) -> float | None:
    """What a source gave as a number; not a number if it is none."""
    if value.__class__ is float:
        return value
    if value is None:
        return None
    return number_of(value)


def _said(error: BaseException) -> str:
    """An error in a few words: its message, with its type where that is not one of ours."""
    try:
        words = str(error).strip()
    except Exception:  # noqa: BLE001 - as where it formats what it was not given
        words = ""
    if isinstance(error, ImpactError):
        return words or type(error).__name__
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
