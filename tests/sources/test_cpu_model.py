from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impactsdk.errors import SourceUnavailableError
from impactsdk.model import Channel, Reading
from impactsdk.protocols import EnergySource, Waker
from impactsdk.settings import Settings
from impactsdk.sources.cpu_identity import GENERIC, Recognition
from impactsdk.sources.cpu_model import CpuModelSource, ThreadPower, from_settings, power_for, power_table

MILAN = "vendor_id : AuthenticAMD\ncpu family : 25\nmodel : 1\nstepping : 1\nflags : avx2\n"
IDLE_W, MAX_W, P10_W, P90_W = 0.4238, 1.916, 1.7695, 2.207  # EPYC 3rd Gen

rows = st.sampled_from(sorted(power_table()))
shares = st.floats(0, 1)


class FakeMachine:
    """A clock and the CPU times of a machine that is as busy as it is told."""

    def __init__(self, threads: int = 4) -> None:
        self.threads, self.now_s = threads, 0.0
        self.times = {"user": 0.0, "system": 0.0, "idle": 1000.0, "iowait": 5.0, "steal": 1.0, "guest": 0.0}

    def advance(self, seconds: float, **thread_s: float) -> None:
        """Time passes; what is not named was idle."""
        self.now_s += seconds
        thread_s.setdefault("idle", seconds * self.threads - sum(s for name, s in thread_s.items() if name != "guest"))
        for name, s in thread_s.items():
            self.times[name] = self.times.get(name, 0.0) + s

    def cpu_times(self) -> Any:
        return SimpleNamespace(**self.times)

    def now_ns(self) -> int:
        return round(self.now_s * 1e9)

    def unix_ns(self) -> int:
        return self.now_ns()

    def waker(self) -> Waker:
        raise NotImplementedError("no source sleeps on the clock")


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


@pytest.fixture
def source(machine: FakeMachine, tmp_path: Path) -> CpuModelSource:
    source = on(machine, tmp_path)
    source.open(machine)
    return source


def on(machine: FakeMachine, folder: Path, *, cpuinfo: str = MILAN) -> CpuModelSource:
    (folder / "cpuinfo").write_text(cpuinfo)
    return CpuModelSource(cpuinfo=folder / "cpuinfo", dmi=folder / "dmi", cpu_times=machine.cpu_times, threads=machine.threads)


def read(source: CpuModelSource) -> Reading:
    (reading,) = source.read()
    return reading


def triple(reading: Reading) -> tuple[float, float, float]:
    assert reading.energy_j is not None
    assert reading.low_j is not None
    assert reading.high_j is not None
    return reading.low_j, reading.energy_j, reading.high_j


def test_the_source_has_the_shape_of_a_source() -> None:
    source = CpuModelSource()
    assert isinstance(source, EnergySource)
    assert (source.name, source.covers, source.rank, source.degraded) == ("cpu_model", "cpu", 90, None)
    assert list(source.read()) == []


def test_the_channel_says_that_it_is_an_estimate_and_of_what(machine: FakeMachine, tmp_path: Path) -> None:
    source = on(machine, tmp_path)
    (channel,) = source.open(machine)
    assert channel == Channel(
        id="cpu:model",
        type="cpu",
        method="model.specpower/2026-03",
        nature="estimated",
        tick_s=0.0,
        max_power_w=4 * P90_W,
        min_power_w=0.0,
        sharing="cpu_time",
        host_range_j=math.inf,
        name="EPYC 3rd Gen (by model), 4 threads",
    )
    assert source.degraded == (
        "cpu energy is modelled as EPYC 3rd Gen (by model), in watts of the whole server: no CPU energy counter is readable; "
        "expect -50% to +50% when idle and -8% to +15% at full load"
    )


def test_an_unknown_processor_says_so_and_doubles_or_halves(machine: FakeMachine, tmp_path: Path) -> None:
    machine.threads = 1
    source = on(machine, tmp_path, cpuinfo="")
    (channel,) = source.open(machine)
    assert channel.name == "unrecognised CPU, 1 thread"
    assert "expect -50% to +100% when idle and -50% to +100% at full load" in str(source.degraded)


def test_the_firmware_s_name_gives_the_provider(machine: FakeMachine, tmp_path: Path) -> None:
    (tmp_path / "dmi").mkdir()
    (tmp_path / "dmi" / "sys_vendor").write_text("Google\n")
    (tmp_path / "dmi" / "product_name").write_text("Google Compute Engine\n")
    (channel,) = on(machine, tmp_path, cpuinfo="").open(machine)
    assert channel.name == "unknown_gcp (by provider), 4 threads"


def test_an_idle_machine_takes_its_idle_power(machine: FakeMachine, source: CpuModelSource) -> None:
    machine.advance(10.0)
    assert triple(read(source)) == pytest.approx((40 * IDLE_W * 0.5, 40 * IDLE_W, 40 * IDLE_W * 1.5))


