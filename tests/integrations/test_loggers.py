"""Impact figures for loggers: on objects that have their methods, and on the real ones where they are installed."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from impactsdk import ConfigurationError, Measurement, measured
from impactsdk.integrations.loggers import log_impact, scalars
from impactsdk.testing import capture
from tests.integrations.frameworks import needs
from tests.kit import script


@pytest.fixture
def measurement() -> Measurement:
    with capture() as measurements:
        with measured("epoch", unit="token") as region:
            sum(range(20_000))
            region.add_units(4)
        return measurements[0]


def test_scalars_are_named_by_what_they_are(measurement: Measurement) -> None:
    found = scalars(measurement)
    assert found["impact/energy_j"] == measurement.energy_j
    assert found["impact/joules_per_token"] == (measurement.energy_j or 0) / 4
    assert found["impact/carbon_g"] == measurement.impact.carbon_g


def test_what_is_unknown_is_absent() -> None:
    with capture(sources=[]) as measurements:
        with measured("epoch"):
            pass
        assert scalars(measurements[0]) == {}
    assert scalars(None) == {}


class Recording:
    """Takes the calls of one method."""

    def __init__(self, method: str) -> None:
        self.calls: list[tuple[Any, ...]] = []
        setattr(self, method, lambda *args, **kwargs: self.calls.append((args, kwargs)))


def test_a_summary_writer_gets_scalars_one_by_one(measurement: Measurement) -> None:
    writer = Recording("add_scalar")
    log_impact(writer, measurement, step=3)
    assert [args[0] for args, _ in writer.calls] == ["impact/energy_j", "impact/joules_per_token", "impact/carbon_g"]
    assert all(kwargs == {"global_step": 3} for _, kwargs in writer.calls)


def test_others_get_them_together() -> None:
    values = {"impact/energy_j": 2.0}
    for method in ("log", "log_metrics"):
        logger = Recording(method)
        log_impact(logger, values, step=1)
        assert logger.calls == [((values,), {"step": 1})]


def test_an_mlflow_run_is_logged_to_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Recording("log_metrics")
    monkeypatch.setitem(sys.modules, "mlflow", module)  # type: ignore[arg-type]
    log_impact(types.SimpleNamespace(info=types.SimpleNamespace(run_id="r")), {"impact/energy_j": 2.0})
    assert module.calls == [(({"impact/energy_j": 2.0},), {"step": None, "run_id": "r"})]


def test_something_else_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="SummaryWriter"):
        log_impact(object(), {"impact/energy_j": 2.0})


def test_nothing_known_is_nothing_logged() -> None:
    log_impact(object(), {})


@needs("torch", "tensorboard")
def test_tensorboard_shows_them(tmp_path: Path) -> None:
    output, _ = script(
        """
        from torch.utils.tensorboard import SummaryWriter
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from impactsdk.integrations.loggers import log_impact
        with SummaryWriter("log") as writer:
            for step in range(3):
                log_impact(writer, {"impact/energy_j": 2.0 * step}, step=step)
        read = EventAccumulator("log")
        read.Reload()
        print([(event.step, event.value) for event in read.Scalars("impact/energy_j")])
        """,
        tmp_path,
        timeout_s=120,
    )
    assert output.splitlines()[-1] == "[(0, 0.0), (1, 2.0), (2, 4.0)]"


@needs("wandb")
def test_weights_and_biases_keeps_them_offline(tmp_path: Path) -> None:
    output, _ = script(
        """
        import wandb
        from pathlib import Path
        from impactsdk.integrations.loggers import log_impact
        run = wandb.init(mode="offline", project="x", settings=wandb.Settings(silent=True))
        log_impact(run, {"impact/energy_j": 2.0}, step=1)
        run.finish()
        print([b"impact/energy_j" in file.read_bytes() for file in Path(run.dir).parent.glob("*.wandb")])
        """,
        tmp_path,
        timeout_s=120,
        WANDB_MODE="offline",
    )
    assert output.splitlines()[-1] == "[True]"


@needs("mlflow", "sqlalchemy", "alembic")
def test_mlflow_keeps_them(tmp_path: Path) -> None:
    output, _ = script(
        """
        import mlflow
        from impactsdk.integrations.loggers import log_impact
        mlflow.set_tracking_uri("sqlite:///runs.db")
        with mlflow.start_run() as run:
            log_impact(run, {"impact/energy_j": 2.0}, step=1)
            log_impact(mlflow, {"impact/carbon_g": 3.0}, step=1)
        print(sorted(mlflow.get_run(run.info.run_id).data.metrics.items()))
        """,
        tmp_path,
        timeout_s=120,
    )
    assert output.splitlines()[-1] == "[('impact/carbon_g', 3.0), ('impact/energy_j', 2.0)]"
