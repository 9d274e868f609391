"""Spans over OTLP into real backends, and read back from them: arize-phoenix, MLflow, phoenix behind the collector rotel."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.place import environment, free_port, get, get_json, listens, otlp, packages, process, until
from tests.kit import script

pytestmark = pytest.mark.backend

PHOENIX, MLFLOW, ROTEL = "arize-phoenix>=20,<21", "mlflow>=3.17,<4", "rotel==0.0.1a15"

MEASURED = """
import json, time
import impactsdk
from impactsdk import configure, measured
from impactsdk.testing import SimulatedSource
configure(sources=[SimulatedSource(280.0)], region="FR")
with measured("training"):
    for epoch in range(3):
        with measured("epoch", attributes={"epoch": epoch}, unit="sentence") as region:
            time.sleep(0.02)
            region.add_units(8)
impactsdk.flush()
print(json.dumps({name: of.energy_j for name, of in configure().totals().operations.items()}))
"""

# phoenix always serves gRPC on all addresses; a test stays on this machine.
LOOPBACK = """
import grpc.aio
start = grpc.aio.Server.add_insecure_port
grpc.aio.Server.add_insecure_port = lambda self, address: start(self, address.replace("[::]", "127.0.0.1"))
import sys
sys.argv = ["phoenix", "serve"]
from phoenix.server.main import main
main()
"""


def _sent(folder: Path, project: str, **variables: str) -> dict[str, float]:
    """Measure and send; the own joules by operation."""
    output, errors = script(MEASURED, folder, OTEL_RESOURCE_ATTRIBUTES=f"openinference.project.name={project}", **variables)
    assert errors == "", errors
    energies: dict[str, float] = json.loads(output)
    return energies


def _agrees(spans: list[tuple[str, dict[str, Any]]], sent: dict[str, float]) -> None:
    assert sorted(name for name, _ in spans) == ["epoch", "epoch", "epoch", "training"]
    for operation, energy_j in sent.items():
        values = [attributes["impact.energy.self"] for name, attributes in spans if name == operation]
        assert all(isinstance(value, float) for value in values), values
        assert math.isclose(math.fsum(values), energy_j, rel_tol=1e-9)
    assert all(attributes["impact.carbon.self"] > 0 for _, attributes in spans)


class Phoenix:
    def __init__(self, http: int, grpc: int) -> None:
        self.http, self.grpc = f"http://127.0.0.1:{http}", f"http://127.0.0.1:{grpc}"

    def spans(self, project: str) -> list[tuple[str, dict[str, Any]]]:
        found = get_json(f"{self.http}/v1/projects/{project}/spans?limit=100")["data"]
        return [(span["name"], span["attributes"]) for span in found]

    def agrees(self, project: str, sent: dict[str, float]) -> None:
        until(lambda: len(self.spans(project)) == 4)
        _agrees(self.spans(project), sent)


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phoenix]:
    python = environment("phoenix", PHOENIX) / "python"
    folder = tmp_path_factory.mktemp("phoenix")
    (folder / "loopback.py").write_text(LOOPBACK, encoding="utf-8")
    http, grpc = free_port(), free_port()
    with process(
        [python, "loopback.py"],
        folder,
        ready=lambda: get(f"http://127.0.0.1:{http}/healthz") is not None and listens(grpc),
        within_s=180.0,
        PHOENIX_WORKING_DIR=str(folder),
        PHOENIX_HOST="127.0.0.1",
        PHOENIX_PORT=str(http),
        PHOENIX_GRPC_PORT=str(grpc),
        PHOENIX_TELEMETRY_ENABLED="false",
    ):
        yield Phoenix(http, grpc)


# phoenix takes spans only: metrics are turned off, as its users do.
NO_METRICS = {"OTEL_METRICS_EXPORTER": "none"}


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_phoenix_has_the_joules_as_numbers(tmp_path: Path, phoenix: Phoenix, protocol: str) -> None:
    project = protocol.split("/")[0]
    endpoint = phoenix.grpc if protocol == "grpc" else phoenix.http
    sent = _sent(tmp_path, project, **otlp(endpoint, protocol), **NO_METRICS)
    phoenix.agrees(project, sent)


@contextlib.contextmanager
def _rotel(folder: Path, phoenix: Phoenix, *, http: int, grpc: int) -> Iterator[None]:
    agent = packages(environment("rotel", ROTEL)) / "rotel" / "rotel-agent"
    command: list[str | Path] = [agent, "start"]
    command += ["--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--otlp-http-endpoint", f"127.0.0.1:{http}"]
    command += ["--exporter", "otlp", "--otlp-exporter-protocol", "http", "--otlp-exporter-endpoint", phoenix.http]
    with process(command, folder, ready=lambda: listens(http) and listens(grpc)):
        yield


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_collector_in_between_changes_nothing(tmp_path: Path, phoenix: Phoenix, protocol: str) -> None:
    http, grpc = free_port(), free_port()
    project = f"rotel-{protocol.split('/')[0]}"
    with _rotel(tmp_path, phoenix, http=http, grpc=grpc):
        endpoint = f"http://127.0.0.1:{grpc if protocol == 'grpc' else http}"
        sent = _sent(tmp_path, project, **otlp(endpoint, protocol), **NO_METRICS)
        phoenix.agrees(project, sent)


def test_a_collector_takes_metrics_too(tmp_path: Path) -> None:
    agent = packages(environment("rotel", ROTEL)) / "rotel" / "rotel-agent"
    http, grpc = free_port(), free_port()
    command: list[str | Path] = [agent, "start", "--exporter", "blackhole"]
    command += ["--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--otlp-http-endpoint", f"127.0.0.1:{http}"]
    with process(command, tmp_path, ready=lambda: listens(http) and listens(grpc)):
        _sent(tmp_path, "metrics", **otlp(f"http://127.0.0.1:{http}"))
        _sent(tmp_path, "metrics", **otlp(f"http://127.0.0.1:{grpc}", "grpc"))


def test_mlflow_has_the_joules_as_numbers(tmp_path: Path) -> None:
    binaries = environment("mlflow", MLFLOW)
    port = free_port()
    at = f"http://127.0.0.1:{port}"
    store = f"sqlite:///{tmp_path}/ml.db"
    command: list[str | Path] = [binaries / "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store, "--default-artifact-root", str(tmp_path / "artifacts")]
    variables = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with process(command, tmp_path, ready=lambda: get(f"{at}/health"), within_s=180.0, **variables):
        experiment = _posted(f"{at}/api/2.0/mlflow/experiments/create", {"name": "measured"})["experiment_id"]
        sent = _sent(
            tmp_path,
            "mlflow",
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{at}/v1/traces",
            OTEL_EXPORTER_OTLP_HEADERS=f"x-mlflow-experiment-id={experiment}",
            **NO_METRICS,
        )
        where = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
        (found,) = _posted(f"{at}/api/3.0/mlflow/traces/search", {"locations": [where], "max_results": 10})["traces"]
        _agrees(_spans_of(binaries, at, found["trace_id"], tmp_path), sent)


def _posted(url: str, question: dict[str, Any]) -> Any:
    asked = urllib.request.Request(url, data=json.dumps(question).encode(), headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=30.0) as answer:
        return json.loads(answer.read())


def _spans_of(binaries: Path, at: str, trace_id: str, folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """By MLflow's own client, in its own environment."""
    code = (
        "import json, mlflow, sys\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "trace = mlflow.get_trace(sys.argv[2])\n"
        "print(json.dumps([(span.name, dict(span.attributes)) for span in trace.data.spans], default=str))\n"
    )
    done = subprocess.run(
        [binaries / "python", "-c", code, at, trace_id], capture_output=True, text=True, cwd=folder, timeout=120.0, check=False
    )
    assert done.returncode == 0, done.stderr
    return [(name, attributes) for name, attributes in json.loads(done.stdout.splitlines()[-1])]
