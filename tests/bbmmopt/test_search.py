"""Facts about the search: known optima, spaces of every kind, points that were seen."""

import itertools

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bbmmopt.search import Domain, Search, SpaceExhausted, ascend
from bbmmopt.search.starts import around, boltzmann, change_discrete, sobol
from bbmmopt.space import Categorical, Integer, Ordinal, Real, Space
from tests.bbmmopt.searches import Peak, search_for, seeded

settings.register_profile("facts", deadline=None, derandomize=True, database=None)
settings.load_profile("facts")

QUICK = Search(raw=64, starts=4, climb_rounds=30)


# --------------------------------------------------------------------------------------
# Climbing
# --------------------------------------------------------------------------------------


def quadratic(A, b):
    """-½ ‖A x - b‖² and its gradient, for rows x."""

    def function(X):
        residual = X @ A.T - b
        return -0.5 * (residual**2).sum(1), -residual @ A

    return function


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scale", [1.0, 0.2, 30.0])
def test_a_concave_quadratic_is_climbed_to_its_constrained_maximum(seed, scale):
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((7, 5)), 3 * rng.standard_normal(7)
    oracle = scipy.optimize.lsq_linear(A, b, bounds=(0, 1), tol=1e-14)
    assert (oracle.active_mask != 0).any()  # or this would not test the bounds
    shape = (8, 5)
    ascent = ascend(
        quadratic(A, b),
        rng.random(shape),
        np.zeros(shape),
        np.ones(shape),
        np.full(5, scale),
        tolerance=1e-6,
    )
    assert (ascent.X >= 0).all() and (ascent.X <= 1).all()
    best = ascent.value.argmax()
    assert ascent.value[best] == pytest.approx(-oracle.cost, rel=1e-6)
    np.testing.assert_allclose(ascent.X[best], oracle.x, atol=1e-4)


def test_variables_with_equal_bounds_are_held_and_the_others_climb():
    top = np.array([0.3, 0.8, 0.6])
    X = np.array([[0.1, 0.1, 0.9], [0.7, 0.2, 0.4]])
    lower, upper = np.zeros((2, 3)), np.ones((2, 3))
    lower[0, 1] = upper[0, 1] = 0.1
    lower[1, [0, 2]] = upper[1, [0, 2]] = X[1, [0, 2]]
    function = lambda Z: (-((Z - top) ** 2).sum(1), -2 * (Z - top))  # noqa: E731
    for row, end in enumerate([[0.3, 0.1, 0.6], [0.7, 0.8, 0.4]]):
        alone = slice(row, row + 1)  # together, the worse one would be given up
        ascent = ascend(function, X[alone], lower[alone], upper[alone], np.ones(3))
        np.testing.assert_allclose(ascent.X[0], end, atol=1e-3)
        held = lower[row] == upper[row]
        assert (ascent.X[0, held] == X[row, held]).all()


