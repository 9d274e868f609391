"""Where the pool of a channel is kept: one small locked file in the runtime directory, for all measuring processes of a host.

Only the sampler's thread of a process comes here, some ten times a second, for a few microseconds under the lock. The file is
mapped into memory, so that only taking the lock and letting go of it ask the kernel. Whoever holds it and is stopped holds up
nobody: the others go on after some milliseconds without taking, and take the next time. What is written takes effect by one
byte, so that a process which is killed meanwhile leaves what was there before. A file that makes no sense, as one from before
the machine was started, is begun anew; the last one to leave removes it.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import struct
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from impactsdk.energy.pool import Claim, Pool

try:
    import fcntl
except ImportError:  # Windows: then there is no registry either, and every process is alone
    fcntl = None  # type: ignore[assignment]

__all__ = ["PoolFile", "process_clock_s"]

_MOST_CLAIMS = 1024
_HEAD = struct.Struct("<8s16sB")  # magic, start of the machine, which of the two halves holds
_HALF = struct.Struct("<QqddI")  # number of the writing, up to when it is divided, counter, busy seconds, claims
_CLAIM = struct.Struct("<48sqdddd")
_WHICH = _HEAD.size - 1
_HALF_SIZE = _HALF.size + _MOST_CLAIMS * _CLAIM.size
_SIZE = _HEAD.size + 2 * _HALF_SIZE  # the pages that are never written take no room
_MAGIC = b"impact/1"
_GONE = 2
_TRIES, _PAUSE_S = 10, 0.0005
_RECHECK_NS = 1_000_000_000


class PoolFile:
    """The pool of one channel, under the name of the channel. Between :meth:`acquire` and :meth:`release` nobody else has it.

    Args:
        directory: The runtime directory.
        channel: The channel's id.
    """

    def __init__(self, directory: Path, channel: str) -> None:
        self._path = directory / f"{hashlib.sha256(channel.encode()).hexdigest()[:16]}.pool"
        self._descriptor: int | None = None
        self._map: mmap.mmap | None = None
        self._checked_ns = 0
        self._number = 0  # of the writing that `_pool` is
        self._pool: Pool | None = None

    def acquire(self) -> bool:
        """Take the lock; ``False`` if somebody else does not let go of it.

        Raises:
            OSError: The file cannot be made, opened or mapped.
        """
        for _ in range(_TRIES):
            if self._map is None:
                self._open()
            assert self._map is not None and self._descriptor is not None
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_PAUSE_S)
                continue
            now_ns = time.perf_counter_ns()
            gone = self._map[_WHICH] == _GONE
            if not gone and now_ns - self._checked_ns > _RECHECK_NS:  # somebody may clean up the directory
                self._checked_ns = now_ns
                gone = not os.fstat(self._descriptor).st_nlink
            if not gone:
                return True
            self.close()
        return False

    def release(self) -> None:
        """Let go of the lock."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def read(self) -> Pool | None:
        """What was written last; ``None`` if that is nothing to go by."""
        assert self._map is not None
        magic, boot, which = _HEAD.unpack_from(self._map)
        if magic != _MAGIC or boot != _boot() or which > 1:
            return None
        at = _HEAD.size + which * _HALF_SIZE
        number, at_ns, energy_j, busy_s, count = _HALF.unpack_from(self._map, at)
        if self._pool is not None and number == self._number:
            return self._pool  # nobody else has written since
        if count > _MOST_CLAIMS or not 0 <= at_ns <= time.perf_counter_ns():
            return None
        if not (math.isfinite(energy_j) and math.isfinite(busy_s)):
            return None
        pool = Pool(at_ns, energy_j, busy_s)
        at += _HALF.size
        for key, pid, *numbers in _CLAIM.iter_unpack(self._map[at : at + count * _CLAIM.size]):
            if not all(map(math.isfinite, numbers)):
                return None
            pool.claims[key.rstrip(b"\0").decode("ascii", "replace")] = Claim(pid, *numbers)
        self._number, self._pool = number, pool
        return pool

    def write(self, pool: Pool) -> None:
        """Put back a pool that was changed, and remove the file if it has no claim left.

        Raises:
            OSError: There are more claims than it has room for.
        """
        assert self._map is not None
        if len(pool.claims) > _MOST_CLAIMS:
            raise OSError(f"more than {_MOST_CLAIMS} processes measure one device")
        if not pool.claims:
            self._map[_WHICH] = _GONE
            with suppress(OSError):
                self._path.unlink()
            return
        magic, boot, which = _HEAD.unpack_from(self._map)
        known = magic == _MAGIC and boot == _boot() and which <= 1
        half = 1 - which if known else 0
        at = _HEAD.size + half * _HALF_SIZE
        self._number = time.perf_counter_ns()  # no two writings have the same: each comes later, under the lock
        _HALF.pack_into(self._map, at, self._number, pool.at_ns, pool.energy_j, pool.busy_s, len(pool.claims))
        at += _HALF.size
        for key, claim in pool.claims.items():
            numbers = (claim.own_s, claim.clock_s, claim.served_s, claim.owed_j)
            _CLAIM.pack_into(self._map, at, key.encode(), claim.pid, *numbers)
            at += _CLAIM.size
        if known:
            self._map[_WHICH] = half
        else:
            _HEAD.pack_into(self._map, 0, _MAGIC, _boot(), half)
        self._pool = pool

    def close(self) -> None:
        """Let go of the file; in the child of a fork, too."""
        if self._map is not None:
            self._map.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._map = self._descriptor = self._pool = None

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            if os.fstat(descriptor).st_size < _SIZE:  # never made smaller: that would be fatal to those who have it mapped
                os.ftruncate(descriptor, _SIZE)
            self._map = mmap.mmap(descriptor, _SIZE)
        except (OSError, ValueError) as error:
            os.close(descriptor)
            raise OSError(f"{self._path} cannot be mapped: {error}") from error
        self._descriptor, self._checked_ns = descriptor, time.perf_counter_ns()


def process_clock_s(pid: int) -> float | None:
    """CPU seconds of another process, to the nanosecond; ``None`` if it is gone, is none (0), or this is not Linux.

    The clock's number is made as ``clock_getcpuclockid(3)`` makes it: ``MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)`` in Linux's
    ``include/linux/posix-timers_types.h``.
    """
    if pid <= 0:
        return None
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except (OSError, OverflowError, AttributeError):
        return None


@cache
def _boot() -> bytes:
    """Which start of the machine this is: monotonic time and CPU clocks begin anew with each."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        text = b""
    return hashlib.sha256(text).digest()[:16]
