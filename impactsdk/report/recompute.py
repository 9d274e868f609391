"""The impacts of a past run, computed again from its raw joules with other factors."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from impactsdk import semconv
from impactsdk.discovery import check, factor_providers
from impactsdk.errors import ConfigurationError, DegradedWarning
from impactsdk.factor import Factor, Kind, Place, weakest
from impactsdk.factors.book import UNUSABLE, Book
from impactsdk.factors.hardware import Hardware, hardware_factors
from impactsdk.factors.places import place_of
from impactsdk.factors.tables import BundledTables
from impactsdk.impact import Use, added, impact_of
from impactsdk.model import Impact, Operation, Totals
from impactsdk.rates import S_PER_YEAR
from impactsdk.report.journal import Account, Moment, Run, read
from impactsdk.settings import Settings

__all__ = ["recompute"]

_NOBODY = Account()


def recompute(path: str | os.PathLike[str], **settings: Any) -> Totals:
    """What a recorded run cost, with the factors that ``settings`` ask for.

    The joules, the seconds and the units are those of the journal; nothing is measured and nothing is run. Where a tariff
    changes by the hour, each part of the run (of ten seconds) is priced at its own time.

    Args:
        path: The journal, ``impact/run-....jsonl``.
        settings: As for :func:`impactsdk.configure`: ``region``, ``pue``, ``factors``, ``price_per_kwh``, ... What is not
            given is as it was recorded (place, PUE, WUE, manufacture of the hardware), else as the tables say. Variables of the
            environment are not looked at, but for what a provider of factors needs.

    Returns:
        The account as :meth:`Meter.totals` gives it. Intervals are left out: the journal has those of single spans only.

    Raises:
        JournalError: The file cannot be read, is no journal, or has more than one run in it.
        ConfigurationError: A setting cannot be used.
    """
    chosen = Settings.load({}, **settings)
    chosen = replace(chosen, environ=dict(os.environ))
    check(chosen)
    run = read(Path(path))
    if run.unread:
        lines = f"{run.unread} line{'s' * (run.unread != 1)}"
        warnings.warn(f"{path}: {lines} cannot be read; what was written there is left out", DegradedWarning, stacklevel=2)
    chosen, place = _as_recorded(chosen, run)
    told: dict[str, str] = {}
    book = Book(chosen, factor_providers(chosen, told.__setitem__), place, told.__setitem__)
    try:
        hardware = _recorded_hardware(chosen, run.moments[-1])
        if hardware is not None:
            book.describe(hardware)
        totals = _totals(run, book)
    finally:
        book.close()
    for key, text in told.items():  # that one cannot answer for the past is no news: the labels say which factor was used
        if key.endswith((UNUSABLE, "Error")):
            raise ConfigurationError(f"factors: {text}")
    return totals


def _as_recorded(chosen: Settings, run: Run) -> tuple[Settings, Place | None]:
    """The settings with what the resource of the run adds to them."""
    recorded = _place(run.resource.get(semconv.PLACE))
    place = recorded if chosen.region is None else place_of(chosen.region)
    of_tables = {factor.kind: factor.value for factor in BundledTables().factors(place=recorded, unix_ns=0)}
    kept: dict[str, Any] = {}
    for name, value in (("pue", run.resource.get(semconv.PUE)), ("wue", run.resource.get(semconv.WUE))):
        # Somewhere else, what the tables said of the recorded place does not hold; what the user said does.
        of_table = of_tables.get(cast("Kind", name))
        if value is not None and getattr(chosen, name) is None and (place == recorded or value != of_table):
            kept[name] = float(value)
    chosen = replace(chosen, **kept)
    return chosen, place


def _place(code: object) -> Place | None:
    try:
        return None if code is None else place_of(str(code))
    except ConfigurationError:  # of another version's tables
        return None


def _recorded_hardware(chosen: Settings, last: Moment) -> Hardware | None:
    """What the run itself was charged for the manufacture of its hardware, as a factor, unless the user gives one."""
    whole = Factor("resource_share", 1.0, "1", "journal")
    if chosen.embodied_kg is not None:
        return Hardware((), hardware_factors(()).lifetime, whole)
    if chosen.lifetime_years is not None or chosen.resource_share is not None:
        raise ConfigurationError(
            "lifetime_years and resource_share need embodied_kg here: the journal has no more than what was charged"
        )
    known = [account for account in last.accounts.values() if account.embodied_g is not None and account.seconds > 0]
    seconds = sum(account.seconds for account in known)
    if seconds <= 0:
        return None
    grams = sum(account.embodied_g or 0.0 for account in known) * S_PER_YEAR / seconds
    device = Factor("embodied", grams, "g{CO2e}", "journal", place="recorded", scope="per_year", nature="estimated")
    return Hardware((device,), Factor("lifetime", 1.0, "a", "journal"), whole)


def _totals(run: Run, book: Book) -> Totals:
    names = dict.fromkeys(name for moment in run.moments for name in moment.accounts)
    impacts = {name: _impact(name, run, book) for name in names}
    last = run.moments[-1]
    whole: Impact | None = None
    for name, impact in impacts.items():
        part = impact
        if last.channels_j and last.accounts.get(name, _NOBODY).energy_j is None:
            part = _impact(name, run, book, known=True)  # the whole is what the devices counted, as in the totals of the run
        whole = part if whole is None else added(whole, part)
    used = {name: account.energy_j or 0.0 for name, account in last.accounts.items()}
    return Totals(
        channels=last.channels_j,  # at the same instant as the rest
        attributed_j=sum(energy_j for name, energy_j in used.items() if name is not None),
        unattributed_j=used.get(None, 0.0),
        others_j=last.others_j,
        operations={name: _operation(account, impacts[name]) for name, account in last.accounts.items() if name is not None},
        impact=whole or Impact(),
        duration_s=sum(account.seconds for account in last.accounts.values()),
    )


def _operation(account: Account, impact: Impact) -> Operation:
    return Operation(
        count=account.count,
        duration_s=account.duration_s,
        energy_j=account.energy_j,
        energy_by_type=account.by_type_j,
        unit=account.unit,
        units=account.units,
        impact=impact,
        self_duration_s=account.seconds,
        counted=account.counted,
    )


def _impact(name: str | None, run: Run, book: Book, *, known: bool = False) -> Impact:
    """The parts of an account, each priced at its own time; ``known``: joules of which nobody knows are none."""
    total: Impact | None = None
    units: float | None = None
    for unix_ns, use in _parts(name, run, known=known):
        impact = impact_of(use, book.rates(unix_ns))
        units = use.units if units is None else units + (use.units or 0.0)
        total = impact if total is None else added(total, impact, units=units)
    return Impact() if total is None else replace(total, intervals={})


def _parts(name: str | None, run: Run, *, known: bool) -> Iterator[tuple[int, Use]]:
    nature = weakest("measured", *(nature for nature in run.natures if nature in ("calculated", "estimated", "forecast")))  # type: ignore[arg-type]
    before, before_ns = _NOBODY, 0
    last = run.moments[-1].accounts.get(name, _NOBODY)
    known = known or last.energy_j is not None  # a device that has answered only later: until then there was nothing in it
    told = last.counted == last.count  # else these are not the units that all of the energy has done
    for moment in run.moments:
        account = moment.accounts.get(name)
        if account is None:
            continue
        energy_j = (account.energy_j or 0.0) - (before.energy_j or 0.0) if known else None
        units = None if account.units is None or not told else account.units - (before.units or 0.0)
        middle_ns = moment.unix_ns if not before_ns else (before_ns + moment.unix_ns) // 2
        yield middle_ns, Use(energy_j, None, None, account.seconds - before.seconds, units, nature)
        before, before_ns = account, moment.unix_ns
