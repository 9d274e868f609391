"""Prices and carbon intensities by the hour of the day, as a contract states them: ``TimeOfDayTariff``.

Hours are those of a clock on the wall in the tariff's time zone. On the night that skips an hour a band in that hour does not
occur; on the night that repeats one it occurs twice.
"""

from __future__ import annotations

import json
import math
import os
import re
import zoneinfo
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path

from impactsdk.errors import ConfigurationError
from impactsdk.factor import Factor, Kind, Place
from impactsdk.semconv import ENV_PREFIX
from impactsdk.settings import Settings

__all__ = ["Band", "TimeOfDayTariff", "from_settings"]

_VARIABLE = f"{ENV_PREFIX}TARIFF"
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MOST = 1e9
_DAY = 1440
_WEEK = 7 * _DAY
_HOURS = "expected two different times of day, such as '22-6', '22:30-6:00' or (22.5, 6), or '0-24' for the whole day"
_EXAMPLE = '{"hours": "22-6", "days": "mon-fri", "price_per_kwh": 0.2}'
_WHICH_DAYS = "expected all, or days such as mon-fri or 'sat, sun'"


@dataclass(frozen=True, slots=True)
class Band:
    """The hours of a week in which one price, one carbon intensity or both hold.

    Args:
        hours: From and to: ``"22-6"``, ``"22:30-6:00"`` or ``(22.5, 6)``. A band that ends before it begins runs into the next
            day.
        days: ``all``, ``mon-fri``, ``sat,sun``, ...: the days on which it begins. ``22-6`` on ``fri`` ends on Saturday at 6.
        price_per_kwh: In the tariff's currency.
        carbon_intensity_g_per_kwh: Grams of CO2e per kWh.

    Raises:
        ConfigurationError: The hours or days cannot be read, or there is neither a price nor an intensity.
    """

    hours: str | tuple[float, float]
    days: str = "all"
    price_per_kwh: float | None = None
    carbon_intensity_g_per_kwh: float | None = None

    def __post_init__(self) -> None:
        _span(self.hours)
        _weekdays(self.days)
        for name in ("price_per_kwh", "carbon_intensity_g_per_kwh"):
            value = getattr(self, name)
            if value is not None and not _is_amount(value):
                raise ConfigurationError(f"{name}={value!r}: expected a number >= 0")
        if self.price_per_kwh is None and self.carbon_intensity_g_per_kwh is None:
            raise ConfigurationError(f"the band {self} has neither price_per_kwh nor carbon_intensity_g_per_kwh: give one")

    def __str__(self) -> str:
        start, end = _span(self.hours)
        return f"{_clock(start)}-{_clock(end)} {self.days.strip()}"

    def minutes(self) -> Iterator[int]:
        """Every minute that it covers, counted from Monday 0:00."""
        start, end = _span(self.hours)
        length = (end - start) if end > start else (end - start + _DAY)
        for day in _weekdays(self.days):
            for minute in range(length):
                yield (day * _DAY + start + minute) % _WEEK


