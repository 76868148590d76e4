"""Which tiles are taken, what is said where they cannot be, and models fitted with them."""

import dataclasses
import importlib.util
import os
import pickle
import subprocess
import sys

import pytest
import torch
from oracles import normal, uniform
from torch import Tensor, nn

import surrogate.tiles.choose as choosing
from surrogate import (
    BBMM,
    RBF,
    ExactGP,
    Hamming,
    Kernel,
    KernelOperator,
    Linear,
    Matern52,
    Sum,
    WithGradients,
    fit,
)
from surrogate.tiles.choose import is_fused, tiles_for, why_not_fused
from surrogate.tiles.formula import Formula
from tests.surrogate.tile_cases import CASES, TOLERANCE, Slopes, assert_product, dense

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Halved(RBF):
    """What a user makes of one of ours: another ρ."""

    def correlation(self, u2: Tensor) -> Tensor:
        return 0.5 * super().correlation(u2)


class Shifted(RBF):
    """Another k, its ρ still that of an RBF."""

    profile = "rbf"

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        return super().forward(X1, X2) + 1.0


class OwnProduct(Sum):
    """Not what a sum says of itself."""

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        return self.first(X1, X2) * self.second(X1, X2)


class OwnSlopes(Hamming):
    """What computes K without a graph is another function."""

    def evaluate(self, X1, X2, out, workspace=None):
        return out.fill_(1.0)


class Doubled(RBF):
    """A kernel of one's own that knows its formula."""

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        return 2.0 * RBF.forward(self, X1, X2)

    def evaluate(self, X1, X2, out, workspace=None):
        return super().evaluate(X1, X2, out, workspace).mul_(2.0)

    def linearise(self, X1, X2, workspace=None):
        return Kernel.linearise(self, X1, X2, workspace)

    def diagonal(self, X: Tensor) -> Tensor:
        return 2.0 * super().diagonal(X)

    def formula(self) -> Formula:
        of_rbf = RBF(self.dims, self.lengthscale.detach(), self.variance.detach()).formula()
        assert of_rbf is not None
        (term,) = of_rbf.terms
        return Formula((dataclasses.replace(term, scale=2.0 * term.scale),))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of a GPU before anything is computed there."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")


# --------------------------------------------------------------------------------------
# Which.
# --------------------------------------------------------------------------------------


def test_on_the_cpu_triton_runs_only_if_asked_for_by_name(rng):
    X = uniform(rng, 9, 2)
    assert tiles_for(RBF(2), X).name == "torch float64"
    assert tiles_for(RBF(2), X, "torch").name == "torch float64"
    assert tiles_for(RBF(2), X, "triton").name == "triton float32"
    assert tiles_for(RBF(2), X, "triton", float32=False).name == "triton float64"
    assert [is_fused(RBF(2), CPU, name) for name in ("auto", "torch", "triton")] == [
        False,
        False,
        True,
    ]
    K = KernelOperator(RBF(2), X, budget=0)
    assert (K.storage, K.arithmetic) == ("tiles", "torch float64")


