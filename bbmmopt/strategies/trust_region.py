"""Trust regions: a box around the best trial that grows with luck and shrinks without.

Source: Eriksson et al. (2019), Scalable global optimization via local Bayesian optimization
(TuRBO), https://arxiv.org/abs/1910.01739; one region at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbmmopt.modelling import Belief, Beliefs, search_threads_for, threads_for
from bbmmopt.search import Domain, Found, Region, ascend
from bbmmopt.search.starts import sobol
from bbmmopt.space import Space
from bbmmopt.strategies.base import Past, Proposal, Request, generator
from bbmmopt.strategies.default import Global, start_of, told_of
from bbmmopt.strategies.fantasies import is_noisy
from bbmmopt.strategies.rules import acquisition_for, choose
from bbmmopt.strategies.thompson import draw_paths, one_of

LENGTH, SHORTEST, LONGEST = 0.8, 2.0**-7, 1.6
SUCCESSES = 3  # in a row, after which a region doubles
_GAIN = 1e-3  # of the best value, which a success has to gain
_STRETCH = 4.0  # most by which one side differs from the mean side
_CHANGED = 20  # about how many coordinates of a candidate differ from the centre
_PATHS = 128  # drawn at once: a batch of as many trials has one set of them
_CLIMBS, _ROUNDS = 4, 12  # short climbs: candidates are many
_FEW = 8  # trials under way, from which on draws tell them apart as well, and sooner


@dataclass(frozen=True)
class Trials:
    """What a trust region has to know of each trial that ended, in order of number, (n,) each.

    Attributes:
        y: Its value, larger is better; NaN where it failed.
        region: Number of the region that proposed it; -1 for what came from elsewhere.
        known: How many trials had ended when its box was made; -1 where no box was.
    """

    y: np.ndarray
    region: np.ndarray
    known: np.ndarray


@dataclass(frozen=True)
class State:
    """Where a trust region stands.

    Attributes:
        length: Mean side of the box.
        successes: How many in a row, batches being counted, since the last change of length.
        failures: How many trials in a row without success, since the last change of length.
        restarts: Number of the region: how many came before it.
        best: Which of the trials that ended is the best of the region; None before there is one.
        since: How many trials had ended at the last change of length: boxes made before that do
            not count any more.
    """

    length: float = LENGTH
    successes: int = 0
    failures: int = 0
    restarts: int = 0
    best: int | None = None
    since: int = 0


def patience(d: int) -> int:
    """After how many failures in a row a region is halved: ⌈max(4, d)⌉."""
    return max(4, d)


def replay(trials: Trials, d: int) -> State:
    """The state that a sequence of trials leads to.

    Trials of one batch, those whose box was made of the same knowledge, succeed together if the
    best of them gains more than 1e-3 |b| on the best value b before; or, where that is less, than
    1e-3 of the range of y, so that a constant added to all values does not forbid success.
    Three batches that succeed in a row double the length, up to 1.6; ⌈max(4, d)⌉ trials in a row
    that fail halve it; below 2⁻⁷ another region begins. What was proposed before such a change no
    longer counts after it, but for being the best; nor does, ever, what was told from elsewhere.

    Args:
        trials: All that ended, in order of number.
        d: Number of columns that can move.
    """
    region = _regions(trials)
    current = int(region.max(initial=0))
    mine = np.flatnonzero(region == current).tolist()
    y, known = trials.y.tolist(), trials.known.tolist()
    length, successes, failures, since = LENGTH, 0, 0, 0
    best, top, least = None, -math.inf, math.inf
    k = 0
    while k < len(mine):
        box, end = known[mine[k]], k + 1
        while box >= 0 and end < len(mine) and known[mine[end]] == box:
            end += 1
        batch = [i for i in mine[k:end] if not math.isnan(y[i])]
        winner = max(batch, key=y.__getitem__, default=None)
        gained = winner is not None and (
            best is None or y[winner] > top + _GAIN * min(abs(top), top - least)
        )
        if winner is not None:
            least = min(least, *(y[i] for i in batch), y[winner])
            if best is None or y[winner] > top:
                best, top = winner, y[winner]
        if box >= since and box >= 0:
            successes = successes + 1 if gained else 0
            failures = 0 if gained else failures + end - k
            if successes >= SUCCESSES or failures >= patience(d):
                length = min(2 * length, LONGEST) if gained else length / 2
                successes, failures, since = 0, 0, mine[end - 1] + 1
                if length < SHORTEST:
                    return State(restarts=current + 1, since=since)
        k = end
    return State(length, successes, failures, current, best, since)


def _regions(trials: Trials) -> np.ndarray:
    """The region of each trial: what comes from elsewhere belongs to that of its time, (n,)."""
    claimed = trials.region.clip(min=0)
    return np.where(trials.region < 0, np.maximum.accumulate(claimed), claimed)


def past_trials(y: np.ndarray, failed: int, past: tuple[Past, ...]) -> Trials:
    """What is known of the trials that ended, in order of number.

    Args:
        y: Values of the complete ones, in order of number.
        failed: How many failed.
        past: As in `Request`.
    """
    ended = [trial for trial in past if trial.outcome != "pending"]
    if not ended:
        ended = [Past("complete", {})] * len(y) + [Past("failed", {})] * failed
    values = np.full(len(ended), np.nan)
    values[[trial.outcome == "complete" for trial in ended]] = y
    labels = [trial.origin.get("region") or {} for trial in ended]
    return Trials(
        values,
        np.array([label.get("number", -1) for label in labels], dtype=int),
        np.array([label.get("known", -1) for label in labels], dtype=int),
    )


@dataclass(frozen=True)
class Box:
    """A box in the unit cube: closed intervals of every column.

    Attributes:
        centre: Shape (d,), on the lattice of the space.
        lower, upper: Shape (d,), with lower ≤ centre ≤ upper. The whole of a categorical column.
        share: Part of the categories that may be exchanged at once, in (0, 1].
    """

    centre: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    share: float

    @staticmethod
    def around(centre: np.ndarray, length: float, scale: np.ndarray, space: Space) -> Box:
        """The box of mean side `length`, its sides in proportion to the lengthscales.

        Sides wᵢ L, wᵢ = ℓᵢ / (Π ℓⱼ)^(1/d) over the ordered columns, no less than a fourth nor more
        than four times their mean, so that columns that hardly matter do not use it up; columns of
        levels at least as wide as reaches the next ones.

        Args:
            centre: Shape (d,).
            length: L.
            scale: Lengthscales, shape (d,).
            space: The space.
        """
        kinds = np.array([column.kind for column in space.columns])
        sized = np.isin(kinds, ("continuous", "ordered"))
        half = np.full(len(centre), np.inf)
        if sized.any():
            logs = np.log(scale[sized])
            logs = (logs - logs.mean()).clip(-math.log(_STRETCH), math.log(_STRETCH))
            half[sized] = 0.5 * length * np.exp(logs - logs.mean())
        for j in np.flatnonzero(kinds == "ordered").tolist():
            positions = space.parameters[space.names[j]].lattice
            assert positions is not None
            level = positions.level(float(centre[j]))
            near = [
                positions.position(k) for k in (level - 1, level + 1) if 0 <= k < positions.size
            ]
            half[j] = max([half[j], *(abs(p - centre[j]) for p in near)])
        # Half a unit of rounding more, or the next level might lie just outside.
        lower = (centre - half - 1e-12).clip(0.0, 1.0)
        upper = (centre + half + 1e-12).clip(0.0, 1.0)
        return Box(centre, lower, upper, min(1.0, length))

    def contains(self, X: np.ndarray, space: Space, fixed: Mapping[int, float]) -> np.ndarray:
        """Which rows lie in the box, in the columns that matter there and are free, (m,)."""
        free = np.array([c.kind in ("continuous", "ordered") for c in space.columns])
        free[list(fixed)] = False
        inside = (self.lower <= X) & (self.upper >= X)
        return np.all(inside | ~free | ~space.active(X), axis=1)


@dataclass(frozen=True)
class _Drawn:
    """Candidates in a box, and the values of paths there."""

    key: tuple[Any, ...]
    X: np.ndarray  # (m, d)
    paths: Any
    values: Tensor  # (paths, m)


@dataclass(frozen=True)
class TrustRegion(Global):
    """A space-filling start, then candidates from a box around the best trial.

    Each trial maximises one function drawn from the posterior (Thompson sampling), first among
    candidates that differ from the centre in about twenty coordinates, then by a short climb; so
    batches of any size are proposed from one set of draws. The box follows from the trials: see
    `replay`. When it has shrunk to nothing, another region begins with a start of its own.

    Attributes:
        space, start, search: As in `Global`.
        acquisition: "auto" is "thompson"; any other is maximised in the box instead.
    """

    @cached_property
    def _last(self) -> dict[str, _Drawn]:
        """The candidates and paths drawn last: to be quick, nothing is remembered."""
        return {}

    def state(self, request: Request) -> State:
        """Where the region stands."""
        data = request.data
        trials = past_trials(data.y, len(data.failed), request.past)
        return replay(trials, _moving(self.space))

    def propose(self, request: Request) -> Proposal:
        """The next point, by whichever phase it is.

        Raises:
            SpaceExhausted: If the space is finite and every allowed point was seen.
        """
        data = request.data
        trials = past_trials(data.y, len(data.failed), request.past)
        state = replay(trials, _moving(self.space))
        label = {"number": state.restarts}
        if self._starting(state, trials, request):
            proposal = start_of(self.space, request)
            origin = proposal.origin | {"region": label}
            if state.restarts:
                origin["because"] = "the trust region before it shrank to nothing"
            return Proposal(proposal.x, origin)
        beliefs = self.modellers.beliefs(request.known)
        name, because = self.acquisition, "it was asked for"
        if name == "auto":
            name, because = _choose(beliefs, request)
        centre = self._centre(state, trials, beliefs.first)
        domain = Domain(self.space, request.fixed, request.seen)
        scale = beliefs.first.lengthscales.numpy()
        at = domain.place(beliefs.first.data.X[centre][None])[0]
        box = Box.around(at, state.length, scale, self.space)
        found = self._search(name, beliefs, request, domain, box)
        label |= {
            "known": len(trials.y),
            "length": state.length,
            "successes": state.successes,
            "lucky": SUCCESSES,
            "failures": state.failures,
            "patience": patience(_moving(self.space)),
        }
        if found is None:
            found = self.find(name, beliefs, request)
            label["left"] = True
        origin = {"phase": "model", "acquisition": name, "because": because, "region": label}
        return Proposal(found.x, origin | told_of(beliefs, found))

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
        """Which complete trial the box is around: the best, by the model where values are noisy."""
        complete = ~np.isnan(trials.y)
        assert state.best is not None
        if not is_noisy(belief):
            return int(complete[: state.best].sum())
        mean = belief.posterior.fitted().numpy().copy()
        mean[(_regions(trials) != state.restarts)[complete]] = -np.inf
        return int(mean.argmax())

    def _search(
        self, name: str, beliefs: Beliefs, request: Request, domain: Domain, box: Box
    ) -> Found | None:
        """The best unseen candidate in the box; None if there is none."""
        belief = beliefs.first
        n = len(belief.data.y)
        if name == "thompson":
            with threads_for(n):
                drawn, i = self._paths(belief, request, domain, box)
            X, values, scored = drawn.X, drawn.values[i], one_of(drawn.paths, i)
        else:
            with threads_for(n):
                scored = acquisition_for(name, beliefs, request, self.space)
            draws = generator(request.seed, request.number, f"{name} in a box")
            X = candidates(box, domain, draws, self.search.raw)
            with search_threads_for(n), torch.no_grad():
                parts = torch.from_numpy(X).unsqueeze(-2).split(1024)
                values = torch.cat([scored(part) for part in parts])
        if not len(X):
            return None
        with search_threads_for(n):
            return _climb(scored, X, values, domain, box, belief.lengthscales.numpy())

    def _paths(
        self, belief: Belief, request: Request, domain: Domain, box: Box
    ) -> tuple[_Drawn, int]:
        """Candidates, the values of some paths there, and which path is the next trial's."""
        block, i = divmod(len(belief.data.pending), _PATHS)
        data = belief.data
        key = (
            (
                request.seed,
                block,
                box.lower.tobytes(),
                box.upper.tobytes(),
                tuple(domain.fixed.items()),
            ),
            (data.X.tobytes(), data.y.tobytes(), data.errors.tobytes(), data.failed.tobytes()),
        )
        last = self._last.get("drawn")
        if last is None or last.key != key:
            told = len(data.y) + len(data.failed)
            X = candidates(box, domain, generator(request.seed, told, f"candidates {block}"))
            paths = draw_paths(belief, request.seed, block, _PATHS)
            values = torch.empty(_PATHS, 0, dtype=torch.float64)
            if len(X):
                with torch.no_grad():
                    parts = [paths(part) for part in torch.from_numpy(X).split(1024)]
                values = torch.cat(parts, 1)
            last = self._last["drawn"] = _Drawn(key, X, paths, values)
        return last, i


