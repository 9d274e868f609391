"""The few lines at the end of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from impactsdk import Factor, Meter, Place, Settings
from impactsdk.export.units import energy
from impactsdk.testing import FakeClock, SimulatedSource
from tests.kit import script


@pytest.mark.parametrize(
    ("energy_j", "text"),
    [
        (None, "unknown"),
        (0.0, "0.0 J"),
        (0.00123, "1.23 mJ"),
        (1.0, "1.0 J"),
        (9999.0, "9999.0 J"),
        (12_345.0, "12.3 kJ"),
        (359_999.0, "360.0 kJ"),
        (3.6e6, "1.000 kWh"),
    ],
)
def test_joules_are_told_in_a_unit_that_can_be_read(energy_j: float | None, text: str) -> None:
    assert energy(energy_j) == text


def _summary(capsys: pytest.CaptureFixture[str], work: object, **settings: object) -> str:
    clock = FakeClock()
    chosen: dict[str, object] = {"export": "summary", **settings}
    sources = settings.pop("sources", None)
    meter = Meter(
        Settings.load({}, **chosen),
        sources=[SimulatedSource(100.0)] if sources is None else sources,
        clock=clock,  # type: ignore[arg-type]
    )
    work(meter, clock)  # type: ignore[operator]
    clock.advance(1.0)
    meter.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_it_says_what_was_used_by_what_and_how_that_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    def work(meter: Meter, clock: FakeClock) -> None:
        for _ in range(12):
            with meter.measured("encode", unit="sentence") as region:
                region.add_units(10)
                clock.advance(1.0)

    text = _summary(capsys, work, carbon_intensity_g_per_kwh=400, price_per_kwh=0.3)
    assert "this process used 1300.0 J (361 mWh): 1200.0 J in measured regions, 100.0 J outside" in text
    assert "encode" in text
    assert "12 x" in text
    assert "10.0 J/sentence" in text
    assert "gCO2e" in text
    assert "USD" in text
    assert "sim:0 by simulated (measured); boundary process" in text
    assert "details" not in text


def test_joules_per_unit_of_an_epoch_are_those_of_its_steps_too(capsys: pytest.CaptureFixture[str]) -> None:
    def work(meter: Meter, clock: FakeClock) -> None:
        for _ in range(2):
            with meter.measured("epoch", unit="sentence") as epoch:
                for _ in range(4):
                    with meter.measured("step", span=False, unit="sentence") as step:
                        clock.advance(1.0)
                        step.add_units(5)
                clock.advance(1.0)
                epoch.add_units(20)
        clock.advance(1.0)
        meter.flush()
        epochs, steps = (meter.totals().operations[name] for name in ("epoch", "step"))
        assert epochs.energy_j == pytest.approx(200.0)
        assert epochs.inside_j == pytest.approx(800.0)
        assert epochs.energy_per_unit_j == pytest.approx(25.0)
        assert (steps.inside_j, steps.energy_per_unit_j) == (0.0, pytest.approx(20.0))

    text = _summary(capsys, work, carbon_intensity_g_per_kwh=400)
    (epoch,) = [line for line in text.splitlines() if line.strip().startswith("epoch")]
    assert "25.0 J/sentence inclusive  22.2 mgCO2e" in epoch
    (step,) = [line for line in text.splitlines() if line.strip().startswith("step")]
    assert "20.0 J/sentence  2.22 mgCO2e/sentence" in step


def test_joules_per_unit_are_not_told_where_the_units_of_a_call_are_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    def work(meter: Meter, clock: FakeClock) -> None:
        for number in range(2):
            with meter.measured("a", unit="item") as region:
                clock.advance(1.0)
                if number == 0:
                    region.add_units(10)
        operation = meter.totals().operations["a"] if meter.flush() else None
        assert operation is not None
        assert (operation.units, operation.counted, operation.energy_per_unit_j) == (10, 1, None)
        assert operation.impact.sci_g_per_unit is None
        assert operation.impact.margin is None
        assert meter.totals().impact.sci_g_per_unit is None

    text = _summary(capsys, work, carbon_intensity_g_per_kwh=400, value_per_unit=1, price_per_kwh=0.3)
    assert "/item" not in text
    assert "margin" not in text
    assert "items of 1 of 2 calls known" in text


def test_it_names_the_eight_largest_and_counts_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    def work(meter: Meter, clock: FakeClock) -> None:
        for number in range(12):
            with meter.measured(f"operation {number}"):
                clock.advance(0.1 * (number + 1))

    text = _summary(capsys, work)
    assert "and 4 more" in text
    assert "operation 11" in text
    assert "operation 3 " not in text
    assert text.index("operation 11") < text.index("operation 10")


def test_unknown_energy_is_said_and_not_shown_as_zero(capsys: pytest.CaptureFixture[str]) -> None:
    def work(meter: Meter, clock: FakeClock) -> None:
        with meter.measured("x"):
            clock.advance(1.0)

    text = _summary(capsys, work, sources=[])
    assert "the energy is unknown: no device could be read" in text
    assert "unknown" in text.splitlines()[1]
    assert "0.0 J" not in text


def test_nothing_is_said_where_nothing_was_measured_or_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    assert _summary(capsys, lambda meter, clock: meter.begin()) == ""

    def work(meter: Meter, clock: FakeClock) -> None:
        with meter.measured("x"):
            pass

    assert _summary(capsys, work, export="none") == ""
    assert not Path("impact").exists()


def test_a_closed_standard_error_is_no_trouble(tmp_path: Path) -> None:
    for spoil in ("sys.stderr = None", "sys.stderr.close()", "import os; os.close(2)"):
        script(f"import sys\nfrom impactsdk import measured\nmeasured('x')(lambda: 1)()\n{spoil}\n", tmp_path, expected=0)


def test_a_factor_with_one_end_of_its_range_is_no_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    class Mine:
        name, trouble = "mine", None

        def factors(self, *, place: Place | None, unix_ns: int) -> list[Factor]:
            return [Factor("carbon_intensity", 400.0, "g{CO2e}/(kW.h)", "me", low=300.0)]

        def close(self) -> None: ...

    def work(meter: Meter, clock: FakeClock) -> None:
        with meter.measured("x"):
            clock.advance(1.0)

    assert "at 400 gCO2e/kWh: me" in _summary(capsys, work, factors=[Mine()])


def test_what_nothing_bounds_is_told_with_its_lower_end_alone(capsys: pytest.CaptureFixture[str]) -> None:
    def work(meter: Meter, clock: FakeClock) -> None:
        with meter.measured("x"):
            clock.advance(10.25)

    sources = [SimulatedSource(lambda _: 100.0, tick_s=0.2)]
    text = _summary(capsys, work, sources=sources, carbon_intensity_g_per_kwh=400, price_per_kwh=3.6e6)
    assert "(at least " in text
    assert "(at least 0" not in text


def test_pue_is_named_where_it_is_applied_and_the_margin_is_that_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    def work(meter: Meter, clock: FakeClock) -> None:
        with meter.measured("x", unit="request") as region:
            region.add_units(7)
            clock.advance(1.0)

    text = _summary(capsys, work, region="FR", pue=1.14, value_per_unit=1)
    assert "x PUE 1.14" in text
    assert "margin 7.00 USD" in text


def test_rent_is_told_where_no_device_answers(capsys: pytest.CaptureFixture[str]) -> None:
    def work(meter: Meter, clock: FakeClock) -> None:
        with meter.measured("x"):
            clock.advance(36.0)

    assert "cents (USD) of computers" in _summary(capsys, work, sources=[], compute_price_per_hour=3)


def test_a_terminal_without_a_micro_sign_gets_the_summary_all_the_same(tmp_path: Path) -> None:
    code = """
import io, sys, impactsdk
from impactsdk.testing import SimulatedSource
impactsdk.configure(export="summary", region="FR", sources=[SimulatedSource(1.0)])
sys.stderr = io.TextIOWrapper(open("err.txt", "wb"), encoding="ascii")
with impactsdk.measured("x"):
    sum(range(100_000))
"""
    script(code, tmp_path)
    assert "ugCO2e" in (tmp_path / "err.txt").read_text("ascii")


def test_a_summary_that_cannot_be_made_costs_nobody_the_end_of_a_program(tmp_path: Path) -> None:
    code = """
import sys, impactsdk
from impactsdk.testing import SimulatedSource
impactsdk.configure(export="summary", sources=[SimulatedSource(1.0)])
impactsdk.measured("x")(lambda: None)()
sys.modules["impactsdk.export.summary"] = None  # as where no file can be opened any more
print(impactsdk.shutdown())
"""
    output, errors = script(code, tmp_path)
    assert output == "True\n"
    assert "the summary could not be written" in errors
