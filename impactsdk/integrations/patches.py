"""Patches of other people's methods that can be taken back, and hooks that run when a module has been imported."""

from __future__ import annotations

import copy
import functools
import importlib.util
import sys
import types
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from typing import Any

from impactsdk import Region, measured
from impactsdk.integrations.running import harmless

__all__ = ["AfterImport", "Call", "Patches", "region_of"]


class Call:
    """One call of a patched method: what it is to be called with, and what is done when it has ended."""

    __slots__ = ("args", "finish", "kwargs")

    def __init__(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], finish: Callable[[Any, BaseException | None], None]
    ) -> None:
        self.args, self.kwargs, self.finish = args, kwargs, harmless(finish)


Begin = Callable[[tuple[Any, ...], dict[str, Any]], "Call | None"]


class Patches:
    """The methods that were replaced, and how to put back the very same functions."""

    def __init__(self) -> None:
        self._made: list[tuple[type, str, Any, Any]] = []
        self._active = True

    def wrap(self, owner: type, name: str, begin: Begin) -> None:
        """Have ``begin`` called before each call of a method, in the class that defines it, and ``Call.finish`` after it.

        What fails in either is logged; the method is called all the same. A method that is patched stays as it is. One that is
        there only for some objects (scikit-learn's ``available_if``) stays so: it is its function that is wrapped.
        """
        defines = next((cls for cls in owner.__mro__ if name in cls.__dict__), None)
        original = None if defines is None else defines.__dict__[name]
        function = original if isinstance(original, types.FunctionType) else getattr(original, "fn", None)
        if not isinstance(function, types.FunctionType) or hasattr(function, "_impactsdk_patch"):
            return
        assert defines is not None
        wrapper = self._around(function, begin)
        patch: Any = wrapper if function is original else copy.copy(original)
        if function is not original:
            patch.fn = wrapper
        setattr(defines, name, patch)
        self._made.append((defines, name, original, patch))

    def _around(self, function: Callable[..., Any], begin: Begin) -> Callable[..., Any]:
        guarded = harmless(begin)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            call = guarded(args, kwargs) if self._active else None
            if call is None:
                return function(*args, **kwargs)
            try:
                result = function(*call.args, **call.kwargs)
            except BaseException as error:
                call.finish(None, error)
                raise
            call.finish(result, None)
            return result

        wrapper._impactsdk_patch = self  # type: ignore[attr-defined]
        return wrapper

    def undo(self) -> None:
        """Put the originals back. Where somebody has wrapped ours meanwhile, it stays beneath theirs and does nothing."""
        self._active = False
        for owner, name, original, patch in reversed(self._made):
            if owner.__dict__.get(name) is patch:
                setattr(owner, name, original)
        self._made.clear()


def region_of(
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    unit: str | None = None,
    count: Callable[[Any], float | None] | None = None,
    span: bool = True,
) -> Call:
    """A call that is one region; ``count`` says from the result how many units it did, or ``None``."""
    region: Region = measured(name, unit=unit, span=span).__enter__()

    def finish(result: Any, error: BaseException | None) -> None:
        try:
            units = count(result) if count is not None and error is None else None
            if units is not None:
                region.add_units(units)
        finally:
            region.__exit__(None if error is None else type(error), error, None)

    return Call(args, kwargs, finish)


class AfterImport:
    """Calls back when a module has been imported: at once if it is loaded, else right after. Can be taken back."""

    def __init__(self) -> None:
        self._watched: dict[str, Callable[[types.ModuleType], None]] = {}
        self._prefixes: dict[str, Callable[[types.ModuleType], None]] = {}
        self._finding: set[str] = set()

    def watch(self, module: str, then: Callable[[types.ModuleType], None]) -> None:
        """Call ``then`` with the module."""
        self._watched[module] = harmless(then)
        loaded = sys.modules.get(module)
        if loaded is not None:
            self._watched[module](loaded)
        self._install()

    def watch_all(self, prefix: str, then: Callable[[types.ModuleType], None]) -> None:
        """Call ``then`` with each module below a package."""
        self._prefixes[prefix] = harmless(then)
        for name, loaded in list(sys.modules.items()):
            if name.startswith(prefix) and isinstance(loaded, types.ModuleType):
                self._prefixes[prefix](loaded)
        self._install()

    def stop(self) -> None:
        """Watch no longer."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        self._watched.clear()
        self._prefixes.clear()

    def _install(self) -> None:
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def _callback(self, name: str) -> Callable[[types.ModuleType], None] | None:
        below = (then for prefix, then in self._prefixes.items() if name.startswith(prefix))
        return self._watched.get(name) or next(below, None)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """Let the others find the module and have its loader tell us when it is done."""
        if fullname in self._finding or self._callback(fullname) is None:
            return None
        self._finding.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._finding.discard(fullname)
        if spec is not None and spec.loader is not None:
            self._attend(spec.loader, fullname)
        return spec

    @harmless
    def _attend(self, loader: Any, fullname: str) -> None:
        execute = loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            loader.__dict__.pop("exec_module", None)
            execute(module)
            then = self._callback(fullname)
            if then is not None:
                then(sys.modules.get(fullname, module))

        # On the loader object and not around it: resources and data are asked of the loader, too.
        try:
            loader.exec_module = exec_module
        except AttributeError:  # a loader that takes no attributes, as for modules that are compiled in
            return
