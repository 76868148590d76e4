"""Facts about trust regions: where they stand follows from the trials, and what they propose."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from bbmmopt import Categorical, Integer, Optimizer, Real, Space
from bbmmopt.modelling import Belief, Data, Known, Modellers
from bbmmopt.search import Domain
from bbmmopt.space import Linear, Simplex
from bbmmopt.strategies import Past, Request, SpaceFilling, TrustRegion, generator, region_state
from bbmmopt.strategies import trust_region as module
from bbmmopt.strategies.box import Box, candidates
from bbmmopt.strategies.region_state import State, Trials, replay
from bbmmopt.strategies.thompson import PathValue, thompson

D = 6
CUBE = Space({f"x{i}": Real(0, 1) for i in range(D)})
MIXED = Space(
    {
        "kind": Categorical(["a", "b", "c"]),
        "n": Integer(1, 5),
        "many": Integer(0, 99),
        "x": Real(-1, 1),
        "rate": Real(1e-4, 1, log=True, when={"kind": ["a", "b"]}),
        "same": Categorical(["only"]),
    }
)


# --------------------------------------------------------------------------------------
# Where a region stands
# --------------------------------------------------------------------------------------


def trials(*told) -> Trials:
    """Trials from (y, region, known), or from y alone for what came from elsewhere."""
    rows = [t if isinstance(t, tuple) else (t, -1, -1) for t in told]
    y, region, known = zip(*rows, strict=True) if rows else ((), (), ())
    return Trials(np.array(y, dtype=float), np.array(region, int), np.array(known, int))


def one_by_one(*values, start=(0.0, 1.0), region=0) -> Trials:
    """A start, then a trial after another, each from a box that knew those before it."""
    boxed = [(y, region, len(start) + k) for k, y in enumerate(values)]
    return trials(*start, *boxed)


def test_a_region_begins_at_its_first_length_around_the_best_of_the_start():
    assert replay(trials(), 3) == State(best=None)
    assert replay(trials(1.0, 5.0, 2.0), 3) == State(best=1)


def test_three_successes_in_a_row_double_the_length_up_to_its_limit():
    two = replay(one_by_one(2, 3), 4)
    assert (two.length, two.successes, two.best) == (0.8, 2, 3)
    three = replay(one_by_one(2, 3, 4), 4)
    assert (three.length, three.successes, three.since, three.best) == (1.6, 0, 5, 4)
    assert replay(one_by_one(*range(2, 20)), 4).length == 1.6


def test_a_failure_in_between_begins_the_count_of_successes_anew():
    state = replay(one_by_one(2, 3, 0, 4, 5), 4)
    assert (state.length, state.successes, state.failures) == (0.8, 2, 0)


@pytest.mark.parametrize(("d", "patience"), [(1, 4), (4, 4), (7, 7), (20, 20)])
def test_as_many_failures_as_dimensions_but_no_fewer_than_four_halve_the_length(d, patience):
    before = replay(one_by_one(*[0.5] * (patience - 1)), d)
    assert (before.length, before.failures) == (0.8, patience - 1)
    after = replay(one_by_one(*[0.5] * patience), d)
    assert (after.length, after.failures, after.since) == (0.4, 0, patience + 2)


def test_a_success_has_to_gain_a_thousandth_of_the_best_value():
    small = one_by_one(100.05, 100.09, start=(-900.0, 100.0))
    assert (replay(small, 4).failures, replay(small, 4).best) == (2, 3)
    assert replay(one_by_one(100.11, start=(-900.0, 100.0)), 4).successes == 1
    # A constant that is added to all values does not forbid successes.
    far = one_by_one(1e6 + 2, 1e6 + 3, start=(1e6, 1e6 + 1))
    assert replay(far, 4).successes == 2


def test_a_region_that_shrank_to_nothing_gives_way_to_another():
    halvings = math.ceil(math.log2(0.8 * 2**7))
    told = one_by_one(*[0.5] * (4 * halvings))
    last = replay(Trials(told.y[:-1], told.region[:-1], told.known[:-1]), 4)
    assert last.restarts == 0 and region_state.SHORTEST <= last.length < 2 * region_state.SHORTEST
    state = replay(told, 4)
    assert (state.restarts, state.length, state.best) == (1, 0.8, None)
    # Its start, worse than what the first one found, is all that the second one looks at.
    n = len(told.y)
    second = [(-1.0, 1, -1), (-3.0, 1, -1), (-0.5, 1, n + 2), (-9.0, 1, n + 3)]
    rows = [*zip(told.y, told.region, told.known, strict=True), *second]
    state = replay(trials(*rows), 4)
    assert (state.restarts, state.best, state.successes, state.failures) == (1, n + 2, 0, 1)


def test_a_trial_of_a_region_that_is_gone_counts_for_nothing():
    rows = [0.0, 1.0, (1.0, 1, -1), (2.0, 1, -1), (50.0, 0, 2), (1.5, 1, 5)]
    state = replay(trials(*rows), 4)
    assert (state.restarts, state.best, state.failures) == (1, 3, 1)


def test_the_trials_of_a_batch_succeed_together_and_fail_one_by_one():
    batch = [(y, 0, 2) for y in (0.2, 7.0, 0.1, 8.0, 0.3)]
    state = replay(trials(0.0, 1.0, *batch), 8)
    assert (state.successes, state.failures, state.best) == (1, 0, 5)
    state = replay(trials(0.0, 9.0, *batch), 8)
    assert (state.successes, state.failures, state.length) == (0, 5, 0.8)


def test_a_change_of_length_takes_no_account_of_boxes_made_before_it():
    # A batch of 50 that fails halves the length once, not twelve times.
    state = replay(trials(0.0, 1.0, *[(0.5, 0, 2)] * 50), 4)
    assert (state.length, state.failures) == (0.4, 0)
    # Nor do late ones that were under way count, though the best of them is the centre.
    late = [(0.5, 0, 30), (3.0, 0, 51), (0.5, 0, 52)]
    state = replay(trials(0.0, 1.0, *[(0.5, 0, 2)] * 50, *late), 4)
    assert (state.length, state.failures, state.successes) == (0.4, 1, 0) and state.best == 53


def test_trials_that_failed_and_trials_from_elsewhere():
    state = replay(one_by_one(np.nan, np.nan), 4)
    assert (state.failures, state.best) == (2, 1)
    # What the user told counts neither way, but may be the best.
    state = replay(trials(0.0, 1.0, (0.5, 0, 2), 6.0, 0.1, (0.5, 0, 5)), 4)
    assert (state.failures, state.successes, state.best) == (2, 0, 3)
    assert replay(trials(np.nan, 1.0), 4).best == 1 and replay(trials(np.nan), 4).best is None


# --------------------------------------------------------------------------------------
# The box, and candidates in it
# --------------------------------------------------------------------------------------


def test_the_sides_go_by_the_lengthscales_and_their_mean_is_the_length():
    scale = np.array([0.5, 1.0, 2.0, 1.0, 1.0, 1.0])
    box = Box.around(np.full(D, 0.5), 0.1, scale, CUBE)
    sides = box.upper - box.lower
    assert np.allclose(sides, 0.1 * scale, atol=1e-9)
    assert np.exp(np.log(sides).mean()) == pytest.approx(0.1)


@pytest.mark.parametrize("length", [1.6, 0.8, 0.05, 2.0**-7])
def test_a_box_lies_in_the_cube_and_contains_its_centre(length):
    rng = np.random.default_rng(0)
    for _ in range(20):
        centre, scale = CUBE.snap(rng.random(D).round()), 10 ** rng.uniform(-3, 3, D)
        box = Box.around(centre, length, scale, CUBE)
        assert (box.lower >= 0).all() and (box.upper <= 1).all()
        assert (box.lower <= centre).all() and (box.upper >= centre).all()
        assert (box.upper > box.lower).all()


def test_columns_that_do_not_matter_do_not_use_the_box_up():
    space = Space({f"x{i}": Real(0, 1) for i in range(100)})
    scale = np.full(100, 1e3)
    scale[:6] = 0.3
    box = Box.around(np.full(100, 0.5), 0.8, scale, space)
    assert (box.upper - box.lower)[:6].min() > 0.1


def test_a_small_box_still_reaches_the_next_levels():
    box = Box.around(MIXED.snap(np.full(6, 0.5)), 2.0**-7, np.ones(6), MIXED)
    X = candidates(box, Domain(MIXED), generator(0, 0, "test"))
    assert set(X[:, 1]) == {0.3, 0.5, 0.7}
    assert len(set(X[:, 0])) == 3


@pytest.mark.parametrize("space", [CUBE, MIXED], ids=["cube", "mixed"])
def test_candidates_are_on_the_lattice_and_in_the_box(space):
    rng = np.random.default_rng(1)
    for length in (1.6, 0.3, 0.01):
        centre = space.snap(rng.random((1, len(space))))[0]
        box = Box.around(centre, length, np.ones(len(space)), space)
        X = candidates(box, Domain(space, {1: 0.5}), generator(0, 1, "test"))
        assert len(X) == 2000 and (X[:, 1] == 0.5).all()
        assert np.array_equal(space.snap(X), X) and box.contains(X, space, {1: 0.5}).all()


def test_every_coordinate_can_change_and_one_always_does_about_twenty_at_most():
    space = Space({f"x{i}": Real(0, 1) for i in range(60)})
    box = Box.around(np.full(60, 0.5), 0.4, np.ones(60), space)
    changed = candidates(box, Domain(space), generator(3, 0, "test")) != 0.5
    assert changed.any(1).all() and changed.any(0).all()
    assert changed.sum(1).mean() == pytest.approx(20, abs=0.5)
    # Where chance would hardly ever choose one, it is forced to, the last one as well.
    fixed = {j: 0.5 for j in range(58)}
    changed = candidates(box, Domain(space, fixed), generator(3, 0, "test")) != 0.5
    assert not changed[:, :58].any() and changed[:, 58:].any(1).all()


@pytest.mark.parametrize(
    "constraint",
    [
        Linear({f"x{i}": 1.0 for i in range(D)}, at_most=1.0),
        Simplex([f"x{i}" for i in range(D)]),
    ],
    ids=["linear", "mixture"],
)
def test_candidates_meet_the_constraints_of_the_space(constraint):
    space = Space(dict(CUBE.parameters), [constraint])
    centre = SpaceFilling(space).propose(Request(nothing(space), 0, 0)).x
    box = Box.around(centre, 0.2, np.ones(D), space)
    X = candidates(box, Domain(space), generator(0, 0, "test"))
    assert len(X) > 20 and space.feasible(X).all() and box.contains(X, space, {}).all()


# --------------------------------------------------------------------------------------
# Proposals
# --------------------------------------------------------------------------------------


def nothing(space) -> Data:
    rows = np.empty((0, len(space)))
    return Data(rows, rows[:, 0], rows[:, 0], rows, rows, exact=True)


def told(space, n, *, pending=0, failed=0, seed=0, exact=True) -> Data:
    rng = np.random.default_rng(seed)
    X = np.unique(space.snap(rng.random((2 * (n + pending + failed), len(space)))), axis=0)
    X = rng.permutation(X)[: n + pending + failed]
    y = -((X[:n] - 0.4) ** 2).sum(1)
    return Data(X[:n], y, np.full(n, np.nan), X[n : n + pending], X[n + pending :], exact)


def request(data, number=40, *, seed=0, **options) -> Request:
    rows = np.concatenate([data.X, data.pending, data.failed])
    return Request(data, number, seed, seen=frozenset(x.tobytes() for x in rows), **options)


def shrunk(data, length_halved: int) -> tuple[Past, ...]:
    """A past of a start and of failures that have halved the length so often."""
    n, fails = len(data.y), 6 * length_halved
    start = [Past("complete", {})] * (n - fails)
    boxed = [
        Past("complete", {"region": {"number": 0, "known": n - fails + k}}) for k in range(fails)
    ]
    return (*start, *boxed, *[Past("pending", {})] * len(data.pending))


def sorted_best_first(data: Data) -> Data:
    order = np.argsort(-data.y)
    return dataclasses.replace(data, X=data.X[order], y=data.y[order])


@pytest.mark.parametrize("acquisition", ["auto", "thompson", "log_ei", "noisy_log_ei"])
@pytest.mark.parametrize("pending", [0, 3, 20])
def test_proposals_lie_in_the_box_on_the_lattice_and_were_not_seen(acquisition, pending):
    data = sorted_best_first(told(CUBE, 40, pending=pending))
    past = shrunk(data, 3)
    strategy = TrustRegion(CUBE, 10, acquisition)
    asked = request(data, past=past)
    proposal = strategy.propose(asked)
    assert strategy.state(asked) == State(0.1, 0, 0, 0, 0, 40)
    belief = strategy.modellers.beliefs(Known((data,))).first
    box = Box.around(data.X[0], 0.1, belief.lengthscales.numpy(), CUBE)
    assert box.contains(proposal.x[None], CUBE, {}).all()
    assert Domain(CUBE, seen=asked.seen).unseen(proposal.x[None]).all()
    name = {0: "log_ei", 3: "noisy_log_ei", 20: "thompson"}[pending]
    assert proposal.origin["acquisition"] == (name if acquisition == "auto" else acquisition)
    label = proposal.origin["region"]
    assert label | {"number": 0, "known": 40, "length": 0.1, "patience": 6} == label


@pytest.mark.parametrize("pending", [0, 15])
def test_mixed_and_conditional_spaces_are_kept_to(pending):
    data = told(MIXED, 30, pending=pending, failed=3)
    strategy = TrustRegion(MIXED, 10)
    seen = set(request(data).seen)
    for number in range(45, 50):
        x = strategy.propose(Request(data, number, 0, {1: 0.5}, frozenset(seen))).x
        assert np.array_equal(MIXED.snap(x), x) and x[1] == 0.5
        assert Domain(MIXED, seen=frozenset(seen)).unseen(x[None]).all()
        seen.add(MIXED.encode(MIXED.decode(x)).tobytes())


def test_a_finite_space_is_used_up_though_the_box_is_small():
    space = Space({"n": Integer(0, 4), "k": Categorical(["a", "b"])})
    optimizer = Optimizer(space, minimize="f", seed=0, n_start=3, strategy="trust_region")
    points = set()
    for _ in range(10):
        trial = optimizer.ask()
        points.add(tuple(trial.params.values()))
        optimizer.tell(trial, trial.params["n"] ** 2)
    assert len(points) == 10


def test_constraints_of_the_space_are_met_by_what_is_proposed():
    space = Space(
        {"a": Real(0, 1), "b": Real(0, 1), "c": Real(0, 1), "n": Integer(0, 9)},
        [Simplex(["a", "b", "c"])],
    )
    optimizer = Optimizer(space, minimize="f", seed=0, n_start=4, strategy="trust_region")
    for batch in (4, 2, 12, 1, 1):
        for trial in optimizer.ask(batch):
            p = trial.params
            assert space.satisfies(p)
            optimizer.tell(trial, (p["a"] - 0.6) ** 2 + p["b"] + 0.01 * p["n"])


def test_a_proposal_is_a_function_of_the_request():
    data = told(CUBE, 20, pending=12)
    asked = request(data, 32)
    fresh = TrustRegion(CUBE, 5).propose(asked)
    used = TrustRegion(CUBE, 5)
    used.propose(request(told(CUBE, 25, seed=4, pending=9), 34))
    used.propose(dataclasses.replace(asked, seed=1))
    again = used.propose(asked)
    assert bytes(again.x) == bytes(fresh.x) and again.origin == fresh.origin


@pytest.mark.parametrize("batch", [1, 12])
def test_a_run_reopened_after_any_trial_goes_on_bit_by_bit(batch, tmp_path):
    def opened(where):
        options = {"n_start": 4, "seed": 3, "strategy": "trust_region"}
        return Optimizer(CUBE, minimize="f", storage=where, **options)

    def rounds(optimizer, reopen):
        points = []
        for k in range(24 // batch):
            if reopen:
                optimizer.close()
                optimizer = opened(tmp_path / "study.db")
            for trial in optimizer.ask(batch):
                points.append(trial.params)
                optimizer.tell(trial, sum((v - 0.3) ** 2 for v in trial.params.values()) + k % 3)
        return points

    assert rounds(opened(None), False) == rounds(opened(tmp_path / "study.db"), True)


def test_a_hundred_at_once_are_distinct_and_drawn_from_one_set_of_paths(monkeypatch):
    drawn = []
    real = module.draw_paths

    def counted(belief, seed, block, count):
        drawn.append(count)
        return real(belief, seed, block, count)

    monkeypatch.setattr(module, "draw_paths", counted)
    optimizer = Optimizer(CUBE, minimize="f", seed=0, n_start=8, strategy="trust_region")
    for trial in optimizer.ask(8):
        optimizer.tell(trial, sum((v - 0.3) ** 2 for v in trial.params.values()))
    batch = optimizer.ask(100)
    assert len({tuple(trial.params.values()) for trial in batch}) == 100
    assert drawn == [module._PATHS]
    X = np.array([list(trial.params.values()) for trial in batch])
    assert np.std(X, axis=0).min() > 0.02  # they do not all sit together


def test_the_best_of_noisy_values_is_the_models_choice():
    rng = np.random.default_rng(0)
    data = told(CUBE, 60, exact=False)
    y = data.y + 0.3 * rng.standard_normal(60)
    y[7] = 3.0  # luck
    data = dataclasses.replace(data, y=y)
    strategy = TrustRegion(CUBE, 5)
    belief = strategy.modellers.beliefs(Known((data,))).first
    trials = module.past_trials(y, 0, ())
    assert strategy._centre(replay(trials, D), trials, belief) == belief.posterior.fitted().argmax()
    exact = dataclasses.replace(belief, data=dataclasses.replace(data, exact=True))
    assert isinstance(exact, Belief) and strategy._centre(replay(trials, D), trials, exact) == 7


def test_a_new_region_begins_with_a_start_of_its_own(monkeypatch):
    monkeypatch.setattr(region_state, "SHORTEST", 0.3)  # two halvings, of six failures each
    optimizer = Optimizer(CUBE, minimize="f", seed=0, n_start=4, strategy="trust_region")
    origins = []
    for k in range(24):
        trial = optimizer.ask()
        origins.append(trial.origin)
        optimizer.tell(trial, float(k))  # worse and worse
    phases = [o["phase"] for o in origins]
    start, boxed = ["space-filling"] * 4, ["model"] * 12
    assert phases == (start + boxed + start + boxed)[:24]
    assert [o["region"]["number"] for o in origins] == [0] * 16 + [1] * 8
    assert "because the trust region before it shrank to nothing" in optimizer.explain(16)
    assert "Trust region 2 had a mean side of 0.8" in optimizer.explain(20)


def test_failed_trials_shrink_a_region_too():
    optimizer = Optimizer(CUBE, minimize="f", seed=0, n_start=4, strategy="trust_region")
    for k in range(12):
        trial = optimizer.ask()
        optimizer.tell(trial, *([1.0 + k] if k < 4 else []), **({} if k < 4 else {"failed": "no"}))
    assert optimizer.preview().origin["region"]["length"] == 0.4


def test_the_minimum_of_a_quadratic_is_found_sooner_than_by_even_points():
    space = Space({f"x{i}": Real(0, 1) for i in range(10)})
    optimum = np.random.default_rng(0).uniform(0.2, 0.8, 10)

    def f(params) -> float:
        return float(((np.array(list(params.values())) - optimum) ** 2).sum())

    for batch, limit in ((1, 0.02), (10, 0.1)):
        optimizer = Optimizer(
            space, minimize="f", noise="none", seed=0, n_start=10, strategy="trust_region"
        )
        for _ in range(60 // batch):
            for trial in optimizer.ask(batch):
                optimizer.tell(trial, f(trial.params))
        even = [SpaceFilling(space).propose(Request(nothing(space), k, 0)).x for k in range(60)]
        best = optimizer.best.values["f"]
        assert best < limit and best < 0.2 * min(f(space.decode(x)) for x in even)


# --------------------------------------------------------------------------------------
# Thompson sampling over the whole space
# --------------------------------------------------------------------------------------


def test_a_path_is_scored_and_differentiated():
    belief = Modellers(CUBE).beliefs(Known((told(CUBE, 20),))).first
    path = thompson(belief, seed=0)
    X = torch.from_numpy(np.random.default_rng(2).random((5, D)))
    value, gradient = path.value_and_gradient(X)
    assert torch.allclose(value, path(X.unsqueeze(-2)), atol=1e-12)
    step = torch.zeros(D, dtype=torch.float64)
    step[2] = 1e-6
    slope = (path((X + step).unsqueeze(-2)) - path((X - step).unsqueeze(-2))) / 2e-6
    assert torch.allclose(slope, gradient[:, 2], atol=1e-5)
    with pytest.raises(ValueError, match="PathValue scores single candidates"):
        path(X)


def test_each_trial_under_way_has_a_path_of_its_own_and_what_was_told_is_known_to_all():
    data = told(CUBE, 20)
    X = torch.from_numpy(data.X).unsqueeze(-2)
    values = []
    for pending in range(3):
        busy = dataclasses.replace(data, pending=np.random.default_rng(1).random((pending, D)))
        belief = Modellers(CUBE).beliefs(Known((busy,))).first
        path = thompson(belief, seed=0)
        assert isinstance(path, PathValue)
        assert torch.allclose(path(X), belief.posterior.y, atol=0.05)
        values.append(float(path(torch.full((1, 1, D), 0.9, dtype=torch.float64))))
    assert len(set(values)) == 3


def test_thompson_sampling_can_run_the_loop_over_the_whole_space():
    space = Space({"x": Real(-5, 10), "y": Real(0, 15)})
    optimizer = Optimizer(space, minimize="f", seed=0, n_start=6, acquisition="thompson")
    for _ in range(5):
        for trial in optimizer.ask(5):
            optimizer.tell(trial, (trial.params["x"] - 2) ** 2 + (trial.params["y"] - 4) ** 2)
    assert optimizer.best.values["f"] < 1.0
    assert "value of a function drawn from the model" in optimizer.explain(20)
