"""One line for Keras: joules of each epoch on a span, in the progress bar and in the history.

Run: ``python examples/keras_callback.py`` with Keras 3 or tf_keras (``pip install 'impactsdk[bert]'`` brings both).
"""

from __future__ import annotations

import importlib
import sys

import numpy as np

from impactsdk.integrations.keras import ImpactCallback


def main(package: str = "keras") -> None:
    """Train a small classifier on points; ``package`` is ``keras`` or ``tf_keras``."""
    keras = importlib.import_module(package)
    chance = np.random.default_rng(0)
    points = chance.normal(size=(2_000, 8)).astype("float32")
    labels = (points.sum(axis=1) > 0).astype("int32")
    model = keras.Sequential([keras.layers.Dense(32, activation="relu"), keras.layers.Dense(2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    history = model.fit(
        points, labels, epochs=3, batch_size=32, validation_split=0.2, verbose=0, callbacks=[ImpactCallback(batch_size=32)]
    ).history
    for epoch, accuracy in enumerate(history["val_accuracy"]):
        joules, each = history["impact/energy_j"][epoch], history.get("impact/joules_per_sample", [float("nan")] * 3)[epoch]
        print(f"epoch {epoch + 1}: accuracy {accuracy:.3f}, {joules:.2f} J, {each:.5f} J per sample")


if __name__ == "__main__":
    main(*sys.argv[1:2])
