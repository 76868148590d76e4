"""The fused kernels: a tile of K is computed in registers, multiplied with, and forgotten.

Written in Triton, for NVIDIA GPUs; with TRITON_INTERPRET=1 in the environment before this file is
imported, they run on a CPU, slowly. Sums are made in two stages: each program writes its own share,
and nothing is added atomically, so that the same numbers give the same bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from surrogate.tiles.entries import (
    CATEGORIES,
    RADIAL,
    RATIONAL_QUADRATIC,
    UNROLLED,
    covariance,
    differences,
    factor,
    halves,
    inner_products,
    rows_of,
)

# Kernels are compiled once, and not anew for numbers that are 1 or multiples of 16.
_SIZES = ["first", "rows", "columns"]


@triton.jit(do_not_specialize=_SIZES)
def product(
    out,
    Z1,
    Z2,
    C1,
    C2,
    V,
    theta,
    first,
    rows,
    columns,
    share,
    stride1,
    stride2,
    FACTORS: tl.constexpr,
    STARTS: tl.constexpr,
    SAME: tl.constexpr,
    T: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """Shares of k(X1, X2) @ Vᵀ: rows `first` on, for T rows of V, each over `share` columns."""
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    i = first + row
    t = tl.arange(0, T)
    start = tl.program_id(1) * share
    acc = tl.zeros((BM, T), Z1.dtype.element_ty)
    for at in range(start, tl.minimum(start + share, columns), BN):
        j = at + tl.arange(0, BN)
        K = covariance(Z1, Z2, C1, C2, theta, i, j, stride1, stride2, FACTORS, STARTS, SAME, BM, BN)
        acc = times_vectors(K, V, j, acc, stride2, T)
    place = (tl.program_id(1).to(tl.int64) * rows + row)[:, None] * T + t[None, :]
    tl.store(out + place, acc, mask=(row < rows)[:, None])


@triton.jit(do_not_specialize=_SIZES)
def pullback(
    out,
    Z,
    C,
    AB,
    BA,
    theta,
    first,
    rows,
    columns,
    share,
    stride,
    FACTORS: tl.constexpr,
    STARTS: tl.constexpr,
    PLACES: tl.constexpr,
    P: tl.constexpr,
    W: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """Shares of what gradients of Σ_ij G_ij k(x_i, x_j) are made of, G = ABᵀ BA, row by row.

    PLACES tells, for each factor and then for each term, the first of its columns among W:

        radial      Σ_j H_ij z_j, as many as z has, and Σ_j H_ij;   H = -2 ∂/∂(u²)
                    where z are spread out Σ_j H_ij (z_j - z_i), and 0
                    and then Σ_j G_ij ∂k_ij/∂(log α) for a rational quadratic
        categories  Σ_j G_ij k_ij [c_i ≠ c_j], one for each input
        tasks       Σ_j [t_j = t'] ∂/∂C, one for each task t'
        term        Σ_j G_ij k_ij
    """
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    i = first + row
    w = tl.arange(0, W)
    start = tl.program_id(1) * share
    acc = tl.zeros((BM, W), Z.dtype.element_ty)
    for at in range(start, tl.minimum(start + share, columns), BN):
        j = at + tl.arange(0, BN)
        G = inner_products(AB, BA, 0, i, j, stride, stride, P, P, BM, BN)
        for q in tl.static_range(len(STARTS) - 1):
            GC = G * tl.load(theta + q)
            for f in tl.static_range(tl.constexpr(STARTS[q]), tl.constexpr(STARTS[q + 1])):
                rest = GC
                for g in tl.static_range(tl.constexpr(STARTS[q]), tl.constexpr(STARTS[q + 1])):
                    if g != f:
                        other, _, _ = factor(
                            Z, Z, C, C, theta, i, j, stride, stride, FACTORS, 8 * g, True, BM, BN
                        )
                        rest = rest * other
                value, weight, slope = factor(
                    Z, Z, C, C, theta, i, j, stride, stride, FACTORS, 8 * f, True, BM, BN
                )
                k = w - PLACES[f]
                if FACTORS[8 * f] == RADIAL:
                    H = rest * weight
                    if FACTORS[8 * f + 4] < 0:
                        acc = times_differences(H, Z, FACTORS, 8 * f, k, i, j, stride, acc)
                    else:
                        z = points_among(Z, FACTORS, 8 * f, k, j, stride)
                        acc = times_points(H, z, acc)
                        sums = tl.sum(H, 1)
                        acc += tl.where((k == FACTORS[8 * f + 3])[None, :], sums[:, None], 0.0)
                    if FACTORS[8 * f + 1] == RATIONAL_QUADRATIC:
                        sums = tl.sum(rest * slope, 1)
                        acc += tl.where((k == FACTORS[8 * f + 3] + 1)[None, :], sums[:, None], 0.0)
                elif FACTORS[8 * f] == CATEGORIES:
                    both = rest * value
                    for c in tl.static_range(tl.constexpr(FACTORS[8 * f + 2])):
                        one = tl.load(C + (FACTORS[8 * f + 1] + c) * stride + i)
                        two = tl.load(C + (FACTORS[8 * f + 1] + c) * stride + j)
                        differs = one[:, None] != two[None, :]
                        sums = tl.sum(tl.where(differs, both, 0.0), 1)
                        acc += tl.where((k == c)[None, :], sums[:, None], 0.0)
                else:
                    task = tl.load(C + FACTORS[8 * f + 1] * stride + j).to(tl.int32)
                    hot = tl.where(k[None, :] == task[:, None], 1.0, 0.0).to(Z.dtype.element_ty)
                    acc = times_points(rest, hot, acc)
                if f == STARTS[q + 1] - 1:
                    sums = tl.sum(rest * value, 1)
                    own = PLACES[STARTS[len(STARTS) - 1] + q]
                    acc += tl.where((w == own)[None, :], sums[:, None], 0.0)
    place = (tl.program_id(1).to(tl.int64) * rows + row)[:, None] * W + w[None, :]
    tl.store(out + place, acc, mask=(row < rows)[:, None])


@triton.jit
def times_vectors(K, V, j, acc, stride, T: tl.constexpr):
    """acc + K Vᵀ for K (BM, BN) and V (T, n) at columns j.

    In float32 numbers of at most 1 are two in float16, x = x₁ + x₂ / 2048, which is 22 bits of
    each, and more of small ones; V comes so, second halves T rows below the first. Tensor cores
    take these from the registers that K is computed in. They round sums towards 0 (Ootomo & Yokota,
    2022): 16384 columns added up in them are off by 2e-5, but by 2e-7 if tiles are added to each
    other outside of them, so `acc` is not given to `tl.dot`.
    """
    t = tl.arange(0, T)
    v = tl.trans(rows_of(V, 0, t, j, stride, T))
    if K.dtype == tl.float32:
        first = K.to(tl.float16)
        second = ((K - first.to(tl.float32)) * 2048.0).to(tl.float16)
        low = tl.dot(first, tl.trans(rows_of(V, T, t, j, stride, T)))
        low = tl.dot(second, v, low)
        acc += tl.dot(first, v, low * (1.0 / 2048.0))
    else:
        acc = tl.dot(K, v, acc, input_precision="ieee", out_dtype=tl.float64)
    return acc


@triton.jit
def points_among(Z, FACTORS: tl.constexpr, AT: tl.constexpr, k, j, stride):
    """z_j of a radial factor in its own of many columns, 0 in the others: (len(j), len(k))."""
    own = (k >= 0) & (k < FACTORS[AT + 3])
    at = Z + (FACTORS[AT + 2] + k)[None, :] * stride + j[:, None]
    z = tl.load(at, mask=own[None, :], other=0.0)
    if FACTORS[AT + 4] > 0:  # what is left of it by the first halves
        z += tl.load(at + FACTORS[AT + 3] * stride, mask=own[None, :], other=0.0)
    return z


@triton.jit
def times_differences(H, Z, FACTORS: tl.constexpr, AT: tl.constexpr, k, i, j, stride, acc):
    """acc + Σ_j H_ij (z_j - z_i) of a radial factor, in its own of many columns."""
    if FACTORS[AT + 3] <= UNROLLED:
        for c in tl.static_range(tl.constexpr(FACTORS[AT + 3])):
            d = differences(
                Z, Z, i, j, stride, stride, FACTORS[AT + 2] + c, FACTORS[AT + 3], FACTORS[AT + 4]
            )
            sums = tl.sum(H * d, 1)
            acc -= tl.where((k == c)[None, :], sums[:, None], 0.0)
    else:
        for c in range(tl.constexpr(FACTORS[AT + 3])):
            d = differences(
                Z, Z, i, j, stride, stride, FACTORS[AT + 2] + c, FACTORS[AT + 3], FACTORS[AT + 4]
            )
            sums = tl.sum(H * d, 1)
            acc -= tl.where((k == c)[None, :], sums[:, None], 0.0)
    return acc


@triton.jit
def times_points(H, z, acc):
    """acc + H z, as accurate as the type is; on `acc` see `times_vectors`."""
    if H.dtype == tl.float32:
        H_high, H_low = halves(H)
        high, low = halves(z)
        tile = tl.dot(H_low, high, input_precision="tf32")
        tile = tl.dot(H_high, low, tile, input_precision="tf32")
        acc += tl.dot(H_high, high, tile, input_precision="tf32")
    else:
        acc = tl.dot(H, z, acc, input_precision="ieee", out_dtype=tl.float64)
    return acc