def test_a_climb_that_cannot_become_the_best_is_given_up():
    def two_hills(Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low = Z[:, 0] < 0.5  # a hill of height 1 on the left, one of height 9 on the right
        top, height = np.where(low, 0.2, 0.8), np.where(low, 1.0, 9.0)
        off = Z[:, 0] - top
        return height - 40 * off**2 - 400 * off**4, (-80 * off - 1600 * off**3)[:, None]

    box = np.zeros((2, 1)), np.ones((2, 1))
    both = ascend(two_hills, np.array([[0.05], [0.65]]), *box, np.ones(1), tolerance=1e-8)
    alone = ascend(
        two_hills, np.array([[0.05]]), box[0][:1], box[1][:1], np.ones(1), tolerance=1e-8
    )
    assert both.value[1] == pytest.approx(9.0) and both.X[1, 0] == pytest.approx(0.8, abs=1e-4)
    assert alone.value[0] == pytest.approx(1.0)  # nothing is better than the only one
    assert both.evaluations < 2 * both.rounds  # the left one left early


def test_a_row_with_nothing_free_stays_where_it_is():
    X = np.array([[0.2, 0.9]])
    function = lambda Z: (Z.sum(1), np.ones_like(Z))  # noqa: E731
    ascent = ascend(function, X, X, X, np.ones(2))
    assert np.array_equal(ascent.X, X) and ascent.value == pytest.approx(1.1)


def waves(X):
    """A function of many hills, the highest near (0.73, 0.73)."""
    value = (np.sin(9 * X) + X).sum(1)
    return value, 9 * np.cos(9 * X) + 1


def test_of_many_hills_the_highest_that_a_start_stands_on_is_climbed():
    X = np.array([[x, y] for x in (0.1, 0.45, 0.8) for y in (0.05, 0.5, 0.85)])
    ascent = ascend(waves, X, np.zeros((9, 2)), np.ones((9, 2)), np.ones(2))
    grid = np.linspace(0, 1, 100_001)
    assert ascent.value.max() == pytest.approx(2 * (np.sin(9 * grid) + grid).max(), abs=1e-5)


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=60)
def test_law_no_row_ends_lower_than_it_started_nor_outside_its_bounds(seed, m, d):
    rng = np.random.default_rng(seed)
    tops, heights = rng.random((4, d)), rng.standard_normal(4)
    calls = []

    def hills(X):  # four bumps of either sign
        calls.append(len(X))
        away = X[:, None] - tops
        bumps = heights * np.exp(-20 * (away**2).sum(-1))
        return bumps.sum(1), (-40 * bumps[..., None] * away).sum(1)

    X = rng.random((m, d))
    lower, upper = X * rng.random((m, d)), X + (1 - X) * rng.random((m, d))
    start, _ = hills(X)
    calls.clear()
    ascent = ascend(hills, X, lower, upper, 10 ** rng.uniform(-2, 2, d), max_rounds=25)
    # Going to units of the scale and back may cost one rounding.
    assert (ascent.value >= start - 1e-14).all()
    np.testing.assert_allclose(ascent.X, ascent.X.clip(lower, upper), rtol=0, atol=1e-15)
    np.testing.assert_allclose(ascent.value, hills(ascent.X)[0], rtol=1e-12, atol=1e-14)
    assert ascent.rounds == len(calls) - 1 <= 25 and ascent.evaluations == sum(calls[:-1])


def test_where_a_function_is_nan_climbs_turn_back_and_other_rows_do_not_notice():
    top = np.array([0.3, 0.8])

    def function(X):
        value, gradient = -10 * ((X - top) ** 2).sum(1), -20 * (X - top)
        bad = (np.abs(X[:, 0] - 0.7) < 0.1) | (X[:, 1] < 0.05)
        value[bad] = gradient[bad] = np.nan
        return value, gradient

    # The second starts on a nan, the third has to jump over some.
    X = np.array([[0.5, 0.2], [0.7, 0.1], [0.85, 0.3]])
    box = np.zeros((3, 2)), np.ones((3, 2)), np.ones(2)
    ascent = ascend(function, X, *box)
    assert np.isnan(ascent.value[1]) and np.array_equal(ascent.X[1], X[1])
    np.testing.assert_allclose(ascent.X[0], top, atol=1e-3)
    assert ascent.value[2] >= function(X[2:])[0][0]


def test_the_caller_of_a_climb_keeps_its_arrays():
    X = np.full((2, 2), 0.4)
    arrays = X, np.zeros((2, 2)), np.ones((2, 2)), np.full(2, 0.3)
    before = [a.copy() for a in arrays]
    ascend(quadratic(np.eye(2), np.ones(2)), *arrays)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


# --------------------------------------------------------------------------------------
# Starts
# --------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 12))
def test_law_the_choice_of_starts_has_no_repeats_and_keeps_the_largest(seed, n, count):
    values = 100 * torch.randn(n, generator=seeded(seed), dtype=torch.float64)
    chosen = boltzmann(values, count, seeded(seed + 1)).tolist()
    assert len(chosen) == len(set(chosen)) == min(n, count)
    assert int(values.argmax()) in chosen


@pytest.mark.parametrize("values", [torch.zeros(50), torch.full((50,), -1e6), torch.arange(50.0)])
def test_starts_can_be_chosen_from_equal_and_from_hopeless_values(values):
    assert len(set(boltzmann(values.double(), 10, seeded()).tolist())) == 10


def test_better_points_are_chosen_more_often():
    values = torch.linspace(-3, 3, 100, dtype=torch.float64)
    counts = torch.zeros(100)
    for seed in range(200):
        counts[boltzmann(values, 10, seeded(seed))] += 1
    assert counts[80:99].mean() > 3 * counts[:50].mean() > 0


