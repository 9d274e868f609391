"""Joules of CPU packages and DRAM, counted by the processor (RAPL) and shown by Linux under ``/sys/class/powercap``.

What is summed is a largest set of zones that do not overlap: every ``package-*`` and every ``dram``. ``core`` and ``uncore``
are parts of a package and ``psys`` contains the packages, so none of these is ever added.

The same silicon can be on show several times, and is counted once:

* ``intel-rapl-mmio`` repeats ``intel-rapl``: of each package one interface is read, the first that works.
* Some processors show one counter under several dies (a Threadripper: 68 W + 68 W where the wall gave 125 W; CodeCarbon's
  documentation, RAPL page): zones that show the same value at each of several reads are one.

**Wrap and reset.** The counter wraps after ``max_energy_range_uj``. A decrease is a wrap if the power that this implies since
the last reading is plausible; then the range is added and the channel goes on rising. Otherwise the counter was *reset* (a
suspend, a kexec) and nothing is added: ``energy_j`` falls by exactly as much as the counter fell, and whoever reads it sees the
decrease and knows that the joules since the last reading are lost. The same holds where the range cannot be read.
"""

from __future__ import annotations

import logging
import math
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from impactsdk.errors import SourceUnavailableError
from impactsdk.model import Channel, Reading
from impactsdk.protocols import Clock
from impactsdk.semconv import ENV_POWERCAP_ROOT
from impactsdk.settings import Settings
from impactsdk.sources.powercap import CounterFile, HeldFile, Zone, find_zones, hidden, number_in

__all__ = ["EnergyCounter", "RaplSource", "from_settings"]

_log = logging.getLogger(__name__)

DEFAULT_ROOT = Path("/sys/class/powercap")

# Published: refreshed about every 1 ms (Intel SDM vol. 3B, RAPL; AMD: Linux, Documentation/hwmon/amd_energy). The "about" asks
# for room: twice that is declared, so that a late refresh still lies inside the interval of a span.
_TICK_S = 0.002
# No package, and no socket's worth of DIMMs, draws this much; used where the processor does not say what it may draw.
_PLAUSIBLE_W = 1000.0
# A package may exceed its own limits for some milliseconds.
_EXCURSION = 1.5
_RESOLUTION_J = 61e-6
_STILL_NS = 1_000_000_000
# A counter that works moves each millisecond: ten looks in 45 ms tell it from one that stands still.
_LOOKS, _LOOK_PAUSE_S, _ENOUGH_RISES = 10, 0.005, 4


class EnergyCounter:
    """Makes one rising sum of a counter that wraps; the module's docstring says what becomes of a reset.

    Args:
        range_uj: ``max_energy_range_uj``; ``None`` if it cannot be read, and then every decrease is passed on.
        plausible_w: The most power that a wrap may imply.
    """

    def __init__(self, range_uj: int | None, plausible_w: float) -> None:
        # The kernel gives 2**32 - 1 units as the range; the counter wraps after 2**32 of them.
        self.resolution_j = _RESOLUTION_J if range_uj is None else range_uj / (2**32 - 1) / 1e6
        self._modulus_uj = None if range_uj is None else range_uj + round(self.resolution_j * 1e6)
        self._plausible_w = plausible_w
        self.range_j = None if self._modulus_uj is None else self._modulus_uj / 1e6
        self._wrapped_uj = 0
        self._last: tuple[int, int] | None = None
        self._moved_ns = 0

    def cumulative_j(self, raw_uj: int, at_ns: int) -> float:
        """Joules since an arbitrary start, from what the counter shows at ``at_ns`` of the monotonic clock."""
        if self._last is None or raw_uj != self._last[0]:
            self._moved_ns = at_ns
        if self._last is not None and raw_uj < self._last[0] and self._modulus_uj is not None:
            rise_j = (raw_uj - self._last[0] + self._modulus_uj) / 1e6
            # One tick more than has passed: the last value may have been that old when it was read.
            if 0 <= rise_j <= self._plausible_w * ((at_ns - self._last[1]) / 1e9 + _TICK_S):
                self._wrapped_uj += self._modulus_uj
        self._last = (raw_uj, at_ns)
        return (self._wrapped_uj + raw_uj) / 1e6

    def still_ns(self, at_ns: int) -> int:
        """For how long it has shown the same; one that works moves each millisecond."""
        return at_ns - self._moved_ns


