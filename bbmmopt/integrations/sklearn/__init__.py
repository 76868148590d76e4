"""scikit-learn: a search that chooses what to try next by what came out before.

from bbmmopt.integrations.sklearn import BBMMSearchCV

search = BBMMSearchCV(SVC(), {"C": loguniform(1e-3, 1e3)}, n_iter=30, random_state=0)
search.fit(X, y)
"""

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"bbmmopt.integrations.sklearn needs scikit-learn, which is not there ({error}): "
        f"pip install 'bbmmopt[sklearn]'."
    ) from error

from bbmmopt.integrations.sklearn.search import BBMMSearchCV

__all__ = ["BBMMSearchCV"]
