"""The RAPL zones that Linux shows under ``/sys/class/powercap``: where they are, what they are called, what they count.

A zone is known by its *name*, not by its index: ``psys`` is often ``intel-rapl:1``, and ``intel-rapl:a`` may be ``package-10``.
Each is on show twice, nested in its parent and as a flat symbolic link in the class directory; each id is taken once.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Protocol

__all__ = ["CounterFile", "HeldFile", "Zone", "find_zones", "hidden", "number_in"]

_ZONE_ID = re.compile(r"(?P<interface>intel-rapl[a-z-]*):\w+(?::\w+)*")
_PACKAGE = re.compile(r"package-(?P<label>\d+(?:-die-\d+)?)")


class CounterFile(Protocol):
    """An open ``energy_uj``."""

    def read(self) -> bytes:
        """What the file says now."""

    def close(self) -> None:
        """Let go of it."""


class HeldFile:
    """A file that is kept open: reading it again takes 0.5 us, opening it anew 7 us."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self._last = b""

    def read(self) -> bytes:
        """What the file says now.

        Raises:
            OSError: It cannot be read, or is no longer the one of that name.
        """
        text = os.pread(self._fd, 32, 0)
        if text == self._last:  # no counter that works says the same twice
            held, named = os.fstat(self._fd), self._path.stat()
            if (held.st_dev, held.st_ino) != (named.st_dev, named.st_ino):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(self._path))
        self._last = text
        return text

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


class Zone:
    """A package or the DRAM of one: where it is, what it showed when it was looked at, and its open file.

    Args:
        directory: Where its files are.
        interface: ``intel-rapl``, or ``intel-rapl-mmio``, which shows the same silicon again.
        kind: ``package`` or ``dram``.
        label: Of the package, with its die if the name has one: ``0``, ``0-die-1``.
        opener: Opens ``energy_uj``.
    """

    def __init__(self, directory: Path, interface: str, kind: str, label: str, opener: Callable[[Path], CounterFile]) -> None:
        self.directory, self.interface, self.kind, self.label = directory, interface, kind, label
        self.package = label.partition("-")[0]
        self.seen_uj: list[int] = []
        self.trouble: Exception | None = None
        self._opener = opener
        self._file: CounterFile | None = None

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"package-{self.label}" if self.kind == "package" else f"dram of package-{self.label}"

    @property
    def denied(self) -> bool:
        """Whether the look failed for want of permission."""
        return isinstance(self.trouble, PermissionError)

    @property
    def rises_uj(self) -> list[int]:
        """Between successive looks; none where a wrap lies between."""
        return [after - before for before, after in pairwise(self.seen_uj) if after > before]

    def raw_uj(self) -> int:
        """What the counter shows; after a failure the next call opens the zone anew.

        Raises:
            OSError: The zone is gone, or may not be read.
            ValueError: The file holds no number.
        """
        try:
            if self._file is None:
                self._file = self._opener(self.directory / "energy_uj")
            text = self._file.read().strip()
            if not text.isdigit():
                raise ValueError(f"{text[:40]!r} is not a number of microjoules")
            return int(text)
        except (OSError, ValueError):
            self.close()
            raise

    def look(self) -> None:
        """Note what the counter shows, or why it does not."""
        try:
            self.seen_uj.append(self.raw_uj())
        except (OSError, ValueError) as error:
            self.trouble = error

    def mirrors(self, later: Zone) -> bool:
        """Whether ``later``, always looked at after this one, shows the same counter.

        It does if each of its values lies between those that this zone showed before and after. Two equal sockets may agree
        within 0.1 % by chance, this narrowly they do not; and it holds even if the thread was suspended between two reads.
        One rise of slack is for registers that are refreshed one after the other.
        """
        slack_uj = min(self.rises_uj + later.rises_uj, default=0)
        looks = zip(pairwise(self.seen_uj), later.seen_uj, strict=False)
        return all(before - slack_uj <= value <= after + slack_uj for (before, after), value in looks)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None


def find_zones(root: Path, opener: Callable[[Path], CounterFile]) -> list[Zone]:
    """Every package and DRAM zone under ``root`` once: packages first, each kind by number.

    ``root`` is the class directory or the tree that its links point to.
    """
    names: dict[str, tuple[Path, str]] = {}
    visited: set[str] = set()
    pending = [root]
    while pending:
        directory = pending.pop(0)
        with suppress(OSError):
            for entry in sorted(directory.glob("intel-rapl*")):
                if entry.name not in visited and entry.is_dir():
                    visited.add(entry.name)
                    pending.append(entry)
                    with suppress(OSError, UnicodeDecodeError):  # the interface itself has no name
                        names[entry.name] = entry, (entry / "name").read_text("utf-8").strip()
    zones: list[Zone] = []
    for zone_id, (directory, name) in names.items():
        match = _ZONE_ID.fullmatch(zone_id)
        owner = names.get(zone_id.rpartition(":")[0], (root, ""))[1] if name == "dram" else name
        package = _PACKAGE.fullmatch(owner)
        if match is not None and package is not None:
            zone = Zone(directory, match["interface"], "dram" if name == "dram" else "package", package["label"], opener)
            mine = (zone.interface, zone.kind, zone.label)
            if any((other.interface, other.kind, other.label) == mine for other in zones):
                zone.label += f"-{zone_id}"  # two of one name; if they count the same, they are found to be one later
            zones.append(zone)
    return sorted(zones, key=lambda zone: (zone.kind != "package", [int(n) for n in re.findall(r"\d+", zone.label)]))


def hidden(path: Path) -> bool:
    """Whether a file is there and may not be read."""
    try:
        path.read_bytes()
    except PermissionError:
        return True
    except OSError:
        pass
    return False


def number_in(path: Path) -> int | None:
    """The positive whole number in a file; ``None`` where there is none. Zero is how these files say "unknown"."""
    try:
        number = int(path.read_bytes())
    except (OSError, ValueError):
        return None
    return number if number > 0 else None
