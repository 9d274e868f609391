"""What only real counters can show. Skipped, with the reason, where there is none; nothing else depends on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from statistics import median

import pytest

from impactsdk import EnergySource, Settings, SourceUnavailableError
from impactsdk.clock import SystemClock
from impactsdk.sources import nvml, rapl

pytestmark = pytest.mark.hardware


def _opened(factory: Callable[[Settings], EnergySource]) -> tuple[EnergySource, list[str]]:
    source = factory(Settings.load({}))
    try:
        channels = source.open(SystemClock())
    except SourceUnavailableError as error:
        pytest.skip(str(error))
    return source, [channel.id for channel in channels]


def _read(source: EnergySource) -> dict[str, float]:
    return {reading.channel_id: reading.energy_j for reading in source.read() if reading.energy_j is not None}


@pytest.mark.parametrize("factory", [nvml.from_settings, rapl.from_settings], ids=["nvml", "rapl"])
def test_a_real_counter_moves_forward_by_a_plausible_power(factory: Callable[[Settings], EnergySource]) -> None:
    source, channels = _opened(factory)
    try:
        before, begun = _read(source), time.perf_counter()
        time.sleep(1.0)
        after, elapsed_s = _read(source), time.perf_counter() - begun
    finally:
        source.close()
    for channel in channels:
        assert 0.1 < (after[channel] - before[channel]) / elapsed_s < 5_000.0, channel


def test_the_tick_of_a_real_gpu_counter_is_where_the_facts_say() -> None:
    source, channels = _opened(nvml.from_settings)
    try:
        changes: list[float] = []
        last = _read(source)[channels[0]]
        end = time.perf_counter() + 3.0
        while time.perf_counter() < end:
            now = _read(source)[channels[0]]
            if now != last:
                changes.append(time.perf_counter())
                last = now
            time.sleep(0.001)
    finally:
        source.close()
    ticks_s = [later - earlier for earlier, later in pairwise(changes)]
    print(f"tick of {channels[0]}: median {median(ticks_s) * 1e3:.1f} ms over {len(ticks_s)} changes")
    assert 0.005 < median(ticks_s) < 0.25
