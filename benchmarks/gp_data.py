"""What Gaussian-process fits are given, and what judges them: data sets and a dense oracle.

Nothing here imports a Gaussian-process library: numpy and scipy in float64 only.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.spatial.distance import cdist

N_TEST = 2000
_FEATURES = 1000

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Data:
    """Inputs in the unit cube; targets shifted and scaled so that y has mean 0 and variance 1.

    Attributes:
        X, y: To learn from, (n, d) and (n,).
        X_test: To predict at, (2000, d).
        f_test, y_test: The function itself and noisy observations of it there, (2000,).
        noise: Variance of the noise in the units of y.
    """

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    f_test: np.ndarray
    y_test: np.ndarray
    noise: float


def matern_draw(lengthscales: ArrayLike, rng: np.random.Generator) -> Function:
    """A draw, nearly, from a Matérn-5/2 process of variance 1: √(2/F) Σ cos(ω·x + b).

    Its spectral density is a Student t with 2ν = 5 degrees of freedom and scale 1/ℓ, so
    ω = z / ℓ · √(5 / χ²₅); an infinite ℓ gives a dimension without effect.

    Source: Rahimi & Recht (2007), Algorithm 1; Rasmussen & Williams (2006), eq. 4.15.
    """
    inverse = 1 / np.asarray(lengthscales)  # (d,)
    tails = np.sqrt(5 / rng.chisquare(5, (_FEATURES, 1)))
    omega = rng.standard_normal((_FEATURES, len(inverse))) * inverse * tails  # (F, d)
    phase = rng.uniform(0, 2 * math.pi, _FEATURES)

    def function(X: np.ndarray) -> np.ndarray:
        blocks = np.array_split(X, max(1, len(X) // 1000))  # n × F at once would count as memory
        sums = [np.cos(block @ omega.T + phase).sum(1) for block in blocks]
        return math.sqrt(2 / _FEATURES) * np.concatenate(sums)

    return function


def friedman(X: np.ndarray) -> np.ndarray:
    """Five of the columns matter; standard deviation about 4.9 over the unit cube.

    Source: Friedman (1991), "Multivariate adaptive regression splines", Annals of Statistics 19.
    """
    a, b, c, d, e = X[:, :5].T
    return 10 * np.sin(math.pi * a * b) + 20 * (c - 0.5) ** 2 + 10 * d + 5 * e


# Smooth enough for noise of 0.01 to show at n = 1000. With three quarters of these lengthscales the
# likeliest noise variance was 1e-9 there, and the floor of 1e-4 that some libraries have decided.
_SIX = (0.7, 1.2, 1.8, 2.8, 4.4, 10.0)
_FIVE_OF_TEN = (0.45, 0.75, 1.2, 1.8, 3.0, *[math.inf] * 5)

# Name: lengthscales of the draw (None: Friedman's function), standard deviation of the noise, in
# units of that of the function (for Friedman's: as it is). Add at the end only: the place in this
# table is a part of the seed.
DATA = {
    "noise-0.1": (_SIX, 0.1),
    "noise-0.01": (_SIX, 0.01),
    "dead-dims": (_FIVE_OF_TEN, 0.1),
    "friedman": (None, 1.0),
}


def draw(name: str, n: int, seed: int = 0) -> Data:
    """The first n points of a data set; function, test points and noise do not depend on n."""
    lengthscales, noise_sd = DATA[name]
    streams = [np.random.default_rng([seed, list(DATA).index(name), i]) for i in range(5)]
    d = 10 if lengthscales is None else len(lengthscales)
    function = friedman if lengthscales is None else matern_draw(lengthscales, streams[0])
    X, X_test = streams[1].random((n, d)), streams[2].random((N_TEST, d))
    f, f_test = function(X), function(X_test)
    if lengthscales is not None:
        f, f_test = f / f_test.std(), f_test / f_test.std()
    y = f + noise_sd * streams[3].standard_normal(n)
    y_test = f_test + noise_sd * streams[4].standard_normal(N_TEST)
    centre, scale = y.mean(), y.std()
    return Data(
        X,
        (y - centre) / scale,
        X_test,
        (f_test - centre) / scale,
        (y_test - centre) / scale,
        float((noise_sd / scale) ** 2),
    )


def matern52(X1: np.ndarray, X2: np.ndarray, lengthscale: np.ndarray) -> np.ndarray:
    """(1 + r + r²/3) e⁻ʳ with r = √5 ‖(x - x') / ℓ‖, (n, m): R. & W. (2006), eq. 4.17."""
    r = cdist(X1 / lengthscale, X2 / lengthscale)
    r *= math.sqrt(5)
    covariance = r * r
    covariance /= 3
    covariance += r
    covariance += 1
    covariance *= np.exp(-r, out=r)
    return covariance


def scores(mean: np.ndarray, variance: np.ndarray, noise: float, data: Data) -> dict:
    """RMSE against the function, and mean negative log density of noisy test targets (NLPD)."""
    spread = np.maximum(variance, 0.0) + noise
    miss = (data.y_test - mean) ** 2 / spread
    return {
        "rmse": float(np.sqrt(np.mean((mean - data.f_test) ** 2))),
        "nlpd": float(np.mean(np.log(2 * math.pi * spread) + miss) / 2),
    }


def judge(data: Data, parameters: dict, predictions: dict | None, exact: bool = True) -> dict:
    """What a fit is worth, by dense Cholesky at the parameters it found.

    Args:
        parameters: "lengthscale" (d,), "variance" s², "noise" σ², "mean" m, in the units of data.
        predictions: "mean" and "variance" of f at the test points by the library itself, (2000,);
            None if it did not come so far.
        exact: Whether to form K̂ at all: n² memory, n³ time.

    Returns:
        "log_likelihood" per point, "rmse" and "nlpd" of the library's predictions, "exact_rmse"
        and "exact_nlpd" of exact ones at the same parameters, and "variance_ratio", the least,
        median and largest ratio of the library's variance of f to the exact one.
    """
    found: dict = {}
    noise, centre = parameters["noise"], parameters["mean"]
    if predictions is not None:
        found |= scores(predictions["mean"], predictions["variance"], noise, data)
    if not exact:
        return found
    n, lengthscale = len(data.y), np.asarray(parameters["lengthscale"])
    K = matern52(data.X, data.X, lengthscale)
    K *= parameters["variance"]
    K.flat[:: n + 1] += noise
    # K is symmetric: its transpose is what Fortran calls contiguous, and so no copy is made.
    L = cholesky(K.T, lower=True, overwrite_a=True, check_finite=False)
    residual = data.y - centre
    alpha = cho_solve((L, True), residual)
    log_det = 2 * np.log(np.diag(L)).sum()
    log_likelihood = -0.5 * (residual @ alpha + log_det + n * math.log(2 * math.pi))
    found["log_likelihood"] = float(log_likelihood / n)

    K_star = parameters["variance"] * matern52(data.X, data.X_test, lengthscale)  # (n, 2000)
    mean = centre + K_star.T @ alpha
    half = solve_triangular(L, K_star, lower=True, check_finite=False)
    variance = parameters["variance"] - np.einsum("ij,ij->j", half, half)
    exactly = scores(mean, variance, noise, data)
    found |= {f"exact_{name}": value for name, value in exactly.items()}
    if predictions is not None:
        ratio = predictions["variance"] / np.maximum(variance, 1e-300)
        found["variance_ratio"] = [float(q) for q in np.quantile(ratio, [0, 0.5, 1])]
    return found
