"""Beliefs that several test files of acquisition functions share, and laws that all obey."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from oracles import normal, uniform
from torch import Tensor

from bbmmopt.acquisition import Acquisition, NoisyBatchLogExpectedImprovement
from surrogate import ExactGP, Matern52, Posterior

# --------------------------------------------------------------------------------------
# Beliefs
# --------------------------------------------------------------------------------------


def gp(seed: int, noise: float = 1e-3) -> Posterior:
    """A posterior of nine observations in three columns, others for each seed."""
    X = uniform(torch.Generator().manual_seed(seed), 9, 3)
    model = ExactGP(Matern52(3, lengthscale=0.5), noise=noise)
    return model.condition(X, torch.sin(5 * X + seed).sum(-1))


class ByAutograd:
    """A belief that says its marginals; gradients follow."""

    def marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def linearise(self, X: Tensor) -> tuple[Tensor, Tensor, Any]:
        X = X.detach().requires_grad_(True)
        with torch.enable_grad():
            mean, std = self.marginals(X)

        def pullback(by_mean: Tensor, by_std: Tensor) -> Tensor:
            return torch.autograd.grad((mean, std), X, (by_mean, by_std), retain_graph=True)[0]

        return mean.detach(), std.detach(), pullback


class Smooth(ByAutograd):
    """Beliefs under S fantasies that no model made: smooth functions."""

    def __init__(
        self, samples: int, dims: int, seed: int = 0, level: float = 0.0, std: float = 0.3
    ) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.A, self.b = normal(rng, dims, samples), normal(rng, samples)
        self.level, self.std = level, std

    def marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.sin(2 * X @ self.A + self.b).mT
        return mean + self.level, self.std * (1 + X.square().sum(-1))


# --------------------------------------------------------------------------------------
# Laws
# --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alike:
    """S fantasies of f that tell nothing: all are what is believed of f."""

    posterior: Posterior
    count: int = 1

    def joint(self, X: Tensor) -> tuple[Tensor, Tensor]:
        mean, covariance = self.posterior.joint(X)
        return mean.expand(self.count, *mean.shape), covariance


def batch_improvement(
    posterior: Posterior, best: float | Tensor, base: Tensor, scale: float = 1.0
) -> NoisyBatchLogExpectedImprovement:
    """On a best value that is known; or one for each sample of base (S, q), shape (S,)."""
    if isinstance(best, Tensor):
        belief, base = Alike(posterior, len(best)), base.unsqueeze(1)
    else:
        belief, base = Alike(posterior), base.unsqueeze(0)
        best = torch.tensor([best], dtype=torch.float64)
    return NoisyBatchLogExpectedImprovement(belief, best, base, scale)


def assert_gradients_agree_with_autograd(
    acquisition: Acquisition, X: Tensor, rtol: float = 1e-12, by: float = 1e-10
) -> None:
    """Value, to `rtol`, and gradient, to `by`, are those of autograd through the call."""
    value, gradient = acquisition.value_and_gradient(X)
    expected, expected_gradient = Acquisition.value_and_gradient(acquisition, X)
    torch.testing.assert_close(value, expected, rtol=rtol, atol=rtol)
    torch.testing.assert_close(gradient, expected_gradient, rtol=by, atol=by)
    assert not value.requires_grad and not gradient.requires_grad


def assert_gradients_are_differences(acquisition: Acquisition, X: Tensor) -> None:
    """Gradients of the call are those of finite differences."""
    assert torch.autograd.gradcheck(acquisition, X.detach().unsqueeze(-2).requires_grad_(True))


def assert_shapes_are_scored_alike(
    acquisition: Acquisition, X: Tensor, rtol: float = 1e-12
) -> None:
    """Six candidates are scored in any leading shape, and one without any."""
    flat = acquisition(X.unsqueeze(-2))
    assert flat.shape == (6,)
    received = acquisition(X.reshape(2, 3, 1, X.shape[-1]))
    torch.testing.assert_close(received, flat.reshape(2, 3), rtol=rtol, atol=rtol)
    assert acquisition(X[:1]).shape == ()


# Groups of three columns that are none of single candidates.
GROUPS = [(3,), (6, 3), (4, 2, 3)]


def assert_groups_are_refused(acquisition: Acquisition, shape: tuple[int, ...]) -> None:
    """With advice."""
    advice = r"scores single .* must have shape \(\.\.\., 1, d\); got .*unsqueeze\(-2\)"
    with pytest.raises(ValueError, match=advice):
        acquisition(torch.zeros(shape, dtype=torch.float64))
