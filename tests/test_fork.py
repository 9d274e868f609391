"""Fork: what was open belongs to the parent, a child measures for itself, and no joule or span is told twice."""

from __future__ import annotations

import collections
import os
from pathlib import Path

import pytest

from tests.kit import journals, script, spans_in

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

SOURCE = """
import os, sys, time
import impactsdk
from impactsdk import configure, measured
from impactsdk.testing import SimulatedSource

def set_up():
    return configure(export="journal", sources=[SimulatedSource(100.0)])
"""


def _ids(folder: Path) -> collections.Counter[str]:
    return collections.Counter(span["spanId"] for lines in journals(folder) for span in spans_in(lines))


def _names(folder: Path) -> list[list[str]]:
    return sorted(sorted(span["name"] for span in spans_in(lines)) for lines in journals(folder))


@pytest.mark.parametrize("leave", ["sys.exit(0)", "raise KeyboardInterrupt", "pass", "os._exit(0)"])
def test_a_fork_inside_a_block_leaves_the_block_to_the_parent(tmp_path: Path, leave: str) -> None:
    output, errors = script(
        SOURCE
        + f"""
meter = set_up()
pid = None
try:
    with measured("outer") as outer:
        time.sleep(0.02)
        pid = os.fork()
        if pid == 0:
            assert impactsdk.current() is None, "it is the parent's"
            with measured("of the child") as region:
                time.sleep(0.05)
            result = region.result()
            assert 2.0 < result.energy_j < 60.0, result
            impactsdk.flush()
            {leave}
        else:
            os.waitpid(pid, 0)
except BaseException:
    if pid != 0:
        raise
if pid == 0:
    os.environ["CHILD"] = "1"
else:
    print(outer.result().energy_j > 5.0, sorted(meter.totals().operations))
""",
        tmp_path,
    )
    assert output.splitlines()[-1] == "True ['outer']"
    assert "Traceback" not in errors
    assert _names(tmp_path) == [["of the child"], ["outer"]]
    assert max(_ids(tmp_path).values()) == 1
    (child,) = [spans_in(lines)[0] for lines in journals(tmp_path) if spans_in(lines)[0]["name"] == "of the child"]
    (parent,) = [spans_in(lines)[0] for lines in journals(tmp_path) if spans_in(lines)[0]["name"] == "outer"]
    assert child["parentSpanId"] == parent["spanId"]
    assert child["traceId"] == parent["traceId"]


def test_a_result_of_before_the_fork_is_refused_in_the_child(tmp_path: Path) -> None:
    output, _ = script(
        SOURCE
        + """
set_up()
with measured("outer") as outer:
    pass
pid = os.fork()
if pid == 0:
    try:
        outer.result()
    except impactsdk.RegionError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
""",
        tmp_path,
    )
    assert "opened in another process" in output


def test_a_child_counts_from_its_own_beginning(tmp_path: Path) -> None:
    output, _ = script(
        SOURCE
        + """
meter = set_up()
with measured("x"):
    time.sleep(0.3)
pid = os.fork()
if pid == 0:
    with measured("x"):
        pass
    impactsdk.flush()
    totals = meter.totals()
    print(totals.operations["x"].count, sum(totals.channels.values()) < 20, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
impactsdk.flush()
totals = meter.totals()
print(totals.operations["x"].count, sum(totals.channels.values()) > 25)
""",
        tmp_path,
    )
    assert output.splitlines() == ["1 True", "1 True"]


def test_the_applications_metrics_show_each_process_its_own(tmp_path: Path) -> None:
    output, errors = script(
        SOURCE
        + """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
configure(export="otel", sources=[SimulatedSource(100.0)])
def counts():
    data = reader.get_metrics_data()
    return {p.attributes["impact.operation"]: p.value for r in (data.resource_metrics if data else ()) for s in r.scope_metrics
            for m in s.metrics if m.name == "impact.operation.count" for p in m.data.data_points}
for _ in range(3):
    measured("parent")(lambda: None)()
impactsdk.flush()
pid = os.fork()
if pid == 0:
    print("child", counts(), flush=True)
    measured("child")(lambda: None)()
    impactsdk.flush()
    print("child", counts(), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print("parent", counts())
""",
        tmp_path,
    )
    assert output.splitlines() == ["child {}", "child {'child': 1}", "parent {'parent': 3}"]
    assert "opentelemetry" not in errors, "an instrument was made twice"
    assert "Traceback" not in errors


