"""Everything that the README shows is executed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_each_example_of_the_readme_runs(number: int, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(EXAMPLES[number], encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    expected = [
        "details in impact",
        "epoch",
        "impact.energy.self",
        "impact.energy.self",
        "owid-ember-2026",
        "socket:0",
        "launcher",
    ][number]
    assert expected in done.stdout + done.stderr


def test_the_readme_names_every_setting() -> None:
    from impactsdk import Settings

    for name in Settings().names():
        assert f"`{name}`" in README, name


def test_the_commands_of_the_readme_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z]+)`", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_picture_and_tables_are_of_one_run() -> None:
    of_the_example = (ROOT / "examples" / "bert" / "README.md").read_text(encoding="utf-8")
    table = re.search(r"^phase +joules .*\n(?:[a-z].*\d.*\n)+", README, flags=re.MULTILINE)
    assert table is not None
    assert table[0] in of_the_example
    picture = (ROOT / "examples" / "bert" / "run.svg").read_text(encoding="utf-8")
    for row, span in (("whole run", "bert"), ("fine-tuning", "bert.finetune.epoch")):
        in_table = float(re.findall(rf"^{row} +([\d.]+) ", table[0], flags=re.MULTILINE)[0])
        drawn = [float(energy_j) for energy_j in re.findall(rf"<title>{re.escape(span)}  (\S+) J</title>", picture)]
        assert sum(drawn) == pytest.approx(in_table, rel=0.02)


def test_the_files_of_the_readme_exist() -> None:
    for path in re.findall(r"\]\(([^)#]+)\)|`(examples/[^`]+)`", README):
        for name in path:
            assert not name or name.startswith("http") or (ROOT / name).exists(), name