def _choose(beliefs: Beliefs, request: Request) -> tuple[str, str]:
    """The acquisition function that suits, and why, in words after "because"."""
    if len(beliefs.first.data.pending) >= _FEW:
        return "thompson", "many trials are running"
    return choose(beliefs, request.guide)


def _moving(space: Space) -> int:
    return sum(column.kind != "fixed" for column in space.columns)


def candidates(
    box: Box, domain: Domain, generator: torch.Generator, count: int | None = None
) -> np.ndarray:
    """Feasible rows on the lattice that differ from the centre, in the box, shape (m, d).

    A scrambled Sobol sequence, of which each row keeps a coordinate with probability
    min(1, 20 / d), and one at least; the others are the centre's. Categories that are kept are
    those of the sequence with probability min(1, L), L being the length of the region.

    Args:
        box: The box.
        domain: What may be proposed.
        generator: Randomness.
        count: m, but for rows that meet no constraint; 200 d, from 2000 to 5000, if left out.
    """
    space, d = domain.space, len(box.centre)
    count = count or min(5000, max(2000, 200 * d))
    kinds = np.array([column.kind for column in space.columns])
    free = kinds != "fixed"
    free[list(domain.fixed)] = False
    columns = np.flatnonzero(free)
    if not len(columns):
        return box.centre[None]
    U = sobol(count, d, generator)
    odds = np.where(kinds == "categorical", box.share, 1.0) * min(1.0, _CHANGED / len(columns))
    keep = torch.rand(count, d, generator=generator, dtype=torch.float64).numpy() < odds
    forced = torch.randint(len(columns), (count,), generator=generator).numpy()
    keep &= free
    none = ~keep.any(1)
    keep[none, columns[forced[none]]] = True
    X = np.where(keep, box.lower + U * (box.upper - box.lower), box.centre)
    X = domain.place(X)
    # Rounding may have left the box: such coordinates stay at the centre.
    outside = ((box.lower > X) | (box.upper < X)) & (kinds == "ordered") & space.active(X)
    X = domain.place(np.where(outside, box.centre, X))
    if space.constraints:
        X = _feasible(X, box, domain, generator)
    return X[box.contains(X, space, domain.fixed)]


