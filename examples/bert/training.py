"""The two phases that change weights: masked language modelling and fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras
from transformers import BertTokenizerFast

from impactsdk import measured

from .arguments import Options
from .checkpoint import ModelError
from .model import Arrays
from .progress import bar, say
from .record import TRACING, Record

MASKED_SHARE = 0.15  # Devlin et al. (2019), arXiv:1810.04805, section 3.1, as are the 80/10/10 below


def batches(arrays: Arrays, size: int, *, order_seed: int | None = None) -> tf.data.Dataset:
    """Batches of a dict of arrays, in random order if there is a seed for it; the last one may be short."""
    dataset = tf.data.Dataset.from_tensor_slices(arrays)
    if order_seed is not None:
        dataset = dataset.shuffle(len(arrays["input_ids"]), seed=order_seed)
    options = tf.data.Options()
    # With autotuning on, dropping an iterator sometimes blocks for 8 to 19 s, which would be measured as part of the epoch.
    options.autotune.enabled = False
    return dataset.batch(size).with_options(options)


def masked(arrays: Arrays, tokenizer: BertTokenizerFast, *, seed: int) -> Arrays:
    """Hide 15 % of the tokens: 80 % of them behind [MASK], 10 % behind a random token, 10 % left as they are."""
    chance = np.random.default_rng(seed)
    ids = arrays["input_ids"]
    ordinary = ~np.isin(ids, tokenizer.all_special_ids)
    chosen = ordinary & (chance.random(ids.shape) < MASKED_SHARE)
    kind = chance.random(ids.shape)
    hidden = np.where(chosen & (kind < 0.8), tokenizer.mask_token_id, ids)
    hidden = np.where(chosen & (kind >= 0.9), chance.integers(0, len(tokenizer), ids.shape), hidden)
    return {
        "input_ids": hidden.astype(np.int32),
        "attention_mask": arrays["attention_mask"],
        "labels": ids,
        "weights": chosen.astype(np.float32),
    }


class Schedule(tf_keras.optimizers.schedules.LearningRateSchedule):
    """Up to ``peak`` over the first tenth of the steps, then straight down towards zero.

    At a constant rate, a small BERT from scratch may stay at chance to the end.
    """

    def __init__(self, peak: float, *, steps: int) -> None:
        self._peak, self._steps = peak, steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The learning rate of a step."""
        # In the middle of the step: at its beginning the rate of the first is zero, at its end that of the last.
        done = (tf.cast(step, tf.float32) + 0.5) / self._steps
        return self._peak * tf.maximum(tf.minimum(done / 0.1, (1.0 - done) / 0.9), 0.0)

    def get_config(self) -> dict[str, float]:
        """What it was made from."""
        return {"peak": self._peak, "steps": self._steps}


class Trainer:
    """Adam on the weighted mean of a cross-entropy, as one graph.

    Args:
        model: Its output has ``logits``; their last axis are the classes.
        learning_rate: Of Adam at its highest.
        steps: In all epochs together.
        length: Tokens per sentence.
        per_token: Whether labels and weights belong to tokens (masked language modelling) or to sentences.
    """

    def __init__(self, model: tf_keras.Model, *, learning_rate: float, steps: int, length: int, per_token: bool) -> None:
        optimizer = tf_keras.optimizers.Adam(Schedule(learning_rate, steps=steps))
        optimizer.build(model.trainable_variables)
        # The number of sentences is left open: the last batch of an epoch is shorter and must not be traced again.
        target = (None, length) if per_token else (None,)
        self._optimizer = optimizer
        self._signature = {
            "input_ids": tf.TensorSpec((None, length), tf.int32),
            "attention_mask": tf.TensorSpec((None, length), tf.int32),
            "labels": tf.TensorSpec(target, tf.int32),
            "weights": tf.TensorSpec(target, tf.float32),
        }

        @tf.function(input_signature=[self._signature])
        def step(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            with tf.GradientTape() as tape:
                logits = model(inputs, training=True).logits
                # Of the logits, and a mean: taken for probabilities they give no gradient, and a sum grows with the batch.
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=batch["labels"], logits=logits)
                weight = tf.reduce_sum(batch["weights"])
                loss = tf.math.divide_no_nan(tf.reduce_sum(losses * batch["weights"]), weight)
            variables = model.trainable_variables
            gradients = tape.gradient(loss, variables)
            # The pooler of a masked language model takes no part and has no gradient.
            optimizer.apply_gradients((g, v) for g, v in zip(gradients, variables, strict=True) if g is not None)
            return loss, weight

        self.step = step

    def trace(self, size: int) -> None:
        """Build and optimise the graph, without learning: a batch whose weights are zero has no gradient."""
        self.step({name: tf.zeros([size, *spec.shape[1:]], spec.dtype) for name, spec in self._signature.items()})
        self._optimizer.iterations.assign(0)

    def epoch(self, arrays: Arrays, *, phase: str, epoch: int, epochs: int, options: Options, record: Record) -> float | None:
        """Run one epoch in a span of its own and return its mean loss, ``None`` where there was nothing to learn from.

        Raises:
            ModelError: At the first step whose loss is not finite, for the later ones are for nothing.
        """
        loss = weight = 0.0
        steps = math.ceil(len(arrays["input_ids"]) / options.batch_size)
        with record.block(phase, f"bert.{phase}.epoch", attributes={"epoch": epoch}) as span:
            dataset = batches(arrays, options.batch_size, order_seed=options.seed + epoch)
            for batch in bar(dataset, total=steps, label=f"{phase} {epoch}/{epochs}"):
                # A span for each of a thousand steps would drown the trace; totals and the histogram hold them all.
                with measured(f"bert.{phase}.step", span=False, unit="sentence") as region:
                    # Reading the loss waits for the device: a step's joules then lie within the step on a GPU too.
                    step_loss, step_weight = (float(value) for value in self.step(batch))
                    if not math.isfinite(step_loss):
                        record.results[phase] = f"loss {step_loss}"
                        raise ModelError(
                            f"{phase} epoch {epoch}/{epochs}: expected a finite loss, found {step_loss}: the weights are "
                            "broken, or training has diverged, for which a smaller --learning-rate may help"
                        )
                    loss += step_loss * step_weight
                    weight += step_weight
                    region.add_units(len(batch["input_ids"]))
                span.add_units(len(batch["input_ids"]))
        return loss / weight if weight else None


