"""What models of several outputs are given, and what judges them: tables and a dense oracle.

Nothing here imports a Gaussian-process library: numpy and scipy in float64 only.
"""

import math
from dataclasses import dataclass

import numpy as np
from gp_data import matern52, matern_draw
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.spatial.distance import cdist

N_TEST = 100  # new rows of a grid
MISSING = 0.4  # share of the values of learning curves
_STOPPED = 0.72  # share of the curves that are stopped early


@dataclass(frozen=True)
class Data:
    """A table of values to learn from and one to predict; inputs in the unit cube.

    Attributes:
        X: Shape (n, d).
        Y: Noisy values, shape (n, T), NaN where missing. Those of a grid have mean 0 and variance 1
            in each column, those of curves have them as a whole.
        places: Where the outputs are, shape (T,); None if they are but numbered.
        X_test: Shape (m, d).
        F_test, Y_test: The function itself and noisy values there, (m, T), NaN where nothing is
            asked.
    """

    X: np.ndarray
    Y: np.ndarray
    places: np.ndarray | None
    X_test: np.ndarray
    F_test: np.ndarray
    Y_test: np.ndarray


def draw(name: str, n: int, outputs: int, seed: int = 0) -> Data:
    """A data set by its name, "grid" or "curves"."""
    return {"grid": draw_grid, "curves": draw_curves}[name](n, outputs, seed)


def draw_grid(n: int, outputs: int, seed: int) -> Data:
    """A complete table: n rows of a draw from an intrinsic model of coregionalisation.

    Three inputs, Matérn-5/2, one function shared with either sign; each output has a part and a
    noise, of standard deviation 0.05 to 0.3, of its own.
    """
    rng = np.random.default_rng([seed, 0])
    X = rng.random((n + N_TEST, 3))
    K = matern52(X, X, np.array([0.35, 0.7, 1.5]))
    K.flat[:: len(K) + 1] += 1e-10
    shared = rng.uniform(0.5, 1.2, outputs) * rng.choice([-1, 1], outputs)
    own = rng.uniform(0.2, 0.6, outputs)
    functions = cholesky(K, lower=True) @ rng.standard_normal((len(X), 1 + outputs))
    F = functions[:, :1] * shared + functions[:, 1:] * own
    Y = F + np.geomspace(0.05, 0.3, outputs) * rng.standard_normal(F.shape)
    centre, scale = Y[:n].mean(0), Y[:n].std(0)
    F, Y = (F - centre) / scale, (Y - centre) / scale
    return Data(X[:n], Y[:n], None, X[n:], F[n:], Y[n:])


def draw_curves(n: int, outputs: int, seed: int) -> Data:
    """Curves that saturate, a + b (1 - exp(-s / τ)), at steps s in [0, 1]; 40 % of them missing.

    a, log b and log τ are smooth functions of three settings. Most of what is missing comes after
    the step where a curve was stopped, the rest are gaps. What is missing is what is asked for.
    """
    rng = np.random.default_rng([seed, 1])
    X, steps = rng.random((n, 3)), np.linspace(0, 1, outputs)
    a, b, tau = (matern_draw([0.8, 1.2, 2.0], rng)(X)[:, np.newaxis] for _ in range(3))
    F = 0.4 * a + np.exp(0.3 * b) * (1 - np.exp(-steps / (0.25 * np.exp(0.5 * tau))))
    Y = F + 0.05 * F.std() * rng.standard_normal(F.shape)
    there = observed(n, outputs, rng)
    centre, scale = Y[there].mean(), Y[there].std()
    F, Y = (F - centre) / scale, (Y - centre) / scale
    given, asked = np.where(there, Y, np.nan), np.where(there, np.nan, Y)
    return Data(X, given, steps, X, F, asked)


def observed(n: int, outputs: int, rng: np.random.Generator) -> np.ndarray:
    """Which values are there, (n, T): of each curve the first one at least."""
    stop = np.full(n, outputs)
    stopped = rng.random(n) < _STOPPED
    stop[stopped] = rng.integers(1, outputs, stopped.sum())
    wanted = round(MISSING * n * outputs)
    while n * outputs - stop.sum() > wanted:
        stop[rng.choice(np.flatnonzero(stop < outputs))] += 1
    there = np.arange(outputs) < stop[:, np.newaxis]
    first = np.arange(outputs) == 0
    gaps = rng.choice(np.flatnonzero(there & ~first), wanted - np.sum(~there), replace=False)
    there.flat[gaps] = False
    return there