WORKERS = (
    SOURCE
    + """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

@measured("work")
def work(number):
    time.sleep(0.01)
    return number

def initialise():
    configure(export="journal", sources=[SimulatedSource(100.0)])
    work(0)

def main(method, kind):
    context = multiprocessing.get_context(method)
    set_up()
    with measured("whole"):
        if kind == "process":
            processes = [context.Process(target=initialise) for _ in range(2)]
            for process in processes: process.start()
            for process in processes: process.join()
            assert [process.exitcode for process in processes] == [0, 0]
        elif kind == "pool":
            with context.Pool(2, initializer=initialise) as pool:
                assert sorted(pool.map(work, range(4))) == [0, 1, 2, 3]
                pool.close()
                pool.join()
        else:
            with ProcessPoolExecutor(2, mp_context=context, initializer=initialise) as pool:
                assert sorted(pool.map(work, range(4))) == [0, 1, 2, 3]

if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else METHOD, KIND)
"""
)


@pytest.mark.parametrize(
    ("method", "kind"),
    [("fork", "process"), ("fork", "pool"), ("fork", "executor"), ("spawn", "process"), ("spawn", "executor")],
)
def test_the_spans_of_workers_reach_their_journals(tmp_path: Path, method: str, kind: str) -> None:
    _, errors = script(WORKERS.replace("METHOD", repr(method)).replace("KIND", repr(kind)), tmp_path)
    assert "Traceback" not in errors
    names = _names(tmp_path)
    assert ["whole"] in names
    workers = [found for found in names if found != ["whole"]]
    assert all(set(found) == {"work"} for found in workers)
    spans = sum(map(len, workers))
    assert spans == 2 if kind == "process" else 5 <= spans <= 6, names
    assert max(_ids(tmp_path).values()) == 1
    ours = [path.name for path in (tmp_path / "impact").iterdir()]
    assert len(ours) == len(names), "one file for each process"


def test_many_forks_at_odd_moments_neither_hang_nor_lose_anything(tmp_path: Path) -> None:
    output, _ = script(
        SOURCE
        + """
import threading
meter = set_up()
stop = threading.Event()
def background():
    while not stop.is_set():
        with measured("background", span=False):
            time.sleep(0.0005)
threads = [threading.Thread(target=background) for _ in range(2)]
for thread in threads: thread.start()
for number in range(12):
    with measured("forking"):
        pid = os.fork()
        if pid == 0:
            with measured("child"):
                pass
            assert impactsdk.flush()
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, status
stop.set()
for thread in threads: thread.join()
impactsdk.flush()
print(meter.totals().operations["forking"].count)
""",
        tmp_path,
        PYTHONWARNINGS="ignore",
    )
    assert output == "12\n"
    assert max(_ids(tmp_path).values()) == 1
    counted = collections.Counter(name for names in _names(tmp_path) for name in names)
    assert counted == {"forking": 12, "child": 12}


def test_a_fork_inside_a_capture_leaves_what_ran_before_it_to_the_parent(tmp_path: Path) -> None:
    output, _ = script(
        SOURCE
        + """
from impactsdk.testing import capture
meter = set_up()
measured("before")(lambda: None)()
with capture() as measurements:
    measured("inside")(lambda: None)()
    pid = os.fork()
if pid == 0:
    measured("child")(lambda: None)()
    print(impactsdk.flush(), sorted(meter.totals().operations), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(impactsdk.flush(), sorted(meter.totals().operations))
""",
        tmp_path,
    )
    assert output.splitlines() == ["True ['child']", "True ['before']"]


@pytest.mark.parametrize("after_s", [0.01, 0.05, 0.2])
def test_a_fork_while_another_thread_begins_leaves_the_child_able_to(tmp_path: Path, after_s: float) -> None:
    output, _ = script(
        f"""
import faulthandler, os, threading, time
from impactsdk import configure, measured
from impactsdk.testing import SimulatedSource

configure(export="none", sources=[SimulatedSource(100.0)])
begins = threading.Thread(target=measured("x")(lambda: None))
begins.start()
time.sleep({after_s})
child = os.fork()
if child == 0:
    faulthandler.dump_traceback_later(30, exit=True)  # it hangs
    measured("y")(print)("measured in the child", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
begins.join()
print(measured("z")(lambda: "and in the parent")())
""",
        tmp_path,
    )
    assert output == "measured in the child\nand in the parent\n"


