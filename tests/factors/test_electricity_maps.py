"""Electricity Maps: what is asked, what becomes of the answer, and that the token stays where it belongs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("requests", reason="the extra `live` is not installed")

from impactsdk import Settings
from impactsdk.errors import ConfigurationError
from impactsdk.factor import Factor, Place
from impactsdk.factors.electricity_maps import ElectricityMaps, from_settings
from impactsdk.protocols import FactorProvider
from tests.factors.stand_in import CALIFORNIA, FRANCE, NOON_NS, NOW_NS, Answer, StandIn, electricity_maps, until

TOKEN = "t0p-s3cret"
HOUR_NS = 3_600_000_000_000


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn() as stand_in:
        yield stand_in


def asked(server: StandIn, place: Place | None = FRANCE, **arguments: Any) -> tuple[ElectricityMaps, list[Factor]]:
    """A provider that has asked once, and what it says."""
    provider = ElectricityMaps(TOKEN, url=f"{server.url}/v3", **{"timeout_s": 20.0, **arguments})
    assert provider.factors(place=place, unix_ns=NOW_NS) == ()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "impactsdk-electricity_maps"])
    found = list(provider.factors(place=place, unix_ns=NOW_NS))
    provider.close()
    return provider, found


def test_it_asks_as_documented_and_says_what_it_was_told(server: StandIn) -> None:
    provider, found = asked(server)
    assert isinstance(provider, FactorProvider)
    assert found == [
        Factor(
            kind="carbon_intensity",
            value=38.0,
            unit="g{CO2e}/(kW.h)",
            source="electricity_maps",
            place="FR",
            year=2026,
            scope="lifecycle",
            nature="calculated",
            note="For the hour from 2026-03-01T12:00Z.",
        )
    ]
    assert provider.trouble is None
    ((path, headers),) = server.requests
    assert path == "/v3/carbon-intensity/latest?zone=FR&disableCallerLookup=true"
    assert headers["auth-token"] == TOKEN


def test_an_estimate_is_told_as_one_with_its_method(server: StandIn) -> None:
    server.answer = electricity_maps(isEstimated=True, estimationMethod="TIME_SLICER_AVERAGE", emissionFactorType="direct")
    _, (factor,) = asked(server)
    assert (factor.nature, factor.scope) == ("estimated", "direct")
    assert factor.note == "For the hour from 2026-03-01T12:00Z, estimated by TIME_SLICER_AVERAGE."


def test_a_value_holds_for_its_hour_and_one_more(server: StandIn) -> None:
    provider, _ = asked(server)
    assert len(provider.factors(place=FRANCE, unix_ns=NOON_NS + 2 * HOUR_NS - 1)) == 1
    assert provider.factors(place=FRANCE, unix_ns=NOON_NS + 2 * HOUR_NS) == ()


def test_a_state_is_asked_for_as_its_country_unless_a_zone_is_given(server: StandIn) -> None:
    server.answer = electricity_maps(zone="US")
    _, (factor,) = asked(server, CALIFORNIA)
    assert factor.place == "US"
    server.answer = electricity_maps(zone="US-CAL-CISO")
    _, (factor,) = asked(server, CALIFORNIA, zone=" US-CAL-CISO ")
    assert factor.place == "US-CAL-CISO"
    assert "zone=US-CAL-CISO&" in server.requests[-1][0]


@pytest.mark.parametrize("place", [Place("aws:x", "somewhere"), Place("x", "x", iso2=""), Place("x", "x", iso2="../")])
def test_a_place_without_a_country_is_not_asked_for(server: StandIn, place: Place) -> None:
    assert asked(server, place)[1] == []
    assert server.requests == []


def test_a_zone_without_a_place_is_not_asked_for_and_that_is_told(server: StandIn) -> None:
    provider, found = asked(server, None, zone="FR")
    assert (found, server.requests) == ([], [])
    assert provider.trouble is not None
    assert provider.trouble.endswith("set IMPACTSDK_REGION")
    assert asked(server, None)[0].trouble is None


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer([]), "it is not a JSON object"),
        (Answer({"error": "No recent data for zone"}), "it is not for the zone that was asked for"),
        (electricity_maps(zone="DE"), "it is not for the zone that was asked for"),
        (electricity_maps(carbonIntensity=...), "carbonIntensity is no number"),
        (electricity_maps(carbonIntensity=None), "carbonIntensity is no number"),
        (electricity_maps(carbonIntensity=-3), "carbonIntensity is not between 0 and 5000 g/kWh"),
        (electricity_maps(carbonIntensity=38_000), "carbonIntensity is not between 0 and 5000 g/kWh"),
        (electricity_maps(datetime=...), "datetime is no instant"),
        (electricity_maps(datetime="noon"), "datetime is no instant"),
        (electricity_maps(emissionFactorType=...), "emissionFactorType is neither lifecycle nor direct"),
        (electricity_maps(emissionFactorType=["direct"]), "emissionFactorType is neither lifecycle nor direct"),
        (electricity_maps(isEstimated=...), "isEstimated is neither true nor false"),
        (electricity_maps(isEstimated="false"), "isEstimated is neither true nor false"),
    ],
)
def test_an_answer_that_is_not_as_documented_is_told_and_not_used(server: StandIn, answer: Answer, why: str) -> None:
    server.answer = answer
    provider, found = asked(server)
    assert found == []
    assert provider.trouble == (
        f"Electricity Maps gave an answer that cannot be used ({why}), asked for FR: the bundled yearly averages are used "
        "instead; check IMPACTSDK_ELECTRICITY_MAPS_URL and the proxy"
    )


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "set IMPACTSDK_ELECTRICITY_MAPS_TOKEN to a token that is valid for this zone"),
        (403, "set IMPACTSDK_ELECTRICITY_MAPS_TOKEN to a token that is valid for this zone"),
        (404, "set IMPACTSDK_ELECTRICITY_MAPS_ZONE to one of the zones that app.electricitymaps.com shows"),
    ],
)
def test_a_refusal_names_the_variable_to_set(server: StandIn, status: int, remedy: str) -> None:
    server.answer = Answer({"error": "Invalid auth-token", "message": f"The token {TOKEN} is invalid"}, status)
    provider, found = asked(server)
    assert found == []
    assert provider.trouble is not None
    assert provider.trouble.endswith(remedy)


@pytest.mark.parametrize(
    "answer",
    [
        electricity_maps(),
        Answer(TOKEN, 401),
        Answer(TOKEN),
        Answer(status=302, headers={"Location": f"http://127.0.0.1:1/{TOKEN}"}),
        electricity_maps(estimationMethod=TOKEN, isEstimated=True, zone=TOKEN),
        Answer({"zone": "FR"}, headers={"Content-Encoding": TOKEN}),
        Answer(b"x", headers={"Content-Length": "9"}),
    ],
)
def test_the_token_is_nowhere_to_be_read(server: StandIn, answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.answer = answer
    provider, found = asked(server)
    assert server.requests
    seen = [
        repr(provider),
        str(provider),
        str(provider.trouble),
        str(found),
        *(record.getMessage() for record in caplog.records),
    ]
    assert not [text for text in seen if TOKEN in text]


# --- settings ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, "", "  ", 5, "two words", "line\nbreak", "Ünicode"])
def test_a_token_that_is_none_is_an_error_that_names_the_variable_and_not_the_token(token: Any) -> None:
    with pytest.raises(ConfigurationError, match="IMPACTSDK_ELECTRICITY_MAPS_TOKEN") as raised:
        ElectricityMaps(token)
    assert "words" not in str(raised.value)


@pytest.mark.parametrize("zone", ["", "F", "F R", "FR&x=1", "../FR", "x" * 40])
def test_a_zone_that_is_none_is_an_error(zone: str) -> None:
    with pytest.raises(ConfigurationError, match="IMPACTSDK_ELECTRICITY_MAPS_ZONE"):
        ElectricityMaps(TOKEN, zone=zone)


def test_the_variables_say_token_root_and_zone(server: StandIn) -> None:
    server.answer = electricity_maps(zone="DK-DK1")
    environment = {
        "IMPACTSDK_ELECTRICITY_MAPS_TOKEN": f" {TOKEN}\n",
        "IMPACTSDK_ELECTRICITY_MAPS_URL": f"{server.url}/v3/",
        "IMPACTSDK_ELECTRICITY_MAPS_ZONE": "DK-DK1",
    }
    provider = from_settings(Settings.load(environment))
    assert provider.name == "electricity_maps"
    provider.factors(place=FRANCE, unix_ns=NOW_NS)
    until(lambda: provider.factors(place=FRANCE, unix_ns=NOW_NS))
    provider.close()
    ((path, headers),) = server.requests
    assert path.startswith("/v3/carbon-intensity/latest?zone=DK-DK1")
    assert headers["auth-token"] == TOKEN


def test_without_a_token_in_the_settings_it_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="IMPACTSDK_ELECTRICITY_MAPS_TOKEN"):
        from_settings(Settings.load({"IMPACTSDK_ELECTRICITY_MAPS_TOKEN": "  "}))
