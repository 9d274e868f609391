"""One line for the Trainer of transformers: joules of each epoch on a span, and in its logs.

Run: ``python examples/trainer_callback.py`` with ``pip install transformers torch accelerate``. Nothing is downloaded.
"""

from __future__ import annotations

import tempfile

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from impactsdk.integrations.transformers import ImpactCallback


class Sentences(torch.utils.data.Dataset):
    """Random token ids; the label says whether the first is even."""

    def __init__(self, rows: int) -> None:
        self._ids = torch.randint(0, 100, (rows, 16), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = self._ids[index]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[0] % 2}


def main() -> None:
    """Train a very small BERT from scratch."""
    config = BertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=2,
            per_device_train_batch_size=16,
            logging_steps=10,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = Trainer(
            BertForSequenceClassification(config), arguments, train_dataset=Sentences(400), callbacks=[ImpactCallback()]
        )
        trainer.train()
    for entry in trainer.state.log_history:
        if "impact/energy_j" in entry:
            print(f"step {entry['step']}: {entry['impact/energy_j']:.2f} J so far")


if __name__ == "__main__":
    main()
