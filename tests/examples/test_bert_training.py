"""Parts of the workload that need TensorFlow, without a run."""

from __future__ import annotations

import importlib.util

import pytest

pytestmark = [
    pytest.mark.bert,
    pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs impactsdk[bert]"),
]


@pytest.mark.parametrize("steps", [1, 2, 9, 1000])
def test_every_step_learns_the_first_and_the_last_too(inside, steps):
    rates = inside(f"""
from examples.bert.training import Schedule
answer = [float(Schedule(1.0, steps={steps})(step)) for step in range({steps})]
""")
    peak = rates.index(max(rates))
    assert all(0 < rate <= 1 for rate in rates)
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)
    assert max(rates) > 0.99 or steps < 1000
