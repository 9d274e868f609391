from __future__ import annotations

from typing import Any

import pytest

from impactsdk.errors import DegradedWarning, SourceUnavailableError
from tests.sources.fake_nvml import FakeBoard, FakeDriver
from tests.sources.nvml_cases import ENERGY, POWER, A, B, StandingClock, degraded, opened, two_boards


@pytest.mark.parametrize(
    ("text", "ids"), [("1", ["gpu:GPU-bbbb"]), ("GPU-b", ["gpu:GPU-bbbb"]), ("1,0,-1", ["gpu:GPU-bbbb", "gpu:GPU-aaaa"])]
)
def test_only_visible_boards_are_read(text: str, ids: list[str]) -> None:
    with FakeDriver(two_boards()) as driver:
        source, channels = opened(CUDA_VISIBLE_DEVICES=text)
        assert [channel.id for channel in channels] == ids
        assert [reading.channel_id for reading in source.read()] == ids
        assert (driver.called(ENERGY, A) > 0) is ("gpu:GPU-aaaa" in ids)


def test_a_host_of_different_boards_warns_about_integers_once() -> None:
    boards = two_boards(name="NVIDIA T4")
    with FakeDriver(boards):
        _, channels, messages = degraded(CUDA_VISIBLE_DEVICES="0")
        assert [channel.id for channel in channels] == ["gpu:GPU-aaaa"]
        assert len(messages) == 1
    with FakeDriver(boards):
        assert len(opened(CUDA_VISIBLE_DEVICES="0", CUDA_DEVICE_ORDER="PCI_BUS_ID")[1]) == 1


def test_a_rank_reads_its_own_board() -> None:
    with FakeDriver(two_boards()):
        assert [channel.id for channel in opened(LOCAL_RANK="1", LOCAL_WORLD_SIZE="2")[1]] == ["gpu:GPU-bbbb"]


def test_a_board_that_is_counted_but_may_not_be_opened_is_somebody_elses() -> None:
    with FakeDriver(two_boards(errors={"nvmlDeviceGetHandleByIndex_v2": 4})):
        assert [channel.id for channel in opened()[1]] == ["gpu:GPU-bbbb"]
        assert [channel.id for channel in opened(CUDA_VISIBLE_DEVICES="0")[1]] == ["gpu:GPU-bbbb"]


def test_a_board_that_may_not_be_opened_is_missing_from_the_machine() -> None:
    with FakeDriver(two_boards(errors={"nvmlDeviceGetHandleByIndex_v2": 4})):
        _, channels, messages = degraded(IMPACTSDK_BOUNDARY="machine")
        assert len(channels) == len(messages) == 1


def test_a_board_that_is_lost_before_it_is_opened_is_missing() -> None:
    with FakeDriver(two_boards(errors={"nvmlDeviceGetHandleByIndex_v2": 15})):
        source, channels, messages = degraded()
        assert [channel.id for channel in channels] == ["gpu:nvml-0", "gpu:GPU-bbbb"]
        assert "lost" in messages[0]
        missing, _ = source.read()
        assert missing.energy_j is None
        assert "lost" in str(missing.error)


def test_a_board_that_cannot_be_opened_keeps_its_number_and_is_read_once_it_can_be() -> None:
    boards, clock = two_boards(errors={"nvmlDeviceGetHandleByIndex_v2": 999}), StandingClock()
    with FakeDriver(boards):
        source, channels, _ = degraded(clock, CUDA_VISIBLE_DEVICES="1")
        assert [channel.id for channel in channels] == ["gpu:GPU-bbbb"]
        source.close()
        source, channels, _ = degraded(clock, CUDA_VISIBLE_DEVICES="0,1")
        assert [channel.id for channel in channels] == ["gpu:nvml-0", "gpu:GPU-bbbb"]
        assert [reading.energy_j for reading in source.read()] == [None, 5.0]
        boards[0].errors.clear()
        clock.move(1.0)
        assert [reading.energy_j for reading in source.read()] == [1000.0, 5.0]


def test_a_counter_that_stands_still_while_its_board_draws_power_is_a_gap_and_no_zero() -> None:
    boards, clock = two_boards(power_mw=300_000), StandingClock()
    with FakeDriver(boards):
        source, _ = opened(clock)
        assert [reading.energy_j for reading in source.read()] == [1000.0, 5.0]
        clock.move(1.5)
        still, idle = source.read()
        assert (still.energy_j, idle.energy_j) == (None, 5.0)
        assert "stands still" in str(still.error)
        boards[0].energy_mj = 1_450_000
        assert [reading.energy_j for reading in source.read()] == [1450.0, 5.0]


def test_two_boards_that_only_know_their_common_module_count_it_once() -> None:
    module: dict[str, Any] = {"energy_mj": None, "power_mw": None, "module_power_mw": 900_000}
    with FakeDriver([FakeBoard(A, **module), FakeBoard(B, pci=(0, 2, 0), **module)]):
        _, channels, messages = degraded()
    assert [(channel.id, channel.scope) for channel in channels] == [("gpu:GPU-aaaa", "module")]
    assert any("counted once" in message for message in messages)


def test_of_a_board_cut_into_slices_nothing_may_be_this_slices() -> None:
    with FakeDriver(two_boards(mig=["MIG-1", "MIG-2"])):
        source, channels, _ = degraded()
        assert channels[0].scope == "board"
        sliced, whole = source.read()
    assert (sliced.low_j, sliced.high_j) == (0.0, sliced.energy_j)
    assert whole.low_j is None


@pytest.mark.parametrize("errors", [{ENERGY: 3, POWER: 3}, {ENERGY: 4, POWER: 4}, {ENERGY: 15}, {ENERGY: 16}])
def test_a_board_that_cannot_be_read_is_skipped_and_named(errors: dict[str, int]) -> None:
    with FakeDriver(two_boards(errors=errors)) as driver:
        source, channels, messages = degraded()
        assert [channel.id for channel in channels] == ["gpu:GPU-bbbb"]
        assert len(messages) == 1
        assert "GPU-aaaa" in messages[0]
        assert f"NVML error {errors[ENERGY]}" in messages[0]
        before = driver.called(ENERGY, A)
        assert len(list(source.read())) == 1
        assert driver.called(ENERGY, A) == before


def test_without_a_board_that_can_be_read_there_is_no_source_and_nvml_is_let_go() -> None:
    with FakeDriver([FakeBoard(A, energy_mj=None, power_mw=None)]) as driver:
        with pytest.warns(DegradedWarning), pytest.raises(SourceUnavailableError, match="GPU-aaaa") as caught:
            opened()
        assert not caught.value.expected
        assert (driver.starts, driver.stops) == (1, 1)


def test_a_driver_without_boards_is_a_normal_sight_and_one_that_hides_them_is_not() -> None:
    for boards, expected in (([], True), ([FakeBoard(A, errors={"nvmlDeviceGetHandleByIndex_v2": 4})], False)):
        with FakeDriver(boards), pytest.raises(SourceUnavailableError) as caught:
            opened()
        assert caught.value.expected is expected
