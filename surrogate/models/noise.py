"""Noise: the variance of an observation whose noise is not given, learnt with the kernel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from surrogate.checks import as_matrix
from surrogate.kernels.base import positive_parameter
from surrogate.kernels.stationary import Matern52
from surrogate.sums import sums_by_group
from surrogate.transfers import beside


class Noise(nn.Module, ABC):
    """σ²(x): the variance of an observation at x.

    One of your own needs `forward` alone, which computes where X is.

    Attributes:
        roles: What each own parameter means to a set of priors, by its attribute name.
    """

    roles: ClassVar[dict[str, str]] = {}

    @abstractmethod
    def forward(self, X: Tensor) -> Tensor:
        """σ² at each row of X (n, d), shape (n,); differentiable by autograd in the parameters."""

    @property
    @abstractmethod
    def level(self) -> Tensor:
        """σ², in the units of y squared: one number, or one for each thing that has its own."""

    def pullback(self, X: Tensor, by_variance: Tensor) -> tuple[Tensor, ...]:
        """Gradients in `parameters()` of a loss whose gradient in σ² at X is given, shape (n,).

        On the CPU or where X is.
        """
        wanted = [p for p in self.parameters() if p.requires_grad]
        if not wanted or not len(X):
            return tuple(torch.zeros_like(p) for p in self.parameters())
        with torch.enable_grad():
            found = torch.autograd.grad(self(X), wanted, by_variance, allow_unused=True)
        gradients = dict(zip(map(id, wanted), found, strict=True))
        return tuple(
            torch.zeros_like(p) if gradients.get(id(p)) is None else gradients[id(p)]
            for p in self.parameters()
        )

    def roles_of_parameters(self) -> list[tuple[str, int]]:
        """For each of `parameters()`: its role, and a number of inputs, which is 1."""
        return [(self.roles.get(name, name), 1) for name, _ in self.named_parameters()]


class Homoskedastic(Noise):
    """The same σ² everywhere.

    Args:
        noise: σ², in the units of y squared.
    """

    roles: ClassVar[dict[str, str]] = {"log_noise": "noise"}

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.log_noise = positive_parameter("noise", noise)

    @property
    def level(self) -> Tensor:
        return self.log_noise.exp()

    def forward(self, X: Tensor) -> Tensor:
        return beside(self.level, X).expand(len(X))

    def pullback(self, X: Tensor, by_variance: Tensor) -> tuple[Tensor, ...]:
        return (self.log_noise.detach().exp() * by_variance.sum(),)


class NoisePerTask(Noise):
    """A σ² for each task, whose number stands in a column of X.

    Args:
        tasks: How many there are.
        column: Where X has the number of the task, 0 to tasks - 1.
        noise: σ² of each, in the units of y squared: a number, or one per task.
    """

    roles: ClassVar[dict[str, str]] = {"log_noise": "noise"}

    def __init__(
        self, tasks: int, *, column: int = -1, noise: float | Sequence[float] | Tensor = 1e-2
    ) -> None:
        super().__init__()
        if tasks < 1:
            raise ValueError(f"tasks must be at least 1; got {tasks}.")
        noise = torch.as_tensor(noise, dtype=torch.float64)
        if noise.ndim and noise.shape != (tasks,):
            raise ValueError(
                f"noise must be one number or {tasks} of them; got shape {tuple(noise.shape)}."
            )
        self.log_noise = positive_parameter("noise", noise.expand(tasks).contiguous())
        self.column = column

    @property
    def level(self) -> Tensor:
        return self.log_noise.exp()

    def forward(self, X: Tensor) -> Tensor:
        return beside(self.level, X)[self._task(X)]

    def pullback(self, X: Tensor, by_variance: Tensor) -> tuple[Tensor, ...]:
        level = beside(self.log_noise.detach().exp(), X)
        return (level * sums_by_group(by_variance, self._task(X), len(level)),)

    def _task(self, X: Tensor) -> Tensor:
        number = X[:, self.column]
        task, most = number.long(), len(self.log_noise) - 1
        if bool(((task != number) | (task < 0) | (task > most)).any()):
            raise ValueError(
                f"column {self.column} of X must hold the number of a task, 0 to {most}; "
                f"got values from {float(number.min()):g} to {float(number.max()):g}."
            )
        return task


class Heteroskedastic(Noise):
    """A σ² that varies with x: its logarithm is a Gaussian process of its own.

        log σ²(x) = c + s g(x),    g ~ GP(0, k), known by its values at a few points Z

    Level c and the values of g, as w with g(Z) = R w, RRᵀ = k(Z, Z), w ~ N(0, I), are learnt with
    all other parameters: the most likely ones, as in Kersting, Plagemann, Pfaff & Burgard (2007),
    Most likely heteroscedastic Gaussian process regression, but in one search instead of in turns.
    Far from Z the noise falls back to exp(c).

    Args:
        X: Inputs that cover where data will be, shape (n, d); Z is spread over them. From a device
            they are copied to the CPU, where Z is kept.
        points: How many points Z, at most.
        lengthscale: Of k, a Matérn-5/2 of variance 1, in units of x: over which the noise changes.
            A number, or one per input; half the range of each input unless given.
        spread: s, standard deviation of log σ² before data.
        noise: Level exp(c) to start from, in the units of y squared.
        columns: Of X, on which the noise may depend; all unless given.
    """

    roles: ClassVar[dict[str, str]] = {"log_noise": "noise", "weights": "noise_weight"}

    def __init__(
        self,
        X: Tensor,
        *,
        points: int = 12,
        lengthscale: float | Sequence[float] | Tensor | None = None,
        spread: float = 1.5,
        noise: float = 1e-2,
        columns: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        X = as_matrix("X", X).cpu()
        if points < 1 or not len(X) or not spread > 0:
            raise ValueError(
                f"points and spread must be positive and X not empty; got points={points}, "
                f"spread={spread} and {len(X)} rows."
            )
        seen = X if columns is None else X[:, list(columns)]
        if lengthscale is None:
            width = seen.amax(0) - seen.amin(0)
            lengthscale = 0.5 * torch.where(width > 0, width, 1.0)
        kernel = Matern52(seen.shape[1], lengthscale, 1.0, columns=columns)
        self.kernel = kernel.requires_grad_(False)
        self.spread = spread
        self.log_noise = positive_parameter("noise", noise)
        Z = _spread_out(seen / self.kernel.lengthscale, X, points)
        self.weights = nn.Parameter(torch.zeros(len(Z), dtype=torch.float64))
        self.register_buffer("points", Z)
        K = self.kernel(Z, Z) + 1e-8 * torch.eye(len(Z), dtype=torch.float64)
        self.register_buffer("root", torch.linalg.cholesky(K))

    @property
    def level(self) -> Tensor:
        """exp(c), in the units of y squared, shape ()."""
        return self.log_noise.exp()

    def forward(self, X: Tensor) -> Tensor:
        weights = beside(self.weights, X)
        return torch.exp(self.log_noise + self.spread * (self._features(X) @ weights))

    @torch.no_grad()
    def pullback(self, X: Tensor, by_variance: Tensor) -> tuple[Tensor, ...]:
        phi, weights = self._features(X), beside(self.weights, X)
        by_log = by_variance * torch.exp(self.log_noise + self.spread * (phi @ weights))
        return by_log.sum(), self.spread * (phi.mT @ by_log)

    def _features(self, X: Tensor) -> Tensor:
        """k(X, Z) R⁻ᵀ, of which g is a combination: shape (n, points)."""
        points, root = (beside(self.get_buffer(name), X) for name in ("points", "root"))
        return torch.linalg.solve_triangular(root, self.kernel(X, points).mT, upper=False).mT

    def roles_of_parameters(self) -> list[tuple[str, int]]:
        # The kernel inside is fixed, and no part of the search.
        return [("noise", 1), ("noise_weight", 1)]

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Level and weights."""
        yield self.log_noise
        yield self.weights


def _spread_out(scaled: Tensor, X: Tensor, count: int) -> Tensor:
    """Up to `count` different rows of X, each the farthest from those before."""
    first = int((scaled - scaled.mean(0)).square().sum(1).argmin())
    chosen, gap = [first], (scaled - scaled[first]).square().sum(1)
    while len(chosen) < count and float(gap.max()) > 1e-6:
        chosen.append(int(gap.argmax()))
        gap = torch.minimum(gap, (scaled - scaled[chosen[-1]]).square().sum(1))
    return X[chosen].clone()
