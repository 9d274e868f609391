"""A callback for ``fit``, ``evaluate`` and ``predict`` of Keras 3 and tf_keras, and the patches that add it unasked."""

from __future__ import annotations

import inspect
import math
import weakref
from collections.abc import Callable
from typing import Any

from impactsdk.integrations.loggers import ENERGY, scalars
from impactsdk.integrations.patches import Call, Patches
from impactsdk.integrations.running import Closing, Running, calls, harmless, owner_of, put_first, size_of

__all__ = ["ImpactCallback", "instrument"]

_DEFAULT_BATCH = 32
"""Of both Keras, for arrays."""


def _nothing(*_args: object, **_kwargs: object) -> Any:
    """A hook that does nothing."""


# Keras 3 calls hooks of batches in another thread unless somebody overrides them; this is how it marks one that nobody did.
_nothing._is_default = True  # type: ignore[attr-defined]

_BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")


class ImpactCallback(Closing):
    """Joules on a span of ``fit`` and of each epoch, of ``evaluate`` and of ``predict``; steps go into the totals only.

    ``model.fit(x, y, callbacks=[ImpactCallback()])``, with Keras 3 and tf_keras alike: it is told apart from their callbacks
    by what it does and not by its class, as both may be loaded at once.

    The samples of an epoch are read from the mean of the loss, which counts them; where a model has a ``train_step`` of its
    own they are known only with ``batch_size``. The callback is called before the others, so that what those evaluate, reset
    or train in between is not taken for samples of the epoch; what they do in ``on_train_batch_begin`` is not seen, though, and
    the samples are then wrong. A step lasts from its begin to the next one's: a hook at its end would make Keras 3 wait for the
    device after each step.

    Another callback may hand the same object to ``evaluate`` or ``predict`` while ``fit`` runs with it: their spans are then
    inside that of ``fit``.

    When ``fit`` raises, Keras tells no callback. The regions are then left when Keras lets go of its list, at the callback's
    next use, at :meth:`close`, or at the end of ``with ImpactCallback() as callback:``, whichever comes first.

    Args:
        name: Of the operations: ``keras.fit``, ``keras.epoch``, ``keras.step``, ``keras.evaluate``, ``keras.predict``.
        unit: The functional unit that a sample is.
        log: Add ``impact/energy_j``, ``impact/joules_per_sample`` and ``impact/carbon_g`` of each epoch, its validation
            included, to its logs, so that the history, TensorBoard and others show them. An epoch then waits for its
            energy, an eighth of a second as a rule and a second at most.
        batch_size: Samples per step, to count those of single steps, too.
    """

    # What tf_keras asks of a callback besides the hooks.
    _supports_tf_logs = True  # else it would fetch the logs from the device after each batch
    _chief_worker_only = None

    def __init__(self, name: str = "keras", *, unit: str = "sample", log: bool = True, batch_size: int | None = None) -> None:
        self.name, self.unit, self.log, self.batch_size = name, unit, log, batch_size
        self.params: dict[str, Any] = {}
        self.model: Any = None
        self.validation_data = None
        self._running = Running()
        self._early = False
        self._owner: Callable[[], Any] = _nothing
        self._logged: set[str] = set()
        self._given: int | None = None
        self._of_fit: tuple[Any, dict[str, Any]] = (None, {})
        self._trained: float | None = None
        self._counted, self._step_at = 0.0, 0
        self._unseen: float | None = 0.0
        """The samples of this epoch that the metrics no longer show, less those of others that they do."""
        self._sound = True
        """Whether they were known before the evaluation that runs."""
        self._shown: float | None = None
        """What the metrics counted when last looked at, before the other callbacks had their turn; ``None``: not looked at."""
        self._watching = False
        self._loss: tuple[Any, Any] = (None, None)
        """The model that was asked last, and the metric of its loss: Keras goes through all layers to tell its metrics."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return _nothing
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.name, self.unit, self.log, self.batch_size)

    def start(self, kind: str) -> None:
        """Open the span of a call (``fit``, ``evaluate``, ``predict``) before Keras gets to the callback, to have all of it."""
        self.close()
        self._running, self._owner = Running(), _nothing
        self._running.enter(kind, f"{self.name}.{kind}", unit=self.unit)
        self._early = True

    # --- what Keras calls ------------------------------------------------------------------------------------------------

    def set_params(self, params: dict[str, Any] | None) -> None:
        """Take what Keras says of the run: ``epochs``, ``steps``, ``verbose``."""
        self.params = params or {}

    def set_model(self, model: Any) -> None:
        """Take the model."""
        self.model = model

    def _implements_train_batch_hooks(self) -> bool:
        return True

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return True

    @harmless
    def on_train_begin(self, logs: object = None) -> None:
        """Open the span of ``fit``."""
        self._begin("fit")
        self._logged.clear()
        self._of_fit = (self.model, self.params)

    @harmless
    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Open the span of an epoch."""
        for kind in ("epoch", "evaluate", "predict"):  # that raised, inside of a callback that went on
            self._running.leave(kind)
        self._running.enter("epoch", f"{self.name}.epoch", unit=self.unit, attributes={"epoch": epoch + 1})
        self._trained, self._counted, self._unseen, self._sound = None, 0.0, 0.0, True
        self._shown = 0.0  # Keras has just reset them

    @harmless
    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        """The step before this one ends here, and this one begins."""
        self._catch_up()
        size = self._batch_size()
        if size is not None and "step" in self._running and batch > self._step_at:
            samples = size * (batch - self._step_at)  # several if Keras takes several steps at once
            self._running.add_units("step", samples)
            self._counted += samples
        self._running.leave("step")
        self._running.enter("step", f"{self.name}.step", unit=self.unit, span=False)
        self._step_at = batch

    @harmless
    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Before the callbacks that may change them: note what the metrics count."""
        if self._watching:
            before, self._shown = self._shown, self._seen("train_step", self._of_fit[0])
            if before is not None and self._shown is not None and self._shown < before:
                self._unseen = None  # somebody reset them after this step's begin: how many were lost is not known

    on_train_batch_end._is_default = True  # type: ignore[attr-defined]  # of itself it is no reason to wait for the device

    @harmless
    def on_test_begin(self, logs: object = None) -> None:
        """Open the span of an evaluation; inside ``fit`` it belongs to the epoch, or to what comes between two."""
        if not self.inside_fit(owner_of(self)):
            self._begin("evaluate")
            return
        if "epoch" in self._running:
            self._end_steps()  # now: Keras is about to reset what counts the samples
            self._sound, self._unseen = self._unseen is not None, None
        self._running.enter("evaluate", f"{self.name}.evaluate", unit=self.unit)

    @harmless
    def on_test_end(self, logs: object = None) -> None:
        """Close the span of an evaluation."""
        try:
            alone = None if "fit" in self._running else self._given
            self._running.add_units("evaluate", self._seen("test_step", self.model) or alone)
        finally:
            self._running.leave("evaluate")
            self._back_to_fit()
        self._shown = self._seen("train_step", self.model)
        if self._sound:
            self._unseen = (self._trained or 0.0) - (self._shown or 0.0)

    @harmless
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Close the span of an epoch and add what it cost to the logs."""
        try:
            self._end_steps()
            self._running.add_units("epoch", self._trained)
            self._running.add_units("fit", self._trained)
        finally:
            region = self._running.leave("epoch")
        if not self.log or not isinstance(logs, dict):
            return
        values = scalars(self._running.result(region), unit=self.unit)
        self._logged |= {ENERGY, *values}
        # Keras keeps one list per name: a value that is unknown this time must not shift those of later epochs.
        logs.update({name: values.get(name, float("nan")) for name in sorted(self._logged)})

    @harmless
    def on_train_end(self, logs: object = None) -> None:
        """Close the span of ``fit``."""
        self.close()

    @harmless
    def on_predict_begin(self, logs: object = None) -> None:
        """Open the span of a prediction."""
        if self.inside_fit(owner_of(self)):
            self._running.enter("predict", f"{self.name}.predict", unit=self.unit)
        else:
            self._begin("predict")

    @harmless
    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the samples of a batch by what came out."""
        self._running.add_units("predict", size_of((logs or {}).get("outputs")))

    @harmless
    def on_predict_end(self, logs: object = None) -> None:
        """Close the span of a prediction."""
        self._running.leave("predict")
        self._back_to_fit()

    # --- how ---------------------------------------------------------------------------------------------------------------

    def inside_fit(self, owner: object) -> bool:
        """Whether what ``owner``, a list of callbacks, begins is inside of a ``fit`` that runs with this callback."""
        of_fit = self._owner()
        return "fit" in self._running and of_fit is not None and (owner is of_fit or calls(of_fit))

    def _back_to_fit(self) -> None:
        """What was inside of ``fit`` may have been of another model."""
        if "fit" in self._running:
            self.model, self.params = self._of_fit

    def _begin(self, kind: str) -> None:
        if not self._early or kind not in self._running:  # else what is open was left behind by a call that raised
            self.start(kind)
        self._early, self._loss = False, (None, None)  # it may have been compiled anew
        owner = owner_of(self)
        if owner is not None:
            self._owner = weakref.ref(owner)
            # Keras makes its list of callbacks for one call: when that has ended, by an exception too, nobody has it any more.
            weakref.finalize(owner, self._running.leave_all).atexit = False
            put_first(owner, self)
            others = [item for item in owner.callbacks if not isinstance(item, ImpactCallback)]
            # Where somebody has such a hook, Keras waits for the device anyway; in another thread it is too late to look.
            self._watching = not getattr(owner, "_async_train", False) and any(map(_has_batch_hooks, others))

    def _catch_up(self) -> None:
        """The other callbacks have had their turn: what the metrics count more or less since is none of the epoch's samples."""
        shown, self._shown = self._shown, None
        now = None if shown is None else self._seen("train_step", self._of_fit[0])
        if shown is not None and now is not None and self._unseen is not None:
            self._unseen += shown - now
        if self._watching:
            self._shown = now

    def _end_steps(self) -> None:
        self._catch_up()
        seen = self._seen("train_step", self._of_fit[0])
        if self._unseen is None:  # an evaluation was broken off: what the metrics show now is partly its own
            self._trained = None
        elif seen is not None:
            self._trained = (self._unseen + seen) or None
        if self._trained is not None and self._trained < self._counted:  # somebody has reset them, unseen by us
            self._trained = None
        if self._trained is None:
            self._trained = self._all_given()
        if "step" in self._running and self._trained is not None and self._batch_size() is not None:
            self._running.add_units("step", max(0.0, self._trained - self._counted))  # the last batch may be short
            self._counted = max(self._counted, self._trained)
        self._running.leave("step")

    def _batch_size(self) -> int | None:
        size = self.batch_size if self.batch_size is not None else self.params.get("batch_size")
        return int(size) if size else None

    def _all_given(self) -> float | None:
        """The samples that ``fit`` was given, if the step that ends now is the last that they make."""
        size = self._batch_size()
        if self._given is None or size is None or not 0 < self._given - self._counted <= size:
            return None
        return self._given

    def _seen(self, step: str, model: Any) -> float | None:
        """The samples since the metrics were reset: the weight of the loss's mean, if it is Keras itself that adds to it."""
        if not _of_keras(getattr(type(model), step, None)):
            return None
        getattr(model, "jax_state_sync", _nothing)()  # with jax they are elsewhere while it trains
        asked, loss = self._loss
        if asked is not model or loss is None:
            named = (metric for metric in getattr(model, "metrics", ()) if getattr(metric, "name", None) == "loss")
            loss = next((metric for metric in named if getattr(metric, "count", None) is not None), None)
            self._loss = (model, loss)
        count = getattr(loss, "count", None)
        return None if count is None else float(count)


