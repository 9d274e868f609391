"""What a vector of the ledger holds: one number per channel, then some that are divided among regions in the same way."""

from __future__ import annotations

__all__ = ["EXTRAS", "HIGH", "LOW", "SECONDS"]

LOW, HIGH, SECONDS = -3, -2, -1
"""How much less and how much more the models' bounds would credit (joules), and time itself (seconds)."""
EXTRAS = 3
