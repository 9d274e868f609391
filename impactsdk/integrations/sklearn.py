"""Patches that measure ``fit`` and ``predict`` of scikit-learn's estimators."""

from __future__ import annotations

import sys
import threading
import types
from contextvars import ContextVar
from typing import Any

from impactsdk.integrations.patches import Call, Patches, region_of

__all__ = ["instrument"]

_METHODS = ("fit", "fit_predict", "predict", "predict_proba")
_HELPERS = "sklearn.preprocessing"
"""Scalers and label encoders: they cost little, and every metric of scikit-learn fits one for itself."""

_inside: ContextVar[bool] = ContextVar("impactsdk_sklearn", default=False)
_callers: dict[Any, frozenset[Any]] = {}
"""The threads in a call that is measured, each with those that there were when it began."""


def instrument(patches: Patches, module: types.ModuleType) -> None:
    """Have the estimators that a module of scikit-learn defines measured.

    Only the outermost call is: a search fits hundreds of estimators and a forest asks hundreds of trees.
    """
    base = getattr(sys.modules.get("sklearn.base"), "BaseEstimator", None)
    if base is None or module.__name__.startswith(_HELPERS):
        return
    for found in list(vars(module).values()):
        if not isinstance(found, type) or found.__module__ != module.__name__:
            continue
        if issubclass(found, base) or found.__name__.endswith("Mixin"):  # linear classifiers have their predict from one
            for method in _METHODS:
                if method in found.__dict__:
                    patches.wrap(found, method, _begins(method))


def _begins(method: str) -> Any:
    def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        thread = threading.current_thread()
        if _inside.get() or (_callers and _works_for_a_call(thread)):
            return None
        data = args[1] if len(args) > 1 else kwargs.get("X")
        call = region_of(f"sklearn.{type(args[0]).__name__}.{method}", args, kwargs, unit="sample", count=lambda _: _rows(data))
        token = _inside.set(True)
        _callers[thread] = frozenset(threading.enumerate())
        finish = call.finish

        def finished(result: Any, error: BaseException | None) -> None:
            _callers.pop(thread, None)
            _inside.reset(token)
            finish(result, error)

        return Call(args, kwargs, finished)

    return begin


def _works_for_a_call(thread: Any) -> bool:
    """Whether this is a thread of a pool that joblib made during a call: what it does belongs to the call that waits for it.

    A pool of the user's own, whose threads fit one estimator each, was made outside of any call.
    """
    dummy = sys.modules.get("multiprocessing.dummy")
    while dummy is not None and isinstance(thread, dummy.DummyProcess):
        maker = getattr(thread, "_parent", None)
        if maker in _callers and thread not in _callers[maker]:
            return True
        thread = maker
    return False


def _rows(data: Any) -> int | None:
    shape = getattr(data, "shape", None)
    if shape:
        return int(shape[0])
    return len(data) if hasattr(data, "__len__") else None
