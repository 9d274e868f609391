from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from impactsdk.energy.cpu_time import CgroupAccount, ProcessTree, cgroup_of, cgroup_usage_s
from impactsdk.energy.registry import Peer, Registry
from impactsdk.testing import wait_until

LIMIT_S = 10.0


# --- processes ----------------------------------------------------------------------------------------------------------------

BURN = "import time\nt = time.process_time() + {s}\nwhile time.process_time() < t: pass\n"
WAIT = "import sys\nprint('done', flush=True)\nsys.stdin.readline()\n"
JOIN = (
    "from pathlib import Path; from impactsdk.energy.registry import Registry\n"
    "r = Registry(Path({directory!r})); r.join(boundary='process', cgroup=None, boards=[])\n"
)


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for child in started:
        if child.poll() is None:
            child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                stream.close()


def started(children: list[subprocess.Popen[str]], code: str) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    children.append(child)
    return child


def said(child: subprocess.Popen[str], word: str = "done") -> None:
    assert child.stdout is not None
    assert child.stdout.readline() == f"{word}\n"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry(tmp_path / "registry")
    registry.join(boundary="process", cgroup=None, boards=[])
    yield registry
    registry.leave()


def others_s(tree: ProcessTree) -> float:
    """What the descendants used, as the tree sees it when it looks at once."""
    tree._scan_at = tree._read_at = 0.0
    tree.own_s()
    return tree._children_s


def test_a_child_that_burns_is_counted_while_it_lives_and_not_again_when_it_is_gone(registry, children) -> None:
    tree = ProcessTree(registry)
    child = started(children, BURN.format(s=0.3) + WAIT)
    others_s(tree)
    said(child)
    lived_s = others_s(tree)
    assert 0.25 <= lived_s < LIMIT_S
    child.communicate("\n")
    assert others_s(tree) == pytest.approx(lived_s, abs=0.2)
    assert others_s(tree) >= lived_s


def test_what_a_child_uses_is_known_while_it_uses_it_and_so_is_what_its_children_use(registry, children) -> None:
    tree = ProcessTree(registry)
    burn = BURN.format(s=30)
    started(children, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])")
    wait_until(lambda: tree.own_s() >= 0 and tree._children_s > 0.3)
    before_s, begun_s = tree._children_s, time.perf_counter()
    while time.perf_counter() - begun_s < 1.0:
        tree.own_s()
        time.sleep(0.05)
    # Not in lumps of a second: it runs all the time, as far as other processes let it.
    assert 0.3 < tree._children_s - before_s < 2.0
    children[-1].kill()
    for child in psutil.process_iter():
        if child.pid in tree._known:
            child.kill()


def test_a_child_that_was_never_seen_alive_is_counted_by_its_reaped_time(registry, children) -> None:
    tree = ProcessTree(registry)
    child = started(children, BURN.format(s=0.3))
    child.wait()
    assert others_s(tree) >= 0.25


def test_a_child_that_measures_for_itself_is_not_counted_neither_alive_nor_reaped(registry, children, tmp_path) -> None:
    tree = ProcessTree(registry)
    code = JOIN.format(directory=str(tmp_path / "registry")) + "print('in', flush=True)\n" + BURN.format(s=0.5) + WAIT
    child = started(children, code)
    said(child, "in")
    before_s = others_s(tree)
    said(child)
    assert others_s(tree) == pytest.approx(before_s, abs=0.02)
    child.communicate("\n")
    assert others_s(tree) == pytest.approx(before_s, abs=0.02)
    assert others_s(tree) == pytest.approx(before_s, abs=0.02)


def test_a_child_that_begins_to_measure_is_no_longer_counted_from_that_moment(registry, children, tmp_path) -> None:
    # Without waiting for the next scan: from when it joins, it counts itself.
    tree = ProcessTree(registry)
    code = "print('up', flush=True)\n" + WAIT + JOIN.format(directory=str(tmp_path / "registry")) + BURN.format(s=0.5) + WAIT
    child = started(children, code)
    said(child, "up")
    said(child)
    before_s = others_s(tree)
    assert child.pid in tree._known
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()
    said(child)
    tree._read_at, tree._scan_at = 0.0, time.perf_counter() + 3600
    tree.own_s()
    assert tree._children_s == pytest.approx(before_s, abs=0.05)


def test_a_process_that_ends_between_two_looks_is_not_counted_twice(registry) -> None:
    # Reaped after its parent's clock was read and before its own: missed once, seen the next time.
    tree = ProcessTree(registry)

    tree._known[999_999_999], tree._last_s[999_999_999] = 0.0, 5.0  # there is no such process
    tree._children_s = 5.0
    reaped_s = tree._reaped_now_s()
    tree._reaped_now_s = lambda: reaped_s  # type: ignore[method-assign]
    tree._scan_at = time.perf_counter() + 3600
    tree._read_at = 0.0
    tree.own_s()
    tree._reaped_now_s = lambda: reaped_s + 5.0  # type: ignore[method-assign]
    tree._read_at = 0.0
    tree.own_s()
    assert tree._children_s == pytest.approx(5.0)


