"""What scikit-learn's searches take as distributions, as parameters of a Space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, cast

import numpy as np
from scipy import stats

from bbmmopt.integrations.choices import choices_of, distinct
from bbmmopt.space import Categorical, Integer, Ordinal, Parameter, Real, Space
from bbmmopt.space.checks import naming, native, shown
from bbmmopt.trial import Trial

_WHICH = "dict"  # of several, in the space that they are joined to

_TAKEN = (
    "a parameter such as Real(0, 1), a list, a range, or uniform, loguniform or randint of "
    "scipy.stats"
)


@dataclass(frozen=True)
class Candidates:
    """What is searched, and which parameters of the estimator that means.

    Attributes:
        space: The space.
        names: {parameter of the space: parameter of the estimator}. One that only says which of
            several dicts a candidate is of has none.
    """

    space: Space
    names: Mapping[str, str]

    @classmethod
    def of(cls, given: Any) -> Candidates:
        """What `param_distributions` stands for.

        Args:
            given: A Space; {parameter of the estimator: parameter of a Space, list or frozen
                distribution}; or a list of such dicts, of which each candidate takes one.

        Raises:
            TypeError, ValueError: If it is something else, naming the parameter.
        """
        if isinstance(given, Space):
            return cls(given, {name: name for name in given.names})
        several = isinstance(given, list | tuple) and len(given) > 0
        dicts = [_parameters(each) for each in (given if several else [given])]
        if len(dicts) == 1:
            return cls(Space(dicts[0]), {name: name for name in dicts[0]})
        return cls(*_joined(dicts))

    def settings(self, trial: Trial) -> dict[str, Any]:
        """The parameters of the estimator in a trial, active ones only."""
        return {self.names[n]: v for n, v in trial.arguments.items() if n in self.names}


def _parameters(given: Any) -> dict[str, Parameter]:
    if not isinstance(given, Mapping):
        raise TypeError(
            f"param_distributions must be a Space, {{parameter: distribution}}, or a list of such "
            f"dicts; got {shown(given)} ({type(given).__name__})."
        )
    parameters = {}
    for name, each in given.items():
        with naming(f"parameter {name!r}: "):
            parameters[name] = parameter_of(each)
    return parameters


def _joined(dicts: Sequence[Mapping[str, Parameter]]) -> tuple[Space, dict[str, str]]:
    """One space for several dicts, and its names for the estimator's parameters.

    What is the same in several dicts is one parameter.
    """
    places: dict[str, dict[Parameter, list[int]]] = {}
    for k, parameters in enumerate(dicts):
        for name, parameter in parameters.items():
            if parameter.when is not None:
                raise ValueError(
                    f"parameter {name!r} has a condition, and stands in one of several dicts, "
                    f"which is another: write one dict, with conditions."
                )
            places.setdefault(name, {}).setdefault(parameter, []).append(k)
    joined: dict[str, Parameter] = {_WHICH: Categorical(range(len(dicts)))}
    names = {}
    for name, found in places.items():
        for parameter, where in found.items():
            own = name if len(found) == 1 else f"{name} [{', '.join(map(str, where))}]"
            when = None if len(where) == len(dicts) else {_WHICH: where}
            joined[own] = replace(cast("Any", parameter), when=when)
            names[own] = name
    return Space(joined), names


def parameter_of(given: Any) -> Parameter:
    """The parameter that a list or a frozen distribution of scipy stands for.

    Numbers in order, three or more of them, are an Ordinal: what is between two of them is likely
    to do about as well. Any other list is a Categorical, of labels where it has items that no
    storage could keep.

    Raises:
        TypeError, ValueError: If there is no such parameter; to follow the name of the parameter.
    """
    if isinstance(given, Parameter):
        return given
    if isinstance(given, range) and len(given) > 1:
        low, high = sorted((given[0], given[-1]))
        return Integer(low, high, step=abs(given.step))
    if isinstance(given, np.ndarray) and given.ndim == 1:
        given = given.tolist()
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        return _choices(list(map(native, given)))
    if hasattr(given, "rvs") and hasattr(given, "dist"):
        return _frozen(given)
    raise TypeError(f"expected {_TAKEN}; got {shown(given)} ({type(given).__name__}).")


def _choices(items: list[Any]) -> Parameter:
    numbers = not any(isinstance(x, bool) or not isinstance(x, int | float) for x in items)
    if numbers and len(items) > 2:
        steps = [b - a for a, b in pairwise(items)]
        if all(step > 0 for step in steps) or all(step < 0 for step in steps):
            return Ordinal(items)
    return Categorical(choices_of(distinct(items)))


def _frozen(given: Any) -> Parameter:
    """A frozen distribution: its support and its scale. What else it says is not needed."""
    low, high = given.support()
    if isinstance(given.dist, type(stats.randint)):
        return Integer(int(low), int(high))
    if isinstance(given.dist, type(stats.uniform)):
        return Real(float(low), float(high))
    if isinstance(given.dist, type(stats.loguniform)):
        # Moved along by loc, it is no longer the logarithm that is spread evenly.
        if not low > 0 or not math.isclose(given.median(), math.sqrt(low * high)):
            raise ValueError(
                "a loguniform with loc other than 0 has no parameter of its kind; use "
                "Real(low, high, log=True)."
            )
        return Real(float(low), float(high), log=True)
    name = getattr(given.dist, "name", type(given.dist).__name__)
    raise TypeError(
        f"expected {_TAKEN}; got a distribution {name!r}. What is searched has bounds: use "
        f"Real(low, high), with log=True where orders of magnitude count, or Integer(low, high)."
    )
