"""The CPU time of a control group (a container, a pod, a job), less what other measuring processes in it count.

A group is known by the number of its directory: its path begins anew in each container, so that two that have nothing to do
with each other may both be called ``/``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from impactsdk.energy.cpu_time import ProcessTree
from impactsdk.energy.registry import Peer, Registry

__all__ = ["CgroupAccount", "cgroup_of", "cgroup_usage_s", "group_number"]

ROOT = Path("/sys/fs/cgroup")
_MOUNTS = ("", "unified", "cpuacct", "cpu,cpuacct")


def cgroup_of(table: str) -> str | None:
    """The path of the CPU control group in the text of ``/proc/<pid>/cgroup``; version 2 (``0::``) or 1 (``cpuacct``)."""
    unified = None
    for line in table.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "cpuacct" in controllers.split(","):
            return path or None
        if not controllers:
            unified = path
    return unified or None


def _folders(cgroup: str, root: Path) -> Iterator[Path]:
    for mount in _MOUNTS:
        yield root / mount / cgroup.lstrip("/")


def _usage_in_s(folder: Path) -> float | None:
    try:
        for line in (folder / "cpu.stat").read_text().splitlines():
            if line.startswith("usage_usec "):
                return int(line.split()[1]) / 1e6
    except (OSError, ValueError):
        pass
    try:
        return int((folder / "cpuacct.usage").read_text()) / 1e9
    except (OSError, ValueError):
        return None


def _found(cgroup: str, root: Path, *, own: bool) -> tuple[Path, float] | None:
    """Where a group's usage can be read, and what it is. The ``own`` one is often mounted as the root of all that is seen."""
    for path in (cgroup, "/") if own else (cgroup,):
        for folder in _folders(path, root):
            usage_s = _usage_in_s(folder)
            if usage_s is not None:
                return folder, usage_s
    return None


def cgroup_usage_s(cgroup: str, root: Path = ROOT) -> float | None:
    """Cumulative CPU seconds of this process's control group; ``None`` if they cannot be read."""
    found = _found(cgroup, root, own=True)
    return None if found is None else found[1]


def group_number(cgroup: str | None, root: Path = ROOT) -> int:
    """The number by which this process's group is known in all containers of the host; 0 if it cannot be seen."""
    found = None if cgroup is None else _found(cgroup, root, own=True)
    return 0 if found is None else _number(found[0])


def _number(folder: Path | str) -> int:
    try:
        return os.stat(folder).st_ino  # noqa: PTH116 - of each folder of a tree
    except OSError:
        return 0


class CgroupAccount:
    """CPU seconds of a control group that this process counts, where several processes in it may measure."""

    def __init__(self, cgroup: str, registry: Registry, root: Path) -> None:
        self._cgroup, self._registry, self._root = cgroup, registry, root
        self._own_s = 0.0
        self._looked_ns = time.perf_counter_ns()
        self._usage_s = cgroup_usage_s(cgroup, root)
        self._trees: dict[str, tuple[ProcessTree, float]] = {}
        self._inner: dict[str, float] = {}
        self._paths: dict[str, str | None] = {}

    def own_s(self) -> float:
        """Cumulative seconds since this object was made."""
        since_ns, self._looked_ns = self._looked_ns, time.perf_counter_ns()
        usage_s = cgroup_usage_s(self._cgroup, self._root)
        if usage_s is None or self._usage_s is None:
            self._usage_s = usage_s
            return self._own_s
        gained_s = usage_s - self._usage_s
        self._usage_s = usage_s
        me = self._registry.me
        sharers = 1
        inner: set[str] = set()
        singles: dict[str, tuple[str, Peer]] = {}
        peers = self._registry.peers()
        for key, peer in peers.items():
            if (me is not None and key == me.key) or peer.cgroup is None:
                continue
            path = self._path_of(peer)
            if path is None or peer.counts_at(since_ns, self._looked_ns) is None:
                continue
            if peer.boundary == "cgroup" and path == self._cgroup:
                sharers += 1
            elif peer.boundary == "cgroup" and _inside(path, [self._cgroup]):
                inner.add(path)
            elif peer.boundary == "process" and _inside(path, [self._cgroup]):
                singles[key] = path, peer
        # What is counted in a group within one of these is in that one's time already.
        outermost = [path for path in inner if not _inside(path, inner - {path})]
        gained_s -= sum(self._gained_inside(path) for path in outermost)
        gained_s -= sum(self._gained_by(key, peer) for key, (path, peer) in singles.items() if not _inside(path, outermost))
        self._trees = {key: tree for key, tree in self._trees.items() if key in peers}
        self._paths = {key: path for key, path in self._paths.items() if key in peers}
        self._own_s += max(0.0, gained_s) / sharers
        return self._own_s

    def _path_of(self, peer: Peer) -> str | None:
        """What the peer's group is called here; ``None`` if it is not seen from here, and so is not in this group."""
        if peer.key not in self._paths:
            self._paths[peer.key] = self._looked_up(peer)
        return self._paths[peer.key]

    def _looked_up(self, peer: Peer) -> str | None:
        own = _found(self._cgroup, self._root, own=True)
        if not peer.group or own is None or peer.cgroup is None:
            return peer.cgroup
        folder = own[0]
        if peer.group == _number(folder):
            return self._cgroup
        if peer.group in map(_number, _folders(peer.cgroup, self._root)):
            return peer.cgroup
        for parent, names, _ in os.walk(folder):
            for name in names:
                path = os.path.join(parent, name)  # noqa: PTH118
                if _number(path) == peer.group:
                    return self._cgroup.rstrip("/") + path.removeprefix(str(folder))
        return None

    def _gained_inside(self, cgroup: str) -> float:
        found = _found(cgroup, self._root, own=False)
        usage_s = 0.0 if found is None else found[1]
        before_s = self._inner.get(cgroup, usage_s)
        self._inner[cgroup] = usage_s
        return max(0.0, usage_s - before_s)

    def _gained_by(self, key: str, peer: Peer) -> float:
        import psutil

        if not peer.pid:  # of another container's numbering, and not seen from here
            return 0.0
        try:
            tree, before_s = self._trees.get(key, (None, 0.0))  # one that is new may have used all of its time just now
            if tree is None:
                tree = ProcessTree(self._registry, peer.pid)
            now_s = tree.own_s()
        except psutil.Error:
            return 0.0
        self._trees[key] = (tree, now_s)
        return max(0.0, now_s - before_s)


def _inside(path: str, groups: Collection[str]) -> bool:
    """Whether a path is one of some groups, or in one of them."""
    return any((path.rstrip("/") + "/").startswith(group.rstrip("/") + "/") for group in groups)
