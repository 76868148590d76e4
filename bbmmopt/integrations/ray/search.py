"""BBMMSearch: suggests the configurations that a tuner of Ray tries next."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.tune.result import DEFAULT_METRIC
from ray.tune.search import Searcher
from ray.tune.utils.util import flatten_dict  # pyright: ignore[reportPrivateImportUsage]

from bbmmopt.integrations.kept import Kept
from bbmmopt.integrations.ray.endings import Progress, step_of
from bbmmopt.integrations.ray.goals import check_goal, problem_of
from bbmmopt.integrations.ray.learning import add, report, tell, values_of
from bbmmopt.integrations.ray.space import Layout, configuration_of
from bbmmopt.optimizer import Optimizer, SpaceExhausted
from bbmmopt.problem import Constraints, Noise
from bbmmopt.space import Parameter, Space
from bbmmopt.space.checks import is_integer, shown
from bbmmopt.storage import Storage
from bbmmopt.trial import TrialAlreadyTold, TrialState

_log = logging.getLogger(__name__)

_OURS = ("minimize", "maximize", "early_stopping")


class BBMMSearch(Searcher):
    """A search algorithm of Ray Tune: an `Optimizer` behind Ray's interface.

        search = BBMMSearch(seed=0)
        config = tune.TuneConfig(metric="loss", mode="min", search_alg=search, num_samples=50)
        tune.Tuner(train, param_space={"lr": tune.loguniform(1e-5, 1)}, tune_config=config).fit()
        search.optimizer.recommend()

    A trial that raises, or ends without a finite value of every metric and constraint, has failed.
    One that a scheduler such as ASHA stops is pruned, and the model learns from a forecast of what
    it would have ended with. That it was stopped early is told from the others: Ray let one of them
    go on from there. A trial that meets `RunConfig(stop={…})` is complete. With several metrics, or
    constraints, there is no forecast: then the last result counts.

    Ray saves the search along with the experiment: after `Tuner.restore`, or `restore`, the same
    configurations are suggested as without the interruption. With a storage, the study goes on
    from what is in there, which may be more than was saved. Trials that failed and are run again
    are learnt from too; through a `ConcurrencyLimiter` their end is not told here.

    Args:
        space: What to tune, if not the tuner's param_space: a configuration with domains such as
            tune.uniform; a Space, where "a/b" goes to {"a": {"b": …}}, which may have conditions
            and constraints; or {name: parameter}. Of Ray's, real numbers on a grid are choices in
            order, up to 100 of them; finer and logarithmic grids are counted in steps, as a
            parameter "lr / 0.0005".
        metric: What is optimised, if not the tuner's; or a list, for several objectives. What is
            nested in a result is "a/b".
        mode: "min" or "max"; for a list of metrics, a list.
        noise: As in `Optimizer`.
        constraints: On other numbers in the results: "latency <= 200"; see `Optimizer`.
        points_to_evaluate: Configurations to begin with, complete ones. Only for a study that has
            no trials yet, as are the next.
        evaluated_rewards: Their values, if they are known: then they are learnt from, not run.
        max_t: The training iteration at which a trial has come to its end, if a scheduler says so
            that pauses trials, as HyperBandScheduler does: without it, all of its trials count as
            stopped early, as Ray ends even the best of them while they are paused.
        max_concurrent: Most trials at a time; `tune.TuneConfig(max_concurrent_trials=…)` and
            `ConcurrencyLimiter` go before.
        storage: As in `Optimizer`: "study.db", for plots and `bbmmopt` to look into.
        study: Name of the study within the storage.
        seed: As in `Optimizer`.
        settings: What else an `Optimizer` takes: n_start, acquisition, strategy, prior … The budget
            is the tuner's num_samples if it is not given.

    Raises:
        TypeError, ValueError: If something is not allowed. What does not fit together is told when
            all is known, by `set_search_properties` or the first `suggest`.
    """

    def __init__(
        self,
        space: Space | Mapping[str, Parameter] | Mapping[str, Any] | None = None,
        metric: str | list[str] | None = None,
        mode: str | list[str] | None = None,
        *,
        noise: Noise | Mapping[str, Noise] = "unknown",
        constraints: Constraints = (),
        points_to_evaluate: Sequence[Mapping[str, Any]] | None = None,
        evaluated_rewards: Sequence[Any] | None = None,
        max_t: int | None = None,
        max_concurrent: int | None = None,
        storage: str | PathLike[str] | Storage | None = None,
        study: str = "default",
        seed: int | None = None,
        **settings: Any,
    ) -> None:
        check_goal(metric, mode)
        for name in _OURS:
            if name in settings:
                raise TypeError(
                    f"BBMMSearch takes no {name}=: metric= and mode= say what is optimised, and "
                    f"a scheduler of Ray's stops trials early."
                )
        for name, count in (("max_t", max_t), ("max_concurrent", max_concurrent)):
            if count is not None and (not is_integer(count) or count < 1):
                raise ValueError(f"{name} must be a positive integer; got {count!r}.")
        points, rewards = points_to_evaluate or (), evaluated_rewards
        if rewards is not None and len(rewards) != len(points):
            raise ValueError(
                f"evaluated_rewards must have a value for each of the {len(points)} "
                f"points_to_evaluate; got {len(rewards)}."
            )
        super().__init__(metric=metric, mode=mode)  # type: ignore[arg-type]
        self._layout = None if space is None else Layout.of(space)
        self._noise, self._constraints = noise, constraints
        self._points, self._rewards = [dict(point) for point in points], rewards
        self._max_concurrent = max_concurrent
        self._where, self._study, self._seed = storage, study, seed
        self._settings = settings
        self._optimizer: Optimizer | None = None
        self._kept: Kept | None = None
        self._progress = Progress(max_t)
        self._numbers: dict[str, int] = {}  # of all trials of Ray's
        self._lanes: dict[str, int] = {}  # of those under way: who runs them
        self._session = f"ray-{secrets.token_hex(3)}"

    # ------------------------------------------------------------------------- beginning

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer that does the work: its trials, `recommend`, what to plot.

        Raises:
            RuntimeError: If space or metric are not known yet.
        """
        return self._opened()

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Take space, metric and mode from the tuner, where they were not given before.

        Returns:
            Whether that was done; False if there was a space already.

        Raises:
            ValueError: If the tuner's metric or mode is another one than that of the search, or
                param_space has what cannot be tuned.
        """
        for name, own, tuners in (("metric", self._metric, metric), ("mode", self._mode, mode)):
            if own is not None and tuners is not None and own != tuners:
                raise ValueError(
                    f"{name} is {own!r} here and {tuners!r} in the tuner: give it once."
                )
        metric, mode = self._metric or metric, self._mode or mode
        if mode is not None and metric is None:
            metric = DEFAULT_METRIC  # the value that a function returns without a name
        check_goal(metric, mode)
        if self._layout is not None and not self._layout.is_of(config):
            taken = False
        else:
            self._layout, taken = Layout.of(config), True
        self._metric, self._mode = metric, mode
        criteria = spec.get("stop")
        if isinstance(criteria, Mapping):
            self._progress.stop = flatten_dict(dict(criteria))
        samples: Any = spec.get("num_samples")
        if is_integer(samples) and samples > 0:
            self._settings.setdefault("budget", samples)
        if metric is not None and mode is not None:
            self._opened()
        return taken

    def _opened(self) -> Optimizer:
        """The optimizer: as it is, begun, or brought back as it was saved."""
        if self._optimizer is not None:
            return self._optimizer
        if self._layout is None:
            raise RuntimeError(
                "BBMMSearch does not know what to tune: give it a space, or the tuner a "
                "param_space with domains such as tune.uniform(0, 1)."
            )
        if not self._metric or not self._mode:
            raise RuntimeError(
                "BBMMSearch does not know what to optimise: give metric and mode to it, or to "
                "tune.TuneConfig."
            )
        problem = problem_of(
            self._layout.space,
            self._metric,
            self._mode,
            noise=self._noise,
            constraints=self._constraints,
        )
        rewards = self._rewards
        points = [self._params(point, outside=rewards is not None) for point in self._points]
        optimizer = Optimizer(
            problem,
            storage=self._where if self._kept is None else self._kept.storage(),
            study=self._study,
            seed=self._seed,
            **self._settings,
        )
        self._optimizer, self._kept = optimizer, None
        if not optimizer.trials:
            for k, params in enumerate(points):
                if rewards is None:
                    optimizer.enqueue(params)
                else:
                    self.add_evaluated_point(self._points[k], rewards[k])
        return optimizer

    # ------------------------------------------------------------------------ suggesting

    def suggest(self, trial_id: str) -> Any:
        """The configuration to try next.

        Returns:
            The configuration; None if max_concurrent trials are under way; `Searcher.FINISHED` if
            every point of a finite space was tried.

        Raises:
            RuntimeError: If space or metric are not known yet.
        """
        optimizer = self.optimizer
        if trial_id in self._numbers:
            raise ValueError(f"trial {trial_id!r} was given a configuration already.")
        if self._max_concurrent is not None and len(self._lanes) >= self._max_concurrent:
            return None
        lane = next(k for k in range(len(self._lanes) + 1) if k not in self._lanes.values())
        try:
            trial = optimizer.ask(worker=self._worker(lane))
        except SpaceExhausted as error:
            _log.info("%s", error)
            return Searcher.FINISHED
        self._numbers[trial_id], self._lanes[trial_id] = trial.number, lane
        assert self._layout is not None
        return self._layout.config(trial.arguments)

    def _worker(self, lane: int) -> str:
        """Who runs a trial: of this search alone.

        After a crash, those that Ray does not know of come back to it by `ask`. Those that it knows
        of and runs again do not: their lanes are taken.
        """
        return f"{self._session}-{lane}"

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Leave it to the `ConcurrencyLimiter` that asks, which knows batches too."""
        self._max_concurrent = None
        return False

    # -------------------------------------------------------------------------- learning

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Take note of what a trial reports on its way. Of trials that have ended, nothing."""
        number = self._numbers.get(trial_id)
        if number is not None and trial_id not in self._lanes:
            _log.warning("a result of trial %r, which has ended, is left out.", trial_id)
            return
        result = flatten_dict(result)
        step = step_of(result)
        if step is not None:
            self._progress.shown(trial_id, step, result)
            if number is not None:
                report(self.optimizer, number, step, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn how a trial ended.

        The first time counts. But a failure may be mended, and a trial of another name that tells
        its configuration is learnt from as well: so Ray runs those again that failed.
        """
        last = self._progress.ended(trial_id, flatten_dict(result or {}), error)
        stopped = self._progress.cut_short(trial_id, last)
        failed = None if last else "it ended without a result"
        if error:
            failed = "it raised an error in Ray"
        if trial_id not in self._lanes:
            self._tell_unexpected(trial_id, last, failed, stopped)
            return
        optimizer, number, step = self.optimizer, self._numbers[trial_id], step_of(last)
        if step is not None and step > self._progress.reached.get(trial_id, -1):
            report(optimizer, number, step, last)
        try:
            tell(optimizer, number, last, failed=failed, stopped=stopped)
        except TrialAlreadyTold as already:  # before a restart from an older checkpoint
            _log.warning("%s", already)
        del self._lanes[trial_id]

    def _tell_unexpected(
        self, trial_id: str, result: Mapping[str, Any], failed: str | None, stopped: int | None
    ) -> None:
        """A trial has ended that is not under way."""
        optimizer, number = self.optimizer, self._numbers.get(trial_id)
        failed = failed or values_of(optimizer.problem, result)[1]
        try:
            if failed is not None:
                raise ValueError(failed)
            if number is None:
                params = self._params(configuration_of(result), outside=True)
            else:
                before = optimizer.storage.trial(optimizer.study, number)
                if before.state != TrialState.FAILED:
                    raise ValueError(f"it has ended already, as {before.state}")
                params = before.params
        except (TypeError, ValueError) as reason:
            _log.warning("the end of trial %r is left out: %s", trial_id, reason)
            return
        step = step_of(result)
        curve = {} if step is None else {step: result[optimizer.problem.names[0]]}
        added = add(optimizer, params, result, curve, stopped=stopped)
        if added is not None:
            self._numbers[trial_id] = added

    # ---------------------------------------------------------------- results from elsewhere

    def add_evaluated_point(
        self,
        parameters: dict[str, Any],
        value: Any,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Learn from a configuration that was tried elsewhere; it may lie outside the bounds.

        Args:
            parameters: The configuration, nested or with "a/b". Constants do not matter.
            value: Of the metric; {name: value} of several, and of constraints. None or what is not
                finite is a failure.
            error: Whether it failed.
            pruned: Whether it was stopped early. With intermediate values, what it would have ended
                with is forecast; without, the value counts as it is.
            intermediate_values: Of the metric, after 1, 2, … training iterations.

        Raises:
            RuntimeError: If space or metric are not known yet.
            TypeError, ValueError: If there is no such configuration, by parameter.
        """
        optimizer = self.optimizer
        params = self._params(parameters, outside=True)
        told = value if isinstance(value, Mapping) else {optimizer.problem.names[0]: value}
        curve = dict(enumerate(intermediate_values or (), start=1))
        add(
            optimizer,
            params,
            told,
            curve,
            failed="it raised an error" if error else None,
            stopped=len(curve) if pruned and curve else None,
        )

    def _params(self, config: Any, *, outside: bool) -> dict[str, Any]:
        """The params of a configuration, checked."""
        if not isinstance(config, Mapping):
            raise TypeError(f"expected a configuration, a dict; got {shown(config)}.")
        assert self._layout is not None
        params = self._layout.params(config)
        return self._layout.space.validate(params, where=shown(config), outside=outside)

    # ---------------------------------------------------------------------- saved, restored

    def save(self, checkpoint_path: str) -> None:
        """Write all that is needed to go on into a file, as Ray does by itself."""
        state = cloudpickle.dumps(self.__getstate__())  # pyright: ignore[reportPrivateImportUsage]
        Path(checkpoint_path).write_bytes(state)

    def restore(self, checkpoint_path: str) -> None:
        """Go on from what `save` wrote. Whatever this search was before is forgotten."""
        state = cloudpickle.loads(Path(checkpoint_path).read_bytes())
        if self._optimizer is not None and self._optimizer.storage is not self._where:
            self._optimizer.close()
        self.__dict__.update(state)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__ | {"_optimizer": None}
        storage = self._where if self._optimizer is None else self._optimizer.storage
        if isinstance(storage, Storage):
            state["_where"] = storage.address
        if self._optimizer is not None and state["_where"] is None:
            state["_kept"] = Kept.of(self._optimizer)
        return state
