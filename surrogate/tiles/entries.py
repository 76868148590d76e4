"""Entries of K in the registers of a GPU: what fused kernels are made of, in Triton.

What a formula is comes as tuples of numbers, known when a kernel is compiled. A factor is one of

    (RADIAL, profile, first row of its points, how many, padded to, place in theta, q, j)
        padded to: 0 where distances are differences of points, SPREAD where gradients are too, FAR
        where also what is left of points by rounding is used
    (CATEGORIES, first row of its codes, how many, place of its weights in theta, 0, 0, 0, 0)
    (TASKS, row of its codes, how many tasks, place of its table in theta, 0, 0, 0, 0)

and FACTORS holds those of all terms after each other, eight for each; STARTS tells which one is the
first of each term, and how many there are. theta starts with the scale of each term. (Triton before
3.8 compiles no tuples of tuples, and what it finds in a tuple has to be made a constexpr again.)
Points are columns of a (rows, stride) matrix in memory, zero where it is padded; so are codes.
"""

from __future__ import annotations

import triton
import triton.language as tl

RADIAL = tl.constexpr(0)
CATEGORIES = tl.constexpr(1)
TASKS = tl.constexpr(2)

# Profiles, in the order of `formula.PROFILES`.
RBF = tl.constexpr(0)
MATERN12 = tl.constexpr(1)
MATERN32 = tl.constexpr(2)
MATERN52 = tl.constexpr(3)
RATIONAL_QUADRATIC = tl.constexpr(4)
PIECEWISE = tl.constexpr(5)

LN2 = tl.constexpr(0.6931471805599453)
# In place of what points are padded to, as in `layout`.
SPREAD = tl.constexpr(-1)
FAR = tl.constexpr(-2)

# Coordinates whose differences are written out one after another. The compiler reads those of rows
# ahead of the loop over columns: in float64 64 of them took 37 KB a thread, and 24 s to compile.
UNROLLED = tl.constexpr(8)

COINCIDENT = tl.constexpr(1e-15)  # r below which points coincide: a cusp has slope 0 there


