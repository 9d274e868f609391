"""Whatever a device does, the measured code does not notice, the number says so, and the other devices go on."""

from __future__ import annotations

import contextlib
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from impactsdk import Meter, Settings
from impactsdk.errors import DegradedWarning, SettleTimeoutError, SourceFailedError, SourceUnavailableError
from impactsdk.model import Channel, Measurement, Reading
from impactsdk.testing import FakeClock, SimulatedSource, wait_until

GOOD_W = 100.0


class Odd:
    """A source that does what it is told, at each reading."""

    def __init__(self, answer: Callable[[int, FakeClock], Any], *, opens: Callable[[], Any] | None = None) -> None:
        self.name = "odd"
        self._answer, self._opens = answer, opens
        self.reads = 0
        self.closed = 0

    def open(self, clock: FakeClock) -> Any:
        self._clock = clock
        if self._opens is not None:
            return self._opens()
        return [Channel(id="odd:0", type="cpu", method="odd", tick_s=0.0, max_power_w=200.0)]

    def read(self) -> Any:
        self.reads += 1
        return self._answer(self.reads, self._clock)

    def close(self) -> None:
        self.closed += 1


def shown(clock: FakeClock, power_w: float = 50.0) -> list[Reading]:
    return [Reading("odd:0", power_w * clock.now_ns() * 1e-9)]


def raising(error: BaseException) -> Any:
    raise error


@contextlib.contextmanager
def meter_of(*sources: Any, clock: FakeClock) -> Iterator[Meter]:
    with Meter(Settings.load({}, export="none"), sources=sources, clock=clock) as meter:
        yield meter


def worked(meter: Meter, clock: FakeClock, *, seconds: float = 3.0) -> Measurement:
    """The user's code, which returns what it returns."""

    @meter.measured("work")
    def work() -> str:
        clock.advance(seconds)
        return "done"

    found: list[Measurement] = []
    meter.listeners.append(found.append)
    assert work() == "done"
    clock.advance(3.0)
    assert meter.flush()
    meter.listeners.remove(found.append)
    return found[-1]


def checked(odd: Any, *, expected: str | None = "odd", partial: bool = True) -> Measurement:
    """Measure beside a good source; at most one warning, and the good source is not touched by it."""
    clock = FakeClock()
    good = SimulatedSource(GOOD_W)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with meter_of(good, odd, clock=clock) as meter:
            found = worked(meter, clock)
            totals = meter.totals()
    words = [str(warning.message) for warning in caught if issubclass(warning.category, DegradedWarning)]
    assert len(caught) == len(words) == (expected is not None), words
    assert all(expected in word for word in words if expected)
    assert found.energy_by_type["gpu"] == pytest.approx(GOOD_W * 3.0)
    assert totals.attributed_j + totals.unattributed_j + totals.others_j == pytest.approx(sum(totals.channels.values()))
    assert all(math.isfinite(joules) for joules in totals.channels.values())
    assert (found.coverage < 1.0) is partial
    assert found.quality == ("partial" if partial else "measured")
    assert found.energy_low_j is not None
    assert found.energy_low_j <= (found.energy_j or 0.0)
    return found


@pytest.mark.parametrize(
    "error", [RuntimeError("no driver"), SourceUnavailableError("not here"), SystemExit(3), KeyError(), OSError(5, "gone")]
)
def test_a_source_that_cannot_be_opened_costs_one_warning(error: BaseException) -> None:
    odd = Odd(lambda n, clock: [], opens=lambda: raising(error))
    found = checked(odd, partial=False)
    assert set(found.energy_by_type) == {"gpu"}
    assert odd.reads == 0


@pytest.mark.parametrize("channels", [None, 3, ["cpu"], [None]])
def test_a_source_whose_channels_are_none_is_not_used(channels: Any) -> None:
    checked(Odd(lambda n, clock: [], opens=lambda: channels), partial=False)


@pytest.mark.parametrize("error", [RuntimeError("bus"), OSError(5, "I/O"), SystemExit(1), ZeroDivisionError()])
def test_a_source_that_fails_at_each_reading_is_absent_from_the_number_and_tried_ever_less_often(error: BaseException) -> None:
    odd = Odd(lambda n, clock: raising(error))
    found = checked(odd)
    assert set(found.energy_by_type) == {"gpu"}
    assert found.coverage == pytest.approx(0.5)
    assert odd.reads < 20
    assert odd.closed == 1


