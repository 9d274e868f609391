"""The one background thread: it opens the sources, reads them when they deserve it, and has everything else done.

It never holds up a caller. A source that hangs holds up only its own thread: whoever next needs an answer notices
(:meth:`Sampler.look_after`), gives the work to a new thread without that source, and the old thread ends when the call returns.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from operator import attrgetter
from typing import Any, TypeVar

from impactsdk.energy.budget import Budget
from impactsdk.energy.curve import Curve
from impactsdk.energy.knot import Knot
from impactsdk.energy.probe import IDLE_S, Probe, Took
from impactsdk.lifecycle import SAMPLER
from impactsdk.protocols import Clock, EnergySource

__all__ = ["Sampler"]

_TOGETHER_NS = 3_000_000
"""What is due so soon is read in the same round: a wake costs more than a reading."""
_ALONG = 0.45
"""How much of its period a source may be read early, for the company."""
_SETTLE_NS = 850_000_000
"""The totals are brought up to date this often; sooner, with the reading that allows it, only what somebody waits for."""
_AGAIN_NS = 100_000_000
"""What is waited for may also settle because a device does not answer, without a reading."""
_LINGER_NS = 1_000_000_000
_QUIET_NS = 1_000_000_000
"""Once nothing has begun or ended for so long, devices that count by themselves are read less often, until something does."""
_HANG_NS = 2_000_000_000
_BACKLOG = 2_000
_SLOW_NS = 200_000_000
_MOST_MISTAKES = 20
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Sampler:
    """Runs the probes and calls ``settle`` after each round.

    Args:
        clock: Where time comes from and what to sleep on.
        begin: Called first, in the thread: opens the sources and returns the probes.
        settle: Called after each round; returns how many events wait for a later reading.
        busy: Whether regions are open or events wait.
        unseen: How many events have come since ``settle`` was called last.
        awaited: Whether somebody waits for that, or too many do: a new knot is then made use of at once.
        took: Called with each curve that was read, the knot that made, and what ``look`` said then.
        look: Looks at the clocks by which what is read is shared, once a round; ``None``: it has to be shared at once.
        together: Within it ``took`` is called for several rounds, one after another.
        before_round: Called before each round.
        sleeping: Told when the sampler begins to sleep long or a device is called, so that a region that opens wakes it or
            looks after it, and when that is over.
        idle_s: How long it may sleep while no region is open.
        end: Called last, in the thread, once :meth:`stop` was asked for.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        begin: Callable[[Sampler], Sequence[Probe]],
        settle: Callable[[], int],
        busy: Callable[[], bool],
        unseen: Callable[[], int],
        awaited: Callable[[], bool],
        took: Took,
        look: Callable[[], object],
        together: Callable[[], AbstractContextManager[None]],
        before_round: Callable[[], None],
        end: Callable[[], None],
        sleeping: Callable[[bool], None],
        idle_s: Callable[[], float] = lambda: IDLE_S,
    ) -> None:
        self.clock = clock
        self.probes: Sequence[Probe] = ()
        self.cpu_s = 0.0
        self.ready = threading.Event()
        self.ended = threading.Event()
        self.given_up: list[EnergySource] = []
        self._waker = clock.waker()
        self._begin, self._settle, self._busy, self._took, self._end = begin, settle, busy, took, end
        self._unseen, self._awaited = unseen, awaited
        self._look, self._together = look, together
        self._seen = 0  # of the unseen events, those that were there when it last looked
        self._quiet = False
        self._before_round, self._sleeping = before_round, sleeping
        self._idle_s = idle_s
        self._cpu_s: Callable[[], float] = getattr(clock, "thread_s", time.thread_time)
        self._budget = Budget() if hasattr(clock, "thread_s") else None  # beside a clock that jumps, cost says nothing
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._calling: tuple[Probe | None, int] | None = None
        self._busy_ns = self._stirred_ns = clock.now_ns()
        self._stopping = False
        self._knots = 0
        self._deadline_ns = 0
        self._urgent = False
        self._mistakes: set[str] = set()

    # --- from any thread ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; the sources are then opened in it.

        Raises:
            RuntimeError: There is no thread to be had.
        """
        self._launch(opening=True)
        if self._thread is None:
            raise RuntimeError("no thread can be started")

    def _launch(self, *, opening: bool) -> None:
        thread = threading.Thread(target=self._run, args=(opening,), name=SAMPLER, daemon=True)
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
    def started(self) -> bool:
        """Whether there is, or was, a thread."""
        return self._thread is not None

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
        if not self._lock.acquire(blocking=False):
            return None  # another thread does, or what was interrupted by the signal whose handler asks
        try:
            calling = self._calling
            if calling is None or not self.hung:
                return None
            probe = calling[0]
            if probe is not None:
                self.given_up.append(probe.source)
                probe.give_up()
            self._calling = None
            self._launch(opening=not self.ready.is_set() and not self.probes)
            return probe.name if probe else "a source"
        finally:
            self._lock.release()

    # --- in the thread --------------------------------------------------------------------------------------------------

    def calling(self, probe: Probe | None) -> None:
        """Note that a device call of ``probe`` begins (or, with ``None``, that none is under way)."""
        self._calling = None if probe is None else (probe, self.clock.now_ns())

    def superseded(self) -> bool:
        """Whether this thread was given up while it hung in a device call."""
        thread = self._thread
        return thread is None or thread.ident != threading.get_ident()

    def _run(self, opening: bool) -> None:
        if opening:
            opened = self.attempt(self._begin, self) or ()
            self.probes = sorted(opened, key=attrgetter("immediate"))  # those that go along with others come last
            if self.superseded():
                return
        cpu_before_s = self._cpu_s()
        first, waiting, settled_ns = True, 0, self.clock.now_ns()
        while True:
            stopping = self._stopping
            urgent, self._urgent = self._urgent, False
            self.attempt(self._before_round)
            self._quiet = self.clock.now_ns() - self._stirred_ns > _QUIET_NS
            self._knots = 0
            for probe in self.probes:
                now_ns = self.clock.now_ns() + _TOGETHER_NS
                if probe.dead or probe.hung:
                    continue
                asked = first or stopping or (urgent and probe.immediate)
                # One that may be read at any time is read along with news of another: what both show then settles at once.
                along = self._knots and probe.immediate and now_ns >= probe.due_ns - _ALONG * probe.period_ns
                if not (asked or along or now_ns >= probe.due_ns):
                    continue
                self.calling(probe)
                self._sleeping(True)  # who opens a region meanwhile has a look whether the device hangs
                look = self._look if probe.immediate and not asked and not self._awaited() else None
                try:
                    probe.poll(self._note, self.superseded, quiet=self._quiet, asked=asked, look=look)
                except BaseException as error:  # noqa: BLE001 - as in attempt(), which would cost a call
                    self._mistaken(error)
                    probe.due_ns = now_ns + _AGAIN_NS
                if self.superseded():
                    probe.hung = False
                    if self.ended.is_set():
                        probe.close()  # nobody else will
                    return
                self.calling(None)
                self._sleeping(False)
                if probe.took_ns > _SLOW_NS:  # meanwhile nobody else was read either
                    self._have_patience(3 * probe.took_ns)
            awaited = self._awaited()
            wanted = first or stopping or urgent or (awaited and self._knots)
            if wanted or self.clock.now_ns() - settled_ns > (_AGAIN_NS if awaited else _SETTLE_NS):
                looked_s = self._cpu_s() - cpu_before_s  # not each round: to ask costs a tenth of it
                self.attempt(self._catch_up)
                waiting = self.attempt(self._settle) or 0
                self._seen = 0
                before_ns, settled_ns = settled_ns, self.clock.now_ns()
                self._spend(looked_s, (settled_ns - before_ns) * 1e-9)
                cpu_now_s = self._cpu_s()
                self.cpu_s += cpu_now_s - cpu_before_s
                cpu_before_s = cpu_now_s
            if first:
                self.ready.set()
                first = False
            if stopping and (not waiting or self.clock.now_ns() >= self._deadline_ns):
                break
            self._sleep(waiting)
        self.attempt(self._end)
        self.cpu_s += self._cpu_s() - cpu_before_s
        self.ended.set()

    def _catch_up(self) -> None:
        """Take into the curves what nobody has waited for."""
        with self._together():
            for probe in self.probes:
                probe.catch_up(self._note)

    def _spend(self, looked_s: float, elapsed_s: float) -> None:
        """Be as sparing with looks as they are dear; while nothing begins or ends there are few of them, anyhow."""
        if self._budget is not None and not self._quiet and self._budget.spent(looked_s, elapsed_s):
            for probe in self.probes:
                probe.spare(self._budget.sparing)

    def _have_patience(self, silence_ns: int) -> None:
        """With devices that answer slowly no device is taken for silent sooner."""
        for probe in self.probes:
            for curve in probe.curves.values():
                curve.silence_ns = max(curve.silence_ns, silence_ns)

    def _note(self, curve: Curve, knot: Knot | None, clocks: object) -> None:
        self._knots += knot is not None
        self._took(curve, knot, clocks)

    def attempt(self, step: Callable[..., _T], *arguments: Any) -> _T | None:
        """What goes wrong must not end the thread, not even an exit: whoever waits for a result would wait in vain."""
        try:
            return step(*arguments)
        except BaseException as error:  # noqa: BLE001
            self._mistaken(error)
            return None

    def _mistaken(self, error: BaseException) -> None:
        what = "".join(traceback.format_exception_only(error))  # its repr may fail
        if what not in self._mistakes and len(self._mistakes) < _MOST_MISTAKES:  # not with each round anew
            self._mistakes.add(what)
            _log.error("impactsdk made a mistake; measuring goes on", exc_info=error)

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
            wait_s = max(0.001, (self._next_ns(working, now_ns) - now_ns) * 1e-9)
            stirred = self._stirs()
            if stirred:
                self._stirred_ns = now_ns
            if not self._quiet:
                self._waker.wait(wait_s)
                return
            self._sleeping(True)  # from here on whatever begins or ends wakes us, so that it is read how things stand then
            if stirred or self._stirs() or self._waker.wait(wait_s):
                self._stirred_ns = self.clock.now_ns()
                for probe in working:
                    probe.due_ns = 0
            self._sleeping(False)
            return
        self._sleeping(True)
        if not self._busy():  # else a region was opened before it could see that we sleep
            self._waker.wait(self._idle_s())
        self._sleeping(False)
        for probe in working:
            probe.due_ns = 0

    def _stirs(self) -> bool:
        """Whether something has begun or ended since the last look."""
        seen, self._seen = self._seen, self._unseen()
        return self._seen > seen

    @staticmethod
    def _next_ns(working: Sequence[Probe], now_ns: int) -> int:
        """When the next of them is due; those that may be read at any time are left to wait a little for company."""
        due_ns = alone_ns = now_ns + 10 * _LINGER_NS
        company = False
        for probe in working:
            if probe.immediate:
                alone_ns = min(alone_ns, probe.due_ns + probe.period_ns // 10)
            else:
                company = True
                due_ns = min(due_ns, probe.due_ns)
        if company:
            return min(due_ns, alone_ns)
        return min([probe.due_ns for probe in working], default=now_ns + _AGAIN_NS)
