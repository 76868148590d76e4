"""Tiles of a formula, computed by fused kernels on NVIDIA GPUs: K is never in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from surrogate.tiles.base import Tiles
from surrogate.tiles.formula import Categories, Formula, Gradients, Radial, added, nowhere
from surrogate.tiles.layout import (
    FAR,
    SPREAD,
    WIDEST,
    Layout,
    Placed,
    aligned,
    can_compute,
    half_precision,
    halves,
    power_of_2,
    powers_above,
    ranks,
)

# Distances by products of points cost the tensor cores what direct differences cost the ordinary
# ones, two operations a dimension and pair; from here on that is more than all the rest.
_PRODUCTS_FROM = 8
# In float32 ‖z‖² + ‖z'‖² - 2 zᵀz' is off by about 1.2e-7 times this, the largest ‖z‖² that products
# are used for; entries of K by 7e-6 at most, of points that are both so far away and near each
# other, and products with K by less than 1e-6. Beyond, gradients are made of differences too.
_REACH = 64.0
# In float32 points are off by 6e-8 of what they are away from their centre. At a ‖z‖² of this, that
# moves k by 1.5e-7; beyond, what rounding took from them is kept too, for two more operations a
# dimension and pair. Beyond the second, float32 cannot hold distances: float64 does it all.
_ROUNDED, _HELD = 1024.0, 1e30
_NOWHERE = 1e17  # coordinates of points to predict at stay below in float32: all else is far away
_PROGRAMS = 2048  # at least: a few for each of the 132 multiprocessors of an H100
_SHARE = 2**14  # columns summed in the arithmetic of the tile; beyond, in float64
_SCRATCH = 2**28  # bytes of shares at once
_PAIRS = WIDEST // 2  # of vectors that a pullback takes at once: it has both of each in registers
ROUNDOFF = {torch.float32: 1e-7, torch.float64: 2e-16}  # of a product, relative to |K| |v|
# As compiled for an H100, a pullback in 3 dimensions takes 31 instructions a pair by differences,
# and 38 by products; in 5 it takes 41 and 43, in 7 65 and 48.
_DIFFERENCES_TO = 5
_CUSPED = ("matern12", "piecewise")  # ρ is not a smooth function of ‖z - z'‖²


@dataclass(frozen=True)
class Block:
    """How a kernel is launched.

    Attributes:
        rows, columns: Of a tile of K.
        warps: Of 32 threads that share it.
        stages: How many tiles ahead memory is read.
    """

    rows: int
    columns: int
    warps: int = 4
    stages: int = 2

    def launch(
        self, kernel: Any, grid: tuple[int, int], arguments: tuple[Any, ...], known: dict[str, Any]
    ) -> None:
        """Run a kernel of `kernels`, with what is known when it is compiled."""
        sums = arguments[0]
        with torch.cuda.device_of(sums):  # Triton launches on the device that is current
            kernel[grid](
                *arguments,
                **known,
                BM=self.rows,
                BN=self.columns,
                num_warps=self.warps,
                num_stages=self.stages,
                enable_fp_fusion=True,
            )


_Launch = Callable[[Tensor, slice, int, Block], None]


class TritonTiles(Tiles):
    """Products with K by kernels that compute it in registers.

    In float32 up to 16384 numbers are summed in float32, with inner products as three passes of the
    tensor cores, which is as accurate; such sums are added up in float64. Deterministic.

    Where points are farther apart than float32 can tell, in lengthscales, it is float64 that they
    are computed in, whatever was asked for; `name` says so.

    Args:
        formula: What k is, with parameters as they stand.
        shapes: Those of all its parameters, in the order in which gradients are wanted.
        X: Shape (n, d), float64.
        dtype: float32, or float64, which takes several times as long.

    Raises:
        ValueError: If the formula is beyond what `can_compute` allows.
    """

    def __init__(
        self,
        formula: Formula,
        shapes: Sequence[torch.Size],
        X: Tensor,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not can_compute(formula):
            raise ValueError("this kernel has too many parts to be fused; use tiles='torch'.")
        self.X, self._shapes, self._scratch = X, shapes, _SCRATCH
        radials = sum(isinstance(f, Radial) for term in formula.terms for f in term.factors)
        first = Layout.of(formula, [0] * radials)
        self._origins = first.origins(X)
        points = first.points(X, self._origins)
        self._centres = [U.mean(0) if len(X) else U.new_zeros(U.shape[1]) for U in points]
        points = [U - c for U, c in zip(points, self._centres, strict=True)]
        reach = _reach(points) if dtype == torch.float32 else []
        self.dtype = torch.float64 if any(r > _HELD for r in reach) else dtype
        self.name = f"triton {str(self.dtype).removeprefix('torch.')}"
        self.roundoff = ROUNDOFF[self.dtype]
        self.layout = Layout.of(formula, self._paddings(formula, reach))
        self._formula = {"FACTORS": self.layout.numbers, "STARTS": self.layout.starts}
        codes = self.layout.codes(X)
        self._known = [[c.sort().values for c in C.mT] for C in codes]
        self._Z, self._C = self._packed(points, len(X)), self._ranked(codes, len(X))
        self._theta = X.new_tensor(self.layout.theta, dtype=self.dtype)

    @torch.no_grad()
    def product(self, V: Tensor, rows: slice | None = None) -> Tensor:
        rows = slice(0, len(self.X)) if rows is None else rows
        return self._multiplied(self._Z, self._C, V, rows, same=True)

    @torch.no_grad()
    def cross(self, X1: Tensor, V: Tensor) -> Tensor:
        points = zip(self.layout.points(X1, self._origins), self._centres, strict=True)
        most = _NOWHERE if self.dtype == torch.float32 else math.inf
        Z = self._packed([(U - c).clamp(-most, most) for U, c in points], len(X1))
        C = self._ranked(self.layout.codes(X1), len(X1))
        return self._multiplied(Z, C, V, slice(0, len(X1)), same=False)

    @torch.no_grad()
    def pullback(self, A: Tensor, B: Tensor, rows: slice | None = None) -> tuple[Tensor, ...]:
        rows = slice(0, len(self.X)) if rows is None else rows
        found: Gradients = {}
        for pair in zip(A.split(_PAIRS, 1), B.split(_PAIRS, 1), strict=True):
            a, b, size = _of_one_size(*(M.mT.to(torch.float64) for M in pair))
            AB, BA = (self._vectors(_filled(torch.cat(both))) for both in ((a, b), (b, a)))
            for some, sums in self._pulled(AB, BA, rows, 2 * len(a)):
                found = added(found, self._gradients(some, sums.mul_(size)))
        return tuple(
            found[i].reshape(shape) if i in found else self.X.new_zeros(shape)
            for i, shape in enumerate(self._shapes)
        )

    def _multiplied(self, Z: Tensor, C: Tensor, V: Tensor, rows: slice, *, same: bool) -> Tensor:
        out = self.X.new_zeros(V.shape[1], rows.stop - rows.start)
        for first in range(0, V.shape[1], WIDEST):
            some = V[:, first : first + WIDEST].mT.to(torch.float64)
            count, some = len(some), _filled(some)
            if self.dtype == torch.float32:
                halves, scale = half_precision(some)
                W = aligned(halves, torch.float16)
            else:
                W, scale = aligned(some, self.dtype), torch.ones_like(some[:, 0])
            place = out[first : first + count]
            self._multiply(place, Z, C, W, rows, same=same)
            place.mul_((scale[:count] * self.layout.bound).unsqueeze(1))
        return out.mT

    def _multiply(
        self, out: Tensor, Z: Tensor, C: Tensor, W: Tensor, rows: slice, *, same: bool
    ) -> None:
        """Write the products of some rows of K with vectors W into `out` (t, h)."""
        from surrogate.tiles import kernels

        T = power_of_2(len(out))

        def launch(sums: Tensor, part: slice, share: int, block: Block) -> None:
            height = part.stop - part.start
            arguments = (Z, self._Z, C, self._C, W, self._theta, part.start, height, len(self.X))
            block.launch(
                kernels.product,
                (-(-height // block.rows), len(sums)),
                (sums, *arguments, share, Z.shape[1], self._Z.shape[1]),
                {**self._formula, "SAME": same, "T": T},
            )

        for part, sums in self._summed(rows, T, T, launch):
            at = slice(part.start - rows.start, part.stop - rows.start)
            out[:, at] = sums[:, : len(out)].mT

    def _pulled(
        self, AB: Tensor, BA: Tensor, rows: slice, count: int
    ) -> Iterator[tuple[slice, Tensor]]:
        """What `kernels.pullback` sums, for some rows after others: (h, W) in float64."""
        from surrogate.tiles import kernels

        W, P = power_of_2(self.layout.width), power_of_2(count)
        formula = {**self._formula, "PLACES": self.layout.places}

        def launch(sums: Tensor, part: slice, share: int, block: Block) -> None:
            height = part.stop - part.start
            arguments = (self._Z, self._C, AB, BA, self._theta, part.start, height, len(self.X))
            block.launch(
                kernels.pullback,
                (-(-height // block.rows), len(sums)),
                (sums, *arguments, share, self._Z.shape[1]),
                {**formula, "P": P, "W": W},
            )

        for part, sums in self._summed(rows, W, W + P, launch):
            yield part, sums.mul_(self.layout.bound)

    def _summed(
        self, rows: slice, width: int, crowd: int, launch: _Launch
    ) -> Iterator[tuple[slice, Tensor]]:
        """Some rows after others, with what a kernel sums for them: (h, width) in float64.

        By the largest tiles for which the device has registers and shared memory, and as many rows
        at once as it has memory for.

        Args:
            rows: Which.
            width: Sums in a row.
            crowd: Columns beside a tile in the memory of a multiprocessor.
            launch: What fills shares of the sums, (shares, h, width), for some rows.
        """
        blocks, start = _blocks(self.dtype, crowd), rows.start
        share = self._share(rows, blocks[0])
        while start < rows.stop and len(self.X):
            block, shares = blocks[0], -(-len(self.X) // share)
            strips = self._scratch // (shares * width * self.dtype.itemsize * block.rows)
            part = slice(start, min(start + max(strips, 1) * block.rows, rows.stop))
            try:
                sums = self._Z.new_empty(shares, part.stop - part.start, width)
                launch(sums, part, share, block)
                total = sums.sum(0, dtype=torch.float64)
            except _out_of_resources():
                blocks = blocks[1:]
                if not blocks:
                    raise
                continue
            except torch.cuda.OutOfMemoryError:  # its name in torch 2.4 too
                if strips <= 1:
                    raise
                sums, self._scratch = None, self._scratch // 2
                continue
            yield part, total
            start = part.stop

    def _share(self, rows: slice, block: Block) -> int:
        """Columns summed by one program: by sizes alone, so that the same data are added up in the
        same order on every device.
        """
        strips = max(1, -(-(rows.stop - rows.start) // block.rows))
        programs = max(1, _PROGRAMS // strips)
        share = max(1, min(_SHARE, len(self.X) // programs))
        return -(-share // block.columns) * block.columns

    def _gradients(self, rows: slice, sums: Tensor) -> Gradients:
        """Gradients in the parameters, of what some rows have summed: (h, W).

        Each pair stands twice in G. So sums over pairs are halved; those that tell how a loss
        changes with one point are not, for they hold what its column has of it too.
        """
        found: Gradients = {}
        origins = iter(self._origins)
        for term, factors, own in self.layout.terms:
            for placed in factors:
                o = next(origins) if isinstance(placed.factor, Radial) else nowhere(self.X)
                found = added(found, self._by_factor(placed, o, rows, sums))
            for scale in term.scales:
                found = added(found, {scale: 0.5 * sums[:, own].sum()})
        return found

    def _by_factor(self, placed: Placed, origin: Tensor, rows: slice, sums: Tensor) -> Gradients:
        factor, own = placed.factor, sums[:, placed.column : placed.column + placed.columns]
        if isinstance(factor, Radial):
            X = self.X[rows] - origin
            # Σ_j H_ij (z_j - z_i), of z as they were rounded: what cancels must be the same.
            Z = self._Z[placed.row : placed.row + factor.width, rows].mT.to(torch.float64)
            if placed.padded not in (0, SPREAD):
                low = placed.row + factor.width
                Z = Z + self._Z[low : low + factor.width, rows].mT
            # The second term is 0 where `kernels` sums differences.
            by_z = own[:, : factor.width] - own[:, factor.width, None] * Z
            found = factor.pullback(X, Z / placed.fold, by_z * placed.fold)
            if factor.by_shape is None:
                return found
            return added(found, {factor.by_shape: 0.5 * own[:, -1].sum()})
        if isinstance(factor, Categories):
            return {factor.parameter: 0.5 * own.sum(0) * factor.weights.to(own.device)}
        tasks = torch.arange(len(factor.covariance), device=own.device)
        hot = (self._C[placed.row, rows].unsqueeze(0) == tasks.unsqueeze(1)).to(torch.float64)
        return factor.pullback((0.5 / placed.size) * hot @ own)

    def _paddings(self, formula: Formula, reach: list[float]) -> list[int]:
        """`Placed.padded` of each radial factor, whose largest ‖z‖² is `reach`."""
        radials = [f for term in formula.terms for f in term.factors if isinstance(f, Radial)]
        if self.dtype == torch.float64:
            return [SPREAD] * len(radials)
        return [_padding(f, r) for f, r in zip(radials, reach, strict=True)]

    def _packed(self, points: list[Tensor], n: int) -> Tensor:
        """Points of all radial factors under each other, one a column."""
        parts: list[Tensor] = []
        for U, (_, placed) in zip(points, self.layout.radials, strict=True):
            z = U.mT.to(self.dtype)
            if placed.padded > 0:
                parts += [
                    halves(z),
                    z.to(torch.float64).square().sum(0, keepdim=True).to(self.dtype),
                ]
            elif placed.padded == FAR:
                parts += [z, (U.mT - z).to(self.dtype)]
            else:
                parts.append(z)
        return aligned(torch.cat(parts) if parts else self.X.new_empty(0, n), self.dtype)

    def _ranked(self, codes: list[Tensor], n: int) -> Tensor:
        """Codes of all other factors under each other."""
        numbers = [
            ranks(C, known) if isinstance(f.factor, Categories) else C.mT
            for C, known, f in zip(codes, self._known, self.layout.others, strict=True)
        ]
        return aligned(torch.cat(numbers) if numbers else self.X.new_empty(0, n), self.dtype)

    def _vectors(self, rows: Tensor) -> Tensor:
        """Vectors (t, n) that tiles are multiplied with."""
        rows = rows.to(self.dtype)
        return aligned(halves(rows) if self.dtype == torch.float32 else rows, self.dtype)


def _reach(points: list[Tensor]) -> list[float]:
    """The largest ‖z‖² among the points of each radial factor, read together."""
    if not points or not len(points[0]):
        return [0.0] * len(points)
    return torch.stack([U.square().sum(1).max() for U in points]).tolist()


def _padding(factor: Radial, reach: float) -> int:
    """`Placed.padded` in float32."""
    smooth = factor.profile not in _CUSPED
    if factor.width >= _PRODUCTS_FROM and smooth and reach <= _REACH:
        return power_of_2(factor.width)
    if reach > _ROUNDED:
        return FAR
    return 0 if factor.width > _DIFFERENCES_TO and reach <= _REACH else SPREAD


def _of_one_size(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A and B (k, n) as numbers that float32 can hold, and what Σ_k a_kᵀ K b_k is then times."""
    a, b = powers_above(A), powers_above(B)
    size = a * b * (A.any(1) & B.any(1))
    most = size.max() if len(size) else size.new_zeros(())
    most = torch.where(most > 0, most, 1.0)
    return A / a.unsqueeze(1) * (size / most).unsqueeze(1), B / b.unsqueeze(1), most


