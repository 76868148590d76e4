"""Kernels: positive definite functions with parameters, and how they combine."""

from surrogate.kernels.additive import Additive
from surrogate.kernels.base import Features, Kernel, Linearised, positive_parameter
from surrogate.kernels.combine import Columns, Product, Scaled, Sum
from surrogate.kernels.compact import PiecewisePolynomial
from surrogate.kernels.conditional import Conditional
from surrogate.kernels.discrete import Hamming, Ordinal
from surrogate.kernels.gradients import WithGradients
from surrogate.kernels.mixtures import RationalQuadratic, SpectralMixture
from surrogate.kernels.nonstationary import Linear, Polynomial
from surrogate.kernels.periodic import Periodic
from surrogate.kernels.stationary import RBF, Matern12, Matern32, Matern52, Stationary
from surrogate.kernels.table import TableKernel
from surrogate.kernels.tasks import Coregionalization
from surrogate.kernels.warp import FeatureMap, Warped

__all__ = [
    "WithGradients",
    "RBF",
    "Additive",
    "Columns",
    "Conditional",
    "Coregionalization",
    "FeatureMap",
    "Features",
    "Hamming",
    "Kernel",
    "Linear",
    "Linearised",
    "Matern12",
    "Matern32",
    "Matern52",
    "Ordinal",
    "Periodic",
    "PiecewisePolynomial",
    "Polynomial",
    "Product",
    "RationalQuadratic",
    "Scaled",
    "SpectralMixture",
    "Stationary",
    "Sum",
    "TableKernel",
    "Warped",
    "positive_parameter",
]
