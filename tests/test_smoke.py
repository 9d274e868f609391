from __future__ import annotations

from impactsdk import measured
from impactsdk.testing import capture


def test_a_decorated_function_is_measured() -> None:
    @measured
    def work() -> int:
        return sum(range(10_000))

    with capture() as measurements:
        assert work() == 49_995_000
    assert measurements[0].name.endswith("work")
