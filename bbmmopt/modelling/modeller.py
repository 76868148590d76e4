"""From told trials to a fitted posterior, again and again, at little cost and by data alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from bbmmopt.modelling.belief import Belief, believe
from bbmmopt.modelling.data import (
    Data,
    evenly,
    fingerprint,
    plain,
    tensors,
    threads_for,
    transform_of,
)
from bbmmopt.modelling.heteroskedastic import with_varying_noise
from bbmmopt.modelling.input_warp import with_warped_inputs
from bbmmopt.modelling.model import (
    FINE,
    LARGE_FROM,
    NOISY,
    ROUGH,
    fit_afresh,
    fitted,
    loo_density,
    make_model,
)
from bbmmopt.space import Space
from bbmmopt.transforms import Standardise, TargetTransform, YeoJohnson
from surrogate import ExactGP, Posterior

Stop = Callable[[], bool]
"""Says whether fits should end where they are."""

# From this n on, a fit starts from the parameters found for an earlier, smaller set of trials.
_WARM_FROM = 12
_GROWTH = 1.25  # the sizes of those sets: 12, 15, 19, 24, …
_CHOICE_ROWS = 128  # the transform of the targets is chosen on at most this many trials
_REFINE_FROM = 256  # from here on, it pays to start later fits from one to all n' trials
_EXACT_FROM = 6  # trials, below which noise is not to be told from the data
_WARP_FROM = 5  # different values, below which a power is not to be told from the data

# From LARGE_FROM trials on, a posterior of the first n' is kept, n' the largest of a finer sequence
# of sizes, and the trials since then are appended to it. Its variances are those of a cached root,
# a little too large: exact ones would take seconds to minutes an ask. Weights come from a Cholesky
# factor while one fits easily, from products beyond.
_GROWTH_LARGE = 1.06
# Parameters are fitted to at most this many then: more would tell them apart no better, and at
# n = 50,000 a fit to all had not ended after ten minutes.
_LARGE_FIT_ROWS = 10_000


@dataclass(frozen=True)
class _Checkpoint:
    """A model fitted from nothing to the first trials, and the transform that served it better."""

    key: tuple[bytes, ...]
    model: ExactGP
    power: float | None  # of the Yeo-Johnson transform; None where plain targets are better
    rivals: tuple[ExactGP, ...] = ()  # other models that predict no worse


@dataclass(frozen=True)
class _Base:
    """A posterior without what is running: of the first n' of many trials, or of all of them."""

    key: tuple[bytes, ...]
    posterior: Posterior
    transform: TargetTransform
    cut_short: bool = False
    members: tuple[Posterior, ...] = ()  # under other parameters; see `Belief`


@dataclass
class Watch:
    """Asks whether to stop, and remembers that the answer was yes."""

    stop: Stop | None
    cut_short: bool = False

    def __call__(self) -> bool:
        self.cut_short = self.cut_short or (self.stop is not None and self.stop())
        return self.cut_short


