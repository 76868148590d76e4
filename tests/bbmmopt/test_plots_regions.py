"""Regions of a slice: what cannot be tried, what makes up a mixture, where constraints hold."""

import math

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from scipy.stats import norm

from bbmmopt.optimizer import Optimizer
from bbmmopt.plots import acquisition_data, plot_acquisition, plot_posterior, posterior_data
from bbmmopt.plots.regions import DOUBTFUL, EVEN, FORBIDDEN, outline
from bbmmopt.plots.shares import shares_of
from bbmmopt.plots.slices import make_slice
from bbmmopt.plots.style import MARKS, OFF_SLICE
from bbmmopt.space import Categorical, Integer, Linear, Nonlinear, Real, Simplex, Space
from tests.bbmmopt.pictures import SURFACES, marks, texts

pytestmark = pytest.mark.usefixtures("canvas")


def told(space: Space, count: int = 8, **options) -> Optimizer:
    """A run of a smooth function of all numbers."""
    optimizer = Optimizer(space, minimize="loss", seed=2, n_start=count, **options)
    for _ in range(count):
        trial = optimizer.ask()
        numbers = [v for v in trial.params.values() if not isinstance(v, str)]
        optimizer.tell(trial, sum(math.sin(k + v) for k, v in enumerate(numbers)))
    return optimizer


@pytest.fixture(scope="module")
def disc() -> Optimizer:
    round_ = Nonlinear("disc", lambda p: 1 - p["x"] ** 2 - p["y"] ** 2)
    return told(Space({"x": Real(-1, 1), "y": Real(-1, 1)}, [round_]))


@pytest.fixture(scope="module")
def mixture() -> Optimizer:
    parts = {"a": Real(0, 1), "b": Real(0, 0.6), "c": Real(0.1, 0.5), "heat": Real(20, 90)}
    return told(Space(parts, [Simplex(["a", "b", "c"])]))


@pytest.fixture(scope="module")
def bounded() -> Optimizer:
    """Outcomes with two constraints, kept by some."""
    space = Space({"x": Real(0, 1), "y": Real(0, 1)})
    limits = ["heat <= 0.7", "mass >= 0.3"]
    optimizer = Optimizer(space, minimize="cost", constraints=limits, seed=0, n_start=12)
    for _ in range(12):
        trial = optimizer.ask()
        x, y = trial.params.values()
        optimizer.tell(trial, {"cost": (x - 1) ** 2 + y, "heat": x * (1 + y) / 2, "mass": y})
    return optimizer


def hatched(ax: Axes, x: float, y: float) -> bool:
    """Whether the picture is hatched at a point."""
    return any(
        path.contains_point((x, y))
        for drawn in ax.collections
        if is_hatched(drawn)
        for path in drawn.get_paths()
        if len(path.vertices)
    )


def is_hatched(drawn) -> bool:
    """Whether it is: contours have a hatch for each of their levels."""
    return any(getattr(drawn, "hatches", [drawn.get_hatch()]))


def labels(ax: Axes) -> list[str]:
    """What the legend explains."""
    return [text.get_text() for text in ax.get_legend().get_texts()]


# --------------------------------------------------------------------------------------
# What cannot be tried
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("plot", SURFACES)
def test_what_a_function_rules_out_is_hatched_to_within_a_step_of_the_outline(disc, plot):
    ax = plot(disc, "x", "y")
    assert FORBIDDEN in labels(ax)
    rng = np.random.default_rng(0)
    step = 2 / 400
    for x, y in rng.uniform(-0.99, 0.99, (300, 2)).tolist():
        distance = math.hypot(x, y) - 1
        if abs(distance) > step:
            assert hatched(ax, x, y) == (distance > 0)


def test_the_outline_is_the_check_of_the_space_on_a_finer_grid(disc):
    where = make_slice(disc, np.ones(2), "x", "y", None, disc.trials)
    x, y, allowed = outline(where)
    assert allowed.shape == (401, 401)
    X = disc.space.encode_many([{"x": a, "y": b} for b in y[::7] for a in x[::7]])
    wanted = disc.space.feasible(X).reshape(len(y[::7]), len(x[::7]))
    np.testing.assert_array_equal(allowed[::7, ::7], wanted)
    assert 0.7 < allowed.mean() < 0.8  # π / 4


def test_the_table_says_what_may_be_tried(disc):
    for table in (acquisition_data(disc, "x", "y"), posterior_data(disc, "x", "y")):
        wanted = 1 - table["params.x"] ** 2 - table["params.y"] ** 2 >= 0
        np.testing.assert_array_equal(table["allowed"], wanted)


