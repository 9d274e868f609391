"""The Lightning callback: on a stand-in for its logic, and on Lightning where it is installed."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

import impactsdk
from impactsdk.integrations.lightning import ImpactCallback
from impactsdk.testing import capture
from tests.integrations.frameworks import needs, stand_in
from tests.kit import conserved, script


class Batch:
    shape = (8, 4)


BATCHES = [{"x": [Batch()], "y": None}] * 3


@pytest.fixture
def lightning(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delitem(sys.modules, "pytorch_lightning", raising=False)
    return stand_in(monkeypatch, "lightning.pytorch")


def test_fit_epochs_and_validations_have_spans(lightning: Any) -> None:
    with capture() as measurements:
        lightning.Trainer([ImpactCallback()]).fit(lightning.Module(), BATCHES, BATCHES[:2])
        assert [(each.name, each.units) for each in measurements if each.name != "lightning.step"] == [
            ("lightning.validate", 8),
            ("lightning.validate", 16),
            ("lightning.epoch", 24),
            ("lightning.validate", 16),
            ("lightning.epoch", 24),
            ("lightning.fit", 48),
        ]
        totals = measurements.meter.totals()
        assert (totals.operations["lightning.step"].count, totals.operations["lightning.step"].units) == (6, 48)
        conserved(totals)


def test_each_epoch_is_logged_through_the_module(lightning: Any) -> None:
    with capture() as measurements:
        module = lightning.Module()
        lightning.Trainer([ImpactCallback()]).fit(module, BATCHES)
        epochs = measurements.named("lightning.epoch")
        assert [logs["impact/energy_j"] for logs in module.logged] == [each.energy_j for each in epochs]
        assert [logs["impact/joules_per_sample"] for logs in module.logged] == [(each.energy_j or 0) / 24 for each in epochs]
        lightning.Trainer([ImpactCallback(log=False)]).fit(module, BATCHES)
        assert len(module.logged) == 2


def test_validate_test_and_predict_have_spans(lightning: Any) -> None:
    with capture() as measurements:
        trainer = lightning.Trainer([ImpactCallback("l", unit="row")])
        for call in (trainer.validate, trainer.test, trainer.predict):
            call(lightning.Module(), BATCHES)
        named = [(each.name, each.units, each.unit) for each in measurements]
        assert named == [("l.validate", 24, "row"), ("l.test", 24, "row"), ("l.predict", 24, "row")]


def test_a_training_that_raises_leaves_no_open_region(lightning: Any) -> None:
    with capture() as measurements:
        with pytest.raises(ArithmeticError):
            lightning.Trainer([ImpactCallback()]).fit(lightning.Module(fails=True), BATCHES)
        assert impactsdk.current() is None
        assert len(measurements.named("lightning.fit")) == 1
        conserved(measurements.meter.totals())


def test_what_fails_in_ours_does_not_reach_the_training(
    lightning: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("ours")

    with capture():
        monkeypatch.setattr("impactsdk.integrations.running.measured", fail)
        lightning.Trainer([ImpactCallback()]).fit(lightning.Module(), BATCHES)
    caplog.clear()


def test_it_is_a_callback_of_the_framework_and_can_be_copied(lightning: Any) -> None:
    callback = ImpactCallback("a", log=False)
    assert isinstance(callback, lightning.Callback)
    for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert (twin.name, twin.log) == ("a", False)


def test_without_lightning_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impactsdk.integrations.lightning._PACKAGES", ("no_lightning_at_all",))
    with pytest.raises(ImportError, match="pip install lightning"):
        ImpactCallback()


REAL = """
import importlib, tempfile, torch
L = importlib.import_module({package!r})
import impactsdk
from impactsdk.integrations.lightning import ImpactCallback
from impactsdk.testing import capture
class Module(L.LightningModule):
    def __init__(self, fails=False):
        super().__init__()
        self.layer, self.fails = torch.nn.Linear(4, 2), fails
    def training_step(self, batch, index):
        if self.fails:
            raise ArithmeticError
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
    def validation_step(self, batch, index): ...
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 0.1)
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.rand(50, 4), torch.zeros(50).long()), batch_size=8)
quiet = dict(enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", logger=False,
    enable_checkpointing=False, num_sanity_val_steps=0, default_root_dir=tempfile.mkdtemp())
with capture() as got:
    trainer = L.Trainer(max_epochs=2, callbacks=[ImpactCallback()], **quiet)
    trainer.fit(Module(), data, data)
    print([(each.name, each.units) for each in got if each.name != "lightning.step"])
    print(sorted(trainer.callback_metrics))
    try:
        L.Trainer(max_epochs=1, callbacks=[ImpactCallback()], **quiet).fit(Module(True), data)
    except ArithmeticError:
        print(impactsdk.current())
"""


@needs("torch", "lightning")
@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_it_works_in_the_real_lightning(package: str, tmp_path: Path) -> None:
    output, errors = script(REAL.format(package=package), tmp_path, timeout_s=170)
    epoch = [("lightning.validate", 50.0), ("lightning.epoch", 50.0)]
    assert output.splitlines()[-3:] == [
        str([*epoch, *epoch, ("lightning.fit", 100.0)]),
        "['impact/carbon_g', 'impact/energy_j', 'impact/joules_per_sample']",
        "None",
    ]
    assert "failed and is left out" not in errors
