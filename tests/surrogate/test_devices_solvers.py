"""Solvers work where the data are: numbers of the CPU, few waits for the device."""

from __future__ import annotations

import pytest
import torch
from oracles import normal, spd_matrix, uniform
from pretended_device import DEVICE, PretendedDevice, pretended_device
from torch import Tensor

from surrogate import BBMM, Matern52, NotPositiveDefinite, log_marginal_likelihood, solve
from surrogate.operators import (
    Dense,
    LinearOperator,
)
from surrogate.solvers import Cholesky, Preconditioner, Probes, Structure, mbcg
from surrogate.solvers import preconditioners as parts
from surrogate.solvers.cholesky import BorderedFactor, attempted
from surrogate.solvers.pivots import clusters, random_pivots
from tests.surrogate.helpers import Inverse, noises


class Placed(Dense):
    """A stored matrix whose rows are points."""

    def __init__(self, A: Tensor, X: Tensor) -> None:
        super().__init__(A)
        self.X = X

    @property
    def coordinates(self) -> Tensor:
        return self.X


def covariance(X: Tensor) -> Tensor:
    return Matern52(X.shape[1], 0.4)(X, X).detach()


@pytest.fixture
def problem(rng):
    """K, where its rows are, another noise for each of them, and right-hand sides."""
    X = uniform(rng, 150, 2)
    return covariance(X), X, noises(150, rng), normal(rng, 150, 3)


def there(*tensors: Tensor) -> list[Tensor]:
    return [tensor.to(DEVICE) for tensor in tensors]


CPU = torch.device("cpu")


def same(found: Tensor, expected: Tensor, off: float = 0.0) -> None:
    """The same to the last bit, or to a share of the largest entry."""
    assert found.device == DEVICE and found.shape == expected.shape
    assert float((found.cpu() - expected).abs().max()) <= off * float(expected.abs().max())


# --- Block conjugate gradients. ------------------------------------------------------------


@pytest.mark.parametrize("guessed", [False, True])
@pytest.mark.parametrize("roundoff", [2e-16, 1e-7])
def test_a_solve_is_that_of_the_cpu(guessed, roundoff, problem, rng):
    K, _, noise, B = problem
    P, guess = noise.diag(), normal(rng, 150, 3) if guessed else None
    known = Dense(K + P)
    known.roundoff = roundoff
    expected = mbcg(known, B, preconditioner=Inverse(P), guess=guess, tolerance=1e-9)
    with pretended_device():
        operator = Dense(known.A.to(DEVICE))
        operator.roundoff = roundoff
        found = mbcg(
            operator,
            B.to(DEVICE),
            preconditioner=Inverse(P.to(DEVICE)),
            guess=guess if guess is None else guess.to(DEVICE),
            tolerance=1e-9,
        )
        same(found.U, expected.U)
        same(found.R, expected.R)
    assert found.info.residual.device.type == "cpu"
    assert torch.equal(found.info.residual, expected.info.residual)
    assert torch.equal(found.info.steps, expected.info.steps)
    assert str(found.info) == str(expected.info)


def _count(device: PretendedDevice, problem, steps: int, lanczos: bool, roundoff: float):
    """Waits, uploads and downloads of that many steps."""
    K, _, noise, B = problem
    operator, preconditioner = (
        Dense((K + noise.diag()).to(DEVICE)),
        Inverse(noise.diag().to(DEVICE)),
    )
    operator.roundoff = roundoff
    B = B.to(DEVICE)
    device.forget()
    info = mbcg(
        operator,
        B,
        preconditioner=preconditioner,
        tolerance=1e-14,
        max_steps=steps,
        lanczos=lanczos,
        warn=False,
    ).info
    assert int(info.steps.max()) == steps
    return device.waits, device.uploads, device.downloads


@pytest.mark.parametrize("lanczos", [False, True])
def test_a_step_waits_twice_for_a_few_numbers(lanczos, problem):
    with pretended_device() as device:
        few, _, _ = _count(device, problem, 4, lanczos, 2e-16)
        many, uploads, downloads = _count(device, problem, 14, lanczos, 2e-16)
    assert many - few == 20
    assert few - 8 <= 8
    assert max(uploads) <= 3**2 and len(uploads) <= 3 * 14 + 3
    assert max(downloads) <= 3 * 3**2


