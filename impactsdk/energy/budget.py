"""How much looking at devices may cost: where it costs more, counters that tick are looked at less often.

What a look costs is a matter of the machine: a wake and a few system calls are 20 us on one and 300 us on another, and eight
boards cost eight times as much as one. With fewer looks it is less certain when a counter has ticked, and intervals are wider.
"""

from __future__ import annotations

__all__ = ["SPARING", "Budget"]

_PART = 0.003
"""Of a core, what looking may cost; accounting for what was seen comes on top."""
_WINDOW_S = 2.0
_FOR_WINDOWS = 15
"""So long it is sparing; then it finds out whether it still has to be."""
SPARING = 4


class Budget:
    """Finds how sparing to be. Feed it what the looks have cost."""

    def __init__(self) -> None:
        self.sparing = 1
        """1, or :data:`SPARING`: of so many looks that would be useful, one is worth its price."""
        self._used_s = self._elapsed_s = 0.0
        self._begun = False
        self._left = 0

    def spent(self, used_s: float, elapsed_s: float) -> bool:
        """``used_s`` of CPU time went into the looks of ``elapsed_s``; say whether :attr:`sparing` has changed."""
        self._used_s += used_s
        self._elapsed_s += elapsed_s
        if self._elapsed_s < _WINDOW_S:
            return False
        part, before = self._used_s / self._elapsed_s, self.sparing
        self._used_s = self._elapsed_s = 0.0
        begun, self._begun = self._begun, True
        if before == 1:
            if part > _PART and begun:  # in the first seconds the ticks are found out, which takes many looks
                self.sparing, self._left = SPARING, _FOR_WINDOWS
        else:
            self._left -= 1
            if not self._left:
                self.sparing = 1
        return self.sparing != before