# --- control groups -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "path"),
    [
        ("0::/user.slice/a.scope\n", "/user.slice/a.scope"),
        ("12:cpu,cpuacct:/docker/abc\n0::/other\n", "/docker/abc"),
        ("3:cpuset:/x\n2:cpuacct:/job:7\n1:cpu:/y\n", "/job:7"),
        ("0::/\n", "/"),
        ("5:memory:/x\n", None),
        ("", None),
        ("garbage\n::\n", None),
    ],
)
def test_the_control_group_is_read_from_either_version_of_the_table(table: str, path: str | None) -> None:
    assert cgroup_of(table) == path


def v2(root: Path, path: str, usage_s: float) -> None:
    folder = root / path.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.stat").write_text(f"nr_periods 0\nusage_usec {round(usage_s * 1e6)}\nuser_usec 1\n")


def test_the_usage_of_a_control_group_is_read_from_either_version(tmp_path: Path) -> None:
    v2(tmp_path / "two", "/a/b", 12.5)
    assert cgroup_usage_s("/a/b", tmp_path / "two") == 12.5
    for mount in ("cpuacct", "cpu,cpuacct"):
        folder = tmp_path / mount / "one" / mount / "a"
        folder.mkdir(parents=True)
        (folder / "cpuacct.usage").write_text("3500000000\n")
        assert cgroup_usage_s("/a", tmp_path / mount / "one") == 3.5
    v2(tmp_path / "container", "/", 7.0)  # the group is mounted as the root
    assert cgroup_usage_s("/docker/abc", tmp_path / "container") == 7.0
    assert cgroup_usage_s("/a", tmp_path / "nothing") is None
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "cpu.stat").write_text("usage_usec many\n")
    assert cgroup_usage_s("/", tmp_path / "bad") is None


class Others:
    """A registry of which the test says who is in it."""

    def __init__(self, *peers: Peer) -> None:
        self.me = Peer("me", os.getpid(), 1, "cgroup", "/job", (), 0)
        self._peers = {peer.key: peer for peer in (self.me, *peers)}

    def peers(self) -> dict[str, Peer]:
        return self._peers


def test_a_control_group_is_counted_once_by_those_that_count_it(tmp_path: Path) -> None:
    v2(tmp_path, "/job", 10.0)
    v2(tmp_path, "/job/inner", 2.0)
    now_ns = time.perf_counter_ns()
    others = Others(
        Peer("same", 1, 1, "cgroup", "/job", (), 0),
        Peer("inner", 2, 1, "cgroup", "/job/inner", (), 0),
        Peer("elsewhere", 3, 1, "cgroup", "/jobs", (), 0),
        Peer("gone", 4, 1, "cgroup", "/job", (), 0, now_ns - 10**9),
        Peer("to come", 5, 1, "cgroup", "/job", (), now_ns + 10**15),
    )
    account = CgroupAccount("/job", others, tmp_path)  # type: ignore[arg-type]
    account.own_s()
    v2(tmp_path, "/job", 20.0)
    v2(tmp_path, "/job/inner", 6.0)
    # Ten seconds less the inner group's four, between the two that count this group.
    assert account.own_s() == pytest.approx((10.0 - 4.0) / 2)


def test_one_that_left_since_the_last_look_still_shares_that_time(tmp_path: Path) -> None:
    v2(tmp_path, "/job", 10.0)
    others = Others()
    account = CgroupAccount("/job", others, tmp_path)  # type: ignore[arg-type]
    account.own_s()
    others._peers["left"] = Peer("left", 1, 1, "cgroup", "/job", (), 0, time.perf_counter_ns())
    v2(tmp_path, "/job", 12.0)
    assert account.own_s() == pytest.approx(1.0)
    v2(tmp_path, "/job", 14.0)
    assert account.own_s() == pytest.approx(3.0)


def test_what_a_process_in_the_group_counts_for_itself_is_left_out_from_its_first_moment(tmp_path, children) -> None:
    v2(tmp_path, "/job", 10.0)
    others = Others()
    account = CgroupAccount("/job", others, tmp_path)  # type: ignore[arg-type]
    child = started(children, BURN.format(s=0.3) + WAIT)
    said(child)
    others._peers["child"] = Peer("child", child.pid, os.getpid(), "process", "/job/x", (), 0)
    v2(tmp_path, "/job", 11.0)
    assert account.own_s() <= 0.75
    v2(tmp_path, "/job", 12.0)
    assert account.own_s() <= 1.76


def test_a_group_that_cannot_be_read_for_a_while_counts_nothing_meanwhile(tmp_path: Path) -> None:
    v2(tmp_path, "/job", 10.0)
    account = CgroupAccount("/job", Others(), tmp_path)  # type: ignore[arg-type]
    (tmp_path / "job" / "cpu.stat").unlink()
    assert account.own_s() == 0.0
    v2(tmp_path, "/job", 15.0)
    assert account.own_s() == 0.0
    v2(tmp_path, "/job", 16.0)
    assert account.own_s() == pytest.approx(1.0)
