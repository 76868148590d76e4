"""K = k(X, X), multiplied from memory while it fits there, else computed tile by tile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from typing import Any, get_args

import torch
from torch import Tensor

from surrogate.checks import as_matrix
from surrogate.operators.base import CovarianceOperator, LinearOperator, Storage, check_columns
from surrogate.tiles.base import Tiles
from surrogate.tiles.choose import TilesName, is_fused, tiles_for
from surrogate.tiles.fused import ROUNDOFF
from surrogate.tiles.plain import KernelLike, Piece, multiply, points, tile_shape, upper
from surrogate.workspace import Workspace

# Rows stored as one strip, from the diagonal on: each is read once for two products. One in float32
# is widened a few columns at a time: at n = 30,000 a product with 8 columns then takes a quarter
# longer than in float32, and is off by 9e-8 instead of 4e-7, all of it from the entries.
_STRIP, _WIDENED = 512, 2048
_AT_ONCE = 2**24  # entries of blocks, or of rows, made together on a GPU: 128 MiB


def default_budget(device: torch.device | None = None) -> int:
    """A third of the memory of a device, in bytes.

    Args:
        device: Which; unless given the CPU, with the memory of this machine or of the container it
            runs in.
    """
    if device is not None and device.type == "cuda":
        # Of all there is and not of what is free, so that the same data are treated alike.
        return torch.cuda.get_device_properties(device).total_memory // 3
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
    evaluations of the kernel, or n² where they are fused. All arithmetic is in float64, whatever K
    is stored in, but for fused tiles in float32.

    Args:
        kernel: k.
        X: Shape (n, d), float64.
        storage: "float64", "float32" or "tiles" (nothing stored). "auto" takes tiles where they are
            fused in float32, for they are made as fast as K could be read; else the first of the
            three that fits into the budget.
        budget: Bytes that K may take; `default_budget(X.device)` unless given.
        float32: Whether "auto" may store in float32, and fused tiles be computed in it: it moves
            entries by about 3e-8 k(x, x) and eigenvalues λ by up to 1e-7 (λ + √n max k(x, x)).
        tiles: What computes tiles: see `tiles_for`.
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
        tiles: TilesName = "auto",
        workspace: Workspace | None = None,
    ) -> None:
        if storage not in get_args(Storage):
            raise ValueError(f"storage must be one of {get_args(Storage)}; got {storage!r}.")
        self.kernel, self.X = kernel, as_matrix("X", X).detach()
        self.n = len(self.X)
        self._workspace = workspace or Workspace(self.X.device)
        if storage == "auto":
            storage = fitting_storage(kernel, self.X, budget, float32=float32, tiles=tiles)
        self.storage: Storage = storage
        self._float32 = float32
        self._tiles: TilesName = tiles
        self._shape = tile_shape(self.X.device)
        single = storage == "tiles" and float32 and is_fused(kernel, self.X.device, tiles)
        self.roundoff = ROUNDOFF[torch.float32 if single else torch.float64]
        self._strips = None if storage == "tiles" else self._store()

    def __repr__(self) -> str:
        return f"KernelOperator(n={self.n}, storage={self.storage!r})"

    def __getstate__(self) -> dict[str, Any]:
        # Fused tiles are made of functions, which cannot be pickled; they are made anew.
        return {name: value for name, value in vars(self).items() if name != "tiles"}

    @property
    def device(self) -> torch.device:
        return self.X.device

    @cached_property
    def tiles(self) -> Tiles:
        """What computes K where it is not stored."""
        return tiles_for(
            self.kernel, self.X, self._tiles, float32=self._float32, workspace=self._workspace
        )

    @property
    def arithmetic(self) -> str | None:
        return self.tiles.name if self._strips is None else None

    @property
    def bytes(self) -> int:
        """Memory that K takes."""
        return sum(s.numel() * s.element_size() for s in self._strips or ())

    @torch.no_grad()
    def matmul(self, V: Tensor) -> Tensor:
        check_columns("V", V, self.n)
        if self._strips is None:
            return self.tiles.product(V)
        return multiply(V.mT.to(torch.float64), self._stored(self._strips)).mT

    @property
    def _height(self) -> int:
        """Rows of a strip."""
        return _strip(self._shape)

    def _stored(self, strips: list[Tensor]) -> Iterator[Piece]:
        width = max(self._height, _WIDENED)
        for i, strip in zip(range(0, self.n, self._height), strips, strict=True):
            if strip.dtype == torch.float64:
                yield i, i, strip
                continue
            for j, part in enumerate(strip.split(width, dim=1)):
                piece = self._workspace.buffer("wide", *part.shape)
                yield i, i + j * width, piece.copy_(part)

    @torch.no_grad()
    def _store(self) -> list[Tensor]:
        dtype = torch.float32 if self.storage == "float32" else torch.float64
        height = self._height
        strips = [
            self._workspace.buffer(
                f"{self.storage}-{i}", min(height, self.n - i), self.n - i, dtype=dtype
            )
            for i in range(0, self.n, height)
        ]
        scratch = self._workspace.child("kernel")
        for rows, columns in upper(self.n, self._shape):
            strip, i = strips[rows.start // height], rows.start % height
            j = columns.start - rows.start + i
            X1, X2 = points(self.X, rows, columns)
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
        height = self._shape[0]
        if self.X.device.type != "cpu":  # what they are made in stays: as much as a tile has
            height = max(1, min(height, _AT_ONCE // max(self.n, 1)))
        for some, part in zip(index.split(height), out.split(height), strict=True):
            self.kernel.evaluate(self.X[some], self.X, part, self._workspace.child("kernel"))
        out[torch.arange(len(index), device=index.device), index] = self.diagonal()[index]
        return out

    @torch.no_grad()
    def blocks(self, index: Tensor) -> Tensor:
        m, b = index.shape
        out = self.X.new_empty(m, b, b)
        if self.X.device.type != "cpu":  # there a launch takes longer than a block
            count = max(1, _AT_ONCE // max(b * b, 1))
            for some, part in zip(index.split(count), out.split(count), strict=True):
                X = self.X[some]
                part.copy_(self.kernel(X, X))
            return out
        for some, part in zip(index, out, strict=True):
            X = self.X[some]
            self.kernel.evaluate(X, X, part, self._workspace.child("kernel"))
        return out

    @property
    def coordinates(self) -> Tensor:
        return self.kernel.coordinates(self.X)

    @property
    def precise(self) -> LinearOperator:
        if self.storage != "float32" and self.roundoff == ROUNDOFF[torch.float64]:
            return self
        return KernelOperator(
            self.kernel,
            self.X,
            storage="tiles",
            float32=False,
            tiles=self._tiles,
            workspace=self._workspace,
        )

    @torch.no_grad()
    def pullback(self, A: Tensor, B: Tensor, rows: slice | None = None) -> tuple[Tensor, ...]:
        """Gradients of Σ_k a_kᵀ K b_k in the parameters of the kernel, tile by tile.

        Args:
            A, B: Shape (n, k), one vector per column.
            rows: What these rows have of it, as `Tiles.pullback` says; all of them unless told.

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
        return self.tiles.pullback(A, B, rows)


def fitting_storage(
    kernel: KernelLike,
    X: Tensor,
    budget: int | None,
    *,
    float32: bool,
    tiles: TilesName = "auto",
) -> Storage:
    """Where K is kept if nothing else is asked for: see `KernelOperator`."""
    if float32 and is_fused(kernel, X.device, tiles):
        return "tiles"
    budget = default_budget(X.device) if budget is None else budget
    n = len(X)
    entries = n * (n + _strip(tile_shape(X.device))) // 2
    if 8 * entries <= budget:
        return "float64"
    return "float32" if float32 and 4 * entries <= budget else "tiles"


def _strip(shape: tuple[int, int]) -> int:
    """Rows of a strip made of tiles of this shape."""
    return max(_STRIP // shape[0], 1) * shape[0]
