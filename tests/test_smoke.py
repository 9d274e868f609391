from __future__ import annotations

import random
from pathlib import Path

from impactsdk import measured
from impactsdk.testing import capture
from tests.kit import script


def test_a_decorated_function_is_measured() -> None:
    @measured
    def work() -> int:
        return sum(range(10_000))

    with capture() as measurements:
        assert work() == 49_995_000
    assert measurements[0].name.endswith("work")


def test_measuring_leaves_the_programs_random_numbers_as_they_are_and_its_seed_does_not_make_the_ids(tmp_path: Path) -> None:
    code = """
import random, impactsdk
from impactsdk.testing import SimulatedSource
impactsdk.configure(sources=[SimulatedSource(1.0)], export="journal")
random.seed(1)
with impactsdk.measured("x") as region:
    drawn = random.random()
print(drawn, region.span.get_span_context().trace_id)
"""
    (first, trace_id), (second, other_id) = (script(code, tmp_path)[0].split() for _ in range(2))
    assert float(first) == float(second) == random.Random(1).random()
    assert trace_id != other_id
