"""Kernels of real inputs, and what each should be for one pair of points, for the law suite.

They see rows of five columns.
"""

import math

from surrogate import (
    RBF,
    Linear,
    Periodic,
    PiecewisePolynomial,
    Polynomial,
    RationalQuadratic,
    SpectralMixture,
)

REAL = [0, 1, 2]
ELL = [0.3, 1.2, 0.7, 2.0, 0.9]
REACH = [1.1, 3.0, 2.5, 4.0, 1.7]
PERIOD = [0.37, 1.3, 0.8]
WEIGHTS = [0.8, 0.3]
FREQUENCIES = [[0.4, 1.5, 0.2], [2.0, 0.1, 0.7]]
BANDWIDTHS = [[0.3, 0.1, 0.2], [0.05, 0.4, 0.1]]


def separation(a, b, ell, columns=range(5)) -> float:
    return math.sqrt(sum(float((a[j] - b[j]) / e) ** 2 for j, e in zip(columns, ell, strict=True)))


def rational(a, b, alpha: float) -> float:
    # By log1p: 1 plus a little, to a large power, would lose digits.
    return math.exp(-alpha * math.log1p(separation(a, b, ELL) ** 2 / (2 * alpha)))


def wendland(r: float, dims: int, q: int) -> float:
    """Rasmussen & Williams (2006), eq. 4.21, as printed there."""
    j = dims // 2 + q + 1
    if r >= 1:
        return 0.0
    return (1 - r) ** (j + q) * [
        1,
        (j + 1) * r + 1,
        ((j**2 + 4 * j + 3) * r**2 + (3 * j + 6) * r + 3) / 3,
        (
            (j**3 + 9 * j**2 + 23 * j + 15) * r**3
            + (6 * j**2 + 36 * j + 45) * r**2
            + (15 * j + 45) * r
            + 15
        )
        / 15,
    ][q]


def periodic(a, b, period, ell, columns=REAL) -> float:
    each = zip(columns, period, ell, strict=True)
    return math.exp(
        -2 * sum((math.sin(math.pi * float(a[j] - b[j]) / p) / e) ** 2 for j, p, e in each)
    )


def waves(a, b) -> float:
    total = 0.0
    for w, frequency, bandwidth in zip(WEIGHTS, FREQUENCIES, BANDWIDTHS, strict=True):
        part = w
        for j, mu, v in zip(REAL, frequency, [e**2 for e in bandwidth], strict=True):
            tau = float(a[j] - b[j])
            part *= math.exp(-2 * math.pi**2 * tau**2 * v) * math.cos(2 * math.pi * tau * mu)
        total += part
    return total


def inner(a, b, variance=(1.0,) * 5, columns=range(5)) -> float:
    return sum(v * float(a[j] * b[j]) for j, v in zip(columns, variance, strict=True))


SMOOTH = {
    "rational quadratic": (
        RationalQuadratic(5, ELL, 1.7, 0.6),
        lambda a, b: 1.7 * rational(a, b, 0.6),
    ),
    "rational quadratic, nearly an RBF": (
        RationalQuadratic(5, ELL, alpha=1e7),
        lambda a, b: rational(a, b, 1e7),
    ),
    **{
        f"compact, {q} times smooth": (
            PiecewisePolynomial(5, q, REACH, 1.7),
            lambda a, b, q=q: 1.7 * wendland(separation(a, b, REACH), 5, q),
        )
        for q in range(4)
    },
    "compact in one column": (
        PiecewisePolynomial(1, 0, 0.4, columns=[1]),
        lambda a, b: wendland(separation(a, b, [0.4], [1]), 1, 0),
    ),
    "periodic": (
        Periodic(3, PERIOD, [0.9, 2.0, 1.1], 1.7, columns=REAL),
        lambda a, b: 1.7 * periodic(a, b, PERIOD, [0.9, 2.0, 1.1]),
    ),
    "periodic in all columns": (
        Periodic(5, 0.7, 1.5),
        lambda a, b: periodic(a, b, [0.7] * 5, [1.5] * 5, range(5)),
    ),
    "waves": (
        SpectralMixture(
            3, 2, columns=REAL, weights=WEIGHTS, frequencies=FREQUENCIES, bandwidths=BANDWIDTHS
        ),
        waves,
    ),
    "linear": (Linear(5, ELL), lambda a, b: inner(a, b, ELL)),
    "linear in one column": (
        Linear(1, 1.7, columns=[2]),
        lambda a, b: inner(a, b, [1.7], [2]),
    ),
    "polynomial": (Polynomial(5, 3, 0.8, 0.4), lambda a, b: 0.4 * (inner(a, b) + 0.8) ** 3),
    "polynomial of degree 1": (
        Polynomial(2, 1, columns=[2, 0]),
        lambda a, b: inner(a, b, [1, 1], [2, 0]) + 1,
    ),
    "linear, and periodic times rational quadratic": (
        Linear(5, 0.3) + Periodic(1, 0.5, columns=[0]) * RationalQuadratic(5, ELL, alpha=0.6),
        lambda a, b: (
            inner(a, b, [0.3] * 5)
            + periodic(a, b, [0.5], [2 * math.pi / 5], [0]) * rational(a, b, 0.6)
        ),
    ),
    "compact times RBF": (
        PiecewisePolynomial(3, 3, REACH[:3], columns=REAL) * RBF(5, ELL),
        lambda a, b: (
            wendland(separation(a, b, REACH[:3], REAL), 3, 3)
            * math.exp(-(separation(a, b, ELL) ** 2) / 2)
        ),
    ),
}
"""What it is, what it should be for one pair of points."""

FROM_THE_ORIGIN = ("linear", "polynomial")
"""What the names of those begin with that a shift of all inputs changes."""

WITHOUT_FEATURES = ("compact",)
"""And of those that have no random features."""
