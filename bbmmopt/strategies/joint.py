"""Batches whose points are chosen together: what they should improve on as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from bbmmopt.acquisition import (
    Acquisition,
    LogMean,
    NoisyBatchLogExpectedImprovement,
    NoisyLogExpectedImprovement,
    Weighted,
    base_samples,
    from_the_cpu,
)
from bbmmopt.modelling import Beliefs, search_threads_for, threads_for
from bbmmopt.search import Domain, Found, FoundBatch, maximise_together
from bbmmopt.space import Space
from bbmmopt.strategies.base import Proposal, Request, generator
from bbmmopt.strategies.default import Global, scale_of, told_of
from bbmmopt.strategies.rules import made_for

TOGETHER = ("log_ei", "noisy_log_ei")  # acquisition functions whose batches can be scored
_SAMPLES = 256  # of f at the points of a batch, over all fantasies


def propose_together(strategy: Global, request: Request, n: int) -> list[Proposal]:
    """The next n points, those that a model proposes chosen together.

    One after another first, each with those before it running, as asking n times would. Then all
    that follow from expected improvement are moved together to where they improve more as a whole:
    see `maximise_together`. Points of the start stay what they are.

    Args:
        strategy: What proposes each of them.
        request: For the first.
        n: How many.

    Raises:
        SpaceExhausted: If the space is finite and fewer than n allowed points are left.
    """
    requests, proposals = [], []
    domain = Domain(strategy.space)
    for k in range(n):
        # Half of the budget is for moving them together.
        proposal = strategy.propose(replace(request, trials=2 * n - k))
        requests.append(request)
        proposals.append(proposal)
        request = request.after(proposal, domain.keys(proposal.x[None])[0])
    first = next((k for k, p in enumerate(proposals) if p.origin["phase"] == "model"), n)
    batch = proposals[first:]
    if len(batch) < 2 or any(p.origin["acquisition"] not in TOGETHER for p in batch):
        return proposals
    return proposals[:first] + _together(strategy, requests[first], batch)


def _together(strategy: Global, request: Request, batch: Sequence[Proposal]) -> list[Proposal]:
    """The proposals of a batch, moved together.

    Args:
        strategy: What proposed each of them.
        request: For the first.
        batch: One after another.
    """
    beliefs = strategy.modellers.beliefs(request.known, request.budget.ends_fits)
    n = len(beliefs.first.data.y)
    with threads_for(n):
        scored = batch_acquisition(beliefs, request, strategy.space, len(batch))
    budget = request.budget.part(1)  # to know what ends this search
    with search_threads_for(n):
        found = maximise_together(
            scored,
            np.stack([proposal.x for proposal in batch]),
            Domain(strategy.space, request.fixed, request.seen),
            generator=generator(request.seed, request.number, "together"),
            scale=scale_of(beliefs),
            search=strategy.search,
            budget=budget,
        )
    if np.isnan(found.value):  # there was no looking
        return list(batch)
    before = sum(proposal.origin["candidates_scored"] for proposal in batch)
    request = replace(request, budget=budget)
    return [
        _moved(proposal, beliefs, found, i, before, request) for i, proposal in enumerate(batch)
    ]


def _moved(
    proposal: Proposal,
    beliefs: Beliefs,
    found: FoundBatch,
    i: int,
    before: int,
    request: Request,
) -> Proposal:
    """Point i of a batch, in place of the proposal that was there."""
    there = Found(found.X[i], found.value, before + found.evaluations)
    label = {"size": len(found.X), "place": i, "value": found.value, "one_by_one": found.before}
    told = told_of(beliefs, there, proposal.origin["acquisition"], request.guide)
    origin = proposal.origin | told | {"batch": label}
    ended = set(origin.get("ended_by", ())) | request.budget.ended
    if ended:
        origin["ended_by"] = sorted(ended)
    return Proposal(there.x, origin)


def batch_acquisition(beliefs: Beliefs, request: Request, space: Space, q: int) -> Acquisition:
    """Log expected improvement of q trials together, by some 256 samples of f in all.

    On the best value known, or drawn where noise or running trials hide it: the draws are those
    of `imagine`, as for a single trial. Points are weighted as they are alone: by the probability
    of success, by a prior, by cost. Where the parameters of the model are drawn, the mean is taken
    over them too.
    """
    single = made_for("noisy_log_ei", beliefs, request, space)
    scale = beliefs.first.scale**0.5
    draws = generator(request.seed, request.number, "batch")
    if not isinstance(single, LogMean):
        together = _batch(single, q, _SAMPLES, draws, scale)
    else:
        each = _SAMPLES // len(single.parts)
        together = LogMean([_batch(part, q, each, draws, scale) for part in single.parts])
    return from_the_cpu(together, beliefs.first.device)


def _batch(
    single: Acquisition, q: int, samples: int, draws: torch.Generator, scale: float
) -> NoisyBatchLogExpectedImprovement:
    """What is expected of one trial, of q together; `samples` in all, one a fantasy at least."""
    weights = []
    while isinstance(single, Weighted):
        weights.append(single.weight)
        single = single.acquisition
    assert isinstance(single, NoisyLogExpectedImprovement)
    (belief,) = single.beliefs
    fantasies = len(single.best)
    each = max(1, samples // fantasies)
    return NoisyBatchLogExpectedImprovement(
        belief,  # pyright: ignore[reportArgumentType]  # fantasies of a posterior, which know it
        single.best,
        base_samples(fantasies * each, q, draws).reshape(fantasies, each, q).to(single.best.device),
        scale,
        tuple(weights),
    )