def test_raw_points_lie_in_the_cube_and_follow_from_the_generator():
    centres = np.array([[0.0, 1.0, 0.5]])
    for draw in (lambda g: sobol(64, 3, g), lambda g: around(centres, 64, g)):
        X = draw(seeded(3))
        assert X.shape == (64, 3) and (X >= 0).all() and (X <= 1).all()
        assert np.array_equal(X, draw(seeded(3))) and not np.array_equal(X, draw(seeded(4)))


def test_points_around_a_centre_change_about_twenty_of_many_dimensions():
    X = around(np.full((1, 200), 0.5), 300, seeded())
    assert 15 < (X != 0.5).sum(1).mean() < 25


def test_only_discrete_columns_are_drawn_anew():
    space = Space({"x": Real(0, 1), "k": Categorical(["a", "b"]), "c": Integer(7, 7)})
    X = np.full((200, 3), 0.25)
    moved = change_discrete(space, X, seeded())
    assert np.array_equal(moved[:, [0, 2]], X[:, [0, 2]])
    assert 70 < (moved[:, 1] != 0.25).sum() < 130
    assert (X == 0.25).all()


# --------------------------------------------------------------------------------------
# Maximising over a space
# --------------------------------------------------------------------------------------


def test_in_a_continuous_space_the_top_is_found():
    space = Space({name: Real(-1, 1) for name in "abcd"})
    top = np.array([0.3, 0.9, 0.001, 0.5])
    found = search_for(Peak(top), Domain(space))
    np.testing.assert_allclose(found.x, top, atol=1e-3)
    assert found.value == pytest.approx(0, abs=1e-5) and found.evaluations > 512


def test_a_top_outside_the_space_is_found_on_its_boundary():
    space = Space({"x": Real(0, 1), "y": Real(0, 1)})
    for scale in (1.0, *np.random.default_rng(0).uniform(0.05, 50, 40)):
        found = search_for(
            Peak(np.array([1.5, -0.5])), Domain(space), search=QUICK, scale=float(scale)
        )
        np.testing.assert_allclose(found.x, [1.0, 0.0], rtol=0, atol=1e-15)
        assert np.array_equal(space.snap(found.x), found.x)
        assert space.decode(found.x) == {"x": 1.0, "y": 0.0}


MIXED = Space(
    {
        "x": Real(0, 1),
        "n": Integer(0, 99),
        "few": Integer(0, 4),
        "k": Categorical(list("abcdefgh")),
        "size": Ordinal([1, 2, 4]),
        "fixed": Real(3, 3),
    }
)


def test_in_a_mixed_space_the_top_is_found():
    top = np.array([0.123, 0.777, 0.9, 7 / 16, 0.1, 0.5])
    found = search_for(Peak(top), Domain(MIXED))
    expected = [0.123, 0.775, 0.9, 7 / 16, 1 / 6, 0.5]  # the nearest levels
    np.testing.assert_allclose(found.x, expected, atol=1e-3)
    assert np.array_equal(found.x, MIXED.snap(found.x))


def test_rounding_a_climb_does_not_lose_to_a_better_lattice_point():
    # A ridge so narrow that the integer nearest to the top of a climb may lie off it.
    space = Space({"n": Integer(0, 199), "x": Real(0, 1), "y": Real(0, 1)})

    class Ridge(Peak):
        def value_and_gradient(self, X):
            X = X.detach().clone().requires_grad_(True)
            with torch.enable_grad():
                value = -200 * (X[:, 0] - X[:, 1]).square() - (X[:, 1] - 0.5037).square()
                value = value - (X[:, 2] - 0.2).square()
                (gradient,) = torch.autograd.grad(value.sum(), X)
            return value.detach(), gradient

    found = search_for(Ridge(np.empty(0)), Domain(space))
    assert found.value > -1e-4
    score = Ridge(np.empty(0))(torch.from_numpy(found.x)[None, None])
    assert found.value == pytest.approx(float(score[0]), abs=1e-12)


def test_in_a_conditional_space_the_better_branch_is_found():
    space = Space(
        {
            "kind": Categorical(["flat", "tall"]),
            "height": Real(0, 1, when={"kind": "tall"}),
            "width": Real(0, 1, when={"kind": "flat"}),
            "x": Real(0, 1),
        }
    )
    found = search_for(Peak(np.array([0.75, 0.9, 0.5, 0.2])), Domain(space))
    assert space.decode(found.x).keys() == {"kind", "height", "x"}
    np.testing.assert_allclose(found.x, [0.75, 0.9, 0.5, 0.2], atol=1e-3)


