"""From told trials to a fitted posterior: the one file that builds surrogate models."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bbmmopt.space import Space
from bbmmopt.transforms import Standardise, TargetTransform, YeoJohnson
from surrogate import (
    BBMM,
    Auto,
    Cholesky,
    ExactGP,
    FitReport,
    Hamming,
    Kernel,
    Matern52,
    Posterior,
    fit,
    one_thread,
)

# Parameters are fitted on at most this many rows; the posterior is conditioned on all of them.
_FIT_ROWS = 1000
# From this n on, a fit starts from the parameters found for an earlier, smaller set of trials.
_WARM_FROM = 12
_GROWTH = 1.25  # the sizes of those sets: 12, 15, 19, 24, …
_CHOICE_ROWS = 128  # the transform of the targets is chosen on at most this many trials
_REFINE_FROM = 256  # from here on, it pays to start later fits from one to all n' trials
# Nats that another step of a fit may still promise: enough to choose by, and enough to propose by.
# Asking for 1e-4 throughout took 60 % more evaluations, for the same regret.
_ROUGH, _FINE = 1e-2, 1e-3
_NOISY = 0.25  # share of the targets' variance that a fit may blame on noise without a second look
_MOST_NOISE = 1e12  # variance, in model units, of an observation that says nothing
_WARP_FROM = 5  # different values, below which a power is not to be told from the data

# From this n on, a posterior of the first n' trials is kept, n' the largest of a finer sequence of
# sizes, and the trials since then are appended to it. Its variances are those of a cached root, a
# little too large: exact ones would take seconds to minutes an ask. Weights come from a Cholesky
# factor while one fits easily, from products beyond.
_LARGE_FROM = 3000
_GROWTH_LARGE = 1.06
# Parameters are fitted to at most this many then: more would tell them apart no better, and at
# n = 50,000 a fit to all had not ended after ten minutes.
_LARGE_FIT_ROWS = 10_000
_LARGE = Auto(
    fit_from=2 * _FIT_ROWS,
    predict_from=16_000,
    cholesky=Cholesky(root_from=_LARGE_FROM),
    # What float32 costs a likelihood of tens of thousands of trials, a search does not feel.
    bbmm=BBMM(
        tolerance=1e-3,
        append_tolerance=math.inf,
        variance_tolerance=math.inf,
        rounding=2e-7,
        refine=False,
    ),
)

# From this n on several threads are quicker than one; below, they wait for each other.
_THREADS_FROM = 1000
_SEARCH_THREADS_FROM = 20_000

__all__ = ["Belief", "Data", "Modeller", "make_model", "search_threads_for", "threads_for"]


def threads_for(n: int) -> AbstractContextManager[None]:
    """The threads that work on n observations, as a scope.

    Whatever leads to a suggestion runs inside: sums in another order have other last digits, and
    a resumed run must propose the same bits.
    """
    return one_thread() if n < _THREADS_FROM else nullcontext()


def search_threads_for(n: int) -> AbstractContextManager[None]:
    """The threads that search an acquisition over n observations, as a scope.

    Many small steps, for which threads wait longer than they work wherever other programs run.
    """
    return one_thread() if n < _SEARCH_THREADS_FROM else nullcontext()


@dataclass(frozen=True)
class Data:
    """What is known of one objective, in rows of the unit cube; larger y is better.

    Attributes:
        X: Complete trials in order of their numbers, shape (n, d).
        y: Their values, in the user's units but for the sign, shape (n,).
        errors: Standard error of each, in units of y, NaN where unknown, shape (n,).
        pending: Trials that are running, shape (p, d).
        failed: Trials without a value, shape (f, d).
        exact: Whether the objective is declared deterministic. Where its values contradict that,
            its noise is learnt all the same.
    """

    X: np.ndarray
    y: np.ndarray
    errors: np.ndarray
    pending: np.ndarray
    failed: np.ndarray
    exact: bool

    def contradicts_itself(self) -> bool:
        """Whether the same point was told different values, which no exact objective has."""
        values: dict[bytes, float] = {}
        rows = zip(np.ascontiguousarray(self.X), self.y.tolist(), strict=True)
        return any(values.setdefault(x.tobytes(), y) != y for x, y in rows)

    def rows(self, which: np.ndarray | slice) -> Data:
        """Some of the complete trials alone."""
        none = self.pending[:0]
        return Data(self.X[which], self.y[which], self.errors[which], none, none, self.exact)


@dataclass(frozen=True)
class Belief:
    """What the model believes of one objective.

    Attributes:
        posterior: Given the complete trials, over the unit cube, in model units: standardised,
            larger is better.
        fantasised: The same, with pending and failed trials put in at what was expected of them:
            uncertainty is gone there, so nobody goes there again.
        transform: From the user's units (larger better) to model units.
        incumbent: What the next trial should beat, in model units. The best of the complete trials,
            as observed when the objective is exact, else by the posterior mean, which noise does
            not flatter; or what is expected of a pending trial, if that is more: or the next one
            would go right beside it. -inf without data.
        data: What it was built from.
    """

    posterior: Posterior
    fantasised: Posterior
    transform: TargetTransform
    incumbent: float
    data: Data

    @property
    def lengthscales(self) -> Tensor:
        """Length over which f changes in each column of the unit cube, shape (d,).

        1 for categorical columns, whose distances mean nothing.
        """
        scale = torch.ones(self.data.X.shape[1], dtype=torch.float64)
        for kernel in self.posterior.model.kernel.modules():
            if isinstance(kernel, Matern52):
                columns = list(kernel.columns or range(kernel.dims))
                scale[columns] = kernel.lengthscale.detach()
        return scale

    @property
    def report(self) -> FitReport | None:
        """How the fit went."""
        return self.posterior.model.report

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is expected at rows of the unit cube, and how uncertain that is.

        Median and half the width of the central 68 %: mean and standard deviation where targets
        are not warped. Where they are, what is barely possible far out in the tail would make the
        mean useless, while quantiles pass through any monotone map.

        Args:
            X: Shape (m, d).

        Returns:
            Two (m,) arrays in the user's units, larger is better.
        """
        with torch.no_grad(), threads_for(len(self.data.y)):
            mean, std = self.posterior.marginals(torch.from_numpy(np.ascontiguousarray(X)))
        z, dz = mean.numpy(), std.numpy()
        lower, upper = self.transform.inverse(z - dz), self.transform.inverse(z + dz)
        return self.transform.inverse(z), 0.5 * upper - 0.5 * lower

    def centres(self, count: int) -> np.ndarray:
        """The `count` complete trials that the model thinks best, best first, shape (k, d)."""
        mean = self.posterior.fitted()
        return self.data.X[mean.argsort(descending=True, stable=True)[:count].numpy()]


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
    return ExactGP(kernel, priors=priors, solver=_LARGE)


