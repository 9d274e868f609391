from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impactsdk.energy import pool_file
from impactsdk.energy.machine import process_clock_s
from impactsdk.energy.pool import Claim, Pool
from impactsdk.energy.pool_file import PoolFile

MS = 1_000_000
STEP_S = 0.01


def pool_of(*keys: str) -> Pool:
    return Pool(0, 0.0, 0.0, {key: Claim(0, 0, 0.0, 0.0, 0.0) for key in keys})


def owed(pool: Pool) -> dict[str, float]:
    return {key: claim.owed_j for key, claim in pool.claims.items()}


# --- dividing -----------------------------------------------------------------------------------------------------------------


def test_each_claim_has_the_part_of_its_cpu_time_in_the_machines() -> None:
    pool = pool_of("a", "b")
    pool.divide(100 * MS, 8.0, 0.4, {"a": 0.1, "b": 0.2})
    assert owed(pool) == pytest.approx({"a": 2.0, "b": 4.0})
    assert pool.take("a", 1.5) == 1.5
    assert pool.take("a", 1.5) == pytest.approx(0.5)


def test_two_meters_of_one_process_share_its_time() -> None:
    pool = Pool(0, 0.0, 0.0, {key: Claim(pid, 1, 0.0, 0.0, 0.0) for key, pid in (("a", 7), ("b", 7), ("c", 8))})
    pool.divide(100 * MS, 8.0, 0.4, {"a": 0.2, "b": 0.2, "c": 0.1})
    assert owed(pool) == pytest.approx({"a": 2.0, "b": 2.0, "c": 2.0})
    pool.divide(200 * MS, 16.0, 0.8, {"a": 0.4, "b": 0.4, "c": 0.2})
    assert owed(pool) == pytest.approx({"a": 4.0, "b": 4.0, "c": 4.0})


def test_cpu_time_without_room_in_the_machines_waits_for_the_next_cell() -> None:
    pool = pool_of("a", "b")
    pool.divide(100 * MS, 8.0, 0.1, {"a": 0.1, "b": 0.1})
    assert owed(pool) == pytest.approx({"a": 4.0, "b": 4.0})
    pool.divide(200 * MS, 10.0, 0.3, {"a": 0.1, "b": 0.1})
    assert owed(pool) == pytest.approx({"a": 4.5, "b": 4.5})


def test_while_the_busy_clock_stands_still_for_a_moment_nothing_is_divided_and_nothing_lost() -> None:
    pool = pool_of("a")
    pool.divide(10 * MS, 1.0, 0.0, {"a": 0.01})
    pool.divide(20 * MS, 2.0, 0.02, {"a": 0.02})
    assert owed(pool) == pytest.approx({"a": 2.0})
    pool.divide(120 * MS, 3.0, 0.02, {"a": 0.02})  # for long: then nobody was busy
    pool.divide(220 * MS, 3.0, 0.04, {"a": 0.04})
    assert owed(pool) == pytest.approx({"a": 2.0})


def test_a_reading_older_than_somebody_elses_changes_nothing() -> None:
    pool = pool_of("a")
    pool.divide(100 * MS, 5.0, 0.1, {"a": 0.1})
    pool.divide(101 * MS, 4.9, 0.2, {"a": 0.2})
    assert (pool.at_ns, pool.energy_j) == (100 * MS, 5.0)
    pool.divide(99 * MS, 9.0, 0.2, {"a": 0.2})
    assert (pool.at_ns, pool.energy_j) == (100 * MS, 5.0)


def test_a_counter_that_wraps_goes_on_and_one_that_was_reset_begins_again() -> None:
    pool = pool_of("a")
    pool.energy_j = 262_100.0
    pool.divide(1000 * MS, 56.0, 1.0, {"a": 1.0}, range_j=262_144.0, max_power_w=200.0)
    assert owed(pool) == pytest.approx({"a": 100.0})
    pool.divide(3000 * MS, 3.0, 3.0, {"a": 3.0}, range_j=262_144.0, max_power_w=200.0)
    assert owed(pool) == pytest.approx({"a": 100.0})
    assert pool.energy_j == 3.0
    pool.divide(4000 * MS, 13.0, 4.0, {"a": 4.0}, range_j=262_144.0, max_power_w=200.0)
    assert owed(pool) == pytest.approx({"a": 110.0})