class TimeOfDayTariff:
    """What a kWh costs and emits at this time of day, in whichever place.

    Args:
        timezone: The IANA name of the zone whose clock the hours are read from, such as ``Europe/Paris``.
        bands: They may leave gaps, in which the tariff says nothing, but two bands must not say the same thing at one time.
        currency: ISO 4217 code of the prices.

    Raises:
        ConfigurationError: The zone or the currency is not known, or two bands overlap.

    Example:
        >>> tariff = TimeOfDayTariff(
        ...     "Europe/Paris", [Band("6-22", price_per_kwh=0.27), Band("22-6", price_per_kwh=0.2068)]
        ... )
    """

    name = "tariff"

    def __init__(self, timezone: str, bands: Iterable[Band], currency: str = "EUR") -> None:
        self.trouble: str | None = None
        self._timezone, self._zone = timezone, _zone(timezone)
        if not isinstance(currency, str) or not re.fullmatch("[A-Za-z]{3}", currency.strip()):
            raise ConfigurationError(f"currency={currency!r}: expected an ISO 4217 code of three letters, such as EUR")
        self._currency = currency.strip().upper()
        bands = tuple(bands)
        if not bands:
            raise ConfigurationError("the tariff has no bands: give at least one")
        self._prices = _week([band for band in bands if band.price_per_kwh is not None], "a price")
        self._intensities = _week([band for band in bands if band.carbon_intensity_g_per_kwh is not None], "a carbon intensity")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TimeOfDayTariff:
        """Read a tariff from a JSON file with the same names as the arguments.

        ::

            {"timezone": "Europe/Paris", "currency": "EUR", "bands": [{"hours": "22-6", "days": "all", "price_per_kwh": 0.2}]}

        Raises:
            ConfigurationError: The file cannot be read or used; the message names it, and the entry.
        """
        file = Path(path)
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{file}: cannot be read ({error.strerror or type(error).__name__})") from None
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"{file}: is not JSON ({error})") from None
        try:
            return _tariff(document)
        except ConfigurationError as error:
            raise ConfigurationError(f"{file}: {error}") from None

    def factors(self, *, place: Place | None, unix_ns: int) -> Sequence[Factor]:
        """The price and the carbon intensity of that instant; empty in a gap between the bands."""
        local = datetime.fromtimestamp(unix_ns // 1_000_000_000, self._zone)
        minute = local.weekday() * _DAY + local.hour * 60 + local.minute
        found = []
        if (band := self._prices.get(minute)) is not None and band.price_per_kwh is not None:
            found.append(self._factor("price", band.price_per_kwh, f"{{{self._currency}}}/(kW.h)", band))
        if (band := self._intensities.get(minute)) is not None and band.carbon_intensity_g_per_kwh is not None:
            found.append(self._factor("carbon_intensity", band.carbon_intensity_g_per_kwh, "g{CO2e}/(kW.h)", band))
        return found

    def close(self) -> None:
        """Nothing is held."""

    def _factor(self, kind: Kind, value: float, unit: str, band: Band) -> Factor:
        note = f"Of the band {band}, {self._timezone}."
        return Factor(kind, float(value), unit, self.name, scope="time_of_day", note=note)


def from_settings(settings: Settings) -> TimeOfDayTariff:
    """The tariff in the file that ``IMPACTSDK_TARIFF`` names.

    Raises:
        ConfigurationError: The variable is not set, or the file cannot be read or used.
    """
    path = settings.environ.get(_VARIABLE, "").strip()
    if not path:
        raise ConfigurationError(f"tariff: there is no file; set {_VARIABLE} to the path of a tariff in JSON")
    try:
        return TimeOfDayTariff.load(path)
    except ConfigurationError as error:
        raise ConfigurationError(f"{_VARIABLE}: {error}") from None


def _tariff(document: object) -> TimeOfDayTariff:
    if not isinstance(document, dict) or not isinstance(document.get("bands"), list) or "timezone" not in document:
        example = f'{{"timezone": "Europe/Paris", "bands": [{_EXAMPLE}]}}'
        raise ConfigurationError(f"expected an object with timezone and a list of bands, such as {example}")
    _no_others(document, ("timezone", "bands", "currency"))
    bands = [_band(number, entry) for number, entry in enumerate(document["bands"])]
    return TimeOfDayTariff(document["timezone"], bands, document.get("currency", "EUR"))


def _band(number: int, entry: object) -> Band:
    if not isinstance(entry, dict) or "hours" not in entry:
        raise ConfigurationError(f"bands[{number}]: expected an object with hours, such as {_EXAMPLE}")
    hours = entry["hours"]
    try:
        _no_others(entry, [item.name for item in fields(Band)])
        return Band(**{**entry, "hours": tuple(hours) if isinstance(hours, list) else hours})
    except ConfigurationError as error:
        raise ConfigurationError(f"bands[{number}]: {error}") from None


def _no_others(entry: dict[str, object], names: Sequence[str]) -> None:
    for name in entry:
        if name not in names:
            raise ConfigurationError(f"{name!r} is not known; the names are {', '.join(names)}")


def _week(bands: Sequence[Band], what: str) -> dict[int, Band]:
    """Which band holds in each minute of the week."""
    week: dict[int, Band] = {}
    for band in bands:
        for minute in band.minutes():
            if minute in week:
                when = f"{_DAYS[minute // _DAY]} {_clock(minute % _DAY)}"
                raise ConfigurationError(
                    f"the bands {week[minute]} and {band} both state {what} on {when}: they may not overlap"
                )
            week[minute] = band
    return week


def _zone(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (LookupError, ValueError, TypeError, AttributeError, OSError):
        if zoneinfo.available_timezones():
            message = f"timezone={name!r}: is not known; expected an IANA name such as Europe/Paris"
        else:
            message = f"timezone={name!r}: this system has no time zone data: pip install tzdata"
        raise ConfigurationError(message) from None


def _span(hours: object) -> tuple[int, int]:
    """Minutes of the day at which a band begins and ends."""
    parts = hours.split("-") if isinstance(hours, str) else hours
    if isinstance(parts, Sequence) and len(parts) == 2:
        start, end = (_minute(part) for part in parts)
        if start is not None and end is not None and start != end and start < _DAY and end > 0:
            return start, end
        if start is not None and end == 0 and start > 0:
            return start, _DAY
    raise ConfigurationError(f"hours={hours!r}: {_HOURS}")


def _minute(time: object) -> int | None:
    """``"22:30"``, ``"22"``, 22 or 22.5 as the minute of a day, up to 24:00."""
    if isinstance(time, str):
        found = re.fullmatch(r"\s*(\d{1,2})(?::([0-5]\d))?\s*", time, re.ASCII)
        minute: float = math.nan if found is None else int(found[1]) * 60 + int(found[2] or 0)
    elif isinstance(time, int | float) and not isinstance(time, bool):
        minute = time * 60
    else:
        return None
    return int(minute) if 0 <= minute <= _DAY and minute == int(minute) else None


def _weekdays(days: object) -> list[int]:
    """Numbers of days, Monday is 0."""
    if isinstance(days, str) and days.strip().lower() == "all":
        return list(range(7))
    found: set[int] = set()
    for part in days.split(",") if isinstance(days, str) else [""]:
        ends = [word.strip().lower() for word in part.split("-")]
        if len(ends) > 2 or any(word not in _DAYS for word in ends):
            raise ConfigurationError(f"days={days!r}: {_WHICH_DAYS}")
        first, last = _DAYS.index(ends[0]), _DAYS.index(ends[-1])
        found.update((first + step) % 7 for step in range((last - first) % 7 + 1))
    return sorted(found)


def _clock(minute: int) -> str:
    return f"{minute // 60}:{minute % 60:02d}"


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST
