"""The Trainer callback: on a stand-in for its logic, and on transformers with PyTorch where they are installed."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import pytest

import impactsdk
from impactsdk.integrations.transformers import ImpactCallback
from impactsdk.testing import capture
from tests.integrations.frameworks import needs, stand_in
from tests.kit import conserved, script


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in(monkeypatch, "transformers.trainer").Trainer


def test_the_training_and_its_epochs_have_spans(trainer: Any) -> None:
    with capture() as measurements:
        trainer(range(50), callbacks=[ImpactCallback()]).train()
        assert [(each.name, each.units) for each in measurements if each.name != "trainer.step"] == [
            ("trainer.epoch", 50),
            ("trainer.epoch", 50),
            ("trainer.train", 100),
        ]
        totals = measurements.meter.totals()
        assert (totals.operations["trainer.step"].count, totals.operations["trainer.step"].units) == (14, 100)
        conserved(totals)


def test_accumulated_batches_count(trainer: Any) -> None:
    with capture() as measurements:
        trainer(range(50), callbacks=[ImpactCallback()], accumulate=2).train()
        assert measurements.named("trainer.train")[0].units == 100
        assert measurements.meter.totals().operations["trainer.step"].count == 8


@pytest.mark.parametrize(
    ("done", "ignores", "units"), [(4, True, 50), (6, False, 2), (3, False, 26), (7, False, 50), (13, False, 2)]
)
def test_a_resumed_epoch_counts_what_is_left_of_it(trainer: Any, done: int, ignores: bool, units: int) -> None:
    with capture() as measurements:
        run = trainer(range(50), callbacks=[ImpactCallback()])
        run.args.ignore_data_skip = ignores
        run.train(resume_from_checkpoint=done)
        assert measurements.named("trainer.epoch")[0].units == units


def test_tokens_are_counted_if_the_trainer_counts_them(trainer: Any) -> None:
    with capture() as measurements:
        trainer(range(50), callbacks=[ImpactCallback(unit="token")], tokens=96).train()
        assert (measurements.named("trainer.train")[0].units, measurements[0].unit) == (14 * 96, "token")
    with capture() as measurements:
        trainer(range(50), callbacks=[ImpactCallback(unit="token")]).train()
        assert measurements.named("trainer.train")[0].units is None


def test_the_reporters_get_the_energy_so_far_wherever_they_stand(trainer: Any) -> None:
    seen: list[dict[str, float]] = []

    class Reporter:
        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: None

        def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
            seen.append(dict(logs))

    with capture() as measurements:
        run = trainer(range(50), range(9), callbacks=[Reporter(), ImpactCallback()])
        run.train()
        steps = measurements.meter.totals().operations["trainer.step"].energy_j or 0.0
    *_, last = seen
    assert last["impact/energy_j"] == pytest.approx(steps, rel=1e-9), "the log at the end has all"
    assert run.state.log_history[-1]["impact/energy_j"] == last["impact/energy_j"]
    assert not any("impact/energy_j" in logs for logs in seen if "eval_loss" in logs)
    assert math.isfinite(last["impact/carbon_g"])


def test_a_training_that_raises_leaves_no_open_region_after_the_block(trainer: Any) -> None:
    with capture() as measurements:
        with pytest.raises(ArithmeticError), ImpactCallback() as callback:
            run = trainer(range(50), callbacks=[callback])
            run.fails_at = 3
            run.train()
        assert impactsdk.current() is None
        run.fails_at = 1
        with pytest.raises(ArithmeticError):
            run.train()
        run.fails_at = None
        run.train()  # what the one before left open is closed here
        assert impactsdk.current() is None
        assert [each.units for each in measurements.named("trainer.train")] == [24, 8, 100]
        conserved(measurements.meter.totals())


def test_what_fails_in_ours_does_not_reach_the_training(
    trainer: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("ours")

    with capture():
        monkeypatch.setattr("impactsdk.integrations.running.measured", fail)
        assert trainer(range(50), callbacks=[ImpactCallback()]).train() == "trained"
    caplog.clear()


def test_it_is_a_callback_of_the_framework_and_can_be_copied(trainer: Any) -> None:
    import transformers

    callback = ImpactCallback("a", unit="token", log=False)
    assert isinstance(callback, transformers.TrainerCallback)
    for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert (twin.name, twin.unit, twin.log) == ("a", "token", False)
        assert isinstance(twin, ImpactCallback)


def test_without_transformers_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ImportError, match="pip install transformers"):
        ImpactCallback()


REAL = """
import tempfile, torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
import impactsdk
from impactsdk.integrations.transformers import ImpactCallback
from impactsdk.testing import capture
class Data(torch.utils.data.Dataset):
    def __len__(self): return 50
    def __getitem__(self, index):
        ids = torch.arange(12) + index
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor(index % 2)}
config = BertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
with capture() as got:
    arguments = TrainingArguments(tempfile.mkdtemp(), num_train_epochs=2, per_device_train_batch_size=8, logging_steps=3,
        gradient_accumulation_steps=2, report_to=[], disable_tqdm=True, save_strategy="no", use_cpu=True)
    trainer = Trainer(BertForSequenceClassification(config), arguments, train_dataset=Data(), callbacks=[ImpactCallback()])
    trainer.train()
    print([(each.name, each.units) for each in got if each.name != "trainer.step"])
    step = got.meter.totals().operations["trainer.step"]
    print(step.count, step.units, abs(trainer.state.log_history[-1]["impact/energy_j"] - step.energy_j) < 1e-6)
    print(impactsdk.current())
"""


@needs("torch", "transformers", "accelerate")
def test_it_works_in_the_real_trainer(tmp_path: Path) -> None:
    output, errors = script(REAL, tmp_path, timeout_s=170, HF_HUB_OFFLINE="1")
    assert [line for line in output.splitlines() if not line.startswith("{'")] == [
        "[('trainer.epoch', 50.0), ('trainer.epoch', 50.0), ('trainer.train', 100.0)]",
        "8 100.0 True",
        "None",
    ]
    assert "failed and is left out" not in errors
