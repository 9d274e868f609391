"""Which factors hold now: what the user set, then the providers in their order, then the bundled tables, else unknown."""

from __future__ import annotations

import math
import re
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

__all__ = ["Book"]

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
_MONEY: dict[Kind, str] = {
    "price": "{EUR}/(kW.h)",
    "compute_price": "{EUR}/h",
    "purchase_price": "{EUR}",
    "unit_value": "{EUR}",
}
_MONEY_UNIT = re.compile(r"\{[A-Z]{3}\}(/\(kW\.h\)|/h)?")
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
        self._currency_unit = f"{{{settings.currency}}}"
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
                answers = [_checked(factor) for factor in provider.factors(place=self.place, unix_ns=unix_ns)]
            except (Exception, SystemExit) as error:  # noqa: BLE001 - somebody else's plug-in must not stop the measuring
                words = f"failed ({type(error).__name__}: {error}); what comes after it is used instead"
                self._tell(provider, type(error).__name__, words)
                continue
            trouble = getattr(provider, "trouble", None)
            if trouble:
                self._tell(provider, str(trouble)[:40], str(trouble))
            for factor in answers:
                if factor.unit.startswith("{") and factor.kind in _MONEY and not factor.unit.startswith(self._currency_unit):
                    self._tell(
                        provider,
                        "currency",
                        f"its {factor.kind} is in {factor.unit} and not in {self._settings.currency}, so it is not used: "
                        "set IMPACTSDK_CURRENCY",
                    )
                    continue
                best.setdefault(factor.kind, factor)
            devices = devices or tuple(factor for factor in answers if factor.kind == "embodied")
        best.pop("embodied", None)
        return self._with_hardware(best, devices)

    def _with_hardware(self, best: dict[Kind, Factor], devices: tuple[Factor, ...]) -> tuple[Factor, ...]:
        hardware = self.hardware
        if hardware is not None:
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


def _checked(factor: object) -> Factor:
    """What can be multiplied and divided by.

    Raises:
        TypeError: It is no factor, or no number is in it.
        ValueError: It is not finite; or a lifetime is not above zero.
    """
    if not isinstance(factor, Factor):
        raise TypeError(f"factors() must give impactsdk.factor.Factor objects, not {type(factor).__name__}")
    for number in (factor.value, factor.low, factor.high):
        if number is not None and not (math.isfinite(number) and (number > 0 or factor.kind != "lifetime")):
            raise ValueError(f"{factor.kind} cannot be {number!r}")
    if factor.value is None:
        raise TypeError(f"{factor.kind} has no value")
    least = 1.0 if factor.kind == "pue" else 0.0
    if factor.kind not in ("unit_value",) and factor.value < least:
        raise ValueError(f"{factor.kind} cannot be {factor.value!r}: it is at least {least:g}")
    unit = _UNITS.get(factor.kind)
    if not (factor.unit == unit if unit is not None else _MONEY_UNIT.fullmatch(factor.unit)):
        raise ValueError(f"{factor.kind} is in {factor.unit!r}, and should be in {unit or _MONEY[factor.kind]!r}")
    return factor


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
