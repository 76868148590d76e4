"""Facts about the search under constraints: known optima, and laws over random spaces."""

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bbmmopt.search import Domain, NoFeasiblePoint, Region, SpaceExhausted
from bbmmopt.space import Categorical, Integer, Linear, Nonlinear, Ordinal, Real, Simplex, Space
from tests.bbmmopt.searches import QUICK, Peak, disc, random_limits, rng, search_for, seeded

settings.register_profile("facts", deadline=None, derandomize=True, database=None)
settings.load_profile("facts")


def cube(d, A, lower, upper) -> Space:
    names = [f"x{j}" for j in range(d)]
    constraints = []
    for row, least, most in zip(A, lower, upper, strict=True):
        limits = {"equals": most} if least == most else {"at_most": most}
        constraints.append(Linear(dict(zip(names, row.tolist(), strict=True)), **limits))
    return Space({name: Real(0, 1) for name in names}, constraints)


# --------------------------------------------------------------------------------------
# Maximising over spaces
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_the_best_of_a_linear_function_is_the_vertex_that_linear_programming_finds(seed):
    g = rng(100 + seed)
    d = int(g.integers(3, 8))
    A, lower, upper = rows = random_limits(g, d, equalities=seed % 3)
    space = cube(d, *rows)
    w, equal = g.standard_normal(d), lower == upper
    oracle = scipy.optimize.linprog(
        -w, A[~equal], upper[~equal], A[equal] if equal.any() else None,
        upper[equal] if equal.any() else None, bounds=(0, 1),
    )  # fmt: skip
    found = search_for(Peak(np.zeros(d), 0.0, w), Domain(space), search=QUICK, seed=seed)
    np.testing.assert_allclose(found.x, oracle.x, atol=1e-4)
    assert space.satisfies(space.decode(found.x))


def test_the_top_of_a_mixture_is_found_inside_on_an_edge_and_at_a_vertex():
    space = Space({name: Real(0, 1) for name in "abc"}, [Simplex(["a", "b", "c"])])
    cases = {
        (0.2, 0.3, 0.5): (0.2, 0.3, 0.5),
        (0.8, 0.8, -0.6): (0.5, 0.5, 0.0),
        (2.0, 0.1, 0.0): (1.0, 0.0, 0.0),
        (0.5, 0.5, 0.5): (1 / 3, 1 / 3, 1 / 3),
    }
    for top, expected in cases.items():
        found = search_for(Peak(np.array(top)), Domain(space), search=QUICK)
        np.testing.assert_allclose(found.x, expected, atol=1e-4)
        assert sum(space.decode(found.x).values()) == pytest.approx(1.0, abs=1e-11)


def test_a_mixture_of_integers_sums_exactly_and_its_best_is_found():
    space = Space({name: Integer(0, 60) for name in "abcd"}, [Simplex(list("abcd"), total=100)])
    best = space.encode({"a": 50, "b": 7, "c": 0, "d": 43})
    found = search_for(Peak(best), Domain(space))
    assert space.decode(found.x) == {"a": 50, "b": 7, "c": 0, "d": 43}
    assert np.array_equal(found.x, space.snap(found.x))


def test_integers_and_reals_make_up_for_each_other():
    space = Space(
        {"n": Integer(0, 12), "m": Integer(0, 4), "x": Real(0, 3), "k": Categorical(["a", "b"])},
        [Linear({"n": 0.25, "m": 0.5, "x": 1.0}, equals=3.0)],
    )
    top = space.encode({"n": 5, "m": 2, "x": 0.75, "k": "b"})
    found = search_for(Peak(top), Domain(space))
    np.testing.assert_allclose(found.x, top, atol=1e-4)
    top = np.array([0.9, 0.9, 0.9, 0.25])
    found = search_for(Peak(top), Domain(space))
    rows = [
        space.encode({"n": n, "m": m, "x": 3 - n / 4 - m / 2, "k": "a"})
        for n in range(13)
        for m in range(5)
        if 0 <= 3 - n / 4 - m / 2 <= 3
    ]
    assert found.value >= max(-((row - top) ** 2).sum() for row in rows) - 1e-6


def test_a_limit_on_integers_of_few_levels_is_met_with_the_real_one_following():
    # At the limit, one more of n means less of x: a move of one of them alone is not allowed.
    space = Space(
        {"n": Integer(0, 4), "x": Real(0, 4), "y": Real(0, 1)},
        [Linear({"n": 1.0, "x": 1.0}, at_most=4.0)],
    )
    found = search_for(Peak(np.array([0.7, 0.9, 0.4])), Domain(space), search=QUICK)
    scores = {n: -(((n + 0.5) / 5 - 0.7) ** 2) - (min(4 - n, 3.6) / 4 - 0.9) ** 2 for n in range(5)}
    assert found.value == pytest.approx(max(scores.values()), abs=1e-6)