@dataclass(frozen=True)
class _Checkpoint:
    """A model fitted from nothing to the first trials, and the transform that served it better."""

    key: tuple[bytes, ...]
    model: ExactGP
    power: float | None  # of the Yeo-Johnson transform; None where plain targets are better


@dataclass(frozen=True)
class _Base:
    """The posterior of the first n' of many trials, to which the others are appended."""

    key: tuple[bytes, ...]
    posterior: Posterior
    transform: TargetTransform


class Modeller:
    """Fits models, and remembers what makes the next fit quick without changing its result.

    The parameters for a set of n trials are found from the parameters for the first n' of them (by
    trial number; n' the largest of 12, 15, 19, 24, … up to n), which are found from those for at
    most 128 spread over these, and they from the priors' start values. So they depend on the data
    alone, not on the order in which results came in or on what an earlier process happened to fit:
    a resumed run proposes what an uninterrupted one does.

    At n' both transforms of the targets are tried, and the one whose leave-one-out predictions
    give the values the higher density is used until the next n'.

    From 3,000 trials on the sizes n' lie 6 % apart. The parameters, the scale of the targets and
    the posterior of the first n' stay until the next of them; only what was told since is added.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._checkpoint: _Checkpoint | None = None
        self._base: _Base | None = None
        self._last: tuple[tuple[bytes, ...], Belief] | None = None

    def belief(self, data: Data) -> Belief:
        """The belief after these data; the same object when asked again about the same data."""
        key = (*_key(data, len(data.y)), data.pending.tobytes(), data.failed.tobytes())
        if self._last is None or self._last[0] != key:
            with threads_for(len(data.y)):
                self._last = key, self._build(data)
        return self._last[1]

    def _build(self, data: Data) -> Belief:
        n = len(data.y)
        if data.exact and data.contradicts_itself():
            data = replace(data, exact=False)
        if n == 0:
            model = make_model(self._space, exact=data.exact)
            empty = torch.empty(0, len(self._space), dtype=torch.float64)
            return _believe(model.condition(empty, empty[:, 0]), Standardise.of(data.y), data)
        size = _checkpoint_size(n)
        if n >= _LARGE_FROM:
            return self._extend(self._large(data.rows(slice(size))), data)
        start = self._start(data.rows(slice(size)))
        transform = _transform(data.y, start.power)
        model = _fit(start.model, data, transform, _FINE)
        return _believe(model.condition(*_tensors(data, transform)), transform, data)

    def _large(self, data: Data) -> _Base:
        """The posterior of many trials, parameters fitted to all or many of them."""
        key = _key(data, len(data.y))
        if self._base is None or self._base.key != key:
            self._base = None  # before the next one is made: each may hold K
            start = self._start(data)
            transform = _transform(data.y, start.power)
            X, y, noise = _tensors(data, transform)
            model = start.model
            if bool((y != y[0]).any()):
                rows = _evenly(len(y), _LARGE_FIT_ROWS)
                model = fit(
                    model, X[rows], y[rows], noise=noise[rows], restart=False, tolerance=_FINE
                )
            self._base = _Base(key, model.condition(X, y, noise), transform)
        return self._base

    def _extend(self, base: _Base, data: Data) -> Belief:
        """The belief after all trials from that after the first of them."""
        n = len(base.posterior.y)
        posterior = base.posterior
        if n < len(data.y):
            posterior = posterior.append(*_tensors(data.rows(slice(n, None)), base.transform))
        return _believe(posterior, base.transform, data)

    def _start(self, data: Data) -> _Checkpoint:
        """The model of the first n' trials, fitted from the priors' start values."""
        key = _key(data, len(data.y))
        if self._checkpoint is None or self._checkpoint.key != key:
            # Twenty evaluations for each transform are spent on few rows, which tell enough.
            few = data.rows(_evenly(len(data.y), _CHOICE_ROWS))
            model, power = self._choose(few)
            if len(data.y) > _REFINE_FROM:
                model = _fit(model, data, _transform(data.y, power), _FINE)
            self._checkpoint = _Checkpoint(key, model, power)
        return self._checkpoint

    def _choose(self, data: Data) -> tuple[ExactGP, float | None]:
        """The better of two models, and the power its targets are warped with, if they are."""
        plain, prior = Standardise.of(data.y), make_model(self._space, exact=data.exact)
        model = _fit_afresh(prior, data, plain)
        if len(np.unique(data.y)) < _WARP_FROM:
            return model, None
        warped = YeoJohnson.of(data.y)
        # Half the evaluations, unless what the plain targets led to is no guide.
        is_guide = float(model.noise.detach()) <= _NOISY
        other = _fit(model, data, warped, _ROUGH) if is_guide else _fit_afresh(prior, data, warped)
        kept = data.y > plain.low  # the density of a value that was cut means nothing
        gain = _loo_density(other, data, warped, kept) - _loo_density(model, data, plain, kept)
        return (other, warped.power) if gain > 0 else (model, None)


def _transform(y: np.ndarray, power: float | None) -> TargetTransform:
    return Standardise.of(y) if power is None else YeoJohnson.of(y, power)


def _checkpoint_size(n: int) -> int:
    """The largest of 12, 15, 19, 24, … up to n, finer from 3000 on; n itself below 12."""
    if n < _WARM_FROM:
        return n
    size = _WARM_FROM
    while True:
        larger = math.ceil(size * (_GROWTH if size < _LARGE_FROM else _GROWTH_LARGE))
        if larger > n:
            return size
        size = larger


def _evenly(n: int, most: int) -> np.ndarray:
    """Up to `most` of n rows, evenly over the run: the last trials crowd around the optimum."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def _fit_afresh(prior: ExactGP, data: Data, transform: TargetTransform) -> ExactGP:
    """A rough fit from the priors' start; twice where the first took the data for noise."""
    model = _fit(prior, data, transform, _ROUGH)
    if float(model.noise.detach()) > _NOISY:
        # So do data that wiggle faster than the first lengthscales can follow.
        model = _fit(prior, data, transform, _ROUGH, restart=True)
    return model


