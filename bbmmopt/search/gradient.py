"""Maximise a smooth function in a box from many starts at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

ValueAndGradient = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps X (m, d) to values (m,) and gradients (m, d)."""

_SUFFICIENT = 1e-4  # Armijo: the part of the predicted gain a step must reach
_SHORTEST = 1e-8  # a step shorter than this, relative to the direction, is given up
_FIRST = 0.2  # length of the first step in units of `scale`, before curvature is known


@dataclass(frozen=True)
class Ascent:
    """Where each start ended.

    Attributes:
        X: Shape (m, d).
        value: Shape (m,).
        evaluations: How often the function was called, each time on a batch.
    """

    X: Tensor
    value: Tensor
    evaluations: int


def ascend(
    function: ValueAndGradient,
    X: Tensor,
    lower: Tensor,
    upper: Tensor,
    scale: Tensor,
    *,
    max_evaluations: int = 100,
    tolerance: float = 1e-4,
) -> Ascent:
    """Climb from every row of X by projected BFGS, all rows in one batch.

    Every row is a search of its own: in each round it either takes the step it tried, updates its
    inverse Hessian and turns, or tries a shorter one; so no row waits for another's line search,
    and rows that are done leave the batch. Variables at a bound that the gradient pushes outwards
    are held there for the round. The inverse Hessians are kept whole, (m, d, d): for a few dozen
    starts in up to a few hundred dimensions that is cheaper than the two loops of the
    limited-memory form, which agrees with it until its memory is full.

    Source: Nocedal & Wright (2006), Numerical Optimization, eq. 6.17 (update), 6.20 (its start) and
    section 16.7 (projection).

    Args:
        function: Values and gradients of a batch.
        X: Starts, shape (m, d).
        lower, upper: Bounds of each row, shape (m, d). Equal bounds hold a variable.
        scale: Length over which the function changes in each variable, shape (d,): steps are taken
            in X / scale.
        max_evaluations: Rounds, each one call of the function.
        tolerance: A row is done when no free slope per unit of scale exceeds this, or a full step
            gained less than a hundredth of it.
    """
    m, d = X.shape
    end, end_value = X.clone(), X.new_full((m,), -torch.inf)
    row = torch.arange(m)
    U, lo, hi = X / scale, lower / scale, upper / scale
    U = torch.minimum(torch.maximum(U, lo), hi)
    value, gradient = function(U * scale)
    f, g = -value, -gradient * scale  # minimise f over U
    H = torch.eye(d, dtype=X.dtype).repeat(m, 1, 1)
    fresh = torch.ones(m, dtype=torch.bool)  # no curvature seen yet
    done = torch.zeros(m, dtype=torch.bool)
    step, D = _direction(H, U, g, lo, hi, fresh)
    done |= _slope(U, g, lo, hi) <= tolerance
    evaluations = 1
    while evaluations < max_evaluations:
        if bool(done.any()):
            end[row[done]], end_value[row[done]] = U[done] * scale, -f[done]
            live = ~done
            if not bool(live.any()):
                return Ascent(end, end_value, evaluations)
            row, U, lo, hi, f, g, H, fresh, step, D, done = (
                t[live] for t in (row, U, lo, hi, f, g, H, fresh, step, D, done)
            )
        trial = torch.minimum(torch.maximum(U + step.unsqueeze(-1) * D, lo), hi)
        value, gradient = function(trial * scale)
        evaluations += 1
        f_new, g_new = -value, -gradient * scale
        s = trial - U
        gain = f - f_new
        # A NaN compares false, so it counts as a step too long.
        took = gain >= -_SUFFICIENT * (g * s).sum(-1)
        H = _update(H, s, g_new - g, took, fresh)
        full = step >= 1.0
        U = torch.where(took.unsqueeze(-1), trial, U)
        f = torch.where(took, f_new, f)
        g = torch.where(took.unsqueeze(-1), g_new, g)
        fresh = fresh & ~took
        new_step, new_D = _direction(H, U, g, lo, hi, fresh)
        step = torch.where(took, new_step, 0.3 * step)
        D = torch.where(took.unsqueeze(-1), new_D, D)
        done = (took & full & (gain < 0.01 * tolerance)) | (step < _SHORTEST)
        done |= took & (_slope(U, g, lo, hi) <= tolerance)
    end[row], end_value[row] = U * scale, -f
    return Ascent(end, end_value, evaluations)


def _held(U: Tensor, g: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
    """Where a variable is at a bound and the descent direction points outwards."""
    return ((U <= lo) & (g > 0)) | ((U >= hi) & (g < 0))


def _slope(U: Tensor, g: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
    """Largest free slope of each row, shape (m,)."""
    return g.masked_fill(_held(U, g, lo, hi), 0.0).abs().amax(-1)


def _direction(
    H: Tensor, U: Tensor, g: Tensor, lo: Tensor, hi: Tensor, fresh: Tensor
) -> tuple[Tensor, Tensor]:
    """Step length (m,) and direction (m, d): -H g over the free variables."""
    held = _held(U, g, lo, hi)
    free = g.masked_fill(held, 0.0)
    D = -torch.bmm(H, free.unsqueeze(-1)).squeeze(-1).masked_fill_(held, 0.0)
    # Rounding may spoil H; the plain gradient never points uphill.
    wrong = (D * free).sum(-1) >= 0
    D = torch.where(wrong.unsqueeze(-1), -free, D)
    length = D.norm(dim=-1)
    step = torch.where(fresh | wrong, (_FIRST / length.clamp_min(1e-300)).clamp_max(1.0), 1.0)
    return step, D


def _update(H: Tensor, s: Tensor, y: Tensor, took: Tensor, fresh: Tensor) -> Tensor:
    """BFGS update of the inverse Hessians of the rows that moved along positive curvature."""
    sy = (s * y).sum(-1)
    yy = y.square().sum(-1)
    good = took & (sy > 1e-10 * s.norm(dim=-1) * yy.sqrt())
    sy = torch.where(good, sy, 1.0)
    first = (good & fresh).view(-1, 1, 1)
    H = torch.where(first, H * (sy / torch.where(good, yy, 1.0)).view(-1, 1, 1), H)
    Hy = torch.bmm(H, y.unsqueeze(-1)).squeeze(-1)
    factor = (1 + (y * Hy).sum(-1) / sy) / sy
    ss = s.unsqueeze(-1) * (factor.unsqueeze(-1) * s).unsqueeze(-2)
    cross = (s / sy.unsqueeze(-1)).unsqueeze(-1) * Hy.unsqueeze(-2)
    updated = H + ss - cross - cross.transpose(-1, -2)
    return torch.where(good.view(-1, 1, 1), updated, H)