@pytest.mark.parametrize("radius", [0.5, 0.1, 0.01, 5e-4])
def test_the_top_of_a_disc_is_found_however_small(radius):
    space = Space({"x": Real(0, 1), "y": Real(0, 1)}, [disc(radius, 0.43, 0.61)])
    found = search_for(Peak(np.array([0.9, 0.9])), Domain(space), search=QUICK)
    toward = np.array([0.9 - 0.43, 0.9 - 0.61])
    expected = np.array([0.43, 0.61]) + radius * toward / np.linalg.norm(toward)
    np.testing.assert_allclose(found.x, expected, atol=1e-4)
    assert space.satisfies(space.decode(found.x))


def test_functions_and_sums_together_in_a_mixed_conditional_space():
    space = Space(
        {
            "kind": Categorical(["flat", "tall"]),
            "height": Real(0, 1, when={"kind": "tall"}),
            "x": Real(0, 1),
            "y": Real(0, 1),
            "n": Integer(0, 20),
            "size": Ordinal([1, 2, 4]),
        },
        [
            Linear({"x": 1, "n": 0.1}, at_most=2),
            Nonlinear("room", lambda p: 1.2 - p["y"] - p.get("height", 0.0) * p["size"] / 2),
        ],
    )
    top = np.array([0.75, 0.9, 0.9, 0.9, 0.9, 0.5])
    found = search_for(Peak(top), Domain(space))
    params = space.decode(found.x)
    # A smaller size costs less than what it saves: the nearest point of y + height / 2 = 1.2.
    assert params["kind"] == "tall" and params["size"] == 1 and space.satisfies(params)
    assert params["y"] == pytest.approx(0.78, abs=1e-4)
    assert params["height"] == pytest.approx(0.84, abs=1e-4)
    assert params["n"] == 13 and params["x"] == pytest.approx(0.7, abs=1e-4)


def test_log_parameters_may_be_summed():
    space = Space(
        {"catalyst": Real(1e-4, 0.5, log=True), "a": Real(0, 1), "b": Real(0, 1)},
        [Simplex(["catalyst", "a", "b"])],
    )
    for at in ({"catalyst": 1e-3, "a": 0.6, "b": 0.399}, {"catalyst": 0.5, "a": 0.0, "b": 0.5}):
        found = search_for(Peak(space.encode(at)), Domain(space), search=QUICK)
        params = space.decode(found.x)
        assert sum(params.values()) == pytest.approx(1.0, abs=1e-9)
        assert params == pytest.approx(at, rel=1e-2, abs=2e-3)
    limited = Space(
        {"rate": Real(1e-4, 1, log=True), "x": Real(0, 1)},
        [Linear({"rate": 1.0, "x": 1.0}, at_most=0.5)],
    )
    found = search_for(Peak(np.array([0.9, 0.4])), Domain(limited))
    params = limited.decode(found.x)
    assert params["rate"] + params["x"] == pytest.approx(0.5, abs=1e-5)
    assert limited.satisfies(params)


@pytest.mark.parametrize("width", [1e-2, 1e-3, 1e-6])
def test_a_sliver_of_the_space_is_found_and_searched(width):
    space = Space(
        {"x": Real(0, 1), "y": Real(0, 1)},
        [
            Linear({"x": 1, "y": -1}, at_most=width, at_least=0),
            Linear({"x": 1, "y": 1}, at_least=1.0, at_most=1.0 + width),
        ],
    )
    found = search_for(Peak(np.array([0.9, 0.2])), Domain(space), search=QUICK)
    np.testing.assert_allclose(found.x, [0.5 + width, 0.5], atol=1e-4 * width + 1e-9)
    assert space.satisfies(space.decode(found.x))
    with_seen = Domain(space, seen=frozenset([bytes(space.encode(space.decode(found.x)))]))
    second = search_for(Peak(np.array([0.9, 0.2])), with_seen, search=QUICK)
    assert space.decode(second.x) != space.decode(found.x)


# --------------------------------------------------------------------------------------
# Fixed, seen, impossible
# --------------------------------------------------------------------------------------

MIX = Space({name: Real(0, 1) for name in "abcd"}, [Simplex(list("abcd"))])


def test_with_columns_fixed_the_others_complete_the_mixture():
    found = search_for(Peak(np.zeros(4), 0.0, np.array([0, 0, 1, 0.5])), Domain(MIX, {0: 0.3}))
    np.testing.assert_allclose(found.x, [0.3, 0, 0.7, 0], atol=1e-6)
    # All but one: there is nothing left to choose.
    found = search_for(Peak(np.zeros(4)), Domain(MIX, {0: 0.3, 1: 0.3, 2: 0.2}))
    assert MIX.decode(found.x) == {"a": 0.3, "b": 0.3, "c": 0.2, "d": 0.2}


