"""Blocks of a loop: a span for each epoch, and steps that go into the totals only.

Run: ``python examples/blocks.py``
"""

from __future__ import annotations

import impactsdk
from impactsdk import measured

EPOCHS, STEPS, BATCH = 3, 50, 16


def work(seed: int) -> float:
    """Stands for a training step."""
    return sum((seed + number) ** 0.5 for number in range(20_000))


def main() -> None:
    """Train for three epochs and say what each cost."""
    for number in range(1, EPOCHS + 1):
        with measured("epoch", unit="sample", attributes={"epoch": number}) as epoch:
            for step in range(STEPS):
                # A span per step would cost more than it tells; totals and the histogram hold them all.
                with measured("step", span=False, unit="sample") as region:
                    work(step)
                    region.add_units(BATCH)
                epoch.add_units(BATCH)
        cost = epoch.result()  # waits for the reading that covers the end
        if cost.energy_j is None:
            print(f"epoch {number}: no device could be read")
            continue
        print(f"epoch {number}: {cost.energy_j:.2f} J, {cost.energy_j / (STEPS * BATCH):.5f} J per sample, {cost.quality}")
    impactsdk.flush()
    steps = impactsdk.configure().totals().operations.get("step")
    if steps is not None:  # else measuring is switched off (IMPACTSDK_DISABLED)
        print(f"{steps.count} steps, {steps.units:.0f} samples")


if __name__ == "__main__":
    main()
