"""Recorded runs, looked at again: no device and no re-run is needed."""

from impactsdk.report.recompute import recompute

__all__ = ["recompute"]
