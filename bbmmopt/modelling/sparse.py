"""Models for many parameters of which few matter: priors of longer and longer lengthscales."""

from __future__ import annotations

import math
from functools import cache, partial

from bbmmopt.modelling.data import Data, plain, tensors, transform_of
from bbmmopt.modelling.model import LARGE, ROUGH, fitted, loo_densities, make_model
from bbmmopt.modelling.modeller import Modeller, Watch
from bbmmopt.transforms import TargetTransform
from surrogate import ExactGP, LogNormal, Posterior, Prior, PriorSet, prior_set

TIMES = (4.0, 16.0, 64.0)  # how much longer than the default's


@cache
def sparse_priors(name: str, times: float) -> PriorSet:
    """A set of priors with its lengthscales made `times` as long.

    log ℓ ~ N(√2 + ½ ln d + ln t, 3): a column is taken not to matter unless data say so, as by the
    half-Cauchy priors of Eriksson & Jankowiak (2021), https://arxiv.org/abs/2103.00349, of which
    log-normal ones are a rough likeness; 1 / t² plays the part of their global scale τ.
    """
    base = prior_set(name)
    lengthscale = partial(_lengthscale, times=times)
    return PriorSet(
        f"{name}-sparse-{times:g}", {**base.by_role, "lengthscale": lengthscale}, unit_scales=True
    )


def _lengthscale(dims: int, times: float) -> Prior:
    location = math.sqrt(2) + 0.5 * math.log(dims) + math.log(times)
    density = LogNormal(location, math.sqrt(3))
    return Prior(density, density.mode, 5e-3, 1e4)


class SparseModeller(Modeller):
    """A `Modeller` that also tries sparse priors, and believes in all that predict no worse.

    One maximum of the posterior for each of several global scales, where SAASBO samples them. The
    one that gives values left out the highest density is the model; members of its beliefs are it
    and all whose log density is less by no more than 1 nat and two standard errors of the
    difference, Σ g_i ≤ 1 + 2 √n std(g).
    """

    def _choose(self, data: Data, stop: Watch) -> tuple[ExactGP, float | None]:
        model, power = super()._choose(data, stop)
        transform = transform_of(data, power)
        kept = data.y > plain(data).low
        usual = make_model(self._space, exact=model.priors.name == "exact-objective-1")
        models = [model]
        for times in TIMES:
            if stop():
                break
            priors = sparse_priors(usual.priors.name, times)
            prior = ExactGP(usual.kernel, priors=priors, solver=LARGE)
            models.append(fitted(prior, data, transform, ROUGH, stop))
        densities = [loo_densities(m, data, transform)[kept] for m in models]
        best = max(range(len(models)), key=lambda k: densities[k].sum())
        loss = [densities[best] - density for density in densities]
        self._rivals = tuple(
            m
            for m, g in zip(models, loss, strict=True)
            if m is not models[best] and g.sum() <= 1 + 2 * math.sqrt(len(g)) * g.std()
        )
        return models[best], power

    def _members(
        self,
        model: ExactGP,
        data: Data,
        transform: TargetTransform,
        rivals: tuple[ExactGP, ...],
    ) -> tuple[Posterior, ...]:
        if not rivals:
            return ()
        given = tensors(data, transform)
        return tuple(m.condition(*given) for m in (model, *rivals))
