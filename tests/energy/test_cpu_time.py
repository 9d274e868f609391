from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from impactsdk.energy import cpu_time
from impactsdk.energy.cpu_time import ProcessTree
from impactsdk.energy.machine import process_clock_s
from impactsdk.energy.registry import Registry
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


def look_at_once(tree: ProcessTree) -> None:
    tree._scan_at = tree._read_at = 0.0
    tree._newest = None
    tree.own_s()


def others_s(tree: ProcessTree) -> float:
    """What the descendants used, as the tree sees it when it looks at once."""
    look_at_once(tree)
    return tree._children_s


def test_a_child_that_burns_is_counted_while_it_lives_and_not_again_when_it_is_gone(registry, children) -> None:
    tree = ProcessTree(registry)
    child = started(children, BURN.format(s=0.3) + WAIT)
    others_s(tree)
    said(child)
    lived_s = others_s(tree)
    assert tree.working
    others_s(tree)
    assert not tree.working
    assert 0.25 <= lived_s < LIMIT_S
    child.communicate("\n")
    assert others_s(tree) == pytest.approx(lived_s, abs=0.2)
    assert others_s(tree) >= lived_s


def test_what_a_child_uses_is_known_while_it_uses_it_and_so_is_what_its_children_use(registry, children) -> None:
    tree = ProcessTree(registry)
    burn = BURN.format(s=30)
    started(children, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])")
    wait_until(lambda: tree.own_s() >= 0 and tree._children_s > 0.3)
    burning = next(pid for pid in tree._known if pid != children[-1].pid)

    def unseen_s() -> float:
        tree.own_s()
        used_s = process_clock_s(burning)
        assert used_s is not None
        return used_s - tree._children_s

    before_s, most_s = unseen_s(), (process_clock_s(burning) or 0.0) + 0.5
    while (process_clock_s(burning) or 0.0) < most_s:
        time.sleep(0.05)
        assert unseen_s() < before_s + 0.3  # and not in lumps of a second
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

    tree._known[999_999_999], tree._last_s[999_999_999] = 0.0, (5.0, 0.0)  # there is no such process
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


def told(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def test_what_living_children_use_is_kept_when_one_that_measured_for_itself_ends(registry, children, tmp_path) -> None:
    tree = ProcessTree(registry)
    heavy = started(children, "print('up', flush=True)\n" + WAIT + BURN.format(s=0.3) + WAIT)
    worker = started(children, JOIN.format(directory=str(tmp_path / "registry")) + BURN.format(s=0.3) + WAIT)
    said(heavy, "up")
    said(heavy)
    said(worker)
    before_s = others_s(tree)
    assert worker.pid in tree._awaited.values()
    told(heavy)
    said(heavy)
    worker.communicate("\n")
    assert 0.25 <= others_s(tree) - before_s < 0.45  # and not what the worker used, which it has counted itself
    assert others_s(tree) - before_s < 0.45


def test_one_that_lost_its_parent_and_then_measures_for_itself_is_not_counted_any_more(registry, children, tmp_path) -> None:
    tree = ProcessTree(registry)
    code = "print('up', flush=True)\n" + WAIT + JOIN.format(directory=str(tmp_path / "registry")) + BURN.format(s=0.3) + WAIT
    child = started(children, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])")
    said(child, "up")
    said(child)
    others_s(tree)
    orphans = tree._known.keys() - {child.pid}
    assert len(orphans) == 1
    child.kill()
    child.wait()
    before_s = others_s(tree)
    assert tree._known.keys() == orphans  # it was ours and goes on being so, until it counts itself
    told(child)
    said(child)
    assert others_s(tree) - before_s < 0.1
    assert not tree._known


