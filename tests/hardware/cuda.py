"""Work for a GPU by the driver's own interface: no framework is needed to load a board, or to see what its launches cost."""

from __future__ import annotations

import ctypes
import time
import uuid
from types import TracebackType
from typing import Any

# So many rounds of multiply-add in each thread; the result is stored, so that it has to be computed.
PTX = b"""
.version 6.0
.target sm_50
.address_size 64
.visible .entry spin(.param .u32 rounds, .param .u64 result)
{
    .reg .f32 %f<3>;
    .reg .b32 %r<3>;
    .reg .b64 %rd<3>;
    .reg .pred %p<2>;
    ld.param.u32 %r1, [rounds];
    ld.param.u64 %rd1, [result];
    mov.f32 %f1, 0f3F800000;
    mov.f32 %f2, 0f3F000000;
    mov.u32 %r2, 0;
again:
    fma.rn.f32 %f1, %f1, %f2, %f2;
    add.u32 %r2, %r2, 1;
    setp.lt.u32 %p1, %r2, %r1;
    @%p1 bra again;
    cvta.to.global.u64 %rd2, %rd1;
    st.global.f32 [%rd2], %f1;
    ret;
}
\0"""
_THREADS = 256


class NoCudaError(Exception):
    """There is no CUDA driver, or no board that it shows."""


class Load:
    """A kernel on the first board that CUDA shows, to be launched as often and as large as is wanted."""

    def __init__(self) -> None:
        try:
            self._cuda = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise NoCudaError(str(error)) from error
        self._device, self._context, self._module = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._function, self._result = ctypes.c_void_p(), ctypes.c_uint64()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(self._device), 0)
        name = (ctypes.c_ubyte * 16)()
        self._call("cuDeviceGetUuid", name, self._device)
        self.board = f"GPU-{uuid.UUID(bytes=bytes(name))}"
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)

    def __enter__(self) -> Load:
        self.here()
        self._call("cuModuleLoadData", ctypes.byref(self._module), PTX)
        self._call("cuModuleGetFunction", ctypes.byref(self._function), self._module, b"spin")
        self._call("cuMemAlloc_v2", ctypes.byref(self._result), ctypes.c_size_t(4))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._call("cuCtxSynchronize")
        self._call("cuDevicePrimaryCtxRelease_v2", self._device)

    def here(self) -> None:
        """Use the board from this thread, too."""
        self._call("cuCtxSetCurrent", self._context)

    def launch(self, rounds: int = 1, blocks: int = 1) -> None:
        """Give the board one kernel to do and do not wait for it."""
        arguments = (ctypes.c_uint(rounds), self._result)
        pointers = (ctypes.c_void_p * 2)(*(ctypes.addressof(argument) for argument in arguments))
        self._call("cuLaunchKernel", self._function, blocks, 1, 1, _THREADS, 1, 1, 0, None, pointers, None)

    def wait(self) -> None:
        """Until the board has done all."""
        self._call("cuCtxSynchronize")

    def work(self, seconds: float) -> None:
        """Keep the whole board busy for about so long."""
        until_s = time.perf_counter() + seconds
        while time.perf_counter() < until_s:
            self.launch(rounds=20_000, blocks=4_096)
            self.wait()

    def _call(self, name: str, *arguments: Any) -> None:
        result = getattr(self._cuda, name)(*arguments)
        if result:
            raise NoCudaError(f"{name}: CUDA error {result}")