def pretrain(
    model: tf_keras.Model,
    tokenizer: BertTokenizerFast,
    arrays: Arrays,
    *,
    options: Options,
    learning_rate: float,
    record: Record,
) -> None:
    """Teach the encoder to guess hidden tokens, with other tokens hidden in every epoch."""
    length = arrays["input_ids"].shape[1]
    with measured("bert.pretrain"):
        steps = options.pretrain_epochs * math.ceil(len(arrays["input_ids"]) / options.batch_size)
        trainer = Trainer(model, learning_rate=learning_rate, steps=steps, length=length, per_token=True)
        with record.block(TRACING, "bert.pretrain.trace"):
            trainer.trace(min(options.batch_size, len(arrays["input_ids"])))
        for epoch in range(1, options.pretrain_epochs + 1):
            loss = trainer.epoch(
                masked(arrays, tokenizer, seed=options.seed + epoch),
                phase="pretrain",
                epoch=epoch,
                epochs=options.pretrain_epochs,
                options=options,
                record=record,
            )
            record.results["pretrain"] = _perplexity(loss)
            say(f"pretrain epoch {epoch}/{options.pretrain_epochs}  {_loss(loss)}  {record.results['pretrain']}")


def finetune(
    model: tf_keras.Model,
    arrays: Arrays,
    *,
    options: Options,
    learning_rate: float,
    record: Record,
    after_epoch: Callable[[int], str],
) -> None:
    """Teach the classifier the labels; ``after_epoch`` may evaluate it and says what it found."""
    length = arrays["input_ids"].shape[1]
    arrays = {**arrays, "weights": np.ones(len(arrays["labels"]), np.float32)}
    with measured("bert.finetune"):
        steps = options.epochs * math.ceil(len(arrays["input_ids"]) / options.batch_size)
        trainer = Trainer(model, learning_rate=learning_rate, steps=steps, length=length, per_token=False)
        with record.block(TRACING, "bert.finetune.trace"):
            trainer.trace(min(options.batch_size, len(arrays["input_ids"])))
        for epoch in range(1, options.epochs + 1):
            loss = trainer.epoch(
                arrays,
                phase="finetune",
                epoch=epoch,
                epochs=options.epochs,
                options=options,
                record=record,
            )
            record.results["finetune"] = _loss(loss)
            say(f"finetune epoch {epoch}/{options.epochs}  {_loss(loss)}{after_epoch(epoch)}")


def _loss(loss: float | None) -> str:
    return "loss unknown" if loss is None else f"loss {loss:.4f}"


def _perplexity(loss: float | None) -> str:
    if loss is None:
        return "perplexity unknown: no token was masked, for the sentences have too few words that the vocabulary knows"
    if loss > 700.0:  # beyond what a float can hold
        return "perplexity over 1e300"
    perplexity = math.exp(loss)
    return f"perplexity {perplexity:.1f}" if perplexity < 1e6 else f"perplexity {perplexity:.2g}"
