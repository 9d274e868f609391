"""How much looking at devices may cost: where it costs more, the sampler looks less often.

What a look costs is a matter of the machine: a wake and a few system calls are 20 us on one and 300 us on another, and eight
boards cost eight times as much as one. Fewer looks make intervals wider and no number wrong.
"""

from __future__ import annotations

import math

__all__ = ["MOST_SPARING", "Budget"]

_PART = 0.003
"""Of a core, what looking may cost; accounting for what was seen comes on top."""
_AMPLE = 0.3
"""Twice as many looks cost at most twice as much, and what they cost varies: there has to be room for both."""
_WINDOW_S = 2.0
MOST_SPARING = 8


class Budget:
    """Finds how sparing to be. Feed it what the looks have cost."""

    def __init__(self) -> None:
        self.sparing = 1
        """1, 2, 4 or 8: of so many looks that would be useful, one is worth its price."""
        self._used_s = self._elapsed_s = 0.0
        self._begun = False

    def spent(self, used_s: float, elapsed_s: float) -> bool:
        """``used_s`` of CPU time went into the looks of ``elapsed_s``; say whether :attr:`sparing` has changed."""
        self._used_s += used_s
        self._elapsed_s += elapsed_s
        if self._elapsed_s < _WINDOW_S:
            return False
        part, before = self._used_s / self._elapsed_s, self.sparing
        self._used_s = self._elapsed_s = 0.0
        begun, self._begun = self._begun, True
        if not begun:  # in the first seconds the ticks are found out, which takes many looks
            return False
        if part > _PART:
            self.sparing = min(before * 2 ** math.ceil(math.log2(part / _PART)), MOST_SPARING)
        elif part < _AMPLE * _PART:
            self.sparing = max(before // 2, 1)
        return self.sparing != before
