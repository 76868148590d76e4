"""BBMMSampler: what an Optuna study tries next, by our models."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from bbmmopt.integrations.optuna.group import FIXED, KEY, Group, Task, constraints_of
from bbmmopt.integrations.optuna.layout import Layout, layout_of
from bbmmopt.optimizer import Optimizer, SpaceExhausted
from bbmmopt.problem import Noise
from bbmmopt.space import Real
from bbmmopt.space.checks import is_integer
from bbmmopt.trial import Trial, to_json

_MOST_GROUPS = 16  # models kept for later asks, of all the studies on one storage

ConstraintsFunc = Callable[[FrozenTrial], Sequence[float]]


class BBMMSampler(BaseSampler):
    """Bayesian optimisation on Gaussian processes, as a sampler of Optuna.

        study = optuna.create_study(sampler=BBMMSampler(seed=0))
        study.optimize(objective, n_trials=100)

    For one objective or several, with constraints (`trial.set_constraint`, or `constraints_func`),
    on any storage and with any pruner: what pruned trials reported is forecast to their end, and
    failed trials teach where trials fail. Trials under way, in this process or another, count as
    points that need no second look, until Optuna takes them for failed where a process died (its
    heartbeat); enqueued values are kept, and the others chosen to suit them.

    Parameters that the objective does not always ask for are part of the one model wherever
    complete trials show on which choices or integers that depends, as with `if kernel == "poly"`
    or `for i in range(n_layers)`. All others (because a real number decides, or the trials do not
    show it yet, or a range has moved away from the value chosen) are chosen one at a time when
    asked for, by a model of the trials that had them, the values chosen so far being given. Of a
    parameter that no complete trial has had, the value is random.

    A suggestion follows from seed, number of the trial and what the study's other trials say; so a
    study that was stopped goes on as it would have. With several threads or processes, what they
    say depends on who is faster.

    Args:
        seed: Any integer. Left out, one is drawn, which another run does not have.
        n_startup_trials: How many trials are spread over the space before the model takes over.
            Left out, twice the number of parameters, at least 5 and at most 20.
        acquisition: See `Optimizer`.
        strategy: See `Optimizer`.
        noise: See `Optimizer`. A finite space that is used up is gone through again in any case,
            where the model expects the most.
        constraints_func: Called with each trial that is complete or pruned; returns numbers, of
            which none may be above 0. `trial.set_constraint` of Optuna 5 does the same.
        device: See `Optimizer`.

    Raises:
        ValueError, TypeError: If a setting is not allowed.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        n_startup_trials: int | None = None,
        acquisition: str | None = None,
        strategy: str | None = None,
        noise: Noise = "unknown",
        constraints_func: ConstraintsFunc | None = None,
        device: str = "cpu",
    ) -> None:
        if n_startup_trials is not None and (
            not is_integer(n_startup_trials) or n_startup_trials < 1
        ):
            raise ValueError(
                f"n_startup_trials must be an integer from 1 on, or None; got {n_startup_trials!r}."
            )
        if constraints_func is not None and not callable(constraints_func):
            raise TypeError(
                f"constraints_func must be a function of a trial; got {constraints_func!r}."
            )
        self._settings = {
            "n_start": n_startup_trials,
            "acquisition": acquisition,
            "strategy": strategy,
            "device": device,
        }
        # Refuses at the door what every suggestion would.
        Optimizer({"x": Real(0, 1)}, minimize="y", noise=noise, seed=seed, **self._settings)
        self._seed = secrets.randbits(48) if seed is None else int(seed)
        self._noise: Noise = noise
        self._constraints_func = constraints_func
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._groups: WeakKeyDictionary[Any, OrderedDict[tuple[Any, ...], Group]]
        self._groups = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        """What makes the suggestions; the models are found again from the trials."""
        return {k: v for k, v in vars(self).items() if k not in ("_lock", "_groups")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def reseed_rng(self) -> None:
        """Nothing to do: trials that are asked for side by side have different numbers."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that are chosen together: see the class."""
        return dict(layout_of(study.get_trials(deepcopy=False)).distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values of these parameters, but for those that will not matter."""
        given = trial.system_attrs.get(FIXED, {})
        if search_space.keys() <= given.keys():
            return {}
        # One at a time: each takes into account what the others were given.
        with self._lock:
            trials = study.get_trials(deepcopy=False)
            layout = layout_of(trials, search_space)
            found = self._suggest(study, trials, trial.number, layout, layout.values(given))
            if found is None:
                return {}
            internal = layout.internal(found.params)
            kept = {"params": internal, "origin": found.origin}
            study._storage.set_trial_system_attr(trial._trial_id, KEY, to_json(kept))
        return layout.external(internal)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A value of one parameter, given those of the trial so far."""
        seed = self._seed_of(param_name)
        with self._lock:
            trials = study.get_trials(deepcopy=False)
            known = [
                other.distributions.keys()
                for other in trials
                if other.state == TrialState.COMPLETE and param_name in other.distributions
            ]
            if known and not param_distribution.single():
                asked = {
                    name: distribution
                    for name, distribution in trial.distributions.items()
                    if not distribution.single() and all(name in names for names in known)
                }
                layout = Layout(asked | {param_name: param_distribution})
                given = layout.values(trial.params)
                found = self._suggest(study, trials, trial.number, layout, given, seed)
                if found is not None:
                    return layout.external(layout.internal(found.params))[param_name]
        random = RandomSampler(seed=self._seed_of(f"{param_name}/{trial.number}") % 2**32)
        return random.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Ask for the constraints of a trial that has ended."""
        if self._constraints_func is None or state not in (TrialState.COMPLETE, TrialState.PRUNED):
            return
        told = [float(value) for value in self._constraints_func(trial)]
        if any(value != value for value in told):
            raise ValueError(
                f"constraints_func must return numbers; for trial {trial.number} it was {told}. "
                f"Raise optuna.TrialPruned in the objective where there is none."
            )
        study._storage.set_trial_system_attr(trial._trial_id, "constraints", told)

    def _suggest(
        self,
        study: Study,
        trials: Sequence[FrozenTrial],
        number: int,
        layout: Layout,
        given: Mapping[str, Any],
        seed: int | None = None,
    ) -> Trial | None:
        """The next point; None where there is no model, or no point that did not fail before."""
        if not layout.distributions:
            return None
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        constraints = dict.fromkeys(name for trial in complete for name in constraints_of(trial))
        # Points may be repeated where there are no others any more.
        for noise in dict.fromkeys((self._noise, "noisy")):
            task = Task(layout, tuple(study.directions), tuple(sorted(constraints)), noise)
            group = self._group(study, task, trials, number, self._seed if seed is None else seed)
            try:
                return group.suggest(number, given)
            except SpaceExhausted:
                continue
        return None

    def _group(
        self, study: Study, task: Task, trials: Sequence[FrozenTrial], number: int, seed: int
    ) -> Group:
        """The group of a task, kept from the last ask if its trials are still what they were."""
        groups = self._groups.setdefault(study._storage, OrderedDict())
        # By the first trial too: each bracket of a HyperbandPruner looks like a study of its own.
        key = (study._study_id, trials[0].number, seed, task.key)
        group = groups.pop(key, None)
        if group is None or not group.take(trials, number):
            group = Group(task, {**self._settings, "seed": seed})
            group.take(trials, number)
        groups[key] = group
        if len(groups) > _MOST_GROUPS:
            groups.popitem(last=False)
        return group

    def _seed_of(self, purpose: str) -> int:
        """A seed of its own for one purpose, so that parameters are not drawn in step."""
        digest = hashlib.blake2b(f"{self._seed}/{purpose}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) % 2**62