def test_a_machine_at_full_load_takes_its_full_power(machine: FakeMachine, source: CpuModelSource) -> None:
    machine.advance(10.0, user=40.0)
    assert triple(read(source)) == pytest.approx((40 * P10_W, 40 * MAX_W, 40 * P90_W))


def test_half_a_load_lies_in_the_middle(machine: FakeMachine, source: CpuModelSource) -> None:
    machine.advance(1.0, user=0.5, nice=0.5, system=0.5, irq=0.25, softirq=0.25)
    expected_j = 4 * (IDLE_W + 0.5 * (MAX_W - IDLE_W))
    assert read(source).energy_j == pytest.approx(expected_j)


def test_waiting_and_stolen_time_are_not_busy_and_guests_are_not_counted_twice(
    machine: FakeMachine, source: CpuModelSource
) -> None:
    machine.advance(1.0, iowait=1.0, steal=1.0, user=1.0, guest=1.0)
    assert read(source).energy_j == pytest.approx(3 * IDLE_W + MAX_W)


def test_nothing_has_been_used_when_no_time_has_passed(source: CpuModelSource) -> None:
    assert triple(read(source)) == (0.0, 0.0, 0.0)


def test_ticks_that_are_booked_late_are_neither_lost_nor_more_than_full_power(
    machine: FakeMachine, source: CpuModelSource
) -> None:
    machine.advance(0.005, user=0.04, idle=0.0)  # the booking of two 10 ms ticks on two processors, seen after 5 ms
    assert read(source).energy_j == pytest.approx(4 * 0.005 * MAX_W)
    machine.advance(0.015, user=0.0)
    assert read(source).energy_j == pytest.approx(0.04 * IDLE_W + 0.04 * MAX_W)


def test_busy_time_beyond_all_time_is_full_load_and_not_owed_for_ever(machine: FakeMachine, source: CpuModelSource) -> None:
    machine.advance(1.0, user=400.0)
    assert read(source).energy_j == pytest.approx(4 * MAX_W)
    machine.advance(10.0)
    assert read(source).energy_j == pytest.approx(4 * MAX_W + 39.6 * IDLE_W + 0.4 * MAX_W)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_busy_time_that_is_no_number_is_a_gap_that_the_next_reading_covers(
    machine: FakeMachine, source: CpuModelSource, bad: float
) -> None:
    good, machine.times["user"] = machine.times["user"], bad
    machine.advance(1.0)
    gap = read(source)
    assert (gap.energy_j, gap.low_j, gap.high_j) == (None, None, None)
    assert gap.error
    machine.times["user"] = good + 2.0
    machine.advance(1.0, idle=4.0)
    assert read(source).energy_j == pytest.approx(6 * IDLE_W + 2 * MAX_W)


def test_busy_time_that_goes_backward_is_a_gap_and_widens_the_interval(machine: FakeMachine, source: CpuModelSource) -> None:
    machine.advance(1.0, user=2.0)
    before = triple(read(source))
    machine.advance(1.0, user=-60.0, idle=4.0)
    gap = read(source)
    assert gap.energy_j is None
    assert "backward" in str(gap.error)
    machine.advance(1.0, user=2.0)
    after = triple(read(source))
    low_j, energy_j, high_j = (b - a for a, b in zip(before, after, strict=True))
    half_j = 2 * IDLE_W + 2 * MAX_W
    assert energy_j == pytest.approx(2 * half_j)  # as busy as before, at best guess
    assert low_j == pytest.approx(4 * 0.5 * IDLE_W + 2 * 0.5 * IDLE_W + 2 * P10_W)  # idle throughout
    assert high_j == pytest.approx(4 * P90_W + 2 * 1.5 * IDLE_W + 2 * P90_W)  # busy throughout


def test_times_that_stand_still_are_a_gap_and_not_an_idle_machine(machine: FakeMachine, source: CpuModelSource) -> None:
    machine.now_s += 0.01  # shorter than a tick
    assert read(source).energy_j is not None
    machine.now_s += 5.0
    gap = read(source)
    assert gap.energy_j is None
    assert "stand still" in str(gap.error)


def test_times_that_cannot_be_read_are_a_gap(machine: FakeMachine, tmp_path: Path) -> None:
    broken = False

    def cpu_times() -> Any:
        if broken:
            raise FileNotFoundError("/proc/stat")
        return machine.cpu_times()

    source = CpuModelSource(cpuinfo=tmp_path / "none", dmi=tmp_path, cpu_times=cpu_times, threads=4)
    source.open(machine)
    broken = True
    assert read(source) == Reading("cpu:model", None, error="/proc/stat")


