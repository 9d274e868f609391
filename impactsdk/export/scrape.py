"""The Prometheus endpoint: a small HTTP server that collects when it is asked and is gone when its provider is.

Where it listens is said by ``OTEL_EXPORTER_PROMETHEUS_HOST`` and ``_PORT``, as the OpenTelemetry specification has it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import weakref
from collections.abc import Mapping
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource

__all__ = ["ScrapedProvider", "address"]

_PORT = 9464
_servers: weakref.WeakSet[_Server] = weakref.WeakSet()
_watching_forks = False


def address(environ: Mapping[str, str]) -> tuple[str, int]:
    """Host and port that the environment asks for; default: ``localhost`` and 9464.

    Raises:
        ValueError: The port is none.
    """
    host = environ.get("OTEL_EXPORTER_PROMETHEUS_HOST", "").strip() or "localhost"
    text = environ.get("OTEL_EXPORTER_PROMETHEUS_PORT", "").strip() or str(_PORT)
    if not text.isdecimal() or not 0 <= int(text) <= 65_535:
        raise ValueError(f"OTEL_EXPORTER_PROMETHEUS_PORT={text!r}: expected a port from 0 to 65535")
    return host, int(text)


class ScrapedProvider(MeterProvider):
    """A MeterProvider whose metrics are served over HTTP until it is shut down.

    Raises:
        ImportError: The exporter is not installed.
        OSError: The address cannot be listened on.
    """

    def __init__(self, resource: Resource, host: str, port: int) -> None:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app

        registry = CollectorRegistry()
        try:
            reader = PrometheusMetricReader(registry=registry)
        except TypeError:  # an older one knows only the registry that all share
            reader, registry = PrometheusMetricReader(), REGISTRY
        try:
            self._server = _Server.listening(host, port, make_wsgi_app(registry))
        except BaseException:
            reader.shutdown()
            raise
        try:
            super().__init__([reader], resource=resource, shutdown_on_exit=False)
        except BaseException:  # the SDK refuses what a variable says
            self._server.stop()
            reader.shutdown()
            raise

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing: whoever wants the metrics fetches them, and what was collected before would be in that page twice."""
        return True

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """Stop serving."""
        self._server.stop()
        super().shutdown(timeout_millis)


class _Quiet(WSGIRequestHandler):
    timeout = 10.0  # a client that says nothing does not keep its thread

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that the base class has
        """Standard error is the application's."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    _stopping = False
    _thread: threading.Thread

    @classmethod
    def listening(cls, host: str, port: int, app: Any) -> _Server:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        server: _Server = make_server(host, port, app, type("_Server", (cls,), {"address_family": family}), _Quiet)
        _servers.add(server)
        _watch_forks()
        server._thread = threading.Thread(target=server._serve, name="impactsdk-scrape", daemon=True)
        server._thread.start()
        return server

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""

    def _serve(self) -> None:
        # Not serve_forever, which wakes twice a second to see whether it is to stop.
        while not self._stopping:
            self.handle_request()
        self.server_close()

    def stop(self) -> None:
        """Let the port go."""
        self._stopping = True
        with contextlib.suppress(OSError):
            socket.create_connection((str(self.server_address[0]), self.server_port), timeout=1.0).close()  # wakes it
        self._thread.join(1.0)


def _watch_forks() -> None:
    """A child has the socket, too, and would keep the port when its parent is long gone."""
    global _watching_forks
    if not _watching_forks and hasattr(os, "register_at_fork"):
        _watching_forks = True
        os.register_at_fork(after_in_child=_close_all)


def _close_all() -> None:
    for server in list(_servers):
        server.server_close()
