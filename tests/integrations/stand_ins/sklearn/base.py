"""A stand-in for what estimators are made of."""

import functools
import types


class _AvailableIfDescriptor:
    def __init__(self, fn, check):
        self.fn, self.check = fn, check
        functools.update_wrapper(self, fn)

    def __get__(self, obj, owner=None):
        if not self.check(obj):
            raise AttributeError(self.fn.__name__)
        return types.MethodType(self.fn, obj)


def available_if(check):
    """A method that only some objects have."""
    return lambda fn: _AvailableIfDescriptor(fn, check)


class BaseEstimator:
    """Has no methods of its own."""


class ClassifierMixin:
    """Answers."""

    def predict(self, X):  # noqa: N803 - as in scikit-learn
        """Answer."""
        return [0 for _ in X]
