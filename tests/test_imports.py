"""Imports point down the floors of the design; importing the package does nothing; what is public is pinned."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import impactsdk
from tests.kit import script

ROOT = Path(impactsdk.__file__).parent

# Lowest first. A module imports only from lower rows, wherever the import stands. ``x.*`` is everything inside ``x``.
FLOORS = [
    ["errors", "semconv", "number"],
    ["factor"],
    ["model"],
    ["protocols"],
    ["setting_values"],
    ["settings"],
    ["energy.vector", "energy.tick", "energy.knot", "energy.pool", "energy.budget", "energy.doubt"],
    [
        "energy.machine",
        "energy.curve",
        "energy.segment",
        "energy.entry",
        "energy.ledger",
        "energy.registry",
        "energy.cpu_time",
        "energy.cgroup",
        "energy.pool_file",
        "rates",
        "clock",
        "lifecycle",
        "terminal",
        "application",
        "barrier",
    ],
    ["impact", "energy.probe", "energy.share"],
    ["recorder"],
    ["region", "energy.sampler", "sources.*", "factors.*", "export.*"],
    ["discovery", "pricing", "spanned"],
    ["synced", "stepping", "processes"],
    ["devices", "wrap", "idle", "accounts", "foreign"],
    ["books", "standing"],
    ["session"],
    ["endings"],
    ["sessions"],
    ["meter"],
    ["measured", "enriched"],
    [""],
    ["integrations.running", "integrations.loggers"],
    ["integrations.patches"],
    [
        "integrations.keras",
        "integrations.transformers",
        "integrations.lightning",
        "integrations.sklearn",
        "integrations.generation",
    ],
    ["testing", "integrations.*", "report.*"],
    ["cli.*"],
    ["__main__"],
]

# Neighbours on one floor that may know each other, because one is a part of the other.
NEIGHBOURS = {
    ("energy.segment", "energy.curve"),
    ("energy.entry", "energy.segment"),
    ("energy.ledger", "energy.entry"),
    ("energy.ledger", "energy.segment"),
    ("energy.tick", "energy.knot"),
    ("energy.cpu_time", "energy.machine"),
    ("energy.cpu_time", "energy.registry"),
    ("energy.registry", "energy.machine"),
    ("energy.cgroup", "energy.cpu_time"),
    ("energy.cgroup", "energy.registry"),
    ("sources.rapl", "sources.powercap"),
    ("sources.cpu_model", "sources.cpu_identity"),
    ("export.providers", "export.journal"),
    ("export.providers", "export.exporters"),
    ("export.providers", "export.ids"),
    ("export.providers", "export.metrics"),
    ("export.providers", "export.outputs"),
    ("export.providers", "export.delivery"),
    ("export.providers", "export.scrape"),
    ("export.outputs", "export.journal"),
    ("export.outputs", "export.metrics"),
    ("export.outputs", "export.units"),
    ("export.outputs", "export.delivery"),
    ("export.journal", "export.views"),
    ("export.metrics", "export.streams"),
    ("export.metrics", "export.views"),
    ("export.journal", "export.otlp_json"),
    ("export.journal", "export.dated"),
    ("export.delivery", "export.dated"),
    ("export.summary", "export.views"),
    ("export.summary", "export.units"),
    ("factors.tables", "factors.places"),
    ("factors.tables", "factors.damage"),
    ("factors.damage", "factors.rows"),
    ("factors.book", "factors.constants"),
    ("factors.book", "factors.hardware"),
    ("factors.book", "factors.tables"),
    ("factors.tables", "factors.rows"),
    ("factors.places", "factors.rows"),
    ("factors.hardware", "factors.rows"),
    ("factors.electricity_maps", "factors.live"),
    ("factors.uk_carbon_intensity", "factors.live"),
}
PACKAGES_OF_ONE_NOUN = ("sources.nvml", "cli", "report")
"""Packages whose modules are parts of one thing."""

PUBLIC = [
    "Channel",
    "Clock",
    "ConfigurationError",
    "DegradedWarning",
    "EnergySource",
    "EnergySpanProcessor",
    "Factor",
    "FactorProvider",
    "Impact",
    "ImpactError",
    "JournalError",
    "Measurement",
    "Meter",
    "Operation",
    "Place",
    "Reading",
    "Region",
    "RegionError",
    "Settings",
    "SettleTimeoutError",
    "SourceError",
    "SourceFailedError",
    "SourceUnavailableError",
    "Totals",
    "child_environment",
    "configure",
    "current",
    "flush",
    "handed_down",
    "joined",
    "measured",
    "shutdown",
    "track",
]


def _modules() -> dict[str, Path]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


MODULES = _modules()


def _imports(module: str) -> Iterator[tuple[str, int]]:
    """What a module imports of ours, wherever in it."""
    is_package = MODULES[module].name == "__init__.py"
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "impactsdk":
                    yield alias.name.partition(".")[2], node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                inside = ["impactsdk", *module.split(".")][: -(node.level - is_package) or None]
                base = ".".join([*inside, base]).rstrip(".")
            if base.split(".")[0] != "impactsdk":
                continue
            name = base.partition(".")[2]
            for alias in node.names:
                full = f"{name}.{alias.name}".lstrip(".")
                yield (full if full in MODULES else name), node.lineno


def _floor(module: str) -> int:
    for number, row in enumerate(FLOORS):
        for pattern in row:
            if module == pattern or (pattern.endswith(".*") and f"{module}.".startswith(pattern[:-1])):
                return number
    raise AssertionError(f"{module} stands on no floor; add it to DESIGN and to this test")


def _noun(module: str) -> str:
    return next((package for package in PACKAGES_OF_ONE_NOUN if f"{module}.".startswith(package + ".")), module)


def test_every_module_stands_on_a_floor() -> None:
    for module in MODULES:
        if module != "energy":  # only a docstring
            assert _floor(module) >= 0


@pytest.mark.parametrize("module", [module for module in MODULES if module != "energy"])
def test_imports_point_down(module: str) -> None:
    for target, line in _imports(module):
        if _noun(target) == _noun(module) or (module, target) in NEIGHBOURS:
            continue
        assert _floor(target) < _floor(module), f"{module}:{line} imports {target}"


def test_packages_without_a_noun_hold_only_a_docstring() -> None:
    for package in ("energy", "export", "sources", "cli"):
        body = ast.parse(MODULES[package].read_text(encoding="utf-8")).body
        assert [type(node).__name__ for node in body] == ["Expr"], package


def test_there_are_no_cycles() -> None:
    graph = {module: {target for target, _ in _imports(module) if target != module} for module in MODULES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for target in graph[module]:
                visit(target, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_no_allowed_neighbour_is_a_leftover() -> None:
    used = {(module, target) for module in MODULES for target, _ in _imports(module)}
    assert used >= NEIGHBOURS


# --- what is public ----------------------------------------------------------------------------------------------------------


def test_the_public_names_are_pinned() -> None:
    assert list(impactsdk.__all__) == PUBLIC
    assert all(hasattr(impactsdk, name) for name in PUBLIC)


@pytest.mark.parametrize("module", [name for name in MODULES if not name.endswith("__main__") and name not in ("energy",)])
def test_each_all_is_sorted_and_true(module: str) -> None:
    loaded = importlib.import_module(f"impactsdk.{module}".rstrip("."))
    names = getattr(loaded, "__all__", None)
    if names is None:
        tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
        assert all(isinstance(node, ast.Expr | ast.Import | ast.ImportFrom | ast.AnnAssign) for node in tree.body), module
        return
    assert list(names) == sorted(names, key=_order), module
    assert all(hasattr(loaded, name) for name in names)


def _order(name: str) -> tuple[int, list[tuple[int, str]]]:
    """Constants, classes, functions; numbers and capitals as a person would sort them. As the linter has it."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def test_every_module_has_a_docstring_of_a_sentence() -> None:
    for module, path in MODULES.items():
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert docstring, module
        assert docstring.splitlines()[0].rstrip().endswith((".", ":")), module


