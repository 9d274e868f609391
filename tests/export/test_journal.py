"""The journal: valid lines, written as results come, readable whatever happens to the process or the disk."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import signal
import stat
import time
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from impactsdk import DegradedWarning, Meter, Settings
from impactsdk.testing import SimulatedSource, wait_until
from tests.export.test_otlp_json import _restore_ids
from tests.kit import conserved, journals, metrics_in, plain, script, spans_in, start


def _meter(tmp_path: Path, **settings: object) -> Meter:
    chosen: dict[str, object] = {"export": "journal", "directory": tmp_path / "impact", **settings}
    return Meter(Settings.load({}, **chosen), sources=[SimulatedSource(100.0)])


def test_spans_and_metrics_of_a_run_are_in_it(tmp_path: Path) -> None:
    with _meter(tmp_path, service_name="training", pue=1.3, region="FR", wue=0.2) as meter:
        with meter.measured("epoch", unit="item", attributes={"epoch": 1}) as region:
            region.add_units(3)
            with meter.measured("step"):
                time.sleep(0.05)
        meter.flush()
        totals = meter.totals()
    (lines,) = journals(tmp_path)
    spans = {span["name"]: span for span in spans_in(lines)}
    assert set(spans) == {"epoch", "step"}
    assert spans["step"]["parentSpanId"] == spans["epoch"]["spanId"]
    epoch = plain(spans["epoch"]["attributes"])
    assert epoch["epoch"] == 1
    assert epoch["impact.energy.inclusive"] == pytest.approx(region.result().energy_j)
    resource = plain(lines[0]["resourceSpans"][0]["resource"]["attributes"])
    assert (resource["service.name"], resource["impact.pue"], resource["impact.grid.zone"]) == ("training", 1.3, "FR")
    found = {metric["name"]: metric for metric in metrics_in(lines)}
    counts = {
        plain(point["attributes"])["impact.operation"]: point["asInt"]
        for point in found["impact.operation.count"]["sum"]["dataPoints"]
    }
    assert counts == {"epoch": "1", "step": "1"}
    (device,) = found["hw.energy"]["sum"]["dataPoints"]
    shares = math.fsum(point["asDouble"] for point in found["impact.energy"]["sum"]["dataPoints"])
    assert shares == pytest.approx(device["asDouble"], rel=1e-9)
    assert plain(device["attributes"])["hw.id"] == "sim:0"
    conserved(totals)


def test_each_line_is_valid_otlp(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.proto")
    from google.protobuf import json_format
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    with _meter(tmp_path) as meter:
        with meter.measured("x"), pytest.raises(ValueError, match="y"), meter.measured("y"):
            raise ValueError("y")
        meter.flush()
    (lines,) = journals(tmp_path)
    assert len(lines) >= 3
    for line in lines:
        message = ExportTraceServiceRequest() if "resourceSpans" in line else ExportMetricsServiceRequest()
        json_format.ParseDict(_restore_ids(line), message)


def test_nothing_is_written_where_nothing_was_measured(tmp_path: Path) -> None:
    meter = _meter(tmp_path)
    meter.begin()
    meter.close()
    assert not (tmp_path / "impact").exists()


def test_text_that_is_no_text_does_not_stop_it(tmp_path: Path) -> None:
    broken = os.fsdecode(b"caf\xe9")
    with _meter(tmp_path) as meter:
        with meter.measured("x", attributes={"file": broken}):
            pass
        with pytest.raises(FileNotFoundError), meter.measured("y"):
            Path(broken).read_bytes()
        assert meter.flush()
        with meter.measured("z"):
            pass
    (lines,) = journals(tmp_path)
    assert [span["name"] for span in spans_in(lines)] == ["x", "y", "z"]
    assert plain(spans_in(lines)[0]["attributes"])["file"] == "caf?"


def test_a_span_that_is_not_sampled_is_not_in_it(tmp_path: Path) -> None:
    settings = Settings.load({}, export="journal", directory=tmp_path / "impact")
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    with Meter(settings, sources=[SimulatedSource(100.0)], tracer_provider=provider) as meter:
        for _ in range(3):
            with meter.measured("x"):
                pass
        assert meter.flush()
        assert meter.totals().operations["x"].count == 3
    (lines,) = journals(tmp_path)
    assert spans_in(lines) == []
    assert metrics_in(lines)


def test_without_devices_the_spans_are_still_written(tmp_path: Path) -> None:
    settings = Settings.load({}, export="journal", directory=tmp_path / "impact", sources="none")
    with Meter(settings) as meter, meter.measured("x"):
        pass
    (lines,) = journals(tmp_path)
    assert [span["name"] for span in spans_in(lines)] == ["x"]
    assert all(metric["name"] != "hw.energy" for metric in metrics_in(lines))


@pytest.mark.parametrize("kind", ["a file in its place", "no permission", "no such device"])
def test_a_directory_that_cannot_be_made_is_told_once_and_totals_are_kept(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "blocked"
    directory = place / "impact"
    if kind == "a file in its place":
        place.write_text("not a folder")
    elif kind == "no permission":
        place.mkdir()
        place.chmod(stat.S_IRUSR)
        if os.access(place, os.W_OK):
            pytest.skip("root may write anywhere")
    else:
        directory = Path("/proc/nowhere/impact")
    meter = _meter(tmp_path, directory=directory)
    with pytest.warns(DegradedWarning, match="cannot be written") as caught:
        for _ in range(3):
            assert meter.measured("x")(lambda: 1)() == 1
            assert not meter.flush()
        assert not meter.close()
    assert len(caught) == 1
    assert meter.totals().operations["x"].count == 3
    conserved(meter.totals())
    if kind == "no permission":
        place.chmod(stat.S_IRWXU)


def test_a_full_disk_is_told_once_and_the_lines_that_fit_stay_readable(tmp_path: Path) -> None:
    output, _ = script(
        """
        import resource, signal, sys, warnings
        from impactsdk import Meter, Settings
        from impactsdk.testing import SimulatedSource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        meter = Meter(Settings.load({}, export="journal"), sources=[SimulatedSource(100.0)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(40):
                with meter.measured("x"):
                    pass
                meter.flush()
            snapshot = meter.session.snapshot()
            meter.close()
        print(len(caught), meter.totals().operations["x"].count, snapshot.dropped)
        print(caught[0].message)
        """,
        tmp_path,
    )
    first, message = output.splitlines()
    warned, count, dropped = map(int, first.split())
    assert (warned, count) == (1, 40)
    assert "File too large" in message
    (lines,) = journals(tmp_path)
    assert len(spans_in(lines)) + dropped == 40
    assert 0 < len(spans_in(lines)) < 40


@pytest.mark.parametrize(("size", "said"), [(6000, "without 3"), (10, "no details: 40 spans and the last totals could not be")])
def test_the_summary_says_what_a_full_disk_has_cost(tmp_path: Path, size: int, said: str) -> None:
    _, errors = script(
        f"""
        import resource, signal, warnings
        from impactsdk import Meter, Settings
        from impactsdk.testing import SimulatedSource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        warnings.simplefilter("ignore")
        meter = Meter(Settings.load({{}}, export="journal,summary"), sources=[SimulatedSource(100.0)])
        resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        for _ in range(40):
            with meter.measured("x"):
                pass
            meter.flush()
        meter.close()
        """,
        tmp_path,
    )
    last = errors.splitlines()[-1]
    assert said in last
    assert "and the last totals" in last
    assert "could not be written" in last


def test_a_flush_says_whether_all_since_the_last_one_was_written(tmp_path: Path) -> None:
    output, _ = script(
        """
        import resource, signal, warnings
        from impactsdk import Meter, Settings
        from impactsdk.testing import SimulatedSource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        warnings.simplefilter("ignore")
        meter = Meter(Settings.load({}, export="journal"), sources=[SimulatedSource(100.0)])
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        for size in (most, 10, 10, most, most, 10):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
            with meter.measured("x"):
                pass
            print(meter.flush())
        print(meter.close())
        """,
        tmp_path,
    )
    assert output.split() == ["True", "False", "False", "True", "True", "False", "False"]


def test_a_journal_whose_descriptor_was_closed_goes_on_and_spoils_no_other_file(tmp_path: Path) -> None:
    output, _ = script(
        """
        import os
        from impactsdk import Meter, Settings
        from impactsdk.testing import SimulatedSource

        meter = Meter(Settings.load({}, export="journal"), sources=[SimulatedSource(100.0)])
        meter.measured("x")(lambda: None)()
        assert meter.flush()
        os.closerange(3, 256)  # as a program that becomes a daemon does
        others = [open(f"other-{number}", "w+") for number in range(50)]  # one of them has the journal's number now
        meter.measured("y")(lambda: None)()
        assert meter.flush()
        meter.measured("z")(lambda: None)()
        print(meter.close(), [file.name for file in others if os.fstat(file.fileno()).st_size])
        """,
        tmp_path,
    )
    assert output == "True []\n"
    (lines,) = journals(tmp_path)
    assert [span["name"] for span in spans_in(lines)] == ["x", "y", "z"]


def test_a_journal_that_is_deleted_is_begun_anew_and_that_is_said_once(tmp_path: Path) -> None:
    meter = _meter(tmp_path)
    meter.measured("early")(lambda: None)()
    assert meter.flush()
    with pytest.warns(DegradedWarning, match="was deleted") as caught:
        for _ in range(2):
            shutil.rmtree(tmp_path / "impact")
            meter.measured("late")(lambda: None)()
            assert not meter.flush(), "what was written before is lost"
        meter.measured("last")(lambda: None)()
        assert meter.flush()
        assert meter.close()
    assert len(caught) == 1
    (lines,) = journals(tmp_path)
    assert [span["name"] for span in spans_in(lines)] == ["late", "last"]
    counts = [metric for metric in metrics_in(lines) if metric["name"] == "impact.operation.count"]
    assert sum(int(point["asInt"]) for point in counts[-1]["sum"]["dataPoints"]) == 4


def test_a_journal_that_an_editor_has_replaced_is_written_on_and_one_that_a_folder_has_replaced_is_said(tmp_path: Path) -> None:
    meter = _meter(tmp_path)
    meter.measured("early")(lambda: None)()
    assert meter.flush()
    (path,) = (tmp_path / "impact").glob("*.jsonl")
    shutil.copy(path, tmp_path / "copy")
    (tmp_path / "copy").replace(path)  # as an editor saves, or sed -i
    meter.measured("late")(lambda: None)()
    assert meter.flush()
    (lines,) = journals(tmp_path)
    assert [span["name"] for span in spans_in(lines)] == ["early", "late"]
    path.unlink()
    path.mkdir()
    with pytest.warns(DegradedWarning, match="was deleted|cannot be written"):
        meter.measured("last")(lambda: None)()
        assert not meter.flush()
        assert not meter.close()


def test_no_line_is_longer_than_a_collector_takes(tmp_path: Path) -> None:
    with _meter(tmp_path) as meter:
        for number in range(50):
            with meter.measured("x", attributes={"number": number, "text": "x" * 60_000}):
                pass
        assert meter.flush()
    text = next((tmp_path / "impact").glob("*.jsonl")).read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 2**20
    (lines,) = journals(tmp_path)
    assert [plain(span["attributes"])["number"] for span in spans_in(lines)] == list(range(50))


def test_a_killed_process_leaves_the_lines_of_its_last_seconds(tmp_path: Path) -> None:
    process = start(
        """
        import time
        from impactsdk import Meter, Settings
        from impactsdk.testing import SimulatedSource

        meter = Meter(Settings.load({}, export="journal"), sources=[SimulatedSource(100.0)])
        with meter.measured("whole"):
            while True:
                with meter.measured("step"):
                    time.sleep(0.1)
                print("step", flush=True)
        """,
        tmp_path,
    )
    assert process.stdout is not None
    for line in itertools.islice(process.stdout, 32):
        assert line == "step\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (lines,) = journals(tmp_path)
    assert len([span for span in spans_in(lines) if span["name"] == "step"]) >= 15
    energies = [metric["sum"]["dataPoints"][0] for metric in metrics_in(lines) if metric["name"] == "hw.energy"]
    assert len(energies) >= 2
    values = [point["asDouble"] for point in energies]
    assert values == sorted(values)
    seconds = (int(energies[-1]["timeUnixNano"]) - int(energies[0]["timeUnixNano"])) / 1e9
    assert values[-1] - values[0] == pytest.approx(100.0 * seconds, rel=0.5)


def test_two_runs_of_one_process_do_not_spoil_each_others_lines(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with _meter(tmp_path) as meter, meter.measured(name):
            pass
    spans = [span["name"] for lines in journals(tmp_path) for span in spans_in(lines)]
    assert sorted(spans) == ["first", "second"]


def test_many_spans_are_written_before_the_second_is_over(tmp_path: Path) -> None:
    with _meter(tmp_path) as meter:
        function = meter.measured("x")(lambda: None)
        for _ in range(600):
            function()
        assert meter.flush()
        (lines,) = journals(tmp_path)
        assert len(spans_in(lines)) == 600
    text = next((tmp_path / "impact").glob("*.jsonl")).read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert all(json.loads(line) for line in text.splitlines())


def test_two_runs_never_share_a_file(tmp_path: Path) -> None:
    # As two containers on one volume, each process number 1, in the same second.
    for _ in range(3):
        with _meter(tmp_path) as meter, meter.measured("x"):
            time.sleep(0.01)
    assert len(journals(tmp_path)) == 3


def test_it_stays_where_the_program_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with _meter(tmp_path, directory=Path("impact")) as meter:
        with meter.measured("x"):
            monkeypatch.chdir(elsewhere)
        assert meter.flush()
    assert not list(elsewhere.iterdir())
    assert len(journals(tmp_path)) == 1


def test_what_ended_just_before_a_process_fell_idle_is_written_without_another_region(tmp_path: Path) -> None:
    with _meter(tmp_path) as meter:
        with meter.measured("first"):
            time.sleep(0.9)
        with meter.measured("last"):
            time.sleep(0.1)

        def names() -> set[str]:
            return {span["name"] for lines in journals(tmp_path) for span in spans_in(lines)}

        assert wait_until(lambda: names() == {"first", "last"})


def test_device_energy_is_stamped_when_it_was_used_and_since_one_instant(tmp_path: Path) -> None:
    with _meter(tmp_path) as meter:
        with meter.measured("x"):
            time.sleep(1.2)
        time.sleep(1.5)
        with meter.measured("y"):
            time.sleep(1.2)
    (lines,) = journals(tmp_path)
    points = [point for metric in metrics_in(lines) if metric["name"] == "hw.energy" for point in metric["sum"]["dataPoints"]]
    assert len({point["startTimeUnixNano"] for point in points}) == 1
    told = sorted({(int(point["timeUnixNano"]), point["asDouble"]) for point in points})
    assert len(told) >= 3
    for (before_ns, before_j), (after_ns, after_j) in itertools.pairwise(told):
        if after_ns - before_ns > 100_000_000:
            assert (after_j - before_j) / (after_ns - before_ns) * 1e9 == pytest.approx(100.0, rel=0.1)
