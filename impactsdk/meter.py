"""The meter: the only place where the parts are joined. The default one serves ``impactsdk.measured`` and needs no set-up."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from impactsdk import lifecycle
from impactsdk.clock import SystemClock
from impactsdk.errors import ConfigurationError, DegradedWarning
from impactsdk.idle import OFF, OffSession
from impactsdk.model import Measurement, Totals
from impactsdk.protocols import Clock, EnergySource, FactorProvider
from impactsdk.recorder import Spec, checked_timeout_s
from impactsdk.settings import Settings
from impactsdk.terminal import say
from impactsdk.wrap import Measured, MeasuredSpan, block, checked_spec

if TYPE_CHECKING:
    from opentelemetry import metrics, trace
    from typing_extensions import TypeIs

    # What measures is imported when something is first measured: it is nine tenths of the time that importing all would take.
    from impactsdk.foreign import HoldingProcessor
    from impactsdk.session import Session

__all__ = ["Meter", "configure", "default_meter", "flush", "installed_version", "shutdown"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
_MOST_SPECS = 2_000


def installed_version() -> str:
    """The version of impactsdk that is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("impactsdk")
    except PackageNotFoundError:
        return "0"


def _nothing() -> Totals:
    return Totals({}, 0.0, 0.0, 0.0, {})


def _check(settings: Settings) -> None:
    if settings.sources or settings.factors or settings.region is not None:
        from impactsdk.discovery import check

        check(settings)


def _runs(session: Session | OffSession | None) -> TypeIs[Session]:
    return session is not None and not session.off