def _fit(
    start: ExactGP,
    data: Data,
    transform: TargetTransform,
    tolerance: float,
    *,
    restart: bool = False,
) -> ExactGP:
    """`surrogate.fit` to model units, on up to _FIT_ROWS trials."""
    rows = _evenly(len(data.y), _FIT_ROWS)
    X, y, noise = _tensors(data, transform)
    if bool((y == y[0]).all()):
        # A constant is best explained by endless lengthscales, under which nothing but corners
        # would be tried. As long as it tells nothing else, the prior knows better.
        return start
    return fit(start, X[rows], y[rows], noise=noise[rows], restart=restart, tolerance=tolerance)


def _loo_density(model: ExactGP, data: Data, transform: TargetTransform, kept: np.ndarray) -> float:
    """Mean log density of each value kept, given all others, per unit of the user's scale."""
    X, y, noise = _tensors(data, transform)
    mean, std = model.condition(X, y, noise).leave_one_out()
    z = (y - mean) / std
    log_density = (-0.5 * z.square() - std.log()).numpy() + transform.log_slope(data.y)
    return float(log_density[kept].mean())


def _believe(posterior: Posterior, transform: TargetTransform, data: Data) -> Belief:
    """Find the incumbent and put in the trials that have no value."""
    if not len(data.y):
        incumbent = -math.inf
    elif data.exact:
        incumbent = float(posterior.y.max())
    else:
        incumbent = float(posterior.fitted().max())
    return _with_fantasies(posterior, transform, incumbent, data)


