"""Noise whose size depends on the parameters: tried, and kept where data show that it does."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from bbmmopt.modelling.data import Data
from bbmmopt.modelling.model import ROUGH, fitted, gains_clearly
from bbmmopt.space import Space
from bbmmopt.transforms import TargetTransform
from surrogate import ExactGP, Heteroskedastic

# Trials without a noise of their own, at least and for each column, from which sizes of noise can
# be told apart: of 50 with noise ten times as large at one end it is seen in half of all cases. A
# model is chosen on 128 trials at most, so beyond 16 columns noise stays even.
_FROM = 40
_FROM_PER_COLUMN = 8
_VISIBLE = 1e-3  # share of the targets' variance, below which noise makes no difference
# The noise changes over the length of the cube's diagonal, by a factor of e^(2.5/2) or so in its
# standard deviation. Half the length and twice the points found a little more of the noise that
# varies, and took even noise for it three times as often.
_POINTS = 8
_SPREAD = 2.5
# Nats that a fit of the noise may gain where it does not vary, for it looks at the values that it
# is judged by: 1 to 3 on average.
_GAINED_BY_CHANCE = 4.0


def with_varying_noise(
    model: ExactGP,
    space: Space,
    data: Data,
    transform: TargetTransform,
    stop: Callable[[], bool],
) -> ExactGP:
    """The model, or one whose noise depends on the parameters, where that predicts better.

    The gain in leave-one-out density has to exceed 4 nats by a standard error: see `gains_clearly`.
    Of 160 sets of data with even noise 3 passed; of 157 with noise ten times as large at one end,
    n = 50 to 100, 130 did.

    One rough fit, from the parameters of the model. Of noise that is given nothing is to be learnt.

    Args:
        model: Fitted to the data, with the same noise everywhere.
        space: The space; noise is not taken to depend on its categories.
        data: What it was fitted to.
        transform: From their units to the model's.
        stop: From when it says True on, there is no further fit.
    """
    columns = [
        j for j, column in enumerate(space.columns) if column.kind in ("continuous", "ordered")
    ]
    learnt = int(np.isnan(data.errors).sum())
    scarce = learnt < max(_FROM, _FROM_PER_COLUMN * len(columns))
    if scarce or not columns or float(model.noise.detach()) < _VISIBLE or stop():
        return model
    noise = Heteroskedastic(
        torch.from_numpy(np.ascontiguousarray(data.X)),
        points=_POINTS,
        lengthscale=math.sqrt(len(columns)),
        spread=_SPREAD,
        noise=float(model.noise.detach()),
        columns=columns,
    )
    start = model.clone()
    start.noise_model, start.report = noise, None
    other = fitted(start, data, transform, ROUGH, stop)
    return other if gains_clearly(other, model, data, transform, _GAINED_BY_CHANCE) else model


def varies(model: ExactGP) -> bool:
    """Whether the noise of a model depends on the parameters."""
    return isinstance(model.noise_model, Heteroskedastic)
