"""The tables and what is said of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import impactsdk.factors
from impactsdk.factors.hardware import hardware_factors
from impactsdk.factors.rows import rows
from impactsdk.model import Channel

DATA = Path(impactsdk.factors.__file__).parent / "data"
TABLES = sorted(path.stem for path in DATA.glob("*.csv"))
SOURCES = (DATA / "SOURCES.md").read_text("utf-8")
EXPLAINED = set(re.findall(r"^### `(.+)`$", SOURCES, re.MULTILINE))


def _sources_of(table: str) -> set[str]:
    return {text for row in rows(table) for column, text in row.items() if column.startswith("source") and text}


@pytest.mark.parametrize("table", TABLES)
def test_every_source_of_a_table_is_explained(table: str) -> None:
    assert _sources_of(table) <= EXPLAINED


def test_nothing_is_explained_that_is_not_used() -> None:
    in_tables = set().union(*map(_sources_of, TABLES))
    assert EXPLAINED - in_tables == {"ecb-fx", "aws-instance-types", "cpuinfo"}


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_a_chapter(table: str) -> None:
    assert f"### {table}.csv" in SOURCES


def test_the_share_of_a_server_has_an_explained_source(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    for flags in ("fpu", "fpu hypervisor"):
        cpuinfo.write_text(f"flags : {flags}\n")
        found = hardware_factors([Channel("cpu:0", "cpu", "x")], cpuinfo=cpuinfo, threads=2, memory_gb=8)
        assert {found.resource_share.source, found.lifetime.source, found.devices[0].source} <= EXPLAINED


def test_every_source_has_a_licence_and_a_date() -> None:
    chapters = SOURCES.split("## Sources\n")[1].split("## Outside the tables")[0].split("### `")[1:]
    for chapter in chapters:
        assert all(f"\n- {word}:" in chapter for word in ("Citation", "Year", "Licence", "Retrieved", "Used in")), chapter


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_plain_text_without_ragged_rows(table: str) -> None:
    text = (DATA / f"{table}.csv").read_bytes().decode("utf-8")
    assert not text.startswith("\ufeff")
    assert "\r" not in text
    for row in rows(table):
        assert None not in row and None not in row.values()
        assert all(value == value.strip() and value.lower() not in ("nan", "none") for value in row.values())


def test_a_table_is_read_once() -> None:
    assert rows("lifetime") is rows("lifetime")


def test_a_table_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        rows("nonsense")
