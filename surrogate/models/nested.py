"""Fits of complete tables: the many parameters of the columns inside those of the rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from surrogate.kernels.table import TableKernel
from surrogate.models.descent import minimise
from surrogate.models.exact import ExactGP
from surrogate.models.kronecker import TableEvaluator
from surrogate.models.objective import ExactObjective, Parameters
from surrogate.solvers.cholesky import Cholesky

_ROUGH, _INNER = 1e-2, 1e-4  # nats left by either search; a joint one goes on from there
_MOST = 200  # evaluations of either


def nested_start(model: ExactGP, X: Tensor, y: Tensor, *, restart: bool) -> None:
    """Move a model of a complete table near its optimum.

    Covariances and noises of T outputs are many parameters, entangled with each other, but with the
    eigenvectors of K at hand a step in them takes O(n T²) instead of O(n³). So at each step in the
    parameters of K they are searched for anew, from where they were; the gradient of what is then
    the best likelihood at these parameters is the partial one.

    Args:
        model: Of a `TableKernel` with one term; changed in place.
        X, y: Checked data.
        restart: Whether to begin where the priors would, if that is better.
    """
    parameters = Parameters(model)
    unknown = torch.full_like(y, torch.nan)
    objective = ExactObjective(parameters, X, y, unknown, Cholesky())
    evaluator = objective.evaluator
    assert isinstance(model.kernel, TableKernel) and isinstance(evaluator, TableEvaluator)
    ((k, _),) = model.kernel.terms
    free = [p for p in model.searched_parameters() if p.requires_grad]
    own = {id(p) for p in k.parameters()}
    outer = np.concatenate([np.full(p.numel(), id(p) in own) for p in free])
    inner = ~outer
    curvature: np.ndarray | None = None
    low, high = parameters.low, parameters.high

    def best_inside(x: np.ndarray) -> tuple[float, np.ndarray]:
        """The best of the inner parameters, searched for from those x has, and the value there."""
        nonlocal curvature
        if not inner.any():
            return objective(x)[0], x

        def inside(z: np.ndarray) -> tuple[float, np.ndarray]:
            at = x.copy()
            at[inner] = z
            value, gradient = objective(at)
            return value, gradient[inner]

        evaluator.wants_rows = False
        found = minimise(
            inside,
            x[inner],
            low[inner],
            high[inner],
            inverse_hessian=curvature,
            tolerance=_INNER,
            max_evaluations=_MOST,
        )
        evaluator.wants_rows = True
        curvature = found.inverse_hessian
        at = x.copy()
        at[inner] = found.x
        return found.value, at

    starts = [parameters.position()]
    for start in parameters.offered() if restart else []:
        if not any(np.allclose(start, other) for other in starts):
            starts.append(start)
    value, x = min((best_inside(start) for start in starts), key=lambda found: found[0])
    if outer.any():

        def outside(u: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal value, x
            at = x.copy()
            at[outer] = u
            found, at = best_inside(at)
            _, gradient = objective(at)
            if found < value:
                value, x = found, at
            return found, gradient[outer]

        begin = x[outer]
        minimise(outside, begin, low[outer], high[outer], tolerance=_ROUGH, max_evaluations=_MOST)
    objective(x)
