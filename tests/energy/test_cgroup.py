from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from impactsdk.energy.cgroup import CgroupAccount, cgroup_of, cgroup_usage_s, group_number
from impactsdk.energy.registry import Peer

BURN_AND_WAIT = (
    "import sys, time\nt = time.process_time() + 0.3\nwhile time.process_time() < t: pass\n"
    "print('done', flush=True)\nsys.stdin.readline()\n"
)


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

    def __init__(self, *peers: Peer, cgroup: str = "/job") -> None:
        self.me = Peer("me", os.getpid(), 1, "cgroup", cgroup, (), 0)
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


def test_what_a_process_in_the_group_counts_for_itself_is_left_out_from_its_first_moment(tmp_path: Path) -> None:
    v2(tmp_path, "/job", 10.0)
    others = Others()
    account = CgroupAccount("/job", others, tmp_path)  # type: ignore[arg-type]
    with subprocess.Popen(
        [sys.executable, "-c", BURN_AND_WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "done\n"
        others._peers["child"] = Peer("child", child.pid, os.getpid(), "process", "/job/x", (), 0)
        v2(tmp_path, "/job", 11.0)
        assert account.own_s() <= 0.75
        v2(tmp_path, "/job", 12.0)
        assert account.own_s() <= 1.76
        child.stdin.close()


def test_a_group_that_cannot_be_read_for_a_while_counts_nothing_meanwhile(tmp_path: Path) -> None:
    v2(tmp_path, "/job", 10.0)
    account = CgroupAccount("/job", Others(), tmp_path)  # type: ignore[arg-type]
    (tmp_path / "job" / "cpu.stat").unlink()
    assert account.own_s() == 0.0
    v2(tmp_path, "/job", 15.0)
    assert account.own_s() == 0.0
    v2(tmp_path, "/job", 16.0)
    assert account.own_s() == pytest.approx(1.0)


def gained_s(root: Path, cgroup: str, usages_s: dict[str, float], *peers: Peer) -> float:
    """What an account gains while the groups use so much."""
    for path in usages_s:
        v2(root, path, 100.0)
    account = CgroupAccount(cgroup, Others(*peers, cgroup=cgroup), root)  # type: ignore[arg-type]
    account.own_s()
    for path, used_s in usages_s.items():
        v2(root, path, 100.0 + used_s)
    return account.own_s()


def in_group(key: str, cgroup: str, boundary: Any = "cgroup", **more: int) -> Peer:
    return Peer(key, 999_999, 1, boundary, cgroup, (), 0, **more)


def test_groups_within_groups_are_left_out_once(tmp_path: Path) -> None:
    usages_s = {"/a": 7.0, "/a/b": 6.0, "/a/b/c": 4.0}
    peers = [in_group(path, path) for path in usages_s]
    found = {path: gained_s(tmp_path, path, usages_s, *(peer for peer in peers if peer.cgroup != path)) for path in usages_s}
    assert found == pytest.approx({"/a": 1.0, "/a/b": 2.0, "/a/b/c": 4.0})


def test_a_process_in_a_group_that_is_left_out_is_not_left_out_again(tmp_path: Path) -> None:
    inner = in_group("inner", "/a/b")
    single = Peer("single", os.getpid(), os.getppid(), "process", "/a/b", (), 0)
    assert gained_s(tmp_path, "/a", {"/a": 7.0, "/a/b": 6.0}, inner, single) == pytest.approx(1.0)


def test_a_group_that_is_not_seen_from_here_takes_nothing_from_ours(tmp_path: Path) -> None:
    """In a container the own group is the root of all that is seen, whatever it is called."""
    elsewhere = in_group("elsewhere", "/docker/b", group=12_345)
    assert gained_s(tmp_path, "/", {"/": 5.0}, elsewhere) == pytest.approx(5.0)
    assert gained_s(tmp_path, "/docker/a", {"/": 5.0}, elsewhere) == pytest.approx(5.0)


def test_two_containers_that_both_call_their_group_the_root_are_two(tmp_path: Path) -> None:
    v2(tmp_path / "other", "/", 0.0)
    other, own = group_number("/", tmp_path / "other"), group_number("/", tmp_path / "own")
    assert (own, other > 0) == (0, True)
    assert gained_s(tmp_path / "own", "/", {"/": 5.0}, in_group("other", "/", group=other)) == pytest.approx(5.0)
    same = group_number("/", tmp_path / "own")
    assert gained_s(tmp_path / "own", "/", {"/": 5.0}, in_group("same", "/called/otherwise", group=same)) == pytest.approx(2.5)


def test_a_container_within_this_group_is_found_though_it_calls_itself_the_root(tmp_path: Path) -> None:
    v2(tmp_path, "/pod/container", 0.0)
    number = group_number("/pod/container", tmp_path)
    usages_s = {"/pod": 7.0, "/pod/container": 6.0}
    assert gained_s(tmp_path, "/pod", usages_s, in_group("container", "/", group=number)) == pytest.approx(1.0)
