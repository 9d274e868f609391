"""An NVIDIA driver made of Python: the real nvidia-ml-py runs on it, and no compiler, board or patched function is needed.

nvidia-ml-py calls ``pynvml.nvmlLib.<function>`` with ctypes values and ``byref(...)`` of what is to be filled in; this library
fills it in and returns an ``nvmlReturn_t``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import pynvml

SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND = 0, 1, 2, 3, 4, 6

Number = float | Callable[[], float] | None


@dataclass
class FakeBoard:
    """One board; a number may be a function, and ``None`` means that the driver does not support it.

    ``errors`` maps the C function to the ``nvmlReturn_t`` that it answers for this board, and may be changed at any time.
    """

    uuid: str = "GPU-00000000-0000-0000-0000-000000000000"
    name: str = "NVIDIA H100 80GB HBM3"
    pci: tuple[int, int, int] = (0, 1, 0)
    energy_mj: Number = 1_000_000
    power_mw: Number = 100_000
    limit_mw: Number = 700_000
    module_power_mw: Number = None
    capability: tuple[int, int] = (9, 0)
    mig: list[str] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)


class FakeDriver:
    """A context in which NVML shows ``boards``; the bindings are as before when it ends.

    Args:
        boards: In NVML's order.
        errors: What a C function answers whatever the board.
        missing: C functions that this driver is too old for.
    """

    def __init__(
        self, boards: Iterable[FakeBoard] = (), *, errors: dict[str, int] | None = None, missing: Iterable[str] = ()
    ) -> None:
        self.boards = list(boards)
        self.errors = errors or {}
        self.missing = set(missing)
        self.calls: list[tuple[str, str | None]] = []
        self.starts = 0
        self.stops = 0

    def __enter__(self) -> FakeDriver:
        self._before = pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache), pynvml._nvmlLib_refcount
        pynvml.nvmlLib = _Library(self)
        pynvml._nvmlGetFunctionPointer_cache.clear()
        pynvml._nvmlLib_refcount = 0
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        library, cache, count = self._before
        pynvml.nvmlLib = library
        pynvml._nvmlGetFunctionPointer_cache.clear()
        pynvml._nvmlGetFunctionPointer_cache.update(cache)
        pynvml._nvmlLib_refcount = count

    def called(self, function: str, uuid: str | None = None) -> int:
        """How often the C function was called, for the board ``uuid`` or in all."""
        return sum(1 for name, board in self.calls if name == function and uuid in (None, board))


class _Library:
    """Stands where ctypes' CDLL would: an attribute is a C function."""

    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver

    def __getattr__(self, name: str) -> Callable[..., int | bytes]:
        driver = self._driver
        if name in driver.missing or name not in _FUNCTIONS:
            raise AttributeError(name)
        body, find = _FUNCTIONS[name]

        def call(*args: Any) -> int | bytes:  # a function of its own, since nvidia-ml-py sets restype on some
            board = find(driver, args[0]) if find is not None else None
            driver.calls.append((name, board.uuid if board else None))
            if name not in ("nvmlInitWithFlags", "nvmlErrorString") and driver.starts <= driver.stops:
                return UNINITIALIZED
            code = driver.errors.get(name) or (board.errors.get(name) if board else None)
            if code:
                return code
            if find is not None and board is None:
                return INVALID_ARGUMENT
            return body(driver, board, *args)

        return call


# --- handles: a number for each board, and for each of its slices --------------------------------------------------------


def _set_handle(reference: Any, board: int, part: int = 0) -> None:
    ctypes.c_void_p.from_buffer(reference._obj).value = 0x1000 + 0x100 * board + part


def _handle(handle: Any) -> tuple[int, int]:
    return divmod((ctypes.cast(handle, ctypes.c_void_p).value or 0) - 0x1000, 0x100)


def _by_handle(driver: FakeDriver, handle: Any) -> FakeBoard | None:
    number, _ = _handle(handle)
    return driver.boards[number] if 0 <= number < len(driver.boards) else None


def _by_index(driver: FakeDriver, index: Any) -> FakeBoard | None:
    return driver.boards[index.value] if index.value < len(driver.boards) else None


def _answer(reference: Any, number: Number) -> int:
    value = number() if callable(number) else number
    if value is None:
        return NOT_SUPPORTED
    reference._obj.value = round(value)
    return SUCCESS


# --- the C functions ---------------------------------------------------------------------------------------------------


