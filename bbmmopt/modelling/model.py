"""The default model of a space, and how it is fitted to told values."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bbmmopt.modelling.data import Data, evenly, plain, tensors
from bbmmopt.space import Space
from bbmmopt.transforms import TargetTransform
from surrogate import (
    BBMM,
    Auto,
    Cholesky,
    ExactGP,
    Hamming,
    Kernel,
    Matern52,
    fit,
)

# Parameters are fitted on at most this many rows; the posterior is conditioned on all of them.
FIT_ROWS = 1000
# Nats that another step of a fit may still promise: enough to choose by, and enough to propose by.
# Asking for 1e-4 throughout took 60 % more evaluations, for the same regret.
ROUGH, FINE = 1e-2, 1e-3
NOISY = 0.25  # share of the targets' variance that a fit may blame on noise without a second look
LARGE_FROM = 3000  # trials from which a posterior is extended rather than made anew
LARGE = Auto(
    fit_from=2 * FIT_ROWS,
    predict_from=16_000,
    cholesky=Cholesky(root_from=LARGE_FROM),
    # What float32 costs a likelihood of tens of thousands of trials, a search does not feel.
    bbmm=BBMM(
        tolerance=1e-3,
        append_tolerance=math.inf,
        variance_tolerance=math.inf,
        rounding=2e-7,
        refine=False,
    ),
)


def make_model(space: Space, *, exact: bool) -> ExactGP:
    """The default model of a space, at the start values of its priors.

    Matérn-5/2 over ordered columns with a lengthscale each, times a Hamming kernel over the
    categorical ones. Fixed columns are left out.
    """
    kinds = [column.kind for column in space.columns]
    ordered = [j for j, kind in enumerate(kinds) if kind in ("continuous", "ordered")]
    categorical = [j for j, kind in enumerate(kinds) if kind == "categorical"]
    kernel: Kernel | None = None
    if ordered:
        whole = len(ordered) == len(space)
        kernel = Matern52(len(ordered), columns=None if whole else ordered)
    if categorical:
        hamming = Hamming(len(categorical), columns=categorical)
        kernel = kernel * hamming if kernel else 1.0 * hamming
    if kernel is None:  # every parameter is fixed: a constant, seen through any one column
        kernel = Matern52(1, columns=[0])
    priors = "exact-objective-1" if exact else "dimension-scaled-1"
    return ExactGP(kernel, priors=priors, solver=LARGE)


def fit_afresh(
    prior: ExactGP, data: Data, transform: TargetTransform, stop: Callable[[], bool]
) -> ExactGP:
    """A rough fit from the priors' start; twice where the first took the data for noise."""
    model = fitted(prior, data, transform, ROUGH, stop)
    if float(model.noise.detach()) > NOISY and not stop():
        # So do data that wiggle faster than the first lengthscales can follow.
        model = fitted(prior, data, transform, ROUGH, stop, restart=True)
    return model


def fitted(
    start: ExactGP,
    data: Data,
    transform: TargetTransform,
    tolerance: float,
    stop: Callable[[], bool],
    *,
    restart: bool = False,
    most: int = FIT_ROWS,
) -> ExactGP:
    """`surrogate.fit` to model units, on up to `most` trials."""
    rows = evenly(len(data.y), most)
    values = transform.forward(data.y)
    if (values == values[0]).all():
        # A constant is best explained by endless lengthscales, under which nothing but corners
        # would be tried. As long as it tells nothing else, the prior knows better.
        return start
    X, y, noise = tensors(data, transform, rows)
    options = {"noise": noise, "restart": restart, "tolerance": tolerance}
    return fit(start, X, y, **options, stop=stop)


def loo_density(model: ExactGP, data: Data, transform: TargetTransform, kept: np.ndarray) -> float:
    """Mean log density of each value kept, given all others, per unit of the user's scale."""
    return float(loo_densities(model, data, transform)[kept].mean())


def gains_clearly(
    other: ExactGP, model: ExactGP, data: Data, transform: TargetTransform, by_chance: float
) -> bool:
    """Whether another model predicts each value from all others so much better that it is no luck.

        Σ g_i > by_chance + √n std(g)

    for its gain g_i in log density of value i: by a standard error more than what a fit of more
    parameters gains by chance, for it looks at the values that it is judged by. Values that were
    cut do not count.
    """
    kept = data.y > plain(data).low
    densities = [loo_densities(m, data, transform)[kept] for m in (other, model)]
    gain = densities[0] - densities[1]
    return bool(gain.sum() > by_chance + math.sqrt(len(gain)) * gain.std())


def loo_densities(model: ExactGP, data: Data, transform: TargetTransform) -> np.ndarray:
    """Log density of each value, given all others, per unit of the user's scale, shape (n,)."""
    X, y, noise = tensors(data, transform)
    mean, std = model.condition(X, y, noise).leave_one_out()
    z = (y - mean) / std
    return (-0.5 * z.square() - std.log()).cpu().numpy() + transform.log_slope(data.y)
