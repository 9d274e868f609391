"""The energy of one channel that processes share by CPU time, divided once for all of them.

Each measuring process reads a CPU's counter at its own instants, and the kernel counts busy time in steps of 10 ms: if each
worked its part out for itself, the parts of several could add up to more than there is. So whoever reads divides what was used
since anybody's last reading among all that have a *claim*, by what the CPU clocks of each show at that instant; each takes its
part when it next reads. All see the same cells of time, the same energy and the same busy time in them, and the parts of a
cell never exceed it.

Everything here is pure; :mod:`impactsdk.energy.pool_file` keeps it where all processes of a host find it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Claim", "Pool"]

_STEP_NS = 50_000_000
"""The kernel's clock of busy time moves in steps of 10 ms: that it stands still says something only over a longer time."""
_LATE_NS = 1_000_000_000
_LONGEST_CARRY_S = 1.0


@dataclass(slots=True)
class Claim:
    """What one process has used and is owed.

    Args:
        pid: The process; 0 if the clock of no single one tells what is used.
        namespace: Of which numbering of processes that number is: containers have their own.
        own_s: CPU seconds that it counts as its own, as it said when it last read.
        clock_s: What the CPU clock of the process itself showed then; others see by it what has been added since.
        served_s: Of these seconds, those that have been given their energy.
        owed_j: Energy that was given and not taken yet.
    """

    pid: int
    namespace: int
    own_s: float
    clock_s: float
    served_s: float
    owed_j: float = 0.0

    def now_s(self, clock_s: float | None) -> float:
        """Its CPU seconds now, by what the clock of its process shows; ``None`` if that cannot be read."""
        return self.own_s if clock_s is None else self.own_s + max(0.0, clock_s - self.clock_s)


@dataclass(slots=True)
class Pool:
    """One channel's account: up to when it is divided, and the claims.

    Args:
        at_ns: Monotonic instant up to which everything is divided.
        energy_j: What the counter showed then.
        busy_s: The machine's busy CPU seconds then.
    """

    at_ns: int
    energy_j: float
    busy_s: float
    claims: dict[str, Claim] = field(default_factory=dict)

    def divide(
        self,
        at_ns: int,
        energy_j: float,
        busy_s: float,
        used_s: Mapping[str, float],
        *,
        range_j: float = math.inf,
        max_power_w: float = math.inf,
    ) -> None:
        """Give to each claim its part of what was used since the last time: its CPU time over the machine's busy time.

        Args:
            at_ns: Now, on the monotonic clock.
            energy_j: What the counter shows; it begins anew after ``range_j``.
            busy_s: The machine's busy CPU seconds.
            used_s: By claim, its CPU seconds now.
            range_j: When the counter begins anew.
            max_power_w: A power that the device cannot exceed.

        CPU time that finds no room in the machine's busy time, which moves in steps, waits for the next cell. Meters of one
        process share its time equally. A reading that is older than somebody else's changes nothing.
        """
        elapsed_ns, rise_j = at_ns - self.at_ns, energy_j - self.energy_j
        if math.isfinite(range_j):
            rise_j %= range_j
        most_j = max_power_w * (max(0, elapsed_ns) + _LATE_NS) * 1e-9
        if elapsed_ns <= 0 or rise_j < 0 or rise_j > min(most_j, range_j / 2):
            if elapsed_ns > _LATE_NS:  # not a late reading: the counter was reset, and what it used meanwhile is not known
                self._begin_again(at_ns, energy_j, busy_s, used_s)
            return
        busy_gain_s = busy_s - self.busy_s
        if busy_gain_s <= 0 and elapsed_ns < _STEP_NS:
            return
        busy_gain_s = max(0.0, busy_gain_s)
        waiting_s = {key: max(0.0, used_s.get(key, claim.own_s) - claim.served_s) for key, claim in self.claims.items()}
        part = self._parts()
        wanted_s = math.fsum(part[key] * waiting_s[key] for key in waiting_s) if len(part) > 1 else sum(waiting_s.values())
        room = min(1.0, busy_gain_s / wanted_s) if wanted_s > 0 else 0.0
        for key, claim in self.claims.items():
            served_s = waiting_s[key] * room
            if served_s > 0:
                claim.owed_j += rise_j * (part[key] * served_s / busy_gain_s)
            claim.served_s += served_s + max(0.0, waiting_s[key] - served_s - _LONGEST_CARRY_S)
        self.at_ns, self.energy_j, self.busy_s = at_ns, energy_j, max(self.busy_s, busy_s)

    def _parts(self) -> dict[str, float]:
        """By claim, its part of the time of its process: several meters of one share it."""
        if len(self.claims) == 1:
            return dict.fromkeys(self.claims, 1.0)
        whose = [(claim.pid, claim.namespace) for claim in self.claims.values()]
        return {
            key: 1.0 / whose.count((claim.pid, claim.namespace)) if claim.pid else 1.0 for key, claim in self.claims.items()
        }

    def take(self, key: str, most_j: float) -> float:
        """What a claim is owed, ``most_j`` at the most; the rest stays for the next time."""
        claim = self.claims[key]
        taken_j = min(claim.owed_j, max(0.0, most_j))
        claim.owed_j -= taken_j
        return taken_j

    def _begin_again(self, at_ns: int, energy_j: float, busy_s: float, used_s: Mapping[str, float]) -> None:
        self.at_ns, self.energy_j, self.busy_s = at_ns, energy_j, busy_s
        for key, claim in self.claims.items():
            claim.served_s = max(claim.served_s, used_s.get(key, claim.own_s))
