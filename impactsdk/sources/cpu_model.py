"""CPU joules where no counter can be read, as in most virtual machines: watts by architecture and by how busy the machine is.

Per hardware thread, ``P = idle + u (max - idle)``, with the machine's busy share u. Idle and full-load watts are medians of
published SPECpower_ssj2008 results per architecture (``cpu_power.csv`` gives rows, sources, licences). The formula is that of
Cloud Carbon Footprint (https://www.cloudcarbonfootprint.org/docs/methodology).

**What the watts cover.** SPECpower measures at the wall: they are AC watts of the *whole server*, power supply, fans, disks and
DRAM included, per hardware thread. Do not add a model of DRAM on top; a RAPL counter on the same machine would show less.

**How wrong it may be.** ``low_j`` and ``high_j`` are the same integral with other watts: full load from the 10th to the 90th
percentile of the servers of that architecture, idle at 0.5 to 1.5 times the median (idle per thread varies by 19-78 % between
servers of one architecture). Where only the provider, a stand-in or nothing is known, both by a factor of two.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from impactsdk.energy.machine import MachineClock, busy_and_total_of
from impactsdk.errors import SourceUnavailableError
from impactsdk.model import Channel, Reading
from impactsdk.protocols import Clock
from impactsdk.settings import Settings
from impactsdk.sources.cpu_identity import GENERIC, Recognition, parse_cpuinfo, recognise

__all__ = ["CpuModelSource", "ThreadPower", "from_settings", "power_for", "power_table"]

METHOD = "model.specpower/2026-03"

_IDLE_SPREAD = 0.5
_FACTOR = 2.0
# Busy time is booked in ticks of 10 ms per processor; what exceeds elapsed time by more than some of them is not jitter.
_BOOKING_S = 0.1
# The system's CPU times move with every tick, idle or not. If they do not for this long, they are not kept (some sandboxes).
_STALE_S = 1.0


@dataclass(frozen=True, slots=True)
class ThreadPower:
    """Watts of one hardware thread's part of a server, idle and at full load, each with its lower and upper estimate."""

    idle_w: float
    max_w: float
    idle_low_w: float
    max_low_w: float
    idle_high_w: float
    max_high_w: float

    def joules(self, thread_s: float, busy_s: float) -> tuple[float, float, float]:
        """Low, best and high joules of ``thread_s`` seconds of threads, ``busy_s`` of which were busy; linear in both."""
        idle_s = thread_s - busy_s
        return (
            idle_s * self.idle_low_w + busy_s * self.max_low_w,
            idle_s * self.idle_w + busy_s * self.max_w,
            idle_s * self.idle_high_w + busy_s * self.max_high_w,
        )

    def of_whole_cores(self) -> ThreadPower:
        """Of a core whose second thread is switched off: the table is of servers with two, whose core takes that of both.

        The lower estimates stay, for processors that never had two.
        """
        return ThreadPower(
            2 * self.idle_w, 2 * self.max_w, self.idle_low_w, self.max_low_w, 2 * self.idle_high_w, 2 * self.max_high_w
        )

    def expectation(self) -> str:
        """How far off it may be, in words."""
        idle = f"{self.idle_low_w / self.idle_w - 1:+.0%} to {self.idle_high_w / self.idle_w - 1:+.0%} when idle"
        return f"{idle} and {self.max_low_w / self.max_w - 1:+.0%} to {self.max_high_w / self.max_w - 1:+.0%} at full load"


@cache
def power_table() -> Mapping[str, ThreadPower]:
    """The rows of ``cpu_power.csv`` by architecture, and ``generic``: the median over the architectures that were measured."""
    text = resources.files(__package__).joinpath("cpu_power.csv").read_text("utf-8")
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    table = {row["architecture"]: _thread_power(row) for row in rows}
    measured = [table[row["architecture"]] for row in rows if row["basis"] == "specpower_median"]
    table[GENERIC] = _within_factor(statistics.median(p.idle_w for p in measured), statistics.median(p.max_w for p in measured))
    return MappingProxyType(table)


def power_for(recognition: Recognition) -> ThreadPower:
    """The watts of an architecture; its interval also spans those that the evidence could not tell from it."""
    table = power_table()
    best = table[recognition.architecture]
    all_of_them = [best, *(table[name] for name in recognition.or_else)]
    return ThreadPower(
        best.idle_w,
        best.max_w,
        min(power.idle_low_w for power in all_of_them),
        min(power.max_low_w for power in all_of_them),
        max(power.idle_high_w for power in all_of_them),
        max(power.max_high_w for power in all_of_them),
    )


