"""Products of tensor cores, emulated: what an interpreter, which rounds nothing, cannot show.

Tensor cores take 11 bits of a number, in tf32 or float16, multiply exactly and add up in float32,
rounding towards 0. So numbers come as sums of two.
"""

import math

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from oracles import normal, uniform
from torch import Tensor

from surrogate.tiles.entries import halves as halves_in_a_kernel
from surrogate.tiles.layout import half_precision, halves, powers_above


@triton.jit
def both_halves(out, x, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    high, low = halves_in_a_kernel(tl.load(x + at))
    tl.store(out + at, high)
    tl.store(out + SIZE + at, low)


LOST_BITS = 13  # of float32 in tf32


def tf32(x: np.ndarray) -> np.ndarray:
    """As the hardware reads it: the last bits of float32 cut off."""
    return (x.astype(np.float32).view(np.int32) & -(1 << LOST_BITS)).view(np.float32)


def towards_0(x: np.ndarray) -> np.ndarray:
    """float64 cut off to the 24 bits of float32."""
    return (x.astype(np.float64).view(np.int64) & -(1 << 29)).view(np.float64)


def tensor_core(
    A: np.ndarray, B: np.ndarray, C: np.ndarray | float = 0.0, k: int = 8
) -> np.ndarray:
    """A B + C for operands that are as short as they have to be, k products at a time."""
    total = np.zeros((len(A), B.shape[1])) + C
    for at in range(0, A.shape[1], k):
        part = slice(at, at + k)
        total = towards_0(total + A[:, part].astype(np.float64) @ B[part].astype(np.float64))
    return total


def split(M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`halves` of the host, as tensor cores read them."""
    high, low = halves(torch.from_numpy(M.astype(np.float32))).numpy().reshape(2, *M.shape)
    return tf32(high), tf32(low)


def float32_samples(rng: torch.Generator) -> Tensor:
    x = normal(rng, 40, 50).float() * torch.logspace(-30, 30, 40).unsqueeze(1)
    x[0, :4] = torch.tensor([0.0, -0.0, 1.0, -(2.0**-100)])
    return x


# --------------------------------------------------------------------------------------
# Two halves.
# --------------------------------------------------------------------------------------


def assert_halves(x: Tensor, high: Tensor, low: Tensor) -> None:
    assert torch.equal(high + low, x)
    assert not (high.view(torch.int32) & (2**LOST_BITS - 1)).any()
    # Cut off to what tensor cores read, both together are off by 2^-21 at most.
    read = torch.from_numpy(tf32(low.numpy()))
    assert (low.double() - read.double()).abs().le(2.0**-21 * x.double().abs()).all()
    assert ((low.double() - read.double()).abs() > 2.0**-23 * x.double().abs()).any()


def test_halves_are_read_whole_and_nearly_whole(rng):
    x = float32_samples(rng)
    high, low = halves(x).split(len(x))
    assert_halves(x, high, low)
    transposed = halves(x.mT)  # not in one piece in memory
    assert torch.equal(transposed[: x.shape[1]], high.mT)


def test_halves_made_in_a_kernel_are_those_of_the_host(rng):
    x = float32_samples(rng).reshape(-1)[:1024].contiguous()
    out = torch.empty(2048)
    both_halves[(1,)](out, x, SIZE=1024)
    assert torch.equal(out.view(2, -1), halves(x.unsqueeze(0)).view(2, -1))
    assert_halves(x, *out.view(2, -1))


def test_two_float16_hold_22_bits_and_a_power_of_2(rng):
    rows = normal(rng, 6, 500) * torch.logspace(-300, 300, 6, dtype=torch.float64).unsqueeze(1)
    rows[3] = 0.0
    rows[4] = 2.0**60  # the power itself
    numbers, scale = half_precision(rows)
    assert numbers.dtype == torch.float16 and numbers.isfinite().all()
    first, second = numbers.double().split(6)
    assert torch.equal(scale.log2(), scale.log2().round()) and first.abs().max() <= 1.0
    assert second.abs().max() <= 0.5 * 2**11 * 2.0**-11 * 1.0001
    error = ((first + second / 2048) * scale.unsqueeze(1) - rows).abs()
    assert (error <= (2.0**-22 * rows.abs()).clamp_min(2.0**-36 * scale.unsqueeze(1))).all()
    assert not first[3].any() and scale[3] == 1.0
    assert torch.equal(first[4], torch.ones(500).double())


def test_powers_above_are_the_least_there_are(rng):
    rows = torch.tensor([[0.0, 0.0], [3.0, -5.0], [4.0, 1.0], [1e-300, 0.0], [1.7e308, 0.0]])
    rows = rows.double()
    rows[3, 0], rows[4, 0] = 1e-300, 1.7e308
    expected = [1.0, 8.0, 4.0, 2.0**-996, 2.0**1023]  # 2^1024 would be infinite
    assert powers_above(rows).tolist() == expected
    assert powers_above(rows[:, :0]).tolist() == [1.0] * 5


# --------------------------------------------------------------------------------------
# Whole products.
# --------------------------------------------------------------------------------------


def squared_distances(Z: np.ndarray, *, is_split: bool) -> np.ndarray:
    """As `entries.squared_distances` makes them by products, of z (n, d) in float32."""
    high, low = split(Z) if is_split else (tf32(Z), np.zeros_like(Z))
    inner = tensor_core(low, high.T)
    inner = tensor_core(high, low.T, inner)
    inner = tensor_core(high, high.T, inner).astype(np.float32)
    norms = np.square(Z.astype(np.float64)).sum(1).astype(np.float32)
    u2 = np.maximum(norms[:, None] + norms - np.float32(2.0) * inner, np.float32(0.0))
    np.fill_diagonal(u2, 0.0)
    return u2


def times_vectors(K: np.ndarray, V: np.ndarray, *, is_split: bool, is_carried: bool) -> np.ndarray:
    """K V as `kernels.product` makes it of K (m, n) in float32, 64 columns at a time."""
    numbers, scale = half_precision(torch.from_numpy(V.T.copy()))
    v1, v2 = (half.numpy().T for half in numbers.split(V.shape[1]))
    acc = np.zeros((len(K), V.shape[1]))
    for at in range(0, K.shape[1], 64):
        part = slice(at, at + 64)
        first = K[:, part].astype(np.float16)
        second = ((K[:, part] - first.astype(np.float32)) * np.float32(2048)).astype(np.float16)
        low = np.zeros_like(acc)
        if is_split:
            low = tensor_core(first, v2[part], k=16)
            low = tensor_core(second, v1[part], low, k=16) / 2048
        if is_carried:  # all the way in the tensor cores
            acc = tensor_core(first, v1[part], towards_0(acc + low), k=16)
        else:
            tile = tensor_core(first, v1[part], low, k=16)
            acc = (acc.astype(np.float32) + tile.astype(np.float32)).astype(np.float64)
    return acc * scale.numpy()


def matern52(u2: np.ndarray) -> np.ndarray:
    """In the type of u², with points scaled as `layout` has them."""
    log2 = u2.dtype.type(math.log(2))
    r = np.sqrt(u2)
    return (log2 * log2 / 3 * u2 + (log2 * r + 1)) * np.exp2(-r)


def off(received: np.ndarray, K: np.ndarray, V: np.ndarray) -> float:
    """The error of K V relative to |K| |v|."""
    return float((np.linalg.norm(received - K @ V, axis=0) / np.linalg.norm(V, axis=0)).max()
                 / np.linalg.norm(K, 2))  # fmt: skip


@pytest.mark.parametrize("d", [10, 33, 64])
def test_products_by_tensor_cores_are_as_accurate_as_float32(d, rng):
    n, t = 512, 4
    points = uniform(rng, n, d)
    points -= points.mean(0)
    points[n // 2 :] = (
        points[: n // 2] + 0.02 * points[n // 2 :]
    )  # near pairs: there, digits cancel
    Z = (points * (8 / points.norm(dim=1).max())).numpy()  # as far as products are used for
    V = normal(rng, n, t).numpy()
    exact = matern52(np.square(Z[:, None] - Z).sum(-1))

    def product(*, points: bool, vectors: bool) -> np.ndarray:
        K = matern52(squared_distances(Z.astype(np.float32), is_split=points))
        return times_vectors(K, V, is_split=vectors, is_carried=False)

    assert off(product(points=True, vectors=True), exact, V) < 1e-6
    # Without the second halves of either.
    assert off(product(points=False, vectors=True), exact, V) > 1e-4
    assert off(product(points=True, vectors=False), exact, V) > 1e-5


def test_entries_of_near_points_keep_their_digits(rng):
    # Products lose most where ‖z‖² is large and the distance small.
    Z = uniform(rng, 300, 10).numpy()
    Z = 8 * Z / np.linalg.norm(Z, axis=1, keepdims=True)
    Z[150:] = Z[:150] + 0.3 * uniform(rng, 150, 10).numpy() / math.sqrt(10)
    exact = matern52(np.square(Z[:, None] - Z).sum(-1))
    errors = {
        is_split: np.abs(
            matern52(squared_distances(Z.astype(np.float32), is_split=is_split)) - exact
        )
        for is_split in (True, False)
    }
    assert errors[True].max() < 1e-5
    assert errors[False].max() > 1000 * errors[True].max()


def test_many_columns_are_added_up_outside_of_tensor_cores(rng):
    K, V = uniform(rng, 16, 2**14).numpy(), np.ones((2**14, 1))
    K = K.astype(np.float32)
    exact = K.astype(np.float64) @ V
    tiles, carried = (
        times_vectors(K, V, is_split=True, is_carried=is_carried) for is_carried in (False, True)
    )
    assert np.abs(tiles / exact - 1).max() < 1e-6
    assert np.abs(carried / exact - 1).min() > 1e-5
