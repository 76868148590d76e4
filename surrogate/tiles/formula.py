"""What a fused kernel computes: sums of products of a few kinds of factors, and their gradients.

    k(x, x') = Σ_q c_q Π_f k_qf(x, x')

A factor sees points, categories or tasks that are made of x once, n numbers at a time; what is left
for each of the n² pairs is arithmetic that a fused kernel knows. A kernel that can be written so
says how in `Kernel.formula()`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor


def nowhere(X: Tensor) -> Tensor:
    """0, shape (d,): what may be taken from rows x where nothing else may."""
    return X.new_zeros(X.shape[1])


Gradients = Mapping[int, Tensor]
"""Gradients by the place of the parameter among `kernel.parameters()`."""


@dataclass(frozen=True)
class Radial:
    """ρ(‖u - u'‖²) of points u that are made of x.

    Attributes:
        profile: Which ρ, one of `PROFILES`.
        points: Maps X (n, d) to U (n, c).
        pullback: Maps X, U up to the same shift of all rows, and ∂loss/∂U, (n, c), to gradients in
            the parameters that U is made with.
        inputs: Maps X and ∂loss/∂U to ∂loss/∂X, (n, d).
        width: c.
        shape: α of a rational quadratic; q and j of a piecewise polynomial, as numbers.
        by_shape: Place of log α among the parameters; None where there is none.
        origin: Maps X to o (d,) in their midst that may be taken from all rows without changing k:
            what is near 0 loses fewer digits.
    """

    profile: str
    points: Callable[[Tensor], Tensor]
    pullback: Callable[[Tensor, Tensor, Tensor], Gradients]
    inputs: Callable[[Tensor, Tensor], Tensor]
    width: int
    shape: tuple[float, ...] = ()
    by_shape: int | None = None
    origin: Callable[[Tensor], Tensor] = nowhere


@dataclass(frozen=True)
class Categories:
    """exp(-Σ_j w_j [c_j ≠ c'_j]) of categories c that are columns of x.

    Attributes:
        codes: Maps X (n, d) to C (n, k).
        weights: w, shape (k,).
        parameter: Place of the parameter log 1/w among all.
    """

    codes: Callable[[Tensor], Tensor]
    weights: Tensor
    parameter: int


@dataclass(frozen=True)
class Tasks:
    """C[t, t'] of tasks t that are a column of x.

    Attributes:
        codes: Maps X (n, d) to t (n, 1).
        covariance: C, shape (T, T).
        pullback: Maps ∂loss/∂C, (T, T), to gradients in the parameters that C is made of.
    """

    codes: Callable[[Tensor], Tensor]
    covariance: Tensor
    pullback: Callable[[Tensor], Gradients]


Factor = Radial | Categories | Tasks
PROFILES = ("rbf", "matern12", "matern32", "matern52", "rational_quadratic", "piecewise")


@dataclass(frozen=True)
class Term:
    """c Π_f k_f.

    Attributes:
        scale: c.
        scales: Places of the parameters whose sum is log c.
        factors: k_f.
    """

    scale: float
    scales: tuple[int, ...]
    factors: tuple[Factor, ...]

    def __mul__(self, other: Term) -> Term:
        return Term(
            self.scale * other.scale, self.scales + other.scales, self.factors + other.factors
        )


@dataclass(frozen=True)
class Formula:
    """Σ of terms.

    Attributes:
        terms: At least one.
    """

    terms: tuple[Term, ...]

    @staticmethod
    def of(*factors: Factor, scale: float = 1.0, scales: tuple[int, ...] = ()) -> Formula:
        """One term."""
        return Formula((Term(scale, scales, factors),))

    def __add__(self, other: Formula) -> Formula:
        return Formula(self.terms + other.terms)

    def __mul__(self, other: Formula) -> Formula:
        return Formula(tuple(a * b for a in self.terms for b in other.terms))

    def placed(self, places: Sequence[int]) -> Formula:
        """The same with parameter i at places[i]: what a kernel tells of one inside it."""
        terms = []
        for term in self.terms:
            scales = tuple(places[i] for i in term.scales)
            factors = tuple(_placed(factor, places) for factor in term.factors)
            terms.append(Term(term.scale, scales, factors))
        return Formula(tuple(terms))

    def times(self, scale: float, place: int) -> Formula:
        """The same times a scale, whose logarithm is the parameter at `place`."""
        return Formula.of(scale=scale, scales=(place,)) * self

    def seeing(self, view: View) -> Formula:
        """The same of what `view` shows of x."""
        return Formula(
            tuple(
                replace(t, factors=tuple(_seeing(f, view) for f in t.factors)) for t in self.terms
            )
        )


@dataclass(frozen=True)
class View:
    """φ(x), shown to a formula in place of x.

    Attributes:
        points: Maps X (n, d) to φ (n, c).
        pullback: Maps X and ∂loss/∂φ to gradients in the parameters of φ.
        inputs: Maps X and ∂loss/∂φ to ∂loss/∂X.
        is_choice: Whether φ(x) are some of the columns of x.
    """

    points: Callable[[Tensor], Tensor]
    pullback: Callable[[Tensor, Tensor], Gradients]
    inputs: Callable[[Tensor, Tensor], Tensor]
    is_choice: bool = False


def added(first: Gradients, second: Gradients) -> Gradients:
    """Both, summed where they name the same parameter."""
    total = dict(first)
    for place, gradient in second.items():
        total[place] = total[place] + gradient if place in total else gradient
    return total


def _moved(gradients: Gradients, places: Sequence[int]) -> Gradients:
    return {places[i]: gradient for i, gradient in gradients.items()}


def _placed(factor: Factor, places: Sequence[int]) -> Factor:
    if isinstance(factor, Categories):
        return replace(factor, parameter=places[factor.parameter])
    if isinstance(factor, Tasks):
        by_covariance = factor.pullback
        return replace(factor, pullback=lambda G: _moved(by_covariance(G), places))
    by_points, by_shape = factor.pullback, factor.by_shape
    return replace(
        factor,
        pullback=lambda X, U, G: _moved(by_points(X, U, G), places),
        by_shape=None if by_shape is None else places[by_shape],
    )


def _seeing(factor: Factor, view: View) -> Factor:
    if not isinstance(factor, Radial):
        codes = factor.codes
        return replace(factor, codes=lambda X: codes(view.points(X)))
    points, by_points, by_inputs = factor.points, factor.pullback, factor.inputs
    origin = factor.origin

    def pullback(X: Tensor, U: Tensor, G: Tensor) -> Gradients:
        seen = view.points(X)
        return added(by_points(seen, U, G), view.pullback(X, by_inputs(seen, G)))

    def chosen(X: Tensor) -> Tensor:
        return view.inputs(X[:1], origin(view.points(X)).unsqueeze(0))[0]

    return replace(
        factor,
        points=lambda X: points(view.points(X)),
        pullback=pullback,
        inputs=lambda X, G: view.inputs(X, by_inputs(view.points(X), G)),
        origin=chosen if view.is_choice else nowhere,
    )
