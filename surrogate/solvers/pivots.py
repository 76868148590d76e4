"""What a preconditioner is made of: rows drawn by randomly pivoted Cholesky, clusters of points."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.checks import check_finite
from surrogate.operators.base import LinearOperator
from surrogate.threads import one_thread
from surrogate.transfers import to_device, to_host

_PROPOSALS = 64  # pivots proposed at once; each is then accepted with the right probability
_ROUNDING = 1e-12  # of an entry of the diagonal, below which what is left of it says nothing
_LOST = 0.1  # of the noise, below which what is left of K is lost in it


@dataclass(frozen=True)
class Structure:
    """What a preconditioner is made of, apart from numbers: kept while parameters change little.

    Both are where K is, and are the same wherever that is.

    Attributes:
        pivots: Rows that span the low-rank part, shape (r,).
        clusters: Rows whose covariance is kept as it is, shape (c, b), padded with n; c may be 0.
    """

    pivots: Tensor
    clusters: Tensor

    @staticmethod
    def of(
        operator: LinearOperator,
        noise: Tensor,
        *,
        rank: int,
        block: int,
        generator: torch.Generator,
    ) -> Structure:
        """Choose pivots by randomly pivoted Cholesky and clusters by their coordinates.

        Args:
            operator: K without noise.
            noise: Noise variances, shape (n,): pivots stop paying once all that is left of K is
                below a tenth of them.
            rank: Most pivots; 0 for none.
            block: Points in a cluster, at most; 0 for none, and none for an operator without
                coordinates.
            generator: Randomness of the pivots.
        """
        pivots = torch.empty(0, dtype=torch.long, device=operator.device)
        if rank and operator.n:
            pivots = random_pivots(operator, noise, min(rank, operator.n), generator)
        coordinates = operator.coordinates if block else None
        if coordinates is None:
            return Structure(pivots, pivots.new_empty(0, 0))
        return Structure(pivots, clusters(coordinates, block))


def random_pivots(
    operator: LinearOperator, noise: Tensor, rank: int, generator: torch.Generator
) -> Tensor:
    """Up to `rank` rows of K, each drawn with probability in proportion to what is left of K there.

    Proposals are drawn and their rows computed many at a time, then accepted one by one with the
    probability that makes the result that of drawing one at a time. Rows stay where K is; what is
    left of its diagonal is kept on the host, which draws and decides.

    Source: Chen, Epperly, Tropp & Webber (2023), Randomly pivoted Cholesky,
    https://arxiv.org/abs/2207.06503; rejection after Epperly, Tropp & Webber (2024),
    https://arxiv.org/abs/2410.03969.
    """
    n, diagonal = operator.n, diagonal_of(operator)
    left, noise = to_host(diagonal, noise)
    rounding = _ROUNDING * left
    enough = torch.maximum(_LOST * noise, rounding)
    L = diagonal.new_empty(rank, n)
    pivots: list[int] = []
    while len(pivots) < rank and bool((left > enough).any()):
        count = min(_PROPOSALS, n)
        proposed = torch.multinomial(left, count, replacement=True, generator=generator)
        uniform = torch.rand(count, generator=generator, dtype=left.dtype)
        there, before = to_device(proposed, L.device), len(pivots)
        rows = rows_of(operator, there) - L[:before, there].mT @ L[:before]  # (count, n)
        (among,) = to_host(rows[:, there])  # (count, count)
        hurdle = uniform * left[proposed]
        taken, spent = _accepted(among, hurdle, rounding[proposed], rank - before)
        chosen = torch.tensor([j for j, _ in taken], dtype=torch.long)
        chosen = to_device(chosen, L.device)
        rows, columns = rows[chosen], there[chosen]
        for k, (_, now) in enumerate(taken):
            row = L[before + k]
            torch.div(rows[k], now**0.5, out=row)
            rows[k + 1 :].addr_(row[columns[k + 1 :]], row, alpha=-1.0)
        pivots += [int(proposed[j]) for j, _ in taken]
        (gone,) = to_host(L[before : len(pivots)].square().sum(0))
        left = left - gone
        left = torch.where(left > rounding, left, 0.0)
        left[proposed[spent]] = 0.0
        left[pivots] = 0.0
    return torch.tensor(pivots, dtype=torch.long, device=L.device)


def _accepted(
    among: Tensor, hurdle: Tensor, rounding: Tensor, most: int
) -> tuple[list[tuple[int, float]], list[int]]:
    """Which proposals are taken, with what was left of K there, and which have nothing left.

    Args:
        among: What is left of K at the proposals before the first is taken, shape (count, count);
            written into.
        hurdle: What has to be left where one is taken, shape (count,).
        rounding: What is nothing, shape (count,).
        most: How many are taken at most.
    """
    taken: list[tuple[int, float]] = []
    spent: list[int] = []
    for j, (needed, nothing) in enumerate(zip(hurdle.tolist(), rounding.tolist(), strict=True)):
        now = float(among[j, j])
        if now <= nothing:  # a row that was taken, or one like it
            spent.append(j)
        elif now >= needed:
            taken.append((j, now))
            if len(taken) == most:
                break
            row = among[j] / now**0.5
            among[j + 1 :].addr_(row[j + 1 :], row, alpha=-1.0)
    return taken, spent


def clusters(X: Tensor, size: int) -> Tensor:
    """Split points into clusters of at most `size`, halving along the widest direction.

    Args:
        X: Shape (n, d).
        size: At least 1.

    Returns:
        Indices, shape (c, b), b ≤ size; short clusters are padded with n.
    """
    n = len(X)
    (points,) = to_host(X)  # each halving is a decision
    with one_thread():  # n = 10⁶, d = 10: 3 s; on four threads beside other work 92 s
        parts = _split(points, torch.arange(n), -(-n // size)) if n else []
    width = max((len(part) for part in parts), default=0)
    out = torch.full((len(parts), width), n)
    for row, part in zip(out, parts, strict=True):
        row[: len(part)] = part
    return out.to(X.device)


def _split(X: Tensor, index: Tensor, count: int) -> list[Tensor]:
    """`count` parts whose sizes differ by at most one, of points close to each other."""
    if count == 1:
        return [index]
    points, first = X[index], count // 2
    at = len(index) * first // count
    if X.shape[1]:
        axis = int((points.amax(0) - points.amin(0)).argmax())
        index = index[points[:, axis].argsort(stable=True)]
    return _split(X, index[:at], first) + _split(X, index[at:], count - first)


def diagonal_of(operator: LinearOperator) -> Tensor:
    """The diagonal of K in float64, shape (n,), or raise unless it is finite."""
    diagonal = operator.diagonal().detach().to(torch.float64)
    check_finite("the diagonal of K", diagonal)
    return diagonal


def rows_of(operator: LinearOperator, index: Tensor) -> Tensor:
    """Rows of K in float64, shape (k, n)."""
    return operator.rows(index).detach().to(torch.float64)
