"""A tariff by the hour of the day follows the clock on the wall, also in the nights in which it is changed."""

from __future__ import annotations

import json
import zoneinfo
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impactsdk import Settings
from impactsdk.errors import ConfigurationError
from impactsdk.factor import Factor
from impactsdk.factors.tariff import Band, TimeOfDayTariff, from_settings
from impactsdk.protocols import FactorProvider
from tests.factors.stand_in import FRANCE
from tests.kit import script

PARIS = zoneinfo.ZoneInfo("Europe/Paris")
NIGHT, DAY = 0.2068, 0.27


def unix_ns(text: str, zone: zoneinfo.ZoneInfo | timezone = PARIS, *, fold: int = 0) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()) * 1_000_000_000


def price(tariff: TimeOfDayTariff, at_ns: int) -> float | None:
    found = [factor.value for factor in tariff.factors(place=None, unix_ns=at_ns) if factor.kind == "price"]
    assert len(found) <= 1
    return found[0] if found else None


def two_bands() -> TimeOfDayTariff:
    return TimeOfDayTariff("Europe/Paris", [Band("22-6", price_per_kwh=NIGHT), Band("6-22", price_per_kwh=DAY)])


def test_it_says_price_and_carbon_intensity_with_the_band_in_any_place() -> None:
    tariff = TimeOfDayTariff("Europe/Paris", [Band("22:30-6:00", "mon-fri", 0.2, 30)], "chf")
    assert isinstance(tariff, FactorProvider)
    note = "Of the band 22:30-6:00 mon-fri, Europe/Paris."
    expected = [
        Factor("price", 0.2, "{CHF}/(kW.h)", "tariff", scope="time_of_day", note=note),
        Factor("carbon_intensity", 30.0, "g{CO2e}/(kW.h)", "tariff", scope="time_of_day", note=note),
    ]
    for place in (None, FRANCE):
        assert tariff.factors(place=place, unix_ns=unix_ns("2026-03-02T23:00")) == expected
    tariff.close()
    assert (tariff.name, tariff.trouble) == ("tariff", None)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-01-15T21:59:59", DAY),
        ("2026-01-15T22:00:00", NIGHT),
        ("2026-01-16T05:59:59", NIGHT),
        ("2026-01-16T06:00:00", DAY),
        ("2026-07-15T21:59:59", DAY),
        ("2026-07-15T22:00:00", NIGHT),
    ],
)
def test_a_band_begins_and_ends_by_the_clock_on_the_wall_in_winter_and_summer(time: str, expected: float) -> None:
    assert price(two_bands(), unix_ns(time)) == expected


# --- the two nights ----------------------------------------------------------------------------------------------------------


def test_the_night_that_skips_an_hour_is_an_hour_shorter() -> None:
    # 2026-03-29 in Paris: 2:00 is 3:00. The night from 22 to 6 has seven hours.
    tariff, start_ns = two_bands(), unix_ns("2026-03-28T22:00")
    hours = [price(tariff, start_ns + hour * 3_600_000_000_000) for hour in range(-1, 9)]
    assert hours == [DAY, *[NIGHT] * 7, DAY, DAY]
    skipped = TimeOfDayTariff("Europe/Paris", [Band("2-3", price_per_kwh=1.0)])
    day = range(start_ns, start_ns + 8 * 3_600_000_000_000, 900_000_000_000)
    assert {price(skipped, at_ns) for at_ns in day} == {None}


