"""The model of one's own in CONTRIBUTING: a kernel that says how its covariance multiplies."""

import re
from pathlib import Path

import pytest
import torch
from oracles import normal, uniform

from surrogate import BBMM, Cholesky, CovarianceOperator, ExactGP, fit
from surrogate.operators.base import check_operator

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture(scope="module")
def shown() -> str:
    """The code block that defines it."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if "CovarianceOperator):" in block]
    return block


@pytest.fixture(scope="module")
def waves(shown):
    """The kernel, as a reader would type it."""
    names: dict = {}
    exec(shown[: shown.index("\nX = torch.rand")], names)
    return names["Waves"]


def test_it_takes_less_than_fifty_lines_with_its_use(shown):
    assert len(shown.splitlines()) < 50


def test_its_operator_is_its_covariance(waves, rng):
    kernel, X = waves(2, 30), uniform(rng, 40, 2)
    operator = kernel.operator(X)
    assert isinstance(operator, CovarianceOperator)
    check_operator(operator)
    K, V = kernel(X, X), normal(rng, 40, 3)
    torch.testing.assert_close(operator.matmul(V), K.detach() @ V)
    A, B = normal(rng, 40, 3), normal(rng, 40, 3)
    (expected,) = torch.autograd.grad((A * (K @ B)).sum(), [kernel.log_variance])
    torch.testing.assert_close(operator.pullback(A, B)[0], expected)


def test_it_is_conditioned_and_fitted_by_its_products_alone(waves, rng, monkeypatch):
    X = uniform(rng, 300, 2)
    y = torch.sin(8 * X[:, 0]) + X[:, 1] + 0.1 * normal(rng, 300)
    y = (y - y.mean()) / y.std()
    exact = fit(ExactGP(waves(2, 100), solver=Cholesky()), X, y)

    def never(self, X1, X2, out, workspace=None):
        if len(X1) * len(X2) > 150 * 300:
            raise AssertionError("more entries than a preconditioner needs")
        return evaluate(self, X1, X2, out, workspace)

    evaluate = waves.evaluate
    monkeypatch.setattr(waves, "evaluate", never)
    ours = fit(ExactGP(waves(2, 100), solver=BBMM(tolerance=1e-8)), X, y)
    assert ours.report.products > 0
    assert float(ours.noise.detach()) == pytest.approx(float(exact.noise.detach()), rel=0.2)
    new = uniform(rng, 5, 2)
    mean, std = ours.condition(X, y).marginals(new)
    monkeypatch.undo()
    same = ExactGP(
        ours.kernel,
        mean=float(ours.mean.detach()),
        noise=float(ours.noise.detach()),
        solver=Cholesky(),
    )
    expected = same.condition(X, y).marginals(new)
    torch.testing.assert_close(mean, expected[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(std, expected[1], rtol=0.02, atol=1e-6)
