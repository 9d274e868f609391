"""The sources of one session, opened, and this boundary's part of what they show. All of it in the sampler's thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from impactsdk.clock import SystemClock
from impactsdk.discovery import candidates
from impactsdk.energy.cgroup import cgroup_of, group_number
from impactsdk.energy.curve import Curve
from impactsdk.energy.knot import Knot
from impactsdk.energy.probe import IDLE_S, Probe, told
from impactsdk.energy.registry import Registry, runtime_directory, users_directory
from impactsdk.energy.sampler import Sampler
from impactsdk.energy.share import NO_CLOCKS, Clocks, CpuShare
from impactsdk.errors import SourceUnavailableError
from impactsdk.protocols import Clock, EnergySource
from impactsdk.settings import Settings

__all__ = ["Devices"]

_WATCHED_S = 1.0
_log = logging.getLogger(__name__)


class Devices:
    """Opens the sources that the settings ask for and divides what others use, too."""

    def __init__(self, settings: Settings, clock: Clock, complain: Callable[[str, str], None]) -> None:
        self.curves: list[Curve] = []
        directory = runtime_directory(settings.environ)
        self.registry = Registry(directory, private=directory == users_directory(settings.environ))
        self._settings, self._clock, self._complain = settings, clock, complain
        self._opened: list[Probe] = []
        self._candidates: list[list[EnergySource]] | None = None  # made once, so that one that hung is known again
        # A clock that is not the system's is not that of other processes either: nothing is divided by when they measured.
        self._common_time = isinstance(clock, SystemClock)
        self._cpu_share: CpuShare | None = None
        self._clocks: Clocks | None = None  # of this round, once somebody has asked for them

    def open(self, sampler: Sampler) -> list[Probe]:
        """Open of each group of alternatives the best that can be opened."""
        for probe in self._opened:  # by a thread that then hung
            probe.close()
        self._opened = probes = []
        taken: dict[str, str] = {}
        if self._candidates is None:
            self._candidates = list(candidates(self._settings, self._complain))
        for alternatives in self._candidates:
            for source in alternatives:
                if any(source is hung for hung in sampler.given_up):
                    continue
                probe = Probe(source, self._clock, self._complain, self._settings.interval_s)
                opened = self._try(probe, sampler)
                if sampler.superseded():
                    return []
                if not opened:
                    continue
                twice = [name for name in probe.curves if name in taken]
                if twice:
                    self._complain(
                        f"twice:{probe.name}",
                        f"{probe.name} has the channel {twice[0]!r}, which {taken[twice[0]]} has already: it is left out, "
                        "so that nothing is counted twice; give each device an id of its own",
                    )
                    probe.close()
                    continue
                taken.update(dict.fromkeys(probe.curves, probe.name))
                degraded = told(source, "degraded")
                if degraded:
                    self._complain(f"degraded:{probe.name}", str(degraded))
                probes.append(probe)
                break
        self._leave_out_what_modules_contain(probes)
        self.curves = [curve for probe in probes for curve in probe.curves.values()]
        self._begin_sharing()
        return probes

    def _leave_out_what_modules_contain(self, probes: list[Probe]) -> None:
        """Where a board is only known by the energy of its whole module, that of the CPU is in it."""
        if not any(curve.channel.scope == "module" for probe in probes for curve in probe.curves.values()):
            return
        for probe in [probe for probe in probes if told(probe.source, "covers") == "cpu"]:
            self._complain(
                f"module:{probe.name}", f"{probe.name} is left out: the energy of the GPU's module contains the CPU's"
            )
            probe.close()
            probes.remove(probe)

    def _try(self, probe: Probe, sampler: Sampler) -> bool:
        sampler.calling(probe)
        try:
            probe.open()
        except SourceUnavailableError as error:
            if getattr(error, "expected", False) and self._settings.sources is None:
                _log.info("%s: %s", probe.name, error)
            else:
                self._complain(f"open:{probe.name}", f"{probe.name}: {error}")
            return False
        finally:
            if not sampler.superseded():
                sampler.calling(None)
        if sampler.superseded():
            probe.close()
        return not probe.hung

    def _begin_sharing(self) -> None:
        boundary = self._settings.boundary
        alone = ("exclusive",) if self._common_time else ("exclusive", "board")
        shared = [curve.channel for curve in self.curves if curve.channel.sharing not in alone]
        if boundary == "machine" or not shared:
            return
        cgroup = None
        try:
            with open("/proc/self/cgroup", encoding="utf-8") as table:  # noqa: PTH123 - one line, no path arithmetic
                cgroup = cgroup_of(table.read())
        except OSError:
            pass
        if boundary == "cgroup" and cgroup is None:
            self._complain("cgroup", "boundary=cgroup: this process is in no control group; its own share is used instead")
        boards = [channel.id for channel in shared if channel.sharing == "board"]
        joined_ns = self.registry.join(boundary=boundary, cgroup=cgroup, boards=boards, group=group_number(cgroup))
        self._check_registry()
        if any(channel.sharing == "cpu_time" for channel in shared):
            directory = self.registry.directory if self._common_time else None
            self._cpu_share = CpuShare(boundary, self.registry, directory=directory, cgroup=cgroup)
        while boards and self._clock.now_ns() < joined_ns <= self._clock.now_ns() + 1_000_000_000:
            time.sleep(0.002)  # once: until then the others do not know of us

    def _check_registry(self) -> None:
        if self.registry.error is not None:
            self._complain(
                "registry",
                f"other measuring processes cannot be seen: {self.registry.error}; what several measure at once may be counted "
                "by each; IMPACTSDK_RUNTIME_DIR names another place",
            )

    def begin_round(self) -> None:
        """The sources are about to be read."""
        self._clocks = None

    def _looked(self, share: CpuShare) -> Clocks:
        if self._clocks is None:  # once a round, and only in those in which somebody asks
            self._clocks = share.sample()
        return self._clocks

    def look(self) -> Clocks | None:
        """The clocks of this round, by which what is read now may be divided later; ``None``: it must not wait."""
        if self._cpu_share is None:
            return NO_CLOCKS
        clocks = self._looked(self._cpu_share)
        return clocks if self._cpu_share.may_wait() else None

    def idle_s(self) -> float:
        """How long nothing has to be read while no region is open."""
        return _WATCHED_S if self._cpu_share is not None and self._cpu_share.unseen_by_others else IDLE_S

    @contextmanager
    def together(self) -> Iterator[None]:
        """Several rounds are divided inside, one after another."""
        if self._cpu_share is None:
            yield
        else:
            with self._cpu_share.together():
                yield

    def divide(self, curve: Curve, knot: Knot | None, clocks: object = None) -> None:
        """A channel was read: say what part of the interval that this closed is ours.

        ``clocks``: what :meth:`look` gave when it was read; ``None``: it was read in this round.
        """
        if knot is None or self._settings.boundary == "machine":
            return
        sharing = curve.channel.sharing
        if sharing == "cpu_time" and self._cpu_share is not None:
            share = self._cpu_share
            seen = clocks if isinstance(clocks, Clocks) else self._looked(share)
            part = share.part(curve.channel, knot.hi_ns, knot.energy_j, curve.step_j, curve.shown_j, seen)
            if part.held:
                knot.failed = True
                self._complain("pool:held", "another measuring process holds up the division of CPU energy; spans are partial")
            if len(curve.knots) > 1:
                curve.divide(part.share, between=(part.least, part.most))
                knot.stray_j, knot.unseen_j = part.stray_j, part.unseen_j
            if share.error is not None:
                self._complain("pool", f"CPU energy is not divided together with other measuring processes: {share.error}")
        elif sharing == "board" and self._common_time and len(curve.knots) > 1:
            curve.divide(*self.registry.board_share(curve.channel.id, *curve.window_ns()))
            self._check_registry()

    def leave(self) -> None:
        """This process counts nothing any more."""
        if self._cpu_share is not None:
            self._cpu_share.leave()
        self.registry.leave()

    def forsake(self) -> None:
        """In the child of a fork: what is shared with other processes is the parent's."""
        if self._cpu_share is not None:
            self._cpu_share.forsake()
        self.registry.forsake()