@pytest.mark.parametrize("at", [1, 3, 20])
def test_a_source_that_fails_once_loses_no_joule(at: int) -> None:
    odd = Odd(lambda n, clock: raising(OSError("once")) if n == at else shown(clock))
    found = checked(odd, partial=True)
    if at > 1:
        assert found.energy_by_type["cpu"] == pytest.approx(50.0 * 3.0, rel=1e-6)
    assert 0.9 < found.coverage < 1.0


@pytest.mark.parametrize("at", [1, 5])
def test_a_source_that_says_it_is_gone_for_good_is_closed_and_not_asked_again(at: int) -> None:
    odd = Odd(lambda n, clock: raising(SourceFailedError("lost")) if n >= at else shown(clock))
    found = checked(odd)
    assert odd.reads == at
    assert odd.closed == 1
    assert found.coverage < 0.7


NEVER_TRUE = [math.nan, math.inf, -math.inf, -1.0, "1 J", b"1", [], {}, object(), 10**400, 1j, True, False, None]


@pytest.mark.parametrize(
    ("energy_j", "always"), [*((value, True) for value in NEVER_TRUE), *((value, False) for value in [*NEVER_TRUE, 1e300])]
)
def test_a_number_that_cannot_be_true_is_a_gap(energy_j: Any, always: bool) -> None:
    odd = Odd(lambda n, clock: [Reading("odd:0", energy_j)] if always or n == 5 else shown(clock))
    found = checked(odd)
    if not always:
        assert found.energy_by_type["cpu"] == pytest.approx(150.0, rel=1e-6)
        assert found.energy_high_j is not None
        assert found.energy_high_j < 600.0
    else:
        assert "cpu" not in found.energy_by_type


@pytest.mark.parametrize("kind", ["float64", "float32", "int64", "bool_"])
def test_numpy_s_numbers_are_numbers_and_its_truth_values_are_not(kind: str) -> None:
    numbers = getattr(pytest.importorskip("numpy"), kind)
    odd = Odd(lambda n, clock: [Reading("odd:0", numbers(shown(clock)[0].energy_j))])
    if kind == "bool_":
        assert "cpu" not in checked(odd).energy_by_type
    else:
        assert checked(odd, expected=None, partial=False).energy_by_type["cpu"] == pytest.approx(150.0, abs=1.0)


@pytest.mark.parametrize(
    "answer",
    [
        lambda clock: None,
        lambda clock: 3,
        lambda clock: [],
        lambda clock: ["text"],
        lambda clock: [None],
        lambda clock: [Reading("another:9", 3.0)],
        lambda clock: [Reading(["unhashable"], 3.0)],  # type: ignore[arg-type]
        lambda clock: (raising(RuntimeError("midway")) for _ in range(2)),
    ],
)
def test_an_answer_that_is_none_is_a_gap(answer: Callable[[FakeClock], Any]) -> None:
    checked(Odd(lambda n, clock: answer(clock) if n > 4 else shown(clock)))


def test_what_is_no_reading_beside_one_that_is_changes_nothing_but_the_warning() -> None:
    found = checked(Odd(lambda n, clock: ["text", *shown(clock), Reading("another:9", 1.0)]), partial=False)
    assert found.energy_by_type["cpu"] == pytest.approx(150.0)


def test_a_model_whose_bounds_are_no_numbers_is_taken_without_them() -> None:
    odd = Odd(lambda n, clock: [Reading("odd:0", shown(clock)[0].energy_j, math.nan, "much")])  # type: ignore[arg-type]
    found = checked(odd, expected=None, partial=False)
    assert found.energy_by_type["cpu"] == pytest.approx(150.0)


def test_a_counter_that_goes_back_in_value_loses_only_what_it_used_meanwhile() -> None:
    # Half way through it begins again at zero.
    odd = Odd(lambda n, clock: [Reading("odd:0", 50.0 * (clock.now_ns() * 1e-9 - (1000.0 if n < 16 else 1001.5)) + 7.0)])
    found = checked(odd)
    assert found.energy_by_type["cpu"] == pytest.approx(150.0, abs=20.0)
    assert found.energy_by_type["cpu"] <= 150.0
    assert found.energy_high_j is not None
    assert found.energy_high_j >= 450.0 - 1e-6


