"""Prometheus scrapes our endpoint; the dashboard's and the rules' PromQL is evaluated; the joules add up."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from tests.backends.place import ROOT, debian, free_port, get, get_json, process, until
from tests.kit import start

pytestmark = pytest.mark.backend

COLLECTOR = ROOT / "examples" / "collector"

SERVED = """
import sys, time
import impactsdk
from impactsdk import configure, measured
from impactsdk.testing import SimulatedSource
gpu, cpu = SimulatedSource(280.0, id="gpu:0"), SimulatedSource(60.0, id="cpu:0", type="cpu")
configure(export="prometheus", sources=[gpu, cpu], region="FR", price_per_kwh=0.2, compute_price_per_hour=1.0, currency="EUR")
end = time.monotonic() + 8
while time.monotonic() < end:
    with measured("epoch"):
        for _ in range(5):
            with measured("step", unit="sentence", span=False) as step:
                time.sleep(0.02)
                step.add_units(8)
        time.sleep(0.02)
    time.sleep(0.05)
impactsdk.flush()
print("done", flush=True)
sys.stdin.read()
"""


class Prometheus:
    def __init__(self, port: int) -> None:
        self._at = f"http://127.0.0.1:{port}/api/v1"

    def query(self, expression: str) -> list[dict[str, Any]]:
        answer = get_json(f"{self._at}/query?query={urllib.parse.quote(expression)}")
        assert answer["status"] == "success"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def value(self, expression: str) -> float:
        (only,) = self.query(expression)
        return float(only["value"][1])

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in get_json(f"{self._at}/rules")["data"]["groups"] for rule in group["rules"]]


def test_the_rules_are_valid(tmp_path: Path) -> None:
    promtool = debian("prometheus") / "usr" / "bin" / "promtool"
    done = subprocess.run([promtool, "check", "rules", COLLECTOR / "rules.yml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_finds_something_and_every_joule_is_accounted_for(tmp_path: Path) -> None:
    binary = debian("prometheus") / "usr" / "bin" / "prometheus"
    ours, theirs = free_port(), free_port()
    shutil.copy(COLLECTOR / "rules.yml", tmp_path)
    (tmp_path / "p.yml").write_text(
        f"""
global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}
rule_files: [rules.yml]
scrape_configs: [{{job_name: train, static_configs: [{{targets: ["localhost:{ours}"]}}]}}]
""",
        encoding="utf-8",
    )
    command = [binary, "--config.file=p.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{theirs}"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(process(command, tmp_path, ready=lambda: get_json(f"http://127.0.0.1:{theirs}/api/v1/rules")))
        serving = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", SERVED],
                cwd=tmp_path,
                env={**os.environ, "OTEL_EXPORTER_PROMETHEUS_PORT": str(ours)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert serving.stdin is not None
        stack.callback(serving.stdin.close)
        assert serving.stdout is not None
        assert serving.stdout.readline() == "done\n"
        time.sleep(2.5)  # some scrapes and evaluations of what does not change any more
        prometheus = Prometheus(theirs)
        assert prometheus.value("up") == 1.0

        ratio = prometheus.value("sum(impact_energy_joules_total) / sum(hw_energy_joules_total)")
        assert abs(ratio - 1) < 1e-6, ratio
        assert abs(prometheus.value("impact:conservation:ratio") - 1) < 1e-6

        for panel in json.loads((COLLECTOR / "dashboard.json").read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                shown = target["expr"].replace("$__rate_interval", "10s").replace("$__range", "1m").replace("$job", ".+")
                values = {str(series["metric"]): float(series["value"][1]) for series in prometheus.query(shown)}
                print(f"{panel['title']}: {values}")
                assert values, panel["title"]
                assert not any(map(math.isnan, values.values())), panel["title"]

        rules = prometheus.rules()
        assert {rule["health"] for rule in rules} == {"ok"}
        assert prometheus.query("impact:power_watts:by_operation")
        assert prometheus.query("impact:carbon_grams_per_hour:by_operation")
        alerts = {rule["name"]: rule["state"] for rule in rules if rule["type"] == "alerting"}
        assert len(alerts) == 3
        assert set(alerts.values()) <= {"inactive", "pending"}
        assert alerts["ImpactJoulesCountedTwice"] == alerts["ImpactSpansDropped"] == "inactive"


def test_the_example_can_be_scraped(tmp_path: Path) -> None:
    port = free_port()
    running = start(
        f"import sys; sys.path.append({str(ROOT)!r}); from examples.prometheus_scrape import main; main(3.0)",
        tmp_path,
        OTEL_EXPORTER_PROMETHEUS_PORT=str(port),
        IMPACTSDK_SOURCES="cpu_model",
    )
    try:
        found = 'impact_functional_unit_total{impact_functional_unit_name="sentence"'
        until(lambda: found in get(f"http://localhost:{port}/metrics").decode(), within_s=20.0)
    finally:
        output, errors = running.communicate(timeout=30.0)
    assert (running.returncode, output) == (0, "")
    assert "Traceback" not in errors
