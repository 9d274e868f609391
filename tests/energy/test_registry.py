from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from impactsdk.energy import registry as registries
from impactsdk.energy.machine import namespace, numbers_here
from impactsdk.energy.registry import Peer, Registry, runtime_directory
from impactsdk.testing import wait_until

BOARD = "gpu:GPU-a"


def joined(directory: Path, boards: tuple[str, ...] = (BOARD,)) -> Registry:
    registry = Registry(directory)
    registry.join(boundary="process", cgroup=None, boards=boards)
    return registry


def peer(number: int, joined_ns: int, left_ns: int | None = None, boards: tuple[str, ...] = (BOARD,)) -> Peer:
    return Peer(f"peer-{number}", 10_000 + number, 1, "process", None, boards, joined_ns, left_ns)


@contextmanager
def entered(directory: Path, peers: list[Peer]) -> Iterator[list[Registry]]:
    """The peers as entries that are alive, and what each of them sees."""
    descriptors = []
    directory.mkdir(exist_ok=True)
    for path in directory.iterdir():
        path.unlink()
    for one in peers:
        path = directory / f"{one.key}.json"
        path.write_text(json.dumps(asdict(one)))
        descriptors.append(os.open(path, os.O_RDWR))
        fcntl.flock(descriptors[-1], fcntl.LOCK_EX)
    seen = [Registry(directory) for _ in peers]
    for registry, one in zip(seen, peers, strict=True):
        registry.me = one
    try:
        yield seen
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def test_two_that_join_see_each_other_and_one_that_leaves_counts_no_more(tmp_path: Path) -> None:
    first, second = joined(tmp_path), joined(tmp_path)
    assert first.me is not None
    assert second.me is not None
    assert set(first.peers()) == set(second.peers()) == {first.me.key, second.me.key}
    time.sleep(0.03)
    now_ns = time.perf_counter_ns()
    assert first.board_share(BOARD, now_ns - 1_000, now_ns) == (0.5, 0.5)
    assert first.board_share("gpu:another", now_ns - 1_000, now_ns) == (1.0, 1.0)
    second.leave()
    time.sleep(0.001)
    now_ns = time.perf_counter_ns()
    assert first.board_share(BOARD, now_ns - 1_000, now_ns) == (1.0, 1.0)
    first.leave()
    first.leave()
    assert first.board_share(BOARD, 0, 1) == (1.0, 1.0)
    assert first.peers() == {}


def test_an_entry_counts_only_from_an_instant_after_it_can_be_seen(tmp_path: Path) -> None:
    first = joined(tmp_path)
    second = Registry(tmp_path)
    before_ns = time.perf_counter_ns()
    from_ns = second.join(boundary="process", cgroup=None, boards=[BOARD])
    assert time.perf_counter_ns() < from_ns
    assert second.me is not None
    assert second.me.key in first.peers()
    assert second.board_share(BOARD, before_ns, from_ns) == (0.0, 0.0)
    least, most = second.board_share(BOARD, before_ns, from_ns + 1_000)
    assert least == most == 0.5
    first.leave()
    second.leave()


def test_one_that_is_killed_counts_until_it_is_missed_and_then_no_more(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from impactsdk.energy.registry import Registry\n"
        f"r = Registry(Path(sys.argv[1])); r.join(boundary='process', cgroup=None, boards=['{BOARD}'])\n"
        "print('in', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "in\n"
    registry = joined(tmp_path)
    time.sleep(0.05)
    now_ns = time.perf_counter_ns()
    assert registry.board_share(BOARD, now_ns - 1_000, now_ns) == (0.5, 0.5)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()

    def alone() -> bool:
        now_ns = time.perf_counter_ns()
        return registry.board_share(BOARD, now_ns - 1_000, now_ns) == (1.0, 1.0)

    assert wait_until(alone)
    # One that comes later is not made to share with the dead.
    later = joined(tmp_path)
    registry.leave()
    time.sleep(0.03)
    assert later.me is not None
    least, _ = later.board_share(BOARD, max(later.me.joined_ns, time.perf_counter_ns() - 1_000), time.perf_counter_ns())
    assert least == 1.0
    later.leave()


def test_an_old_entry_of_the_dead_is_swept_away_and_a_fresh_one_kept(tmp_path: Path) -> None:
    for number, age_s in ((1, 3_600), (2, 1)):
        path = tmp_path / f"peer-{number}.json"
        path.write_text(json.dumps(asdict(peer(number, 0))))
        os.utime(path, (time.time() - age_s,) * 2)
    registry = joined(tmp_path)
    assert set(registry.peers()) >= {"peer-2"}
    assert [path.name for path in tmp_path.glob("peer-*")] == ["peer-2.json"]
    registry.leave()


def test_the_entry_of_one_that_has_ended_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "peer-1.json"
    path.write_text(json.dumps(asdict(peer(1, 0))))
    registry = joined(tmp_path)
    ended = registry.peers()["peer-1"]
    assert ended.left_ns is not None
    path.write_text("")
    registry._stamp = None
    assert registry.peers()["peer-1"] is ended
    path.unlink()
    registry._stamp = None
    assert "peer-1" not in registry.peers()
    registry.leave()


GARBAGE = [
    "",
    "{",
    "[]",
    "{}",
    "null",
    "3",
    '"text"',
    '{"boards": 3}',
    '{"boards": ["gpu:GPU-a"]}',
    "[" * 100_000,
    json.dumps(asdict(peer(1, 0)) | {"joined_ns": "yesterday"}),
    json.dumps(asdict(peer(1, 0)) | {"left_ns": 0.5}),
    json.dumps(asdict(peer(1, 0)) | {"pid": None}),
    json.dumps(asdict(peer(1, 0)) | {"boards": [3]}),
    json.dumps(asdict(peer(1, 0)) | {"cgroup": 3}),
    json.dumps(asdict(peer(1, 0)) | {"more": "of a later version"}),
    json.dumps(asdict(peer(2, 0))),
    "\x00\xff",
]


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_in_the_directory_is_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "peer-1.json").write_text(text)
    registry = joined(tmp_path)
    assert registry.me is not None
    now_ns = time.perf_counter_ns() + 10**9
    assert set(registry.peers()) == {registry.me.key}
    assert registry.board_share(BOARD, now_ns, now_ns + 1_000) == (1.0, 1.0)
    registry.leave()


