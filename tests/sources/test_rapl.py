from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from impactsdk.errors import SourceUnavailableError
from impactsdk.model import Channel, Reading
from impactsdk.protocols import EnergySource
from impactsdk.settings import Settings
from impactsdk.sources.rapl import RaplSource, from_settings
from tests.sources.fake_powercap import AMD_RANGE_UJ, FakePowercap

Opened = Callable[..., tuple[RaplSource, dict[str, Channel]]]


@pytest.fixture
def tree(tmp_path: Path) -> FakePowercap:
    return FakePowercap(tmp_path)


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> Opened:
    """Opens a source on a fake tree, and asserts that it closes every file."""

    def opened(tree: FakePowercap, **arguments: Any) -> tuple[RaplSource, dict[str, Channel]]:
        source = RaplSource(tree.root, opener=tree.open_counter, sleep=tree.sleep, **arguments)

        def check() -> None:
            source.close()
            assert tree.open_files == 0

        request.addfinalizer(check)
        return source, {channel.id: channel for channel in source.open(tree)}

    return opened


def energies(source: RaplSource) -> dict[str, float | None]:
    return {reading.channel_id: reading.energy_j for reading in source.read()}


def rise(source: RaplSource, tree: FakePowercap, seconds: float) -> dict[str, float]:
    before = energies(source)
    tree.advance(seconds)
    after = energies(source)
    return {channel_id: after[channel_id] - before[channel_id] for channel_id in before}  # type: ignore[operator]


def two_sockets(tree: FakePowercap) -> None:
    tree.add("intel-rapl:0", "package-0", power_w=100)
    tree.add("intel-rapl:0:0", "dram", power_w=10, start_uj=5e9)
    tree.add("intel-rapl:1", "psys", power_w=300)
    tree.add("intel-rapl:2", "package-1", power_w=80, start_uj=9e9)
    tree.add("intel-rapl:2:0", "dram", power_w=12, start_uj=6e9)
    tree.add("intel-rapl:0:1", "core", power_w=70)
    tree.add("intel-rapl:0:2", "uncore", power_w=5)


def test_the_source_has_the_shape_of_a_source() -> None:
    source = RaplSource()
    assert isinstance(source, EnergySource)
    assert (source.name, source.covers, source.rank) == ("rapl", "cpu", 0)
    assert list(source.read()) == []


def test_packages_and_dram_are_summed_and_psys_core_and_uncore_are_not(tree: FakePowercap, opened: Opened) -> None:
    two_sockets(tree)
    source, channels = opened(tree)
    assert list(channels) == ["cpu:package-0", "cpu:package-1", "memory:dram-0", "memory:dram-1"]
    assert rise(source, tree, 2.0) == pytest.approx(
        {"cpu:package-0": 200, "cpu:package-1": 160, "memory:dram-0": 20, "memory:dram-1": 24}, abs=1e-5
    )
    assert source.degraded is None


