"""A provider that asks a network never keeps its caller waiting, never storms a server, and says what is wrong."""

from __future__ import annotations

import gzip
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("requests", reason="the extra `live` is not installed")

from impactsdk.errors import ConfigurationError
from impactsdk.factor import Factor, Place
from impactsdk.factors.live import Held, LiveProvider, UnusableAnswerError, instant_ns, intensity_in
from impactsdk.protocols import FactorProvider
from tests.factors.stand_in import BRITAIN, CALIFORNIA, FRANCE, NOON_NS, NOW_NS, Answer, StandIn, until
from tests.kit import script

HOUR_NS = 3_600_000_000_000


class Weather(LiveProvider):
    """The least that a provider has to be."""

    name = "weather"
    title = "The weather"
    url_variable = "WEATHER_URL"
    access_remedy = "ask nicely"
    zone_remedy = "move"

    def __init__(self, url: str, *, timeout_s: float = 20.0) -> None:
        self.now = 0.0
        self.dice = 1.0
        super().__init__(
            url, timeout_s=timeout_s, refresh_s=300.0, fresh_s=3600.0, now_s=lambda: self.now, jitter=lambda: self.dice
        )

    def zone_of(self, place: Place) -> str | None:
        return None if place is CALIFORNIA else place.iso2

    def request(self, zone: str) -> tuple[str, Mapping[str, str], Mapping[str, str]]:
        return "now", {"zone": zone}, {}

    def read(self, document: object, zone: str) -> Held:
        assert isinstance(document, dict)
        value = intensity_in(document.get("value"), "value")
        since_ns = instant_ns(document.get("at", "2026-03-01T12:00Z"), "at")
        factor = Factor("carbon_intensity", value, "g{CO2e}/(kW.h)", "weather", place=zone)
        return Held(factor, since_ns, since_ns + HOUR_NS)

    def value(self, place: Place | None = FRANCE, unix_ns: int = NOW_NS) -> float | None:
        """What it says now, from memory."""
        found = self.factors(place=place, unix_ns=unix_ns)
        assert len(found) <= 1
        return found[0].value if found else None

    def at_rest(self) -> bool:
        # Python 3.13 strikes a thread off its list a moment before the thread counts as ended.
        running = [thread for thread in threading.enumerate() if thread.name == "impactsdk-weather"]
        return not running and (self._thread is None or not self._thread.is_alive())

    def ask(self, unix_ns: int = NOW_NS) -> float | None:
        """Ask, let it fetch, and ask again."""
        self.value(unix_ns=unix_ns)
        until(self.at_rest, "the end of the request")
        return self.value(unix_ns=unix_ns)


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn(Answer({"value": 50})) as stand_in:
        yield stand_in


@pytest.fixture
def weather(server: StandIn) -> Iterator[Weather]:
    provider = Weather(server.url)
    yield provider
    for answer in [server.answer, *server.answers]:
        if answer.hold is not None:
            answer.hold.set()
    provider.close()


def test_it_has_the_shape_of_a_provider(weather: Weather) -> None:
    assert isinstance(weather, FactorProvider)


# --- never waiting, never storming -------------------------------------------------------------------------------------------


def test_it_answers_at_once_while_the_server_takes_its_time(server: StandIn, weather: Weather) -> None:
    server.answer.hold = threading.Event()
    assert weather.value() is None
    until(lambda: server.requests, "the request")
    # The server answers only when told to below: whoever waited for it would never get there.
    assert [weather.value() for _ in range(100)] == [None] * 100
    server.answer.hold.set()
    until(lambda: weather.value() == 50.0)
    assert len(server.requests) == 1


def test_the_last_value_is_used_while_the_next_is_on_its_way(server: StandIn, weather: Weather) -> None:
    assert weather.ask() == 50.0
    server.answer = Answer({"value": 60}, hold=threading.Event())
    weather.now += 300.0
    assert weather.value() == 50.0
    until(lambda: len(server.requests) == 2)
    assert weather.value() == 50.0
    assert server.answer.hold is not None
    server.answer.hold.set()
    until(lambda: weather.value() == 60.0)


