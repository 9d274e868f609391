"""Where the backends live: a virtual environment each under ``.cache/backends``, made once, and processes on free ports."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("IMPACTSDK_TEST_BACKENDS") or ROOT / ".cache" / "backends")
INSTALL_S = 600.0


def _run(command: Sequence[str | Path], *, cwd: Path | None = None) -> None:
    """Run a command that needs the network; without what it brings the test cannot run, which is no failure of ours."""
    try:
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, timeout=INSTALL_S, cwd=cwd, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{command[0]}: {error}")
    if done.returncode:
        pytest.skip(f"{' '.join(map(str, command))}: {(done.stderr or done.stdout).strip()[-300:]}")


def environment(name: str, *requirements: str) -> Path:
    """The ``bin`` folder of a virtual environment with these requirements; skips the test where it cannot be had."""
    folder = CACHE / name
    stamp = folder / "requirements.json"
    wanted = [sys.version.split()[0], *requirements]
    if not (stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")) == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", folder])
        pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        _run([*pip, *requirements])
        stamp.write_text(json.dumps(wanted), encoding="utf-8")
    return folder / "bin"


def packages(binaries: Path) -> Path:
    """The ``site-packages`` of an environment."""
    return next((binaries.parent / "lib").glob("python*/site-packages"))


def debian(name: str) -> Path:
    """A Debian package, unpacked and not installed: installing it would start a service."""
    folder = CACHE / f"debian-{name}"
    if not (folder / "usr").is_dir():
        if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
            pytest.skip(f"{name} is taken from Debian's package, and this is no Debian")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _run(["apt-get", "download", name], cwd=folder)
        (package,) = folder.glob("*.deb")
        _run(["dpkg", "-x", package, folder])
        package.unlink()
    return folder


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def process(
    command: Sequence[str | Path], folder: Path, *, ready: Callable[[], object], within_s: float = 90.0, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A backend that runs while the block does; what it says goes to a file that is shown where it does not come up."""
    log = folder / f"{Path(command[0]).name}.log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTHON"))}
    with log.open("wb") as output:
        running = subprocess.Popen(
            [str(word) for word in command], cwd=folder, env={**kept, **variables}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + within_s
        while not _true(ready):
            if running.poll() is not None or time.monotonic() > deadline:
                text = log.read_text(encoding="utf-8", errors="replace")[-3_000:]
                raise AssertionError(f"{command[0]} did not come up:\n{text}")
            time.sleep(0.05)
        yield running
    finally:
        running.terminate()
        try:
            running.wait(10.0)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def _true(condition: Callable[[], object]) -> bool:
    try:
        return bool(condition())
    except (OSError, urllib.error.URLError, ValueError):
        return False


def until(condition: Callable[[], object], *, within_s: float = 60.0) -> None:
    """Wait for something that a backend does in its own time."""
    deadline = time.monotonic() + within_s
    while not _true(condition):
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.2)


def get(url: str) -> bytes:
    """What is at a local address."""
    with urllib.request.urlopen(url, timeout=30.0) as answer:
        content: bytes = answer.read()
    return content


def get_json(url: str) -> Any:
    """What is at a local address, read as JSON."""
    return json.loads(get(url))


def listens(port: int) -> bool:
    """Whether somebody accepts connections on this port."""
    with socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True


def otlp(endpoint: str, protocol: str = "http/protobuf", **more: str) -> Mapping[str, str]:
    """The variables that send results there."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol, **more}
