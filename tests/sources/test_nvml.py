from __future__ import annotations

import math

import pytest

from impactsdk.model import Channel, Reading
from impactsdk.protocols import EnergySource
from impactsdk.settings import Settings
from impactsdk.sources.nvml import from_settings
from impactsdk.sources.nvml.driver import text_of
from tests.sources.fake_nvml import FakeBoard, FakeDriver
from tests.sources.nvml_cases import ENERGY, A, StandingClock, degraded, opened, power_board, two_boards

# --- the counter -----------------------------------------------------------------------------------------------------


def test_the_source_has_the_shape_of_a_source() -> None:
    source = from_settings(Settings())
    assert isinstance(source, EnergySource)
    assert (source.name, source.covers, source.rank) == ("nvml", None, 0)


def test_a_board_with_a_counter_is_measured_by_it() -> None:
    with FakeDriver([FakeBoard(A, name="NVIDIA A40", limit_mw=300_000, energy_mj=1_234_567)]):
        source, channels = opened()
        assert channels == [
            Channel(
                id="gpu:GPU-aaaa",
                type="gpu",
                method="nvml.total_energy",
                nature="measured",
                tick_s=None,
                max_power_w=1.1 * 300,
                resolution_j=0.001,
                sharing="board",
                name="NVIDIA A40",
            )
        ]
        assert list(source.read()) == [Reading("gpu:GPU-aaaa", 1234.567)]


def test_the_counter_is_found_by_calling_it_whatever_the_architecture() -> None:
    with FakeDriver([FakeBoard(A, capability=(6, 1))]):
        assert opened()[1][0].method == "nvml.total_energy"


def test_a_counter_that_falls_is_passed_on_as_it_is() -> None:
    board = FakeBoard(A, energy_mj=9_000_000)
    with FakeDriver([board]):
        source, _ = opened()
        board.energy_mj = 12_000
        assert list(source.read()) == [Reading("gpu:GPU-aaaa", 12.0)]


def test_readings_come_one_device_call_at_a_time() -> None:
    with FakeDriver(two_boards()) as driver:
        source, _ = opened()
        before = driver.called(ENERGY)
        readings = iter(source.read())
        assert driver.called(ENERGY) == before
        next(readings)
        assert driver.called(ENERGY) == before + 1


def test_a_board_whose_limit_is_unknown_has_no_bound() -> None:
    with FakeDriver([FakeBoard(A, limit_mw=None)]):
        assert opened()[1][0].max_power_w is None


