from __future__ import annotations

from dataclasses import fields

import pytest

from examples.bert.record import TRACING, WHOLE
from examples.bert.report import report, row, shown, table
from impactsdk.factor import Factor
from impactsdk.factors.places import place_of
from impactsdk.factors.tables import BundledTables
from impactsdk.impact import Use, impact_of
from impactsdk.model import Measurement
from impactsdk.rates import rates_of


def measurement(
    energy_j: float | None = 10.0, duration_s: float = 2.0, units: float | None = 100, **changes: object
) -> Measurement:
    known = energy_j is not None
    values: dict[str, object] = {
        "name": "bert.infer",
        "start_unix_ns": 0,
        "duration_s": duration_s,
        "energy_j": energy_j,
        "self_energy_j": energy_j,
        "energy_low_j": energy_j * 0.5 if known else None,
        "energy_high_j": energy_j * 2 if known else None,
        "self_energy_low_j": None,
        "self_energy_high_j": None,
        "energy_by_type": {"cpu": energy_j} if known else {},
        "self_energy_by_type": {},
        "nature": "measured" if known else None,
        "method": "rapl.package" if known else None,
        "boundary": "process",
        "quality": "measured" if known else "absent",
        "coverage": 1.0,
        "units": units,
        **changes,
    }
    return Measurement(**{field.name: values[field.name] for field in fields(Measurement) if field.name in values})


def cells(text: str, title: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(title)).removeprefix(title).split()


def test_the_blocks_of_a_phase_are_added_and_divided_by_its_sentences():
    both = row("finetune", [measurement(10.0, 2.0, 100), measurement(20.0, 1.0, 50)])
    assert (both.energy_j, both.low_j, both.high_j, both.duration_s, both.sentences) == (30.0, 15.0, 60.0, 3.0, 150)
    assert (both.power_w, both.per_sentence_j, both.how) == (10.0, 0.2, "measured")


def test_the_table_holds_every_phase_in_order_with_its_numbers_and_its_result():
    blocks = {phase: [measurement()] for phase in (WHOLE, "infer", "evaluate", "finetune", "pretrain", TRACING)}
    text = report(blocks, {"evaluate": "test accuracy 0.990"})
    titles = ("pre-training", "fine-tuning", "evaluation", "inference", "tracing", "whole run")
    assert [line.split("  ")[0].strip() for line in text.splitlines()[1:7]] == list(titles)
    assert cells(text, "evaluation") == ["10.0", "5.0", "2.00", "100", "0.1000", "measured", "test", "accuracy", "0.990"]
    assert cells(text, "tracing") == ["10.0", "5.0", "2.00", "measured"]


def test_an_unknown_energy_is_printed_as_unknown_and_never_as_zero():
    text = table([row("infer", [measurement(), measurement(None)])])
    assert cells(text, "inference") == ["unknown", "unknown", "4.00", "200", "unknown", "unknown"]


def test_an_unknown_number_of_sentences_is_unknown_too():
    assert cells(table([row("infer", [measurement(units=None)])]), "inference")[3:5] == ["unknown", "unknown"]


def test_zero_joules_are_zero_and_not_unknown():
    assert cells(table([row("infer", [measurement(0.0)])]), "inference")[:2] == ["0.0", "0.0"]


def test_a_sum_is_only_as_good_as_its_weakest_block():
    weak = measurement(nature="estimated", quality="partial")
    assert row("infer", [measurement(), weak, measurement(quality="interpolated")]).how == "estimated, partial"


def test_a_line_says_how_the_numbers_were_obtained_and_between_which_bounds():
    text = report({"infer": [measurement()], WHOLE: [measurement(40.0)]}, {})
    assert "Energy: rapl.package (measured), boundary process." in text
    assert "The true value of the whole run row is between 20.0 and 80.0 J." in text


def test_the_phases_are_compared_with_inference():
    text = report({"finetune": [measurement(30.0)], "infer": [measurement(10.0)]}, {})
    assert "Joules per sentence relative to inference: fine-tuning 3.0 x." in text


def test_what_costs_little_beside_inference_is_not_said_to_cost_nothing():
    text = report({"evaluate": [measurement(0.0123)], "infer": [measurement(10.0)]}, {})
    assert "relative to inference: evaluation 0.0012 x." in text


def test_a_long_sentence_is_shown_by_its_beginning_on_one_line():
    assert shown("a fine film") == "a fine film"
    assert shown("two\nlines\u2028and  more") == "two lines and more"
    assert shown("股" * 1_000_000) == "股" * 97 + "..."


def test_without_any_device_the_table_says_so():
    text = report({"finetune": [measurement(None)], "infer": [measurement(None)]}, {})
    assert "Energy: unknown, for no device answered" in text
    assert "relative" not in text


def test_a_run_that_was_interrupted_before_its_first_phase_has_a_report_too():
    assert report({}, {}) == "no phase has run"


# --- what it costs -----------------------------------------------------------------------------------------------------------


def costs(region: str) -> dict[str, list[str]]:
    """The table of impacts of a run of two phases, as cells by phase."""
    rates = rates_of([*BundledTables().factors(place=place_of(region), unix_ns=0), *hardware(1_000.0)], currency="USD")
    blocks = {
        phase: [measurement(10.0, 2.0, 100, impact=impact_of(Use(10.0, 9.0, 11.0, 2.0, 100), rates))]
        for phase in ("finetune", "infer")
    }
    text = report(blocks, {}).split("phase")[2]
    return {title: cells(text, title) for title in ("fine-tuning", "inference")}


def hardware(kg: float) -> list[Factor]:
    return [Factor("embodied", kg * 1000, "g{CO2e}", "test"), Factor("lifetime", 4.0, "a", "test")]


def test_carbon_embodied_water_money_and_sci_are_shown_and_differ_by_place_as_their_factors_do():
    france, poland = costs("FR"), costs("PL")
    for phase in ("fine-tuning", "inference"):
        carbon_fr, embodied_fr, water_fr, cost_fr, *_, sci_fr = france[phase]
        carbon_pl, embodied_pl, water_pl, cost_pl, *_, sci_pl = poland[phase]
        assert float(carbon_fr) == pytest.approx(10 / 3.6e6 * 41.44 * 1e3, rel=0.01)
        assert float(carbon_pl) / float(carbon_fr) == pytest.approx(588.60 / 41.44, rel=0.01)
        assert float(water_pl) / float(water_fr) == pytest.approx(2.5135 / 3.6737, rel=0.01)
        assert float(cost_pl) / float(cost_fr) == pytest.approx(0.1182 / 0.102, rel=0.01)
        assert embodied_pl == embodied_fr
        assert float(sci_fr) == pytest.approx((float(carbon_fr) + float(embodied_fr)) / 100, rel=0.01)
        assert float(sci_pl) > float(sci_fr)


def test_without_factors_there_is_no_table_of_impacts():
    assert "carbon mg" not in report({"infer": [measurement()]}, {})
