"""The embedded default: a file of OTLP/JSON lines, appended as results come, so that a killed process loses seconds at most.

The format is the OpenTelemetry file format: any Collector can ingest it later (``otlpjsonfile`` receiver).
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from opentelemetry.trace import Span

from impactsdk import semconv
from impactsdk.export.dated import dated
from impactsdk.export.otlp_json import encode_metrics, encode_spans
from impactsdk.export.views import Snapshot, channel_attributes

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["Journal"]

_MOST_PENDING = 64
_LONGEST_LINE = 1_000_000
"""A Collector takes lines of up to 1 MiB unless it is told otherwise."""
_METRICS_EVERY_S = 10.0
_FIRST_METRICS_S = 1.0


class Journal:
    """One file of one process, opened when there is first something to write.

    All methods are called by the sampler's thread alone. A write that fails is told once, the line is taken back so that the
    file stays readable, what it held is counted in :attr:`dropped`, and the next write is tried again.
    """

    def __init__(
        self,
        directory: Path,
        resource: Resource,
        reader: InMemoryMetricReader | None,
        version: str,
        complain: Callable[[str, str], None],
    ) -> None:
        self._directory = directory.absolute()  # the program may go elsewhere before there is something to write
        self.path = self._new_path()
        self.dropped = 0
        self.written = False
        self._spans, self._has_totals, self._lacks_totals = 0, False, reader is None
        self._failing, self._told = False, 0
        self._resource, self._reader, self._version, self._complain = resource, reader, version, complain
        self._pending: list[ReadableSpan] = []
        self._descriptor: int | None = None
        self._file: tuple[int, int] | None = None
        self._metrics_at = time.monotonic() + _FIRST_METRICS_S
        self._news = False
        self._start_unix_ns = time.time_ns()

    def add(self, span: Span) -> None:
        """A span that has just been ended. One that was not sampled has nothing in it to write."""
        if not hasattr(span, "end_time"):
            return
        self._pending.append(cast("ReadableSpan", span))
        if len(self._pending) >= _MOST_PENDING:
            self._write_spans()

    @property
    def unwritten(self) -> bool:
        """Whether there is something that a process which is killed now would lose."""
        return bool(self._pending) or (self._news and time.monotonic() >= self._metrics_at)

    @property
    def useful(self) -> bool:
        """Whether there are spans or totals in it."""
        return self._spans > 0 or self._has_totals

    @property
    def missing(self) -> str:
        """What could not be written, in words; nothing if all was."""
        spans = [f"{self.dropped} span{'s' * (self.dropped != 1)}"] if self.dropped else []
        return " and ".join([*spans, *(["the last totals"] if self._lacks_totals else [])])

    def kept(self) -> bool:
        """Whether all has been written since this was last asked; metrics that failed are in the next ones."""
        lost, self._told = self.dropped - self._told, self.dropped
        return not lost and not self._failing

    def tick(self, snapshot: Snapshot, *, busy: bool = True) -> None:
        """About once a second while there is something to tell: what the devices have used so far, and the spans that ended.

        And now and then the totals of all regions; ``busy`` says that some were open or have ended since the last time.
        """
        self._news = self._news or busy
        self._write_spans()
        self._write_device_energy(snapshot)
        if time.monotonic() >= self._metrics_at:
            self._write_metrics(snapshot)

    def close(self, snapshot: Snapshot) -> None:
        """Write all that is known and close the file."""
        if self._pending or snapshot.totals.operations or self.written:
            self._write_spans()
            self._write_device_energy(snapshot)
            self._write_metrics(snapshot)
        try:
            self._let_go()
        except OSError as error:  # a disk over a network may say only now that it is full
            self._cannot(error)

    def forsake(self) -> None:
        """In the child of a fork: the file is the parent's."""
        self._pending.clear()
        with contextlib.suppress(OSError):
            self._let_go()

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None and self._is_ours(descriptor):
            os.close(descriptor)

    def _is_ours(self, descriptor: int) -> bool:
        """Whether it is still the journal's: who closes all descriptors, as a daemon does, may have opened others since."""
        try:
            status = os.fstat(descriptor)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._file

    def _look_for_file(self) -> None:
        """Let go of a file that is not there any more; one that has taken its place is written on."""
        if self._descriptor is None:
            return
        if not self._is_ours(self._descriptor):
            self._descriptor = None
        elif os.fstat(self._descriptor).st_nlink == 0 and not self._is_there():
            self._let_go()
            if not self.path.is_file():
                self._begin_anew()

    def _is_there(self) -> bool:
        with contextlib.suppress(OSError):
            status = self.path.stat()
            return (status.st_dev, status.st_ino) == self._file
        return False

    def _begin_anew(self) -> None:
        self.dropped, self._spans, self._has_totals = self.dropped + self._spans, 0, False
        self._complain("journal:deleted", f"the journal {self.path} was deleted, and what was in it is gone; it is begun anew")

    def _write_spans(self) -> None:
        spans, self._pending = self._pending, []
        self._write_some(spans)

    def _write_some(self, spans: list[ReadableSpan]) -> None:
        if not spans:
            return
        line = self._line(lambda: encode_spans(spans), spans=len(spans))
        if line is not None and len(line) > _LONGEST_LINE and len(spans) > 1:
            half = len(spans) // 2
            self._write_some(spans[:half])
            self._write_some(spans[half:])
        elif line is not None and self._write(line, spans=len(spans)):
            self._spans += len(spans)

    def _write_metrics(self, snapshot: Snapshot) -> None:
        self._metrics_at, self._news = time.monotonic() + _METRICS_EVERY_S, False
        data = None if self._reader is None else self._reader.get_metrics_data()
        if data is not None:
            line = self._line(lambda: encode_metrics(dated(data, self._start_unix_ns, snapshot.unix_ns)), spans=0)
            told = line is not None and self._write(line, spans=0)
            self._has_totals, self._lacks_totals = told or self._has_totals, not told

    def _write_device_energy(self, snapshot: Snapshot) -> None:
        """``hw.energy`` alone, so that power over time can be drawn, without collecting everything every second."""
        from opentelemetry.sdk.metrics.export import (
            AggregationTemporality,
            Metric,
            MetricsData,
            NumberDataPoint,
            ResourceMetrics,
            ScopeMetrics,
            Sum,
        )
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        at_ns = max(snapshot.unix_ns, self._start_unix_ns)
        points = [
            NumberDataPoint(channel_attributes(channel), self._start_unix_ns, at_ns, snapshot.totals.channels[channel.id])
            for channel in snapshot.channels
            if channel.id in snapshot.totals.channels
        ]
        if not points:
            return
        total = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
        metric = Metric(semconv.METRIC_HW_ENERGY, "Energy that the device has used since measuring began", "J", total)
        scope = InstrumentationScope(semconv.SCOPE_NAME, self._version, semconv.SCHEMA_URL)
        of_scope = ScopeMetrics(scope, [metric], semconv.SCHEMA_URL)
        line = self._line(lambda: encode_metrics(MetricsData([ResourceMetrics(self._resource, [of_scope], "")])), spans=0)
        if line is not None:
            self._write(line, spans=0)

    def _new_path(self) -> Path:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        # Containers that write to one volume all have the same process number.
        return self._directory / f"run-{stamp}-{os.getpid()}-{os.urandom(2).hex()}.jsonl"

    def _open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
        while self._descriptor is None:
            try:
                self._descriptor = os.open(self.path, flags if self.written else flags | os.O_EXCL, 0o644)
            except FileExistsError:  # noqa: PERF203 - somebody else's: two runs in one file would be no run
                self.path = self._new_path()
        status = os.fstat(self._descriptor)
        self._file = (status.st_dev, status.st_ino)
        if self.useful and not status.st_size:  # nobody has seen how it went
            self._begin_anew()

    def _line(self, request: Callable[[], dict[str, Any]], *, spans: int) -> bytes | None:
        try:
            text = json.dumps(request(), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        except Exception as error:  # noqa: BLE001 - a value that somebody put on a span
            self.dropped += spans
            self._complain("journal:encode", f"some results could not be written to the journal ({error!r}); totals are kept")
            return None
        # Text that is no text, as a file name that is not UTF-8 gives, becomes question marks.
        return text.encode(errors="replace") + b"\n"

    def _write(self, line: bytes, *, spans: int) -> bool:
        self._failing = False
        try:
            self._look_for_file()
            if self._descriptor is None:
                self._open()
                assert self._descriptor is not None
            end = os.lseek(self._descriptor, 0, os.SEEK_END)
            try:
                view = memoryview(line)
                while view:
                    view = view[os.write(self._descriptor, view) :]
            except OSError:
                os.ftruncate(self._descriptor, end)
                raise
            self.written = True
        except OSError as error:
            self.dropped += spans
            self._cannot(error)
            return False
        return True

    def _cannot(self, error: OSError) -> None:
        self._failing = True
        self._complain(
            "journal",
            f"the journal {self.path} cannot be written ({error.strerror or error}); what does not fit is lost, totals are "
            "kept; make room, or choose another place with IMPACTSDK_DIRECTORY",
        )
