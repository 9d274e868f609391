"""Every attribute, metric and variable name that leaves impactsdk.

``hw.*`` are the OpenTelemetry hardware conventions (development stability). ``impact.*`` are ours (development stability).
No name is both a leaf and a prefix of another, because some backends nest dotted keys.
"""

from __future__ import annotations

from typing import Final

# --- span attributes -------------------------------------------------------------------------------------------------
OPERATION: Final = "impact.operation"
ENERGY_SELF: Final = "impact.energy.self"
"""J. This span minus its children: the only one to be summed over spans."""
ENERGY_INCLUSIVE: Final = "impact.energy.inclusive"
"""J. With the finished descendants of this process. Never sum it."""
ENERGY_SELF_LOW: Final = "impact.energy.self_low"
ENERGY_SELF_HIGH: Final = "impact.energy.self_high"
ENERGY_INCLUSIVE_LOW: Final = "impact.energy.inclusive_low"
ENERGY_INCLUSIVE_HIGH: Final = "impact.energy.inclusive_high"
ENERGY_TYPE_PREFIX: Final = "impact.energy."
"""Followed by ``gpu``, ``cpu``, ``memory``, ...: J, the parts of ``impact.energy.self`` by ``hw.type``."""
POWER_MEAN: Final = "impact.power.mean"
COVERAGE: Final = "impact.coverage"
QUALITY: Final = "impact.quality"
NATURE: Final = "impact.nature"
METHOD: Final = "impact.method"
BOUNDARY: Final = "impact.boundary"
COMPLETENESS: Final = "impact.completeness"
ATTRIBUTION: Final = "impact.attribution"
FUNCTIONAL_UNIT_NAME: Final = "impact.functional_unit.name"
FUNCTIONAL_UNIT_COUNT: Final = "impact.functional_unit.count"
INTERRUPTED: Final = "impact.interrupted"
"""True on a span that was still open when the process ended."""
STATE: Final = "impact.state"
ERROR_TYPE: Final = "error.type"

# --- attributes of metrics and of the resource ---------------------------------------------------------------------------
SOURCE: Final = "impact.source"
PUE: Final = "impact.pue"
WUE: Final = "impact.wue"
GRID_ZONE: Final = "impact.grid.zone"

# --- metrics -----------------------------------------------------------------------------------------------------------
METRIC_HW_ENERGY: Final = "hw.energy"
METRIC_HW_POWER: Final = "hw.power"
METRIC_ENERGY: Final = "impact.energy"
METRIC_OPERATION_ENERGY: Final = "impact.operation.energy"
METRIC_OPERATION_COUNT: Final = "impact.operation.count"
METRIC_FUNCTIONAL_UNITS: Final = "impact.functional_unit"
METRIC_SDK_SAMPLES: Final = "impact.sdk.sample.count"
METRIC_SDK_CPU_TIME: Final = "impact.sdk.cpu.time"
METRIC_SDK_DROPPED: Final = "impact.sdk.export.dropped"

# --- attributes of devices ----------------------------------------------------------------------------------------------
HW_ID: Final = "hw.id"
HW_TYPE: Final = "hw.type"
HW_NAME: Final = "hw.name"
HW_PARENT: Final = "hw.parent"
HW_SCOPE: Final = "impact.scope"

# --- environment ---------------------------------------------------------------------------------------------------------
ENV_PREFIX: Final = "IMPACTSDK_"
ENV_POWERCAP_ROOT: Final = "IMPACTSDK_POWERCAP_ROOT"
ENV_RUNTIME_DIR: Final = "IMPACTSDK_RUNTIME_DIR"
ENV_OTEL_DISABLED: Final = "OTEL_SDK_DISABLED"

# --- entry points --------------------------------------------------------------------------------------------------------
SOURCES_GROUP: Final = "impactsdk.sources"
SCOPE_NAME: Final = "impactsdk"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"