def test_there_is_never_more_than_one_request_under_way(server: StandIn, weather: Weather) -> None:
    server.answer.hold = threading.Event()
    callers = [threading.Thread(target=lambda: [weather.value(place) for place in (FRANCE, BRITAIN) * 50]) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    until(lambda: server.requests)
    weather.now += 100_000.0
    assert weather.value() is None
    assert len([thread for thread in threading.enumerate() if thread.name == "impactsdk-weather"]) == 1
    assert len(server.requests) == 1


def test_it_asks_again_only_when_it_is_due(server: StandIn, weather: Weather) -> None:
    weather.ask()
    for now_s, requests in ((0.0, 1), (299.0, 1), (300.0, 2), (599.0, 2), (601.0, 3)):
        weather.now = now_s
        weather.ask()
        assert len(server.requests) == requests, now_s


def test_a_value_is_used_for_its_hour_and_one_more(weather: Weather) -> None:
    assert weather.ask() == 50.0
    assert weather.value(unix_ns=NOON_NS + 2 * HOUR_NS - 1) == 50.0
    assert weather.value(unix_ns=NOON_NS + 2 * HOUR_NS) is None
    assert weather.value(unix_ns=NOON_NS - HOUR_NS) == 50.0, "clocks differ"
    assert weather.value(unix_ns=NOON_NS - HOUR_NS - 1) is None


def test_each_zone_has_a_memory_of_its_own(server: StandIn, weather: Weather) -> None:
    assert weather.ask() == 50.0
    server.answer = Answer({"value": 70})
    assert weather.value(BRITAIN) is None
    until(weather.at_rest)
    assert (weather.value(BRITAIN), weather.value(FRANCE)) == (70.0, 50.0)
    assert [path for path, _ in server.requests] == ["/now?zone=FR", "/now?zone=GB"]


def test_without_a_place_or_with_one_that_it_does_not_serve_nothing_is_asked(server: StandIn, weather: Weather) -> None:
    assert weather.value(None) is None
    assert weather.trouble is None
    assert weather.value(CALIFORNIA) is None
    assert "does not serve California" in str(weather.trouble)
    assert weather.at_rest()
    assert server.requests == []


def test_without_a_place_no_socket_is_opened(tmp_path: Path) -> None:
    output, errors = script(
        """
import sys, threading
from impactsdk.factors.electricity_maps import ElectricityMaps
from impactsdk.factors.uk_carbon_intensity import UkCarbonIntensity
providers = [ElectricityMaps("t"), ElectricityMaps("t", zone="FR"), UkCarbonIntensity()]
events = []
sys.addaudithook(lambda event, args: events.append(event) if event.startswith("socket.") else None)
for provider in providers:
    for _ in range(3):
        assert provider.factors(place=None, unix_ns=1_772_366_400_000_000_000) == ()
print(events, threading.active_count())
""",
        tmp_path,
    )
    assert (output, errors) == ("[] 1\n", "")


# --- threads, closing and forks ----------------------------------------------------------------------------------------------


def test_its_thread_is_a_daemon_and_ends_by_itself(server: StandIn, weather: Weather) -> None:
    server.answer.hold = threading.Event()
    weather.value()
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "impactsdk-weather"]
    assert thread.daemon
    server.answer.hold.set()
    thread.join(20.0)
    assert not thread.is_alive()


