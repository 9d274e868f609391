"""The BERT example's training loop with and without measuring, in turns in one process."""

from __future__ import annotations

import contextlib
import io
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import impactsdk
from impactsdk import DegradedWarning, measured

from .bench_meter import sampler_cpu_s, two_sources
from .table import Table, verdict
from .timing import median, median_ratio

LIMIT_PERCENT = 1.0
_LENGTH, _VOCABULARY, _BATCH = 32, 2_000, 16


class _Timed:
    """A region of the loop, made, entered and left on a clock."""

    spent_ns = 0

    def __init__(self, name: str, **told: Any) -> None:
        begun_ns = time.perf_counter_ns()
        self._region = measured(name, **told)
        _Timed.spent_ns += time.perf_counter_ns() - begun_ns

    def __enter__(self) -> Any:
        begun_ns = time.perf_counter_ns()
        region = self._region.__enter__()
        _Timed.spent_ns += time.perf_counter_ns() - begun_ns
        return region

    def __exit__(self, *raised: Any) -> None:
        begun_ns = time.perf_counter_ns()
        self._region.__exit__(*raised)
        _Timed.spent_ns += time.perf_counter_ns() - begun_ns


def _epochs(steps: int) -> Callable[[], object]:
    """The example's own loop over one epoch of so many steps, on one compiled step."""
    import numpy as np
    from transformers import TFBertForSequenceClassification

    from examples.bert import model, record, training
    from examples.bert.arguments import Options
    from examples.bert.record import Record

    training.measured = record.measured = _Timed  # type: ignore[assignment]
    config = model.configuration("tiny", vocabulary=_VOCABULARY, length=_LENGTH)
    classifier = model.build(TFBertForSequenceClassification, source=None, config=config, labels=("0", "1"))
    rng = np.random.default_rng(0)
    rows = steps * _BATCH
    arrays = {
        "input_ids": rng.integers(5, _VOCABULARY, (rows, _LENGTH)).astype(np.int32),
        "attention_mask": np.ones((rows, _LENGTH), np.int32),
        "labels": rng.integers(0, 2, rows).astype(np.int32),
        "weights": np.ones(rows, np.float32),
    }
    trainer = training.Trainer(classifier, learning_rate=1e-4, steps=10**6, length=_LENGTH, per_token=False)
    trainer.trace(_BATCH)
    options = Options(batch_size=_BATCH)

    def epoch() -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            trainer.epoch(arrays, phase="finetune", epoch=1, epochs=1, options=options, record=Record())

    return epoch


def _seconds(epoch: Callable[[], object], *, measuring: bool, settle_s: float) -> tuple[float, float, float, float]:
    """Wall and process CPU of one epoch, of it the background thread's CPU, and the time that the loop spends in its regions.

    The meter is set up before and closed after.
    """
    meter = impactsdk.configure(disabled=not measuring, export="none", sources=two_sources())
    with measured("first", span=False):  # opens the devices and learns their ticks; a program does so once
        time.sleep(settle_s)
    ours_s = sampler_cpu_s(meter) if measuring else 0.0
    _Timed.spent_ns = 0
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    epoch()
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    ours_s = sampler_cpu_s(meter) - ours_s if measuring else 0.0
    impactsdk.shutdown()
    return wall_s, cpu_s, ours_s, _Timed.spent_ns * 1e-9


def run(*, quick: bool = False) -> Iterator[Table]:
    """One table; or a sentence, where there is no TensorFlow."""
    table = Table("The BERT example's training loop", ["what", "measured s", "disabled s", "added %", "limit %", ""])
    os.environ.update({"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "TRANSFORMERS_VERBOSITY": "error"})
    try:
        import tensorflow  # noqa: F401
        import tf_keras  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        table.note(f"skipped: {error}; pip install 'impactsdk[bert]' brings what it needs")
        yield table
        return
    steps, pairs = (4, 2) if quick else (40, 41)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegradedWarning)
        impactsdk.configure(disabled=True)  # building the model is measured too, which would leave a journal here
        epoch = _epochs(steps)
        times: dict[bool, list[tuple[float, float, float, float]]] = {True: [], False: []}
        for turn in range(pairs + 1):
            for measuring in (True, False) if turn % 2 else (False, True):
                times[measuring].append(_seconds(epoch, measuring=measuring, settle_s=0.0 if quick else 1.0))
    for index, what in enumerate(("wall", "CPU of the process")):
        ours, reference = ([each[index] for each in times[measuring][1:]] for measuring in (True, False))
        added = 100 * (median_ratio(ours, reference) - 1)
        low, high = _interval([100 * (a / b - 1) for a, b in zip(ours, reference, strict=True)])
        judged = "unclear" if low <= LIMIT_PERCENT < high else verdict(added, LIMIT_PERCENT)
        table.add(f"{what}, {steps} steps", median(ours), median(reference), f"{added:+.2f}", f"<= {LIMIT_PERCENT:g}", judged)
        table.note(f"{what}: median of {pairs} pairs; its 95 % confidence interval is {low:+.2f} to {high:+.2f} %")
    parts = [(wall_s, thread_s, regions_s) for wall_s, _, thread_s, regions_s in times[True][1:]]
    for what, spent in (
        ("the loop's regions: made, entered, left", [(regions_s, wall_s) for wall_s, _, regions_s in parts]),
        ("the background thread's CPU", [(thread_s, wall_s) for wall_s, thread_s, _ in parts]),
        ("both, of the wall time", [(thread_s + regions_s, wall_s) for wall_s, thread_s, regions_s in parts]),
    ):
        added = median(100 * used_s / wall_s for used_s, wall_s in spent)
        used_s = median(used_s for used_s, _ in spent)
        table.add(what, used_s, "", f"{added:+.2f}", f"<= {LIMIT_PERCENT:g}", verdict(added, LIMIT_PERCENT))
    table.note(
        "the last three rows are timed within the measured loop: all that measuring does but for what it does to "
        "others' caches; the thread's CPU slows the loop by its whole only where no core is free"
    )
    table.note("unclear: the interval holds the limit; run it on a machine that does nothing else")
    yield table


def _interval(values: list[float]) -> tuple[float, float]:
    """Of the median, from the order of the values alone (normal approximation to the binomial)."""
    ordered = sorted(values)
    reach = 0.98 * math.sqrt(len(ordered))
    middle = (len(ordered) - 1) / 2
    return ordered[max(0, math.floor(middle - reach))], ordered[min(len(ordered) - 1, math.ceil(middle + reach))]
