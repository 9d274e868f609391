"""One run of a meter in one process: regions come in from any thread, joules go out from the sampler's.

A fork leaves the session behind with its parent; the child starts its own at its first region.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from opentelemetry import metrics, trace

from impactsdk.accounts import Accounts
from impactsdk.books import Books
from impactsdk.devices import Devices
from impactsdk.discovery import factor_providers, place_for
from impactsdk.energy.probe import Probe
from impactsdk.energy.sampler import Sampler
from impactsdk.errors import DegradedWarning, RegionError, SettleTimeoutError
from impactsdk.export.metrics import Instruments, instruments_on
from impactsdk.export.providers import came_late, resolve
from impactsdk.export.spans import end_span
from impactsdk.export.views import Snapshot
from impactsdk.factor import Place
from impactsdk.factors.book import Book
from impactsdk.factors.hardware import hardware_factors
from impactsdk.foreign import HoldingProcessor
from impactsdk.model import Measurement
from impactsdk.protocols import Clock
from impactsdk.recorder import Recorder
from impactsdk.region import Region
from impactsdk.settings import Settings
from impactsdk.standing import guard

__all__ = ["Session"]

_log = logging.getLogger(__name__)
_READY_S = 2.0
_TICK_NS = 750_000_000
"""How often the journal is written on, at most; the totals are settled a little more slowly."""
_LONGEST_S = 86_400.0
_HURRY_S = 0.02
_LOCK_S = 0.5
"""How long a caller waits for the sampler's thread to let go of the books."""
_SOME = 500
"""Events that may wait for the next look at the totals if nobody waits for them."""
_CROWD = 10_000
"""Events that may wait before callers make way for the sampler's thread; a span weighs more."""
_CROWD_OF_SPANS = 1_000


