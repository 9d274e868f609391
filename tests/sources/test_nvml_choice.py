from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impactsdk.errors import SourceUnavailableError
from impactsdk.model import Boundary
from impactsdk.sources.nvml.choice import choose, local_rank
from impactsdk.sources.nvml.visible import Board

SAME = [Board(index, f"GPU-{index}{index}", "NVIDIA A100", (0, 8 - index, 0)) for index in range(4)]
"""Four alike; NVML counts them against the order of the bus."""
MIXED = [Board(0, "GPU-aa", "NVIDIA A100", (0, 1, 0)), Board(1, "GPU-bb", "NVIDIA T4", (0, 2, 0))]
TORCHRUN = {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}


def chosen(
    boards: list[Board], environ: dict[str, str], *, boundary: Boundary = "process", torch: Any = None
) -> tuple[list[str], list[str]]:
    """The UUIDs that are chosen, and what was warned of."""
    warned: list[str] = []
    devices = choose(
        boards,
        boundary=boundary,
        environ=environ,
        modules={} if torch is None else {"torch": torch},
        mig_parent={"MIG-x": boards[0].uuid, "MIG-y": boards[0].uuid, "MIG-z": boards[1].uuid}.get,
        warn=warned.append,
    )
    return [device.board.uuid for device in devices], warned


class Cuda:
    """``torch.cuda`` as far as it is asked."""

    def __init__(self, *properties: Any, initialised: bool = True) -> None:
        self._properties = properties
        self._initialised = initialised
        self.asked = 0

    def is_initialized(self) -> bool:
        return self._initialised

    def device_count(self) -> int:
        return len(self._properties)

    def get_device_properties(self, number: int) -> Any:
        self.asked += 1
        return self._properties[number]


def torch_with(*properties: Any, initialised: bool = True) -> Any:
    return SimpleNamespace(cuda=Cuda(*properties, initialised=initialised))


def test_without_the_variable_all_boards_are_chosen() -> None:
    assert chosen(SAME, {}) == (["GPU-33", "GPU-22", "GPU-11", "GPU-00"], [])


def test_integers_count_in_the_order_of_the_bus() -> None:
    assert chosen(SAME, {"CUDA_VISIBLE_DEVICES": "0,3"}) == (["GPU-33", "GPU-00"], [])


def test_the_boundary_machine_takes_all_whatever_the_variables_say() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "0", **TORCHRUN}
    assert len(chosen(SAME, environ, boundary="machine")[0]) == 4
    assert len(chosen(SAME, {"CUDA_VISIBLE_DEVICES": ""}, boundary="machine")[0]) == 4


@pytest.mark.parametrize(("text", "expected"), [("", True), ("-1", True), ("9", False), ("0,0", False)])
def test_no_visible_board_is_no_source_and_a_wish_is_told_from_a_mistake(text: str, expected: bool) -> None:
    with pytest.raises(SourceUnavailableError, match="CUDA_VISIBLE_DEVICES") as caught:
        chosen(SAME, {"CUDA_VISIBLE_DEVICES": text})
    assert caught.value.expected is expected


def test_several_slices_of_one_board_are_one_board() -> None:
    assert chosen(SAME, {"CUDA_VISIBLE_DEVICES": "MIG-x,MIG-y,MIG-z"}) == (["GPU-00", "GPU-11"], [])


# --- order -----------------------------------------------------------------------------------------------------------


def test_integers_on_a_host_of_different_boards_are_uncertain() -> None:
    uuids, warned = chosen(MIXED, {"CUDA_VISIBLE_DEVICES": "1"})
    assert uuids == ["GPU-bb"]
    assert len(warned) == 1
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in warned[0]


def test_the_order_of_the_bus_makes_integers_certain() -> None:
    assert chosen(MIXED, {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}) == (["GPU-bb"], [])


@pytest.mark.parametrize("environ", [{}, {"CUDA_VISIBLE_DEVICES": "1,0"}, {"CUDA_VISIBLE_DEVICES": "GPU-b"}])
def test_nothing_is_uncertain_where_the_order_does_not_matter(environ: dict[str, str]) -> None:
    assert chosen(MIXED, environ)[1] == []