def test_a_channel_says_what_it_is_and_how_it_is_read(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl:0", "package-0")
    tree.add("intel-rapl:0:0", "dram")
    _, channels = opened(tree)
    package, dram = channels.values()
    assert (package.type, package.method, package.nature, package.sharing) == ("cpu", "rapl.package", "measured", "cpu_time")
    assert (dram.type, dram.method, dram.sharing) == ("memory", "rapl.dram", "cpu_time")
    assert (package.name, dram.name) == ("package-0", "dram of package-0")
    assert package.tick_s == 0.002
    assert package.resolution_j == pytest.approx(61.035e-6)
    assert package.max_power_w is None


def test_the_largest_limit_bounds_the_power_with_room_for_excursions(tree: FakePowercap, opened: Opened) -> None:
    rated, short_term, unknown = "constraint_0_max_power_uw", "constraint_1_power_limit_uw", "constraint_1_max_power_uw"
    tree.add("intel-rapl:0", "package-0", limits_uw={rated: 125_000_000, short_term: 253_000_000, unknown: 0})
    _, channels = opened(tree)
    assert channels["cpu:package-0"].max_power_w == pytest.approx(1.5 * 253)


def test_a_limit_that_is_exceeded_in_plain_sight_is_no_bound(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl:0", "package-0", power_w=400, limits_uw={"constraint_0_max_power_uw": 15_000_000})
    _, channels = opened(tree)
    assert channels["cpu:package-0"].max_power_w is None


def test_psys_at_index_1_is_not_a_second_cpu(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl:0", "package-0")
    tree.add("intel-rapl:1", "psys")
    assert list(opened(tree)[1]) == ["cpu:package-0"]


def test_psys_alone_is_not_a_cpu(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl:0", "psys")
    with pytest.raises(SourceUnavailableError, match="no package zone") as caught:
        opened(tree)
    assert caught.value.expected


def test_an_odd_zone_id_is_known_by_its_name(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl:a", "package-10")
    tree.add("intel-rapl:a:0", "dram")
    tree.add("intel-rapl:0", "package-2", start_uj=1e9)
    assert list(opened(tree)[1]) == ["cpu:package-2", "cpu:package-10", "memory:dram-10"]


def test_the_directory_that_the_links_point_to_serves_as_root(tree: FakePowercap, opened: Opened) -> None:
    two_sockets(tree)
    tree.root = tree.devices
    assert len(opened(tree)[1]) == 4


def test_a_flat_copy_without_links_is_counted_once(tree: FakePowercap, tmp_path: Path, opened: Opened) -> None:
    tree.add("intel-rapl:0", "package-0")
    copy = tree.root / "intel-rapl:0"
    copy.unlink()
    copy.mkdir()
    for file in ("name", "energy_uj", "max_energy_range_uj"):
        (copy / file).write_text((tree.directory("intel-rapl:0") / file).read_text())
    assert list(opened(tree)[1]) == ["cpu:package-0"]


def test_the_mmio_twin_is_not_added(tree: FakePowercap, opened: Opened) -> None:
    for interface in ("intel-rapl", "intel-rapl-mmio"):
        tree.add(f"{interface}:0", "package-0", power_w=100)
        tree.add(f"{interface}:0:0", "dram", power_w=10)
    source, channels = opened(tree)
    assert list(channels) == ["cpu:package-0", "memory:dram-0"]
    assert rise(source, tree, 1.0) == pytest.approx({"cpu:package-0": 100, "memory:dram-0": 10}, abs=1e-5)
    assert tree.open_files == 2


def test_the_dies_of_the_plain_interface_go_before_the_package_of_the_mmio_twin(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl:0", "package-0-die-0")
    tree.add("intel-rapl:1", "package-0-die-1", start_uj=7e9)
    tree.add("intel-rapl-mmio:0", "package-0", power_w=100)
    assert list(opened(tree)[1]) == ["cpu:package-0-die-0", "cpu:package-0-die-1"]


def test_mmio_alone_is_used(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl-mmio:0", "package-0", power_w=7)
    source, _ = opened(tree)
    assert rise(source, tree, 1.0) == pytest.approx({"cpu:package-0": 7}, abs=1e-5)


@pytest.mark.parametrize("fault", ["denied", "stuck", "garbage"])
def test_mmio_stands_in_for_a_zone_that_does_not_work(tree: FakePowercap, opened: Opened, fault: str) -> None:
    zone = tree.add("intel-rapl:0", "package-0", power_w=0 if fault == "stuck" else 50)
    tree.add("intel-rapl-mmio:0", "package-0", power_w=7)
    if fault == "denied":
        tree.denied.add("intel-rapl:0")
    if fault == "garbage":
        zone.text = "?"
    source, channels = opened(tree)
    assert list(channels) == ["cpu:package-0"]
    assert rise(source, tree, 1.0) == pytest.approx({"cpu:package-0": 7}, abs=1e-5)
    assert source.degraded is None


@pytest.mark.parametrize("names", [("package-0-die-0", "package-0-die-1"), ("package-0", "package-1")])
@pytest.mark.parametrize("tick_s", [0.0, 0.001])
def test_a_counter_shown_twice_is_counted_once(tmp_path: Path, opened: Opened, names: tuple[str, str], tick_s: float) -> None:
    tree = FakePowercap(tmp_path, tick_s=tick_s, read_s=0.00003)
    tree.add("intel-rapl:0", names[0], power_w=68, range_uj=AMD_RANGE_UJ)
    tree.add("intel-rapl:1", names[1], mirror_of="intel-rapl:0", range_uj=AMD_RANGE_UJ)
    source, channels = opened(tree)
    assert list(channels) == [f"cpu:{names[0]}"]
    assert channels[f"cpu:{names[0]}"].name == f"{names[0]} (the same counter as {names[1]})"
    assert rise(source, tree, 1.0) == pytest.approx({f"cpu:{names[0]}": 68}, rel=0.01)


def test_a_counter_shown_twice_is_known_though_the_thread_was_suspended_meanwhile(tmp_path: Path, opened: Opened) -> None:
    tree = FakePowercap(tmp_path, read_s=0.02)
    tree.add("intel-rapl:0", "package-0", power_w=68)
    tree.add("intel-rapl:1", "package-1", mirror_of="intel-rapl:0")
    assert list(opened(tree)[1]) == ["cpu:package-0"]


def test_dies_with_counters_of_their_own_are_added(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl:0", "package-0-die-0", power_w=50)
    tree.add("intel-rapl:1", "package-0-die-1", power_w=50.2, start_uj=12_350_000_000)  # within 0.1 % of the other
    source, channels = opened(tree)
    assert list(channels) == ["cpu:package-0-die-0", "cpu:package-0-die-1"]
    assert sum(rise(source, tree, 1.0).values()) == pytest.approx(100.2, abs=1e-4)


def test_packages_of_one_name_are_two_channels(tree: FakePowercap, opened: Opened) -> None:
    for zone, power_w in enumerate((50, 70)):
        tree.add(f"intel-rapl:{zone}", "package-0", power_w=power_w, start_uj=zone * 7e9)
        tree.add(f"intel-rapl:{zone}:0", "dram", power_w=5, start_uj=3e9 + zone * 5e9)
    source, channels = opened(tree)
    assert list(channels) == [
        "cpu:package-0",
        "cpu:package-0-intel-rapl:1",
        "memory:dram-0",
        "memory:dram-0-intel-rapl:1:0",
    ]
    assert sum(rise(source, tree, 1.0).values()) == pytest.approx(130, abs=1e-4)


def test_the_dram_of_each_die_has_its_own_channel(tree: FakePowercap, opened: Opened) -> None:
    for die in (0, 1):
        tree.add(f"intel-rapl:{die}", f"package-0-die-{die}", start_uj=die * 7e9)
        tree.add(f"intel-rapl:{die}:0", "dram", start_uj=3e9 + die * 5e9)
    assert list(opened(tree)[1])[2:] == ["memory:dram-0-die-0", "memory:dram-0-die-1"]


def test_the_core_zone_of_amd_is_not_added(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl:0", "package-0", power_w=120, range_uj=AMD_RANGE_UJ)
    tree.add("intel-rapl:0:0", "core", power_w=900, range_uj=AMD_RANGE_UJ)
    source, channels = opened(tree)
    assert rise(source, tree, 1.0) == pytest.approx({"cpu:package-0": 120}, abs=1e-5)
    assert channels["cpu:package-0"].resolution_j == pytest.approx(15.3e-6, rel=0.01)


def test_no_powercap_is_expected_and_opens_nothing(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailableError, match="no package zone") as caught:
        RaplSource(tmp_path / "none").open(FakePowercap(tmp_path / "clock"))
    assert caught.value.expected


def test_links_that_a_container_has_cut_are_said_to_be_hidden(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl:0", "package-0")
    tree.remove("intel-rapl:0")
    with pytest.raises(SourceUnavailableError, match="IMPACTSDK_POWERCAP_ROOT") as caught:
        opened(tree)
    assert not caught.value.expected


def test_a_counter_that_may_not_be_read_is_said_with_the_remedy(tree: FakePowercap, opened: Opened) -> None:
    two_sockets(tree)
    tree.denied.update(tree.zones)
    with pytest.raises(SourceUnavailableError) as caught:
        opened(tree)
    assert not caught.value.expected
    zones = f"{tree.root}/intel-rapl*:*"
    assert f"sudo chmod a+r {zones}/energy_uj {zones}/max_energy_range_uj" in str(caught.value)
    assert "/etc/udev/rules.d/" in str(caught.value)
    assert tree.open_files == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_is_said_with_the_remedy(tree: FakePowercap) -> None:
    tree.add("intel-rapl:0", "package-0")
    (tree.directory("intel-rapl:0") / "energy_uj").chmod(0)
    with pytest.raises(SourceUnavailableError, match="sudo chmod"):
        RaplSource(tree.root, sleep=lambda _: None).open(tree)


def test_one_package_of_two_is_not_passed_off_as_the_machine(tree: FakePowercap, opened: Opened) -> None:
    two_sockets(tree)
    tree.denied.add("intel-rapl:2")
    with pytest.raises(SourceUnavailableError, match="sudo chmod"):
        opened(tree)
    assert tree.open_files == 0


def test_one_die_of_two_is_not_passed_off_as_the_package(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl:0", "package-0-die-0")
    tree.add("intel-rapl:1", "package-0-die-1", start_uj=7e9)
    tree.denied.add("intel-rapl:1")
    with pytest.raises(SourceUnavailableError, match="sudo chmod"):
        opened(tree)
    tree.add("intel-rapl-mmio:0", "package-0", power_w=90)
    source, _ = opened(tree)
    assert rise(source, tree, 1.0) == pytest.approx({"cpu:package-0": 90}, abs=1e-5)


def test_dram_that_may_not_be_read_is_left_out_and_said(tree: FakePowercap, opened: Opened) -> None:
    two_sockets(tree)
    tree.denied.update({"intel-rapl:0:0", "intel-rapl:2:0"})
    source, channels = opened(tree)
    assert list(channels) == ["cpu:package-0", "cpu:package-1"]
    assert source.degraded is not None
    assert "DRAM energy of package-" in source.degraded
    assert "sudo chmod" in source.degraded


def test_a_package_that_does_not_answer_is_left_out_and_said(tree: FakePowercap, opened: Opened) -> None:
    two_sockets(tree)
    tree.zones["intel-rapl:2"].text = ""
    source, channels = opened(tree)
    assert "cpu:package-1" not in channels
    assert "the energy of package-1 is left out" in str(source.degraded)


@pytest.mark.parametrize("names", [("package-0", "package-1"), ("package-0-die-0", "package-0-die-1")])
def test_a_package_that_stands_still_while_another_moves_is_left_out_and_said(
    tree: FakePowercap, opened: Opened, names: tuple[str, str]
) -> None:
    tree.add("intel-rapl:0", names[0])
    tree.add("intel-rapl:0:0", "dram")
    tree.add("intel-rapl:1", names[1], power_w=0, start_uj=0)
    tree.denied.add("intel-rapl:0:0")
    source, channels = opened(tree)
    assert list(channels) == [f"cpu:{names[0]}"]
    assert "the DRAM energy of package-0 is left out" in str(source.degraded)
    assert f"the energy of {names[1]} is left out" in str(source.degraded)
    assert "stands still" in str(source.degraded)


def test_counters_that_all_stand_still_are_absent(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl:0", "package-0", power_w=0, start_uj=0)
    tree.add("intel-rapl:0:0", "dram", power_w=0, start_uj=0)
    began_ns = tree.now_ns()
    with pytest.raises(SourceUnavailableError, match="stands still, as in a virtual machine") as caught:
        opened(tree)
    assert caught.value.expected
    assert tree.open_files == 0
    assert 0.02e9 < tree.now_ns() - began_ns <= 0.05e9


def test_one_counter_that_stands_still_is_left_out(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl:0", "package-0")
    tree.add("intel-rapl:0:0", "dram", power_w=0, start_uj=0)
    source, channels = opened(tree)
    assert list(channels) == ["cpu:package-0"]
    assert tree.open_files == 1
    assert source.degraded is None  # as in desktops, whose DRAM is not counted


def test_the_look_is_over_as_soon_as_all_have_moved(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl:0", "package-0")
    began_ns = tree.now_ns()
    opened(tree)
    assert tree.now_ns() - began_ns <= 0.025e9


def test_a_wrap_loses_nothing(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl:0", "package-0", power_w=280, start_uj=262_143_000_000)
    source, _ = opened(tree)
    for _ in range(8):  # 15.6 minutes each
        assert rise(source, tree, 300.0)["cpu:package-0"] == pytest.approx(84_000, abs=1e-5)


def test_a_wrap_during_the_look_loses_nothing(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl:0", "package-0", power_w=100, start_uj=262_143_328_850 - 900_000)
    source, _ = opened(tree)
    assert rise(source, tree, 1.0)["cpu:package-0"] == pytest.approx(100, abs=1e-4)


def test_a_reset_shows_as_a_decrease_of_just_that_size(tree: FakePowercap, opened: Opened) -> None:
    zone = tree.add("intel-rapl:0", "package-0", power_w=50)
    source, _ = opened(tree)
    shown_uj = zone.raw_uj
    zone.reset()
    fall = rise_of_one(source, lambda: tree.advance(0.1))
    assert fall == pytest.approx((zone.raw_uj - shown_uj) / 1e6, abs=1e-5)
    assert fall < 0
    assert rise(source, tree, 1.0)["cpu:package-0"] == pytest.approx(50, abs=1e-5)


def test_a_decrease_without_a_known_range_is_passed_on(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl:0", "package-0", power_w=280, start_uj=262_000_000_000)
    (tree.directory("intel-rapl:0") / "max_energy_range_uj").unlink()
    source, _ = opened(tree)
    assert rise(source, tree, 300.0)["cpu:package-0"] < 0


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def rise_of_one(source: RaplSource, between: Callable[[], None]) -> float:
    (before,) = energies(source).values()
    between()
    (after,) = energies(source).values()
    assert before is not None
    assert after is not None
    return after - before


def test_a_zone_that_vanishes_is_a_gap_until_it_is_back(tree: FakePowercap, opened: Opened) -> None:
    two_sockets(tree)
    source, _ = opened(tree)
    before = energies(source)
    tree.remove("intel-rapl:2:0")
    for _ in range(2):
        tree.advance(1.0)
        gap = {reading.channel_id: reading for reading in source.read()}["memory:dram-1"]
        assert gap == Reading("memory:dram-1", None, error=gap.error)
        assert "intel-rapl:2:0" in str(gap.error)
    tree.restore("intel-rapl:2:0")
    tree.advance(1.0)
    after = energies(source)
    assert after["memory:dram-1"] - before["memory:dram-1"] == pytest.approx(36, abs=1e-5)  # type: ignore[operator]
    assert after["cpu:package-0"] - before["cpu:package-0"] == pytest.approx(300, abs=1e-5)  # type: ignore[operator]


@pytest.mark.parametrize("text", ["", "\n", "abc", "-5", "1.5", "12 34", "0x10", "1_000", "\0\0"])
def test_garbage_in_a_counter_is_a_gap(tree: FakePowercap, opened: Opened, text: str) -> None:
    zone = tree.add("intel-rapl:0", "package-0", power_w=50)
    source, _ = opened(tree)
    (before,) = energies(source).values()
    zone.text = text
    tree.advance(1.0)
    (gap,) = source.read()
    assert gap.energy_j is None
    assert "is not a number of microjoules" in str(gap.error)
    zone.text = None
    tree.advance(1.0)
    (after,) = energies(source).values()
    assert after - before == pytest.approx(100, abs=1e-5)  # type: ignore[operator]


@pytest.mark.parametrize("text", ["0\n", "garbage\n", ""])
def test_garbage_in_other_files_costs_only_what_they_say(tree: FakePowercap, opened: Opened, text: str) -> None:
    tree.add("intel-rapl:0", "package-0", limits_uw={"constraint_0_max_power_uw": 0})
    for file in ("max_energy_range_uj", "constraint_0_max_power_uw"):
        (tree.directory("intel-rapl:0") / file).write_text(text)
    source, channels = opened(tree)
    assert channels["cpu:package-0"].max_power_w is None
    assert channels["cpu:package-0"].resolution_j == 61e-6
    assert rise(source, tree, 1.0)["cpu:package-0"] == pytest.approx(50, abs=1e-5)


def test_a_zone_name_that_is_no_text_is_passed_over(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl:0", "package-0")
    tree.add("intel-rapl:1", "package-1", start_uj=1)
    (tree.directory("intel-rapl:1") / "name").write_bytes(b"\xff\xfe")
    assert list(opened(tree)[1]) == ["cpu:package-0"]


def test_a_source_can_be_opened_again(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl:0", "package-0")
    source, _ = opened(tree)
    source.open(tree)
    assert tree.open_files == 1
    source.close()
    source.close()
    assert list(source.read()) == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files by /proc")
def test_real_files_are_held_open_and_let_go(tree: FakePowercap) -> None:
    two_sockets(tree)
    before = open_files()
    source = RaplSource(tree.root, sleep=tree.sleep)
    assert len(source.open(tree)) == 4
    assert open_files() == before + 4
    assert rise(source, tree, 1.0)["cpu:package-0"] == pytest.approx(100, abs=1e-5)
    source.close()
    assert open_files() == before


def test_the_environment_says_where_powercap_is(tree: FakePowercap) -> None:
    tree.add("intel-rapl:0", "package-0", power_w=0)
    source = from_settings(Settings.load({"IMPACTSDK_POWERCAP_ROOT": str(tree.root)}))
    with pytest.raises(SourceUnavailableError, match=str(tree.devices.parent.parent.parent)):
        source.open(tree)


def test_a_counter_that_freezes_is_a_gap_and_no_zero(tree: FakePowercap, opened: Opened) -> None:
    tree.add("intel-rapl:0", "package-0", power_w=100)
    zone = tree.add("intel-rapl:1", "package-1", power_w=80, start_uj=9e9)
    source, _ = opened(tree)
    zone.power_w = 0.0
    energies(source)
    tree.advance(2.0)
    moving, frozen = source.read()
    assert moving.energy_j is not None
    assert frozen.energy_j is None
    assert "stood still" in str(frozen.error)
    zone.power_w = 100.0
    tree.advance(0.1)
    assert None not in energies(source).values()


def test_a_file_that_was_removed_or_replaced_is_opened_anew(tree: FakePowercap) -> None:
    tree.add("intel-rapl:0", "package-0", power_w=100)
    source = RaplSource(tree.root, sleep=tree.sleep)
    source.open(tree)
    path = tree.directory("intel-rapl:0") / "energy_uj"
    before = energies(source)
    path.rename(path.with_name("kept"))
    assert energies(source) == {"cpu:package-0": None}
    tree.advance(1.0)
    assert energies(source)["cpu:package-0"] - before["cpu:package-0"] == pytest.approx(100.0)  # type: ignore[operator]
    path.write_text(path.read_text())
    fresh = path.with_name("fresh")
    fresh.write_text(path.read_text())
    energies(source)
    fresh.rename(path)
    assert energies(source) == {"cpu:package-0": None}
    assert energies(source)["cpu:package-0"] is not None
    source.close()


def test_a_range_that_may_not_be_read_is_said_with_the_command(
    tree: FakePowercap, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.add("intel-rapl:0", "package-0", power_w=100)
    read_bytes = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.name == "max_energy_range_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refused)  # root may read everything
    source, channels = opened(tree)
    assert "begins anew may not be read" in str(source.degraded)
    assert "chmod a+r" in str(source.degraded)
    assert channels["cpu:package-0"].host_range_j == float("inf")


def test_the_command_names_the_files_of_a_mounted_tree(tmp_path: Path) -> None:
    tree = FakePowercap(tmp_path / "with space")
    tree.add("intel-rapl:0", "package-0")
    tree.denied.add("intel-rapl:0")
    source = RaplSource(tree.devices, opener=tree.open_counter, sleep=tree.sleep)
    with pytest.raises(SourceUnavailableError) as caught:
        source.open(tree)
    assert f"sudo find '{tree.devices}' -name energy_uj" in str(caught.value)