def _init(driver: FakeDriver, _board: None, _flags: int) -> int:
    driver.starts += 1
    return SUCCESS


def _shutdown(driver: FakeDriver, _board: None) -> int:
    driver.stops += 1
    return SUCCESS


def _error_string(_driver: FakeDriver, _board: None, _code: int) -> bytes:
    return b"an error"


def _count(driver: FakeDriver, _board: None, out: Any) -> int:
    return _answer(out, len(driver.boards))


def _handle_by_index(_driver: FakeDriver, _board: FakeBoard, index: Any, out: Any) -> int:
    _set_handle(out, index.value)
    return SUCCESS


def _handle_by_uuid(driver: FakeDriver, _board: None, uuid: Any, out: Any) -> int:
    name = uuid.value.decode()
    for number, board in enumerate(driver.boards):
        for part, known in enumerate([board.uuid, *board.mig]):
            if known == name:
                _set_handle(out, number, part)
                return SUCCESS
    return NOT_FOUND


def _parent(_driver: FakeDriver, _board: FakeBoard, handle: Any, out: Any) -> int:
    number, part = _handle(handle)
    if part == 0:
        return INVALID_ARGUMENT
    _set_handle(out, number)
    return SUCCESS


def _uuid(_driver: FakeDriver, board: FakeBoard, handle: Any, out: Any, _size: Any) -> int:
    out.value = [board.uuid, *board.mig][_handle(handle)[1]].encode()
    return SUCCESS


def _name(_driver: FakeDriver, board: FakeBoard, _handle: Any, out: Any, _size: Any) -> int:
    out.value = board.name.encode()
    return SUCCESS


def _pci(_driver: FakeDriver, board: FakeBoard, _handle: Any, out: Any) -> int:
    info = out._obj
    info.domain, info.bus, info.device = board.pci
    return SUCCESS


def _number(name: str) -> Callable[..., int]:
    return lambda _driver, board, _handle, out: _answer(out, getattr(board, name))


def _capability(_driver: FakeDriver, board: FakeBoard, _handle: Any, major: Any, minor: Any) -> int:
    major._obj.value, minor._obj.value = board.capability
    return SUCCESS


def _mig_mode(_driver: FakeDriver, board: FakeBoard, _handle: Any, current: Any, pending: Any) -> int:
    current._obj.value = pending._obj.value = bool(board.mig)
    return SUCCESS


def _fields(_driver: FakeDriver, board: FakeBoard, _handle: Any, _size: Any, out: Any) -> int:
    for value in out._obj:
        number = board.module_power_mw() if callable(board.module_power_mw) else board.module_power_mw
        if (value.fieldId, value.scopeId) != (pynvml.NVML_FI_DEV_POWER_INSTANT, 1) or number is None:
            value.nvmlReturn = NOT_SUPPORTED
            continue
        value.nvmlReturn = SUCCESS
        if number != number:  # only a double can be NaN
            value.valueType, value.value.dVal = pynvml.NVML_VALUE_TYPE_DOUBLE, number
        else:
            value.valueType, value.value.uiVal = pynvml.NVML_VALUE_TYPE_UNSIGNED_INT, round(number)
    return SUCCESS


_FUNCTIONS: dict[str, tuple[Callable[..., int | bytes], Callable[[FakeDriver, Any], FakeBoard | None] | None]] = {
    "nvmlInitWithFlags": (_init, None),
    "nvmlShutdown": (_shutdown, None),
    "nvmlErrorString": (_error_string, None),
    "nvmlDeviceGetCount_v2": (_count, None),
    "nvmlDeviceGetHandleByIndex_v2": (_handle_by_index, _by_index),
    "nvmlDeviceGetHandleByUUID": (_handle_by_uuid, None),
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": (_parent, _by_handle),
    "nvmlDeviceGetUUID": (_uuid, _by_handle),
    "nvmlDeviceGetName": (_name, _by_handle),
    "nvmlDeviceGetPciInfo_v3": (_pci, _by_handle),
    "nvmlDeviceGetTotalEnergyConsumption": (_number("energy_mj"), _by_handle),
    "nvmlDeviceGetPowerUsage": (_number("power_mw"), _by_handle),
    "nvmlDeviceGetEnforcedPowerLimit": (_number("limit_mw"), _by_handle),
    "nvmlDeviceGetCudaComputeCapability": (_capability, _by_handle),
    "nvmlDeviceGetMigMode": (_mig_mode, _by_handle),
    "nvmlDeviceGetFieldValues": (_fields, _by_handle),
}