def test_a_pipe_a_directory_or_a_dangling_link_in_the_directory_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "b.json").mkdir()
    (tmp_path / "c.json").symlink_to(tmp_path / "nowhere")
    registry = joined(tmp_path)
    assert len(registry.peers()) == 1
    registry.leave()


def test_without_a_usable_directory_one_is_alone_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    registry = joined(tmp_path / "file" / "below")
    assert registry.me is None
    assert registry.error is not None
    assert "cannot be used" in registry.error
    assert registry.peers() == {}
    assert registry.board_share(BOARD, 0, 10) == (1.0, 1.0)
    registry.leave()


def test_somebody_who_cleans_the_directory_away_does_not_stop_the_account(tmp_path: Path) -> None:
    registry = joined(tmp_path / "runtime")
    for path in (tmp_path / "runtime").iterdir():
        path.unlink()
    (tmp_path / "runtime").rmdir()
    now_ns = time.perf_counter_ns() + 10**9
    assert registry.board_share(BOARD, now_ns, now_ns + 1) == (1.0, 1.0)
    other = joined(tmp_path / "runtime")  # the first has entered itself again, and the two share the board
    assert registry.board_share(BOARD, now_ns, now_ns + 1) == (0.5, 0.5)
    assert other.board_share(BOARD, now_ns, now_ns + 1) == (0.5, 0.5)
    registry.leave()
    other.leave()


def test_a_child_of_a_fork_drops_its_parents_entry_and_the_parent_keeps_it(tmp_path: Path) -> None:
    registry = joined(tmp_path)
    pid = os.fork()
    if not pid:
        registry.forsake()
        os._exit(0 if registry.me is None and registry._descriptor is None else 1)
    assert os.waitpid(pid, 0)[1] == 0
    other = joined(tmp_path)
    assert registry.me is not None
    assert other.peers()[registry.me.key].left_ns is None
    registry.leave()
    other.leave()


lives = st.lists(
    st.tuples(st.integers(0, 100), st.one_of(st.none(), st.integers(0, 100)), st.booleans()), min_size=1, max_size=5
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lives, st.lists(st.integers(0, 120), min_size=2, max_size=8), st.data())
def test_at_no_instant_do_all_together_count_more_of_a_board_than_there_is(tmp_path, told, cuts, data) -> None:
    # Each process cuts the time as it likes and counts each stretch at its own share.
    peers = [peer(number, start, left, (BOARD,) if on else ("gpu:other",)) for number, (start, left, on) in enumerate(told)]
    with entered(tmp_path / "runtime", peers) as seen:
        counted = [0.0] * 120
        for registry in seen:
            assert registry.me is not None
            if BOARD not in registry.me.boards:
                continue
            own = sorted({0, 120, *data.draw(st.lists(st.integers(0, 120), max_size=4))})
            for left, right in pairwise(own):
                least, most = registry.board_share(BOARD, left, right)
                assert 0.0 <= least <= most <= 1.0
                for instant in range(max(left, registry.me.joined_ns), min(right, registry.me.left_ns or 120)):
                    counted[instant] += least
        assert max(counted) <= 1.0 + 1e-9
        for left, right in zip(sorted(cuts), sorted(cuts)[1:], strict=False):
            if right > left and all(one.joined_ns <= left and one.left_ns is None for one in peers):
                shares = [r.board_share(BOARD, left, right)[0] for r in seen if r.me is not None and BOARD in r.me.boards]
                assert sum(shares) == pytest.approx(1.0 if shares else 0.0)