@pytest.mark.parametrize(
    ("space", "fixed", "message"),
    [
        (MIX, {0: 0.7, 1: 0.7}, r"with 'a', 'b' fixed as asked meets .*Simplex"),
        (MIX, {0: 0.1, 1: 0.1, 2: 0.1, 3: 0.1}, "asked .* what is fixed breaks them. Fix o"),
        (
            Space({"a": Real(0, 1), "b": Real(0, 1)}, [
                Linear({"a": 1, "b": 1}, at_most=0.5), Linear({"a": 1, "b": 2}, at_least=1.5)
            ]),
            {},
            "no point of the space meets its constraints .*contradict",
        ),
        (
            Space({"a": Integer(0, 300), "b": Integer(0, 300), "x": Real(0, 1)}, [
                Linear({"a": 2, "b": -2}, at_least=0.5, at_most=1.5)
            ]),
            {},
            "no values of the integers and real numbers do",
        ),
        (
            Space({"a": Integer(0, 9), "b": Integer(0, 9)}, [Nonlinear("never", lambda p: -1)]),
            {},
            "none of the 100 points of the space meets its constraints",
        ),
        (
            Space({"a": Real(0, 1), "b": Real(0, 1)}, [Nonlinear("never", lambda p: -p["a"] - 1)]),
            {},
            r"none of 16,384 points was found to meet 'never'",
        ),
    ],
)  # fmt: skip
def test_where_nothing_is_feasible_that_is_said(space, fixed, message):
    with pytest.raises(NoFeasiblePoint, match=message):
        search_for(Peak(np.zeros(len(space))), Domain(space, fixed), search=QUICK)


def test_the_tolerance_for_points_entered_by_hand_is_no_room_for_the_search():
    # The top lies off the plane, by as much as a point of the user may.
    space = Space(
        {"n": Integer(-5, 60), "x": Real(0, 1), "y": Real(0, 1)},
        [Linear({"n": 1, "x": 1, "y": 1}, equals=30)],
    )
    for seed in range(3):
        found = search_for(Peak(rng(seed).random(3)), Domain(space), search=QUICK)
        assert sum(space.decode(found.x).values()) == pytest.approx(30, abs=1e-10)
    almost = space.encode({"n": 29, "x": 0.5, "y": 0.50001})
    assert space.feasible(almost[None]).all() and not Domain(space).feasible(almost[None]).any()


def test_a_mixture_with_one_point_is_used_up_by_it():
    space = Space({"a": Real(0, 1), "b": Real(0, 1)}, [Simplex(["a", "b"], total=2)])
    found = search_for(Peak(np.zeros(2)), Domain(space), search=QUICK)
    assert space.decode(found.x) == {"a": 1.0, "b": 1.0}
    with pytest.raises(SpaceExhausted, match="no unseen point"):
        search_for(Peak(np.zeros(2)), Domain(space, seen=frozenset([bytes(found.x)])))


def test_of_a_finite_space_the_feasible_points_are_used_up_one_by_one():
    space = Space({name: Integer(0, 4) for name in "abc"}, [Simplex(list("abc"), total=4)])
    seen: set[bytes] = set()
    for _ in range(15):
        found = search_for(Peak(np.zeros(3)), Domain(space, seen=frozenset(seen)))
        assert sum(space.decode(found.x).values()) == 4 and bytes(found.x) not in seen
        seen.add(bytes(found.x))
    with pytest.raises(SpaceExhausted, match="all 15 points of the space that meet the constr"):
        search_for(Peak(np.zeros(3)), Domain(space, seen=frozenset(seen)))


def test_infeasible_centres_are_replaced_by_feasible_points_near_them():
    centres = np.array([[0.5, 0.5, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4]])
    X = Region(Domain(MIX)).near(centres, 200, seeded())
    assert MIX.feasible(X).all() and len(X) > 100
    distance = np.linalg.norm(X - centres[1], axis=1)
    assert distance.min() == 0 and (distance < 0.05).sum() > 20
    assert np.abs(X - 0.25).max(1).min() == 0  # the nearest one to the first