def _feasible(X: np.ndarray, box: Box, domain: Domain, generator: torch.Generator) -> np.ndarray:
    """Those of X that meet the constraints, and where these are few others near the centre."""
    region = Region(domain)
    good = domain.feasible(X)
    kept = X[good]
    if len(kept) >= len(X) // 4:
        return kept
    near = region.near(box.centre[None], 1024, generator)
    if domain.feasible(box.centre[None])[0]:
        pulled = X[~good][:64]
        pulled = region.pull_back(pulled, np.tile(box.centre, (len(pulled), 1)))
        near = np.concatenate([near, pulled[domain.feasible(pulled)]])
    return np.concatenate([kept, near])


def _climb(
    scored: Any, X: np.ndarray, values: Tensor, domain: Domain, box: Box, scale: np.ndarray
) -> Found | None:
    """Climb within the box from the best candidates; the best unseen of all that was met."""
    order = values.argsort(descending=True, stable=True).numpy()
    evaluations = len(X)
    starts = X[order[:_CLIMBS]]

    def function(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, gradient = scored.value_and_gradient(torch.from_numpy(rows))
        return value.numpy(), gradient.numpy()

    lower, upper = domain.bounds(starts)
    free = lower < upper
    lower, upper = np.where(free, box.lower, lower), np.where(free, box.upper, upper)
    if free.any():
        ascent = ascend(function, starts, lower, upper, scale, max_rounds=_ROUNDS)
        evaluations += ascent.evaluations
        if domain.space.constraints:
            ends = Region(domain).pull_back(ascent.X, starts)
            ends = ends[domain.feasible(ends)]
        else:
            ends = domain.place(ascent.X)
        ends = ends[box.contains(ends, domain.space, domain.fixed)]
        if len(ends):
            with torch.no_grad():
                more = scored(torch.from_numpy(ends).unsqueeze(-2))
            X, values = np.concatenate([ends, X]), torch.cat([more, values])
            order = values.argsort(descending=True, stable=True).numpy()
    for block in np.array_split(order, max(1, len(order) // 16)):
        allowed = block[domain.unseen(X[block])]
        if len(allowed):
            best = int(allowed[0])
            return Found(X[best], float(values[best]), evaluations)
    return None
