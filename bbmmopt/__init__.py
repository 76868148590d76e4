"""Bayesian optimisation on Gaussian processes: ask for a trial, tell its result.

    from bbmmopt import Optimizer, Real, Space

    optimizer = Optimizer(Space({"x": Real(-5, 5)}), minimize="loss", seed=0)
    for _ in range(20):
        trial = optimizer.ask()
        optimizer.tell(trial, (trial.params["x"] - 1) ** 2)
    print(optimizer.best.params, optimizer.best.values)

The names below are imported when they are first used (PEP 562): torch takes seconds to import,
and a script that only describes a space or lists stored trials needs none of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bbmmopt.devices import DeviceError
    from bbmmopt.early_stopping import Hyperband, MedianStop, PercentileStop, SuccessiveHalving
    from bbmmopt.execution import (
        ExecutorBroken,
        Patience,
        RemainingImprovement,
        RunResult,
        StopRun,
        Target,
        TotalTrials,
        maximize,
        minimize,
        run,
    )
    from bbmmopt.optimizer import Optimizer
    from bbmmopt.prior import Near
    from bbmmopt.problem import Constraint, Objective, Problem
    from bbmmopt.search import NoFeasiblePoint, SpaceExhausted
    from bbmmopt.space import (
        Categorical,
        Integer,
        Linear,
        Nonlinear,
        Ordinal,
        Real,
        Simplex,
        Space,
    )
    from bbmmopt.storage import StorageError, StudyRevised
    from bbmmopt.study import (
        FailedTrialWarning,
        NoCompleteTrial,
        OldTrialsWarning,
        Study,
        StudyDiffers,
    )
    from bbmmopt.trial import Trial, TrialAlreadyTold, TrialPruned, TrialState, UnknownTrial

__version__ = "0.1.0"

__all__ = [
    "Optimizer",
    "Study",
    "minimize",
    "maximize",
    "run",
    "RunResult",
    "StopRun",
    "Target",
    "Patience",
    "TotalTrials",
    "RemainingImprovement",
    "ExecutorBroken",
    "MedianStop",
    "PercentileStop",
    "SuccessiveHalving",
    "Hyperband",
    "Space",
    "Real",
    "Integer",
    "Categorical",
    "Ordinal",
    "Linear",
    "Simplex",
    "Nonlinear",
    "Near",
    "Problem",
    "Objective",
    "Constraint",
    "Trial",
    "TrialState",
    "TrialAlreadyTold",
    "TrialPruned",
    "UnknownTrial",
    "SpaceExhausted",
    "NoFeasiblePoint",
    "DeviceError",
    "StudyDiffers",
    "StorageError",
    "StudyRevised",
    "NoCompleteTrial",
    "FailedTrialWarning",
    "OldTrialsWarning",
    "__version__",
]

_NAMES = {
    "bbmmopt.devices": ("DeviceError",),
    "bbmmopt.early_stopping": ("Hyperband", "MedianStop", "PercentileStop", "SuccessiveHalving"),
    "bbmmopt.execution": (
        "ExecutorBroken",
        "Patience",
        "RemainingImprovement",
        "RunResult",
        "StopRun",
        "Target",
        "TotalTrials",
        "maximize",
        "minimize",
        "run",
    ),
    "bbmmopt.optimizer": ("Optimizer",),
    "bbmmopt.prior": ("Near",),
    "bbmmopt.problem": ("Constraint", "Objective", "Problem"),
    "bbmmopt.search": ("NoFeasiblePoint", "SpaceExhausted"),
    "bbmmopt.space": (
        "Categorical",
        "Integer",
        "Linear",
        "Nonlinear",
        "Ordinal",
        "Real",
        "Simplex",
        "Space",
    ),
    "bbmmopt.storage": ("StorageError", "StudyRevised"),
    "bbmmopt.study": (
        "FailedTrialWarning",
        "NoCompleteTrial",
        "OldTrialsWarning",
        "Study",
        "StudyDiffers",
    ),
    "bbmmopt.trial": ("Trial", "TrialAlreadyTold", "TrialPruned", "TrialState", "UnknownTrial"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name from its module, and keep it so that this runs once per name."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | _HOME.keys())
