"""Facts about strategies: counted randomness, an even start, and pending trials kept clear of."""

import json

import numpy as np
import pytest
import torch

from bbmmopt import Optimizer
from bbmmopt.modelling import Beliefs, Data, Known, Modellers
from bbmmopt.search import Domain, Region, Search, SpaceExhausted
from bbmmopt.space import Categorical, Integer, Linear, Nonlinear, Real, Simplex, Space
from bbmmopt.strategies import Global, Request, SpaceFilling, generator, make_acquisition
from bbmmopt.trial import dumps, loads

PLANE = Space({"x": Real(0, 1), "y": Real(0, 1)})
NOTHING = np.empty((0, 2))


def told(n, *, pending=NOTHING, failed=NOTHING, seed=0) -> Data:
    X = np.random.default_rng(seed).random((n, 2))
    y = -((X - 0.3) ** 2).sum(1)
    return Data(X, y, np.full(n, np.nan), pending, failed, exact=True)


def beliefs(data: Data, **options) -> Beliefs:
    return Modellers(PLANE).beliefs(Known((data,), **options))


def request(number=0, *, data=None, seed=0, **options) -> Request:
    return Request(told(0) if data is None else data, number, seed, **options)


# --------------------------------------------------------------------------------------
# Randomness
# --------------------------------------------------------------------------------------


def test_draws_are_counted_by_seed_trial_and_purpose():
    def draw(*key):
        return torch.rand(4, generator=generator(*key)).tolist()

    keys = [(0, 0, "a"), (0, 1, "a"), (1, 0, "a"), (0, 0, "b"), (-1, 0, "a"), (10**30, 0, "a")]
    draws = [draw(*key) for key in keys]
    assert draws == [draw(*key) for key in keys]
    assert len({tuple(d) for d in draws}) == len(keys)
    assert draw(1, 11, "x") != draw(11, 1, "x")


def test_no_global_state_is_drawn_from_or_changed():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    strategy = Global(PLANE, start=5)
    for data in (told(0), told(9)):
        strategy.propose(request(9, data=data))
    assert torch.equal(torch.get_rng_state(), before)


# --------------------------------------------------------------------------------------
# The start
# --------------------------------------------------------------------------------------


def test_the_start_is_the_centre_and_then_a_sobol_sequence():
    proposals = [SpaceFilling(PLANE).propose(request(k)) for k in range(33)]
    assert np.array_equal(proposals[0].x, [0.5, 0.5]) and proposals[0].origin["point"] == "centre"
    X = np.array([p.x for p in proposals[1:]])
    # Of 32 consecutive points of a Sobol sequence, each quarter of each axis holds about a quarter.
    for column in X.T:
        counts, _ = np.histogram(column, bins=4, range=(0, 1))
        assert counts.min() >= 6


def test_a_point_of_the_start_does_not_depend_on_those_before_it():
    late = SpaceFilling(PLANE).propose(request(17))
    again = SpaceFilling(PLANE).propose(request(17))
    other = SpaceFilling(PLANE).propose(request(17, seed=1))
    assert bytes(late.x) == bytes(again.x) != bytes(other.x)


def test_the_start_passes_over_what_was_seen_and_keeps_what_is_fixed():
    first = SpaceFilling(PLANE).propose(request(3)).x
    seen = frozenset([bytes(PLANE.encode(PLANE.decode(first)))])
    second = SpaceFilling(PLANE).propose(request(3, seen=seen)).x
    assert not np.allclose(first, second)
    assert SpaceFilling(PLANE).propose(request(3, fixed={1: 0.25})).x[1] == 0.25
    assert SpaceFilling(PLANE).propose(request(0, fixed={1: 0.25})).x.tolist() == [0.5, 0.25]


def test_the_start_uses_a_finite_space_up_and_then_says_so():
    space = Space({"n": Integer(0, 6), "k": Categorical(["a", "b"])})
    seen: set[bytes] = set()
    nothing = Data(np.empty((0, 2)), np.empty(0), np.empty(0), NOTHING, NOTHING, True)
    for k in range(14):
        x = SpaceFilling(space).propose(Request(nothing, k, 0, seen=frozenset(seen))).x
        assert bytes(x) not in seen and np.array_equal(space.snap(x), x)
        seen.add(bytes(x))
    with pytest.raises(SpaceExhausted, match="all 14 points"):
        SpaceFilling(space).propose(Request(nothing, 14, 0, seen=frozenset(seen)))