class RaplSource:
    """CPU packages and DRAM of this machine, by RAPL.

    Args:
        root: The powercap directory: ``/sys/class/powercap``, or ``/sys/devices/virtual/powercap`` mounted into a container.
        opener: Opens an ``energy_uj``.
        sleep: Waits between the reads by which :meth:`open` sees whether the counters move, 45 ms in all.

    Attributes:
        degraded: One sentence if something that this machine counts had to be left out.
    """

    name = "rapl"
    covers = "cpu"
    rank = 0
    lazy = True
    counts = True

    def __init__(
        self,
        root: Path = DEFAULT_ROOT,
        *,
        opener: Callable[[Path], CounterFile] = HeldFile,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.degraded: str | None = None
        self._root, self._opener, self._sleep = root, opener, sleep
        self._clock: Clock | None = None
        self._channels: list[tuple[Channel, Zone, EnergyCounter]] = []

    def open(self, clock: Clock) -> Sequence[Channel]:
        """Find the zones, watch them for up to 45 ms, and keep those that count something of their own.

        Raises:
            SourceUnavailableError: There are no counters, they stand still (a virtual machine), or they may not be read.
        """
        self.close()
        self._clock, self.degraded = clock, None
        zones = find_zones(self._root, self._opener)
        kept: dict[Zone, list[str]] = {}
        try:
            watched_s = self._watch(zones, clock)
            kept = _without_mirrors(self._chosen(zones))
        finally:
            for zone in zones:
                if zone not in kept:
                    zone.close()
        self._channels = [_channel(zone, mirrors, watched_s) for zone, mirrors in kept.items()]
        unknown = [zone for zone in kept if hidden(zone.directory / "max_energy_range_uj")]
        if unknown and self.degraded is None:
            self.degraded = (
                f"after how many joules the counter of {unknown[0].name} begins anew may not be read, and each time some are "
                f"lost: {_opened_by(self._root, unknown[0])}"
            )
        return [channel for channel, _, _ in self._channels]

    def read(self) -> Iterator[Reading]:
        """Each zone once. A zone that is gone or shows no number is a gap, and is opened anew at the next read."""
        if self._clock is None:
            return
        for channel, zone, counter in self._channels:
            yield _reading(channel, zone, counter, self._clock)

    def close(self) -> None:
        """Close the files."""
        for _, zone, _ in self._channels:
            zone.close()
        self._channels = []

    def _watch(self, zones: Sequence[Zone], clock: Clock) -> float:
        """Read all zones several times; return the seconds that it took."""
        began_ns = clock.now_ns()
        for look in range(_LOOKS):
            if look:
                self._sleep(_LOOK_PAUSE_S)
            watched = [zone for zone in zones if zone.trouble is None]
            for zone in watched:
                zone.look()
            if all(len(zone.rises_uj) >= _ENOUGH_RISES for zone in watched if zone.trouble is None):
                break
        return (clock.now_ns() - began_ns) / 1e9

    def _chosen(self, zones: Sequence[Zone]) -> list[Zone]:
        """For each package, and for the DRAM of each, the zones of the first interface that can be read and moves."""
        chosen: list[Zone] = []
        for kind, package in dict.fromkeys((zone.kind, zone.package) for zone in zones):
            group = [zone for zone in zones if (zone.kind, zone.package) == (kind, package)]
            broken = next((zone for zone in group if zone.denied), None) or next((zone for zone in group if zone.trouble), None)
            for interface in sorted({zone.interface for zone in group}):
                twins = [zone for zone in group if zone.interface == interface]
                # Some dies of a package would pass for all of it: all can be read, or another interface has to serve.
                working = [] if any(zone.trouble for zone in twins) else [zone for zone in twins if zone.rises_uj]
                if working:
                    chosen += working
                    break
            else:
                if broken is not None and broken.denied and kind == "package":
                    raise SourceUnavailableError(_denied_message(self._root, broken), expected=False)
                if broken is not None:
                    why = _denied_message(self._root, broken) if broken.denied else f"{broken.directory}: {broken.trouble}"
                    what = "energy" if kind == "package" else "DRAM energy"
                    self.degraded = f"the {what} of package-{package} is left out: {why}"
        still = [zone for zone in zones if zone.trouble is None and not zone.rises_uj]
        for zone in still:
            _log.info("%s is left out: its counter stands still at %d uJ", zone.directory, zone.seen_uj[-1])
        packages = [zone for zone in chosen if zone.kind == "package"]
        if not packages:
            raise SourceUnavailableError(_nothing_message(self._root, zones), expected=not _hidden(self._root))
        for zone in still:
            elsewhere = any(other.package == zone.package and other.interface != zone.interface for other in packages)
            if zone.kind == "package" and not elsewhere:
                why = f"{zone.directory}: its counter stands still while others move"
                said = f"{self.degraded}; " if self.degraded else ""
                self.degraded = f"{said}the energy of {zone.name} is left out: {why}"
        return chosen


def from_settings(settings: Settings) -> RaplSource:
    """The source under ``IMPACTSDK_POWERCAP_ROOT``, by default ``/sys/class/powercap``."""
    return RaplSource(Path(settings.environ.get(ENV_POWERCAP_ROOT, "").strip() or DEFAULT_ROOT))


def _without_mirrors(zones: Sequence[Zone]) -> dict[Zone, list[str]]:
    """The zones that count something of their own, each with the names of those that repeat it."""
    kept: dict[Zone, list[str]] = {}
    for zone in zones:
        twin = next((other for other in kept if other.kind == zone.kind and other.mirrors(zone)), None)
        if twin is None:
            kept[zone] = []
        else:
            kept[twin].append(zone.name)
    return kept


def _channel(zone: Zone, mirrors: Sequence[str], watched_s: float) -> tuple[Channel, Zone, EnergyCounter]:
    max_power_w = _max_power_w(zone.directory)
    if max_power_w is not None and sum(zone.rises_uj) / 1e6 > max_power_w * (watched_s + _TICK_S):
        max_power_w = None  # it draws more than it says that it may
    counter = EnergyCounter(number_in(zone.directory / "max_energy_range_uj"), max_power_w or _PLAUSIBLE_W)
    package = zone.kind == "package"
    channel = Channel(
        id=f"cpu:package-{zone.label}" if package else f"memory:dram-{zone.label}",
        type="cpu" if package else "memory",
        method=f"rapl.{zone.kind}",
        tick_s=_TICK_S,
        max_power_w=max_power_w,
        resolution_j=counter.resolution_j,
        sharing="cpu_time",
        host_range_j=math.inf if counter.range_j is None else counter.range_j,
        name=zone.name + (f" (the same counter as {', '.join(mirrors)})" if mirrors else ""),
    )
    return channel, zone, counter


def _reading(channel: Channel, zone: Zone, counter: EnergyCounter, clock: Clock) -> Reading:
    try:
        at_ns = clock.now_ns()
        energy_j = counter.cumulative_j(zone.raw_uj(), at_ns)
        if counter.still_ns(at_ns) > _STILL_NS:
            raise ValueError(f"the counter has stood still for {counter.still_ns(at_ns) / 1e9:.1f} s")
        return Reading(channel.id, energy_j)
    except (OSError, ValueError) as error:
        return Reading(channel.id, None, error=f"{zone.directory}: {error}")


def _max_power_w(directory: Path) -> float | None:
    """The largest limit of a zone, with room for excursions; the short-term limit is often twice the rated power."""
    paths = [*directory.glob("constraint_*_max_power_uw"), *directory.glob("constraint_*_power_limit_uw")]
    limits_uw = [number for number in map(number_in, paths) if number is not None]
    return _EXCURSION * max(limits_uw) / 1e6 if limits_uw else None


def _hidden(root: Path) -> bool:
    """Whether the machine has counters that a container does not show: Docker masks the directories that the links point to."""
    return any(entry.is_symlink() and not entry.exists() for entry in root.glob("intel-rapl*"))


def _nothing_message(root: Path, zones: Sequence[Zone]) -> str:
    if _hidden(root):
        return (
            f"the container hides the CPU energy counters: {root} points to directories that are not there. Mount the host's "
            f"/sys/devices/virtual/powercap into it, read-only, at another place, and set {ENV_POWERCAP_ROOT} to that place"
        )
    packages = [zone for zone in zones if zone.kind == "package"]
    broken = next((zone for zone in packages if zone.trouble is not None), None)
    if broken is not None:
        return f"no CPU energy counter that works: {broken.directory}: {broken.trouble}"
    if packages:
        return f"no CPU energy counter that moves: {packages[0].directory} stands still, as in a virtual machine"
    return f"no CPU energy counter: {root} has no package zone (not Linux, a virtual machine, or intel_rapl is not loaded)"


def _denied_message(root: Path, zone: Zone) -> str:
    return (
        f"{zone.directory}/energy_uj may not be read: since Linux 5.10 it is root's alone, for it is a side channel "
        f"(CVE-2020-8694); open it where you trust the local users. {_opened_by(root, zone)}"
    )


def _opened_by(root: Path, zone: Zone) -> str:
    """The commands that let everybody read the counters."""
    files = ("energy_uj", "max_energy_range_uj")
    place = shlex.quote(str(root))
    until_boot = "chmod a+r " + " ".join(f"{place}/intel-rapl*:*/{file}" for file in files)
    if zone.directory.parent != root:  # the tree and not the class directory: a mount, which may be read-only here
        until_boot = f"find {place} {' -o '.join(f'-name {file}' for file in files)} | sudo xargs chmod a+r"
    for_good = " ".join(f"/sys/%p/{file}" for file in files)
    rule = f'SUBSYSTEM=="powercap", KERNEL=="intel-rapl*:*", RUN+="/usr/bin/chmod a+r {for_good}"'
    where = "" if zone.directory.parent == root else ", on the host where the mount is read-only"
    return (
        f"Until the next boot{where}: sudo {until_boot}. For good: put this line into /etc/udev/rules.d/70-rapl.rules: {rule}"
    )
