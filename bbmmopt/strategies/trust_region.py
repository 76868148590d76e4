"""Trust regions: a box around the best trial that grows with luck and shrinks without.

Source: Eriksson et al. (2019), Scalable global optimization via local Bayesian optimization
(TuRBO), https://arxiv.org/abs/1910.01739; one region at a time. With constraints on outcomes,
Eriksson & Poloczek (2021), Scalable constrained Bayesian optimization (SCBO),
https://arxiv.org/abs/2002.08526; where targets are not transformed as there, but as `Modeller`
transforms them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbmmopt.acquisition import Acquisition, from_the_cpu
from bbmmopt.modelling import Belief, Beliefs, search_threads_for, threads_for
from bbmmopt.search import Domain, Found
from bbmmopt.space import Space
from bbmmopt.strategies.base import Proposal, Request, generator
from bbmmopt.strategies.box import Box, candidates, climb_within, raw_count, usual_count
from bbmmopt.strategies.default import Global, scale_of, start_of, told_of
from bbmmopt.strategies.fantasies import is_noisy
from bbmmopt.strategies.region_state import (
    SUCCESSES,
    State,
    Trials,
    past_trials,
    patience,
    replay,
    total_violation,
)
from bbmmopt.strategies.rules import acquisition_for, choose
from bbmmopt.strategies.thompson import FAR_BELOW, PathWithin, draw_paths, one_of, within

_PATHS = 128  # drawn at once: a batch of as many trials has one set of them
_FEW = 8  # trials under way, from which on draws tell them apart as well, and sooner
# Left to the bounds of drawn constraints by a climb, in standard deviations, in a box of length 1:
# or it would end as often beyond a bound as before it.
_ROOM = 1e-2


@dataclass(frozen=True)
class _Drawn:
    """Candidates in a box, and the values of paths there."""

    key: tuple[Any, ...]
    X: np.ndarray  # (m, d)
    paths: tuple[Any, ...]  # of the objective, then of what has to hold
    bounds: tuple[float, ...]  # of what has to hold
    values: Tensor  # (paths, m)

    def path(self, i: int) -> Acquisition:
        """The i-th path of each output, as what a trial maximises."""
        objective, *held = (one_of(paths, i) for paths in self.paths)
        return PathWithin(objective, held, self.bounds) if held else objective


@dataclass(frozen=True)
class TrustRegion(Global):
    """A space-filling start, then candidates from a box around the best trial.

    Each trial maximises one function drawn from the posterior (Thompson sampling), first among
    candidates that differ from the centre in about twenty coordinates, then by a short climb; so
    batches of any size are proposed from one set of draws. The box follows from the trials: see
    `replay`. When it has shrunk to nothing, another region begins with a start of its own.

    With constraints on outcomes the centre is the best trial that keeps them or, while none does,
    the one that misses them by least; they are drawn too, and so is whether trials succeed, once
    one has failed: see `PathWithin`.

    Attributes:
        space, start, search: As in `Global`.
        acquisition: "auto" is "thompson" where many trials are running; any other is maximised in
            the box instead.
    """

    @cached_property
    def _last(self) -> dict[str, _Drawn]:
        """The candidates and paths drawn last: to be quick, nothing is remembered."""
        return {}

    def state(self, request: Request) -> State:
        """Where the region stands."""
        return replay(self._trials(request), _moving(self.space))

    def _trials(self, request: Request) -> Trials:
        """What is known of the trials that ended."""
        data = request.data
        violation = total_violation(request.constraints, max(2, self.start))
        return past_trials(data.y, len(data.failed), request.past, violation)

    def propose(self, request: Request) -> Proposal:
        """The next point, by whichever phase it is.

        Raises:
            SpaceExhausted: If the space is finite and every allowed point was seen.
        """
        trials = self._trials(request)
        state = replay(trials, _moving(self.space))
        label = {"number": state.restarts}
        if self._starting(state, trials, request):
            proposal = start_of(self.space, request)
            origin = proposal.origin | {"region": label}
            if state.restarts:
                origin["because"] = "the trust region before it shrank to nothing"
            return Proposal(proposal.x, origin)
        beliefs = self.modellers.beliefs(request.known, request.budget.ends_fits)
        request = request.alone()
        name, because = self.acquisition, "it was asked for"
        if name == "auto":
            name, because = _choose(beliefs, request)
        centre = self._centre(state, trials, beliefs.first)
        domain = Domain(self.space, request.fixed, request.seen)
        scale = beliefs.first.lengthscales.numpy()
        at = domain.place(beliefs.first.data.X[centre][None])[0]
        box = Box.around(at, state.length, scale, self.space)
        found, missed = self._search(name, beliefs, request, domain, box)
        label |= {
            "known": len(trials.y),
            "length": state.length,
            "successes": state.successes,
            "lucky": SUCCESSES,
            "failures": state.failures,
            "patience": patience(_moving(self.space)),
        }
        if trials.violation is not None:
            label["violation"] = state.violation
        if missed:
            label["missed"] = missed
        if found is None:
            if name == "thompson" and beliefs.constraints:
                name, because = choose(beliefs, request.guide)
            found = self.find(name, beliefs, request)
            label["left"] = True
        origin = {"phase": "model", "acquisition": name, "because": because, "region": label}
        return Proposal(found.x, origin | told_of(beliefs, found, name, request.guide))

    def _starting(self, state: State, trials: Trials, request: Request) -> bool:
        """Whether the next trial belongs to the start of a region."""
        if not state.restarts:
            return self.starting(request.data)
        mine = trials.region == state.restarts
        pending = sum(
            (trial.origin.get("region") or {}).get("number") == state.restarts
            for trial in request.past
            if trial.outcome == "pending"
        )
        complete = int((mine & ~np.isnan(trials.y)).sum())
        return int(mine.sum()) + pending < self.start or complete < max(2, self.start // 2)

    def _centre(self, state: State, trials: Trials, belief: Belief) -> int:
        """Which complete trial the box is around.

        The best, by the model where values are noisy, of those that were seen to keep all
        constraints; while none was, the one that missed them by least.
        """
        complete = ~np.isnan(trials.y)
        assert state.best is not None
        if state.violation > 0 or not is_noisy(belief):
            return int(complete[: state.best].sum())
        mean = belief.fitted.copy()
        others = (trials.regions != state.restarts) | (trials.short > 0)
        mean[others[complete]] = -np.inf
        return int(mean.argmax())

    def _search(
        self, name: str, beliefs: Beliefs, request: Request, domain: Domain, box: Box
    ) -> tuple[Found | None, float]:
        """The best unseen candidate in the box, None if there is none; and by how much it misses
        the constraints that were drawn with it.
        """
        n, device = len(beliefs.first.data.y), beliefs.first.device
        climbed = path = None
        budget = request.budget.keeping(1)  # for a search elsewhere, if all of the box was seen
        usual = usual_count(len(self.space)) if name == "thompson" else self.search.raw
        count = raw_count(usual, budget)
        if not count:
            return None, 0.0
        most = count if count < usual else None  # those that meet constraints may be more
        if name == "thompson":
            with threads_for(n):
                drawn, i = self._paths(beliefs, request, domain, box, count, most)
            X, values, path = drawn.X, drawn.values[i], drawn.path(i)
            scored = from_the_cpu(path, device)
            if isinstance(path, PathWithin):
                slope = path.slope(_ROOM * float((box.upper - box.lower).mean()))
                climbed = from_the_cpu(slope, device)
        else:
            with threads_for(n):
                scored = acquisition_for(name, beliefs, request, self.space)
            draws = generator(request.seed, request.number, f"{name} in a box")
            X = candidates(box, domain, draws, count)[:most]
            with search_threads_for(n), torch.no_grad():
                parts = torch.from_numpy(X).unsqueeze(-2).split(1024)
                values = torch.cat([scored(part) for part in parts])
        if not len(X):
            return None, 0.0
        budget.spend(len(X))
        with search_threads_for(n):
            scale = scale_of(beliefs).numpy()
            found = climb_within(scored, X, values, domain, box, scale, climbed, budget)
            if found is None or not isinstance(path, PathWithin) or found.value > -FAR_BELOW:
                return found, 0.0
            parts = path.parts(beliefs.first.data.place(found.x[None, None]))
            value, missed = torch.cat(parts).tolist()
            return replace(found, value=value), missed

    def _paths(
        self,
        beliefs: Beliefs,
        request: Request,
        domain: Domain,
        box: Box,
        count: int,
        most: int | None,
    ) -> tuple[_Drawn, int]:
        """Candidates, the values of some paths there, and which path is the next trial's."""
        data = beliefs.first.data
        block, i = divmod(len(data.pending), _PATHS)
        held = {f" of constraint {j}": belief for j, belief in enumerate(beliefs.constraints)}
        if beliefs.success is not None:
            held[" of success"] = beliefs.success
        key = (
            request.seed,
            block,
            count,
            box.lower.tobytes(),
            box.upper.tobytes(),
            tuple(domain.fixed.items()),
            tuple(_told(belief) for belief in (beliefs.first, *held.values())),
        )
        last = self._last.get("drawn")
        if last is None or last.key != key:
            told = len(data.y) + len(data.failed)
            draws = generator(request.seed, told, f"candidates {block}")
            X = candidates(box, domain, draws, count)[:most]
            paths = [draw_paths(beliefs.first, request.seed, block, _PATHS)]
            paths += [draw_paths(b, request.seed, block, _PATHS, o) for o, b in held.items()]
            bounds = tuple(belief.bound for belief in held.values())
            rows = data.place(X)
            values = _values(paths[0], rows)
            if held:
                missed = torch.zeros_like(values)
                for some, bound in zip(paths[1:], bounds, strict=True):
                    missed += (bound - _values(some, rows)).clamp_min(0.0)
                values = within(values, missed)
            last = self._last["drawn"] = _Drawn(key, X, tuple(paths), bounds, values.cpu())
        return last, i


def _told(belief: Belief) -> tuple[bytes, ...]:
    """What the paths of a belief depend on."""
    data = belief.data
    return data.X.tobytes(), data.y.tobytes(), data.errors.tobytes(), data.failed.tobytes()


def _values(paths: Any, X: Tensor) -> Tensor:
    """Values of paths at rows X (m, d), shape (paths, m)."""
    if not len(X):
        return X.new_empty(_PATHS, 0)
    with torch.no_grad():
        return torch.cat([paths(part) for part in X.split(1024)], 1)


def _choose(beliefs: Beliefs, request: Request) -> tuple[str, str]:
    """The acquisition function that suits, and why, in words after "because"."""
    weighted = request.guide.guides or request.cost is not None  # by what no draw can be
    if len(beliefs.first.data.pending) >= _FEW and not weighted:
        return "thompson", "many trials are running"
    return choose(beliefs, request.guide)


def _moving(space: Space) -> int:
    return sum(column.kind != "fixed" for column in space.columns)
