"""The source of NVIDIA boards: opens those that are this process's own, reads each, and stays honest when one fails."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from impactsdk.errors import DegradedWarning, SourceFailedError, SourceUnavailableError
from impactsdk.model import Boundary, Channel, Reading
from impactsdk.protocols import Clock
from impactsdk.settings import Settings
from impactsdk.sources.nvml.choice import choose
from impactsdk.sources.nvml.driver import (
    BOARD_GONE,
    DRIVER_GONE,
    NO_PERMISSION,
    NO_SUCH_METRIC,
    Driver,
    board_list,
    explained,
    mig_on,
    mig_parent,
    started,
    unavailable,
)
from impactsdk.sources.nvml.metrics import (
    EnergyCounter,
    ImplausiblePowerError,
    Metric,
    NoMetricError,
    PowerIntegral,
    UnopenedCounter,
    metric_of,
    power_limit_w,
)
from impactsdk.sources.nvml.visible import Board, Device

__all__ = ["NvmlSource", "from_settings"]

_LOG = logging.getLogger(__name__)
_FIRST_WAIT_NS = 100_000_000
_LONGEST_WAIT_NS = 10_000_000_000
_STILL_NS = 1_000_000_000
_SOME_MW = 1_000
_HEADROOM = 1.1
"""How far above its enforced limit a board may be for an instant."""


def from_settings(settings: Settings) -> NvmlSource:
    """The source as the settings want it; nothing is opened yet."""
    return NvmlSource(environ=settings.environ, boundary=settings.boundary)


class NvmlSource:
    """The energy of NVIDIA boards, each counted once, chosen as CUDA chooses and known by UUID.

    Args:
        environ: The environment of the process: ``CUDA_VISIBLE_DEVICES``, ``CUDA_DEVICE_ORDER`` and the launchers' ranks.
        boundary: ``machine`` reads all boards; the others those that CUDA shows, ``process`` of them only this rank's.
        modules: The loaded modules, by name; default: those of this interpreter.
    """

    name = "nvml"
    covers: str | None = None
    rank = 0
    lazy = True

    def __init__(
        self, *, environ: Mapping[str, str], boundary: Boundary = "process", modules: Mapping[str, Any] | None = None
    ) -> None:
        self._environ = environ
        self._boundary = boundary
        self._modules = sys.modules if modules is None else modules
        self._driver: Driver | None = None
        self._counters: list[_Counter] = []

    def open(self, clock: Clock) -> Sequence[Channel]:
        """Find the boards that are this process's own and a way to read each.

        Raises:
            SourceUnavailableError: NVML does not work here, or shows no board that can be read.
        """
        self._driver = driver = started()
        try:
            self._counters = self._found(driver, clock)
        except BaseException as error:
            self.close()
            if isinstance(error, driver.NVMLError):
                raise unavailable(error) from error
            raise
        return [counter.channel for counter in self._counters]

    def read(self) -> Iterator[Reading]:
        """One reading of each board; a board that does not answer gives one without energy, and says why.

        Raises:
            SourceFailedError: NVML as a whole has stopped working.
        """
        for counter in self._counters:
            yield counter.reading()

    def utilization(self) -> Mapping[str, float]:
        """The part of the last second or so in which each board was busy, 0 to 1; a board that does not say is left out."""
        driver, found = self._driver, {}
        for counter in self._counters if driver is not None else ():
            with suppress(driver.NVMLError):  # type: ignore[union-attr]
                found[counter.channel.id] = driver.nvmlDeviceGetUtilizationRates(counter.handle).gpu / 100  # type: ignore[union-attr]
        return found

    def close(self) -> None:
        """Let go of NVML; never raises, and may be called again."""
        driver, self._driver = self._driver, None
        self._counters = []
        if driver is not None:
            with suppress(Exception):
                driver.nvmlShutdown()

    def _found(self, driver: Driver, clock: Clock) -> list[_Counter]:
        refusals: list[str] = []

        def refused(index: int, error: Any) -> None:
            refusals.append(f"board {index} cannot be opened: {explained(error)}")
            if error.value == NO_PERMISSION and self._boundary != "machine":
                _LOG.info("nvml: %s; it is somebody else's", refusals[-1])
            else:
                _warn(f"{refusals[-1]}; its energy is missing")

        boards = board_list(driver, refused)
        if not any(board.opened for board in boards):
            why = "; ".join(refusals) or "the driver shows none"
            raise SourceUnavailableError(f"there is no NVIDIA board to read: {why}", expected=not refusals)
        devices = choose(
            boards,
            boundary=self._boundary,
            environ=self._environ,
            modules=self._modules,
            mig_parent=lambda name: mig_parent(driver, name),
            warn=_warn,
        )
        counters = []
        for device in devices:
            if not device.board.opened:
                counters.append(_unopened(driver, device.board, clock))
                continue
            try:
                counters.append(self._counter(driver, device, clock))
            except NoMetricError as error:
                refusals.append(f"{_named(device.board)} is not measured: {error}")
                _warn(f"{refusals[-1]}; its energy is missing")
        if not any(counter.handle is not None for counter in counters):
            raise SourceUnavailableError(f"no NVIDIA board can be read: {'; '.join(refusals)}")
        return _each_module_once(counters)

    def _counter(self, driver: Driver, device: Device, clock: Clock) -> _Counter:
        board = device.board
        limit_w = power_limit_w(driver, board.handle)
        metric = metric_of(driver, board.handle, clock, limit_w)
        scope = metric.scope
        if scope == "module":
            limit_w = None  # it is the board's
            _warn(f"{_named(board)} only knows the power of its whole module: the energy is that of its CPU and memory, too")
        elif self._boundary != "machine" and (device.mig is not None or mig_on(driver, board.handle)):
            scope = "board"
            _warn(f"{_named(board)} is cut into MIG slices, whose energy nobody measures: the whole board's is an upper bound")
        if not isinstance(metric, EnergyCounter):
            blur = f"changes within {metric.tick_s:g} s are blurred"
            _warn(f"{_named(board)} has no energy counter: samples of its power are integrated, and {blur}")
        channel = Channel(
            id=f"gpu:{board.uuid}",
            type="gpu",
            method=metric.method,
            nature=metric.nature,
            tick_s=metric.tick_s,
            max_power_w=None if limit_w is None else _HEADROOM * limit_w,
            resolution_j=0.001,
            sharing="board",
            name=board.model,
            scope=scope,
        )
        return _Counter(channel, board.handle, metric, driver, clock)


def _unopened(driver: Driver, board: Board, clock: Clock) -> _Counter:
    """A board that should be measured and could not be opened: its energy is missing until it can be."""
    metric = UnopenedCounter(driver, board.index)
    channel = Channel(id=f"gpu:{board.uuid}", type="gpu", method=metric.method, tick_s=None, sharing="board")
    return _Counter(channel, None, metric, driver, clock)


def _each_module_once(counters: Sequence[_Counter]) -> list[_Counter]:
    """The counters without those that show the module of an earlier one, too: the same power, twice, to the milliwatt."""
    kept: list[_Counter] = []
    for counter in counters:
        twin = next((other for other in kept if other.shows_the_module_of(counter)), None)
        if twin is None:
            kept.append(counter)
        else:
            _warn(f"{counter.channel.id} and {twin.channel.id} show the power of one module: it is counted once")
    return kept


class _Counter:
    """One board that is read: asked again after a failure that may pass, never again after one that does not."""

    def __init__(self, channel: Channel, handle: Any, metric: Metric, driver: Driver, clock: Clock) -> None:
        self.channel, self.handle = channel, handle
        self._metric = metric
        self._driver = driver
        self._clock = clock
        self._closed = False
        self._why = ""
        self._last_j, self._moved_ns = -1.0, 0
        self._wait_ns = 0
        self._retry_at_ns = 0

    def reading(self) -> Reading:
        if self._closed or (self._wait_ns and self._clock.now_ns() < self._retry_at_ns):
            return self._gap(self._why)
        try:
            energy_j = self._metric.energy_j()
        except ImplausiblePowerError as error:
            return self._gap(str(error))
        except self._driver.NVMLError as error:
            self._failed(error)
            return self._gap(self._why)
        self._wait_ns = 0
        if self._stands_still(energy_j):
            return self._gap(f"its energy counter stands still at {energy_j:g} J while it draws power")
        low_j, high_j = self._metric.interval_j or (None, None)
        if self.channel.scope == "board":  # of a board that is cut into slices, how much is this slice's is not known
            low_j, high_j = 0.0, energy_j if high_j is None else high_j
        return Reading(self.channel.id, energy_j, low_j, high_j)

    def shows_the_module_of(self, other: _Counter) -> bool:
        """Whether both boards only know their module's power, and it is the same one."""
        mine, its = self._metric, other._metric
        if not (isinstance(mine, PowerIntegral) and isinstance(its, PowerIntegral) and mine.scope == its.scope == "module"):
            return False
        with suppress(self._driver.NVMLError):
            return all(mine.sample_w() == its.sample_w() for _ in range(2))
        return False

    def _stands_still(self, energy_j: float) -> bool:
        """Whether a counter has not moved for a second in which the board says that it drew power."""
        now_ns = self._clock.now_ns()
        if energy_j != self._last_j:
            self._last_j, self._moved_ns = energy_j, now_ns
        if self.handle is None or not isinstance(self._metric, EnergyCounter) or now_ns - self._moved_ns < _STILL_NS:
            return False
        with suppress(self._driver.NVMLError):
            return bool(self._driver.nvmlDeviceGetPowerUsage(self.handle) > _SOME_MW)
        return False

    def _failed(self, error: Any) -> None:
        self._why = explained(error)
        if error.value in DRIVER_GONE:
            raise SourceFailedError(f"NVML has stopped working: {self._why}") from error
        # A counter that is not supported will not be; of power, drivers say so now and then and answer the next time.
        if error.value in BOARD_GONE or (error.value in NO_SUCH_METRIC and isinstance(self._metric, EnergyCounter)):
            self._closed = True
            return
        self._wait_ns = min(max(_FIRST_WAIT_NS, 2 * self._wait_ns), _LONGEST_WAIT_NS)
        self._retry_at_ns = self._clock.now_ns() + self._wait_ns

    def _gap(self, why: str) -> Reading:
        return Reading(self.channel.id, None, error=why)


def _named(board: Board) -> str:
    return f"{board.model or 'the board'} ({board.uuid})"


def _warn(message: str) -> None:
    warnings.warn(DegradedWarning(f"nvml: {message}"), stacklevel=2)
