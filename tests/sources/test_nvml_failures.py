from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from types import ModuleType

import pynvml
import pytest

from impactsdk.errors import DegradedWarning, SourceFailedError, SourceUnavailableError
from impactsdk.sources.nvml import NvmlSource
from tests.sources.fake_nvml import FakeBoard, FakeDriver
from tests.sources.nvml_cases import ENERGY, POWER, A, StandingClock, degraded, opened, power_board, two_boards


@pytest.mark.parametrize(("code", "expected"), [(9, True), (12, True), (17, False), (18, False), (999, False)])
def test_without_nvml_there_is_no_source(code: int, expected: bool) -> None:
    with FakeDriver([FakeBoard(A)], errors={"nvmlInitWithFlags": code}) as driver:
        with pytest.raises(SourceUnavailableError, match=f"NVML error {code}") as caught:
            opened()
        assert caught.value.expected is expected
        assert driver.stops == 0


@pytest.mark.parametrize("function", ["nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2"])
@pytest.mark.parametrize(("code", "expected"), [(9, True), (18, False)])
def test_nvml_that_fails_while_boards_are_listed_is_let_go(function: str, code: int, expected: bool) -> None:
    with FakeDriver([FakeBoard(A)], errors={function: code}) as driver:
        with pytest.raises(SourceUnavailableError, match=f"NVML error {code}") as caught:
            opened()
        assert caught.value.expected is expected
        assert driver.stops == 1


def test_a_warning_turned_into_an_error_lets_nvml_go() -> None:
    with FakeDriver([power_board()]) as driver, warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DegradedWarning):
            opened()
        assert driver.stops == 1


@pytest.mark.parametrize(("module", "why"), [(None, "pip install nvidia-ml-py"), (ModuleType("pynvml"), "not NVIDIA's own")])
def test_bindings_that_are_missing_or_foreign_are_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType | None, why: str
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", module)
    with pytest.raises(SourceUnavailableError, match=why) as caught:
        opened()
    assert "pip install nvidia-ml-py" in str(caught.value)
    assert not caught.value.expected


@pytest.mark.parametrize("code", [10, 21, 27, 999, 4])
def test_a_failure_that_may_pass_is_a_gap_and_is_tried_again_ever_more_rarely(code: int) -> None:
    clock, boards = StandingClock(), two_boards()
    with FakeDriver(boards) as driver:
        source, _ = opened(clock)
        boards[0].errors[ENERGY] = code
        before = driver.called(ENERGY, A)
        for _ in range(1000):  # 100 s
            bad, good = source.read()
            assert bad.energy_j is None
            assert bad.error is not None
            assert f"NVML error {code}" in bad.error
            assert good.energy_j == 5.0
            clock.move(0.1)
        assert 10 <= driver.called(ENERGY, A) - before <= 20
        del boards[0].errors[ENERGY]
        clock.move(10)
        assert next(iter(source.read())).energy_j == 1000.0
        boards[0].errors[ENERGY] = code
        next(iter(source.read()))
        del boards[0].errors[ENERGY]
        clock.move(0.1)
        assert next(iter(source.read())).energy_j == 1000.0, "a failure after a success waits the first, short while again"


@pytest.mark.parametrize("code", [15, 16, 3, 13])
def test_a_counter_that_is_gone_is_never_asked_again(code: int) -> None:
    clock, boards = StandingClock(), two_boards()
    with FakeDriver(boards) as driver:
        source, _ = opened(clock)
        boards[0].errors[ENERGY] = code
        list(source.read())
        before = len([call for call in driver.calls if call[1] == A])
        del boards[0].errors[ENERGY]
        for _ in range(5):
            clock.move(3600)
            bad, good = source.read()
            assert (bad.energy_j, good.energy_j) == (None, 5.0)
            assert bad.error is not None
            assert f"NVML error {code}" in bad.error
        assert len([call for call in driver.calls if call[1] == A]) == before


def test_a_power_that_is_not_supported_now_and_then_is_only_a_gap() -> None:
    clock, board = StandingClock(), power_board()
    with FakeDriver([board]):
        source, _, _ = degraded(clock)
        board.errors[POWER] = 3
        clock.move(1)
        assert [reading.energy_j for reading in source.read()] == [None]
        del board.errors[POWER]
        clock.move(1)
        assert [reading.energy_j for reading in source.read()] == pytest.approx([200.0])


def test_a_counter_that_is_not_ready_when_opened_is_there() -> None:
    board = FakeBoard(A, errors={ENERGY: 27})
    with FakeDriver([board]):
        source, channels = opened()
        assert channels[0].method == "nvml.total_energy"
        del board.errors[ENERGY]
        assert [reading.energy_j for reading in source.read()] == [1000.0]


@pytest.mark.parametrize("code", [1, 9, 12, 18])
def test_nvml_that_stops_working_ends_the_source(code: int) -> None:
    with FakeDriver(two_boards()) as driver:
        source, _ = opened()
        driver.errors[ENERGY] = code
        with pytest.raises(SourceFailedError, match=f"NVML error {code}"):
            list(source.read())
        source.close()


def test_closing_shuts_nvml_down_once_and_never_raises() -> None:
    with FakeDriver([FakeBoard(A)]) as driver:
        source, _ = opened()
        source.close()
        source.close()
        assert driver.called("nvmlShutdown") == 1
        assert list(source.read()) == []
    with FakeDriver([FakeBoard(A)], errors={"nvmlShutdown": 999}):
        source, _ = opened()
        source.close()
    NvmlSource(environ={}).close()


def test_two_sources_do_not_end_each_other() -> None:
    with FakeDriver([FakeBoard(A)]):
        first, _ = opened()
        second, _ = opened()
        first.close()
        assert [reading.energy_j for reading in second.read()] == [1000.0]


@pytest.mark.parametrize("use", [lambda: None, lambda: pynvml.nvmlInit()])
def test_the_fake_leaves_the_bindings_as_they_were(use: Callable[[], None]) -> None:
    before = pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache), pynvml._nvmlLib_refcount
    with FakeDriver([FakeBoard(A)]):
        use()
    assert (pynvml.nvmlLib, pynvml._nvmlGetFunctionPointer_cache, pynvml._nvmlLib_refcount) == before