def test_looking_at_true_residuals_waits_once_more_or_twice_when_starting_again(problem):
    with pretended_device() as device:
        few, _, _ = _count(device, problem, 13, False, 1e-7)
        many, _, _ = _count(device, problem, 37, False, 1e-7)
    assert 2 * 24 + 2 <= many - few <= 2 * 24 + 2 * 2


def test_a_preconditioner_whose_rounding_needs_help_gets_it_there_too(rng):
    """P⁻¹ of rank 4 in 12 dimensions has no factor on a block of 6 until jitter is added."""
    root = normal(rng, 12, 4)
    inverse, B = root @ root.mT, normal(rng, 12, 6)
    K = spd_matrix(uniform(rng, 12) + 0.1, rng)

    class Singular:
        def __init__(self, A: Tensor) -> None:
            self.A = A

        def solve(self, R: Tensor) -> Tensor:
            return self.A @ R

    options = {"tolerance": 1e-6, "max_steps": 2, "warn": False, "lanczos": True}
    expected = mbcg(Dense(K), B, preconditioner=Singular(inverse), **options)
    assert expected.lanczos is not None
    with pretended_device():
        solver = Singular(inverse.to(DEVICE))
        found = mbcg(Dense(K.to(DEVICE)), B.to(DEVICE), preconditioner=solver, **options)
        same(found.U, expected.U)
        assert found.lanczos is not None
        assert torch.equal(found.lanczos.start, expected.lanczos.start)
        assert found.info.products > expected.info.products  # one was for nothing


def test_what_is_not_definite_or_not_finite_is_described_there_too(problem):
    K, _, noise, B = problem
    K = K + noise.diag()
    negative = Inverse(-torch.eye(150, dtype=torch.float64))
    broken = Inverse(torch.eye(150, dtype=torch.float64))
    broken.inverse[3, 3] = torch.nan
    with pretended_device():
        for preconditioner in (negative, broken):
            preconditioner.inverse = preconditioner.inverse.to(DEVICE)
        B, operator = B.to(DEVICE), Dense(K.to(DEVICE))
        with pytest.raises(NotPositiveDefinite, match="the preconditioner is not positive"):
            mbcg(operator, B, preconditioner=negative)
        with pytest.raises(ValueError, match="the preconditioner's solve is not finite"):
            mbcg(operator, B, preconditioner=broken)
        with pytest.raises(NotPositiveDefinite, match="all must be positive"):
            mbcg(Dense(-K.to(DEVICE)), B)
        with pytest.raises(ValueError, match="a product with K is not finite"):
            mbcg(Dense(torch.nan * K.to(DEVICE)), B)


# --- The public functions. -----------------------------------------------------------------

