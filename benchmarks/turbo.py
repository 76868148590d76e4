"""The trust region that BoTorch's documentation builds from BoTorch's parts (TuRBO-1), restated.

Source: Eriksson et al. (2019), https://arxiv.org/abs/1910.01739, with the settings of the tutorial
at https://botorch.org: a success is a batch that improves by a thousandth, ten of them in a row
double the box, ceil(max(4, d) / q) failures halve it; Matérn-5/2 with lengthscales of at most 4,
noise of at most 1e-3; Thompson sampling among min(5000, max(2000, 200 d)) candidates. The tutorial
ends with the first box that has shrunk to nothing; here another one begins, on data of its own, as
in the paper. Larger is better here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_FIRST, _LEAST, _MOST = 0.8, 0.5**7, 1.6  # lengths of the box
_SUCCESSES = 10


@dataclass(frozen=True)
class Region:
    """Where a trust region stands.

    Attributes:
        patience: How many batches may fail in a row.
        length: Of the box, before its sides are scaled.
        successes, failures: How many batches in a row.
        best: The largest value so far.
    """

    patience: int
    length: float = _FIRST
    successes: int = 0
    failures: int = 0
    best: float = -math.inf

    @classmethod
    def of(cls, d: int, q: int, best: float) -> Region:
        """A new one for batches of q points in d dimensions."""
        return cls(math.ceil(max(4 / q, d / q)), best=best)

    @property
    def ended(self) -> bool:
        return self.length < _LEAST

    def after(self, best: float) -> Region:
        """Where it stands when the best value of another batch is known."""
        if best > self.best + 1e-3 * abs(self.best):
            new = replace(self, successes=self.successes + 1, failures=0)
        else:
            new = replace(self, successes=0, failures=self.failures + 1)
        if new.successes == _SUCCESSES:
            new = replace(new, length=min(2 * self.length, _MOST), successes=0)
        elif new.failures == self.patience:
            new = replace(new, length=self.length / 2, failures=0)
        return replace(new, best=max(best, self.best))


def sides(centre: Tensor, length: float, lengthscales: Tensor) -> tuple[Tensor, Tensor]:
    """The bounds (d,) of a box whose sides are as the lengthscales and whose volume is length^d."""
    weights = lengthscales / lengthscales.log().mean().exp()
    half = weights * length / 2
    return (centre - half).clamp(0, 1), (centre + half).clamp(0, 1)


def candidates(centre: Tensor, low: Tensor, high: Tensor, generator: torch.Generator) -> Tensor:
    """Points (m, d) of a box that differ from its centre in about twenty coordinates."""
    d = len(centre)
    m = min(5000, max(2000, 200 * d))
    seed = int(torch.randint(2**31, (), generator=generator))
    sobol = torch.quasirandom.SobolEngine(d, scramble=True, seed=seed)
    X = low + (high - low) * sobol.draw(m, dtype=centre.dtype)  # (m, d)
    moved = torch.rand(m, d, generator=generator) <= min(20 / d, 1.0)
    still = (~moved.any(1)).nonzero().flatten()
    moved[still, torch.randint(d, (len(still),), generator=generator)] = True
    return torch.where(moved, X, centre)


def fit_model(X: Tensor, y: Tensor):
    """The tutorial's model of X (n, d) and y (n,), fitted to standardised values."""
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from gpytorch.constraints import Interval
    from gpytorch.kernels import MaternKernel, ScaleKernel
    from gpytorch.likelihoods import GaussianLikelihood
    from gpytorch.mlls import ExactMarginalLogLikelihood

    matern = MaternKernel(
        nu=2.5, ard_num_dims=X.shape[1], lengthscale_constraint=Interval(0.005, 4.0)
    )
    model = SingleTaskGP(
        X,
        ((y - y.mean()) / y.std()).unsqueeze(-1),
        covar_module=ScaleKernel(matern),
        likelihood=GaussianLikelihood(noise_constraint=Interval(1e-8, 1e-3)),
        outcome_transform=None,
    )
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model, matern.lengthscale.detach().flatten()


def thompson(model, X: Tensor, q: int) -> Tensor:
    """q different rows of X (m, d), each the best of one draw from the posterior."""
    from botorch.generation import MaxPosteriorSampling

    with torch.no_grad():
        return MaxPosteriorSampling(model=model, replacement=False)(X, num_samples=q)


class Turbo:
    """One run on the unit cube, in batches.

    Args:
        d: How many parameters.
        batch: How many points at once.
        start: How many Sobol points each region begins with, at least.
        seed: Of this run.
    """

    def __init__(self, d: int, batch: int, start: int, seed: int) -> None:
        self._d, self._batch, self._start = d, batch, start
        self._generator = torch.Generator().manual_seed(seed)
        self._sobol = torch.quasirandom.SobolEngine(d, scramble=True, seed=seed)
        self._begin()

    def _begin(self) -> None:
        self._X = torch.empty(0, self._d, dtype=torch.float64)
        self._y = torch.empty(0, dtype=torch.float64)
        self._region: Region | None = None

    def ask(self) -> Tensor:
        """The next points, (batch, d)."""
        from gpytorch.settings import max_cholesky_size

        if self._region is None:
            return self._sobol.draw(self._batch, dtype=torch.float64)
        with max_cholesky_size(10**9):  # exact, as in the tutorial
            model, lengthscales = fit_model(self._X, self._y)
            centre = self._X[self._y.argmax()]
            low, high = sides(centre, self._region.length, lengthscales)
            X = candidates(centre, low, high, self._generator)
            return thompson(model, X, self._batch)

    def tell(self, X: Tensor, y: Tensor) -> None:
        """Take the values (batch,) of the points asked for last."""
        self._X, self._y = torch.cat([self._X, X]), torch.cat([self._y, y])
        if self._region is not None:
            self._region = self._region.after(float(y.max()))
            if self._region.ended:
                self._begin()
        elif len(self._y) >= self._start:
            self._region = Region.of(self._d, self._batch, float(self._y.max()))
