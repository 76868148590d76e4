"""Symmetric matrices that know how to multiply: all that inference by products needs of K."""

from surrogate.operators.base import CovarianceOperator, LinearOperator
from surrogate.operators.basic import Dense, Diagonal, ScaledOperator, SumOperator
from surrogate.operators.distributed import DistributedKernelOperator, RanksDisagree
from surrogate.operators.gradients import GradientOperator
from surrogate.operators.kernel import KernelOperator, default_budget
from surrogate.operators.structured import Interpolated, Kronecker, Toeplitz
from surrogate.operators.table import TableKernelOperator, TableOperator, Term

__all__ = [
    "CovarianceOperator",
    "Dense",
    "Diagonal",
    "DistributedKernelOperator",
    "GradientOperator",
    "Interpolated",
    "KernelOperator",
    "Kronecker",
    "LinearOperator",
    "RanksDisagree",
    "ScaledOperator",
    "SumOperator",
    "TableKernelOperator",
    "TableOperator",
    "Term",
    "Toeplitz",
    "default_budget",
]
