"""A real board: how its counter ticks, what reading costs it, whether it agrees with its power, and that joules are conserved.

``make test-hardware`` runs it and prints the figures. Skipped, with the reason, where there is no board.
"""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from statistics import median, quantiles
from typing import Any

import pytest

from impactsdk import DegradedWarning, Meter, Settings, SourceUnavailableError
from impactsdk.clock import SystemClock
from impactsdk.sources.nvml import from_settings
from tests.hardware.cuda import Load, NoCudaError
from tests.kit import conserved

pytestmark = pytest.mark.hardware
Figure = Callable[[str, str], None]
SLACK_S = 0.3
"""Two readings of a counter that is up to 100 ms old, and some time to begin and to stop."""


class Board:
    """The board that CUDA shows first, as NVML knows it."""

    def __init__(self, uuid: str | None) -> None:
        import pynvml

        self.nvml: Any = pynvml
        pynvml.nvmlInit()
        if uuid is None:
            self.handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        else:
            self.handle = pynvml.nvmlDeviceGetHandleByUUID(uuid.encode())
        name = pynvml.nvmlDeviceGetUUID(self.handle)
        self.uuid = name if isinstance(name, str) else name.decode()

    def energy_j(self) -> float:
        return float(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)) / 1000

    def power_w(self) -> float:
        """At this instant where the board can say, else as it is averaged."""
        (value,) = self._fields([186])  # NVML_FI_DEV_POWER_INSTANT
        return float(self.nvml.nvmlDeviceGetPowerUsage(self.handle) if value is None else value) / 1000

    def counter_at_us(self) -> int | None:
        """When the counter was refreshed by its own account, in microseconds since 1970."""
        try:
            (found,) = self.nvml.nvmlDeviceGetFieldValues(self.handle, [83])  # NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION
        except self.nvml.NVMLError:
            return None
        return None if found.nvmlReturn else int(found.timestamp)

    def _fields(self, ids: list[int]) -> list[int | None]:
        try:
            found = self.nvml.nvmlDeviceGetFieldValues(self.handle, ids)
        except self.nvml.NVMLError:
            return [None] * len(ids)
        return [None if field.nvmlReturn else int(field.value.uiVal) for field in found]


@pytest.fixture(scope="module")
def load() -> Iterator[Load]:
    try:
        found = Load()
    except NoCudaError as error:
        pytest.skip(f"no CUDA: {error}")
    with found:
        yield found


@pytest.fixture
def board(figure: Figure, request: pytest.FixtureRequest) -> Iterator[Board]:
    source = from_settings(Settings.load({}))
    try:
        source.open(SystemClock())
    except SourceUnavailableError as error:
        pytest.skip(str(error))
    try:
        loaded = Load().board
    except NoCudaError:
        loaded = None
    found = Board(loaded)
    name, driver = found.nvml.nvmlDeviceGetName(found.handle), _driver_version(found)
    figure("board, driver", f"{name if isinstance(name, str) else name.decode()}, {driver}")
    yield found
    found.nvml.nvmlShutdown()
    source.close()


def _driver_version(board: Board) -> str:
    try:
        version = board.nvml.nvmlSystemGetDriverVersion()
    except board.nvml.NVMLError:
        return "of unknown version"
    return version if isinstance(version, str) else version.decode()


def _us(values_ns: list[int]) -> str:
    return f"median {median(values_ns) / 1e3:.1f} us, 99 % under {quantiles(values_ns, n=100)[-1] / 1e3:.1f} us"


def test_the_tick_of_the_energy_counter_is_where_the_facts_say(board: Board, figure: Figure) -> None:
    changes_ns: list[int] = []
    last_j, until_s = board.energy_j(), time.perf_counter() + 4.0
    while time.perf_counter() < until_s:
        now_j = board.energy_j()
        if now_j != last_j:
            changes_ns.append(time.perf_counter_ns())
            last_j = now_j
        time.sleep(0.001)
    ticks_ms = [(later - earlier) / 1e6 for earlier, later in pairwise(changes_ns)]
    spread = f"{min(ticks_ms):.1f} to {max(ticks_ms):.1f} over {len(ticks_ms)}"
    figure("tick of the energy counter", f"median {median(ticks_ms):.1f} ms, {spread}")
    assert 5 < median(ticks_ms) < 250


def test_whether_a_field_value_says_when_the_counter_was_refreshed(board: Board, figure: Figure) -> None:
    seen: list[tuple[float, int]] = []
    until_s = time.perf_counter() + 3.0
    while time.perf_counter() < until_s:
        at_us = board.counter_at_us()
        if at_us is None:
            pytest.skip("no field value for the energy counter")
        seen.append((board.energy_j(), at_us))
        time.sleep(0.002)
    alike = sum(a[0] == b[0] and a[1] == b[1] for a, b in pairwise(seen))
    stood = sum(a[0] == b[0] for a, b in pairwise(seen))
    figure("of readings with an unchanged value, with its time, too", f"{alike} of {stood}")


