"""Facts about importance: Sobol indices that are known, their errors, and how they are drawn."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from bbmmopt.optimizer import NoCompleteTrial, Optimizer
from bbmmopt.plots import importance_data, plot_importance
from bbmmopt.plots.sobol import by_rank, pick_freeze, with_errors
from bbmmopt.space import Categorical, Integer, Nonlinear, Real, Simplex, Space
from tests.bbmmopt.pictures import run, texts

pytestmark = pytest.mark.usefixtures("canvas")

# Ishigami & Homma (1990) with a = 7, b = 0.1: V = a²/8 + bπ⁴/5 + b²π⁸/18 + 1/2.
_V = 49 / 8 + 0.1 * math.pi**4 / 5 + 0.01 * math.pi**8 / 18 + 0.5
_V1, _V13 = 0.5 * (1 + 0.1 * math.pi**4 / 5) ** 2, 0.01 * math.pi**8 * (1 / 18 - 1 / 50)
ISHIGAMI = {
    "first": np.array([_V1, 49 / 8, 0.0]) / _V,
    "total": np.array([_V1 + _V13, 49 / 8, _V13]) / _V,
}


def ishigami(x: np.ndarray) -> np.ndarray:
    """At x (..., 3) in [-π, π]."""
    a, b, c = np.moveaxis(x, -1, 0)
    return np.sin(a) + 7 * np.sin(b) ** 2 + 0.1 * c**4 * np.sin(a)


def g_function(U: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Sobol's g at U (m, k)."""
    return np.prod((np.abs(4 * U - 2) + a) / (1 + a), axis=1)


