"""Facts about calibration: what is predicted of each trial is what the others alone predict."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from scipy.stats import binom, norm

from bbmmopt.modelling import Belief
from bbmmopt.optimizer import NoCompleteTrial, Optimizer
from bbmmopt.plots import calibration, calibration_data, plot_calibration
from bbmmopt.space import Categorical, Integer, Real, Space
from tests.bbmmopt.pictures import marks, run, texts

pytestmark = pytest.mark.usefixtures("canvas")

PLANE = {"x": Real(0, 1), "y": Real(0, 1)}


def noisy_run(n: int, function, **options) -> Optimizer:
    """An Optimizer told a function of x and y at n even points, with noise of 0.1."""
    optimizer = Optimizer(Space(PLANE), **{"minimize": "loss", "seed": 0} | options)
    X = torch.quasirandom.SobolEngine(2, scramble=True, seed=1).draw(n).double().numpy()
    noise = 0.1 * np.random.default_rng(2).standard_normal(n)
    for (x, y), e in zip(X.tolist(), noise.tolist(), strict=True):
        optimizer.add_trial({"x": x, "y": y}, function(x, y) + e)
    return optimizer


@pytest.fixture(scope="module")
def waves() -> Optimizer:
    """Forty noisy values."""
    return noisy_run(40, lambda x, y: math.sin(6 * x) + y)


@pytest.fixture(scope="module")
def plain() -> Optimizer:
    """Twenty values whose targets are not warped, larger being better."""
    options = {"minimize": None, "maximize": "gain"}
    optimizer = noisy_run(20, lambda x, y: math.sin(6 * x) + y, **options)
    assert type(optimizer.belief().transform).__name__ == "Standardise"
    return optimizer


@pytest.fixture(scope="module")
def steep() -> Optimizer:
    """Twenty values whose targets are warped."""
    optimizer = noisy_run(20, lambda x, y: math.exp(4 * x) + y)
    assert type(optimizer.belief().transform).__name__ == "YeoJohnson"
    return optimizer


def from_the_others(belief: Belief, i: int) -> tuple[float, float]:
    """Mean and standard deviation of a measurement of row i, in model units, by dense algebra."""
    posterior = belief.posterior
    model, X, y = posterior.model, posterior.X, posterior.y
    rest = torch.arange(len(y)) != i
    with torch.no_grad():
        noise = posterior.noise_variances()
        K = model.kernel(X, X) + noise.diag()
        k, m = K[rest, i], model.constant
        weights = torch.linalg.solve(K[rest][:, rest], k)
        mean = m + weights @ (y[rest] - m)
        return float(mean), math.sqrt(float(K[i, i] - weights @ k))


# --------------------------------------------------------------------------------------
# The numbers
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "steep"])
def test_each_trial_is_predicted_by_all_others_and_taken_to_the_users_units(name, request):
    optimizer = request.getfixturevalue(name)
    table, belief = calibration_data(optimizer), optimizer.belief()
    sign = optimizer.problem.objectives[0].sign
    assert table["trial"].tolist() == [t.number for t in optimizer.trials]
    np.testing.assert_allclose(table["observed"], [t.value for t in optimizer.trials])
    for i in range(len(table["trial"])):
        mean, std = from_the_others(belief, i)
        assert table["predicted"][i] == pytest.approx(
            sign * float(belief.transform.inverse(np.array(mean))), rel=1e-6, abs=1e-9
        )
        for level in (68, 95):
            tails = norm.ppf([(1 - level / 100) / 2, (1 + level / 100) / 2], mean, std)
            wanted = sorted(sign * belief.transform.inverse(tails))
            found = [table[f"low_{level}"][i], table[f"high_{level}"][i]]
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)
        assert table["z"][i] == pytest.approx((float(belief.posterior.y[i]) - mean) / std, rel=1e-6)


@pytest.mark.parametrize("name", ["plain", "steep"])
def test_the_facts_sum_up_the_rows(name, request):
    table = calibration_data(request.getfixturevalue(name))
    for level in (68, 95):
        inside = (table[f"low_{level}"] <= table["observed"]) & (
            table["observed"] <= table[f"high_{level}"]
        )
        assert table.facts[f"coverage_{level}"] == pytest.approx(inside.mean())
    error = table["predicted"] - table["observed"]
    assert table.facts["rmse"] == pytest.approx(math.sqrt((error**2).mean()))
    assert (table.facts["n"], table.facts["of"]) == (table.rows, table.rows)


def test_the_density_is_that_of_the_users_values(steep):
    belief = steep.belief()
    forward, densities, step = belief.transform.forward, [], 1e-5
    for i, trial in enumerate(steep.trials):
        mean, std = from_the_others(belief, i)
        low, z, high = forward(-trial.value + step * np.array([-1.0, 0.0, 1.0]))
        slope = (high - low) / (2 * step)
        densities.append(norm.logpdf(z, mean, std) + math.log(slope))
    assert calibration_data(steep).facts["nlpd"] == pytest.approx(-np.mean(densities), rel=1e-4)


def test_bands_of_a_model_that_suits_its_data_hold_their_share():
    table = calibration_data(noisy_run(250, lambda x, y: math.sin(6 * x) + y))
    for level in (68, 95):
        share = table.facts[f"coverage_{level}"]
        low, high = binom.interval(0.999, 250, level / 100)
        assert low / 250 <= share <= high / 250
    assert table["z"].std() == pytest.approx(1.0, abs=0.15)
    # Noise is in the bands: half of 68 % is not much less than the noise itself.
    width = 0.5 * (table["high_68"] - table["low_68"])
    assert np.all(width > 0.08)


def test_told_errors_widen_the_bands():
    space, values = {"x": Real(0, 1)}, [1.0, 1.5, (2.0, 0.01), (2.5, 3.0), 3.0, 2.8]
    table = calibration_data(run(space, values, noise="noisy"))
    width = table["high_68"] - table["low_68"]
    assert width[3] > 2 * 3.0 * norm.ppf(0.84)
    assert width[2] < width[3] / 2


def test_of_many_trials_some_are_left_out_with_the_same_result(waves, monkeypatch):
    every = calibration_data(waves)
    monkeypatch.setattr(calibration, "_ALL", 10)
    monkeypatch.setattr(calibration, "_SOME", 7)
    some = calibration_data(waves)
    assert some["trial"].tolist() == [0, 6, 13, 20, 26, 32, 39]
    assert (some.facts["n"], some.facts["of"]) == (7, 40)
    for name in ("observed", "predicted", "low_68", "high_95", "z"):
        np.testing.assert_allclose(some[name], every[name][some["trial"]], rtol=1e-8)
    assert "of 7 of 40 trials" in texts(plot_calibration(waves))


def test_values_that_the_model_cuts_off_do_not_count():
    values = [1.0, 1.1, 1.2, 1.05, 1.15, 1000.0, 1.12, 1.3, 1.25]
    table = calibration_data(run(PLANE, values))
    assert np.flatnonzero(~table["counts"]).tolist() == [5]
    assert (table.facts["n"], table.facts["of"]) == (8, 9)
    assert table.facts["rmse"] < 1.0
    ax = plot_calibration(run(PLANE, values))
    ((x, _),) = marks(ax, "cut off by the model")
    assert x == ax.get_xlim()[1] < 10


def test_trials_without_a_value_are_passed_over():
    optimizer = Optimizer({"x": Real(0, 1)}, minimize="loss", seed=0, early_stopping="median")
    for number, value in enumerate([0.5, 0.1, 0.7, 0.3, 0.2, 0.4, 0.6, 0.45]):
        trial = optimizer.ask()
        for step in range(1, 5):
            trial.report(step, value + math.exp(-step))
        if number in (2, 6):
            optimizer.tell(trial, pruned="worse than the median")
        elif number == 4:
            optimizer.tell(trial, failed="diverged")
        else:
            optimizer.tell(trial, value)
    optimizer.ask()
    assert optimizer.belief().data.stopped == 2
    table = calibration_data(optimizer)
    assert table["trial"].tolist() == [0, 1, 3, 5, 7]
    assert table["observed"].tolist() == [0.5, 0.1, 0.3, 0.4, 0.45]
    belief = optimizer.belief()
    for i, row in enumerate([0, 1, 3, 4, 6]):
        mean, _ = from_the_others(belief, row)
        wanted = -float(belief.transform.inverse(np.array(mean)))
        assert table["predicted"][i] == pytest.approx(wanted, rel=1e-6)


def test_a_constraint_is_predicted_in_its_own_units():
    optimizer = Optimizer(Space(PLANE), minimize="f", constraints="h >= 200", seed=0, n_start=12)
    for _ in range(12):
        trial = optimizer.ask()
        x, y = trial.params.values()
        optimizer.tell(trial, y, constraints={"h": 190 + 20 * x})
    table = calibration_data(optimizer, name="h")
    np.testing.assert_allclose(
        table["observed"], [t.constraints["h"] for t in optimizer.trials], rtol=1e-12
    )
    np.testing.assert_allclose(table["predicted"], table["observed"], atol=2.0)
    assert np.all(table["low_95"] < table["high_95"])
    assert plot_calibration(optimizer, name="h").get_xlabel() == "observed h"


# --------------------------------------------------------------------------------------
# The picture
# --------------------------------------------------------------------------------------


def test_points_and_bars_are_the_numbers(waves):
    table = calibration_data(waves)
    ax = plot_calibration(waves)
    beyond = np.abs(table["z"]) > norm.ppf(0.975)
    assert 0 < beyond.sum() < 10
    points = np.stack([table["observed"], table["predicted"]], axis=1)
    np.testing.assert_allclose(marks(ax, "within 95 %"), points[~beyond])
    np.testing.assert_allclose(marks(ax, "beyond 95 %"), points[beyond])
    for level in ("68", "95"):
        (bars,) = [
            c
            for c in ax.collections
            if isinstance(c, LineCollection) and c.get_label() == f"{level} % band"
        ]
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        np.testing.assert_allclose(ends[:, 0], table[f"low_{level}"])
        np.testing.assert_allclose(ends[:, 1], table[f"high_{level}"])
    numbers = {text.get_text() for text in ax.texts if text.get_text().isdigit()}
    assert numbers == {str(number) for number in table["trial"][beyond]}
    assert ax.get_xlim() == ax.get_ylim()
    line = next(line for line in ax.lines if line.get_label() == "predicted = observed")
    np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())


def test_the_inset_is_the_coverage_of_every_level(waves):
    table = calibration_data(waves)
    ax = plot_calibration(waves)
    (inset,) = ax.child_axes
    levels, shares = inset.lines[-1].get_data()
    for level in (0.2, 0.5, 0.8):
        wanted = (norm.cdf(np.abs(table["z"])) <= (1 + level) / 2).mean()
        assert shares[np.argmin(np.abs(levels - level))] == wanted
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    facts = table.facts
    written = texts(ax)
    assert f"68 % bands hold {100 * facts['coverage_68']:.0f} %" in written
    assert f"of {table.rows} trials" in written
    assert f"RMSE {facts['rmse']:.3g}" in written


def test_a_small_picture_has_no_inset(waves):
    figure = Figure((2, 2), layout="constrained")
    assert plot_calibration(waves, ax=figure.subplots(), legend=False).child_axes == []
    assert plt.get_fignums() == []


def test_what_cannot_be_drawn_is_refused(waves):
    with pytest.raises(ValueError, match="no output 'los'"):
        plot_calibration(waves, name="los")
    with pytest.raises(TypeError, match="ax must be one matplotlib Axes"):
        plot_calibration(waves, ax=[1])
    optimizer = Optimizer({"x": Real(0, 1)}, minimize="loss", seed=0)
    with pytest.raises(NoCompleteTrial, match="plot_calibration needs at least one complete trial"):
        plot_calibration(optimizer)
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    "values", [[5.0], [2.0] * 6, [1e300, -1e300, 3e299, 1.0, 2.0, 5e298], [1e-300, 2e-300, 0.0]]
)
def test_unusual_values_are_drawn(values):
    space = {"x": Real(0, 1), "n": Integer(1, 9), "kind": Categorical(["a", "b"])}
    plot_calibration(run(space, values)).figure.canvas.draw()
