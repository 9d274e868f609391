from __future__ import annotations

import pytest

from impactsdk.errors import DegradedWarning, SourceUnavailableError
from tests.sources.fake_nvml import FakeBoard, FakeDriver
from tests.sources.nvml_cases import ENERGY, POWER, A, degraded, opened, two_boards


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
        _, channels, messages = degraded()
        assert [channel.id for channel in channels] == ["gpu:GPU-bbbb"]
        assert "lost" in messages[0]


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
