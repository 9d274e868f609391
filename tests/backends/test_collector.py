"""The Collector's configuration names what it defines; the dashboard asks only for metrics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from impactsdk import semconv

COLLECTOR = Path(__file__).parents[2] / "examples" / "collector"
# What Prometheus makes of our names: dots to underscores, then the unit, then _total for counters.
METRICS = [getattr(semconv, name).replace(".", "_") for name in dir(semconv) if name.startswith("METRIC_")]


def test_each_pipeline_names_what_is_defined() -> None:
    yaml = pytest.importorskip("yaml")
    told = yaml.safe_load((COLLECTOR / "collector.yaml").read_text(encoding="utf-8"))
    both = set(told["connectors"])
    used = set()
    for name, pipeline in told["service"]["pipelines"].items():
        for kind in ("receivers", "processors", "exporters"):
            defined = set(told[kind]) | (both if kind != "processors" else set())
            assert set(pipeline.get(kind, ())) <= defined, f"{name}: {kind}"
            used |= set(pipeline.get(kind, ()))
    assert used == {name for kind in ("receivers", "processors", "exporters", "connectors") for name in told[kind]}


@pytest.mark.parametrize("file", ["dashboard.json", "rules.yml"])
def test_only_metrics_that_exist_are_asked_for(file: str) -> None:
    text = (COLLECTOR / file).read_text(encoding="utf-8")
    if file == "dashboard.json":
        text = "\n".join(target["expr"] for panel in json.loads(text)["panels"] for target in panel["targets"])
    asked = set(re.findall(r"\b((?:impact|hw)_\w+(?:_total|_watts|_bucket))\b", text))
    assert asked
    for name in asked:
        assert any(name.startswith(known) for known in METRICS), name


def test_each_panel_says_what_it_shows() -> None:
    panels = json.loads((COLLECTOR / "dashboard.json").read_text(encoding="utf-8"))["panels"]
    assert all(panel["title"] and panel["description"] and panel["targets"] for panel in panels)
