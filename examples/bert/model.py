"""The tokenizer and the two models: a masked language model to pre-train, and the classifier that takes over its encoder."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras  # noqa: F401  # without it transformers fails with a sentence about Keras 3 instead of an ImportError
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertTokenizerFast, TFBertForMaskedLM, TFBertForSequenceClassification

from impactsdk import measured

from .checkpoint import ModelError
from .progress import say

# Layers, width, attention heads: the compact models of Turc et al. (2019), arXiv:1908.08962, and BERT-base.
SHAPES = {"tiny": (2, 128, 2), "mini": (4, 256, 4), "small": (4, 512, 8), "base": (12, 768, 12)}
VOCABULARY_SIZE = 8192
LONGEST = 128

Arrays = dict[str, np.ndarray]


@measured("bert.vocabulary")
def train_tokenizer(sentences: Sequence[str]) -> BertTokenizerFast:
    """Learn a WordPiece vocabulary from the sentences."""
    pieces = BertWordPieceTokenizer(lowercase=True)
    pieces.train_from_iterator(sentences, vocab_size=VOCABULARY_SIZE, min_frequency=2, show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        pieces.save_model(folder)
        return BertTokenizerFast(vocab_file=str(Path(folder) / "vocab.txt"), do_lower_case=True)


def load_tokenizer(source: str, *, hides: bool = False) -> BertTokenizerFast:
    """Read the tokenizer that belongs to a checkpoint.

    Raises:
        ModelError: It cannot be read, or has no token to begin, end or pad a sentence or, where pre-training ``hides`` words,
            none to stand for them.
    """
    try:
        tokenizer = BertTokenizerFast.from_pretrained(source)
        tokenizer("x" * 200)  # too long for a word: without a token for the unknown it fails here and not in the middle
    except Exception as error:
        raise ModelError(f"{source}: the tokenizer cannot be loaded: {_first_line(error)}") from error
    needed = ("cls", "sep", "pad", "mask") if hides else ("cls", "sep", "pad")
    if lacks := [name for name in needed if getattr(tokenizer, f"{name}_token_id") is None]:
        raise ModelError(
            f"{source}: expected a tokenizer with a token for {', '.join(needed)}, found none for {', '.join(lacks)}"
        )
    return tokenizer


def token_counts(tokenizer: BertTokenizerFast, sentences: Sequence[str]) -> list[int]:
    """How many tokens each sentence needs, markers included."""
    return [len(ids) for ids in tokenizer(list(sentences), verbose=False)["input_ids"]]


def longest(counts: Sequence[int]) -> int:
    """The most tokens that a sentence needs; at least 8 and at most ``LONGEST``."""
    return min(max(*counts, 8), LONGEST)


def encode(tokenizer: BertTokenizerFast, sentences: Sequence[str], *, length: int) -> Arrays:
    """Token ids and attention mask, shape (sentences, length), int32; longer sentences are cut, shorter ones padded."""
    found = tokenizer(list(sentences), padding="max_length", truncation=True, max_length=length, return_tensors="np")
    return {name: found[name].astype(np.int32) for name in ("input_ids", "attention_mask")}


def configuration(size: str, *, vocabulary: int, length: int) -> BertConfig:
    """The shape of a model from scratch."""
    layers, width, heads = SHAPES[size]
    return BertConfig(
        vocab_size=vocabulary,
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=max(length, LONGEST),
    )


@measured("bert.model")
def build(kind: Any, *, source: str | None, config: BertConfig | None, labels: Sequence[str] = ()) -> tf.keras.Model:
    """A model of ``kind``, from the checkpoint ``source`` or else from scratch with ``config``."""
    named: dict[str, Any] = {}
    if labels:
        numbers = {name: number for number, name in enumerate(labels)}
        named = {"num_labels": len(labels), "id2label": dict(enumerate(labels)), "label2id": numbers}
    if source is None:
        assert config is not None
        config.update(named)
        model = kind(config)
        model({"input_ids": tf.zeros((1, 8), tf.int32)})  # creates the weights
        return model
    try:
        # A head for another number of labels is replaced by a new one.
        model, told = kind.from_pretrained(source, ignore_mismatched_sizes=True, output_loading_info=True, **named)
    except Exception as error:
        raise ModelError(f"{source}: the weights cannot be loaded: {_first_line(error)}") from error
    # Of a tensor whose shape does not fit, transformers tells the name and both shapes.
    absent = [*told.get("missing_keys", ()), *(key[0] for key in told.get("mismatched_keys", ()))]
    encoder = [name for name in absent if "/encoder/" in f"/{name}".replace(".", "/") or "embeddings" in name]
    if encoder:
        raise ModelError(f"{source}: expected the weights of this BERT, found none that fit for {len(encoder)} of its tensors")
    if labels and any("classifier" in name for name in absent):
        say(f"note: {source} has no classifier for {len(labels)} labels: it begins at random")
    return model


def labels_of(source: str, labels: Sequence[str]) -> tuple[str, ...]:
    """The labels of the data in the order that a checkpoint has learnt them in, if it knows them by their names."""
    try:
        names = [str(name) for _, name in sorted(BertConfig.from_pretrained(source).id2label.items())]
    except Exception as error:
        raise ModelError(f"{source}: the configuration cannot be loaded: {_first_line(error)}") from error
    if set(names) == set(labels):
        return tuple(names)
    if len(names) == len(labels) and not all(name.startswith("LABEL_") for name in names):
        say(f"note: {source} knows the labels {', '.join(names)}, taken for {', '.join(labels)} in this order")
    return tuple(labels)


def masked_language_model(*, source: str | None, config: BertConfig | None) -> TFBertForMaskedLM:
    """The model to pre-train."""
    return build(TFBertForMaskedLM, source=source, config=config)


def classifier(*, source: str | None, config: BertConfig | None, labels: Sequence[str]) -> TFBertForSequenceClassification:
    """The model to fine-tune."""
    return build(TFBertForSequenceClassification, source=source, config=config, labels=labels)


def take_over(encoder: TFBertForMaskedLM, target: TFBertForSequenceClassification) -> None:
    """Copy embeddings and encoder; the pooler and the head stay as they are, for pre-training does not know them."""
    for part in ("embeddings", "encoder"):
        getattr(target.bert, part).set_weights(getattr(encoder.bert, part).get_weights())


def save(classifier: TFBertForSequenceClassification, tokenizer: BertTokenizerFast, folder: Path) -> None:
    """Write what ``--model`` reads."""
    try:
        classifier.save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
    except Exception as error:  # where the disk is full, safetensors has an error of its own
        raise ModelError(f"--save {folder}: the classifier cannot be saved: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
