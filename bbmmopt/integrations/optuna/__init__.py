"""Optuna: a sampler for its studies, and studies taken from there and back.

import optuna
from bbmmopt.integrations.optuna import BBMMSampler

study = optuna.create_study(sampler=BBMMSampler(seed=0))
"""

try:
    import optuna as _optuna  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"bbmmopt.integrations.optuna needs Optuna, which is not there ({error}): "
        f"pip install 'bbmmopt[optuna]'."
    ) from error

from bbmmopt.integrations.optuna.exporting import to_optuna
from bbmmopt.integrations.optuna.importing import from_optuna
from bbmmopt.integrations.optuna.sampler import BBMMSampler

__all__ = ["BBMMSampler", "from_optuna", "to_optuna"]