@triton.jit
def halves(values):
    """Values in float32 as the sum of two that tensor cores multiply without rounding them."""
    high = (values.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
    return high, values - high


@triton.jit
def rows_of(M, first, k, j, stride, COUNT: tl.constexpr):
    """Rows first + k of a matrix at columns j, 0 for k beyond COUNT: shape (len(k), len(j))."""
    at = M + (first + k)[:, None] * stride + j[None, :]
    return tl.load(at, mask=(k < COUNT)[:, None], other=0.0)


@triton.jit
def inner_products(
    A,
    B,
    first,
    i,
    j,
    stride1,
    stride2,
    COUNT: tl.constexpr,
    PADDED: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """Σ_k A_ki B_kj over COUNT rows from `first` on, shape (BM, BN).

    In float32 the second of two `halves` of each row is COUNT rows below the first.
    """
    k = tl.arange(0, PADDED)
    acc = tl.zeros((BM, BN), A.dtype.element_ty)
    a = tl.trans(rows_of(A, first, k, i, stride1, COUNT))
    b = rows_of(B, first, k, j, stride2, COUNT)
    if acc.dtype == tl.float32:
        a_low = tl.trans(rows_of(A, first + COUNT, k, i, stride1, COUNT))
        b_low = rows_of(B, first + COUNT, k, j, stride2, COUNT)
        acc = tl.dot(a_low, b, acc, input_precision="tf32")
        acc = tl.dot(a, b_low, acc, input_precision="tf32")
        acc = tl.dot(a, b, acc, input_precision="tf32")
    else:
        acc = tl.dot(a, b, acc, input_precision="ieee", out_dtype=tl.float64)
    return acc


@triton.jit
def differences(
    Z1,
    Z2,
    i,
    j,
    stride1,
    stride2,
    ROW,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
):
    """z_i - z_j in one coordinate, shape (len(i), len(j)).

    Where PADDED is FAR, what rounding took of a coordinate is WIDTH rows below it.
    """
    a = tl.load(Z1 + ROW * stride1 + i)
    b = tl.load(Z2 + ROW * stride2 + j)
    difference = a[:, None] - b[None, :]
    if PADDED == FAR:
        a = tl.load(Z1 + (ROW + WIDTH) * stride1 + i)
        b = tl.load(Z2 + (ROW + WIDTH) * stride2 + j)
        difference += a[:, None] - b[None, :]
    return difference


@triton.jit
def squared_distances(
    Z1,
    Z2,
    i,
    j,
    stride1,
    stride2,
    FIRST: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    SAME: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """‖z_i - z_j‖², shape (BM, BN): by products where PADDED > 0, else by direct differences."""
    if PADDED <= 0:
        u2 = tl.zeros((BM, BN), Z1.dtype.element_ty)
        if WIDTH <= UNROLLED:
            for k in tl.static_range(WIDTH):
                difference = differences(Z1, Z2, i, j, stride1, stride2, FIRST + k, WIDTH, PADDED)
                u2 += difference * difference
        else:
            for k in range(WIDTH):
                difference = differences(Z1, Z2, i, j, stride1, stride2, FIRST + k, WIDTH, PADDED)
                u2 += difference * difference
    else:
        inner = inner_products(Z1, Z2, FIRST, i, j, stride1, stride2, WIDTH, PADDED, BM, BN)
        a = tl.load(Z1 + (FIRST + 2 * WIDTH) * stride1 + i)  # ‖z‖²
        b = tl.load(Z2 + (FIRST + 2 * WIDTH) * stride2 + j)
        u2 = tl.maximum(a[:, None] + b[None, :] - 2.0 * inner, 0.0)
        if SAME:
            u2 = tl.where(i[:, None] == j[None, :], 0.0, u2)
    return u2


@triton.jit
def radial(u2, theta, PROFILE: tl.constexpr, PLACE: tl.constexpr, Q: tl.constexpr, J: tl.constexpr):
    """ρ, -2 dρ/d(u²), and dρ/d(log α) where there is an α: each of the shape of u².

    Points of all but the last two profiles come scaled so that exponentials are powers of 2.
    """
    slope = u2
    if PROFILE == RBF:
        rho = tl.exp2(-u2)
        weight = (2.0 * LN2) * rho
    elif PROFILE == MATERN12:
        r = tl.sqrt(u2)
        rho = tl.exp2(-r)
        weight = tl.where(r > COINCIDENT, LN2 * rho / tl.maximum(r, COINCIDENT), 0.0)
    elif PROFILE == MATERN32:
        r = tl.sqrt(u2)
        decay = tl.exp2(-r)
        rho = (LN2 * r + 1.0) * decay
        weight = (LN2 * LN2) * decay
    elif PROFILE == MATERN52:
        r = tl.sqrt(u2)
        decay = tl.exp2(-r)
        linear = LN2 * r + 1.0
        rho = ((LN2 * LN2 / 3.0) * u2 + linear) * decay
        weight = (LN2 * LN2 / 3.0) * (linear * decay)
    elif PROFILE == RATIONAL_QUADRATIC:
        alpha = tl.load(theta + PLACE)
        t = u2 * (0.5 / alpha)
        w = 1.0 + t
        # log(1 + t) with an error relative to t: what rounding took from 1 + t it takes from t too.
        log = tl.where(w == 1.0, t, tl.log(w) * (t / tl.where(w == 1.0, 1.0, w - 1.0)))
        rho = tl.exp(-alpha * log)
        weight = rho / w
        # t / (1 + t) - log(1 + t): of small t as a series, for in the difference digits are lost.
        small: tl.constexpr = 0.0625 if u2.dtype == tl.float32 else 0.001
        s = tl.minimum(t, small)
        series = 0.75 - s * (0.8 - s * (5.0 / 6.0 - s * (6.0 / 7.0 - s * 0.875)))
        series = s * s * (s * (2.0 / 3.0 - s * series) - 0.5)
        slope = alpha * rho * tl.where(t < small, series, t / w - log)
    else:
        r = tl.minimum(tl.sqrt(u2), 1.0)
        left = 1.0 - r
        power = left * 0.0 + 1.0  # left^(J + Q - 1)
        for _ in tl.static_range(J + Q - 1):
            power = power * left
        if Q == 0:
            rho = power * left
            inside = (r > COINCIDENT) & (r < 1.0)
            weight = tl.where(inside, J * power / tl.maximum(r, COINCIDENT), 0.0)
        elif Q == 1:
            rho = power * left * ((J + 1.0) * r + 1.0)
            weight = power * ((J + 1.0) * (J + 2.0))
        elif Q == 2:
            third: tl.constexpr = (J * J + 4.0 * J + 3.0) / 3.0
            rho = power * left * ((third * r + (J + 2.0)) * r + 1.0)
            weight = power * ((J + 3.0) * (J + 4.0) / 3.0) * ((J + 1.0) * r + 1.0)
        else:
            third: tl.constexpr = (6.0 * J * J + 36.0 * J + 45.0) / 15.0
            fourth: tl.constexpr = (J * J * J + 9.0 * J * J + 23.0 * J + 15.0) / 15.0
            rho = power * left * (((fourth * r + third) * r + (J + 3.0)) * r + 1.0)
            below = ((J * J + 4.0 * J + 3.0) / 3.0 * r + (J + 2.0)) * r + 1.0
            weight = power * ((J + 5.0) * (J + 6.0) / 5.0) * below
    return rho, weight, slope


@triton.jit
def factor(
    Z1,
    Z2,
    C1,
    C2,
    theta,
    i,
    j,
    stride1,
    stride2,
    FACTORS: tl.constexpr,
    AT: tl.constexpr,
    SAME: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """The factor whose numbers start at AT, and what `radial` tells besides where it is one."""
    if FACTORS[AT] == RADIAL:
        u2 = squared_distances(
            Z1,
            Z2,
            i,
            j,
            stride1,
            stride2,
            FACTORS[AT + 2],
            FACTORS[AT + 3],
            FACTORS[AT + 4],
            SAME,
            BM,
            BN,
        )
        value, weight, slope = radial(
            u2, theta, FACTORS[AT + 1], FACTORS[AT + 5], FACTORS[AT + 6], FACTORS[AT + 7]
        )
    elif FACTORS[AT] == CATEGORIES:
        exponent = tl.zeros((BM, BN), Z1.dtype.element_ty)
        for k in tl.static_range(tl.constexpr(FACTORS[AT + 2])):
            a = tl.load(C1 + (FACTORS[AT + 1] + k) * stride1 + i)
            b = tl.load(C2 + (FACTORS[AT + 1] + k) * stride2 + j)
            exponent += tl.where(
                a[:, None] != b[None, :], tl.load(theta + FACTORS[AT + 3] + k), 0.0
            )
        value = tl.exp(-exponent)
        weight, slope = value, value
    else:
        a = tl.load(C1 + FACTORS[AT + 1] * stride1 + i).to(tl.int32)
        b = tl.load(C2 + FACTORS[AT + 1] * stride2 + j).to(tl.int32)
        value = tl.load(theta + FACTORS[AT + 3] + a[:, None] * FACTORS[AT + 2] + b[None, :])
        weight, slope = value, value
    return value, weight, slope


@triton.jit
def covariance(
    Z1,
    Z2,
    C1,
    C2,
    theta,
    i,
    j,
    stride1,
    stride2,
    FACTORS: tl.constexpr,
    STARTS: tl.constexpr,
    SAME: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """k(x_i, x_j), shape (BM, BN); a single term without its scale."""
    K, _, _ = factor(Z1, Z2, C1, C2, theta, i, j, stride1, stride2, FACTORS, 0, SAME, BM, BN)
    for f in tl.static_range(1, tl.constexpr(STARTS[1])):
        value, _, _ = factor(
            Z1, Z2, C1, C2, theta, i, j, stride1, stride2, FACTORS, 8 * f, SAME, BM, BN
        )
        K = K * value
    if len(STARTS) > 2:
        K = K * tl.load(theta)
    for q in tl.static_range(1, len(STARTS) - 1):
        term, _, _ = factor(
            Z1, Z2, C1, C2, theta, i, j, stride1, stride2, FACTORS, 8 * STARTS[q], SAME, BM, BN
        )
        for f in tl.static_range(tl.constexpr(STARTS[q] + 1), tl.constexpr(STARTS[q + 1])):
            value, _, _ = factor(
                Z1, Z2, C1, C2, theta, i, j, stride1, stride2, FACTORS, 8 * f, SAME, BM, BN
            )
            term = term * value
        K += tl.load(theta + q) * term
    return K
