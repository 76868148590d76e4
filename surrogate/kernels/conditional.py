"""Kernels of inputs that matter only sometimes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from surrogate.kernels.base import checked_columns, per_input_parameter
from surrogate.kernels.devices import chosen
from surrogate.kernels.mapped import Mapped
from surrogate.kernels.stationary import Matern52, Stationary
from surrogate.transfers import beside


class Conditional(Mapped):
    """Inputs that are inactive at some points, where their values mean nothing.

    Each input is put on an arc in a plane of its own while it is active, and at the centre of that
    arc while it is not; the kernel is that of the distance in all of these planes together:

        k(x, x') = s² ρ(r),   r² = Σ_j of   (2 R_j sin(θ_j (x_j - x'_j) / 2))²   both active
                                            R_j²                                  one of them
                                            0                                     neither

    with the angle θ_j = π / (1 + g_j) that inputs from 0 to 1 span, and the radius
    R_j = 1 / (θ_j ℓ_j). So active inputs near each other are (x_j - x'_j) / ℓ_j apart, as in any
    stationary kernel, one that is active is equally far from an inactive one wherever it is, and
    values of inactive inputs change nothing. For the RBF, k is a product over the inputs of: a
    kernel of x_j - x'_j, 1, or the learnt constant exp(-R_j²/2). A larger gap g_j lowers that
    constant, and straightens the arc.

    Positive definite, since ρ is so in any number of dimensions, and all that it sees here is the
    distance of points in 2 · dims of them. The arc cannot be a straight line, however convenient: m
    points without correlation may have one of c with another point for c² ≤ 1/m only, and on a
    line long enough there is room for any number m.

    Source: Swersky, Duvenaud, Snoek, Hutter & Osborne (2014), https://arxiv.org/abs/1409.4011,
    whose radius ω is R, and whose angle π ρ is θ. Another one of the kind is the wedge kernel:
    Horn, Stork, Schüßler & Zaefferer (2019), https://doi.org/10.1145/3321707.3321765.

    Args:
        dims: How many inputs, each active or not by itself. They lie in [0, 1], or near.
        active: Which inputs are active: a function of all of X (..., n, d) that returns a bool
            tensor (..., n, dims). A function, and neither a marker value nor columns of flags,
            since in a space with conditions the values of the other inputs decide, and so the
            same rows serve every kernel; `X[..., flags] > 0.5` is such a function too. One that
            is defined at the top of a module can be pickled with the kernel.
        lengthscale: ℓ > 0, in the units of x: a number, or one per input, shape (dims,). Left out,
            it is √dims / 5 until a model moves it to where its priors start.
        variance: s² > 0, in the units of y squared. Left out, it is 1, as above.
        gap: g > 0, without unit: a number, or one per input, shape (dims,). Left out, it is 1 (a
            quarter of a circle), as above.
        columns: Which columns of X hold the inputs; all unless given.
        kernel: ρ: a kernel of the distance, such as `RBF`.

    Raises:
        ValueError: If a parameter is not positive or does not match `dims`, or `columns` does not;
            when called, if `active` returns something else.
    """

    roles: ClassVar[dict[str, str]] = {
        "log_lengthscale": "lengthscale",
        "log_gap": "activity_gap",
    }

    def __init__(
        self,
        dims: int,
        active: Callable[[Tensor], Tensor],
        lengthscale: float | Sequence[float] | Tensor | None = None,
        variance: float | Tensor | None = None,
        *,
        gap: float | Sequence[float] | Tensor | None = None,
        columns: Sequence[int] | None = None,
        kernel: type[Stationary] = Matern52,
    ) -> None:
        super().__init__()
        given = {"log_lengthscale": lengthscale, "log_gap": gap}
        self.unset = frozenset(name for name, value in given.items() if value is None)
        if lengthscale is None:
            lengthscale = math.sqrt(max(dims, 1)) / 5
        self.columns = checked_columns(dims, columns)
        self.log_lengthscale = per_input_parameter("lengthscale", dims, lengthscale)
        self.log_gap = per_input_parameter("gap", dims, 1.0 if gap is None else gap)
        self.dims, self.active = dims, active
        # Named, for these are not columns of X. Lengths are those of the planes already.
        self.kernel = kernel(2 * dims, 1.0, variance, columns=range(2 * dims))
        self.kernel.log_lengthscale.requires_grad_(False)

    @property
    def lengthscale(self) -> Tensor:
        """ℓ, in the units of x, shape (dims,)."""
        return self.log_lengthscale.exp()

    @property
    def gap(self) -> Tensor:
        """g, shape (dims,)."""
        return self.log_gap.exp()

    @property
    def radius(self) -> Tensor:
        """R, how far active is from inactive in units of the kernel, shape (dims,)."""
        return (1 + self.gap) / (math.pi * self.lengthscale)

    def embed(self, X: Tensor) -> Tensor:
        x = X if self.columns is None else chosen(X, self.columns)
        active = self.active(X.detach())
        if active.dtype != torch.bool or active.shape != x.shape:
            raise ValueError(
                f"active must return a bool tensor of shape {tuple(x.shape)}, one entry per input "
                f"of each row; got {active.dtype} of shape {tuple(active.shape)}."
            )
        if active.device != X.device:
            raise ValueError(
                f"active must return a tensor where X is, on {X.device}; got one on "
                f"{active.device}. Make what it needs there too, with `device=X.device`."
            )
        angle = x * beside(math.pi / (1 + self.gap), X)  # (..., n, dims)
        arc = torch.cat([angle.sin(), angle.cos()], dim=-1) * beside(self.radius.repeat(2), X)
        return torch.where(torch.cat([active, active], dim=-1), arc, 0.0)
