"""Threads: each is a root of its own unless the context is carried along, and the joules are shared without loss."""

from __future__ import annotations

import concurrent.futures
import contextvars
import signal
import threading
import time
from typing import Any

import pytest

import impactsdk
from impactsdk.meter import default_meter
from impactsdk.testing import FakeClock, SimulatedSource
from tests.kit import bench, conserved


def _run(*targets: object) -> None:
    threads = [threading.Thread(target=target) for target in targets]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_the_regions_of_a_thread_are_roots() -> None:
    with bench() as here, here.measured("main"):
        _run(here.measured("thread")(lambda: None))
        context = contextvars.copy_context()
        _run(lambda: context.run(here.measured("carried")(lambda: None)))
        assert here.parent_of("thread") is None
        parent = here.spans["carried"].parent
        assert parent is not None


def test_threads_that_run_at_once_share_the_energy() -> None:
    clock = FakeClock()
    with bench(clock=clock) as here:
        inside, leave = threading.Barrier(4), threading.Event()

        def work() -> None:
            with here.measured("work"):
                inside.wait()
                leave.wait()

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        inside.wait()
        clock.advance(3.0)
        leave.set()
        for thread in threads:
            thread.join()
        clock.advance(1.0)
        totals = here.totals()
        assert totals.operations["work"].energy_j == pytest.approx(300.0)
        assert totals.operations["work"].duration_s == pytest.approx(9.0)
        energies = [(span.attributes or {})["impact.energy.self"] for span in here.all_spans]
        assert energies == pytest.approx([100.0] * 3)
        conserved(totals)


def test_many_threads_of_many_regions_lose_nothing() -> None:
    with bench(sources=[SimulatedSource(100.0), SimulatedSource(30.0, type="cpu", id="sim:1", tick_s=0.003)]) as here:

        @here.measured("leaf", span=False, unit="item", count=lambda _: 1)
        def leaf() -> None: ...

        @here.measured("branch")
        def branch() -> None:
            for _ in range(20):
                leaf()

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for future in [pool.submit(branch) for _ in range(100)]:
                future.result()
        totals = here.totals()
        assert totals.operations["branch"].count == 100
        assert totals.operations["leaf"].count == 2000
        assert totals.operations["leaf"].units == 2000
        assert len(here.all_spans) == 100
        conserved(totals)


def test_a_signal_handler_may_measure() -> None:
    with bench() as here:
        before = signal.signal(signal.SIGALRM, lambda *_: here.measured("handler", span=False)(lambda: None)())
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            for _ in range(3000):
                with here.measured("work", span=False):
                    pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        totals = here.totals()
        assert totals.operations["work"].count == 3000
        assert totals.operations["handler"].count >= 1
        conserved(totals)


def test_a_source_that_measures_itself_does_not_stop_the_measuring() -> None:
    class Curious(SimulatedSource):
        def open(self, clock: object) -> object:  # type: ignore[override]
            with here.measured("opening", span=False):
                return super().open(clock)  # type: ignore[arg-type]

    with bench(sources=[Curious(100.0)]) as here:
        with here.measured("x"):
            pass
        assert here.totals().operations["x"].count == 1


def test_a_region_is_current_in_its_own_thread_only() -> None:
    with bench() as here, here.measured("x"):
        seen: list[object] = ["unset"]
        _run(lambda: seen.append(impactsdk.current()))
        assert seen == ["unset", None]


@pytest.mark.parametrize("same", [True, False])
def test_configure_from_several_threads_leaves_one_session_and_loses_no_region_that_comes_after(same: bool) -> None:
    """As in workers that each begin with the same call, or a library and its user that do not agree."""
    source = SimulatedSource(100.0)
    before = threading.active_count()
    begun = time.perf_counter()
    impactsdk.configure(export="none", sources=[source])
    meter = default_meter()

    def work(number: int) -> None:
        for turn in range(3):
            impactsdk.configure(export="none", sources=[source], pue=1.0 if same else 1.0 + number + 0.1 * turn)
            for _ in range(5):
                with impactsdk.measured("job", span=False):
                    time.sleep(0.002)

    with impactsdk.measured("early"):
        time.sleep(0.01)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    impactsdk.configure(export="none", sources=[source], pue=7.0)
    assert meter.totals().operations == {}, "a new session tells nothing of the one before"
    for _ in range(20):
        with impactsdk.measured("after", span=False):
            pass
    assert impactsdk.flush()
    totals = meter.totals()
    assert totals.operations["after"].count == 20
    conserved(totals)
    assert sum(totals.channels.values()) <= 100.0 * (time.perf_counter() - begun)
    assert threading.active_count() == before + 1, "the sampler of a session that nobody has any more"
    impactsdk.shutdown()
    assert threading.active_count() == before


@pytest.mark.parametrize("names", [True, False])
def test_the_same_configure_from_another_thread_does_not_end_what_this_one_just_begins(names: bool) -> None:
    opening = threading.Event()

    class Slow(SimulatedSource):
        def open(self, clock: Any) -> Any:
            opening.set()
            time.sleep(0.3)  # the other thread comes meanwhile
            return super().open(clock)

    source = Slow(100.0)
    impactsdk.configure(export="none", sources=[source])

    def other() -> None:
        opening.wait()
        impactsdk.configure(**({"export": "none", "sources": [source]} if names else {}))

    thread = threading.Thread(target=other)
    thread.start()
    with impactsdk.measured("job") as job:
        begun = default_meter().session
        thread.join()
    assert default_meter().session is begun
    assert job.result().quality != "partial"
    assert impactsdk.shutdown()
