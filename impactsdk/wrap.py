"""``Measured``: what ``measured(...)`` gives: a block to enter, or a decorator that keeps the kind of what it wraps."""

from __future__ import annotations

import functools
import inspect
import numbers
import sys
import types
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from opentelemetry.context import get_current

from impactsdk.errors import ConfigurationError
from impactsdk.recorder import Host, Spec
from impactsdk.region import LONGEST_NAME, Region, leave, new_region
from impactsdk.spanned import SpanRegion
from impactsdk.stepping import pause, resume
from impactsdk.synced import Synced, SyncedSpan

__all__ = ["Measured", "MeasuredSpan", "block", "checked_spec"]

P = ParamSpec("P")
R = TypeVar("R")


def checked_spec(
    host: Host, name: object, unit: object, count: object, attributes: object, span: object, sync: object = False
) -> Spec:
    """What ``measured(...)`` was told, or an error that says what was expected. ``name`` may be missing before a function."""
    if name is not None:
        _check_name(name)
    if unit is not None and not (isinstance(unit, str) and unit.strip()):
        raise ConfigurationError(f"unit={unit!r}: expected text that is not empty, such as 'sentence'")
    if count is not None and not callable(count):
        raise ConfigurationError(f"count={count!r}: expected a function from the result to a number of units, such as len")
    if not isinstance(span, bool):
        raise ConfigurationError(f"span={span!r}: expected True or False")
    if not isinstance(sync, bool):
        raise ConfigurationError(f"sync={sync!r}: expected True or False")
    kept = None if attributes is None else _checked_attributes(attributes)
    return Spec(host, cast(Any, name) or "", unit, cast(Any, count), kept, span, sync)


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise ConfigurationError(f"a region's name must be text, not {type(name).__name__}")
    if not name.strip() or not name.isprintable():
        raise ConfigurationError(f"a region's name must be printable text that is not empty, not {name[:40]!r}")
    if len(name) > LONGEST_NAME:
        raise ConfigurationError(
            f"a region's name may have {LONGEST_NAME} characters, not {len(name)} ({name[:40]!r}...): use attributes"
        )


def _checked_attributes(attributes: object) -> Mapping[str, Any]:
    if not isinstance(attributes, Mapping):
        raise ConfigurationError(f"attributes must be a mapping, not {type(attributes).__name__}")
    kept = {}
    for key, value in attributes.items():
        if not isinstance(key, str) or not key:
            raise ConfigurationError(f"an attribute's name must be text that is not empty, not {key!r}")
        try:
            several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
            kept[key] = tuple(_plain_value(item) for item in value) if several else _plain_value(value)
        except (TypeError, OverflowError):
            raise ConfigurationError(
                f"attribute {key!r} must be text, a number, a boolean or a sequence of them, not {value!r}"
            ) from None
    return kept


def _plain_value(value: Any) -> str | bool | int | float:
    """As OpenTelemetry takes it: numpy's numbers are none to it."""
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, getattr(sys.modules.get("numpy"), "bool_", ())):
        return bool(value)
    raise TypeError


class Measured(Region):
    """A region to be: enter it as a block (``with``, ``async with``) or put it before a function as a decorator.

    Made by :func:`impactsdk.measured` and :meth:`impactsdk.Meter.measured`; their arguments are explained there. A copy, also
    by pickle, measures the same and has not been entered, whatever this one has.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return block, (self.spec,)

    async def __aenter__(self) -> Region:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Measure each call of ``function``; a coroutine function, generator or async generator stays what it is."""
        if isinstance(function, staticmethod | classmethod):
            return cast("Callable[P, R]", type(function)(self(function.__func__)))
        if inspect.isclass(function) or not callable(function):
            raise ConfigurationError(f"measured cannot decorate {function!r}; decorate a function or a method")
        spec = self.spec if self.spec.name else _named(self.spec, function)
        called: Any = function
        while isinstance(called, functools.partial):
            called = called.func
        coroutine = _gives_a_coroutine(called)  # asked of the object: it may be marked as such
        if not inspect.isroutine(called):
            called = type(called).__call__
        if inspect.isasyncgenfunction(called):
            return cast("Callable[P, R]", _async_generator(spec, cast(Any, function)))
        if inspect.isgeneratorfunction(called) and called.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE:
            return cast("Callable[P, R]", _generator_coroutine(spec, cast(Any, function)))
        if inspect.isgeneratorfunction(called):
            return cast("Callable[P, R]", _generator(spec, cast(Any, function)))
        if coroutine or inspect.iscoroutinefunction(called):
            return cast("Callable[P, R]", _coroutine(spec, cast(Any, function)))
        return _plain(spec, function)


