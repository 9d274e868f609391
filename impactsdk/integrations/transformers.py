"""A callback for the ``Trainer`` of transformers, and the patches that measure ``train``, ``evaluate`` and ``predict``."""

from __future__ import annotations

import importlib
import math
from collections import deque
from typing import Any

from impactsdk import Measurement, Region
from impactsdk.integrations.loggers import CARBON, ENERGY, PER_UNIT
from impactsdk.integrations.patches import Call, Patches, region_of
from impactsdk.integrations.running import Closing, Running, harmless, ours_in, owner_of, put_first, with_base

__all__ = ["ImpactCallback", "instrument"]

_MOST_UNREAD = 512


class ImpactCallback(Closing):
    """Joules on a span of the training and of each epoch; optimiser steps go into the totals only.

    ``Trainer(..., callbacks=[ImpactCallback()])``. It is a ``transformers.TrainerCallback``. The reporters (TensorBoard, W&B,
    MLflow) get with each training loss ``impact/energy_j`` and ``impact/carbon_g``, which are those of all steps so far, and
    ``impact/joules_per_sample`` of the steps since the last time. Nothing waits for a reading: the last eighth of a second is
    in the next log, and the log at the end of the training has all.

    Samples are counted by batches of ``train_batch_size``, the last one of an epoch by the size of the dataset where that is
    known and one process trains. When the training raises, Trainer tells no callback: the regions are then left at the next
    training, at :meth:`close`, or at the end of ``with ImpactCallback() as callback:``.

    Args:
        name: Of the operations: ``trainer.train``, ``trainer.epoch``, ``trainer.step``.
        unit: ``sample``, or ``token`` with ``include_num_input_tokens_seen`` among the training's arguments; of the tokens of
            several processes, each counts an equal part.
        log: Add the scalars to the logs.

    Raises:
        ImportError: transformers is not installed.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> ImpactCallback:
        """Make it a callback of transformers."""
        try:
            base = importlib.import_module("transformers").TrainerCallback
        except ImportError as error:
            raise ImportError("ImpactCallback needs transformers: pip install transformers") from error
        made: ImpactCallback = object.__new__(with_base(cls, base))
        return made

    def __init__(self, name: str = "trainer", *, unit: str = "sample", log: bool = True) -> None:
        self.name, self.unit, self.log = name, unit, log
        self._running = Running()
        self._early = False
        self._reset()

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (getattr(type(self), "written_as", type(self)), self.name, self.unit, self.log)

    def start(self) -> None:
        """Open the span of the training before Trainer gets to the callback, to have all of it."""
        self.close()
        self._reset()
        self._running = Running()
        self._running.enter("train", f"{self.name}.train", unit=self.unit)
        self._early = True

    def _reset(self) -> None:
        self._unread: deque[Region] = deque()
        self._energy_j: float | None = None
        self._carbon_g: float | None = None
        self._since_j = self._since_units = 0.0
        self._tokens = 0
        self._seen = 0

    # --- what Trainer calls ------------------------------------------------------------------------------------------------

    @harmless
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the span of the training."""
        if not self._early or "train" not in self._running:
            self.start()
        self._early = False
        self._tokens = getattr(state, "num_input_tokens_seen", 0)
        owner = owner_of(self) if self.log else None
        if owner is not None:
            put_first(owner, self)  # Trainer puts the reporters before the callbacks of its user

    @harmless
    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the span of an epoch."""
        done = state.epoch or 0.0
        self._running.leave("epoch")
        self._running.enter("epoch", f"{self.name}.epoch", unit=self.unit, attributes={"epoch": math.floor(done + 1e-6) + 1})
        batches = _length(kwargs.get("train_dataloader"))
        self._seen = 0
        if batches and not getattr(args, "ignore_data_skip", False):
            # A training that is resumed skips the batches that it has seen of this epoch.
            self._seen = round(done * batches) % batches * _batch_size(args, state)

    @harmless
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open a step."""
        self._running.leave("step")
        self._running.enter("step", f"{self.name}.step", unit=self.unit, span=False)

    @harmless
    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count a batch whose gradient is accumulated."""
        self._count(args, state, kwargs.get("train_dataloader"))

    @harmless
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close a step."""
        try:
            self._count(args, state, kwargs.get("train_dataloader"))
        finally:
            region = self._running.leave("step")
        if region is not None and self.log:
            self._unread.append(region)
            if len(self._unread) > _MOST_UNREAD:
                self._read()

    @harmless
    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Add what the steps have cost to the logs of a training; those of an evaluation are somebody's result."""
        if not self.log or not isinstance(logs, dict) or "train" not in self._running:
            return
        if "train_loss" in logs and self._unread:
            self._running.result(self._unread[-1])
        elif "loss" not in logs and "train_loss" not in logs:
            return
        self._read()
        values = self._values()
        logs.update(values)
        history = getattr(state, "log_history", None)
        if history and history[-1].get("step") == state.global_step:
            history[-1].update(values)

    @harmless
    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the span of an epoch."""
        self._running.leave("epoch")

    @harmless
    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the span of the training."""
        self.close()

    # --- how ---------------------------------------------------------------------------------------------------------------

    def _count(self, args: Any, state: Any, loader: Any) -> None:
        if self.unit == "token":
            seen = getattr(state, "num_input_tokens_seen", 0)
            # Trainer adds up all processes' tokens; with equal parts, their sum over the processes is right again.
            units: float = (seen - self._tokens) / max(1, args.world_size)
            self._tokens = seen
            if not units:
                return
        else:
            size = _batch_size(args, state)
            total = _samples_in(loader) if args.world_size == 1 else None
            units = size if total is None else max(0, min(size, total - self._seen))
            self._seen += size
        for kind in ("train", "epoch", "step"):
            self._running.add_units(kind, units)

    def _read(self) -> None:
        """Add up the steps that are settled, oldest first."""
        while self._unread:
            if (measurement := _settled(self._unread[0])) is None:
                return
            self._unread.popleft()
            if measurement.energy_j is None:
                continue
            self._energy_j = (self._energy_j or 0.0) + measurement.energy_j
            if measurement.impact.carbon_g is not None:
                self._carbon_g = (self._carbon_g or 0.0) + measurement.impact.carbon_g
            if measurement.units:
                self._since_j += measurement.energy_j
                self._since_units += measurement.units

    def _values(self) -> dict[str, float]:
        values = {}
        if self._energy_j is not None:
            values[ENERGY] = self._energy_j
        if self._carbon_g is not None:
            values[CARBON] = self._carbon_g
        if self._since_units:
            values[PER_UNIT.format(unit=self.unit)] = self._since_j / self._since_units
            self._since_j = self._since_units = 0.0
        return values


