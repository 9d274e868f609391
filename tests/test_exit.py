"""The end of the process: what is open is written and marked, and leaving takes no longer than was allowed."""

from __future__ import annotations

import os
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest

from impactsdk import DegradedWarning, Meter, Settings, lifecycle
from impactsdk.testing import SimulatedSource
from tests.kit import journals, plain, script, spans_in

SOURCE = """
import os, signal, sys, threading, time
import impactsdk
from impactsdk import configure, measured
from impactsdk.testing import SimulatedSource
configure(export="journal,summary", sources=[SimulatedSource(100.0)])
"""


@pytest.mark.parametrize(
    ("leave", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise ValueError('x')", 1),
        ("signal.signal(signal.SIGINT, signal.default_int_handler); os.kill(os.getpid(), signal.SIGINT); time.sleep(5)", -2),
    ],
)
def test_open_regions_are_written_and_marked(tmp_path: Path, leave: str, code: int) -> None:
    _, errors = script(
        SOURCE
        + f"""
region = measured("left open").__enter__()
measured("inside").__enter__()
with measured("ended"):
    time.sleep(0.02)
{leave}
""",
        tmp_path,
        expected=code,
    )
    (lines,) = journals(tmp_path)
    spans = {span["name"]: plain(span["attributes"]) for span in spans_in(lines)}
    assert set(spans) == {"left open", "inside", "ended"}
    assert spans["left open"]["impact.interrupted"] is True
    assert spans["inside"]["impact.interrupted"] is True
    assert "impact.interrupted" not in spans["ended"]
    assert spans["left open"]["impact.energy.inclusive"] >= spans["ended"]["impact.energy.inclusive"] > 0
    assert errors.count("impactsdk: this process used") == 1


def test_a_block_that_an_exit_passes_through_is_not_interrupted(tmp_path: Path) -> None:
    script(SOURCE + "with measured('x'):\n    sys.exit(2)\n", tmp_path, expected=2)
    (lines,) = journals(tmp_path)
    (span,) = spans_in(lines)
    found = plain(span["attributes"])
    assert "impact.interrupted" not in found
    assert found["error.type"] == "SystemExit"


def test_daemon_threads_that_measure_on_are_no_trouble(tmp_path: Path) -> None:
    _, errors = script(
        SOURCE
        + """
def forever():
    while True:
        with measured("daemon"):
            time.sleep(0.001)
measured("first")(lambda: None)()
for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.2)
""",
        tmp_path,
    )
    assert "Traceback" not in errors
    assert "Exception" not in errors
    (lines,) = journals(tmp_path)
    interrupted = [span for span in spans_in(lines) if plain(span["attributes"]).get("impact.interrupted")]
    assert len(interrupted) <= 3
    assert spans_in(lines)


def test_the_process_may_end_while_a_daemon_thread_begins(tmp_path: Path) -> None:
    output, errors = script(
        """
import threading, time
from impactsdk import configure, measured
from impactsdk.testing import SimulatedSource

class Slow(SimulatedSource):
    def open(self, clock):
        time.sleep(0.5)
        return super().open(clock)

configure(export="journal", sources=[Slow(100.0)], shutdown_timeout_s=3.0)
threading.Thread(target=measured("x")(lambda: time.sleep(9)), daemon=True).start()
time.sleep(0.1)
""",
        tmp_path,
    )
    assert (output, errors) == ("", "")


def test_what_is_measured_at_exit_after_us_breaks_nothing(tmp_path: Path) -> None:
    output, errors = script(
        """
import atexit
from impactsdk import configure, measured
from impactsdk.testing import SimulatedSource
function = measured("x")(lambda: 5)
atexit.register(lambda: print(function()))  # before our first use, hence run after our end
configure(export="none", sources=[SimulatedSource(100.0)])
function()
""",
        tmp_path,
    )
    assert (output, errors) == ("5\n", "")


