"""One trace over several processes, each joule once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry import trace

from impactsdk import child_environment, handed_down, joined
from tests.kit import bench, journals, script, spans_in

CHILD = """
import impactsdk
from impactsdk.testing import SimulatedSource
impactsdk.configure(sources=[SimulatedSource(50.0)], export="journal")
with impactsdk.joined() as found:
    print("joined", found)
    with impactsdk.measured("child"):
        sum(range(100_000))
"""
PARENT = """
import impactsdk, subprocess, sys
from impactsdk.testing import SimulatedSource
impactsdk.configure(sources=[SimulatedSource(50.0)], export="journal")
with impactsdk.measured("parent"):
    subprocess.run([sys.executable, "child.py"], env=impactsdk.child_environment(), check=True)
"""


def test_a_child_joins_the_span_that_it_was_started_from(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    out, _ = script(PARENT, tmp_path)
    assert "joined True" in out
    spans = {span["name"]: span for lines in journals(tmp_path) for span in spans_in(lines)}
    assert spans["child"]["traceId"] == spans["parent"]["traceId"]
    assert spans["child"]["parentSpanId"] == spans["parent"]["spanId"]


def test_spawned_workers_join_through_the_environment_that_they_inherit(tmp_path: Path) -> None:
    text = """
import multiprocessing, impactsdk
from impactsdk.testing import SimulatedSource

def work(number):
    impactsdk.configure(sources=[SimulatedSource(50.0)], export="journal")
    with impactsdk.joined(), impactsdk.measured(f"worker {number}"):
        sum(range(100_000))

if __name__ == "__main__":
    impactsdk.configure(sources=[SimulatedSource(50.0)], export="journal")
    with impactsdk.measured("parent"), impactsdk.handed_down():
        workers = [multiprocessing.get_context("spawn").Process(target=work, args=(n,)) for n in range(2)]
        for worker in workers: worker.start()
        for worker in workers: worker.join()
    assert all(worker.exitcode == 0 for worker in workers)
"""
    script(text, tmp_path)
    spans = {span["name"]: span for lines in journals(tmp_path) for span in spans_in(lines)}
    assert set(spans) == {"parent", "worker 0", "worker 1"}
    assert {span["traceId"] for span in spans.values()} == {spans["parent"]["traceId"]}
    assert len({span["spanId"] for span in spans.values()}) == 3


def test_the_environment_is_as_before_afterwards() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACEPARENT", "00-" + "1" * 32 + "-" + "2" * 16 + "-01")
        patch.delenv("IMPACTSDK_RUNTIME_DIR", raising=False)
        before = dict(os.environ)
        with bench() as here, here.measured("parent") as region:
            with handed_down():
                context = region.span.get_span_context()  # type: ignore[union-attr]
                assert os.environ["TRACEPARENT"].startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-0")
                assert "IMPACTSDK_RUNTIME_DIR" in os.environ
            assert dict(os.environ) == before
        with handed_down():
            assert os.environ["TRACEPARENT"] == before["TRACEPARENT"]  # no span is open here: what was given is passed on
        assert dict(os.environ) == before


def test_a_child_in_another_folder_is_told_the_same_place(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert child_environment({"IMPACTSDK_RUNTIME_DIR": "here"})["IMPACTSDK_RUNTIME_DIR"] == str(tmp_path / "here")


def test_a_copy_for_subprocess_leaves_this_environment_alone() -> None:
    before = dict(os.environ)
    with bench() as here, here.measured("parent"):
        given = child_environment({"PATH": "/bin", "TRACEPARENT": "old", "tracestate": "old"})
        assert given["PATH"] == "/bin"
        assert given["TRACEPARENT"] != "old"
        assert "tracestate" not in given
    assert child_environment({"PATH": "/bin", "TRACEPARENT": "old"})["TRACEPARENT"] == "old"  # a launcher in between
    assert dict(os.environ) == before


@pytest.mark.parametrize("value", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "ff-1-2-3"])
def test_what_is_no_trace_is_joined_by_nobody(value: str) -> None:
    with joined({"TRACEPARENT": value}) as found:
        assert found is False
        assert not trace.get_current_span().get_span_context().is_valid


def test_a_span_that_is_open_already_stays_the_parent() -> None:
    from_outside = {"TRACEPARENT": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}
    with bench() as here, here.measured("mine") as mine, joined(from_outside) as found:
        assert found is False
        assert trace.get_current_span() is mine.span


def test_importing_nothing_else_is_needed_to_hand_down(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import impactsdk, sys; impactsdk.child_environment(); print('opentelemetry.sdk' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.strip() == "False"
