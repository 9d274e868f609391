"""Names on the wire: in one place, none both a leaf and a prefix, all in the style of OpenTelemetry."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import impactsdk
from impactsdk import semconv

ROOT = Path(impactsdk.__file__).parent
CONSTANTS = {name: value for name, value in vars(semconv).items() if name.isupper() and isinstance(value, str)}
METRICS = {value for name, value in CONSTANTS.items() if name.startswith("METRIC_")}
OTHERS = ("METRIC_", "ENV_", "SCOPE_NAME", "SCHEMA_URL", "SOURCES_GROUP", "FACTORS_GROUP", "GEN_AI_")
ATTRIBUTES = {value for name, value in CONSTANTS.items() if not name.startswith(OTHERS) and not name.endswith("_PREFIX")}
TYPES = {"gpu", "cpu", "memory"}


def _no_leaf_is_a_prefix(names: set[str]) -> None:
    for name in names:
        assert not [other for other in names if other.startswith(name + ".")], name


def test_no_attribute_is_both_a_leaf_and_a_prefix() -> None:
    _no_leaf_is_a_prefix(ATTRIBUTES | {semconv.ENERGY_TYPE_PREFIX + kind for kind in TYPES})


def test_no_metric_is_both_a_leaf_and_a_prefix_of_another() -> None:
    names = METRICS - {semconv.METRIC_ENERGY, semconv.METRIC_FUNCTIONAL_UNITS}
    _no_leaf_is_a_prefix(names)
    for name in (semconv.METRIC_ENERGY, semconv.METRIC_FUNCTIONAL_UNITS):
        assert not [other for other in METRICS if other.startswith(name + ".")]


def test_the_energy_of_a_type_collides_with_no_other_attribute() -> None:
    assert not {semconv.ENERGY_TYPE_PREFIX + kind for kind in TYPES} & ATTRIBUTES
    assert semconv.ENERGY_TYPE_PREFIX.endswith(".")


def test_names_are_dotted_lower_case_and_of_a_known_namespace() -> None:
    for name in METRICS | ATTRIBUTES:
        assert re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+", name), name
        assert name.split(".")[0] in {"hw", "impact", "error"}, name


def test_variables_begin_with_the_name_of_the_package() -> None:
    for name, value in CONSTANTS.items():
        if name.startswith("ENV_") and value != semconv.ENV_OTEL_DISABLED:
            assert value.startswith("IMPACTSDK_"), name


def test_no_name_is_spelt_out_anywhere_else() -> None:
    for path in ROOT.rglob("*.py"):
        if path.name in ("semconv.py",) or "report" in path.parts or "cli" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.fullmatch(r"(impact|hw)(\.[a-z_]+)+", node.value), f"{path.name}:{node.lineno} {node.value}"
