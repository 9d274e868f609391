"""Waiting for accelerators: kernels are launched and the caller goes on; here it waits until they are done.

Only frameworks that the program has loaded and that use an accelerator are asked; nothing is imported for it.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["wait_for_devices"]


def wait_for_devices() -> bool:
    """Wait until all kernels that were launched so far are done; say whether there was anything to wait for.

    Raises:
        Exception: What a framework raises for a kernel that failed; it will raise it again at its next call.
    """
    waited = False
    for name, wait in (("torch", _torch), ("jax", _jax), ("tensorflow", _tensorflow)):
        module = sys.modules.get(name)
        if module is not None:
            waited = wait(module) or waited
    return waited


def _torch(torch: Any) -> bool:
    waited = False
    cuda = getattr(torch, "cuda", None)
    if cuda is not None and cuda.is_available() and cuda.is_initialized():
        for device in range(cuda.device_count()):
            cuda.synchronize(device)
        waited = True
    mps = getattr(torch, "mps", None)
    if mps is not None and torch.backends.mps.is_available():
        mps.synchronize()
        waited = True
    return waited


def _jax(jax: Any) -> bool:
    # Each device runs what it is given in order: when a fresh value is there, everything before it is done. The CPU is asked,
    # too: its computations are dispatched asynchronously like any other's.
    if not hasattr(jax, "local_devices"):  # still being imported
        return False
    devices = jax.local_devices()
    for device in devices:
        (jax.device_put(0.0, device) + 0.0).block_until_ready()
    return bool(devices)


def _tensorflow(tensorflow: Any) -> bool:
    try:
        boards = tensorflow.config.list_logical_devices("GPU")
        sync = tensorflow.test.experimental.sync_devices
    except AttributeError:  # still being imported, or older than 2.9
        return False
    if not boards:
        return False  # on the CPU a call returns when it is done
    sync()
    return True