@pytest.mark.parametrize("plot", SURFACES)
def test_on_a_curve_the_stretches_that_cannot_be_tried_are_hatched(disc, plot):
    ax = plot(disc, "x", fixed={"y": 0.8})
    assert FORBIDDEN in labels(ax)
    for x in (-0.9, -0.61, -0.59, 0.0, 0.59, 0.61, 0.9):
        assert hatched(ax, x, 0.5) == (abs(x) > 0.6)


@pytest.mark.parametrize("plot", SURFACES)
def test_cells_that_cannot_be_tried_are_hatched(plot):
    no_four = Nonlinear("no four", lambda p: abs(p["n"] * p["m"] - 4) - 1)
    ax = plot(told(Space({"n": Integer(1, 5), "m": Integer(1, 5)}, [no_four])), "n", "m")
    for n in range(1, 6):
        for m in range(1, 6):
            assert hatched(ax, n + 0.2, m - 0.3) == (n * m == 4)


@pytest.fixture(scope="module")
def warm() -> Optimizer:
    """Where "b" is not allowed in the lower half of x."""
    warm = Nonlinear("warm", lambda p: p["x"] - 0.5 * (p["kind"] == "b"))
    return told(Space({"x": Real(0, 1), "kind": Categorical(["a", "b", "c"])}, [warm]))


@pytest.mark.parametrize("plot", SURFACES)
def test_cells_beside_a_continuous_parameter_are_hatched(warm, plot):
    along, across = plot(warm, "x", "kind"), plot(warm, "kind", "x")
    for x in (0.1, 0.4, 0.6):
        for k in range(3):
            wanted = k == 1 and x < 0.5
            assert hatched(along, x, k + 0.1) == hatched(across, k + 0.1, x) == wanted


@pytest.mark.parametrize("plot", SURFACES)
def test_categories_that_cannot_be_tried_are_hatched(warm, plot):
    ax = plot(warm, "kind", fixed={"x": 0.2})
    assert [hatched(ax, k - 0.3, 0.5) for k in range(3)] == [False, True, False]


def test_colours_and_the_largest_value_are_those_of_what_may_be_tried(disc):
    # Up to here nothing was looked for by the model: the best of the slice is marked by itself.
    fresh = Optimizer(disc.space, minimize="loss", seed=0, n_start=9)
    for trial in disc.trials[:8]:
        fresh.add_trial(trial.params, trial.value)
    for name in ("ucb", "log_ei"):
        table = acquisition_data(fresh, "x", "y", acquisition=name)
        ax = plot_acquisition(fresh, "x", "y", acquisition=name)
        k = int(np.where(table["allowed"], table["value"], -np.inf).argmax())
        assert marks(ax, "largest here").tolist() == [[table["params.x"][k], table["params.y"][k]]]
        filled = [c for c in ax.collections if getattr(c, "filled", False) and c.colorbar]
        assert filled[0].levels[-1] <= table["value"][table["allowed"]].max() + 1
    assert table["value"].argmax() != k


@pytest.mark.parametrize("plot", SURFACES)
def test_where_all_may_be_tried_nothing_is_hatched(smooth, plot):
    ax = plot(smooth, "a", "b")
    assert FORBIDDEN not in labels(ax)
    assert not any(map(is_hatched, ax.collections))


def test_a_function_that_was_not_stored_is_named(disc, tmp_path):
    stored = Optimizer(disc.space, minimize="loss", seed=0, storage=tmp_path / "disc.db")
    for trial in disc.trials:
        stored.add_trial(trial.params, trial.value)
    stored.close()
    ax = plot_acquisition(tmp_path / "disc.db", "x", "y", acquisition="ucb")
    assert "not stored, so not shown: where disc allows none" in texts(ax).replace("\n", " ")
    assert len(marks(ax, "next")) == len(marks(ax, "largest here")) == 0
    table = acquisition_data(tmp_path / "disc.db", "x", "y", acquisition="ucb")
    assert table.facts["next"] is None


# --------------------------------------------------------------------------------------
# Mixtures
# --------------------------------------------------------------------------------------


def test_the_others_make_up_the_rest_of_a_mixture_wherever_they_can(mixture):
    table = posterior_data(mixture, "a")
    a, b, c = (table[f"params.{name}"] for name in "abc")
    possible = (1 - a >= 0.1 - 1e-12) & (1 - a <= 1.1 + 1e-12)
    np.testing.assert_array_equal(table["allowed"], possible)
    np.testing.assert_allclose((a + b + c)[possible], 1.0, atol=1e-9)
    assert ((b >= 0) & (b <= 0.6) & (c >= 0.1) & (c <= 0.5)).all()
    assert table.facts["held"] == {"heat": mixture.best.params["heat"]}
    X = mixture.space.encode_many(
        {"a": x, "b": y, "c": z, **table.facts["held"]} for x, y, z in zip(a, b, c, strict=True)
    )
    np.testing.assert_allclose(table["median"], -mixture.belief().predict(X)[0], rtol=1e-9)


