"""Run the reference workload: ``python -m examples.bert`` from the root of the repository.

It needs the extra: ``pip install 'impactsdk[bert]'``. Progress goes to stderr, reports and the table to stdout. Status 0:
done; 2: it cannot start, go on, save or print, with a sentence that says why and the table so far; 130: interrupted, with the
table so far; 141: nobody reads its output.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import impactsdk
from impactsdk import measured

from .arguments import Options, parse
from .checkpoint import ModelError, resolve
from .data import DataError, Dataset, load
from .record import WHOLE, Record
from .report import report

_ENVIRONMENT = {
    # tf.keras would be Keras 3, whose optimizers and callbacks do not fit the models of transformers.
    "TF_USE_LEGACY_KERAS": "1",
    # Without these, some thirty lines about CPU features, missing GPUs and deprecations precede the first epoch.
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line, run the phases, print the table; returns the exit status."""
    options = parse(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a sentence must not end the run
    record = Record()
    interrupted = False
    try:
        impactsdk.configure(service_name="bert-example")
        _make_room(options.save)
        data = load(options.data, seed=options.seed, limit=options.limit)
        source = None if options.model is None else resolve(options.model)
        for note in data.notes:
            print(f"note: {note}", file=sys.stderr)
        _run(options, data, source, record=record)
    except (DataError, ModelError, impactsdk.ConfigurationError) as error:
        record.fail(str(error))
    except ImportError as error:
        record.fail(f"{error}; the example needs its extra: pip install 'impactsdk[bert]'")
    except Exception as error:
        if type(error).__name__ != "ResourceExhaustedError":  # TensorFlow's, which is not imported here
            raise
        record.fail("there is not enough memory; a smaller --batch-size, --max-length or --size needs less")
    except KeyboardInterrupt:
        print("\ninterrupted; the table covers what has run", file=sys.stderr)
        interrupted = True
    if interrupted or record.begun:
        record.show(f"\n{report(record.measurements(), record.results)}")
        if options.synthetic:
            record.show("The sentences are synthetic: accuracy is in-distribution and says nothing about sentiment in general.")
    return 130 if interrupted else 2 if record.failed else 0


def _run(options: Options, data: Dataset, source: str | None, *, record: Record) -> None:
    with record.block(WHOLE, "bert"):
        with measured("bert.import"):
            os.environ.update(_ENVIRONMENT)
            from . import workload
        workload.run(options, data, source, record=record)


def _make_room(folder: Path | None) -> None:
    """Before an hour of training: whether what it makes can be saved."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ModelError(f"--save {folder}: expected a folder to write into: {error.strerror or error}") from error


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # nobody reads on, as before "| head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
