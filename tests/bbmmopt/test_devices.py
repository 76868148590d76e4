"""Facts about `device=`: suggestions are those of the CPU, and copies are few."""

import itertools
import math

import numpy as np
import pytest
import torch
from pretended_device import DEVICE, pretended_device

from bbmmopt import Real, Space
from bbmmopt.acquisition import Acquisition, from_the_cpu
from bbmmopt.acquisition.entropy import Cut
from bbmmopt.acquisition.multi_objective import _over_fantasies
from bbmmopt.acquisition.normal import log_h
from bbmmopt.acquisition.scalarised import log_scalarised_improvement
from bbmmopt.modelling import Data, Modeller
from bbmmopt.modelling import model as modelling
from tests.bbmmopt.device_cases import CASES, opened

RECOMMENDED = ("noise", "constraints", "perturbed", "risk")
REMAINING = ("constraints", "failures", "sparse")
pytestmark = pytest.mark.filterwarnings("ignore::bbmmopt.study.FailedTrialWarning")


def asked(case: str, monkeypatch, **options) -> list:
    """What is suggested, and what is thought of it before and after it was tried."""
    ticks = itertools.count()
    monkeypatch.setattr("time.time", lambda: float(next(ticks)))  # trials take what they take
    _, f, _, n = CASES[case]
    optimizer, seen = opened(case, **options), []
    encode = optimizer.space.encode
    trials = optimizer.ask(n, evaluations=400 * n)
    for trial in trials:
        told = trial.origin
        seen.append((encode(trial.params), told["acquisition_value"], told["predicted"]))
    for trial in trials:
        optimizer.tell(trial, f(**trial.params))
    if case in RECOMMENDED:
        found = optimizer.recommend()
        seen.append((encode(found.params), found.value, {"uncertainty": found.uncertainty}))
    if case in REMAINING:
        seen.append(([], optimizer.remaining_improvement(), {}))
    return seen


@pytest.mark.parametrize("case", CASES)
def test_suggestions_are_those_of_the_cpu(case, monkeypatch):
    expected = asked(case, monkeypatch)
    with pretended_device() as device:
        found = asked(case, monkeypatch, device=DEVICE)
        assert sum(device.calls.values()) > 1000, "next to nothing was computed there"
    for here, there in zip(expected, found, strict=True):
        for part, part_there in zip(here, there, strict=True):
            assert part_there == pytest.approx(part, rel=1e-9, abs=1e-9)


# --------------------------------------------------------------------------------------
# Copies
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case][2].get("prior") is None])
def test_an_evaluation_of_an_acquisition_is_one_copy_there_and_one_back(case):
    """What else goes there are parameters, a few numbers each, for which nobody waits."""
    with pretended_device() as device:
        optimizer = opened(case, device=DEVICE)
        acquisition, d = optimizer.acquisition(), len(optimizer.space)
        rows = np.random.default_rng(0).random((7, d))
        X = torch.from_numpy(optimizer.space.snap(rows))
        acquisition.value_and_gradient(X)  # what is solved for once
        device.forget()
        value, gradient = acquisition.value_and_gradient(X)
        assert device.downloads == [7 + 7 * d]
        assert device.uploads[0] == 7 * d and max(device.uploads[1:]) <= d
        assert len(device.uploads) <= 25
        reads, outputs = device.reads, len(optimizer.problem.objectives)
        device.forget()
        with torch.no_grad():
            again = acquisition(X.unsqueeze(-2))
        assert device.downloads == [7]
    assert reads == 0 or case == "knowledge gradient"
    assert (value.device.type, gradient.shape, outputs >= 1) == ("cpu", (7, d), True)
    torch.testing.assert_close(again, value)


def several_scales(*shape: int, least: float, most: float) -> np.ndarray:
    """Numbers of either sign, of all sizes from 10^least to 10^most."""
    draws = np.random.default_rng(shape)
    return draws.choice([-1, 1], shape) * 10 ** draws.uniform(least, most, shape)