@pytest.mark.parametrize("fields", [{}, {"user": 0.0, "idle": 0.0}, {"user": math.nan}])
def test_a_system_without_cpu_times_is_unavailable(machine: FakeMachine, tmp_path: Path, fields: dict[str, float]) -> None:
    machine.times = fields
    source = on(machine, tmp_path)
    with pytest.raises(SourceUnavailableError, match="cannot be modelled") as caught:
        source.open(machine)
    assert caught.value.expected
    assert source.degraded is None


def test_a_closed_source_reads_nothing_until_it_is_opened_again(machine: FakeMachine, source: CpuModelSource) -> None:
    source.close()
    source.close()
    assert list(source.read()) == []
    source.open(machine)
    assert read(source).energy_j == 0.0


def test_sources_that_were_opened_at_different_times_show_the_same_joules(machine: FakeMachine, tmp_path: Path) -> None:
    early, late = on(machine, tmp_path), on(machine, tmp_path)
    early.open(machine)
    machine.advance(10.0, user=7.0)
    late.open(machine)
    machine.advance(1.0, user=2.0)
    assert triple(read(late)) == pytest.approx(triple(read(early)))


def test_this_very_machine_is_modelled() -> None:
    import time

    class Clock(FakeMachine):
        def now_ns(self) -> int:
            return time.perf_counter_ns()

    source = from_settings(Settings.load({}))
    (channel,) = source.open(Clock())
    sum(range(300_000))
    first, second = triple(read(source)), triple(read(source))
    assert 0 < first[0] <= first[1] <= first[2]
    assert all(b >= a for a, b in zip(first, second, strict=True))
    assert channel.max_power_w is not None


# --- the table ---
def test_every_row_is_in_order() -> None:
    assert len(power_table()) == 24
    for power in power_table().values():
        assert 0 < power.idle_low_w <= power.idle_w <= power.idle_high_w
        assert power.max_low_w <= power.max_w <= power.max_high_w
        assert power.idle_w < power.max_w
        assert power.idle_low_w < power.max_low_w
        assert power.idle_high_w < power.max_high_w


@pytest.mark.parametrize("name", ["Graviton2", "Graviton4", "unknown_aws", "unknown_azure", "unknown_gcp", GENERIC])
def test_a_row_without_percentiles_is_known_to_a_factor_of_two(name: str) -> None:
    power = power_table()[name]
    assert (power.idle_low_w, power.idle_high_w) == pytest.approx((power.idle_w / 2, power.idle_w * 2))
    assert (power.max_low_w, power.max_high_w) == pytest.approx((power.max_w / 2, power.max_w * 2))


def test_the_interval_spans_what_the_flags_cannot_tell_apart() -> None:
    power = power_for(Recognition("Sapphire Rapids", "flags", ("Emerald Rapids", "Granite Rapids")))
    assert (power.idle_w, power.max_w) == (0.8987, 3.9875)
    assert (power.max_low_w, power.max_high_w) == (1.6817, 4.85)
    assert power.idle_low_w == pytest.approx(0.5952 / 2)


# --- what must always hold ---
@settings(deadline=None)
@given(rows, st.floats(0, 1e6), shares)
def test_low_best_and_high_are_in_order(row: str, thread_s: float, busy: float) -> None:
    low_j, energy_j, high_j = power_table()[row].joules(thread_s, busy * thread_s)
    assert 0 <= low_j <= energy_j <= high_j


@settings(deadline=None)
@given(rows, shares, shares)
def test_more_load_never_takes_less(row: str, one: float, other: float) -> None:
    less, more = sorted((one, other))
    power: ThreadPower = power_table()[row]
    for a, b in zip(power.joules(1.0, less), power.joules(1.0, more), strict=True):
        assert b >= a - 1e-12


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 100), shares, st.booleans()), min_size=1, max_size=30))
def test_energy_is_the_same_whenever_it_is_read(steps: list[tuple[float, float, bool]]) -> None:
    machine, nothing, power = FakeMachine(), Path("none"), power_table()[GENERIC]
    often, once = (
        CpuModelSource(cpuinfo=nothing, dmi=nothing, cpu_times=machine.cpu_times, threads=machine.threads) for _ in range(2)
    )
    often.open(machine)
    once.open(machine)
    last = (0.0, 0.0, 0.0)
    truth_j = 0.0
    for seconds, busy, is_read in steps:
        machine.advance(seconds, user=seconds * 4 * busy)
        truth_j += 4 * seconds * (power.idle_w + busy * (power.max_w - power.idle_w))
        if is_read:
            now = triple(read(often))
            assert now[0] <= now[1] <= now[2]
            assert all(b >= a for a, b in zip(last, now, strict=True))
            last = now
    assert triple(read(often)) == pytest.approx(triple(read(once)), rel=1e-6)
    assert triple(read(once))[1] == pytest.approx(truth_j, rel=1e-6)
