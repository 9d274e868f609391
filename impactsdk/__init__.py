"""What each function, block, epoch, step or request of your own code costs: joules on OpenTelemetry spans."""

from impactsdk.enriched import EnergySpanProcessor
from impactsdk.errors import (
    ConfigurationError,
    DegradedWarning,
    ImpactError,
    JournalError,
    RegionError,
    SettleTimeoutError,
    SourceError,
    SourceFailedError,
    SourceUnavailableError,
)
from impactsdk.factor import Factor, Place
from impactsdk.measured import current, measured, track
from impactsdk.meter import Meter, configure, flush, shutdown
from impactsdk.model import Channel, Impact, Measurement, Operation, Reading, Totals
from impactsdk.processes import child_environment, handed_down, joined
from impactsdk.protocols import Clock, EnergySource, FactorProvider
from impactsdk.region import Region
from impactsdk.settings import Settings

__all__ = [
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