@pytest.mark.parametrize("formula", ["h", "cut", "direction", "volume"])
def test_what_is_not_asked_there_is_computed_for_all_and_comes_to_the_same(formula):
    """On the CPU, tails, narrow boxes and empty pieces are looked for, and treated apart."""
    means, stds = (
        several_scales(3, 4, 500, least=-3, most=3),
        several_scales(3, 500, least=-3, most=2),
    )
    reference, weights = np.array([-1.0, 0.0, 0.5]), np.array([0.5, 0.7, 0.5])
    best = several_scales(4, 500, least=-1, most=1)
    lower = several_scales(4, 6, 3, least=-2, most=1)
    upper = lower + 10.0 ** np.random.default_rng(0).uniform(-4, 1, lower.shape)
    upper[:, 3:] = math.inf
    computed = {
        "h": (lambda m: log_h(m), [means]),
        "cut": (lambda m: vars(Cut.at(m)).values(), [means]),
        "direction": (
            lambda m, s, *given: log_scalarised_improvement(m, s.unsqueeze(1).expand_as(m), *given),
            [means, np.abs(stds), reference, weights, best],
        ),
        "volume": (
            lambda m, s, *boxes: _over_fantasies(m, s, *boxes, slopes=True),
            [means, np.abs(stds), lower, upper],
        ),
    }
    function, arrays = computed[formula]
    tensors = [torch.from_numpy(array) for array in arrays]
    expected = list(function(*tensors))
    with pretended_device() as device:
        found = function(*(tensor.to(DEVICE) for tensor in tensors))
        assert device.waits == 0 and not {"index_add_", "nonzero"} & set(device.calls)
        here = [part.cpu() for part in found]
    assert all(part.isfinite().any() for part in expected)
    for part, part_here in zip(expected, here, strict=True):
        torch.testing.assert_close(part_here, part, rtol=1e-12, atol=1e-300, equal_nan=True)


def test_an_acquisition_elsewhere_has_the_gradients_that_it_has_on_the_cpu():
    """Of groups too, by automatic differentiation, in one copy back."""
    groups = torch.from_numpy(np.random.default_rng(0).random((5, 3, 2)))

    class Spread(Acquisition):
        def __init__(self, scale: torch.Tensor) -> None:
            self.scale = scale

        def __call__(self, X: torch.Tensor) -> torch.Tensor:
            return ((X * self.scale).sin().prod(-1)).sum(-1)

    scale = torch.tensor([2.0, 3.0], dtype=torch.float64)
    here = groups.clone().requires_grad_(True)
    expected = from_the_cpu(Spread(scale), torch.device("cpu"))(here)
    expected.square().sum().backward()
    with pretended_device() as device:
        there, X = from_the_cpu(Spread(scale.to(DEVICE)), DEVICE), groups.clone()
        device.forget()
        found = there(X.requires_grad_(True))
        found.square().sum().backward()
        assert (len(device.uploads), device.downloads) == (1, [5 + 30])
    assert torch.equal(found, expected) and X.grad is not None and here.grad is not None
    torch.testing.assert_close(X.grad, here.grad, rtol=1e-15, atol=0)


def test_what_was_told_goes_there_once_for_a_fit_and_trials_one_by_one_after():
    """From thousands of trials on, those told since the last fit are added to the posterior."""
    space = Space({"x": Real(0, 1), "y": Real(0, 1)})
    rows = np.random.default_rng(0).random((3011, 2))
    none = rows[:0]
    y = np.sin(5 * rows[:, 0]) + rows[:, 1]
    with pretended_device() as device:
        modeller = Modeller(space)
        for n in (3000, 3010):
            device.forget()
            told = np.full(n, np.nan)
            data = Data(rows[:n], y[:n], told, none, none, exact=False, device=DEVICE)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(modelling, "fit", lambda start, *_, **__: start)
                belief = modeller.belief(data)
        assert belief.posterior.X.device == DEVICE and len(belief.posterior.y) == 3010
        assert max(device.uploads) < 0.2 * 2 * 3010
