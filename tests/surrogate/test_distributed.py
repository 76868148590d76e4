"""Products, fits and predictions by several processes, against those of one."""

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from pretended_device import DEVICE, pretended_device
from torch import Tensor

from surrogate import BBMM, Auto, ExactGP, KernelOperator, Matern52, fit
from surrogate.kernels.axes import Axis
from surrogate.kernels.grid import GridKernel
from surrogate.models.covariance import kernel_operator
from surrogate.operators import DistributedKernelOperator
from surrogate.operators.distributed import Ranks
from surrogate.threads import one_thread
from surrogate.tiles.fused import ROUNDOFF
from tests.bbmmopt.programs import forked
from tests.surrogate import distributed_cases as cases
from tests.surrogate.distributed_cases import KERNELS, PRECISE, SIZES, Answer

pytestmark = pytest.mark.alone

# Processes of one machine talk to each other on it, whatever its name stands for.
_LOCAL = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
_VARIABLES: dict[str, str] = {"TRITON_INTERPRET": "1", **_LOCAL}


def together(count: int, folder: Path, *names: str, ended: int = 0) -> list[list[Answer]]:
    """Answers of each rank, of those that do not die, case after case."""
    script = Path(cases.__file__)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                forked(script, rank, count, folder, *names, cwd=folder, **_VARIABLES)
            )
            for rank in range(count)
        ]
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode in (0, ended), errors
    found = [torch.load(path, weights_only=True) for path in sorted(folder.glob("*.pt"))]
    return [[*answers] for answers in zip(*found, strict=True)]


def assert_same(answers: list[Any]) -> None:
    """All ranks have the same, to the last bit."""
    first, *others = answers
    for other in others:
        assert type(other) is type(first)
        if isinstance(first, Tensor):
            assert torch.equal(other, first)
        elif isinstance(first, dict):
            assert other.keys() == first.keys()
            for key in first:
                assert_same([first[key], other[key]])
        elif isinstance(first, tuple):
            assert len(other) == len(first)
            for pair in zip(first, other, strict=True):
                assert_same([*pair])
        else:
            assert other == first


def assert_near(found: Answer, expected: Answer, tolerance: float) -> None:
    """Relative to the largest number of each."""
    for key, value in expected.items():
        pairs = (
            [(found[key], value)]
            if isinstance(value, Tensor)
            else zip(found[key], value, strict=True)
        )
        for here, there in pairs:
            assert here.shape == there.shape, key
            if there.numel():
                assert (here - there).abs().max() <= tolerance * there.abs().max(), key


def tensors(answer: Answer) -> Answer:
    return {key: value for key, value in answer.items() if isinstance(value, Tensor)}


@pytest.fixture(scope="module")
def alone() -> tuple[Answer, Answer]:
    """By one process, at the tolerances asked for: products of all sizes, and a fit."""
    tiles = replace(PRECISE, storage="tiles")
    with one_thread():
        products = {
            f"{kernel} {n}": cases.multiplied(cases.operator(n, kernel))
            for kernel in KERNELS
            for n in SIZES
        }
        fits = {
            "fit": cases.fitted(tiles),
            "default": cases.fitted(BBMM(storage="tiles")),
            "likelihood": cases.likelihood(tiles),
        }
    return products, fits