OPTIONS = [
    BBMM(rank=0, block=0),
    BBMM(rank=25, block=0),
    BBMM(rank=0, block=16),
    BBMM(rank=25, block=16, seed=3),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_systems_are_solved_as_on_the_cpu(options, problem):
    K, X, noise, B = problem
    expected = solve(Placed(K, X), noise, B, options)
    alike = solve(Placed(K, X), 0.1, B, options)
    with pretended_device():
        K, X, noise, B = there(K, X, noise, B)
        found = solve(Placed(K, X), noise, B, options)
        off = 1e-6 if options.block else 0.0  # many small matrices are factored together there
        same(found.U, expected.U, off)
        same(found.R, expected.R, 3.0 if options.block else 0.0)
        scalar = torch.tensor(0.1, dtype=torch.float64)
        same(solve(Placed(K, X), scalar, B, options).U, alike.U, off)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_likelihood_and_its_gradients_are_those_of_the_cpu(options, problem):
    K, X, noise, B = problem

    def evaluate(K, X, noise, y):
        noise, y = noise.requires_grad_(), y.requires_grad_()
        found = log_marginal_likelihood(Placed(K, X), noise, y, options)
        return found, torch.autograd.grad(found.value, [noise, y])

    expected, by_noise_and_y = evaluate(K, X, noise.clone(), B[:, 0].clone())
    with pretended_device():
        found, gradients = evaluate(*there(K, X, noise, B[:, 0]))
        off = 1e-9 if options.block else 0.0  # many small matrices are factored together there
        same(found.value.detach(), expected.value.detach(), off)
        for gradient, known in zip(gradients, by_noise_and_y, strict=True):
            same(gradient, known, 1e4 * off)
        if options.block:  # by a floor that is bounded there: see `_largest_eigenvalue`
            assert found.lower == pytest.approx(expected.lower, rel=1e-3, abs=0)
            assert found.upper == pytest.approx(expected.upper, rel=1e-3, abs=0)
        else:
            assert (found.lower, found.upper) == (expected.lower, expected.upper)
            assert str(found) == str(expected)
        with torch.no_grad():
            y = B[:, 0].to(DEVICE)
            value = log_marginal_likelihood(Placed(*there(K, X)), 0.1, y, options).value
        assert value.device == DEVICE


def test_data_elsewhere_than_the_operator_are_refused_at_the_door(problem):
    K, _, noise, B = problem
    with pretended_device():
        operator, (noise_there, B_there) = Dense(K.to(DEVICE)), there(noise, B)
        with pytest.raises(ValueError, match=r"B must be on meta, where .* it is on cpu"):
            solve(operator, noise_there, B)
        with pytest.raises(ValueError, match="noise must be on meta"):
            solve(operator, noise, B_there)
        with pytest.raises(ValueError, match="noise must be on cpu"):
            solve(Dense(K), noise_there, B)
        with pytest.raises(ValueError, match="y must be on meta"):
            log_marginal_likelihood(operator, 0.1, B[:, 0])


# --- Preconditioners. ----------------------------------------------------------------------


def test_pivots_and_clusters_are_those_of_the_cpu(problem, rng):
    K, X, noise, _ = problem
    duplicated = torch.cat([torch.cat([K, K]), torch.cat([K, K])], 1)
    for A, some in ((K, noise), (duplicated, torch.cat([noise, noise]))):
        expected = [random_pivots(Dense(A), some, rank, _seeded(rank)) for rank in (1, 9, 120)]
        with pretended_device() as device:
            operator, s = Dense(A.to(DEVICE)), some.to(DEVICE)
            for rank, pivots in zip((1, 9, 120), expected, strict=True):
                device.forget()
                same(random_pivots(operator, s, rank, _seeded(rank)), pivots)
                # A look at the diagonal, then two downloads for each round of 64 proposals.
                assert device.waits <= 2 + 2 * device.calls["addmm"] + 2 * 30
                assert max(device.downloads) <= max(64**2, 2 * len(A))
    with pretended_device() as device:
        for size in (1, 7, 200):
            device.forget()
            same(clusters(X.to(DEVICE), size), clusters(X, size))
            assert device.downloads[:-1] == [X.numel()] and device.reads == 0


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _structure(K: LinearOperator, noise: Tensor, rank: int, block: int) -> Structure:
    return Structure.of(K, noise, rank=rank, block=block, generator=_seeded(0))


@pytest.mark.parametrize(("rank", "block"), [(0, 0), (20, 0), (0, 9), (20, 9)])
def test_a_preconditioner_is_that_of_the_cpu(rank, block, problem, rng):
    K, X, noise, R = problem
    options = BBMM(rank=rank, block=block, probes=4)
    index = clusters(X[140:], max(block, 1))

    def answers(K: Tensor, X: Tensor, noise: Tensor, R: Tensor, index: Tensor):
        operator = Placed(K[:140, :140], X[:140])
        structure = _structure(operator, noise[:140], rank, block)
        P = Preconditioner(operator, noise[:140], structure)
        more = P.append(K[:140, 140:], K[140:, 140:], noise[140:], index)
        for Q, rows in ((P, R[:140]), (more, R)):
            probes = Probes.draw(Q, options)
            yield from (Q.solve(rows), Q.logdet(), Q.energy_bound(rows), probes.Z, probes.U)
            yield torch.tensor([Q.floor, *Q.logdet_bounds])

    expected = list(answers(K, X, noise, R, index))
    with pretended_device() as device:
        moved = there(K, X, noise, R, index)
        device.forget()
        found = list(answers(*moved))
        assert device.waits < 80
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert a.device == (DEVICE if i % 6 < 5 else CPU)
            if i % 6 == 2:  # bounds of energies go by the floor
                ratio = a.cpu() / b
                most = 9 ** (1 / 64) * (1 + 1e-6) if block else 1.0
                assert bool(((ratio >= (1 - 1e-9 if block else 1.0)) & (ratio <= most)).all())
            elif i % 6 == 5:
                least = 9 ** (-1 / 64) * (1 - 1e-6) if block else 1.0
                assert least <= float(a[0] / b[0]) <= (1 + 1e-9 if block else 1.0)
                torch.testing.assert_close(a[1:], b[1:], rtol=1e-10 if block else 0.0, atol=0)
            else:
                same(a, b, 1e-9 if block else 0.0)


def test_a_preconditioner_is_applied_without_a_wait(problem):
    K, X, noise, R = problem
    with pretended_device() as device:
        K, X, noise, R = there(K, X, noise, R)
        operator = Placed(K, X)
        P = Preconditioner(operator, noise, _structure(operator, noise, 20, 9))
        device.forget()
        P.sample(R[:20], P.solve(R))
        assert device.waits == 0 and device.uploads == []


@pytest.mark.parametrize(("rank", "block"), [(20, 0), (20, 9), (0, 9)])
def test_factors_too_large_to_copy_are_worked_on_in_parts(rank, block, problem, monkeypatch):
    K, X, noise, R = problem
    operator = Placed(K, X)
    structure = _structure(operator, noise, rank, block)
    whole = Preconditioner(operator, noise, structure)
    monkeypatch.setattr(parts, "_AT_ONCE", 7 * 150)
    P = Preconditioner(operator, noise, structure)
    torch.testing.assert_close(P.solve(R), whole.solve(R), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(P.logdet(), whole.logdet(), rtol=1e-12, atol=0)
    assert P.logdet_bounds == pytest.approx(whole.logdet_bounds, rel=1e-12)


# --- Cholesky factors. ---------------------------------------------------------------------


def test_factors_are_those_of_the_cpu_and_wait_once_for_each_try(problem):
    K, _, noise, B = problem
    K_hat = K + noise.diag()
    singular = torch.ones(5, 5, dtype=torch.float64)
    singular[0, 0] -= 1e-9

    def answers(K_hat: Tensor, B: Tensor):
        first = Cholesky().factor(K_hat[:140, :140], out=torch.empty_like(K_hat[:140, :140]))
        border = K_hat[:140, 140:], K_hat[140:, 140:]
        for factor in (first.append(*border), BorderedFactor.of(first, *border)):
            yield from (factor.solve(B), factor.whiten(B), factor.unwhiten(B))
        yield first.logdet()

    expected, helped = list(answers(K_hat, B)), Cholesky().factor(singular)
    with pretended_device() as device:
        for found, known in zip(answers(*there(K_hat, B)), expected, strict=True):
            same(found, known)
        moved = K_hat.to(DEVICE)
        device.forget()
        Cholesky().factor(moved)
        assert device.waits == 1
        found = Cholesky().factor(singular.to(DEVICE))
        same(found.L, helped.L)
        assert found.jitter == helped.jitter > 0
        with pytest.raises(NotPositiveDefinite, match="of scale -1"):
            Cholesky().factor(-torch.eye(3, dtype=torch.float64, device=DEVICE))


# --- Factors of what is not finite. --------------------------------------------------------


def _as_on_cuda(K: Tensor, out: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """A factor that is nan where K is, and no word about it."""
    is_nan = K.isnan().any(-1).any(-1)[..., None, None]
    identity = torch.eye(K.shape[-1], dtype=K.dtype, device=K.device)
    L = torch.linalg.cholesky(torch.where(is_nan, identity, K))
    L = torch.where(is_nan, torch.nan, L).tril()
    info = torch.zeros(K.shape[:-2], dtype=torch.int32, device=K.device)
    if out is None:
        return L, info
    out[0].copy_(L)
    out[1].copy_(info)
    return out


@pytest.mark.parametrize("into", [False, True])
def test_what_is_nan_has_no_factor_though_the_device_says_so(into, rng, monkeypatch):
    K = spd_matrix(uniform(rng, 5) + 0.1, rng)
    broken = K.clone()
    broken[3, 1] = broken[1, 3] = torch.nan
    monkeypatch.setattr(torch.linalg, "cholesky_ex", _as_on_cuda)
    with pretended_device():
        out = torch.empty_like(K.to(DEVICE)) if into else None
        same(Cholesky().factor(K.to(DEVICE), out).L, torch.linalg.cholesky(K))
        with pytest.raises(NotPositiveDefinite, match="is all of the input finite"):
            Cholesky().factor(broken.to(DEVICE), out)
        _, failed = attempted(torch.stack([K, broken, K]).to(DEVICE))
        assert failed.tolist() == [0, 1, 0]