class Session(Recorder):
    """Made at the first region. The attributes that regions touch are plain, so that the hot path finds them at once."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        version: str,
        tracer_provider: trace.TracerProvider | None,
        meter_provider: metrics.MeterProvider | None,
        listeners: list[Callable[[Measurement], None]],
        holders: Collection[HoldingProcessor],
    ) -> None:
        self.settings, self.clock = settings, clock
        self.now_ns, self.unix_ns = clock.now_ns, clock.unix_ns
        self.events: deque[Any] = deque()
        self.append = self.events.append
        self.attention = self.off = False
        self.dead = self.awaited = False
        self.spans = {} if holders else None
        self._holders = holders
        self.pid = os.getpid()
        self.complaints: dict[str, str] = {}
        self.accounts = Accounts(settings)
        self.tallies = self.accounts.tallies
        self._listeners = listeners
        self._lock = threading.RLock()
        self._snapshot: Snapshot | None = None
        for name, nearest in settings.misspelt().items():
            self.complain(f"variable:{name}", f"{name} is no variable of impactsdk and changes nothing; is {nearest} meant?")
        self._books = Books(self.events, self.accounts, self.complain)
        self._closing = False
        self.waited_s = 0.0  # for its end, by all who have closed it
        self._crowded = False
        self._tick_ns = 0
        self._anchor_ns = clock.unix_ns() - clock.now_ns()
        self._devices = Devices(settings, clock, self.complain)
        place = place_for(settings, tracer_provider)
        self._book = Book(settings, factor_providers(settings, self.complain), place, self.complain)
        self._outputs = resolve(settings, tracer_provider, meter_provider, version, self.complain, facts=self._book.facts())
        self.tracer = self._outputs.tracer
        self._unguard: list[Callable[[], None]] = []
        self._instruments: list[Instruments] = []
        self._sampler = Sampler(
            clock,
            begin=self._open,
            before_round=self._devices.begin_round,
            settle=self._settle,
            busy=self._busy,
            unseen=self.events.__len__,
            awaited=lambda: self.awaited or bool(self._listeners) or len(self.events) > _SOME,
            took=self._devices.divide,
            look=self._devices.look,
            together=self._devices.together,
            idle_s=self._devices.idle_s,
            end=self._end,
            sleeping=self._note_sleep,
        )
        try:
            self._attach(version)
            self._sampler.start()
            deadline = time.monotonic() + _READY_S
            # Once, before the first region: what the sources show now is what its energy is counted from.
            while not self._sampler.ready.wait(0.05) and time.monotonic() < deadline:
                pass
        except BaseException:  # an interrupt, or no more threads: nobody will have this session
            self._closing = True
            self._sampler.stop(0.0)
            if not self._sampler.started:  # else its thread lets go of everything
                self._abandon()
            raise

    def _attach(self, version: str) -> None:
        for provider in self._outputs.used:
            remove = guard(provider, self) if hasattr(provider, "add_span_processor") else None
            if remove is not None:
                self._unguard.append(remove)
        for values in self._outputs.meter_providers:
            instruments = instruments_on(values, version)
            self._instruments.append(instruments)
            instruments.attach(self)

    def _abandon(self) -> None:
        """The beginning has failed: leave the providers as they were, and shut down our own."""
        for remove in self._unguard:
            remove()
        for instruments in self._instruments:
            instruments.retire(self)
        self._book.close()
        self._outputs.abandon(self.complain)

    # --- what regions ask for ---------------------------------------------------------------------------------------

    def attend(self) -> None:
        """The sampler sleeps long and is woken, or more events wait than should and its thread is let run."""
        if self.dead:
            self.attention = False
        elif self._crowded:
            self._look_after()
            time.sleep(1e-4)  # not 0: the other thread may need more than one turn
        elif self._sampler.in_call:
            self._look_after()
        else:
            self.attention = False
            self._sampler.wake()

    def wait_for(self, region: Region, timeout_s: float) -> Measurement:
        """The measurement of a closed region, once the reading that covers it has come."""
        if self.dead:
            raise RegionError(f"{region.name!r} was opened in another process (before a fork); ask for its result there")
        if not getattr(region, "settled", False) and not (self.within and hasattr(region, "measurement")):
            self._await(region, timeout_s)
        measurement = getattr(region, "measurement", None)
        if measurement is None:
            region.measurement = measurement = self.accounts.measurement(region, self._anchor_ns)
        return measurement

    def _await(self, region: Region, timeout_s: float) -> None:
        if self.within:
            raise SettleTimeoutError(
                f"{region.name!r} is not settled, and cannot be while a listener or an exporter waits for it"
            )
        region.waiter = done = threading.Event()
        deadline = time.monotonic() + timeout_s
        while not getattr(region, "settled", False):
            self._hurry()
            self._look_after()
            left_s = deadline - time.monotonic()
            if left_s <= 0 or self._sampler.ended.is_set():
                break
            done.wait(min(left_s, 0.2))
        if not getattr(region, "settled", False):
            slow = [curve.channel.id for curve in self.accounts.curves if 2.5e-9 * (curve.tick_ns or 0.0) > timeout_s]
            raise SettleTimeoutError(
                f"no reading that covers {region.name!r} came within {timeout_s} s: "
                + (f"{' and '.join(slow)} must be waited for longer" if slow else "the meter is closed, or a device hangs")
            )

    def _hurry(self) -> None:
        self.awaited = True
        self._sampler.hurry()

    def look_for_spans(self) -> None:
        """Other instrumentations' spans are measured from now on."""
        if self.spans is None:
            self.spans = {}

    def complain(self, key: str, message: str) -> None:
        """Warn once about one kind of trouble; never raise."""
        if key in self.complaints:
            return
        self.complaints[key] = message
        try:
            warnings.warn(message, DegradedWarning, stacklevel=2)
        except Exception:  # noqa: BLE001 - warnings are errors here, or shown by something that fails; neither may stop us
            _log.debug("%s", message)

    # --- what the meter asks for --------------------------------------------------------------------------------------

    def snapshot(self, wait_s: float = _LOCK_S) -> Snapshot:
        """All totals at the last settled instant; as they last were, if an exporter holds up the sampler's thread."""
        if not self._lock.acquire(timeout=wait_s) and self._snapshot is not None:
            return self._snapshot
        try:
            ledger = self._books.ledger
            self._snapshot = self.accounts.snapshot(
                ledger,
                list(self._sampler.probes),
                self._sampler.cpu_s,
                self._outputs.dropped,
                self._anchor_ns + (self.now_ns() if ledger is None else ledger.now_ns),
            )
            return self._snapshot
        finally:
            with contextlib.suppress(RuntimeError):  # it was not to be had
                self._lock.release()

    def flush_ledger(self, timeout_s: float) -> bool:
        """Wait until everything that has ended by now is settled; say whether that was reached."""
        if self.within:
            return False
        begun, until_ns = time.monotonic(), self.now_ns()
        hurried = -1.0
        while not self._settled(until_ns):
            if time.monotonic() - hurried > _HURRY_S:  # what is still missing comes with a counter's tick
                hurried = time.monotonic()
                self._hurry()
            self._look_after()
            if time.monotonic() - begun > 0.2 and self.now_ns() == until_ns and not self._books.waiting:
                break  # a fake clock stands still: no reading will come that says more
            if time.monotonic() - begun >= timeout_s or self._sampler.ended.is_set():
                return False
            time.sleep(0.002)
        return True

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything that has ended by now is settled and handed on; say whether that was reached."""
        timeout_s = min(timeout_s, _LONGEST_S)
        deadline = time.monotonic() + timeout_s
        self._mind_late_provider()
        if not self.flush_ledger(timeout_s):
            return False
        flushed = True
        for provider in self._outputs.used + self._outputs.owned:
            force_flush = getattr(provider, "force_flush", None)
            if force_flush is not None:
                left_ms = round((deadline - time.monotonic()) * 1000)
                if left_ms <= 0:
                    return False
                try:
                    flushed = force_flush(left_ms) is not False and flushed
                except Exception as error:  # noqa: BLE001 - somebody else's exporter
                    self.complain("flush", f"an exporter could not be flushed: {error!r}")
                    flushed = False
        flushed = self._outputs.taken() and flushed
        journal = self._outputs.journal
        if journal is not None and (journal.written or self.tallies):
            if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                return False
            try:
                journal.tick(self.snapshot())
                flushed = journal.kept() and flushed
            finally:
                self._lock.release()
        return flushed

    def close(self, timeout_s: float) -> bool:
        """Read a last time, settle what is open, write and stop; at most so long. Say whether all that was done.

        Asked again, it goes on waiting for that.
        """
        if self.dead:
            return True
        timeout_s = min(timeout_s, _LONGEST_S)
        begun_s = time.monotonic()
        deadline = self._outputs.deadline = begun_s + timeout_s
        if not self._closing:
            self._closing = True
            self._mind_late_provider()
            self._sampler.stop(min(1.0, timeout_s / 2))
        if self.within:
            return False  # the thread ends once whoever closes has returned
        begun_ns = self.now_ns()
        try:
            while not self._sampler.ended.wait(0.05):
                self._look_after()
                if self.now_ns() == begun_ns:  # a fake clock stands still: no later reading will come
                    self._sampler.stop(0.0)
                if time.monotonic() >= deadline:
                    self.complain(
                        "close",
                        f"results could not all be written within {round(timeout_s, 2):g} s and are left behind; "
                        "IMPACTSDK_SHUTDOWN_TIMEOUT_S allows more time",
                    )
                    return False
        finally:
            self.waited_s += time.monotonic() - begun_s
        ended = self._sampler.join(max(0.0, deadline - time.monotonic()))
        journal = self._outputs.journal
        return ended and (journal is None or journal.kept())

    @property
    def over(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.dead or self._sampler.ended.is_set()

    @property
    def within(self) -> bool:
        """Whether nothing can settle while the caller waits.

        A listener, a processor or an exporter asks, in the sampler's thread; or the handler of a signal that came while this
        very thread looked at the books.
        """
        return self._sampler.owns_thread() or self._lock._is_owned()  # type: ignore[attr-defined]

    @property
    def late(self) -> list[str]:
        """The providers that the application has set only after it was decided where results go."""
        return came_late(self.settings, self._outputs.used)

    def _mind_late_provider(self) -> None:
        for provider in self.late:
            what = "spans" if provider == "TracerProvider" else "metrics"
            self.complain(
                f"late:{provider}",
                f"the application has set its {provider} after something was measured: {what} do not go there; set it "
                "before, or call impactsdk.configure() once it is set",
            )

    def _take_no_more(self) -> None:
        """A generator may outlive the session, and each of its steps would be kept for ever."""
        self.append = deque[Any](maxlen=0).append

    def forsake(self) -> None:
        """In the child of a fork: all this is the parent's."""
        self.dead = True
        self._take_no_more()
        self._devices.forsake()
        for holder in list(self._holders):
            holder.forsake()
        for instruments in self._instruments:
            instruments.forsake()
        if self._outputs.journal is not None:
            self._outputs.journal.forsake()

    @property
    def journal_path(self) -> Any:
        """Where the journal is, if there is something in it."""
        journal = self._outputs.journal
        return None if journal is None or not journal.useful else journal.path

    @property
    def journal_lacks(self) -> str:
        """What could not be written to it, in words."""
        return "" if self._outputs.journal is None else self._outputs.journal.missing

    @property
    def place(self) -> Place | None:
        """Where this machine stands, as far as that is known."""
        return self._book.place

    @property
    def summary_wanted(self) -> bool:
        """Whether the person at the terminal is to be told."""
        return self._outputs.summary

    # --- in the sampler's thread --------------------------------------------------------------------------------------

    def _open(self, sampler: Sampler) -> list[Probe]:
        probes = self._devices.open(sampler)
        self.accounts.curves = self._devices.curves
        if probes or not sampler.superseded():
            try:
                self._book.describe(hardware_factors([curve.channel for curve in self._devices.curves]))
            except Exception as error:  # noqa: BLE001 - as where a container hides /proc/meminfo: joules matter more
                self.complain("hardware", f"what this machine is made of cannot be found out ({error!r}): embodied is unknown")
        return probes

    def _note_sleep(self, asleep: bool) -> None:
        self.attention = asleep or self._crowded

    def _busy(self) -> bool:
        return self._books.busy

    def _settle(self, *, final: bool = False) -> int:
        """Bring the account up to the latest instant that all curves agree on."""
        with self._lock:
            now_ns = self.now_ns()
            awaited, self.awaited = self.awaited, False
            ledger = self._books.begin(now_ns)
            rates = self._book.rates(self.unix_ns())
            if rates is not self.accounts.pricing.rates:
                self.accounts.turn(now_ns, rates, ledger)
            if len(self.events) > _CROWD:
                self._crowded = self.attention = True
            ended = self._books.advance(now_ns, final=final)
            spans = sum(region.spec.span for region in ended)
            limit = _CROWD_OF_SPANS if 10 * spans > len(ended) else _CROWD
            for region in ended:
                self._finish(region)
                self._crowded = self.attention = len(self.events) > limit
            journal = self._outputs.journal
            if journal is not None and now_ns - self._tick_ns >= _TICK_NS:
                busy = bool(ended) or self._books.busy
                if busy or journal.unwritten:
                    self._tick_ns = now_ns
                    journal.tick(self.snapshot(), busy=busy)
            self._crowded = self.attention = len(self.events) > _CROWD
            self.awaited = self.awaited or (awaited and self._books.pending > 0)
            return self._books.pending

    def _finish(self, region: Region) -> None:
        """A region's energy is known: account for it, end its span, tell whoever waits."""
        hand_on = getattr(region, "hand_on", None)
        try:
            self.accounts.finish(region)
            span = region.span
            if span is not None or self._listeners or hand_on is not None:
                region.measurement = measurement = self.accounts.measurement(region, self._anchor_ns)
            if span is not None:
                spanned: Any = region
                end_span(span, measurement, spanned.end_unix_ns, interrupted=getattr(region, "interrupted", False))
                if self._outputs.journal is not None:
                    self._outputs.journal.add(span)
            if self._instruments and (energy_j := self.accounts.energy_j(region)) is not None:
                for instruments in self._instruments:
                    instruments.record(region.entry.tally.name, energy_j, span)
            for listener in tuple(self._listeners):
                listener(measurement)
        except BaseException as error:  # noqa: BLE001 - even an exit: an exporter's, a listener's, or a mistake of ours
            _log.debug("a span could not be finished", exc_info=True)
            self.complain("finish", f"a result could not be handed on ({error!r}); totals are not affected")
        if hand_on is not None:
            self._hand_on(hand_on, getattr(region, "measurement", None))
        region.forget()
        region.settled = True
        waiter = getattr(region, "waiter", None)
        if waiter is not None:
            waiter.set()

    def _hand_on(self, hand_on: Callable[[Measurement | None], None], measurement: Measurement | None) -> None:
        try:
            hand_on(measurement)
        except BaseException as error:  # noqa: BLE001 - the application's own processor
            self.complain("foreign", f"a span of another instrumentation could not be handed on: {error!r}")

    def _settled(self, until_ns: int) -> bool:
        if not self._lock.acquire(timeout=0.05):
            return False
        try:
            return self._sampler.ready.is_set() and self._books.settled(until_ns)
        finally:
            self._lock.release()

    def _look_after(self) -> None:
        name = self._sampler.look_after()
        if name is not None:
            self.complain(f"hang:{name}", f"{name} does not return from a device call; measuring goes on without it")

    def _end(self) -> None:
        """The last thing: close what is still open, write, let go. Each step is tried, whatever became of those before."""
        attempt = self._sampler.attempt
        attempt(self._settle)
        with self._lock:
            self._take_no_more()  # first: what begins while all is being closed would be left open
            attempt(self._books.interrupt, self.now_ns())
            attempt(lambda: self._settle(final=True))
            for holder in list(self._holders):
                attempt(holder.let_go)
            for remove in self._unguard:
                attempt(remove)
            for probe in self._sampler.probes:
                if not probe.hung:
                    probe.close()
            attempt(self._devices.leave)
            attempt(self._book.close)
            journal = self._outputs.journal
            if journal is not None:
                attempt(lambda: journal.close(self.snapshot()))
        if not attempt(self._outputs.shut, self.complain):
            attempt(self._outputs.rescue, self, self._lock)
        for instruments in self._instruments:
            attempt(instruments.retire, self)
        attempt(self._outputs.let_go, self.complain)
