"""Whether a recorded run adds up: every joule that the devices counted, once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from impactsdk.errors import JournalError
from impactsdk.report.journal import Moment, read

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
    without_span: dict[str, tuple[int, int]]
    """Operations of which not all calls have a span here: how many have none, and how many there are. It may be meant so
    (``span=False``, a sampler), or spans are lost."""
    unread: int
    """Lines that cannot be read."""

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
        JournalError: The file cannot be read, is no journal, or has nothing to add up: no device could be read, or its process
            was killed before the first totals.
    """
    run = read(journal)
    last = run.moments[-1]
    if not last.channels_j:
        if run.until_ns and not run.channels:  # totals were read, and no device is in them
            raise JournalError(f"{journal}: no device could be read in this run: there is nothing to add up")
        raise JournalError(f"{journal} ends before the first totals (they come every 10 s and at the end): nothing to add up")
    tolerance_j = _TOLERANCE * math.fsum(abs(energy_j) for energy_j in last.channels_j.values())
    troubles = [
        f"{what} has {energy_j:.12g} J, less than nothing" for what, energy_j in _amounts(last) if energy_j < -tolerance_j
    ]
    for name, (count, own_j) in last.spans.items():
        account = last.accounts.get(name)
        if account is None:
            continue  # its name was cut, or it is one of too many: it is counted among all of them
        if account.count < count:
            troubles.append(f"{name}: it has {count} spans, and {account.count} calls")
        elif account.energy_j is not None and _differ(own_j, account.energy_j, tolerance_j, all_there=account.count == count):
            troubles.append(f"{name}: its spans ({count}) have {own_j:.12g} J, its total is {account.energy_j:.12g} J")
    operations = {name: account for name, account in last.accounts.items() if name is not None}
    spans, calls = sum(count for count, _ in last.spans.values()), sum(account.count for account in operations.values())
    if spans > calls:
        troubles.append(f"there are {spans} spans, and {calls} calls in all")
    spans_j = math.fsum(own_j for _, own_j in last.spans.values())
    regions_j = math.fsum(account.energy_j or 0.0 for account in operations.values())
    if spans_j - regions_j > tolerance_j:
        troubles.append(f"the spans have {spans_j:.12g} J, more than the {regions_j:.12g} J of all regions")
    outside = last.accounts.get(None)
    return Balance(
        channels=last.channels_j,
        spans=spans,
        spans_j=spans_j,
        regions_j=regions_j,
        open_j=last.open_j,
        unattributed_j=0.0 if outside is None else outside.energy_j or 0.0,
        others_j=last.others_j,
        later_j=max(0.0, math.fsum(run.channels.values()) - math.fsum(last.channels_j.values())),
        troubles=tuple(troubles),
        without_span={
            name: (account.count - count, account.count)
            for name, account in operations.items()
            if (count := last.spans.get(name, (0, 0.0))[0]) < account.count
        },
        unread=run.unread,
    )


def _amounts(last: Moment) -> Iterator[tuple[str, float]]:
    yield from last.channels_j.items()
    yield from ((name or "the time outside", of.energy_j or 0.0) for name, of in last.accounts.items())
    yield from (("of others", last.others_j), ("open regions", last.open_j))
    yield from ((f"the spans of {name}", own_j) for name, (_, own_j) in last.spans.items())


def _differ(own_j: float, total_j: float, tolerance_j: float, *, all_there: bool) -> bool:
    """Whether spans have another energy than the account; where some are missing, more than it."""
    close = math.isclose(own_j, total_j, rel_tol=_TOLERANCE, abs_tol=tolerance_j)
    return not close and (all_there or own_j > total_j)
