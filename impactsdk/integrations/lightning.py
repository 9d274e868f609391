"""A callback for the ``Trainer`` of Lightning, as ``lightning`` and as ``pytorch_lightning``, and the patches that add it."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from impactsdk.integrations.loggers import scalars
from impactsdk.integrations.patches import Call, Patches
from impactsdk.integrations.running import Closing, Running, harmless, ours_in, size_of, with_base

__all__ = ["ImpactCallback", "instrument"]

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def _bases() -> list[type]:
    """``Callback`` of the packages that are loaded, else of the first that is installed."""
    loaded = [sys.modules[name] for name in _PACKAGES if name in sys.modules]
    for name in () if loaded else _PACKAGES:
        try:
            loaded = [importlib.import_module(name)]
            break
        except ImportError:
            continue
    if not loaded:
        raise ImportError("ImpactCallback needs Lightning: pip install lightning")
    return [module.Callback for module in loaded]


class ImpactCallback(Closing):
    """Joules on a span of ``fit`` and of each epoch, of ``validate``, ``test`` and ``predict``; steps go into the totals only.

    ``Trainer(callbacks=[ImpactCallback()])``. It is a ``Callback`` of ``lightning.pytorch`` and of ``pytorch_lightning``,
    whichever is loaded. Samples are counted by the first dimension of the first tensor of each batch.

    Args:
        name: Of the operations: ``lightning.fit``, ``lightning.epoch``, ``lightning.step``, ``lightning.validate``,
            ``lightning.test``, ``lightning.predict``.
        unit: The functional unit that a sample is.
        log: Log ``impact/energy_j``, ``impact/joules_per_sample`` and ``impact/carbon_g`` of each epoch, its validation
            included, through the module, so that every logger gets them and a checkpoint may look at them. An epoch then
            waits for its energy, an eighth of a second as a rule and a second at most.

    Raises:
        ImportError: Lightning is not installed.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> ImpactCallback:
        """Make it a callback of the package that is loaded."""
        made: ImpactCallback = object.__new__(with_base(cls, *_bases()))
        return made

    def __init__(self, name: str = "lightning", *, unit: str = "sample", log: bool = True) -> None:
        self.name, self.unit, self.log = name, unit, log
        self._running = Running()
        self._early = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (getattr(type(self), "written_as", type(self)), self.name, self.unit, self.log)

    def start(self, kind: str) -> None:
        """Open the span of a call (``fit``, ``validate``, ``test``, ``predict``) before Lightning gets to the callback."""
        self.close()
        self._running = Running()
        self._running.enter(kind, f"{self.name}.{kind}", unit=self.unit)
        self._early = True

    # --- what Lightning calls ----------------------------------------------------------------------------------------------

    @harmless
    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the span of ``fit``."""
        self._begin("fit")

    @harmless
    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the span of ``fit``."""
        self.close()

    @harmless
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the span of an epoch."""
        self._running.leave("epoch")
        attributes = {"epoch": trainer.current_epoch + 1}
        self._running.enter("epoch", f"{self.name}.epoch", unit=self.unit, attributes=attributes)

    @harmless
    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Open a step and count its samples."""
        self._running.leave("step")
        self._running.enter("step", f"{self.name}.step", unit=self.unit, span=False)
        samples = size_of(batch)
        for kind in ("fit", "epoch", "step"):
            self._running.add_units(kind, samples)

    @harmless
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Close a step."""
        self._running.leave("step")

    @harmless
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the span of an epoch and log what it cost."""
        region = self._running.leave("epoch")
        if not self.log:
            return
        values = scalars(self._running.result(region), unit=self.unit)
        if values:
            pl_module.log_dict(values, on_step=False, on_epoch=True, batch_size=1)

    @harmless
    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the span of a validation; inside ``fit`` it belongs to the epoch."""
        self._begin("validate")

    @harmless
    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Count the samples of a batch."""
        self._running.add_units("validate", size_of(batch))

    @harmless
    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the span of a validation."""
        self._running.leave("validate")

    @harmless
    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the span of a test."""
        self._begin("test")

    @harmless
    def on_test_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count the samples of a batch."""
        self._running.add_units("test", size_of(batch))

    @harmless
    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the span of a test."""
        self._running.leave("test")

    @harmless
    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the span of a prediction."""
        self._begin("predict")

    @harmless
    def on_predict_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count the samples of a batch."""
        self._running.add_units("predict", size_of(batch))

    @harmless
    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the span of a prediction."""
        self._running.leave("predict")

    @harmless
    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close all spans with what was raised."""
        self.close(exception)

    def _begin(self, kind: str) -> None:
        if kind == "validate" and "fit" in self._running:
            self._running.enter(kind, f"{self.name}.{kind}", unit=self.unit)
            return
        if not self._early or kind not in self._running:
            self.start(kind)
        self._early = False


def _again(cls: type[ImpactCallback], name: str, unit: str, log: bool) -> ImpactCallback:
    return cls(name, unit=unit, log=log)


# --- without a change of the code --------------------------------------------------------------------------------------------


def instrument(patches: Patches, trainer: Any) -> None:
    """Have ``fit``, ``validate``, ``test`` and ``predict`` of a ``Trainer`` class measured."""
    for kind in ("fit", "validate", "test", "predict"):
        patches.wrap(trainer, kind, _begins(kind))


def _begins(kind: str) -> Any:
    def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        callbacks: list[Any] = args[0].callbacks
        mine, added = ours_in(callbacks, ImpactCallback)
        mine.start(kind)

        def finish(_result: Any, error: BaseException | None) -> None:
            mine.close(error)
            if added:  # of the list as it is now: Lightning may have made another one
                args[0].callbacks = [item for item in args[0].callbacks if item is not mine]

        return Call(args, kwargs, finish)

    return begin
