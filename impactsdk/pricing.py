"""What was used, priced with the factors that held at that time.

Factors change: a live grid, a tariff by the hour. Each time they do, an epoch ends and what every account has used so far is
priced and put by; what comes after is priced anew. A region that was open across such a change is priced with the mean of the
epochs, weighted by time. So the totals are the sum of the regions' own impacts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from impactsdk.impact import NOTHING, Use, added, impact_of
from impactsdk.model import Impact
from impactsdk.rates import Rates, mixed

__all__ = ["Priced", "Pricing"]

_MOST_EPOCHS = 4_096


class Priced:
    """One account: what was put by at the ends of epochs, and how much of its use that covers."""

    __slots__ = ("banked", "covered")

    def __init__(self) -> None:
        self.banked: Impact | None = None
        self.covered = NOTHING

    def put_by(self, use: Use, rates: Rates) -> None:
        """Price everything up to ``use``."""
        use = _counted(use)
        if not _is_nothing(use):
            self.banked, self.covered = self.impact(use, rates), use

    def put_apart(self, use: Use, rates: Rates) -> None:
        """Price ``use``, a part of the account's that has rates of its own."""
        use = _counted(use)
        impact = impact_of(use, rates)
        self.covered = _sum(self.covered, use)
        self.banked = impact if self.banked is None else added(self.banked, impact, units=self.covered.units)

    def impact(self, use: Use, rates: Rates) -> Impact:
        """What the account's whole ``use`` so far costs."""
        if self.banked is None:
            return impact_of(use, rates)
        rest = _difference(use, self.covered)
        impact = self.banked
        if not _is_nothing(rest):
            impact = added(impact, impact_of(rest, rates), units=use.units)
        if use.units is None and impact.margin is not None:
            impact = replace(impact, margin=None)
        return impact


class Pricing:
    """The epochs of the factors, and the accounts that are priced by them."""

    def __init__(self) -> None:
        self.rates = Rates()
        self._epochs: deque[tuple[int, Rates]] = deque(maxlen=_MOST_EPOCHS)
        self._accounts: dict[str, Priced] = {}

    def account(self, name: str) -> Priced:
        """The account of that name, made when it is new."""
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Priced()
        return account

    def turn(self, at_ns: int, rates: Rates, uses: Iterable[tuple[str, Use]]) -> None:
        """From ``at_ns`` on other rates hold; ``uses`` is what every account has used by then."""
        if self._epochs:
            for name, use in uses:
                self.account(name).put_by(use, self.rates)
        self._epochs.append((at_ns, rates))
        self.rates = rates

    def whole(self, use: Use) -> Impact:
        """What everything costs, ``use`` being what everyone has used so far: the sum of what each account costs.

        What is in no account yet, because its region is still open, is priced at what holds now.
        """
        everyone = Priced()
        for account in list(self._accounts.values()):
            if account.banked is not None:
                before = everyone.banked
                everyone.banked = account.banked if before is None else added(before, account.banked)
                everyone.covered = _sum(everyone.covered, account.covered)
        return everyone.impact(use, self.rates)

    def rates_between(self, start_ns: int, end_ns: int) -> Rates:
        """The rates for something that lasted from ``start_ns`` to ``end_ns``: :attr:`rates` itself if they held all along."""
        epochs = self._epochs
        if not epochs or epochs[-1][0] <= start_ns or len(epochs) == 1:
            return self.rates
        parts: list[tuple[float, Rates]] = []
        until_ns = max(end_ns, start_ns + 1)
        for at_ns, rates in reversed(epochs):
            if at_ns < until_ns:
                parts.append((float(until_ns - max(at_ns, start_ns)), rates))
                until_ns = at_ns
            if at_ns <= start_ns:
                break
        if not parts:  # before the first
            return epochs[0][1]
        return mixed(parts[::-1])


def _is_nothing(use: Use) -> bool:
    return use[:4] == NOTHING[:4] and not use.units


def _counted(use: Use) -> Use:
    """A part of an account's use: joules that nobody knows are not in the account, units that nobody counted are none."""
    if use.energy_j is None:
        use = use._replace(energy_j=0.0, low_j=0.0, high_j=0.0)
    return use if use.units is not None else use._replace(units=0.0)


def _sum(one: Use, other: Use) -> Use:
    return Use(
        _plus(one.energy_j, other.energy_j, 1),
        _plus(one.low_j, other.low_j, 1),
        _plus(one.high_j, other.high_j, 1),
        one.seconds + other.seconds,
        (one.units or 0.0) + (other.units or 0.0),
        other.nature,
    )


def _difference(whole: Use, part: Use) -> Use:
    return Use(
        _plus(whole.energy_j, part.energy_j, -1),
        _plus(whole.low_j, part.low_j, -1),
        _plus(whole.high_j, part.high_j, -1),
        whole.seconds - part.seconds,
        (whole.units or 0.0) - (part.units or 0.0),
        whole.nature,
    )


def _plus(one: float | None, other: float | None, sign: int) -> float | None:
    if one is None:
        return None
    return one + sign * (other or 0.0)