def test_without_the_interpreter_triton_is_refused_on_the_cpu(rng, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    said = "tiles='triton' cannot be used: the data are on the CPU.*Pass tiles='auto'"
    with pytest.raises(ValueError, match=said):
        tiles_for(RBF(2), uniform(rng, 9, 2), "triton")
    with pytest.raises(ValueError, match=said):
        KernelOperator(RBF(2), uniform(rng, 9, 2), storage="tiles", tiles="triton").matmul(
            normal(rng, 9, 1)
        )


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", CASES)
def test_law_kernels_with_a_formula_are_fused_on_a_gpu(name):
    assert why_not_fused(CASES[name](), CUDA) is None
    assert is_fused(CASES[name](), CUDA) and is_fused(CASES[name](), CUDA, "triton")
    assert not is_fused(CASES[name](), CUDA, "torch")
    assert not is_fused(CASES[name](), CPU)


@pytest.mark.usefixtures("gpu")
def test_what_keeps_triton_away_is_told_in_words(monkeypatch):
    def said(kernel: Kernel = RBF(2), device: torch.device = CUDA) -> str:  # noqa: B008
        assert not is_fused(kernel, device)
        return why_not_fused(kernel, device) or ""

    assert "on mps" in said(device=torch.device("mps"))
    assert "no kernel that is fused" in said(Linear(2))
    assert said(2.0 * (RBF(2) + Linear(2))).startswith("Scaled, or a part of it")
    assert "WithGradients" in said(WithGradients(RBF(2)))
    assert "too many parts" in said(RBF(65))
    assert "too many parts" in said(RBF(40) * RBF(50) + RBF(40))  # sums of each would be a row
    assert "too many parts" in said(Hamming(17))
    nine = RBF(1)
    for _ in range(8):
        nine = nine + RBF(1)
    assert "too many parts" in said(nine)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
        assert said() == "A GPU is older than compute capability 8.0"
    with monkeypatch.context() as patch:
        patch.setattr(torch.version, "cuda", None)  # AMD calls its devices so too
        assert said() == "the data are on cuda, and Triton is for NVIDIA GPUs"
    with monkeypatch.context() as patch:
        patch.setattr(choosing, "find_spec", lambda name: None)
        assert said() == "Triton is not installed (pip install 'bbmmopt[gpu]')"
    with monkeypatch.context() as patch:
        patch.delenv("CC", raising=False)
        patch.setattr(choosing, "which", lambda name: None)
        patch.setattr(choosing, "_can_build", choosing._can_build.__wrapped__)  # what it finds now
        assert said().startswith("Triton builds its driver with a C compiler")
        patch.setattr(choosing, "which", lambda name: "/usr/bin/gcc")
        patch.setattr(choosing.sysconfig, "get_path", lambda name: "/nowhere")
        assert "headers of Python" in said()
    for version, is_old in (("3.4.0", True), ("3.5.0", False), ("3.10.1+git1", False)):
        monkeypatch.setattr(choosing, "_triton_version", lambda version=version: version)
        reason = f"Triton {version} is older than 3.5, which PyTorch 2.9 came with"
        assert why_not_fused(RBF(2), CUDA) == (reason if is_old else None)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    "kernel",
    [Halved(2), Shifted(2), OwnProduct(RBF(2), RBF(2)), OwnSlopes(2), 2.0 * (RBF(2) + Shifted(2))],
    ids=lambda kernel: type(kernel).__name__,
)
def test_a_kernel_that_was_made_from_one_of_ours_is_not_taken_for_it(kernel, rng):
    assert "no kernel that is fused" in (why_not_fused(kernel, CUDA) or "")
    with pytest.raises(ValueError, match=r"no kernel that is fused\. Pass tiles='auto'"):
        tiles_for(kernel, uniform(rng, 5, 2), "triton")


def test_what_is_no_kernel_of_ours_at_all_is_not_fused(rng):
    class Alone(nn.Module):
        def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
            return X1 @ X2.mT

    assert "Alone" in (why_not_fused(Alone(), CPU) or "")  # type: ignore[arg-type]


def test_a_kernel_of_ones_own_is_fused_if_it_says_its_formula(rng):
    kernel, X, V = Doubled(2, 0.4, 1.5), uniform(rng, 70, 2), normal(rng, 70, 2)
    tiles, K = tiles_for(kernel, X, "triton"), kernel(X, X).detach()
    assert tiles.name == "triton float32"
    assert_product(tiles.product(V), K, V, TOLERANCE[torch.float32])
    for ours, exact in zip(tiles.pullback(V, V), kernel.pullback(X, X, V @ V.T), strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-5)


def test_unknown_names_are_refused(rng):
    for make in (
        lambda: tiles_for(RBF(2), uniform(rng, 5, 2), "keops"),
        lambda: BBMM(tiles="keops"),
    ):
        with pytest.raises(ValueError, match=r"tiles must be one of .*'triton'.*; got 'keops'"):
            make()


