"""Running an objective: minimize() and maximize(), and run() for an Optimizer you have."""

from bbmmopt.execution.calls import maximize, minimize, run
from bbmmopt.execution.results import RunResult, StopRun
from bbmmopt.execution.stopping import Patience, RemainingImprovement, Target, TotalTrials
from bbmmopt.execution.workers import ExecutorBroken, WorkerDied

__all__ = [
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
    "WorkerDied",
]
