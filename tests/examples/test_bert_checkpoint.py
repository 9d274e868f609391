from __future__ import annotations

import json
import socket
import urllib.request
from pathlib import Path

import pytest

from examples.bert import checkpoint
from examples.bert.checkpoint import ModelError, check, reachable, resolve


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setattr(urllib.request, "getproxies", dict)


def folder(path: Path, *names: str, kind: str = "bert") -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": kind}))
    for name in names:
        (path / name).touch()
    return path


@pytest.fixture
def nowhere() -> str:
    """An endpoint at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("weights", ["model.safetensors", "tf_model.h5"])
def test_a_folder_with_weights_and_a_vocabulary_is_taken_as_it_is(tmp_path, weights):
    path = folder(tmp_path / "model", weights, "vocab.txt")
    assert resolve(str(path), environment={}) == str(path)


@pytest.mark.parametrize(
    ("names", "kind", "message"),
    [
        (("model.safetensors", "vocab.txt"), "distilbert", "expected a checkpoint of model_type 'bert', found 'distilbert'"),
        (("vocab.txt",), "bert", "expected the weights in model.safetensors or tf_model.h5, found neither"),
        (("vocab.txt", "pytorch_model.bin"), "bert", "pytorch_model.bin needs PyTorch"),
        (("model.safetensors",), "bert", "expected the tokenizer in tokenizer.json or vocab.txt, found neither"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_with_the_reason(tmp_path, names, kind, message):
    with pytest.raises(ModelError, match=message):
        check(folder(tmp_path / "model", *names, kind=kind))


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"expected a config\.json that describes a BERT"):
        resolve(str(tmp_path), environment={})


@pytest.mark.parametrize("model", ["./missing", "/missing/folder", "a/b/c", "..", "", "/" + "x" * 300, "~nobody.here/model"])
def test_a_path_that_does_not_exist_is_not_looked_up_on_the_hub(model, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setattr(checkpoint, "reachable", lambda endpoint: pytest.fail("asked the network"))
    with pytest.raises(ModelError, match="expected a"):
        resolve(model, environment={})


def test_a_hub_id_is_refused_where_the_hub_cannot_be_reached(tmp_path, nowhere):
    with pytest.raises(ModelError, match=f"bert-base-uncased: .*{nowhere} cannot be reached; give a folder"):
        resolve("bert-base-uncased", environment={"HF_HOME": str(tmp_path), "HF_ENDPOINT": nowhere})


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_a_hub_id_is_refused_where_downloads_are_forbidden(tmp_path, name, monkeypatch):
    monkeypatch.setattr(checkpoint, "reachable", lambda endpoint: pytest.fail("asked the network"))
    with pytest.raises(ModelError, match=f"{name} forbids a download"):
        resolve("bert-base-uncased", environment={"HF_HOME": str(tmp_path), name: "1"})


def test_a_hub_id_is_passed_on_where_the_hub_can_be_reached(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert reachable(endpoint)
        assert resolve("org/model", environment={"HF_HOME": str(tmp_path), "HF_ENDPOINT": endpoint}) == "org/model"


def test_a_model_in_the_hub_s_cache_is_used_without_asking_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "reachable", lambda endpoint: pytest.fail("asked the network"))
    repository = tmp_path / "hub" / "models--org--model"
    snapshot = folder(repository / "snapshots" / "abc", "model.safetensors", "tokenizer.json")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert resolve("org/model", environment={"HF_HOME": str(tmp_path)}) == str(snapshot)
    assert resolve("org/model", environment={"HF_HUB_CACHE": str(tmp_path / "hub")}) == str(snapshot)


def test_a_half_downloaded_model_does_not_count(tmp_path, nowhere):
    repository = tmp_path / "hub" / "models--org--model"
    folder(repository / "snapshots" / "abc", "tokenizer.json")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    with pytest.raises(ModelError, match="cannot be reached"):
        resolve("org/model", environment={"HF_HOME": str(tmp_path), "HF_ENDPOINT": nowhere})


@pytest.mark.parametrize("endpoint", ["", "nonsense", "http://127.0.0.1:port"])
def test_an_endpoint_that_is_no_address_cannot_be_reached(endpoint):
    assert not reachable(endpoint)
