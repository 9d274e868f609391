"""What the run has measured so far, phase by phase; complete at any moment, so that an interrupted run has its table."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from impactsdk import measured

TRACING = "tracing"
WHOLE = "whole run"


class Record:
    """The blocks of each phase and what the phase achieved.

    Blocks of one phase never lie inside each other, so that their inclusive energies may be added. That is why the
    per-epoch evaluation, which runs inside the span of fine-tuning, counts as evaluation only.
    """

    def __init__(self) -> None:
        self._blocks: dict[str, list[Any]] = {}
        self.results: dict[str, str] = {}
        self.failed = False
        self._output = sys.stdout

    @contextmanager
    def block(self, phase: str, name: str, *, attributes: dict[str, Any] | None = None) -> Iterator[Any]:
        """Measure a block as a span called ``name``, in sentences where it is a phase's, and count it to ``phase``."""
        counts = phase not in (TRACING, WHOLE)
        with measured(name, unit="sentence" if counts else None, attributes=attributes) as region:
            self._blocks.setdefault(phase, []).append(region)
            if counts:
                region.add_units(0)  # interrupted before the first batch, it has done none, which is not unknown
            yield region

    def fail(self, sentence: str) -> None:
        """Say on stderr what cannot be done, and remember that something could not."""
        print(f"examples.bert: {sentence}", file=sys.stderr)
        self.failed = True

    def show(self, text: str) -> None:
        """Print a result on stdout; once that cannot be written, as on a full disk, on stderr."""
        try:
            print(text, file=self._output, flush=True)
        except BrokenPipeError:  # nobody reads: there is nobody to tell
            raise
        except OSError as error:
            self.fail(f"stdout cannot be written: {error.strerror}; the results follow here")
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else it fails again at exit
            self._output = sys.stderr
            print(text, file=self._output, flush=True)

    @property
    def begun(self) -> bool:
        """Whether one of the phases has begun."""
        return bool(self._blocks.keys() - {TRACING, WHOLE})

    def measurements(self) -> dict[str, list[Any]]:
        """The finished measurements of each phase; waits until the devices have covered the last one."""
        return {phase: [block.result() for block in blocks] for phase, blocks in self._blocks.items()}