def test_a_small_finite_space_is_searched_whole():
    space = Space(
        {
            "n": Integer(0, 6),
            "k": Categorical(["a", "b", "c"]),
            "child": Integer(1, 3, when={"k": ["a", "c"]}),
        }
    )
    rows = space.enumerate()
    for seed in range(5):
        rng = np.random.default_rng(seed)
        scores = dict(zip(map(bytes, rows), rng.standard_normal(len(rows)), strict=True))

        def lookup(X, scores=scores):
            return torch.tensor([scores[row.tobytes()] for row in X.squeeze(-2).numpy()])

        ranked = sorted(rows, key=lambda row, scores=scores: -scores[bytes(row)])
        seen = frozenset(map(bytes, ranked[:4]))
        found = search_for(lookup, Domain(space, seen=seen))
        assert np.array_equal(found.x, ranked[4])
        assert found.value == scores[bytes(ranked[4])] and found.evaluations == len(rows) - 4


def test_a_large_finite_space_is_climbed_to_its_top():
    space = Space({name: Integer(0, 30) for name in "abcd"} | {"k": Categorical(list("xyz"))})
    assert space.size > 10_000
    top = space.encode({"a": 3, "b": 30, "c": 17, "d": 0, "k": "y"})
    assert np.array_equal(search_for(Peak(top), Domain(space)).x, top)


def test_fixed_columns_have_their_values_and_the_others_are_searched():
    fixed = {0: 0.9, 3: 15 / 16}
    top = np.array([0.1, 0.777, 0.9, 7 / 16, 0.1, 0.5])
    found = search_for(Peak(top), Domain(MIXED, fixed))
    np.testing.assert_allclose(found.x, [0.9, 0.775, 0.9, 15 / 16, 1 / 6, 0.5], atol=1e-3)
    assert found.x[0] == 0.9 and found.x[3] == 15 / 16


def test_no_climb_leaves_a_fixed_column():
    space = Space({"x": Real(0, 1), "y": Real(0, 1)})
    found = search_for(Peak(np.array([0.1, 0.7])), Domain(space, {0: 0.9}))
    np.testing.assert_allclose(found.x, [0.9, 0.7], atol=1e-3)
    assert found.value == pytest.approx(-(0.8**2), abs=1e-5)


def test_with_every_column_fixed_there_is_one_point_and_then_none():
    space = Space({"x": Real(0, 1), "n": Integer(0, 3)})
    fixed = {0: 0.25, 1: 3 / 8}
    found = search_for(Peak(np.zeros(2)), Domain(space, fixed))
    assert np.array_equal(found.x, [0.25, 3 / 8])
    with pytest.raises(SpaceExhausted, match="left free seems to be used up"):
        search_for(Peak(np.zeros(2)), Domain(space, fixed, frozenset([bytes(found.x)])))


def test_a_used_up_space_says_how_many_points_there_were():
    space = Space({"n": Integer(0, 4), "k": Categorical(["a", "b"])})
    seen = frozenset(map(bytes, space.enumerate()))
    with pytest.raises(
        SpaceExhausted, match=r'all 10 points of the space have been tried.*"noisy"'
    ):
        search_for(Peak(np.zeros(2)), Domain(space, seen=seen))
    with pytest.raises(SpaceExhausted, match="all 2 points of the space with the parameters fixed"):
        search_for(Peak(np.zeros(2)), Domain(space, {0: 0.3}, seen))


def test_the_last_point_of_a_space_too_large_to_be_searched_whole_is_found():
    space = Space({"n": Integer(0, 299), "m": Integer(0, 299)})
    rows = space.enumerate()
    seen = frozenset(map(bytes, rows[:-1]))
    found = search_for(Peak(np.zeros(2)), Domain(space, seen=seen), search=QUICK)
    assert np.array_equal(found.x, rows[-1])