def test_a_device_that_is_away_for_minutes_is_not_charged_to_whoever_runs_when_it_is_back() -> None:
    clock = FakeClock()
    away = threading.Event()
    odd = Odd(lambda n, clock: raising(OSError("away")) if away.is_set() else shown(clock))
    with pytest.warns(DegradedWarning, match="odd") as caught, meter_of(odd, clock=clock) as meter:
        assert worked(meter, clock).energy_j == pytest.approx(150.0)
        away.set()
        region = meter.measured("during")
        with region:
            clock.advance(300.0)
        away.clear()
        back = meter.measured("back")
        with back:
            clock.advance(6.0)
        clock.advance(6.0)
        meter.flush()
        during, after = region.result(), back.result()
        totals = meter.totals()
    assert len(caught) == 1
    assert during.energy_j is None or during.energy_j < 500.0
    assert after.energy_j is not None
    assert after.energy_j <= 50.0 * 6.0 + 1e-6
    assert after.energy_high_j is None or after.energy_high_j >= 300.0 - 1e-6
    assert totals.unattributed_j > 50.0 * 280


# --- devices that hang ----------------------------------------------------------------------------------------------------


def test_a_source_that_hangs_in_a_reading_holds_up_nobody_but_its_own_thread() -> None:
    clock, free = FakeClock(), threading.Event()
    good = SimulatedSource(GOOD_W)
    odd = Odd(lambda n, clock: free.wait(60) and [] if n == 5 else shown(clock))
    with pytest.warns(DegradedWarning) as caught:
        with meter_of(odd, good, clock=clock) as meter:
            found = worked(meter, clock, seconds=4.0)
            assert found.quality == "partial"
            assert found.coverage < 0.8
            assert 100.0 <= found.energy_by_type["gpu"] <= 400.0 + 1e-6
            after = worked(meter, clock, seconds=4.0)
            assert after.energy_by_type["gpu"] == pytest.approx(400.0)
            begun_s = time.monotonic()
        assert time.monotonic() - begun_s < 5.0
        free.set()
        assert wait_until(lambda: odd.closed == 1)
    assert [str(warning.message).startswith("odd does not return") for warning in caught] == [True]
    assert good.closed


def test_a_source_that_returns_after_it_hung_is_asked_again() -> None:
    clock, free = FakeClock(), threading.Event()
    odd = Odd(lambda n, clock: (free.wait(60), shown(clock))[1] if n == 5 else shown(clock))
    with pytest.warns(DegradedWarning, match="does not return"), meter_of(odd, SimulatedSource(GOOD_W), clock=clock) as meter:
        worked(meter, clock, seconds=4.0)
        free.set()
        assert wait_until(lambda: not meter.session._sampler.probes[0].hung)  # type: ignore[union-attr]
        clock.advance(6.0)
        found = worked(meter, clock, seconds=4.0)
    assert found.energy_by_type["cpu"] == pytest.approx(200.0, rel=0.01)
    assert found.quality == "measured"


def test_a_source_that_hangs_while_it_is_opened_is_left_out() -> None:
    clock, free = FakeClock(), threading.Event()
    good = SimulatedSource(GOOD_W)

    def opens() -> list[Channel]:
        free.wait(60)
        return []

    odd = Odd(lambda n, clock: [], opens=opens)
    with pytest.warns(DegradedWarning) as caught:
        with meter_of(good, odd, clock=clock) as meter:
            with meter.measured("early"):
                clock.advance(3.0)
            assert wait_until(lambda: meter.flush(0.1) or clock.advance(0.5))  # type: ignore[func-returns-value, arg-type]
            found = worked(meter, clock)
            assert found.energy_by_type == pytest.approx({"gpu": 300.0})
            assert found.quality == "measured"
        free.set()
        assert wait_until(lambda: odd.closed == 1)
    assert len(caught) == 1
    assert good.closed


def test_a_source_of_the_same_name_as_one_that_hangs_is_measured() -> None:
    clock, free = FakeClock(), threading.Event()
    hanging = Odd(lambda n, clock: [], opens=lambda: free.wait(60) and [])
    good = Odd(lambda n, clock: shown(clock))
    with pytest.warns(DegradedWarning, match="odd does not return"):
        with meter_of(hanging, good, clock=clock) as meter:
            with meter.measured("early"):
                clock.advance(3.0)
            assert wait_until(lambda: meter.flush(0.1) or clock.advance(0.5))  # type: ignore[func-returns-value, arg-type]
            assert worked(meter, clock).energy_by_type == pytest.approx({"cpu": 150.0})
        free.set()
        assert wait_until(lambda: hanging.closed == 1)
    assert good.closed == 1


