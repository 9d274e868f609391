"""Sentences with labels, from SST-2/GLUE tables and from CLUE JSON lines."""

from __future__ import annotations

import io
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

SPLITS = ("train", "dev", "test")
_SUFFIXES = (".tsv", ".json", ".jsonl")
_WORDS = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "valid": "dev",
    "validation": "dev",
    "val": "dev",
    "test": "test",
}
_HIDDEN = "-1"  # what benchmarks write where they keep the label to themselves


class DataError(ValueError):
    """A file that cannot be used; the message says where, what was expected and what was found."""


@dataclass(frozen=True)
class Row:
    """One sentence; ``label`` is ``None`` where the file does not tell."""

    sentence: str
    label: str | None
    line: int


@dataclass(frozen=True)
class Dataset:
    """Three splits and the labels that occur in the first; ``notes`` tells what was decided for the user."""

    train: tuple[Row, ...]
    dev: tuple[Row, ...]
    test: tuple[Row, ...]
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def ids(self, rows: Sequence[Row]) -> list[int]:
        """The number of each row's label: its place in ``labels``."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        return [numbers[row.label] for row in rows if row.label is not None]


def load(paths: Sequence[Path], *, seed: int = 0, limit: int | None = None) -> Dataset:
    """Read one folder or up to three files.

    Args:
        paths: A folder that holds ``train``, ``dev`` and ``test`` as ``.tsv``, ``.json`` or ``.jsonl``, or these files. For a
            split that is missing, a tenth of the training sentences is cut off, each with all its rows.
        seed: Of the cut.
        limit: Read only so many rows of each file.

    Raises:
        DataError: With file and line, what was expected and what was found.
    """
    files = _find(paths)
    rows = {split: read(path, labelled=split != "test", limit=limit) for split, path in files.items()}
    read_so_far = "" if limit is None else f" in the first {limit} rows (--limit)"
    labels = _order({row.label for row in rows["train"] if row.label is not None})
    if len(labels) < 2:
        raise DataError(f"{files['train']}: expected at least two different labels{read_so_far}, found only {labels[0]!r}")
    notes = []
    tenth = len({row.sentence for row in rows["train"]}) // 10
    for split in ("dev", "test"):
        if split not in rows:
            rows["train"], rows[split] = _cut(rows["train"], tenth, seed=seed, path=files["train"], within=read_so_far)
            notes.append(f"no {split} file: {len(rows[split])} rows were cut from {files['train'].name}")
    if all(row.label in (None, _HIDDEN) for row in rows["test"]) and _HIDDEN not in labels:
        rows["test"] = tuple(replace(row, label=None) for row in rows["test"])
        notes.append(f"{files['test'].name} has no labels: it is used for inference, and the last evaluation is on dev")
    for split in ("dev", "test"):
        for row in rows[split]:
            if row.label is not None and row.label not in labels:
                where = f"{files.get(split, files['train'])}:{row.line}"
                raise DataError(
                    f"{where}: expected a label that occurs in training{read_so_far} ({_some(labels)}), found {row.label!r}"
                )
    return Dataset(train=rows["train"], dev=rows["dev"], test=rows["test"], labels=labels, notes=tuple(notes))


def read(path: Path, *, labelled: bool = True, limit: int | None = None) -> tuple[Row, ...]:
    """Read one file, JSON lines by its suffix and else a table; without ``labelled`` the labels may be missing as a whole."""
    records = _json_lines(path) if path.suffix in (".json", ".jsonl") else _table(path, labelled=labelled)
    rows = tuple(islice((_row(path, line, record, labelled=labelled) for line, record in records), limit))
    if not rows:
        raise DataError(f"{path}: expected at least one sentence, found none")
    unlabelled = [row for row in rows if row.label is None]
    if unlabelled and len(unlabelled) < len(rows):
        raise DataError(f"{path}:{unlabelled[0].line}: expected a label as in the other lines, found none")
    return rows


def _row(path: Path, line: int, record: dict[str, object], *, labelled: bool) -> Row:
    where = f"{path}:{line}"
    sentence, label = record.get("sentence"), record.get("label")
    if not isinstance(sentence, str) or not sentence.strip():
        found = _shown(sentence) if "sentence" in record else f"only {_some(list(record))}"
        raise DataError(f"{where}: expected a text in 'sentence', found {found}")
    if any("\ud800" <= character <= "\udfff" for character in sentence):
        raise DataError(f"{where}: expected a text in 'sentence', found half of a surrogate pair in it")
    if label is None and not labelled:
        return Row(sentence, None, line)
    if isinstance(label, bool) or not isinstance(label, (int, str)) or not str(label).strip():
        raise DataError(f"{where}: expected a whole number or a name in 'label', found {_shown(label)}")
    return Row(sentence, str(label).strip(), line)


def _text(path: Path) -> io.StringIO:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: expected a readable file: {error.strerror}") from error
    try:
        # Some editors begin a file with a byte order mark, which would become part of the first column's name.
        return io.StringIO(raw.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: expected UTF-8, found the byte 0x{raw[error.start]:02x}") from error


def _table(path: Path, *, labelled: bool) -> Iterator[tuple[int, dict[str, object]]]:
    # Not by the csv module: it swallows thousands of rows at one open quotation mark, and refuses what is longer than 128 KiB.
    header: list[str] | None = None
    for line, text in enumerate(_text(path), start=1):
        if not text.strip("\r\n"):
            continue
        cells = text.rstrip("\r\n").split("\t")
        if header is None:
            header = cells
            needed = {"sentence", "label"} if labelled else {"sentence"}
            if not needed <= set(header) or len(set(header)) < len(header):
                where = f"{path}:{line}"
                raise DataError(f"{where}: expected a header with the columns sentence<TAB>label, found {_some(header)}")
        elif len(cells) != len(header):
            raise DataError(f"{path}:{line}: expected {len(header)} columns as in the header, found {len(cells)}")
        else:
            yield line, dict(zip(header, cells, strict=True))
    if header is None:
        raise DataError(f"{path}: expected a header with the columns sentence<TAB>label, found an empty file")


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    for line, text in enumerate(_text(path), start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{line}: expected one JSON object per line: {error}") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}:{line}: expected a JSON object, found {type(record).__name__}")
        yield line, record


def _find(paths: Sequence[Path]) -> dict[str, Path]:
    candidates = list(paths)
    if len(paths) == 1:
        try:
            if not paths[0].is_dir():
                return {"train": paths[0]}
            candidates = sorted(path for path in paths[0].iterdir() if path.suffix in _SUFFIXES and _split_of(path))
        except OSError as error:
            raise DataError(f"{paths[0]}: expected a readable file or folder: {error.strerror}") from error
        if not candidates:
            raise DataError(f"{paths[0]}: expected train.tsv or train.json, and perhaps dev and test beside it, found neither")
    files: dict[str, Path] = {}
    for path in candidates:
        split = _split_of(path)
        if split is None:
            raise DataError(f"{path}: expected train, dev or test in the name of one file among several")
        if split in files:
            raise DataError(f"{path}: expected one file for {split}, found {files[split].name} too")
        files[split] = path
    if "train" not in files:
        raise DataError(f"{candidates[0]}: expected a train file beside it, found only {', '.join(files)}")
    return files


def _split_of(path: Path) -> str | None:
    words = re.split(r"[^a-z]+", path.stem.lower())
    return next((_WORDS[word] for word in words if word in _WORDS), None)


def _cut(rows: tuple[Row, ...], count: int, *, seed: int, path: Path, within: str) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Take ``count`` sentences out, each with all its rows: one that stays in training, too, would be known by heart."""
    labels: dict[str, Counter[str | None]] = {}
    for row in rows:
        labels.setdefault(row.sentence, Counter())[row.label] += 1
    sentences = list(labels)
    need = f"{within}, to cut a tenth for each missing file"
    if not count:
        raise DataError(f"{path}: expected at least 10 different sentences{need}, found {len(sentences)}")
    left = Counter(row.label for row in rows)
    chosen: set[str] = set()
    for sentence in random.Random(seed).sample(sentences, len(sentences)):
        if len(chosen) == count:
            break
        # A label is needed in training, too.
        if all(left[label] > number for label, number in labels[sentence].items()):
            left -= labels[sentence]
            chosen.add(sentence)
    if not chosen:
        raise DataError(f"{path}: expected labels of several sentences each{need}")
    kept = tuple(row for row in rows if row.sentence not in chosen)
    return kept, tuple(row for row in rows if row.sentence in chosen)


def _order(labels: set[str]) -> tuple[str, ...]:
    try:
        return tuple(sorted(labels, key=lambda label: (int(label), label)))  # 1 and 01 are two labels, in one order
    except ValueError:
        return tuple(sorted(labels))


def _shown(value: object) -> str:
    return "nothing" if value in (None, "") else repr(value)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name if len(name) < 40 else name[:37] + "...") for name in list(names)[:8])
    return shown + (", ..." if len(names) > 8 else "")
