"""Where weights come from: a folder, the hub's local cache, or the hub itself, decided before anything slow is imported."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

PROBE_TIMEOUT_S = 1.0
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "tf_model.h5", "tf_model.h5.index.json")
_VOCABULARY = ("tokenizer.json", "vocab.txt")


class ModelError(ValueError):
    """A model that cannot be had; the message says why and what to do."""


def resolve(model: str, *, environment: Mapping[str, str] = os.environ) -> str:
    """Turn ``--model`` into a folder, or into a hub id that can be downloaded now.

    Left to itself, the hub's client retries for three minutes where there is no network; one bounded look at the
    endpoint answers in a second.

    Raises:
        ModelError: If there is no such folder, it holds no usable BERT, or the hub cannot be reached.
    """
    try:
        folder = Path(model).expanduser()
        found = folder.is_dir()
    except (OSError, RuntimeError) as error:  # not allowed to look, a name that is too long, ~ of nobody
        raise ModelError(f"{model}: expected a folder with a BERT checkpoint: {error}") from error
    if found:
        check(folder)
        return str(folder)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", model):
        raise ModelError(f"{model}: expected a folder with a BERT checkpoint or a hub id such as bert-base-uncased")
    cached = _cached(model, environment)
    if cached is not None:
        check(cached)
        return str(cached)
    remedy = "give a folder, or leave --model out to train a model from scratch"
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if environment.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            raise ModelError(f"{model}: no such folder, not in the hub's local cache, and {name} forbids a download; {remedy}")
    endpoint = environment.get("HF_ENDPOINT") or "https://huggingface.co"
    if not reachable(endpoint):
        raise ModelError(f"{model}: no such folder, not in the hub's local cache, and {endpoint} cannot be reached; {remedy}")
    return model


def check(folder: Path) -> None:
    """Refuse a folder that holds no BERT that TensorFlow can load, with the reason in one sentence."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = config.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder}: expected a config.json that describes a BERT: {error}") from error
    if kind != "bert":
        raise ModelError(f"{folder}: expected a checkpoint of model_type 'bert', found {kind!r}")
    if not any((folder / name).is_file() for name in _WEIGHTS):
        if (folder / "pytorch_model.bin").is_file():
            raise ModelError(f"{folder}: pytorch_model.bin needs PyTorch; save the model as model.safetensors instead")
        raise ModelError(f"{folder}: expected the weights in model.safetensors or tf_model.h5, found neither")
    if not any((folder / name).is_file() for name in _VOCABULARY):
        raise ModelError(f"{folder}: expected the tokenizer in tokenizer.json or vocab.txt, found neither")


def reachable(endpoint: str, *, timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """Whether something listens at the endpoint, or at the proxy that leads to it; answers within ``timeout_s``."""
    target = urlsplit(endpoint)
    proxy = urllib.request.getproxies().get(target.scheme)
    if proxy and target.hostname and not urllib.request.proxy_bypass(target.hostname):
        target = urlsplit(proxy if "//" in proxy else f"//{proxy}", scheme="http")
    try:
        address = (target.hostname or "", target.port or (443 if target.scheme == "https" else 80))
    except ValueError:  # a port that is no number
        return False
    connected = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=timeout_s).close()
        except (OSError, UnicodeError):
            return
        connected.set()

    # A thread, because the timeout of a socket does not bound the look-up of its name.
    thread = threading.Thread(target=connect, name="probe", daemon=True)
    thread.start()
    thread.join(timeout_s)
    return connected.is_set()


def _cached(model: str, environment: Mapping[str, str]) -> Path | None:
    """The newest complete snapshot of ``model`` in the hub's cache, which can be used without asking the hub."""
    cache_home = environment.get("XDG_CACHE_HOME") or "~/.cache"
    home = environment.get("HF_HOME") or f"{cache_home}/huggingface"
    cache = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    repository = Path(cache).expanduser() / f"models--{model.replace('/', '--')}"
    try:
        snapshot = repository / "snapshots" / (repository / "refs" / "main").read_text(encoding="utf-8").strip()
        parts = (("config.json",), _WEIGHTS, _VOCABULARY)
        complete = all(any((snapshot / name).is_file() for name in names) for names in parts)
    except OSError:
        return None
    return snapshot if complete else None
