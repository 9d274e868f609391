"""An asynchronous service that tells what each request has cost: ``uvicorn examples.fastapi_service:app``.

Needs ``pip install fastapi uvicorn``. Requests that wait at the same time share what is used meanwhile, so that the requests
and what is left over (``unattributed``) add up to what the process has used.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI

import impactsdk
from impactsdk import measured

app = FastAPI()


@measured("embed", span=False, unit="token", count=len)
async def embed(text: str) -> list[float]:
    """Stands for a model: some waiting, some computing. In the totals only: no span of its own."""
    await asyncio.sleep(0.01)
    return [float(sum(map(ord, word))) for word in text.split()]


@app.get("/answer")
async def answer(text: str) -> dict[str, Any]:
    """One request is one region; its energy is known once the reading that covers its end has come."""
    with measured("answer", attributes={"letters": len(text)}):
        vectors = await embed(text)
    return {"length": len(vectors)}


@app.get("/totals")
def totals() -> dict[str, Any]:
    """What the process has used, and for what. Not ``async``: it waits for a reading."""
    impactsdk.flush()
    account = impactsdk.configure().totals()
    return {
        "counted_j": sum(account.channels.values()),
        "unattributed_j": account.unattributed_j,
        "others_j": account.others_j,
        "operations": {name: {"count": of.count, "energy_j": of.energy_j} for name, of in account.operations.items()},
    }