def test_a_source_that_hangs_does_not_let_the_memory_grow_though_nobody_asks_for_a_result() -> None:
    clock, free = FakeClock(), threading.Event()
    odd = Odd(lambda n, clock: free.wait(60) and [] if n == 3 else shown(clock))
    with pytest.warns(DegradedWarning, match="does not return"), meter_of(odd, clock=clock) as meter:
        for _ in range(6):
            with meter.measured("step", span=False):
                clock.advance(1.0)
        session: Any = meter.session
        assert wait_until(lambda: clock.advance(0.5) or not session.events)  # type: ignore[func-returns-value]
        free.set()


def test_no_thread_is_left_and_close_is_in_time_whatever_happened() -> None:
    clock, free = FakeClock(), threading.Event()
    odd = Odd(lambda n, clock: free.wait(60) and [] if n == 3 else shown(clock))
    meter = Meter(Settings.load({}, export="none", shutdown_timeout_s=1.0), sources=[odd], clock=clock)
    with meter.measured("open"):
        clock.advance(1.0)
    begun_s = time.monotonic()
    with pytest.warns(DegradedWarning):
        meter.close()
    assert time.monotonic() - begun_s < 4.0
    free.set()
    clock.advance(5.0)
    assert wait_until(lambda: not any(thread.name == "impactsdk-sampler" for thread in threading.enumerate()))


# --- quiet times: nothing begins and nothing ends -----------------------------------------------------------------------------


class Integrating(SimulatedSource):
    """Its device knows only watts: what it does not look at it does not count."""

    def __init__(self) -> None:
        super().__init__(GOOD_W)
        self.counts = False


@pytest.mark.parametrize(
    ("source", "most_per_s"),
    [(SimulatedSource(GOOD_W), 3), (SimulatedSource(GOOD_W, tick_s=0.1), 8), (Integrating(), 11)],
    ids=["exact", "ticking", "integrating"],
)
def test_while_nothing_begins_or_ends_devices_that_count_by_themselves_are_read_less_often(
    source: SimulatedSource, most_per_s: float
) -> None:
    clock = FakeClock()
    with meter_of(source, clock=clock) as meter, meter.measured("long", span=False) as region:
        with meter.measured("step", span=False):
            clock.advance(2.0)
        often = source.reads
        clock.advance(1.0)
        often = source.reads - often
        rarely = source.reads
        clock.advance(10.0)
        rarely = source.reads - rarely
    assert often >= 10
    assert rarely <= 10 * most_per_s
    assert isinstance(source, Integrating) == (rarely >= 100)
    assert region.result().energy_j == pytest.approx(GOOD_W * 13.0, rel=0.02)


def stepped(quiet_s: float, *, tick_s: float) -> tuple[Measurement, float]:
    """A step of 0.5 s at 300 W after so long a quiet time at 60 W, and what it truly used."""
    clock, begin_s = FakeClock(), 2.0 + quiet_s
    source = SimulatedSource(
        lambda s: 300.0 if begin_s <= s < begin_s + 0.5 else 60.0, tick_s=tick_s, max_power_w=350.0, phase_s=0.37 * tick_s
    )
    with meter_of(source, clock=clock) as meter, meter.measured("outer", span=False):
        start_ns = clock.now_ns()
        with meter.measured("warm-up", span=False):
            clock.advance(2.0)
        clock.advance(quiet_s - (clock.now_ns() - start_ns) * 1e-9 + 2.0)
        with meter.measured("step", span=False) as step:
            from_ns = clock.now_ns()
            clock.advance(0.5)
            until_ns = clock.now_ns()
        clock.advance(1.0)
    return step.result(), source.true_energy_j(from_ns, until_ns)