def test_the_rank_makes_the_order_matter_even_where_all_are_visible() -> None:
    ranks = {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert len(chosen(MIXED, ranks)[1]) == 1
    assert chosen(MIXED, {**ranks, "CUDA_VISIBLE_DEVICES": "GPU-b,GPU-a"}) == (["GPU-aa"], [])


@pytest.mark.parametrize(
    "properties",
    [
        SimpleNamespace(uuid="aa"),
        SimpleNamespace(uuid="GPU-aa"),
        SimpleNamespace(pci_domain_id=0, pci_bus_id=1, pci_device_id=0),
    ],
)
def test_pytorch_is_asked_which_board_an_integer_means(properties: Any) -> None:
    assert chosen(MIXED, {"CUDA_VISIBLE_DEVICES": "1"}, torch=torch_with(properties)) == (["GPU-aa"], [])


def test_pytorch_may_see_a_slice() -> None:
    assert chosen(MIXED, {"CUDA_VISIBLE_DEVICES": "0"}, torch=torch_with(SimpleNamespace(uuid="z"))) == (["GPU-bb"], [])


@pytest.mark.parametrize(
    "torch",
    [
        torch_with(SimpleNamespace(uuid="aa"), SimpleNamespace(uuid="unknown")),
        torch_with(SimpleNamespace(uuid="unknown")),
        torch_with(SimpleNamespace()),
        torch_with(),
        SimpleNamespace(),
    ],
)
def test_a_pytorch_that_does_not_know_leaves_the_uncertainty(torch: Any) -> None:
    uuids, warned = chosen(MIXED, {"CUDA_VISIBLE_DEVICES": "1"}, torch=torch)
    assert (uuids, len(warned)) == (["GPU-bb"], 1)


def test_a_pytorch_that_has_not_initialised_cuda_is_left_alone() -> None:
    torch = torch_with(SimpleNamespace(uuid="aa"), initialised=False)
    assert chosen(MIXED, {"CUDA_VISIBLE_DEVICES": "1"}, torch=torch)[0] == ["GPU-bb"]
    assert torch.cuda.asked == 0, "to ask for properties would initialise CUDA behind the user's back"


def test_pytorch_orders_the_boards_of_the_ranks() -> None:
    torch = torch_with(SimpleNamespace(uuid="bb"), SimpleNamespace(uuid="aa"))
    assert chosen(MIXED, {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}, torch=torch) == (["GPU-bb"], [])


# --- ranks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "rank"),
    [
        ({}, None),
        ({"LOCAL_RANK": "0"}, None),
        ({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}, None),
        ({"LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "4"}, (3, 4)),
        ({"LOCAL_RANK": "4", "LOCAL_WORLD_SIZE": "4"}, None),
        ({"LOCAL_RANK": "-1", "LOCAL_WORLD_SIZE": "4"}, None),
        ({"LOCAL_RANK": "x", "LOCAL_WORLD_SIZE": "4"}, None),
        ({"SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4"}, (1, 4)),
        ({"SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2),2", "SLURM_NODEID": "2"}, (1, 2)),
        ({"SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "4(x2),1", "SLURM_NODEID": "2"}, None),
        ({"SLURM_LOCALID": "0", "SLURM_TASKS_PER_NODE": "4", "SLURM_NTASKS_PER_NODE": "4"}, None),
        ({"SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_GPUS_PER_TASK": "2"}, None),
        ({"SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_GPUS_PER_TASK": "a100:2"}, None),
        ({"SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_GPUS_PER_TASK": "1"}, (0, 4)),
        ({"SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "many"}, None),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, (2, 8)),
        ({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "2"}, (1, 2)),
    ],
)
def test_the_launchers_tell_the_local_rank(environ: dict[str, str], rank: tuple[int, int] | None) -> None:
    assert local_rank(environ) == rank


def test_a_rank_answers_for_its_own_board_only() -> None:
    assert chosen(SAME, TORCHRUN) == (["GPU-22"], [])
    assert chosen(SAME, {**TORCHRUN, "CUDA_VISIBLE_DEVICES": "GPU-3,GPU-1,GPU-0,GPU-2"}) == (["GPU-11"], [])


def test_a_rank_that_was_given_its_board_keeps_it() -> None:
    assert chosen(SAME, {**TORCHRUN, "CUDA_VISIBLE_DEVICES": "GPU-3"}) == (["GPU-33"], [])


def test_ranks_do_not_narrow_a_cgroup() -> None:
    assert len(chosen(SAME, TORCHRUN, boundary="cgroup")[0]) == 4


def test_a_rank_on_a_slice_answers_for_the_board_of_that_slice() -> None:
    environ = {"LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "3", "CUDA_VISIBLE_DEVICES": "MIG-x,MIG-y,MIG-z"}
    assert chosen(SAME, environ) == (["GPU-11"], [])


@pytest.mark.parametrize("size", ["2", "8"])
def test_a_guess_about_ranks_and_boards_is_said(size: str) -> None:
    uuids, warned = chosen(SAME, {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": size})
    assert uuids == ["GPU-22"]
    assert len(warned) == 1
    assert f"{size} local ranks see 4 boards" in warned[0]


@given(st.integers(2, 4))
def test_the_ranks_of_a_machine_share_its_boards_without_overlap(size: int) -> None:
    boards = SAME[:size]
    mine = [chosen(boards, {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)})[0] for rank in range(size)]
    assert sorted(uuid for uuids in mine for uuid in uuids) == sorted(board.uuid for board in boards)
