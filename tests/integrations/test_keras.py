"""The Keras callback: on a stand-in for its logic, and on Keras 3 and tf_keras where they are installed."""

from __future__ import annotations

import copy
import gc
import math
import pickle
from pathlib import Path
from typing import Any

import pytest

import impactsdk
from impactsdk.integrations.keras import ImpactCallback
from impactsdk.integrations.running import harmless
from impactsdk.testing import capture
from tests.integrations.frameworks import needs, stand_in
from tests.kit import conserved, script


class Rows(list):  # type: ignore[type-arg]
    """Samples with a shape, as arrays have it."""

    @property
    def shape(self) -> tuple[int]:
        return (len(self),)

    def __getitem__(self, at: Any) -> Any:
        return Rows(list.__getitem__(self, at)) if isinstance(at, slice) else list.__getitem__(self, at)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in(monkeypatch, "tf_keras").Model()


def rows(count: int) -> Rows:
    return Rows(range(count))


def test_fit_and_epochs_have_spans_and_steps_only_totals(model: Any) -> None:
    with capture() as measurements:
        model.fit(rows(100), epochs=3, batch_size=16, callbacks=[ImpactCallback()])
        assert [each.units for each in measurements.named("keras.epoch")] == [100, 100, 100]
        assert [each.units for each in measurements.named("keras.fit")] == [300]
        totals = measurements.meter.totals()
        assert totals.operations["keras.step"].count == 21
        conserved(totals)


def test_an_epoch_holds_its_steps_and_its_validation(model: Any) -> None:
    with capture() as measurements:
        model.fit(rows(64), batch_size=16, validation_data=rows(10), callbacks=[ImpactCallback()])
        epoch, fit = measurements.named("keras.epoch")[0], measurements.named("keras.fit")[0]
        validation = measurements.named("keras.evaluate")[0]
        steps = measurements.meter.totals().operations["keras.step"]
        assert validation.units == 10
        assert epoch.units == 64, "the validation resets what counts the samples"
        parts = math.fsum([epoch.self_energy_j or 0, validation.self_energy_j or 0, steps.energy_j or 0])
        assert epoch.energy_j == pytest.approx(parts, rel=1e-9)
        assert fit.energy_j == pytest.approx(parts + (fit.self_energy_j or 0), rel=1e-9)


def test_the_logs_get_energy_per_epoch_and_per_sample(model: Any) -> None:
    with capture() as measurements:
        history = model.fit(rows(50), epochs=2, batch_size=16, callbacks=[ImpactCallback()])
        epochs = measurements.named("keras.epoch")
        assert history["impact/energy_j"] == [each.energy_j for each in epochs]
        assert history["impact/joules_per_sample"] == [(each.energy_j or 0) / 50 for each in epochs]
        assert len(history["impact/carbon_g"]) == 2


def test_the_logs_are_left_alone_if_told_so(model: Any) -> None:
    with capture():
        assert set(model.fit(rows(50), callbacks=[ImpactCallback(log=False)])) == {"loss"}


def test_what_is_unknown_is_no_number_and_keeps_the_lists_aligned(model: Any) -> None:
    with capture(sources=[]):
        history = model.fit(rows(50), epochs=2, callbacks=[ImpactCallback()])
    assert [math.isnan(value) for value in history["impact/energy_j"]] == [True, True]
    assert set(history) == {"loss", "impact/energy_j"}


def test_other_callbacks_see_the_scalars_wherever_ours_stands(model: Any) -> None:
    seen: list[str] = []

    class Logger:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.extend(logs)

    with capture():
        model.fit(rows(50), callbacks=[Logger(), ImpactCallback()])
    assert "impact/energy_j" in seen


def test_steps_count_samples_when_the_batch_size_is_known(model: Any) -> None:
    with capture() as measurements:
        model.fit(rows(100), epochs=2, batch_size=16, callbacks=[ImpactCallback(batch_size=16)])
        measurements.meter.flush()
        assert measurements.meter.totals().operations["keras.step"].units == 200, "the last batch is short"


