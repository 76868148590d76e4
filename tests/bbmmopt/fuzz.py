"""How the fuzz tests draw: how many examples, any JSON, documents with mistakes in them."""

import copy
import math
import os
import warnings
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from bbmmopt.study import FailedTrialWarning

# Draws other examples each time, so many times more: for a search by hand.
TIMES = int(os.environ.get("BBMMOPT_FUZZ", "1"))

NASTY: list[Any] = [
    None,
    True,
    "",
    "x",
    "real",
    "\ud800",
    "\x00\n",
    0,
    1,
    -1,
    2**53 + 1,
    2**62,
    10**400,
    -(10**400),
    -0.0,
    0.5,
    5e-324,
    1e300,
    -1.7e308,
    math.nan,
    math.inf,
    -math.inf,
    [],
    {},
    [[]],
    {"$float": "nan"},
    {"$float": [1]},
    {"": {}},
]


def examples(count: int) -> settings:
    """Settings for so many examples: the same ones every time, unless TIMES says otherwise."""
    return settings(
        max_examples=count * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("$ab\ud800é") | st.text(), inner),
    max_leaves=20,
)
nasty = st.sampled_from(NASTY) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@st.composite
def damaged(draw: Any, document: Any) -> Any:
    """A JSON document with one to three mistakes: what is replaced, dropped, doubled or renamed."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        document = _with_a_mistake(draw, document)
    return document


def _with_a_mistake(draw: Any, part: Any) -> Any:
    if not isinstance(part, dict | list) or not part or draw(st.integers(0, 5)) == 0:
        return copy.deepcopy(draw(nasty))
    keys = list(part) if isinstance(part, dict) else list(range(len(part)))
    key = draw(st.sampled_from(keys))
    match draw(st.sampled_from(["within", "within", "within", "drop", "double", "swap"])):
        case "drop":
            del part[key]
        case "double" if isinstance(part, dict):
            part[draw(st.text(max_size=3) | st.sampled_from(["type", "low", "when"]))] = part[key]
        case "double":
            part.append(copy.deepcopy(part[key]))
        case "swap":
            other = draw(st.sampled_from(keys))
            part[key], part[other] = part[other], part[key]
        case _:
            part[key] = _with_a_mistake(draw, part[key])
    return part


def attempt(action: Callable[[], Any], *refusals: type[Exception]) -> tuple[Any, str | None]:
    """What an action returns and None; or None and what it says when it refuses.

    Args:
        action: What is tried. It may warn of a failed trial.
        refusals: Errors that are a refusal; if left out, TypeError and ValueError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FailedTrialWarning)
            return action(), None
    except Exception as error:
        if not isinstance(error, refusals or (TypeError, ValueError)):
            raise
        return None, str(error)
