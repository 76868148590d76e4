"""K = k(X, X), multiplied from memory while it fits there, else computed tile by tile."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Protocol, get_args

import torch
from torch import Tensor

from surrogate.checks import as_matrix
from surrogate.operators.base import CovarianceOperator, LinearOperator, Storage, check_columns
from surrogate.workspace import Workspace

# Computed at once: tiles of this size stay in cache through the passes that make them.
# At n = 10⁴ and 2 threads, 128 × 4096 is as fast, 64 × 1024 a fifth slower, and so is 256 × 16384.
_ROWS, _COLUMNS = 256, 2048
# Rows stored as one strip, from the diagonal on: each is read once for two products. One in float32
# is widened a few columns at a time: at n = 30,000 a product with 8 columns then takes a quarter
# longer than in float32, and is off by 9e-8 instead of 4e-7, all of it from the entries.
_STRIP, _WIDENED = 512, 2048


class _Linearised(Protocol):
    @property
    def K(self) -> Tensor: ...

    def parameters(self, G: Tensor, /) -> tuple[Tensor, ...]: ...


class KernelLike(Protocol):
    """What is asked of a kernel."""

    def evaluate(
        self, X1: Tensor, X2: Tensor, out: Tensor, workspace: Workspace | None = None, /
    ) -> Tensor: ...

    def linearise(
        self, X1: Tensor, X2: Tensor, workspace: Workspace | None = None, /
    ) -> _Linearised: ...

    def diagonal(self, X: Tensor, /) -> Tensor: ...

    def coordinates(self, X: Tensor, /) -> Tensor: ...


Piece = tuple[int, int, Tensor]
"""K[i:i+h, j:j+w], of which h rows start on the diagonal (i = j) or end before it (i + h ≤ j)."""


def default_budget() -> int:
    """A third of the memory of this machine, or of the container it runs in, in bytes."""
    if not hasattr(os, "sysconf"):  # Windows: enough for n = 15,000 in float64
        return 2**30
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path) as limit:
                total = min(total, int(limit.read()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return total // 3


class KernelOperator(CovarianceOperator):
    """K = k(X, X), without gradients.

    Stored, only the upper triangle is: 4n² bytes in float64, 2n² in float32, each entry used for
    two products. Products with a stored K cost n²t multiplications; tile by tile, that and n²/2
    evaluations of the kernel. All arithmetic is in float64, whatever K is stored in.

    Args:
        kernel: k.
        X: Shape (n, d), float64.
        storage: "float64", "float32" or "tiles" (nothing stored); "auto" takes the first of them
            that fits into the budget.
        budget: Bytes that K may take; `default_budget()` unless given.
        float32: Whether "auto" may store in float32, which moves entries by about 3e-8 k(x, x) and
            eigenvalues λ by up to 1e-7 (λ + √n max k(x, x)).
        workspace: Where the storage comes from; this operator is then valid until its next use.

    Raises:
        ValueError: If X is not a finite matrix, or there is no such storage.
    """

    def __init__(
        self,
        kernel: KernelLike,
        X: Tensor,
        *,
        storage: Storage = "auto",
        budget: int | None = None,
        float32: bool = True,
        workspace: Workspace | None = None,
    ) -> None:
        if storage not in get_args(Storage):
            raise ValueError(f"storage must be one of {get_args(Storage)}; got {storage!r}.")
        self.kernel, self.X = kernel, as_matrix("X", X).detach()
        self.n = len(self.X)
        self._workspace = workspace or Workspace()
        if storage == "auto":
            storage = fitting_storage(self.n, budget, float32=float32)
        self.storage: Storage = storage
        self._strips = None if storage == "tiles" else self._store()

    def __repr__(self) -> str:
        return f"KernelOperator(n={self.n}, storage={self.storage!r})"

    @property
    def bytes(self) -> int:
        """Memory that K takes."""
        return sum(s.numel() * s.element_size() for s in self._strips or ())

    @torch.no_grad()
    def matmul(self, V: Tensor) -> Tensor:
        check_columns("V", V, self.n)
        pieces = self._computed() if self._strips is None else self._stored(self._strips)
        return _multiply(V.mT.to(torch.float64), pieces).mT

    def _upper(self) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of the tiles on and above the diagonal: at equal slices, or beyond."""
        for i in range(0, self.n, _ROWS):
            rows = slice(i, min(i + _ROWS, self.n))
            yield rows, rows
            for j in range(rows.stop, self.n, _COLUMNS):
                yield rows, slice(j, min(j + _COLUMNS, self.n))

    def _points(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """Of k(x, x) a kernel knows that the distance is 0 only from being given one tensor."""
        X = self.X[rows]
        return X, X if rows == columns else self.X[columns]

    def _computed(self) -> Iterator[Piece]:
        scratch = self._workspace.child("kernel")
        for rows, columns in self._upper():
            X1, X2 = self._points(rows, columns)
            tile = self._workspace.buffer("tile", len(X1), len(X2))
            yield rows.start, columns.start, self.kernel.evaluate(X1, X2, tile, scratch)

    def _stored(self, strips: list[Tensor]) -> Iterator[Piece]:
        for i, strip in zip(range(0, self.n, _STRIP), strips, strict=True):
            if strip.dtype == torch.float64:
                yield i, i, strip
                continue
            for j, part in enumerate(strip.split(max(_STRIP, _WIDENED), dim=1)):
                piece = self._workspace.buffer("wide", *part.shape)
                yield i, i + j * max(_STRIP, _WIDENED), piece.copy_(part)

    @torch.no_grad()
    def _store(self) -> list[Tensor]:
        dtype = torch.float32 if self.storage == "float32" else torch.float64
        strips = [
            self._workspace.buffer(
                f"{self.storage}-{i}", min(_STRIP, self.n - i), self.n - i, dtype=dtype
            )
            for i in range(0, self.n, _STRIP)
        ]
        scratch = self._workspace.child("kernel")
        for rows, columns in self._upper():
            strip, i = strips[rows.start // _STRIP], rows.start % _STRIP
            j = columns.start - rows.start + i
            X1, X2 = self._points(rows, columns)
            self.kernel.evaluate(X1, X2, strip[i : i + len(X1), j : j + len(X2)], scratch)
        for strip in strips:  # left of its tiles is the mirror image of what stands above
            square = strip[:, : len(strip)]
            square.copy_(square.triu() + square.triu(1).mT)
        return strips

    @torch.no_grad()
    def diagonal(self) -> Tensor:
        return self.kernel.diagonal(self.X)

    @torch.no_grad()
    def rows(self, index: Tensor) -> Tensor:
        out = self.X.new_empty(len(index), self.n)
        for some, part in zip(index.split(_ROWS), out.split(_ROWS), strict=True):
            self.kernel.evaluate(self.X[some], self.X, part, self._workspace.child("kernel"))
        out[torch.arange(len(index)), index] = self.diagonal()[index]
        return out

    @torch.no_grad()
    def blocks(self, index: Tensor) -> Tensor:
        m, b = index.shape
        out = self.X.new_empty(m, b, b)
        for some, part in zip(index, out, strict=True):
            points = self.X[some]
            self.kernel.evaluate(points, points, part, self._workspace.child("kernel"))
        return out

    @property
    def coordinates(self) -> Tensor:
        return self.kernel.coordinates(self.X)

    @property
    def precise(self) -> LinearOperator:
        if self.storage != "float32":
            return self
        return KernelOperator(self.kernel, self.X, storage="tiles", workspace=self._workspace)

    @torch.no_grad()
    def pullback(self, A: Tensor, B: Tensor) -> tuple[Tensor, ...]:
        """Gradients of Σ_k a_kᵀ K b_k in the parameters of the kernel, tile by tile.

        Args:
            A, B: Shape (n, k), one vector per column.

        Returns:
            One tensor per entry of `kernel.parameters()`, in that order.

        Raises:
            ValueError: If A or B has another shape.
        """
        check_columns("A", A, self.n)
        check_columns("B", B, self.n)
        if A.shape != B.shape:
            raise ValueError(
                f"A and B must have as many columns, taken in pairs; "
                f"got shapes {tuple(A.shape)} and {tuple(B.shape)}."
            )
        A, B = (M.mT.to(torch.float64) for M in (A, B))  # (k, n)
        AB, BA = torch.cat([A, B]), torch.cat([B, A])  # (2k, n): G + Gᵀ in one product
        scratch = self._workspace.child("kernel")
        none = self.X[:0]
        total = self.kernel.linearise(none, none, scratch).parameters(none.new_empty(0, 0))
        for rows, columns in self._upper():
            X1, X2 = self._points(rows, columns)
            G = self._workspace.buffer("G", len(X1), len(X2))
            torch.mm(AB[:, rows].mT, BA[:, columns], out=G)
            if rows == columns:  # there each pair stands twice
                G.mul_(0.5)
            gradients = self.kernel.linearise(X1, X2, scratch).parameters(G)
            total = tuple(t + g for t, g in zip(total, gradients, strict=True))
        return total


def _multiply(W: Tensor, pieces: Iterable[Piece]) -> Tensor:
    """W K for W (t, n), each piece of K used for itself and for its mirror image."""
    out = torch.zeros_like(W)
    for i, j, piece in pieces:
        h, w = piece.shape
        out[:, j : j + w].addmm_(W[:, i : i + h], piece)
        beyond = max(j, i + h)  # the square on the diagonal has none
        out[:, i : i + h].addmm_(W[:, beyond : j + w], piece[:, beyond - j :].mT)
    return out


def fitting_storage(n: int, budget: int | None, *, float32: bool) -> Storage:
    """The most accurate storage of the upper triangle that the budget allows."""
    budget = default_budget() if budget is None else budget
    entries = n * (n + _STRIP) // 2
    if 8 * entries <= budget:
        return "float64"
    return "float32" if float32 and 4 * entries <= budget else "tiles"