def test_each_of_them_moves_by_the_same_share_of_its_room(mixture):
    table, best = posterior_data(mixture, "a"), mixture.best.params
    b, c = table["params.b"], table["params.c"]
    less = table["params.a"] > best["a"]
    down_b, down_c = (best["b"] - b) / best["b"], (best["c"] - c) / (best["c"] - 0.1)
    up_b, up_c = (b - best["b"]) / (0.6 - best["b"]), (c - best["c"]) / (0.5 - best["c"])
    np.testing.assert_allclose(
        np.where(less, down_b, up_b), np.where(less, down_c, up_c), atol=1e-9
    )
    assert np.where(less, down_b, up_b).max() == pytest.approx(1.0)


@pytest.mark.parametrize("plot", SURFACES)
def test_the_best_trial_of_a_mixture_lies_on_its_slice_and_the_picture_says_what_moves(
    mixture, plot
):
    ax = plot(mixture, "a", "heat")
    assert "b, c make a + b + c = 1" in texts(ax)
    best = [mixture.best.params["a"], mixture.best.params["heat"]]
    shown = marks(ax, "best" if plot is plot_posterior else "observed").tolist()
    assert best in shown
    assert len(marks(ax, OFF_SLICE + "observed")) > 0
    ax = plot(mixture, "a", "b")
    assert "c makes a + b + c = 1" in texts(ax)
    for a, b in ((0.2, 0.2), (0.5, 0.1), (0.4, 0.3), (0.85, 0.01), (0.9, 0.5), (0.6, 0.35)):
        assert hatched(ax, a, b) == (not 0.1 <= 1 - a - b <= 0.5)


def test_parts_of_integers_and_weights_are_rounded_and_made_up():
    space = Space(
        {"n": Integer(0, 20), "m": Integer(0, 30, step=3), "k": Integer(0, 9), "x": Real(0, 5)},
        [Linear({"n": 2, "m": -1, "k": 1, "x": 4}, equals=12)],
    )
    (share,) = shares_of(space, ["n"], [])
    assert share.names == ("m", "k", "x")
    base = space.encode({"n": 5, "m": 3, "k": 1, "x": 1.0})
    for n in range(0, 21):
        row = base.copy()
        row[0] = space.parameters["n"].to_unit(n)
        point = space.decode(space.snap(share.fill(space, row[None]))[0])
        total = 2 * point["n"] - point["m"] + point["k"] + 4 * point["x"]
        least, most = 2 * n - 30, 2 * n + 9 + 20
        assert point["n"] == n
        if least <= 12 <= most:
            assert total == pytest.approx(12, abs=1e-6)
            assert space.satisfies(point)
    (share,) = shares_of(space, ["x"], ["m"])
    assert share.names == ("n", "k")
    # Integers alone: what one of them leaves over goes to the next.
    whole = Space(
        {"p": Integer(0, 9), "q": Integer(0, 9), "r": Integer(0, 9), "s": Integer(0, 9)},
        [Simplex(["p", "q", "r", "s"], total=10)],
    )
    (share,) = shares_of(whole, ["p"], [])
    base = whole.encode({"p": 1, "q": 4, "r": 3, "s": 2})
    rows = np.tile(base, (10, 1))
    rows[:, 0] = [whole.parameters["p"].to_unit(p) for p in range(10)]
    for p, row in enumerate(whole.snap(share.fill(whole, rows))):
        point = whole.decode(row)
        assert (point["p"], sum(point.values())) == (p, 10)


def test_parameters_that_decide_each_other_are_not_drawn_together(mixture):
    with pytest.raises(ValueError, match=r"a \+ b \+ c must be 1.*leave one of them"):
        plot_posterior(mixture, "a", "b", fixed={"c": 0.2})
    two = told(Space({"a": Real(0, 1), "b": Real(0, 1)}, [Simplex(["a", "b"])]))
    with pytest.raises(ValueError, match="a and b decide each other"):
        plot_acquisition(two, "a", "b")
    ax = plot_acquisition(two)
    assert ax.get_xlabel() in ("a", "b")
    assert ax.get_ylabel().startswith("log expected improvement")
    with pytest.raises(ValueError, match="decides all the others: there is nothing left"):
        plot_acquisition(two, fixed={"a": 0.5})


