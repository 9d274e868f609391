"""What the manufacture of the devices cost, how long they last, and which part of the server is ours.

ISO/IEC 21031 (SCI): ``M = TE x TiR/EL x RR/ToR``. ``TE`` are the ``embodied`` factors, ``EL`` is the ``lifetime``, ``RR/ToR``
of the server is the ``resource_share``; the time reserved, ``TiR``, is the caller's. A GPU that a virtual machine sees is taken
as its own, with a share of 1.

Few figures are published. Three boards have one of their own; every other gets a placeholder. For the H100 the vendor says
164 kg and a parametric model 273 kg, which is the only measure of how wrong such figures are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from impactsdk.factor import Factor
from impactsdk.factors.rows import Row, rows, whole_number
from impactsdk.model import Channel

__all__ = ["Hardware", "hardware_factors"]

_G_PER_KG = 1000.0
_BYTES_PER_GB = 2**30  # what memory modules are sold in

_EXACT = (0.5, 273 / 164)  # half, and the disagreement over the H100
_OTHER_FORM = (0.25, 1.75)  # between an exact figure and none
_NO_FIGURE = (0.0, 2.0)
_RULE_OF_THUMB = (0.5, 1.5)
_SMALLEST_SLICE = 1 / 7  # of a MIG board

# A guest is not told how large its host is. 96 threads are those of AWS m5.metal (2 sockets); half and double are as common.
_HOST_THREADS, _SMALL_HOST_THREADS, _LARGE_HOST_THREADS = 96, 48, 192
_HOST_SOCKETS = 2


@dataclass(frozen=True, slots=True)
class Hardware:
    """What there is, as factors.

    Args:
        devices: ``embodied``, gCO2e: one for each GPU channel, whose id is its ``place``, and one for the ``server``. Empty if
            there is no channel.
        lifetime: Years. The low end of the embodied carbon of an hour comes with the high end of this.
        resource_share: The part of the server that this machine is, 0 to 1; 1 unless it is virtual. Not for GPUs.
    """

    devices: tuple[Factor, ...]
    lifetime: Factor
    resource_share: Factor


def hardware_factors(
    channels: Sequence[Channel],
    *,
    cpuinfo: Path = Path("/proc/cpuinfo"),
    threads: int | None = None,
    memory_gb: float | None = None,
) -> Hardware:
    """The factors of the devices behind ``channels`` and of the server around them.

    Args:
        channels: GPUs are recognised by ``type`` and ``name``. A board with two channels (two MIG slices) counts for each.
        cpuinfo: Says how many sockets there are and whether the machine is virtual.
        threads: Hardware threads seen; by default what psutil counts.
        memory_gb: DRAM seen, in units of 2**30 bytes; by default what psutil says.
    """
    import psutil  # here, so that importing this module loads nothing

    machine = _parsed(_text_of(cpuinfo))
    threads = threads or psutil.cpu_count(logical=True) or 1
    share = _resource_share(machine, threads)
    devices: tuple[Factor, ...] = ()
    if channels:
        seen_gb = psutil.virtual_memory().total / _BYTES_PER_GB if memory_gb is None else memory_gb
        boards = (_board(channel) for channel in channels if channel.type == "gpu")
        devices = (*boards, _server(machine, seen_gb, share.value))
    return Hardware(devices, _lifetime(), share)


# --- graphics boards ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Figure:
    """A row of ``embodied``, and the boards that it is of.

    ``model`` is a word of NVML's name, ``needs`` are words that only the very board has, ``never`` are words of another one.
    """

    item: str
    model: str
    needs: frozenset[str]
    never: frozenset[str]


_OTHER_FORMS = frozenset({"PCIE", "NVL", "CNX"})
_FIGURES = (
    # NVML calls the SXM board "NVIDIA H100 80GB HBM3"; the cards for a slot say "PCIe" or "NVL" and have HBM2e or HBM3.
    _Figure("nvidia_h100_sxm", "H100", frozenset({"80GB", "HBM3"}), _OTHER_FORMS),
    _Figure("nvidia_b200_sxm", "B200", frozenset(), _OTHER_FORMS),
    _Figure("nvidia_a100_pcie_40gb", "A100", frozenset({"PCIE", "40GB"}), frozenset({"SXM", "SXM4"})),
)


def _board(channel: Channel) -> Factor:
    name = (channel.name or "").strip() or "a GPU without a name"
    words = frozenset(re.split(r"[\W_]+", name.upper()))
    figure = next((figure for figure in _FIGURES if figure.model in words), None)
    if figure is None:
        row, (low, high) = _row("gpu_generic"), _NO_FIGURE
        note = f"no figure of {name} is published: a placeholder for any data-centre GPU"
    else:
        row = _row(figure.item)
        if figure.needs <= words and not figure.never & words:
            (low, high), note = _EXACT, f"{row['note']}; two sources on the H100 differ by two thirds"
        else:
            (low, high), note = _OTHER_FORM, f"the figure is of {figure.item}; {name} is another form or size of it"
    if channel.scope == "board":
        low *= _SMALLEST_SLICE
        note += "; of the whole board, of which this is a slice"
    exact = figure is not None and (low, high) == _EXACT
    return _embodied(row, float(row["embodied_kgco2e"]), (low, high), place=channel.id, estimated=not exact, note=note)


# --- the server --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Machine:
    """What ``/proc/cpuinfo`` tells; ``virtual`` is ``None`` where it does not tell, as on ARM."""

    sockets: int
    virtual: bool | None


def _parsed(cpuinfo: str) -> _Machine:
    sockets: set[str] = set()
    virtual: bool | None = None
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        key = key.strip()
        if key == "physical id":
            sockets.add(value.strip())
        elif key == "flags" and virtual is None:
            virtual = "hypervisor" in value.split()
    return _Machine(max(len(sockets), 1), virtual)


def _server(machine: _Machine, seen_gb: float, share: float) -> Factor:
    """A rack server by its sockets and memory. For a guest: the whole host, of which ``share`` is ours."""
    base, socket, gb = (_row(item) for item in ("server_base_1cpu_16gb", "cpu_additional", "dram"))
    sockets, memory_gb = machine.sockets, seen_gb
    if machine.virtual:
        sockets, memory_gb = max(sockets, _HOST_SOCKETS), seen_gb / share  # clouds sell memory along with threads
    kg = (
        float(base["embodied_kgco2e"])
        + (sockets - 1) * float(socket["embodied_kgco2e"])
        + max(memory_gb - 16, 0.0) * float(gb["embodied_kgco2e"])
    )
    size = f"{sockets} socket{'s' if sockets > 1 else ''} and {memory_gb:.0f} GB"
    note = f"a rule of thumb for a rack server with {size}, without disks"
    if machine.virtual:
        note += "; the host of this virtual machine is assumed"
    return _embodied(base, kg, _RULE_OF_THUMB, place="server", estimated=True, note=note)


def _resource_share(machine: _Machine, threads: int) -> Factor:
    """Ours of the server's threads."""
    if machine.virtual is False:
        return Factor("resource_share", 1.0, "1", "cpuinfo", low=1.0, high=1.0, place="server", scope="bare_metal")
    low, value, high = (min(threads / host, 1.0) for host in (_LARGE_HOST_THREADS, _HOST_THREADS, _SMALL_HOST_THREADS))
    source, scope = "aws-instance-types", "virtual_machine"
    note = f"a virtual machine of {threads} threads, on an assumed host of {_HOST_THREADS} (AWS m5.metal)"
    if machine.virtual is None:
        value = high = 1.0
        source, scope = "cpuinfo", "bare_metal"
        note = "taken as bare metal, though this system does not say whether it is a virtual machine"
    return Factor(
        "resource_share",
        value,
        "1",
        source,
        low=low,
        high=high,
        place="server",
        scope=scope,
        nature="estimated",
        note=f"{note}: set IMPACTSDK_RESOURCE_SHARE",
    )


# --- both --------------------------------------------------------------------------------------------------------------------


def _embodied(row: Row, kg: float, spread: tuple[float, float], *, place: str, estimated: bool, note: str) -> Factor:
    grams = kg * _G_PER_KG
    return Factor(
        "embodied",
        grams,
        "g{CO2e}",
        row["source"],
        low=grams * spread[0],
        high=grams * spread[1],
        place=place,
        year=whole_number(row["year"]),
        scope=row["boundary"],
        nature="estimated" if estimated else "calculated",
        note=note,
    )


def _lifetime() -> Factor:
    table = {row["item"]: row for row in rows("lifetime")}
    usual = table["server_ccf_default"]
    years = [float(row["years"]) for row in table.values()]
    return Factor(
        "lifetime",
        float(usual["years"]),
        "a",
        usual["source"],
        low=min(years),
        high=max(years),
        place="server",
        scope="assumed",
        nature="estimated",
        note="a convention, not a measurement: three to six years are in use",
    )


def _row(item: str) -> Row:
    return next(row for row in rows("embodied") if row["item"] == item)


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
