"""Small OTLP receivers for HTTP and gRPC on free local ports, and backends that misbehave."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse


class Received:
    """What a receiver was sent."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.traces: list[Any] = []
        self.metrics: list[Any] = []
        self.headers: list[dict[str, str]] = []

    @property
    def spans(self) -> list[Any]:
        return [span for sent in self.traces for r in sent.resource_spans for s in r.scope_spans for span in s.spans]

    @property
    def resource(self) -> dict[str, str]:
        sent = [
            *(r for sent in self.traces for r in sent.resource_spans),
            *(r for s in self.metrics for r in s.resource_metrics),
        ]
        return {item.key: item.value.string_value for item in sent[-1].resource.attributes}

    def sums(self, name: str) -> list[tuple[dict[str, str], float]]:
        """The points of a counter in the last collection."""
        return [
            ({item.key: item.value.string_value for item in point.attributes}, point.as_double or float(point.as_int))
            for resource in self.metrics[-1].resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.sum.data_points
        ]


@contextlib.contextmanager
def over_http(*, slow_s: float = 0.0, refused: Collection[int] = ()) -> Iterator[Received]:
    """``refused`` are the numbers of the requests, from 1 on, that are not taken."""
    numbers = itertools.count(1)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(slow_s)
            if next(numbers) in refused:
                self.send_response(400)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            received.headers.append(dict(self.headers))
            if self.path == "/v1/traces":
                received.traces.append(ExportTraceServiceRequest.FromString(body))
            else:
                received.metrics.append(ExportMetricsServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received = Received(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def over_grpc() -> Iterator[Received]:
    import grpc
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc

    class Traces(trace_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name in the protocol
            received.traces.append(request)
            received.headers.append(dict(context.invocation_metadata()))
            return ExportTraceServiceResponse()

    class Metrics(metrics_grpc.MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name in the protocol
            received.metrics.append(request)
            return ExportMetricsServiceResponse()

    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        trace_grpc.add_TraceServiceServicer_to_server(Traces(), server)
        metrics_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
        received = Received(f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        server.start()
        try:
            yield received
        finally:
            server.stop(None).wait()


@contextlib.contextmanager
def out_of_order(how: str) -> Iterator[str]:
    """The endpoint of a backend that is gone (``refused``) or that accepts and never answers (``silent``)."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if how == "silent":
            listener.listen(64)
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if how == "refused":
            listener.close()
        yield endpoint
