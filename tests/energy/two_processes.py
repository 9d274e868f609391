"""One of several processes that measure the same device: ``python two_processes.py <sharing> <boundary> <seconds>``.

Prints a line of JSON: what it counted, and between which instants of the clock that all processes of a host share.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from impactsdk import Meter, Settings
from impactsdk.model import Channel, Reading

POWER_W = 100.0
RANGE_J = math.inf


class WallSource:
    """A device whose counter all processes see alike. Its power steps up and down every 37 ms."""

    name = "wall"

    def __init__(self, sharing: Any) -> None:
        self.sharing = sharing
        self.first_ns = 0

    def open(self, clock: object) -> Sequence[Channel]:
        kind = "gpu" if self.sharing == "board" else "cpu"
        return [
            Channel("wall:0", kind, "wall", tick_s=0.0, max_power_w=2 * POWER_W, sharing=self.sharing, host_range_j=RANGE_J)
        ]

    def read(self) -> Iterator[Reading]:
        self.first_ns = self.first_ns or time.perf_counter_ns()
        yield Reading("wall:0", energy_j(time.perf_counter_ns()))

    def close(self) -> None:
        pass


def energy_j(at_ns: int) -> float:
    steps, rest_ns = divmod(at_ns, 74_000_000)
    return 2 * POWER_W * (steps * 37_000_000 + max(0, rest_ns - 37_000_000)) * 1e-9


def main(sharing: str, boundary: str, seconds: str) -> None:
    source = WallSource(sharing)
    with Meter(Settings.load(export="none", boundary=boundary), sources=[source]) as meter:
        with meter.measured("first"):
            pass
        until_s = time.perf_counter() + float(seconds)
        while time.perf_counter() < until_s:
            with meter.measured("burn"):
                stop_s = time.perf_counter() + 0.05
                while time.perf_counter() < stop_s:
                    pass
            time.sleep(0.02)
        ended_ns = time.perf_counter_ns()
    totals = meter.totals()
    print(
        json.dumps(
            {
                "own_j": totals.attributed_j + totals.unattributed_j,
                "attributed_j": totals.attributed_j,
                "others_j": totals.others_j,
                "counted_j": sum(totals.channels.values()),
                "begun_ns": source.first_ns,
                "ended_ns": ended_ns,
                "closed_ns": time.perf_counter_ns(),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
