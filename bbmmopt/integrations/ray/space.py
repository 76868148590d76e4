"""Ray's search spaces as ours: domains ⇄ parameters, configurations ⇄ params."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ray.tune.search import sample
from ray.tune.search.variant_generator import assign_value, parse_spec_vars
from ray.tune.utils.util import unflatten_dict  # pyright: ignore[reportPrivateImportUsage]

from bbmmopt.integrations.choices import choices_of, distinct, label_in
from bbmmopt.space import Categorical, Integer, Ordinal, Parameter, Real, Space
from bbmmopt.space.checks import naming, native, shown

_LISTED = 100  # levels of a grid of real numbers that are choices in order


@dataclass(frozen=True)
class _Place:
    """A parameter, and where its value goes in a configuration.

    Attributes:
        name: Of the parameter.
        path: Keys and, within lists, indices that lead to the value.
        parameter: Its description.
        kind: What Ray hands out: float or int; None for choices.
        unit: What one step of the parameter is in Ray's value; None where both are the same.
    """

    name: str
    path: tuple[Any, ...]
    parameter: Parameter
    kind: type | None = None
    unit: float | None = None

    def to_ray(self, value: Any) -> Any:
        """What the objective gets for a value of the parameter, objects in the place of labels."""
        if self.unit is not None:
            value = _multiple(value, self.unit)
        return value if self.kind is None else self.kind(value)

    def from_ray(self, value: Any) -> Any:
        """The value of the parameter; what has none comes back as it is, for the space to refuse.

        Rounding errors are forgiven: 0.1 + 0.2 is on the grid of 0.1.
        """
        parameter, number = self.parameter, native(value)
        if isinstance(parameter, Categorical):
            return label_in(parameter, value)
        if isinstance(number, bool) or not isinstance(number, int | float):
            return value
        if self.unit is not None:
            steps = number / self.unit
            return round(steps) if math.isclose(steps, round(steps)) else steps
        levels = parameter.labels if isinstance(parameter, Ordinal) else ()
        close = (k for k in levels if not isinstance(k, str) and math.isclose(k, number))
        return next(close, number)


@dataclass(frozen=True)
class Layout:
    """A space, and how its points are written as configurations of Ray.

    Attributes:
        space: The space.
        places: Where its parameters go.
        template: A configuration; what is tuned is replaced in a copy. None if the space was ours
            from the beginning: then "a/b" goes to {"a": {"b": …}}.
    """

    space: Space
    places: tuple[_Place, ...]
    template: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, given: Any) -> Layout:
        """The layout of a Space, of {name: parameter}, or of a configuration with Ray's domains.

        Raises:
            TypeError, ValueError: If it is none of these, or has what cannot be tuned, by name.
        """
        if isinstance(given, Space):
            own = given.parameters.items()
            return cls(given, tuple(_Place(name, tuple(name.split("/")), p) for name, p in own))
        if not isinstance(given, Mapping):
            raise TypeError(
                f"space must be a Space, or a configuration such as {{'x': tune.uniform(0, 1)}}; "
                f"got {shown(given)} ({type(given).__name__})."
            )
        if any(isinstance(value, Parameter) for value in given.values()):
            return cls.of(Space(given))
        config = dict(given)
        constants, domains, grids = parse_spec_vars(config)
        for path, constant in constants:
            if isinstance(constant, Parameter):
                raise ValueError(
                    f"parameter {_name(path)!r} is nested: our parameters stand in a Space, under "
                    f"that name."
                )
        if grids:
            raise ValueError(
                f"parameter {_name(grids[0][0])!r}: a grid search tries every value and leaves "
                f"nothing to search for. Use tune.choice."
            )
        if not domains:
            raise ValueError(
                "the configuration has nothing to tune: give at least one parameter a domain, "
                "such as tune.uniform(0, 1)."
            )
        places = tuple(_place(path, domain) for path, domain in domains)
        names = [place.name for place in places]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f'parameter {twice[0]!r} is there twice: keys are joined with "/". Rename one.'
            )
        return cls(Space({place.name: place.parameter for place in places}), places, config)

    def is_of(self, config: Mapping[str, Any]) -> bool:
        """Whether a configuration has the same parameters in the same places."""
        try:
            other = Layout.of(config)
        except ValueError:
            return False
        return (other.space, other.places) == (self.space, self.places)

    def config(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration of a trial's arguments."""
        active = [place for place in self.places if place.name in arguments]
        values = {place.name: place.to_ray(arguments[place.name]) for place in active}
        if self.template is None:
            return unflatten_dict(values)
        config = copy.deepcopy(dict(self.template))
        for place in active:
            assign_value(config, place.path, values[place.name])
        return config

    def params(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The params of a configuration, which may be flattened, as far as it has them.

        Constants are left out. The space says what is missing or not allowed.
        """
        found = {}
        for place in self.places:
            with suppress(LookupError, TypeError):
                found[place.name] = place.from_ray(_at(config, place.path))
        return found


def configuration_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the trial whose result this is: Ray writes it in, flattened."""
    kept = "config/"
    found = {name: value for name, value in result.items() if name.startswith(kept)}
    return unflatten_dict({name.removeprefix(kept): value for name, value in found.items()})


def _name(path: Sequence[Any]) -> str:
    return "/".join(map(str, path))


def _at(config: Mapping[str, Any], path: tuple[Any, ...]) -> Any:
    """The value at a path, in a nested configuration or a flattened one."""
    if _name(path) in config:
        return config[_name(path)]
    value: Any = config
    for key in path:
        value = value[key]
    return value


def _place(path: tuple[Any, ...], domain: sample.Domain) -> _Place:
    """Where a domain's value goes, and the parameter that it is."""
    name = _name(path)
    sampler, step = domain.get_sampler(), None
    if isinstance(sampler, sample.Quantized):
        sampler, step = sampler.sampler, sampler.q
    log = isinstance(sampler, sample.LogUniform)
    with naming(f"parameter {name!r}: "):
        if isinstance(domain, sample.Categorical):
            return _Place(name, path, _choices(domain.categories))
        kinds = {sample.Float: float, sample.Integer: int}
        kind = next((kinds[of] for of in kinds if isinstance(domain, of)), None)
        if kind is None or not (log or isinstance(sampler, sample.Uniform)):
            raise ValueError(
                "only tune.uniform, randint, choice and their log and q variants have bounds to "
                "search within: sample_from, randn and the like have none."
            )
        low, high = domain.lower, domain.upper  # type: ignore[attr-defined]
        if step is None and kind is float:
            return _Place(name, path, Real(low, high, log=log).checked(), kind)
        # Above, Ray leaves out the bound where a step of 1 is the only one there can be.
        if kind is int and step in (None, 1):
            step, high = 1, high - 1
        assert step is not None
        return _on_a_grid(_Place(name, path, Integer(0, 0), kind), low, high, step, log=log)


def _on_a_grid(place: _Place, low: float, high: float, step: float, *, log: bool) -> _Place:
    """The place of the multiples of `step` from low to high, with its parameter.

    In the units of the value where our parameters can say so; otherwise counted in steps.
    """
    first, last = _inwards(low / step, math.ceil), _inwards(high / step, math.floor)
    if first > last and step != 1:
        raise ValueError(f"there is no multiple of {step!r} from {low!r} to {high!r}.")
    whole = float(step).is_integer()
    if whole and (step == 1 or not log):
        q = int(step)
        parameter = Integer(first * q, last * q, step=q, log=log)
    elif not log and last - first < _LISTED:
        parameter = Ordinal([_multiple(k, step) for k in range(first, last + 1)])
    else:
        name, parameter = f"{place.name} / {step:g}", Integer(first, last, log=log)
        return _Place(name, place.path, parameter.checked(), place.kind, step)
    return _Place(place.name, place.path, parameter.checked(), place.kind)


def _inwards(bound: float, rounded: Any) -> int:
    """The bound as a number of steps: 2.9999999999999996 is 3."""
    return round(bound) if math.isclose(bound, round(bound)) else rounded(bound)


def _multiple(k: int, step: float) -> float:
    """k times the step, without the digits that are rounding errors: 3 * 0.1 is 0.3."""
    return k * int(step) if float(step).is_integer() else float(f"{k * step:.12g}")


def _choices(categories: Sequence[Any]) -> Categorical:
    """The choices, each once; those that are no plain values stand under labels."""
    choices = distinct(map(native, categories))
    for choice in choices:
        _, domains, grids = parse_spec_vars({"": choice})
        if domains or grids:
            raise ValueError(
                "a choice that has domains itself is a conditional parameter: say so with a "
                "Space, as in {…, 'momentum': Real(0, 1, when={'optimizer': 'sgd'})}."
            )
    return Categorical(choices_of(choices)).checked()
