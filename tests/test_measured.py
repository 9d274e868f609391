"""Decorators and blocks: what is measured stays what it is, and returns and raises what it did."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
import sys
import threading
import types
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any
from unittest.mock import AsyncMock

import pytest
from opentelemetry import trace

import impactsdk
from impactsdk import ConfigurationError, RegionError, measured
from impactsdk.testing import FakeClock, SimulatedSource, capture
from tests.kit import attributes, bench, conserved


@measured
def module_level(number: int = 1) -> int:
    """Its docstring."""
    return number + 1


@measured("named", unit="item", count=len)
def counted() -> list[int]:
    return [1, 2, 3]


class Things:
    @measured
    def method(self, number: int) -> tuple[Things, int]:
        return self, number

    @measured
    @staticmethod
    def static_inside(number: int) -> int:
        return number

    @staticmethod
    @measured
    def static_outside(number: int) -> int:
        return number

    @measured
    @classmethod
    def of_class_inside(cls, number: int) -> tuple[type, int]:
        return cls, number

    @classmethod
    @measured
    def of_class_outside(cls, number: int) -> tuple[type, int]:
        return cls, number

    @property
    @measured
    def attribute(self) -> str:
        return "value"

    def __call__(self, number: int) -> int:
        return number * 2


class CallsCoroutine:
    async def __call__(self) -> str:
        await asyncio.sleep(0)
        return "awaited"


# --- what it is --------------------------------------------------------------------------------------------------------------


def test_a_function_keeps_its_name_docstring_and_signature() -> None:
    assert module_level.__name__ == "module_level"
    assert module_level.__doc__ == "Its docstring."
    assert inspect.signature(module_level) == inspect.signature(module_level.__wrapped__)  # type: ignore[attr-defined]
    assert inspect.isfunction(module_level)


def test_each_kind_of_function_stays_of_its_kind() -> None:
    async def coroutine() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    async def async_generator() -> AsyncIterator[int]:
        yield 1

    def function() -> None: ...

    kinds: list[Callable[[object], bool]] = [
        inspect.isfunction,
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
    ]
    for each in (function, coroutine, generator, async_generator):
        for decorated in (measured(each), measured("name")(each), measured(unit="x", count=lambda _: 1)(each)):
            assert [kind(decorated) for kind in kinds] == [kind(each) for kind in kinds], each


def test_what_types_coroutine_made_can_still_be_awaited() -> None:
    @measured("old style")
    @types.coroutine
    def coroutine(value: str) -> Generator[Any, Any, str]:
        yield from asyncio.sleep(0).__await__()
        return value

    async def main() -> str:
        return await coroutine("done")

    with capture() as measurements:
        assert asyncio.run(main()) == "done"
    assert len(measurements.named("old style")) == 1


def test_methods_are_measured_under_their_qualified_names() -> None:
    things = Things()
    with capture() as measurements:
        assert things.method(1) == (things, 1)
        assert Things.method(things, number=2) == (things, 2)
        assert things.static_inside(3) == Things.static_inside(3) == 3
        assert things.static_outside(4) == 4
        assert Things.of_class_inside(5) == (Things, 5)
        assert things.of_class_outside(6) == (Things, 6)
        assert things.attribute == "value"
    names = {measurement.name for measurement in measurements}
    prefix = f"{__name__}.Things."
    assert names == {
        prefix + name
        for name in ("method", "static_inside", "static_outside", "of_class_inside", "of_class_outside", "attribute")
    }


def test_a_partial_and_a_callable_object_are_measured() -> None:
    with capture() as measurements:
        assert measured(functools.partial(module_level.__wrapped__, 4))() == 5  # type: ignore[attr-defined]
        assert measured(Things())(21) == 42
        assert asyncio.run(measured(CallsCoroutine())()) == "awaited"  # type: ignore[arg-type]
        assert asyncio.run(measured(functools.partial(CallsCoroutine().__call__))()) == "awaited"
    assert [measurement.name for measurement in measurements] == [
        f"{__name__}.module_level",
        f"{__name__}.Things",
        f"{__name__}.CallsCoroutine",
        f"{__name__}.CallsCoroutine.__call__",
    ]


def test_a_callable_object_that_says_it_is_a_coroutine_function_is_one() -> None:
    class View:
        def __call__(self, number: int) -> Any:
            async def doubled() -> int:
                await asyncio.sleep(0.02)
                return 2 * number

            return doubled()

    mock = AsyncMock(return_value=2)
    functions: list[Any] = [mock, functools.partial(mock)]
    if sys.version_info >= (3, 12):
        functions += [inspect.markcoroutinefunction(View()), inspect.markcoroutinefunction(lambda number: View()(number))]
    else:
        functions.append(View())
        functions[-1]._is_coroutine = asyncio.coroutines._is_coroutine  # as frameworks do there
    for function in functions:
        with capture() as measurements:
            decorated = measured("x", count=lambda result: result)(function)
            assert inspect.iscoroutinefunction(decorated)
            assert asyncio.run(decorated(1)) == 2
            assert measurements[0].units == 2
            assert isinstance(function, AsyncMock | functools.partial) or measurements[0].duration_s > 0.015


def test_a_builtin_and_a_lambda_are_measured() -> None:
    with capture() as measurements:
        assert measured(len)([1, 2]) == 2
        assert measured("l")(lambda: 3)() == 3
    assert [measurement.name for measurement in measurements] == ["builtins.len", "l"]


def test_a_class_or_a_value_cannot_be_decorated() -> None:
    for what in (Things, int, property(lambda self: 1)):
        with pytest.raises(ConfigurationError, match=r"cannot decorate|must be text"):
            measured(what)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="decorate a function"):
        measured("name")(3)  # type: ignore[arg-type]


def test_a_decorated_function_of_a_module_can_be_pickled() -> None:
    with capture() as measurements:
        assert pickle.loads(pickle.dumps(module_level))(2) == 3
    assert len(measurements) == 1


def test_the_function_of_another_meter_cannot_be_sent_away_and_says_so() -> None:
    with bench() as here, pytest.raises(TypeError, match="default meter"):
        pickle.dumps(here.meter)


def test_recursion_makes_a_region_of_each_call() -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:

        @here.measured("fibonacci")
        def fibonacci(number: int) -> int:
            clock.advance(0.01)
            return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

        assert fibonacci(6) == 8
        clock.advance(0.2)
        totals = here.totals()
        assert totals.operations["fibonacci"].count == 25
        assert totals.operations["fibonacci"].energy_j == pytest.approx(25 * 0.01 * 100)
        conserved(totals)


def test_measuring_twice_measures_twice() -> None:
    with capture() as measurements:
        assert measured("outer")(measured("inner")(lambda: 1))() == 1
    assert [measurement.name for measurement in measurements] == ["inner", "outer"]


# --- what it returns and raises ----------------------------------------------------------------------------------------------


class OwnError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even this fails")


ERRORS: list[BaseException] = [
    ValueError("x"),
    OwnError(),
    KeyboardInterrupt(),
    SystemExit(3),
    asyncio.CancelledError(),
    GeneratorExit(),
    StopIteration("value"),
    StopAsyncIteration(),
    MemoryError(),
    RecursionError(),
    BaseException("bare"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.filterwarnings("ignore::impactsdk.DegradedWarning")
def test_an_exception_leaves_as_it_came(error: BaseException) -> None:
    def raising() -> None:
        raise error

    with bench() as here:
        with pytest.raises(type(error)) as caught:
            here.measured("function")(raising)()
        assert caught.value is error
        with pytest.raises(type(error)) as caught, here.measured("block"):
            raise error
        assert caught.value is error
        spans = here.spans
        for name in ("function", "block"):
            assert attributes(spans[name])["error.type"] == type(error).__qualname__
        assert trace.get_current_span() is trace.INVALID_SPAN
        assert impactsdk.current() is None


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.filterwarnings("ignore::impactsdk.DegradedWarning")
def test_an_exception_leaves_a_coroutine_as_it_leaves_an_undecorated_one(error: BaseException) -> None:
    async def raising() -> None:
        raise error

    def outcome(coroutine: Any) -> tuple[type, object]:
        try:
            coroutine.send(None)
        except BaseException as caught:  # noqa: BLE001 - that is what is compared
            return type(caught), caught if caught is error else str(caught)
        return type(None), None

    with bench() as here:
        assert outcome(here.measured("it")(raising)()) == outcome(raising())
        assert here.totals().operations["it"].count == 1


def test_the_result_is_the_very_object() -> None:
    thing = object()
    with capture():
        assert measured("x")(lambda: thing)() is thing


def test_an_exception_is_recorded_with_its_status() -> None:
    with bench() as here:
        with pytest.raises(ValueError, match="bad"), here.measured("x"):
            raise ValueError("bad")
        span = here.spans["x"]
        assert span.status.status_code is trace.StatusCode.ERROR
        assert span.status.description == "ValueError: bad"
        assert [(event.name, event.timestamp) for event in span.events] == [("exception", span.end_time)]
        with here.measured("y"):
            pass
        assert here.spans["y"].status.status_code is trace.StatusCode.UNSET
        assert "error.type" not in attributes(here.spans["y"])


def test_an_exception_that_cannot_tell_its_text_is_an_error_on_the_span_nevertheless() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    error = MuteError()
    with bench() as here:
        with pytest.warns(UserWarning, match="could not be recorded"), pytest.raises(MuteError) as caught, here.measured("x"):
            raise error
        assert caught.value is error
        span = here.spans["x"]
        assert (span.status.status_code, span.status.description) == (trace.StatusCode.ERROR, "MuteError")


# --- blocks ------------------------------------------------------------------------------------------------------------------


def test_a_block_gives_the_region_with_its_result() -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:
        with here.measured("epoch", unit="sentence") as region:
            clock.advance(1.0)
            region.add_units(30)
            region.add_units(2)
        clock.advance(0.2)
        result = region.result()
        assert (result.name, result.unit, result.units) == ("epoch", "sentence", 32)
        assert result.energy_j == pytest.approx(100.0)
        assert result.self_energy_j == pytest.approx(100.0)
        assert result.duration_s == pytest.approx(1.0)
        assert result.power_w == pytest.approx(100.0)
        assert result.energy_by_type == {"gpu": pytest.approx(100.0)}
        assert region.result() is result


def test_an_async_block_is_a_block() -> None:
    async def main() -> impactsdk.Region:
        async with measured("block") as region:
            await asyncio.sleep(0)
            assert impactsdk.current() is region
        return region

    with capture() as measurements:
        region = asyncio.run(main())
        assert region.result() == measurements[0]


def test_a_region_that_was_never_entered_or_is_open_has_no_result() -> None:
    with capture():
        region = measured("x")
        with pytest.raises(RegionError, match="never entered"):
            region.result()
        with pytest.raises(RegionError, match="never entered"):
            region.__exit__(None, None, None)
        with pytest.raises(RegionError, match="not open"):
            region.add_units(1)
        with region, pytest.raises(RegionError, match="still open"):
            region.result()
        with pytest.raises(RegionError, match="not open"):
            region.add_units(1)


def test_a_block_needs_a_name() -> None:
    with capture() as measurements:
        with pytest.raises(ConfigurationError, match="a block needs a name"), measured():
            pass
        assert measured()(lambda: 1)() == 1
    assert len(measurements) == 1


def test_current_is_the_innermost_open_region() -> None:
    with capture():
        assert impactsdk.current() is None
        with measured("outer") as outer:
            assert impactsdk.current() is outer
            with measured("inner", span=False) as inner:
                assert impactsdk.current() is inner
            assert impactsdk.current() is outer

            @measured
            def work() -> None:
                region = impactsdk.current()
                assert region is not None
                assert region.name.endswith("work")
                region.add_units(2)

            work()
        assert impactsdk.current() is None


def test_a_block_can_be_used_again_and_nested_in_itself() -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:
        block = here.measured("x")
        for _ in range(3):
            with block:
                clock.advance(0.1)
        with block as outer, block as middle, block as inner:
            assert len({id(outer), id(middle), id(inner)}) == 3
            assert impactsdk.current() is inner
            clock.advance(0.1)
        assert impactsdk.current() is None
        clock.advance(0.2)
        totals = here.totals()
        assert totals.operations["x"].count == 6
        assert inner.result().self_energy_j == pytest.approx(10.0)
        assert outer.result().self_energy_j == pytest.approx(0.0)
        assert outer.result().energy_j == pytest.approx(10.0)
        conserved(totals)


def test_a_block_that_is_nested_in_itself_is_left_in_the_right_order_by_an_exception() -> None:
    with bench() as here:
        block = here.measured("x")
        with block:
            with pytest.raises(ValueError, match="inside"), block:
                raise ValueError("inside")
            assert impactsdk.current() is not None
        assert [span.status.status_code.name for span in here.all_spans] == ["ERROR", "UNSET"]
        assert here.all_spans[0].parent.span_id == here.all_spans[1].context.span_id  # type: ignore[union-attr]
        assert trace.get_current_span() is trace.INVALID_SPAN


def test_reentered_blocks_do_not_pile_up() -> None:
    with capture():
        block = measured("x", span=False)
        for _ in range(100):
            with block, block:
                pass
        assert not block.clones


def test_one_block_object_serves_several_threads_at_once() -> None:
    rounds = 50
    with bench() as here:
        block = here.measured("x")
        barrier = threading.Barrier(4)

        def work() -> None:
            barrier.wait()
            for _ in range(rounds):
                with block as region:
                    assert impactsdk.current() is region

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        totals = here.totals()
        assert totals.operations["x"].count == 4 * rounds
        assert len({span.context.span_id for span in here.all_spans}) == 4 * rounds
        conserved(totals)


def test_threads_that_meet_at_a_block_while_measuring_begins_are_told_apart() -> None:
    class SlowToOpen(SimulatedSource):
        def open(self, clock: Any) -> Any:
            threading.Event().wait(0.3)
            return super().open(clock)

    with bench(sources=[SlowToOpen(100.0)]) as here:
        block = here.measured("x")
        regions = []

        def work() -> None:
            with block as region:
                regions.append(region)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(map(id, regions))) == 3
        assert here.totals().operations["x"].count == 3


@pytest.mark.parametrize("span", [True, False])
def test_blocks_left_out_of_order_leave_nothing_behind(span: bool) -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:
        first, second = here.measured("first", span=span), here.measured("second", span=span)
        first.__enter__()
        clock.advance(0.1)
        second.__enter__()
        clock.advance(0.1)
        first.__exit__(None, None, None)
        clock.advance(0.1)
        with here.measured("meanwhile", span=span):
            clock.advance(0.1)
        second.__exit__(None, None, None)
        assert impactsdk.current() is None
        assert trace.get_current_span() is trace.INVALID_SPAN
        with here.measured("after", span=span):
            clock.advance(0.1)
        clock.advance(0.2)
        totals = here.totals()
        assert totals.attributed_j == pytest.approx(50.0)
        conserved(totals)
        if span:
            assert here.parent_of("second") == "first"
            assert here.parent_of("after") is None
        assert first.result().duration_s == pytest.approx(0.2)
        assert second.result().duration_s == pytest.approx(0.3)


def test_leaving_twice_changes_nothing() -> None:
    with bench() as here:
        with here.measured("x") as region:
            pass
        region.__exit__(None, None, None)
        assert here.totals().operations["x"].count == 1
        with here.measured("outer") as outer:
            region.__exit__(None, None, None)
            assert impactsdk.current() is outer


def test_a_block_may_be_left_in_another_thread() -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:
        region = here.measured("x")
        thread = threading.Thread(target=region.__enter__)
        thread.start()
        thread.join()
        clock.advance(0.5)
        region.__exit__(None, None, None)
        clock.advance(0.2)
        assert region.result().energy_j == pytest.approx(50.0)
        assert trace.get_current_span() is trace.INVALID_SPAN
        conserved(here.totals())


def test_a_region_that_is_never_left_does_not_stay_current_after_the_one_around_it() -> None:
    with bench() as here:
        with here.measured("outer"):
            leaked = here.measured("leaked").__enter__()
        assert trace.get_current_span() is trace.INVALID_SPAN
        assert impactsdk.current() is None
        leaked.__exit__(None, None, None)
        assert trace.get_current_span() is trace.INVALID_SPAN
        assert here.totals().operations["leaked"].count == 1


def test_span_false_is_in_the_totals_and_makes_no_span() -> None:
    with bench() as here:
        with here.measured("outer"), here.measured("step", span=False), here.measured("inner"):
            pass
        assert set(here.spans) == {"outer", "inner"}
        assert here.parent_of("inner") == "outer"
        assert here.totals().operations["step"].count == 1


def test_two_meters_do_not_mix() -> None:
    with bench() as one, bench() as other:
        with one.measured("a"), other.measured("b"), one.measured("c"):
            pass
        assert set(one.totals().operations) == {"a", "c"}
        assert set(other.totals().operations) == {"b"}
        assert other.meter.totals().operations["b"].count == 1


# --- functional units --------------------------------------------------------------------------------------------------------


def test_count_takes_the_units_from_the_result() -> None:
    with capture() as measurements:
        counted()
        counted()
        assert [measurement.units for measurement in measurements] == [3, 3]
        totals = measurements.meter.totals()
    assert totals.operations["named"].units == 6


@pytest.mark.parametrize("count", [lambda _: 1 / 0, lambda _: "many", lambda _: float("nan"), lambda _: -1, len])
def test_a_count_that_fails_is_told_once_and_the_result_gets_out(count: Callable[[Any], float]) -> None:
    with capture() as measurements:
        function = measured("x", unit="item", count=count)(lambda: 17)
        with pytest.warns(impactsdk.DegradedWarning, match="count= of 'x' failed") as caught:
            assert function() == 17
            assert function() == 17
        assert len(caught) == 1
    assert [measurement.units for measurement in measurements] == [None, None]


@pytest.mark.parametrize("units", [float("nan"), float("inf"), -1, "3", b"3", None, True, 10**400, 1.7e308, [1], 1j])
def test_units_that_are_no_number_are_refused(units: Any) -> None:
    refused = pytest.raises(ConfigurationError, match="expected a finite number")
    with capture() as measurements, measured("x", unit="item") as region, refused:
        region.add_units(units)
    assert measurements[0].units is None


def test_a_truth_value_of_numpy_is_no_number_of_units_and_its_numbers_are() -> None:
    numpy = pytest.importorskip("numpy")
    with capture() as measurements:
        with measured("x", unit="item") as region:
            region.add_units(numpy.int64(3))
            region.add_units(numpy.float32(0.5))
            with pytest.raises(ConfigurationError, match="expected a finite number"):
                region.add_units(numpy.True_)
        assert measurements[0].units == 3.5


def test_the_units_of_a_block_are_unknown_unless_told() -> None:
    with capture() as measurements:
        with measured("x", unit="item"):
            pass
        with measured("y", unit="item") as region:
            region.add_units(0)
    assert [measurement.units for measurement in measurements] == [None, 0.0]


def test_one_name_with_two_units_keeps_the_first_and_says_so() -> None:
    with capture() as measurements, pytest.warns(impactsdk.DegradedWarning, match="counted in 'token' and in 'sentence'"):
        for unit, units in (("token", 3), ("sentence", 5), ("token", 4)):
            with measured("x", unit=unit) as region:
                region.add_units(units)
        assert len(measurements) == 3
        operation = measurements.meter.totals().operations["x"]
    assert (operation.unit, operation.units, operation.count) == ("token", 7, 3)