def _with_fantasies(
    posterior: Posterior, transform: TargetTransform, incumbent: float, data: Data
) -> Belief:
    """Add the posterior that has pending and failed trials put in.

    Pending ones at the posterior mean. Failed ones at the mean or the median of what was observed,
    whichever is worse: the hyperparameters never see them.
    """
    fantasised = posterior
    if len(data.pending):
        X = torch.from_numpy(data.pending)
        mean = fantasised.marginals(X)[0]
        fantasised = fantasised.append(X, mean)
        if len(posterior.y):
            incumbent = max(incumbent, float(mean.max()))
    if len(data.failed):
        X = torch.from_numpy(data.failed)
        mean = fantasised.marginals(X)[0]
        if len(posterior.y):
            mean = mean.clamp_max(float(posterior.y.median()))
        fantasised = fantasised.append(X, mean)
    return Belief(posterior, fantasised, transform, incumbent, data)


def _tensors(data: Data, transform: TargetTransform) -> tuple[Tensor, Tensor, Tensor]:
    """X, y and noise in model units."""
    with np.errstate(divide="ignore", over="ignore"):
        noise = np.exp(2 * (np.log(data.errors) + transform.log_slope(data.y)))
    noise = noise.clip(max=_MOST_NOISE)
    arrays = data.X, transform.forward(data.y), noise
    X, y, noise = (torch.from_numpy(np.ascontiguousarray(a)) for a in arrays)
    return X, y, noise


def _key(data: Data, n: int) -> tuple[bytes, ...]:
    """What a fit to the first n trials depends on."""
    return data.X[:n].tobytes(), data.y[:n].tobytes(), data.errors[:n].tobytes()
