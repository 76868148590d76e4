"""Noise: the variance of an observation whose noise is not given, learnt with the kernel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from surrogate.kernels.base import positive_parameter


class Noise(nn.Module, ABC):
    """σ²(x): the variance of an observation at x.

    One of your own needs `forward` alone.

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
        """Gradients in `parameters()` of a loss whose gradient in σ² at X is given, shape (n,)."""
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
        return self.level.expand(len(X))

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
        return self.level[self._task(X)]

    def pullback(self, X: Tensor, by_variance: Tensor) -> tuple[Tensor, ...]:
        level = self.log_noise.detach().exp()
        return (level * torch.zeros_like(level).index_add(0, self._task(X), by_variance),)

    def _task(self, X: Tensor) -> Tensor:
        number = X[:, self.column]
        task, most = number.long(), len(self.log_noise) - 1
        if bool(((task != number) | (task < 0) | (task > most)).any()):
            raise ValueError(
                f"column {self.column} of X must hold the number of a task, 0 to {most}; "
                f"got values from {float(number.min()):g} to {float(number.max()):g}."
            )
        return task
