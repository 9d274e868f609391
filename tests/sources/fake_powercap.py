"""A powercap tree on disk, as Linux lays it out, whose counters move as its own clock does.

It is at once the tree, the clock and the ``sleep`` that a source under test is given: nothing waits, and the truth is known.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Mapping
from pathlib import Path

from impactsdk.protocols import Waker

INTEL_RANGE_UJ = 262143328850
AMD_RANGE_UJ = 65532610987


class FakeZone:
    """One zone: its true energy, and what its counter shows of it."""

    def __init__(self, name: str, *, power_w: float, start_uj: float, range_uj: int, directory: Path) -> None:
        self.name, self.power_w, self.range_uj, self.directory = name, power_w, range_uj, directory
        self.true_uj = float(start_uj)
        self.offset_uj = 0.0  # what a reset took away
        self.text: str | None = None  # said instead of the number

    @property
    def raw_uj(self) -> int:
        return int(self.true_uj - self.offset_uj) % (self.range_uj + round(self.range_uj / (2**32 - 1)))

    def reset(self) -> None:
        self.offset_uj = self.true_uj


class FakePowercap:
    """``<base>/class/powercap`` with links into ``<base>/devices/virtual/powercap``.

    Args:
        base: An empty directory.
        tick_s: The counters are refreshed this often; 0: always.
        read_s: How long the reading of one counter takes, by this clock.
    """

    def __init__(self, base: Path, *, tick_s: float = 0.0, read_s: float = 0.0) -> None:
        self.root = base / "class" / "powercap"
        self.devices = base / "devices" / "virtual" / "powercap"
        self.root.mkdir(parents=True)
        self.devices.mkdir(parents=True)
        self.zones: dict[str, FakeZone] = {}
        self.denied: set[str] = set()
        self.gone: set[str] = set()
        self.open_files = 0
        self._mirrors: dict[str, str] = {}
        self._now_s = 1000.0
        self._tick_s, self._read_s = tick_s, read_s

    # --- the tree ---
    def add(
        self,
        zone_id: str,
        name: str,
        *,
        power_w: float = 50.0,
        start_uj: float = 12_345_678_900,
        range_uj: int = INTEL_RANGE_UJ,
        limits_uw: Mapping[str, int] | None = None,
        mirror_of: str | None = None,
    ) -> FakeZone:
        """A zone, nested in its parent and as a flat link; ``mirror_of`` shows the counter of another one."""
        interface = zone_id.partition(":")[0]
        directory = self.directory(zone_id)
        directory.mkdir(parents=True)
        (directory / "name").write_text(f"{name}\n")
        (directory / "max_energy_range_uj").write_text(f"{range_uj}\n")
        for file, value in (limits_uw or {}).items():
            (directory / file).write_text(f"{value}\n")
        for link, target in ((interface, self.devices / interface), (zone_id, directory)):
            if not (self.root / link).is_symlink():
                (self.root / link).symlink_to(target)
        (directory / "subsystem").symlink_to(self.root)
        zone = FakeZone(name, power_w=power_w, start_uj=start_uj, range_uj=range_uj, directory=directory)
        self.zones[zone_id] = self.zones[mirror_of] if mirror_of else zone
        self._mirrors[zone_id] = mirror_of or zone_id
        self._write()
        return zone

    def remove(self, zone_id: str) -> None:
        """The driver lets go of a zone: open files fail from now on."""
        self.gone.add(zone_id)
        shutil.rmtree(self.directory(zone_id))

    def restore(self, zone_id: str) -> None:
        """The zone is back."""
        self.gone.discard(zone_id)
        self.directory(zone_id).mkdir(parents=True)
        self._write()

    def directory(self, zone_id: str) -> Path:
        """Where the zone is, also while it is gone."""
        interface, *places = zone_id.split(":")
        return self.devices.joinpath(interface, *(f"{interface}:{':'.join(places[: n + 1])}" for n in range(len(places))))

    # --- time ---
    def advance(self, seconds: float) -> None:
        """Let time pass and the counters move."""
        before_s, self._now_s = self._now_s, self._now_s + seconds
        passed_s = self._refreshed_s(self._now_s) - self._refreshed_s(before_s)
        for zone_id, zone in self.zones.items():
            if self._mirrors[zone_id] == zone_id:
                zone.true_uj += zone.power_w * passed_s * 1e6
        self._write()

    sleep = advance

    def _refreshed_s(self, at_s: float) -> float:
        return at_s // self._tick_s * self._tick_s if self._tick_s else at_s

    def now_ns(self) -> int:
        return round(self._now_s * 1e9)

    def unix_ns(self) -> int:
        return self.now_ns()

    def waker(self) -> Waker:
        raise NotImplementedError("no source sleeps on the clock")

    # --- files ---
    def open_counter(self, path: Path) -> FakeFile:
        """An ``opener``: as the default one, but refuses what is denied, and a held file fails when its zone goes."""
        zone_id = path.parent.name
        if zone_id in self.denied:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        if zone_id in self.gone:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        self.open_files += 1
        return FakeFile(self, zone_id)

    def _write(self) -> None:
        for zone_id, zone in self.zones.items():
            if zone_id not in self.gone:
                text = zone.text if zone.text is not None else f"{zone.raw_uj}\n"
                (self.directory(zone_id) / "energy_uj").write_text(text)

    def took_a_read(self) -> None:
        if self._read_s:
            self.advance(self._read_s)


class FakeFile:
    """A held ``energy_uj`` of a :class:`FakePowercap`."""

    def __init__(self, tree: FakePowercap, zone_id: str) -> None:
        self._tree, self._zone_id = tree, zone_id
        self._dead = False

    def read(self) -> bytes:
        if self._zone_id in self._tree.gone:
            self._dead = True
        if self._dead:  # also when the zone is back: the file has to be opened anew
            raise OSError(errno.ENODEV, "No such device")
        self._tree.took_a_read()
        return (self._tree.directory(self._zone_id) / "energy_uj").read_bytes()

    def close(self) -> None:
        self._tree.open_files -= 1
