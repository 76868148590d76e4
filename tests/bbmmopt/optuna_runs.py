"""Objectives of Optuna and runs of them, for the tests of the sampler."""

import math
from collections.abc import Callable
from typing import Any

import optuna
import pytest

from bbmmopt.integrations.optuna import BBMMSampler
from bbmmopt.integrations.optuna import sampler as sampling


def bowl(trial: optuna.Trial) -> float:
    """Smallest, 0, at (0.3, 0.01)."""
    x = trial.suggest_float("x", -1, 2)
    rate = trial.suggest_float("rate", 1e-4, 1, log=True)
    return (x - 0.3) ** 2 + math.log10(rate / 0.01) ** 2 / 4


def layers(trial: optuna.Trial) -> float:
    """Two kinds of conditions: a choice, and an integer that counts parameters."""
    kind = trial.suggest_categorical("kind", ["net", "tree"])
    if kind == "tree":
        return 0.5 + abs(trial.suggest_int("depth", 1, 9) - 4) / 10
    count = trial.suggest_int("count", 1, 3)
    widths = [trial.suggest_float(f"width{i}", 0, 1) for i in range(count)]
    return 0.6 - 0.2 * count + sum((width - 0.7) ** 2 for width in widths)


def run(objective: Callable[[optuna.Trial], Any], n_trials: int, **options: Any) -> optuna.Study:
    catch = options.pop("catch", ())
    sampler = options.pop("sampler", None) or BBMMSampler(seed=0)
    study = optuna.create_study(sampler=sampler, **options)
    study.optimize(objective, n_trials=n_trials, catch=catch)
    return study


def origin(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    return trial.system_attrs["bbmmopt"]["origin"]


def points(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials]


def models_made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets a number for each model which a sampler begins from nothing."""
    found: list[int] = []
    original = sampling.Group

    def counted(*arguments: Any) -> sampling.Group:
        found.append(1)
        return original(*arguments)

    monkeypatch.setattr(sampling, "Group", counted)
    return found
