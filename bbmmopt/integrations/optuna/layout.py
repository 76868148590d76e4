"""Layout: which parameters of an Optuna study are modelled together, and their conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from bbmmopt.integrations.optuna.conditions import Levels, find_conditions, is_active
from bbmmopt.integrations.optuna.distributions import (
    Number,
    is_ordered,
    levels_of,
    parameter_of,
    to_internal,
    to_ours,
)
from bbmmopt.space import Space

When = Mapping[str, Mapping[str, Sequence[int]]]


@dataclass(frozen=True)
class Layout:
    """Parameters that one model is over.

    Attributes:
        distributions: By name, in the order of the columns; none of a single value.
        when: {parameter: {parent: values}}, {} for those that are always there.
    """

    distributions: Mapping[str, BaseDistribution]
    when: When = field(default_factory=dict)

    @cached_property
    def space(self) -> Space:
        """The space that a model is over."""
        return Space(
            {
                name: parameter_of(distribution, self.when.get(name) or None)
                for name, distribution in self.distributions.items()
            }
        )

    @cached_property
    def key(self) -> str:
        """Equal for equal layouts."""
        return repr((list(self.distributions.items()), sorted(self.when.items())))

    def point(self, params: Mapping[str, Any]) -> dict[str, Number] | None:
        """A point of Optuna in the space, be it beyond the bounds.

        Args:
            params: Values of parameters, others among them.

        Returns:
            None if a parameter that should be there is not, or has a value that is none.
        """
        found = self.values(params)
        active = [name for name in self.distributions if is_active(self._when, name, found)]
        return {name: found[name] for name in active} if found.keys() >= set(active) else None

    def values(self, params: Mapping[str, Any]) -> dict[str, Number]:
        """Those of the values given that parameters of the space can have, in its units."""
        found = {}
        for name, value in params.items():
            distribution = self.distributions.get(name)
            if distribution is not None:
                try:
                    internal = distribution.to_internal_repr(value)
                except ValueError:  # an enqueued value that the objective would not take
                    continue
                found[name] = to_ours(distribution, internal)
        return found

    def internal(self, point: Mapping[str, Number]) -> dict[str, float]:
        """A point of the space as Optuna keeps it: floats, indices of choices."""
        return {name: to_internal(self.distributions[name], v) for name, v in point.items()}

    def external(self, internal: Mapping[str, float]) -> dict[str, Any]:
        """What Optuna keeps of parameters of the space, as the objective is given it."""
        return {
            name: self.distributions[name].to_external_repr(value)
            for name, value in internal.items()
            if name in self.distributions
        }

    @cached_property
    def _when(self) -> When:
        return {name: self.when.get(name, {}) for name in self.distributions}


def layout_of(
    trials: Sequence[FrozenTrial], wanted: Mapping[str, BaseDistribution] | None = None
) -> Layout:
    """The parameters of which the trials say when they are there.

    A range that changed from trial to trial is what it was in the last one.

    Args:
        trials: All trials of a study.
        wanted: The parameters to look at; those of complete trials if left out.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if wanted is None:
        wanted = {}
        for trial in complete:
            wanted.update(trial.distributions)
    free = {name: wanted[name] for name in sorted(wanted) if not wanted[name].single()}
    if all(trial.distributions.keys() >= free.keys() for trial in complete):
        return Layout(free)
    whole = Layout(free)
    parents = parents_of(whole)
    conditions = find_conditions([decisive(whole, parents, trial) for trial in complete], parents)
    when: dict[str, dict[str, list[int]]] = {}
    for name, needs in conditions.when.items():  # parents come before what depends on them
        possible = {
            parent: [value for value in values if value in parents[parent].values]
            for parent, values in needs.items()
        }
        if all(values and parent in when for parent, values in possible.items()):
            when[name] = possible
    never = [name for name in free if name not in conditions.when]
    when |= {name: {} for name in never if name not in conditions.unexplained}
    kept = {name: distribution for name, distribution in free.items() if name in when}
    return Layout(kept, when)


def parents_of(layout: Layout) -> dict[str, Levels]:
    """The parameters that may decide over others."""
    levels = {name: levels_of(distribution) for name, distribution in layout.distributions.items()}
    return {
        name: Levels(values, is_ordered(layout.distributions[name]))
        for name, values in levels.items()
        if values is not None
    }


def decisive(
    layout: Layout, parents: Mapping[str, Levels], trial: FrozenTrial
) -> dict[str, Number]:
    """Which parameters a trial has, and the values of those that may decide that."""
    params = trial.params
    found: dict[str, Number] = {name: 0 for name in params if name in layout.distributions}
    return found | layout.values({name: params[name] for name in params if name in parents})
