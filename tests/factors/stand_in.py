"""A server on this machine that plays the documented interfaces of Electricity Maps and of Britain's Carbon Intensity API."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import pytest

from impactsdk.factor import Place

FRANCE = Place("FR", "France", iso2="FR", iso3="FRA")
BRITAIN = Place("GB", "United Kingdom", iso2="GB", iso3="GBR")
CALIFORNIA = Place("US-CA", "California", iso2="US", iso3="USA", state="US-CA")

NOON_NS = 1_772_366_400_000_000_000
"""2026-03-01T12:00Z, the hour of every answer."""
NOW_NS = NOON_NS + 10 * 60 * 1_000_000_000


@dataclass
class Answer:
    """What the server says to one request."""

    body: Any = None
    """Bytes as they are, anything else as JSON."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    hold: threading.Event | None = None
    """The answer is kept back until it is set."""
    drip: bool = False
    """The body comes byte by byte, each of them in time."""


def electricity_maps(**changes: Any) -> Answer:
    body = {
        "zone": "FR",
        "carbonIntensity": 38,
        "datetime": "2026-03-01T12:00:00.000Z",
        "updatedAt": "2026-03-01T12:05:31.002Z",
        "createdAt": "2026-02-26T12:20:31.772Z",
        "emissionFactorType": "lifecycle",
        "isEstimated": False,
        "estimationMethod": None,
        "temporalGranularity": "hourly",
    }
    return Answer({name: value for name, value in (body | changes).items() if value is not ...})


def uk_carbon_intensity(*, forecast: Any = 266, actual: Any = 263, **changes: Any) -> Answer:
    intensity = {"forecast": forecast, "actual": actual, "index": "moderate"}
    slot = {"from": "2026-03-01T12:00Z", "to": "2026-03-01T12:30Z", "intensity": intensity}
    return Answer({"data": [slot | changes]})


class StandIn:
    """The server: it says ``answer``, or what ``answers`` hold for the first requests, and keeps who asked for what."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer = answer or electricity_maps()
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False  # so that closing waits for them
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="stand-in")
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> StandIn:
        self._environment = pytest.MonkeyPatch()
        self._environment.setenv("no_proxy", "127.0.0.1")  # a proxy of the machine is not to be asked for this one
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for answer in [self.answer, *self.answers]:
            if answer.hold is not None:
                answer.hold.set()
        self._environment.undo()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _next(self, path: str, headers: dict[str, str]) -> Answer:
        with self._lock:
            self.requests.append((path, headers))
            number = len(self.requests)
            return self.answers[number - 1] if number <= len(self.answers) else self.answer

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = stand_in._next(self.path, dict(self.headers))
                if answer.hold is not None:
                    answer.hold.wait(30.0)
                body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                try:
                    self.send_response(answer.status)
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    if "Content-Length" not in answer.headers:
                        self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    for piece in (bytes([byte]) for byte in body) if answer.drip else (body,):
                        self.wfile.write(piece)
                        time.sleep(0.002 if answer.drip else 0.0)
                except OSError:
                    pass  # who asked has gone

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that it has there
                pass

        return Handler


def until(condition: Callable[[], object], what: str = "", timeout_s: float = 20.0) -> None:
    """Wait for what another thread brings about."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, f"did not come about: {what or condition}"
        time.sleep(0.002)
