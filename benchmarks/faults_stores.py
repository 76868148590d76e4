"""The two storages that faults.py breaks, behind the same few verbs.

Both go their users' way: `Optimizer.ask` with points of the start, `study.ask` with random ones
and a `suggest_float` for each of the ten parameters. A value told is a function of the trial's
number, so that a value in the wrong place is found.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

NAMES = [f"x{i}" for i in range(10)]


@dataclass(frozen=True)
class Seen:
    """A trial as a fresh process reads it.

    Attributes:
        number: Of the trial.
        state: waiting, running, complete or failed.
        value: None unless complete.
        params: How many parameters it has.
        reports: {step: value}, the steps as strings.
    """

    number: int
    state: str
    value: float | None
    params: int
    reports: dict[str, float]


def value_of(number: int) -> float:
    """What is told of a trial."""
    return number + 0.25


class Store(ABC):
    """One library's storage, opened with its study, both created if they are not there.

    Args:
        url: Of the database.
        worker: Who asks and claims, where the library cares.
        busy_timeout: Seconds to wait for another's transaction; None for the library's default.
        lease: Seconds after which another worker may take over a trial of this one.
    """

    def __init__(
        self,
        url: str,
        worker: str = "w",
        busy_timeout: float | None = None,
        lease: float | None = None,
    ) -> None:
        self.url, self.worker, self.lease = url, worker, lease
        self.open(busy_timeout)

    @staticmethod
    @abstractmethod
    def prepare() -> dict[str, str]:
        """Import what is needed, before processes are forked; versions by package."""

    @abstractmethod
    def open(self, busy_timeout: float | None) -> None:
        """Open storage and study."""

    @abstractmethod
    def ask(self) -> int:
        """The number of a trial to run."""

    @abstractmethod
    def tell(self, number: int) -> None:
        """Tell `value_of` a trial."""

    @abstractmethod
    def enqueue(self) -> None:
        """Put a trial in line."""

    @abstractmethod
    def claim(self) -> int | None:
        """The number of a trial that waited in line, now ours to run; None if none waits."""

    @abstractmethod
    def report(self, number: int) -> None:
        """Report 0.5 at step 3 of a trial that this process asked for."""

    @abstractmethod
    def trials(self) -> list[Seen]:
        """All trials, by number."""

    @abstractmethod
    def close(self) -> None:
        """Close it, all of it being in the files then."""

    def check(self) -> list[str]:
        """What the library itself finds wrong with its storage."""
        return []

    def seen(self) -> list[dict[str, Any]]:
        """All trials, in JSON."""
        return [asdict(trial) for trial in self.trials()]


class Ours(Store):
    @staticmethod
    def prepare() -> dict[str, str]:
        import torch

        from bbmmopt import Optimizer, Real

        torch.set_num_threads(1)
        optimizer = Optimizer({"x": Real(0, 1)}, minimize="y", seed=0)
        optimizer.tell(optimizer.ask(), 0.0)  # imports what a first ask imports
        import numpy  # noqa: F401

        import bbmmopt.storage.sql  # noqa: F401

        return {name: version(name) for name in ("bbmmopt", "SQLAlchemy")}

    def open(self, busy_timeout: float | None) -> None:
        from bbmmopt import Optimizer, Real
        from bbmmopt.storage.sql import SQLStorage

        options: Any = {} if busy_timeout is None else {"busy_timeout": busy_timeout}
        self.storage = SQLStorage(self.url, **options)
        self.optimizer = Optimizer(
            {name: Real(0, 1) for name in NAMES},
            minimize="y",
            storage=self.storage,
            seed=0,
            n_start=10**6,
        )

    def ask(self) -> int:
        return self.optimizer.ask(worker=self.worker, lease=self.lease).number

    def tell(self, number: int) -> None:
        self.optimizer.tell(number, value_of(number))

    def enqueue(self) -> None:
        self.optimizer.enqueue(dict.fromkeys(NAMES, 0.5))

    def claim(self) -> int | None:
        trial = self.storage.claim(self.optimizer.study, worker=self.worker, lease=self.lease)
        return None if trial is None else trial.number

    def report(self, number: int) -> None:
        self.optimizer.report(number, 3, 0.5)

    def close(self) -> None:
        self.optimizer.close()

    def check(self) -> list[str]:
        return self.storage.check()

    def trials(self) -> list[Seen]:
        trials, curves = self.optimizer.trials, self.optimizer.curves
        return [
            Seen(
                trial.number,
                str(trial.state),
                None if trial.values is None else trial.values["y"],
                len(trial.params),
                {str(step): value for step, value in curves.get(trial.number, {}).items()},
            )
            for trial in trials
        ]


class Peer(Store):
    """Optuna's RDBStorage with its defaults."""

    @staticmethod
    def prepare() -> dict[str, str]:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
        from optuna.storages import RDBStorage  # noqa: F401
        from optuna.storages._rdb import alembic, models  # noqa: F401

        return {name: version(name) for name in ("optuna", "SQLAlchemy")}

    def open(self, busy_timeout: float | None) -> None:
        import optuna

        options = {}
        if busy_timeout is not None and self.url.startswith("sqlite"):
            options = {"engine_kwargs": {"connect_args": {"timeout": busy_timeout}}}
        self.storage = optuna.storages.RDBStorage(self.url, **options)
        self.study = optuna.create_study(
            storage=self.storage,
            study_name="faults",
            sampler=optuna.samplers.RandomSampler(),
            load_if_exists=True,
        )
        self._asked: dict[int, Any] = {}

    def ask(self) -> int:
        trial = self.study.ask()
        self._asked[trial.number] = trial
        for name in NAMES:
            trial.suggest_float(name, 0, 1)
        return trial.number

    def tell(self, number: int) -> None:
        self.study.tell(number, value_of(number))

    def enqueue(self) -> None:
        self.study.enqueue_trial(dict.fromkeys(NAMES, 0.5), user_attrs={"in line": True})

    def claim(self) -> int | None:
        # There is no claiming only: where nothing waits, ask makes a new trial.
        trial = self.study.ask()
        self._asked[trial.number] = trial
        if "in line" not in trial.user_attrs:
            self.study.tell(trial, state=self._failed())
            return None
        for name in NAMES:
            trial.suggest_float(name, 0, 1)
        return trial.number

    @staticmethod
    def _failed() -> Any:
        from optuna.trial import TrialState

        return TrialState.FAIL

    def report(self, number: int) -> None:
        self._asked[number].report(0.5, 3)

    def close(self) -> None:
        self.storage.remove_session()

    def trials(self) -> list[Seen]:
        return [
            Seen(
                trial.number,
                "failed" if trial.state.name == "FAIL" else trial.state.name.lower(),
                trial.values[0] if trial.values else None,
                # Of a trial in line, the parameters are kept elsewhere.
                len(NAMES) if trial.state.name == "WAITING" else len(trial.params),
                {str(step): value for step, value in trial.intermediate_values.items()},
            )
            for trial in self.study.get_trials(deepcopy=False)
        ]


STORES: dict[str, type[Store]] = {"ours": Ours, "optuna": Peer}
