"""Optimizer: a study that suggests what to try next. Where all parts meet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, overload

import numpy as np
import torch

from bbmmopt.devices import DeviceError, told_apart, usable
from bbmmopt.modelling import Belief, Beliefs
from bbmmopt.notebook import facts, heading, joined, rounded
from bbmmopt.space.checks import did_you_mean, is_integer
from bbmmopt.storage import NumberTaken
from bbmmopt.strategies import (
    Acquisition,
    Asking,
    Budget,
    Chosen,
    Guide,
    Proposal,
    Request,
    SpaceExhausted,
    Told,
    acquisition_for,
    choose,
    predict_risk,
    propose_together,
    remaining_improvement,
)
from bbmmopt.study import FailedTrialWarning, NoCompleteTrial, Study
from bbmmopt.study.ledger import checked_worker
from bbmmopt.study.settings import StudyDiffers, checked_name
from bbmmopt.trial import Trial, TrialState

__all__ = [
    "DeviceError",
    "FailedTrialWarning",
    "NoCompleteTrial",
    "Optimizer",
    "Recommendation",
    "SpaceExhausted",
    "StudyDiffers",
]

_LOOKING = "looking for what to try next"


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

    def _repr_html_(self) -> str:
        expected = f"{rounded(self.value)} ± {rounded(self.uncertainty)} expected"
        return joined(heading("Recommendation", expected), facts(self.params))


@dataclass(frozen=True)
class _Worker:
    """Who asks.

    Attributes:
        name: As in `ask`.
        lease: As in `ask`.
    """

    name: str | None
    lease: float | None


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
            proposes a point twice; "noisy" learns it and may repeat points. Noise that is learnt
            may depend on the parameters, where the trials show that it does: from 40 of them on,
            8 per parameter, up to 16 parameters.
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
            around the best trial that keeps the constraints, or misses them by least, which grows
            with success and shrinks without; for one objective, no perturbation. "sparse": over
            the whole space, by a model that takes most parameters not to matter. "ensemble": over
            the whole space, expected improvement being averaged over draws of the model's
            parameters while there are less than three trials a parameter. "portfolio":
            over the whole space, of several acquisition functions one, drawn by how good the model
            takes the points to be that each of them nominated before; for one objective, and slower
            than "global" by as many searches. "auto", the default: "trust_region" for one objective
            of 20 parameters or more and a budget (or a number of trials) of 1000 or more, else
            "global".
        batches: How `ask(n)` finds n points. "greedy", the default: one after another, each with
            those before it taken into account. "joint": then all of them are moved together to
            where they are expected to improve more as a whole; for one objective and expected
            improvement, which "auto" then is.
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
        early_stopping: When `trial.should_stop()` says that a trial is not worth going on with,
            from what it and the others reported: `MedianStop()`, `PercentileStop(25)`,
            `SuccessiveHalving(min_steps=3)` or `Hyperband(min_steps=1, max_steps=81)`; or "median",
            "percentile" or "halving" for one at its defaults. For one objective. What a stopped
            trial would have ended with is forecast, and the model learns from that.

        mode: "resume", the default, goes on with a stored study as it is. "extend" goes on with it
            changed: other bounds, choices, parameters, conditions, constraints, noise or settings;
            settings left out stay. Its trials stay as they are, count for `best`, and train the
            model wherever they have a place in the new space, be it outside; `OldTrialsWarning`
            says how many do not. A parameter that is fixed now (low == high, one choice) goes on
            being learnt from at its other values.
        former: {parameter: value}, for "extend" and `warm_start`: what a parameter that is new was
            in earlier trials; of one that is gone, the value at which earlier trials count.
        warm_start: Results of another study to begin with, of the same objectives: "old.db",
            "old.db#study", (storage, study), a Study, or [(params, value), …]. Its complete and
            failed trials are added once, as if told, those outside the bounds too; so they count
            for `n_start`.
        device: Where models are fitted and candidates scored: "cpu", the default; "cuda" or
            "cuda:1", a GPU, for thousands of trials; "auto", a GPU if there is one. Not stored with
            the study, which may be opened again for another device: suggestions follow from the
            same numbers then, but rounding differs. What is told is stored before it goes there.

    Raises:
        ValueError: If the problem makes no sense, or the device cannot be used. One that fails
            later is a `DeviceError`, of whichever call needed it.
        StudyDiffers: If the storage holds this study with another problem, seed or setting, or if
            it cannot be extended to it.
        StorageError: If the storage cannot be opened.
    """

    device: torch.device

    @classmethod
    def _usable(cls, device: str | torch.device) -> torch.device:
        return usable(device)

    def __repr__(self) -> str:
        where = "" if self.device.type == "cpu" else f", on {self.device}"
        return f"{super().__repr__()[:-1]}{where})"

    @cached_property
    def _strategy(self) -> Chosen:
        return Chosen(
            self._former.space,
            self.settings["n_start"],
            self.settings["acquisition"],
            strategy=self.settings["strategy"],
            budget=self.settings["budget"],
            noise=self.problem.objectives[0].noise,
            batches=self.settings["batches"],
        )

    @overload
    def ask(
        self,
        n: None = None,
        *,
        fixed: Mapping[str, Any] | None = None,
        worker: str | None = None,
        lease: float | None = None,
        timeout: float | None = None,
        evaluations: int | None = None,
    ) -> Trial: ...

    @overload
    def ask(
        self,
        n: int,
        *,
        fixed: Mapping[str, Any] | None = None,
        worker: str | None = None,
        lease: float | None = None,
        timeout: float | None = None,
        evaluations: int | None = None,
    ) -> list[Trial]: ...

    def ask(
        self,
        n: int | None = None,
        *,
        fixed: Mapping[str, Any] | None = None,
        worker: str | None = None,
        lease: float | None = None,
        timeout: float | None = None,
        evaluations: int | None = None,
    ) -> Trial | list[Trial]:
        """Say what to try next. The trial is running from now on, and stored.

        Trials that are running already are taken into account, so that asking again gives another
        point. Enqueued trials come first.

        `timeout` and `evaluations` hold for the whole call, of which each trial of a batch gets an
        even share; points of the start take next to none. There is always a point: at the least the
        best of 64, or any where the evaluations are for no more. `explain` tells what was cut
        short.

        Args:
            n: How many trials; a list comes back then. Left out, one trial.
            fixed: Values some parameters must have this time, {name: value}: a machine that is
                set up, a batch that shares a temperature. Enqueued trials are left alone then.
            worker: Who will run it. A worker that asks under a name it used in an earlier process
                first gets the trials back that it never told.
            lease: Seconds without a sign of life after which the trial is handed out again to
                whoever asks: its worker is taken for dead. `trial.report` and `renew` are signs
                of life. A late result counts if it is the first. Left out, never.
            timeout: Seconds after which the best point found so far is taken. Fits end after half
                of them, with the best parameters so far. What has begun is finished: one evaluation
                of the likelihood, one batch of candidates. A suggestion that was cut short by this
                does not follow from seed and data alone.
            evaluations: Most candidates to be scored; suggestions follow from it.

        Raises:
            SpaceExhausted: If every point of a finite space was tried.
            ValueError: If `fixed` names unknown parameters or values that are not allowed, or a
                limit allows nothing.
        """
        who = _Worker(*checked_worker(worker, lease))
        if n is not None and (isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1):
            raise ValueError(f"n must be a positive integer, the number of trials; got {n!r}.")
        columns, left = self._columns(fixed, where="ask(fixed=…)"), n or 1
        budget = self._budget(timeout, evaluations, left)
        together = self.settings["batches"] == "joint"
        trials: list[Trial] = []
        while left:
            trials += self._ask_some(left if together else 1, left, columns, who, budget)
            left = (n or 1) - len(trials)
        return trials[0] if n is None else trials

    def _ask_some(
        self,
        most: int,
        left: int,
        columns: Mapping[int, float],
        who: _Worker,
        budget: Budget,
    ) -> list[Trial]:
        """From one trial to `most`, of so many that are left: one in line, or suggested ones."""
        with self._lock:
            while True:
                self._ledger.sync()
                if not columns:
                    trial = self._own(who) or self.storage.claim(
                        self.study, worker=who.name, lease=who.lease
                    )
                    if trial is not None:
                        return [self._ledger.hand_out(trial)]
                number, added = self._ledger.next_number, []
                request = self._request(number, columns, budget)
                with told_apart(self.device, _LOOKING):
                    if most == 1:
                        proposals = [self._strategy.propose(replace(request, trials=left))]
                    else:
                        proposals = propose_together(self._strategy, request, most)
                try:
                    for k, proposal in enumerate(proposals):
                        added.append(self._start(number + k, proposal, who))
                except NumberTaken:
                    # Another process was first. Its trial is pending now: suggest again with that
                    # known, under the next number.
                    pass
                if added:
                    return added

    def _own(self, who: _Worker) -> Trial | None:
        """A running trial that this worker was given in an earlier process."""
        trial = self._ledger.left_behind(who.name)
        if trial is None or (trial.lease is None and who.lease is None):
            return trial
        return self.storage.reclaim(
            self.study,
            trial.number,
            worker=who.name,
            previous_worker=who.name,
            lease=who.lease,
        )

    def _start(self, number: int, proposal: Proposal, who: _Worker) -> Trial:
        """Store a proposal as a running trial.

        Raises:
            NumberTaken: If there is a trial of this number.
        """
        now = time.time()
        trial = Trial(
            number,
            self.space.decode(proposal.x),
            TrialState.RUNNING,
            created=now,
            started=now,
            origin=proposal.origin,
            worker=who.name,
            lease=who.lease,
        )
        return self._ledger.hand_out(
            self.storage.add(self.study, trial, generation=self._generation)
        )

    def preview(
        self,
        *,
        fixed: Mapping[str, Any] | None = None,
        acquisition: str | None = None,
        number: int | None = None,
        timeout: float | None = None,
        evaluations: int | None = None,
    ) -> Trial:
        """The trial that `ask` would suggest now, without making it: nothing is stored.

        Only what `ask` would come up with by itself: enqueued trials, which it hands out first,
        are not looked at.

        Args:
            fixed: As in `ask`.
            acquisition: What the model maximises instead of the study's own acquisition function.
            number: Of the trial, on which its draws depend; the next one if left out.
            timeout, evaluations: As in `ask`.

        Raises:
            SpaceExhausted, TypeError, ValueError: As in `ask`.
        """
        if number is not None and (not is_integer(number) or number < 0):
            raise TypeError(f"number must be an integer from 0 on, a trial's; got {number!r}.")
        columns = self._columns(fixed, where="preview(fixed=…)")
        name, budget = checked_name(acquisition), self._budget(timeout, evaluations, 1)
        strategy = self._strategy
        if name is not None and name != strategy.acquisition:
            strategy = replace(strategy, acquisition=name)  # with a model of its own
        with self._lock:
            self._ledger.sync()
            number = self._ledger.next_number if number is None else int(number)
            request = self._request(number, columns, budget)
            with told_apart(self.device, _LOOKING):
                proposal = strategy.propose(request)
        params = self.space.decode(proposal.x)
        return Trial(
            number,
            params,
            TrialState.WAITING,
            origin=proposal.origin,
            arguments=self.space.arguments(params),
        )

    def _columns(self, fixed: Mapping[str, Any] | None, *, where: str) -> dict[int, float]:
        """Parameters given by name as columns of the unit cube."""
        checked = self.space.validate_partial({} if fixed is None else fixed, where=where)
        for name in checked:
            for parent in self.space.parameters[name].when or {}:
                if parent not in checked:
                    raise ValueError(
                        f"{where}: {name!r} is only there for some values of {parent!r}: fix "
                        f"{parent!r} to one of them too."
                    )
        return {
            self.space.names.index(name): self._former.space.parameters[name].to_unit(value)
            for name, value in checked.items()
            if name not in self._former.ranges
        }

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
        with self._lock, told_apart(self.device, _LOOKING):
            beliefs = self.beliefs()
            belief = beliefs.first
            if not len(belief.data.y):
                raise NoCompleteTrial(
                    "there is no complete trial yet to base a recommendation on: tell one first."
                )
            request = replace(self._request(len(self._ledger.trials), {}), seen=frozenset())
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
            raise ValueError(
                f"no output {name!r}; there are {', '.join(outputs)}.{did_you_mean(name, outputs)}"
            )
        beliefs = self.beliefs()
        every = [*beliefs.objectives, *beliefs.constraints]
        return every[0 if name is None else outputs.index(name)]

    def beliefs(self) -> Beliefs:
        """The fitted models of all outputs after all trials so far."""
        with self._lock, told_apart(self.device, "fitting the model"):
            self._ledger.sync()
            return self._strategy.modellers.beliefs(self._request(0, {}).known)

    def remaining_improvement(self) -> float:
        """How much one more trial is expected to improve on the best, in units of the objective.

        The largest expected improvement anywhere in the space, where constraints may not hold
        times the probability that they do. A reason to stop, as good as the model is. What is
        running does not count yet.

        Returns:
            Infinity while no trial is complete and keeps the constraints; 0 where all was tried.

        Raises:
            ValueError: If there are several objectives, or a perturbation.
        """
        if len(self.problem.objectives) > 1:
            raise ValueError(
                f"with several objectives ({', '.join(self.problem.names)}) no trial is the best, "
                f"and none improves on it."
            )
        if self._guide.perturbation is not None:
            raise ValueError(
                "remaining_improvement is of what trials show; under a perturbation, something "
                "else is looked for: see recommend()."
            )
        with self._lock, told_apart(self.device, _LOOKING):
            beliefs = self.beliefs()
            request = self._request(self._ledger.next_number, {})
            return remaining_improvement(beliefs, request, self._former.space)

    @cached_property
    def _guide(self) -> Guide:
        return Guide.of(self.settings, self._former.space, self._former.held)

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
            request = self._request(self._ledger.next_number, {})
        name = name or self._strategy.acquisition
        with told_apart(self.device, "building the acquisition function"):
            return acquisition_for(name, beliefs, request, self._former.space)

    def acquisition_name(self, name: str | None = None) -> str:
        """Which one `acquisition` gives: of "auto", the one that suits the problem and the data.

        Args:
            name: As there.
        """
        name = name or self._strategy.acquisition
        return choose(self.beliefs(), self._guide)[0] if name == "auto" else name

    # ------------------------------------------------------------------------------ inside

    @cached_property
    def _asking(self) -> Asking:
        timed = bool(self.settings.get("cost"))
        return Asking(self.problem, self.seed, self._guide, timed, self.device)

    @cached_property
    def _told(self) -> Told:
        return Told(self.problem, self._former if self._former.extended else None)

    def _request(
        self, number: int, fixed: Mapping[int, float], budget: Budget | None = None
    ) -> Request:
        curves = self.curves if self._ledger.pruned else {}
        fixed = {**self._former.held, **fixed}
        for trial, row in self._ledger.news():
            self._told.learn(trial, row)
        return self._asking.request(self._told, number, fixed, budget, curves)

    def _budget(self, timeout: float | None, evaluations: int | None, trials: int) -> Budget:
        """What an ask may take, checked."""
        if timeout is not None and (
            isinstance(timeout, bool)
            or not isinstance(timeout, int | float | np.number)
            or not timeout > 0
        ):
            raise ValueError(
                f"timeout must be a positive number, the seconds that ask may take; "
                f"got {timeout!r}."
            )
        least = trials * self._strategy.least_evaluations
        if evaluations is not None and (
            isinstance(evaluations, bool)
            or not isinstance(evaluations, int | np.integer)
            or evaluations < least
        ):
            raise ValueError(
                f"evaluations must be an integer, the number of candidates that ask may score, of "
                f"at least {least} for {trials} trial(s); got {evaluations!r}."
            )
        return Budget(
            None if timeout is None else float(timeout),
            None if evaluations is None else int(evaluations),
        )
