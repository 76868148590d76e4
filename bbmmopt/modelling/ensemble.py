"""Models of few data: an ensemble of draws of their parameters in place of the likeliest ones."""

from __future__ import annotations

import numpy as np
import torch

from bbmmopt.modelling.data import Data, tensors
from bbmmopt.modelling.modeller import Modeller
from bbmmopt.transforms import TargetTransform
from surrogate import ExactGP, Posterior, draw_parameters

# Trials, and trials a parameter, between which parameters are drawn: fewer say nothing, more leave
# little open.
_FROM, _TO = 4, 3
_DRAWS = 6


class EnsembleModeller(Modeller):
    """A `Modeller` whose beliefs have members while there are less than three trials a parameter.

    Draws of all parameters from their posterior: see `surrogate.draw_parameters`. Under the default
    priors, which are made for their mode, that is seldom better: of 44 problems, 40 trials each,
    the regret was 0.08 ± 0.06 decades larger with members up to two trials a parameter, and mostly
    the mode predicted values left out better by a few nats. So it has to be asked for.
    """

    def _members(
        self,
        model: ExactGP,
        data: Data,
        transform: TargetTransform,
        rivals: tuple[ExactGP, ...],
    ) -> tuple[Posterior, ...]:
        n, d = len(data.y), sum(column.kind != "fixed" for column in self._space.columns)
        if not _FROM <= n < _TO * d or len(np.unique(data.y)) < _FROM:
            return ()
        X, y, noise = tensors(data, transform)
        generator = torch.Generator().manual_seed(n)
        drawn = draw_parameters(model, X, y, noise=noise, count=_DRAWS, generator=generator)
        return tuple(member.condition(X, y, noise) for member in drawn.models)