class MeasuredSpan(Measured, SpanRegion):
    """The same with a span."""

    __slots__ = ()


# One class for all that are entered often: Python's inline caches are by class.
Measured.alike, MeasuredSpan.alike = Measured, MeasuredSpan


class _SyncedBlock(Synced, Measured):
    __slots__ = ()


class _SyncedSpanBlock(SyncedSpan, MeasuredSpan):
    __slots__ = ()


class _Unnamed(Measured):
    """``measured()`` without a name: a decorator takes that of the function; a block has none to take."""

    __slots__ = ()

    def __enter__(self) -> Region:
        raise ConfigurationError("a block needs a name: with measured('epoch')")


# What is made for a call of a decorated function and for a block, by (span, sync).
_CALLS: dict[tuple[bool, bool], type[Region]] = {
    (False, False): Measured,
    (True, False): MeasuredSpan,
    (False, True): Synced,
    (True, True): SyncedSpan,
}
_BLOCKS: dict[tuple[bool, bool], type[Measured]] = {
    (False, False): Measured,
    (True, False): MeasuredSpan,
    (False, True): _SyncedBlock,
    (True, True): _SyncedSpanBlock,
}


def block(spec: Spec) -> Measured:
    """A block, or a decorator, that was told ``spec``."""
    return new_region(_BLOCKS[spec.span, spec.sync] if spec.name else _Unnamed, spec)


def _gives_a_coroutine(called: Any) -> bool:
    # Before inspect.markcoroutinefunction came with Python 3.12, frameworks marked with a sign of asyncio's.
    sign = getattr(sys.modules.get("asyncio.coroutines"), "_is_coroutine", None)
    return inspect.iscoroutinefunction(called) or (sign is not None and getattr(called, "_is_coroutine", None) is sign)


def _named(spec: Spec, function: Callable[..., Any]) -> Spec:
    named = function.func if isinstance(function, functools.partial) else function
    name = getattr(named, "__qualname__", None) or type(named).__qualname__
    module = getattr(named, "__module__", None)
    full = f"{module}.{name}" if module else name
    return Spec(spec.host, full[-LONGEST_NAME:], spec.unit, spec.count, spec.attributes, spec.span, spec.sync)


def _open(spec: Spec) -> Region | None:
    """A region of its own for one call; ``None`` if nothing is measured."""
    session = spec.host.session
    if session is None:
        session = spec.host.begin()
    if session.off:
        return None
    return new_region(_CALLS[spec.span, spec.sync], spec)


def _count(region: Region, result: object) -> None:
    """Add what ``count`` says; if it fails, the units are unknown and the caller still gets its result."""
    count = region.spec.count
    if count is None:
        return
    try:
        region.add_units(count(result))
    except Exception as error:  # noqa: BLE001 - the measured function has already returned: its result must get out
        assert region.recorder is not None
        region.recorder.complain(f"count:{region.name}", f"count= of {region.name!r} failed ({error!r}); its units are unknown")


