"""NVML itself: loading it, naming its errors, listing the boards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from impactsdk.errors import SourceUnavailableError
from impactsdk.sources.nvml.visible import Board

__all__ = [
    "BOARD_GONE",
    "DRIVER_GONE",
    "NOT_SUPPORTED",
    "NO_PERMISSION",
    "NO_SUCH_METRIC",
    "TRANSIENT",
    "Driver",
    "board_list",
    "explained",
    "mig_on",
    "mig_parent",
    "started",
    "unavailable",
]

Driver = Any
"""The module ``pynvml`` of the distribution nvidia-ml-py, which ships no types."""

# nvmlReturn_t, nvml.h
NOT_SUPPORTED = 3
NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
OPERATING_SYSTEM = 17
VERSION_MISMATCH = 18
DRIVER_GONE = frozenset({1, DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, VERSION_MISMATCH})
"""No board will answer any more; 1 is Uninitialized: other code of this process has shut NVML down once too often."""
NO_SUCH_METRIC = frozenset({NOT_SUPPORTED, 13})
"""And FunctionNotFound, of an older driver."""
BOARD_GONE = frozenset({15, 16})
"""GpuIsLost, ResetRequired."""
TRANSIENT = frozenset({10, 21, 27, 999})
"""Timeout, NoData, NotReady, Unknown."""

_REMEDY = {
    OPERATING_SYSTEM: "the operating system blocks access; give the container or cgroup the /dev/nvidia* devices",
    VERSION_MISMATCH: "the driver was updated while its kernel module was loaded; reload the module or restart",
}


def started() -> Driver:
    """The NVML bindings with NVML initialised; whoever calls this shuts NVML down again.

    Raises:
        SourceUnavailableError: There is no NVML here, or not the one we know.
    """
    try:
        import pynvml
    except ImportError as error:
        raise SourceUnavailableError(f"NVML cannot be read: {error}; pip install nvidia-ml-py") from error
    driver: Driver = pynvml
    if not hasattr(driver, "_nvmlGetFunctionPointer"):
        # Another distribution installs a module of the same name, with other semantics.
        raise SourceUnavailableError(
            "NVML cannot be read: the module pynvml is not NVIDIA's own; pip uninstall pynvml, then pip install nvidia-ml-py"
        )
    try:
        driver.nvmlInit()
    except driver.NVMLError as error:
        raise unavailable(error) from error
    return driver


def unavailable(error: Any) -> SourceUnavailableError:
    """The error to raise where NVML as a whole does not work; only a machine without a driver is a normal sight."""
    remedy = _REMEDY.get(error.value)
    message = f"NVML does not work: {explained(error)}" + (f": {remedy}" if remedy else "")
    return SourceUnavailableError(message, expected=error.value in (DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND))


def explained(error: Any) -> str:
    """An ``NVMLError`` in words and number."""
    return f"{str(error).rstrip('.')} (NVML error {error.value})"


def text_of(value: str | bytes) -> str:
    """NVML's text; older bindings answer with bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def board_list(driver: Driver, refused: Callable[[int, Any], None]) -> list[Board]:
    """All boards that this process may open; one that cannot be opened for another reason is there without a handle.

    NVML counts boards that this process may not open, so each is tried; ``refused`` is told the number and the error.
    """
    boards = []
    for index in range(driver.nvmlDeviceGetCount()):
        try:
            boards.append(_board(driver, index))
        except driver.NVMLError as error:  # noqa: PERF203 - each board may fail for itself
            if error.value in DRIVER_GONE:
                raise
            refused(index, error)
            if error.value != NO_PERMISSION:  # it is there, and the others keep their numbers
                boards.append(Board(index, f"nvml-{index}", opened=False))
    return boards


def _board(driver: Driver, index: int) -> Board:
    handle = driver.nvmlDeviceGetHandleByIndex(index)
    return Board(index, text_of(driver.nvmlDeviceGetUUID(handle)), _model(driver, handle), _pci(driver, handle), handle)


def _model(driver: Driver, handle: Any) -> str | None:
    try:
        return text_of(driver.nvmlDeviceGetName(handle))
    except driver.NVMLError:
        return None


def _pci(driver: Driver, handle: Any) -> tuple[int, int, int] | None:
    try:
        info = driver.nvmlDeviceGetPciInfo(handle)
    except driver.NVMLError:
        return None
    return info.domain, info.bus, info.device


def mig_on(driver: Driver, handle: Any) -> bool:
    """Whether the board is cut into MIG slices; one that does not say cannot be."""
    try:
        current, _pending = driver.nvmlDeviceGetMigMode(handle)
    except driver.NVMLError:
        return False
    return bool(current)


def mig_parent(driver: Driver, name: str) -> str | None:
    """The UUID of the board that the MIG slice ``name`` is part of; ``None`` if NVML knows no such slice."""
    try:
        # Bytes: the bindings of some releases do not encode text here.
        slice_handle = driver.nvmlDeviceGetHandleByUUID(name.encode())
        return text_of(driver.nvmlDeviceGetUUID(driver.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(slice_handle)))
    except driver.NVMLError:
        return None
