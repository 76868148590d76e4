"""Symmetric matrices that know how to multiply: all that inference by products needs of K."""

from surrogate.operators.base import LinearOperator
from surrogate.operators.basic import Dense, Diagonal, ScaledOperator, SumOperator
from surrogate.operators.kernel import KernelOperator, default_budget

__all__ = [
    "Dense",
    "Diagonal",
    "KernelOperator",
    "LinearOperator",
    "ScaledOperator",
    "SumOperator",
    "default_budget",
]