def test_samples_of_a_training_step_of_the_users_own_stay_unknown(model: Any) -> None:
    class Own(type(model)):  # type: ignore[misc]
        def train_step(self, data: object) -> None:
            self.metrics[0].count += 1

    with capture() as measurements:
        Own().fit(rows(100), callbacks=[ImpactCallback()])
        assert measurements.named("keras.epoch")[0].units is None


def test_where_the_samples_of_one_epoch_are_unknown_those_of_fit_are(model: Any) -> None:
    class Sometimes(type(model)):  # type: ignore[misc]
        epochs = 0

        def train_step(self, data: object) -> None:
            self.epochs += 1
            self.metrics[0].count = None if self.epochs == 2 else 10.0

    Sometimes.train_step.__module__ = "tf_keras"
    with capture() as measurements:
        Sometimes().fit(rows(10), epochs=3, callbacks=[ImpactCallback()])
        assert [each.units for each in measurements.named("keras.epoch")] == [10, None, 10]
        assert [each.units for each in measurements.named("keras.fit")] == [None]


def test_evaluate_and_predict_have_spans(model: Any) -> None:
    with capture() as measurements:
        callback = ImpactCallback("bench", unit="row")
        model.evaluate(rows(40), callbacks=[callback])
        model.predict(rows(70), callbacks=[callback])
        assert [(each.name, each.units, each.unit) for each in measurements] == [
            ("bench.evaluate", 40, "row"),
            ("bench.predict", 70, "row"),
        ]


def test_a_training_that_raises_leaves_no_open_region(model: Any) -> None:
    model.fails_at = 2
    with capture() as measurements:
        callback = ImpactCallback()
        with pytest.raises(ArithmeticError):
            model.fit(rows(100), callbacks=[callback])
        gc.collect()
        assert impactsdk.current() is None
        model.fails_at = None
        model.fit(rows(100), callbacks=[callback])
        assert [each.units for each in measurements.named("keras.fit")] == [None, 100]
        conserved(measurements.meter.totals())


def test_a_traceback_that_is_kept_is_no_reason_to_measure_on(model: Any) -> None:
    model.fails_at = 2
    with capture() as measurements:
        callback = ImpactCallback()
        with pytest.raises(ArithmeticError) as kept, callback:
            model.fit(rows(100), callbacks=[callback])
        assert impactsdk.current() is None
        model.fails_at = None
        model.fit(rows(100), callbacks=[callback])
        del kept
        gc.collect()
        assert len(measurements.named("keras.fit")) == 2


def test_a_dead_training_is_closed_by_the_next(model: Any) -> None:
    model.fails_at = 2
    with capture() as measurements:
        callback = ImpactCallback()
        try:
            model.fit(rows(100), callbacks=[callback])
        except ArithmeticError as error:
            kept = error
        assert impactsdk.current() is not None
        model.evaluate(rows(10), callbacks=[callback])
        assert impactsdk.current() is None
        assert [each.name for each in measurements][-1] == "keras.evaluate"
        assert kept.args


class Theirs:
    """Somebody else's callback, which does something at one hook."""

    hook: str
    model: Any = None

    def __getattr__(self, name: str) -> Any:
        return self.act if name == self.hook else lambda *_: None

    def set_model(self, model: Any) -> None:
        self.model = model

    def act(self, at: int, _: object) -> None:
        raise NotImplementedError


class Evaluates(Theirs):
    """It evaluates with ours, after an epoch or in the middle of one."""

    def __init__(self, shared: ImpactCallback, hook: str, samples: int = 40, model: Any = None) -> None:
        self.shared, self.hook, self.samples, self.other = shared, hook, samples, model

    def act(self, at: int, _: object) -> None:
        if self.hook == "on_epoch_end" or at == 3:
            (self.other or self.model).evaluate(rows(self.samples), callbacks=[self.shared])
            (self.other or self.model).predict(rows(3), callbacks=[self.shared])


