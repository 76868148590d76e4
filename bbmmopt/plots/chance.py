"""How likely the constraints on outcomes are to hold over a slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtri_exp

from bbmmopt.modelling import Beliefs, one_thread
from bbmmopt.plots.slices import Slice, in_chunks

_SURE = -1e-3  # log of a probability from which on the constraint in most danger decides


@dataclass(frozen=True)
class Chance:
    """That all constraints on outcomes hold, over a slice.

    Attributes:
        probability: Of the slice's shape.
        margin: 0 where the probability is 1/2, and above where it is more, in model units of the
            constraint in most danger: it changes slowly where the probability jumps, so that its
            contour is smooth. Of the slice's shape.
    """

    probability: np.ndarray
    margin: np.ndarray


def chance_of(beliefs: Beliefs, where: Slice) -> Chance | None:
    """What the model takes for the chance; None if there are no constraints."""
    if not beliefs.constraints:
        return None
    margins, stds = [], []
    for belief in beliefs.constraints:
        with one_thread():
            parts = in_chunks(belief.marginals, where.rows)
        mean, std = (np.concatenate(part) for part in zip(*parts, strict=True))
        margins.append(mean - belief.bound)
        stds.append(std)
    z = np.divide(margins, stds)  # (c, m)
    log_chance = log_ndtr(z).sum(0)
    worst = z.argmin(0)
    least, std = (np.take_along_axis(a, worst[None], 0)[0] for a in (z, np.array(stds)))
    together = np.where(log_chance > _SURE, least, ndtri_exp(np.minimum(log_chance, _SURE)))
    return Chance(np.exp(log_chance).reshape(where.shape), (together * std).reshape(where.shape))
