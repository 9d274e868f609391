"""A stand-in for what estimators are made of."""


class BaseEstimator:
    """Has no methods of its own."""


class ClassifierMixin:
    """Answers."""

    def predict(self, X):  # noqa: N803 - as in scikit-learn
        """Answer."""
        return [0 for _ in X]
