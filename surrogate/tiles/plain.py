"""Tiles of any kernel on any device, by torch: computed, multiplied with, and forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from surrogate.tiles.base import Tiles
from surrogate.workspace import Workspace

# On a CPU, tiles of this size stay in cache through the passes that make them: at n = 10⁴ and 2
# threads, 128 × 4096 is as fast, 64 × 1024 a fifth slower, and so is 256 × 16384. On a GPU a tile
# has to outweigh the launches that make it, some 15 of 5 µs: 2²³ entries take ten times as long.
_ON_CPU, _ELSEWHERE = (256, 2048), (2048, 4096)
_LEAST = 64  # rows and columns below which tiles are not made smaller


class _Linearised(Protocol):
    @property
    def K(self) -> Tensor: ...

    def parameters(self, G: Tensor, /) -> tuple[Tensor, ...]: ...


class KernelLike(Protocol):
    """What is asked of a kernel."""

    def __call__(self, X1: Tensor, X2: Tensor, /) -> Tensor: ...

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

_Result = TypeVar("_Result")


def tile_shape(device: torch.device) -> tuple[int, int]:
    """Rows and columns of a tile there."""
    return _ON_CPU if device.type == "cpu" else _ELSEWHERE


def upper(n: int, shape: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the tiles on and above the diagonal: at equal slices, or beyond."""
    height, width = shape
    for i in range(0, n, height):
        rows = slice(i, min(i + height, n))
        yield rows, rows
        for j in range(rows.stop, n, width):
            yield rows, slice(j, min(j + width, n))


def points(X: Tensor, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
    """Of k(x, x) a kernel knows that the distance is 0 only from being given one tensor."""
    first = X[rows]
    return first, first if rows == columns else X[columns]


def multiply(W: Tensor, pieces: Iterable[Piece]) -> Tensor:
    """W K for W (t, n), each piece of K used for itself and for its mirror image."""
    out = torch.zeros_like(W)
    for i, j, piece in pieces:
        h, w = piece.shape
        out[:, j : j + w].addmm_(W[:, i : i + h], piece)
        beyond = max(j, i + h)  # the square on the diagonal has none
        out[:, i : i + h].addmm_(W[:, beyond : j + w], piece[:, beyond - j :].mT)
    return out


class TorchTiles(Tiles):
    """Whatever a kernel computes, in float64.

    Where the device has too little memory for a tile, tiles are made smaller, and stay so.

    Args:
        kernel: k.
        X: Shape (n, d), float64.
        workspace: Scratch memory; what is computed is valid until its next use.

    Attributes:
        shape: Rows and columns of a tile.
    """

    name = "torch float64"
    roundoff = 2e-16

    def __init__(self, kernel: KernelLike, X: Tensor, workspace: Workspace | None = None) -> None:
        self.kernel, self.X = kernel, X
        self.shape = tile_shape(X.device)
        self._workspace = workspace or Workspace(X.device)

    @torch.no_grad()
    def product(self, V: Tensor, rows: slice | None = None) -> Tensor:
        W = V.mT.to(torch.float64)
        if rows is None:
            return self._smaller_until_it_fits(lambda: multiply(W, self._computed())).mT
        return self._smaller_until_it_fits(lambda: self._by_rows(W, rows)).mT

    @torch.no_grad()
    def cross(self, X1: Tensor, V: Tensor) -> Tensor:
        W = V.mT.to(torch.float64)
        return self._smaller_until_it_fits(lambda: self._crossed(X1, W)).mT

    @torch.no_grad()
    def pullback(self, A: Tensor, B: Tensor, rows: slice | None = None) -> tuple[Tensor, ...]:
        A, B = (M.mT.to(torch.float64) for M in (A, B))  # (k, n)
        AB, BA = torch.cat([A, B]), torch.cat([B, A])  # (2k, n): G + Gᵀ in one product
        return self._smaller_until_it_fits(lambda: self._pulled(AB, BA, rows))

    def _pulled(self, AB: Tensor, BA: Tensor, some: slice | None) -> tuple[Tensor, ...]:
        scratch = self._workspace.child("kernel")
        none = self.X[:0]
        total = self.kernel.linearise(none, none, scratch).parameters(none.new_empty(0, 0))
        tiles = upper(len(self.X), self.shape) if some is None else self._within(some)
        for rows, columns in tiles:
            X1, X2 = points(self.X, rows, columns)
            G = self._workspace.buffer("G", len(X1), len(X2))
            torch.mm(AB[:, rows].mT, BA[:, columns], out=G)
            if rows == columns or some is not None:  # there each pair stands twice
                G.mul_(0.5)
            gradients = self.kernel.linearise(X1, X2, scratch).parameters(G)
            total = tuple(t + g for t, g in zip(total, gradients, strict=True))
        return total

    def _computed(self) -> Iterator[Piece]:
        for rows, columns in upper(len(self.X), self.shape):
            yield rows.start, columns.start, self._tile(rows, columns)

    def _tile(self, rows: slice, columns: slice) -> Tensor:
        X1, X2 = points(self.X, rows, columns)
        tile = self._workspace.buffer("tile", len(X1), len(X2))
        return self.kernel.evaluate(X1, X2, tile, self._workspace.child("kernel"))

    def _within(self, some: slice) -> Iterator[tuple[slice, slice]]:
        """Tiles of some rows, all columns: squares on the diagonal, and what is beside them."""
        height, width = self.shape
        n = len(self.X)
        for i in range(some.start, some.stop, height):
            rows = slice(i, min(i + height, some.stop))
            yield rows, rows
            for start, stop in ((0, rows.start), (rows.stop, n)):
                for j in range(start, stop, width):
                    yield rows, slice(j, min(j + width, stop))

    def _by_rows(self, W: Tensor, some: slice) -> Tensor:
        out = W.new_zeros(len(W), some.stop - some.start)
        for rows, columns in self._within(some):
            place = out[:, rows.start - some.start : rows.stop - some.start]
            place.addmm_(W[:, columns], self._tile(rows, columns).mT)
        return out

    def _crossed(self, X1: Tensor, W: Tensor) -> Tensor:
        height, width = self.shape
        scratch = self._workspace.child("kernel")
        out = W.new_zeros(len(W), len(X1))
        for i in range(0, len(X1), height):
            rows = X1[i : i + height]
            for j in range(0, len(self.X), width):
                columns = self.X[j : j + width]
                tile = self._workspace.buffer("tile", len(rows), len(columns))
                self.kernel.evaluate(rows, columns, tile, scratch)
                out[:, i : i + height].addmm_(W[:, j : j + width], tile.mT)
        return out

    def _smaller_until_it_fits(self, compute: Callable[[], _Result]) -> _Result:
        while True:
            try:
                return compute()
            except torch.cuda.OutOfMemoryError:  # its name in torch 2.4 too
                if max(self.shape) <= _LEAST:
                    raise
            # Out here nothing refers to the tensors of the attempt any longer.
            height, width = self.shape
            self.shape = max(height // 2, _LEAST), max(width // 2, _LEAST)
            self._workspace.forget()
