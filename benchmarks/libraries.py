"""The libraries under comparison behind one ask/tell; each is imported only in its own process.

Minimisation everywhere. A library sees the space and the values it is told, nothing else.
"""

import math
import warnings
from abc import ABC, abstractmethod
from importlib.metadata import version

import torch
from acquisition_quality import describe, log_expected_improvement


class Library(ABC):
    """One optimisation run with one library.

    Args:
        space: One dictionary per parameter, see problems.py.
        seed: Of this run.
        exact: Tell the library that the values carry no noise, if it can be told.
    """

    packages: tuple[str, ...] = ()

    def __init__(self, space: list[dict], seed: int, exact: bool) -> None:
        self.space, self.seed, self.exact = space, seed, exact
        self.start()

    @classmethod
    def versions(cls) -> dict[str, str]:
        return {package: version(package) for package in ("torch", *cls.packages)}

    @abstractmethod
    def start(self) -> None:
        """Make an optimiser without data."""

    @abstractmethod
    def add(self, params: dict, value: float) -> None:
        """Take an observation that was not asked for."""

    @abstractmethod
    def ask(self) -> dict:
        """Propose the active parameters of one trial."""

    @abstractmethod
    def tell(self, value: float) -> None:
        """Take the value of the last proposal."""

    def log_ei(self, points: list[list[float]]) -> list[float]:
        """LogEI, by this library's own model of the data, of points of the unit cube."""
        raise NotImplementedError(f"{type(self).__name__} lends no model")

    def belief(self) -> dict:
        """The fitted model as plain numbers, see acquisition_quality.py."""
        raise NotImplementedError(f"{type(self).__name__} lends no model")


def is_active(parameter: dict, params: dict) -> bool:
    return all(params.get(name) == value for name, value in parameter.get("when", {}).items())


class Ours(Library):
    packages = ("bbmmopt",)

    def start(self) -> None:
        from bbmmopt import Optimizer, Space

        space = Space({parameter["name"]: self._parameter(parameter) for parameter in self.space})
        noise = "none" if self.exact else "unknown"  # the latter is the default
        self.optimizer = Optimizer(space, minimize="y", seed=self.seed, noise=noise)

    @staticmethod
    def _parameter(spec: dict):
        from bbmmopt import Categorical, Integer, Real

        when = {"when": spec["when"]} if "when" in spec else {}
        if spec["kind"] == "real":
            return Real(spec["low"], spec["high"], log=spec["log"], **when)
        if spec["kind"] == "integer":
            return Integer(spec["low"], spec["high"], **when)
        return Categorical(spec["choices"], **when)

    def add(self, params: dict, value: float) -> None:
        self.optimizer.add_trial(params, value)

    def ask(self) -> dict:
        self.trial = self.optimizer.ask()
        return self.trial.params

    def tell(self, value: float) -> None:
        self.optimizer.tell(self.trial, value)

    def log_ei(self, points: list[list[float]]) -> list[float]:
        belief = self.optimizer.belief()
        with torch.no_grad():
            mean, std = belief.posterior.marginals(torch.tensor(points, dtype=torch.float64))
        return log_expected_improvement(mean.numpy(), std.numpy(), belief.incumbent).tolist()

    def belief(self) -> dict:
        return describe(self.optimizer.belief())


class OptunaGP(Library):
    """GPSampler as its users call it: suggest each parameter, under its condition if it has one."""

    packages = ("optuna",)

    def start(self) -> None:
        import optuna
        import scipy.optimize  # noqa: F401  (optuna imports it late; no ask should pay for that)

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.optuna = optuna
        sampler = optuna.samplers.GPSampler(seed=self.seed, deterministic_objective=self.exact)
        self.study = optuna.create_study(sampler=sampler, direction="minimize")

    def add(self, params: dict, value: float) -> None:
        kinds = self.optuna.distributions
        distributions = {}
        for p in self.space:
            if p["kind"] == "real":
                distributions[p["name"]] = kinds.FloatDistribution(p["low"], p["high"], p["log"])
            elif p["kind"] == "integer":
                distributions[p["name"]] = kinds.IntDistribution(p["low"], p["high"])
            else:
                distributions[p["name"]] = kinds.CategoricalDistribution(p["choices"])
        active = {name: distributions[name] for name in params}
        self.study.add_trial(
            self.optuna.create_trial(params=params, distributions=active, value=value)
        )

    def ask(self) -> dict:
        self.trial = self.study.ask()
        for p in self.space:
            if not is_active(p, self.trial.params):
                continue
            if p["kind"] == "real":
                self.trial.suggest_float(p["name"], p["low"], p["high"], log=p["log"])
            elif p["kind"] == "integer":
                self.trial.suggest_int(p["name"], p["low"], p["high"])
            else:
                self.trial.suggest_categorical(p["name"], p["choices"])
        return dict(self.trial.params)

    def tell(self, value: float) -> None:
        self.study.tell(self.trial, value)


