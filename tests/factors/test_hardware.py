from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impactsdk.factor import Factor
from impactsdk.factors.hardware import Hardware, hardware_factors
from impactsdk.model import Channel

H100_KG, B200_KG, A100_KG, ANY_KG = 164.0, 284.25, 181.0, 150.0
CPU = Channel("cpu:package-0", "cpu", "rapl.package")
NOWHERE = Path("/nowhere/cpuinfo")


def gpu(name: str | None, number: int = 0, scope: str | None = None) -> Channel:
    return Channel(f"gpu:{number}", "gpu", "nvml.total_energy", name=name, scope=scope)


def board(name: str | None, scope: str | None = None) -> Factor:
    return hardware_factors([gpu(name, scope=scope)], cpuinfo=NOWHERE, threads=8, memory_gb=16).devices[0]


@pytest.fixture
def cpuinfo(tmp_path: Path) -> Path:
    return tmp_path / "cpuinfo"


def machine(cpuinfo: Path, *, sockets: int = 1, virtual: bool = False, threads: int = 8, memory_gb: float = 16) -> Hardware:
    """What there is on a machine with one CPU counter."""
    flags = "fpu avx2 hypervisor" if virtual else "fpu avx2"
    one = "processor : {}\nphysical id\t: {}\nflags\t\t: {}\n\n"
    cpuinfo.write_text("".join(one.format(n, n % sockets, flags) for n in range(threads)))
    return hardware_factors([CPU], cpuinfo=cpuinfo, threads=threads, memory_gb=memory_gb)


# --- graphics boards ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kg", "source"),
    [
        ("NVIDIA H100 80GB HBM3", H100_KG, "nvidia-pcf-hgx-h100"),
        ("NVIDIA B200", B200_KG, "nvidia-pcf-hgx-b200"),
        ("NVIDIA A100-PCIE-40GB", A100_KG, "ademe-2026"),
        ("A100-PCIE-40GB", A100_KG, "ademe-2026"),
    ],
)
def test_a_board_with_a_published_figure_gets_it(name: str, kg: float, source: str) -> None:
    factor = board(name)
    assert (factor.value, factor.unit, factor.source) == (kg * 1000, "g{CO2e}", source)
    assert (factor.kind, factor.nature, factor.place) == ("embodied", "calculated", "gpu:0")
    assert factor.low == factor.value / 2
    assert factor.high == pytest.approx(factor.value * 273 / 164)


@pytest.mark.parametrize(
    ("name", "kg", "item"),
    [
        ("NVIDIA H100 PCIe", H100_KG, "nvidia_h100_sxm"),
        ("NVIDIA H100 NVL", H100_KG, "nvidia_h100_sxm"),
        ("NVIDIA H100", H100_KG, "nvidia_h100_sxm"),
        ("NVIDIA A100-SXM4-40GB", A100_KG, "nvidia_a100_pcie_40gb"),
        ("NVIDIA A100-SXM4-80GB", A100_KG, "nvidia_a100_pcie_40gb"),
        ("NVIDIA A100 80GB PCIe", A100_KG, "nvidia_a100_pcie_40gb"),
    ],
)
def test_another_form_of_it_is_told_and_less_sure(name: str, kg: float, item: str) -> None:
    factor = board(name)
    assert (factor.value, factor.low, factor.high) == (kg * 1000, kg * 250, kg * 1750)
    assert factor.nature == "estimated"
    assert item in str(factor.note) and name in str(factor.note)


@pytest.mark.parametrize(
    "name",
    [
        "Tesla T4",
        "NVIDIA GeForce RTX 4090",
        "NVIDIA H200",
        "NVIDIA GH200 480GB",
        "NVIDIA GB200",
        "NVIDIA A100X",
        "NVIDIA A10",
        "NVIDIA H1000",
        "NVIDIA H800",
        "AMD Instinct MI300X",
        "",
        None,
    ],
)
def test_any_other_board_gets_a_placeholder(name: str | None) -> None:
    factor = board(name)
    assert (factor.value, factor.low, factor.high) == (ANY_KG * 1000, 0.0, 2 * ANY_KG * 1000)
    assert (factor.nature, factor.source) == ("estimated", "ccf-2026")
    assert "placeholder" in str(factor.note)