@pytest.mark.parametrize("count", [2, 3, 4])
def test_ranks_give_what_one_process_does_and_all_the_same_bits(count, tmp_path, alone):
    products, fits = alone
    names = ["arithmetic", "modelling"] if count < 4 else ["arithmetic"]
    multiplied, *modelled = together(count, tmp_path, *names)
    assert_same(multiplied)
    for case, expected in products.items():
        found = multiplied[0][case]
        assert found.pop("arithmetic") == f"torch float64 on {count} ranks"
        assert_near(found, expected, 1e-12)
    for answers in modelled:
        asked = [answer["stopped"].pop("asked") for answer in answers]
        assert asked[0] > 3 and asked[1:] == [0] * (count - 1)
        assert_same(answers)
        first = answers[0]
        for name in ("fit", "default"):
            found, expected = first[name], fits[name]
            assert found["arithmetic"] == f"torch float64 on {count} ranks"
            assert found["info"] == ("tiles", found["arithmetic"])
            assert found["message"] == expected["message"]
            assert found["products"] == expected["products"]
            assert found["likelihood"] == pytest.approx(expected["likelihood"], abs=1e-6)
            assert found["half width"] == pytest.approx(expected["half width"], abs=1e-6)
            assert_near(tensors(found), tensors(expected), 1e-6)
        assert_near(first["likelihood"], fits["likelihood"], 1e-6)
        assert first["stopped"]["message"] == "ended early, as asked"


def test_fused_tiles_are_shared_out_too(tmp_path):
    (answers,) = together(2, tmp_path, "fused")
    assert_same(answers)
    for kernel in KERNELS:
        for n in (1, 19):
            expected = cases.multiplied(cases.operator(n, kernel))
            for float32, dtype in ((True, torch.float32), (False, torch.float64)):
                found = answers[0][f"{kernel} {n} {float32}"]
                assert found.pop("roundoff") == (ROUNDOFF[dtype], ROUNDOFF[torch.float64])
                name = str(dtype).removeprefix("torch.")
                assert found.pop("arithmetic") == f"triton {name} on 2 ranks"
                assert_near({"precise": found["precise"]}, {"precise": expected["precise"]}, 1e-13)
                assert_near(found, expected, 1e-5 if float32 else 1e-12)


DIFFERENCES = {
    "X": "rank 1 differs from rank 0 in X:",
    "order": "rank 1 differs from rank 0 in X:",
    "size": "rank 1 differs from rank 0 in the number of observations, X:",
    "kernel": "rank 1 differs from rank 0 in the kernel:",
    "parameters": "rank 1 differs from rank 0 in the parameters of the kernel:",
    "noise": "rank 1 differs from rank 0 in the noise:",
    "noise of a model": "rank 1 differs from rank 0 in the noise:",
    "tiles": "rank 1 differs from rank 0 in what computes K:",
    "vectors": "rank 1 differs from rank 0 in the vectors:",
    "columns": "rank 1 differs from rank 0 in the number of vectors, the vectors:",
    "precision": "rank 1 differs from rank 0 in what computes K:",
    "step": "rank 1 asks for gradients, while rank 0 multiplies with K:",
    "fit of fewer": "rank 1 differs from rank 0 in the number of observations, X, y, the noise:",
    "fit of others": "rank 1 differs from rank 0 in y:",
    "options": "rank 1 differs from rank 0 in the options:",
    "evaluations": "rank 1 differs from rank 0 in the options:",
    "stop": "rank 1 asks whether to stop, while rank 0 looks at its data:",
}


def test_ranks_that_differ_all_say_which_and_in_what_and_can_go_on(tmp_path):
    (answers,) = together(3, tmp_path, "refusals")
    assert_same(answers)
    said = answers[0]
    expected = cases.operator(5).matmul(cases.numbers(5, 1, 0))
    for name, message in DIFFERENCES.items():
        assert said[name].startswith(f"RanksDisagree: {message}")
        assert "with the same data, options and seeds" in said[name]
        torch.testing.assert_close(said[f"after {name}"], expected, rtol=1e-13, atol=0)
    assert "data on cuda:0 are gathered by nccl" in said["device"]
    assert "init_process_group('nccl')" in said["device"]
    assert len(said["pivots"]) == 8  # the least that any of them has memory for


def test_a_rank_that_dies_is_an_error_of_the_others(tmp_path):
    (answers,) = together(3, tmp_path, "death", ended=3)
    assert len(answers) == 2
    for answer in answers:
        assert "RuntimeError" in answer["error"]


