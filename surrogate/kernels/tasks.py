"""Kernels between tasks: outputs, data sets or fidelities that are learnt together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from surrogate.kernels.base import Features, Kernel, Linearised, positive_parameter
from surrogate.kernels.devices import Moving
from surrogate.sums import sums_by_group
from surrogate.tiles.formula import Formula, Gradients, Tasks
from surrogate.transfers import beside
from surrogate.workspace import Workspace

_ALIKE = 0.7  # correlation of any two tasks before anything is learnt
_UNLIKE = 0.1  # what then breaks the tie between the columns of W


class Coregionalization(Kernel):
    """How alike tasks are, for products with a kernel of the other inputs.

        k(t, t') = (W Wᵀ + diag(κ))[t, t']

    Times a kernel of the inputs, it is the intrinsic model of coregionalisation; as in GPflow,
    https://gpflow.github.io/GPflow/2.9.1/notebooks/advanced/coregionalisation.html. A task is a
    number 0 … T - 1 in one column of X.

    Args:
        tasks: T.
        rank: Columns of W, at most T: how many functions the tasks share.
        column: The column of X that holds the task; the last one unless given.
        factor: W, of any sign, shape (tasks, rank). Left out, all tasks have variance 1 and
            correlation 0.7: the first column is √0.7; the others, which would never move from 0,
            are cosines of height 0.1 over the tasks.
        diagonal: κ > 0, what each task has for itself: a number, or one per task, shape (tasks,).
            Left out, it is 0.3 until a model moves it to where its priors start.

    Raises:
        ValueError: If the arguments do not fit together; when called, if a column of tasks holds
            anything but their numbers.
    """

    roles: ClassVar[dict[str, str]] = {"factor": "task_factor", "log_diagonal": "task_variance"}

    def __init__(
        self,
        tasks: int,
        rank: int = 1,
        *,
        column: int = -1,
        factor: Sequence[Sequence[float]] | Tensor | None = None,
        diagonal: float | Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= rank <= tasks:
            raise ValueError(f"rank must be 1 … tasks; got rank {rank} and {tasks} task(s).")
        given = {"factor": factor, "log_diagonal": diagonal}
        self.unset = frozenset(name for name, value in given.items() if value is None)
        self.factor = nn.Parameter(_checked_factor(factor, tasks, rank))
        kappa = torch.as_tensor(1 - _ALIKE if diagonal is None else diagonal, dtype=torch.float64)
        if kappa.ndim and kappa.shape != (tasks,):
            raise ValueError(
                f"diagonal must be one number or {tasks} of them, one per task; "
                f"got shape {tuple(kappa.shape)}."
            )
        self.log_diagonal = positive_parameter("diagonal", kappa.expand(tasks).contiguous())
        self.tasks, self.rank, self.column = tasks, rank, column

    def extra_repr(self) -> str:
        return f"tasks={self.tasks}, rank={self.rank}, column={self.column}"

    @property
    def diagonal_variance(self) -> Tensor:
        """κ, shape (T,)."""
        return self.log_diagonal.exp()

    @property
    def covariance(self) -> Tensor:
        """W Wᵀ + diag(κ), shape (T, T)."""
        return self.factor @ self.factor.mT + self.diagonal_variance.diag()

    @property
    def correlation(self) -> Tensor:
        """The covariance scaled to a diagonal of ones, shape (T, T)."""
        C = self.covariance
        scale = C.diagonal().rsqrt()
        return scale.unsqueeze(-1) * C * scale

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        t1, t2 = self._tasks(X1, X2)
        return beside(self.covariance, X1)[t1.unsqueeze(-1), t2.unsqueeze(-2)]

    def diagonal(self, X: Tensor) -> Tensor:
        return beside(self.covariance.diagonal(), X)[self._tasks(X, X)[0]]

    @torch.no_grad()
    def coordinates(self, X: Tensor) -> Tensor:
        """Unit vectors with the correlations as their products."""
        root = self._root()
        return beside(root / root.norm(dim=1, keepdim=True), X)[self._tasks(X, X)[0]]

    def linearise(self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None) -> Linearised:
        return _LinearisedTasks(self, X1, X2, workspace or Workspace(X1.device))

    @torch.no_grad()
    def evaluate(
        self, X1: Tensor, X2: Tensor, out: Tensor, workspace: Workspace | None = None
    ) -> Tensor:
        t1, t2 = self._tasks(X1, X2)
        rows = beside(self.covariance.to(out.dtype), X1)[t1]
        return torch.index_select(rows, 1, t2, out=out)

    def formula(self) -> Formula:
        W, kappa = self.factor.detach(), self.diagonal_variance.detach()

        def pullback(by_C: Tensor) -> Gradients:
            by_W = (by_C + by_C.mT) @ W.to(by_C.device)
            return {0: by_W, 1: by_C.diagonal() * kappa.to(by_C.device)}

        covariance = W @ W.mT + kappa.diag()
        return Formula.of(Tasks(lambda X: self._tasks(X, X)[0].unsqueeze(-1), covariance, pullback))

    def features(self, count: int, generator: torch.Generator) -> Features:
        """Random signs times a root of the covariance: E[(R e)(R e)ᵀ] = RRᵀ."""
        with torch.no_grad():
            root = self._root()
        signs = torch.randint(0, 2, (root.shape[1], count), generator=generator) * 2 - 1
        table = root @ signs.to(root.dtype) / count**0.5  # (T, F)
        return Moving(lambda X, table: table[self._tasks(X, X)[0]], table)

    def _root(self) -> Tensor:
        """[W, diag(√κ)], shape (T, rank + T)."""
        return torch.cat([self.factor, self.diagonal_variance.sqrt().diag()], dim=1)

    def _tasks(self, X1: Tensor, X2: Tensor) -> tuple[Tensor, Tensor]:
        """The task of each row of both, as an index; the host waits once, to see that they are."""
        t1, is_wrong = self._index(X1)
        t2, also = (t1, is_wrong) if X2 is X1 else self._index(X2)
        if bool(is_wrong.any() if also is is_wrong else is_wrong.any() | also.any()):
            given = [X.detach()[..., self.column] for X in (X1, X2)]
            wrong = torch.cat([given[0][is_wrong], given[1][also]])
            raise ValueError(
                f"column {self.column} of X must hold task numbers 0 … {self.tasks - 1}; "
                f"got {wrong.unique().tolist()[:5]}."
            )
        return t1, t2

    def _index(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """The column of tasks as whole numbers, and where it holds others, both (..., n)."""
        given = X.detach()[..., self.column]
        index = given.long()
        return index, (index != given) | (index < 0) | (index >= self.tasks)


def _checked_factor(
    factor: Sequence[Sequence[float]] | Tensor | None, tasks: int, rank: int
) -> Tensor:
    """W as it is stored, shape (tasks, rank)."""
    if factor is None:
        # Columns that are equal, or 0, have equal gradients, or none: they would stay so.
        order, task = torch.arange(rank), torch.arange(tasks).unsqueeze(1) + 0.5
        W = _UNLIKE * torch.cos(math.pi / tasks * task.to(torch.float64) * order)
        W[:, 0] = math.sqrt(_ALIKE)
        return W
    W = torch.as_tensor(factor, dtype=torch.float64)
    if W.shape != (tasks, rank):
        raise ValueError(
            f"factor must have shape {(tasks, rank)}, a row per task; got {tuple(W.shape)}."
        )
    if not bool(W.isfinite().all()):
        raise ValueError(f"factor must be finite; got {W.tolist()}.")
    return W.detach().clone()


class _LinearisedTasks(Linearised):
    def __init__(
        self, kernel: Coregionalization, X1: Tensor, X2: Tensor, workspace: Workspace
    ) -> None:
        self._t1, self._t2 = kernel._tasks(X1, X2)
        self._W = beside(kernel.factor.detach(), X1)
        self._kappa = beside(kernel.diagonal_variance.detach(), X1)
        self._shape = X1.shape
        out = workspace.buffer("K", len(X1), len(X2))
        self.K = kernel.evaluate(X1, X2, out)

    def parameters(self, G: Tensor) -> tuple[Tensor, Tensor]:
        T = len(self._W)
        rows = sums_by_group(G, self._t1, T)  # (T, m)
        B = sums_by_group(rows, self._t2, T, dim=1)  # ∂loss/∂C
        return (B + B.mT) @ self._W, B.diagonal() * self._kappa

    def inputs(self, G: Tensor) -> Tensor:
        return G.new_zeros(self._shape)  # tasks cannot be moved a little
