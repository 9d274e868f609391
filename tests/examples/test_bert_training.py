"""Parts of the workload that need TensorFlow, without a run."""

from __future__ import annotations

import importlib.util
import math

import pytest

pytestmark = [
    pytest.mark.bert,
    pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs impactsdk[bert]"),
]


@pytest.mark.parametrize("steps", [1, 2, 9, 1000])
def test_every_step_learns_the_first_and_the_last_too(inside, steps):
    rates = inside(f"""
from examples.bert.training import Schedule
answer = [float(Schedule(1.0, steps={steps})(step)) for step in range({steps})]
""")
    peak = rates.index(max(rates))
    assert all(0 < rate <= 1 for rate in rates)
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)
    assert max(rates) > 0.99 or steps < 1000


def test_a_checkpoint_with_an_empty_vocabulary_or_labels_without_numbers_is_refused_with_a_sentence(inside, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert", "id2label": {"a": "good", "b": "bad"}}')
    (tmp_path / "vocab.txt").touch()
    refusals = inside(f"""
from examples.bert import model
from examples.bert.checkpoint import ModelError
answer = []
for action in (model.load_tokenizer, lambda source: model.labels_of(source, ("0", "1"))):
    try:
        action({str(tmp_path)!r})
    except ModelError as error:
        answer.append(str(error))
""")
    assert "the tokenizer cannot be loaded: WordPiece error: Missing [UNK] token" in refusals[0]
    assert "the configuration cannot be loaded: invalid literal for int() with base 10: 'a'" in refusals[1]


@pytest.mark.parametrize("missing", ["cls", "sep", "pad", "mask"])
def test_a_tokenizer_without_a_token_that_is_needed_is_refused_with_a_sentence(inside, tmp_path, missing):
    told, told_where_words_are_hidden = inside(f"""
import json
from pathlib import Path
from examples.bert import model
from examples.bert.checkpoint import ModelError
model.train_tokenizer(["a fine film"] * 9).save_pretrained({str(tmp_path)!r})
for name in ("tokenizer_config.json", "special_tokens_map.json"):
    path = Path({str(tmp_path)!r}, name)
    path.write_text(json.dumps(json.loads(path.read_text()) | {{"{missing}_token": None}}))
answer = []
for hides in (False, True):
    try:
        answer.append(model.load_tokenizer({str(tmp_path)!r}, hides=hides) and "")
    except ModelError as error:
        answer.append(str(error))
""")
    assert told_where_words_are_hidden.endswith(
        f"expected a tokenizer with a token for cls, sep, pad, mask, found none for {missing}"
    )
    assert told.endswith(f"found none for {missing}") or (missing, told) == ("mask", "")


RUN = """
import contextlib, io
from examples.bert import model, workload
from examples.bert.arguments import Options
from examples.bert.data import Dataset, Row
from examples.bert.record import Record

train = tuple(Row("a fine film", str(n % 2), n) for n in range(4))
test = (Row("a fine film " * 10, "0", 1), Row("a fine film " * 60, "1", 2))
data = Dataset(train, train, test, ("0", "1"))

def told(source=None, max_length=None):
    options = Options(phases=("infer",), max_length=max_length)
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        try:
            workload.run(options, data, source, record=Record())
        except model.ModelError as error:
            return str(error)
    return stderr.getvalue()
"""


def test_the_length_is_that_of_the_longest_sentence_of_all_and_what_is_cut_is_said(inside):
    told = inside(f"{RUN}\nanswer = told()")
    assert "128 tokens per sentence" in told
    assert "note: 1 of 10 sentences have more than 128 tokens and are cut there (--max-length)" in told


def test_a_checkpoint_of_few_positions_is_run_at_its_length_and_refused_a_longer_one(inside, tmp_path):
    told, refusal = inside(f"""{RUN}
tokenizer = model.train_tokenizer(["a fine film"] * 9)
config = model.configuration("tiny", vocabulary=len(tokenizer), length=8)
config.max_position_embeddings = 12
model.save(model.classifier(source=None, config=config, labels=("0", "1")), tokenizer, {str(tmp_path)!r})
answer = told({str(tmp_path)!r}), told({str(tmp_path)!r}, max_length=13)
""")
    assert "12 tokens per sentence" in told
    assert "note: 2 of 10 sentences have more than 12 tokens and are cut there (--max-length)" in told
    assert refusal == "--max-length 13: expected at most 12 with this model"


# A model of one table: from a token to the logits of what it stands for.
TABLE = """
from types import SimpleNamespace
import tensorflow as tf
from examples.bert import inference, model, training
from examples.bert.arguments import Options
from examples.bert.checkpoint import ModelError
from examples.bert.record import Record

class Table:
    def __init__(self, fill, shape):
        self.table = tf.Variable(tf.fill(shape, fill))
        self.trainable_variables = [self.table]
    def __call__(self, inputs, training):
        return SimpleNamespace(logits=tf.gather(self.table, inputs["input_ids"]))

def refusal(action):
    try:
        action()
    except ModelError as error:
        return str(error)

record = Record()
def pretrain(sentences, fill=0.0):
    tokenizer = model.train_tokenizer(["a fine film"] * 9)
    arrays = model.encode(tokenizer, sentences, length=8)
    table = Table(fill, (len(tokenizer), len(tokenizer)))
    training.pretrain(
        table, tokenizer, arrays, options=Options(pretrain_epochs=1), learning_rate=1e-3, record=record
    )
"""


def test_where_no_token_was_masked_the_perplexity_is_unknown_and_the_table_says_why(inside):
    assert inside(f"{TABLE}\npretrain(['股市大涨'] * 9); answer = record.results['pretrain']") == (
        "perplexity unknown: no token was masked, for the sentences have too few words that the vocabulary knows"
    )
    assert "unknown" not in inside(f"{TABLE}\npretrain(['a fine film'] * 9); answer = record.results['pretrain']")


@pytest.mark.parametrize(
    ("loss", "shown"), [(0.0, "1.0"), (3.0, "20.1"), (60.0, "1.1e+26"), (701.0, "over 1e300"), (1e6, "over 1e300")]
)
def test_the_perplexity_of_a_loss_has_no_upper_limit(inside, loss, shown):
    assert inside(f"from examples.bert.training import _perplexity; answer = _perplexity({loss})") == f"perplexity {shown}"


def test_training_stops_at_a_loss_that_is_not_a_number(inside):
    why, result = inside(f"""{TABLE}
why = refusal(lambda: pretrain(['a fine film'] * 9, fill=float('nan')))
answer = why, record.results["pretrain"]
""")
    assert why.startswith("pretrain epoch 1/1: expected a finite loss, found nan: ")
    assert result == "loss nan"


@pytest.mark.parametrize("fill", [0.0, math.nan])
def test_what_is_not_a_number_is_never_taken_for_the_first_label(inside, fill):
    evaluation, inference = inside(f"""{TABLE}
tokenizer = model.train_tokenizer(["a fine film"] * 9)
table = Table(float("{fill}"), (len(tokenizer), 2))
predictor = inference.Predictor(
    lambda batch, training: SimpleNamespace(logits=tf.reduce_mean(table(batch, training).logits, axis=1)), length=8
)
sentences = ["a fine film"] * 3
arrays = model.encode(tokenizer, sentences, length=8)
common = dict(batch_size=2, record=record)
answer = (
    refusal(lambda: inference.evaluate(predictor, arrays, split="test", **common)),
    refusal(lambda: inference.infer(predictor, tokenizer, sentences, labels=("0", "1"), length=8, **common)),
)
""")
    for why in (evaluation, inference):
        assert (why is not None and "expected probabilities, found what is not a number" in why) == math.isnan(fill)
