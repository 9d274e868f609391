"""Serve the joules to Prometheus: ``python -m examples.prometheus_scrape``, then look at http://localhost:9464/metrics.

Needs ``pip install 'impactsdk[prometheus]'``. ``OTEL_EXPORTER_PROMETHEUS_HOST`` and ``_PORT`` say where.
An argument says for how many seconds to run; Ctrl-C ends it, too.
"""

from __future__ import annotations

import contextlib
import sys
import time

import impactsdk
from impactsdk import measured


@measured("encode", unit="sentence", count=len)
def encode(sentences: list[str]) -> list[list[str]]:
    """Stands for the part of an application that prepares."""
    return [sentence.split() for sentence in sentences]


@measured("train")
def train(turns: int) -> int:
    """Stands for the part that computes."""
    return sum(number * number for number in range(turns))


def main(seconds: float) -> None:
    """Work for so long, or until Ctrl-C, and be scraped meanwhile."""
    impactsdk.configure(export="prometheus")
    end = time.monotonic() + seconds
    with contextlib.suppress(KeyboardInterrupt):
        while time.monotonic() < end:
            train(50_000)
            encode(["a sentence of five words"] * 200)
            time.sleep(0.05)  # what is used here belongs to no operation: it is counted as unattributed


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 3_600.0)
