"""The sources of a session: what is found, and what is left out so that nothing counts twice."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from impactsdk import Channel, DegradedWarning, Meter, Settings
from impactsdk.clock import SystemClock
from impactsdk.devices import Devices
from impactsdk.energy.registry import runtime_directory
from impactsdk.model import Reading
from impactsdk.protocols import Clock
from impactsdk.testing import FakeClock, SimulatedSource


class Board:
    """One that draws 100 W, on the system's clock."""

    name = "board"

    def open(self, clock: object) -> list[Channel]:
        return [Channel("gpu:0", "gpu", "counter", tick_s=0.0, max_power_w=200.0, sharing="board")]

    def read(self) -> list[Reading]:
        return [Reading("gpu:0", time.perf_counter() * 100.0)]

    def close(self) -> None:
        pass


def test_a_second_source_with_the_same_channel_is_left_out_and_said() -> None:
    clock = FakeClock()
    first, second = SimulatedSource(100.0, id="gpu:0"), SimulatedSource(300.0, id="gpu:0")
    with Meter(Settings.load({}, export="none"), sources=[first, second], clock=clock) as meter:
        with pytest.warns(DegradedWarning, match="'gpu:0', which simulated:gpu:0 has already"):
            with meter.measured("x") as region:
                clock.advance(1.0)
            clock.advance(1.0)
            assert region.result().energy_j == pytest.approx(100.0)
        assert meter.flush()
        assert meter.totals().channels == pytest.approx({"gpu:0": 200.0})
    assert second.closed


def test_a_source_with_one_channel_twice_is_left_out_and_said() -> None:
    class Twice(SimulatedSource):
        def open(self, clock: Clock) -> Sequence[Channel]:
            return [*super().open(clock), *super().open(clock)]

    clock, source = FakeClock(), Twice(100.0, id="gpu:0")
    with Meter(Settings.load({}, export="none"), sources=[source], clock=clock) as meter:
        with pytest.warns(DegradedWarning, match="two channels have the id 'gpu:0'"), meter.measured("x") as region:
            clock.advance(1.0)
        assert region.result().energy_j is None
        assert source.closed


def test_the_place_that_is_named_is_used_where_no_temporary_one_is_to_be_had(tmp_path, monkeypatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    settings = Settings.load({"IMPACTSDK_RUNTIME_DIR": str(tmp_path / "named")}, export="none")
    assert Devices(settings, SystemClock(), lambda *_: None).registry.directory == tmp_path / "named"
    assert runtime_directory({}).name.startswith("impactsdk-")  # who joins there is told why it cannot be used


def test_where_the_place_is_lost_in_which_measuring_processes_see_each_other_that_is_said(tmp_path) -> None:
    settings = Settings.load({"IMPACTSDK_RUNTIME_DIR": str(tmp_path / "place")}, export="none")
    with pytest.warns(DegradedWarning, match="cannot be used any more"), Meter(settings, sources=[Board()]) as meter:
        with meter.measured("before"):
            pass
        (tmp_path / "place").rename(tmp_path / "moved")
        for path in (tmp_path / "moved").iterdir():
            path.unlink()
        (tmp_path / "place").write_text("")
        with meter.measured("after") as region:
            time.sleep(0.01)
        region.result()


def test_an_idle_process_looks_each_second_only_where_others_would_take_what_its_children_use() -> None:
    found = Devices(Settings.load({}, export="none"), FakeClock(), lambda key, text: None)
    assert found.idle_s() == 10.0
    for unseen, expected_s in ((False, 10.0), (True, 1.0)):
        found._cpu_share = SimpleNamespace(unseen_by_others=unseen)  # type: ignore[assignment]
        assert found.idle_s() == expected_s


def test_with_a_clock_of_its_own_a_process_has_its_boards_to_itself() -> None:
    clock = FakeClock()
    source = SimulatedSource(100.0, sharing="board")
    with Meter(Settings.load({}, export="none"), sources=[source], clock=clock) as meter:
        with meter.measured("x") as region:
            clock.advance(1.0)
        clock.advance(1.0)
        found = region.result()
        assert meter.flush()
        assert meter.totals().others_j == 0.0
    assert found.energy_j == pytest.approx(100.0)
    assert found.energy_low_j is not None
    assert found.energy_low_j <= 100.0
