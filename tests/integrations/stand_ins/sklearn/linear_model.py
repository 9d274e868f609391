"""Stand-ins for estimators."""

from multiprocessing.pool import ThreadPool

from sklearn.base import BaseEstimator, ClassifierMixin


class Regression(ClassifierMixin, BaseEstimator):
    """Fits nothing."""

    def fit(self, X, y=None):  # noqa: N803 - as in scikit-learn
        """Train."""
        return self


class Search(BaseEstimator):
    """Fits others, in this thread and in those of a pool."""

    def fit(self, X, y=None):  # noqa: N803 - as in scikit-learn
        """Train."""
        Regression().fit(X)
        with ThreadPool(2) as pool:
            pool.map(lambda _: Regression().fit(X), range(4))
        return self
