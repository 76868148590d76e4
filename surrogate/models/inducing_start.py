"""Where a fit of a sparse model begins: what some of the rows say, before all of them are asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from surrogate.models.descent import minimise
from surrogate.models.exact import ExactGP
from surrogate.models.objective import ExactObjective, Parameters
from surrogate.solvers.cholesky import Cholesky

if TYPE_CHECKING:
    from surrogate.models.inducing import InducingGP

Model = TypeVar("Model", bound="InducingGP")

_SUBSET = 1000  # most rows of the exact fit, which costs less than one look at 10⁵
_EXACT = 1e-2  # nats that it may leave
_OTHER_BASIN = 2.0  # change of a log-parameter that is news to a model that was fitted before
# A bound that n observations are to have has 10 for each point at first, then four times as many.
_PER_POINT, _GROW = 10, 4
_ROUGH = 0.1  # nats that a search for the parameters alone may leave
_ROUGH_POINTS = 1e-3  # nats for each observation that a step in the points still promises
_MOST = 100  # evaluations of either


def begin(model: Model, X: Tensor, y: Tensor, noise: Tensor, *, restart: bool) -> Model:
    """A copy with points for these checked data, at parameters that suit both.

    An exact fit of up to 1000 rows guards against bad basins. Its noise is too small for a bound of
    few points, whose parameters are searched for first with these points, then, where they are
    learnt, together with them, on ten rows for each point; then on four times as many, and so on.

    Args:
        model: Left as it is.
        X, y, noise: Checked data.
        restart: Whether a model that was fitted looks out for another basin too.
    """
    if len(X) < 2:
        return model
    model = model.clone()
    model.is_guarded = True
    fresh = model.report is None
    if fresh:
        _move(model, _fit_of_a_subset(model, X, y, noise, restart=restart))
    elif restart:
        exact = _fit_of_a_subset(model, X, y, noise, restart=True)
        if exact is not None and _differ(model, exact):
            _move(model, exact)
            fresh = True
    Z, most = model.inducing_points, model.inducing
    kept = model.learn_inducing and not fresh and Z is not None and len(Z) >= (most or 0)
    if most is not None and not kept:
        model.place(model.chosen(X, noise))
    if fresh and (model.points_shape[0] or any(p.requires_grad for p in _own(model))):
        _grow(model, X, y, noise)
    return model


def _own(model: ExactGP) -> list[torch.nn.Parameter]:
    """Parameters of the kernel and of the noise."""
    return [*model.kernel.parameters(), *model.noise_model.parameters()]


def _order(model: InducingGP, n: int, device: torch.device) -> Tensor:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(model.seed))
    return order.to(device)


def _fit_of_a_subset(
    model: InducingGP, X: Tensor, y: Tensor, noise: Tensor, *, restart: bool
) -> ExactGP | None:
    """An exact fit of some of the rows from where the model stands; None if nothing is free."""
    from surrogate.models.fit import fit

    exact = ExactGP(
        model.kernel,
        noise=model.noise_model,
        # Data far from the scale of the priors were warned of already.
        priors=replace(model.priors, unit_scales=False),
        solver=Cholesky(),
    )
    exact.constant.data.copy_(model.constant)
    exact.constant.requires_grad_(model.constant.requires_grad)
    if not any(p.requires_grad for p in exact.parameters()):
        return None
    few = _order(model, len(X), X.device)[:_SUBSET]
    return fit(exact, X[few], y[few], noise=noise[few], restart=restart, tolerance=_EXACT)


def _move(model: InducingGP, exact: ExactGP | None) -> None:
    if exact is not None:
        model.kernel, model.noise_model = exact.kernel, exact.noise_model
        model.constant, model.report = exact.constant, exact.report


def _differ(model: InducingGP, exact: ExactGP) -> bool:
    pairs = zip(_own(model), _own(exact), strict=True)
    return any(float((a - b).detach().abs().max()) > _OTHER_BASIN for a, b in pairs if a.numel())


def _grow(model: InducingGP, X: Tensor, y: Tensor, noise: Tensor) -> None:
    """Move to what is best for more and more of the rows, but not for all of them."""
    points, n = model.inducing_points, len(X)
    assert points is not None
    order, size = _order(model, n, X.device), min(max(_PER_POINT * len(points), _SUBSET), n)
    state = _State(None, size)
    first = True
    while size < n or first:
        few = order[:size]
        parameters = Parameters(model)
        objective = ExactObjective(parameters, X[few], y[few], noise[few], Cholesky())
        if first:
            state = _search(parameters, objective, state, size, points=False)
        if parameters.points and size < n:
            state = _search(parameters, objective, state, size, points=True)
        elif not first:
            state = _search(parameters, objective, state, size, points=False)
        first, size = False, size * _GROW
    if model.report is not None and state.curvature is not None:
        model.report = replace(model.report, inverse_hessian=state.curvature, n=state.n)


@dataclass(frozen=True)
class _State:
    """The inverse Hessian of the parameters that are no points, and how many rows it is of."""

    curvature: np.ndarray | None
    n: int


def _search(
    parameters: Parameters, objective: ExactObjective, state: _State, n: int, *, points: bool
) -> _State:
    """Move the model to the best parameters for n rows, and points if they are searched for."""
    x, k = parameters.position(), parameters.dense
    if not (points or k):
        return state
    searched = len(x) if points else k

    def function(z: np.ndarray) -> tuple[float, np.ndarray]:
        at = np.concatenate([z, x[searched:]])
        value, gradient = objective(at)
        return value, gradient[:searched]

    found = minimise(
        function,
        x[:searched],
        parameters.low[:searched],
        parameters.high[:searched],
        inverse_hessian=None if state.curvature is None else state.curvature * (state.n / n),
        dense=k,
        columns=parameters.columns,
        tolerance=_ROUGH_POINTS * n if points else _ROUGH,
        max_evaluations=_MOST,
    )
    function(found.x)  # where the model is left
    return _State(found.inverse_hessian, n)
