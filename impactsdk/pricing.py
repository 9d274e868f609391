"""What was used, priced with the factors that held at that time.

Factors change: a live grid, a tariff by the hour. Each time they do, an epoch ends and what every account has used so far is
priced and put by; what comes after is priced anew. A region that was open across such a change is priced with the mean of the
epochs, weighted by time. So the totals are the sum of the regions' own impacts.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from impactsdk.impact import NOTHING, Use, added, impact_of
from impactsdk.model import Impact
from impactsdk.rates import Rates, mixed

__all__ = ["Priced", "Pricing"]

_MOST_EPOCHS = 4_096
_ROUNDING = 1e-12
_Blur = tuple[float, float]
"""Joules below and above."""
_SHARP: _Blur = (0.0, 0.0)


class Priced:
    """One account: what was put by at the ends of epochs, and how much of its use that covers.

    The interval of a use grows with it, and each epoch has its own part of that. A blur is beside it: how far below and above
    the use the truth may lie at that instant, since a counter was between two ticks. It has a part in the epoch before and,
    turned round, in that after.
    """

    __slots__ = ("banked", "blur", "covered")

    def __init__(self) -> None:
        self.banked: Impact | None = None
        self.covered = NOTHING
        self.blur = _SHARP

    def put_by(self, use: Use, rates: Rates, *, blur: _Blur = _SHARP) -> None:
        """Price everything up to ``use``."""
        use = _counted(use)
        if not _is_nothing(use):
            self.banked, self.covered, self.blur = self.impact(use, rates, blur=blur), use, blur

    def put_apart(self, use: Use, rates: Rates, *, blur: _Blur = _SHARP) -> None:
        """Price ``use``, a part of the account's that has rates of its own."""
        use = _counted(use)
        impact = impact_of(_blurred(use, blur), rates)
        self.covered, self.blur = _sum(self.covered, use), (self.blur[0] + blur[0], self.blur[1] + blur[1])
        self.banked = impact if self.banked is None else added(self.banked, impact, units=self.covered.units)

    def impact(self, use: Use, rates: Rates, *, blur: _Blur = _SHARP) -> Impact:
        """What the account's whole ``use`` so far costs."""
        if self.banked is None:
            return impact_of(_blurred(use, blur), rates)
        rest = _rest(use, self.covered)
        impact = self.banked
        if not _is_nothing(rest):
            rest = _blurred(rest, (blur[0] + self.blur[1], blur[1] + self.blur[0]))
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

    def turn(self, at_ns: int, rates: Rates, uses: Iterable[tuple[str, Use, _Blur]]) -> None:
        """From ``at_ns`` on other rates hold; ``uses`` is what every account has used by then, and its blur."""
        if self._epochs:
            for name, use, blur in uses:
                self.account(name).put_by(use, self.rates, blur=blur)
        self._epochs.append((at_ns, rates))
        self.rates = rates

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
    return use.energy_j == 0.0 == use.seconds and not use.high_j and not use.units


def _counted(use: Use) -> Use:
    """A part of an account's use: joules that nobody knows are not in the account, units that nobody counted are none."""
    if use.energy_j is None:
        use = use._replace(energy_j=0.0, low_j=0.0, high_j=0.0)
    return use if use.units is not None else use._replace(units=0.0)


def _blurred(use: Use, blur: _Blur) -> Use:
    """``use`` with an interval that is so much wider, and holds its value whatever was rounded; from nothing, at the least."""
    energy_j, low_j, high_j = use[:3]
    if energy_j is None:
        return use
    if high_j is not None:
        high_j = max(high_j + blur[1], energy_j) if math.isfinite(blur[1]) else None
    return use._replace(low_j=0.0 if low_j is None else max(0.0, min(low_j - blur[0], energy_j)), high_j=high_j)


def _sum(one: Use, other: Use) -> Use:
    return Use(
        _plus(one.energy_j, other.energy_j),
        _plus(one.low_j, other.low_j),
        _plus(one.high_j, other.high_j),
        one.seconds + other.seconds,
        (one.units or 0.0) + (other.units or 0.0),
        other.nature,
    )


def _plus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _rest(whole: Use, part: Use) -> Use:
    """What ``whole`` has beyond ``part``."""
    return Use(
        _less(whole.energy_j, part.energy_j),
        _less(whole.low_j, part.low_j),
        _less(whole.high_j, part.high_j),
        _less(whole.seconds, part.seconds) or 0.0,
        (whole.units or 0.0) - (part.units or 0.0),
        whole.nature,
    )


def _less(whole: float | None, part: float | None) -> float | None:
    """The difference, where what is left of rounding is nothing: it must not be asked for a price."""
    if whole is None or part is None:
        return None
    rest = whole - part
    return rest if abs(rest) > _ROUNDING * abs(whole) else 0.0