def _plain(spec: Spec, function: Callable[P, R]) -> Callable[P, R]:
    host, count = spec.host, spec.count
    kind = _CALLS[spec.span, spec.sync]

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        session = host.session
        if session is None:
            session = host.begin()
        if session.off:
            return function(*args, **kwargs)
        region = kind()
        region.spec = spec
        region.recorder = region.units = None
        try:
            region.__enter__()  # and not a with statement, whose calls cost more
            result = function(*args, **kwargs)
            if count is not None:
                _count(region, result)
            region.__exit__(None, None, None)
        except BaseException as error:
            leave(region, error)
            raise
        return result

    return wrapper


def _coroutine(spec: Spec, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        region = _open(spec)
        if region is None:
            return await function(*args, **kwargs)
        with region:
            result = await function(*args, **kwargs)
            _count(region, result)
            return result

    return wrapper


class _Steps:
    """The region of one generator object: open while a step runs, and nothing at all where nothing is measured."""

    __slots__ = ("_context", "_leaf", "_region")

    def __init__(self, spec: Spec) -> None:
        self._region = self._leaf = _open(spec)
        self._context: Any = None

    def begun(self) -> None:
        if self._region is not None:
            self._region.__enter__()

    def yielded(self, item: object) -> None:
        region = self._region
        if region is not None:
            if region.spec.count is not None:
                _count(region, item)
            if region.span is not None:
                self._context = get_current()
            self._leaf = pause(region)

    def resumed(self) -> None:
        if self._region is not None and self._leaf is not None:
            resume(self._region, self._leaf, self._context)

    def ended(self, error: BaseException | None = None) -> None:
        """It is over; said twice it is over once, so that an interrupt in the middle of saying it leaves nothing open."""
        if self._region is not None:
            leave(self._region, error)


def _generator(spec: Spec, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        steps = _Steps(spec)
        step: Any = None
        given: Any = None
        items: list[Any] = []  # taken out again before each yield: what the consumer lets go of is not kept alive here
        try:
            steps.begun()
            generator = function(*args, **kwargs)
            del args, kwargs
            step = generator.send
            while True:
                items.append(step(given))
                given = None
                steps.yielded(items[0])
                try:
                    given = yield items.pop()
                    step = generator.send
                except BaseException as error:  # noqa: BLE001 - it belongs to the generator, GeneratorExit too
                    step, given = generator.throw, error
                steps.resumed()
        except StopIteration as stop:
            steps.ended()
            return stop.value
        except GeneratorExit:
            steps.ended()  # the consumer has had enough: no error
            raise
        except BaseException as error:
            steps.ended(error)
            raise
        finally:
            given = None  # an exception that was thrown in refers to this frame
            steps.ended()

    return wrapper


def _async_generator(spec: Spec, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        steps = _Steps(spec)
        step: Any = None
        given: Any = None
        items: list[Any] = []
        try:
            steps.begun()
            generator = function(*args, **kwargs)
            del args, kwargs
            first = _unhooked(generator)
            while True:
                items.append(await (step(given) if first is None else first))
                given = first = None
                steps.yielded(items[0])
                try:
                    given = yield items.pop()
                    step = generator.asend
                except BaseException as error:  # noqa: BLE001 - it belongs to the generator, GeneratorExit too
                    step, given = generator.athrow, error
                steps.resumed()
        except StopAsyncIteration:
            steps.ended()
        except GeneratorExit:
            steps.ended()
            raise
        except BaseException as error:
            steps.ended(error)
            raise
        finally:
            given = None
            steps.ended()

    return wrapper


def _unhooked(generator: AsyncGenerator[Any, Any]) -> Any:
    """The first step of an async generator of which the event loop is not told: it knows the wrapper, and closes only that."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return generator.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _generator_coroutine(spec: Spec, function: Callable[..., Any]) -> Callable[..., Any]:
    """For what ``types.coroutine`` made of a generator function: its yields are suspensions."""

    @types.coroutine
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        region = _open(spec)
        if region is None:
            return (yield from function(*args, **kwargs))
        with region:
            result = yield from function(*args, **kwargs)
            _count(region, result)
            return result

    return wrapper
