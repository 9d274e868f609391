"""Joules on spans that somebody else makes. ``python examples/foreign_spans.py``

The application has OpenTelemetry already, and a library in it makes spans of its own: a database client, a web framework, an
LLM client. Two lines put the energy of their time on those spans; nothing in the library changes.
"""

from __future__ import annotations

import sqlite3

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import impactsdk  # added: line one

exporter = InMemorySpanExporter()  # here: the exporter that you have
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

impactsdk.configure(enrich=True)  # added: line two, once the provider is set

library = trace.get_tracer("a.database.client")


def query(connection: sqlite3.Connection, text: str) -> list[tuple[object, ...]]:
    """What an instrumented client does."""
    with library.start_as_current_span("query", attributes={"db.system.name": "sqlite"}):
        return connection.execute(text).fetchall()


with library.start_as_current_span("request"), sqlite3.connect(":memory:") as database:
    database.execute(
        "create table numbers as with recursive n(x) as (values(1) union all select x + 1 from n limit 400000) select x from n"
    )
    query(database, "select sum(x * x) from numbers")
    query(database, "select count(*) from numbers a where x % 7 = 0")

provider.force_flush()
for span in exporter.get_finished_spans():
    found = span.attributes or {}
    own_j, whole_j = found.get("impact.energy.self", "unknown"), found.get("impact.energy.inclusive", "unknown")
    print(f"{span.name:8}  own {own_j} J, with what it called {whole_j} J, {found.get('impact.quality')}")
