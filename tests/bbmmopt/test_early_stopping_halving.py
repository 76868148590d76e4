"""Facts about successive halving and Hyperband, as functions of learning curves."""

import math
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bbmmopt.early_stopping import Hyperband, SuccessiveHalving
from tests.bbmmopt.curves import CURVES, INF, NAN, line, stops

settings.register_profile("facts", deadline=None, derandomize=True, database=None)
settings.load_profile("facts")

# --------------------------------------------------------------------------------------
# Successive halving
# --------------------------------------------------------------------------------------


def goes_on_by_sorting(curves, number, first, eta, last=INF):
    """Successive halving restated: sort those at the rung, and look who is among the best."""
    steps = sorted(curves[number])
    rungs = [first * eta**k for k in range(12) if first * eta**k <= steps[-1]]
    if not rungs or rungs[-1] >= last or (len(steps) > 1 and steps[-2] >= rungs[-1]):
        return True
    at = {}
    for k, curve in curves.items():
        after = [curve[s] for s in sorted(curve) if s >= rungs[-1]]
        if after:
            at[k] = after[0] if math.isfinite(after[0]) else -INF
    if len(at) < eta:
        return True
    among = sorted(at.values())[::-1][: max(1, len(at) // eta)]
    return at[number] >= among[-1]


@given(
    curves=CURVES.filter(lambda curves: any(curves.values())),
    first=st.integers(1, 4),
    eta=st.integers(2, 4),
)
def test_halving_lets_the_best_of_each_rung_go_on(curves, first, eta):
    rule = SuccessiveHalving(first, eta)
    for number in (k for k, curve in curves.items() if curve):
        assert stops(rule, curves, number) != goes_on_by_sorting(curves, number, first, eta)


def test_halving_decides_at_the_report_that_reaches_a_rung_and_not_after():
    rule = SuccessiveHalving(min_steps=3, reduction=3)
    others = {k: line(*[float(k)] * 9) for k in range(1, 9)}
    decisions = [stops(rule, {**others, 0: line(*[0.0] * n)}, 0) for n in range(1, 13)]
    assert [n for n, stopped in enumerate(decisions, 1) if stopped] == [3, 9]


def test_halving_lets_the_first_ones_at_a_rung_pass_whatever_they_are_worth():
    rule, curves = SuccessiveHalving(min_steps=1, reduction=4), {}
    passed = []
    for k in range(8):
        curves[k] = {1: -float(k)}  # each worse than those before
        passed.append(not stops(rule, curves, k))
    assert passed == [True, True, True] + [False] * 5


def test_halving_counts_those_that_were_stopped_at_the_rung():
    rule = SuccessiveHalving(min_steps=1, reduction=2)
    curves = {0: {1: 5.0}, 1: {1: 4.0}, 2: {1: 1.0}, 3: {1: 2.0}, 4: {1: 3.0}}
    assert stops(rule, curves, 4)  # the best 2 of 5 are 5 and 4
    assert not stops(rule, {**curves, 5: {1: 3.5}}, 5)  # the best 3 of 6 hold 3.5


def test_halving_meets_every_tenth_report_at_the_first_after_the_rung():
    rule = SuccessiveHalving(min_steps=4, reduction=3)  # rungs 4, 12, 36
    curves = {k: {10: float(k), 20: float(k)} for k in range(1, 6)}
    assert stops(rule, {**curves, 0: {10: 0.0}}, 0)
    assert stops(rule, {**curves, 0: {10: 9.0, 20: 0.0}}, 0)
    assert not stops(rule, {**curves, 0: {10: 9.0, 20: 9.0, 30: 0.0}}, 0)  # 30 reaches no rung


def test_halving_stops_what_diverged_at_a_rung():
    rule = SuccessiveHalving(min_steps=1, reduction=2)
    curves = {0: {1: -1e9}, 1: {1: -1e8}}
    assert "its value is missing" in str(rule.stops({**curves, 2: {1: NAN}}, 2, seed=0))
    assert not stops(rule, {0: {1: NAN}, 1: {1: NAN}, 2: {1: NAN}}, 2)  # as good as the others


def test_the_reason_has_the_numbers_in_the_units_they_were_told():
    rule = SuccessiveHalving(min_steps=2, reduction=2)
    curves = {0: {2: -0.1}, 1: {2: -0.2}, 2: {3: -0.7}}  # losses of 0.1, 0.2, 0.7
    assert rule.stops(curves, 2, seed=0, sign=-1.0) == (
        "at step 3 its value is 0.7, and 0.1 was needed to be among the best 1 of the 3 trials "
        "that reached step 2"
    )


# --------------------------------------------------------------------------------------
# Hyperband
# --------------------------------------------------------------------------------------


def test_brackets_have_the_sizes_of_the_paper():
    # ⌈5 · 3^s / (s + 1)⌉ by hand, for R = 81 and η = 3.
    assert Hyperband(1, 81, 3).sizes == (5, 8, 15, 34, 81)


@given(st.integers(1, 30), st.integers(0, 3000), st.integers(2, 5))
def test_there_are_as_many_brackets_as_the_logarithm_says(low, more, eta):
    sizes = Hyperband(low, low + more, eta).sizes
    last = len(sizes) - 1
    assert eta**last <= Fraction(low + more, low) < eta ** (last + 1)
    assert list(sizes) == [math.ceil(Fraction((last + 1) * eta**s, s + 1)) for s in range(last + 1)]


def test_trials_are_spread_over_the_brackets_by_these_sizes():
    rule, n = Hyperband(1, 81, 3), 20_000
    counts = np.bincount([rule.bracket(k, seed=5) for k in range(n)], minlength=5)
    share = np.array(rule.sizes) / sum(rule.sizes)
    assert np.abs(counts / n - share).max() < 5 * math.sqrt(0.25 / n)


def test_the_bracket_follows_from_seed_and_number():
    rule = Hyperband(1, 81, 3)
    drawn = [rule.bracket(k, seed=1) for k in range(200)]
    assert drawn == [Hyperband(1, 81, 3).bracket(k, seed=1) for k in range(200)]
    assert drawn != [rule.bracket(k, seed=2) for k in range(200)]


@given(curves=CURVES.filter(lambda curves: any(curves.values())), seed=st.integers(0, 9))
def test_hyperband_is_halving_within_each_bracket(curves, seed):
    rule = Hyperband(min_steps=2, max_steps=16, reduction=2)
    for number in (k for k, curve in curves.items() if curve):
        s = rule.bracket(number, seed)
        same = {k: curve for k, curve in curves.items() if rule.bracket(k, seed) == s}
        expected = goes_on_by_sorting(same, number, 2 * 2 ** (3 - s), 2, last=16)
        assert stops(rule, curves, number, seed) != expected


def test_the_bracket_of_whole_trials_stops_none():
    rule = Hyperband(1, 9, 3)
    whole = [k for k in range(200) if rule.bracket(k, seed=0) == 0]
    curves = {k: line(*[float(k)] * 9) for k in whole}
    assert len(whole) > 10 and not any(stops(rule, curves, k) for k in whole)
    early = [k for k in range(200) if rule.bracket(k, seed=0) == 2]
    curves = {k: {1: float(k)} for k in early}
    why = rule.stops(curves, early[0], seed=0)
    assert why is not None and why.endswith("that reached step 1 of bracket 2")