def test_the_night_that_repeats_an_hour_is_an_hour_longer() -> None:
    # 2026-10-25 in Paris: 3:00 is 2:00 once more. The night from 22 to 6 has nine hours.
    tariff, start_ns = two_bands(), unix_ns("2026-10-24T22:00")
    hours = [price(tariff, start_ns + hour * 3_600_000_000_000) for hour in range(-1, 11)]
    assert hours == [DAY, *[NIGHT] * 9, DAY, DAY]
    repeated = TimeOfDayTariff("Europe/Paris", [Band("2-3", price_per_kwh=1.0)])
    for fold in (0, 1):
        assert price(repeated, unix_ns("2026-10-25T02:30", fold=fold)) == 1.0
    quarters = range(start_ns, start_ns + 10 * 3_600_000_000_000, 900_000_000_000)
    assert sum(price(repeated, at_ns) == 1.0 for at_ns in quarters) == 8


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)),
    st.sampled_from(["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]),
    st.integers(0, 1439),
    st.integers(1, 1439),
)
def test_at_every_instant_it_says_what_the_clock_on_the_wall_says(moment: datetime, zone: str, start: int, length: int) -> None:
    end = (start + length) % 1440
    hours = f"{start // 60}:{start % 60:02d}-{end // 60}:{end % 60:02d}"
    tariff = TimeOfDayTariff(zone, [Band(hours, price_per_kwh=1.0)])
    at_ns = unix_ns(moment.replace(microsecond=0).isoformat(), timezone.utc)
    wall = datetime.fromtimestamp(at_ns // 1_000_000_000, zoneinfo.ZoneInfo(zone))
    inside = (wall.hour * 60 + wall.minute - start) % 1440 < length
    assert price(tariff, at_ns) == (1.0 if inside else None)


# --- hours and days ----------------------------------------------------------------------------------------------------------


def _covered(band: Band) -> set[tuple[int, int]]:
    """Day (Monday is 0) and hour of what it covers."""
    return {(minute // 1440, minute % 1440 // 60) for minute in band.minutes()}


@pytest.mark.parametrize("hours", ["22-6", "22:00-6:00", " 22 - 06:00 ", (22, 6), (22.0, 6.0), ("22", "6:00"), [22, 6]])
def test_hours_can_be_written_in_several_ways(hours: Any) -> None:
    assert list(Band(hours, price_per_kwh=1).minutes()) == list(Band("22-6", price_per_kwh=1).minutes())


def test_half_hours_and_the_ends_of_the_day_can_be_said() -> None:
    assert len(list(Band("22:30-6", "mon", price_per_kwh=1).minutes())) == 450
    assert len(list(Band((22.5, 6), "mon", price_per_kwh=1).minutes())) == 450
    assert len(list(Band("0-24", price_per_kwh=1).minutes())) == 7 * 1440
    assert (
        _covered(Band("22-24", "mon", price_per_kwh=1)) == _covered(Band("22-0", "mon", price_per_kwh=1)) == {(0, 22), (0, 23)}
    )


def test_a_band_that_runs_past_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    assert _covered(Band("23-1", "fri", price_per_kwh=1)) == {(4, 23), (5, 0)}
    assert _covered(Band("23-1", "sun", price_per_kwh=1)) == {(6, 23), (0, 0)}


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ("all", {0, 1, 2, 3, 4, 5, 6}),
        ("mon-fri", {0, 1, 2, 3, 4}),
        ("Sat, Sun", {5, 6}),
        ("fri-mon", {4, 5, 6, 0}),
        ("mon-tue,thu", {0, 1, 3}),
        ("wed", {2}),
    ],
)
def test_days_can_be_ranges_and_lists(days: str, expected: set[int]) -> None:
    assert {day for day, _ in _covered(Band("1-2", days, price_per_kwh=1))} == expected


@pytest.mark.parametrize(
    "hours", ["", "22", "22-", "6-6", "0-0", "24-6", "25-6", "22:60-6", "-1-6", "22-6-8", (22,), (22, 6.001), None]
)
def test_hours_that_are_none_are_an_error_that_shows_how(hours: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^hours=.*'22:30-6:00'"):
        Band(hours, price_per_kwh=1)


@pytest.mark.parametrize("days", ["", "monday", "mon-", "mon-wed-fri", "mon;tue", "mo-fr", None, 5])
def test_days_that_are_none_are_an_error_that_shows_how(days: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^days=.*mon-fri"):
        Band("22-6", days, price_per_kwh=1)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "0.2", True, 10**400])
def test_amounts_that_are_none_are_an_error(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"price_per_kwh=.*a number >= 0"):
        Band("22-6", price_per_kwh=value)
    with pytest.raises(ConfigurationError, match=r"carbon_intensity_g_per_kwh=.*a number >= 0"):
        Band("22-6", carbon_intensity_g_per_kwh=value)


def test_a_band_that_states_nothing_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="22:00-6:00 all has neither"):
        Band("22-6")


def test_a_band_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Band("22-6", price_per_kwh=1).days = "mon"  # type: ignore[misc]


# --- bands together ----------------------------------------------------------------------------------------------------------


def test_two_bands_that_overlap_are_an_error_that_names_both() -> None:
    with pytest.raises(ConfigurationError) as raised:
        TimeOfDayTariff("Europe/Paris", [Band("6-23", "mon-fri", price_per_kwh=1), Band("22-6", price_per_kwh=2)])
    assert str(raised.value) == (
        "the bands 6:00-23:00 mon-fri and 22:00-6:00 all both state a price on mon 22:00: they may not overlap"
    )


def test_a_band_may_overlap_with_the_night_before() -> None:
    with pytest.raises(ConfigurationError, match="on sat 5:00"):
        TimeOfDayTariff("UTC", [Band("22-6", "fri", price_per_kwh=1), Band("5-22", "sat", price_per_kwh=2)])


def test_prices_and_intensities_have_hours_of_their_own() -> None:
    tariff = TimeOfDayTariff("UTC", [Band("0-24", price_per_kwh=1), Band("12-16", carbon_intensity_g_per_kwh=20)])
    kinds = [[factor.kind for factor in tariff.factors(place=None, unix_ns=hour * 3_600_000_000_000)] for hour in (11, 12)]
    assert kinds == [["price"], ["price", "carbon_intensity"]]


def test_in_a_gap_it_says_nothing() -> None:
    tariff = TimeOfDayTariff("Europe/Paris", [Band("22-6", "mon-fri", price_per_kwh=NIGHT)])
    assert price(tariff, unix_ns("2026-03-07T05:59")) == NIGHT, "the night of Friday"
    assert price(tariff, unix_ns("2026-03-07T06:00")) is None
    assert price(tariff, unix_ns("2026-03-07T23:00")) is None
    assert tariff.trouble is None


def test_a_tariff_without_bands_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="no bands"):
        TimeOfDayTariff("UTC", [])


