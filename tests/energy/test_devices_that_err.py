"""Devices that are slow, sleep, draw more than they say or describe themselves wrongly: the numbers say so, or are right."""

from __future__ import annotations

import math
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from impactsdk import DegradedWarning, Meter, Settings
from impactsdk.errors import SourceFailedError
from impactsdk.model import Channel, Reading
from impactsdk.protocols import Clock, EnergySource
from impactsdk.testing import FakeClock, SimulatedSource
from tests.kit import bench, conserved


class Device:
    """100 W, read as ``shown`` says of the seconds since it was opened."""

    name = "device"
    counts = True

    def __init__(self, shown: Any = None, *, read_s: float = 0.0, **channel: Any) -> None:
        self._shown, self._read_s = shown or (lambda seconds: 100.0 * seconds), read_s
        self._channel = {"id": "device:0", "type": "gpu", "method": "x", **channel}

    def open(self, clock: Clock) -> Sequence[Channel]:
        self._clock, self._opened_ns = clock, clock.now_ns()
        return [Channel(**self._channel)]

    def read(self) -> Iterator[Reading]:
        shown_j = self._shown((self._clock.now_ns() - self._opened_ns) * 1e-9)
        if self._read_s:
            time.sleep(self._read_s)
        yield Reading("device:0", shown_j)

    def close(self) -> None:
        pass


def test_a_device_that_takes_longer_than_a_second_to_answer_is_measured_and_so_is_a_fast_one_beside_it() -> None:
    slow = Device(read_s=1.1, tick_s=0.0, max_power_w=300.0)
    fast = SimulatedSource(50.0, tick_s=0.05)
    with Meter(Settings.load({}, export="none"), sources=[slow, fast]) as meter:
        with meter.measured("warm"):
            time.sleep(1.5)
        with meter.measured("work") as work:
            time.sleep(4.0)
        found = work.result(10.0)
    assert found.energy_j == pytest.approx(600.0, rel=0.15)
    assert found.energy_low_j is not None
    assert found.energy_high_j is not None
    assert found.energy_low_j <= 150.0 * found.duration_s <= found.energy_high_j
    assert found.coverage > 0.9


def test_a_counter_that_stood_still_shows_at_once_what_was_used_and_nothing_is_lost() -> None:
    def sleepy(seconds: float) -> float:
        seconds = 5.0 if 5.0 <= seconds < 8.5 else seconds
        return 100.0 * math.floor(seconds / 0.1 + 1e-9) * 0.1

    clock = FakeClock()
    with Meter(Settings.load({}, export="none"), sources=[Device(sleepy, max_power_w=300.0)], clock=clock) as meter:
        with meter.measured("work"):
            clock.advance(11.0)
        clock.advance(3.0)
        meter.flush()
        totals = meter.totals()
    assert sum(totals.channels.values()) >= 1100.0 * 0.98
    conserved(totals)


@pytest.mark.parametrize(("limit_w", "tick_s"), [(100.0, 0.1), (100.0, 1.0), (20.0, 0.0), (20.0, 0.1)])
def test_a_limit_that_is_seen_to_be_wrong_is_no_limit(limit_w: float, tick_s: float) -> None:
    def power_w(seconds: float) -> float:
        return 300.0 if seconds % 0.4 < 0.2 else 50.0

    clock = FakeClock()
    source = SimulatedSource(power_w, tick_s=tick_s, max_power_w=limit_w)
    with bench(sources=[source], clock=clock) as here:
        with here.measured("warm"):
            clock.advance(5.0)
        start_ns = clock.now_ns()
        with here.measured("work") as work:
            clock.advance(2.0)
        end_ns = clock.now_ns()
        clock.advance(4.0)
        with pytest.warns(DegradedWarning, match="drew more than") if not here.meter.session.complaints else _nothing():  # type: ignore[union-attr]
            found = work.result()
    truth_j = source.true_energy_j(start_ns, end_ns)
    assert found.energy_low_j is not None
    assert found.energy_low_j <= truth_j
    assert found.energy_high_j is None or truth_j <= found.energy_high_j
    assert found.energy_j == pytest.approx(truth_j, rel=0.25)
    assert found.coverage == 1.0


class _nothing:  # noqa: N801
    def __enter__(self) -> None: ...
    def __exit__(self, *exception: object) -> None: ...


@pytest.mark.parametrize(
    "wrong",
    [
        {"nature": "guess"},
        {"sharing": "Exclusive"},
        {"method": None},
        {"id": ""},
        {"type": 3},
        {"scope": 3},
        {"max_power_w": "300"},
        {"max_power_w": math.nan},
        {"max_power_w": -1.0},
        {"resolution_j": math.nan},
        {"tick_s": -1.0},
        {"tick_s": math.inf},
        {"tick_s": 1e9},
        {"tick_s": 3601},
        {"min_power_w": 10.0, "max_power_w": 5.0},
    ],
)
def test_a_channel_that_cannot_be_worked_with_is_refused_by_name_and_nothing_else_suffers(wrong: dict[str, Any]) -> None:
    clock = FakeClock()
    name = next(iter(wrong))
    with bench(sources=[Device(**wrong), SimulatedSource(50.0)], clock=clock) as here:
        with pytest.warns(DegradedWarning, match=f"device could not be opened.*{name}"), here.measured("work") as work:
            clock.advance(1.0)
        clock.advance(1.0)
        assert work.result().energy_j == pytest.approx(50.0)


