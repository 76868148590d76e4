"""Facts about what limits searches and fits: time, by a clock of our own, and evaluations."""

import math

import numpy as np
import pytest
import torch

from bbmmopt import Categorical, Integer, Linear, Nonlinear, Ordinal, Real, Space
from bbmmopt.modelling import Data, Modeller
from bbmmopt.search import Budget, Domain, SpaceExhausted, ascend, maximise
from bbmmopt.search.within import ascend_curved
from surrogate import ExactGP, Matern52, fit

PLANE = Space({"x": Real(0, 1), "y": Real(0, 1)})
MIXED = Space({"x": Real(0, 1), "kind": Categorical(list("abcd")), "k": Integer(0, 30)})
LATTICE = Space({"a": Integer(0, 19), "b": Ordinal(list(range(10))), "c": Categorical(["u", "v"])})
SUM = Space(
    {"x": Real(0, 1), "y": Real(0, 1), "k": Integer(0, 3)},
    constraints=[Linear({"x": 1, "y": 1}, at_most=1)],
)
DISC = Space(
    {"x": Real(-1, 1), "y": Real(-1, 1)},
    constraints=[Nonlinear("disc", lambda p: 1 - p["x"] ** 2 - p["y"] ** 2)],
)
EVERY = {"plane": PLANE, "mixed": MIXED, "lattice": LATTICE, "sum": SUM, "disc": DISC}


class Counted:
    """-(x - 0.3)², counted, and how long it takes."""

    def __init__(self, clock=None, seconds=0.0):
        self.rows, self.batches, self._clock, self._seconds = 0, 0, clock, seconds

    def _value(self, X):
        self.rows += len(X)
        self.batches += 1
        if self._clock is not None:
            self._clock.time += self._seconds
        return -(X - 0.3).square().sum(-1)

    def __call__(self, X):
        return self._value(X.squeeze(-2))

    def value_and_gradient(self, X):
        return self._value(X), -2 * (X - 0.3)


def search(space, counted, limit, *, seen=frozenset(), seed=0):
    d = len(space)
    return maximise(
        counted,
        Domain(space, {}, seen),
        generator=torch.Generator().manual_seed(seed),
        scale=torch.full((d,), 0.5, dtype=torch.float64),
        centres=np.empty((0, d)) if space.constraints else space.snap(np.full((1, d), 0.6)),
        budget=limit,
    )


# --------------------------------------------------------------------------------------
# The budget
# --------------------------------------------------------------------------------------


def test_parts_spend_from_the_whole_and_tell_it_what_ended_them():
    whole = Budget(evaluations=10)
    part = whole.part(3)
    part.spend(2)
    assert (part.left, whole.left) == (1, 8)
    assert part.allows(1) and not part.allows(2)
    assert part.ended == whole.ended == {"evaluations"}
    assert whole.keeping(3).left == 5 and whole.part(20, least=2).left == 2


def test_a_group_costs_what_its_members_do():
    whole = Budget(evaluations=11)
    groups = whole.groups(4)
    assert groups.left == 2
    groups.part(1).spend(2)
    assert (groups.left, whole.left) == (0, 3)


def test_a_cap_of_its_own_is_nothing_to_tell():
    whole = Budget(evaluations=10)
    assert not whole.capped(3).allows(4) and not whole.ended
    assert not whole.capped(30).allows(11) and whole.ended == {"evaluations"}


def test_parts_of_the_time_end_one_after_another(clock):
    whole = Budget(seconds=12)
    first = whole.part(3)
    clock.time += 3.9
    assert not first.is_late
    clock.time += 0.1
    assert first.is_late and not whole.is_late and first.most(100, late=7) == 7
    assert first.ended == {"time"}
    assert whole.part(2).deadline == clock.time + 4  # what is left, shared anew
    clock.time += 2
    assert whole.ends_fits is not None and whole.ends_fits() and not whole.is_late
    assert whole.ends_fits == first.ends_fits != Budget(seconds=12).ends_fits


