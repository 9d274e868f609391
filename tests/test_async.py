"""asyncio: a task's regions are children of what began it, a suspended coroutine stays open, and every joule is there once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace

import impactsdk
from impactsdk import measured
from impactsdk.testing import FakeClock, SimulatedSource, capture
from tests.kit import Bench, bench, conserved


def test_gathered_children_share_the_time_and_are_children() -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:
        release = []

        @here.measured("child")
        async def child(event: asyncio.Event) -> None:
            release.append(event)
            await event.wait()

        async def main() -> None:
            with here.measured("parent"):
                events = [asyncio.Event() for _ in range(4)]
                tasks = [asyncio.create_task(child(event)) for event in events]
                while len(release) < 4:
                    await asyncio.sleep(0)
                clock.advance(1.0)
                for event in events:
                    event.set()
                await asyncio.gather(*tasks)

        asyncio.run(main())
        clock.advance(0.2)
        totals = here.totals()
        assert totals.operations["child"].count == 4
        assert totals.operations["child"].energy_j == pytest.approx(100.0)
        assert totals.operations["parent"].energy_j == pytest.approx(0.0, abs=1e-6)
        assert here.parent_of("child") == "parent"
        conserved(totals)


def test_a_suspended_coroutine_stays_open() -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:

        @here.measured("request")
        async def request() -> None:
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(lambda: (clock.advance(0.5), future.set_result(None)))
            await future

        asyncio.run(request())
        clock.advance(0.2)
        assert here.totals().operations["request"].energy_j == pytest.approx(50.0)


def test_a_task_that_outlives_its_parent_pays_for_itself() -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:

        async def late(event: asyncio.Event) -> None:
            with here.measured("child"):
                await event.wait()
            with here.measured("after the parent"):
                clock.advance(0.1)

        async def main() -> None:
            event = asyncio.Event()
            with here.measured("parent"):
                task = asyncio.create_task(late(event))
                await asyncio.sleep(0)
                clock.advance(0.2)
            clock.advance(0.3)
            with here.measured("of the main task"):
                clock.advance(0.4)
            event.set()
            await task

        asyncio.run(main())
        clock.advance(0.2)
        totals = here.totals()
        operations = totals.operations
        assert operations["child"].energy_j == pytest.approx(20.0 + 30.0 + 20.0)
        assert operations["of the main task"].energy_j == pytest.approx(20.0)
        assert operations["after the parent"].energy_j == pytest.approx(10.0)
        assert here.parent_of("child") == "parent"
        assert here.parent_of("of the main task") is None
        conserved(totals)


def test_to_thread_carries_the_parent_along_and_an_executor_does_not() -> None:
    with bench() as here:

        @here.measured("inside")
        def inside() -> None: ...

        @here.measured("root")
        def root() -> None: ...

        async def main() -> None:
            with here.measured("parent"):
                await asyncio.to_thread(inside)
                with concurrent.futures.ThreadPoolExecutor() as pool:
                    await asyncio.get_running_loop().run_in_executor(pool, root)

        asyncio.run(main())
        assert here.parent_of("inside") == "parent"
        assert here.parent_of("root") is None
        conserved(here.totals())


def test_a_cancelled_coroutine_is_measured_to_its_end() -> None:
    with bench() as here:

        @here.measured("x")
        async def forever() -> None:
            await asyncio.Event().wait()

        async def main() -> None:
            task = asyncio.create_task(forever())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(forever(), 0.01)

        asyncio.run(main())
        assert here.totals().operations["x"].count == 2
        span = here.spans["x"]
        assert (span.attributes or {})["error.type"] == "CancelledError"
        assert span.status.status_code is trace.StatusCode.UNSET


def test_a_coroutine_that_is_closed_or_dropped_is_closed() -> None:
    class Suspend:
        def __await__(self) -> Any:
            yield "suspended"

    with bench() as here:

        @here.measured("x")
        async def coroutine() -> None:
            await Suspend()

        for _ in range(2):
            running = coroutine()
            assert contextvars.copy_context().run(running.send, None) == "suspended"
            running.close()
        del running
        assert impactsdk.current() is None
        assert trace.get_current_span() is trace.INVALID_SPAN
        assert here.totals().operations["x"].count == 2


def test_blocks_of_interleaved_tasks_do_not_mix() -> None:
    with bench() as here:

        async def task(number: int) -> None:
            async with here.measured(f"outer {number}"):
                for _ in range(3):
                    await asyncio.sleep(0)
                    async with here.measured(f"inner {number}"):
                        await asyncio.sleep(0)

        async def main() -> None:
            await asyncio.gather(*(task(number) for number in range(5)))

        asyncio.run(main())
        for number in range(5):
            assert here.parent_of(f"inner {number}") == f"outer {number}"
            assert here.parent_of(f"outer {number}") is None
        conserved(here.totals())


def test_tasks_that_each_begin_the_next_inside_a_region_keep_no_chain() -> None:
    references: list[weakref.ref[Any]] = []

    class Marker:
        pass

    async def step(left: int) -> None:
        with measured("step", attributes={"left": left}):
            region: Any = impactsdk.current()
            marker = Marker()
            references.append(weakref.ref(marker))
            region.spec.count = marker  # something that lives as long as the region
            del marker, region
            if left:
                tasks.append(asyncio.create_task(step(left - 1)))
                await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        tasks.append(asyncio.create_task(step(50)))
        while tasks:
            await tasks.pop()

    with capture() as measurements:
        asyncio.run(main())
        assert len(measurements) == 51
        gc.collect()
        assert sum(reference() is not None for reference in references) <= 2


@given(st.lists(st.lists(st.sampled_from(["sleep", "work", "nest", "spawn"]), max_size=4), min_size=1, max_size=5))
def test_any_mix_of_tasks_conserves_energy(plans: list[list[str]]) -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:
        asyncio.run(_run(here, clock, plans))
        clock.advance(0.2)
        conserved(here.totals())


async def _run(here: Bench, clock: FakeClock, plans: list[list[str]]) -> None:
    spawned: list[asyncio.Task[None]] = []

    async def follow(plan: list[str], depth: int) -> None:
        async with here.measured(f"depth {depth}", span=depth % 2 == 0):
            for action in plan:
                if action == "sleep":
                    await asyncio.sleep(0)
                elif action == "work":
                    clock.advance(0.05)
                elif action == "nest" and depth < 3:
                    await follow(plan[1:], depth + 1)
                elif action == "spawn" and depth < 3:
                    spawned.append(asyncio.create_task(follow(plan[2:], depth + 1)))

    await asyncio.gather(*(follow(plan, 0) for plan in plans))
    while spawned:
        await spawned.pop()


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("tick_s", [0.0, 0.1])
def test_a_region_around_tasks_that_overlap_has_the_interval_of_its_two_ends_if_nothing_else_is_measured(
    beside: bool, tick_s: float
) -> None:
    clock = FakeClock()
    source = SimulatedSource(lambda second: 300.0 if second % 0.3 < 0.1 else 60.0, tick_s=tick_s, max_power_w=300.0)
    with bench(sources=[source], clock=clock) as here:
        clock.advance(1.0)

        async def request(number: int) -> None:
            with here.measured("request", span=False):
                for _ in range(1 + number % 3):
                    clock.advance(0.05)
                    await asyncio.sleep(0)

        async def serve() -> Any:
            with here.measured("serve") as region:
                await asyncio.gather(*(request(number) for number in range(20)))
            return region

        with here.measured("before"):
            clock.advance(1.0)
        other = contextvars.Context().run(lambda: here.measured("other").__enter__()) if beside else None
        begun_ns = clock.now_ns()
        region = asyncio.run(serve())
        used_j = source.true_energy_j(begun_ns, clock.now_ns())
        if other is not None:
            other.__exit__(None, None, None)
        clock.advance(1.0)
        found = region.result()
        conserved(here.totals())
    assert found.energy_low_j is not None
    assert found.energy_high_j is not None
    if beside:
        assert found.energy_j < 0.96 * used_j, "the other one has its part"
    else:
        assert found.energy_low_j <= used_j <= found.energy_high_j
        assert found.energy_high_j - found.energy_low_j <= 1e-6 + 5 * 300.0 * tick_s + 0.15 * 300.0
