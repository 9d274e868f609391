"""Generators: the protocol is complete, the consumer is charged to the consumer, and nothing leaks when one is given up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context

import impactsdk
from impactsdk import measured
from impactsdk.testing import FakeClock, capture
from tests.kit import bench, conserved


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """OpenTelemetry logs "Failed to detach context" where a context is left in another one than it was entered in."""
    with caplog.at_level(logging.WARNING):
        yield
    assert [record.getMessage() for record in caplog.records] == []
    assert trace.get_current_span() is trace.INVALID_SPAN


# --- the protocol, compared with the undecorated generator -------------------------------------------------------------------


class _OddError(Exception):
    pass


def _body(plan: list[str], seen: list[Any]) -> Generator[Any, Any, Any]:
    """What it does at each step is planned; what reaches it is noted."""
    sent: Any = None
    for number, action in enumerate(plan):
        try:
            if action == "yield":
                sent = yield number
            elif action == "echo":
                sent = yield sent
            elif action == "raise":
                raise _OddError(number)
            elif action == "stop":
                return "stopped"
            elif action == "delegate":
                sent = yield from _inner(number, seen)
            elif action == "swallow":
                try:
                    sent = yield number
                except BaseException as error:  # noqa: BLE001
                    seen.append(("swallowed", type(error).__name__))
                    sent = yield "swallowed"
            seen.append((number, sent if not isinstance(sent, BaseException) else type(sent).__name__))
        except ValueError as error:  # noqa: PERF203
            seen.append(("caught", str(error)))
            sent = yield "caught"
        finally:
            seen.append(("finally", number))
    return ("end", sent)


def _inner(number: int, seen: list[Any]) -> Generator[Any, Any, Any]:
    try:
        got = yield ("inner", number)
        return got
    finally:
        seen.append("inner closed")


def _drive(make: Callable[..., Generator[Any, Any, Any]], plan: list[str], script: list[tuple[str, Any]]) -> list[Any]:
    seen: list[Any] = []
    generator = make(plan, seen)
    for operation, value in script:
        try:
            if operation == "next":
                seen.append(("gave", next(generator)))
            elif operation == "send":
                seen.append(("gave", generator.send(value)))
            elif operation == "throw":
                seen.append(("gave", generator.throw(value)))
            elif operation == "close":
                seen.append(("closed", generator.close()))
        except BaseException as error:  # noqa: BLE001, PERF203
            cause = error.__cause__
            seen.append(("raised", type(error).__name__, str(error), type(cause).__name__, getattr(error, "value", None)))
    for _ in range(3 * len(plan) + 3):  # to its end: a plan may ignore that it is given up, of which Python then complains
        with contextlib.suppress(BaseException):
            next(generator)
    return seen


PLANS = st.lists(st.sampled_from(["yield", "echo", "raise", "stop", "delegate", "swallow"]), max_size=6)
OPERATIONS = st.one_of(
    st.just(("next", None)),
    st.tuples(st.just("send"), st.integers(0, 9)),
    st.builds(
        lambda kind: ("throw", kind),
        st.sampled_from(
            [ValueError("v"), _OddError("odd"), GeneratorExit(), KeyboardInterrupt(), StopIteration("s"), ValueError]
        ),
    ),
    st.just(("close", None)),
)


@given(plan=PLANS, script=st.lists(OPERATIONS, max_size=8))
def test_a_measured_generator_behaves_as_the_undecorated_one(plan: list[str], script: list[tuple[str, Any]]) -> None:
    with capture():
        decorated = _drive(measured("g")(_body), plan, script)
    assert decorated == _drive(_body, plan, script)


async def _async_body(plan: list[str], seen: list[Any]) -> AsyncGenerator[Any, Any]:
    sent: Any = None
    for number, action in enumerate(plan):
        try:
            await asyncio.sleep(0)
            if action == "yield":
                sent = yield number
            elif action == "echo":
                sent = yield sent
            elif action == "raise":
                raise _OddError(number)
            elif action == "stop":
                return
            elif action == "swallow":
                try:
                    sent = yield number
                except BaseException as error:  # noqa: BLE001
                    seen.append(("swallowed", type(error).__name__))
                    sent = yield "swallowed"
            seen.append((number, sent))
        except ValueError as error:  # noqa: PERF203
            seen.append(("caught", str(error)))
            sent = yield "caught"
        finally:
            seen.append(("finally", number))


async def _async_drive(
    make: Callable[..., AsyncGenerator[Any, Any]], plan: list[str], script: list[tuple[str, Any]]
) -> list[Any]:
    seen: list[Any] = []
    generator = make(plan, seen)
    for operation, value in script:
        try:
            if operation == "next":
                seen.append(("gave", await generator.__anext__()))
            elif operation == "send":
                seen.append(("gave", await generator.asend(value)))
            elif operation == "throw":
                seen.append(("gave", await generator.athrow(value)))
            elif operation == "close":
                seen.append(("closed", await generator.aclose()))  # type: ignore[func-returns-value]
        except BaseException as error:  # noqa: BLE001, PERF203
            seen.append(("raised", type(error).__name__, str(error).replace("asend():", "").replace("anext():", "")))
    for _ in range(3 * len(plan) + 3):
        with contextlib.suppress(BaseException):
            await generator.__anext__()
    return seen


@given(
    plan=st.lists(st.sampled_from(["yield", "echo", "raise", "stop", "swallow"]), max_size=5),
    script=st.lists(
        st.one_of(
            st.just(("next", None)),
            st.tuples(st.just("send"), st.integers(0, 9)),
            st.builds(
                lambda kind: ("throw", kind),
                st.sampled_from([ValueError("v"), _OddError("odd"), GeneratorExit(), StopAsyncIteration()]),
            ),
            st.just(("close", None)),
        ),
        max_size=6,
    ),
)
def test_a_measured_async_generator_behaves_as_the_undecorated_one(plan: list[str], script: list[tuple[str, Any]]) -> None:
    with capture():
        decorated = asyncio.run(_async_drive(measured("g")(_async_body), plan, script))
    assert decorated == asyncio.run(_async_drive(_async_body, plan, script))


def test_it_returns_its_value_to_yield_from() -> None:
    @measured
    def part() -> Generator[int, int, str]:
        got = yield 1
        return f"got {got}"

    def whole() -> Generator[int, int, str]:
        return (yield from part())

    with capture():
        generator = whole()
        assert next(generator) == 1
        with pytest.raises(StopIteration) as stop:
            generator.send(7)
        assert stop.value.value == "got 7"


def test_it_does_not_hold_on_to_what_it_has_yielded() -> None:
    class Batch:
        pass

    @measured
    def batches(taken: list[Any]) -> Iterator[Batch]:
        for _ in range(2):
            batch = Batch()
            taken.append(weakref.ref(batch))
            holder = [batch]
            del batch
            yield holder.pop()

    with capture():
        references: list[Any] = []
        for batch in batches(references):
            del batch
            assert references[-1]() is None


def test_an_exception_that_was_thrown_in_is_let_go_at_once() -> None:
    @measured
    def generator() -> Iterator[int]:
        yield 1

    def throw() -> weakref.ref[BaseException]:
        given = generator()
        next(given)
        error = _OddError("odd")
        with contextlib.suppress(_OddError):
            given.throw(error)  # type: ignore[attr-defined]
        reference = weakref.ref(error)
        del error  # else this frame, which the traceback refers to, would refer back
        return reference

    gc.collect()
    gc.disable()
    try:
        with capture():
            assert throw()() is None, "it is part of a cycle"
    finally:
        gc.enable()


# --- who pays, and whose child a span is -------------------------------------------------------------------------------------


def test_the_consumer_is_not_charged_to_the_generator_and_is_no_child_of_it() -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:

        @here.measured("loader")
        def loader() -> Iterator[int]:
            for number in range(3):
                clock.advance(0.1)
                yield number

        with here.measured("train"):
            for _ in loader():
                with here.measured("step"):
                    clock.advance(0.3)
        clock.advance(0.2)
        totals = here.totals()
        assert totals.operations["loader"].energy_j == pytest.approx(30.0)
        assert totals.operations["step"].energy_j == pytest.approx(90.0)
        assert totals.operations["train"].energy_j == pytest.approx(0.0, abs=1e-9)
        assert here.parent_of("step") == "train"
        assert here.parent_of("loader") == "train"
        conserved(totals)


def test_an_async_generators_consumer_is_not_charged_either() -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:

        @here.measured("stream")
        async def stream() -> AsyncIterator[int]:
            for number in range(3):
                await asyncio.sleep(0)
                clock.advance(0.1)
                yield number

        async def main() -> None:
            with here.measured("serve"):
                async for _ in stream():
                    with here.measured("handle"):
                        clock.advance(0.3)

        asyncio.run(main())
        clock.advance(0.2)
        totals = here.totals()
        assert totals.operations["stream"].energy_j == pytest.approx(30.0)
        assert totals.operations["handle"].energy_j == pytest.approx(90.0)
        assert here.parent_of("handle") == "serve"
        conserved(totals)


def test_what_runs_inside_a_generator_is_its_child() -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:

        @here.measured("outer")
        def outer() -> Iterator[int]:
            with here.measured("open over the yields"):
                for number in range(2):
                    with here.measured("inside"):
                        clock.advance(0.1)
                    yield number
            with here.measured("later"):
                clock.advance(0.1)

        for _ in outer():
            assert impactsdk.current() is None
            assert trace.get_current_span() is trace.INVALID_SPAN
            clock.advance(1.0)
        clock.advance(0.2)
        assert here.parent_of("inside") == "open over the yields"
        assert here.parent_of("open over the yields") == "outer"
        assert here.parent_of("later") == "outer"
        totals = here.totals()
        assert totals.attributed_j == pytest.approx(30.0)
        conserved(totals)


def test_generators_can_be_chained_and_zipped() -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:

        @here.measured("numbers")
        def numbers() -> Iterator[int]:
            for number in range(3):
                clock.advance(0.1)
                yield number

        @here.measured("doubled")
        def doubled(source: Iterator[int]) -> Iterator[int]:
            for number in source:
                clock.advance(0.01)
                yield number * 2

        assert list(zip(doubled(numbers()), numbers(), strict=True)) == [(0, 0), (2, 1), (4, 2)]
        clock.advance(0.2)
        totals = here.totals()
        assert totals.operations["numbers"].count == 2
        assert totals.operations["numbers"].energy_j == pytest.approx(60.0)
        assert totals.operations["doubled"].energy_j == pytest.approx(3.0)
        conserved(totals)


def test_count_is_asked_for_each_item() -> None:
    @measured("g", unit="character", count=len)
    def words() -> Iterator[str]:
        yield from ("one", "three", "")

    with capture() as measurements:
        assert list(words()) == ["one", "three", ""]
    assert measurements[0].units == 8


# --- given up, and passed around ---------------------------------------------------------------------------------------------


def test_a_generator_that_was_never_started_is_nothing() -> None:
    with bench() as here:
        generator = here.measured("g")(_body)(["yield"], [])
        del generator
        with here.measured("other"):
            pass
        assert set(here.totals().operations) == {"other"}


@pytest.mark.parametrize("way", ["del", "close", "cycle", "break"])
def test_an_abandoned_generator_ends_when_it_is_given_up(way: str) -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:

        @here.measured("g")
        def generator(kept: list[Any]) -> Iterator[int]:
            try:
                for number in range(9):
                    clock.advance(0.1)
                    yield number
            finally:
                kept.append(impactsdk.current())

        kept: list[Any] = []
        given = generator(kept)
        next(given)
        clock.advance(1.0)
        if way == "del":
            del given
        elif way == "close":
            given.close()  # type: ignore[attr-defined]
        elif way == "cycle":
            cycle: list[Any] = [given]
            cycle.append(cycle)
            del given, cycle
            gc.collect()
        else:
            for _ in given:
                break
            del given
        # Of a cycle the collector may take the function's own generator first, in any thread, where it is in no region.
        assert (kept[0] is None and way == "cycle") or kept[0].name == "g"
        assert impactsdk.current() is None
        clock.advance(0.2)
        totals = here.totals()
        assert totals.operations["g"].count == 1
        assert totals.operations["g"].energy_j == pytest.approx(20.0 if way == "break" else 10.0)
        assert here.spans["g"].status.status_code is trace.StatusCode.UNSET
        conserved(totals)


def test_a_generator_may_be_stepped_by_one_thread_after_another() -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:

        @here.measured("g")
        def generator() -> Iterator[int]:
            with here.measured("block"):
                for number in range(3):
                    clock.advance(0.1)
                    yield number

        given = generator()
        next(given)
        results: list[Any] = []

        def step() -> None:
            results.append(next(given, None))
            results.append(impactsdk.current())
            results.append(trace.get_current_span() is trace.INVALID_SPAN)

        for _ in range(3):
            thread = threading.Thread(target=step)
            thread.start()
            thread.join()
        assert results == [1, None, True, 2, None, True, None, None, True]
        clock.advance(0.2)
        totals = here.totals()
        assert totals.operations["block"].energy_j == pytest.approx(30.0)
        assert totals.operations["g"].count == 1
        conserved(totals)


def test_an_async_generator_may_be_stepped_by_one_task_after_another() -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:

        @here.measured("g")
        async def generator() -> AsyncIterator[int]:
            with here.measured("block"):
                for number in range(3):
                    await asyncio.sleep(0)
                    clock.advance(0.1)
                    yield number

        async def main() -> list[int]:
            given = generator()
            items = [await asyncio.create_task(given.__anext__()) for _ in range(3)]  # type: ignore[arg-type]
            with here.measured("other task"), pytest.raises(StopAsyncIteration):
                await given.__anext__()
            return items

        assert asyncio.run(main()) == [0, 1, 2]
        clock.advance(0.2)
        totals = here.totals()
        assert totals.operations["block"].energy_j == pytest.approx(30.0)
        assert totals.operations["g"].count == 1
        conserved(totals)


def test_an_async_generator_left_to_the_event_loop_is_closed_by_it(caplog: pytest.LogCaptureFixture) -> None:
    closed = []

    async def slow_to_close() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0.01)
            closed.append(impactsdk.current())

    with bench() as here:
        generator = here.measured("g")(slow_to_close)
        kept = []

        async def main() -> None:
            given = generator()
            kept.append(given)
            async for _ in given:
                break

        asyncio.run(main())
        assert [region.name for region in closed] == ["g"]  # type: ignore[union-attr]
        assert here.totals().operations["g"].count == 1
        kept.clear()


def test_an_async_generator_that_is_dropped_while_the_loop_runs_is_closed_by_it() -> None:
    closed = []

    @measured("g")
    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main() -> None:
        given = generator()
        await given.__anext__()
        del given
        for _ in range(20):
            await asyncio.sleep(0)

    with capture() as measurements:
        asyncio.run(main())
        assert closed == [True]
        assert len(measurements) == 1


def test_nothing_of_a_generator_is_measured_where_nothing_is_measured() -> None:
    meter = impactsdk.Meter(impactsdk.Settings.load({}, disabled=True))

    @meter.measured("g")
    def generator() -> Generator[int, int, str]:
        return f"got {(yield 1)}"

    given = generator()
    assert next(given) == 1
    with pytest.raises(StopIteration, match="got 5"):
        given.send(5)
    meter.close()


@pytest.mark.parametrize("kind", ["generator", "async generator"])
def test_what_a_generator_has_made_current_is_current_again_when_it_goes_on(kind: str) -> None:
    """Its own span of another library, and baggage: as without us, and out of the consumer's way."""
    with bench() as here:
        seen: list[Any] = []

        def steps() -> Iterator[int]:
            attached = otel_context.attach(baggage.set_baggage("user", "somebody"))
            with here.tracer.start_as_current_span("llm") as span:
                for number in range(2):
                    yield number
                    seen.append((trace.get_current_span() is span, baggage.get_baggage("user")))
                    with here.tracer.start_as_current_span("db"), here.measured("inside"):
                        pass
            otel_context.detach(attached)

        if kind == "generator":
            for _ in here.measured("stream")(steps)():
                assert trace.get_current_span() is trace.INVALID_SPAN
                assert baggage.get_baggage("user") is None
        else:

            @here.measured("stream")
            async def stream() -> AsyncIterator[int]:
                for number in steps():
                    yield number

            async def consume() -> None:
                async for _ in stream():
                    assert trace.get_current_span() is trace.INVALID_SPAN
                    assert baggage.get_baggage("user") is None

            asyncio.run(consume())
        assert seen == [(True, "somebody")] * 2
        assert here.parent_of("db") == "llm"
        assert here.parent_of("inside") == "db"
        assert here.parent_of("llm") == "stream"
        assert impactsdk.current() is None
        conserved(here.totals())