def test_without_limits_the_clock_is_not_looked_at(clock):
    clock.step = math.nan
    unlimited = Budget().part(2).keeping(5).groups(3)
    assert unlimited.allows(10**9) and unlimited.ends_fits is None and clock.time == 1000.0


# --------------------------------------------------------------------------------------
# Searches
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50, 200, 1000, 3000])
@pytest.mark.parametrize("name", EVERY)
def test_no_more_candidates_are_scored_than_allowed_and_all_are_counted(name, limit):
    counted, limits = Counted(), Budget(evaluations=limit)
    found = search(EVERY[name], counted, limits)
    assert found.evaluations == counted.rows == limit - limits.left
    assert counted.rows <= limit
    X = found.x[None]
    assert np.array_equal(EVERY[name].snap(X), X) and EVERY[name].feasible(X, exact=True)[0]


@pytest.mark.parametrize("name", EVERY)
def test_a_limit_that_is_not_reached_changes_nothing(name, clock):
    free, limited = Counted(), Counted()
    a = search(EVERY[name], free, None)
    limits = Budget(seconds=1.0, evaluations=100_000)
    b = search(EVERY[name], limited, limits)
    assert a.x.tobytes() == b.x.tobytes() and free.rows == limited.rows and not limits.ended


def test_more_evaluations_find_a_better_point():
    values = [search(PLANE, Counted(), Budget(evaluations=n)).value for n in (2, 30, 300)]
    assert values == sorted(values) and values[0] < values[2] == pytest.approx(0, abs=1e-6)


def test_the_same_limit_finds_the_same_point():
    points = [search(MIXED, Counted(), Budget(evaluations=150)).x.tobytes() for _ in range(2)]
    assert points[0] == points[1]


@pytest.mark.parametrize("name", EVERY)
def test_when_the_time_is_over_before_the_search_it_takes_the_best_of_a_few(name, clock):
    limits, counted = Budget(seconds=1), Counted()
    clock.time += 2
    found = search(EVERY[name], counted, limits)
    assert counted.batches == 1 and 0 < counted.rows <= 64
    assert limits.ended == {"time"} and np.isfinite(found.value)


def test_a_search_ends_after_the_batch_in_which_the_time_is_over(clock):
    slow = Counted(clock, 1.0)
    found = search(PLANE, slow, Budget(seconds=3.5))
    # One batch of 1024 and one of the rest, then two rounds of climbing.
    assert slow.batches == 4
    assert found.value > search(PLANE, Counted(), Budget(evaluations=5)).value


@pytest.mark.parametrize("limit", [1, 2, 20])
def test_what_was_seen_is_not_proposed_however_small_the_limit(limit):
    space = Space({"a": Integer(0, 3)})
    seen = frozenset(Domain(space).keys(space.encode_many([{"a": a} for a in (0, 1, 3)])))
    assert space.decode(search(space, Counted(), Budget(evaluations=limit), seen=seen).x) == {
        "a": 2
    }
    wide = Space({"a": Integer(0, 200), "b": Integer(0, 200), "x": Real(0, 1)})
    first = search(wide, Counted(), Budget(evaluations=limit))
    seen = frozenset(Domain(wide).keys(first.x[None]))
    again = search(wide, Counted(), Budget(evaluations=limit), seen=seen)
    assert again.x.tobytes() != first.x.tobytes() and again.evaluations <= limit


def test_an_exhausted_space_is_still_exhausted():
    space = Space({"a": Integer(0, 3)})
    seen = frozenset(Domain(space).keys(space.encode_many([{"a": a} for a in range(4)])))
    with pytest.raises(SpaceExhausted):
        search(space, Counted(), Budget(evaluations=1), seen=seen)


@pytest.mark.parametrize("limit", [3, 5, 8, 1000])
def test_a_climb_stops_where_the_next_round_would_be_too_much(limit):
    X, counted = np.array([[0.9, 0.9], [0.8, 0.1], [0.1, 0.7]]), Counted()

    def function(rows):
        value, gradient = counted.value_and_gradient(torch.from_numpy(rows))
        return value.numpy(), gradient.numpy()

    box = np.zeros_like(X), np.ones_like(X), np.ones(2)
    limits = Budget(evaluations=limit)
    ascent = ascend(function, X, *box, budget=limits)
    assert ascent.evaluations == counted.rows == limit - limits.left
    assert counted.rows <= limit and (limits.ended == {"evaluations"}) == (limit < 1000)
    assert (ascent.value >= -((X - 0.3) ** 2).sum(1)).all()


