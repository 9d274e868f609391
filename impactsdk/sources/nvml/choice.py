"""Which boards this process answers for, when many are visible: its rank's own, and in which order CUDA numbers them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from impactsdk.errors import SourceUnavailableError
from impactsdk.model import Boundary
from impactsdk.sources.nvml.visible import Board, Device, pci_order, visible

__all__ = ["choose", "local_rank"]


def choose(
    boards: Sequence[Board],
    *,
    boundary: Boundary,
    environ: Mapping[str, str],
    modules: Mapping[str, Any],
    mig_parent: Callable[[str], str | None],
    warn: Callable[[str], None],
) -> list[Device]:
    """The devices to be measured, each board once.

    Args:
        boards: All boards but those that this process may not open.
        boundary: ``machine`` takes all; ``cgroup`` what CUDA shows; ``process`` of that only what belongs to this rank.
        environ: The environment of the process.
        modules: The modules that are loaded, by name; PyTorch is asked if it is there, and never imported.
        mig_parent: See :func:`impactsdk.sources.nvml.visible.visible`.
        warn: Told, in a sentence, of each assumption that may be wrong.

    Raises:
        SourceUnavailableError: No board is visible.
    """
    boards = pci_order(boards)
    if boundary == "machine":
        return [Device(board) for board in boards]
    text = environ.get("CUDA_VISIBLE_DEVICES")
    shown = visible(text, boards, mig_parent)
    if not shown.devices:
        why = "" if shown.intended else "; it names no board of this machine first, or one twice, and CUDA then shows none"
        raise SourceUnavailableError(f"no NVIDIA board is visible: CUDA_VISIBLE_DEVICES={text!r}{why}", expected=shown.intended)

    devices = shown.devices
    rank = local_rank(environ) if boundary == "process" and len(devices) > 1 else None
    numbered = shown.by_index or text is None
    is_part = rank is not None or len({device.board for device in devices}) < len(boards)
    if numbered and is_part and _order_is_open(boards, environ):
        asked = _devices_of_torch(modules.get("torch"), boards, mig_parent)
        if asked is None:
            warn(
                "which boards are this process's own is uncertain: CUDA numbers boards of different models by speed, NVML does "
                "not, and the order of nvidia-smi is assumed; set CUDA_DEVICE_ORDER=PCI_BUS_ID or name the boards by UUID"
            )
        else:
            devices = asked
    if rank is not None and len(devices) > 1:
        devices = (_device_of_rank(devices, rank, warn),)
    first: dict[Board, Device] = {}
    for device in devices:  # several slices of one board are one board
        first.setdefault(device.board, device)
    return list(first.values())


def _order_is_open(boards: Sequence[Board], environ: Mapping[str, str]) -> bool:
    """Whether CUDA may number the boards otherwise than by PCI bus id, as its fastest-first guess does with several models."""
    models = {board.model for board in boards if board.opened}
    return len(models) > 1 and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID"


# --- ranks -----------------------------------------------------------------------------------------------------------


def local_rank(environ: Mapping[str, str]) -> tuple[int, int] | None:
    """This process's number among the ranks of this machine, and how many they are; ``None`` unless there are several.

    Sources: torchrun (``LOCAL_RANK``, ``LOCAL_WORLD_SIZE``), srun (``SLURM_LOCALID``, ``SLURM_STEP_TASKS_PER_NODE``), Open MPI.
    Slurm's job-wide variables are no guide: a batch script has them too, and is one process however many tasks are planned.
    """
    for rank, size in (
        (environ.get("LOCAL_RANK"), environ.get("LOCAL_WORLD_SIZE")),
        (environ.get("SLURM_LOCALID"), _slurm_tasks(environ)),
        (environ.get("OMPI_COMM_WORLD_LOCAL_RANK"), environ.get("OMPI_COMM_WORLD_LOCAL_SIZE")),
    ):
        if rank and size and rank.isdecimal() and size.isdecimal() and 0 <= int(rank) < int(size) and int(size) > 1:
            return int(rank), int(size)
    return None


def _slurm_tasks(environ: Mapping[str, str]) -> str | None:
    """How many tasks of this step run on this node, of a text such as ``4(x2),1``; ``None`` where each is given its boards."""
    if re.search(r"(?:^|[:=])0*([2-9]|[1-9][0-9]+)$", environ.get("SLURM_GPUS_PER_TASK", "")):
        return None  # several boards bound to each task: all that are visible are its own
    counts: list[str] = []
    for part in environ.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        found = re.fullmatch(r"([0-9]+)(?:\(x([0-9]+)\))?", part.strip())
        if found is None:
            return None
        counts += [found[1]] * int(found[2] or 1)
    node = environ.get("SLURM_NODEID", "0")
    return counts[int(node)] if node.isdecimal() and int(node) < len(counts) else None


def _device_of_rank(devices: Sequence[Device], rank: tuple[int, int], warn: Callable[[str], None]) -> Device:
    number, size = rank
    if size != len(devices):
        warn(
            f"{size} local ranks see {len(devices)} boards each; rank {number} is taken to use number {number % len(devices)} "
            "of them and no other; give each rank its boards by CUDA_VISIBLE_DEVICES if that is wrong"
        )
    return devices[number % len(devices)]


# --- PyTorch ---------------------------------------------------------------------------------------------------------


def _devices_of_torch(
    torch: Any, boards: Sequence[Board], mig_parent: Callable[[str], str | None]
) -> tuple[Device, ...] | None:
    """CUDA's own list, if PyTorch has already initialised CUDA; ``None`` if it has not, or names a board that is unknown.

    Its *current* device is not asked for: that is a matter of each thread, and this one is not the user's.
    """
    try:
        if torch is None or not torch.cuda.is_initialized():
            return None
        told = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        found = [_device_of(properties, boards, mig_parent) for properties in told]
    except Exception:  # noqa: BLE001 - what another library raises inside must not cost us the boards
        return None
    devices = tuple(device for device in found if device is not None)
    return devices if devices and len(devices) == len(found) else None


def _device_of(properties: Any, boards: Sequence[Board], mig_parent: Callable[[str], str | None]) -> Device | None:
    uuid = str(getattr(properties, "uuid", "")).removeprefix("GPU-").removeprefix("MIG-")
    by_uuid = {board.uuid: board for board in boards}
    if uuid and f"GPU-{uuid}" in by_uuid:
        return Device(by_uuid[f"GPU-{uuid}"])
    if uuid and (parent := mig_parent(f"MIG-{uuid}")) in by_uuid and parent is not None:
        return Device(by_uuid[parent], mig=f"MIG-{uuid}")
    address = tuple(getattr(properties, name, None) for name in ("pci_domain_id", "pci_bus_id", "pci_device_id"))
    return next((Device(board) for board in boards if board.pci is not None and board.pci == address), None)