def test_it_may_be_closed_at_any_time_and_asked_again(server: StandIn, weather: Weather) -> None:
    weather.close()
    weather.value()
    weather.close()
    weather.close()
    until(weather.at_rest)
    assert weather.value() == 50.0
    weather.now += 300.0
    server.answer = Answer({"value": 51})
    assert weather.ask() == 51.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_asks_for_itself_though_its_parent_was_forked_in_the_middle_of_a_request(tmp_path: Path) -> None:
    child_has_asked = threading.Event()
    with StandIn(
        Answer({"data": [{"from": "2026-03-01T12:00Z", "to": "2026-03-01T12:30Z", "intensity": {"forecast": 9}}]})
    ) as it:
        it.answers = [Answer(it.answer.body, hold=child_has_asked)]
        runner = threading.Thread(target=lambda: (until(lambda: len(it.requests) == 2), child_has_asked.set()))
        runner.start()
        output, _ = script(
            f"""
import os, sys, time, warnings
warnings.simplefilter("ignore")
from impactsdk.factor import Place
from impactsdk.factors.uk_carbon_intensity import UkCarbonIntensity
provider = UkCarbonIntensity(url="{it.url}", timeout_s=20.0)

def value():
    return [factor.value for factor in provider.factors(place=Place("GB", "", iso2="GB"), unix_ns={NOW_NS})]

value()
provider._lock.acquire()  # as another thread might hold it
pid = os.fork()
if pid:
    provider._lock.release()
end = time.monotonic() + 20
while not value() and time.monotonic() < end:
    time.sleep(0.005)
print("parent" if pid else "child", value(), flush=True)
provider.close()
if pid:
    sys.exit(os.waitpid(pid, 0)[1])
os._exit(0)
""",
            tmp_path,
        )
        runner.join()
    assert sorted(output.splitlines()) == ["child [9.0]", "parent [9.0]"]
    assert len(it.requests) == 2


def test_a_thread_that_cannot_be_started_is_tried_later(weather: Weather, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert weather.value() is None
    assert weather.ask() is None
    weather.now += 15.0
    assert weather.ask() == 50.0


# --- failures ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "what", "remedy"),
    [
        (401, "refuses access (401)", "ask nicely"),
        (403, "refuses access (403)", "ask nicely"),
        (404, "does not know the zone or has no data for it (404)", "move"),
        (429, "wants fewer requests (429)", "wait, ask from fewer processes or raise refresh_s"),
        (500, "has a fault of its own (500)", "wait, it is asked again by itself"),
        (503, "has a fault of its own (503)", "wait, it is asked again by itself"),
        (418, "refuses the request (418)", "set WEATHER_URL to where it is now"),
        (301, "sends us elsewhere (301)", "set WEATHER_URL to where it is now"),
    ],
)
def test_each_refusal_is_told_with_its_remedy(server: StandIn, weather: Weather, status: int, what: str, remedy: str) -> None:
    server.answer = Answer({"value": 50}, status, {"Location": server.url + "/elsewhere"})
    assert weather.ask() is None
    assert weather.trouble == f"The weather {what}, asked for FR: the bundled yearly averages are used instead; {remedy}"
    assert [path for path, _ in server.requests] == ["/now?zone=FR"], "a redirect is not followed"


def test_what_holds_is_used_through_a_failure_and_the_trouble_ends_with_it(server: StandIn, weather: Weather) -> None:
    assert weather.ask() == 50.0
    assert weather.trouble is None
    server.answer = Answer(status=500)
    weather.now += 300.0
    assert weather.ask() == 50.0
    assert weather.trouble is not None
    assert "its last value is used as long as it is fresh, then the bundled yearly averages" in weather.trouble
    server.answer = Answer({"value": 55})
    weather.now += 15.0
    assert weather.ask() == 55.0
    assert weather.trouble is None


def _pauses(server: StandIn, weather: Weather, failures: int) -> list[float]:
    """How long it waits after each of several failures, to the second."""
    pauses = []
    for _ in range(failures):
        weather.ask()
        known, began_s = len(server.requests), weather.now
        weather.now = weather._memory["FR"].due_s - 1.0
        weather.ask()
        assert len(server.requests) == known, "it asked too early"
        weather.now += 1.0
        pauses.append(weather.now - began_s)
    return pauses


def test_pauses_double_up_to_a_ceiling_and_begin_anew_after_a_success(server: StandIn, weather: Weather) -> None:
    server.answer = Answer(status=500)
    assert _pauses(server, weather, 9) == [15.0, 30.0, 60.0, 120.0, 240.0, 480.0, 900.0, 900.0, 900.0]
    server.answer = Answer({"value": 50})
    weather.ask()
    weather.now += 300.0
    server.answer = Answer(status=500)
    assert _pauses(server, weather, 2) == [15.0, 30.0]


