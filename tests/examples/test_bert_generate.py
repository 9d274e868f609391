from __future__ import annotations

from collections import Counter

from examples.bert.data import load
from examples.bert.generate import FOLDER, SEED, generate, write


def test_the_shipped_files_are_what_the_generator_writes_byte_for_byte(tmp_path):
    write(tmp_path)
    for split in ("train", "dev", "test"):
        assert (tmp_path / f"{split}.tsv").read_bytes() == (FOLDER / f"{split}.tsv").read_bytes(), split


def test_another_seed_gives_other_sentences(tmp_path):
    assert generate(seed=SEED) == generate(seed=SEED) != generate(seed=SEED + 1)


def test_the_splits_have_the_promised_sizes_both_labels_equally_and_no_sentence_twice():
    splits = generate()
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 1200, "dev": 200, "test": 200}
    for rows in splits.values():
        counts = Counter(label for _, label in rows)
        assert counts[0] == counts[1]
    texts = [text for rows in splits.values() for text, _ in rows]
    assert len(set(texts)) == len(texts)


def test_the_shipped_files_load_without_a_note():
    data = load([FOLDER])
    assert (len(data.train), len(data.dev), len(data.test), data.labels, data.notes) == (1200, 200, 200, ("0", "1"), ())
