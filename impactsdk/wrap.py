"""``Measured``: what ``measured(...)`` gives: a block to enter, or a decorator that keeps the kind of what it wraps."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from impactsdk.errors import ConfigurationError
from impactsdk.region import Host, Region, checked_units, current_region, enter, leave, pause, resume

__all__ = ["Measured", "checked_name"]

P = ParamSpec("P")
R = TypeVar("R")
_LONGEST_NAME = 256


def checked_name(name: object) -> str:
    """A name that can be shown and aggregated by, or an error that says what was expected."""
    if not isinstance(name, str):
        raise ConfigurationError(f"a region's name must be text, not {type(name).__name__}")
    if not name.strip() or not name.isprintable():
        raise ConfigurationError(f"a region's name must be printable text that is not empty, not {name[:40]!r}")
    if len(name) > _LONGEST_NAME:
        raise ConfigurationError(
            f"a region's name may have {_LONGEST_NAME} characters, not {len(name)} ({name[:40]!r}...); put details into attributes"
        )
    return name


def _checked_attributes(attributes: object) -> Mapping[str, Any]:
    if not isinstance(attributes, Mapping):
        raise ConfigurationError(f"attributes must be a mapping, not {type(attributes).__name__}")
    for key, value in attributes.items():
        if not isinstance(key, str) or not key:
            raise ConfigurationError(f"an attribute's name must be text that is not empty, not {key!r}")
        values = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else (value,)
        if not all(isinstance(item, str | bool | int | float) for item in values):
            raise ConfigurationError(f"attribute {key!r} must be text, a number, a boolean or a sequence of them, not {value!r}")
    return MappingProxyType(dict(attributes))


class Measured:
    """A region to be: enter it as a block (``with``, ``async with``) or put it before a function as a decorator.

    Made by :func:`impactsdk.measured` and :meth:`impactsdk.Meter.measured`; their arguments are explained there.
    """

    __slots__ = ("_host", "_last", "attributes", "count", "name", "span", "unit")

    def __init__(
        self,
        host: Host,
        name: str | None,
        unit: str | None,
        count: Callable[[Any], float] | None,
        attributes: Mapping[str, Any] | None,
        span: bool,
    ) -> None:
        self._host = host
        # A name with an account of its own has been checked when that was opened.
        if name is not None and (host.session is None or name.__class__ is not str or name not in host.session.tallies):
            checked_name(name)
        self.name = name
        if unit is not None and not (isinstance(unit, str) and unit.strip()):
            raise ConfigurationError(f"unit={unit!r}: expected text that is not empty, such as 'sentence'")
        self.unit = unit
        if count is not None and not callable(count):
            raise ConfigurationError(f"count={count!r}: expected a function from the result to a number of units, such as len")
        self.count = count
        self.attributes = None if attributes is None else _checked_attributes(attributes)
        self.span = span

    # --- the block ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Region:
        name = self.name
        if name is None:
            raise ConfigurationError("a block needs a name: with measured('epoch'): ...")
        session = self._host.session
        if session is None:
            session = self._host.begin()
        self._last = region = enter(session, name, self.unit, self.attributes, self.span, self)
        return region

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        region = current_region()
        while region is not None and region.block is not self:
            region = region.parent  # type: ignore[assignment]
        leave(region or self._last, error)

    async def __aenter__(self) -> Region:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    # --- the decorator ------------------------------------------------------------------------------------------------

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Measure each call of ``function``; a coroutine function, generator or async generator stays what it is."""
        if isinstance(function, staticmethod | classmethod):
            return cast("Callable[P, R]", type(function)(self(function.__func__)))
        if inspect.isclass(function) or not callable(function):
            raise ConfigurationError(f"measured cannot decorate {function!r}; decorate a function or a method")
        named = self if self.name is not None else self._named(function)
        called = function if inspect.isroutine(function) else type(function).__call__
        if inspect.isasyncgenfunction(called):
            return cast("Callable[P, R]", _async_generator(named, cast(Any, function)))
        if inspect.isgeneratorfunction(called):
            return cast("Callable[P, R]", _generator(named, cast(Any, function)))
        if inspect.iscoroutinefunction(called):
            return cast("Callable[P, R]", _coroutine(named, cast(Any, function)))
        return _plain(named, function)

    def _named(self, function: Callable[..., Any]) -> Measured:
        name = getattr(function, "__qualname__", None) or type(function).__qualname__
        module = getattr(function, "__module__", None)
        full = f"{module}.{name}" if module else name
        return Measured(self._host, full[-_LONGEST_NAME:], self.unit, self.count, self.attributes, self.span)

    def open(self) -> Region | None:
        """Open a region of its own for one call; ``None`` if nothing is measured."""
        session = self._host.session
        if session is None:
            session = self._host.begin()
        return None if session.off else enter(session, cast(str, self.name), self.unit, self.attributes, self.span, None)

    def count_units(self, region: Region, result: object) -> None:
        """Add what ``count`` says; if it fails, the units are unknown and the caller still gets its result."""
        if self.count is None:
            return
        try:
            region.units = (region.units or 0.0) + checked_units(self.count(result))
        except Exception as error:  # noqa: BLE001 - the measured function has already returned: its result must get out
            region.recorder.complain(f"count:{self.name}", f"count= of {self.name!r} failed ({error!r}); its units are unknown")


def _plain(measured: Measured, function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        region = measured.open()
        if region is None:
            return function(*args, **kwargs)
        try:
            result = function(*args, **kwargs)
            measured.count_units(region, result)
        except BaseException as error:
            leave(region, error)
            raise
        leave(region)
        return result

    return wrapper


def _coroutine(measured: Measured, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        region = measured.open()
        if region is None:
            return await function(*args, **kwargs)
        try:
            result = await function(*args, **kwargs)
            measured.count_units(region, result)
        except BaseException as error:
            leave(region, error)
            raise
        leave(region)
        return result

    return wrapper


def _generator(measured: Measured, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        region = measured.open()
        if region is None:
            return (yield from function(*args, **kwargs))
        leaf = region
        try:
            generator = function(*args, **kwargs)
            step, given = generator.send, None
            while True:
                item = step(given)
                measured.count_units(region, item)
                leaf = pause(region)
                try:
                    given = yield item
                    step = generator.send
                except GeneratorExit:
                    resume(region, leaf)
                    generator.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - it belongs to the generator, as with `yield from`
                    step, given = generator.throw, error
                resume(region, leaf)
        except StopIteration as stop:
            leave(region)
            return stop.value
        except GeneratorExit:
            leave(region)  # the consumer has had enough: no error
            raise
        except BaseException as error:
            leave(region, error)
            raise

    return wrapper


def _async_generator(measured: Measured, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        region = measured.open()
        if region is None:
            async for item in function(*args, **kwargs):
                yield item
            return
        leaf = region
        try:
            generator = function(*args, **kwargs)
            step, given = generator.asend, None
            while True:
                item = await step(given)
                measured.count_units(region, item)
                leaf = pause(region)
                try:
                    given = yield item
                    step = generator.asend
                except GeneratorExit:
                    resume(region, leaf)
                    await generator.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - it belongs to the generator
                    step, given = generator.athrow, error
                resume(region, leaf)
        except StopAsyncIteration:
            leave(region)
        except GeneratorExit:
            leave(region)
            raise
        except BaseException as error:
            leave(region, error)
            raise

    return wrapper
