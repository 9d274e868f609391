"""What ``CUDA_VISIBLE_DEVICES`` shows: its grammar, applied to the boards of this machine.

Sources: CUDA Programming Guide, "CUDA Environment Variables" (integers, UUIDs and their beginnings, MIG names; everything after
the first invalid entry is invisible: ``0,2,-1,1`` shows 0 and 2). Where the guide is silent we do as PyTorch does, whose
``torch.cuda._parse_visible_devices`` is tested to count what CUDA counts: an integer may be signed and followed by other text
(``1gpu2`` is 1), the first entry decides whether integers, ``GPU-`` or ``MIG-`` names follow, and a device that is named twice
leaves none at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Board", "Device", "Visible", "pci_order", "visible"]

_INTEGER = re.compile(r"([+-]?)0*([0-9]{1,9})(?![0-9])")
_OLD_MIG = re.compile(r"MIG-(?P<board>GPU-[^/]+)/[0-9]+/[0-9]+")
_NO_DEVICES = ("", "-1", "NoDevFiles")
"""What people and schedulers write for "none"; ``NoDevFiles`` is Slurm's word."""


@dataclass(frozen=True, slots=True)
class Board:
    """One physical board.

    Args:
        index: NVML's number of it; it may differ from CUDA's and change with a reboot.
        uuid: ``GPU-<uuid>``, the only name that is the same everywhere.
        model: What NVIDIA calls it; ``None`` if the driver does not say.
        pci: Domain, bus and device number; ``None`` if the driver does not say.
        handle: NVML's handle.
        opened: Whether it could be opened; if not, it counts in CUDA's numbering all the same.
    """

    index: int
    uuid: str
    model: str | None = None
    pci: tuple[int, int, int] | None = None
    handle: Any = field(default=None, compare=False, repr=False)
    opened: bool = True


@dataclass(frozen=True, slots=True)
class Device:
    """One device as CUDA counts them: a board, or the MIG slice ``mig`` of one."""

    board: Board
    mig: str | None = None


@dataclass(frozen=True, slots=True)
class Visible:
    """What one value of the variable shows.

    Args:
        devices: In CUDA's order.
        by_index: The boards were named by integers, so which ones these are depends on how CUDA numbers the boards.
        intended: Nothing is visible because somebody wanted it so, not because the value is wrong.
    """

    devices: tuple[Device, ...]
    by_index: bool = False
    intended: bool = True


def pci_order(boards: Sequence[Board]) -> list[Board]:
    """The boards by PCI bus id, which is ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` and what nvidia-smi shows.

    NVML's own numbers serve if a bus id is not known.
    """
    if any(board.pci is None for board in boards):
        return sorted(boards, key=lambda board: board.index)
    return sorted(boards, key=lambda board: (board.pci or (), board.index))


def visible(text: str | None, boards: Sequence[Board], mig_parent: Callable[[str], str | None]) -> Visible:
    """The devices that ``CUDA_VISIBLE_DEVICES=text`` shows; ``None`` stands for a variable that is not set.

    Args:
        text: The value of the variable.
        boards: All boards that can be opened, in the order in which CUDA numbers them.
        mig_parent: The UUID of the board that a MIG slice is part of, by the name of the slice; ``None`` if there is no such.
    """
    if text is None:
        return Visible(tuple(Device(board) for board in boards))
    entries = [entry.strip() for entry in text.split(",")]
    by_index = not entries[0].startswith(("GPU-", "MIG-"))
    if by_index:
        found = _by_index(entries, boards)
    elif entries[0].startswith("GPU-"):
        found = _by_uuid(entries, boards)
    else:
        found = _by_slice(entries, boards, mig_parent)
    devices = tuple(found)
    if len(set(devices)) < len(devices):
        devices = ()
    return Visible(devices, by_index, intended=bool(devices) or entries[0] in _NO_DEVICES)


def _by_index(entries: Sequence[str], boards: Sequence[Board]) -> Iterator[Device]:
    for entry in entries:
        found = _INTEGER.match(entry)
        number = int(found[1] + found[2]) if found else -1
        if not 0 <= number < len(boards):
            return
        yield Device(boards[number])


def _by_uuid(entries: Sequence[str], boards: Sequence[Board]) -> Iterator[Device]:
    for entry in entries:
        matches = [board for board in boards if entry.startswith("GPU-") and board.uuid.startswith(entry)]
        if len(matches) != 1:  # none, or a beginning that fits several boards
            return
        yield Device(matches[0])


def _by_slice(entries: Sequence[str], boards: Sequence[Board], mig_parent: Callable[[str], str | None]) -> Iterator[Device]:
    by_uuid = {board.uuid: board for board in boards}
    for entry in entries:
        parent = mig_parent(entry) if entry.startswith("MIG-") else None
        if parent is None and (old := _OLD_MIG.fullmatch(entry)):
            parent = old["board"]  # the name of drivers before R470, which newer drivers need not look up
        if parent not in by_uuid:
            return
        yield Device(by_uuid[parent], mig=entry)