class BoTorch(Library):
    """The documented loop: Sobol start, SingleTaskGP at its defaults, LogEI, optimize_acqf.

    A space with categories gets MixedSingleTaskGP and optimize_acqf_mixed over every combination
    of the discrete parameters. BoTorch has no conditions: a parameter that is not active stands at
    the middle of its range.
    """

    packages = ("botorch", "gpytorch")

    def start(self) -> None:
        torch.manual_seed(self.seed)
        self.sobol = torch.quasirandom.SobolEngine(len(self.space), scramble=True, seed=self.seed)
        self.n_start = 2 * (len(self.space) + 1)
        self.X: list[list[float]] = []
        self.y: list[float] = []
        self.model = None

    def add(self, params: dict, value: float) -> None:
        self.X.append(self._encode(params))
        self.y.append(value)

    def ask(self) -> dict:
        if len(self.y) < self.n_start:
            self.proposed = self._decode(self.sobol.draw(1, dtype=torch.float64)[0].tolist(), True)
        else:
            self.proposed = self._decode(self._maximise().tolist(), False)
        return self.proposed

    def tell(self, value: float) -> None:
        self.add(self.proposed, value)

    def log_ei(self, points: list[list[float]]) -> list[float]:
        with torch.no_grad():
            return self._log_ei(torch.tensor(points, dtype=torch.float64).unsqueeze(-2)).tolist()

    def fit(self):
        """Fit a model to what is known, and return it."""
        from botorch.acquisition import LogExpectedImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import MixedSingleTaskGP, SingleTaskGP
        from botorch.models.transforms import Standardize
        from gpytorch.mlls import ExactMarginalLogLikelihood

        X = torch.tensor(self.X, dtype=torch.float64)
        Y = -torch.tensor(self.y, dtype=torch.float64).unsqueeze(-1)  # BoTorch maximises
        categories = [i for i, p in enumerate(self.space) if p["kind"] == "categorical"]
        if categories:
            model = MixedSingleTaskGP(X, Y, cat_dims=categories, outcome_transform=Standardize(1))
        else:
            model = SingleTaskGP(X, Y, outcome_transform=Standardize(1))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        self._log_ei = LogExpectedImprovement(model, best_f=Y.max())
        return model

    def _maximise(self) -> torch.Tensor:
        from botorch.optim import optimize_acqf, optimize_acqf_mixed

        self.fit()
        high = [len(p["choices"]) - 1.0 if "choices" in p else 1.0 for p in self.space]
        options = {
            "bounds": torch.tensor([[0.0] * len(high), high], dtype=torch.float64),
            "q": 1,
            "num_restarts": 10,
            "raw_samples": 512,
        }
        combinations = self._combinations()
        if len(combinations) > 1:
            x, _ = optimize_acqf_mixed(self._log_ei, fixed_features_list=combinations, **options)
        else:
            x, _ = optimize_acqf(self._log_ei, **options)
        return x[0]

    def _combinations(self) -> list[dict[int, float]]:
        """Every combination of values of the discrete parameters, as columns of X."""
        found: list[dict] = [{}]
        for p in self.space:
            if p["kind"] == "real":
                continue
            extended = []
            for params in found:
                values = p.get("choices") or range(p["low"], p["high"] + 1)
                active = values if is_active(p, params) else [None]
                extended += [{**params, p["name"]: value} for value in active]
            found = extended
        columns = [i for i, p in enumerate(self.space) if p["kind"] != "real"]
        return [{i: self._column(self.space[i], params) for i in columns} for params in found]

    def _column(self, p: dict, params: dict) -> float:
        value = params.get(p["name"])
        if value is None:
            return 0.5
        if p["kind"] == "categorical":
            return float(p["choices"].index(value))
        if p.get("log"):
            return math.log(value / p["low"]) / math.log(p["high"] / p["low"])
        return (value - p["low"]) / (p["high"] - p["low"])

    def _encode(self, params: dict) -> list[float]:
        return [self._column(p, params) for p in self.space]

    def _decode(self, x: list[float], categories_in_unit_cube: bool) -> dict:
        params = {}
        for p, u in zip(self.space, x, strict=True):
            if not is_active(p, params):
                continue
            if p["kind"] == "categorical":
                last = len(p["choices"]) - 1
                index = int(u * (last + 1)) if categories_in_unit_cube else round(u)
                params[p["name"]] = p["choices"][min(index, last)]
            elif p["kind"] == "integer":
                params[p["name"]] = round(p["low"] + u * (p["high"] - p["low"]))
            elif p["log"]:
                value = p["low"] * (p["high"] / p["low"]) ** u
                params[p["name"]] = min(max(value, p["low"]), p["high"])
            else:
                params[p["name"]] = p["low"] + u * (p["high"] - p["low"])
        return params


LIBRARIES: dict[str, type[Library]] = {"ours": Ours, "botorch": BoTorch, "optuna": OptunaGP}


def prepare() -> None:
    """One thread, and no warnings between the numbers."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
