"""The run: prepare sentences and models once, then the phases that were asked for, in their order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tf_keras

from impactsdk import measured

from . import inference, model, training
from .arguments import Options
from .checkpoint import ModelError
from .data import Dataset, Row
from .progress import say
from .record import Record
from .report import shown

FROM_SCRATCH, FROM_CHECKPOINT = 5e-4, 3e-5  # learning rates


def run(options: Options, data: Dataset, source: str | None, *, record: Record) -> None:
    """Run the phases; what they cost and achieved goes to ``record``, reports and examples to stdout.

    Args:
        options: The command line.
        data: The sentences.
        source: A folder or hub id of a checkpoint; ``None``: a model from scratch.
        record: Filled as the run proceeds.
    """
    tf_keras.utils.set_random_seed(options.seed)
    tokenizer = (
        model.load_tokenizer(source, hides="pretrain" in options.phases)
        if source
        else model.train_tokenizer([row.sentence for row in data.train])
    )
    counts = model.token_counts(tokenizer, [row.sentence for row in data.train + data.dev + data.test])
    length = options.max_length or model.longest(counts)
    config = None if source else model.configuration(options.size, vocabulary=len(tokenizer), length=length)
    if source:
        data = dataclasses.replace(data, labels=model.labels_of(source, data.labels))
    rate = options.learning_rate or (FROM_CHECKPOINT if source else FROM_SCRATCH)
    classifier = model.classifier(source=source, config=config, labels=data.labels)
    if len(tokenizer) > classifier.config.vocab_size:
        raise ModelError(
            f"{source}: expected a tokenizer of at most {classifier.config.vocab_size} tokens, as the weights have, found "
            f"{len(tokenizer)}"
        )
    positions = classifier.config.max_position_embeddings
    if options.max_length and length > positions:
        raise ModelError(f"--max-length {length}: expected at most {positions} with this model")
    length = min(length, positions)
    origin = source or f"{options.size} from scratch"
    say(f"model: {origin}, {classifier.count_params():,} parameters, {length} tokens per sentence")
    say(f"data: {len(data.train)}/{len(data.dev)}/{len(data.test)} sentences, {len(data.labels)} labels")

    if cut := sum(count > length for count in counts):
        say(f"note: {cut:,} of {len(counts):,} sentences have more than {length} tokens and are cut there (--max-length)")

    @measured("bert.encode", unit="sentence", count=lambda arrays: len(arrays["input_ids"]))
    def encoded(rows: Sequence[Row]) -> model.Arrays:
        arrays = model.encode(tokenizer, [row.sentence for row in rows], length=length)
        labels = data.ids(rows)
        return {**arrays, "labels": np.array(labels, np.int32)} if labels else arrays

    train = encoded(data.train) if {"pretrain", "finetune"} & set(options.phases) else {}
    if "pretrain" in options.phases:
        teacher = model.masked_language_model(source=source, config=config)
        training.pretrain(teacher, tokenizer, train, options=options, learning_rate=rate, record=record)
        model.take_over(teacher, classifier)
        del teacher

    predictor = inference.Predictor(classifier, length=length)
    if {"evaluate", "infer"} & set(options.phases):
        predictor.trace(min(options.batch_size, len(data.test)), record=record)

    dev = encoded(data.dev) if "evaluate" in options.phases else {}

    def evaluated(split: str, arrays: model.Arrays, epoch: int | None = None) -> np.ndarray:
        try:
            found = inference.evaluate(
                predictor, arrays, split=split, batch_size=options.batch_size, record=record, epoch=epoch
            )
        except ModelError:
            record.results["evaluate"] = f"{split} accuracy unknown"
            raise
        record.results["evaluate"] = f"{split} accuracy {(found == arrays['labels']).mean():.3f}"
        return found

    def after_epoch(epoch: int) -> str:
        if not dev:
            return ""
        report = inference.compare(evaluated("dev", dev, epoch), dev["labels"], labels=data.labels)
        return f"  {record.results['evaluate']}  macro F1 {report['macro avg']['f1-score']:.3f}"

    if "finetune" in options.phases:
        training.finetune(classifier, train, options=options, learning_rate=rate, record=record, after_epoch=after_epoch)
    if options.save:  # what comes now only reads the weights, and prints
        try:
            model.save(classifier, tokenizer, options.save)
            say(f"saved the classifier in {options.save}")
        except ModelError as error:  # what it has learnt can still be told
            record.fail(str(error))
    if "evaluate" in options.phases:
        labelled = data.test[0].label is not None
        split = "test" if labelled else "dev"
        arrays = encoded(data.test) if labelled else dev
        report = inference.compare(evaluated(split, arrays), arrays["labels"], labels=data.labels, text=True)
        record.show(f"\nclassification report, {split}\n{report}")
    if "infer" in options.phases:
        texts = [row.sentence for row in data.test]
        answers = inference.infer(
            predictor, tokenizer, texts, labels=data.labels, length=length, batch_size=options.batch_size, record=record
        )
        record.show("inference, the first three sentences")
        for (label, probability), text in zip(answers[:3], texts, strict=False):
            record.show(f"  {label} ({probability:.2f})  {shown(text)}")
