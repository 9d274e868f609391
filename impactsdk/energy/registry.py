"""How measuring processes of one user on one host know of each other, so that no joule is counted twice.

One small file per measuring process in the runtime directory, locked by its owner for as long as it lives: the lock goes
when the process does, however it ends. An entry says from when its owner counts (monotonic time, which all processes of a
boot share) and is written before that instant. Whoever settles an interval reads the entries after the interval has
passed, so an entry that matters to it is always seen.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from impactsdk.energy.machine import namespace, numbers_here
from impactsdk.model import Boundary
from impactsdk.semconv import ENV_RUNTIME_DIR

try:
    import fcntl
except ImportError:  # Windows: no flock, hence no registry; the attribution then says that boards are not split
    fcntl = None  # type: ignore[assignment]

__all__ = ["Peer", "Registry", "runtime_directory", "users_directory"]

_NOTICE_NS = 20_000_000
"""An entry takes effect this long after it was begun to be written."""
_KEEP_S = 120.0
"""Left entries stay this long, for parents that poll rarely."""
_RECHECK_NS = 1_000_000_000
_ONLY_HERE = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
"""How files of the directory are opened: not for programs that are started, and not through a link to a file elsewhere."""
_numbers = itertools.count()


def runtime_directory(environ: Mapping[str, str]) -> Path:
    """Where the entries are kept: ``IMPACTSDK_RUNTIME_DIR``, else the user's runtime directory, else a temporary one.

    It stays the same place where this process, or a child of it, then goes to another folder.
    """
    named = environ.get(ENV_RUNTIME_DIR, "")
    return _absolute(named) if named.strip() else users_directory(environ)


def users_directory(environ: Mapping[str, str]) -> Path:
    """Where they are kept if no place is named: only this user may be there."""
    if environ.get("XDG_RUNTIME_DIR", "").strip() and Path(environ["XDG_RUNTIME_DIR"]).is_dir():
        return _absolute(environ["XDG_RUNTIME_DIR"]) / "impactsdk"
    user = os.getuid() if hasattr(os, "getuid") else 0
    temporary = "/tmp"  # where nothing can be written anywhere: whoever joins is told so
    with suppress(OSError):
        temporary = tempfile.gettempdir()
    return _absolute(temporary) / f"impactsdk-{user}"


def _absolute(path: str) -> Path:
    with suppress(OSError):  # the folder in which this process is was removed
        return Path(path).absolute()
    return Path(path)


@dataclass(frozen=True, slots=True)
class Peer:
    """A process that measures, or did a moment ago. Times are monotonic nanoseconds.

    Numbers of processes are those of ``namespace``, which containers have of their own; ``group`` is the number of the
    directory of its control group, which is the same for all of them.
    """

    key: str
    pid: int
    parent_pid: int
    boundary: Boundary
    cgroup: str | None
    boards: tuple[str, ...]
    joined_ns: int
    left_ns: int | None = None
    namespace: int = 0
    group: int = 0

    def counts_at(self, start_ns: int, end_ns: int) -> tuple[int, int] | None:
        """The part of an interval in which it counts, or ``None``."""
        start_ns = max(start_ns, self.joined_ns)
        end_ns = end_ns if self.left_ns is None else min(end_ns, self.left_ns)
        return (start_ns, end_ns) if start_ns < end_ns else None


class Registry:
    """This process's entry and its view of the others'. Without a usable directory it is alone, and :attr:`error` says why.

    Args:
        directory: Where the entries are.
        private: Whether that is to be a directory of this user alone. One that was named may be shared on purpose.
    """

    def __init__(self, directory: Path, *, private: bool = False) -> None:
        self.directory = directory
        self._private = private and hasattr(os, "geteuid")
        self._descriptor: int | None = None
        self._peers: dict[str, Peer] = {}
        self._gone: dict[str, Peer] = {}
        """Those that have ended: nothing of their entries changes any more, so that they are not read again."""
        self._numbers: dict[str, tuple[int, int]] = {}
        self._stamp: object = None
        self._read_ns = 0
        self.me: Peer | None = None
        self.error: str | None = None

    def join(self, *, boundary: Boundary, cgroup: str | None, boards: Iterable[str], group: int = 0) -> int:
        """Announce this process; return the monotonic instant from which it counts."""
        key = f"{os.getpid()}-{next(_numbers)}-{time.time_ns():x}"
        if fcntl is None:
            self.error = "this platform has no file locks"
            return time.perf_counter_ns()
        try:
            self.prepare()
            notice_ns = _NOTICE_NS
            while True:
                joined_ns = time.perf_counter_ns() + notice_ns
                self.me = Peer(
                    key,
                    os.getpid(),
                    os.getppid(),
                    boundary,
                    cgroup,
                    tuple(boards),
                    joined_ns,
                    namespace=namespace(),
                    group=group,
                )
                self._write(self.me)
                self.peers()  # notes which of the others are dead already
                if time.perf_counter_ns() < joined_ns:
                    return joined_ns
                notice_ns *= 4  # it took longer, as with many entries or on a slow disk
        except OSError as error:
            self.forsake()
            self.error = f"{self.directory} cannot be used ({error.strerror or error})"
            return time.perf_counter_ns()

    def prepare(self) -> None:
        """Make the directory if it is not there.

        Raises:
            OSError: It cannot be made; or it is to be of this user alone, and somebody else may have put something there.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._private:
            status = self.directory.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
                raise PermissionError(errno.EPERM, "it is no directory in which only this user can write")

    def leave(self) -> None:
        """Say that this process counts nothing after now."""
        if self.me is None:
            return
        with suppress(OSError):
            self._write(replace(self.me, left_ns=time.perf_counter_ns()))
        self.forsake()

    def forsake(self) -> None:
        """Let go of the entry without a word; in the child of a fork it is the parent's."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = self.me = None

    def _write(self, peer: Peer) -> None:
        path = self.directory / f"{peer.key}.json"
        fresh = path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_CREAT | os.O_RDWR | os.O_TRUNC | _ONLY_HERE, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(descriptor, json.dumps(asdict(peer)).encode())
            fresh.rename(path)
        except OSError:
            os.close(descriptor)
            with suppress(OSError):
                fresh.unlink()
            raise
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = descriptor

    # --- the others -----------------------------------------------------------------------------------------------------

    def peers(self) -> dict[str, Peer]:
        """All entries by key, this process's included; read again when the directory has changed, and every second."""
        if self.me is None:
            return {}
        now_ns = time.perf_counter_ns()
        try:
            if self._descriptor is not None and not os.fstat(self._descriptor).st_nlink:
                self.prepare()
                self._write(self.me)  # somebody has cleaned up: the others are to see this process again
            changed_ns = self.directory.stat().st_mtime_ns
            # A directory's time moves in steps of some milliseconds: one that changed just now may change unseen.
            settled = time.time_ns() - changed_ns > 50_000_000
            if self._stamp != changed_ns or now_ns - self._read_ns > _RECHECK_NS:
                self._peers = self._load(now_ns)
                self._read_ns = now_ns
                self._stamp = changed_ns if settled else None
            self.error = None
        except OSError as error:
            self._peers = {self.me.key: self.me}
            self._stamp, self.error = None, f"{self.directory} cannot be used any more ({error.strerror or error})"
        return self._peers

    def _load(self, now_ns: int) -> dict[str, Peer]:
        peers: dict[str, Peer] = {} if self.me is None else {self.me.key: self.me}
        for path in self.directory.glob("*.json"):
            key = path.stem
            if key in peers:
                continue
            # Anything may lie there: another version's entry, half a file, a pipe.
            with suppress(OSError, ValueError, TypeError, LookupError, RecursionError):
                if key in self._gone:
                    peers[key] = self._gone[key]
                    _sweep(path)
                    continue
                descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _ONLY_HERE)
                try:
                    record = json.loads(os.read(descriptor, 65536))
                    dead = _lockable(descriptor)
                finally:
                    os.close(descriptor)
                record["boards"] = tuple(record["boards"])
                if not _usable(record) or record["key"] != key:
                    continue
                if dead and record["left_ns"] is None:
                    record["left_ns"] = now_ns
                peers[key] = self._as_numbered_here(Peer(**record))
                if dead:
                    self._gone[key] = peers[key]
                    _sweep(path)
        self._numbers = {key: numbers for key, numbers in self._numbers.items() if key in peers}
        self._gone = {key: peer for key, peer in self._gone.items() if key in peers}
        return peers

    def _as_numbered_here(self, peer: Peer) -> Peer:
        """The peer with the number that it has in this process's numbering, and its parent's; 0 if it is not seen from here."""
        if peer.namespace == namespace() or not peer.namespace:
            return peer
        if peer.key not in self._numbers:
            self._numbers[peer.key] = numbers_here(peer.pid, peer.namespace)
        pid, parent_pid = self._numbers[peer.key]
        return replace(peer, pid=pid, parent_pid=parent_pid)

    def board_share(self, board: str, start_ns: int, end_ns: int) -> tuple[float, float]:
        """This process's part of a board between two instants: one over the number of processes that count it.

        The least and the most of it, where that number changed in between. When in that time the energy was used is not
        known, and each process has other instants of reading: only if each takes its least is nothing counted twice.
        """
        me = self.me
        if me is None or end_ns <= start_ns:
            return 1.0, 1.0
        mine = me.counts_at(start_ns, end_ns)
        if mine is None:
            return 0.0, 0.0
        spans = [span for peer in self.peers().values() if board in peer.boards and (span := peer.counts_at(*mine))]
        cuts = sorted({cut for span in [mine, *spans] for cut in span})
        sharers = [
            max(1, sum(span[0] <= left_ns and span[1] >= right_ns for span in spans))
            for left_ns, right_ns in itertools.pairwise(cuts)
        ]
        return 1 / max(sharers), 1 / min(sharers)


def _usable(record: dict[str, Any]) -> bool:
    """Whether a record has what is calculated with."""
    numbers = [record["pid"], record["parent_pid"], record["joined_ns"], record.get("namespace", 0), record.get("group", 0)]
    if record["left_ns"] is not None:
        numbers.append(record["left_ns"])
    texts = [record["key"], record["boundary"], *record["boards"]]
    if record["cgroup"] is not None:
        texts.append(record["cgroup"])
    return all(type(number) is int for number in numbers) and all(isinstance(text, str) for text in texts)


def _sweep(path: Path) -> None:
    """Remove the entry of one that has ended once nobody needs it any more."""
    if time.time() - path.stat().st_mtime > _KEEP_S:
        path.unlink()


def _lockable(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True
