"""Britain's Carbon Intensity API: what is asked, and what becomes of the answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

pytest.importorskip("requests", reason="the extra `live` is not installed")

from impactsdk import Settings
from impactsdk.errors import ConfigurationError
from impactsdk.factor import Factor, Place
from impactsdk.factors.uk_carbon_intensity import UkCarbonIntensity, from_settings
from impactsdk.protocols import FactorProvider
from tests.factors.stand_in import BRITAIN, FRANCE, NOON_NS, NOW_NS, Answer, StandIn, uk_carbon_intensity, until

HALF_HOUR_NS = 1_800_000_000_000


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn(uk_carbon_intensity()) as stand_in:
        yield stand_in


def asked(server: StandIn, place: Place | None = BRITAIN) -> tuple[UkCarbonIntensity, list[Factor]]:
    """A provider that has asked once, and what it says."""
    provider = UkCarbonIntensity(url=server.url, timeout_s=20.0)
    assert provider.factors(place=place, unix_ns=NOW_NS) == ()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "impactsdk-uk_carbon_intensity"])
    found = list(provider.factors(place=place, unix_ns=NOW_NS))
    provider.close()
    return provider, found


def test_it_asks_as_documented_and_says_what_it_was_told(server: StandIn) -> None:
    provider, found = asked(server)
    assert isinstance(provider, FactorProvider)
    assert found == [
        Factor(
            kind="carbon_intensity",
            value=263.0,
            unit="g{CO2e}/(kW.h)",
            source="uk_carbon_intensity",
            place="GB",
            year=2026,
            scope="operational",
            nature="estimated",
            note="CO2 of generation only, actual, for the half hour from 2026-03-01T12:00Z.",
        )
    ]
    assert provider.trouble is None
    assert [path for path, _ in server.requests] == ["/intensity"]


def test_the_forecast_stands_in_for_an_actual_value_that_is_not_there_yet(server: StandIn) -> None:
    server.answer = uk_carbon_intensity(actual=None)
    _, (factor,) = asked(server)
    assert (factor.value, factor.nature) == (266.0, "forecast")
    assert factor.note == "CO2 of generation only, forecast, for the half hour from 2026-03-01T12:00Z."


def test_a_value_holds_for_its_half_hour_and_one_more(server: StandIn) -> None:
    provider, _ = asked(server)
    assert len(provider.factors(place=BRITAIN, unix_ns=NOON_NS + 2 * HALF_HOUR_NS - 1)) == 1
    assert provider.factors(place=BRITAIN, unix_ns=NOON_NS + 2 * HALF_HOUR_NS) == ()


@pytest.mark.parametrize("place", [None, FRANCE, Place("x", "x"), Place("GB-NIR", "Northern Ireland", iso2="GB")])
def test_only_great_britain_is_asked_for(server: StandIn, place: Place | None) -> None:
    provider, found = asked(server, place)
    assert (found, server.requests) == ([], [])
    assert (provider.trouble is None) == (place is None)  # that it does not serve a place that is known, it says


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer([]), "data[0].intensity is missing"),
        (Answer({"data": []}), "data[0].intensity is missing"),
        (Answer({"data": {"from": "2026-03-01T12:00Z"}}), "data[0].intensity is missing"),
        (uk_carbon_intensity(intensity=[263]), "data[0].intensity is missing"),
        (uk_carbon_intensity(actual=None, forecast=None), "forecast is no number"),
        (uk_carbon_intensity(actual="263"), "actual is no number"),
        (uk_carbon_intensity(actual=-1), "actual is not between 0 and 5000 g/kWh"),
        (uk_carbon_intensity(**{"from": "now"}), "from is no instant"),
        (uk_carbon_intensity(to=None), "to is no instant"),
        (uk_carbon_intensity(to="2026-03-01T12:00Z"), "from and to are not the ends of a half hour"),
        (uk_carbon_intensity(to="2036-03-01T12:00Z"), "from and to are not the ends of a half hour"),
    ],
)
def test_an_answer_that_is_not_as_documented_is_told_and_not_used(server: StandIn, answer: Answer, why: str) -> None:
    server.answer = answer
    provider, found = asked(server)
    assert found == []
    assert provider.trouble is not None
    assert f"gave an answer that cannot be used ({why})" in provider.trouble


@pytest.mark.parametrize("status", [401, 404, 500])
def test_its_failures_name_what_can_be_set(server: StandIn, status: int) -> None:
    server.answer = Answer({"error": {"code": "500 Internal Server Error", "message": "Requested resource not found."}}, status)
    provider, found = asked(server)
    assert found == []
    assert provider.trouble is not None
    assert provider.trouble.startswith("The Carbon Intensity API of Great Britain ")
    assert ("IMPACTSDK_UK_CARBON_INTENSITY_URL" in provider.trouble) == (status != 500)


def test_the_variable_says_another_root(server: StandIn) -> None:
    provider = from_settings(Settings.load({"IMPACTSDK_UK_CARBON_INTENSITY_URL": f" {server.url}/mirror/ "}))
    assert provider.name == "uk_carbon_intensity"
    provider.factors(place=BRITAIN, unix_ns=NOW_NS)
    until(lambda: provider.factors(place=BRITAIN, unix_ns=NOW_NS))
    provider.close()
    assert [path for path, _ in server.requests] == ["/mirror/intensity"]


def test_a_root_that_is_none_is_an_error_that_names_the_variable() -> None:
    with pytest.raises(ConfigurationError, match="IMPACTSDK_UK_CARBON_INTENSITY_URL"):
        from_settings(Settings.load({"IMPACTSDK_UK_CARBON_INTENSITY_URL": "carbonintensity.org.uk"}))


def test_without_variables_it_is_the_official_root() -> None:
    assert repr(from_settings(Settings.load({}))) == "UkCarbonIntensity(api.carbonintensity.org.uk)"
