"""A recorded run adds up, and one that was tampered with does not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from impactsdk import JournalError
from impactsdk.cli.main import main
from impactsdk.report.balance import balance
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
    assert "there is no journal in" in capsys.readouterr().out
    journal, _ = recorded(tmp_path)
    killed = tmp_path / "killed.jsonl"
    lines = [line for line in journal.read_text("utf-8").splitlines(keepends=True) if "resourceSpans" in line]
    killed.write_text("".join(lines), "utf-8")
    with pytest.raises(JournalError, match="ends before the first totals"):
        balance(killed)
    assert main(["check", str(killed)]) == 2
    assert main(["check", str(tmp_path / "none.jsonl")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_spans_that_came_after_the_last_totals_of_a_killed_process_are_left_out(tmp_path: Path) -> None:
    journal, _ = recorded(tmp_path)
    before = balance(journal)
    later = [line for line in journal.read_text("utf-8").splitlines(keepends=True) if "resourceSpans" in line]
    with journal.open("a", encoding="utf-8") as lines:
        lines.writelines(later)
    assert later
    assert balance(journal) == before