def _of_keras(function: object) -> bool:
    return (getattr(function, "__module__", None) or "").partition(".")[0] in ("keras", "tf_keras")


def _has_batch_hooks(callback: object) -> bool:
    """Whether a callback that is not Keras' own does something between two steps."""
    hooks = (getattr(callback, name, None) for name in _BATCH_HOOKS)
    return any(hook is not None and not _of_keras(hook) for hook in hooks)


def _again(cls: type[ImpactCallback], name: str, unit: str, log: bool, batch_size: int | None) -> ImpactCallback:
    return cls(name, unit=unit, log=log, batch_size=batch_size)


# --- without a change of the code --------------------------------------------------------------------------------------------


def instrument(patches: Patches, model: Any) -> None:
    """Have ``fit``, ``evaluate`` and ``predict`` of a ``Model`` class measured."""
    for kind in ("fit", "evaluate", "predict"):
        patches.wrap(model, kind, _begins(kind, inspect.signature(getattr(model, kind))))


def _begins(kind: str, signature: inspect.Signature) -> Any:
    def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:  # Keras itself says what is wrong with the call
            return None
        given = bound.arguments.get("callbacks")
        # One that Keras has made is the user's, or that of the fit which this evaluation is part of.
        made: Any = getattr(given, "callbacks", None)
        listed = given if made is None else made
        callbacks = list(listed) if isinstance(listed, list | tuple) else [] if listed is None else [listed]
        callback = next((item for item in callbacks if isinstance(item, ImpactCallback)), None)
        if callback is not None and callback.inside_fit(given):
            return None  # it opens the span itself
        lent = callback is None and made is not None
        if callback is None:
            callback = ImpactCallback(log=False, batch_size=_batch_size(bound.arguments))
            callback._given = _samples(bound.arguments)
            callback.set_model(args[0])
            if lent:
                made.insert(0, callback)
            else:
                bound.arguments["callbacks"] = [callback, *callbacks]
        callback.start(kind)

        def finish(_result: Any, error: BaseException | None) -> None:
            callback.close(error)
            if lent:
                made.remove(callback)

        return Call(bound.args, bound.kwargs, finish)

    return begin


def _batch_size(arguments: dict[str, Any]) -> int | None:
    size = arguments.get("batch_size")
    if size is None and size_of(arguments.get("x")) is not None:
        return _DEFAULT_BATCH
    return int(size) if isinstance(size, int) else None


def _samples(arguments: dict[str, Any]) -> int | None:
    """How many samples of arrays one turn takes; ``None`` for a stream, or where the number of steps was set."""
    size = size_of(arguments.get("x"))
    if size is None or arguments.get("steps_per_epoch", arguments.get("steps")) is not None:
        return None
    return math.floor(size * (1.0 - (arguments.get("validation_split") or 0.0)))