# --------------------------------------------------------------------------------------
# Constraints on outcomes
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("plot", SURFACES)
def test_the_dashed_line_is_where_the_model_gives_constraints_an_even_chance(bounded, plot):
    ax = plot(bounded, "x", "y")
    assert EVEN in labels(ax)
    (line,) = [c for c in ax.collections if list(getattr(c, "levels", [])) == [0.0]]
    vertices = np.concatenate([path.vertices for path in line.get_paths()])
    chance = chances(bounded, vertices)
    assert len(chance) > 40
    # In distance: the chance on both sides of the line, half a step of the grid away.
    step = np.array([0.005, 0.005])
    aside = np.concatenate([vertices + step, vertices - step])
    aside = chances(bounded, aside.clip(0, 1)).reshape(2, -1)
    between = (aside.min(0) - 1e-6 <= 0.5) & (aside.max(0) + 1e-6 >= 0.5)
    assert np.mean(between | (np.abs(chance - 0.5) < 0.1)) > 0.95


def chances(optimizer: Optimizer, points: np.ndarray) -> np.ndarray:
    """That both constraints hold at points (m, 2)."""
    X = optimizer.space.encode_many({"x": x, "y": y} for x, y in points.clip(0, 1).tolist())
    chance = np.ones(len(X))
    for name in ("heat", "mass"):
        belief = optimizer.belief(name)
        mean, std = belief.marginals(X)
        chance *= norm.cdf((mean - belief.bound) / std)
    return chance


@pytest.mark.parametrize("plot", SURFACES)
def test_on_a_curve_what_should_break_a_constraint_is_tinted(bounded, plot):
    ax = plot(bounded, "x", fixed={"y": 0.6})
    assert DOUBTFUL in labels(ax)
    (tint,) = [c for c in ax.collections if c.get_label() == DOUBTFUL]
    table = posterior_data(bounded, "x", fixed={"y": 0.6})
    for x, chance in zip(table["params.x"][::9], table["chance"][::9], strict=True):
        if abs(chance - 0.5) > 0.2:
            inside = any(path.contains_point((x, 0.5)) for path in tint.get_paths())
            assert inside == (chance < 0.5)


def test_infeasible_trials_have_a_mark_of_their_own(bounded):
    feasible = [t for t in bounded.trials if bounded.problem.is_feasible(t)]
    broken = [t for t in bounded.trials if not bounded.problem.is_feasible(t)]
    assert len(feasible) > 1 and broken
    ax = plot_acquisition(bounded, "x", "y")
    place = {t.number: [t.params["x"], t.params["y"]] for t in bounded.trials}
    assert marks(ax, "observed").tolist() == [place[t.number] for t in feasible]
    assert marks(ax, "infeasible").tolist() == [place[t.number] for t in broken]
    assert "infeasible" in labels(ax)
    curve = plot_posterior(bounded, "x")
    heights = np.concatenate([marks(curve, p + "infeasible")[:, 1] for p in ("", OFF_SLICE)])
    low, high = curve.get_ylim()
    assert set(heights) == {t.values["cost"] for t in broken if low <= t.values["cost"] <= high}


def test_stopped_trials_stand_at_what_they_were_forecast_to_end_with():
    optimizer = Optimizer({"x": Real(0, 1)}, minimize="loss", seed=0, n_start=6)
    for k in range(6):
        trial = optimizer.ask()
        end = (trial.params["x"] - 0.5) ** 2
        for step in (0, 1):
            trial.report(step, end + 1 - step)
        if k == 3:
            optimizer.tell(trial, pruned="too slow")
            stopped = trial
        else:
            optimizer.tell(trial, end - 0.25)
    ax = plot_posterior(optimizer)
    ((x, height),) = marks(ax, "stopped early").tolist()
    assert x == stopped.params["x"]
    # Each of the others gained 0.25 after its last report.
    assert height == pytest.approx((x - 0.5) ** 2 - 0.25)
    assert "stopped early" in labels(ax)
    assert ax.get_title() == "Posterior of loss after 6 trials"
    assert len(marks(plot_acquisition(optimizer), "stopped early")) == 1


def test_marks_differ_in_shape_and_stand_out_from_what_is_behind_them():
    kinds = ["observed", "infeasible", "stopped early", "failed", "pending", "best", "next"]
    shapes = [MARKS[kind].marker for kind in kinds]
    assert len(set(shapes)) == len(shapes)
    for kind in kinds:
        light = [
            np.dot(to_rgb(c), [0.299, 0.587, 0.114]) for c in (MARKS[kind].face, MARKS[kind].edge)
        ]
        assert abs(light[0] - light[1]) > 0.35
