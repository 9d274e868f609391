"""The one background thread: it opens the sources, reads them when they deserve it, and has everything else done.

It never holds up a caller. A source that hangs holds up only its own thread: whoever next needs an answer notices
(:meth:`Sampler.look_after`), gives the work to a new thread without that source, and the old thread ends when the call returns.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from operator import attrgetter
from types import GeneratorType
from typing import TypeVar

from impactsdk.energy.curve import SILENCE_NS, Curve, Knot
from impactsdk.errors import ImpactError, SourceFailedError, SourceUnavailableError
from impactsdk.model import Channel, Reading
from impactsdk.protocols import Clock, EnergySource

__all__ = ["Probe", "Sampler"]

_IDLE_S = 10.0
_TOGETHER_NS = 3_000_000
"""What is due so soon is read in the same round: a wake costs more than a reading."""
_ALONG = 0.45
"""How much of its period a source may be read early, for the company."""
_GRACE = 0.1
"""How much of its period it is left to wait for company."""
_SETTLE_NS = 500_000_000
"""While nothing ends there is nothing to settle; the totals are brought up to date this often all the same."""
_LINGER_NS = 1_000_000_000
_HANG_NS = 2_000_000_000
_SECOND_NS = 1_000_000_000
_BACKLOG = 2_000
_log = logging.getLogger(__name__)
_T = TypeVar("_T")
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
        self._opened = True

    @property
    def period_s(self) -> float:
        """How often it deserves to be read while regions are open."""
        if self._failures:
            return float(min(self._interval_s * 2 ** min(self._failures, 6), _IDLE_S))
        return min([curve.poll_s for curve in self.curves.values()] + [self._interval_s])

    def poll(self, took: Callable[[Curve, Knot | None], None], wanted: Callable[[], bool]) -> None:
        """Read all channels once into their curves; a failure is a gap. Stops quietly when it is not ``wanted`` any more."""
        now_ns = self.clock.now_ns
        silent = dict(self.curves)
        problem = ""
        begun_ns = before_ns = now_ns()
        try:
            readings = self.source.read()
            lazily = type(readings) is GeneratorType
            for reading in readings:
                after_ns = now_ns()
                if not wanted():
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
        if not wanted():
            return
        at_ns = now_ns()
        for curve in silent.values():
            curve.add(None, at_ns, at_ns)
            problem = problem or f"{curve.channel.id} did not answer"
        self.samples += 1
        self._failures = self._failures + 1 if problem and len(silent) == len(self.curves) else 0
        if problem:
            self._warn(f"read:{self.name}", f"{self.name}: {problem}; spans over the gap are marked partial")
        done_ns = now_ns()
        self.due_ns = done_ns + round(self.period_s * 1e9)
        if not self._failures:
            expected_ns = min((curve.expects_ns(done_ns) for curve in self.curves.values()), default=0)
            self.due_ns = max(self.due_ns, min(expected_ns, done_ns + round(self._interval_s * 1e9)))
        if self.dead:
            self.close()
        elif done_ns >= self._utilization_ns:
            self._utilization_ns = done_ns + _SECOND_NS
            self._look_at_utilization()

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


class Sampler:
    """Runs the probes and calls ``settle`` after each round.

    Args:
        clock: Where time comes from and what to sleep on.
        begin: Called first, in the thread: opens the sources and returns the probes.
        settle: Called after each round; returns how many events wait for a later reading.
        busy: Whether regions are open or events wait.
        waiting: Whether events wait: a new knot may then settle them.
        took: Called with each curve that was read and the knot that made.
        before_round: Called before each round, to look at the clocks that the readings are shared by.
        sleeping: Told when the sampler begins to sleep long or a device is called, so that a region that opens wakes it or
            looks after it, and when that is over.
        end: Called last, in the thread, once :meth:`stop` was asked for.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        begin: Callable[[Sampler], Sequence[Probe]],
        settle: Callable[[], int],
        busy: Callable[[], bool],
        waiting: Callable[[], bool],
        took: Callable[[Curve, Knot | None], None],
        before_round: Callable[[], None],
        end: Callable[[], None],
        sleeping: Callable[[bool], None],
        idle_s: float = _IDLE_S,
    ) -> None:
        self.clock = clock
        self.probes: Sequence[Probe] = ()
        self.cpu_s = 0.0
        self.ready = threading.Event()
        self.ended = threading.Event()
        self.given_up: set[str] = set()
        self._waker = clock.waker()
        self._begin, self._settle, self._busy, self._took, self._end = begin, settle, busy, took, end
        self._waiting = waiting
        self._before_round, self._sleeping = before_round, sleeping
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._calling: tuple[Probe | None, int] | None = None
        self._busy_ns = clock.now_ns()
        self._stopping = False
        self._knots = 0
        self._deadline_ns = 0
        self._urgent = False

    # --- from any thread ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; the sources are then opened in it."""
        self._launch(opening=True)

    def _launch(self, *, opening: bool) -> None:
        thread = threading.Thread(target=self._run, args=(opening,), name="impactsdk-sampler", daemon=True)
        before, self._thread = self._thread, thread
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending and starts no more threads
            self._thread = before

    def wake(self) -> None:
        """A region was opened while the sampler slept long."""
        self._waker.set()

    def hurry(self) -> None:
        """Somebody waits for a result: read now what can settle by being read now."""
        self._urgent = True
        self._waker.set()

    def stop(self, timeout_s: float) -> None:
        """Read until nothing waits any more, at most so long, and end; :attr:`ended` is set when that is done."""
        self._deadline_ns = self.clock.now_ns() + round(timeout_s * 1e9)
        self._stopping = True
        self._waker.set()

    def owns_thread(self) -> bool:
        """Whether the caller runs in the sampler's own thread."""
        return threading.current_thread() is self._thread

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to be gone."""
        thread = self._thread
        if thread is not None and thread.is_alive() and not self.owns_thread():
            thread.join(timeout_s)
            return not thread.is_alive()
        return True

    @property
    def in_call(self) -> bool:
        """Whether a device call is under way."""
        return self._calling is not None

    @property
    def hung(self) -> bool:
        """Whether a device call has been under way for longer than any should take."""
        calling = self._calling
        return calling is not None and self.clock.now_ns() - calling[1] > _HANG_NS

    def look_after(self) -> str | None:
        """If a source hangs, go on without it in a new thread; return its name then."""
        if not self.hung or self.owns_thread():
            return None
        with self._lock:
            calling = self._calling
            if calling is None or not self.hung:
                return None
            probe = calling[0]
            if probe is not None:
                self.given_up.add(probe.name)
                probe.give_up()
            self._calling = None
            self._launch(opening=not self.ready.is_set() and not self.probes)
            return probe.name if probe else "a source"

    # --- in the thread --------------------------------------------------------------------------------------------------

    def calling(self, probe: Probe | None) -> None:
        """Note that a device call of ``probe`` begins (or, with ``None``, that none is under way)."""
        self._calling = None if probe is None else (probe, self.clock.now_ns())

    def superseded(self) -> bool:
        """Whether this thread was given up while it hung in a device call."""
        return threading.current_thread() is not self._thread

    def _run(self, opening: bool) -> None:
        if opening:
            self.probes = sorted(self._begin(self), key=attrgetter("immediate"))  # those that go along with others come last
            if self.superseded():
                return
        cpu_before_s = time.thread_time()
        first, waiting, settled_ns = True, 0, 0
        while True:
            stopping = self._stopping
            urgent, self._urgent = self._urgent, False
            self._guard(self._before_round)
            self._knots = 0
            for probe in self.probes:
                now_ns = self.clock.now_ns() + _TOGETHER_NS
                if probe.dead or probe.hung:
                    continue
                asked = first or stopping or (urgent and probe.immediate)
                # One that may be read at any time is read along with news of another: what both show then settles at once.
                along = self._knots and probe.immediate and now_ns >= probe.due_ns - round(_ALONG * probe.period_s * 1e9)
                if not (asked or along or now_ns >= probe.due_ns):
                    continue
                self.calling(probe)
                self._sleeping(True)  # who opens a region meanwhile has a look whether the device hangs
                probe.poll(self._note, lambda: not self.superseded())
                if self.superseded():
                    probe.hung = False
                    if self.ended.is_set():
                        probe.close()  # nobody else will
                    return
                self.calling(None)
                self._sleeping(False)
            wanted = first or stopping or urgent or waiting or (self._knots and self._waiting())
            if wanted or self.clock.now_ns() - settled_ns > _SETTLE_NS:
                waiting = self._guard(self._settle) or 0
                settled_ns = self.clock.now_ns()
            if first:
                self.ready.set()
                first = False
            cpu_now_s = time.thread_time()
            self.cpu_s += cpu_now_s - cpu_before_s
            cpu_before_s = cpu_now_s
            if stopping and (not waiting or self.clock.now_ns() >= self._deadline_ns):
                break
            self._sleep(waiting)
        self._guard(self._end)
        self.cpu_s += time.thread_time() - cpu_before_s
        self.ended.set()

    def _note(self, curve: Curve, knot: Knot | None) -> None:
        self._knots += knot is not None
        self._took(curve, knot)

    def _guard(self, step: Callable[[], _T]) -> _T | None:
        """A mistake of ours must not end the thread: whoever waits for a result would wait in vain."""
        try:
            return step()
        except Exception:  # noqa: BLE001
            _log.exception("impactsdk made a mistake; measuring goes on")
            return None

    def _sleep(self, waiting: int) -> None:
        now_ns = self.clock.now_ns()
        if self._busy():
            self._busy_ns = now_ns
        working = [probe for probe in self.probes if not probe.dead and not probe.hung]
        if now_ns - self._busy_ns <= _LINGER_NS:
            if waiting > _BACKLOG:  # many events wait for a reading: come back as soon as one can help
                self._urgent = True
                self._waker.wait(0.01)
                return
            grace = _GRACE if not all(probe.immediate for probe in working) else 0.0
            due_ns = min(
                (probe.due_ns + round(grace * probe.period_s * 1e9) * probe.immediate for probe in working),
                default=now_ns + 100_000_000,
            )
            self._waker.wait(max(0.001, (due_ns - now_ns) * 1e-9))
            return
        self._sleeping(True)
        if not self._busy():  # else a region was opened before it could see that we sleep
            self._waker.wait(self._idle_s)
        self._sleeping(False)
        for probe in working:
            probe.due_ns = 0
