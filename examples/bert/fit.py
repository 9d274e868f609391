"""The same fine-tuning as plain Keras: ``compile``, ``fit``, ``evaluate``, and not a word about energy.

Run: ``python -m examples.bert.fit``. To have it measured without changing a line:
``opentelemetry-instrument python -m examples.bert.fit`` (``pip install 'impactsdk[instrument]'``).
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # the models of transformers are Keras 2 models
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tf_keras

from . import model
from .data import Row, load

DATA = Path(__file__).parent / "data"


def main(epochs: int = 3, limit: int | None = None) -> None:
    """Fine-tune a tiny BERT on the sentences that come with the example."""
    tf_keras.utils.set_random_seed(0)
    data = load([DATA], limit=limit)
    tokenizer = model.train_tokenizer([row.sentence for row in data.train])
    length = model.longest(model.token_counts(tokenizer, [row.sentence for row in data.train + data.test]))
    classifier = model.classifier(
        source=None, config=model.configuration("tiny", vocabulary=len(tokenizer), length=length), labels=data.labels
    )

    def arrays(rows: Sequence[Row]) -> tuple[model.Arrays, np.ndarray]:
        return model.encode(tokenizer, [row.sentence for row in rows], length=length), np.array(data.ids(rows), np.int32)

    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    classifier.compile(tf_keras.optimizers.Adam(5e-4), loss=loss, metrics=["accuracy"])
    classifier.fit(*arrays(data.train), batch_size=16, epochs=epochs, verbose=2)
    classifier.evaluate(*arrays(data.test), batch_size=16, verbose=2)


if __name__ == "__main__":
    main()
