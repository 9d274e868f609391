"""Ids of spans that leave the program's own random numbers alone.

OpenTelemetry draws them from Python's global generator: a program that seeds it would get the same ids in every run, and other
random numbers when it is measured than when it is not.
"""

from __future__ import annotations

import os
import random

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

__all__ = ["OwnIds"]

_random = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)  # else parent and child would draw the same


class OwnIds(RandomIdGenerator):
    """Random ids from a generator of our own, seeded by the system."""

    def generate_span_id(self) -> int:
        """64 random bits, not all zero."""
        return _random.getrandbits(64) or self.generate_span_id()

    def generate_trace_id(self) -> int:
        """128 random bits, not all zero."""
        return _random.getrandbits(128) or self.generate_trace_id()
