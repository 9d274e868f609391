"""The books of a session: one tally per name, and what the ledger's numbers mean as measurements and totals."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from operator import add
from typing import Any

from opentelemetry.trace import NonRecordingSpan

from impactsdk.energy.curve import Curve
from impactsdk.energy.entry import Tally
from impactsdk.energy.ledger import Ledger
from impactsdk.energy.probe import Probe
from impactsdk.energy.vector import EXTRAS, HIGH, LOW, SECONDS
from impactsdk.export.views import Snapshot
from impactsdk.factor import Nature, weakest
from impactsdk.impact import Use, impact_of, within
from impactsdk.model import Impact, Measurement, Operation, Quality, Totals
from impactsdk.pricing import Pricing
from impactsdk.rates import Rates
from impactsdk.region import Region
from impactsdk.settings import Settings

__all__ = ["Accounts"]

_MOST_NAMES = 2_000
OTHER_NAMES = "(other names)"
_UNATTRIBUTED = "\0unattributed"
_EVERYONE = "\0everyone"
"""Accounts that are no operation's; no name can have such a character."""
_ATTRIBUTION = {"exclusive": "exclusive", "cpu_time": "cpu_time_share", "board": "time_share"}
_UNKNOWN_TICK_NS = 100_000_000
_LATE_NS = 1_000_000
"""A stamp that came less late is no gap."""


