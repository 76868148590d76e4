"""What is known of an output, in rows of the unit cube, and in the units of a model."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bbmmopt.transforms import Standardise, TargetTransform, YeoJohnson
from surrogate import one_thread

_MOST_NOISE = 1e12  # variance, in model units, of an observation that says nothing
# From this n on several threads are quicker than one; below, they wait for each other.
_THREADS_FROM = 1000
_SEARCH_THREADS_FROM = 20_000
_CPU = torch.device("cpu")
_ALL = slice(None)


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
    """What is known of one output, in rows of the unit cube; larger y is better.

    An output is an objective, a constraint, or whether a trial comes to an end at all.

    Attributes:
        X: Complete trials, and stopped ones whose end was forecast, in order of their numbers,
            shape (n, d).
        y: Their values, in the user's units but for the sign, shape (n,).
        errors: Standard error of each, in units of y, NaN where unknown, shape (n,); infinite
            where there is no value, and y means nothing.
        pending: Trials that are running, shape (p, d).
        failed: Trials without a value, shape (f, d).
        exact: Whether the objective is declared deterministic. Where its values contradict that,
            its noise is learnt all the same.
        bound: Of a constraint: it holds from this y on. No transform cuts it off.
        worthless: Of one of several objectives, where it is given: the y from which on down a trial
            is worth nothing. No transform cuts off what is better.
        fence: Interquartile ranges below the lower quartile at which values are cut. Of several
            objectives, the worst value of one may be the price of the best of another.
        warp: Whether targets may be warped. Not where their differences are compared with those of
            another output, as volumes do.
        stopped: How many of the n trials were stopped early, their values forecast.
        outside: Which trials nothing that may be proposed is like, shape (n,), so that the best of
            them is nothing to be beaten; None for none.
        device: Where models of these are fitted and asked.
    """

    X: np.ndarray
    y: np.ndarray
    errors: np.ndarray
    pending: np.ndarray
    failed: np.ndarray
    exact: bool
    bound: float | None = None
    worthless: float | None = None
    fence: float = 1.5
    warp: bool = True
    stopped: int = 0
    outside: np.ndarray | None = None
    device: torch.device = _CPU

    def place(self, array: np.ndarray) -> Tensor:
        """An array where the models are: rows to predict at, indices of trials."""
        return torch.from_numpy(array).to(self.device)

    @property
    def told(self) -> np.ndarray:
        """Which trials have a value, shape (n,)."""
        return ~np.isposinf(self.errors)

    @property
    def within(self) -> np.ndarray:
        """Which trials the next one should beat, shape (n,): all, where none is within."""
        if self.outside is None or self.outside.all():
            return np.ones(len(self.y), dtype=bool)
        return ~self.outside

    def contradicts_itself(self) -> bool:
        """Whether the same point was told different values, which no exact objective has."""
        values: dict[bytes, float] = {}
        rows = zip(np.ascontiguousarray(self.X), self.y.tolist(), strict=True)
        return any(values.setdefault(x.tobytes(), y) != y for x, y in rows)

    def rows(self, which: np.ndarray | slice) -> Data:
        """Some of the complete trials alone."""
        none = self.pending[:0]
        return replace(
            self,
            X=self.X[which],
            y=self.y[which],
            errors=self.errors[which],
            outside=None if self.outside is None else self.outside[which],
            pending=none,
            failed=none,
        )


def transform_of(data: Data, power: float | None) -> TargetTransform:
    """Standardisation, or the Yeo-Johnson transform of a power, of the targets."""
    if power is not None:
        return YeoJohnson.of(data.y, power)
    return plain(data)


def plain(data: Data) -> Standardise:
    """Standardisation of the targets, the worst of them cut where that hides nothing."""
    keep = data.worthless if data.bound is None else data.bound
    y = data.y[data.told] if data.told.any() else data.y
    return Standardise.of(y, keep=keep, fence=data.fence)


def tensors(
    data: Data, transform: TargetTransform, rows: np.ndarray | slice = _ALL
) -> tuple[Tensor, Tensor, Tensor]:
    """X, y and noise of the trials, or some of them, in model units; on the device of the data."""
    with np.errstate(divide="ignore", over="ignore"):
        noise = np.exp(2 * (np.log(data.errors) + transform.log_slope(data.y)))
    noise = noise.clip(max=_MOST_NOISE)
    arrays = data.X, transform.forward(data.y), noise
    X, y, noise = (data.place(np.ascontiguousarray(a[rows])) for a in arrays)
    return X, y, noise


def evenly(n: int, most: int) -> np.ndarray:
    """Up to `most` of n rows, evenly over the run: the last trials crowd around the optimum."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def fingerprint(data: Data, n: int) -> tuple[bytes, ...]:
    """What a fit to the first n trials depends on, of the same output."""
    return data.X[:n].tobytes(), data.y[:n].tobytes(), data.errors[:n].tobytes()
