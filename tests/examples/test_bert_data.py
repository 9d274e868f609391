from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from examples.bert.data import DataError, load, read

HEADER = "sentence\tlabel\n"


@pytest.fixture
def write(tmp_path: Path):
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def problem(path: Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **options)
    return str(caught.value)


def test_a_table_is_read_with_its_line_numbers(write):
    rows = read(write("train.tsv", HEADER + "a fine film\t1\nno\t0\n"))
    assert [(row.sentence, row.label, row.line) for row in rows] == [("a fine film", "1", 2), ("no", "0", 3)]


def test_a_quotation_mark_is_a_character_like_any_other(write):
    rows = read(write("train.tsv", HEADER + '" a fine film\t1\nhe said " no\t0\n"all"\t1\n'))
    assert [row.sentence for row in rows] == ['" a fine film', 'he said " no', '"all"']


@pytest.mark.parametrize(
    "content", ["\ufeffsentence\tlabel\nyes\t1\n", "sentence\tlabel\r\nyes\t1\r\n", "label\tsentence\n1\tyes\n"]
)
def test_a_byte_order_mark_windows_line_ends_and_the_order_of_columns_do_not_matter(write, content):
    assert [(row.sentence, row.label) for row in read(write("train.tsv", content))] == [("yes", "1")]


def test_other_columns_of_glue_are_ignored_and_blank_lines_skipped(write):
    rows = read(write("dev.tsv", "index\tsentence\tlabel\n0\tyes\t1\n\n1\tno\t0\n"))
    assert [(row.label, row.line) for row in rows] == [("1", 2), ("0", 4)]


def test_a_separator_of_unicode_does_not_end_a_line(write):
    assert read(write("train.tsv", HEADER + "one\u2028line\x85still\t1\n"))[0].sentence == "one\u2028line\x85still"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a header with the columns sentence<TAB>label, found an empty file"),
        (HEADER, "expected at least one sentence, found none"),
        ("a fine film\t1\n", ":1: expected a header with the columns sentence<TAB>label, found 'a fine film', '1'"),
        ("text\tlabel\nyes\t1\n", ":1: expected a header"),
        ("sentence\tscore\nyes\t1\n", ":1: expected a header with the columns sentence<TAB>label, found 'sentence', 'score'"),
        ("\n\n\ntext\tlabel\nyes\t1\n", ":4: expected a header"),
        (HEADER + "yes\t1\nno\n", ":3: expected 2 columns as in the header, found 1"),
        (HEADER + "yes\t1\tmaybe\n", ":2: expected 2 columns as in the header, found 3"),
        (HEADER + "yes\t1\n \t0\n", ":3: expected a text in 'sentence', found ' '"),
        (HEADER + "yes\t1\n\t0\n", ":3: expected a text in 'sentence', found nothing"),
        (HEADER + "yes\t\n", ":2: expected a whole number or a name in 'label', found nothing"),
        (HEADER.encode() + b"yes\t1\nno\xff\t0\n", ":3: expected UTF-8, found the byte 0xff"),
    ],
)
def test_a_bad_table_is_refused_with_its_line_and_what_was_expected(write, content, message):
    path = write("train.tsv", content)
    assert problem(path).startswith(str(path))
    assert message in problem(path)


def test_json_lines_may_have_names_or_numbers_for_labels_and_more_keys(write):
    path = write(
        "train.json",
        '{"sentence": "股市大涨", "label": "104", "label_desc": "news_finance"}\n\n{"sentence": "no", "label": 3}\n',
    )
    assert [(row.sentence, row.label, row.line) for row in read(path)] == [("股市大涨", "104", 1), ("no", "3", 3)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"sentence": "no", ', ":2: expected one JSON object per line"),
        ('["no", 0]', ":2: expected a JSON object, found list"),
        (
            '{"sentence1": "a", "sentence2": "b", "label": 0}',
            ":2: expected a text in 'sentence', found only 'sentence1', 'sentence2'",
        ),
        ('{"sentence": 7, "label": 0}', ":2: expected a text in 'sentence', found 7"),
        ('{"sentence": "no", "label": true}', ":2: expected a whole number or a name in 'label', found True"),
        ('{"sentence": "no", "label": 0.5}', ":2: expected a whole number or a name in 'label', found 0.5"),
        ('{"sentence": "no"}', ":2: expected a whole number or a name in 'label', found nothing"),
    ],
)
def test_bad_json_lines_are_refused_with_their_line_and_what_was_expected(write, line, message):
    assert message in problem(write("train.jsonl", '{"sentence": "yes", "label": 1}\n' + line + "\n"))


