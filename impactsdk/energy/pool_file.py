"""Where the pool of a channel is kept: one small locked file in the runtime directory, for all measuring processes of a host.

Only the sampler's thread of a process comes here, some ten times a second, for a few microseconds under the lock. Whoever holds
it and is stopped holds up nobody: the others go on after some milliseconds without taking, and take the next time. It is read
and written by one call each and not mapped into memory: so a full disk is an error and no signal that ends the process. A file
that makes no sense, as one that a killed process left half written, or one from before the machine was started, is begun anew;
the last one to leave removes it.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from impactsdk.energy.pool import Claim, Pool

try:
    import fcntl
except ImportError:  # Windows: then there is no registry either, and every process is alone
    fcntl = None  # type: ignore[assignment]

__all__ = ["PoolFile"]

_OPEN = os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
_MOST_CLAIMS = 1024
# Magic, start of the machine, number of the writing, up to when it is divided, counter, busy seconds, claims.
_HEAD = struct.Struct("<8s16sQqddI")
_CLAIM = struct.Struct("<48sqqdddd")
_TAIL = struct.Struct("<Q")  # the number again: if it differs, the writing was cut off
_LARGEST = _HEAD.size + _MOST_CLAIMS * _CLAIM.size + _TAIL.size
_MOSTLY = 1024  # a dozen claims: to make room for the largest takes longer than to read
_MAGIC, _GONE = b"impact/1", b"impact/0"
_TRIES, _PAUSE_S = 20, 0.0005
_RECHECK_NS = 1_000_000_000


class PoolFile:
    """The pool of one channel, under the name of the channel. Between :meth:`acquire` and :meth:`release` nobody else has it.

    Args:
        directory: The runtime directory.
        channel: The channel's id.
        prepare: Makes the directory if it is not there, where more belongs to that than to make it.
    """

    def __init__(self, directory: Path, channel: str, prepare: Callable[[], None] | None = None) -> None:
        self._prepare = prepare
        self._path = directory / f"{hashlib.sha256(channel.encode()).hexdigest()[:16]}.pool"
        self._descriptor: int | None = None
        self._checked_ns = 0
        self._content = self._known = b""  # what the file holds, and what of that `_pool` is
        self._pool: Pool | None = None

    def acquire(self) -> bool:
        """Take the lock; ``False`` if somebody else does not let go of it.

        Raises:
            OSError: The file cannot be made, opened or read.
        """
        for _ in range(_TRIES):
            if self._descriptor is None:
                self._open()
            assert self._descriptor is not None
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_PAUSE_S)
                continue
            now_ns = time.perf_counter_ns()
            self._content = os.pread(self._descriptor, _MOSTLY, 0)
            if len(self._content) == _MOSTLY:
                self._content = os.pread(self._descriptor, _LARGEST, 0)
            gone = self._content.startswith(_GONE)
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
        content = self._content
        if self._pool is not None and content.startswith(self._known):
            return self._pool  # nobody else has written since
        if len(content) < _HEAD.size + _TAIL.size:
            return None
        magic, boot, number, at_ns, energy_j, busy_s, count = _HEAD.unpack_from(content)
        end = _HEAD.size + count * _CLAIM.size
        if (
            magic != _MAGIC
            or boot != _boot()
            or len(content) < end + _TAIL.size
            or _TAIL.unpack_from(content, end) != (number,)
        ):
            return None
        if not (0 <= at_ns <= time.perf_counter_ns() and math.isfinite(energy_j) and math.isfinite(busy_s)):
            return None
        pool = Pool(at_ns, energy_j, busy_s)
        for key, pid, namespace, *numbers in _CLAIM.iter_unpack(content[_HEAD.size : end]):
            if not all(map(math.isfinite, numbers)):
                return None
            pool.claims[key.rstrip(b"\0").decode("ascii", "replace")] = Claim(pid, namespace, *numbers)
        self._known, self._pool = content, pool
        return pool

    def write(self, pool: Pool) -> None:
        """Put back a pool that was changed, and remove the file if it has no claim left.

        Raises:
            OSError: There is no room on the disk, or there are more claims than the file may have.
        """
        assert self._descriptor is not None
        if len(pool.claims) > _MOST_CLAIMS:
            raise OSError(f"more than {_MOST_CLAIMS} processes measure one device")
        if not pool.claims:
            os.pwrite(self._descriptor, _GONE, 0)
            with suppress(OSError):
                self._path.unlink()
            return
        number = time.perf_counter_ns()  # no two writings have the same: each comes later, under the lock
        parts = [_HEAD.pack(_MAGIC, _boot(), number, pool.at_ns, pool.energy_j, pool.busy_s, len(pool.claims))]
        for key, claim in pool.claims.items():
            numbers = (claim.own_s, claim.clock_s, claim.served_s, claim.owed_j)
            parts.append(_CLAIM.pack(key.encode(), claim.pid, claim.namespace, *numbers))
        content = b"".join([*parts, _TAIL.pack(number)])
        self._pool = None
        if os.pwrite(self._descriptor, content, 0) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._known, self._pool = content, pool

    def close(self) -> None:
        """Let go of the file; in the child of a fork, too."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = self._pool = None

    def _open(self) -> None:
        if self._prepare is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        else:
            self._prepare()
        self._descriptor = os.open(self._path, _OPEN, 0o600)
        self._checked_ns = time.perf_counter_ns()


@cache
def _boot() -> bytes:
    """Which start of the machine this is: monotonic time and CPU clocks begin anew with each."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        text = b""
    return hashlib.sha256(text).digest()[:16]
