"""Functions that tell what each of their calls cost: plain, coroutine and generator, with functional units.

Run: ``python examples/decorate.py``
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import impactsdk
from impactsdk import measured


@measured
def prepare(rows: int) -> list[str]:
    """Named after itself; nothing that is passed to it is recorded."""
    return [f"sentence number {number}" for number in range(rows)]


@measured("batches", unit="batch", count=lambda _batch: 1)
def batches(sentences: list[str], size: int) -> Iterator[list[str]]:
    """A generator is measured while it runs; what its consumer does between two items is the consumer's."""
    for start in range(0, len(sentences), size):
        yield sentences[start : start + size]


@measured("encode", unit="sentence", count=len)
def encode(sentences: list[str]) -> list[list[int]]:
    """``count`` is asked how many units the result is."""
    return [[ord(letter) for _ in range(100) for letter in sentence] for sentence in sentences]


@measured("serve", unit="request", count=lambda _answer: 1)
async def serve(sentence: str) -> int:
    """A coroutine stays open while it waits, and others are measured beside it."""
    await asyncio.sleep(0.01)
    return len(encode([sentence])[0])


async def main() -> None:
    """Encode in batches, then serve ten requests at once."""
    sentences = prepare(2_000)
    for batch in batches(sentences, 250):
        encode(batch)
    await asyncio.gather(*(serve(sentence) for sentence in sentences[:10]))
    impactsdk.flush()
    for name, operation in impactsdk.configure().totals().operations.items():
        joules = "unknown" if operation.energy_j is None else f"{operation.energy_j:.4f} J"
        print(f"{name:20} {operation.count:5} calls {joules:>12} {operation.units or 0:8.0f} {operation.unit or ''}")


if __name__ == "__main__":
    asyncio.run(main())
