"""The meter: its face. The default one serves ``impactsdk.measured`` and needs no set-up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from impactsdk.model import Totals
from impactsdk.protocols import Clock, EnergySource, FactorProvider
from impactsdk.recorder import Spec, checked_timeout_s
from impactsdk.region import innermost
from impactsdk.sessions import Sessions, runs
from impactsdk.settings import Settings
from impactsdk.wrap import Measured, MeasuredSpan, block, checked_spec

if TYPE_CHECKING:
    from opentelemetry import metrics, trace

__all__ = ["Meter", "configure", "default_meter", "flush", "shutdown"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
_MOST_SPECS = 2_000


class Meter(Sessions):
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
        super().__init__(settings, sources, factors, tracer_provider, meter_provider, clock)
        self._span_specs: dict[str, Spec] = {}
        self._ledger_specs: dict[str, Spec] = {}

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

    def totals(self) -> Totals:
        """The account up to the last settled instant; :meth:`flush` first to have all that has ended in it."""
        session = self.session
        return session.snapshot().totals if runs(session) else self.endings.totals

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until all that has ended is settled and handed on; say whether that was reached in time.

        What the journal could not take since the last time, as on a full disk, and what a backend has refused over OTLP, is not
        handed on.

        Args:
            timeout_s: The most to wait, seconds; a negative number is 0.

        Raises:
            ConfigurationError: ``timeout_s`` is no number.
        """
        session, timeout_s = self.session, checked_timeout_s(timeout_s)
        return session.flush(timeout_s) if runs(session) else True

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[], Meter], tuple[()]]:
        if self is _default:
            return default_meter, ()
        raise TypeError("only functions measured by the default meter can be pickled; use impactsdk.measured")


def _turns(iterable: Iterable[T], spec: Spec) -> Iterator[T]:
    for item in iterable:
        region = block(spec)
        try:
            region.__enter__()
            if spec.unit is not None:
                region.add_units(1)
            yield item
        finally:
            if innermost.get() is region:
                region.__exit__(None, None, None)
            else:  # loops over two at once leave each turn of the first before one of the second
                region.leave_out_of_order()


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