def _filled(rows: Tensor) -> Tensor:
    """Rows (t, n) with zeros under them, up to a power of 2.

    Kernels are compiled for a number of rows: so there are but a few of them.
    """
    return nn.functional.pad(rows, (0, 0, 0, power_of_2(len(rows)) - len(rows)))


def _blocks(dtype: torch.dtype, crowd: int) -> list[Block]:
    """How to launch a kernel, the quickest first; chosen by registers and instructions a pair.

    As compiled for an H100, Matérn-5/2 in 10 dimensions: a product with 16 columns takes 21
    instructions a pair with 64 × 64 entries for 4 warps, of 128 registers, so that 16 warps share a
    multiprocessor; a pullback of 30 takes 40 with 128 × 64 for 8, and 49 with 64 × 32 for 4.
    """
    small = [Block(64, 32), Block(32, 32), Block(32, 16, 2), Block(16, 16, 1)]
    if dtype == torch.float64:
        return small
    if crowd <= 2 * WIDEST:
        return [Block(128, 64, 8) if crowd > WIDEST // 2 else Block(64, 64), Block(64, 64), *small]
    return small


def _out_of_resources() -> type[Exception]:
    """What Triton raises where a tile needs more memory than a multiprocessor has."""
    from triton.runtime.errors import OutOfResources

    return OutOfResources
