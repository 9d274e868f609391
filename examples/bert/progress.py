"""A bar for a person who watches; a line per epoch for a log file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def bar(batches: Iterable[T], *, total: int, label: str) -> Iterator[T]:
    """Hand on the batches under a progress bar on stderr, which vanishes at the end; in silence where stderr is no terminal."""
    silent = not sys.stderr.isatty()
    return iter(tqdm(batches, total=total, desc=label, unit="batch", leave=False, file=sys.stderr, disable=silent))


def say(text: str) -> None:
    """Write a line on stderr without tearing a bar apart."""
    tqdm.write(text, file=sys.stderr)
    sys.stderr.flush()
