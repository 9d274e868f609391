"""The sessions of a meter, one after another: begun at the first region, closed, begun anew with other settings or in a child.

The only place where the parts are joined.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from impactsdk import lifecycle
from impactsdk.clock import SystemClock
from impactsdk.endings import Endings, warn
from impactsdk.errors import ConfigurationError
from impactsdk.idle import OFF, OffSession
from impactsdk.model import Measurement
from impactsdk.protocols import Clock, EnergySource, FactorProvider
from impactsdk.recorder import checked_timeout_s
from impactsdk.settings import Settings

if TYPE_CHECKING:
    from opentelemetry import metrics, trace
    from typing_extensions import TypeIs

    # What measures is imported when something is first measured: it is nine tenths of the time that importing all would take.
    from impactsdk.foreign import HoldingProcessor
    from impactsdk.session import Session

__all__ = ["Sessions", "installed_version", "runs"]


def installed_version() -> str:
    """The version of impactsdk that is installed; of a copy that is not, nothing tells it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("impactsdk")
    except PackageNotFoundError:
        return "unknown"


def _check(settings: Settings) -> None:
    if settings.sources or settings.factors or settings.region is not None:
        with lifecycle.importing():
            from impactsdk.discovery import check

            check(settings)


def runs(session: Session | OffSession | None) -> TypeIs[Session]:
    """Whether it is one that measures."""
    return session is not None and not session.off


_ONE_RUN = ("_given", "_names", "_settings", "_clock", "session", "listeners", "endings", "_closed", "_detach")
"""What :meth:`Sessions.replaced` puts aside."""