# --- zones and currencies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["Europe/Lutetia", "", "../etc/passwd", "/etc/passwd", "Europe", "x" * 5000, "a\0b", "Ünicode", None, 5]
)
def test_a_time_zone_that_is_not_known_is_an_error(name: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^timezone=.*Europe/Paris"):
        TimeOfDayTariff(name, [Band("0-24", price_per_kwh=1)])


def test_without_zone_data_the_error_says_what_to_install(tmp_path: Path) -> None:
    output, errors = script(
        """
import sys
sys.modules["tzdata"] = None  # not installed
from impactsdk.factors.tariff import Band, TimeOfDayTariff
try:
    TimeOfDayTariff("Europe/Paris", [Band("0-24", price_per_kwh=1)])
except ValueError as error:
    print(error)
""",
        tmp_path,
        PYTHONTZPATH="",
    )
    assert (output, errors) == ("timezone='Europe/Paris': this system has no time zone data: pip install tzdata\n", "")


@pytest.mark.parametrize("currency", ["", "EURO", "€", "E1R", None, 5])
def test_a_currency_that_is_none_is_an_error(currency: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"currency=.*EUR"):
        TimeOfDayTariff("UTC", [Band("0-24", price_per_kwh=1)], currency)


# --- files -------------------------------------------------------------------------------------------------------------------


def written(folder: Path, document: Any) -> Path:
    path = folder / "tariff.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


BANDS = [{"hours": "22-6", "price_per_kwh": NIGHT}, {"hours": [6, 22], "days": "mon-fri", "price_per_kwh": DAY}]
TARIFF = {"timezone": "Europe/Paris", "currency": "EUR", "bands": BANDS}


def test_a_file_says_the_same_as_arguments(tmp_path: Path) -> None:
    path = written(tmp_path, TARIFF)
    for tariff in (
        TimeOfDayTariff.load(path),
        TimeOfDayTariff.load(str(path)),
        from_settings(Settings.load({"IMPACTSDK_TARIFF": f" {path} "})),
    ):
        assert price(tariff, unix_ns("2026-03-02T23:00")) == NIGHT
        assert price(tariff, unix_ns("2026-03-02T12:00")) == DAY
        assert price(tariff, unix_ns("2026-03-07T12:00")) is None


def test_a_file_without_a_currency_means_euros(tmp_path: Path) -> None:
    tariff = TimeOfDayTariff.load(written(tmp_path, {"timezone": "UTC", "bands": BANDS}))
    assert tariff.factors(place=None, unix_ns=0)[0].unit == "{EUR}/(kW.h)"


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("{", "is not JSON"),
        ("[" * 50_000, "is not JSON"),
        ([], "expected an object with timezone and a list of bands"),
        ({"bands": BANDS}, "expected an object with timezone and a list of bands"),
        ({"timezone": "UTC"}, "expected an object with timezone and a list of bands"),
        ({"timezone": "UTC", "bands": {}}, "expected an object with timezone and a list of bands"),
        ({"timezone": "UTC", "bands": []}, "no bands"),
        (TARIFF | {"prices": []}, r"'prices' is not known; the names are timezone, bands, currency"),
        (TARIFF | {"timezone": "Mars"}, "timezone='Mars'"),
        (TARIFF | {"currency": 5}, "currency=5"),
        (TARIFF | {"bands": [*BANDS, 5]}, r"bands\[2\]: expected an object with hours"),
        (TARIFF | {"bands": [{"days": "all"}]}, r"bands\[0\]: expected an object with hours"),
        (TARIFF | {"bands": [{"hours": "22-6", "price": 1}]}, r"bands\[0\]: 'price' is not known; the names are hours, days"),
        (TARIFF | {"bands": [BANDS[0], {"hours": "25-6", "price_per_kwh": 1}]}, r"bands\[1\]: hours='25-6'"),
        (TARIFF | {"bands": [{"hours": "22-6", "price_per_kwh": "cheap"}]}, r"bands\[0\]: price_per_kwh='cheap'"),
        (TARIFF | {"bands": [BANDS[0], BANDS[0]]}, "the bands 22:00-6:00 all and 22:00-6:00 all both state a price"),
    ],
)
def test_an_error_in_a_file_names_the_file_and_the_entry(tmp_path: Path, document: Any, why: str) -> None:
    path = written(tmp_path, document)
    with pytest.raises(ConfigurationError, match=rf"tariff\.json: .*{why}"):
        TimeOfDayTariff.load(path)
    with pytest.raises(ConfigurationError, match=rf"IMPACTSDK_TARIFF: .*tariff\.json: .*{why}"):
        from_settings(Settings.load({"IMPACTSDK_TARIFF": str(path)}))


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.json: cannot be read \(No such file or directory\)"):
        TimeOfDayTariff.load(tmp_path / "nowhere.json")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        TimeOfDayTariff.load(tmp_path)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigurationError, match=r"bytes\.json: is not JSON"):
        TimeOfDayTariff.load(tmp_path / "bytes.json")


def test_settings_without_a_file_are_an_error_that_names_the_variable() -> None:
    with pytest.raises(ConfigurationError, match="IMPACTSDK_TARIFF"):
        from_settings(Settings.load({}))


def test_reading_changes_nothing_with_the_years() -> None:
    tariff, start = two_bands(), datetime(2026, 1, 1, 23, tzinfo=PARIS)
    assert {price(tariff, round((start + timedelta(days=day)).timestamp()) * 10**9) for day in range(0, 3650, 7)} == {NIGHT}
