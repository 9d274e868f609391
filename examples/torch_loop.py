"""A plain PyTorch loop, measured: a span for each epoch, joules per sample, and the loss beside them.

Run: ``python examples/torch_loop.py`` with ``pip install torch``.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from impactsdk import current, measured


@measured("epoch", unit="sample")
def train_epoch(model: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer) -> float:
    """One turn through the data; returns the mean loss."""
    epoch, total, seen = current(), 0.0, 0
    for points, labels in loader:
        with measured("step", span=False, unit="sample") as step:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(points), labels)
            loss.backward()
            optimizer.step()
            # Reading the loss waits for the device: a step's joules then lie within the step on a GPU, too.
            total += loss.item() * len(labels)
            step.add_units(len(labels))
        seen += len(labels)
        if epoch is not None:
            epoch.add_units(len(labels))
    return total / seen


def main() -> None:
    """Train a small classifier on points."""
    torch.manual_seed(0)
    points = torch.randn(4_000, 16)
    loader = DataLoader(TensorDataset(points, (points.sum(dim=1) > 0).long()), batch_size=64, shuffle=True)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for number in range(1, 4):
        with measured("round", attributes={"epoch": number}) as region:
            loss = train_epoch(model, loader, optimizer)
        joules = region.result().energy_j
        print(f"epoch {number}: loss {loss:.3f}, " + ("joules unknown" if joules is None else f"{joules:.2f} J"))


if __name__ == "__main__":
    main()
