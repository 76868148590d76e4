"""Symmetric matrices that know how to multiply: all that inference by products needs of K."""

from surrogate.operators.base import LinearOperator
from surrogate.operators.basic import Dense, Diagonal, ScaledOperator, SumOperator
from surrogate.operators.kernel import KernelOperator, default_budget
from surrogate.operators.table import TableKernelOperator, TableOperator, Term

__all__ = [
    "Dense",
    "Diagonal",
    "KernelOperator",
    "LinearOperator",
    "ScaledOperator",
    "SumOperator",
    "TableKernelOperator",
    "TableOperator",
    "Term",
    "default_budget",
]