@pytest.mark.parametrize("log", [True, False])  # ours is called before the other callback, or after it
@pytest.mark.parametrize("hook", ["on_epoch_end", "on_train_batch_end"])
@pytest.mark.parametrize("other", [True, False])
def test_an_evaluation_with_the_same_callback_inside_of_fit_is_inside_its_span(
    model: Any, log: bool, hook: str, other: bool
) -> None:
    with capture() as measurements:
        shared = ImpactCallback(log=log, batch_size=16)
        evaluates = Evaluates(shared, hook, model=type(model)() if other else None)
        model.fit(rows(100), epochs=2, batch_size=16, callbacks=[evaluates, shared])
        assert [each.units for each in measurements.named("keras.epoch")] == [100, 100]
        assert [each.units for each in measurements.named("keras.evaluate")] == [40, 40]
        assert [each.units for each in measurements.named("keras.predict")] == [3, 3]
        (fit,) = measurements.named("keras.fit")
        assert fit.units == 200
        assert measurements[-1] is fit
        totals = measurements.meter.totals()
        assert totals.operations["keras.step"].units == 200
        assert fit.energy_j == pytest.approx(math.fsum(each.energy_j or 0.0 for each in totals.operations.values()))
        conserved(totals)


def test_an_evaluation_that_raises_inside_of_fit_leaves_the_samples_unknown(model: Any) -> None:
    class Catches(Evaluates):
        def act(self, at: int, _: object) -> None:
            if at == 3:
                with pytest.raises(TypeError):
                    self.model.evaluate(3, callbacks=[self.shared])

    with capture() as measurements:
        shared = ImpactCallback()
        model.fit(rows(200), epochs=2, batch_size=16, callbacks=[Catches(shared, "on_train_batch_end"), shared])
        assert [each.units for each in measurements.named("keras.epoch")] == [None, None]
        assert len(measurements.named("keras.fit")) == 1
        conserved(measurements.meter.totals())


class Disturbs(Theirs):
    """It changes what the metrics count, and knows nothing of ours."""

    def __init__(self, hook: str, how: str) -> None:
        self.hook, self.how = hook, how

    def act(self, at: int, _: object) -> None:
        if self.how == "evaluates":
            self.model.evaluate(rows(500 if at else 5))
        elif self.how == "resets":
            self.model.metrics[0].count = 0.0
        else:
            self.model.train_step(rows(3))


@pytest.mark.parametrize("how", ["evaluates", "resets", "trains more"])
@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_train_batch_end", "on_epoch_end"])
@pytest.mark.parametrize("batch_size", [16, None])
def test_what_other_callbacks_evaluate_or_reset_meanwhile_is_not_in_the_units(
    model: Any, how: str, hook: str, batch_size: int | None
) -> None:
    with capture() as measurements:
        ours = ImpactCallback(log=False, batch_size=batch_size)
        history = model.fit(rows(100), epochs=2, batch_size=16, validation_data=rows(10), callbacks=[Disturbs(hook, how), ours])
        assert set(history) == {"loss"}
        assert [each.units for each in measurements.named("keras.epoch")] == [100, 100]
        assert [each.units for each in measurements.named("keras.fit")] == [200]
        assert measurements.meter.totals().operations["keras.step"].units == (200 if batch_size else None)


def test_a_count_that_somebody_has_reset_out_of_our_sight_is_unknown(model: Any) -> None:
    class Resets(type(model)):  # type: ignore[misc]
        def train_step(self, data: object) -> None:
            super().train_step(data)
            if len(data) < 16:  # type: ignore[arg-type]
                self.metrics[0].count = 5.0

    Resets.train_step.__module__ = "tf_keras"
    with capture() as measurements:
        Resets().fit(rows(100), batch_size=16, callbacks=[ImpactCallback(batch_size=16)])
        assert [each.units for each in measurements.named("keras.epoch")] == [None]


def test_a_count_that_somebody_resets_after_a_step_has_begun_is_unknown(model: Any) -> None:
    with capture() as measurements:
        others = [Disturbs("on_train_batch_begin", "resets"), Evaluates(ours := ImpactCallback(), "on_train_batch_end")]
        model.fit(rows(100), batch_size=16, validation_data=rows(10), callbacks=[*others, ours])
        assert [each.units for each in measurements.named("keras.epoch")] == [None]


