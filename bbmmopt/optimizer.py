"""Optimizer: a study that suggests what to try next. Where all parts meet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, overload

import numpy as np

from bbmmopt.modelling import LABEL_ERROR, Belief, Beliefs, Data
from bbmmopt.problem import Constraint
from bbmmopt.storage import NumberTaken
from bbmmopt.strategies import (
    Acquisition,
    Chosen,
    Guide,
    Past,
    Request,
    SpaceExhausted,
    acquisition_for,
    predict_risk,
)
from bbmmopt.study import FailedTrialWarning, NoCompleteTrial, Study, StudyDiffers, checked_name
from bbmmopt.trial import Trial, TrialState

__all__ = [
    "FailedTrialWarning",
    "NoCompleteTrial",
    "Optimizer",
    "Recommendation",
    "SpaceExhausted",
    "StudyDiffers",
]

_OUTCOMES: dict[TrialState, Literal["complete", "failed", "pending"]] = {
    TrialState.COMPLETE: "complete",
    TrialState.FAILED: "failed",
    TrialState.RUNNING: "pending",
    TrialState.WAITING: "pending",
}


@dataclass(frozen=True)
class Recommendation:
    """The point the model believes to be best, tried or not.

    Attributes:
        params: The point, in user units.
        arguments: The same, labelled choices replaced by their objects.
        value: What the model expects there, in user units and the user's sign: the median of its
            belief, which is the mean where the targets are not warped.
            Where parameters vary in use, what their variation gives, mean or risk.
        uncertainty: Half the width of the central 68 % of that belief, noise of a measurement not
            included: one standard deviation where the targets are not warped.
    """

    params: dict[str, Any]
    arguments: dict[str, Any]
    value: float
    uncertainty: float


class Optimizer(Study):
    """Suggests what to try next and learns from what came out.

        optimizer = Optimizer(space, minimize="error", storage="study.db", seed=0)
        trial = optimizer.ask()
        optimizer.tell(trial, error(**trial.params))

    A suggestion is a function of the seed, the trial's number and what has been told: a run that
    was killed and opened again goes on as it would have. (A trial that was under way then stays
    so until it is told, taken over, or its worker asks again under the same name: see `ask`.)
    Safe to use from several threads, and from several processes on one storage.

    Args:
        space: A Space, {name: parameter}, or a whole Problem.
        minimize: Name of the objective that should be small (or names, of several).
        maximize: Name of the objective that should be large.
        noise: "none" for an exact, repeatable objective; "unknown" learns the noise and never
            proposes a point twice; "noisy" learns it and may repeat points.
        constraints: Numbers told along and their bounds: "latency <= 200", a list of such, or
            {"latency": 200, "accuracy": (">=", 0.9)}; a name alone must be at most 0.
        reference_point: {objective: value} that counts as worthless, for several objectives: what
            is worse in any of them adds nothing. Left out, a little beyond the worst values on the
            front of the trials so far and of what the model expects.
        storage: None keeps trials in memory; "study.db" in a file, which is opened again if it is
            there; or a Storage.
        study: Name of the study within the storage.
        seed: Any integer. Left out, a new study draws one and an old one keeps its own.
        n_start: How many trials are spread over the space before the model takes over. Left out,
            twice the number of parameters, at least 5 and at most a fifth of the budget, or 20.
        budget: How many trials are planned, if known. Of a stored study its first one counts.
        acquisition: What the model maximises. "auto", the default, goes by the problem and the
            data: log expected improvement, on a best value that is drawn where noise or running
            trials hide it, times the probability that constraints hold; with several objectives,
            log expected hypervolume improvement, from four on improvement along a direction drawn
            for each trial. Or one by name: "log_ei", "noisy_log_ei", "log_pi", "ucb", "mean",
            "thompson"; "max_value_entropy", "joint_entropy", "knowledge_gradient", which value
            what a trial teaches of the optimum; "variance", "integrated_variance", which learn
            the whole function.
        strategy: Where it is maximised. "global": over the whole space. "trust_region": in a box
            around the best trial, which grows with success and shrinks without. "sparse": over
            the whole space, by a model that takes most parameters not to matter. "auto", the
            default: "trust_region" for one objective of 20 parameters or more and a budget (or a
            number of trials) of 1000 or more, else "global".
        prior: What you believe of where the optimum is, {parameter: Near(value, …)}, or {choice:
            weight} of a Categorical or an Ordinal, where choices left out have the weight 1.
            Every second trial of the start comes from it; then it multiplies the acquisition, by
            a power that falls like 0.1 budget / (trials so far), or 5 / (trials so far) without a
            budget: where it is wrong, it is overcome.
        cost: "seconds" if quick trials are preferred: the acquisition is divided by a power of
            the seconds that a trial is expected to take, which falls from 1 to 0 as the budget is
            spent; ½ without a budget.
        perturbation: {parameter: standard deviation} by which parameters will vary in use, in
            their units. What is looked for, and recommended, is then good on average over such
            variation, not only exactly there.
        risk: What counts under perturbation: "mean", the default; or a number such as 0.9, for
            the mean over the worst tenth of the variation.

    Raises:
        ValueError: If the problem makes no sense.
        StudyDiffers: If the storage holds this study with another problem, seed or setting.
        StorageError: If the storage cannot be opened.
    """

    @cached_property
    def _strategy(self) -> Chosen:
        return Chosen(
            self.space,
            self.settings["n_start"],
            self.settings["acquisition"],
            strategy=self.settings["strategy"],
            budget=self.settings["budget"],
            noise=self.problem.objectives[0].noise,
        )

    @overload
    def ask(
        self, n: None = None, *, fixed: Mapping[str, Any] | None = None, worker: str | None = None
    ) -> Trial: ...

    @overload
    def ask(
        self, n: int, *, fixed: Mapping[str, Any] | None = None, worker: str | None = None
    ) -> list[Trial]: ...

    def ask(
        self,
        n: int | None = None,
        *,
        fixed: Mapping[str, Any] | None = None,
        worker: str | None = None,
    ) -> Trial | list[Trial]:
        """Say what to try next. The trial is running from now on, and stored.

        Trials that are running already are taken into account, so that asking again gives another
        point. Enqueued trials come first.

        Args:
            n: How many trials; a list comes back then. Left out, one trial.
            fixed: Values some parameters must have this time, {name: value}: a machine that is
                set up, a batch that shares a temperature. Enqueued trials are left alone then.
            worker: Who will run it. A worker that asks under a name it used in an earlier process
                first gets the trials back that it never told.

        Raises:
            SpaceExhausted: If every point of a finite space was tried.
            ValueError: If `fixed` names unknown parameters or values that are not allowed.
        """
        if worker is not None and (not isinstance(worker, str) or not worker):
            raise TypeError(f"worker must be a non-empty name; got {worker!r}.")
        if n is None:
            return self._ask_one(fixed, worker)
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise ValueError(f"n must be a positive integer, the number of trials; got {n!r}.")
        return [self._ask_one(fixed, worker) for _ in range(n)]

    def _ask_one(self, fixed: Mapping[str, Any] | None, worker: str | None) -> Trial:
        columns = self._columns(fixed, where="ask(fixed=…)")
        with self._lock:
            while True:
                self._sync()
                if not fixed:
                    trial = self._left_behind(worker) or self.storage.claim(
                        self.study, worker=worker, now=time.time()
                    )
                    if trial is not None:
                        return self._hand_out(trial)
                number = max(self._trials, default=-1) + 1
                params, origin = self._suggest(number, columns)
                now = time.time()
                trial = Trial(
                    number,
                    params,
                    TrialState.RUNNING,
                    created=now,
                    started=now,
                    origin=origin,
                    worker=worker,
                )
                try:
                    return self._hand_out(self.storage.add(self.study, trial))
                except NumberTaken:
                    # Another process was first. Its trial is pending now: suggest again with that
                    # known, under the next number.
                    continue

    def preview(
        self, *, fixed: Mapping[str, Any] | None = None, acquisition: str | None = None
    ) -> Trial:
        """The trial that `ask` would suggest now, without making it: nothing is stored.

        Only what `ask` would come up with by itself: enqueued trials, which it hands out first,
        are not looked at.

        Args:
            fixed: As in `ask`.
            acquisition: What the model maximises instead of the study's own acquisition function.

        Raises:
            SpaceExhausted, ValueError: As in `ask`.
        """
        columns = self._columns(fixed, where="preview(fixed=…)")
        name = checked_name(acquisition)
        with self._lock:
            self._sync()
            number = max(self._trials, default=-1) + 1
            params, origin = self._suggest(number, columns, name)
        return Trial(
            number,
            params,
            TrialState.WAITING,
            origin=origin,
            arguments=self.space.arguments(params),
        )

    def _columns(self, fixed: Mapping[str, Any] | None, *, where: str) -> dict[int, float]:
        """Parameters given by name as columns of the unit cube."""
        checked = self.space.validate_partial(fixed or {}, where=where)
        for name in checked:
            for parent in self.space.parameters[name].when or {}:
                if parent not in checked:
                    raise ValueError(
                        f"{where}: {name!r} is only there for some values of {parent!r}: fix "
                        f"{parent!r} to one of them too."
                    )
        return {
            self.space.names.index(name): self.space.parameters[name].to_unit(value)
            for name, value in checked.items()
        }

    def _suggest(
        self, number: int, fixed: Mapping[int, float], acquisition: str | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A point for the trial of this number, and how it came about."""
        strategy = self._strategy
        if acquisition is not None and acquisition != strategy.acquisition:
            strategy = replace(strategy, acquisition=acquisition)  # with a model of its own
        proposal = strategy.propose(self._request(number, fixed))
        return self.space.decode(proposal.x), proposal.origin

    def _left_behind(self, worker: str | None) -> Trial | None:
        """A running trial of this worker that another process was given, now its again."""
        if worker is None:
            return None
        for number, trial in sorted(self._trials.items()):
            if (
                trial.state == TrialState.RUNNING
                and trial.worker == worker
                and number not in self._handed_out
            ):
                return trial
        return None

    def recommend(self) -> Recommendation:
        """The point where the model expects the best value: what to use in the end.

        The maximum of the posterior mean over the whole space, tried or not, or of what varied
        parameters are expected to give where there is a perturbation; with constraints, over the
        points where the model thinks all of them to hold with a probability of 95 %.

        Raises:
            NoCompleteTrial: If nothing was told yet.
            ValueError: If there are several objectives.
        """
        if len(self.problem.objectives) > 1:
            raise ValueError(
                f"with several objectives ({', '.join(self.problem.names)}) no point is the best; "
                f"see pareto_front."
            )
        with self._lock:
            beliefs = self.beliefs()
            belief = beliefs.first
            if not len(belief.data.y):
                raise NoCompleteTrial(
                    "there is no complete trial yet to base a recommendation on: tell one first."
                )
            request = replace(self._request(len(self._trials), {}), seen=frozenset())
            found = self._strategy.find("mean", beliefs, request)
            if self._guide.perturbation is None:
                value, uncertainty = (float(part[0]) for part in belief.predict(found.x[None]))
            else:
                value, uncertainty = predict_risk(belief, found.x, self.seed, self._guide)
        params = self.space.decode(found.x)
        return Recommendation(
            params,
            self.space.arguments(params),
            self.problem.from_model([value])[self.problem.names[0]],
            uncertainty,
        )

    def belief(self, name: str | None = None) -> Belief:
        """The fitted model of one output after all trials so far.

        Args:
            name: An objective or a constraint; may be left out where there is one objective.

        Raises:
            ValueError: If there is no such output, or it is not clear which is meant.
        """
        outputs = [*self.problem.names, *(c.name for c in self.problem.constraints)]
        if name is None and len(self.problem.objectives) > 1:
            raise ValueError(
                f"there are several objectives: say which output is meant, one of "
                f"{', '.join(outputs)}."
            )
        if name is not None and name not in outputs:
            raise ValueError(f"no output {name!r}; there are {', '.join(outputs)}.")
        beliefs = self.beliefs()
        every = [*beliefs.objectives, *beliefs.constraints]
        return every[0 if name is None else outputs.index(name)]

    def beliefs(self) -> Beliefs:
        """The fitted models of all outputs after all trials so far."""
        with self._lock:
            self._sync()
            return self._strategy.modellers.beliefs(self._request(0, {}).known)

    @cached_property
    def _guide(self) -> Guide:
        return Guide.of(self.settings, self.space)

    def acquisition(self, name: str | None = None) -> Acquisition:
        """The acquisition function after all trials so far, over rows of the unit cube.

        Args:
            name: See `Optimizer`; the study's own if left out.

        Raises:
            NoCompleteTrial: If nothing was told yet.
            ValueError: If there is none of that name, or it does not suit the problem.
        """
        beliefs = self.beliefs()
        if not len(beliefs.first.data.y):
            raise NoCompleteTrial("there is no complete trial yet to build on: tell one first.")
        with self._lock:
            request = self._request(max(self._trials, default=-1) + 1, {})
        name = name or self._strategy.acquisition
        return acquisition_for(name, beliefs, request, self.space)

    # ------------------------------------------------------------------------------ inside

    def _request(self, number: int, fixed: Mapping[int, float]) -> Request:
        noisy = any(o.noise == "noisy" for o in self.problem.objectives)
        seen = frozenset(
            self._rows[k].tobytes()
            for k, trial in self._trials.items()
            if not noisy or trial.state == TrialState.FAILED
        )
        by_state: dict[TrialState, list[int]] = {state: [] for state in TrialState}
        for k in sorted(self._trials):
            by_state[self._trials[k].state].append(k)
        objectives = [self._objective(i, by_state) for i in range(len(self.problem.objectives))]
        return Request(
            objectives[0],
            number,
            self.seed,
            fixed,
            seen,
            tuple(objectives[1:]),
            tuple(self._constraint(c, by_state) for c in self.problem.constraints),
            self._success(by_state),
            self.problem.reference,
            past=tuple(
                Past(_OUTCOMES[trial.state], trial.origin)
                for _, trial in sorted(self._trials.items())
                if trial.state in _OUTCOMES
            ),
            cost=self._seconds(by_state) if self.settings.get("cost") else None,
            guide=self._guide,
        )

    def _objective(self, i: int, by_state: Mapping[TrialState, list[int]]) -> Data:
        """What is known of an objective, in order of trial number; larger is better."""
        name, trials = self.problem.names[i], self._complete(by_state)
        errors = [t.standard_errors.get(name) for t in trials]
        return self._data(
            by_state,
            np.array([self.problem.to_model(t.values or {})[i] for t in trials], dtype=float),
            np.array([np.nan if e is None else e for e in errors], dtype=float),
            exact=self.problem.objectives[i].noise == "none",
            # Volumes in warped units would prefer another part of the front.
            # Nor are means of warped values those of the values.
            warp=len(self.problem.objectives) == 1 and self._guide.perturbation is None,
        )

    def _constraint(self, constraint: Constraint, by_state: Mapping[TrialState, list[int]]) -> Data:
        """What is known of a constraint, turned so that it holds from 0 on."""
        told = [t.constraints[constraint.name] for t in self._complete(by_state)]
        y = np.array([constraint.margin(value) for value in told], dtype=float)
        exact = all(o.noise == "none" for o in self.problem.objectives)
        return self._data(by_state, y, np.full(len(y), np.nan), exact=exact, bound=0.0)

    def _success(self, by_state: Mapping[TrialState, list[int]]) -> Data | None:
        """Which trials came to an end, 1 for these and -1 for those that failed."""
        failed = by_state[TrialState.FAILED]
        if not failed:
            return None
        ended = sorted(by_state[TrialState.COMPLETE] + failed)
        y = np.array([-1.0 if self._trials[k].state == TrialState.FAILED else 1.0 for k in ended])
        return Data(
            self._stack(ended),
            y,
            np.full(len(y), LABEL_ERROR),
            self._stack(by_state[TrialState.RUNNING] + by_state[TrialState.WAITING]),
            self._stack([]),
            exact=False,
            bound=0.0,
            warp=False,
        )

    def _seconds(self, by_state: Mapping[TrialState, list[int]]) -> Data:
        """Log of the seconds that trials took.

        Of complete ones: what fails early would make the parts where trials fail look cheap. Those
        that were told from elsewhere took none.
        """
        timed = [k for k in by_state[TrialState.COMPLETE] if (self._trials[k].duration or 0) > 0]
        y = np.log([self._trials[k].duration or 1.0 for k in timed])
        nothing = self._stack([])
        errors = np.full(len(y), np.nan)
        return Data(self._stack(timed), y, errors, nothing, nothing, exact=False, warp=False)

    def _complete(self, by_state: Mapping[TrialState, list[int]]) -> list[Trial]:
        return [self._trials[k] for k in by_state[TrialState.COMPLETE]]

    def _data(
        self,
        by_state: Mapping[TrialState, list[int]],
        y: np.ndarray,
        errors: np.ndarray,
        **options: Any,
    ) -> Data:
        return Data(
            self._stack(by_state[TrialState.COMPLETE]),
            y,
            errors,
            self._stack(by_state[TrialState.RUNNING] + by_state[TrialState.WAITING]),
            self._stack(by_state[TrialState.FAILED]),
            **options,
        )

    def _stack(self, numbers: list[int]) -> np.ndarray:
        if not numbers:
            return np.empty((0, len(self.space)))
        return np.stack([self._rows[k] for k in numbers])