def output_covariance(parameters: dict, places: np.ndarray | None) -> np.ndarray:
    """C (T, T): as it was found, or of the kernel over the places."""
    if "task_covariance" in parameters:
        return np.asarray(parameters["task_covariance"])
    S = places[:, np.newaxis]
    lengthscale = np.asarray(parameters["output_lengthscale"])
    if parameters["output_kernel"] == "rbf":
        return np.exp(-0.5 * cdist(S / lengthscale, S / lengthscale, "sqeuclidean"))
    return matern52(S, S, lengthscale)


def judge(data: Data, parameters: dict, predictions: dict | None, exact: bool = True) -> dict:
    """What a fit is worth, by dense Cholesky at the parameters it found.

    The model is Cov(f_t(x), f_u(x')) = s² k(x, x') C[t, u] with k Matérn-5/2.

    Args:
        parameters: In the units of the data: "lengthscale" (d,) and "variance" s²;
            "task_covariance" (T, T), or "output_kernel", "matern52" or "rbf", and
            "output_lengthscale" (1,); "noise" and "mean", a number or one per output.
        predictions: "mean" and "variance" of f by the library itself, (m, T); None if it did not
            come so far.
        exact: Whether to form K̂ of all values at all.

    Returns:
        "log_likelihood" per value; "rmse" against the function and "nlpd" of noisy values, of the
        library's predictions; "exact_rmse" and "exact_nlpd" of exact ones at the same parameters;
        "mean_error", the largest difference of a mean to the exact one, in exact predictive
        standard deviations; "variance_ratio", the least, median and largest ratio of variances.
    """
    found: dict = {}
    T = data.Y.shape[1]
    noise, centre = (np.broadcast_to(parameters[name], T) for name in ("noise", "mean"))
    asked, column = np.nonzero(~np.isnan(data.Y_test))
    if predictions is not None:
        mean, variance = (predictions[name][asked, column] for name in ("mean", "variance"))
        found |= scores(mean, variance, noise[column], data)
    if not exact:
        return found
    i, t = np.nonzero(~np.isnan(data.Y))
    lengthscale = np.asarray(parameters["lengthscale"])
    C = parameters["variance"] * output_covariance(parameters, data.places)
    K = matern52(data.X, data.X, lengthscale)[np.ix_(i, i)]
    K *= C[np.ix_(t, t)]
    K.flat[:: len(K) + 1] += noise[t]
    L = cholesky(K.T, lower=True, overwrite_a=True, check_finite=False)
    residual = data.Y[i, t] - centre[t]
    alpha = cho_solve((L, True), residual)
    log_det = 2 * np.log(np.diag(L)).sum()
    value = -0.5 * (residual @ alpha + log_det + len(i) * math.log(2 * math.pi))
    found["log_likelihood"] = float(value / len(i))

    K_star = matern52(data.X, data.X_test, lengthscale)[np.ix_(i, asked)]
    K_star *= C[np.ix_(t, column)]
    exact_mean = centre[column] + K_star.T @ alpha
    half = solve_triangular(L, K_star, lower=True, check_finite=False)
    exact_variance = C.diagonal()[column] - np.einsum("ij,ij->j", half, half)
    exactly = scores(exact_mean, exact_variance, noise[column], data)
    found |= {f"exact_{name}": value for name, value in exactly.items()}
    if predictions is not None:
        spread = np.sqrt(np.maximum(exact_variance, 0) + noise[column])
        found["mean_error"] = float(np.max(np.abs(mean - exact_mean) / spread))
        ratio = variance / np.maximum(exact_variance, 1e-300)
        found["variance_ratio"] = [float(q) for q in np.quantile(ratio, [0, 0.5, 1])]
    return found


def scores(mean: np.ndarray, variance: np.ndarray, noise: np.ndarray, data: Data) -> dict:
    """RMSE against the function, and mean negative log density of the noisy values asked for."""
    asked = ~np.isnan(data.Y_test)
    f, y = data.F_test[asked], data.Y_test[asked]
    spread = np.maximum(variance, 0.0) + noise
    return {
        "rmse": float(np.sqrt(np.mean((mean - f) ** 2))),
        "nlpd": float(np.mean(np.log(2 * math.pi * spread) + (y - mean) ** 2 / spread) / 2),
    }
