"""How a study is run: its settings, what they may be, and whether a stored one has the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from bbmmopt.early_stopping import checked_rule
from bbmmopt.explain import ACQUISITIONS, STRATEGIES
from bbmmopt.perturbation import checked_perturbation, checked_risk
from bbmmopt.prior import prior_from_json, prior_to_json
from bbmmopt.problem import Problem
from bbmmopt.space import Space
from bbmmopt.space.checks import is_integer, reading, shown
from bbmmopt.storage import StudyRecord

# What studies stored before a setting was there were run with.
FORMERLY: dict[str, Any] = {"strategy": "global", "budget": None, "batches": "greedy"}

_GUIDES = ("prior", "cost", "perturbation", "risk")
# Settings that are stored only where they were given.
_IF_GIVEN = (*_GUIDES, "early_stopping")
# What nothing can be multiplied to: neither a prior nor what a trial costs.
_NOT_IN_LOGS = ("ucb", "mean", "thompson")
# What each strategy for one objective cannot take into account besides.
_UNGUIDED = {"trust_region": ("perturbation", "risk"), "portfolio": _GUIDES}
# What a batch can be scored by as a whole.
_TOGETHER = ("auto", "log_ei", "noisy_log_ei")

_MOST_TRIALS = 10**12  # more than any study will ever have; budgets are computed with as floats

VERSION = "3"  # of the way suggestions follow from seed and data; stored with each study


class StudyDiffers(ValueError):
    """The stored study has another problem, seed or setting than the one opened now."""


@dataclass(frozen=True)
class Given:
    """Settings as the user gave them; None for those left out. See `Optimizer`."""

    n_start: Any
    budget: Any
    acquisition: Any
    strategy: Any
    batches: Any
    prior: Any
    cost: Any
    perturbation: Any
    risk: Any
    early_stopping: Any

    def checked(self, problem: Problem) -> dict[str, Any]:
        """The same in JSON types, but for the budget: what a stored study has to agree with.

        Raises:
            ValueError, TypeError: If one of them is not allowed, or not for such a problem.
        """
        _checked_count("budget", self.budget, "how many trials are planned")
        return {
            "n_start": _checked_count("n_start", self.n_start, "how many trials to spread"),
            "acquisition": checked_name(self.acquisition),
            "strategy": _checked_strategy(self.strategy, problem),
            "batches": _checked_batches(self.batches, problem),
            **_checked_guides(problem, self.prior, self.cost, self.perturbation, self.risk),
            "early_stopping": _checked_early_stopping(self.early_stopping, problem),
        }


def with_defaults(wanted: Mapping[str, Any], space: Space, budget: int | None) -> dict[str, Any]:
    """The settings of a new study.

    The budget is that of its first run; later ones may go on.

    Raises:
        ValueError: If they do not go together.
    """
    defaults = {
        "n_start": _default_start(space, budget),
        "acquisition": "auto",
        "strategy": "auto",
        "batches": "greedy",
    }
    settings = {k: defaults.get(k) if v is None else v for k, v in wanted.items()}
    settings = {k: v for k, v in settings.items() if k not in _IF_GIVEN or v is not None}
    _check_together(settings)
    return settings | {"budget": None if budget is None else int(budget)}


def _default_start(space: Space, budget: int | None) -> int:
    free = sum(column.kind != "fixed" for column in space.columns)
    return min(max(5, 2 * free), max(5, budget // 5) if budget else 20)


def _checked_count(name: str, count: int | None, meaning: str) -> int | None:
    if count is None:
        return None
    if not is_integer(count):
        raise TypeError(f"{name} must be an integer, {meaning}; got {count!r}.")
    if count < 1:
        raise ValueError(f"{name} must be at least 1, {meaning}; got {count}.")
    if count > _MOST_TRIALS:
        raise ValueError(f"{name} must be at most {_MOST_TRIALS}, {meaning}; got {shown(count)}.")
    return int(count)


def checked_seed(seed: int | None) -> int | None:
    """The seed as an int, or None; TypeError if it is neither."""
    if seed is not None and not is_integer(seed):
        raise TypeError(f"seed must be an integer or None; got {seed!r}.")
    return None if seed is None else int(seed)


def checked_name(acquisition: str | None) -> str | None:
    """The name of an acquisition function, or None; ValueError if there is none of that name."""
    if acquisition is not None and acquisition not in list(ACQUISITIONS):
        raise ValueError(
            f"acquisition must be one of {', '.join(ACQUISITIONS)}; got {acquisition!r}."
        )
    return acquisition


def _checked_strategy(strategy: str | None, problem: Problem) -> str | None:
    if strategy is not None and strategy not in list(STRATEGIES):
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}; got {strategy!r}.")
    if strategy in _UNGUIDED and len(problem.objectives) > 1:
        raise ValueError(
            f'strategy "{strategy}" is for one objective, and there are '
            f'{len(problem.objectives)}; take "global", or "auto".'
        )
    if strategy == "portfolio" and problem.constraints:
        raise ValueError(
            'strategy "portfolio" is for one objective and no constraints on outcomes; take '
            '"global", or "auto".'
        )
    return strategy


def _checked_batches(batches: str | None, problem: Problem) -> str | None:
    if batches not in (None, "greedy", "joint"):
        raise ValueError(f'batches must be "greedy" or "joint"; got {batches!r}.')
    if batches == "joint" and (len(problem.objectives) > 1 or problem.constraints):
        raise ValueError(
            'batches "joint" are for one objective and no constraints on outcomes; take "greedy".'
        )
    return batches


def _checked_guides(
    problem: Problem, prior: Any, cost: Any, perturbation: Any, risk: Any
) -> dict[str, Any]:
    """What guides the search, in JSON types; None for what was not given."""
    if cost is not None and cost != "seconds":
        raise ValueError(
            f'cost must be "seconds", the time that trials take, or None; got {cost!r}.'
        )
    return {
        "prior": None if prior is None else prior_to_json(prior, problem.space),
        "cost": cost,
        "perturbation": (
            None if perturbation is None else checked_perturbation(perturbation, problem)
        ),
        "risk": None if risk is None else checked_risk(risk),
    }


def _checked_early_stopping(rule: Any, problem: Problem) -> dict[str, Any] | None:
    """A stopping rule in JSON types, or None."""
    found = checked_rule(rule)
    if found is not None and len(problem.objectives) > 1:
        raise ValueError(
            f"early_stopping is for one objective: of {len(problem.objectives)}, a trial that "
            f"falls behind in one may be the best trade-off. Leave it out, and end trials "
            f'yourself with tell(trial, pruned="why").'
        )
    return found


def _check_together(settings: Mapping[str, Any]) -> None:
    """Refuse settings of a study that do not go together."""
    given = [name for name in _GUIDES if settings.get(name) is not None]
    acquisition, strategy = settings["acquisition"], settings["strategy"]
    if settings["batches"] == "joint":
        if acquisition not in _TOGETHER or settings.get("perturbation"):
            raise ValueError(
                f'batches "joint" are for expected improvement: acquisition "log_ei", '
                f'"noisy_log_ei" or "auto", without perturbation; got {acquisition!r}'
                f'{" and a perturbation" if settings.get("perturbation") else ""}. Take "greedy".'
            )
        if strategy in ("trust_region", "portfolio"):
            raise ValueError(
                f'batches "joint" are looked for in the whole space: strategy "{strategy}" is not '
                f'made for them; take "global", or "auto".'
            )
    if strategy == "portfolio" and acquisition != "auto":
        raise ValueError(
            f'strategy "portfolio" has acquisition functions of its own, and acquisition '
            f'{acquisition!r} is maximised alone: take strategy "global" for it, or leave it out.'
        )
    if not given:
        return
    if settings.get("risk") is not None and settings.get("perturbation") is None:
        raise ValueError("risk says how perturbations count: give perturbation={name: std} too.")
    if settings.get("perturbation") and acquisition not in ("auto", "robust"):
        raise ValueError(
            f'perturbation goes with acquisition "robust", which "auto" is then; '
            f"got {acquisition!r}."
        )
    if acquisition in _NOT_IN_LOGS:
        raise ValueError(
            f"acquisition {acquisition!r} cannot take {' and '.join(given)} into account; take "
            f'"log_ei", or "auto".'
        )
    unknown = [name for name in given if name in _UNGUIDED.get(strategy, ())]
    if unknown:
        raise ValueError(
            f'strategy "{strategy}" cannot take {" and ".join(unknown)} into account; take '
            f'"global", or "auto".'
        )


def _check_stored(record: StudyRecord, problem: Problem) -> None:
    """Refuse settings that no study was stored with: the record was changed by hand, or torn."""
    with reading(f"what is stored of study {record.name!r} is damaged: "):
        if not isinstance(record.settings, Mapping):
            raise ValueError(f"settings must be a JSON object; got {shown(record.settings)}.")
        check_settings(record.settings, problem)


def check_settings(stored: Mapping[str, Any], problem: Problem) -> None:
    """Refuse stored settings that a problem cannot be run with.

    Raises:
        ValueError, TypeError: If one is missing or not allowed, or they do not go together.
    """
    settings = {f.name: {**FORMERLY, **stored}.get(f.name) for f in fields(Given)}
    for name in ("n_start", "acquisition", "strategy", "batches"):
        if settings[name] is None:
            raise ValueError(f"{name} is missing.")
    as_stored = dict(settings)
    if settings["prior"] is not None:
        settings["prior"] = prior_from_json(settings["prior"], problem.space)
    Given(**settings).checked(problem)
    _check_together(as_stored)


def check_same(
    record: StudyRecord, problem: Problem, seed: int | None, wanted: Mapping[str, Any]
) -> None:
    """Refuse to go on with a study that was another one."""
    stored = Problem.from_json(record.problem)
    _check_stored(record, stored)
    differences = stored.difference(problem)
    if seed is not None and seed != record.seed:
        differences.append(f"seed: was {record.seed} and is now {seed}.")
    for name, value in wanted.items():
        before = (FORMERLY | record.settings).get(name)
        if value is not None and value != before:
            differences.append(f"{name}: was {before!r} and is now {value!r}.")
    if differences:
        never = "\n  ".join(not_extendable(record, problem, seed))
        way_out = (
            f'mode="extend" cannot change this:\n  {never}\nOpen it as it was, or give the new '
            f"one a name of its own with study=…, and the data of this one with warm_start=…."
            if never
            else 'Go on with it as it is now by mode="extend"; or open it as it was; or give the '
            "new one a name of its own with study=…."
        )
        raise StudyDiffers(
            f"the storage holds study {record.name!r} with another description:\n  "
            + "\n  ".join(differences)
            + f"\n{way_out}"
        )


def not_extendable(record: StudyRecord, problem: Problem, seed: int | None) -> list[str]:
    """Why a stored study cannot go on with another problem or seed, a sentence each.

    Its trials would be about another function, or its suggestions would follow from nothing.
    """
    before = {o.name: o.direction for o in Problem.from_json(record.problem).objectives}
    now = {o.name: o.direction for o in problem.objectives}
    found = [f"objective {name!r} was removed." for name in before if name not in now]
    found += [f"objective {name!r} was added." for name in now if name not in before]
    found += [
        f"objective {name!r} is now to {now[name]}."
        for name in before
        if name in now and now[name] != before[name]
    ]
    if seed is not None and seed != record.seed:
        found.append(f"the seed is {record.seed}, not {seed}.")
    return found