class Meter:
    """Measures regions from sources and hands the results on. For those who embed impactsdk; others use the default one.

    Nothing is opened or started before the first region, and nothing outlives :meth:`close`.

    Args:
        settings: From :meth:`Settings.load`; default: the environment's.
        sources: Objects or names; they win over ``settings.sources``. Default: detection.
        factors: Providers of impact factors, objects or names, best first; they win over ``settings.factors``.
        tracer_provider: Where spans go; default: what ``settings.export`` and the application's own provider say.
        meter_provider: Where metrics go, likewise.
        clock: Where time comes from; for tests.

    Raises:
        ConfigurationError: A setting cannot be used, or a source that is named does not exist.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        sources: Sequence[EnergySource | str] | None = None,
        factors: Sequence[FactorProvider | str] | None = None,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        clock: Clock | None = None,
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
        self._span_specs: dict[str, Spec] = {}
        self._ledger_specs: dict[str, Spec] = {}
        self._settings: Settings | None = None
        self._closed = False
        self._detach: Callable[[], None] | None = None
        self._unfinished: Session | None = None  # one that a listener has closed, in whose thread nobody can wait for its end
        self._holders: weakref.WeakSet[HoldingProcessor] = weakref.WeakSet()
        self._last_totals = _nothing()
        if settings is not None or sources is not None or factors is not None:
            self._settings = self._load()
        lifecycle.watch(self)

    def _load(self) -> Settings:
        settings = self._given if self._given is not None else Settings.load()
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

    # --- measuring ------------------------------------------------------------------------------------------------------

    @overload
    def measured(self, name: Callable[P, R], /) -> Callable[P, R]: ...
    @overload
    def measured(
        self,
        name: str | None = None,
        *,
        unit: str | None = None,
        count: Callable[[Any], float] | None = None,
        attributes: Mapping[str, Any] | None = None,
        span: bool = True,
        sync: bool = False,
    ) -> Measured: ...
    def measured(
        self,
        name: Any = None,
        _: None = None,
        unit: str | None = None,
        count: Callable[[Any], float] | None = None,
        attributes: Mapping[str, Any] | None = None,
        span: bool = True,
        sync: bool = False,
    ) -> Any:
        """Measure a function or a block: joules on an OpenTelemetry span, and in the totals.

        As ``@measured`` or ``@measured("encode", ...)`` it decorates a function, coroutine function, generator or async
        generator, which stays what it is. A coroutine's region stays open while it is suspended; a generator's is open only
        while it runs, so its consumer is not charged to it. As ``with measured("epoch") as m:`` (or ``async with``) it
        measures a block; ``m.add_units(n)`` counts functional units inside, ``m.result()`` after it gives the
        :class:`~impactsdk.Measurement`.

        Args:
            name: Of the operation; totals are kept by it. Default for a function: its module and qualified name.
            unit: The functional unit, e.g. ``sentence`` or ``token``.
            count: For a decorator: from the result of a call (of a generator: from each item) to the units it did, e.g.
                ``len``.
            attributes: For the span. Nothing that is passed to a function is ever recorded.
            span: ``False`` keeps the region in the ledger only, with totals and histogram but no span: for inner loops.
            sync: ``True`` waits at both ends until the accelerators have done what torch, jax or TensorFlow gave them, so that
                the energy of kernels launched inside is inside. It slows down; ``impact.sync`` says whether it was done.

        Raises:
            ConfigurationError: The name is empty, huge or not text, or another argument is not usable.
        """
        # To callers all but the name are keywords, as the overloads say. Python looks up the default of each keyword-only
        # parameter that is left out, at a tenth of what a region may cost: so here are none, and ``_`` takes what comes second.
        if _ is not None:
            raise TypeError(f"measured() takes one argument without a keyword, its name; what is {_!r}?")
        if count is None and attributes is None and sync is False:
            # Most calls are the same call again, in an inner loop: then this look-up is all that they pay here.
            region: Any
            try:
                if span is False:
                    spec = self._ledger_specs[name]
                    region = Measured()
                else:
                    spec = self._span_specs[name if span is True else None]  # None is no key
                    region = MeasuredSpan()
            except (KeyError, TypeError):  # new, or nothing that can be used; the check below says so
                pass
            else:
                if spec.unit is unit or spec.unit == unit:
                    region.spec = spec
                    region.recorder = region.units = None
                    return region
        if callable(name) or isinstance(name, staticmethod | classmethod):
            return block(checked_spec(self, None, unit, count, attributes, span, sync))(name)
        spec = checked_spec(self, name, unit, count, attributes, span, sync)
        specs = self._span_specs if span else self._ledger_specs
        if count is None and attributes is None and not sync and spec.name and len(specs) < _MOST_SPECS:
            specs[spec.name] = spec
        return block(spec)

    def track(
        self, iterable: Iterable[T], *, name: str = "track", unit: str | None = None, total: int | None = None
    ) -> Iterator[T]:
        """Iterate and measure each turn of the loop's body as a ledger-only region; with ``unit``, each turn counts as one.

        ``total`` is the number of turns where ``iterable`` does not know it; this version shows no progress and ignores it.
        """
        return _turns(iterable, checked_spec(self, name, unit, None, None, False))

    def begin(self) -> Session | OffSession:
        """The session, started if need be. Regions call it; nobody else has to."""
        beginning = lifecycle.beginning  # in the child of a fork it is another one
        if not beginning.acquire(blocking=not lifecycle.in_sampler()):
            return OFF  # a source measures while it is opened: whoever begins waits for it
        try:
            return self._begin()
        finally:
            beginning.release()

    def _begin(self) -> Session | OffSession:
        with self._lock:
            if self.session is None:
                if self._beginning:
                    return OFF  # a provider, a source or a signal handler measures while we begin, in this very thread
                if self._closed or self.settings.disabled:
                    self.session = OFF
                else:
                    self._beginning = True
                    try:
                        self.session = self._begun()
                    finally:
                        self._beginning = False
            return self.session

    def _begun(self) -> Session | OffSession:
        try:
            from impactsdk.session import Session

            lifecycle.at_exit()  # first: the process may end while a thread of it begins
            self.enrich()
            return Session(self.settings, self._clock, installed_version(), *self._providers, self.listeners, self._holders)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever fails here, the measured code runs
            _warn(f"measuring could not begin ({error!r}); what is measured runs, and nothing is known of it")
            return OFF

    def hold(self, processor: HoldingProcessor) -> None:
        """A processor holds other instrumentations' spans for this meter."""
        self._holders.add(processor)
        if _runs(self.session):
            self.session.look_for_spans()

    def enrich(self) -> None:
        """Put energy on other instrumentations' spans from now on, if ``settings.enrich`` says so and there is a provider."""
        if self._detach is not None or not self.settings.enrich or self.settings.disabled:
            return
        from opentelemetry import trace

        from impactsdk.foreign import attach

        provider = self._providers[0] or trace.get_tracer_provider()
        self._detach = attach(provider, self)
        if self._detach is None and self._beginning:
            _warn(
                "enrich=True: the application has no TracerProvider of the OpenTelemetry SDK yet, so only measured regions get "
                "energy; set the provider first, or put an EnergySpanProcessor before its exporting processor"
            )

    def totals(self) -> Totals:
        """The account up to the last settled instant; :meth:`flush` first to have all that has ended in it."""
        session = self.session
        return session.snapshot().totals if _runs(session) else self._last_totals

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until all that has ended is settled and handed on; say whether that was reached in time.

        Here as in :meth:`close` a negative ``timeout_s`` is 0, and one that is no number a :class:`ConfigurationError`.
        """
        session, timeout_s = self.session, checked_timeout_s(timeout_s)
        return session.flush(timeout_s) if _runs(session) else True

    def close(self, timeout_s: float | None = None) -> bool:
        """Settle what is open, write, and let go of thread, files and devices; say whether that was done in time.

        Regions that are entered afterwards measure nothing.
        """
        if timeout_s is None:
            timeout_s = 5.0 if self._settings is None else self._settings.shutdown_timeout_s
        wait_s = checked_timeout_s(timeout_s)
        # In a sampler's thread whoever closes may be waiting for us.
        if not self._turning.acquire(timeout=0.0 if lifecycle.in_sampler() else min(wait_s, threading.TIMEOUT_MAX)):
            return False
        try:
            return self._close(wait_s)
        finally:
            self._turning.release()

    def _close(self, wait_s: float) -> bool:
        if not self._lock.acquire(timeout=min(wait_s, threading.TIMEOUT_MAX)):
            return False  # another thread begins, and something hangs there
        try:
            session, self.session, self._closed = self.session, OFF, True
        finally:
            self._lock.release()
        detach, self._detach = self._detach, None
        if not _runs(session):
            if detach is not None:
                detach()
            return self._finish(wait_s)
        closed = session.close(wait_s)
        if detach is not None:
            detach()
        account = session.snapshot()
        self._last_totals = account.totals
        if lifecycle.in_sampler():
            self._unfinished = session
        if session.summary_wanted:
            from impactsdk.export.summary import summarise

            try:
                say(summarise(account, session.journal_path, lacks=session.journal_lacks))
            except Exception as error:  # noqa: BLE001 - a few lines for a person must not cost anybody the end of a program
                _warn(f"the summary could not be written: {error!r}")
        return closed

    def _finish(self, wait_s: float) -> bool:
        """Wait for a session that was closed from within; say whether it has ended."""
        session = self._unfinished
        if session is None:
            return True
        if lifecycle.in_sampler() or not session.ended(wait_s):
            return False
        self._unfinished, self._last_totals = None, session.snapshot().totals
        return True

    def reset(self) -> None:
        """Close and forget the settings: the environment is read again at the next region. For tests."""
        with self._turning:
            self._renew(None)
            self._names = {}
            self.listeners.clear()

    def configure(self, names: Mapping[str, Any]) -> None:
        """Measure with these settings from the next region on, and close what runs with others; for :func:`configure`."""
        session = self.session
        if not names:
            if not session.late if _runs(session) else self._given is not None and not self._names:
                return  # whatever the environment says by now: frameworks and launchers change it
            names = self._names
        settings = Settings.load(**names)
        _check(settings)
        if not self._turning.acquire(timeout=0.0 if lifecycle.in_sampler() else -1):
            _warn("configure() has changed nothing: a listener or an exporter called it while the meter was being closed")
            return
        try:
            self._names = names
            session = self.session
            if not _runs(session) or session.late or not settings.same_as(self.settings):
                self._renew(settings)
                self.enrich()
        finally:
            self._turning.release()

    def _renew(self, settings: Settings | None) -> None:
        while True:
            if _runs(self.session) or self._detach is not None:
                self.close()
            with self._lock:
                if not _runs(self.session):  # else another thread has begun just now
                    if settings is None or self._settings is None or not settings.same_as(self._settings):
                        self._last_totals = _nothing()  # else they are those of the last run of the same
                    self._given = self._settings = settings
                    self.session, self._closed = None, False
                    return

    @contextmanager
    def replaced(self, settings: Settings, clock: Clock | None = None) -> Iterator[None]:
        """For a while, measure with other settings in a session of its own; what ran before then goes on. For tests."""
        kept = (self._given, self._settings, self._clock, self.session, self._closed, self.listeners)
        names, totals, pid = self._names, self._last_totals, os.getpid()
        self._given = self._settings = settings
        self._names, self._last_totals = {}, _nothing()
        self._clock, self.session, self._closed, self.listeners = clock or SystemClock(), None, False, []
        try:
            yield
        finally:
            if _runs(self.session):
                self.session.close(settings.shutdown_timeout_s)
            self._given, self._settings, self._clock, self.session, self._closed, self.listeners = kept
            self._names, self._last_totals = names, totals
            if os.getpid() != pid:  # a fork inside: what ran before stayed with the parent
                self.forked()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[], Meter], tuple[()]]:
        if self is _default:
            return default_meter, ()
        raise TypeError("only functions measured by the default meter can be pickled; use impactsdk.measured")

    def forked(self) -> None:
        """In the child of a fork: what runs belongs to the parent; the next region here starts anew."""
        self._lock, self._turning = threading.RLock(), threading.RLock()
        self._beginning = False
        self._unfinished, self._last_totals = None, _nothing()
        if _runs(self.session):
            self.session.forsake()
            self.session = None


def _turns(iterable: Iterable[T], spec: Spec) -> Iterator[T]:
    for item in iterable:
        with block(spec) as region:
            if spec.unit is not None:
                region.add_units(1)
            yield item


def _warn(message: str) -> None:
    with contextlib.suppress(Exception):  # where warnings are errors
        warnings.warn(message, DegradedWarning, stacklevel=2)


# --- the default meter ------------------------------------------------------------------------------------------------------

_default = Meter()


def default_meter() -> Meter:
    """The meter that ``impactsdk.measured`` uses. ``testing.capture`` may put another in its place."""
    return _default


def configure(**settings: Any) -> Meter:
    """Set up the default meter and return it. Optional: without it the environment and the defaults hold.

    Takes the names of :class:`impactsdk.Settings`, as keywords only. One call says everything: what it leaves out has its
    default, whatever a call before it said. The same call twice changes nothing, and neither does one without any names: it
    gives the meter as it is. Another one, after something was measured, settles and writes that first and measures anew.

    Raises:
        ConfigurationError: A name or a value cannot be used; what ran goes on unchanged.
    """
    _default.configure(settings)
    return _default


def flush(timeout_s: float = 5.0) -> bool:
    """Wait until all that has ended is settled and handed on, at most ``timeout_s`` seconds; say whether it is.

    As :meth:`Meter.flush`.
    """
    return _default.flush(timeout_s)


def shutdown(timeout_s: float | None = None) -> bool:
    """Close the default meter: settle, write, let go. Regions afterwards measure nothing until :func:`configure`.

    As :meth:`Meter.close`.
    """
    return _default.close(timeout_s)
