"""Covariance of values and gradients, from functions of the distances of the points alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from surrogate.checks import as_matrix
from surrogate.operators.base import CovarianceOperator, Storage, check_columns
from surrogate.operators.kernel import KernelLike, KernelOperator, default_budget
from surrogate.sums import sums_by_group
from surrogate.workspace import Workspace

# Points of a tile: with 256 × 1024, what is made for a column of V stays in cache.
_ROWS, _COLUMNS = 256, 1024
_ROUNDOFF = 2e-16
_STORAGES = ("auto", "float64", "tiles")


class GradientKernelLike(KernelLike, Protocol):
    """What is asked of the kernel of rows [x, i], of parameters c², ℓ and s² in that order."""

    @property
    def is_gaussian(self) -> bool:
        """Whether g = exp(-r²/2): then g' = -g/2 and g'' = g/4."""
        ...

    def scales(self) -> tuple[Tensor, Tensor, Tensor]:
        """c² (), ℓ (d,) and s² ()."""
        ...

    def derivatives(self, r2: Tensor, order: int, /) -> tuple[Tensor, ...]:
        """g and its first `order` derivatives in r², elementwise."""
        ...


class GradientOperator(CovarianceOperator):
    """K of N rows [x, i], see `WithGradients`, by tables of n distinct points and 1 + d columns.

    With u = x / ℓ, δ = u_i - u_j, v the values in a column of V, w the gradients over ℓ, and
    q_ij = δ·w_j, a product is

        of values:     s² Σ_j (g v_j - 2 g' q_ij) + c² Σ_j v_j
        of gradients:  s²/ℓ Σ_j ((2 g' v_j - 4 g'' q_ij) δ - 2 g' w_j)

    in which the sums over j are products of n × n matrices with u and with tables of v and w: some
    (4d + 5) n² multiplications a column, (3d + 2) n² where g is Gaussian, for up to (1 + d)² n²
    entries of K. Numbers that are not observed stand for zeros, and one observed twice is added.

    Stored are the upper triangles of g, g' and g'', 12n² bytes, or of a Gaussian g alone, 4n².

    Args:
        kernel: k, of c², ℓ and s².
        points: Distinct x, shape (n, d), float64.
        row: Which of them each number is of, shape (N,), on their device.
        column: What is observed: 0 for the value, 1 … d for a derivative, shape (N,), there too.
        storage: "float64" or "tiles" (nothing stored); "auto" takes the first that fits.
        budget: Bytes that may be stored; `default_budget()` unless given.
        workspace: Where storage comes from; this operator is then valid until its next use.

    Raises:
        ValueError: If points are no finite matrix, row and column are not of one length, are on
            another device or lie outside the table, or there is no such storage.
    """

    def __init__(
        self,
        kernel: GradientKernelLike,
        points: Tensor,
        row: Tensor,
        column: Tensor,
        *,
        storage: Storage = "auto",
        budget: int | None = None,
        workspace: Workspace | None = None,
    ) -> None:
        if storage not in _STORAGES:
            raise ValueError(f"storage must be one of {_STORAGES}; got {storage!r}.")
        self.kernel, self.points = kernel, as_matrix("points", points).detach()
        if row.shape != column.shape or row.ndim != 1:
            raise ValueError(
                f"row and column must have one shape (N,); got {tuple(row.shape)} and "
                f"{tuple(column.shape)}."
            )
        if not row.device == column.device == self.points.device:
            raise ValueError(
                f"row and column must be on {self.points.device}, where the points are; got "
                f"{row.device} and {column.device}."
            )
        n, d = self.points.shape
        if not bool(((row >= 0) & (row < n) & (column >= 0) & (column <= d)).all()):
            raise ValueError(f"numbers must be inside the table of {n} × {1 + d}.")
        self.row, self.column, self.n = row, column, len(row)
        self._flat = column * n + row
        self._workspace = workspace or Workspace(self.device)
        with torch.no_grad():
            self._offset, lengthscale, self._variance = kernel.scales()
            self._inverse = (1 / lengthscale).to(self.device)
        self.roundoff = _ROUNDOFF * (1 + self._reach())
        self._levels = 1 if kernel.is_gaussian else 3
        if storage == "auto":
            most = default_budget() if budget is None else budget
            numbers = sum(min(_ROWS, n - i) * (n - i) for i in range(0, n, _ROWS))
            storage = "float64" if 8 * self._levels * numbers <= most else "tiles"
        self.storage: Storage = storage
        self._strips = None if storage == "tiles" else self._store()
        # Single rows and blocks are made entry by entry.
        X = torch.cat([self.points[row], column.unsqueeze(1)], 1)
        self._entries = KernelOperator(
            kernel, X, storage="tiles", workspace=self._workspace.child("entries")
        )

    def __repr__(self) -> str:
        points, d = self.points.shape
        return f"GradientOperator(n={self.n}, points={points}, d={d}, storage={self.storage!r})"

    @property
    def device(self) -> torch.device:
        """Where the points are, and all arithmetic is."""
        return self.points.device

    @property
    def bytes(self) -> int:
        """Memory that g, g' and g'' take."""
        return sum(s.numel() * s.element_size() for s in self._strips or ())

    @torch.no_grad()
    def matmul(self, V: Tensor) -> Tensor:
        check_columns("V", V, self.n)
        out = self._times(self._table(V))  # (t, 1 + d, n)
        return out.flatten(1)[:, self._flat].mT

    @torch.no_grad()
    def diagonal(self) -> Tensor:
        return self._entries.diagonal()

    def rows(self, index: Tensor) -> Tensor:
        return self._entries.rows(index)

    def blocks(self, index: Tensor) -> Tensor:
        return self._entries.blocks(index)

    @property
    def coordinates(self) -> Tensor:
        return self._entries.coordinates

    @torch.no_grad()
    def pullback(self, A: Tensor, B: Tensor) -> tuple[Tensor, ...]:
        """Gradients of Σ_k a_kᵀ K b_k in log c², log ℓ and log s².

        With R_ij its derivative in r²_ij, that in log ℓ is -2 Σ_ij R_ij δ² by r², and by the δ and
        1/ℓ that stand before g' and g'' what the products K b and K a tell.
        """
        check_columns("A", A, self.n)
        check_columns("B", B, self.n)
        if A.shape != B.shape:
            raise ValueError(
                f"A and B must have as many columns, taken in pairs; "
                f"got shapes {tuple(A.shape)} and {tuple(B.shape)}."
            )
        k = A.shape[1]
        ab = self._table(torch.cat([A, B], 1))  # (2k, 1 + d, n)
        ba = ab.roll(k, 0)
        by_offset = self._offset * (ab[:k, 0].sum(1) * ba[:k, 0].sum(1)).sum()
        by_entry = (ab * self._times(ba)).sum((0, 2)) / 2  # (1 + d,)
        by_variance = by_entry.sum() - by_offset
        scale = self._inverse.unsqueeze(1)
        ab[:, 1:] *= scale
        ba[:, 1:] *= scale
        by_lengthscale = torch.zeros_like(self._inverse)
        for rows, columns in self._upper():
            # Each pair of tables stands there twice, as (i, j) and as (j, i).
            share = 0.5 if rows == columns else 1.0
            by_lengthscale += share * self._slopes(rows, columns, ab[..., rows], ba[..., columns])
        return by_offset, self._variance * by_lengthscale - 4 * by_entry[1:], by_variance

    def _slopes(self, rows: slice, columns: slice, a: Tensor, b: Tensor) -> Tensor:
        """Of Σ_ij a_iᵀ K_ij b_j / s², that in log ℓ by r², and -4 g' Σ a·b: shape (d,).

        Args:
            a: Shape (t, 1 + d, h).
            b: Shape (t, 1 + d, w).
        """
        U1, U2 = self._scaled(rows, columns)
        g1, g2, g3 = self.kernel.derivatives(self._distances(rows, columns), 3)[1:]
        va, vb, wa, wb = a[:, :1], b[:, :1], a[:, 1:], b[:, 1:]
        za, zb = (wa * U1).sum(1, keepdim=True), (wb * U2).sum(1, keepdim=True)
        values = va.flatten(0, 1).mT @ vb.flatten(0, 1)
        # Σ v_i (δ·w_j) - (δ·w_i) v_j + w_i·w_j
        left = torch.cat([va * U1 + wa, -va, za, -wa], 1).flatten(0, 1)
        mixed = left.mT @ torch.cat([wb, zb, -vb, -vb * U2], 1).flatten(0, 1)
        both = torch.zeros_like(g1)  # Σ (δ·w_i) (δ·w_j)
        left, right = torch.cat([U1, _one_like(U1)]), torch.cat([-U2, _one_like(U2)])
        first, second = torch.cat([wa, za], 1), torch.cat([wb, -zb], 1)
        q1, q2 = torch.empty_like(g1), torch.empty_like(g1)
        for along_row, along_column in zip(first, second, strict=True):
            torch.mm(along_row.mT, right, out=q1)
            torch.mm(left.mT, along_column, out=q2)
            both.addcmul_(q1, q2)
        R = values.mul_(g1).addcmul_(mixed, g2, value=-2.0).addcmul_(both, g3, value=-4.0)
        crossed = (U1 @ R).mul_(U2).sum(1)
        by_distance = U1.square() @ R.sum(1) + U2.square() @ R.sum(0) - 2 * crossed
        by_product = (wa * (wb.flatten(0, 1) @ g1.mT).view_as(wa)).sum((0, 2))
        return -2 * by_distance - 4 * by_product

    def _table(self, V: Tensor) -> Tensor:
        """The columns of V (N, t) as tables, zero where nothing is observed: (t, 1 + d, n)."""
        n, d = self.points.shape
        table = sums_by_group(V.mT.to(torch.float64), self._flat, (1 + d) * n, dim=1)
        return table.view(len(table), 1 + d, n)

    def _times(self, table: Tensor) -> Tensor:
        """K times tables (t, 1 + d, n)."""
        v, w = table[:, 0], table[:, 1:] * self._inverse.unsqueeze(1)
        out = torch.zeros_like(table)
        for rows, columns, tile in self._tiles():
            self._add(out[..., rows], tile, rows, columns, v[:, columns], w[..., columns])
            if rows != columns:
                tile = tuple(level.mT for level in tile)
                self._add(out[..., columns], tile, columns, rows, v[:, rows], w[..., rows])
        out *= self._variance
        out[:, 1:] *= self._inverse.unsqueeze(1)
        out[:, 0] += self._offset * v.sum(1, keepdim=True)
        return out

    def _add(
        self,
        out: Tensor,
        tile: tuple[Tensor, ...],
        rows: slice,
        columns: slice,
        v: Tensor,
        w: Tensor,
    ) -> None:
        """Add what points of `columns` give to those of `rows`, over s² and 1/ℓ.

        Args:
            out: Shape (t, 1 + d, h).
            tile: g, g' and g'', each (h, w), or a Gaussian g.
            v: Shape (t, w).
            w: Shape (t, d, w).
        """
        U1, U2 = self._scaled(rows, columns)
        z, v = (w * U2).sum(1, keepdim=True), v.unsqueeze(1)
        if len(tile) == 1:  # all of it is Σ_j g (v_j + q_ij) [1, -δ], and Σ_j g w_j
            sums = self._weighted(tile[0], U1, U2, torch.cat([w, v - z], 1))
            out[:, :1] += sums[:, -1:]
            out[:, 1:] += sums[:, :-1] - U1 * sums[:, -1:] + _by_columns(w, tile[0])
            return
        g, g1, g2 = tile
        d = len(U1)
        sums = _by_columns(torch.cat([w, U2 * v, z, v], 1), g1)
        of_w, of_uv, of_z, of_v = sums.split([d, d, 1, 1], 1)
        sums = self._weighted(g2, U1, U2, torch.cat([w, -z], 1))
        of_uq, of_q = sums.split([d, 1], 1)
        out[:, :1] += _by_columns(v, g) - 2 * ((U1 * of_w).sum(1, keepdim=True) - of_z)
        out[:, 1:] += 2 * (U1 * of_v - of_uv) - 4 * (U1 * of_q - of_uq) - 2 * of_w

    def _weighted(self, g: Tensor, U1: Tensor, U2: Tensor, right: Tensor) -> Tensor:
        """Σ_j g_ij p_ij [u_j, 1] with p = [u_i, 1]·right_j, (t, 1 + d, w): shape (t, 1 + d, h)."""
        left, beyond = torch.cat([U1, _one_like(U1)]), torch.cat([U2, _one_like(U2)])
        out = right.new_empty(len(right), len(left), len(g))
        across = g.stride(0) < g.stride(1)  # p as g lies in memory
        p = self._workspace.buffer("p", *(g.mT if across else g).shape)
        p = p.mT if across else p
        for column, sums in zip(right, out, strict=True):
            torch.mm(left.mT, column, out=p).mul_(g)
            torch.mm(beyond, p.mT, out=sums)
        return out

    def _upper(self) -> Iterator[tuple[slice, slice]]:
        """Points of the tiles on and above the diagonal: at equal slices, or beyond."""
        n = len(self.points)
        for i in range(0, n, _ROWS):
            rows = slice(i, min(i + _ROWS, n))
            yield rows, rows
            for j in range(rows.stop, n, _COLUMNS):
                yield rows, slice(j, min(j + _COLUMNS, n))

    def _tiles(self) -> Iterator[tuple[slice, slice, tuple[Tensor, ...]]]:
        for rows, columns in self._upper():
            if self._strips is None:
                yield rows, columns, self._computed(rows, columns)
            else:
                strip, i = self._strips[rows.start // _ROWS], rows.start
                yield rows, columns, tuple(strip[..., columns.start - i : columns.stop - i])

    def _computed(self, rows: slice, columns: slice) -> tuple[Tensor, ...]:
        order = 0 if self.kernel.is_gaussian else 2
        return self.kernel.derivatives(self._distances(rows, columns), order)

    @torch.no_grad()
    def _store(self) -> list[Tensor]:
        n, strips = len(self.points), []
        for rows, columns in self._upper():
            i = rows.start
            if rows == columns:
                shape = self._levels, rows.stop - i, n - i
                strips.append(self._workspace.buffer(f"strip-{i}", *shape))
            place = strips[-1][..., columns.start - i : columns.stop - i]
            for level, computed in zip(place, self._computed(rows, columns), strict=True):
                level.copy_(computed)
        return strips

    def _reach(self) -> float:
        """How far u lies from where sums are taken from, at most."""
        parts = self.points.split(_COLUMNS)
        far = [((X - X.mean(0)) * self._inverse).square().sum(1).max() for X in parts if len(X)]
        return float(torch.stack(far).max().sqrt()) if far else 0.0

    def _scaled(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """u of both, from the mean of the first: shapes (d, h) and (d, w).

        Where g is not 0, u is then small, and little cancels in u_i - u_j.
        """
        X1, X2 = self.points[rows], self.points[columns]
        centre = X1.mean(0)
        U1, U2 = ((X - centre) * self._inverse for X in (X1, X2))
        return U1.mT.contiguous(), U2.mT.contiguous()

    def _distances(self, rows: slice, columns: slice) -> Tensor:
        """r² of two sets of points, shape (h, w)."""
        U1, U2 = self._scaled(rows, columns)
        r2 = self._workspace.buffer("r2", U1.shape[1], U2.shape[1])
        torch.add(U1.square().sum(0).unsqueeze(1), U2.square().sum(0), out=r2)
        r2.addmm_(U1.mT, U2, alpha=-2.0).clamp_min_(0.0)
        return r2.fill_diagonal_(0.0) if rows == columns else r2


def _one_like(U: Tensor) -> Tensor:
    return torch.ones_like(U[:1])


def _by_columns(tables: Tensor, g: Tensor) -> Tensor:
    """Σ_j g_ij of tables (t, k, w), for g (h, w): shape (t, k, h)."""
    t, k, _ = tables.shape
    return (tables.flatten(0, 1) @ g.mT).view(t, k, len(g))