def indices_of_g(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Its first-order and total indices."""
    each = 1 / (3 * (1 + a) ** 2)
    whole = np.prod(1 + each) - 1
    return each / whole, each * np.prod(1 + each) / (1 + each) / whole


def told(space: dict, function, points: np.ndarray, **options) -> Optimizer:
    """An Optimizer that knows a function at rows of the unit cube."""
    optimizer = Optimizer(Space(space), **{"minimize": "y", "noise": "none", "seed": 0} | options)
    for row in optimizer.space.snap(points):
        params = optimizer.space.decode(row)
        optimizer.add_trial(params, float(function(params)))
    return optimizer


def spread(n: int, d: int) -> np.ndarray:
    """n even points in d dimensions."""
    engine = torch.quasirandom.SobolEngine(d, scramble=True, seed=5)
    return engine.draw(n, dtype=torch.float64).numpy()


@pytest.fixture(scope="module")
def known() -> Optimizer:
    """The Ishigami function, told at 160 points."""
    space = {name: Real(-math.pi, math.pi) for name in "abc"}
    points = spread(160, 3)
    return told(space, lambda p: ishigami(np.array(list(p.values()))), points)


# --------------------------------------------------------------------------------------
# The formulas
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [np.array([0.0, 1.0, 4.5, 9.0]), np.array([0.0, 0.0]), np.zeros(1)])
def test_indices_of_the_g_function_are_found_within_their_errors(a):
    def functions(U):
        return g_function(U, a)[None]

    found = pick_freeze(functions, len(a), torch.Generator().manual_seed(1))
    for estimates, wanted in zip(found, indices_of_g(a), strict=True):
        value, error = with_errors(estimates)
        assert np.all(np.abs(value - wanted) < 4 * error + 1e-4)
        assert np.all(error < 0.02)


def test_errors_of_integration_are_as_large_as_what_another_scrambling_changes():
    a = np.array([0.0, 1.0, 4.5])
    runs = [
        with_errors(pick_freeze(lambda U: g_function(U, a)[None], 3, generator)[1])
        for generator in (torch.Generator().manual_seed(seed) for seed in range(30))
    ]
    values, errors = (np.array(part) for part in zip(*runs, strict=True))
    # Of 30 values and of 8 replicates: each root mean square is off by a fifth at most.
    ratio = values.std(0, ddof=1) / np.sqrt((errors**2).mean(0))
    assert np.all((ratio > 0.65) & (ratio < 1.5))


def test_the_spread_of_draws_and_their_distance_count_as_error():
    estimates = np.zeros((2, 5, 1))
    estimates[:, 0, 0] = 0.5
    estimates[:, 1:, 0] = [0.4, 0.4, 0.2, 0.2]
    value, error = with_errors(estimates)
    assert value == 0.5
    assert error == pytest.approx(math.sqrt((0.1**2 + 0.3**2) / 2))


def test_a_constant_has_no_indices():
    first, total = pick_freeze(lambda U: np.ones((2, len(U))), 3, torch.Generator())
    assert not first.any() and not total.any()
    assert not by_rank(np.ones((1, 8)), np.eye(8), np.random.default_rng(0)).any()


def test_dependent_inputs_are_credited_with_what_they_say_about_others():
    # Even over a triangle: E[x | y] = (1 - y) / 2, so that y explains a quarter of the variance.
    rng = np.random.default_rng(0)
    X = np.sort(rng.random((8_000, 2)), axis=1)
    X = np.stack([X[:, 0], 1 - X[:, 1]], axis=1)
    levels = np.floor(4 * X[:, :1])  # a function of x alone, of four values
    shares = by_rank(X.T, np.hstack([X, levels]), rng)
    np.testing.assert_allclose(np.diag(shares[:, :2]), 1.0, atol=0.001)
    np.testing.assert_allclose([shares[0, 1], shares[1, 0]], 0.25, atol=0.04)
    of_level = [X[levels[:, 0] == k, 0].mean() for k in range(4)]
    means = np.array(of_level)[levels[:, 0].astype(int)]
    assert shares[0, 2] == pytest.approx(np.var(means) / X[:, 0].var(), abs=0.02)


# --------------------------------------------------------------------------------------
# Of models
# --------------------------------------------------------------------------------------


def test_indices_of_a_model_of_many_points_are_those_of_the_function_within_their_errors(known):
    table = importance_data(known)
    assert table["parameter"].tolist() == ["a", "b", "c"]
    for kind, wanted in ISHIGAMI.items():
        error = table[f"{kind}_error"]
        assert np.all(np.abs(table[kind] - wanted) < 2.5 * error)
        assert np.all(error < 0.06)


def test_errors_tell_what_a_model_of_few_points_does_not_know():
    space = {"x": Real(0, 1), "y": Real(0, 1)}

    def errors(n: int) -> np.ndarray:
        table = importance_data(
            told(space, lambda p: math.sin(6 * p["x"] + 2 * p["y"]), spread(n, 2))
        )
        return np.concatenate([table["first_error"], table["total_error"]])

    assert np.all(errors(6) > 5 * errors(40))


def test_indices_are_those_of_the_posterior_mean_on_the_users_scale(smooth):
    a = np.logspace(-2, 3, 121)
    b = np.linspace(0, 10, 121)
    grid = [{"a": x, "b": y} for x in a for y in b]
    mean, _ = smooth.belief().predict(smooth.space.encode_many(grid))
    mean = mean.reshape(121, 121)
    weights = np.r_[0.5, np.ones(119), 0.5] / 120  # trapezium rule
    centre = weights @ mean @ weights
    variance = weights @ (mean - centre) ** 2 @ weights
    of_a = weights @ (mean @ weights - centre) ** 2 / variance
    of_b = weights @ (weights @ mean - centre) ** 2 / variance
    table = importance_data(smooth)
    found = {name: i for i, name in enumerate(table["parameter"])}
    assert table.facts["warped"] is False
    for name, first, total in (("a", of_a, 1 - of_b), ("b", of_b, 1 - of_a)):
        assert table["first"][found[name]] == pytest.approx(first, abs=0.01)
        assert table["total"][found[name]] == pytest.approx(total, abs=0.01)


def test_a_parameter_counts_only_where_it_is_active():
    # K is even over two choices, D over 2, 3, 4, and y = D where K is "poly", else 0.
    space = {
        "kernel": Categorical(["rbf", "poly"]),
        "degree": Integer(2, 4, when={"kernel": "poly"}),
        "one": Real(7, 7),
    }
    points = np.array([[0.25, 0.5, 0.5], [0.75, 0.1, 0.5], [0.75, 0.5, 0.5], [0.75, 0.9, 0.5]])
    optimizer = told(space, lambda p: p.get("degree", 0), points, maximize="y", minimize=None)
    table = importance_data(optimizer)
    assert table["parameter"].tolist() == ["kernel", "degree"]  # not the one of a single value
    variance = 0.5 * 29 / 3 - 1.5**2
    first, total = [1.5**2, 2 / 3 / 4], [29 / 3 / 4, 2 / 3 / 2]
    np.testing.assert_allclose(table["first"], np.array(first) / variance, atol=0.02)
    np.testing.assert_allclose(table["total"], np.array(total) / variance, atol=0.02)


def test_of_a_mixture_first_order_is_over_mixtures_and_there_is_no_total():
    names = ("a", "b", "c")
    space = Space({name: Real(0, 1) for name in names}, [Simplex(names)])
    optimizer = Optimizer(space, minimize="y", noise="none", seed=0, n_start=12)
    for _ in range(12):
        trial = optimizer.ask()
        optimizer.tell(trial, trial.params["a"])
    table = importance_data(optimizer)
    assert np.isnan(table["total"]).all() and np.isnan(table["total_error"]).all()
    assert table["parameter"][0] == "a"
    np.testing.assert_allclose(table["first"], [1.0, 0.25, 0.25], atol=0.04)
    ax = plot_importance(optimizer)
    assert len(ax.patches) == 3
    assert "what parameters share counts for each" in texts(ax)


def test_a_constraint_that_was_not_stored_is_named(tmp_path):
    path = tmp_path / "study.db"
    space = Space({"x": Real(0, 1), "y": Real(0, 1)}, [Nonlinear("near", _near)])
    with Optimizer(space, minimize="y", seed=0, storage=path) as optimizer:
        for value in (3.0, 1.0, 2.0):
            optimizer.tell(optimizer.ask(), value)
    table = importance_data(str(path))
    assert table.facts["unknown"] == ["near"]
    assert np.isfinite(table["total"]).all()
    assert "not stored, so not looked at: near" in texts(plot_importance(str(path)))


def _near(params) -> float:
    return 1.0 - params["x"] - params["y"]


def test_each_output_has_its_own():
    space = {"x": Real(0, 1), "y": Real(0, 1)}
    optimizer = Optimizer(
        Space(space), minimize=["f", "g"], constraints="h <= 1", noise="none", seed=0, n_start=15
    )
    for _ in range(15):
        trial = optimizer.ask()
        x, y = trial.params.values()
        optimizer.tell(trial, {"f": x, "g": y**2}, constraints={"h": math.sin(3 * x) + 0.1 * y})
    for name, parameter in (("f", "x"), ("g", "y"), ("h", "x")):
        table = importance_data(optimizer, name=name)
        assert (table.facts["name"], table["parameter"][0]) == (name, parameter)
        assert table["first"][0] > 0.9
    with pytest.raises(ValueError, match="several objectives"):
        importance_data(optimizer)


def test_a_parameter_that_is_fixed_by_now_is_left_out(tmp_path):
    path, space = tmp_path / "study.db", {"x": Real(0, 1), "y": Real(0, 1)}
    with Optimizer(space, minimize="loss", noise="none", seed=0, storage=path) as optimizer:
        for row in spread(12, 2).tolist():
            optimizer.add_trial({"x": row[0], "y": row[1]}, row[0] + 9 * row[1])
        assert importance_data(optimizer)["parameter"][0] == "y"
    space["y"] = Real(0.5, 0.5)
    with Optimizer(space, minimize="loss", storage=path, mode="extend") as optimizer:
        table = importance_data(optimizer)
    assert table["parameter"].tolist() == ["x"]
    assert (table["first"][0], table["total"][0]) == pytest.approx((1.0, 1.0), abs=0.01)


def test_the_same_study_has_the_same_numbers_every_time(smooth):
    first, second = importance_data(smooth), importance_data(smooth)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


# --------------------------------------------------------------------------------------
# The picture
# --------------------------------------------------------------------------------------


def test_bars_and_whiskers_are_the_numbers_largest_on_top(known):
    table = importance_data(known)
    ax = plot_importance(known)
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels == table["parameter"].tolist()
    assert ax.yaxis_inverted()
    bars = {
        c.get_label(): [bar.get_width() for bar in c]
        for c in ax.containers
        if c.get_label()[0] != "_"
    }
    np.testing.assert_allclose(bars["by itself (first order)"], table["first"].clip(0))
    np.testing.assert_allclose(bars["with others (total)"], table["total"])
    lengths = [
        np.ptp([segment[:, 0] for segment in bar.lines[2][0].get_segments()], axis=1)
        for bar in ax.containers
        if len(getattr(bar, "lines", ()))
    ]
    for found, kind in zip(lengths, ("first", "total"), strict=True):
        error = table[f"{kind}_error"]
        np.testing.assert_allclose(found, error + np.minimum(error, table[kind].clip(0)))
    assert ax.get_xlim()[1] >= (table["total"] + table["total_error"]).max()


def test_what_has_no_room_is_summed_up():
    space = {f"x{i}": Real(0, 1) for i in range(12)}
    optimizer = told(space, lambda p: p["x3"] + 0.5 * p["x10"], spread(30, 12))
    figure = Figure((4, 1.8), layout="constrained")
    ax = plot_importance(optimizer, ax=figure.subplots(), legend=False)
    shown = len(ax.get_yticks())
    assert 3 < shown < 10
    table = importance_data(optimizer)
    most = f"{table['total'][shown:].max():.2g}"
    assert f"not shown: {12 - shown} more, up to {most}" in texts(ax)
    assert ax.get_legend() is None


def test_what_cannot_be_told_is_refused(smooth):
    with pytest.raises(ValueError, match="no output 'losss'"):
        plot_importance(smooth, name="losss")
    with pytest.raises(NoCompleteTrial, match="plot_importance needs at least one complete trial"):
        plot_importance(Optimizer({"x": Real(0, 1)}, minimize="loss", seed=0))
    with pytest.raises(ValueError, match="every parameter has a single value"):
        plot_importance(run({"x": Real(1, 1)}, [1.0]))
    with pytest.raises(TypeError, match="ax must be one matplotlib Axes"):
        plot_importance(smooth, ax=[1])
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    "values", [[5.0], [2.0] * 6, [1e300, -1e300, 3e299, 1.0], [1e-300, 2e-300, 0.0]]
)
def test_unusual_values_are_drawn(values):
    plot_importance(run({"x": Real(0, 1), "n": Integer(1, 9)}, values)).figure.canvas.draw()
