"""What a device does otherwise, so that large data take neither too long nor too much memory."""

from __future__ import annotations

import pytest
import torch
from pretended_device import DEVICE, pretended_device
from torch import Tensor

import surrogate.models.paths as paths_module
import surrogate.solvers.bbmm as bbmm_module
from surrogate import BBMM, ExactGP, Hamming, Matern52
from surrogate.operators import KernelOperator
from surrogate.solvers import Preconditioner, preconditioners
from surrogate.solvers.pivots import Structure, clusters
from surrogate.tiles import TorchTiles, plain
from surrogate.tiles.choose import tiles_for
from surrogate.workspace import Workspace


def data(n: int, d: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    X = torch.rand(n, d, generator=generator, dtype=torch.float64)
    return X, torch.sin(5 * X).sum(1)


@pytest.mark.parametrize("noise", [1e-1, 1e-4])
def test_no_eigenvalue_is_above_the_bound_of_a_device_nor_far_below(noise):
    X, _ = data(60)
    K = Matern52(2, 0.3)(X, X).detach()
    A = torch.stack([K[:20, :20], K[20:40, 20:40], K[40:, 40:]]) / noise + torch.eye(20)
    largest = float(torch.linalg.eigvalsh(A).max())
    with pretended_device():
        bound = preconditioners._largest_eigenvalue(A.to(DEVICE))
        nothing = preconditioners._largest_eigenvalue(torch.zeros(2, 3, 3).to(DEVICE))
    assert largest <= bound <= largest * 20 ** (1 / 64) * (1 + 1e-6)
    assert nothing == 0.0


def test_many_small_factors_are_inverted_alike():
    X, _ = data(40)
    K = Matern52(2, 0.3)(X, X).detach() + 0.1 * torch.eye(40)
    factor = torch.linalg.cholesky(torch.stack([K[:20, :20], K[20:, 20:]]))
    with pretended_device():
        found = preconditioners._inverses(factor.to(DEVICE)).cpu()
    torch.testing.assert_close(found, torch.cholesky_inverse(factor), rtol=1e-10, atol=1e-12)


def test_bounds_of_a_device_hold_and_are_little_wider():
    X, _ = data(80)
    index, noise = clusters(X, 16), torch.full((80,), 1e-2)
    K = KernelOperator(Matern52(2, 0.3), X)
    here = preconditioners.Preconditioner(K, noise.double(), Structure(torch.arange(0), index))
    identity = torch.eye(80, dtype=torch.float64)
    C = torch.linalg.cholesky(here.solve(identity))  # P⁻¹ = C Cᵀ
    least = float(torch.linalg.eigvalsh(C.mT @ (K.rows(torch.arange(80)) + 0.01 * identity) @ C)[0])
    with pretended_device():
        away = preconditioners.Preconditioner(
            KernelOperator(Matern52(2, 0.3), X.to(DEVICE)),
            noise.double().to(DEVICE),
            Structure(torch.arange(0).to(DEVICE), index.to(DEVICE)),
        )
        floor = away.floor
    assert floor <= least * (1 + 1e-9)
    assert here.floor * 16 ** (-1 / 64) * (1 - 1e-6) <= floor <= here.floor * (1 + 1e-12)


@pytest.mark.parametrize("make", [lambda: Matern52(2, 0.4), lambda: Matern52(2, 0.4) * Hamming(2)])
def test_blocks_made_together_are_those_made_one_by_one(make, monkeypatch):
    monkeypatch.setattr("surrogate.operators.kernel._AT_ONCE", 40)  # two blocks at once
    X = (3 * data(30)[0]).floor()
    index = torch.arange(25).view(5, 5)[:, :4]
    here = KernelOperator(make(), X, storage="tiles").blocks(index)
    with pretended_device() as device:
        K = KernelOperator(make(), X.to(DEVICE), storage="tiles")
        index = index.to(DEVICE)
        device.forget()
        away = K.blocks(index)
        assert device.waits == 0
        torch.testing.assert_close(away.cpu(), here, rtol=1e-12, atol=1e-13)
        assert K.blocks(index[:0]).shape == (0, 4, 4)


def test_rows_are_made_in_little_memory(monkeypatch):
    """What they are made in is kept for later: of many rows at once, as much as they take."""
    monkeypatch.setattr("surrogate.operators.kernel._AT_ONCE", 100)  # three rows of 30
    X = data(30)[0]
    index = torch.tensor([3, 7, 0, 29, 11, 7, 8])
    here = KernelOperator(Matern52(2, 0.4), X, storage="tiles").rows(index)
    with pretended_device():
        memory = Workspace(DEVICE)
        K = KernelOperator(Matern52(2, 0.4), X.to(DEVICE), storage="tiles", workspace=memory)
        away = K.rows(index.to(DEVICE))
        torch.testing.assert_close(away.cpu(), here, rtol=1e-12, atol=1e-13)
        kept = memory.child("kernel")._memory.values()
        assert kept and max(len(buffer) for buffer in kept) <= 100


def test_a_wide_block_is_divided_a_few_columns_at_a_time(monkeypatch):
    X = data(60)[0]
    K, noise = KernelOperator(Matern52(2, 0.4), X), torch.full((60,), 0.01).double()
    P = Preconditioner(K, noise, Structure(torch.arange(0, 60, 7), clusters(X, 8)))
    B = torch.randn(60, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole, bounds = P.solve(B), P.logdet_bounds
    monkeypatch.setattr(preconditioners, "_AT_ONCE", 120)  # two columns, or two rows of L
    del vars(P)["logdet_bounds"]
    padded, sizes = preconditioners._padded, []
    monkeypatch.setattr(
        preconditioners,
        "_padded",
        lambda R, *rest: sizes.append(R.shape[1]) or padded(R, *rest),
    )
    torch.testing.assert_close(P.solve(B), whole, rtol=1e-12, atol=1e-12)
    assert sizes == [2, 2, 2, 2, 1]
    assert P.logdet_bounds == pytest.approx(bounds, rel=1e-12)


def test_the_rank_of_a_preconditioner_fits_into_memory(monkeypatch):
    monkeypatch.setattr(bbmm_module, "default_budget", lambda device: 8 * 2**30)
    ranks = [BBMM().rank_for(n) for n in (100, 10_000, 250_000, 10**6, 10**7, 10**9)]
    assert ranks == [64, 1000, 1431, 357, 35, 1]
    assert BBMM(rank=500).rank_for(10**7) == 500


class Hungry:
    """A kernel that needs more memory than there is for tiles above a size."""

    def __init__(self, most: int) -> None:
        self.kernel, self.most, self.asked = Matern52(2, 0.4), most, []

    def evaluate(self, X1, X2, out, workspace=None):
        self.asked.append(out.shape)
        if out.numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.kernel.evaluate(X1, X2, out, workspace)

    def linearise(self, X1, X2, workspace=None):
        if len(X1) * len(X2) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.kernel.linearise(X1, X2, workspace)


def test_tiles_become_smaller_until_they_fit_and_stay_so(monkeypatch):
    monkeypatch.setattr(plain, "_LEAST", 4)
    monkeypatch.setattr(plain, "_ON_CPU", (32, 64))
    X, y = data(90)
    V, kernel = torch.stack([y, y.square()], 1), Hungry(8 * 16)
    tiles = TorchTiles(kernel, X)
    K = kernel.kernel(X, X).detach()
    torch.testing.assert_close(tiles.product(V), K @ V)
    assert tiles.shape == (8, 16)
    before = len(kernel.asked)
    torch.testing.assert_close(tiles.cross(X[:7], V), K[:7] @ V)
    assert all(shape.numel() <= 128 for shape in kernel.asked[before:])
    expected = TorchTiles(kernel.kernel, X).pullback(V, V)
    for found, one in zip(TorchTiles(kernel, X).pullback(V, V), expected, strict=True):
        torch.testing.assert_close(found, one)


def test_what_does_not_fit_at_all_is_told(monkeypatch):
    X, y = data(90)
    with pytest.raises(torch.OutOfMemoryError):
        TorchTiles(Hungry(0), X).product(y.unsqueeze(1))


def test_sample_paths_by_fused_tiles_are_the_same_functions(monkeypatch):
    X, y = data(40)
    posterior = ExactGP(Matern52(2, 0.4), noise=0.01).condition(X, y)
    at = data(9)[0]
    draws = [posterior.sample_paths(3, torch.Generator().manual_seed(0), 64) for _ in range(2)]
    expected = draws[0](at)
    monkeypatch.setattr(paths_module, "is_fused", lambda kernel, device: True)
    monkeypatch.setattr(
        paths_module, "tiles_for", lambda *args, **options: tiles_for(*args, "triton", **options)
    )
    torch.testing.assert_close(draws[1](at), expected, rtol=1e-10, atol=1e-10)
    assert draws[1]._fused is not None and draws[1]._fused.name == "triton float64"