def test_rows_that_slsqp_has_no_evaluations_left_for_stay_where_they_are():
    from bbmmopt.search import Region

    region, counted = Region(Domain(DISC)), Counted()

    def function(rows):
        value, gradient = counted.value_and_gradient(torch.from_numpy(rows))
        return value.numpy(), gradient.numpy()

    X = np.array([[0.5, 0.5], [0.6, 0.6], [0.4, 0.6]])
    box = np.zeros_like(X), np.ones_like(X), np.ones(2), region.polytope, region.curved
    whole = ascend_curved(function, X[:1], *(b[:1] if i < 2 else b for i, b in enumerate(box)))
    counted.rows = 0
    limits = Budget(evaluations=whole.evaluations + 1)
    ascent = ascend_curved(function, X, *box, budget=limits)
    assert ascent.evaluations == counted.rows == whole.evaluations + 1
    assert np.array_equal(ascent.X[0], whole.X[0]) and np.array_equal(ascent.X[1:], X[1:])


# --------------------------------------------------------------------------------------
# Fits
# --------------------------------------------------------------------------------------


def waves(n=40, d=2, seed=0):
    rng = torch.Generator().manual_seed(seed)
    X = torch.rand(n, d, generator=rng, dtype=torch.float64)
    y = torch.sin(6 * X).sum(-1)
    return X, (y - y.mean()) / y.std()


def after(calls):
    """Says no so often, then yes."""
    left = iter([False] * calls)
    return lambda: next(left, True)


def test_a_fit_that_is_stopped_is_the_best_so_far_and_says_so():
    X, y = waves()
    start = ExactGP(Matern52(2))
    whole = fit(start, X, y, restart=False)
    values = []
    for calls in (0, 2, 5):
        model = fit(start, X, y, restart=False, stop=after(calls))
        assert not model.report.converged and model.report.message == "ended early, as asked"
        assert model.report.evaluations == calls + 1
        values.append(model.report.value)
    assert values == sorted(values) and values[0] < values[-1] < whole.report.value
    assert whole.report.converged
    never = fit(start, X, y, restart=False, stop=lambda: False)
    assert never.report.value == whole.report.value


def test_a_fit_by_products_can_be_stopped_too():
    from surrogate import BBMM

    X, y = waves(200)
    start = ExactGP(Matern52(2), solver=BBMM(), noise=0.1)
    whole = fit(start, X, y)
    cut = fit(start, X, y, stop=after(1))
    assert not cut.report.converged and cut.report.products < whole.report.products


def told(n=20) -> Data:
    rng = np.random.default_rng(0)
    X = PLANE.snap(rng.random((n, 2)))
    none = np.empty((0, 2))
    y = np.sin(6 * X).sum(1)
    return Data(X, y, np.full(n, np.nan), none, none, exact=False)


def test_a_fit_cut_short_is_kept_for_the_one_who_asked_and_for_nobody_else():
    modeller, data, stop = Modeller(PLANE), told(), lambda: True
    expected = Modeller(PLANE).belief(data)
    cut = modeller.belief(data, stop)
    assert cut.cut_short and not expected.cut_short
    assert not torch.equal(cut.lengthscales, expected.lengthscales)
    pending = Data(**{**data.__dict__, "pending": np.array([[0.5, 0.5]])})
    assert modeller.belief(pending, stop).posterior is cut.posterior  # the next of a batch
    other = modeller.belief(data, lambda: True)
    assert other.cut_short and other.posterior is not cut.posterior
    full = modeller.belief(data)
    assert not full.cut_short and torch.equal(full.lengthscales, expected.lengthscales)
    assert modeller.belief(data, stop) is full  # once it is there, it is there for everybody
