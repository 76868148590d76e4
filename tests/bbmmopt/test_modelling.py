"""Facts about what is believed: it follows from the data alone, whatever was asked before."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from bbmmopt.modelling import Data, Known, Modeller, Modellers, make_model
from bbmmopt.space import Categorical, Integer, Real, Space
from bbmmopt.transforms import Standardise, YeoJohnson

PLANE = Space({"x": Real(0, 1), "y": Real(0, 1)})
MIXED = Space(
    {
        "x": Real(0, 1),
        "k": Categorical(["a", "b", "c"]),
        "n": Integer(0, 9),
        "fixed": Real(2, 2),
        "child": Real(0, 1, when={"k": "a"}),
    }
)


def made(space, n, *, seed=0, pending=0, failed=0, errors=np.nan, exact=False, f=None) -> Data:
    rng = np.random.default_rng(seed)
    rows = space.snap(rng.random((n + pending + failed, len(space))))
    f = f or (lambda X: np.sin(6 * X[:, 0]) + X[:, -1] ** 2)
    X = rows[:n]
    return Data(
        X=X,
        y=f(X),
        errors=np.full(n, errors),
        pending=rows[n : n + pending],
        failed=rows[n + pending :],
        exact=exact,
    )


def fingerprint(belief, space) -> list[bytes]:
    """The bits of everything a suggestion is made from."""
    X = torch.from_numpy(space.snap(np.random.default_rng(9).random((20, len(space)))))
    moments = [*belief.posterior.marginals(X), *belief.fantasised.marginals(X)]
    arrays = [t.detach().numpy() for t in (*moments, belief.lengthscales)]
    arrays += [belief.centres(3), np.array(belief.incumbent)]
    return [a.tobytes() for a in arrays]


# --------------------------------------------------------------------------------------
# Determinism
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [PLANE, MIXED], ids=["plane", "mixed"])
def test_the_belief_does_not_depend_on_what_the_modeller_saw_before(space):
    whole = made(space, 33)
    stages = [
        whole.rows(slice(n)) if n < 33 else whole for n in (0, 1, 2, 5, 11, 12, 14, 15, 18, 24, 33)
    ]
    fresh = [fingerprint(Modeller(space).belief(data), space) for data in stages]
    upwards, downwards, shuffled = Modeller(space), Modeller(space), Modeller(space)
    order = range(len(stages))
    for modeller, sequence in (
        (upwards, order),
        (downwards, reversed(order)),
        (shuffled, [4, 9, 2, 10, 10, 0, 6, 7, 6]),
    ):
        for i in sequence:
            assert fingerprint(modeller.belief(stages[i]), space) == fresh[i], len(stages[i].y)


def test_a_modeller_that_saw_another_study_is_not_led_astray():
    data, other = made(PLANE, 16), made(PLANE, 16, seed=1)
    modeller = Modeller(PLANE)
    modeller.belief(other)
    assert fingerprint(modeller.belief(data), PLANE) == fingerprint(
        Modeller(PLANE).belief(data), PLANE
    )


def test_the_belief_has_the_same_bits_on_any_number_of_threads():
    data, before = made(PLANE, 150, pending=2), torch.get_num_threads()
    prints = []
    try:
        for threads in (1, 4):
            torch.set_num_threads(threads)
            prints.append(fingerprint(Modeller(PLANE).belief(data), PLANE)[-2:])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert prints[0] == prints[1]


def test_the_same_data_are_modelled_once():
    modeller, data = Modeller(PLANE), made(PLANE, 7, pending=1)
    assert modeller.belief(data) is modeller.belief(made(PLANE, 7, pending=1))
    moved = Data(data.X, data.y, data.errors, data.failed, data.pending, data.exact)
    assert modeller.belief(data) is not modeller.belief(moved)  # pending, or failed: not the same
    measured = Data(data.X, data.y, np.ones(7), data.pending, data.failed, data.exact)
    assert modeller.belief(data) is not modeller.belief(measured)


# --------------------------------------------------------------------------------------
# Trials without a value
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [True, False])
def test_pending_trials_take_the_uncertainty_where_they_are_and_move_no_mean(exact):
    data = made(PLANE, 10, pending=3, exact=exact)
    belief = Modeller(PLANE).belief(data)
    X = torch.from_numpy(data.pending)
    mean, std = belief.posterior.marginals(X)
    fantasised_mean, fantasised_std = belief.fantasised.marginals(X)
    noise = float(belief.posterior.model.noise)
    assert (fantasised_std < std).all() and (fantasised_std <= noise**0.5 * 1.001).all()
    torch.testing.assert_close(fantasised_mean, mean, atol=1e-6, rtol=1e-6)


def test_failed_trials_are_put_in_at_no_more_than_the_median():
    data = made(PLANE, 10, failed=4)
    belief = Modeller(PLANE).belief(data)
    X = torch.from_numpy(data.failed)
    mean, std = belief.posterior.marginals(X)
    fantasised_mean, fantasised_std = belief.fantasised.marginals(X)
    median = float(np.median(belief.transform.forward(data.y)))
    assert (mean > median).any()  # or the next line would say nothing
    assert (fantasised_mean <= mean.clamp_max(median) + 0.05).all()
    assert (fantasised_std < std).all()


def test_trials_without_a_value_never_touch_the_parameters_nor_the_predictions():
    alone, among = made(PLANE, 14), made(PLANE, 14, pending=3, failed=5)
    among = Data(alone.X, alone.y, alone.errors, among.pending, among.failed, False)
    beliefs = [Modeller(PLANE).belief(data) for data in (alone, among)]
    for a, b in zip(*(x.posterior.model.parameters() for x in beliefs), strict=True):
        assert torch.equal(a, b)
    X = np.random.default_rng(1).random((5, 2))
    assert np.array_equal(beliefs[0].predict(X), beliefs[1].predict(X))


def test_the_next_trial_has_to_beat_what_is_expected_of_a_pending_one_but_not_of_a_failed_one():
    done, better = made(PLANE, 14), np.array([[0.26, 0.99]])  # the top of the function is there
    beliefs = [
        Modeller(PLANE).belief(Data(done.X, done.y, done.errors, pending, failed, False))
        for pending, failed in (
            (done.pending, done.failed),
            (better, done.failed),
            (done.pending, better),
        )
    ]
    expected, _ = beliefs[0].posterior.marginals(torch.from_numpy(better))
    assert beliefs[0].incumbent < beliefs[1].incumbent == pytest.approx(float(expected), abs=1e-12)
    assert beliefs[2].incumbent == beliefs[0].incumbent


def test_before_any_result_pending_and_failed_trials_are_modelled_on_the_prior():
    belief = Modeller(PLANE).belief(made(PLANE, 0, pending=2, failed=2))
    assert belief.incumbent == -np.inf and len(belief.posterior.y) == 0
    _, std = belief.fantasised.marginals(torch.from_numpy(belief.data.pending))
    assert (std < 0.5).all()


# --------------------------------------------------------------------------------------
# Noise and the incumbent
# --------------------------------------------------------------------------------------


def test_a_standard_error_becomes_a_variance_in_model_units():
    data = made(PLANE, 8, errors=0.3)
    data.errors[3] = np.nan
    belief = Modeller(PLANE).belief(data)
    assert isinstance(belief.transform, Standardise)
    expected = np.full(8, (0.3 / belief.transform.scale) ** 2)
    expected[3] = float(belief.posterior.model.noise)
    np.testing.assert_allclose(belief.posterior.noise_variances().numpy(), expected, rtol=1e-12)


def test_a_warped_value_has_the_noise_of_its_own_slope():
    data = made(PLANE, 20, errors=0.02, f=lambda X: np.exp(7 * X[:, 0]))
    belief = Modeller(PLANE).belief(data)
    assert isinstance(belief.transform, YeoJohnson)
    above, below = (belief.transform.forward(data.y + step) for step in (1e-5, -1e-5))
    expected = (0.02 * (above - below) / 2e-5) ** 2
    np.testing.assert_allclose(belief.posterior.noise_variances().numpy(), expected, rtol=1e-4)


def test_a_measurement_with_a_large_error_counts_for_little():
    data = made(PLANE, 12, errors=1e-3, f=lambda X: X[:, 0].copy())
    data.y[4] = 30.0
    data.errors[4] = 1e3
    mean, _ = Modeller(PLANE).belief(data).predict(data.X[4:5])
    assert abs(mean[0] - data.X[4, 0]) < 1


@pytest.mark.parametrize("error", [0.0, 5e-324, 1e-200, 1e200, 1.7e308])
def test_any_standard_error_can_be_modelled(error):
    data = made(PLANE, 9)
    data.errors[::2] = error
    mean, std = Modeller(PLANE).belief(data).predict(data.X)
    assert np.isfinite(mean).all() and np.isfinite(std).all()


def test_the_incumbent_is_as_observed_when_exact_and_as_believed_otherwise():
    f = lambda X: X[:, 0] + 0.5 * np.random.default_rng(3).standard_normal(len(X))  # noqa: E731
    exact = Modeller(PLANE).belief(made(PLANE, 20, exact=True, f=f))
    assert exact.incumbent == exact.transform.forward(exact.data.y).max()
    noisy = Modeller(PLANE).belief(made(PLANE, 20, f=f))
    mean, _ = noisy.posterior.marginals(torch.from_numpy(noisy.data.X))
    assert noisy.incumbent == pytest.approx(float(mean.max()), abs=1e-12)
    assert noisy.incumbent < noisy.transform.forward(noisy.data.y).max()


def test_an_exact_objective_is_reproduced_at_the_data():
    data = made(PLANE, 15, exact=True)
    mean, std = Modeller(PLANE).belief(data).predict(data.X)
    np.testing.assert_allclose(mean, data.y, atol=1e-2)
    assert (std < 0.05).all()


# --------------------------------------------------------------------------------------
# Models of every space
# --------------------------------------------------------------------------------------


def test_a_smooth_function_is_predicted_within_its_error_bars():
    data = made(PLANE, 40, exact=True)
    X = np.random.default_rng(5).random((200, 2))
    mean, std = Modeller(PLANE).belief(data).predict(X)
    off = np.abs(mean - (np.sin(6 * X[:, 0]) + X[:, 1] ** 2))
    assert off.max() < 0.3 and (off < 3 * std + 1e-3).mean() > 0.9


def test_categories_alone_are_modelled():
    space = Space({"a": Categorical(["p", "q", "r"]), "b": Categorical(["u", "v", "w"])})
    levels = lambda X: 3 * (X[:, 0] > 0.6) - 1.0 * (X[:, 1] < 0.3)  # noqa: E731
    data = made(space, 12, f=levels, exact=True)
    rows = space.enumerate()
    mean, _ = Modeller(space).belief(data).predict(rows)
    assert mean[rows[:, 0] > 0.6].min() > mean[rows[:, 0] < 0.6].max()


def test_a_space_without_a_free_parameter_is_modelled_as_a_constant():
    space = Space({"x": Real(1, 1), "k": Categorical(["only"])})
    data = made(space, 6, f=lambda X: np.array([1.0, 2.0, 3.0, 2.0, 1.0, 3.0]))
    mean, std = Modeller(space).belief(data).predict(np.full((1, 2), 0.5))
    assert mean[0] == pytest.approx(2.0, abs=0.3) and 0 < std[0] < 1


def test_fixed_parameters_have_no_kernel_of_their_own():
    model = make_model(MIXED, exact=False)
    assert model.kernel.first.columns == (0, 2, 4) and model.kernel.second.columns == (1,)


def test_lengthscales_stand_in_the_columns_they_belong_to():
    belief = Modeller(MIXED).belief(made(MIXED, 13))
    fitted = belief.posterior.model.kernel.first.lengthscale
    assert torch.equal(belief.lengthscales[[0, 2, 4]], fitted)
    assert torch.equal(belief.lengthscales[[1, 3]], torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_very_few_trials_are_modelled(n):
    belief = Modeller(PLANE).belief(made(PLANE, n))
    mean, std = belief.predict(np.array([[0.5, 0.5]]))
    assert np.isfinite(mean).all() and (std > 0).all() and np.isfinite(belief.incumbent)


@pytest.mark.parametrize("y", [0.0, -3.0, 1e300])
def test_a_constant_objective_is_predicted_as_that_constant(y):
    belief = Modeller(PLANE).belief(made(PLANE, 10, f=lambda X: np.full(len(X), y)))
    mean, std = belief.predict(np.array([[0.2, 0.9]]))
    assert mean[0] == pytest.approx(y) and np.isfinite(std).all()
    assert (belief.lengthscales < 1).all()  # or nothing but corners would be explored


def test_repeated_points_are_modelled_even_when_they_contradict_an_exact_objective():
    data = made(PLANE, 6, exact=True)
    twice = Data(
        np.tile(data.X, (3, 1)),
        np.arange(18.0),
        np.tile(data.errors, 3),
        data.pending,
        data.failed,
        True,
    )
    mean, _ = Modeller(PLANE).belief(twice).predict(data.X)
    np.testing.assert_allclose(mean, np.arange(18.0).reshape(3, 6).mean(0), atol=1.5)


def test_a_long_tailed_objective_is_warped_and_a_plain_one_is_not():
    warped = Modeller(PLANE).belief(made(PLANE, 30, f=lambda X: -np.exp(8 * X[:, 0] + X[:, 1])))
    assert isinstance(warped.transform, YeoJohnson)
    X = np.random.default_rng(8).random((50, 2))
    mean, _ = warped.predict(X)
    assert np.median(np.abs(mean / -np.exp(8 * X[:, 0] + X[:, 1]) - 1)) < 0.1
    few = Modeller(PLANE).belief(made(PLANE, 30, f=lambda X: np.floor(4 * X[:, 0])))
    assert isinstance(few.transform, Standardise)  # four different values tell no power


def priors_of(data: Data) -> str:
    return Modeller(PLANE).belief(data).posterior.model.priors.name


@pytest.mark.parametrize("seed", range(4))
def test_whether_an_objective_is_noisy_is_told_from_its_values(seed):
    """A noise prior alone would keep a little noise however exactly the values repeat a law."""
    smooth = made(PLANE, 30, seed=seed)
    assert priors_of(smooth) == "exact-objective-1"
    noise = 0.3 * np.random.default_rng(seed).standard_normal(30)
    assert priors_of(replace(smooth, y=smooth.y + noise)) == "dimension-scaled-1"
    assert priors_of(replace(smooth, exact=True, y=smooth.y + noise)) == "exact-objective-1"
    few = made(PLANE, 5, seed=seed)
    assert priors_of(few) == "dimension-scaled-1", "too few to tell"
    told = made(PLANE, 30, seed=seed, errors=0.1)
    assert priors_of(told) == "dimension-scaled-1", "the user said that there is noise"


def test_a_bound_is_never_cut_off_and_chances_are_those_of_the_normal_distribution():
    data = made(PLANE, 30, f=lambda X: 50 * (X[:, 0] > 0.05) + X[:, 1])
    bounded = replace(data, bound=-5.0, warp=False)
    belief = Modeller(PLANE).belief(bounded)
    assert isinstance(belief.transform, Standardise) and belief.transform.low < -5.0
    assert belief.transform.inverse(np.array([belief.bound]))[0] == pytest.approx(-5.0)
    mean, std = (float(v) for v in belief.posterior.marginals(torch.full((1, 2), 0.5)))
    expected = 0.5 * math.erfc((belief.bound - mean) / (std * 2**0.5))
    assert belief.chance(np.full(2, 0.5)) == pytest.approx(expected)
    wider = 0.5 * math.erfc((belief.bound - mean) / math.sqrt(2 * (std**2 + 0.7)))
    assert belief.chance(np.full(2, 0.5), noise=0.7) == pytest.approx(wider)
    with pytest.raises(ValueError, match="an objective has no bound"):
        _ = Modeller(PLANE).belief(data).bound


def test_outputs_are_modelled_each_by_itself_and_once():
    objective, constraint = made(PLANE, 12), replace(made(PLANE, 12, seed=1), bound=0.0)
    known = Known((objective,), (constraint,), None)
    modellers = Modellers(PLANE)
    beliefs = modellers.beliefs(known)
    assert beliefs.first is beliefs.objectives[0] and beliefs.success is None
    again = modellers.beliefs(known)
    assert again.first is beliefs.first and again.constraints[0] is beliefs.constraints[0]
    alone = Modeller(PLANE).belief(constraint)
    assert fingerprint(beliefs.constraints[0], PLANE) == fingerprint(alone, PLANE)


def test_the_centres_are_the_trials_believed_best_in_order():
    belief = Modeller(PLANE).belief(made(PLANE, 12))
    mean, _ = belief.posterior.marginals(torch.from_numpy(belief.data.X))
    order = np.argsort(-mean.numpy())
    assert np.array_equal(belief.centres(4), belief.data.X[order[:4]])
    assert belief.centres(50).shape == (12, 2)


def test_the_arrays_of_the_caller_are_left_alone():
    data = made(PLANE, 13, pending=2, failed=2, errors=0.1)
    before = [a.copy() for a in (data.X, data.y, data.errors, data.pending, data.failed)]
    Modeller(PLANE).belief(data)
    now = (data.X, data.y, data.errors, data.pending, data.failed)
    assert all(np.array_equal(a, b) for a, b in zip(before, now, strict=True))


@pytest.mark.parametrize("count", [0, 400])
def test_the_mean_and_the_functions_drawn_of_a_belief_have_its_marginals(count):
    belief = Modeller(MIXED).belief(made(MIXED, 12))
    X = MIXED.snap(np.random.default_rng(0).random((30, len(MIXED))))
    values = belief.mean_and_draws(count, torch.Generator().manual_seed(0))(X)
    mean, std = belief.marginals(X)
    assert values.shape == (1 + count, 30)
    np.testing.assert_allclose(values[0], mean, rtol=1e-9, atol=1e-9)
    if count:
        # Within five standard errors; the finite number of random features adds a little.
        error = std / count**0.5
        assert (np.abs(values[1:].mean(0) - mean) < 5 * error + 1e-3).all()
        np.testing.assert_allclose(values[1:].std(0), std, rtol=0.25, atol=1e-3)
