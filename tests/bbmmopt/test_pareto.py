"""Facts about fronts, hypervolumes and boxes: against loops, inclusion-exclusion, Monte Carlo."""

import itertools
import math

import numpy as np
import pytest
import torch
from oracles import assert_mean_within

from bbmmopt.pareto import (
    attainment_surface,
    boxes,
    boxes_of_each,
    hypervolume,
    infer_reference_point,
    is_dominated,
    pareto_front_of,
)

EVERY_K = [1, 2, 3, 4, 5]
FAR = 7.0  # stands for ∞ when volumes are compared; values are below


def dominated_by_loops(Y):
    return np.array(
        [any((other >= row).all() and (other > row).any() for other in Y) for row in Y], dtype=bool
    )


def volume_by_inclusion_exclusion(Y, reference):
    """Σ over sets of points of ±Π (min - r): the volume of a union of boxes [r, y]."""
    Y = np.maximum(Y - reference, 0.0)
    return sum(
        (-1) ** (size + 1) * Y[list(chosen)].min(0).prod()
        for size in range(1, len(Y) + 1)
        for chosen in itertools.combinations(range(len(Y)), size)
    )


def sphere(rng, n, k):
    """Points that do not dominate one another."""
    Y = np.abs(rng.standard_normal((n, k)))
    return Y / np.linalg.norm(Y, axis=1, keepdims=True)