def _settled(region: Region) -> Measurement | None:
    running = Running()
    running.patience_s = 0.0
    return running.result(region)


def _batch_size(args: Any, state: Any) -> int:
    size: int = getattr(state, "train_batch_size", None) or args.train_batch_size
    return size


def _samples_in(loader: Any) -> int | None:
    """How many samples a data loader has in one turn; ``None`` for a stream."""
    return _length(getattr(loader, "dataset", None))


def _length(sized: Any) -> int | None:
    try:
        return len(sized)
    except (TypeError, AttributeError, NotImplementedError):
        return None


def _again(cls: type[ImpactCallback], name: str, unit: str, log: bool) -> ImpactCallback:
    return cls(name, unit=unit, log=log)


# --- without a change of the code --------------------------------------------------------------------------------------------


def instrument(patches: Patches, trainer: Any) -> None:
    """Have ``train``, ``evaluate`` and ``predict`` of a ``Trainer`` class measured."""
    patches.wrap(trainer, "train", _train)
    patches.wrap(trainer, "evaluate", _evaluate)
    patches.wrap(trainer, "predict", _predict)


def _train(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    callbacks: list[Any] = args[0].callback_handler.callbacks
    mine, added = ours_in(callbacks, ImpactCallback)
    mine.start()

    def finish(_result: Any, error: BaseException | None) -> None:
        mine.close(error)
        if added:
            callbacks[:] = [item for item in callbacks if item is not mine]

    return Call(args, kwargs, finish)


def _evaluate(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    trainer = args[0]
    dataset = kwargs.get("eval_dataset", args[1] if len(args) > 1 else None)
    if dataset is None:
        dataset = trainer.eval_dataset
    return region_of("trainer.evaluate", args, kwargs, unit="sample", count=_counter(trainer, dataset))


def _predict(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    dataset = kwargs.get("test_dataset", args[1] if len(args) > 1 else None)
    return region_of("trainer.predict", args, kwargs, unit="sample", count=_counter(args[0], dataset))


def _counter(trainer: Any, dataset: Any) -> Any:
    def count(_result: Any) -> float | None:
        # Of several datasets each is evaluated by a call of its own; of several processes each has a part that is not told.
        if isinstance(dataset, dict | str) or not hasattr(dataset, "__len__") or trainer.args.world_size != 1:
            return None
        return len(dataset)

    return count
