"""Ray Tune: a search algorithm for its tuners.

from ray import tune
from bbmmopt.integrations.ray import BBMMSearch

config = tune.TuneConfig(metric="loss", mode="min", search_alg=BBMMSearch(seed=0))
tune.Tuner(train, param_space={"x": tune.uniform(0, 1)}, tune_config=config).fit()
"""

try:
    import ray.tune as _tune  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"bbmmopt.integrations.ray needs Ray Tune, which is not there ({error}): "
        f"pip install 'bbmmopt[ray]'."
    ) from error

from bbmmopt.integrations.ray.search import BBMMSearch

__all__ = ["BBMMSearch"]
