"""What a person gets wrong is refused at once, in words that say what was expected; nothing else is."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

import impactsdk
from impactsdk import ConfigurationError, measured
from impactsdk.testing import SimulatedSource, capture
from tests.kit import attributes, bench


@pytest.mark.parametrize("name", ["", " ", "\n", "a\nb", "a\0b", "\ud800", "x" * 257, 3, b"x", 1.5, ["x"], ("x",), {"x": 1}])
def test_a_name_that_cannot_be_used_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="name") as caught:
        measured(name)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["a", "x" * 256, "épochs/τ", "训练", "a.b-c d", "%s {x}", "(other names)"])
def test_any_printable_name_is_kept_as_it_is(name: str) -> None:
    with bench() as here:
        with here.measured(name):
            pass
        assert name in here.totals().operations
        assert name in here.spans


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unit": ""}, "unit=''"),
        ({"unit": 3}, "unit=3"),
        ({"count": "len"}, "count='len'"),
        ({"span": 1}, "span=1"),
        ({"span": None}, "span=None"),
        ({"attributes": [("a", 1)]}, "must be a mapping"),
        ({"attributes": {1: "a"}}, "not 1"),
        ({"attributes": {"": "a"}}, "not empty"),
        ({"attributes": {"a": None}}, "'a' must be text"),
        ({"attributes": {"a": object()}}, "'a' must be text"),
        ({"attributes": {"a": {"b": 1}}}, "'a' must be text"),
        ({"attributes": {"a": [1, None]}}, "'a' must be text"),
        ({"attributes": {"a": b"x"}}, "'a' must be text"),
        ({"attributes": {"a": 1j}}, "'a' must be text"),
        ({"attributes": {"a": Fraction(10) ** 400}}, "'a' must be text"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        measured("x", **arguments)
    with capture() as measurements:  # and it is not remembered
        with measured("x"):
            pass
        assert len(measurements) == 1


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(TypeError):
        measured("x", units="sentence")  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        measured("x", "sentence")  # type: ignore[call-overload]


class Phase(str, enum.Enum):
    TRAIN = "train"


def test_attributes_of_every_usable_kind_arrive() -> None:
    given: dict[str, Any] = {
        "text": "a",
        "flag": True,
        "integer": 3,
        "number": 0.5,
        "list": [1, 2],
        "tuple": ("a", "b"),
        "phase": Phase.TRAIN,
        "nan": math.nan,
    }
    with bench() as here:
        with here.measured("x", attributes=given):
            pass
        found = attributes(here.spans["x"])
        assert found["list"] == (1, 2)
        assert found["phase"] == "train"
        assert {"text": "a", "flag": True, "integer": 3, "number": 0.5}.items() <= found.items()


def test_numbers_of_numpy_and_fractions_are_attributes_too() -> None:
    numpy = pytest.importorskip("numpy")
    given = {
        "epoch": numpy.int64(3),
        "loss": numpy.float32(0.5),
        "best": numpy.bool_(True),
        "shape": [numpy.int32(2), 4],
        "half": Fraction(1, 2),
    }
    with bench() as here:
        with here.measured("x", attributes=given):
            pass
        found = {name: value for name, value in attributes(here.spans["x"]).items() if name in given}
    assert found == {"epoch": 3, "loss": 0.5, "best": True, "shape": (2, 4), "half": 0.5}
    assert [type(value) for value in found.values()] == [int, float, bool, tuple, float]
    assert {type(item) for item in found["shape"]} == {int}


def test_attributes_are_taken_as_they_were() -> None:
    shape = [1, 2]
    given = {"epoch": 1, "shape": shape}
    with bench() as here:
        block = here.measured("x", attributes=given)
        given["epoch"] = 2
        shape.append(3)
        with block:
            pass
        found = attributes(here.spans["x"])
        assert (found["epoch"], found["shape"]) == (1, (1, 2))


def test_what_is_passed_to_a_function_is_not_recorded() -> None:
    secret = "hunter2"
    with bench() as here:
        here.measured("x")(lambda password: password)(secret)
        assert secret not in str(here.spans["x"].to_json())


def test_a_mistake_in_a_call_is_pythons_own() -> None:
    @measured
    def function(number: int) -> int:
        return number

    with capture() as measurements:
        with pytest.raises(TypeError, match="positional argument"):
            function()  # type: ignore[call-arg]
        assert impactsdk.current() is None
        assert len(measurements) == 1


def _waiting(region: Any, meter: Any) -> list[Callable[[Any], Any]]:
    return [region.result, meter.flush, meter.close, impactsdk.flush, impactsdk.shutdown]


@pytest.mark.parametrize("timeout_s", [math.nan, "5", [], object()])
def test_a_time_to_wait_that_is_no_number_is_refused_wherever_one_is_taken(timeout_s: Any) -> None:
    with bench() as here:
        with here.measured("x") as region:
            pass
        for wait in _waiting(region, here.meter):
            with pytest.raises(ConfigurationError, match="expected a number of seconds"):
                wait(timeout_s)
        with pytest.raises(ConfigurationError, match="timeout_s=None"):
            impactsdk.flush(None)  # type: ignore[arg-type]
        assert here.totals().operations["x"].count == 1


@pytest.mark.parametrize("timeout_s", [-2, -math.inf, math.inf])
def test_what_is_left_until_a_deadline_may_be_negative_and_that_is_no_error(timeout_s: float) -> None:
    with bench() as here:
        with here.measured("x") as region:
            pass
        assert here.meter.flush()
        for wait in _waiting(region, here.meter):
            wait(timeout_s)


@pytest.mark.parametrize(
    "arguments",
    [{"power_w": math.nan}, {"power_w": math.inf}, {"power_w": 1.0, "tick_s": -1}, {"power_w": 1.0, "tick_s": math.nan}],
)
def test_a_simulated_source_refuses_nonsense(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        SimulatedSource(**arguments)
