"""Gaussian processes: kernels, operators, solvers, models.

Notation, used in every file (shapes in brackets, `...` = batch dimensions):

    X  (..., n, d)  inputs             y  (n,)       targets, larger is nothing special
    K  (n, n)       k(X, X)            K̂  (n, n)     K + noise on the diagonal
    L  (n, n)       lower Cholesky factor of K̂       α  (n,)   K̂⁻¹(y - m), `alpha` in code
    m               constant mean; also the number of rows of X2 in k(X1, X2)
    ℓ  (d,)         lengthscales       s²            variance of f
    σ²              noise variance     z             (x - centre) / ℓ
    r²              squared distance ‖(x - x') / ℓ‖² G  (n, m)   ∂loss/∂K
    φ  (..., F)     random features    w, v          weights of a sample path
    P  (n, n)       preconditioner, P ≈ K̂            L  (r, n)   its low-rank part, P = LᵀL + D
    B, U, R (n, t)  right-hand sides, solutions, residuals B - K̂U, one system per column
    Z  (n, s)       probes, z ~ N(0, P)              T          block tridiagonal, of Lanczos
    R  (n, r)       cached root, RRᵀ ≈ K̂⁻¹ (in posteriors)

Everything is float64 unless a name says otherwise. Randomness comes in as a `torch.Generator`.
"""

from surrogate.kernels import (
    RBF,
    Additive,
    Columns,
    Conditional,
    Coregionalization,
    FeatureMap,
    Hamming,
    Kernel,
    Linear,
    Matern12,
    Matern32,
    Matern52,
    Ordinal,
    Periodic,
    PiecewisePolynomial,
    Polynomial,
    Product,
    RationalQuadratic,
    Scaled,
    SpectralMixture,
    Sum,
    TableKernel,
    Warped,
    positive_parameter,
)
from surrogate.models import (
    Compared,
    Comparison,
    ExactGP,
    FitReport,
    Heteroskedastic,
    Homoskedastic,
    LogNormal,
    MultiOutputGP,
    MultiOutputPosterior,
    Noise,
    NoisePerTask,
    Normal,
    Posterior,
    PosteriorInfo,
    Prior,
    PriorSet,
    SamplePaths,
    UnscaledData,
    compare,
    coverage,
    fit,
    nlpd,
    prior_set,
    rmse,
)
from surrogate.operators import Dense, Diagonal, KernelOperator, LinearOperator
from surrogate.solvers import (
    BBMM,
    Auto,
    Cholesky,
    CholeskyFactor,
    Estimate,
    NotConverged,
    NotPositiveDefinite,
    Solution,
    SolveInfo,
    log_marginal_likelihood,
    solve,
)
from surrogate.threads import one_thread

__all__ = [
    "Heteroskedastic",
    "compare",
    "Comparison",
    "Compared",
    "TableKernel",
    "Columns",
    "NoisePerTask",
    "Noise",
    "MultiOutputPosterior",
    "MultiOutputGP",
    "Homoskedastic",
    "BBMM",
    "RBF",
    "Additive",
    "Auto",
    "Cholesky",
    "CholeskyFactor",
    "Conditional",
    "Coregionalization",
    "Dense",
    "Diagonal",
    "Estimate",
    "ExactGP",
    "FeatureMap",
    "FitReport",
    "Hamming",
    "Kernel",
    "KernelOperator",
    "Linear",
    "LinearOperator",
    "LogNormal",
    "Matern12",
    "Matern32",
    "Matern52",
    "Normal",
    "NotConverged",
    "NotPositiveDefinite",
    "Ordinal",
    "Periodic",
    "PiecewisePolynomial",
    "Polynomial",
    "Posterior",
    "PosteriorInfo",
    "Prior",
    "PriorSet",
    "Product",
    "RationalQuadratic",
    "SamplePaths",
    "Scaled",
    "Solution",
    "SolveInfo",
    "SpectralMixture",
    "Sum",
    "UnscaledData",
    "Warped",
    "coverage",
    "fit",
    "log_marginal_likelihood",
    "nlpd",
    "one_thread",
    "positive_parameter",
    "prior_set",
    "rmse",
    "solve",
]
