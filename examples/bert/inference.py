"""The two phases that only read weights: evaluation against known labels, and inference from text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from sklearn.metrics import classification_report
from transformers import BertTokenizerFast

from impactsdk import measured

from .checkpoint import ModelError
from .model import Arrays, encode
from .record import TRACING, Record


class Predictor:
    """Class probabilities from token ids, as one graph without dropout."""

    def __init__(self, model: tf_keras.Model, *, length: int) -> None:
        self._length = length
        spec = tf.TensorSpec((None, length), tf.int32)

        @tf.function(input_signature=[{"input_ids": spec, "attention_mask": spec}])
        def probabilities(batch: dict[str, tf.Tensor]) -> tf.Tensor:
            return tf.nn.softmax(model(batch, training=False).logits)

        self._probabilities = probabilities

    def __call__(self, batch: Arrays) -> np.ndarray:
        """Probabilities of a batch, shape (sentences, classes).

        Raises:
            ModelError: If one is not a number: the largest of such is always the first, which would pass for an answer.
        """
        found: np.ndarray = self._probabilities(batch).numpy()
        if not np.isfinite(found).all():
            raise ModelError(
                "expected probabilities, found what is not a number: the model's weights are broken, or training has diverged, "
                "for which a smaller --learning-rate may help"
            )
        return found

    def trace(self, size: int, *, record: Record) -> None:
        """Build and optimise the graph."""
        with record.block(TRACING, "bert.predict.trace"):
            zeros = tf.zeros((size, self._length), tf.int32)
            self._probabilities({"input_ids": zeros, "attention_mask": zeros})


def evaluate(
    predictor: Predictor,
    arrays: Arrays,
    *,
    split: str,
    batch_size: int,
    record: Record,
    epoch: int | None = None,
) -> np.ndarray:
    """Predict the labels of encoded sentences, as numbers; shape (sentences,)."""
    attributes = {"split": split} if epoch is None else {"split": split, "epoch": epoch}
    with record.block("evaluate", "bert.evaluate", attributes=attributes) as span:
        guesses = []
        for start in range(0, len(arrays["input_ids"]), batch_size):  # by slices, as inference goes through its sentences
            with measured("bert.evaluate.step", span=False, unit="sentence") as region:
                batch = {name: arrays[name][start : start + batch_size] for name in ("input_ids", "attention_mask")}
                guesses.append(predictor(batch).argmax(axis=1))
                region.add_units(len(guesses[-1]))
            span.add_units(len(guesses[-1]))
    return np.concatenate(guesses)


@measured("bert.report")
def compare(guesses: np.ndarray, known: np.ndarray, *, labels: Sequence[str], text: bool = False) -> Any:
    """scikit-learn's classification report, as a mapping or as a text to print.

    Not a part of ``evaluate``: its joules hardly depend on how many sentences there are, and those of a sentence are what is
    compared with inference.
    """
    # Every label is named, for a small file may not show all; a label that is never guessed has precision 0.
    form: dict[str, Any] = {"digits": 3} if text else {"output_dict": True}
    names = {"labels": range(len(labels)), "target_names": list(labels)}
    return classification_report(known, guesses, zero_division=0, **names, **form)


def infer(
    predictor: Predictor,
    tokenizer: BertTokenizerFast,
    sentences: Sequence[str],
    *,
    labels: Sequence[str],
    length: int,
    batch_size: int,
    record: Record,
) -> list[tuple[str, float]]:
    """Label sentences as a service would, from text to the label with its probability, batch by batch."""
    answers: list[tuple[str, float]] = []
    with record.block("infer", "bert.infer") as span:
        for start in range(0, len(sentences), batch_size):
            with measured("bert.infer.step", span=False, unit="sentence") as region:
                texts = sentences[start : start + batch_size]
                probabilities = predictor(encode(tokenizer, texts, length=length))
                answers += [(labels[row.argmax()], float(row.max())) for row in probabilities]
                region.add_units(len(texts))
            span.add_units(len(texts))
    return answers