def test_each_gpu_channel_has_its_factor_and_other_channels_none() -> None:
    channels = [gpu("Tesla T4", 0), gpu("NVIDIA B200", 1), CPU, Channel("dram:0", "memory", "rapl.dram")]
    found = hardware_factors(channels, cpuinfo=NOWHERE, threads=8, memory_gb=16).devices
    assert [factor.place for factor in found] == ["gpu:0", "gpu:1", "server"]


def test_a_slice_stands_for_the_whole_board_as_an_upper_bound() -> None:
    factor = board("NVIDIA H100 80GB HBM3", scope="board")
    assert factor.value == H100_KG * 1000
    assert factor.low == pytest.approx(H100_KG * 500 / 7)
    assert (factor.nature, str(factor.note).endswith("of the whole board, of which this is a slice")) == ("estimated", True)


@given(st.text() | st.sampled_from(["NVIDIA H100 80GB HBM3 MIG 1g.10gb", "GRID A100-10C"]))
def test_any_name_has_a_figure_inside_its_interval(name: str) -> None:
    factor = board(name)
    assert factor.low is not None and factor.high is not None
    assert 0 <= factor.low < factor.value < factor.high < math.inf


# --- the server --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sockets", "memory_gb", "kg"),
    [(1, 16, 1000), (1, 8, 1000), (2, 16, 1100), (2, 384, 1100 + 368 * 1.388), (4, 16, 1300)],
)
def test_a_server_is_a_rule_of_thumb_over_sockets_and_memory(cpuinfo: Path, sockets: int, memory_gb: float, kg: float) -> None:
    (server,) = machine(cpuinfo, sockets=sockets, memory_gb=memory_gb).devices
    assert (server.value, server.low, server.high) == pytest.approx((kg * 1000, kg * 500, kg * 1500))
    assert (server.place, server.nature, server.source) == ("server", "estimated", "ccf-2026")
    assert "rule of thumb" in str(server.note)


def test_without_a_channel_there_is_no_device() -> None:
    assert hardware_factors([], cpuinfo=NOWHERE, threads=8, memory_gb=16).devices == ()


def test_the_server_of_a_guest_is_its_whole_host(cpuinfo: Path) -> None:
    guest = machine(cpuinfo, virtual=True, threads=8, memory_gb=32)
    host = machine(cpuinfo, sockets=2, threads=96, memory_gb=384)
    assert guest.devices[0].value == pytest.approx(host.devices[0].value)
    assert "the host of this virtual machine is assumed" in str(guest.devices[0].note)


def test_this_machine_can_be_asked() -> None:
    (server,) = hardware_factors([CPU]).devices
    assert server.value >= 1_000_000


def test_hardware_lasts_four_years_give_or_take(cpuinfo: Path) -> None:
    lifetime = machine(cpuinfo).lifetime
    assert (lifetime.value, lifetime.low, lifetime.high, lifetime.unit) == (4, 3, 6, "a")
    assert (lifetime.kind, lifetime.source) == ("lifetime", "ccf-2026")


# --- the share ---------------------------------------------------------------------------------------------------------------


def test_bare_metal_is_ours_alone(cpuinfo: Path) -> None:
    share = machine(cpuinfo).resource_share
    assert (share.value, share.low, share.high, share.unit) == (1, 1, 1, "1")
    assert share.nature == "calculated"


@pytest.mark.parametrize(
    ("threads", "low", "value", "high"),
    [(4, 4 / 192, 4 / 96, 4 / 48), (64, 64 / 192, 64 / 96, 1), (128, 128 / 192, 1, 1), (256, 1, 1, 1)],
)
def test_a_guest_has_its_threads_of_an_assumed_host(cpuinfo: Path, threads: int, low: float, value: float, high: float) -> None:
    share = machine(cpuinfo, virtual=True, threads=threads).resource_share
    assert (share.low, share.value, share.high) == pytest.approx((low, value, high))
    assert share.nature == "estimated"
    assert "IMPACTSDK_RESOURCE_SHARE" in str(share.note)


@pytest.mark.parametrize("text", [None, "", "Features : fp asimd\n", "nonsense"])
def test_a_system_that_does_not_say_is_taken_as_bare_metal_with_a_doubt(cpuinfo: Path, text: str | None) -> None:
    if text is not None:
        cpuinfo.write_text(text)
    share = hardware_factors([CPU], cpuinfo=cpuinfo, threads=8, memory_gb=16).resource_share
    assert (share.value, share.low, share.high) == (1, pytest.approx(8 / 192), 1)
    assert share.nature == "estimated"
