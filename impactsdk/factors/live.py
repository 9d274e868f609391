"""The base of a provider that asks a network: it answers from memory, and a thread of its own keeps the memory fresh.

Whoever asks never waits. If what is remembered is missing or due, one daemon thread is started that fetches once and ends;
there is never a second one beside it. A value is used during the time that it holds for and ``fresh_s`` beyond; after that the
answer is empty, and whoever comes next (the bundled tables) has its turn.

A failure costs a sentence in ``trouble`` and a pause that doubles with each further failure, with jitter and up to a ceiling,
so that a fleet does not return to a server in trouble all at once. The token appears in no sentence, nor does the text of
foreign exceptions, which may quote it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from impactsdk.errors import ConfigurationError
from impactsdk.factor import Factor, Place

if TYPE_CHECKING:
    from requests import Response

__all__ = ["Held", "LiveProvider", "UnusableAnswerError", "instant_ns", "intensity_in"]

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 15.0, 900.0
# A server may ask for a longer pause than we would take, but not for one that outlives the job.
_LONGEST_RETRY_AFTER_S = 3600.0
_DAY_S = 86_400.0
_BROKEN = {
    "ProxyError": "cannot be reached through the proxy",
    "SSLError": "cannot be reached by TLS",
    "ChunkedEncodingError": "broke off its answer",
}
_LARGEST_BODY = 64 * 1024
# Small, because the total time is looked at between two of them.
_CHUNK = 64
# A thread that sits in a system call cannot be ended; whoever closes waits this long for it and then lets it run out.
_CLOSE_S = 1.0
# No grid has ever come near: burning lignite alone gives about 1200 g/kWh.
_ABSURD_G_PER_KWH = 5000.0
# Not of the module, whose sequence belongs to the application; and not repeated in forked children.
_jitter = random.SystemRandom().random


class UnusableAnswerError(ValueError):
    """An answer says nothing usable, and why, in a few words; it becomes ``trouble`` and never leaves the provider."""


class _AskError(Exception):
    """A request that failed, in words for people."""

    def __init__(self, what: str, remedy: str, *, lasting: bool = False, pause_s: float = 0.0) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy
        self.lasting, self.pause_s = lasting, pause_s


@dataclass(frozen=True, slots=True)
class Held:
    """A factor and the time that it holds for, nanoseconds since 1970."""

    factor: Factor
    since_ns: int
    until_ns: int


@dataclass(slots=True)
class _Memory:
    """What is known about one zone."""

    held: Held | None = None
    due_s: float = -math.inf
    failures: int = 0
    trouble: str | None = None


class LiveProvider(ABC):
    """A provider of factors that keeps itself fresh in the background. Subclasses say where to ask and how to read the answer.

    Args:
        url: The root of the interface, ``http`` or ``https``.
        timeout_s: The most that connecting may take, and the most between two pieces of the answer, seconds.
        refresh_s: How long after an answer the next is asked for, seconds.
        fresh_s: How long a value is used beyond the time that it holds for, seconds.
        now_s: A monotonic clock in seconds.
        jitter: Numbers in [0, 1).

    Raises:
        ConfigurationError: ``requests`` is not installed, or an argument cannot be used.
    """

    name: str
    title: str
    """For people: ``Electricity Maps``."""
    url_variable: str
    """The variable that names another root."""
    access_remedy: str
    """What to do if access is refused."""
    zone_remedy: str
    """What to do if a zone is not known there."""
    without_place: str | None = None
    """The trouble to be told while the place is unknown."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        refresh_s: float,
        fresh_s: float,
        now_s: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = _jitter,
    ) -> None:
        try:
            # Here and not first in the thread: a fork in the middle of an import leaves the child with a module half loaded.
            import requests  # noqa: F401
        except ImportError:
            message = f"{self.name} needs the package requests, which is not installed: pip install 'impactsdk[live]'"
            raise ConfigurationError(message) from None
        for argument, value in (("timeout_s", timeout_s), ("refresh_s", refresh_s), ("fresh_s", fresh_s)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _DAY_S:
                raise ConfigurationError(f"{argument}={value!r}: expected a number of seconds > 0 (at most a day)")
        self.trouble: str | None = None
        self._host, self._url = _host(url, self.url_variable), url.strip().rstrip("/")
        self._timeout_s, self._refresh_s, self._fresh_ns = timeout_s, refresh_s, round(fresh_s * 1e9)
        self._now_s, self._jitter = now_s, jitter
        self._memory: dict[str, _Memory] = {}
        self._asked: str | None = None
        self._thread: threading.Thread | None = None
        self._lock, self._pid = threading.Lock(), os.getpid()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._host})"

    @abstractmethod
    def zone_of(self, place: Place) -> str | None:
        """What the interface calls the place; ``None`` if it does not serve it, and then it is not asked."""

    @abstractmethod
    def request(self, zone: str) -> tuple[str, Mapping[str, str], Mapping[str, str]]:
        """The path below the root, the query and the headers that ask for a zone."""

    @abstractmethod
    def read(self, document: object, zone: str) -> Held:
        """The factor in an answer.

        Args:
            document: The parsed JSON, of any shape.
            zone: What was asked for.

        Raises:
            UnusableAnswerError: It is not there, or is not credible.
        """

    def factors(self, *, place: Place | None, unix_ns: int) -> Sequence[Factor]:
        """The last value for that place if it holds for ``unix_ns``, else nothing. Never waits for the network."""
        zone = None if place is None else self.zone_of(place)
        with self._own_lock():
            self._asked = zone
            if zone is None:
                self.trouble = self.without_place if place is None else self._elsewhere(place)
                return ()
            memory = self._memory.setdefault(zone, _Memory())
            self.trouble = memory.trouble
            if self._now_s() >= memory.due_s and (self._thread is None or not self._thread.is_alive()):
                self._start(zone, unix_ns)
            return (memory.held.factor,) if memory.held is not None and self._fits(memory.held, unix_ns) else ()

    def _elsewhere(self, place: Place) -> str:
        return f"{self.title} does not serve {place.name}: other factors are used there"

    def close(self) -> None:
        """Wait for a request that is under way, at most 1 s; a longer one ends by itself at its time-out."""
        with self._own_lock():
            thread = self._thread
        if thread is not None:
            thread.join(min(_CLOSE_S, self._timeout_s))

    def _own_lock(self) -> threading.Lock:
        if self._pid != os.getpid():
            # A fork: the lock may have been held at that instant by a thread that this process does not have.
            self._lock, self._thread, self._pid = threading.Lock(), None, os.getpid()
        return self._lock

    def _fits(self, held: Held, unix_ns: int) -> bool:
        # Before as well as after: their clock and ours need not agree.
        return held.since_ns - self._fresh_ns <= unix_ns < held.until_ns + self._fresh_ns

    def _start(self, zone: str, unix_ns: int) -> None:
        thread = threading.Thread(target=self._run, args=(zone, unix_ns), name=f"impactsdk-{self.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is about to end, or there are too many threads
            self._memory[zone].due_s = self._now_s() + _FIRST_PAUSE_S
        else:
            self._thread = thread

    def _run(self, zone: str, unix_ns: int) -> None:
        held: Held | None = None
        error: _AskError | None = None
        try:
            held = self.read(self._fetch(zone, unix_ns), zone)
        except _AskError as failed:
            error = failed
        except UnusableAnswerError as failed:
            error = _AskError(f"gave an answer that cannot be used ({failed})", f"check {self.url_variable} and the proxy")
        except Exception as failed:  # noqa: BLE001 - a thread that dies would leave its caller without a word
            _log.warning("%s: unexpected %s while asking", self.name, type(failed).__name__)
            error = _AskError(f"could not be asked ({type(failed).__name__})", f"check {self.url_variable} and report this")
        if held is not None and not self._fits(held, unix_ns):
            remedy = "compare this machine's clock, or choose another zone"
            error = _AskError("has nothing that holds for now", remedy, pause_s=self._refresh_s)
        with self._own_lock():
            memory = self._memory[zone]
            if error is None:
                memory.held, memory.failures, memory.trouble = held, 0, None
                memory.due_s = self._now_s() + self._refresh_s
            else:
                memory.failures += 1
                memory.trouble = self._sentence(error, zone, memory.held is not None and self._fits(memory.held, unix_ns))
                memory.due_s = self._now_s() + self._pause_s(error, memory.failures)
            if zone == self._asked:
                self.trouble = memory.trouble

    def _sentence(self, error: _AskError, zone: str, has_value: bool) -> str:
        instead = (
            "its last value is used as long as it is fresh, then the bundled yearly averages"
            if has_value
            else "the bundled yearly averages are used instead"
        )
        return f"{self.title} {error.what}, asked for {zone}: {instead}; {error.remedy}"

    def _pause_s(self, error: _AskError, failures: int) -> float:
        longest_s = _LONGEST_PAUSE_S if error.lasting else min(_FIRST_PAUSE_S * 2 ** min(failures - 1, 10), _LONGEST_PAUSE_S)
        return max(longest_s * (0.5 + self._jitter() / 2), min(error.pause_s, _LONGEST_RETRY_AFTER_S))

    def _fetch(self, zone: str, unix_ns: int) -> object:
        import requests

        path, query, headers = self.request(zone)
        headers = {"Accept": "application/json", "User-Agent": "impactsdk", **headers, "Accept-Encoding": "identity"}
        try:
            # A redirect is not followed: it would carry the token to whoever it names.
            with (
                requests.Session() as session,
                session.get(
                    f"{self._url}/{path}",
                    params=query,
                    headers=headers,
                    timeout=(self._timeout_s, self._timeout_s),
                    allow_redirects=False,
                    stream=True,
                ) as response,
            ):
                if response.status_code != 200:
                    raise self._refused(response.status_code, response.headers, unix_ns)
                if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
                    raise UnusableAnswerError("it is compressed, which was not asked for")
                return _document(self._body(response))
        except requests.exceptions.Timeout:
            raise self._late() from None
        except requests.exceptions.RequestException as error:
            if type(error.args[0] if error.args else None).__name__ == "ReadTimeoutError":
                raise self._late() from None  # between two pieces of the answer it has another name
            how = _BROKEN.get(type(error).__name__, "cannot be reached")
            raise _AskError(f"{how} ({self._host})", f"check the network, the proxy and {self.url_variable}") from None

    def _body(self, response: Response) -> bytes:
        body, until_s = bytearray(), time.monotonic() + 2 * self._timeout_s
        for piece in response.iter_content(_CHUNK):
            body += piece
            if len(body) > _LARGEST_BODY:
                raise UnusableAnswerError(f"it is larger than {_LARGEST_BODY // 1024} kB")
            if time.monotonic() > until_s:
                raise self._late()
        return bytes(body)

    def _late(self) -> _AskError:
        return _AskError(f"did not answer within {self._timeout_s:g} s", "check the network and the proxy, or raise timeout_s")

    def _refused(self, status: int, headers: Mapping[str, str], unix_ns: int) -> _AskError:
        if status in (401, 403):
            return _AskError(f"refuses access ({status})", self.access_remedy, lasting=True)
        if status == 404:
            return _AskError("does not know the zone or has no data for it (404)", self.zone_remedy, lasting=True)
        pause_s = _retry_after_s(headers.get("Retry-After"), unix_ns)
        if status == 429:
            return _AskError("wants fewer requests (429)", "wait, ask from fewer processes or raise refresh_s", pause_s=pause_s)
        if status >= 500:
            return _AskError(f"has a fault of its own ({status})", "wait, it is asked again by itself", pause_s=pause_s)
        what = f"sends us elsewhere ({status})" if 300 <= status < 400 else f"refuses the request ({status})"
        return _AskError(what, f"set {self.url_variable} to where it is now", lasting=True)


def instant_ns(value: object, name: str) -> int:
    """Nanoseconds since 1970 of an ISO 8601 instant with its offset, such as ``2026-03-01T12:00Z``.

    Raises:
        UnusableAnswerError: It is none; ``name`` is what the answer calls it.
    """
    try:
        moment = datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else None
        if moment is not None and moment.tzinfo is not None:
            return round(moment.timestamp()) * 1_000_000_000
    except (ValueError, OverflowError):
        pass
    raise UnusableAnswerError(f"{name} is no instant")


def intensity_in(value: object, name: str) -> float:
    """Grams per kWh, if that is a number that a grid can have.

    Raises:
        UnusableAnswerError: It is not; ``name`` is what the answer calls it.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnusableAnswerError(f"{name} is no number")
    if not 0 <= value <= _ABSURD_G_PER_KWH:
        raise UnusableAnswerError(f"{name} is not between 0 and {_ABSURD_G_PER_KWH:g} g/kWh")
    return float(value)


def _document(body: bytes) -> object:
    try:
        document: object = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise UnusableAnswerError("it is not JSON") from None
    return document


def _no_number(word: str) -> float:
    raise ValueError(word)  # NaN and Infinity are Python's own addition to JSON


def _host(url: str, variable: str) -> str:
    """Host and port, without the user and password that a URL may hold."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except (ValueError, AttributeError):
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigurationError(f"url (or {variable}): expected the root of an interface, such as https://example.org/v3")
    return parts.hostname + (f":{port}" if port is not None else "")


def _retry_after_s(value: str | None, unix_ns: int) -> float:
    """Seconds that a ``Retry-After`` asks for, given as a number or as a date (RFC 9110, 10.2.3); 0 if it says nothing."""
    if value is None:
        return 0.0
    try:
        return float(int(value))
    except (ValueError, OverflowError):
        pass
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)
    return max(0.0, aware.timestamp() - unix_ns / 1e9)