@pytest.mark.parametrize("tick_s", [0.0, 0.1])
def test_after_a_quiet_time_what_begins_and_ends_is_measured_as_finely(tick_s: float) -> None:
    busy, busy_true_j = stepped(0.5, tick_s=tick_s)
    quiet, quiet_true_j = stepped(10.0, tick_s=tick_s)
    assert busy.energy_j is not None
    assert quiet.energy_j is not None
    assert abs(quiet.energy_j - quiet_true_j) <= abs(busy.energy_j - busy_true_j) + 1.0
    assert quiet.energy_low_j <= quiet_true_j + 1e-6  # type: ignore[operator]
    assert quiet.energy_high_j >= quiet_true_j - 1e-6  # type: ignore[operator]


@pytest.mark.parametrize("span", [True, False])
def test_what_ends_after_a_quiet_time_is_read_at_once(span: bool) -> None:
    clock = FakeClock()
    source = SimulatedSource(lambda s: 300.0 if s < 10.0 else 0.0, max_power_w=300.0)
    with meter_of(source, clock=clock) as meter:
        with meter.measured("long", span=span) as region:
            start_ns = clock.now_ns()
            clock.advance(10.0)
            until_ns = clock.now_ns()
        clock.advance(0.15)  # as long as a result usually takes
        result = region.result(timeout_s=2.0)
    assert result.energy_j == pytest.approx(source.true_energy_j(start_ns, until_ns), abs=1e-6)


def test_what_ends_at_an_instant_that_is_settled_already_is_settled_too() -> None:
    clock = FakeClock()  # it stands still: no reading will come that is later
    with meter_of(SimulatedSource(GOOD_W), clock=clock) as meter:
        for _ in range(3):
            with meter.measured("work", span=False) as region:
                clock.advance(2.0)
                with meter.measured("asked for", span=False) as inner:
                    clock.advance(0.2)
                inner.result(timeout_s=2.0)  # settles everything up to now, at which the outer one ends, too
            assert region.result(timeout_s=2.0).energy_j == pytest.approx(220.0)


class Boards:
    """One source with many boards whose counters tick at the same rate, each with a phase of its own."""

    def __init__(self, number: int, tick_s: float = 0.1) -> None:
        self.name, self.reads = "boards", 0
        self._boards = [
            SimulatedSource(200.0, id=f"gpu:{index}", tick_s=tick_s, phase_s=tick_s * index / number) for index in range(number)
        ]

    def open(self, clock: FakeClock) -> list[Channel]:
        return [channel for board in self._boards for channel in board.open(clock)]

    def read(self) -> Iterator[Reading]:
        self.reads += 1
        for board in self._boards:
            yield from board.read()

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("number", "reads_a_tick"), [(1, 2.2), (2, 4.2), (8, 4.2)])
def test_many_boards_with_phases_of_their_own_are_not_read_more_often_for_it(number: int, reads_a_tick: float) -> None:
    clock, boards = FakeClock(), Boards(number)
    with meter_of(boards, clock=clock) as meter:
        with meter.measured("all", span=False) as whole:
            reads = []
            for _ in range(80):
                reads.append(boards.reads)
                with meter.measured("step", span=False):
                    clock.advance(0.1)
            assert reads[-1] - reads[29] <= 50 * reads_a_tick
        clock.advance(1.0)
        assert whole.result().energy_j == pytest.approx(number * 200.0 * 8.0, rel=0.01)


# --- devices whose values are old, coarse or nonsense for a while -----------------------------------------------------------


class Shown:
    """A device of which the test says what it shows, and how its channel is described."""

    def __init__(self, clock: FakeClock, shown_j: Callable[[float], float], **channel: Any) -> None:
        self.name, self.lazy, self.counts = "shown", True, True
        self._clock, self._begun_ns, self._shown_j = clock, clock.now_ns(), shown_j
        self._channel = {"id": "shown:0", "type": "gpu", "method": "shown", **channel}

    def open(self, clock: FakeClock) -> list[Channel]:
        return [Channel(**self._channel)]

    def read(self) -> Iterator[Reading]:
        yield Reading("shown:0", self._shown_j((self._clock.now_ns() - self._begun_ns) * 1e-9))

    def close(self) -> None:
        pass


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("seconds", [0.05, 0.3, 2.0])
def test_the_first_region_on_a_counter_whose_values_are_old_is_not_charged_to_what_was_before_it(
    beside: bool, seconds: float
) -> None:
    """A mean over the last second, as NVML's power is; what it shows at first was used before anybody looked."""
    clock = FakeClock()
    old = Shown(clock, lambda second: 100.0 * (second - 0.5) + 1_000.0, tick_s=1.0, max_power_w=330.0)
    others = [SimulatedSource(0.0, id="b:0", max_power_w=10.0)] if beside else []
    with meter_of(old, *others, clock=clock) as meter:
        with meter.measured("first") as first:
            clock.advance(seconds)
        clock.advance(3.0)
        found, totals = first.result(), meter.totals()
    assert found.energy_j == pytest.approx(100.0 * seconds)
    assert found.energy_low_j <= 100.0 * seconds <= found.energy_high_j <= 340.0 * seconds + 1e-9  # type: ignore[operator]
    assert totals.attributed_j + totals.unattributed_j == pytest.approx(sum(totals.channels.values()))


