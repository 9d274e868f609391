"""Which factors hold now: what the user set, then the providers in their order, then the bundled tables, else unknown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from impactsdk import semconv
from impactsdk.factor import Factor, Kind, Place
from impactsdk.factors.constants import UserConstants
from impactsdk.factors.hardware import Hardware
from impactsdk.factors.tables import BundledTables, reasons
from impactsdk.protocols import FactorProvider
from impactsdk.rates import Rates, rates_of
from impactsdk.settings import Settings

__all__ = ["UNUSABLE", "Book"]

_PER_KWH = "/(kW.h)"
_UNITS: dict[Kind, str] = {
    "carbon_intensity": "g{CO2e}" + _PER_KWH,
    "carbon_intensity_market": "g{CO2e}" + _PER_KWH,
    "water_intensity": "L" + _PER_KWH,
    "wue": "L" + _PER_KWH,
    "pue": "1",
    "embodied": "g{CO2e}",
    "lifetime": "a",
    "resource_share": "1",
    "social_cost_of_carbon": "{USD2020}/t",
    "health_of_carbon": "DALY/kg",
    "health_of_water": "DALY/m3",
    "biodiversity_of_carbon": "species.yr/kg",
    "biodiversity_of_water": "species.yr/m3",
}
_MONEY: dict[Kind, str] = {"price": _PER_KWH, "compute_price": "/h", "purchase_price": "", "unit_value": ""}
"""What stands behind the currency."""
UNUSABLE = "unusable"
"""The last word of the key of a complaint about a factor that a provider gave."""
_AGAIN_NS = 1_000_000_000
_WITHOUT_A_SOURCE: dict[Kind, str] = {
    "carbon_intensity": "no provider of factors knows it: set IMPACTSDK_CARBON_INTENSITY_G_PER_KWH",
    "price": "no provider of factors knows it: set IMPACTSDK_PRICE_PER_KWH",
}


class Book:
    """Asked by the sampler's thread; it answers from memory.

    Args:
        settings: For the user's own figures, and for the currency.
        providers: Best first.
        place: Where the machine stands; ``None`` if that is unknown.
        complain: Told once when a provider fails.
    """

    def __init__(
        self,
        settings: Settings,
        providers: Sequence[FactorProvider],
        place: Place | None,
        complain: Callable[[str, str], None],
    ) -> None:
        self.place = place
        self.hardware: Hardware | None = None
        self._settings, self._complain = settings, complain
        self._constants = UserConstants(settings)
        self._providers = list(providers)
        self._tabled = any(isinstance(provider, BundledTables) for provider in providers)
        self._asked_ns: int | None = None
        self._known: tuple[Factor, ...] | None = None
        self._rates = Rates()

    def rates(self, unix_ns: int) -> Rates:
        """What holds at ``unix_ns``: the same object for as long as nothing changes."""
        if self._asked_ns is None or abs(unix_ns - self._asked_ns) >= _AGAIN_NS:
            self._asked_ns = unix_ns
            known = self._ask(unix_ns)
            if known != self._known:
                self._known = known
                self._rates = self._made(known)
        return self._rates

    def facts(self) -> dict[str, float | str]:
        """What does not change while the process runs, for the resource of providers of our own."""
        settings = self._settings
        values: dict[str, float | str | None] = {
            semconv.PUE: settings.pue,
            semconv.WUE: settings.wue,
            semconv.PLACE: None if self.place is None else self.place.code,
        }
        for provider in self._providers if self.place is not None else ():
            if isinstance(provider, BundledTables):  # the others may change their mind, or ask a network
                for factor in provider.factors(place=self.place, unix_ns=0):
                    if factor.kind == "carbon_intensity":
                        values[semconv.GRID_ZONE] = factor.place
                    elif factor.kind in ("pue", "wue"):
                        name = semconv.PUE if factor.kind == "pue" else semconv.WUE
                        values[name] = factor.value if values[name] is None else values[name]
        return {name: value for name, value in values.items() if value is not None}

    def describe(self, hardware: Hardware) -> None:
        """The devices are open: from now on their manufacture counts."""
        self.hardware = hardware
        self._asked_ns = self._known = None

    def close(self) -> None:
        """Let go of what the providers hold."""
        for provider in self._providers:
            try:
                provider.close()
            except Exception as error:  # noqa: BLE001, PERF203 - somebody else's plug-in
                self._tell(provider, "close", f"could not be closed: {error!r}")

    def _ask(self, unix_ns: int) -> tuple[Factor, ...]:
        best: dict[Kind, Factor] = {}
        devices: tuple[Factor, ...] = ()
        for provider in (self._constants, *self._providers):
            try:
                answers = list(provider.factors(place=self.place, unix_ns=unix_ns))
            except (Exception, SystemExit) as error:  # noqa: BLE001 - somebody else's plug-in must not stop the measuring
                words = f"failed ({type(error).__name__}: {error}); what comes after it is used instead"
                self._tell(provider, type(error).__name__, words)
                continue
            trouble = getattr(provider, "trouble", None)
            if trouble:
                self._tell(provider, str(trouble)[:40], str(trouble))
            usable = []
            for factor in answers:
                why = _unusable(factor, self._settings.currency)
                if why is None:
                    usable.append(factor)
                    best.setdefault(factor.kind, factor)
                else:
                    self._tell(provider, UNUSABLE, f"failed ({why}); what comes after it is used instead")
            devices = devices or tuple(factor for factor in usable if factor.kind == "embodied")
        best.pop("embodied", None)
        return self._with_hardware(best, devices)

    def _with_hardware(self, best: dict[Kind, Factor], devices: tuple[Factor, ...]) -> tuple[Factor, ...]:
        hardware = self.hardware
        # Where no tables are wanted, only for what somebody has given.
        if hardware is not None and (devices or self._settings.factors != ()):
            best.setdefault("lifetime", hardware.lifetime)
            if not devices:
                devices = hardware.devices
                best.setdefault("resource_share", _among_ranks(hardware.resource_share, self._settings))
        return (*best.values(), *devices)

    def _made(self, known: tuple[Factor, ...]) -> Rates:
        why = dict(reasons(self.place, self._settings.currency)) if self._tabled else dict(_WITHOUT_A_SOURCE)
        for factor in known:
            why.pop(factor.kind, None)
        mine = self.hardware is None or not any(factor in self.hardware.devices for factor in known)
        # A share of the machine is one of the server around the boards; of what the user named himself it is one of all.
        shared = [factor for factor in known if factor.kind == "embodied" and (mine or factor.place == "server")]
        return rates_of(known, currency=self._settings.currency, shared=shared, reasons=why)

    def _tell(self, provider: FactorProvider, key: str, words: str) -> None:
        name = _name(provider)
        self._complain(f"factors:{name}:{key}", f"{name}: {words}")


def _name(provider: FactorProvider) -> str:
    return str(getattr(provider, "name", type(provider).__name__))


def _unusable(factor: object, currency: str) -> str | None:
    """Why nothing can be multiplied or divided by it; ``None`` if it can."""
    if not isinstance(factor, Factor):
        return f"factors() must give impactsdk.factor.Factor objects, not {type(factor).__name__}"
    kind = factor.kind
    numbers = [number for number in (factor.value, factor.low, factor.high) if number is not None]
    if factor.value is None or not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        return f"{kind} cannot be {factor.value!r} ({factor.low!r} to {factor.high!r})"
    if min(numbers) < 0 or (kind == "lifetime" and min(numbers) == 0) or (kind == "pue" and factor.value < 1):
        return f"{kind} cannot be {factor.value!r}: it is too small"
    money = f"{{{currency}}}{_MONEY[kind]}" if kind in _MONEY else None
    if factor.unit != (money or _UNITS.get(kind)):
        remedy = ": set IMPACTSDK_CURRENCY" if money and factor.unit.endswith("}" + _MONEY[kind]) else ""
        return f"its {kind} is in {factor.unit!r}, and {money or _UNITS.get(kind)!r} is wanted{remedy}"
    return None


def _among_ranks(share: Factor, settings: Settings) -> Factor:
    """The server is shared by the ranks of a launcher such as torchrun: each measures for itself."""
    ranks = settings.environ.get("LOCAL_WORLD_SIZE", "")
    if not (ranks.isdecimal() and int(ranks) > 1):
        return share
    parts = [None if value is None else value / int(ranks) for value in (share.low, share.high)]
    return replace(
        share,
        value=share.value / int(ranks),
        low=parts[0],
        high=parts[1],
        note=f"{share.note + '; ' if share.note else ''}divided by the {ranks} ranks on this machine",
    )