# Each step: how long it takes, the power, what each of three processes and one that does not measure runs, and who then reads.
steps = st.tuples(
    st.integers(1, 150),
    st.floats(0, 300),
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
    st.sets(st.sampled_from("abc")),
)


@settings(max_examples=200)
@given(st.lists(steps, min_size=1, max_size=40), st.sampled_from([math.inf, 500.0]))
def test_what_all_take_is_never_more_than_was_used_whenever_each_of_them_reads(told, range_j: float) -> None:
    pool = pool_of("a", "b", "c")
    at_ms, energy_j, true_busy_s = 0, 0.0, 0.0
    used_s, seen_j, taken_j = dict.fromkeys("abc", 0.0), dict.fromkeys("abc", 0.0), dict.fromkeys("abc", 0.0)
    for elapsed_ms, power_w, running, readers in told:
        at_ms += elapsed_ms
        energy_j += power_w * elapsed_ms * 1e-3
        for key, part in zip("abc", running, strict=False):
            used_s[key] += part * elapsed_ms * 1e-3
        true_busy_s += sum(running) * elapsed_ms * 1e-3
        busy_s = true_busy_s // STEP_S * STEP_S
        for key in sorted(readers):
            pool.divide(at_ms * MS, energy_j % range_j, busy_s, used_s, range_j=range_j, max_power_w=300.0)
            taken_j[key] += pool.take(key, energy_j - seen_j[key])
            seen_j[key] = energy_j
            assert taken_j[key] <= seen_j[key] * (1 + 1e-9)
        given_j = math.fsum(taken_j.values()) + math.fsum(owed(pool).values())
        assert given_j <= energy_j * (1 + 1e-9) + 1e-9


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(20, 150), st.sampled_from("abc")), min_size=30, max_size=60))
def test_steady_work_is_charged_in_proportion_whoever_reads(readings) -> None:
    pool, running = pool_of("a", "b", "c"), {"a": 0.5, "b": 0.3, "c": 0.1}
    at_ms, taken_j, seen_j = 0, dict.fromkeys("abc", 0.0), dict.fromkeys("abc", 0.0)
    for elapsed_ms, key in [*readings, (100, "a"), (0, "b"), (0, "c")]:
        at_ms += elapsed_ms
        used_s = {key: part * at_ms * 1e-3 for key, part in running.items()}
        energy_j = at_ms * 0.1
        pool.divide(at_ms * MS, energy_j, at_ms * 1e-3, used_s)
        taken_j[key] += pool.take(key, energy_j - seen_j[key])
        seen_j[key] = energy_j
    for key, part in running.items():
        assert taken_j[key] == pytest.approx(part * at_ms * 0.1)


# --- the file -----------------------------------------------------------------------------------------------------------------


def written(file: PoolFile, pool: Pool) -> None:
    assert file.acquire()
    file.write(pool)
    file.release()


def seen(file: PoolFile) -> Pool | None:
    assert file.acquire()
    try:
        return file.read()
    finally:
        file.release()


def test_what_one_process_writes_another_reads(tmp_path: Path) -> None:
    one, two = PoolFile(tmp_path, "cpu:0"), PoolFile(tmp_path, "cpu:0")
    assert seen(one) is None
    pool = Pool(5, 1.5, 2.5, {"a": Claim(7, 1, 1.0, 2.0, 3.0, 4.0), "b": Claim(8, 2, 1.1, 2.1, 3.1, 4.1)})
    written(one, pool)
    assert seen(two) == pool
    pool.energy_j = 9.0
    written(two, pool)
    assert seen(one) == pool
    assert seen(one) is seen(one)  # nobody has written since: it is not taken apart again
    other = PoolFile(tmp_path, "cpu:1")
    assert seen(other) is None
    for file in (one, two, other):
        file.close()


