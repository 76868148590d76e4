"""Solvers: K⁻¹b and log|K| for a covariance matrix K."""

from surrogate.solvers.auto import Auto, Choice, Solver
from surrogate.solvers.base import NotConverged, SolveInfo
from surrogate.solvers.bbmm import BBMM, System, solve
from surrogate.solvers.cholesky import Cholesky, CholeskyFactor, NotPositiveDefinite
from surrogate.solvers.inv_quad_logdet import (
    Estimate,
    InvQuadLogdet,
    Probes,
    inv_quad_logdet,
    log_marginal_likelihood,
)
from surrogate.solvers.lanczos import BlockLanczos
from surrogate.solvers.mbcg import Preconditioning, Solution, mbcg
from surrogate.solvers.pivots import Structure
from surrogate.solvers.preconditioners import Preconditioner
from surrogate.solvers.quadrature import log_quadratic_forms

__all__ = [
    "BBMM",
    "Auto",
    "BlockLanczos",
    "Choice",
    "Cholesky",
    "CholeskyFactor",
    "Estimate",
    "InvQuadLogdet",
    "NotConverged",
    "NotPositiveDefinite",
    "Preconditioner",
    "Preconditioning",
    "Probes",
    "Solution",
    "Solver",
    "SolveInfo",
    "Structure",
    "System",
    "inv_quad_logdet",
    "log_marginal_likelihood",
    "log_quadratic_forms",
    "mbcg",
    "solve",
]
