"""What is measured on a GPU: data, and plain formulas in torch to hold the libraries against.

Nothing here imports a Gaussian-process library. K is that of a Matérn-5/2 kernel with a lengthscale
per input, R. & W. (2006), eq. 4.17:

    k(x, x') = s² (1 + u + u²/3) e⁻ᵘ,    u = √5 ‖(x - x') / ℓ‖
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from benchmarks.gp_data import DATA

_FEATURES = 1000
VARIANCE = 1.3  # s² of products
_AT_ONCE = 2**27  # entries of what is in memory at the same time, on a GPU: 512 MiB in float32
_AT_ONCE_ON_CPU = 2**21


def lengthscales(d: int) -> list[float]:
    """Of products: what is left of correlations hardly depends on d."""
    return [0.4 * math.sqrt(d) * (1 + 0.5 * k / d) for k in range(d)]


@lru_cache(maxsize=1)
def points(n: int, d: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """X (n, d) in the unit cube and A, B (n, columns), on the CPU in float64."""
    generator = torch.Generator().manual_seed(d)
    X = torch.rand(n, d, generator=generator, dtype=torch.float64)
    A, B = torch.randn(2, n, columns, generator=generator, dtype=torch.float64)
    return X, A, B


@dataclass(frozen=True)
class Observations:
    """Of a function that is nearly a draw of a Matérn-5/2 process, with noise; y standardised.

    Attributes:
        X, y: (n, d) and (n,).
        X_test, f_test: Other points, and the function there without noise.
    """

    X: Tensor
    y: Tensor
    X_test: Tensor
    f_test: Tensor


def observations(n: int, predicted: int, device: torch.device) -> Observations:
    """Six inputs and noise of a tenth of the signal, as "noise-0.1" of gp_data.py has them.

    Random numbers are drawn on the CPU: the data are the same on every device, but for rounding.
    """
    inverse, noise = 1 / np.asarray(DATA["noise-0.1"][0]), DATA["noise-0.1"][1]
    d, rng = len(inverse), np.random.default_rng([5, n])
    tails = np.sqrt(5 / rng.chisquare(5, (_FEATURES, 1)))
    omega = rng.standard_normal((_FEATURES, d)) * inverse * tails
    phase = rng.uniform(0, 2 * math.pi, _FEATURES)
    waves, phases = (torch.from_numpy(a).to(device) for a in (omega, phase))
    X = torch.from_numpy(rng.random((n + predicted, d))).to(device)
    rows = max(1, at_once(device) // (4 * _FEATURES))
    f = torch.cat([(some @ waves.mT + phases).cos().sum(1) for some in X.split(rows)])
    f = f / f.std()
    y = f[:n] + noise * torch.from_numpy(rng.standard_normal(n)).to(device)
    centre, scale = y.mean(), y.std()
    return Observations(X[:n], (y - centre) / scale, X[n:], (f[n:] - centre) / scale)


def at_once(device: torch.device) -> int:
    """Entries of a tile."""
    return _AT_ONCE if device.type == "cuda" else _AT_ONCE_ON_CPU


def strips(rows: int, n: int, device: torch.device) -> Iterator[slice]:
    """Rows, some after others, so many that a strip of K is a tile."""
    height = max(1, at_once(device) // n)
    return (slice(i, min(i + height, rows)) for i in range(0, rows, height))


def covariance(r2: Tensor, variance: Tensor | float) -> Tensor:
    """k of squared distances in lengthscales."""
    u = (5 * r2).sqrt()
    return variance * (1 + u + u * u / 3) * (-u).exp()


def distances(Z1: Tensor, Z2: Tensor) -> Tensor:
    """Squared ones by a matrix product, as most code has them."""
    r2 = torch.addmm(Z2.square().sum(1), Z1, Z2.mT, alpha=-2) + Z1.square().sum(1, keepdim=True)
    return r2.clamp_min(1e-12)


def plain_product(X: Tensor, V: Tensor, rows: int, lengthscale: Tensor) -> Tensor:
    """The first rows of K @ V, as a user of torch would write it, in the type of X."""
    Z, out = X / lengthscale, V.new_empty(rows, V.shape[1])
    for some in strips(rows, len(X), X.device):
        torch.mm(covariance(distances(Z[some], Z), VARIANCE), V, out=out[some])
    return out


def error_of_some(product: object, X: Tensor, V: Tensor) -> float:
    """The largest of a few rows of K @ V, relative to |K| |V|: by direct differences in float64."""
    assert isinstance(product, Tensor)
    some, X, V = slice(0, min(64, len(product))), X.double(), V.double()
    Z = X / X.new_tensor(lengthscales(X.shape[1]))
    K = covariance((Z[some, None] - Z).square().sum(-1), VARIANCE)
    return float(((product[some].double() - K @ V).abs() / (K @ V.abs())).max())


def plain_pullback(X: Tensor, A: Tensor, B: Tensor, rows: int, lengthscale: Tensor) -> list[Tensor]:
    """What the first rows have of the gradients of Σ aᵀ K b in ℓ and s², by autograd."""
    total: list[Tensor] = []
    for some in strips(rows, len(X), X.device):
        own = lengthscale.clone().requires_grad_()
        variance = lengthscale.new_full((), VARIANCE, requires_grad=True)
        K = covariance(distances(X[some] / own, X / own), variance)
        loss = (A[some] * (K @ B)).sum()
        found = torch.autograd.grad(loss, [own, variance])
        total = [a + b for a, b in zip(total, found, strict=True)] if total else list(found)
    return total


@dataclass(frozen=True)
class Exact:
    """Products in float64 by direct differences, on the CPU, and the same of absolute values.

    Attributes:
        product, product_size: K V, and |K| |V|: (n, t).
        gradients, gradients_size: Of Σ aᵀ K b in log ℓ and log s², (d + 1,), and the same of |A|
            and |B|, or Σ |a|ᵀ K |b| where that is more: no derivative has a negative entry.
    """

    product: Tensor
    product_size: Tensor
    gradients: Tensor
    gradients_size: Tensor

    @staticmethod
    def of(X: Tensor, A: Tensor, B: Tensor, lengthscale: Tensor, V: Tensor) -> "Exact":
        Z = X / lengthscale
        r2 = torch.zeros(len(X), len(X), dtype=torch.float64)
        for z in Z.mT:
            r2 += (z[:, None] - z).square()
        K = covariance(r2, VARIANCE)
        u = (5 * r2).sqrt()
        slope = VARIANCE * 5 / 3 * (1 + u) * (-u).exp()  # times (z_k - z'_k)²: ∂k/∂ log ℓ_k
        found = []
        for G in (A @ B.mT, A.abs() @ B.abs().mT):
            H = G * slope
            by_lengthscale = [(H * (z[:, None] - z).square()).sum() for z in Z.mT]
            found.append(torch.stack([*by_lengthscale, (G * K).sum()]))
        return Exact(K @ V, K @ V.abs(), found[0], found[1].clamp_min(float(found[1][-1])))

    def product_error(self, found: Tensor, rows: slice = slice(None)) -> float:
        """The largest, relative to |K| |V|."""
        miss = (found.cpu() - self.product[rows]).abs()
        return float((miss / self.product_size[rows]).max())

    def gradient_error(self, found: Tensor) -> float:
        """The largest, relative to what it would be without cancellation."""
        return float(((found.cpu() - self.gradients).abs() / self.gradients_size).max())


def log_likelihood(data: Observations, parameters: dict) -> float:
    """log p(y) per point by a dense Cholesky in float64, on the device of the data.

    Args:
        data: X and y.
        parameters: "lengthscale" (d,), "variance" s², "noise" σ² and "mean" m.
    """
    X, y, n = data.X, data.y, len(data.y)
    Z = X / X.new_tensor(parameters["lengthscale"])
    r2 = X.new_zeros(n, n)
    for z in Z.mT:
        difference = z[:, None] - z
        r2.addcmul_(difference, difference)
    K = covariance(r2, parameters["variance"])
    K.diagonal().add_(parameters["noise"])
    L = torch.linalg.cholesky(K)
    z = torch.linalg.solve_triangular(L, (y - parameters["mean"]).unsqueeze(1), upper=False)
    log_det = 2 * L.diagonal().log().sum()
    total = -0.5 * (z.square().sum() + log_det + n * math.log(2 * math.pi))
    return float(total) / n
