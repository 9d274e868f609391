"""What only real counters can show. Skipped, with the reason, where there is none; nothing else depends on it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from impactsdk import EnergySource, Settings, SourceUnavailableError
from impactsdk.clock import SystemClock
from impactsdk.sources import nvml, rapl

pytestmark = pytest.mark.hardware


def _read(source: EnergySource) -> dict[str, float]:
    return {reading.channel_id: reading.energy_j for reading in source.read() if reading.energy_j is not None}


@pytest.mark.parametrize("factory", [nvml.from_settings, rapl.from_settings], ids=["nvml", "rapl"])
def test_a_real_counter_moves_forward_by_a_plausible_power(
    factory: Callable[[Settings], EnergySource], figure: Callable[[str, str], None]
) -> None:
    source = factory(Settings.load({}))
    try:
        channels = source.open(SystemClock())
    except SourceUnavailableError as error:
        pytest.skip(str(error))
    try:
        before, begun_s = _read(source), time.perf_counter()
        time.sleep(1.0)
        after, elapsed_s = _read(source), time.perf_counter() - begun_s
    finally:
        source.close()
    for channel in channels:
        power_w = (after[channel.id] - before[channel.id]) / elapsed_s
        figure(f"power of {channel.id} over a second", f"{power_w:.1f} W ({channel.method})")
        assert 0.1 < power_w < 5_000.0, channel