def test_a_test_file_may_keep_its_labels_to_itself_but_not_some_of_them(write):
    assert [row.label for row in read(write("test.tsv", "index\tsentence\n0\tyes\n1\tno\n"), labelled=False)] == [None, None]
    path = write("test.json", '{"sentence": "yes", "label": 1}\n{"sentence": "no"}\n')
    assert ":2: expected a label as in the other lines" in problem(path, labelled=False)


def test_a_folder_is_read_split_by_split(write, tmp_path):
    write("train.tsv", HEADER + "yes\t1\nno\t0\n")
    write("dev.tsv", HEADER + "well\t0\n")
    write("test.tsv", "index\tsentence\n0\tperhaps\n")
    data = load([tmp_path])
    assert (len(data.train), len(data.dev), len(data.test)) == (2, 1, 1)
    assert data.labels == ("0", "1")
    assert data.ids(data.train) == [1, 0]
    assert "has no labels" in data.notes[0]


def test_minus_one_for_every_test_label_means_that_they_are_hidden(write, tmp_path):
    write("train.tsv", HEADER + "yes\t1\nno\t0\n")
    write("dev.tsv", HEADER + "well\t0\n")
    write("test.tsv", HEADER + "perhaps\t-1\n")
    assert load([tmp_path]).test[0].label is None


def test_missing_splits_are_cut_from_training_and_that_is_said(write):
    path = write("reviews.tsv", HEADER + "".join(f"sentence {n}\t{n % 2}\n" for n in range(40)))
    data, again, other = load([path]), load([path]), load([path], seed=1)
    assert (len(data.train), len(data.dev), len(data.test)) == (32, 4, 4)
    assert not {row.line for row in data.train} & {row.line for row in data.dev + data.test}
    assert data == again != other
    assert len(data.notes) == 2


def test_ten_rows_are_enough_to_cut_both_splits_from_and_nine_are_not(write):
    rows = [f"sentence {n}\t{n % 2}\n" for n in range(10)]
    data = load([write("ten.tsv", HEADER + "".join(rows))])
    assert (len(data.train), len(data.dev), len(data.test)) == (8, 1, 1)
    with pytest.raises(
        DataError, match="expected at least 10 different sentences, to cut a tenth for each missing file, found 9"
    ):
        load([write("nine.tsv", HEADER + "".join(rows[:9]))])


def test_labels_of_one_value_have_one_order_whatever_their_hashes_are(write):
    ones = ["1".zfill(width) for width in range(1, 9)]
    table = HEADER + "".join(f"s{n}\t{label}\n" for n, label in enumerate(["2", "0", *ones] * 3))
    assert load([write("train.tsv", table)]).labels == ("0", *sorted(ones), "2")


def test_a_long_sentence_is_read_from_a_table_as_from_json(write):
    sentence = "word " * 40_000
    for path in (write("a.tsv", f"{HEADER}{sentence}\t1\n"), write("a.json", f'{{"sentence": "{sentence}", "label": 1}}')):
        assert read(path)[0].sentence == sentence


def test_labels_are_ordered_as_numbers_where_they_are_numbers_and_else_as_words(write):
    numbers = "".join(f'{{"sentence": "s{n}", "label": "{label}"}}\n' for n, label in enumerate((10, 9, 100) * 10))
    assert load([write("tnews.json", numbers)]).labels == ("9", "10", "100")
    words = "".join(f'{{"sentence": "s{n}", "label": "{label}"}}\n' for n, label in enumerate(("sport", "art") * 10))
    assert load([write("news.json", words)]).labels == ("art", "sport")


def test_files_are_told_apart_by_their_names(write):
    paths = [write("train.json", '{"sentence": "a", "label": 0}\n{"sentence": "b", "label": 1}\n') for _ in "1"]
    paths += [write(f"sst-{split}.tsv", HEADER + "c\t1\n") for split in ("test", "valid")]
    data = load(paths)
    assert [row.sentence for row in data.dev + data.test] == ["c", "c"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train.tsv", "more.tsv"), "expected train, dev or test in the name of one file among several"),
        (("dev.tsv", "test.tsv"), "expected a train file beside it, found only dev, test"),
        (("train.tsv", "training.tsv"), "expected one file for train, found train.tsv too"),
    ],
)
def test_files_that_do_not_make_a_data_set_are_refused(write, names, message):
    with pytest.raises(DataError, match=message):
        load([write(name, HEADER + "yes\t1\nno\t0\n") for name in names])