def test_jitter_shortens_a_pause_by_up_to_half(server: StandIn, weather: Weather) -> None:
    server.answer = Answer(status=500)
    weather.dice = 0.0
    assert _pauses(server, weather, 2) == [7.5, 15.0]


def test_what_only_a_person_can_mend_is_not_tried_often(server: StandIn, weather: Weather) -> None:
    server.answer = Answer(status=401)
    assert _pauses(server, weather, 2) == [900.0, 900.0]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "pause_s"),
    [
        ("120", 120.0),
        ("0", 15.0),
        ("-5", 15.0),
        ("99999999", 3600.0),
        ("soon", 15.0),
        ("", 15.0),
        (formatdate(NOW_NS / 1e9 + 200, usegmt=True), 200.0),
        (formatdate(NOW_NS / 1e9 - 200, usegmt=True), 15.0),
        (formatdate(NOW_NS / 1e9 + 86_400, usegmt=True), 3600.0),
        ("Sun, 99 Foo 2026 12:00:00 GMT", 15.0),
    ],
)
def test_retry_after_is_honoured_within_limits(
    server: StandIn, weather: Weather, status: int, retry_after: str, pause_s: float
) -> None:
    server.answer = Answer(status=status, headers={"Retry-After": retry_after})
    assert _pauses(server, weather, 1) == [pause_s]


def test_a_server_that_does_not_answer_is_given_up(server: StandIn) -> None:
    provider = Weather(server.url, timeout_s=0.05)
    server.answer.hold = threading.Event()
    assert provider.ask() is None
    assert provider.trouble is not None
    assert "did not answer within 0.05 s" in provider.trouble
    assert provider.trouble.endswith("check the network and the proxy, or raise timeout_s")


def test_a_server_that_answers_drop_by_drop_is_given_up_too(server: StandIn) -> None:
    provider = Weather(server.url, timeout_s=0.2)
    server.answer = Answer(b" " * 60_000, drip=True)
    assert provider.ask() is None
    assert provider.trouble is not None
    assert "did not answer within 0.2 s" in provider.trouble


def test_a_server_that_is_gone_is_told() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    provider = Weather(f"http://someone:secret@127.0.0.1:{port}")
    assert provider.ask() is None
    assert provider.trouble is not None
    assert f"cannot be reached (127.0.0.1:{port})" in provider.trouble
    assert "secret" not in provider.trouble + repr(provider)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>hello</html>", "it is not JSON"),
        (b"", "it is not JSON"),
        (b"\xff\xfe\xfa", "it is not JSON"),
        (b"[" * 60_000, "it is not JSON"),
        (b'{"value": ' + b"9" * 50_000 + b"}", "it is not JSON|value is not between 0 and 5000 g/kWh"),
        (b'{"value": NaN}', "it is not JSON"),
        (b'{"value": Infinity}', "it is not JSON"),
        (b'{"value": 1e999}', "value is not between 0 and 5000 g/kWh"),
        (b'{"value": -1}', "value is not between 0 and 5000 g/kWh"),
        (b'{"value": 5001}', "value is not between 0 and 5000 g/kWh"),
        (b'{"value": true}', "value is no number"),
        (b'{"value": "50"}', "value is no number"),
        (b'{"value": null}', "value is no number"),
        (b"{}", "value is no number"),
        (b'{"value": 50, "at": "yesterday"}', "at is no instant"),
        (b'{"value": 50, "at": "2026-03-01T12:00"}', "at is no instant"),
        (b'{"value": 50, "at": 1772366400}', "at is no instant"),
        (b'{"value": 50, "at": "0001-01-01T00:00+14:00"}', "at is no instant|has nothing that holds for now"),
        (b'"' + b"x" * 70_000 + b'"', "it is larger than 64 kB"),
    ],
)
def test_garbage_is_told_and_not_used(server: StandIn, weather: Weather, body: bytes, why: str) -> None:
    server.answer = Answer(body)
    assert weather.ask() is None
    assert weather.trouble is not None
    assert any(words in weather.trouble for words in why.split("|")), weather.trouble


