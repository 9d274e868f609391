"""A live grid in a measured run: nobody waits for it, and each number says which factor it was made with."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("requests", reason="the extra `live` is not installed")

from impactsdk import DegradedWarning, Meter, Settings
from impactsdk.factors.electricity_maps import ElectricityMaps
from impactsdk.testing import FakeClock, SimulatedSource
from tests.factors.stand_in import NOW_NS, Answer, StandIn, electricity_maps, until

FRANCE_TABLE = 41.44


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn() as stand_in:
        yield stand_in


def at_noon() -> FakeClock:
    """A clock in the hour that the server answers for."""
    return FakeClock(unix_s=NOW_NS / 1e9)


def run(meter: Meter, clock: FakeClock, name: str) -> tuple[float, str]:
    """One region of 100 J: its grams per kWh, and whose factor that was."""
    with meter.measured(name) as region:
        clock.advance(1.0)
    clock.advance(2.0)
    impact = region.result().impact
    assert impact.carbon_g is not None
    (factor,) = [factor for factor in impact.factors if factor.kind == "carbon_intensity"]
    return impact.carbon_g / 100 * 3.6e6, factor.source


def opened(server: StandIn, clock: FakeClock, **arguments: Any) -> Meter:
    provider = ElectricityMaps("t0ken", url=f"{server.url}/v3", **{"timeout_s": 20.0, **arguments})
    settings = Settings.load({}, export="none", region="FR", factors=[provider])
    return Meter(settings, sources=[SimulatedSource(100.0)], clock=clock)


def idle() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name == "impactsdk-electricity_maps"]


def test_the_table_holds_until_the_grid_has_answered_and_its_label_says_so(server: StandIn) -> None:
    hold = threading.Event()
    server.answer = Answer(electricity_maps().body, hold=hold)
    clock = at_noon()
    with opened(server, clock) as meter:
        assert run(meter, clock, "first") == (pytest.approx(FRANCE_TABLE), "owid-ember-2026")  # while the server is silent
        hold.set()
        until(idle)
        clock.advance(2.0)
        assert run(meter, clock, "second") == (pytest.approx(38.0), "electricity_maps")
        operations = meter.totals().operations
        assert operations["first"].impact.carbon_g == pytest.approx(100 / 3.6e6 * FRANCE_TABLE)
        assert operations["second"].impact.carbon_g == pytest.approx(100 / 3.6e6 * 38.0)


@pytest.mark.parametrize("answer", [Answer(status=401), Answer(status=429), Answer(status=500), Answer(b"<html>"), None])
def test_whatever_is_wrong_with_the_grid_the_table_is_used_and_it_is_said_once(server: StandIn, answer: Answer | None) -> None:
    clock = at_noon()
    if answer is None:  # nobody is there
        gone = StandIn()
        url = gone.url
        gone._server.server_close()
        provider = ElectricityMaps("t0ken", url=f"{url}/v3")
        settings = Settings.load({}, export="none", region="FR", factors=[provider])
        meter = Meter(settings, sources=[SimulatedSource(100.0)], clock=clock)
    else:
        server.answer = answer
        meter = opened(server, clock)
    with meter, pytest.warns(DegradedWarning, match="electricity_maps") as said:
        run(meter, clock, "first")
        until(idle)
        for name in ("second", "third"):
            assert run(meter, clock, name) == (pytest.approx(FRANCE_TABLE), "owid-ember-2026")
        meter.close()
    assert len([warning for warning in said if "electricity_maps" in str(warning.message)]) == 1
