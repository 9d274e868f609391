"""``sync=True``: a region waits for the accelerators at both ends."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from impactsdk import ConfigurationError, DegradedWarning
from impactsdk.barrier import wait_for_devices
from impactsdk.testing import FakeClock
from tests.kit import bench


class FakeTorch(ModuleType):
    """A board on which kernels take their time; waiting for it takes what they still need."""

    def __init__(self, clock: FakeClock, *, boards: int = 2, initialised: bool = True) -> None:
        super().__init__("torch")
        self.clock, self.waits, self.left_s, self.error = clock, [], 0.0, None  # type: ignore[var-annotated]
        self.backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False))
        self.mps = SimpleNamespace()
        self.cuda = SimpleNamespace(
            is_available=lambda: True,
            is_initialized=lambda: initialised,
            device_count=lambda: boards,
            synchronize=self._synchronize,
        )

    def launch(self, seconds: float) -> None:
        self.left_s += seconds

    def _synchronize(self, device: int) -> None:
        if self.error is not None:
            raise self.error
        self.waits.append(device)
        self.clock.advance(self.left_s)
        self.left_s = 0.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def torch(clock: FakeClock) -> Iterator[FakeTorch]:
    fake = FakeTorch(clock)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("jax", "tensorflow"):
            patch.delitem(sys.modules, name, raising=False)
        patch.setitem(sys.modules, "torch", fake)
        yield fake


def test_kernels_launched_inside_are_paid_inside_and_those_before_are_not(clock: FakeClock, torch: FakeTorch) -> None:
    with bench(clock=clock) as here:
        torch.launch(3.0)
        with here.measured("step", sync=True) as step:
            torch.launch(2.0)
        clock.advance(1.0)
        result = step.result()
        assert result.energy_j == pytest.approx(200.0)
        assert result.synced is True
        assert torch.waits == [0, 1, 0, 1]
        assert here.spans["step"].attributes is not None
        assert here.spans["step"].attributes["impact.sync"] is True


def test_it_is_off_unless_asked_for(clock: FakeClock, torch: FakeTorch) -> None:
    with bench(clock=clock) as here:
        with here.measured("step") as step:
            torch.launch(2.0)
        clock.advance(5.0)
        assert step.result().energy_j == pytest.approx(0.0, abs=1e-6)
        assert step.result().synced is None
        assert "impact.sync" not in (here.spans["step"].attributes or {})
        assert torch.waits == []


@pytest.mark.parametrize("span", [True, False])
def test_decorated_functions_coroutines_and_kept_blocks_wait_too(clock: FakeClock, torch: FakeTorch, span: bool) -> None:
    with bench(clock=clock) as here:

        @here.measured("plain", sync=True, span=span)
        def plain() -> int:
            torch.launch(1.0)
            return 7

        @here.measured("coroutine", sync=True, span=span)
        async def coroutine() -> int:
            torch.launch(1.0)
            return 8

        assert (plain(), asyncio.run(coroutine())) == (7, 8)
        block = here.measured("kept", sync=True, span=span)
        for _ in range(2):
            with block:
                torch.launch(1.0)
        clock.advance(1.0)
        energies = {name: operation.energy_j for name, operation in here.totals().operations.items()}
        assert energies == pytest.approx({"plain": 100.0, "coroutine": 100.0, "kept": 200.0})


def test_a_failing_kernel_is_the_frameworks_to_report(clock: FakeClock, torch: FakeTorch) -> None:
    with bench(clock=clock) as here, pytest.warns(DegradedWarning, match="waiting for the device failed"):
        with here.measured("step", sync=True) as step:
            torch.error = RuntimeError("illegal memory access")
            clock.advance(1.0)
        clock.advance(1.0)
        assert step.result().energy_j == pytest.approx(100.0)


def test_an_error_inside_leaves_as_it_came(clock: FakeClock, torch: FakeTorch) -> None:
    with bench(clock=clock) as here:
        with pytest.raises(KeyError, match="mine"), here.measured("step", sync=True):
            raise KeyError("mine")
        assert torch.waits == [0, 1, 0, 1]


def test_nothing_is_waited_for_where_nothing_is_measured(clock: FakeClock, torch: FakeTorch) -> None:
    with bench(clock=clock, disabled=True) as here:
        here.measured("first")(lambda: None)()
        with here.measured("step", sync=True):
            pass
        assert torch.waits == []


def test_without_an_accelerator_it_says_that_nothing_was_waited_for(clock: FakeClock) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("jax", "tensorflow"):
            patch.delitem(sys.modules, name, raising=False)
        patch.setitem(sys.modules, "torch", FakeTorch(clock, initialised=False))
        with bench(clock=clock) as here:
            with here.measured("step", sync=True) as step:
                clock.advance(1.0)
            clock.advance(1.0)
            assert step.result().synced is False


def test_jax_and_tensorflow_are_asked_in_their_own_way() -> None:
    asked: list[str] = []

    class Value:
        def __add__(self, other: float) -> Value:
            return self

        def block_until_ready(self) -> None:
            asked.append("jax")

    jax: Any = ModuleType("jax")
    jax.local_devices, jax.device_put = lambda: ["tpu:0", "tpu:1"], lambda value, device: Value()
    tensorflow: Any = ModuleType("tensorflow")
    tensorflow.config = SimpleNamespace(list_logical_devices=lambda kind: ["GPU:0"] if kind == "GPU" else [])
    tensorflow.test = SimpleNamespace(experimental=SimpleNamespace(sync_devices=lambda: asked.append("tensorflow")))
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "torch", raising=False)
        patch.setitem(sys.modules, "jax", jax)
        patch.setitem(sys.modules, "tensorflow", tensorflow)
        assert wait_for_devices() is True
        assert asked == ["jax", "jax", "tensorflow"]
        patch.setitem(sys.modules, "jax", ModuleType("jax"))  # still being imported
        patch.setitem(sys.modules, "tensorflow", ModuleType("tensorflow"))
        assert wait_for_devices() is False


def test_sync_must_be_true_or_false() -> None:
    with bench() as here, pytest.raises(ConfigurationError, match="sync="):
        here.measured("x", sync="yes")  # type: ignore[call-overload]