def draw(kind, seed, n, k):
    """Values and a reference: easy ones, and those with everything that can go wrong."""
    rng = np.random.default_rng(seed)
    match kind:
        case "cloud":
            return rng.uniform(0, 5, (n, k)), np.zeros(k)
        case "front":
            return 5 * sphere(rng, n, k), np.full(k, -0.3)
        case "ties":  # many coordinates are shared, some rows are equal
            return rng.integers(0, 4, (n, k)).astype(float), np.full(k, -1.0)
        case "below":  # on, below and beside the reference
            return rng.integers(-2, 4, (n, k)).astype(float), np.zeros(k)
        case "duplicates":
            return np.repeat(5 * sphere(rng, -(-n // 3), k), 3, axis=0)[:n], np.zeros(k)
    raise AssertionError(kind)


KINDS = ["cloud", "front", "ties", "below", "duplicates"]


# --------------------------------------------------------------------------------------
# Fronts
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", EVERY_K)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 7, 60, 700])
def test_law_the_masks_are_those_of_a_loop_over_pairs(kind, k, n):
    Y, _ = draw(kind, n + k, n, k)
    if n == 700:
        Y = Y[::5] if kind != "front" else Y[:150]
    received = is_dominated(Y)
    assert received.dtype == bool and received.shape == (len(Y),)
    assert (received == dominated_by_loops(Y)).all()
    assert (pareto_front_of(Y) == ~received).all()


@pytest.mark.parametrize("k", [2, 3, 4])
def test_law_several_blocks_of_rows_find_the_front_of_one_pass(k):
    rng = np.random.default_rng(k)
    Y = np.concatenate([sphere(rng, 800, k), sphere(rng, 800, k) * rng.uniform(0.7, 1, (800, 1))])
    Y = np.concatenate([Y, Y[::3]])[rng.permutation(2134)]
    expected = np.zeros(len(Y), dtype=bool)
    for row in Y:
        expected |= (row >= Y).all(1) & (row > Y).any(1)
    assert (is_dominated(Y) == expected).all()


def test_a_large_front_needs_no_table_of_all_pairs(monkeypatch):
    monkeypatch.setattr("bbmmopt.pareto._PAIRS", 2**10)
    assert pareto_front_of(sphere(np.random.default_rng(0), 1000, 3)).all()


def test_all_copies_of_a_value_are_in_the_front_and_rows_with_nan_are_not():
    nan = math.nan
    Y = [[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [nan, 9.0], [1.0, 1.0], [-0.0, 2.0], [nan, nan]]
    assert pareto_front_of(Y).tolist() == [True, True, True, False, False, False, False]
    assert pareto_front_of([[0.0, -0.0], [-0.0, 0.0]]).all()
    assert pareto_front_of([[-math.inf, 3.0], [-math.inf, 4.0]]).tolist() == [False, True]


@pytest.mark.parametrize("k", EVERY_K)
def test_law_no_rows_have_an_empty_front(k):
    assert pareto_front_of(np.empty((0, k))).shape == (0,)
    assert hypervolume(np.empty((0, k)), np.zeros(k)) == 0.0


# --------------------------------------------------------------------------------------
# Hypervolume
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", EVERY_K)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_law_hypervolume_is_that_of_inclusion_and_exclusion(kind, k, n):
    for seed in range(3):
        Y, reference = draw(kind, 10 * n + seed, n, k)
        expected = volume_by_inclusion_exclusion(Y, reference)
        assert hypervolume(Y, reference) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("k", EVERY_K)
@pytest.mark.parametrize("kind", ["cloud", "front"])
def test_law_hypervolume_of_many_points_is_that_of_monte_carlo(kind, k):
    Y, reference = draw(kind, k, 40, k)
    rng = np.random.default_rng(0)
    at = rng.uniform(reference, 5.0, (40_000, k))
    hit = np.zeros(len(at))
    for row in Y:
        hit[(row >= at).all(1)] = 1.0
    volume = np.prod(5.0 - reference)
    assert_mean_within(torch.from_numpy(volume * hit), hypervolume(Y, reference))


def test_hypervolumes_known_in_closed_form():
    # Unit cubes in a staircase; a simplex of them in three dimensions; one point in six.
    n = 12
    stairs = np.array([(i, n + 1 - i) for i in range(1, n + 1)], dtype=float)
    assert hypervolume(stairs, np.zeros(2)) == n * (n + 1) / 2
    corners = [(i, j, n + 2 - i - j) for i in range(1, n + 1) for j in range(1, n + 2 - i)]
    assert hypervolume(np.array(corners, dtype=float), np.zeros(3)) == n * (n + 1) * (n + 2) / 6
    assert hypervolume(np.arange(1.0, 7.0)[None], np.zeros(6)) == 720.0
    # All but one coordinate 1, that one 2: the unit cube and k cubes beside it.
    for k in range(2, 8):
        assert hypervolume(1 + np.eye(k), np.zeros(k)) == k + 1


@pytest.mark.parametrize("k", EVERY_K)
def test_law_hypervolume_does_not_change_with_the_order_of_objectives_or_rows(k):
    Y, reference = draw("front", 0, 15, k)
    rng = np.random.default_rng(0)
    for _ in range(4):
        columns = rng.permutation(k)
        received = hypervolume(rng.permutation(Y)[:, columns], reference[columns])
        assert received == pytest.approx(hypervolume(Y, reference), rel=1e-12)


@pytest.mark.parametrize("k", EVERY_K)
def test_law_points_not_above_the_reference_and_dominated_ones_add_nothing(k):
    Y, reference = draw("front", 1, 10, k)
    beside = np.full((1, k), 100.0)
    beside[0, -1] = reference[-1]
    nan = np.full((1, k), math.nan)
    more = np.concatenate([Y, beside, Y[:3] - 0.01, reference[None], reference[None] - 1, nan])
    assert hypervolume(more, reference) == pytest.approx(hypervolume(Y, reference), rel=1e-13)


# --------------------------------------------------------------------------------------
# Boxes
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [0, 1, 2, 6, 40])
def test_law_boxes_fill_what_is_above_the_reference_and_not_dominated(kind, k, n):
    for seed in range(4):
        Y, reference = draw(kind, 100 * n + seed, n, k)
        lower, upper = boxes(Y, reference)
        assert lower.shape == upper.shape == (len(lower), k)
        assert (lower < upper).all() and (lower >= reference).all() and np.isfinite(lower).all()
        # Disjoint: two boxes overlap if they do in every coordinate.
        low = np.maximum(lower[:, None], lower[None])
        high = np.minimum(upper[:, None], upper[None])
        overlap = (low < high).all(-1)
        assert not overlap[~np.eye(len(lower), dtype=bool)].any()
        # Not dominated: what lies below y meets the inside of a box if y > l everywhere.
        assert not (Y[:, None] > lower).all(-1).any()
        # Nothing is left out.
        volume = (np.minimum(upper, FAR) - lower).prod(1).sum()
        expected = np.prod(FAR - reference) - hypervolume(Y, reference)
        assert volume == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_are_as_few_as_promised(kind):
    for seed, n in itertools.product(range(5), (0, 1, 5, 30, 200)):
        for k in (1, 2, 3):
            Y, reference = draw(kind, seed, n, k)
            above = Y[(reference < Y).all(1)]
            front = len(np.unique(above[pareto_front_of(above)], axis=0))
            b = len(boxes(Y, reference)[0])
            assert b == 1 if k == 1 else b == front + 1 if k == 2 else b <= 2 * front + 1


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_law_the_improvement_by_a_value_is_a_sum_over_boxes(kind, k):
    Y, reference = draw(kind, 3, 12, k)
    lower, upper = boxes(Y, reference)
    rng = np.random.default_rng(0)
    for y in (*rng.uniform(-1, 6, (30, k)), *Y[:4]):
        received = np.clip(np.minimum(y, upper) - lower, 0, None).prod(1).sum()
        expected = hypervolume(np.vstack([Y, y]), reference) - hypervolume(Y, reference)
        assert received == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_law_without_points_above_the_reference_one_box_has_no_end(k):
    for Y in (np.empty((0, k)), np.zeros((1, k)), np.full((2, k), math.nan)):
        lower, upper = boxes(Y, np.zeros(k))
        assert lower.tolist() == [[0.0] * k] and upper.tolist() == [[math.inf] * k]


def test_the_boxes_of_two_points_in_the_plane():
    lower, upper = boxes(np.array([[1.0, 3.0], [2.0, 1.0]]), np.zeros(2))
    assert lower.tolist() == [[0.0, 3.0], [1.0, 1.0], [2.0, 0.0]]
    assert upper.tolist() == [[1.0, math.inf], [2.0, math.inf], [math.inf, math.inf]]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_law_boxes_of_each_are_the_boxes_with_empty_ones_after_them(k):
    sets = [draw(kind, 0, n, k)[0] for kind, n in itertools.product(KINDS, (0, 3, 9))]
    reference = np.full(k, 0.25)
    lowers, uppers = boxes_of_each(sets, reference)
    assert lowers.shape == uppers.shape
    assert lowers.shape == (len(sets), max(len(boxes(Y, reference)[0]) for Y in sets), k)
    for Y, lower, upper in zip(sets, lowers, uppers, strict=True):
        alone = boxes(Y, reference)
        b = len(alone[0])
        assert (lower[:b] == alone[0]).all() and (upper[:b] == alone[1]).all()
        assert (lower[b:] == reference).all() and (upper[b:] == reference).all()


def test_equal_fronts_are_cut_up_once(monkeypatch):
    from bbmmopt import pareto

    calls = []
    cut = pareto._boxes_of_front
    monkeypatch.setattr(
        pareto, "_boxes_of_front", lambda front, r: calls.append(1) or cut(front, r)
    )
    Y, reference = draw("front", 0, 9, 3)
    other = np.concatenate([Y[::-1], Y - 0.1, Y[:2]])  # the same front
    boxes_of_each([Y, Y, other, 2 * Y], reference)
    assert len(calls) == 2
    boxes_of_each(np.stack([Y] * 5), reference)
    assert len(calls) == 3


# --------------------------------------------------------------------------------------
# Reference points
# --------------------------------------------------------------------------------------


def test_the_reference_is_a_tenth_of_the_front_below_its_nadir():
    Y = np.array([[0.0, 10.0], [4.0, 0.0], [-50.0, -70.0], [math.nan, 99.0], [math.inf, 0.0]])
    np.testing.assert_allclose(infer_reference_point(Y), [-0.4, -1.0], rtol=1e-15)


def test_where_the_front_has_no_extent_other_scales_take_its_place():
    # One point dominates: the range of all rows. One row: its own size, or 1.
    np.testing.assert_allclose(infer_reference_point([[3.0, 5.0], [1.0, 0.0]]), [2.8, 4.5])
    np.testing.assert_allclose(infer_reference_point([[-20.0, 0.0]]), [-22.0, -0.1])
    np.testing.assert_allclose(infer_reference_point([[-20.0, 2.0]] * 3), [-22.0, 1.8])


@pytest.mark.parametrize("offset", [0.0, 1.0, -1e9, 1e15])
@pytest.mark.parametrize("spread", [0.0, 1e-30, 1.0, 1e6])
def test_law_every_point_of_the_front_is_above_the_reference(offset, spread):
    Y = offset + spread * sphere(np.random.default_rng(0), 20, 3)
    assert (infer_reference_point(Y) < Y[pareto_front_of(Y)]).all()


# --------------------------------------------------------------------------------------
# What is refused
# --------------------------------------------------------------------------------------


def test_boxes_of_four_objectives_are_refused_with_the_way_out():
    for ask in (
        lambda: boxes(np.eye(4), np.zeros(4)),
        lambda: boxes_of_each([np.eye(4)], [0.0] * 4),
    ):
        with pytest.raises(ValueError, match=r"at most 3 objectives; got 4.*scalarise at random"):
            ask()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: pareto_front_of([1.0, 2.0]), r"Y must have shape \(n, k\).*\(2,\)"),
        (lambda: hypervolume(np.ones((2, 2)), np.zeros(3)), r"shape \(2,\).*got shape \(3,\)"),
        (lambda: hypervolume(np.ones((2, 2)), [0.0, math.nan]), "reference must be finite"),
        (lambda: boxes([[math.inf, 1.0]], [0.0, 0.0]), r"must not hold \+inf"),
        (lambda: boxes_of_each([], [0.0, 0.0]), "at least one set"),
        (lambda: infer_reference_point([[math.nan, 1.0]]), "at least one row of finite values"),
    ],
)
def test_law_wrong_input_is_refused_by_name(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()


# --------------------------------------------------------------------------------------
# What several fronts attain
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9, 1.0])
def test_attainment_surfaces_bound_what_a_share_of_the_sets_reaches(share):
    rng = np.random.default_rng(7)
    # Small integers, so that coordinates tie; and an empty set, which attains nothing.
    sets = [rng.integers(0, 8, (rng.integers(1, 6), 2)).astype(float) for _ in range(9)]
    sets.append(np.empty((0, 2)))
    corners = attainment_surface(sets, share)
    for z in rng.uniform(-1, 9, (400, 2)).round(rng.integers(0, 2)):
        attained = sum(bool((z <= Y).all(1).any()) for Y in sets)
        assert bool((corners >= z).all(1).any()) == (attained >= share * len(sets) - 1e-9)
    assert pareto_front_of(corners).all()


def test_what_a_single_set_attains_is_its_front():
    Y = np.random.default_rng(0).normal(size=(30, 2))
    front = Y[pareto_front_of(Y)]
    np.testing.assert_array_equal(attainment_surface([Y], 1.0), front[front[:, 0].argsort()])


@pytest.mark.parametrize(
    ("sets", "share", "words"),
    [
        ([], 0.5, "at least one"),
        ([np.zeros((3, 3))], 0.5, r"\(n, 2\)"),
        ([np.zeros((3, 2))], 0.0, "share"),
        ([np.zeros((3, 2))], 1.5, "share"),
    ],
)
def test_attainment_of_nonsense_is_refused(sets, share, words):
    with pytest.raises(ValueError, match=words):
        attainment_surface(sets, share)
