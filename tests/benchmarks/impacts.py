"""What impacts cost: to compute those of one region, to load the tables, and on the path of who enters and leaves a region."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from impactsdk import Measurement, Meter, Settings
from impactsdk.factor import Factor
from impactsdk.factors.places import place_of
from impactsdk.factors.tables import BundledTables
from impactsdk.impact import Use, impact_of
from impactsdk.rates import Rates, rates_of
from impactsdk.testing import SimulatedSource

from .table import Table, verdict
from .timing import in_turns, median, median_ratio

LIMIT_US = 30.0
LIMIT_MS = 20.0
LIMIT_RATIO = 1.1
PLACE = "aws:us-east-1"
_IN_2025_NS = 1_750_000_000 * 10**9
_SCRIPT = """
import json, sys, time
import impactsdk
early = [name for name in sys.modules if name.startswith("impactsdk.factors")]
wall_s, cpu_s = time.perf_counter(), time.process_time()
from impactsdk.factors.places import place_of
from impactsdk.factors.tables import BundledTables
imported_s = time.perf_counter() - wall_s
found = BundledTables().factors(place=place_of({place!r}), unix_ns={unix_ns})
wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
print(json.dumps([1e3 * wall_s, 1e3 * cpu_s, 1e3 * imported_s, len(found), early]))
"""


def all_rates() -> Rates:
    """Every field known: the tables of a cloud region, two boards in a server, a rent and the worth of a unit."""
    factors = [
        *BundledTables().factors(place=place_of(PLACE), unix_ns=_IN_2025_NS),
        Factor("carbon_intensity_market", 50.0, "g{CO2e}/(kW.h)", "user"),
        *(Factor("embodied", 164_000.0, "g{CO2e}", "bench", low=82_000.0, high=273_000.0, place=f"gpu:{n}") for n in range(2)),
        Factor("embodied", 1_300_000.0, "g{CO2e}", "bench", low=650_000.0, high=1_950_000.0, place="server"),
        Factor("lifetime", 4.0, "a", "bench", low=3.0, high=6.0),
        Factor("compute_price", 2.5, "{USD}/h", "user"),
        Factor("unit_value", 0.01, "{USD}", "user"),
    ]
    return rates_of(factors, currency="USD")


def _computing(*, quick: bool) -> Table:
    times, rounds = (10, 3) if quick else (200, 201)
    rates, use = all_rates(), Use(1_234.5, 1_200.0, 1_300.0, 7.25, 64.0)
    made = impact_of(use, rates)
    unknown = [name for name in made.__slots__ if getattr(made, name) is None]
    small = {"name": "train", "energy_j": 1_234.5, "carbon_g": 0.13, "quality": "measured", "unit": "step", "units": 64}

    def dataclass() -> Measurement:
        return Measurement("x", 0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, {}, {}, "measured", "", "process", "measured", 1.0)

    works: dict[str, Callable[[], object]] = {
        "impacts of a region": lambda: impact_of(use, rates),
        "of one with others inside (whole, own)": lambda: (impact_of(use, rates), impact_of(use, rates)),
        "json.dumps of six values": lambda: json.dumps(small),
        "a Measurement with empty impacts": dataclass,
    }

    def repeated(work: Callable[[], object]) -> Callable[[], None]:
        def run_all() -> None:
            for _ in range(times):
                work()

        return run_all

    times_ns = in_turns({name: repeated(work) for name, work in works.items()}, rounds=rounds)
    table = Table("Impacts of one measurement (thread CPU)", ["what", "us", "/ json.dumps", "/ a Measurement", "limit", ""])
    for name, spent_ns in times_ns.items():
        us = median(spent_ns) / times / 1e3
        limit = (f"<= {LIMIT_US:g} us", verdict(us, LIMIT_US)) if name.startswith(("impacts", "of")) else ("", "")
        ratios = (median_ratio(spent_ns, times_ns[reference]) for reference in list(works)[2:])
        table.add(name, us, *(f"{ratio:.2f}" for ratio in ratios), *limit)
    table.note(
        f"{len(rates.lines)} fields of {len(rates.factors)} factors, each with its interval; unknown: {unknown or 'none'}"
    )
    return table


def _loading(*, quick: bool) -> Table:
    runs: list[tuple[float, float, float, int, list[str]]] = []
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as cache:  # byte code as an installed package has it, and none left in this folder
        environ["PYTHONPYCACHEPREFIX"] = cache
        command = [sys.executable, "-c", _SCRIPT.format(place=PLACE, unix_ns=_IN_2025_NS)]
        for _ in range((1 if quick else 15) + 1):
            done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
            runs.append(json.loads(done.stdout))
    del runs[0]  # it writes the byte code
    wall_ms, cpu_ms, imported_ms = (median(run[index] for run in runs) for index in range(3))
    table = Table("The bundled tables, first asked for in a fresh interpreter", ["what", "ms", "limit", ""])
    table.add(
        f"place_of and the {runs[0][3]} factors of {PLACE}, wall", wall_ms, f"<= {LIMIT_MS:g}", verdict(wall_ms, LIMIT_MS)
    )
    table.add("the same, CPU", cpu_ms, f"<= {LIMIT_MS:g}", verdict(cpu_ms, LIMIT_MS))
    table.add("of it importing the modules, wall", imported_ms, "", "")
    early = runs[0][4]
    table.add("impactsdk.factors loaded by import impactsdk", ", ".join(early) or "none", "none", verdict(len(early), 0))
    return table


def _entering(*, quick: bool) -> Table:
    times, rounds = (20, 3) if quick else (500, 201)

    def blocks(meter: Meter) -> Callable[[], None]:
        def run_all() -> None:
            for _ in range(times):
                with meter.measured("block", span=False):
                    pass

        return run_all

    with ExitStack() as stack:
        works: dict[str, Callable[[], object]] = {}
        for name, given in (("without factors", {"factors": "none"}), ("with a region set", {"region": PLACE})):
            settings = Settings.load({}, export="none", **given)
            meter = stack.enter_context(Meter(settings, sources=[SimulatedSource(200.0, tick_s=0.1)]))
            works[name] = blocks(meter)
        times_ns = in_turns(works, rounds=rounds, between=lambda: time.sleep(0.001))
    bare, priced = times_ns.values()
    ratio = median_ratio(priced, bare)
    table = Table("Entering and leaving a region (caller's thread CPU)", ["what", "us", "/ without factors", "limit", ""])
    table.add("without factors", median(bare) / times / 1e3, "1.00", "", "")
    table.add(
        "with a region set", median(priced) / times / 1e3, f"{ratio:.2f}", f"<= {LIMIT_RATIO:g}", verdict(ratio, LIMIT_RATIO)
    )
    return table


def run(*, quick: bool = False) -> Iterator[Table]:
    """Three tables."""
    for make in (_computing, _loading, _entering):
        yield make(quick=quick)