def test_every_public_thing_has_a_docstring() -> None:
    for name in PUBLIC:
        assert getattr(impactsdk, name).__doc__, name


# --- importing does nothing --------------------------------------------------------------------------------------------------


def test_importing_starts_reads_and_loads_nothing(tmp_path: Path) -> None:
    output, errors = script(
        """
import collections.abc, gc, os, signal, sys, threading, time, warnings, atexit
import importlib.metadata, logging, json, inspect, dataclasses, pathlib, contextvars, math, typing
from opentelemetry import context, metrics, trace  # their import reads variables of theirs
context.get_current()
read = []

class Watching(collections.abc.MutableMapping):
    def __init__(self, real): self.real = real
    def __getitem__(self, key):
        read.append(key)
        return self.real[key]
    def __setitem__(self, key, value): read.append(key)
    def __delitem__(self, key): read.append(key)
    def __iter__(self):
        read.append("all")
        return iter(self.real)
    def __len__(self): return len(self.real)

os.environ = Watching(os.environ)
os.getenv = lambda key, default=None: read.append(key)
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
filters, handlers = list(warnings.filters), signal.getsignal(signal.SIGTERM)
threads, modules = threading.active_count(), set(sys.modules)
import impactsdk
after = set(sys.modules)
print("read", read)
print("threads", threading.active_count() - threads)
print("heavy", sorted(after & {"pynvml", "psutil", "opentelemetry.sdk", "numpy", "tensorflow", "torch", "transformers"}))
print("files", [path for path in map(str, opened) if not path.endswith((".py", ".pyc", ".pth")) and "__pycache__" not in path])
print("filters", warnings.filters == filters, signal.getsignal(signal.SIGTERM) == handlers)
print("providers", type(trace.get_tracer_provider()).__name__, type(metrics.get_meter_provider()).__name__)
print("session", impactsdk.meter.default_meter().session)
""",
        tmp_path,
    )
    found = dict(line.split(" ", 1) for line in output.splitlines())
    assert found == {
        "read": "[]",
        "threads": "0",
        "heavy": "[]",
        "files": "[]",
        "filters": "True True",
        "providers": "ProxyTracerProvider _ProxyMeterProvider",
        "session": "None",
    }
    assert errors == ""


def test_decorating_starts_nothing_either(tmp_path: Path) -> None:
    output, _ = script(
        """
import sys, threading
from impactsdk import measured, Meter
@measured
def f(): ...
@measured("name", unit="x", count=len)
async def g(): ...
block = measured("block")
meter = Meter()
print(threading.active_count(), "opentelemetry.sdk" in sys.modules, "psutil" in sys.modules)
""",
        tmp_path,
        IMPACTSDK_PUE="nonsense that is read at first use only",
    )
    assert output == "1 False False\n"