def test_fused_kernels_are_loaded_only_where_they_are_used():
    program = (
        "import sys, torch; from surrogate import RBF, KernelOperator\n"
        "X = torch.rand(9, 2, dtype=torch.float64)\n"
        "KernelOperator(RBF(2), X, storage='tiles').matmul(X)\n"
        "sys.exit('surrogate.tiles.kernels' in sys.modules)"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    assert importlib.util.find_spec("surrogate.tiles.kernels") is not None


# --------------------------------------------------------------------------------------
# In an operator, and in a model.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("float32", [True, False])
def test_an_operator_multiplies_by_fused_tiles(float32, rng):
    kernel = Matern52(2, 0.4, 1.7) * Hamming(1, 0.8, columns=[1])
    X, V, A = uniform(rng, 70, 2), normal(rng, 70, 3), normal(rng, 70, 3)
    X[:, 1] = (3 * X[:, 1]).floor()
    K = KernelOperator(kernel, X, storage="tiles", tiles="triton", float32=float32)
    exact, dtype = dense(kernel, X, X).detach(), torch.float32 if float32 else torch.float64
    assert K.arithmetic == f"triton {str(dtype)[6:]}"
    assert K.roundoff == K.tiles.roundoff == (1e-7 if float32 else 2e-16)
    assert_product(K.matmul(V), exact, V, TOLERANCE[dtype])
    assert_product(K.matmul(V.float()), exact, V.float(), TOLERANCE[dtype])
    Slopes.of(kernel, X, A, V).check(kernel, K.pullback(A, V), 1e-6 if float32 else 1e-13)
    # What preconditioners ask for is exact.
    index = torch.tensor([3, 0, 69])
    torch.testing.assert_close(K.rows(index), exact[index], rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(K.diagonal(), exact.diagonal(), rtol=1e-14, atol=1e-14)
    blocks = K.blocks(index.unsqueeze(0))
    torch.testing.assert_close(blocks[0], exact[index][:, index], rtol=1e-14, atol=1e-14)
    precise = K.precise
    assert (precise is K) == (not float32)
    assert (precise.arithmetic, precise.roundoff) == ("triton float64", 2e-16)
    assert_product(precise.matmul(V), exact, V, TOLERANCE[torch.float64])


def test_a_stored_matrix_has_fused_gradients(rng):
    kernel, X, V = Matern52(2, 0.4, 1.7), uniform(rng, 70, 2), normal(rng, 70, 2)
    K = KernelOperator(kernel, X, storage="float64", tiles="triton", float32=False)
    assert K.arithmetic is None and K.roundoff == 2e-16
    Slopes.of(kernel, X, V, V).check(kernel, K.pullback(V, V), 1e-13)


def test_storage_auto_takes_fused_tiles_in_float32_before_all_else(rng):
    X = uniform(rng, 20, 2)
    made = [
        KernelOperator(RBF(2), X, tiles=name, float32=narrow).storage
        for name, narrow in (("triton", True), ("triton", False), ("torch", True), ("auto", True))
    ]
    assert made == ["tiles", "float64", "float64", "float64"]


def problem(rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    X = uniform(rng, 48, 2)
    y = torch.sin(5 * X.sum(1)) + 0.1 * normal(rng, 48)
    return X, y, uniform(rng, 5, 2)


@pytest.mark.parametrize(
    ("rounding", "arithmetic", "near"), [(1e-6, "float32", 1e-4), (1e3, "float64", 1e-6)]
)
def test_a_model_is_fitted_by_fused_tiles_as_by_those_of_torch(rounding, arithmetic, near, rng):
    X, y, X_new = problem(rng)
    found = {}
    for tiles in ("triton", "torch"):
        solver = BBMM(
            storage="tiles", tiles=tiles, rank=8, block=8, tolerance=1e-8, rounding=rounding,
            variance_tolerance=1e-4,
        )  # fmt: skip
        model = fit(ExactGP(Matern52(2), noise=0.02, solver=solver), X, y)
        posterior = model.condition(X, y)
        found[tiles] = (
            nn.utils.parameters_to_vector(model.parameters()).detach(),
            *posterior.marginals(X_new),
        )
        expected = f"triton {arithmetic}" if tiles == "triton" else "torch float64"
        assert model.report.arithmetic == posterior.info.arithmetic == expected
    for fused, plain in zip(found["triton"], found["torch"], strict=True):
        torch.testing.assert_close(fused, plain, rtol=near, atol=near)


def test_a_posterior_that_has_used_fused_tiles_can_be_pickled(rng):
    X = uniform(rng, 60, 3)
    model = ExactGP(Matern52(3, 0.7), noise=0.1, solver=BBMM(storage="tiles", tiles="triton"))
    posterior = model.condition(X, X.sum(1))
    expected = posterior.marginals(X[:4])
    assert posterior.info.arithmetic == "triton float32"
    again = pickle.loads(pickle.dumps(posterior))
    for ours, theirs in zip(again.marginals(X[:4]), expected, strict=True):
        assert torch.equal(ours, theirs)
    solved = again.solve(X)  # by tiles that were made anew
    assert torch.equal(solved, posterior.solve(X))
