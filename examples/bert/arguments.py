"""The command line of the example."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .generate import FOLDER

PHASES = ("pretrain", "finetune", "evaluate", "infer")
SIZES = ("tiny", "mini", "small", "base")

_EPILOG = """\
examples:
  python -m examples.bert                      tiny BERT from scratch on synthetic sentences, about a minute on 2 cores
  python -m examples.bert --model bert-base-uncased --data SST-2 --phase finetune evaluate
  python -m examples.bert --data tnews/train.json tnews/dev.json --max-length 64
  python -m examples.bert --save my-model ; python -m examples.bert --model my-model --phase infer
"""


@dataclass(frozen=True)
class Options:
    """What the user asked for. ``None`` means: decided from the data or the model."""

    model: str | None = None
    size: str = "tiny"
    data: tuple[Path, ...] = (FOLDER,)
    phases: tuple[str, ...] = PHASES
    epochs: int = 12
    pretrain_epochs: int = 3
    batch_size: int = 16
    max_length: int | None = None
    learning_rate: float | None = None
    limit: int | None = None
    seed: int = 0
    save: Path | None = None

    @property
    def synthetic(self) -> bool:
        """Whether the sentences are the made-up ones that the example ships."""
        return self.data == (FOLDER,)


def parse(argv: Sequence[str] | None = None) -> Options:
    """Read the command line; a wrong argument ends the program with status 2 and a sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.bert",
        description="Train and serve a BERT classifier and compare the joules per sentence of each phase.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Options()
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--model", type=_named, metavar="FOLDER|ID", help="a folder with a BERT checkpoint, or a hub id (default: from scratch)"
    )
    weights.add_argument(
        "--size", choices=SIZES, default=default.size, help="shape of a model from scratch (default: %(default)s)"
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        nargs="+",
        type=_path,
        default=[FOLDER],
        help="a folder with train, dev and test, or these files: SST-2/GLUE .tsv or CLUE .json lines (default: synthetic)",
    )
    parser.add_argument(
        "--phase", nargs="+", choices=("all", *PHASES), default=["all"], metavar="PHASE", help=f"all, {', '.join(PHASES)}"
    )
    parser.add_argument("--epochs", type=_positive, default=default.epochs, help="epochs of fine-tuning (default: %(default)s)")
    parser.add_argument(
        "--pretrain-epochs",
        type=_positive,
        default=default.pretrain_epochs,
        help="epochs of pre-training (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size", type=_positive, default=default.batch_size, help="sentences per step (default: %(default)s)"
    )
    parser.add_argument(
        "--max-length", type=_length, help="tokens per sentence, longer ones are cut (default: the longest, up to 128)"
    )
    parser.add_argument("--learning-rate", type=_rate, help="of Adam (default: 5e-4 from scratch, 3e-5 with --model)")
    parser.add_argument("--limit", type=_positive, metavar="ROWS", help="read only the first ROWS of each file")
    parser.add_argument("--seed", type=_seed, default=default.seed, help="of weights, order and masks (default: %(default)s)")
    parser.add_argument("--save", type=_path, metavar="FOLDER", help="write the classifier and its tokenizer here at the end")
    found = parser.parse_args(argv)
    return Options(
        model=found.model,
        size=found.size,
        data=tuple(found.data),
        phases=tuple(phase for phase in PHASES if phase in found.phase or "all" in found.phase),
        epochs=found.epochs,
        pretrain_epochs=found.pretrain_epochs,
        batch_size=found.batch_size,
        max_length=found.max_length,
        learning_rate=found.learning_rate,
        limit=found.limit,
        seed=found.seed,
        save=found.save,
    )


def _named(text: str) -> str:
    if not text.strip():  # as of a variable that is not set
        raise argparse.ArgumentTypeError(f"{text!r}: expected a name")
    return text


def _path(text: str) -> Path:
    return Path(_named(text))  # Path("") is the current folder


def _positive(text: str) -> int:
    return _whole(text, least=1)


def _length(text: str) -> int:
    return _whole(text, least=4, most=8192)  # [CLS], [SEP] and something to read


def _seed(text: str) -> int:
    return _whole(text, least=0, most=2**32 - 1)  # what NumPy takes


def _whole(text: str, *, least: int, most: int = 2**31) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number >= {least} and <= {most}")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.0 < rate < 1.0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number between 0 and 1")
    return rate
