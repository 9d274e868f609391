"""Impact figures for the loggers that a training already has: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from impactsdk import ConfigurationError, Measurement

__all__ = ["CARBON", "ENERGY", "PER_UNIT", "log_impact", "scalars"]

ENERGY = "impact/energy_j"
CARBON = "impact/carbon_g"
PER_UNIT = "impact/joules_per_{unit}"


def scalars(measurement: Measurement | None, *, units: float | None = None, unit: str | None = None) -> dict[str, float]:
    """What a measurement says, as named numbers: joules, joules per functional unit, grams of CO2e. Unknown ones are absent.

    Args:
        measurement: Of a region that has ended, or ``None``.
        units: Of the functional unit; default: the measurement's own.
        unit: Its name; default: the measurement's own, else ``unit``.
    """
    if measurement is None or measurement.energy_j is None:
        return {}
    found = {ENERGY: measurement.energy_j}
    count = measurement.units if units is None else units
    if count:
        found[PER_UNIT.format(unit=unit or measurement.unit or "unit")] = measurement.energy_j / count
    if measurement.impact.carbon_g is not None:
        found[CARBON] = measurement.impact.carbon_g
    return found


def log_impact(logger: Any, values: Measurement | Mapping[str, float], *, step: int | None = None) -> None:
    """Send joules, joules per functional unit and grams of CO2e to a logger that the caller already has.

    Args:
        logger: A TensorBoard ``SummaryWriter`` (of torch or tensorboardX), a TensorFlow summary writer, a W&B run (or the
            module ``wandb``), an MLflow run (or the module ``mlflow``), or a Lightning logger.
        values: A measurement, or named numbers.
        step: The training step or epoch they belong to.

    Raises:
        ConfigurationError: ``logger`` is none of these.
    """
    named = scalars(values) if isinstance(values, Measurement) else dict(values)
    if not named:
        return
    if callable(getattr(logger, "add_scalar", None)):
        for name, value in named.items():
            logger.add_scalar(name, value, global_step=step)
    elif callable(getattr(logger, "log_metrics", None)):
        logger.log_metrics(named, step=step)
    elif getattr(getattr(logger, "info", None), "run_id", None) is not None:
        # An MLflow run has no methods of its own; whoever has one has loaded the module.
        sys.modules["mlflow"].log_metrics(named, step=step, run_id=logger.info.run_id)
    elif callable(getattr(logger, "log", None)):
        logger.log(named) if step is None else logger.log(named, step=step)
    elif callable(getattr(logger, "as_default", None)) and "tensorflow" in sys.modules:
        with logger.as_default():
            for name, value in named.items():
                sys.modules["tensorflow"].summary.scalar(name, value, step=step or 0)
    else:
        raise ConfigurationError(
            f"logger={type(logger).__name__}: expected a SummaryWriter, a wandb run, an mlflow run or a Lightning logger"
        )