def test_one_that_has_measured_is_counted_again_from_when_it_has_stopped(registry, children, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cpu_time, "_newest_process", lambda: b"7")
    tree = ProcessTree(registry)
    join = JOIN.format(directory=str(tmp_path / "registry"))
    child = started(children, join + BURN.format(s=0.3) + WAIT + "r.leave()\n" + WAIT + BURN.format(s=0.4) + WAIT)
    said(child)
    assert others_s(tree) < 0.1
    told(child)
    said(child)
    before_s, tree._scan_at, tree._read_at = tree._children_s, time.perf_counter(), 0.0
    tree._newest = b"7"
    tree.own_s()  # without waiting for some process to begin
    assert child.pid in tree._known
    told(child)
    said(child)
    assert others_s(tree) - before_s == pytest.approx(0.4, abs=0.1)
    child.communicate("\n")
    assert others_s(tree) - before_s == pytest.approx(0.4, abs=0.1)


def test_one_that_has_stopped_and_begun_again_is_looked_for_once(registry, children, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cpu_time, "_newest_process", lambda: b"7")
    tree = ProcessTree(registry)
    join = JOIN.format(directory=str(tmp_path / "registry"))
    child = started(children, join + WAIT + "r.leave()\nr.join(boundary='process', cgroup=None, boards=[])\n" + WAIT)
    said(child)
    look_at_once(tree)
    assert child.pid in tree._awaited.values()
    told(child)
    said(child)
    tree._scan_at, tree._read_at = time.perf_counter(), 0.0
    tree._newest = b"7"
    tree.own_s()
    assert child.pid not in tree._known
    for _ in range(3):
        tree._scan_at, tree._read_at = time.perf_counter() + 3600, 0.0
        tree.own_s()
        assert not tree.blind


def test_one_that_began_and_ended_measuring_between_two_looks_is_not_counted_for_that(registry, children, tmp_path) -> None:
    tree = ProcessTree(registry)
    join = JOIN.format(directory=str(tmp_path / "registry"))
    child = started(children, "print('up', flush=True)\n" + WAIT + join + BURN.format(s=0.4) + "r.leave()\n" + WAIT)
    said(child, "up")
    said(child)
    before_s = others_s(tree)
    assert child.pid in tree._known
    told(child)
    said(child)
    assert others_s(tree) - before_s < 0.1
    assert child.pid in tree._known
    child.communicate("\n")
    assert others_s(tree) - before_s < 0.1


def test_children_are_looked_for_as_soon_as_a_process_was_begun_and_rarely_otherwise(registry, children, monkeypatch) -> None:
    newest, walks = [b"7"], []
    descendants = cpu_time._descendants
    monkeypatch.setattr(cpu_time, "_newest_process", lambda: newest[0])
    monkeypatch.setattr(cpu_time, "_descendants", lambda pid: walks.append(pid) or descendants(pid))
    tree = ProcessTree(registry)
    child = started(children, "print('up', flush=True)\n" + WAIT)
    said(child, "up")
    looked = []
    for newest[0] in (b"7", b"8", b"8"):
        tree._scan_at, tree._read_at = time.perf_counter(), 0.0
        walks.clear()
        tree.own_s()
        looked.append(len(walks))
        assert not tree.blind
    assert looked == [0, 1, 0]


def test_a_look_that_was_held_up_is_not_taken_for_a_dear_one(registry, children, monkeypatch) -> None:
    # The machine is loaded, or the process has hundreds of threads: what they use is seen within a second all the same.
    tree = ProcessTree(registry)
    child = started(children, WAIT)
    said(child)
    descendants = cpu_time._descendants
    monkeypatch.setattr(cpu_time, "_descendants", lambda pid: time.sleep(0.1) or descendants(pid))
    look_at_once(tree)
    assert max(tree._scan_at, tree._read_at) < time.perf_counter() + 2.0
    assert child.pid in tree._known


def test_it_is_said_that_what_a_child_uses_may_be_unseen(registry, children, monkeypatch) -> None:
    newest = [b"7"]
    monkeypatch.setattr(cpu_time, "_newest_process", lambda: newest[0])
    tree = ProcessTree(registry)
    others_s(tree)
    child = started(children, BURN.format(s=0.3) + WAIT)
    said(child)
    newest[0] = b"8"
    tree._scan_at = time.perf_counter() + 3600  # it may not look for children yet
    tree.own_s()
    assert (tree.blind, tree._children_s) == (True, 0.0)
    assert others_s(tree) >= 0.25
    assert not tree.blind