def test_a_compressed_answer_is_not_unpacked_for_it_may_be_a_bomb(server: StandIn, weather: Weather) -> None:
    server.answer = Answer(gzip.compress(b'{"value": 50}'), headers={"Content-Encoding": "gzip"})
    assert weather.ask() is None
    assert weather.trouble is not None
    assert "it is compressed" in weather.trouble
    assert server.requests[0][1]["Accept-Encoding"] == "identity"


def test_an_answer_that_breaks_off_is_not_used(server: StandIn, weather: Weather) -> None:
    server.answer = Answer(b'{"value": 50', headers={"Content-Length": "500"})
    assert weather.ask() is None
    assert weather.trouble is not None
    # An older urllib3 does not notice.
    assert "broke off its answer" in weather.trouble or "it is not JSON" in weather.trouble


def test_an_answer_for_another_time_is_not_used(server: StandIn, weather: Weather) -> None:
    server.answer = Answer({"value": 50, "at": "2026-03-01T07:00Z"})
    assert weather.ask() is None
    assert weather.trouble is not None
    assert "has nothing that holds for now" in weather.trouble
    assert weather._memory["FR"].due_s == 300.0, "asking sooner than usual would not help"


def test_a_fault_of_ours_is_told_and_does_not_end_the_asking(server: StandIn, weather: Weather) -> None:
    server.answer = Answer([])  # for which `read` above is not prepared
    assert weather.ask() is None
    assert weather.trouble is not None
    assert "could not be asked (AssertionError)" in weather.trouble
    server.answer = Answer({"value": 50})
    weather.now += 15.0
    assert weather.ask() == 50.0


def test_trouble_is_that_of_the_place_that_was_asked_for_last(server: StandIn, weather: Weather) -> None:
    server.answers = [Answer(status=500)]
    weather.ask()
    assert weather.trouble is not None
    weather.value(BRITAIN)
    until(weather.at_rest)
    assert weather.trouble is None
    assert weather.value(FRANCE) is None
    assert weather.trouble is not None


# --- what it is made of ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "example.org", "ftp://example.org", "http://", "https://x:port", "http://x/?a=b", None, 5])
def test_a_root_that_is_none_is_an_error_at_once(url: Any) -> None:
    with pytest.raises(ConfigurationError, match="WEATHER_URL"):
        Weather(url)


@pytest.mark.parametrize("timeout_s", [0, -1.0, float("nan"), float("inf"), "5", None, True])
def test_a_time_out_that_is_none_is_an_error_at_once(timeout_s: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout_s"):
        Weather("http://127.0.0.1", timeout_s=timeout_s)


def test_without_requests_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'impactsdk\[live\]'"):
        Weather("http://127.0.0.1")


def test_a_proxy_is_used_as_requests_does() -> None:
    with StandIn(Answer({"value": 77})) as proxy, pytest.MonkeyPatch.context() as environment:
        environment.setenv("http_proxy", proxy.url)
        environment.setenv("no_proxy", "")
        assert Weather("http://grid.invalid/root").ask() == 77.0
        assert [path for path, _ in proxy.requests] == ["http://grid.invalid/root/now?zone=FR"]


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())))
def test_an_intensity_is_a_number_that_a_grid_can_have_or_none(value: Any) -> None:
    try:
        assert 0.0 <= intensity_in(value, "x") <= 5000.0
    except UnusableAnswerError as error:
        assert str(error).startswith("x ")


@given(st.datetimes(timezones=st.timezones()))
def test_an_instant_is_read_as_it_is_written(moment: Any) -> None:
    moment = moment.replace(microsecond=0)
    if moment.utcoffset().seconds % 60 == 0:
        try:
            assert instant_ns(moment.isoformat(), "x") == round(moment.timestamp()) * 1_000_000_000
        except UnusableAnswerError:
            assert moment.year in (1, 9999)