def test_without_a_group_of_processes_it_says_how_to_start_one(monkeypatch):
    X, y, _ = cases.observations()
    for solver in (BBMM(distributed=True), Auto(bbmm=BBMM(distributed=True))):
        with pytest.raises(ValueError, match=r"torchrun .*\.init_process_group\('gloo'\)"):
            fit(ExactGP(Matern52(2), solver=solver), X, y)
    with pytest.raises(ValueError, match="needs a group of processes"):
        ExactGP(Matern52(2), solver=BBMM(distributed=True)).condition(X, y).marginals(X[:1])
    with pytest.raises(ValueError, match=r"init_process_group\('nccl'\)"):
        Ranks.of(torch.device("cuda"))
    monkeypatch.setattr(dist, "is_available", lambda: False)
    with pytest.raises(ValueError, match="this build of torch is without"):
        Ranks.of(torch.device("cpu"))


def test_what_is_stored_is_not_shared_out():
    for storage in ("float32", "float64"):
        with pytest.raises(ValueError, match="must be 'tiles' or 'auto'"):
            BBMM(distributed=True, storage=storage)
    with pytest.raises(ValueError, match="in tiles, storing nothing; got one stored in float64"):
        DistributedKernelOperator(KernelOperator(Matern52(3), cases.points(5), storage="float64"))
    assert BBMM(distributed=True, storage="tiles").distributed


@pytest.mark.parametrize("n", [0, 1, 3, 130, 1023, 1024, 5000, 100_001])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_parts_follow_each_other_and_are_even(n, count):
    parts = [Ranks(r, count, torch.device("cpu")).part(n) for r in range(count)]
    assert [i for part in parts for i in range(n)[part]] == [*range(n)]
    assert all(part.start <= part.stop for part in parts)
    sizes = [part.stop - part.start for part in parts]
    unit = 128 if n >= 512 * count else 1
    assert max(sizes) - min(sizes) <= unit + unit * (n % unit > 0)
    assert all(part.start % unit == 0 for part in parts)


def test_a_kernel_with_a_product_of_its_own_is_left_to_it():
    axis = torch.linspace(0, 1, 30, dtype=torch.float64)
    X, noise = axis.unsqueeze(1), torch.full_like(axis, 0.1)
    kernel = GridKernel([Matern52(1, 0.3)], 1.3, [Axis.over(0.0, 1.0, 30)])
    K = kernel_operator(kernel, X, noise, BBMM(distributed=True))
    assert not isinstance(K, DistributedKernelOperator)


def test_on_a_device_each_exchange_waits_once_and_nothing_is_mixed(monkeypatch):
    monkeypatch.setattr(Ranks, "of", staticmethod(lambda device: Ranks(0, 1, device)))
    monkeypatch.setattr(Ranks, "gather", lambda self, part: part.clone().unsqueeze(0))
    n, whole = 50, slice(0, 50)
    kernel, X, noise = KERNELS["mixed"](), cases.points(n), torch.full((n,), 0.1).double()
    V, A, B = (cases.numbers(n, 3, seed) for seed in range(3))
    with pretended_device() as device:
        here, V_there, A_there, B_there = (M.to(DEVICE) for M in (X, V, A, B))
        inner = KernelOperator(kernel, here, storage="tiles")
        expected = inner.tiles.product(V_there, whole).cpu()
        gradients = [g.cpu() for g in inner.tiles.pullback(A_there, B_there, whole)]
        variances = noise.to(DEVICE)
        device.forget()
        K = DistributedKernelOperator(inner, variances)
        assert device.waits == 1
        product = K.matmul(V_there)
        assert device.waits == 2 and product.device == DEVICE
        pulled = K.pullback(A_there, B_there)
        assert device.waits == 3 and {g.device for g in pulled} == {DEVICE}
        assert torch.equal(product.cpu(), expected)
        assert all(torch.equal(g.cpu(), e) for g, e in zip(pulled, gradients, strict=True))
        ask = K.ranks.asking_the_first(lambda: True)
        device.forget()
        assert ask() and K.ranks.least(7) == 7
        assert device.waits == 2