def test_the_directory_is_the_one_that_is_named_else_the_users(tmp_path: Path) -> None:
    assert runtime_directory({"IMPACTSDK_RUNTIME_DIR": "/named", "XDG_RUNTIME_DIR": str(tmp_path)}) == Path("/named")
    assert runtime_directory({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path / "impactsdk"
    assert runtime_directory({"XDG_RUNTIME_DIR": str(tmp_path / "no")}).name == f"impactsdk-{os.getuid()}"


def test_a_directory_that_is_named_from_where_one_is_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert runtime_directory({"IMPACTSDK_RUNTIME_DIR": "runtime"}) == tmp_path / "runtime"


def test_in_a_folder_that_was_removed_one_is_alone_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert "No such file" in alone(runtime_directory({"IMPACTSDK_RUNTIME_DIR": "runtime"}))


def alone(directory: Path) -> str:
    """Why a process is alone with a directory that is to be its user's."""
    registry = Registry(directory, private=True)
    registry.join(boundary="process", cgroup=None, boards=[BOARD])
    assert registry.me is None
    assert registry.error is not None
    return registry.error


def test_the_users_own_directory_is_not_used_if_others_could_have_put_something_there(tmp_path: Path, monkeypatch) -> None:
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    theirs.mkdir()
    mine.symlink_to(theirs)
    assert "only this user" in alone(mine)
    assert not list(theirs.iterdir())
    theirs.chmod(0o777)
    assert "only this user" in alone(theirs)
    named = joined(theirs)  # may be shared on purpose
    assert named.error is None
    named.leave()
    theirs.chmod(0o700)
    registry = Registry(theirs, private=True)
    registry.join(boundary="process", cgroup=None, boards=[BOARD])
    assert registry.error is None
    registry.leave()
    monkeypatch.setattr(os, "geteuid", lambda: theirs.stat().st_uid + 1)
    assert "only this user" in alone(theirs)


def test_one_that_cannot_enter_itself_again_is_alone_and_says_so_until_it_can(tmp_path: Path) -> None:
    registry, directory = joined(tmp_path / "runtime"), tmp_path / "runtime"
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    directory.write_text("")
    assert len(registry.peers()) == 1
    assert registry.error is not None
    assert "cannot be used any more" in registry.error
    directory.unlink()
    other = joined(directory)
    assert len(registry.peers()) == 2
    assert registry.error is None
    registry.leave()
    other.leave()


def test_where_there_are_no_file_locks_one_is_alone_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registries, "fcntl", None)
    registry = joined(tmp_path)
    assert registry.error == "this platform has no file locks"
    assert registry.peers() == {}


# --- other numberings of processes ----------------------------------------------------------------------------------------


def beside(directory: Path, one: Peer) -> Peer:
    """How a process sees an entry."""
    registry = joined(directory)
    with entered_beside(directory, one):
        try:
            return registry.peers()[one.key]
        finally:
            registry.leave()


@contextmanager
def entered_beside(directory: Path, one: Peer) -> Iterator[None]:
    path = directory / f"{one.key}.json"
    path.write_text(json.dumps(asdict(one)))
    descriptor = os.open(path, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="this system has one numbering of processes")
def test_the_number_of_a_process_of_another_container_is_none_of_ours(tmp_path: Path) -> None:
    theirs = Peer("theirs", os.getpid(), os.getppid(), "process", None, (BOARD,), 0, namespace=1)
    seen = beside(tmp_path, theirs)
    assert (seen.pid, seen.parent_pid) == (0, 0)
    ours = Peer("ours", os.getpid(), os.getppid(), "process", None, (BOARD,), 0, namespace=namespace())
    assert beside(tmp_path, ours) == ours
    of_before = Peer("of before", os.getpid(), os.getppid(), "process", None, (BOARD,), 0)
    assert beside(tmp_path, of_before) == of_before


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="this system has one numbering of processes")
def test_a_process_is_found_by_the_number_that_it_has_elsewhere() -> None:
    assert numbers_here(os.getpid(), namespace()) == (os.getpid(), os.getppid())
    assert numbers_here(os.getpid(), 1) == (0, 0)
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as other:
        try:
            inner = Path(f"/proc/{other.pid}/task/{other.pid}/children")
            if not wait_until(lambda: other.poll() is not None or bool(inner.read_text().split())) or other.poll() is not None:
                pytest.skip("no new numbering can be made here")
            pid = int(inner.read_text().split()[0])
            theirs = Path(f"/proc/{pid}/ns/pid").stat().st_ino
            assert theirs != namespace()
            assert numbers_here(1, theirs) == (pid, other.pid)
        finally:
            other.kill()


def test_joining_takes_no_longer_the_more_entries_there_are_to_look_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at them takes longer than the notice that is given."""
    registry, looks = Registry(tmp_path), []
    load = Registry._load

    def slow(self: Registry, now_ns: int) -> dict[str, Peer]:
        looks.append(now_ns)
        time.sleep(0.05)
        return load(self, now_ns)

    monkeypatch.setattr(Registry, "_load", slow)
    joined_ns = registry.join(boundary="process", cgroup=None, boards=[BOARD])
    assert time.perf_counter_ns() < joined_ns
    assert len(looks) <= 3
    registry.leave()
