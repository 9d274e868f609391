"""A recorded run adds up, and one that was tampered with does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from impactsdk import DegradedWarning, JournalError, Meter, Settings
from impactsdk.cli.main import main
from impactsdk.report import recompute
from impactsdk.report.balance import balance
from impactsdk.testing import FakeClock, SimulatedSource
from tests.report.test_recompute import recorded


def rewritten(journal: Path, change: Any) -> None:
    """The same file with each request changed in place."""
    requests = [json.loads(line) for line in journal.read_text("utf-8").splitlines()]
    for request in requests:
        change(request)
    journal.write_text("".join(json.dumps(request) + "\n" for request in requests), "utf-8")


def test_spans_regions_and_the_rest_are_what_the_devices_counted(tmp_path: Path) -> None:
    journal, totals = recorded(tmp_path)
    found = balance(journal)
    assert found.adds_up
    assert found.channels == totals.channels
    assert found.spans == 1
    assert found.spans_j == pytest.approx(100.0, rel=1e-6)  # the epoch without its steps
    assert found.regions_j - found.spans_j == pytest.approx(800.0, rel=1e-6)
    assert found.unattributed_j == pytest.approx(totals.unattributed_j)
    assert found.open_j == found.others_j == 0.0


def of_spans(journal: Path) -> tuple[list[str], list[str]]:
    """The lines with spans, and the others."""
    lines = journal.read_text("utf-8").splitlines(keepends=True)
    return [line for line in lines if "resourceSpans" in line], [line for line in lines if "resourceSpans" not in line]


def test_a_run_that_is_twice_in_one_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Meter(Settings.load({}, export="journal", directory=tmp_path), sources=[SimulatedSource(100.0)]) as meter:
        for _ in range(2):
            with meter.measured("epoch"):
                pass
            meter.flush()  # which writes what the devices have used by now
    (journal,) = tmp_path.glob("run-*.jsonl")
    assert main(["check", str(journal)]) == 0
    journal.write_text(2 * journal.read_text("utf-8"), "utf-8")
    assert main(["check", str(journal)]) == 2
    assert "earlier totals after later ones; a journal has one run in it" in capsys.readouterr().err
    with pytest.raises(JournalError, match="earlier totals after later ones"):
        recompute(journal)


def test_two_runs_in_one_file_are_refused_whatever_each_has_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (first, _), (second, _) = recorded(tmp_path / "first"), recorded(tmp_path / "second")
    for one, other in ((first, second), (second, first)):
        both = tmp_path / "both.jsonl"
        both.write_text(one.read_text("utf-8") + other.read_text("utf-8"), "utf-8")
        assert main(["check", str(both)]) == 2
        with pytest.raises(JournalError, match=r"both\.jsonl has more than one run in it"):
            recompute(both)
    assert "it adds up" not in capsys.readouterr().out


def test_more_spans_than_calls_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal, _ = recorded(tmp_path)
    spans, others = of_spans(journal)
    journal.write_text("".join([*spans, *others, *spans, *others]), "utf-8")  # all was written at one instant
    assert main(["check", str(journal)]) == 1
    assert "epoch: it has 2 spans, and 1 calls" in capsys.readouterr().out
    journal.write_text("".join([*(line.replace('"epoch"', '"other"') for line in 6 * spans), *others]), "utf-8")
    assert main(["check", str(journal)]) == 1
    assert "there are 6 spans, and 5 calls in all" in capsys.readouterr().out


def test_spans_that_are_missing_are_named_and_those_that_are_there_may_not_have_more_than_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal, _ = recorded(tmp_path)
    spans, others = of_spans(journal)
    journal.write_text("".join(others), "utf-8")
    assert main(["check", str(journal)]) == 0
    assert "no span here (meant so, sampled, or lost): step (4 of 4), epoch (1 of 1)" in capsys.readouterr().out
    as_step = [line.replace('{"stringValue":"epoch"}', '{"stringValue":"step"}') for line in spans]
    journal.write_text("".join([*as_step, *others]), "utf-8")
    assert balance(journal).without_span == {"step": (3, 4), "epoch": (1, 1)}
    assert balance(journal).adds_up, "one of four, with less than all four"
    journal.write_text("".join([*as_step, *others]).replace('"doubleValue":100.0', '"doubleValue":801.0'), "utf-8")
    assert main(["check", str(journal)]) == 1
    assert "step: its spans (1) have 801 J, its total is 800 J" in capsys.readouterr().out


@pytest.mark.parametrize("bad", ["not json", "[1, 2]", "[" * 200_000])
def test_lines_that_cannot_be_read_are_counted_and_said(tmp_path: Path, bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    journal, totals = recorded(tmp_path)
    text = journal.read_text("utf-8")
    journal.write_text(f"{bad}\n{text}{bad}\n\n{{ cut off", "utf-8")
    assert main(["check", str(journal)]) == 0
    assert "2 lines cannot be read" in capsys.readouterr().out
    with pytest.warns(DegradedWarning, match="2 lines cannot be read"):
        assert recompute(journal).channels == totals.channels
    journal.write_text(text + "{ cut off", "utf-8")
    assert balance(journal).unread == 0


@pytest.mark.parametrize(("value", "status"), [("-900", 1), ("1e999", 2), ("NaN", 2)])
def test_amounts_that_cannot_be_are_told(tmp_path: Path, value: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    journal, totals = recorded(tmp_path)
    counted = f'"asDouble":{totals.channels["sim:0"]}'
    journal.write_text(journal.read_text("utf-8").replace(counted, f'"asDouble":{value}'), "utf-8")
    assert main(["check", str(journal)]) == status
    told = capsys.readouterr()
    assert "sim:0 has -900 J, less than nothing" in told.out or "is no amount of anything" in told.err


@pytest.mark.parametrize(("where", "status"), [(">&-", 0), (">/dev/full", 2)])
def test_an_output_that_cannot_be_written_is_no_sum_that_does_not_add_up(tmp_path: Path, where: str, status: int) -> None:
    if where == ">/dev/full" and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    journal, _ = recorded(tmp_path)
    command = ["sh", "-c", f'exec "$0" -m impactsdk check "$1" {where}', sys.executable, str(journal)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False)


def test_a_span_with_other_joules_than_its_total_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal, _ = recorded(tmp_path)

    def more(request: dict[str, Any]) -> None:
        for of in request.get("resourceSpans", ()):
            for scope in of["scopeSpans"]:
                for span in scope["spans"]:
                    for item in span["attributes"]:
                        if item["key"] == "impact.energy.self":
                            item["value"]["doubleValue"] += 1e-3

    rewritten(journal, more)
    assert not balance(journal).adds_up
    assert main(["check", str(journal)]) == 1
    shown = capsys.readouterr().out
    assert "epoch: its spans (1) have 100.001 J, its total is 100 J" in shown
    assert "it does NOT add up" in shown


def test_joules_that_nobody_owes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal, _ = recorded(tmp_path)

    def lost(request: dict[str, Any]) -> None:
        for of in request.get("resourceMetrics", ()):
            for scope in of["scopeMetrics"]:
                for metric in scope["metrics"]:
                    if metric["name"] == "hw.energy":
                        for point in metric["sum"]["dataPoints"]:
                            point["asDouble"] *= 1.001

    rewritten(journal, lost)
    assert main(["check", str(journal)]) == 1
    assert "differ by 1.0e-03 of it: it does NOT add up" in capsys.readouterr().out


def test_without_a_name_the_newest_journal_is_added_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    journal, _ = recorded(tmp_path)
    old = tmp_path / "run-20200101T000000Z-1.jsonl"
    old.write_text("{}", "utf-8")
    os.utime(old, (0, 0))
    with monkeypatch.context() as patch:
        patch.setenv("IMPACTSDK_DIRECTORY", str(tmp_path))
        assert main(["check"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(str(journal))
    assert shown.endswith("it adds up\n")


def test_where_there_is_nothing_to_add_up_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("IMPACTSDK_DIRECTORY", str(tmp_path))
        assert main(["check"]) == 2
    told = capsys.readouterr()
    assert (told.out, "there is no journal in" in told.err) == ("", True)
    journal, _ = recorded(tmp_path)
    killed = tmp_path / "killed.jsonl"
    lines = [line for line in journal.read_text("utf-8").splitlines(keepends=True) if "resourceSpans" in line]
    killed.write_text("".join(lines), "utf-8")
    with pytest.raises(JournalError, match="ends before the first totals"):
        balance(killed)
    assert main(["check", str(killed)]) == 2
    assert main(["check", str(tmp_path / "none.jsonl")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_whole_run_without_a_device_is_told_from_one_that_was_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Meter(Settings.load({}, export="journal", directory=tmp_path, sources=()), clock=FakeClock()) as meter:
        with meter.measured("epoch"):
            pass
        meter.flush()
    (journal,) = tmp_path.glob("run-*.jsonl")
    assert main(["check", str(journal)]) == 2
    assert capsys.readouterr().err.endswith("no device could be read in this run: there is nothing to add up\n")
    spans, _ = of_spans(journal)
    journal.write_text("".join(spans), "utf-8")
    assert main(["check", str(journal)]) == 2
    assert "ends before the first totals" in capsys.readouterr().err


def test_spans_that_came_after_the_last_totals_of_a_killed_process_are_left_out(tmp_path: Path) -> None:
    journal, _ = recorded(tmp_path)
    before = balance(journal)
    later = [line for line in journal.read_text("utf-8").splitlines(keepends=True) if "resourceSpans" in line]
    with journal.open("a", encoding="utf-8") as lines:
        lines.writelines(later)
    assert later
    assert balance(journal) == before


def test_a_run_of_more_names_than_are_told_apart_adds_up(tmp_path: Path) -> None:
    clock = FakeClock()
    settings = Settings.load({}, export="journal", directory=tmp_path)
    with (
        pytest.warns(DegradedWarning, match="more than 2000"),
        Meter(settings, sources=[SimulatedSource(100.0)], clock=clock) as meter,
    ):
        for number in range(2_010):
            with meter.measured(f"name {number}", span=False):
                pass
        with meter.measured("name 7", span=False):
            clock.advance(1.0)
        clock.advance(1.0)
        assert meter.flush()
    [journal] = tmp_path.glob("*.jsonl")
    found = balance(journal)
    assert found.adds_up
    assert found.regions_j == pytest.approx(100.0)
    assert len(found.without_span) == 2_001
    assert recompute(journal).operations["name 7"].energy_j == pytest.approx(100.0)