class Modeller:
    """Fits models, and remembers what makes the next fit quick without changing its result.

    The parameters for a set of n trials are found from the parameters for the first n' of them (by
    trial number; n' the largest of 12, 15, 19, 24, … up to n), which are found from those for at
    most 128 spread over these, and they from the priors' start values. So they depend on the data
    alone, not on the order in which results came in or on what an earlier process happened to fit:
    a resumed run proposes what an uninterrupted one does.

    At n' both transforms of the targets are tried, and the one whose leave-one-out predictions
    give the values the higher density is used until the next n'; so are warped inputs, and noise
    that depends on the parameters.

    A fit that was ended early is not remembered, but by the one who asked for that: the next
    question ends it where it should.

    From 3,000 trials on the sizes n' lie 6 % apart. The parameters, the scale of the targets and
    the posterior of the first n' stay until the next of them; only what was told since is added.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._checkpoint: _Checkpoint | None = None
        self._rivals: tuple[ExactGP, ...] = ()  # of the last choice
        self._base: _Base | None = None
        self._told: _Base | None = None  # the same of all trials, where they are few
        self._last: tuple[tuple[bytes, ...], Belief] | None = None
        self._cut: tuple[Stop | None, _Base] | None = None  # and whom it was cut short for

    def belief(self, data: Data, stop: Stop | None = None) -> Belief:
        """The belief after these data; the same object when asked again about the same data.

        Args:
            data: The data.
            stop: From when it says True on, fits end where they are, and `cut_short` says so. Who
                asks again by the same one gets what such a fit led to; anybody else, a full one.
        """
        key = (*fingerprint(data, len(data.y)), data.pending.tobytes(), data.failed.tobytes())
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        with threads_for(len(data.y)):
            contradicted = data.exact and data.contradicts_itself()
            belief = self._build(replace(data, exact=False) if contradicted else data, Watch(stop))
        belief = replace(belief, contradicted=contradicted)
        if not belief.cut_short:
            self._last = key, belief
        return belief

    def _build(self, data: Data, stop: Watch) -> Belief:
        n = len(data.y)
        if n == 0:
            model = make_model(self._space, exact=data.exact)
            empty = torch.empty(0, len(self._space), dtype=torch.float64, device=data.device)
            return believe(model.condition(empty, empty[:, 0]), Standardise.of(data.y), data)
        size = _checkpoint_size(n)
        if n >= LARGE_FROM:
            return self._extend(self._large(data.rows(slice(size)), stop), data)
        key = fingerprint(data, n)
        told = self._known(self._told, key, stop)
        if told is None:
            start = self._start(data.rows(slice(size)), stop)
            transform = transform_of(data, start.power)
            model = fitted(start.model, data, transform, FINE, stop)
            posterior = model.condition(*tensors(data, transform))
            members = () if stop() else self._members(model, data, transform, start.rivals)
            told = _Base(key, posterior, transform, stop.cut_short, members)
            if stop.cut_short:
                self._cut = stop.stop, told
            else:
                self._told = told
        belief = believe(told.posterior, told.transform, data)
        members = tuple(believe(p, told.transform, data) for p in told.members)
        return replace(belief, cut_short=told.cut_short, members=members)

    def _members(
        self,
        model: ExactGP,
        data: Data,
        transform: TargetTransform,
        rivals: tuple[ExactGP, ...],
    ) -> tuple[Posterior, ...]:
        """Posteriors of several models of the same data, equally likely; none but this here."""
        return ()

    def _known(self, base: _Base | None, key: tuple[bytes, ...], stop: Watch) -> _Base | None:
        """What was made for these data before: in full, or cut short for the one who asks now."""
        if base is not None and base.key == key:
            return base
        cut, self._cut = self._cut, None
        if cut is not None and stop.stop is not None and cut[0] == stop.stop and cut[1].key == key:
            self._cut = cut
            return cut[1]
        return None

    def _large(self, data: Data, stop: Watch) -> _Base:
        """The posterior of many trials, parameters fitted to all or many of them."""
        key = fingerprint(data, len(data.y))
        base = self._known(self._base, key, stop)
        if base is None:
            self._base = None  # before the next one is made: each may hold K
            start = self._start(data, stop)
            transform = transform_of(data, start.power)
            model = fitted(start.model, data, transform, FINE, stop, most=_LARGE_FIT_ROWS)
            posterior = model.condition(*tensors(data, transform))
            base = _Base(key, posterior, transform, stop.cut_short)
            if stop.cut_short:
                self._cut = stop.stop, base
            else:
                self._base = base
        return base

    def _extend(self, base: _Base, data: Data) -> Belief:
        """The belief after all trials from that after the first of them."""
        n = len(base.posterior.y)
        posterior = base.posterior
        if n < len(data.y):
            posterior = posterior.append(*tensors(data.rows(slice(n, None)), base.transform))
        belief = believe(posterior, base.transform, data)
        return replace(belief, cut_short=base.cut_short)

    def _start(self, data: Data, stop: Watch) -> _Checkpoint:
        """The model of the first n' trials, fitted from the priors' start values."""
        key = fingerprint(data, len(data.y))
        if self._checkpoint is not None and self._checkpoint.key == key:
            return self._checkpoint
        # Twenty evaluations for each transform are spent on few rows, which tell enough.
        few = data.rows(evenly(len(data.y), _CHOICE_ROWS))
        model, power = self._choose(few, stop)
        transform = transform_of(few, power)
        model = with_warped_inputs(model, self._space, few, transform, stop)
        model = with_varying_noise(model, self._space, few, transform, stop)
        if len(data.y) > _REFINE_FROM:
            model = fitted(model, data, transform_of(data, power), FINE, stop)
        checkpoint = _Checkpoint(key, model, power, self._rivals)
        if not stop.cut_short:
            self._checkpoint = checkpoint
        return checkpoint

    def _choose(self, data: Data, stop: Watch) -> tuple[ExactGP, float | None]:
        """The best of up to four models, and the power its targets are warped with, if they are.

        With noise that is learnt and, by the same fit, with next to none: a prior of learnt noise
        never quite believes that an objective is exact, and most are.
        """
        found = self._choose_targets(data, stop, exact=data.exact)
        learnt = not data.exact and not np.isfinite(data.errors).any()
        if learnt and len(data.y) >= _EXACT_FROM and not stop():
            other = self._choose_targets(data, stop, exact=True)
            if other[0] > found[0]:
                found = other
        return found[1:]

    def _choose_targets(
        self, data: Data, stop: Watch, *, exact: bool
    ) -> tuple[float, ExactGP, float | None]:
        """The better of two transforms: the density it gives to values left out, model, power."""
        unwarped = plain(data)
        prior = make_model(self._space, exact=exact)
        model = fit_afresh(prior, data, unwarped, stop)
        kept = data.y > unwarped.low  # the density of a value that was cut means nothing
        density = loo_density(model, data, unwarped, kept)
        if not data.warp or len(np.unique(data.y)) < _WARP_FROM or stop():
            return density, model, None
        warped = YeoJohnson.of(data.y)
        # Half the evaluations, unless what the plain targets led to is no guide.
        is_guide = float(model.noise.detach()) <= NOISY
        if is_guide:
            other = fitted(model, data, warped, ROUGH, stop)
        else:
            other = fit_afresh(prior, data, warped, stop)
        better = loo_density(other, data, warped, kept)
        return (better, other, warped.power) if better > density else (density, model, None)


def _checkpoint_size(n: int) -> int:
    """The largest of 12, 15, 19, 24, … up to n, finer from 3000 on; n itself below 12."""
    if n < _WARM_FROM:
        return n
    size = _WARM_FROM
    while True:
        larger = math.ceil(size * (_GROWTH if size < LARGE_FROM else _GROWTH_LARGE))
        if larger > n:
            return size
        size = larger
