"""How much is left to gain, as far as the model can tell: a reason to stop."""

from __future__ import annotations

import math

import numpy as np
import torch

from bbmmopt.acquisition import Acquisition, ExpectedGain, Feasible, Log, LogMean, from_the_cpu
from bbmmopt.modelling import Belief, Beliefs, search_threads_for
from bbmmopt.search import Domain, SpaceExhausted, maximise
from bbmmopt.space import Space
from bbmmopt.strategies.base import Request, generator
from bbmmopt.strategies.default import scale_of

# Between the best value and so many model units above it, where next to no f is, the way back to
# the user's units is linear in pieces, the first of them short: improvements get small.
_HIGHEST, _FIRST, _KNOTS = 10.0, 1e-4, 48
_CENTRES = 5  # best trials that are looked around


def remaining_improvement(beliefs: Beliefs, request: Request, space: Space) -> float:
    """The most that one more trial is expected to improve on the best, in the user's units.

    The maximum over the space of E[max(f(x) - best, 0)], times the probability that x keeps the
    constraints and does not fail. The best is that of the complete trials, observed where the
    objective is exact and else by the model; what is running does not count yet.

    Args:
        beliefs: About one objective.
        request: Whose seed is used, which points may not be proposed, and what is fixed.
        space: Where to look.

    Returns:
        Infinity where no trial is complete and keeps the constraints: all is left to gain. 0 where
        every point was tried.
    """
    first = beliefs.first
    kept = beliefs.keep_constraints() & first.data.within
    if not kept.any():
        return math.inf
    gains = [_log_gain(one, kept) for one in beliefs.members or (beliefs,)]
    gain = gains[0] if len(gains) == 1 else LogMean(gains)
    try:
        with search_threads_for(len(first.data.y)):
            found = maximise(
                from_the_cpu(gain, first.device),
                Domain(space, request.fixed, request.seen),
                generator=generator(request.seed, len(first.data.y), "remaining"),
                scale=scale_of(beliefs),
                centres=first.centres(_CENTRES, kept),
            )
    except SpaceExhausted:
        return 0.0
    return math.exp(found.value)


def _log_gain(beliefs: Beliefs, kept: np.ndarray) -> Acquisition:
    """Log of what is expected to be gained on the best of the trials kept, in the user's units."""
    first = beliefs.first
    gain: Acquisition = Log(ExpectedGain(first.settled, *_way_back(first, _best(first, kept))))
    if beliefs.constraints:
        bounds = first.data.place(np.array([b.bound for b in beliefs.constraints]))
        gain = Feasible(gain, [b.settled for b in beliefs.constraints], bounds)
    if (success := beliefs.success) is not None:
        bounds = first.data.place(np.array([success.bound]))
        gain = Feasible(gain, [success.settled], bounds, success.label_noise)
    return gain


def _best(belief: Belief, kept: np.ndarray) -> float:
    """The best of the trials kept, in model units: as observed, or without its noise."""
    posterior = belief.posterior
    values = posterior.y if belief.data.exact else posterior.fitted()
    return float(values.cpu()[torch.from_numpy(kept)].max())


def _way_back(belief: Belief, best: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Knots from the best on, and the slopes of the user's units between them, shape (k,) each."""
    knots = best + np.concatenate([[0.0], np.geomspace(_FIRST, _HIGHEST, _KNOTS)])
    slopes = np.diff(belief.transform.inverse(knots)) / np.diff(knots)
    # The last of them goes on for ever.
    return belief.data.place(knots[:-1]), belief.data.place(slopes)
