"""Learning curves, for the test files of the rules that stop trials early."""

import math

from hypothesis import strategies as st

NAN, INF = math.nan, math.inf


def line(*values, first=1):
    """The curve of values reported at every step."""
    return dict(enumerate(values, first))


def stops(rule, curves, number, seed=0):
    """Whether it does."""
    return rule.stops(curves, number, seed=seed) is not None


VALUES = st.one_of(
    st.integers(-3, 3).map(float), st.floats(allow_nan=True), st.sampled_from([NAN, INF, -INF])
)
CURVES = st.dictionaries(
    st.integers(0, 12), st.dictionaries(st.integers(0, 16), VALUES, max_size=6), max_size=8
)
