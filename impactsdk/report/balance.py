"""Whether a recorded run adds up: every joule that the devices counted, once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from impactsdk.errors import JournalError
from impactsdk.report.journal import read

__all__ = ["Balance", "balance"]

_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Balance:
    """Joules of one run: what the devices counted, and who owes them."""

    channels: dict[str, float]
    spans: int
    spans_j: float
    """Own joules of the spans."""
    regions_j: float
    """Own joules of all regions; what the spans do not have is that of regions without one."""
    open_j: float
    """Of regions that were still open: zero unless the process was killed."""
    unattributed_j: float
    others_j: float
    later_j: float
    """What the devices counted after the last totals: of a killed process, as far as it was written."""
    troubles: tuple[str, ...]

    @property
    def devices_j(self) -> float:
        """What all devices counted."""
        return math.fsum(self.channels.values())

    @property
    def difference_j(self) -> float:
        """What the parts have too much, or too little where it is negative."""
        return math.fsum([self.regions_j, self.open_j, self.unattributed_j, self.others_j, -self.devices_j])

    @property
    def adds_up(self) -> bool:
        """To a part in a thousand million, operation by operation."""
        return not self.troubles and abs(self.difference_j) <= _TOLERANCE * max(self.devices_j, 1e-300)


def balance(journal: Path) -> Balance:
    """Add up a journal at its last totals.

    Raises:
        JournalError: The file cannot be read, or is no journal, or its process was killed before the first totals.
    """
    run = read(journal)
    last = run.moments[-1]
    if not last.channels_j:
        raise JournalError(f"{journal} ends before the first totals (they come every 10 s and at the end): nothing to add up")
    troubles = []
    for name, (count, own_j) in last.spans.items():
        account = last.accounts.get(name)
        # Regions of that name without a span are in the totals alone.
        if account is None or account.count != count or account.energy_j is None:
            continue
        if not math.isclose(own_j, account.energy_j, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE * sum(last.channels_j.values())):
            troubles.append(f"{name}: its spans ({count}) have {own_j:.12g} J, its total is {account.energy_j:.12g} J")
    outside = last.accounts.get(None)
    spans_j = math.fsum(own_j for _, own_j in last.spans.values())
    regions_j = math.fsum(of.energy_j or 0.0 for name, of in last.accounts.items() if name is not None)
    devices_j = math.fsum(last.channels_j.values())
    if spans_j - regions_j > _TOLERANCE * devices_j:
        troubles.append(f"the spans have {spans_j:.12g} J, more than the {regions_j:.12g} J of all regions")
    return Balance(
        channels=last.channels_j,
        spans=sum(count for count, _ in last.spans.values()),
        spans_j=spans_j,
        regions_j=regions_j,
        open_j=last.open_j,
        unattributed_j=0.0 if outside is None else outside.energy_j or 0.0,
        others_j=last.others_j,
        later_j=max(0.0, math.fsum(run.channels.values()) - devices_j),
        troubles=tuple(troubles),
    )