MIXTURE = Space(
    {"a": Real(0, 1), "b": Real(0, 1), "c": Real(0, 1), "k": Categorical(["x", "y"])},
    [Simplex(["a", "b", "c"]), Linear({"a": 1.0}, at_most=0.6)],
)
DISC = Space(
    {"x": Real(0, 1), "y": Real(0, 1)},
    [Nonlinear("disc", lambda p: 0.01 - (p["x"] - 0.8) ** 2 - (p["y"] - 0.5) ** 2)],
)


@pytest.mark.parametrize(
    ("space", "first"), [(MIXTURE, [1 / 3, 1 / 3, 1 / 3, 0.75]), (DISC, [0.7, 0.5])]
)
def test_under_constraints_the_start_is_the_middle_and_then_far_from_what_was(space, first):
    proposals = [SpaceFilling(space).propose(request(k)) for k in range(24)]
    X = np.array([p.x for p in proposals])
    np.testing.assert_allclose(X[0], first, atol=2e-3)
    assert [p.origin["point"] for p in proposals[:3]] == ["nearest", "maximin", "maximin"]
    assert space.feasible(X).all() and np.array_equal(X, space.snap(X))

    def closest(X):
        apart = np.linalg.norm(X[:, None] - X, axis=-1)
        return apart[np.triu_indices(len(X), 1)].min()

    draws = [Region(Domain(space)).sample(24, generator(s, 0, "x")) for s in range(20)]
    assert closest(X) > 1.5 * max(map(closest, draws))


@pytest.mark.parametrize("space", [MIXTURE, DISC])
def test_under_constraints_a_point_of_the_start_follows_from_seed_and_number(space):
    def propose(number, **options):
        return SpaceFilling(space).propose(request(number, **options))

    late, again, other = propose(17), propose(17), propose(17, seed=1)
    assert bytes(late.x) == bytes(again.x) != bytes(other.x)
    seen = frozenset([bytes(space.encode(space.decode(late.x)))])
    assert bytes(propose(17, seen=seen).x) == bytes(propose(18).x)
    # However many are asked for, none comes twice.
    numbers = [*range(0, 128, 16), 127, 128, 129, 300, 1000, 10**6]
    assert len({bytes(propose(k).x) for k in numbers}) == len(numbers)
    x = propose(3, fixed={1: 0.45}).x
    assert x[1] == 0.45 and space.feasible(x[None])[0]


def test_the_start_uses_the_feasible_points_of_a_finite_space_up_and_then_says_so():
    space = Space({"n": Integer(0, 6), "m": Integer(0, 6)}, [Simplex(["n", "m"], total=6)])
    seen: set[bytes] = set()
    for k in range(7):
        x = SpaceFilling(space).propose(request(k, seen=frozenset(seen))).x
        params = space.decode(x)
        assert params["n"] + params["m"] == 6 and bytes(x) not in seen
        if k == 0:
            assert params == {"n": 3, "m": 3}
        seen.add(bytes(x))
    with pytest.raises(SpaceExhausted, match="all 7 points of the space that meet the constraints"):
        SpaceFilling(space).propose(request(7, seen=frozenset(seen)))


@pytest.mark.parametrize(
    ("complete", "pending", "failed", "starting"),
    [
        (0, 0, 0, True),
        (9, 0, 0, True),
        (10, 0, 0, False),
        (5, 5, 0, False),  # the rest of the start is under way
        (4, 20, 0, True),  # there would be nothing to model
        (5, 0, 5, False),
        (4, 0, 50, True),
    ],
)
def test_the_model_takes_over_when_enough_has_come_back(complete, pending, failed, starting):
    rows = np.random.default_rng(1).random((50, 2))
    data = told(complete, pending=rows[:pending], failed=rows[:failed])
    assert Global(PLANE, start=10).starting(data) is starting


def test_even_the_shortest_start_waits_for_two_values():
    strategy = Global(PLANE, start=1)
    assert strategy.starting(told(1)) and not strategy.starting(told(2))


def test_the_start_in_a_mixture_is_explained_as_what_it_was():
    space = Space({name: Real(0, 1) for name in "abc"}, constraints=[Simplex(["a", "b", "c"])])
    optimizer = Optimizer(space, minimize="f", seed=0)
    optimizer.ask(3)
    third = {name: pytest.approx(1 / 3, abs=1e-9) for name in "abc"}
    assert optimizer.trials[0].params == third  # (½, ½, ½) is not allowed
    assert optimizer.explain(0).endswith(
        "it is the allowed point nearest to the centre of the space that was found."
    )
    assert "it is the allowed point farthest from those before it" in optimizer.explain(2)
    assert "Sobol" not in optimizer.explain(2)