def test_a_point_a_rounding_error_away_from_a_seen_one_counts_as_seen():
    space = Space({"x": Real(0, 1), "y": Real(-3, 7)})
    point = space.decode(np.array([1.0, 0.123456789]))
    domain = Domain(space, seen=frozenset([bytes(space.encode(point))]))
    twin = np.array([[1 - 2**-53, 0.123456789 + 1e-15], [0.999, 0.123456789]])
    assert domain.unseen(twin).tolist() == [False, True]


def test_the_same_generator_finds_the_same_point_bit_by_bit():
    top = np.array([0.123, 0.777, 0.9, 0.4, 0.1, 0.5])
    centres = MIXED.snap(np.random.default_rng(0).random((3, 6)))
    runs = [
        search_for(Peak(top), Domain(MIXED), seed=s, search=QUICK, centres=centres)
        for s in (1, 1, 2)
    ]
    assert bytes(runs[0].x) == bytes(runs[1].x) and runs[0].value == runs[1].value
    assert runs[0].evaluations == runs[1].evaluations
    assert runs[0].evaluations != runs[2].evaluations


def test_neighbours_differ_in_one_active_discrete_parameter():
    space = Space(
        {
            "x": Real(0, 1),
            "k": Categorical(["a", "b", "c"]),
            "n": Integer(1, 4, when={"k": "a"}),
        }
    )
    rows = np.array(
        [space.encode({"x": 0.3, "k": "a", "n": 2}), space.encode({"x": 0.6, "k": "b"})]
    )
    neighbours, owner = Domain(space).neighbours(rows)
    received = {
        (int(i), tuple(space.decode(row).values()))
        for i, row in zip(owner, neighbours, strict=True)
    }
    expected = {(0, (0.3, "b")), (0, (0.3, "c")), (0, (0.3, "a", 1)), (0, (0.3, "a", 3))}
    expected |= {(1, (0.6, "c")), (1, (0.6, "a", 3))}  # a child wakes up in its middle
    assert received == expected


# --------------------------------------------------------------------------------------
# The law, over random spaces
# --------------------------------------------------------------------------------------


@st.composite
def parameters(draw, when=None):
    return draw(
        st.sampled_from(
            [
                Real(-1, 2, when=when),
                Real(1e-3, 1e3, log=True, when=when),
                Integer(0, 3, when=when),
                Integer(1, 60, log=True, when=when),
                Integer(-(2**50), 2**60, when=when),
                Categorical(["a", "b", "c"], when=when),
                Ordinal([1, 10, 100], when=when),
                Real(5, 5, when=when),
                Integer(2, 2, when=when),
            ]
        )
    )


@st.composite
def domains(draw) -> Domain:
    """A random space, some columns fixed, some points seen, the middle and corners among them."""
    space = {f"p{i}": draw(parameters()) for i in range(draw(st.integers(1, 4)))}
    space["switch"] = Categorical(["on", "off"])
    for i in range(draw(st.integers(0, 2))):
        space[f"c{i}"] = draw(parameters(when={"switch": "on"}))
    space = Space(space)
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    columns = draw(st.sets(st.integers(0, len(space) - 1), max_size=2))
    at = space.encode_many([space.decode(rng.random(len(space)))])[0]
    fixed = {j: float(at[j]) for j in columns if space.active(at)[j]}
    corners = np.array(list(itertools.product([0.0, 1.0], repeat=len(space))))[:64]
    tried = np.concatenate([rng.random((20, len(space))), corners])
    seen = frozenset(bytes(space.encode(space.decode(row))) for row in tried)
    return Domain(space, fixed, seen)


@given(domains(), st.integers(0, 1000))
@settings(max_examples=150)
def test_law_every_point_found_is_on_the_lattice_unseen_and_as_fixed(domain, seed):
    space = domain.space
    top = np.random.default_rng(seed).choice([0.0, 0.2, 0.9, 1.0], len(space))
    try:
        found = search_for(Peak(top), domain, seed=seed, search=QUICK)
    except SpaceExhausted:
        X = domain.place(np.random.default_rng(seed).random((2000, len(space))))
        assert not domain.unseen(X).any()
        return
    assert np.array_equal(space.snap(found.x), found.x)
    assert bytes(space.encode(space.decode(found.x))) not in domain.seen
    active = space.active(found.x)
    assert all(found.x[j] == value for j, value in domain.fixed.items() if active[j])
    assert found.value == float(Peak(top)(torch.from_numpy(found.x)[None, None])[0])