def test_the_same_generator_finds_the_same_point_bit_by_bit():
    space = Space(
        {"a": Real(0, 1), "b": Real(0, 1), "n": Integer(0, 50), "k": Categorical(list("xyz"))},
        [Linear({"a": 1, "b": 1, "n": 0.02}, equals=1.2), disc_of("a", "b")],
    )
    centres = np.array([[0.2, 0.5, 0.5, 0.5]])
    runs = [
        search_for(Peak(np.full(4, 0.7)), Domain(space), seed=s, search=QUICK, centres=centres)
        for s in (1, 1, 2)
    ]
    assert bytes(runs[0].x) == bytes(runs[1].x) and runs[0].value == runs[1].value
    assert runs[0].evaluations == runs[1].evaluations
    assert runs[2].value == pytest.approx(runs[0].value, abs=1e-6)


def disc_of(x, y):
    return Nonlinear("disc", lambda p: 0.36 - (p[x] - 0.5) ** 2 - (p[y] - 0.5) ** 2)


# --------------------------------------------------------------------------------------
# The law, over random spaces
# --------------------------------------------------------------------------------------


@st.composite
def domains(draw) -> Domain:
    """A random space with constraints that one random point of it meets, columns fixed to it."""
    g = rng(draw(st.integers(0, 10_000)))
    kinds = [
        Real(-1, 2), Real(0, 1), Real(5, 5), Real(1e-3, 10, log=True), Integer(0, 3),
        Integer(-5, 60), Integer(0, 30, step=3), Integer(1, 40, log=True), Categorical(list("abc")),
        Ordinal([1, 10, 100]), Integer(2, 2),
    ]  # fmt: skip
    parameters = {
        f"p{i}": kinds[k]
        for i, k in enumerate(
            draw(st.lists(st.integers(0, len(kinds) - 1), min_size=2, max_size=5))
        )
    }
    parameters["x"] = Real(0, 1)
    if draw(st.booleans()):
        parameters["switch"] = Categorical(["on", "off"])
        parameters["child"] = Real(-1, 1, when={"switch": "on"})
    free = Space(parameters)
    at = free.decode(g.random(len(free)))
    summed = [n for n, p in free.parameters.items() if isinstance(p, Real | Integer) and not p.when]
    constraints: list = []
    for kind in draw(st.lists(st.sampled_from(["most", "least", "equals", "f"]), max_size=3)):
        some = [n for n in summed if g.random() < 0.7] or ["x"]
        c = {name: float(g.choice([1, -1, 2, 0.5])) for name in some}
        value = sum(c[name] * at[name] for name in some)
        if kind == "f":
            # Noise in the name: each function is its own.
            constraints.append(
                Nonlinear(
                    f"f{len(constraints)}",
                    lambda p, c=c, v=value: 1.0 + v - sum(c[n] * p[n] for n in c),
                )
            )
        elif kind == "equals":
            if "x" not in c:
                c["x"], value = 1.0, value + at["x"]
            if not any(isinstance(k, Linear) and k.equals is not None for k in constraints):
                constraints.append(Linear(c, equals=value))
        else:
            slack = float(g.uniform(0.01, 0.5))
            limit = {"at_most": value + slack} if kind == "most" else {"at_least": value - slack}
            constraints.append(Linear(c, **limit))
    space = Space(parameters, constraints or [Linear({"x": 1}, at_most=0.5)])
    row = space.encode(at)
    fixed = {}
    if space.satisfies(at):
        columns = draw(st.sets(st.integers(0, len(space) - 1), max_size=1))
        fixed = {
            j: float(row[j])
            for j in columns
            if space.active(row)[j] and space.names[j] not in ("x", "child")
        }
    return Domain(space, fixed, frozenset([bytes(row)]))


@given(domains(), st.integers(0, 1000))
@settings(max_examples=120)
def test_law_every_point_found_is_feasible_on_the_lattice_unseen_and_as_fixed(domain, seed):
    space = domain.space
    top = rng(seed).choice([0.0, 0.2, 0.9, 1.0], len(space))
    centres = space.snap(rng(seed).random((2, len(space))))
    try:
        found = search_for(Peak(top), domain, seed=seed, search=QUICK, centres=centres)
    except (SpaceExhausted, NoFeasiblePoint):
        X = domain.place(rng(seed).random((2000, len(space))))
        assert not (domain.unseen(X) & domain.feasible(X)).any()
        return
    params = space.decode(found.x)
    assert np.array_equal(space.snap(found.x), found.x)
    assert space.satisfies(params) and space.feasible(found.x[None])[0]
    assert space.validate(params) == params
    for s in space.limits.sums:
        assert s.excess(params) <= s.rounding  # 1e-9 of the widest term, also in equalities
    assert bytes(space.encode(params)) not in domain.seen
    active = space.active(found.x)
    assert all(found.x[j] == value for j, value in domain.fixed.items() if active[j])
    assert found.value == pytest.approx(
        float(Peak(top)(torch.from_numpy(found.x)[None, None])[0]), abs=1e-12
    )