def test_one_read_of_the_counter_costs_less_than_a_millisecond(board: Board, figure: Figure) -> None:
    source = from_settings(Settings.load({}))
    source.open(SystemClock())
    works: dict[str, Callable[[], object]] = {
        "one energy call": board.energy_j,
        "one reading by the source (all of its boards)": lambda: list(source.read()),
        "one energy field value": board.counter_at_us,
        "one power call": board.power_w,
    }
    for what, work in works.items():
        times_ns = []
        for _ in range(300):
            begun_ns = time.perf_counter_ns()
            work()
            times_ns.append(time.perf_counter_ns() - begun_ns)
            time.sleep(0.002)
        figure(f"cost of {what}", _us(times_ns))
        if what == "one energy call":
            assert median(times_ns) < 1e6
    source.close()


def test_launching_kernels_is_not_slowed_by_forty_readings_a_second(board: Board, load: Load, figure: Figure) -> None:
    def burst_ns() -> int:
        begun_ns = time.perf_counter_ns()
        for _ in range(2_000):
            load.launch()
        load.wait()
        return time.perf_counter_ns() - begun_ns

    reading, done = threading.Event(), threading.Event()

    def reads() -> None:
        while not done.is_set():
            if reading.is_set():
                board.energy_j()
            time.sleep(0.025)

    thread = threading.Thread(target=reads)
    thread.start()
    try:
        burst_ns()
        ratios = []
        for turn in range(40):
            times = {}
            for read in (turn % 2 == 0, turn % 2 != 0):
                (reading.set if read else reading.clear)()
                time.sleep(0.03)
                times[read] = burst_ns()
            ratios.append(times[True] / times[False])
    finally:
        done.set()
        thread.join()
    low, *_, high = quantiles(ratios, n=20)
    figure("launching beside 40 readings a second", f"median {median(ratios):.3f} of without, 90 % in {low:.3f} to {high:.3f}")
    assert median(ratios) < 1.5


@pytest.mark.parametrize("loaded", [False, True], ids=["idle", "under load"])
def test_the_counter_agrees_with_integrated_power(board: Board, load: Load, figure: Figure, loaded: bool) -> None:
    samples: list[tuple[float, float]] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            samples.append((time.perf_counter(), board.power_w()))
            time.sleep(0.02)

    if loaded:
        load.work(1.0)
    else:
        time.sleep(2.0)
    before_j = board.energy_j()
    thread = threading.Thread(target=look)
    thread.start()
    if loaded:
        load.work(4.0)
    else:
        time.sleep(4.0)
    counted_j = board.energy_j() - before_j
    done.set()
    thread.join()
    integrated_j = math.fsum((a[1] + b[1]) / 2 * (b[0] - a[0]) for a, b in pairwise(samples))
    elapsed_s = samples[-1][0] - samples[0][0]
    where = "under load" if loaded else "idle"
    watts = f"{counted_j / elapsed_s:.1f} W by the counter, {integrated_j / elapsed_s:.1f} W by power"
    figure(f"counter over integrated power, {where}", f"{counted_j / integrated_j:.3f} ({watts})")
    assert 0.4 < counted_j / integrated_j < 2.5


def test_what_regions_have_is_what_the_board_counted(board: Board, load: Load, figure: Figure) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegradedWarning)
        meter = Meter(Settings.load({}, export="none", boundary="machine", sources="nvml"))
    before_j = board.energy_j()

    def worker() -> None:
        load.here()
        for _ in range(10):
            with meter.measured("worker", span=False):
                load.work(0.05)

    with meter.measured("outer") as outer:
        threads = [threading.Thread(target=worker) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            with meter.measured("burst", sync=False):
                load.work(0.1)
            with meter.measured("pause", span=False):
                time.sleep(0.05)
        for thread in threads:
            thread.join()
    found = outer.result()
    after_j = board.energy_j()
    meter.flush()
    totals = meter.totals()
    meter.close()
    conserved(totals)
    assert found.method == "nvml.total_energy"
    assert found.energy_low_j is not None
    assert found.energy_high_j is not None
    counted_j = totals.channels[f"gpu:{board.uuid}"]
    mean_w = (after_j - before_j) / found.duration_s
    assert counted_j == pytest.approx(after_j - before_j, abs=SLACK_S * mean_w + 0.05 * counted_j)
    spread = f"[{found.energy_low_j:.1f}, {found.energy_high_j:.1f}]"
    figure("regions on the board", f"{found.energy_j:.1f} J in {spread}, {found.quality}, {found.duration_s:.2f} s")
    own_j = math.fsum(operation.energy_j or 0.0 for operation in totals.operations.values())
    figure("own energy of all regions less what is attributed", f"{own_j - totals.attributed_j:.1e} J of {counted_j:.1f} J")