def test_the_last_to_leave_removes_the_file_and_who_has_it_open_finds_the_next(tmp_path: Path) -> None:
    one, two = PoolFile(tmp_path, "cpu:0"), PoolFile(tmp_path, "cpu:0")
    written(one, pool_of("a"))
    assert seen(two) == pool_of("a")
    written(one, pool_of())
    assert not list(tmp_path.iterdir())
    written(two, pool_of("b"))
    assert seen(one) == pool_of("b")
    one.close()
    two.close()


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff" * 5000, b"impact/1" + b"\0" * 5000])
def test_garbage_is_no_pool_and_is_written_over(tmp_path: Path, content: bytes) -> None:
    file = PoolFile(tmp_path, "cpu:0")
    file._path.write_bytes(content)
    assert seen(file) is None
    written(file, pool_of("a"))
    assert seen(file) == pool_of("a")
    file.close()


def test_what_was_written_before_the_machine_was_started_is_no_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, later = PoolFile(tmp_path, "cpu:0"), PoolFile(tmp_path, "cpu:0")
    written(file, pool_of("a"))
    monkeypatch.setattr(pool_file, "_boot", lambda: b"another start....")
    assert seen(later) is None
    file.close()
    later.close()


def test_somebody_who_cleans_the_directory_away_makes_all_begin_a_new_one(tmp_path: Path) -> None:
    directory = tmp_path / "runtime"
    one, two = PoolFile(directory, "cpu:0"), PoolFile(directory, "cpu:0")
    written(one, pool_of("a"))
    assert seen(two) == pool_of("a")
    one._path.unlink()
    directory.rmdir()
    one._checked_ns = two._checked_ns = 0
    assert seen(one) is None
    written(one, pool_of("b"))
    assert seen(two) == pool_of("b")
    one.close()
    two.close()


def test_more_claims_than_it_has_room_for_are_refused(tmp_path: Path) -> None:
    file = PoolFile(tmp_path, "cpu:0")
    assert file.acquire()
    with pytest.raises(OSError, match="more than 1024"):
        file.write(pool_of(*map(str, range(1025))))
    file.release()
    file.close()


def test_a_writing_that_was_cut_off_is_no_pool(tmp_path: Path) -> None:
    file, other = PoolFile(tmp_path, "cpu:0"), PoolFile(tmp_path, "cpu:0")
    written(file, pool_of("a", "b"))
    content = file._path.read_bytes()
    written(file, pool_of("c", "d"))
    whole = file._path.read_bytes()
    file._path.write_bytes(whole[:100] + content[100:])
    assert seen(other) is None
    file.close()
    other.close()


def test_a_full_disk_is_an_error_and_no_signal(tmp_path: Path) -> None:
    file = PoolFile(tmp_path, "cpu:0")
    assert file.acquire()
    os.close(file._descriptor)  # type: ignore[arg-type]
    file._descriptor = os.open("/dev/full", os.O_RDWR)
    with pytest.raises(OSError, match="No space"):
        file.write(pool_of("a"))
    file.close()


HOLD = """
import sys, time
from pathlib import Path
from impactsdk.energy.pool_file import PoolFile
file = PoolFile(Path(sys.argv[1]), "cpu:0")
assert file.acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("stopped", [True, False])
def test_who_holds_it_and_is_stopped_or_killed_holds_up_nobody(tmp_path: Path, stopped: bool) -> None:
    file = PoolFile(tmp_path, "cpu:0")
    written(file, pool_of("a"))
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    if stopped:
        holder.send_signal(signal.SIGSTOP)
        assert not file.acquire()
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert seen(file) == pool_of("a")
    file.close()


def test_the_clock_of_another_process_is_read_to_the_nanosecond() -> None:
    burning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        before_s = process_clock_s(burning.pid)
        time.sleep(0.2)
        after_s = process_clock_s(burning.pid)
        assert before_s is not None
        assert after_s is not None
        assert before_s < after_s
        assert process_clock_s(os.getpid()) == pytest.approx(time.process_time(), abs=0.05)
    finally:
        burning.kill()
        burning.wait()
    assert process_clock_s(burning.pid) is None
    assert process_clock_s(0) is None


def test_a_link_to_a_file_elsewhere_is_not_followed(tmp_path: Path) -> None:
    file = PoolFile(tmp_path, "cpu:0")
    elsewhere = tmp_path / "thesis.txt"
    elsewhere.write_text("two years of work")
    file._path.symlink_to(elsewhere)
    with pytest.raises(OSError):
        file.acquire()
    assert elsewhere.read_text() == "two years of work"