def test_a_model_is_asked_for_its_metrics_once_and_not_at_each_step(model: Any) -> None:
    class Deep(type(model)):  # type: ignore[misc]
        asked = 0

        @property
        def metrics(self) -> Any:
            Deep.asked += 1
            return vars(self)["metrics"]

        @metrics.setter
        def metrics(self, metrics: Any) -> None:
            vars(self)["metrics"] = metrics

        def train_step(self, data: object) -> None:
            vars(self)["metrics"][0].count += len(data)  # type: ignore[arg-type]

    Deep.train_step.__module__ = "tf_keras"
    with capture() as measurements:
        others = Disturbs("on_train_batch_end", "nothing")
        others.disturb = lambda *_: None  # type: ignore[method-assign]
        Deep().fit(rows(100), batch_size=4, callbacks=[ImpactCallback(), others])
        assert [each.units for each in measurements.named("keras.epoch")] == [100]
    assert Deep.asked <= 3, "by fit itself twice"


def test_keras_is_not_asked_to_wait_for_the_device_after_each_step() -> None:
    assert ImpactCallback().on_train_batch_end._is_default  # type: ignore[attr-defined]


def test_what_fails_in_ours_is_told_once_of_each_kind(caplog: pytest.LogCaptureFixture) -> None:
    @harmless
    def hook(error: Exception) -> None:
        raise error

    for error in (TypeError("a"), OSError("b"), TypeError("c")):
        hook(error)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [TypeError, OSError]
    caplog.clear()


def test_what_fails_in_ours_does_not_reach_the_training(
    model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("ours")

    with capture():
        monkeypatch.setattr("impactsdk.integrations.running.measured", fail)
        history = model.fit(rows(50), epochs=2, callbacks=[ImpactCallback()])
    assert history["loss"] == [1.0, 1.0]
    assert "failed and is left out" in caplog.text
    caplog.clear()


def test_it_can_be_copied_and_pickled() -> None:
    callback = ImpactCallback("a", unit="b", log=False, batch_size=3)
    for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert (twin.name, twin.unit, twin.log, twin.batch_size) == ("a", "b", False, 3)


REAL = """
import os, sys
os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_USE_LEGACY_KERAS="1" if {package!r} == "tf_keras" else "0")
import importlib, gc, numpy as np
keras = importlib.import_module({package!r})
import impactsdk
from impactsdk.integrations.keras import ImpactCallback
from impactsdk.testing import capture
x = np.random.default_rng(0).random((90, 4)).astype("float32"); y = (x[:, 0] > 0.5).astype("int32")
def new():
    model = keras.Sequential([keras.layers.Dense(8, activation="relu"), keras.layers.Dense(2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model
class Boom(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise ArithmeticError("boom")
with capture() as got:
    model = new()
    ours = [ImpactCallback(batch_size=16)]
    history = model.fit(x, y, epochs=2, batch_size=16, validation_split=0.2, verbose=0, callbacks=ours)
    model.evaluate(x, y, verbose=0, callbacks=[ImpactCallback()])
    model.predict(x, verbose=0, callbacks=[ImpactCallback()])
    print([(each.name, each.units) for each in got if each.name != "keras.step"])
    totals = got.meter.totals()
    step = totals.operations["keras.step"]
    print(step.count, step.units, sorted(name for name in history.history if "impact" in name))
    whole = sum(each.energy_j for each in totals.operations.values())
    print(abs(whole - totals.attributed_j) < 1e-6, all(len(v) == 2 for v in history.history.values()))
    try:
        new().fit(x, y, verbose=0, callbacks=[ImpactCallback(), Boom()])
    except ArithmeticError:
        pass
    gc.collect()
    print(impactsdk.current())
"""


@pytest.mark.bert
@needs("tensorflow", "tf_keras", "keras")
@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_it_works_in_the_real_keras(package: str, tmp_path: Path) -> None:
    output, errors = script(REAL.format(package=package), tmp_path, timeout_s=170)
    spans = [
        ("keras.evaluate", 18.0),
        ("keras.epoch", 72.0),
        ("keras.evaluate", 18.0),
        ("keras.epoch", 72.0),
        ("keras.fit", 144.0),
        ("keras.evaluate", 90.0),
        ("keras.predict", 90.0),
    ]
    assert output.splitlines() == [
        str(spans),
        "10 144.0 ['impact/carbon_g', 'impact/energy_j', 'impact/joules_per_sample']",
        "True True",
        "None",
    ]
    assert "failed and is left out" not in errors
