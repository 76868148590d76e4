"""What the model believes of the front: against grids, joint samples and its own marginals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Outline

from bbmmopt import Categorical, Integer, Optimizer, Space
from bbmmopt.pareto import attainment_surface, hypervolume, pareto_front_of
from bbmmopt.plots import pareto_belief_data, plot_pareto
from bbmmopt.space import Linear
from tests.bbmmopt.fronts import SQUARE, some, trade
from tests.bbmmopt.pictures import marks, texts

pytestmark = pytest.mark.usefixtures("canvas")


@pytest.fixture(scope="module")
def believing() -> Optimizer:
    """Some complete trials, one failed, two running, of objectives that noise hides a little."""
    optimizer = Optimizer(Space(SQUARE), minimize="error", maximize="yield", seed=5, n_start=8)
    rng = np.random.default_rng(1)
    for number in range(14):
        trial = optimizer.ask()
        if number == 4:
            optimizer.tell(trial, failed="diverged")
            continue
        values = trade(**trial.params)
        noise = rng.normal(size=2)
        optimizer.tell(
            trial,
            {"error": values["error"] + 0.02 * noise[0], "yield": values["yield"] + noise[1]},
        )
    optimizer.ask(2)
    return optimizer


@pytest.fixture(scope="module")
def belief(believing: Optimizer):
    return pareto_belief_data(believing)


def on_a_grid(count: int) -> list[dict[str, float]]:
    ends = np.linspace(0, 1, count).tolist()
    return [{"x": a, "y": b} for a in ends for b in ends]


def values_of(table, kind: str, share: float | None = None) -> np.ndarray:
    """Values of some rows, larger is better, shape (m, 2)."""
    some = table["kind"] == kind
    if share is not None:
        some &= table["share"] == share
    return np.column_stack([-table["values.error"][some], table["values.yield"][some]])


def test_the_expected_front_is_that_of_the_posterior_mean(believing, belief) -> None:
    grid = believing.space.encode_many(on_a_grid(81))
    Y = np.column_stack([believing.belief(name).predict(grid)[0] for name in ("error", "yield")])
    found = values_of(belief, "expected")
    reference = Y.min(0) - 0.1
    whole = hypervolume(np.concatenate([Y, found]), reference)
    assert hypervolume(found, reference) > 0.9995 * whole
    some = belief["kind"] == "expected"
    params = [
        {"x": float(a), "y": float(b)}
        for a, b in zip(belief["params.x"][some], belief["params.y"][some], strict=True)
    ]
    assert len(params) > 50
    for j, name in enumerate(("error", "yield")):
        middle, half = believing.belief(name).predict(believing.space.encode_many(params))
        np.testing.assert_allclose(found[:, j], middle, atol=1e-5)
        width = belief[f"high.{name}"][some] - belief[f"low.{name}"][some]
        np.testing.assert_allclose(0.5 * width, half, rtol=1e-2, atol=1e-6)


def test_what_a_share_of_the_fronts_attains_agrees_with_joint_samples_on_a_grid(
    believing, belief
) -> None:
    grid = believing.space.encode_many(on_a_grid(21))
    draws = torch.Generator().manual_seed(77)
    drawn = []
    for name in ("error", "yield"):
        one = believing.belief(name)
        values = one.posterior.sample(torch.from_numpy(grid), 300, draws).numpy()
        drawn.append(one.transform.inverse(values))
    fronts = [np.column_stack(pair) for pair in zip(*drawn, strict=True)]
    surfaces = {share: values_of(belief, "attained", share) for share in (0.1, 0.5, 0.9)}
    # A little inside, as the grid is coarser than the candidates.
    slack = 0.01 * np.ptp(np.concatenate(list(surfaces.values())), axis=0)
    for share, corners in surfaces.items():
        inner = corners[len(corners) // 5 : -len(corners) // 5]
        attained = np.mean(
            [[(corner - slack <= Y).all(1).any() for corner in inner] for Y in fronts]
        )
        assert attained == pytest.approx(share, abs=0.13)
    for worse, better in ((0.9, 0.5), (0.5, 0.1)):
        both = attainment_surface([np.concatenate([surfaces[worse], surfaces[better]])], 1.0)
        reference = both.min(0) - 1
        assert hypervolume(surfaces[better], reference) >= 0.999 * hypervolume(both, reference)


def test_pending_trials_stand_at_what_is_expected_of_them(believing, belief) -> None:
    some = belief["kind"] == "pending"
    running = believing.running
    assert belief["trial"][some].tolist() == [trial.number for trial in running]
    rows = believing.space.encode_many([trial.params for trial in running])
    middle, half = believing.belief("yield").predict(rows)
    np.testing.assert_allclose(belief["values.yield"][some], middle)
    np.testing.assert_allclose(belief["high.yield"][some] - middle, half, rtol=1e-2)
    ax = plot_pareto(believing, belief=True)
    np.testing.assert_allclose(marks(ax, "pending")[:, 1], middle)
    assert "not shown: 1 failed" in texts(ax)
    # Between the two outer surfaces lies the middle one, but for its ends.
    (band,) = [patch for patch in ax.patches if patch.get_label() == "80 % band"]
    corners = values_of(belief, "attained", 0.5)
    inner = corners[len(corners) // 5 : -len(corners) // 5] * [-1, 1]
    assert Outline(band.get_path().vertices).contains_points(inner).mean() > 0.95


def test_what_is_believed_follows_from_the_seed_and_what_was_told(tmp_path) -> None:
    study = some(8, storage=tmp_path / "study.db")
    study.close()
    first, second = (pareto_belief_data(str(tmp_path / "study.db")) for _ in range(2))
    assert list(first) == list(second)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_candidates_keep_the_constraints_of_space_and_outcome() -> None:
    space = Space(SQUARE, constraints=[Linear({"x": 1, "y": 1}, at_most=1)])
    optimizer = Optimizer(space, minimize=["a", "b"], constraints="heat <= 0.5", seed=0)
    noise = np.random.default_rng(0).normal(size=16)
    for number in range(16):
        trial = optimizer.ask()
        x, y = trial.params["x"], trial.params["y"]
        heat = x + 0.05 * float(noise[number])
        optimizer.tell(trial, {"a": x + 0.2 * y, "b": (1 - x) ** 2 + 0.1 * y, "heat": heat})
    table = pareto_belief_data(optimizer)
    x, y = (table[f"params.{name}"][table["kind"] == "expected"] for name in "xy")
    assert len(x) > 20
    assert (x + y <= 1 + 1e-9).all()

    def chance(points: np.ndarray) -> np.ndarray:
        belief = optimizer.belief("heat")
        mean, std = belief.marginals(points)
        return torch.special.ndtr(torch.from_numpy((mean - belief.bound) / std)).numpy()

    # As far as the limit, and not beyond it.
    assert 0.95 - 1e-9 <= chance(np.column_stack([x, y])).min() < 0.97
    # Nor do drawn functions go where none of them is within the limit.
    grid = space.encode_many(on_a_grid(41))
    grid = grid[space.feasible(grid)]
    middle, half = optimizer.belief("b").predict(grid)
    least = (-middle - 4 * half)[chance(grid) > 1e-4].min()
    assert (-middle).min() < 0.5 * least
    assert table["values.b"][table["kind"] == "attained"].min() > least


def test_all_points_of_a_small_space_are_looked_at() -> None:
    space = Space(
        {
            "kind": Categorical(["u", "v"]),
            "size": Integer(1, 6),
            "depth": Integer(1, 3, when={"kind": "v"}),
        }
    )
    optimizer = Optimizer(space, minimize=["a", "b"], seed=0, noise="none")
    for _ in range(9):
        trial = optimizer.ask()
        p = trial.params
        optimizer.tell(trial, {"a": p["size"], "b": 5 / p["size"] + p.get("depth", 0)})
    table = pareto_belief_data(optimizer)
    X = space.enumerate()
    Y = np.column_stack([optimizer.belief(name).predict(X)[0] for name in "ab"])
    expected = {tuple(np.round(row, 9)) for row in -Y[pareto_front_of(Y)]}
    some = table["kind"] == "expected"
    found = np.column_stack([table["values.a"][some], table["values.b"][some]])
    assert {tuple(np.round(row, 9)) for row in found} == expected
    inactive = table["params.kind"][some] == "u"
    assert np.isnan(table["params.depth"][some].astype(float)[inactive]).all()


def test_of_three_objectives_the_expected_front_is_drawn() -> None:
    optimizer = Optimizer(Space(SQUARE), minimize=["a", "b", "c"], seed=0)
    for x, y in np.random.default_rng(0).random((7, 2)):
        point = {"x": float(x), "y": float(y)}
        optimizer.add_trial(point, {"a": x, "b": y, "c": (x - 1) ** 2 + (y - 1) ** 2})
    table = pareto_belief_data(optimizer)
    assert set(table["kind"]) == {"expected"}
    assert 100 < table.rows <= 400
    ax = plot_pareto(optimizer, belief=True)
    assert len(marks(ax, "expected front")) == table.rows
