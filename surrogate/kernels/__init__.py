"""Kernels: positive definite functions with parameters, and how they combine."""

from surrogate.kernels.base import Features, Kernel, Linearised, positive_parameter
from surrogate.kernels.combine import Product, Scaled, Sum
from surrogate.kernels.discrete import Hamming
from surrogate.kernels.stationary import RBF, Matern12, Matern32, Matern52, Stationary

__all__ = [
    "RBF",
    "Features",
    "Hamming",
    "Kernel",
    "Linearised",
    "Matern12",
    "Matern32",
    "Matern52",
    "Product",
    "Scaled",
    "Stationary",
    "Sum",
    "positive_parameter",
]