def test_a_child_does_not_tell_its_parents_account(tmp_path: Path) -> None:
    output, _ = script(
        """
import os, impactsdk
from impactsdk.testing import SimulatedSource
meter = impactsdk.configure(export="none", sources=[SimulatedSource(100.0)])
with impactsdk.measured("x"):
    pass
impactsdk.shutdown()
print(sorted(meter.totals().operations), flush=True)
if os.fork() == 0:
    print(sorted(meter.totals().operations), flush=True)
    os._exit(0)
os.wait()
""",
        tmp_path,
    )
    assert output == "['x']\n[]\n"


@pytest.mark.parametrize(
    ("module", "first"),
    [
        ("impactsdk.discovery", "configure(export='none', region='FR')"),
        ("impactsdk.discovery", "Meter(sources=['cpu_model'])"),
        ("impactsdk.sources.cpu_model", "with measured('x'): pass"),
    ],
)
def test_a_fork_while_another_thread_imports_ours_leaves_the_child_able_to(tmp_path: Path, module: str, first: str) -> None:
    output, _ = script(
        f"""
import faulthandler, os, sys, threading, time, warnings
from impactsdk import Meter, configure, measured
warnings.simplefilter("ignore")
importing = threading.Event()

class Slowly:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r} and threading.current_thread() is not threading.main_thread():
            importing.set()
            time.sleep(0.5)

sys.meta_path.insert(0, Slowly())

def work():
    {first}

thread = threading.Thread(target=work)
thread.start()
importing.wait()
child = os.fork()
if child == 0:
    faulthandler.dump_traceback_later(30, exit=True)  # it hangs
    configure(export="none", region="FR", sources="cpu_model")
    with measured("child"):
        print("measured in the child", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
thread.join()
""",
        tmp_path,
        IMPACTSDK_EXPORT="none",
        IMPACTSDK_SOURCES="cpu_model",
    )
    assert output == "measured in the child\n"


ENDING = (
    SOURCE
    + """
import threading
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
parent, exporting = os.getpid(), threading.Event()

class Slow(SpanExporter):
    def export(self, spans):
        print("parent" if os.getpid() == parent else "child", "exports", spans[0].name, flush=True)
        exporting.set()
        time.sleep(0.5)
        return SpanExportResult.SUCCESS

def shown():
    data = reader.get_metrics_data()
    return [m.name for r in (data.resource_metrics if data else ()) for s in r.scope_metrics for m in s.metrics
            if m.name == "impact.operation.count"]

reader = InMemoryMetricReader()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(Slow()))
trace.set_tracer_provider(provider)
metrics.set_meter_provider(MeterProvider([reader], shutdown_on_exit=False))
meter = configure(export="otel", enrich=True, sources=[SimulatedSource(100.0)])
with measured("ours"):
    pass
provider.get_tracer("app").start_span("theirs").end()
"""
)


@pytest.mark.parametrize("what", ["shutdown()", "configure(export='none', sources=[SimulatedSource(50.0)], service_name='b')"])
def test_a_fork_while_another_thread_closes_leaves_what_ends_to_the_parent(tmp_path: Path, what: str) -> None:
    output, _ = script(
        ENDING
        + f"""
thread = threading.Thread(target=lambda: impactsdk.{what})
thread.start()
exporting.wait()
while meter.session is not None and not meter.session.off:
    time.sleep(0.001)
child = os.fork()
if child == 0:
    print("child shows", shown(), flush=True)
    provider.force_flush()
    with measured("child") as region:
        time.sleep(0.02)
    result = region.result()
    print("child", meter.settings.service_name, result.energy_j is not None, flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
thread.join()
provider.force_flush()
""",
        tmp_path,
    )
    lines = output.splitlines()
    ending = "child None False" if what == "shutdown()" else "child b True"
    assert [line for line in lines if line.startswith("child")] == ["child shows []", ending]
    assert [line for line in lines if line.startswith("parent")] == ["parent exports ours", "parent exports theirs"]


def test_in_a_fork_inside_a_capture_the_child_shows_nothing_of_what_runs_outside_it(tmp_path: Path) -> None:
    output, _ = script(
        ENDING
        + """
from impactsdk.testing import capture
impactsdk.flush()
with capture():
    child = os.fork()
    if child == 0:
        print("child shows", shown(), flush=True)
        provider.force_flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
print("parent shows", shown())
""",
        tmp_path,
    )
    assert output.splitlines() == [
        "parent exports ours",
        "parent exports theirs",
        "child shows []",
        "parent shows ['impact.operation.count']",
    ]