def test_a_board_without_name_or_address_is_read_all_the_same() -> None:
    with FakeDriver([FakeBoard(A)], missing={"nvmlDeviceGetName", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetMigMode"}):
        source, channels = opened()
        assert channels[0].name is None
        assert [reading.energy_j for reading in source.read()] == [1000.0]


def test_text_may_come_as_bytes() -> None:
    assert text_of(b"GPU-aaaa") == text_of("GPU-aaaa") == "GPU-aaaa"


def test_neither_processes_nor_memory_are_asked_for() -> None:
    with FakeDriver(two_boards()) as driver:
        source, _ = opened()
        list(source.read())
        assert not {name for name, _ in driver.calls if "Process" in name or "Memory" in name}


# --- power -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("capability", "tick_s"), [((7, 0), 0.1), ((8, 0), 0.1), ((8, 6), 1.0), ((9, 0), 1.0)])
def test_a_board_without_a_counter_is_integrated_and_says_so(capability: tuple[int, int], tick_s: float) -> None:
    with FakeDriver([power_board(capability=capability)]):
        _, channels, messages = degraded()
        channel = channels[0]
        assert (channel.method, channel.nature, channel.tick_s) == ("nvml.power", "calculated", tick_s)
        assert channel.max_power_w == pytest.approx(220.0)
        assert len(messages) == 1
        assert "no energy counter" in messages[0]


def test_a_board_that_does_not_tell_its_generation_is_taken_to_average() -> None:
    with FakeDriver([power_board()], missing={"nvmlDeviceGetCudaComputeCapability"}):
        assert degraded()[1][0].tick_s == 1.0


def test_a_driver_too_old_for_the_counter_falls_back_to_power() -> None:
    with FakeDriver([FakeBoard(A)], missing={ENERGY}):
        assert degraded()[1][0].method == "nvml.power"


def test_power_is_integrated_by_the_trapezoid_rule() -> None:
    clock, board = StandingClock(), power_board()
    with FakeDriver([board]):
        source, _, _ = degraded(clock)
        energies = []
        for power_mw in (100_000, 300_000, 50_000):
            clock.move(0.5)
            board.power_mw = power_mw
            energies += [reading.energy_j for reading in source.read()]
    assert energies == pytest.approx([50.0, 150.0, 237.5])


def test_a_ramp_is_integrated_exactly() -> None:
    clock = StandingClock()
    start_ns = clock.now_ns()
    with FakeDriver([power_board(power_mw=lambda: 10_000 + 20_000 * (clock.now_ns() - start_ns) * 1e-9)]):
        source, _, _ = degraded(clock)
        for _ in range(50):
            clock.move(0.1)
            (reading,) = source.read()
    assert reading.energy_j == pytest.approx(10 * 5 + 20 * 5**2 / 2)


@pytest.mark.parametrize("power_mw", [0, 593_000])
def test_a_power_that_cannot_be_is_a_gap_and_does_not_count(power_mw: int) -> None:
    clock, board = StandingClock(), power_board()
    with FakeDriver([board]):
        source, _, _ = degraded(clock)
        clock.move(0.1)
        board.power_mw = power_mw
        (gap,) = source.read()
        clock.move(0.1)
        board.power_mw = 100_000
        (after,) = source.read()
    assert gap.energy_j is None
    assert gap.error is not None
    assert f"{power_mw / 1000:g} W" in gap.error
    assert after.energy_j == pytest.approx(20.0)


def test_a_power_of_twice_the_limit_is_believed_and_any_without_a_limit() -> None:
    for changes in ({"power_mw": 400_000}, {"power_mw": 593_000, "limit_mw": None}):
        with FakeDriver([power_board(**changes)]):
            source, _, _ = degraded()
            assert [reading.energy_j for reading in source.read()] == [0.0]


def test_a_board_that_starts_with_an_impossible_power_begins_with_its_first_good_one() -> None:
    clock, board = StandingClock(), power_board(power_mw=0)
    with FakeDriver([board]):
        source, _, _ = degraded(clock)
        board.power_mw = 100_000
        energies = []
        for _ in range(2):
            clock.move(1)
            energies += [reading.energy_j for reading in source.read()]
    assert energies == pytest.approx([0.0, 100.0])


# --- superchips and slices -------------------------------------------------------------------------------------------


def test_a_superchip_that_only_knows_its_module_says_so() -> None:
    clock = StandingClock()
    with FakeDriver([power_board(power_mw=None, module_power_mw=900_000)]):
        source, channels, messages = degraded(clock)
        channel = channels[0]
        assert (channel.method, channel.scope, channel.nature) == ("nvml.power.module", "module", "calculated")
        assert channel.max_power_w is None
        assert any("whole module" in message for message in messages)
        clock.move(1)
        assert [reading.energy_j for reading in source.read()] == pytest.approx([900.0])


def test_the_module_is_not_asked_where_the_board_answers() -> None:
    with FakeDriver([power_board(module_power_mw=900_000)]) as driver:
        assert degraded()[1][0].scope is None
        assert driver.called("nvmlDeviceGetFieldValues") == 0


def test_a_module_power_that_is_no_number_is_a_gap() -> None:
    board = power_board(power_mw=None, module_power_mw=900_000)
    with FakeDriver([board]):
        source, _, _ = degraded()
        board.module_power_mw = math.nan
        (gap,) = source.read()
        assert (gap.energy_j, gap.error) == (None, "the driver says nan W")


@pytest.mark.parametrize("text", ["MIG-1", "MIG-1,MIG-2", "MIG-GPU-aaaa/1/0", "MIG-GPU-aaaa/1/0,MIG-GPU-aaaa/2/0"])
def test_slices_are_their_whole_board_once(text: str) -> None:
    with FakeDriver(two_boards(mig=["MIG-1", "MIG-2"])):
        source, channels, messages = degraded(CUDA_VISIBLE_DEVICES=text)
        assert [(channel.id, channel.scope) for channel in channels] == [("gpu:GPU-aaaa", "board")]
        assert len(messages) == 1
        assert "upper bound" in messages[0]
        assert len(list(source.read())) == 1


def test_a_board_in_mig_mode_is_an_upper_bound_however_it_is_named() -> None:
    with FakeDriver(two_boards(mig=["MIG-1"])):
        _, channels, _ = degraded()
        assert [channel.scope for channel in channels] == ["board", None]


def test_the_whole_machine_owns_the_whole_board() -> None:
    with FakeDriver(two_boards(mig=["MIG-1"])):
        _, channels = opened(IMPACTSDK_BOUNDARY="machine", CUDA_VISIBLE_DEVICES="MIG-1")
        assert [(channel.id, channel.scope) for channel in channels] == [("gpu:GPU-aaaa", None), ("gpu:GPU-bbbb", None)]