def test_the_centre_of_a_constrained_space_is_called_so_only_where_it_is_allowed():
    plane = {"x": Real(0, 1), "n": Integer(0, 4)}
    for most, x, said in ((2.5, 0.5, "it is the centre"), (2.4, 0.4, "nearest to the centre")):
        space = Space(plane, constraints=[Linear({"x": 1, "n": 1}, at_most=most)])
        optimizer = Optimizer(space, minimize="f", seed=0)
        assert optimizer.ask().params == {"x": pytest.approx(x), "n": 2}
        assert said in optimizer.explain(0)


def test_a_centre_that_was_left_behind_is_still_called_the_centre():
    space = Space({"n": Integer(0, 2)}, constraints=[Linear({"n": 1}, at_most=2)])
    optimizer = Optimizer(space, minimize="f", seed=0)
    for n in (0, 2):
        optimizer.add_trial({"n": n}, n)
    assert optimizer.ask().params == {"n": 1}
    assert "it is the centre of the space" in optimizer.explain(2)


# --------------------------------------------------------------------------------------
# The model
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["log_ei", "noisy_log_ei", "log_pi", "ucb", "mean"])
def test_every_acquisition_finds_its_way_near_the_top(name):
    proposal = Global(PLANE, start=5, acquisition=name).propose(request(25, data=told(25)))
    assert proposal.origin["phase"] == "model" and proposal.origin["acquisition"] == name
    if name != "ucb":  # which explores
        assert np.linalg.norm(proposal.x - 0.3) < 0.2


def test_an_unknown_acquisition_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"auto, log_ei, .*; got 'ei'"):
        Global(PLANE, start=5, acquisition="ei")
    with pytest.raises(ValueError, match="no acquisition 'ei'; there are auto, log_ei"):
        make_acquisition("ei", beliefs(told(5)))


def test_a_proposal_is_a_function_of_the_request():
    data, other = told(14), told(17, seed=3)
    fresh = Global(PLANE, start=5).propose(request(14, data=data))
    used = Global(PLANE, start=5)
    used.propose(request(17, data=other))
    used.propose(request(14, data=data, seed=1))
    again = used.propose(request(14, data=data))
    assert bytes(again.x) == bytes(fresh.x) and again.origin == fresh.origin


@pytest.mark.parametrize("name", ["log_ei", "log_pi", "ucb"])
def test_with_a_trial_under_way_the_next_goes_somewhere_else(name):
    strategy = Global(PLANE, start=5, acquisition=name)
    x = strategy.propose(request(12, data=told(12))).x
    data = told(12, pending=x[None])
    y = strategy.propose(request(13, data=data)).x
    assert np.linalg.norm(x - y) > 0.02


def test_nothing_is_proposed_where_trials_failed():
    strategy = Global(PLANE, start=5)
    data = told(12)
    for k in range(12, 16):
        x = strategy.propose(request(k, data=data)).x
        assert all(np.linalg.norm(x - f) > 0.02 for f in data.failed)
        data = told(12, failed=np.concatenate([data.failed, x[None]]))


def test_what_is_fixed_stays_fixed_under_the_model():
    x = Global(PLANE, start=5).propose(request(12, data=told(12), fixed={0: 0.875})).x
    assert x[0] == 0.875


def test_the_origin_of_a_proposal_is_json_and_tells_what_was_believed():
    strategy = Global(PLANE, start=5)
    data = told(12, pending=np.array([[0.1, 0.1]]), failed=np.array([[0.9, 0.9]]))
    proposal = strategy.propose(request(14, data=data))
    origin = proposal.origin
    assert loads(dumps(origin)) == origin and json.dumps(origin)
    assert origin["model"] | {"trials": 12, "pending": 1, "failed": 1} == origin["model"]
    believed = strategy.modellers.beliefs(Known((data,)))
    belief = believed.first
    value, uncertainty = belief.predict(proposal.x[None])
    assert origin["predicted"] == {"value": value[0], "uncertainty": uncertainty[0]}
    score = make_acquisition("noisy_log_ei", believed)(torch.from_numpy(proposal.x)[None, None])
    assert origin["acquisition_value"] == pytest.approx(float(score[0]), abs=1e-9)


def test_a_harder_search_finds_no_less():
    data = told(14)
    values = [
        Global(PLANE, start=5, search=search).propose(request(14, data=data))
        for search in (
            Search(raw=16, starts=1, climb_rounds=2),
            Search(),
            Search(raw=4096, starts=40),
        )
    ]
    quick, usual, hard = (p.origin["acquisition_value"] for p in values)
    assert quick <= usual + 1e-9 and usual >= hard - 0.02
