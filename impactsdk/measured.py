"""The face: ``@measured``, ``with measured(...)`` and ``track``, on the default meter."""

from __future__ import annotations

from impactsdk.meter import default_meter
from impactsdk.region import Region, current_region

__all__ = ["current", "measured", "track"]

_default = default_meter()
# Bound methods and not functions around them: an inner loop pays for each call.
measured = _default.measured
track = _default.track


def current() -> Region | None:
    """The innermost open region of this thread or task, to add units to; ``None`` outside of any."""
    return current_region()
