"""A study as it is shown in a notebook. No model is asked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bbmmopt.notebook import (
    Html,
    facts,
    folded,
    heading,
    joined,
    pairs_of,
    rounded,
    sparkline,
    table,
)
from bbmmopt.space.html import counted, parameters_html
from bbmmopt.trial import Trial, TrialState

if TYPE_CHECKING:
    from bbmmopt.problem import Problem
    from bbmmopt.study.stored import StoredStudy

_MOST = 10  # trials of a front that are listed


def study_html(study: StoredStudy) -> Html:
    """The problem, how many trials there are in each state, the best of them, and how it went."""
    problem, trials = study.problem, study.trials
    counts = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    address = study.storage.address
    return joined(
        heading(type(study).__name__, f"study {study.study!r}"),
        facts(
            {
                "objectives": ", ".join(f"{o.direction} {o.name}" for o in problem.objectives),
                "constraints": ", ".join(map(str, problem.constraints)),
                "trials": f"{len(trials)}: {states}" if trials else "none",
                "storage": "in memory" if address is None else _without_password(address),
                "seed": study.seed,
            }
        ),
        _best(problem, trials) if len(problem.objectives) == 1 else _front(problem, trials),
        folded(counted(study.space), parameters_html(study.space)),
    )


def _without_password(address: str) -> str:
    """Notebooks are handed on: neither the user nor the options of a URL, where passwords stand."""
    return re.sub(r"//[^/@]*@", "//", address).partition("?")[0]


def _best(problem: Problem, trials: list[Trial]) -> Html | None:
    best = problem.best_of(trials)
    if best is None:
        return None
    told = facts(
        {
            "best": f"{problem.names[0]} = {rounded(best.value)} (trial {best.number})",
            "parameters": pairs_of(best.params),
            "constraints told": pairs_of(best.constraints),
        }
    )
    so_far = best_so_far(problem, trials)
    curve = sparkline(so_far, "best so far, trial by trial") if len(so_far) > 1 else None
    return joined(told, curve)


def best_so_far(problem: Problem, trials: list[Trial]) -> list[float]:
    """The best value after each complete trial that keeps the constraints, of one objective."""
    objective = problem.objectives[0]
    so_far: list[float] = []
    for trial in trials:
        if trial.state == TrialState.COMPLETE and trial.values and problem.is_feasible(trial):
            value = trial.values[objective.name]
            better = not so_far or objective.sign * (value - so_far[-1]) > 0
            so_far.append(value if better else so_far[-1])
    return so_far


def _front(problem: Problem, trials: list[Trial]) -> Html | None:
    front = problem.pareto_front_of(trials)
    if not front:
        return None
    rows = [
        (t.number, *(rounded((t.values or {})[name]) for name in problem.names), pairs_of(t.params))
        for t in front[:_MOST]
    ]
    more = len(front) - len(rows)
    return joined(
        heading(f"{len(front)} on the front", f"the first {_MOST} are shown" if more else ""),
        table(("trial", *problem.names, "parameters"), rows),
    )
