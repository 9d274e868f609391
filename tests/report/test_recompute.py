"""A recorded run priced again: the same joules, other factors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from impactsdk import ConfigurationError, JournalError, Meter, Settings, Totals
from impactsdk.errors import SourceFailedError
from impactsdk.factor import Factor, Place
from impactsdk.factors.tariff import Band, TimeOfDayTariff
from impactsdk.report import recompute
from impactsdk.report.journal import read
from impactsdk.testing import FakeClock, SimulatedSource


def recorded(folder: Path, **settings: Any) -> tuple[Path, Totals]:
    """A run of two operations on a board of 100 W, and what the meter itself said of it."""
    clock = FakeClock()
    chosen = Settings.load({}, export="journal", directory=folder, **settings)
    meter = Meter(chosen, sources=[SimulatedSource(100.0)], clock=clock)
    with meter.measured("epoch", unit="sentence") as epoch:
        for _ in range(4):
            with meter.measured("step", span=False, unit="sentence") as step:
                step.add_units(8)
                clock.advance(2.0)
        clock.advance(1.0)
        epoch.add_units(32)
    clock.advance(3.0)
    meter.close()
    (journal,) = folder.glob("run-*.jsonl")
    return journal, meter.totals()


def test_the_same_factors_give_what_the_run_itself_said(tmp_path: Path) -> None:
    journal, totals = recorded(tmp_path, region="FR")
    again = recompute(journal)
    assert again.channels == pytest.approx(totals.channels)
    assert again.attributed_j == pytest.approx(totals.attributed_j)
    assert again.unattributed_j == pytest.approx(totals.unattributed_j)
    assert again.duration_s == pytest.approx(totals.duration_s)
    # Not the social cost of carbon: it depends on the year, and the fake clock has another one than the journal's stamps.
    for field in ("carbon_g", "embodied_g", "water_l", "cost", "health_daly", "biodiversity_species_yr"):
        assert getattr(again.impact, field) == pytest.approx(getattr(totals.impact, field), rel=1e-9), field
    assert set(again.operations) == {"epoch", "step"}
    for name, operation in again.operations.items():
        before = totals.operations[name]
        assert (operation.count, operation.unit, operation.units) == (before.count, before.unit, before.units)
        assert operation.energy_by_type == pytest.approx(before.energy_by_type)
        assert operation.duration_s == pytest.approx(before.duration_s)
        assert operation.self_duration_s == pytest.approx(before.self_duration_s)
        assert operation.impact.sci_g_per_unit == pytest.approx(before.impact.sci_g_per_unit)


def test_units_of_some_calls_alone_make_no_figure_per_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FIRST_METRICS_S", "_METRICS_EVERY_S"):
        monkeypatch.setattr(f"impactsdk.export.journal.{name}", 0.0)
    clock = FakeClock()
    settings = Settings.load({}, export="journal", directory=tmp_path, region="FR")
    meter = Meter(settings, sources=[SimulatedSource(100.0)], clock=clock)
    for told in (True, False):
        with meter.measured("a", unit="item") as region:
            clock.advance(1.0)
            if told:
                region.add_units(10)
        assert meter.flush()  # which writes totals: in the first the units of every call are known
    meter.close()
    (journal,) = tmp_path.glob("run-*.jsonl")
    assert len(read(journal).moments) > 1
    again, before = recompute(journal).operations["a"], meter.totals().operations["a"]
    assert (again.count, again.units, again.counted) == (before.count, before.units, before.counted) == (2, 10, 1)
    assert again.impact.sci_g_per_unit is before.impact.sci_g_per_unit is None
    assert again.impact.carbon_g == pytest.approx(before.impact.carbon_g)


def test_another_place_changes_carbon_as_its_factor_does_and_no_joule(tmp_path: Path) -> None:
    journal, totals = recorded(tmp_path, region="FR")
    again = recompute(journal, region="PL")
    assert again.attributed_j == pytest.approx(totals.attributed_j)
    assert again.impact.carbon_g == pytest.approx(totals.impact.carbon_g * 588.60 / 41.44)
    assert again.impact.embodied_g == pytest.approx(totals.impact.embodied_g)
    assert {factor.place for factor in again.impact.factors if factor.kind == "carbon_intensity"} == {"PL"}


def test_what_the_user_gives_now_wins_over_what_was_recorded(tmp_path: Path) -> None:
    journal, _ = recorded(tmp_path, region="aws:us-east-1", pue=1.2, price_per_kwh=0.5)
    kwh = 1_200.0 / 3.6e6
    assert recompute(journal).impact.carbon_g == pytest.approx(kwh * 1.2 * 384.40)
    again = recompute(journal, pue=2.0, carbon_intensity_g_per_kwh=100, price_per_kwh=0.1, currency="EUR", embodied_kg=35.04)
    assert again.impact.carbon_g == pytest.approx(kwh * 2.0 * 100)
    assert (again.impact.cost, again.impact.currency) == (pytest.approx(kwh * 2.0 * 0.1), "EUR")
    assert again.impact.embodied_g == pytest.approx(35.04 / 35.040 * 12.0 / 3600)  # over four years


def test_variables_of_this_machine_do_not_change_what_was_recorded(tmp_path: Path) -> None:
    journal, totals = recorded(tmp_path, region="FR")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMPACTSDK_REGION", "PL")
        assert recompute(journal).impact.carbon_g == pytest.approx(totals.impact.carbon_g)


def test_each_part_of_a_run_is_priced_at_its_own_time(tmp_path: Path) -> None:
    class Dearer:
        name, trouble = "dearer", None

        def factors(self, *, place: Place | None, unix_ns: int) -> list[Factor]:
            asked.append(unix_ns)
            return [Factor("price", 0.1, "{USD}/(kW.h)", "dearer")]

        def close(self) -> None: ...

    asked: list[int] = []
    journal, _ = recorded(tmp_path)
    assert recompute(journal, factors=[Dearer()]).impact.cost == pytest.approx(1_200.0 / 3.6e6 * 0.1)
    stamps = [
        int(point["timeUnixNano"])
        for line in journal.read_text("utf-8").splitlines()
        for resource in json.loads(line).get("resourceMetrics", ())
        for metric in resource["scopeMetrics"][0]["metrics"]
        for point in metric.get("sum", {}).get("dataPoints", ())
    ]
    assert min(stamps) - 60 * 10**9 <= min(asked) <= max(asked) <= max(stamps) + 60 * 10**9


def test_a_run_that_was_killed_early_is_priced_from_its_spans(tmp_path: Path) -> None:
    journal, totals = recorded(tmp_path, region="FR")
    lines = [line for line in journal.read_text("utf-8").splitlines() if "impact.operation.own_time" not in line]
    journal.write_text("\n".join(lines) + '\n{"resourceSpans": [{"reso', "utf-8")  # and its last line is cut off
    again = recompute(journal, region="FR")
    assert set(again.operations) == {"epoch"}
    assert again.operations["epoch"].energy_j == pytest.approx(totals.operations["epoch"].energy_j)
    assert again.operations["epoch"].impact.carbon_g == pytest.approx(totals.operations["epoch"].impact.carbon_g)
    assert again.operations["epoch"].impact.embodied_g == pytest.approx(totals.operations["epoch"].impact.embodied_g)


def test_unknown_energy_stays_unknown(tmp_path: Path) -> None:
    meter = Meter(Settings.load({}, export="journal", directory=tmp_path, sources="none"))
    with meter.measured("x"):
        pass
    meter.close()
    (journal,) = tmp_path.glob("run-*.jsonl")
    again = recompute(journal, region="FR")
    assert (again.operations["x"].energy_j, again.operations["x"].impact.carbon_g) == (None, None)


@pytest.mark.filterwarnings("ignore:.*does not answer")
def test_what_the_devices_counted_is_priced_though_of_one_operation_nothing_is_known(tmp_path: Path) -> None:
    broken = False

    def fail(number: int) -> None:
        if broken:
            raise SourceFailedError("the board does not answer")

    clock = FakeClock()
    settings = Settings.load({}, export="journal", directory=tmp_path, region="FR")
    with Meter(settings, sources=[SimulatedSource(100.0, fail=fail)], clock=clock) as meter:
        for name in ("known", "failing", "unknown"):
            broken = name != "known"
            with meter.measured(name):
                clock.advance(2.0)
            assert meter.flush()
    (journal,) = tmp_path.glob("run-*.jsonl")
    again, before = recompute(journal), meter.totals()
    assert before.operations["unknown"].energy_j is again.operations["unknown"].impact.carbon_g is None
    for field in ("carbon_g", "water_l", "cost", "embodied_g"):
        assert getattr(again.impact, field) == pytest.approx(getattr(before.impact, field), rel=1e-9), field


@pytest.mark.parametrize("text", ["", "not json\n", "[1, 2]\n", '{"resourceSpans": []}\n', '{"resourceMetrics": [{"x": 1}]}\n'])
def test_what_is_no_journal_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text, "utf-8")
    with pytest.raises(JournalError, match=r"x\.jsonl"):
        recompute(path)


def test_bad_arguments_are_errors_at_once(tmp_path: Path) -> None:
    journal, _ = recorded(tmp_path)
    with pytest.raises(JournalError, match="cannot be read"):
        recompute(tmp_path / "missing.jsonl")
    with pytest.raises(ConfigurationError, match="Poland"):
        recompute(journal, region="Polnad")
    with pytest.raises(ConfigurationError, match="no such setting"):
        recompute(journal, colour="green")
    with pytest.raises(ConfigurationError, match="embodied_kg"):
        recompute(journal, lifetime_years=3)


def test_the_users_own_pue_holds_elsewhere_and_that_of_a_cloud_region_does_not(tmp_path: Path) -> None:
    kwh = 1_200.0 / 3.6e6
    journal, totals = recorded(tmp_path / "own", region="FR", pue=1.5)
    assert recompute(journal, region="FR").impact.carbon_g == pytest.approx(totals.impact.carbon_g)
    assert recompute(journal, region="PL").impact.carbon_g == pytest.approx(kwh * 1.5 * 588.60)
    journal, totals = recorded(tmp_path / "cloud", region="aws:eu-west-1")
    assert totals.impact.carbon_g > recompute(journal, region="IE").impact.carbon_g
    assert recompute(journal, region="PL").impact.carbon_g == pytest.approx(kwh * 588.60)


def test_a_tariff_in_another_currency_is_an_error_and_not_a_silent_average(tmp_path: Path) -> None:
    journal, _ = recorded(tmp_path, region="FR")
    tariff = TimeOfDayTariff("UTC", [Band("0-24", price_per_kwh=1.0)], currency="EUR")
    with pytest.raises(ConfigurationError, match="IMPACTSDK_CURRENCY"):
        recompute(journal, factors=[tariff])
    assert recompute(journal, factors=[tariff], currency="EUR").impact.cost == pytest.approx(1_200.0 / 3.6e6)


@pytest.mark.parametrize(
    "text",
    [
        '{"resourceMetrics":[{"resource":{"attributes":[]},"scopeMetrics":[{"metrics":[{"name":"hw.energy","sum":'
        '{"dataPoints":[{"timeUnixNano":"x","asDouble":1}]}}]}]}]}',
        '{"resourceSpans":[{"resource":{"attributes":[{"key":"a","value":{}}]},"scopeSpans":[]}]}',
    ],
)
def test_odd_lines_are_errors_of_ours(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text(text + "\n", "utf-8")
    with pytest.raises(JournalError):
        recompute(path)
