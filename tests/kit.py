"""What the tests of the public face share: a meter whose spans can be looked at, and scripts in a process of their own."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from impactsdk import Meter, Settings, Totals
from impactsdk.protocols import Clock, EnergySource
from impactsdk.testing import SimulatedSource


class Bench:
    """A meter on a simulated device of 100 W, and the spans it has ended."""

    def __init__(self, meter: Meter, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
        self.meter, self.provider, self._exporter = meter, provider, exporter
        self.measured = meter.measured
        self.tracer = provider.get_tracer("of the application")

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        """The ended spans by name; the last of each."""
        return {span.name: span for span in self.all_spans}

    @property
    def all_spans(self) -> tuple[ReadableSpan, ...]:
        self.meter.flush()
        return self._exporter.get_finished_spans()

    def parent_of(self, name: str) -> str | None:
        parent = self.spans[name].parent
        if parent is None:
            return None
        return next(span.name for span in self.all_spans if span.context.span_id == parent.span_id)

    def totals(self) -> Totals:
        assert self.meter.flush()
        return self.meter.totals()


@contextmanager
def bench(
    *, sources: list[EnergySource] | None = None, clock: Clock | None = None, sampler: Sampler | None = None, **settings: Any
) -> Iterator[Bench]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    meter = Meter(
        Settings.load({}, **{"export": "otel", **settings}),
        sources=sources if sources is not None else [SimulatedSource(100.0)],
        tracer_provider=provider,
        clock=clock,
    )
    try:
        yield Bench(meter, provider, exporter)
    finally:
        meter.close()
        provider.shutdown()


def conserved(totals: Totals, *, all_ended: bool = True) -> None:
    """Every joule of the counters is in the account, once."""
    counted = math.fsum(totals.channels.values())
    assert math.isclose(totals.attributed_j + totals.unattributed_j + totals.others_j, counted, rel_tol=1e-9, abs_tol=1e-9)
    if all_ended:
        by_name = math.fsum(operation.energy_j or 0.0 for operation in totals.operations.values())
        assert math.isclose(by_name, totals.attributed_j, rel_tol=1e-9, abs_tol=1e-9)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def start(code: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    """A script that measures a simulated device of 100 W, unless it says otherwise, in a process of its own."""
    path = folder / "script.py"
    path.write_text(textwrap.dedent(code), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONWARNINGS", "PYTHONDEVMODE")}
    return subprocess.Popen(
        [sys.executable, str(path)],
        cwd=folder,
        env={**kept, "IMPACTSDK_SOURCES": "none", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def script(code: str, folder: Path, *, expected: int = 0, timeout_s: float = 60.0, **environment: str) -> tuple[str, str]:
    """Run a script to its end; its output and what it said on the standard error."""
    process = start(code, folder, **environment)
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        raise AssertionError(f"did not end: {output}\n{errors}") from None
    assert process.returncode == expected, f"{process.returncode}: {output}\n{errors}"
    return output, errors


def journals(folder: Path) -> list[list[dict[str, Any]]]:
    """Every journal under ``folder/impact``, line by line; each line is whole."""
    files = sorted((folder / "impact").glob("*.jsonl")) if (folder / "impact").is_dir() else []
    return [[json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line] for file in files]


def spans_in(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        span
        for line in lines
        for resource in line.get("resourceSpans", ())
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def metrics_in(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        metric
        for line in lines
        for resource in line.get("resourceMetrics", ())
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
    ]


def plain(encoded: list[dict[str, Any]]) -> dict[str, Any]:
    """OTLP/JSON attributes as a dictionary."""
    values = {}
    for item in encoded:
        kind, value = next(iter(item["value"].items()))
        values[item["key"]] = int(value) if kind == "intValue" else value
    return values
