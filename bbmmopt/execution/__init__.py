"""Running an objective: minimize() and maximize(), and run() for an Optimizer you have."""

from bbmmopt.execution.calls import maximize, minimize, run
from bbmmopt.execution.loop import RunResult, StopRun
from bbmmopt.execution.workers import WorkerDied

__all__ = ["minimize", "maximize", "run", "RunResult", "StopRun", "WorkerDied"]