class CpuModelSource:
    """The whole machine's CPU energy, estimated. Opens wherever psutil works.

    Args:
        cpuinfo: What says which processor this is.
        dmi: The directory of the firmware's names of the machine.
        cpu_times: The machine's cumulative CPU times, as ``psutil.cpu_times`` gives them.
        threads: Hardware threads that this machine sees; by default what psutil counts.

    Attributes:
        degraded: Once open, one sentence on what is modelled and how wrong it may be.
    """

    name = "cpu_model"
    covers = "cpu"
    rank = 90
    lazy = True
    counts = True  # the kernel counts the busy time

    def __init__(
        self,
        *,
        cpuinfo: Path = Path("/proc/cpuinfo"),
        dmi: Path = Path("/sys/class/dmi/id"),
        cpu_times: Callable[[], Any] | None = None,
        threads: int | None = None,
    ) -> None:
        self.degraded: str | None = None
        self._cpuinfo, self._dmi, self._threads = cpuinfo, dmi, threads
        self._machine = MachineClock()
        self._busy_and_total_s = self._machine.busy_and_total_s
        if cpu_times is not None:
            self._busy_and_total_s = lambda: busy_and_total_of(cpu_times())
        self._integral: _Integral | None = None

    def open(self, clock: Clock) -> Sequence[Channel]:
        """Recognise the processor and begin to integrate.

        Raises:
            SourceUnavailableError: The system does not say how busy it is.
        """
        import psutil  # here, so that importing this module loads nothing

        processor = parse_cpuinfo(_text_of(self._cpuinfo))
        recognition = recognise(
            processor,
            sys_vendor=_text_of(self._dmi / "sys_vendor").strip(),
            product_name=_text_of(self._dmi / "product_name").strip(),
        )
        power = power_for(recognition)
        if recognition.basis in ("model", "flags") and processor.without_smt:
            power = power.of_whole_cores()
        threads = self._threads or psutil.cpu_count(logical=True) or 1
        try:
            self._integral = _Integral(power, threads, self._busy_and_total_s, clock)
        except (OSError, ValueError) as error:
            raise SourceUnavailableError(f"CPU energy cannot be modelled: {error}", expected=True) from error
        self.degraded = (
            f"cpu energy is modelled as {recognition}, in watts of the whole server: no CPU energy counter is readable; "
            f"expect {power.expectation()}"
        )
        channel = Channel(
            id="cpu:model",
            type="cpu",
            method=METHOD,
            nature="estimated",
            tick_s=0.0,
            max_power_w=threads * power.max_high_w,
            sharing="cpu_time",
            host_range_j=math.inf,
            name=f"{recognition}, {threads} thread{'s' if threads > 1 else ''}",
        )
        return [channel]

    def read(self) -> Iterator[Reading]:
        """The joules since :meth:`open`; a gap while the system does not say how busy it is."""
        if self._integral is None:
            return
        try:
            low_j, energy_j, high_j = self._integral.now_j()
        except (OSError, ValueError) as error:
            yield Reading("cpu:model", None, error=str(error))
        else:
            yield Reading("cpu:model", energy_j, low_j=low_j, high_j=high_j)

    def close(self) -> None:
        """Stop integrating."""
        self._integral = None
        self._machine.close()


class _Integral:
    """Joules since the machine was started: as power is linear in u, the integral needs only elapsed time and busy time.

    Of what was before it was made only the sum counts, which is about the same for every process of the machine.
    """

    def __init__(self, power: ThreadPower, threads: int, clocks: Callable[[], tuple[float, float]], clock: Clock) -> None:
        self._power, self._threads, self._clocks, self._clock = power, threads, clocks, clock
        self._busy_s, self._total_s = clocks()
        self._at_ns = self._moved_ns = clock.now_ns()
        self._unbooked_s = 0.0
        self._busy_share = 0.0
        thread_s = threads * self._at_ns / 1e9
        self._joules = power.joules(thread_s, min(self._busy_s, thread_s))

    def now_j(self) -> tuple[float, float, float]:
        """Low, best and high joules up to now.

        Raises:
            ValueError: The CPU times are not numbers, go backward or stand still.
            OSError: They cannot be read. After either, the next good reading covers the time in between too.
        """
        busy_s, total_s = self._clocks()
        now_ns = self._clock.now_ns()
        if total_s != self._total_s:
            self._moved_ns = now_ns
        elif now_ns - self._moved_ns > _STALE_S * 1e9:
            raise ValueError("the system's CPU times stand still")
        thread_s = self._threads * (now_ns - self._at_ns) / 1e9
        rise_s = busy_s - self._busy_s
        self._busy_s, self._total_s, self._at_ns = busy_s, total_s, now_ns
        if rise_s < 0:
            # How busy it was since the last reading is lost: as before at best guess, anything between idle and full for sure.
            low_j = self._power.joules(thread_s, 0.0)[0]
            high_j = self._power.joules(thread_s, thread_s)[2]
            self._add((low_j, self._power.joules(thread_s, thread_s * self._busy_share)[1], high_j))
            raise ValueError(f"the system's busy time went backward by {-rise_s:.3f} s")
        # Ticks may be booked a little late, and then exceed the time since the last reading: the rest counts for the next.
        credited_s = min(self._unbooked_s + rise_s, thread_s)
        self._unbooked_s = min(self._unbooked_s + rise_s - credited_s, self._threads * _BOOKING_S)
        if thread_s > 0:
            self._busy_share = credited_s / thread_s
        self._add(self._power.joules(thread_s, credited_s))
        return self._joules

    def _add(self, joules: tuple[float, float, float]) -> None:
        low_j, energy_j, high_j = (sum_j + more_j for sum_j, more_j in zip(self._joules, joules, strict=True))
        self._joules = (min(low_j, energy_j), energy_j, max(high_j, energy_j))  # the last bit of a float may disagree


def from_settings(settings: Settings) -> CpuModelSource:
    """The model of this machine; there is nothing to set."""
    del settings
    return CpuModelSource()


def _thread_power(row: Mapping[str, str]) -> ThreadPower:
    idle_w, max_w = float(row["idle_w"]), float(row["max_w"])
    if not row["max_low_w"]:
        return _within_factor(idle_w, max_w)
    idle_low_w, idle_high_w = (1 - _IDLE_SPREAD) * idle_w, (1 + _IDLE_SPREAD) * idle_w
    return ThreadPower(idle_w, max_w, idle_low_w, float(row["max_low_w"]), idle_high_w, float(row["max_high_w"]))


def _within_factor(idle_w: float, max_w: float) -> ThreadPower:
    return ThreadPower(idle_w, max_w, idle_w / _FACTOR, max_w / _FACTOR, idle_w * _FACTOR, max_w * _FACTOR)


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
