"""What every callback needs: its open regions, a guard around its hooks, and a class made on demand."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar, cast

from impactsdk import Measurement, Region, SettleTimeoutError, measured

__all__ = ["SETTLE_S", "Closing", "Running", "calls", "harmless", "ours_in", "owner_of", "put_first", "size_of", "with_base"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound="Closing")

SETTLE_S = 1.0
"""How long the end of an epoch waits for its energy, which usually is there after an eighth of a second."""

_log = logging.getLogger(__name__)
_said: set[tuple[object, ...]] = set()
_made: dict[tuple[type, ...], type] = {}


def harmless(function: Callable[P, R]) -> Callable[P, R | None]:
    """Keep what fails in ``function`` from the training that called it: it is logged, once per function and kind of error."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on
            name = getattr(function, "__qualname__", repr(function))
            key = (getattr(function, "__module__", None), name, type(error))
            if key not in _said:
                _said.add(key)
                _log.error("%s failed and is left out; the training goes on", name, exc_info=error)
            return None

    return guarded


class Running:
    """The regions that one callback has open, outermost first, each under its kind: ``fit``, ``epoch``, ``step``."""

    def __init__(self) -> None:
        self._open: list[tuple[str, Region]] = []
        self._untold: set[Region] = set()
        """Those of which some units are unknown, and so all of them."""
        self.patience_s = SETTLE_S

    def __contains__(self, kind: str) -> bool:
        return any(kind == known for known, _ in self._open)

    def get(self, kind: str) -> Region | None:
        """The open region of a kind; the innermost if there are several."""
        return next((region for known, region in reversed(self._open) if known == kind), None)

    def enter(
        self,
        kind: str,
        name: str,
        *,
        unit: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        span: bool = True,
    ) -> Region:
        """Open a region inside those that are open."""
        region = measured(name, unit=unit, attributes=attributes, span=span).__enter__()
        self._open.append((kind, region))
        return region

    def add_units(self, kind: str, units: float | None) -> None:
        """Add functional units to a region if it is open; where they are unknown once, all of that region's are."""
        region = self.get(kind)
        if region is None:
            return
        if units is None:
            self._untold.add(region)
            region.units = None
        elif region not in self._untold:
            region.add_units(units)

    def leave(self, kind: str, error: BaseException | None = None) -> Region | None:
        """Leave the innermost region of a kind, and before it those that were left open inside it."""
        if kind not in self:
            return None
        while True:
            found, region = self._open.pop()
            self._untold.discard(region)
            region.__exit__(None if error is None else type(error), error, None)
            if found == kind:
                return region

    def leave_all(self, error: BaseException | None = None) -> None:
        """Leave whatever is open, innermost first."""
        while self._open:
            _, region = self._open.pop()
            self._untold.discard(region)
            region.__exit__(None if error is None else type(error), error, None)

    def result(self, region: Region | None) -> Measurement | None:
        """What a region that was left has cost; ``None`` if that is not known soon. Then it is not waited for again."""
        if region is None:
            return None
        try:
            return region.result(self.patience_s)
        except SettleTimeoutError:
            self.patience_s = 0.0  # a device that hangs must not hold up every epoch
            return None


class Closing:
    """What is the same in every callback: it can be closed, by hand or as a block."""

    _running: Running

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.close(error)

    def close(self, error: BaseException | None = None) -> None:
        """Leave the regions that are open, because the training ended with ``error`` or otherwise without telling."""
        self._running.leave_all(error)


def ours_in(callbacks: list[Any], kind: Callable[..., C]) -> tuple[C, bool]:
    """The callback of that kind in a list, and whether it had to be made and put there, first, without logging."""
    found = cast("C | None", next((item for item in callbacks if isinstance(item, cast("type", kind))), None))
    if found is not None:
        return found, False
    made = kind(log=False)
    callbacks.insert(0, made)
    return made, True


def size_of(batch: object) -> int | None:
    """The first dimension of the first array in a batch, however it is nested; ``None`` if there is none."""
    shape = getattr(batch, "shape", None)
    if shape is not None and not isinstance(batch, Mapping):
        try:
            return int(shape[0])
        except (TypeError, ValueError, IndexError):  # a scalar, or a dimension that is open
            return None
    inside: Sequence[Any] = ()
    if isinstance(batch, Mapping):
        inside = list(batch.values())
    elif isinstance(batch, list | tuple):
        inside = batch
    return next((size for size in map(size_of, inside) if size is not None), None)


def owner_of(callback: object) -> Any:
    """The framework's object whose ``callbacks`` list has this callback and that calls it now; ``None`` if not found.

    Neither Keras nor transformers hands it over, and without it a callback can tell neither that its training has died nor
    that the loggers are asked before it.
    """
    frame = sys._getframe(1)
    for _ in range(8):
        if frame.f_back is None:
            return None
        frame = frame.f_back
        owner = frame.f_locals.get("self")
        callbacks = getattr(owner, "callbacks", None)
        if isinstance(callbacks, list) and any(item is callback for item in callbacks):
            return owner
    return None


def calls(owner: object) -> bool:
    """Whether a method of ``owner`` runs now, in this thread: what called it waits for us.

    That it still exists does not say so: the traceback of a training that has died keeps it.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_locals.get("self") is owner:
            return True
    return False


def put_first(owner: Any, callback: object) -> None:
    """Have a callback called before the others, so that what it adds to the logs is there when the loggers look.

    Safe while the list is walked and has come to this very callback: the others keep their order and none is left out.
    """
    callbacks: list[Any] = owner.callbacks
    at = next(index for index, item in enumerate(callbacks) if item is callback)
    callbacks.insert(0, callbacks.pop(at))


def with_base(cls: type, *bases: type) -> type:
    """``cls`` with a framework's base classes behind it, made once: so the framework is loaded by its user and not by us."""
    missing = tuple(base for base in bases if not issubclass(cls, base))
    if not missing:
        return cls
    key = (cls, *missing)
    if key not in _made:
        described = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__, "written_as": cls}
        _made[key] = type(cls.__name__, key, described)
    return _made[key]
