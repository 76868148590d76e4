"""Facts about the rules that stop trials early, as functions of learning curves."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bbmmopt.early_stopping import (
    RULES,
    Hyperband,
    MedianStop,
    PercentileStop,
    SuccessiveHalving,
    checked_rule,
    rule_from_json,
)
from tests.bbmmopt.curves import CURVES, INF, NAN, line, stops

settings.register_profile("facts", deadline=None, derandomize=True, database=None)
settings.load_profile("facts")

# --------------------------------------------------------------------------------------
# What holds for every rule
# --------------------------------------------------------------------------------------

ALL_RULES = [
    MedianStop(start_trials=2),
    PercentileStop(25, start_trials=1, warmup_steps=2, interval=3),
    SuccessiveHalving(min_steps=1, reduction=2),
    Hyperband(min_steps=1, max_steps=20, reduction=2),
]


@pytest.mark.parametrize("rule", ALL_RULES, ids=repr)
@given(curves=CURVES, number=st.integers(0, 12), draws=st.randoms())
def test_neither_the_order_of_trials_nor_of_reports_matters(rule, curves, number, draws):
    def shuffled(pairs):
        pairs = list(pairs)
        draws.shuffle(pairs)
        return dict(pairs)

    again = shuffled((k, shuffled(curve.items())) for k, curve in curves.items())
    assert rule.stops(curves, number, seed=3) == rule.stops(again, number, seed=3)


@pytest.mark.parametrize("rule", ALL_RULES, ids=repr)
@given(
    others=st.lists(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=10), max_size=9),
    number=st.integers(0, 9),
    seed=st.integers(0, 5),
)
def test_the_best_trial_at_every_step_is_never_stopped(rule, others, number, seed):
    curves = {k: line(*values) for k, values in enumerate(others, 10)}
    best = [max(c.get(s, -INF) for c in [*curves.values(), {s: -1e300}]) for s in range(1, 11)]
    for steps in range(1, 11):
        curves[number] = line(*best[:steps])  # ties with the best of the others
        assert not stops(rule, curves, number, seed)


@pytest.mark.parametrize("rule", ALL_RULES, ids=repr)
def test_a_trial_that_reported_nothing_goes_on(rule):
    curves = {k: line(1.0, 2.0, 3.0) for k in range(10)}
    assert not stops(rule, curves, 20)
    assert not stops(rule, {**curves, 20: {}}, 20)


@pytest.mark.parametrize("rule", ALL_RULES, ids=repr)
@pytest.mark.parametrize("value", [1.5, 0.1, 1 / 3, -7e-5, 1e308])
def test_trials_that_are_all_the_same_all_go_on(rule, value):
    for steps in range(1, 60):
        curves = {k: line(*[value] * steps) for k in range(12)}
        assert not stops(rule, curves, 0)


@pytest.mark.parametrize("rule", ALL_RULES, ids=repr)
def test_a_rule_in_json_is_the_rule(rule):
    data = json.loads(json.dumps(rule.to_json(), allow_nan=False))
    assert rule_from_json(data) == rule
    assert checked_rule(rule) == checked_rule(data) == data


def test_a_rule_goes_by_its_name_where_its_arguments_have_defaults():
    assert rule_from_json("median") == MedianStop()
    assert rule_from_json("percentile") == PercentileStop()
    assert rule_from_json("halving") == SuccessiveHalving()
    assert checked_rule(None) is None
    with pytest.raises(ValueError, match=r"'hyperband' takes .* Missing: min_steps, max_steps"):
        rule_from_json("hyperband")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("medain", ValueError, "one of median, percentile, halving, hyperband; got 'medain'"),
        ({"percentile": 3}, ValueError, "got None"),
        ({"rule": "median", "percentile": 3}, ValueError, "Unknown: 'percentile'"),
        (3, TypeError, "early_stopping takes a rule, such as MedianStop.., or a name.*got 3"),
        (MedianStop, TypeError, "early_stopping takes a rule"),
    ],
)
def test_what_is_no_rule_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        checked_rule(given)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: PercentileStop(0), ValueError, "between 0 and 100"),
        (lambda: PercentileStop(NAN), ValueError, "between 0 and 100"),
        (lambda: PercentileStop("50"), TypeError, "percentile must be a number"),  # pyright: ignore
        (lambda: MedianStop(start_trials=0), ValueError, "start_trials must be at least 1"),
        (lambda: MedianStop(warmup_steps=-1), ValueError, "warmup_steps must be at least 0"),
        (lambda: MedianStop(interval=0), ValueError, "interval must be at least 1"),
        (lambda: MedianStop(interval=1.5), TypeError, "interval must be an integer"),  # pyright: ignore
        (lambda: SuccessiveHalving(0), ValueError, "min_steps must be at least 1"),
        (lambda: SuccessiveHalving(1, 1), ValueError, "reduction must be at least 2"),
        (lambda: SuccessiveHalving(True), TypeError, "min_steps must be an integer"),
        (lambda: Hyperband(9, 3), ValueError, "max_steps must be at least min_steps; got 3 and 9"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@given(
    data=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["rule", "percentile", "min_steps", "max_steps", "interval", "x"]),
                inner | st.sampled_from(list(RULES)),
                max_size=4,
            )
        ),
        max_leaves=6,
    )
)
def test_any_json_is_a_rule_or_an_error_that_says_so(data):
    try:
        rule = rule_from_json(data)
    except (TypeError, ValueError):
        return
    assert rule_from_json(rule.to_json()) == rule


# --------------------------------------------------------------------------------------
# Median and percentile
# --------------------------------------------------------------------------------------


def exact_mean(curve, step):
    """Of the numbers reported up to a step, in fractions; -inf where there is none."""
    values = [Fraction(v) for s, v in curve.items() if s <= step and math.isfinite(v)]
    return sum(values) / len(values) if values else -INF


def exact_quantile(values, percent):
    """By straight lines between neighbours; beside -inf is -inf."""
    ordered = sorted(values)
    place = Fraction(percent) / 100 * (len(ordered) - 1)
    low, t = int(place), place - int(place)
    if t == 0 or ordered[low] == -INF:
        return ordered[low]
    return ordered[low] + t * (ordered[low + 1] - ordered[low])


@given(
    curves=st.dictionaries(
        st.integers(0, 9),
        st.dictionaries(
            st.integers(0, 12), st.integers(-9, 9).map(float) | st.just(NAN), min_size=1
        ),
        min_size=1,
    ),
    percentile=st.sampled_from([10.0, 25.0, 50.0, 75.0]),
    start=st.integers(1, 4),
    warmup=st.integers(0, 6),
    interval=st.integers(1, 5),
)
def test_a_trial_is_stopped_below_the_percentile_of_the_running_averages(
    curves, percentile, start, warmup, interval
):
    rule = PercentileStop(percentile, start, warmup, interval)
    for number, curve in curves.items():
        last = max(curve)
        interval_of = [(s - warmup) // interval for s in curve]
        means = [exact_mean(c, last) for k, c in curves.items() if k != number and max(c) >= last]
        judged = last >= warmup and interval_of.count((last - warmup) // interval) == 1
        best = max((v for v in curve.values() if math.isfinite(v)), default=-INF)
        expected = False
        if judged and len(means) >= start:
            bar = exact_quantile(means, 100 - percentile)
            # What rounding decides is not told apart here.
            assume(best == bar == -INF or abs(float(bar) - best) > 1e-9 or len(set(means)) == 1)
            expected = best < bar
        assert stops(rule, curves, number) == expected


def test_the_median_is_the_percentile_50():
    draws = np.random.default_rng(0)
    for _ in range(50):
        curves = {k: line(*draws.normal(size=draws.integers(1, 6))) for k in range(9)}
        assert MedianStop(3, 1, 2).stops(curves, 0, seed=0) == PercentileStop(50, 3, 1, 2).stops(
            curves, 0, seed=0
        )


def test_the_best_so_far_counts_and_not_the_last_value():
    curves = {k: line(2.0, 2.0, 2.0) for k in range(1, 6)}
    assert not stops(MedianStop(), {**curves, 0: line(3.0, 0.0, 0.0)}, 0)
    assert stops(MedianStop(), {**curves, 0: line(1.0, 1.0, 1.9)}, 0)


def test_others_are_judged_by_their_averages_from_the_beginning():
    # At step 3 all others are at 9, on average at 4: a late starter at 5 goes on.
    curves = {k: line(0.0, 3.0, 9.0) for k in range(1, 6)}
    assert not stops(MedianStop(), {**curves, 0: line(-9.0, 0.0, 5.0)}, 0)
    assert stops(MedianStop(), {**curves, 0: line(-9.0, 0.0, 3.9)}, 0)


def test_only_others_that_came_as_far_count_and_so_many_must_have():
    behind = {k: line(5.0, 5.0) for k in range(1, 9)}
    ahead = {k: line(5.0, 5.0, 5.0, 5.0) for k in range(9, 13)}
    late = {0: line(0.0, 0.0, 0.0)}
    assert not stops(MedianStop(start_trials=5), behind | ahead | late, 0)
    assert stops(MedianStop(start_trials=4), behind | ahead | late, 0)


def test_no_trial_is_stopped_before_the_warm_up_ends_nor_twice_in_an_interval():
    curves = {k: line(*[5.0] * 20, first=0) for k in range(1, 9)}
    rule = MedianStop(warmup_steps=3, interval=5)
    decisions = [stops(rule, {**curves, 0: line(*[0.0] * n, first=0)}, 0) for n in range(1, 20)]
    assert [step for step, stopped in enumerate(decisions) if stopped] == [3, 8, 13, 18]
    # A trial that reports every third step is judged at its first report in each interval.
    late = [stops(rule, {**curves, 0: {s: 0.0 for s in range(0, n, 3)}}, 0) for n in range(1, 20)]
    assert [n - 1 for n, stopped in enumerate(late, 1) if stopped and (n - 1) % 3 == 0] == [
        3, 9, 15, 18,
    ]  # fmt: skip


def test_reports_that_are_not_numbers_are_no_values():
    curves = {k: line(2.0, NAN, 2.0) for k in range(1, 6)}
    assert not stops(MedianStop(), {**curves, 0: line(NAN, NAN, 2.0)}, 0)
    why = MedianStop().stops({**curves, 0: line(NAN, -INF, NAN)}, 0, seed=0)
    assert why is not None and "it has no value yet, worse than 2" in why
    diverged = {k: line(NAN, NAN) for k in range(1, 6)}
    assert not stops(MedianStop(), {**diverged, 0: line(NAN, NAN)}, 0)  # as good as the others
    assert not stops(MedianStop(), {**diverged, 0: line(-1e300, NAN)}, 0)
