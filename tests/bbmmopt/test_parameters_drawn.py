"""Where data are few, acquisitions are averaged over what the model's parameters may be."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bbmmopt import Optimizer, Real, Space
from bbmmopt.acquisition import LogMean
from bbmmopt.modelling import Data, EnsembleModeller, Known, Modeller, Modellers
from bbmmopt.strategies import make_acquisition

SPACE = Space({f"x{j}": Real(0, 1) for j in range(4)})
FEW, ENOUGH = 11, 12  # of four parameters


def told(n: int, *, pending: int = 0, bound: float | None = None) -> Data:
    rng = np.random.default_rng(0)
    X = SPACE.snap(rng.random((n + pending, 4)))
    y = np.sin(6 * X[:n]).sum(1)
    return Data(X[:n], y, np.full(n, np.nan), X[n:], X[:0], exact=False, bound=bound)


def lengthscales(members) -> np.ndarray:
    return np.stack([member.lengthscales.numpy() for member in members])


def test_parameters_are_drawn_while_there_are_less_than_three_trials_a_parameter():
    few, enough = (EnsembleModeller(SPACE).belief(told(n)) for n in (FEW, ENOUGH))
    assert not enough.members and len(few.members) == 6
    assert not Modeller(SPACE).belief(told(FEW)).members  # it has to be asked for
    assert len(np.unique(lengthscales(few.members), axis=0)) > 1
    # Each is a belief about the same data, in the same units.
    X = torch.from_numpy(few.data.X)
    for member in few.members:
        assert member.transform == few.transform and not member.members
        mean, _ = member.posterior.marginals(X)
        assert float((mean - few.posterior.y).abs().max()) < 1.5


def test_what_is_drawn_follows_from_the_data_alone():
    data = told(FEW)
    asked_before = EnsembleModeller(SPACE)
    asked_before.belief(told(5))
    asked_before.belief(told(FEW, pending=2))
    found = lengthscales(asked_before.belief(data).members)
    assert (found == lengthscales(EnsembleModeller(SPACE).belief(data).members)).all()


def test_running_trials_are_put_into_every_member():
    belief = EnsembleModeller(SPACE).belief(told(FEW, pending=2))
    pending = torch.from_numpy(belief.data.pending)
    for member in belief.members:
        before = member.posterior.marginals(pending)[1]
        assert (member.fantasised.marginals(pending)[1] < 0.2 * before).all()


def test_a_constant_tells_nothing_of_parameters():
    data = told(FEW)
    assert not EnsembleModeller(SPACE).belief(replace(data, y=np.ones(FEW))).members


@pytest.mark.parametrize("name", ["log_ei", "noisy_log_ei", "log_pi"])
def test_the_acquisition_is_the_mean_over_the_members(name):
    beliefs = Modellers(SPACE, EnsembleModeller).beliefs(Known((told(FEW),)))
    whole = make_acquisition(name, beliefs)
    assert isinstance(whole, LogMean)
    alone = [make_acquisition(name, member) for member in beliefs.members]
    X = torch.rand(5, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([part(X).exp() for part in alone]).mean(0).log()
    torch.testing.assert_close(whole(X), expected, rtol=1e-9, atol=1e-9)


def test_members_of_several_outputs_go_together():
    data = told(FEW)
    constraint = replace(data, y=data.y[::-1].copy(), bound=0.0)
    beliefs = Modellers(SPACE, EnsembleModeller).beliefs(Known((data,), (constraint,)))
    assert len(beliefs.members) == 6
    objectives, constraints = (
        [getattr(member, part)[0] for member in beliefs.members]
        for part in ("objectives", "constraints")
    )
    assert objectives == list(beliefs.first.members)
    assert constraints == list(beliefs.constraints[0].members)
    # An output that has enough is what it is, in all of them.
    settled = replace(beliefs, constraints=(replace(beliefs.constraints[0], members=()),))
    assert all(member.constraints == settled.constraints for member in settled.members)


def test_others_are_not_averaged():
    beliefs = Modellers(SPACE, EnsembleModeller).beliefs(Known((told(FEW),)))
    assert not isinstance(make_acquisition("ucb", beliefs), LogMean)


def test_explain_tells_of_it():
    optimizer = Optimizer(SPACE, minimize="f", seed=0, n_start=8, strategy="ensemble")
    for _ in range(ENOUGH + 1):
        trial = optimizer.ask()
        optimizer.tell(trial, sum(trial.params.values()) ** 2)
    assert "averaged over 6 models" in optimizer.explain(FEW - 1)
    assert "averaged over" not in optimizer.explain(ENOUGH)