def test_an_empty_folder_a_missing_file_one_label_and_an_unknown_label_are_refused(write, tmp_path):
    with pytest.raises(DataError, match=r"expected train\.tsv or train\.json"):
        load([tmp_path])
    with pytest.raises(DataError, match="expected a readable file: No such file"):
        load([tmp_path / "nothing.tsv"])
    with pytest.raises(DataError, match="at least two different labels, found only '1'"):
        load([write("one.tsv", HEADER + "yes\t1\n" * 30)])
    with pytest.raises(DataError, match="at least 10 different sentences, to cut a tenth for each missing file, found 2"):
        load([write("few.tsv", HEADER + "yes\t1\nno\t0\n")])
    train, dev, test = (
        write("train.tsv", HEADER + "yes\t1\nno\t0\n"),
        write("dev.tsv", HEADER + "so\t2\n"),
        write("test.tsv", HEADER + "a\t1\n"),
    )
    with pytest.raises(DataError, match=r"dev.tsv:2: expected a label that occurs in training \('0', '1'\), found '2'"):
        load([train, dev, test])


def test_a_folder_that_may_not_be_read_and_a_name_that_is_too_long_are_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"expected a readable file.*: File name too long"):
        load([tmp_path / ("x" * 300)])

    def refuse(folder: Path) -> None:  # a superuser, as tests may be run by, may read every folder
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    with monkeypatch.context() as patch, pytest.raises(DataError, match=r"expected a readable file.*: Permission denied"):
        patch.setattr(Path, "iterdir", refuse)
        load([tmp_path])


def test_a_limit_takes_the_first_rows_of_each_file(write):
    path = write("train.tsv", HEADER + "yes\t1\nno\t0\nnever read\n")
    assert [row.sentence for row in read(path, limit=2)] == ["yes", "no"]


def test_a_sentence_that_is_there_several_times_is_cut_with_all_its_rows(write):
    rows = [f"sentence {n % 60}\t{n % 2}\n" for n in range(240)]
    for seed in range(5):
        data = load([write("reviews.tsv", HEADER + "".join(rows))], seed=seed)
        sentences = [{row.sentence for row in split} for split in (data.train, data.dev, data.test)]
        assert [len(each) for each in sentences] == [48, 6, 6]
        assert len(set.union(*sentences)) == 60, "no sentence is in two of them"
        assert (len(data.train), len(data.dev), len(data.test)) == (192, 24, 24)


def test_a_sentence_with_several_labels_leaves_each_of_them_in_training(write):
    doubtful = "".join(f"well\t{label}\n" for label in "abcd")
    path = write("train.tsv", HEADER + doubtful + "".join(f"s{n}\t{'ab'[n % 2]}\n" for n in range(20)))
    for seed in range(20):
        assert load([path], seed=seed).labels == ("a", "b", "c", "d")
        assert "well" in {row.sentence for row in load([path], seed=seed).train}


def test_too_few_labels_or_sentences_within_the_limit_are_said_to_be_so_for_it(write):
    path = write("train.tsv", HEADER + "".join(f"s{n}\t{int(n >= 100)}\n" for n in range(200)))
    with pytest.raises(DataError, match=r"two different labels in the first 100 rows \(--limit\), found only '0'"):
        load([path], limit=100)
    mixed = write("mixed.tsv", HEADER + "".join(f"s{n}\t{n % 2}\n" for n in range(200)))
    with pytest.raises(DataError, match=r"10 different sentences in the first 9 rows \(--limit\), to cut .* found 9"):
        load([mixed], limit=9)


def test_a_file_whose_labels_all_occur_once_cannot_be_cut(tmp_path):
    (tmp_path / "train.tsv").write_text(HEADER + "".join(f"s{n}\t{n}\n" for n in range(20)))
    with pytest.raises(DataError, match="expected labels of several sentences each, to cut"):
        load([tmp_path])


def test_what_is_cut_leaves_each_label_in_training(tmp_path):
    labels = ["a"] * 15 + ["b"] * 3 + ["c", "d"]
    (tmp_path / "train.tsv").write_text(HEADER + "".join(f"s{n}\t{label}\n" for n, label in enumerate(labels)))
    for seed in range(20):
        assert set(load([tmp_path], seed=seed).labels) == {"a", "b", "c", "d"}