class Boards:
    """Two boards of 100 W; ``shown`` says by board and seconds what one shows instead, or raises."""

    name = "boards"
    lazy = counts = True

    def __init__(self, shown: Callable[[int, float], str | None]) -> None:
        self._shown = shown

    def open(self, clock: Clock) -> Sequence[Channel]:
        self._clock, self._opened_ns = clock, clock.now_ns()
        return [Channel(id=f"board:{number}", type="gpu", method="x", tick_s=0.0) for number in (0, 1)]

    def read(self) -> Iterator[Reading]:
        seconds = (self._clock.now_ns() - self._opened_ns) * 1e-9
        for number in (0, 1):
            error = self._shown(number, seconds)
            yield Reading(f"board:{number}", 100.0 * seconds if error is None else None, error=error)

    def close(self) -> None:
        pass


def _told(
    shown: Callable[[int, float], str | None], seconds: float, boards: Callable[..., EnergySource] | None = None
) -> list[str]:
    clock = FakeClock()
    with bench(sources=[(boards or Boards)(shown)], clock=clock) as here, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with here.measured("x"):
            for _ in range(round(seconds)):
                clock.advance(1.0)
        here.meter.flush()
        return [str(warning.message).partition(";")[0] for warning in caught]


def test_each_board_that_fails_is_named_once_and_once_more_if_it_lasts() -> None:
    def shown(number: int, seconds: float) -> str | None:
        if 1.0 < seconds < 1.5 or (seconds > 5.0 and number == 0) or 8.0 < seconds < 8.5:
            return f"error {int(seconds)}"
        return None

    hiccup, other, lasting = _told(shown, 60.0)
    assert [hiccup, other] == ["boards: board:0: error 1", "boards: board:1: error 1"]
    assert re.fullmatch(r"boards: board:0: error 3\d \(no answer for 3\d s\)", lasting)


def test_a_source_that_gives_up_after_a_hiccup_is_told_all_the_same() -> None:
    def shown(_number: int, seconds: float) -> str | None:
        if 1.0 < seconds < 1.5:
            raise OSError("busy")
        if seconds > 5.0:
            raise SourceFailedError("the driver is gone")
        return None

    assert _told(shown, 10.0) == [
        "boards: OSError: busy",
        "boards: the driver is gone",
    ]


def test_a_reading_of_nobody_s_is_no_device_that_has_been_silent_for_years() -> None:
    def shown(_number: int, seconds: float) -> str | None:
        if 1.0 < seconds < 1.5:
            raise OSError("busy")
        return None

    class Strange(Boards):
        def read(self) -> Iterator[Reading]:
            yield from super().read()
            if self._clock.now_ns() - self._opened_ns > 3_000_000_000:
                yield Reading("board:9", 1.0)

    assert _told(shown, 60.0, Strange) == ["boards: OSError: busy"]


def test_what_a_device_used_that_was_gone_is_unknown_and_not_zero() -> None:
    def fail(number: int) -> None:
        if number > 10:
            raise SourceFailedError("gone")

    clock = FakeClock()
    sources = [SimulatedSource(300.0, fail=fail, id="gpu:0"), SimulatedSource(10.0, type="cpu", id="cpu:0")]
    with bench(sources=list(sources), clock=clock) as here, pytest.warns(DegradedWarning, match="gone"):
        with here.measured("early"):
            clock.advance(0.5)
        clock.advance(10.0)
        with here.measured("late") as late:
            clock.advance(5.0)
        clock.advance(3.0)
        found = late.result()
        totals = here.totals()
    assert found.energy_by_type == pytest.approx({"cpu": 50.0})
    assert found.quality == "partial"
    assert totals.operations["late"].energy_by_type == pytest.approx({"cpu": 50.0})
    assert set(totals.operations["early"].energy_by_type) == {"gpu", "cpu"}
    conserved(totals)


def test_without_any_answer_a_total_is_unknown_too() -> None:
    def fail(number: int) -> None:
        if number > 10:
            raise SourceFailedError("gone")

    clock = FakeClock()
    with bench(sources=[SimulatedSource(300.0, fail=fail)], clock=clock) as here, pytest.warns(DegradedWarning, match="gone"):
        with here.measured("early"):
            clock.advance(0.5)
        clock.advance(10.0)
        with here.measured("late"):
            clock.advance(5.0)
        clock.advance(3.0)
        totals = here.totals()
    assert totals.operations["late"].energy_j is None
    assert totals.operations["late"].impact.carbon_g is None


def test_a_meter_that_is_refreshed_each_quarter_of_an_hour_is_one_that_can_be_worked_with() -> None:
    Channel(id="socket:0", type="enclosure", method="x", tick_s=900.0).check()
    Channel(id="socket:0", type="enclosure", method="x", tick_s=3600).check()
