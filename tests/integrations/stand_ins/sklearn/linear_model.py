"""Stand-ins for estimators."""

from multiprocessing.pool import ThreadPool

from sklearn.base import BaseEstimator, ClassifierMixin, available_if


class Regression(ClassifierMixin, BaseEstimator):
    """Fits nothing."""

    def fit(self, X, y=None):  # noqa: N803 - as in scikit-learn
        """Train."""
        return self


class Search(BaseEstimator):
    """Fits others, in this thread and in those of a pool; waits for ``begun`` in between."""

    def __init__(self, begun=None):
        self.begun = begun

    def fit(self, X, y=None):  # noqa: N803 - as in scikit-learn
        """Train."""
        Regression().fit(X)
        if self.begun is not None:
            self.begun.wait(10)
        with ThreadPool(2) as pool:
            pool.map(lambda _: Regression().fit(X), range(4))
        return self


class Pipeline(BaseEstimator):
    """Asks the last of its estimators, if that one can answer."""

    def __init__(self, last):
        self.last = last

    @available_if(lambda self: hasattr(self.last, "predict"))
    def predict(self, X):  # noqa: N803 - as in scikit-learn
        """Answer."""
        return self.last.predict(X)