@pytest.mark.parametrize("idle_w", [300.0, 60.0, 0.0])
@pytest.mark.parametrize("phase", [0.03, 0.25, 0.5, 0.75, 0.97])
@pytest.mark.parametrize("seconds", [0.02, 0.3, 1.0])
def test_the_first_region_owes_nothing_of_the_tick_in_which_it_began_that_was_used_before(
    seconds: float, phase: float, idle_w: float
) -> None:
    """Of a counter whose ticks have to be found out nobody knows how old its first value is."""
    clock = FakeClock()

    def used_j(second: float) -> float:
        return 1_000.0 + (300.0 * second if second >= 0 else idle_w * second)

    board = Shown(clock, lambda second: used_j(((second / 0.1 + phase) // 1 - phase) * 0.1), tick_s=None, max_power_w=330.0)
    with meter_of(board, clock=clock) as meter:
        with meter.measured("first") as first:
            clock.advance(seconds)
        with meter.measured("second"):
            clock.advance(2.0)
        found, totals = first.result(), meter.totals()
    assert found.energy_j == pytest.approx(300.0 * seconds, abs=3.0)  # what a reading every 10 ms leaves open
    assert found.energy_low_j <= 300.0 * seconds + 1e-9 <= found.energy_high_j + 2e-9  # type: ignore[operator]
    # What the counter has shown is all there, be it nobody's.
    assert totals.attributed_j + totals.unattributed_j == pytest.approx(sum(totals.channels.values()), rel=1e-12)


@pytest.mark.parametrize("tick_s", [0.7, 2.0, 4.0])
def test_a_counter_that_ticks_slowly_and_does_not_say_so_is_waited_for(tick_s: float) -> None:
    clock = FakeClock()
    slow = Shown(clock, lambda second: 100.0 * ((second / tick_s + 0.4) // 1) * tick_s, tick_s=None, max_power_w=330.0)
    with meter_of(slow, clock=clock) as meter:
        with meter.measured("epoch") as epoch:
            for _ in range(91):
                clock.advance(0.1)
        for _ in range(80):
            clock.advance(0.1)
        found = epoch.result()
    assert found.energy_j == pytest.approx(910.0, abs=0.1 * 100.0 * tick_s)
    assert found.energy_low_j <= 910.0 <= found.energy_high_j  # type: ignore[operator]


@pytest.mark.parametrize("phase", [0.0, 0.1, 0.9])
def test_the_second_tick_of_a_slow_counter_is_not_waited_for_longer_than_a_result_is(phase: float) -> None:
    clock = FakeClock()
    slow = Shown(clock, lambda second: 400.0 * ((second / 4.0 + phase) // 1), tick_s=None, max_power_w=330.0)
    with meter_of(slow, clock=clock) as meter:
        with meter.measured("step") as step:
            clock.advance(0.3)
        for _ in range(47):
            clock.advance(0.1)
        found = step.result(0.5)
    assert found.energy_j == pytest.approx(30.0, rel=0.3)
    assert found.energy_low_j <= 30.0 <= found.energy_high_j  # type: ignore[operator]


def test_not_too_many_regions_wait_for_a_counter_that_stands_still() -> None:
    clock = FakeClock()
    with meter_of(Shown(clock, lambda _: 7.0, tick_s=None), clock=clock) as meter:
        for _ in range(12_000):
            with meter.measured("step", span=False):
                pass
        for _ in range(12):
            clock.advance(0.1)
        assert meter.totals().operations["step"].count == 12_000


def test_the_first_region_on_a_counter_that_says_it_is_coarse_has_the_truth_in_its_interval() -> None:
    clock = FakeClock()
    coarse = Shown(clock, lambda second: 300.0 * ((second + 0.36) // 0.5) * 0.5, tick_s=0.5)
    with meter_of(coarse, SimulatedSource(0.0, id="b:0", max_power_w=10.0), clock=clock) as meter:
        with meter.measured("first") as first:
            clock.advance(0.008)
        for _ in range(8):
            clock.advance(0.1)
        found = first.result()
    assert found.energy_low_j <= 300.0 * 0.008 <= found.energy_high_j  # type: ignore[operator]


@pytest.mark.parametrize(("power_w", "tick_s"), [(1_000.0, None), (10_000.0, 0.0), (400.0, None)])
@pytest.mark.parametrize("shown_j", [1_000.0, 1e7])
def test_after_zeros_of_a_driver_nothing_more_is_lost_than_what_was_used_meanwhile(
    power_w: float, tick_s: float | None, shown_j: float
) -> None:
    clock = FakeClock()

    def counter(second: float) -> float:
        ticked_s = second if tick_s is not None else 0.1 * (second // 0.1)
        return 0.0 if 10.0 <= second < 10.5 else power_w * ticked_s + shown_j

    odd = Shown(clock, counter, tick_s=tick_s, max_power_w=1.2 * power_w)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegradedWarning)
        with meter_of(odd, clock=clock) as meter:
            found = []
            for _ in range(6):
                with meter.measured("five seconds") as region:
                    clock.advance(5.0)
                clock.advance(1.0)
                found.append(region.result())
            counted_j = sum(meter.totals().channels.values())
    assert 34.0 * power_w <= counted_j <= 36.2 * power_w
    assert [one.quality for one in found].count("partial") == 1
    for one in found:
        if one.quality != "partial":
            assert one.energy_j == pytest.approx(5.0 * power_w, rel=0.02)


@pytest.mark.parametrize("tick_s", [None, 0.0, 0.002])
@pytest.mark.parametrize("until_s", [1.7, 1.75, 2.2])
def test_a_driver_that_shows_zero_for_a_while_has_not_used_what_it_shows_afterwards(
    tick_s: float | None, until_s: float
) -> None:
    """No power limit is known that would say so."""
    clock = FakeClock()
    odd = Shown(clock, lambda second: 0.0 if 1.5 < second < until_s else 30.0 * second + 5_000.0, tick_s=tick_s)
    regions = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegradedWarning)
        with meter_of(odd, clock=clock) as meter:
            for _ in range(4):
                with meter.measured("second") as region:
                    clock.advance(1.0)
                regions.append(region)
            clock.advance(1.0)
            found = [region.result() for region in regions]
            totals = meter.totals()
    assert sum(totals.channels.values()) <= 150.1
    assert found[1].quality == "partial"
    for one in found:
        assert one.energy_low_j <= 30.0 + 1e-9  # type: ignore[operator]
        assert one.energy_high_j is None or one.energy_high_j >= 30.0 - 1e-9
    assert found[0].energy_j == pytest.approx(30.0, rel=0.01)
    assert found[3].energy_j == pytest.approx(30.0, rel=0.01)


def test_a_counter_that_was_truly_reset_counts_on() -> None:
    clock = FakeClock()
    reset = Shown(clock, lambda second: 30.0 * second + (40.0 if second < 1.5 else -45.0), tick_s=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegradedWarning)
        with meter_of(reset, clock=clock) as meter:
            with meter.measured("whole") as region:
                clock.advance(12.0)
            clock.advance(1.0)
            found = region.result()
    assert found.energy_j == pytest.approx(360.0, rel=0.1)  # less what it used while the reset was not certain
    assert found.quality == "partial"


def test_a_coarse_counter_is_waited_for_and_an_error_says_so() -> None:
    clock = FakeClock()
    plug = Shown(clock, lambda second: 300.0 * second // 3_600 * 3_600, type="enclosure", resolution_j=3_600.0)
    with meter_of(SimulatedSource(100.0), plug, clock=clock) as meter:
        for _ in range(60):
            with meter.measured("step", span=False):
                clock.advance(1.0)
        with meter.measured("last") as last:
            clock.advance(0.5)
        with pytest.raises(SettleTimeoutError, match="shown:0 must be waited for longer"):
            last.result(timeout_s=0.1)
        clock.advance(35.0)
        assert last.result().energy_j is not None