class Sessions:
    """What of a meter begins and ends. Arguments as those of :class:`impactsdk.Meter`."""

    def __init__(
        self,
        settings: Settings | None,
        sources: Sequence[EnergySource | str] | None,
        factors: Sequence[FactorProvider | str] | None,
        tracer_provider: trace.TracerProvider | None,
        meter_provider: metrics.MeterProvider | None,
        clock: Clock | None,
    ) -> None:
        self._given = settings
        self._names: Mapping[str, Any] = {}  # what configure() was told last
        self._parts = {"sources": sources, "factors": factors}
        self._providers = (tracer_provider, meter_provider)
        self._clock = clock or SystemClock()
        self.session: Session | OffSession | None = None
        self.listeners: list[Callable[[Measurement], None]] = []
        self._lock = threading.RLock()
        self._turning = threading.RLock()  # held while a session is closed, and while another takes its place
        self._beginning = False
        self._settings: Settings | None = None
        self._closed = False
        self._detach: Callable[[], None] | None = None
        self.endings = Endings()
        self._turning_to: tuple[Settings | None] | None = None  # while another session's place is made free
        self._outside: list[dict[str, Any]] = []  # what was put aside by replaced()
        self._holders: weakref.WeakSet[HoldingProcessor] = weakref.WeakSet()
        if settings is not None or sources is not None or factors is not None:
            self._settings = self._load()
        lifecycle.watch(self)

    def _load(self) -> Settings:
        settings = self._given if self._given is not None else Settings.of_environment(_check, warn)
        if not isinstance(settings, Settings):
            raise ConfigurationError(f"settings={settings!r}: expected impactsdk.Settings, as Settings.load() gives")
        given = {name: parts for name, parts in self._parts.items() if parts is not None}
        if given:
            parsed = Settings.load({}, **given)
            settings = dataclasses.replace(settings, **{name: getattr(parsed, name) for name in given})
        _check(settings)
        return settings

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        if self._settings is None:
            self._settings = self._load()
        return self._settings

    # --- beginning ------------------------------------------------------------------------------------------------------

    def begin(self) -> Session | OffSession:
        """The session, started if need be. Regions call it; nobody else has to."""
        beginning = lifecycle.beginning  # in the child of a fork it is another one
        if not beginning.acquire(blocking=not self._waited_for()):
            return OFF  # a source measures while it is opened: whoever begins waits for it
        try:
            return self._begin()
        finally:
            beginning.release()

    def _waited_for(self) -> bool:
        """Whether others may wait for this very thread.

        It is a sampler's, say; or a signal's handler runs in it while it begins, which whoever closes or sets up waits for.
        """
        locks: tuple[Any, ...] = (lifecycle.beginning, self._lock)
        return lifecycle.waited_for() or any(lock._is_owned() for lock in locks)

    def _begin(self) -> Session | OffSession:
        with self._lock:
            if self._beginning:  # a provider, a source or a signal handler measures while we begin, in this very thread
                return OFF if self.session is None else self.session
            self._beginning = True
            try:
                while self.session is None:
                    if self._closed or self.settings.disabled:
                        self.session = OFF
                        break
                    settings, session = self.settings, self._begun()
                    if self.session is None and self._settings is not None and settings.same_as(self._settings):
                        self.session = session
                    elif runs(session):  # the handler of a signal has closed the meter meanwhile, or has set it up otherwise
                        self.endings.drop(session, settings.shutdown_timeout_s)
                    self._keep()
            finally:
                self._beginning = False
            return self.session

    def _begun(self) -> Session | OffSession:
        try:
            import impactsdk.export.summary  # noqa: F401 - at the end there may be no descriptor left to read it by
            from impactsdk.session import Session

            lifecycle.at_exit()  # first: the process may end while a thread of it begins
            self.enrich()
            return Session(self.settings, self._clock, installed_version(), *self._providers, self.listeners, self._holders)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever fails here, the measured code runs
            warn(f"measuring could not begin ({error!r}); what is measured runs, and nothing is known of it")
            return OFF

    def hold(self, processor: HoldingProcessor) -> None:
        """A processor holds other instrumentations' spans for this meter."""
        self._holders.add(processor)
        if runs(self.session):
            self.session.look_for_spans()

    def enrich(self) -> None:
        """Put energy on other instrumentations' spans from now on, if ``settings.enrich`` says so and there is a provider."""
        if self._detach is not None or not self.settings.enrich or self.settings.disabled:
            return
        if any(run["_detach"] is not None for run in self._outside):
            return  # what was put before the provider's processors then serves whatever runs in its stead
        with lifecycle.importing():
            from impactsdk import application
            from impactsdk.standing import attach

            provider = self._providers[0] or application.tracer_provider()
            if self._detach is None:
                self._detach = attach(provider, self)
        if self._detach is None and self._beginning:
            warn(
                "enrich=True: the application has no TracerProvider of the OpenTelemetry SDK yet, so only measured regions get "
                "energy; set the provider first, or put an EnergySpanProcessor before its exporting processor"
            )

    # --- ending, and turning to other settings --------------------------------------------------------------------------

    def close(self, timeout_s: float | None = None) -> bool:
        """Settle what is open, write, and let go of thread, files and devices; say whether that was done in time.

        What the journal could not take since it was last flushed, as on a full disk, was not. Regions that are entered
        afterwards measure nothing.

        Args:
            timeout_s: The most to wait, seconds; a negative number is 0. Default: ``shutdown_timeout_s`` of the settings.

        Raises:
            ConfigurationError: ``timeout_s`` is no number.
        """
        return self._end(self._limit_s if timeout_s is None else checked_timeout_s(timeout_s), math.inf)

    def leave(self, waited_s: float, others: int) -> None:
        """Close, as the process ends: it has waited so long already, and must do so for that many others."""
        self._end(max(0.0, self._limit_s - waited_s) / (1 + others), self._limit_s)

    @property
    def _limit_s(self) -> float:
        return 5.0 if self._settings is None else self._settings.shutdown_timeout_s

    def _end(self, wait_s: float, most_s: float) -> bool:
        """Close, and wait so long; for no session longer than ``most_s`` in all, as one that hangs would be each time."""
        deadline, turning = time.monotonic() + wait_s, self._turning
        if not turning.acquire(timeout=0.0 if self._waited_for() else min(wait_s, threading.TIMEOUT_MAX)):
            return False
        try:
            return self._close(deadline, most_s)
        finally:
            turning.release()

    def _close(self, deadline: float, most_s: float) -> bool:
        if not self._lock.acquire(timeout=min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)):
            return False  # another thread begins, and something hangs there
        try:
            if runs(self.session):
                self.endings.add(self.session)
            self.session, self._closed = OFF, True
        finally:
            self._lock.release()
        try:
            return self.endings.close(deadline, most_s)
        finally:
            if self._detach is not None:
                self._detach()
                self._detach = None
            self._keep()

    def _keep(self) -> None:
        """What is to be closed at exit must last until then, whoever lets go of it."""
        lifecycle.keep(self, wanted=runs(self.session) or bool(self.endings))

    def reset(self) -> None:
        """Close and forget the settings: the environment is read again at the next region. For tests."""
        with self._turning:
            self._renew(None, lambda: False)
            self._names = {}
            self.listeners.clear()

    def configure(self, names: Mapping[str, Any]) -> None:
        """Measure with these settings from the next region on, and close what runs with others; for :func:`configure`."""
        session = self.session
        as_it_is = not self._closed and self._given is not None and not self._names
        if not names and (not session.late if runs(session) else as_it_is):
            return  # whatever the environment says by now: frameworks and launchers change it
        settings = _loaded(names) if names else None  # first: what cannot be used changes nothing
        turning = self._turning
        if (lifecycle.waited_for() and self._beginning) or not turning.acquire(timeout=0.0 if self._waited_for() else -1):
            if names:
                warn(
                    "configure() has changed nothing: it was called by what the meter waits for, such as a listener, an "
                    "exporter, a source or the handler of a signal, while it began or was closed"
                )
            return
        try:
            if settings is None:
                captured = self._outside and not self._names  # then the settings are none of the environment's
                self._renew(self._given if captured else _loaded(self._names), self._stands)
            else:
                self._names = names
                self._renew(settings, lambda: self._stands() and settings.same_as(self.settings))
            self.enrich()
        finally:
            turning.release()

    def _stands(self) -> bool:
        """Whether one measures, or begins to in this very thread, and knows the application's providers."""
        return not self.session.late if runs(self.session) else self._beginning

    def _renew(self, settings: Settings | None, done: Callable[[], bool]) -> None:
        """Close what runs and take these settings, unless another thread has just begun with what is wanted."""
        before, self._turning_to = self._turning_to, (settings,)
        try:
            while True:
                with self._lock:  # once another thread has begun
                    if done():
                        return
                    if not runs(self.session) and self._detach is None:
                        self._turn(settings)
                        return
                self._end(self._limit_s, self._limit_s)
        except BaseException:  # an interrupt: what was being closed ends by itself, and the next region begins anew
            if not runs(self.session):
                self._turn(settings)
            raise
        finally:
            self._turning_to = before

    def _turn(self, settings: Settings | None) -> None:
        if settings is None or self._settings is None or not settings.same_as(self._settings):
            self.endings.forget()  # else the totals are those of the last run of the same
        self._given = self._settings = settings
        self.session, self._closed = None, False

    @contextmanager
    def replaced(self, settings: Settings, clock: Clock | None = None) -> Iterator[None]:
        """For a while, measure with other settings in a session of its own; what ran before then goes on. For tests."""
        outside = {name: getattr(self, name) for name in _ONE_RUN}
        self._outside.append(outside)
        self._given = self._settings = settings
        self._names, self.endings, self._detach = {}, Endings(), None
        self._clock, self.session, self._closed, self.listeners = clock or SystemClock(), None, False, []
        try:
            yield
        finally:
            try:
                self.close()
            finally:
                vars(self).update(outside)
                self._outside.remove(outside)
                self._keep()

    def forked(self) -> None:
        """In the child of a fork: what runs belongs to the parent; the next region here starts anew."""
        self._lock, self._turning = threading.RLock(), threading.RLock()
        self._beginning = False
        for run in (vars(self), *self._outside):
            run["endings"].forsake()
            if runs(run["session"]):
                run["session"].forsake()
                run["session"] = None
        if self._turning_to is not None:  # another thread was about to, and is not here
            self._turn(*self._turning_to)
            self._turning_to = None
        self._keep()


def _loaded(names: Mapping[str, Any]) -> Settings:
    settings = Settings.load(**names)
    _check(settings)
    return settings
