"""What a linear operator is: a symmetric matrix known by its products."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from numbers import Integral, Real
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from surrogate.randomness import normal

if TYPE_CHECKING:
    from surrogate.operators.basic import ScaledOperator, SumOperator

Storage = Literal["auto", "float64", "float32", "tiles"]

# What `check_operator` lets pass: products in float32 are off by about 1e-6 of either.
_DISAGREEING = 1e-4  # of the largest entry
_ASYMMETRIC = 1e-5  # of ‖u‖‖Kv‖


class LinearOperator(ABC):
    """A symmetric positive semi-definite (n, n) matrix A that knows how to multiply.

    `A + B` and `s * A` are operators too. One of your own needs `n` and `matmul`; with `diagonal`
    and `rows` its systems can be preconditioned.

    Attributes:
        n: Rows and columns.
        roundoff: By how much a product is off, relative to |A| |v|: about 1e-7 for one that is
            computed in float32. A solver then looks at true residuals along the way.
    """

    n: int
    roundoff: float = 2e-16

    @property
    def device(self) -> torch.device:
        """Where A is: what it is multiplied with has to be there, and so are all its answers.

        Unless defined, where its diagonal is; the CPU without one.
        """
        try:
            diagonal = self.diagonal()
        except TypeError:
            return torch.device("cpu")
        return diagonal.device if isinstance(diagonal, Tensor) else torch.device("cpu")

    @abstractmethod
    def matmul(self, V: Tensor) -> Tensor:
        """Return A @ V, shape (n, t), for V (n, t) in float64.

        Solvers keep their right-hand sides one after another in memory, as the columns of a
        column-major V: `V.mT` is then contiguous.
        """

    def diagonal(self) -> Tensor:
        """Return the diagonal of A, shape (n,)."""
        raise TypeError(
            f"{type(self).__name__} does not say its diagonal, which a preconditioner reads; "
            f"define `diagonal()`, or solve with BBMM(rank=0, block=0)."
        )

    def rows(self, index: Tensor) -> Tensor:
        """Return the rows of A at `index` (k,), shape (k, n)."""
        raise TypeError(
            f"{type(self).__name__} does not give its rows, some of which a preconditioner reads; "
            f"define `rows(index)`, or solve with BBMM(rank=0, block=0)."
        )

    def blocks(self, index: Tensor) -> Tensor:
        """Return A[index[c]][:, index[c]] for each c: shape (m, b, b) for `index` (m, b).

        Unless defined, from the rows of one c at a time: b of them in memory, but all computed.
        """
        m, b = index.shape
        blocks = [self.rows(some)[:, some] for some in index]
        none = (0, b, b)
        return torch.stack(blocks) if m else index.new_empty(none, dtype=torch.float64)

    @property
    def coordinates(self) -> Tensor | None:
        """Points (n, d), the closer the more related their rows; None where there are none.

        A preconditioner treats clusters of them exactly.
        """
        return None

    @property
    def precise(self) -> LinearOperator:
        """The same matrix with products as accurate as float64 allows, if slower."""
        return self

    def __add__(self, other: LinearOperator) -> SumOperator:
        from surrogate.operators.basic import SumOperator

        if not isinstance(other, LinearOperator):
            return NotImplemented
        return SumOperator(self, other)

    def __rmul__(self, scale: float | Tensor) -> ScaledOperator:
        from surrogate.operators.basic import ScaledOperator

        if not isinstance(scale, Real | Tensor):
            return NotImplemented
        return ScaledOperator(scale, self)


class CovarianceOperator(LinearOperator):
    """k(X, X) for a kernel, whose parameters a fit asks for gradients.

    Attributes:
        storage: Where K is kept: "float64", "float32" or "tiles", which is nowhere.
    """

    storage: Storage = "tiles"

    @property
    def arithmetic(self) -> str | None:
        """What computes entries of K at each product, and in which type; None where nothing does.

        Such as "torch float64" or "triton float32".
        """
        return None

    @abstractmethod
    def pullback(self, A: Tensor, B: Tensor) -> tuple[Tensor, ...]:
        """Gradients of Σ_k a_kᵀ K b_k in the parameters of the kernel.

        Args:
            A, B: Shape (n, k), one vector per column.

        Returns:
            One tensor per entry of `kernel.parameters()`, in that order.
        """


def check_columns(name: str, V: Tensor, n: int) -> None:
    """Raise ValueError unless V is a matrix of n rows, one vector per column."""
    if V.ndim != 2 or len(V) != n:
        raise ValueError(
            f"{name} must have shape ({n}, t), one vector per column; got {tuple(V.shape)}. "
            f"For a single vector, pass {name}.unsqueeze(-1)."
        )


@torch.no_grad()
def check_operator(K: LinearOperator) -> None:
    """Raise unless K multiplies like a symmetric matrix that has its rows and its diagonal.

    One product with up to three unit vectors and two random ones, the same at each call; what K
    does not define is not looked at. A mistake in a few entries can go unnoticed.

    Raises:
        TypeError: If K is no operator, or has no size.
        ValueError: If a shape is wrong, or K contradicts itself.
    """
    name = type(K).__name__
    if not isinstance(K, LinearOperator):
        raise TypeError(
            f"K must be a LinearOperator; got {name}. Pass a stored matrix as Dense(K), or derive "
            f"a class of your own from LinearOperator."
        )
    if not isinstance(getattr(K, "n", None), Integral):
        raise TypeError(f"{name} does not say its size; set `n`, its number of rows.")
    n = K.n
    if not n:
        return
    device = K.device
    index = torch.tensor(sorted({0, n // 2, n - 1}), device=device)
    V = torch.zeros(n, len(index) + 2, dtype=torch.float64, device=device)
    V[index, torch.arange(len(index), device=device)] = 1.0
    V[:, -2:] = normal(n, 2, generator=torch.Generator().manual_seed(0), device=device)
    V = V.mT.contiguous().mT
    KV = _received(f"{name}.matmul(V)", V.shape, lambda: K.matmul(V))
    if not bool(KV.isfinite().all()):
        raise ValueError(f"{name}.matmul(V) is not finite; are all parameters and inputs finite?")
    _check_symmetry(name, V[:, -2:], KV[:, -2:])
    KV = KV[:, :-2]  # (n, k)
    largest = float(KV.abs().max())
    with suppress(TypeError):  # not defined: the preconditioner says so if it needs it
        rows = _received(f"{name}.rows(index)", KV.mT.shape, lambda: K.rows(index))
        _check_agreement(f"{name}.rows", index, rows - KV.mT, largest)
    with suppress(TypeError):
        diagonal = _received(f"{name}.diagonal()", (n,), K.diagonal)
        _check_agreement(f"{name}.diagonal", index, diagonal[index] - KV[index].diagonal(), largest)
    X = K.coordinates
    if X is not None and (X.ndim != 2 or len(X) != n):
        raise ValueError(
            f"{name}.coordinates must be points, shape ({n}, d); got {tuple(X.shape)}."
        )


def _received(call: str, shape: tuple[int, ...], ask: Callable[[], Tensor]) -> Tensor:
    """The answer in float64, or raise ValueError unless it is floats of this shape."""
    answer = ask()
    is_tensor = isinstance(answer, Tensor)
    if not is_tensor or answer.shape != shape or not answer.is_floating_point():
        got = f"{tuple(answer.shape)}, {answer.dtype}" if is_tensor else type(answer).__name__
        raise ValueError(f"{call} must return a float tensor of shape {tuple(shape)}; got {got}.")
    return answer.to(torch.float64)


def _check_agreement(method: str, index: Tensor, gaps: Tensor, largest: float) -> None:
    """Raise ValueError if what a method tells at `index` is not what the product has there."""
    gap = float(gaps.abs().max())
    if not gap <= _DISAGREEING * largest:
        raise ValueError(
            f"{method} disagrees with matmul by up to {gap:.3g} at index {index.tolist()}, where "
            f"the largest entry of the product is {largest:.3g}. Both must be of one matrix, "
            f"without the noise, which is added to it later."
        )


def _check_symmetry(name: str, V: Tensor, KV: Tensor) -> None:
    """Raise ValueError unless uᵀ(Kv) = vᵀ(Ku) for the columns u, v of V (n, 2)."""
    crossed = V.mT @ KV
    left, right = float(crossed[0, 1]), float(crossed[1, 0])
    # The larger of the two scales: one of the vectors may lie where K is all but zero.
    scale = float((V.norm(dim=0).flip(0) * KV.norm(dim=0)).max())
    if abs(left - right) > _ASYMMETRIC * scale:
        raise ValueError(
            f"{name}.matmul is not that of a symmetric matrix: for two random vectors uᵀ(Kv) = "
            f"{left:.6g}, but vᵀ(Ku) = {right:.6g}, which differ by "
            f"{abs(left - right) / scale:.2g} of ‖u‖‖Kv‖. A covariance is symmetric."
        )