@pytest.mark.parametrize("processor", ["SimpleSpanProcessor", "BatchSpanProcessor"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_provider_of_the_application_gets_the_last_spans(tmp_path: Path, processor: str, when: str) -> None:
    provider = f"""
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, BatchSpanProcessor, SimpleSpanProcessor
provider = TracerProvider()
provider.add_span_processor({processor}(ConsoleSpanExporter(formatter=lambda span: "SPAN " + span.name + chr(10))))
trace.set_tracer_provider(provider)
exporter = ConsoleMetricExporter(formatter=lambda data: "METRIC " + str([
    p.value for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics
    if m.name == "impact.operation.count" for p in m.data.data_points]) + chr(10))
metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(exporter)]))
"""
    ours = "from impactsdk import measured\n"
    output, errors = script(
        (provider + ours if when == "before" else ours + provider)
        + "measured('ended')(lambda: None)()\nregion = measured('open').__enter__()\n",
        tmp_path,
    )
    lines = output.splitlines()
    assert sorted(line for line in lines if line.startswith("SPAN")) == ["SPAN ended", "SPAN open"]
    assert [line for line in lines if line.startswith("METRIC")][-1] == "METRIC [1, 1]"
    assert errors == ""


HANGING = """
import time, threading, warnings
warnings.simplefilter("ignore")
import impactsdk
from impactsdk import configure, measured, Meter, Settings
from impactsdk.testing import SimulatedSource
forever = threading.Event().wait
"""


@pytest.mark.parametrize(
    "trouble",
    [
        "configure(export='journal', sources=[SimulatedSource(100.0, fail=lambda n: forever() if n > 1 else None)], "
        "shutdown_timeout_s=1.0)",
        "configure(export='journal', sources=[SimulatedSource(100.0, fail=lambda n: forever())], shutdown_timeout_s=1.0)",
        """
class Hanging(SimulatedSource):
    def open(self, clock): forever()
configure(export='journal', sources=[Hanging(100.0)], shutdown_timeout_s=1.0)
""",
        """
class Hanging(SimulatedSource):
    def close(self): forever()
configure(export='journal', sources=[Hanging(100.0)], shutdown_timeout_s=1.0)
""",
        """
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
class Hanging(SpanProcessor):
    def on_end(self, span): forever()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(Hanging())
trace.set_tracer_provider(provider)
configure(export='otel', sources=[SimulatedSource(100.0)], shutdown_timeout_s=1.0)
""",
    ],
    ids=["read", "first read", "open", "close", "exporter"],
)
def test_leaving_is_bounded_whatever_hangs(tmp_path: Path, trouble: str) -> None:
    output, errors = script(
        HANGING
        + trouble
        + """
assert measured("x")(lambda: 7)() == 7
time.sleep(0.2)
assert measured("x")(lambda: 7)() == 7
import atexit
print(time.monotonic())
""",
        tmp_path,
        timeout_s=30.0,
    )
    took_s = time.monotonic() - float(output)
    assert took_s < 1.0 + 1.0 + 1.0, f"{took_s} s; the last one is for the interpreter itself on a slow machine"
    assert "Traceback" not in errors


def test_a_hanging_exporter_holds_up_neither_totals_nor_flush(tmp_path: Path) -> None:
    output, _ = script(
        HANGING
        + """
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
class Hanging(SpanProcessor):
    def on_end(self, span): forever()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(Hanging())
meter = Meter(Settings.load({}, shutdown_timeout_s=1.0), sources=[SimulatedSource(100.0)], tracer_provider=provider)
with meter.measured("x"): pass
begun = time.monotonic()
print(meter.flush(0.5), meter.totals().attributed_j >= 0, meter.close(0.5))
print(time.monotonic() - begun < 4.0)
""",
        tmp_path,
    )
    assert output.splitlines() == ["False True False", "True"]


def test_shutdown_may_be_called_at_any_time_and_again(tmp_path: Path) -> None:
    output, errors = script(
        SOURCE
        + """
print(impactsdk.shutdown(), impactsdk.flush())
configure(export="journal,summary", sources=[SimulatedSource(100.0)])
with measured("x"):
    print(impactsdk.shutdown(), impactsdk.shutdown())
""",
        tmp_path,
    )
    assert output.splitlines() == ["True True", "True True"]
    assert errors.count("impactsdk: this process used") == 1


def test_a_sigterm_that_ends_the_process_in_order_is_as_any_exit(tmp_path: Path) -> None:
    script(
        SOURCE
        + """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
with measured("x"):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
""",
        tmp_path,
        expected=9,
    )
    (lines,) = journals(tmp_path)
    assert [span["name"] for span in spans_in(lines)] == ["x"]


def test_a_program_whose_main_thread_has_returned_is_measured(tmp_path: Path) -> None:
    """As a server that was started from a thread. Python 3.12 starts no more threads then, and that is said."""
    output, errors = script(
        """
import threading, time
from impactsdk import configure, measured
from impactsdk.testing import SimulatedSource

meter = configure(export="journal", sources=[SimulatedSource(100.0)], service_name="server")

def serve():
    time.sleep(0.3)
    for _ in range(3):
        with measured("request"):
            time.sleep(0.05)
    meter.flush()
    print(sum(operation.count for operation in meter.totals().operations.values()))

threading.Thread(target=serve).start()
""",
        tmp_path,
    )
    if sys.version_info[:2] == (3, 12):
        assert output == "0\n"
        assert "measuring could not begin (RuntimeError('no thread can be started'))" in errors
        return
    assert (output, errors) == ("3\n", "")
    [lines] = journals(tmp_path)
    assert [span["name"] for span in spans_in(lines)] == ["request"] * 3
    resources = [plain(item["resource"]["attributes"]) for line in lines for item in line.get("resourceSpans", ())]
    assert {resource["service.name"] for resource in resources} == {"server"}


def test_a_meter_that_nobody_holds_any_more_is_closed_at_exit(tmp_path: Path) -> None:
    _, errors = script(
        """
import gc
from impactsdk import Meter, Settings
from impactsdk.testing import SimulatedSource

def job():
    meter = Meter(Settings.load(export="journal,summary"), sources=[SimulatedSource(100.0)])
    with meter.measured("x"):
        pass
    meter.flush()

job()
gc.collect()
""",
        tmp_path,
    )
    [lines] = journals(tmp_path)
    assert [span["name"] for span in spans_in(lines)] == ["x"]
    assert errors.count("impactsdk: this process used") == 1


def test_all_meters_together_may_take_as_long_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0

    class Hanging:
        def __init__(self) -> None:
            self.meter = Meter(Settings.load({}, shutdown_timeout_s=3.0))
            self.meter._end = self.end  # type: ignore[method-assign]

        def end(self, timeout_s: float, most_s: float) -> bool:
            nonlocal now_s
            waits_s.append(timeout_s)
            now_s += timeout_s
            return False

    waits_s: list[float] = []
    meters = [Hanging().meter for _ in range(3)]
    monkeypatch.setattr(lifecycle, "_all", set(meters))
    monkeypatch.setattr(lifecycle, "_kept", set(meters))
    monkeypatch.setattr(lifecycle, "_leaving_since", None)
    monkeypatch.setattr(lifecycle, "time", types.SimpleNamespace(monotonic=lambda: now_s))
    lifecycle._close_all()
    assert waits_s == pytest.approx([1.0, 1.0, 1.0])
    lifecycle._close_all()
    assert waits_s[3:] == pytest.approx([0.0, 0.0, 0.0]), "multiprocessing asks, and atexit once more"


def test_what_begins_while_all_is_closed_keeps_nobody_from_being_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Striking:
        def leave(self, waited_s: float, others: int) -> None:
            left.append(self)
            lifecycle.at_exit()  # as a daemon thread's first region has it done

        def forked(self) -> None: ...

    left: list[Striking] = []
    meters = {Striking(), Striking()}
    idle = Striking()
    monkeypatch.setattr(lifecycle, "_all", {*meters, idle})
    monkeypatch.setattr(lifecycle, "_kept", set(meters))
    monkeypatch.setattr(lifecycle, "_leaving_since", None)
    monkeypatch.setattr(lifecycle, "_exit_pid", os.getpid())
    lifecycle._close_all()
    assert set(left) == {*meters, idle}


def test_what_hangs_is_waited_for_as_long_as_is_allowed_and_not_once_more() -> None:
    meter = Meter(Settings.load({}, export="none", shutdown_timeout_s=0.2), sources=[SimulatedSource(100.0)])
    goes_on = threading.Event()
    meter.listeners.append(lambda _: goes_on.wait(60.0) and None)
    with meter.measured("x"):
        pass
    session: Any = meter.session
    with pytest.warns(DegradedWarning, match=r"within 0\.2 s"):
        assert not meter.close()
    waits_s: list[float] = []
    session.close = lambda timeout_s: waits_s.append(timeout_s)
    meter.leave(0.0, 0)
    meter.reset()
    assert not waits_s, "neither at exit nor for other settings"
    assert not meter.close(9.0)
    assert waits_s == [pytest.approx(9.0, abs=1.0)], "whoever asks for it waits"
    del session.close
    goes_on.set()
    assert meter.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
def test_shutdown_raises_nothing_where_no_file_can_be_opened(tmp_path: Path) -> None:
    output, errors = script(
        SOURCE
        + """
import resource
with measured("x"):
    pass
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
print(impactsdk.shutdown())
""",
        tmp_path,
    )
    assert output in ("True\n", "False\n")  # whether the journal was begun before that
    assert "impactsdk: this process used" in errors
