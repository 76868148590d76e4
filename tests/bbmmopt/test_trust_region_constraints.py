"""Facts about trust regions under constraints on outcomes, failed trials, and the user's guides."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from bbmmopt import Integer, Near, Optimizer, Real, Space, Study
from bbmmopt.explain import explain
from bbmmopt.modelling import LABEL_ERROR, Data
from bbmmopt.search import Domain
from bbmmopt.strategies import Past, Request, TrustRegion, generator
from bbmmopt.strategies import trust_region as module
from bbmmopt.strategies.box import Box, candidates
from bbmmopt.strategies.region_state import State, Trials, replay, total_violation
from bbmmopt.strategies.thompson import FAR_BELOW, PathValue, PathWithin, draw_paths

D = 4
CUBE = Space({f"x{i}": Real(0, 1) for i in range(D)})


# --------------------------------------------------------------------------------------
# Where a region stands
# --------------------------------------------------------------------------------------


def trials(*rows) -> Trials:
    """Trials of region 0 from (y, violation, known)."""
    y, violation, known = zip(*rows, strict=True)
    region = np.where(np.array(known) < 0, -1, 0)
    return Trials(np.array(y, float), region, np.array(known), np.array(violation, float))


START = [(9.0, 4.0, -1), (-900.0, 2.0, -1)]  # the second misses less, whatever the first is worth


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], State(best=1, violation=2.0)),
        ([(-5, 1.5, 2)], State(successes=1, best=2, violation=1.5)),
        ([(99, 2.5, 2)], State(failures=1, best=1, violation=2.0)),
        # Less by a thousandth is no success, though it is the new centre.
        ([(0, 1.999, 2)], State(failures=1, best=2, violation=1.999)),
        # The first that keeps the constraints, however bad; then values count, of those alone.
        ([(-5, 0, 2)], State(successes=1, best=2)),
        ([(-5, 0, 2), (50, 1e-9, 3)], State(failures=1, best=2)),
        ([(-5, 0, 2), (-4, 0, 3)], State(successes=2, best=3)),
        ([(-5, 0, 2), (-4, 0, 3), (-4.0005, 0, 4)], State(failures=1, best=3)),
        # The range of what keeps them, 1, sets the margin of 0.001, not that of all values.
        ([(-5, 0, 2), (-4, 0, 3), (-3.9995, 0, 4)], State(failures=1, best=4)),
        ([(-5, 0, 2), (-4, 0, 3), (-3.9985, 0, 4)], State(1.6, best=4, since=5)),
        # A batch succeeds by the best that keeps them, and fails trial by trial.
        ([(-5, 0, 2), (80, 1, 2), (-3, 0, 2), (np.nan, 0, 2)], State(successes=1, best=4)),
        ([(np.nan, 0, 2), (9, 3, 2)], State(failures=2, best=1, violation=2.0)),
        ([(-5, 0, 2), *[(9, 1, 3)] * 4], State(0.4, best=2, since=7)),
    ],
)
def test_where_a_region_stands_with_constraints_by_hand(rows, expected):
    assert replay(trials(*START, *rows), 4) == expected


def test_without_violations_nothing_is_different():
    rng = np.random.default_rng(0)
    for _ in range(50):
        y = rng.standard_normal(40).cumsum()
        y[rng.random(40) < 0.1] = np.nan
        region, known = np.zeros(40, int), (np.arange(40) // 3) * 3
        plain = replay(Trials(y, region, known), 5)
        assert replay(Trials(y, region, known, np.zeros(40)), 5) == plain


def constraint(y, bound=0.0) -> Data:
    y = np.array(y, float)
    X = np.linspace(0, 1, len(y))[:, None]
    return Data(X, y, np.full(len(y), np.nan), X[:0], X[:0], exact=True, bound=bound)


def violations(constraints: tuple[Data, ...], first: int) -> np.ndarray:
    found = total_violation(constraints, first)
    assert found is not None
    return found


def test_violations_are_in_standard_deviations_of_the_first_trials_and_add_up():
    a, b = [1.0, -1.0, 3.0, -7.0], [0.5, 2.0, -0.5, 2.0]
    one, two = constraint(a), constraint(b, bound=1.0)
    sa, sb = np.std(a[:3]), np.std(b[:3])
    expected = [0.5 / sb, 1 / sa, 1.5 / sb, 7 / sa]
    received = violations((one, two), 3)
    np.testing.assert_allclose(received, expected, rtol=1e-12)
    scaled = dataclasses.replace(one, y=1e5 * one.y)
    np.testing.assert_allclose(violations((scaled, two), 3), expected, rtol=1e-12)
    # What comes later changes no earlier one: a success stays a success.
    more = constraint([*a, 900.0]), constraint([*b, -900.0], bound=1.0)
    np.testing.assert_array_equal(violations(more, 3)[:4], received)
    assert total_violation((), 3) is None and not len(violations((constraint([]),), 3))


def test_no_size_of_a_violation_is_lost():
    received = violations((constraint([1e300, -1e-320, -1e308, 0.0]),) * 2, 2)
    assert np.isfinite(received).all() and received[0] == received[3] == 0
    assert 0 < received[1] < received[2]


# --------------------------------------------------------------------------------------
# The centre
# --------------------------------------------------------------------------------------


def problem(n, *, pending=0, seed=0, bound=0.3, exact=True, failing=False) -> Request:
    """(x - 0.4)² over a cube, with x0 ≥ bound; trials with x1 > 0.6 fail if `failing`."""
    X = np.random.default_rng(seed).random((n + pending, D))
    fails = (X[:n, 1] > 0.6) & failing
    good, failed, running = X[:n][~fails], X[:n][fails], X[n:]

    def data(y, **options) -> Data:
        return Data(good, y, np.full(len(y), np.nan), running, failed, exact, **options)

    success = None
    if failing:
        label, errors = np.where(fails, -1.0, 1.0), np.full(n, LABEL_ERROR)
        success = Data(X[:n], label, errors, running, X[:0], False, bound=0.0, warp=False)
    outcomes = ["failed" if f else "complete" for f in fails] + ["pending"] * pending
    past = tuple(Past(outcome, {}) for outcome in outcomes)
    return Request(
        data(-((good - 0.4) ** 2).sum(1)),
        n + pending,
        0,
        seen=frozenset(x.tobytes() for x in X),
        constraints=(data(good[:, 0] - bound, bound=0.0),),
        success=success,
        past=past,
    )


def centre_of(request, space=CUBE) -> np.ndarray:
    strategy = TrustRegion(space, 5)
    belief = strategy.modellers.beliefs(request.known).first
    centre = strategy._centre(strategy.state(request), strategy._trials(request), belief)
    return request.data.X[centre]


def test_the_centre_is_the_best_trial_that_keeps_the_constraints_or_misses_them_by_least():
    asked = problem(30, bound=0.5, seed=1)
    kept = asked.data.X[:, 0] >= 0.5
    best = np.where(kept, asked.data.y, -np.inf).argmax()
    assert not kept[asked.data.y.argmax()]  # or this would be no test
    assert np.array_equal(centre_of(asked), asked.data.X[best])
    none = problem(30, bound=1.5)
    assert np.array_equal(centre_of(none), none.data.X[none.data.X[:, 0].argmax()])


def test_under_noise_the_model_chooses_the_centre_among_those_that_keep_the_constraints():
    asked = problem(40, bound=0.5, exact=False, seed=1)
    kept = asked.data.X[:, 0] >= 0.5
    y = asked.data.y + 0.3 * np.random.default_rng(0).standard_normal(40)
    noisy = dataclasses.replace(asked.data, y=y, errors=np.full(40, 0.3))
    asked = dataclasses.replace(asked, data=noisy)
    fitted = TrustRegion(CUBE, 5).modellers.beliefs(asked.known).first.posterior.fitted().numpy()
    best = np.where(kept, fitted, -np.inf).argmax()
    # Or this would be no test: neither what was seen nor what breaks the constraint.
    assert best != np.where(kept, y, -np.inf).argmax() and best != fitted.argmax()
    assert np.array_equal(centre_of(asked), asked.data.X[best])
    beyond = tuple(dataclasses.replace(c, y=c.y - 1) for c in asked.constraints)
    none = centre_of(dataclasses.replace(asked, constraints=beyond))
    assert np.array_equal(none, asked.data.X[asked.data.X[:, 0].argmax()])


# --------------------------------------------------------------------------------------
# Draws
# --------------------------------------------------------------------------------------


def line(slope: list[float], constant: float = 0.0) -> PathValue:
    weights = torch.tensor(slope, dtype=torch.float64)
    return PathValue(lambda X: (X @ weights + constant).unsqueeze(0))


def test_points_where_drawn_constraints_hold_come_first_and_then_those_that_miss_least():
    # f = x0; x0 ≤ 0.5 and x1 ≥ 0.2, as functions that must reach their bounds.
    path = PathWithin(line([1.0, 0.0]), [line([-1.0, 0.0]), line([0.0, 2.0])], [-0.5, 0.4])
    X = torch.tensor([[0.1, 0.3], [0.4, 0.2], [0.6, 0.3], [1.0, 0.0], [0.3, 0.1]]).double()
    values = path(X.unsqueeze(-2))
    assert torch.allclose(values[:2], X[:2, 0])
    assert torch.allclose(values[2:] + FAR_BELOW, -torch.tensor([0.1, 0.9, 0.2]).double())
    assert path(X.unsqueeze(-2)).argsort(descending=True).tolist() == [1, 0, 2, 4, 3]
    value, gradient = path.slope(room=0.0).value_and_gradient(X)
    assert torch.allclose(value[:2], X[:2, 0]) and gradient[3].tolist() == [-29.0, 60.0]
    # With room to be left, the second point is no longer well inside.
    assert path.slope(room=0.05).value_and_gradient(X)[1][1].tolist() == [1.0, 60.0]
    with pytest.raises(ValueError, match="PathValue scores single candidates"):
        path(X)


@pytest.mark.parametrize(("bound", "failing"), [(0.3, False), (3.0, False), (0.3, True)])
def test_a_draw_chooses_no_worse_than_the_best_of_its_candidates(bound, failing):
    asked = problem(30, pending=9, bound=bound, failing=failing)
    strategy = TrustRegion(CUBE, 5, "thompson")
    proposal = strategy.propose(asked)
    beliefs = strategy.modellers.beliefs(asked.known)
    box = Box.around(centre_of(asked), 0.8, beliefs.first.lengthscales.numpy(), CUBE)
    X = candidates(box, Domain(CUBE), generator(0, 30, "candidates 0"))
    assert box.contains(proposal.x[None], CUBE, {}).all()

    def drawn(belief, name="") -> tuple[np.ndarray, float]:
        paths = draw_paths(belief, 0, 0, module._PATHS, name)
        with torch.no_grad():
            values = paths(torch.from_numpy(np.concatenate([X, proposal.x[None]])))[9].numpy()
        return values[:-1], values[-1]

    f, here = drawn(beliefs.first)
    pairs = [(drawn(beliefs.constraints[0], " of constraint 0"), beliefs.constraints[0].bound)]
    if failing:
        pairs.append((drawn(beliefs.success, " of success"), beliefs.success.bound))
    missed = sum(np.maximum(b - c, 0) for (c, _), b in pairs)
    missed_here = sum(max(b - c, 0) for (_, c), b in pairs)
    label = proposal.origin["region"]
    assert (bound == 3.0) == (not (missed == 0).any()) == ("missed" in label)
    if bound == 3.0:
        assert missed_here <= missed.min() + 1e-6 and label["missed"] == pytest.approx(missed_here)
    else:
        assert missed_here == 0 and here >= f[missed == 0].max()
    assert proposal.origin["acquisition_value"] == pytest.approx(here)


def test_where_trials_failed_draws_seldom_go():
    asked = problem(60, pending=10, failing=True)
    strategy = TrustRegion(CUBE, 5)
    points = []
    for extra in range(8):
        busy = np.random.default_rng(extra).random((extra, D))
        data = dataclasses.replace(asked.data, pending=np.concatenate([asked.data.pending, busy]))
        points.append(strategy.propose(dataclasses.replace(asked, data=data)).x)
    assert np.mean([x[1] > 0.65 for x in points]) <= 1 / 8
    assert len({x.tobytes() for x in points}) == 8


# --------------------------------------------------------------------------------------
# Runs
# --------------------------------------------------------------------------------------


def ackley(params) -> dict[str, float]:
    """Ackley on [-5, 10]^d with sum x ≤ 0 and ‖x‖ ≤ 5, of the paper of SCBO."""
    x = np.array(list(params.values()))
    bowl = -20 * math.exp(-0.2 * math.sqrt(np.mean(x**2)))
    value = bowl - math.exp(np.mean(np.cos(2 * math.pi * x))) + 20 + math.e
    return {"f": value, "total": float(x.sum()), "norm": 1e4 * float(np.linalg.norm(x) - 5)}


def bounded(d: int, **options) -> Optimizer:
    space = Space({f"x{i}": Real(-5, 10) for i in range(d)})
    options = {"minimize": "f", "seed": 0, "strategy": "trust_region"} | options
    return Optimizer(space, constraints=["total", "norm"], **options)


def test_a_feasible_point_is_found_and_improved_upon_up_to_the_bound():
    optimizer = bounded(5, n_start=10, noise="none")
    feasible = []
    for _ in range(4):
        for trial in optimizer.ask(10):
            # Least at 1, beyond the bound of the sum: where it holds, at 0, where it is 5.
            f = sum((x - 1) ** 2 for x in trial.params.values())
            optimizer.tell(trial, ackley(trial.params) | {"f": f})
        kept = [t for t in optimizer.trials if optimizer.problem.is_feasible(t)]
        feasible.append(min(((t.values or {})["f"] for t in kept), default=math.inf))
    assert feasible[0] == math.inf  # the start had none
    assert 5.0 <= feasible[-1] < min(6.5, feasible[1])


@pytest.mark.parametrize(("batch", "count"), [(1, 8), (12, 2)])
def test_a_run_reopened_after_any_batch_goes_on_bit_by_bit(batch, count, tmp_path):
    def rounds(where, reopen):
        optimizer, points = bounded(3, storage=where, n_start=4), []
        for _ in range(count):
            if reopen:
                optimizer.close()
                optimizer = bounded(3, storage=where, n_start=4)
            for trial in optimizer.ask(batch):
                points.append((trial.params, trial.origin))
                if trial.params["x2"] > 8:
                    optimizer.tell(trial, failed="too far")
                else:
                    optimizer.tell(trial, ackley(trial.params))
        return points

    assert rounds(None, False) == rounds(tmp_path / "study.db", True)


def test_fifty_at_once_are_distinct_and_drawn_from_one_set_of_paths_of_each_output(monkeypatch):
    drawn = []
    real = module.draw_paths

    def counted(belief, seed, block, count, output=""):
        drawn.append(output)
        return real(belief, seed, block, count, output)

    monkeypatch.setattr(module, "draw_paths", counted)
    optimizer = bounded(4, n_start=8)
    for trial in optimizer.ask(8):
        optimizer.tell(trial, ackley(trial.params))
    optimizer.tell(optimizer.ask(), failed="broken")
    batch = optimizer.ask(50)
    assert len({tuple(trial.params.values()) for trial in batch}) == 50
    assert drawn == ["", " of constraint 0", " of constraint 1", " of success"]


def test_a_finite_space_with_constraints_is_used_up_though_the_box_is_small():
    space = Space({"n": Integer(0, 9), "m": Integer(0, 3)})
    options = {"n_start": 3, "strategy": "trust_region", "constraints": ["n >= 5"]}
    optimizer = Optimizer(space, minimize="f", seed=0, **options)
    points = set()
    for batch in (10, 20, 10):
        for trial in optimizer.ask(batch):
            p = trial.params
            points.add(tuple(p.values()))
            optimizer.tell(trial, {"f": (p["m"] - 1) ** 2, "n": p["n"]})
    assert len(points) == 40


def test_explain_says_how_the_region_stands_with_the_constraints():
    optimizer = bounded(4, n_start=6)
    for k, batch in enumerate((6, 1, 9)):
        for trial in optimizer.ask(batch):
            missed = {"total": 1.0 + k, "norm": 1.0} if k < 1 else {"total": -1.0, "norm": -1.0}
            optimizer.tell(trial, ackley(trial.params) | missed)
    assert "No trial of it had kept all constraints: its centre was" in optimizer.explain(6)
    assert "standard deviations in total" in optimizer.explain(6)
    text = optimizer.explain(15)
    assert "Its centre was the best of the trials that had kept all constraints." in text
    assert "Functions of constraints were drawn too, and only candidates that kept" in text
    region = optimizer.trials[15].origin["region"]
    origin = optimizer.trials[15].origin | {"region": region | {"missed": 0.25}}
    trial = dataclasses.replace(optimizer.trials[15], origin=origin)
    text = explain(trial, optimizer.problem)
    assert "was chosen for what has to hold, not for the value of a function drawn" in text
    assert "this one missed them by least, 0.25 standard deviations" in text


# --------------------------------------------------------------------------------------
# Guides
# --------------------------------------------------------------------------------------


def test_a_prior_weighs_in_the_box_and_draws_which_it_cannot_weigh_are_left_out():
    def run(prior):
        options = {"prior": prior, "n_start": 4, "budget": 200, "strategy": "trust_region"}
        optimizer = Optimizer(CUBE, minimize="f", noise="none", seed=0, **options)
        for trial in optimizer.ask(4):
            optimizer.tell(trial, sum((v - 0.5) ** 2 for v in trial.params.values()))
        return optimizer.ask(12)

    guided, plain = run({"x0": Near(0.9, spread=0.03)}), run(None)
    names = [trial.origin["acquisition"] for trial in guided]
    assert "thompson" not in names and plain[-1].origin["acquisition"] == "thompson"
    far = [np.mean([abs(t.params["x0"] - 0.9) for t in batch]) for batch in (guided, plain)]
    assert far[0] < 0.5 * far[1]


def test_what_a_trust_region_cannot_take_into_account_is_refused():
    prior = {"x0": Near(0.5, spread=0.1)}
    Study(CUBE, minimize="f", strategy="trust_region", cost="seconds", prior=prior)
    varied = {"perturbation": {"x0": 0.1}, "risk": 0.9}
    with pytest.raises(ValueError, match="cannot take perturbation and risk into account"):
        Study(CUBE, **({"minimize": "f", "strategy": "trust_region"} | varied))