class Accounts:
    """Tallies by name, and the words around the numbers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self.tallies: dict[str, Tally] = {}
        self.curves: Sequence[Curve] = ()
        self.pricing = Pricing()

    def tally(self, name: str, unit: str | None, complain: Callable[[str, str], None]) -> Tally:
        """The account of ``name``, made when it is new. A name keeps its first unit; names beyond a limit share an account."""
        tally = self.tallies.get(name)
        if tally is not None and (unit is None or tally.unit == unit):
            return tally
        with self._lock:
            tally = self.tallies.get(name)
            if tally is None and len(self.tallies) >= _MOST_NAMES:
                complain(
                    "names",
                    f"more than {_MOST_NAMES} different names are measured; the totals of further ones are kept together as "
                    f"{OTHER_NAMES!r}. Use one name per kind of work and put what differs into attributes",
                )
                tally = self.tallies.setdefault(OTHER_NAMES, Tally(OTHER_NAMES, None))
            elif tally is None:
                tally = self.tallies[name] = Tally(name, unit)
            elif unit is not None and tally.unit is None:
                tally.unit = unit
            elif unit is not None and unit != tally.unit and tally.name != OTHER_NAMES:
                complain(
                    f"unit:{name}",
                    f"{name!r} is counted in {tally.unit!r} and in {unit!r}; its total keeps {tally.unit!r} only",
                )
            return tally

    def finish(self, region: Region) -> None:
        """A region has ended: count its functional units, and price it apart if the factors have changed while it ran."""
        units, entry, tally = region.units, region.entry, region.entry.tally
        known = self._known(region, self.coverage(region))
        if known:
            tally.answered |= entry.answered()
        missed_ns, surplus_ns = _missed(region)
        lost_j, early_j = entry.unseen_j(missed_ns=missed_ns, surplus_ns=surplus_ns)
        tally.lost_j += lost_j
        tally.early_j += early_j
        if tally.unit is None and units is not None and tally.name == region.name:
            tally.unit = region.unit  # it got to know what it counts only while it ran
        if region.unit != tally.unit:
            units = None  # of another kind than its account's
        if units is not None:
            tally.units = (tally.units or 0.0) + units
            tally.counted += 1
            tally.inside_j += entry.inside_j()
            if _counted_around(region):
                tally.inner_units += units
        assert region.exit_ns is not None
        rates = self.pricing.rates_between(region.enter_ns, region.exit_ns)
        if rates is not self.pricing.rates:
            vector, less_j, more_j = entry.self_j(), entry.error_j + early_j, entry.error_j + lost_j
            own = self._use(vector, units, known=known, less_j=less_j, more_j=more_j)
            self.pricing.account(tally.name).put_apart(own, rates)
            self.pricing.account(_EVERYONE).put_apart(self._use(vector, units, known=known), rates, blur=(less_j, more_j))

    def turn(self, at_ns: int, rates: Rates, ledger: Ledger | None) -> None:
        """Other factors hold from ``at_ns`` on: what was used until then is priced with those that held."""
        uses = [(tally.name, self._use_of(tally), (0.0, 0.0)) for tally in list(self.tallies.values())]
        if ledger is not None:
            # All that is in an account: what the open regions owe is not yet, and how much that is may be wrong, too.
            finished = [tally.credits for tally in list(self.tallies.values()) if tally.credits is not None]
            outside = [*ledger.unattributed_j, *ledger.unattributed_extras]
            vector = [math.fsum(column) for column in zip(outside, *finished, strict=True)]
            units = math.fsum(use.units or 0.0 for _, use, _ in uses)
            (less_j, more_j), open_j = ledger.error_j, ledger.open_error_j
            uses.append((_UNATTRIBUTED, self._outside(ledger), (0.0, 0.0)))
            uses.append((_EVERYONE, self._all_of(vector, units, ledger), (less_j + open_j, more_j + open_j)))
        self.pricing.turn(at_ns, rates, uses)

    def _use(
        self, vector: Sequence[float], units: float | None, *, known: bool, less_j: float = 0.0, more_j: float = 0.0
    ) -> Use:
        """A vector of the ledger as what is to be priced, with the models' bounds and how much less and more it may truly be.

        Linear in all of them, since parts of it are priced apart: the lower end may be negative here.
        """
        energy_j = math.fsum(vector[:-EXTRAS]) if known else None
        if energy_j is None:
            return Use(None, None, None, vector[SECONDS], units, self.nature)
        low_j = energy_j - vector[LOW] - less_j if math.isfinite(less_j) else None
        high_j = energy_j + vector[HIGH] + more_j if math.isfinite(more_j) else None
        return Use(energy_j, low_j, high_j, vector[SECONDS], units, self.nature)

    def _use_of(self, tally: Tally) -> Use:
        # The units of some calls are not those that the energy of all has done.
        units = tally.units if tally.counted == tally.count else None
        if tally.credits is None:
            return Use(None, None, None, 0.0, units, self.nature)
        less_j, more_j = tally.error_j + tally.early_j, tally.error_j + tally.lost_j
        return self._use(tally.credits, units, known=bool(tally.answered), less_j=less_j, more_j=more_j)

    def _outside(self, ledger: Ledger) -> Use:
        """What belongs to no region. Nobody is shown its interval, and it is left open."""
        vector = [*ledger.unattributed_j, *ledger.unattributed_extras]
        return self._use(vector, 0.0, known=self.known, less_j=math.inf, more_j=math.inf)

    def _all_of(self, vector: Sequence[float], units: float | None, ledger: Ledger) -> Use:
        """What is everyone's."""
        lost_j, early_j = ledger.unseen_j
        return self._use(vector, units, known=self.known, less_j=early_j, more_j=lost_j)

    def _done(self) -> float | None:
        """The functional units of all, if all count the same; those that a region around counts again are counted once."""
        counting = [tally for tally in list(self.tallies.values()) if tally.units]
        if len({tally.unit for tally in counting}) != 1 or any(tally.counted != tally.count for tally in counting):
            return None
        return math.fsum((tally.units or 0.0) - tally.inner_units for tally in counting)

    @property
    def known(self) -> bool:
        """Whether any device has answered so far."""
        return any(curve.knots for curve in self.curves)

    @property
    def nature(self) -> Nature:
        """The weakest nature among the channels that have answered."""
        return weakest("measured", *(curve.channel.nature for curve in self.curves if curve.knots))

    # --- one region -------------------------------------------------------------------------------------------------------

    def coverage(self, region: Region) -> float:
        """The part of a finished region's time for which the devices answered, as a mean over the channels."""
        if not self.curves:
            return 0.0
        assert region.exit_ns is not None
        duration_ns = region.exit_ns - region.enter_ns
        missing: float
        if duration_ns <= 0:
            missing = region.entry.end_segment.failed_rate
        else:
            late_ns = duration_ns - (region.entry.end_ns - region.entry.start_ns)
            if late_ns < _LATE_NS:
                late_ns = 0
            missing = (late_ns + region.entry.failed_ns()) / duration_ns
        return max(0.0, round(1.0 - missing, 6))  # a nanosecond of a reading is no answer

    def _known(self, region: Region, coverage: float) -> bool:
        """Whether a region's energy is: a device answered meanwhile, or what it used was told later and has been credited."""
        return coverage > 0.0 or any(region.entry.inclusive_j()[:-EXTRAS])

    def energy_j(self, region: Region) -> float | None:
        """Inclusive joules of a finished region; ``None`` if no device has told what it used."""
        if not self._known(region, self.coverage(region)):
            return None
        return math.fsum(region.entry.inclusive_j()[:-EXTRAS])

    def measurement(self, region: Region, anchor_ns: int) -> Measurement:
        """A finished region in the words of the public face. ``anchor_ns``: wall clock less monotonic clock."""
        assert region.exit_ns is not None
        duration_ns = region.exit_ns - region.enter_ns
        coverage = self.coverage(region)
        live = [curve for curve in self.curves if curve.knots]
        known = self._known(region, coverage)
        energy_j = self_j = low_j = high_j = self_low_j = self_high_j = None
        by_type: dict[str, float] = {}
        self_by_type: dict[str, float] = {}
        whole, alone = region.entry.inclusive_j(), region.entry.self_j()
        if known:
            inclusive, own = whole[:-EXTRAS], alone[:-EXTRAS]
            answered = region.entry.answered()
            by_type, self_by_type = self.by_type(inclusive, answered), self.by_type(own, answered)
            energy_j, self_j = math.fsum(inclusive), math.fsum(own)
            missed_ns, surplus_ns = _missed(region)
            low_j, high = region.entry.interval_j(missed_ns=missed_ns, surplus_ns=surplus_ns)
            self_low_j, self_high = region.entry.self_interval_j(low_j, high, missed_ns=missed_ns, surplus_ns=surplus_ns)
            high_j = high if math.isfinite(high) else None
            self_high_j = self_high if math.isfinite(self_high) else None
        span = region.span
        # One that is not recorded has an id nevertheless, its own or even its parent's.
        context: Any = None if span is None or isinstance(span, NonRecordingSpan) else span.get_span_context()
        units = region.units
        nature = self.nature if known else None
        rates = self.pricing.rates_between(region.enter_ns, region.exit_ns)
        impact = impact_of(Use(energy_j, low_j, high_j, whole[SECONDS], units, nature or "measured"), rates)
        self_impact = impact
        if region.entry.has_inner:
            self_impact = impact_of(Use(self_j, self_low_j, self_high_j, alone[SECONDS], units, nature or "measured"), rates)
        return Measurement(
            name=region.name,
            start_unix_ns=getattr(region, "start_unix_ns", region.enter_ns + anchor_ns),
            duration_s=duration_ns * 1e-9,
            energy_j=energy_j,
            self_energy_j=self_j,
            energy_low_j=low_j,
            energy_high_j=high_j,
            self_energy_low_j=self_low_j,
            self_energy_high_j=self_high_j,
            energy_by_type=by_type,
            self_energy_by_type=self_by_type,
            nature=nature,
            method="+".join(dict.fromkeys(curve.channel.method for curve in live)) if known else None,
            boundary=self._settings.boundary,
            quality=self._quality(region, duration_ns, coverage) if known else "absent",
            coverage=coverage,
            attribution=self._attribution(live) if known else None,
            scope="+".join(dict.fromkeys(curve.channel.scope for curve in live if curve.channel.scope)) or None,
            unit=region.unit,
            units=units,
            impact=impact,
            self_impact=self_impact,
            self_duration_s=alone[SECONDS],
            synced=getattr(region, "synced", None),
            trace_id=f"{context.trace_id:032x}" if context is not None and context.is_valid else None,
            span_id=f"{context.span_id:016x}" if context is not None and context.is_valid else None,
        )

    def _quality(self, region: Region, duration_ns: int, coverage: float) -> Quality:
        """The rule of Measurement.quality; time between two readings counts like a tick, since it is interpolated too."""
        if coverage < 1.0:
            return "partial"
        live = [curve for curve in self.curves if curve.knots]
        if any(curve.channel.nature in ("estimated", "forecast") for curve in live):
            return "estimated"
        tick_ns = max(curve.tick_ns if curve.tick_ns is not None else _UNKNOWN_TICK_NS for curve in live)
        blur_ns = 2 * max(
            region.entry.start_segment.blur_ns(region.entry.start_ns), region.entry.end_segment.blur_ns(region.entry.end_ns)
        )
        if duration_ns >= 20 * tick_ns and duration_ns >= 4 * blur_ns:
            return "measured"
        return "interpolated" if duration_ns >= max(tick_ns, blur_ns) else "bounded"

    def _attribution(self, live: Sequence[Curve]) -> str:
        if self._settings.boundary == "machine":
            return "exclusive"
        return "+".join(dict.fromkeys(_ATTRIBUTION[curve.channel.sharing] for curve in live))

    def by_type(self, per_channel_j: Sequence[float], answered: int = -1) -> dict[str, float]:
        """Joules per channel as joules per ``hw.type``, of those channels whose bit is set."""
        by_type: dict[str, float] = {}
        for number, (curve, energy_j) in enumerate(zip(self.curves, per_channel_j, strict=True)):
            if curve.knots and answered >> number & 1:
                by_type[curve.channel.type] = by_type.get(curve.channel.type, 0.0) + energy_j
        return by_type

    # --- all of them ------------------------------------------------------------------------------------------------------

    def _operation(self, tally: Tally, whole: Impact) -> Operation:
        by_type = {} if tally.credits is None else self.by_type(tally.credits[:-EXTRAS], tally.answered)
        energy_j = math.fsum(by_type.values()) if by_type else None
        return Operation(
            count=tally.count,
            duration_s=tally.duration_ns * 1e-9,
            energy_j=energy_j,
            energy_by_type=by_type,
            unit=tally.unit,
            units=tally.units,
            impact=within(self.pricing.account(tally.name).impact(self._use_of(tally), self.pricing.rates), whole),
            self_duration_s=0.0 if tally.credits is None else tally.credits[SECONDS],
            counted=tally.counted,
            inside_j=tally.inside_j,
        )

    def snapshot(self, ledger: Ledger | None, probes: Sequence[Probe], cpu_s: float, dropped: int, unix_ns: int) -> Snapshot:
        """Everything at the last settled instant, which was at ``unix_ns``."""
        live = [curve for curve in self.curves if curve.knots]
        if ledger is None:
            totals = Totals({}, 0.0, 0.0, 0.0, {})
            by_state: dict[str, dict[str, float]] = {}
            unattributed = Impact()
        else:
            others = [
                # What is left of rounding is nobody's.
                rest if (rest := total - own - idle) > 1e-9 * total else 0.0
                for total, own, idle in zip(ledger.channels_j, ledger.attributed_j, ledger.unattributed_j, strict=True)
            ]
            channels = {
                curve.channel.id: energy_j
                for curve, energy_j in zip(self.curves, ledger.channels_j, strict=True)
                if curve.knots
            }
            rates = self.pricing.rates
            vector = [*map(add, ledger.unattributed_j, ledger.attributed_j)]
            vector += map(add, ledger.unattributed_extras, ledger.attributed_extras)
            everyone = self._all_of(vector, self._done(), ledger)
            whole = self.pricing.account(_EVERYONE).impact(everyone, rates, blur=ledger.error_j)
            unattributed = self.pricing.account(_UNATTRIBUTED).impact(self._outside(ledger), rates)
            totals = Totals(
                channels=channels,
                attributed_j=math.fsum(ledger.attributed_j),
                unattributed_j=math.fsum(ledger.unattributed_j),
                others_j=math.fsum(others),
                operations={name: self._operation(tally, whole) for name, tally in list(self.tallies.items()) if tally.count},
                impact=whole,
                duration_s=ledger.attributed_extras[SECONDS] + ledger.unattributed_extras[SECONDS],
            )
            by_state = {
                "attributed": self.by_type(ledger.attributed_j),
                "unattributed": self.by_type(ledger.unattributed_j),
                "others": self.by_type(others),
            }
        return Snapshot(
            totals=totals,
            unix_ns=unix_ns,
            channels=tuple(curve.channel for curve in live),
            power_w={curve.channel.id: power_w for curve in live if (power_w := curve.power_w) is not None},
            utilization={name: part for probe in probes for name, part in probe.utilization.items()},
            by_type_j=by_state,
            unattributed=unattributed,
            unattributed_s=0.0 if ledger is None else ledger.unattributed_extras[SECONDS],
            rates=self.pricing.rates,
            boundary=self._settings.boundary,
            samples={probe.name: probe.samples for probe in probes},
            sampler_cpu_s=cpu_s,
            dropped=dropped,
        )


def _missed(region: Region) -> tuple[int, int]:
    """How much longer a region was open than the ledger knows, which heard of it late or had no reading after its end; and how
    much longer the ledger took it for open than it was."""
    assert region.exit_ns is not None
    entry = region.entry
    missed_ns = max(0, entry.start_ns - region.enter_ns) + max(0, region.exit_ns - entry.end_ns)
    return missed_ns, max(0, entry.end_ns - region.exit_ns)


def _counted_around(region: Region) -> bool:
    """Whether a region around it counts in the same unit: an epoch the sentences of its steps."""
    around = region.parent
    while around is not None and around.unit != region.unit:
        around = around.parent
    return around is not None
