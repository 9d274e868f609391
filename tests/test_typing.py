"""What a type checker says about measured code: signatures and results are kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import impactsdk

GOOD = """
from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any

if sys.version_info >= (3, 11):
    from typing import assert_type
else:
    from typing_extensions import assert_type

import impactsdk
from impactsdk import Impact, Measurement, Meter, Region, Totals, configure, measured, track
from impactsdk.testing import Captured, SimulatedSource, capture


@measured
def plain(number: int, *, text: str = "") -> list[str]:
    return [text] * number


@measured("named", unit="item", count=len, attributes={"a": 1}, span=False)
def named(number: int) -> list[int]:
    return [number]


@measured
async def coroutine(number: int) -> bytes:
    return b"" * number


@measured
def generator(number: int) -> Generator[int, str, float]:
    yield number
    return 1.0


@measured("stream")
async def stream() -> AsyncIterator[str]:
    yield "x"


class Thing:
    @measured
    def method(self, number: int) -> Thing:
        return self

    @classmethod
    @measured
    def of_class(cls) -> Thing:
        return cls()

    @staticmethod
    @measured("static")
    def static(number: int) -> int:
        return number


async def use() -> None:
    assert_type(plain(1, text="x"), list[str])
    assert_type(named(1), list[int])
    assert_type(await coroutine(1), bytes)
    assert_type(generator(1), Generator[int, str, float])
    assert_type((yield_from := [item async for item in stream()]), list[str])
    assert_type(Thing().method(1), Thing)
    assert_type(Thing.of_class(), Thing)
    assert_type(Thing.static(1), int)
    with measured("block", unit="item") as region:
        assert_type(region, Region)
        region.add_units(1)
    assert_type(region.result(), Measurement)
    assert_type(region.result().energy_j, float | None)
    assert_type(region.result().impact, Impact)
    async with measured("block") as inside:
        assert_type(inside, Region)
    meter = configure(export="none")
    assert_type(meter, Meter)
    assert_type(meter.totals(), Totals)
    assert_type(impactsdk.current(), Region | None)
    for item in track([1, 2], unit="batch"):
        assert_type(item, int)
    with capture(sources=[SimulatedSource(1.0)]) as measurements:
        assert_type(measurements, Captured)
        assert_type(measurements[0], Measurement)
    with Meter(sources=[SimulatedSource(lambda second: 1.0)]) as other:
        assert_type(other.measured("x")(plain)(1), list[str])
"""

BAD = {
    "plain('x')": "arg-type",
    "plain()": "call-arg",
    "plain(1, text=2)": "arg-type",
    "measured('x', units='item')": "call-overload",
    "measured(3)": "call-overload",
    "Meter(sources=[object()])": "list-item",
}


def _mypy(code: str, folder: Path) -> tuple[int, str]:
    path = folder / "checked.py"
    path.write_text(code, encoding="utf-8")
    cache = folder.parent / "mypy-cache"
    # What is installed is checked, as a user's checker finds it: by py.typed.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), "--no-error-summary", str(path)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_type_checker_sees_what_was_decorated(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    wrong = "".join(f"{call}  # wrong\n" for call in BAD)
    code, output = _mypy(
        GOOD + "\n\ndef misuse() -> None:\n" + "".join(f"    {line}\n" for line in wrong.splitlines()), tmp_path
    )
    lines = [line for line in output.splitlines() if "error:" in line]
    first = GOOD.count("\n") + 4
    for number, (call, kind) in enumerate(BAD.items()):
        assert [line for line in lines if f":{first + number}: " in line and f"[{kind}]" in line], f"{call}\n{output}"
    assert len({line.split(": error:")[0] for line in lines}) == len(BAD), output
    assert code == 1


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(impactsdk.__file__).parent / "py.typed").is_file()
