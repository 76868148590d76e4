"""Problem: what is tuned, for which objectives and directions, under which constraints.

Two things happen here and nowhere else: signs flip (the models maximise, the user may not), and
told values are checked before any state changes.
"""

import math
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, get_args

import numpy as np

from bbmmopt.pareto import pareto_front_of
from bbmmopt.space import Parameter, Space
from bbmmopt.space.checks import listing, no_number, reading, shown
from bbmmopt.space.reading import fields_of
from bbmmopt.trial import Trial, TrialState

Direction = Literal["minimize", "maximize"]
Noise = Literal["unknown", "none", "noisy"]
Sense = Literal["<=", ">="]


@dataclass(frozen=True)
class Objective:
    """A number to make small or large.

    Attributes:
        name: What the user calls it.
        direction: "minimize" or "maximize".
        noise: "none": exact and repeatable, a point seen is never proposed again. "unknown": the
            noise is learnt, a point seen is never proposed again. "noisy": the noise is learnt,
            and points may be repeated.
    """

    name: str
    direction: Direction
    noise: Noise = "unknown"

    def __post_init__(self) -> None:
        _check_name("objective", self.name)
        _check_word(f"direction of objective {self.name!r}", self.direction, get_args(Direction))
        _check_word(f"noise of objective {self.name!r}", self.noise, get_args(Noise))

    @property
    def sign(self) -> int:
        """What a value is multiplied by to make larger better."""
        return 1 if self.direction == "maximize" else -1


@dataclass(frozen=True)
class Constraint:
    """A number told with each result; the trial is feasible where it keeps its bound.

    Attributes:
        name: What the user calls it.
        bound: What it is compared with.
        sense: "<=" if it must be at most the bound, ">=" if at least.
    """

    name: str
    bound: float = 0.0
    sense: Sense = "<="

    def __post_init__(self) -> None:
        _check_name("constraint", self.name)
        _check_word(f"sense of constraint {self.name!r}", self.sense, get_args(Sense))
        bound = to_number(f"bound of constraint {self.name!r}", self.bound)
        if not math.isfinite(bound):
            raise ValueError(
                f"bound of constraint {self.name!r} must be finite; got {bound}. What is never "
                f"broken need not be told."
            )
        object.__setattr__(self, "bound", bound)

    def __str__(self) -> str:
        return f"{self.name} {self.limit}"

    @property
    def limit(self) -> str:
        """What is asked of it, in words after its name: "≤ 200"."""
        return f"{'≤' if self.sense == '<=' else '≥'} {self.bound:g}"

    @property
    def sign(self) -> int:
        """What a value is multiplied by to make larger better."""
        return 1 if self.sense == ">=" else -1

    def margin(self, value: float) -> float:
        """How far a value keeps the bound: it holds from 0 on."""
        difference = value - self.bound if self.sense == ">=" else self.bound - value
        return min(max(difference, -_LARGEST), _LARGEST)

    def to_json(self) -> dict[str, Any]:
        """JSON types only; what has its default is left out."""
        bounded = self.bound != 0.0 or self.sense != "<="
        return {"name": self.name} | ({"bound": self.bound, "sense": self.sense} if bounded else {})


@dataclass(frozen=True)
class Outcome:
    """What was told about a trial, checked.

    Attributes:
        values: {objective: value}, in the user's sign; empty when it counts as a failure.
        standard_errors: {objective: standard error or None}.
        constraints: {constraint: value}.
        failure: Why the trial must count as failed (a NaN, an infinity); None when it is fine.
    """

    values: dict[str, float] = field(default_factory=dict)
    standard_errors: dict[str, float | None] = field(default_factory=dict)
    constraints: dict[str, float] = field(default_factory=dict)
    failure: str | None = None


@dataclass(frozen=True)
class Problem:
    """What is to be optimised.

    Attributes:
        space: The points that may be tried.
        objectives: At least one.
        constraints: Numbers that must keep their bounds for a trial to be feasible.
        reference_point: {objective: value} that counts as worthless, for several objectives.
    """

    space: Space
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    reference_point: dict[str, float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "objectives", tuple(self.objectives))
        object.__setattr__(self, "constraints", tuple(self.constraints))
        if not self.objectives:
            raise ValueError(f"a problem needs an objective. {_ADVICE}")
        names = [part.name for part in (*self.objectives, *self.constraints)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"objectives and constraints need different names; {listing(twice)} came twice."
            )
        if self.reference_point is not None:
            self._check_reference_point(self.reference_point)

    def _check_reference_point(self, point: Mapping[str, Any]) -> None:
        if set(point) != set(self.names):
            raise ValueError(
                f"reference_point must have a value for {listing(self.names)}; "
                f"got {listing(point)}."
            )
        checked = {
            name: to_number(f"reference_point[{name!r}]", point[name]) for name in self.names
        }
        if not all(map(math.isfinite, checked.values())):
            raise ValueError(f"reference_point must be finite; got {checked}.")
        object.__setattr__(self, "reference_point", checked)

    @classmethod
    def make(
        cls,
        space: Space | Mapping[str, Parameter],
        minimize: str | Sequence[str] | None = None,
        maximize: str | Sequence[str] | None = None,
        noise: Noise | Mapping[str, Noise] = "unknown",
        constraints: "Constraints" = (),
        reference_point: Mapping[str, float] | None = None,
    ) -> "Problem":
        """A problem from names: the direction is always said, as a wrong sign is easily missed.

        Args:
            space: A Space, or the parameters of one.
            minimize: Name or names of the objectives that should be small.
            maximize: Name or names of the objectives that should be large.
            noise: For all objectives, or {objective: noise}; see `Objective`.
            constraints: Numbers told with each result, and their bounds: texts such as
                "latency <= 200" or "accuracy >= 0.9", where a name alone must be at most 0; or
                {"latency": 200, "accuracy": (">=", 0.9)}, where a number is an upper bound.
            reference_point: {objective: value}; see `Problem`.

        Raises:
            ValueError: If no objective is named, a name comes twice, or a bound cannot be read.
        """
        directions: list[tuple[str, Direction]] = [
            *((name, "minimize") for name in _names("minimize", minimize)),
            *((name, "maximize") for name in _names("maximize", maximize)),
        ]
        known = [name for name, _ in directions]
        if isinstance(noise, Mapping):
            for name in noise:
                if name not in known:
                    raise ValueError(f"noise names {name!r}; the objectives are {listing(known)}.")
            noises: list[Noise] = [noise.get(name, "unknown") for name in known]
        else:
            noises = [noise] * len(known)
        return cls(
            space if isinstance(space, Space) else Space(space),
            tuple(
                Objective(name, direction, level)
                for (name, direction), level in zip(directions, noises, strict=True)
            ),
            tuple(_constraints(constraints)),
            None if reference_point is None else dict(reference_point),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the objectives."""
        return tuple(objective.name for objective in self.objectives)

    # ----------------------------------------------------------------------------------
    # Signs: the one place
    # ----------------------------------------------------------------------------------

    def to_model(self, values: Mapping[str, float]) -> list[float]:
        """The values in the order of the objectives, larger being better."""
        return [objective.sign * values[objective.name] for objective in self.objectives]

    def from_model(self, values: Sequence[Any]) -> dict[str, Any]:
        """Undo `to_model`: {objective: value} in the user's sign, from numbers or arrays."""
        return {
            objective.name: objective.sign * value
            for objective, value in zip(self.objectives, values, strict=True)
        }

    @property
    def reference(self) -> np.ndarray | None:
        """The reference point in the order of the objectives, larger being better, shape (k,)."""
        if self.reference_point is None:
            return None
        return np.array(self.to_model(self.reference_point))

    def is_feasible(self, trial: Trial) -> bool:
        """Whether every constraint was told and keeps its bound."""
        return all(
            c.name in trial.constraints and c.margin(trial.constraints[c.name]) >= 0
            for c in self.constraints
        )

    def best_of(self, trials: Iterable[Trial]) -> Trial | None:
        """The complete, feasible trial with the best value; of equals the one asked first.

        Raises:
            ValueError: If there are several objectives: then no single trial is the best.
        """
        if len(self.objectives) != 1:
            raise ValueError(
                f"with several objectives ({listing(self.names)}) no trial is the best; "
                f"compare trial.values."
            )
        candidates = (
            trial
            for trial in trials
            if trial.state == TrialState.COMPLETE and trial.values and self.is_feasible(trial)
        )
        return min(
            candidates, key=lambda t: (-self.to_model(t.values or {})[0], t.number), default=None
        )

    def pareto_front_of(self, trials: Iterable[Trial]) -> list[Trial]:
        """The complete, feasible trials that no other is as good as in all objectives and better
        in one; in order of the first objective, best first.
        """
        candidates = [
            trial
            for trial in trials
            if trial.state == TrialState.COMPLETE and trial.values and self.is_feasible(trial)
        ]
        Y = np.array([self.to_model(trial.values or {}) for trial in candidates])
        if not len(Y):
            return []
        front = [candidates[i] for i in np.flatnonzero(pareto_front_of(Y))]
        return sorted(front, key=lambda t: (-self.to_model(t.values or {})[0], t.number))

    # ----------------------------------------------------------------------------------
    # The door for told values
    # ----------------------------------------------------------------------------------

    def check_values(
        self,
        told: Any,
        *,
        trial_number: int | None = None,
        constraints: Mapping[str, Any] | None = None,
    ) -> Outcome:
        """Check what the user told, before anything is changed by it.

        Args:
            told: A number; a pair (mean, standard error); or {name: number or pair} of every
                objective and, if they are not given apart, every constraint. Numbers may be
                booleans, numpy scalars, and arrays or tensors of one element.
            trial_number: For the messages.
            constraints: {constraint: value}.

        Returns:
            The outcome. NaN and the bad infinity (inf when minimising) are a failure in it.

        Raises:
            TypeError: If something is not a number.
            ValueError: If names are missing, unknown or told twice, if an infinity is the
                impossible one, or a standard error is negative or not finite.
        """
        where = "" if trial_number is None else f"trial {trial_number}: "
        numbers_told, errors = {}, {}
        for name, value in self._by_name(told, constraints, where).items():
            mean, error = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
            numbers_told[name] = to_number(f"{where}{name!r}", mean)
            if error is not None:
                if name not in self.names:
                    raise TypeError(
                        f"{where}constraint {name!r} must be a number; got {shown(value)}. "
                        f"Standard errors go with objectives."
                    )
                errors[name] = to_number(f"{where}standard error of {name!r}", error)
                if not 0 <= errors[name] < math.inf:
                    raise ValueError(
                        f"{where}the standard error of {name!r} must be finite and at least 0; "
                        f"got {errors[name]}."
                    )
        failures = [
            text
            for name, value in numbers_told.items()
            if (text := self._failure(name, value, where))
        ]
        if failures:
            return Outcome(failure=f"{'; '.join(failures)} (told {numbers_told})")
        return Outcome(
            {name: numbers_told[name] for name in self.names},
            {name: errors.get(name) for name in self.names},
            {c.name: numbers_told[c.name] for c in self.constraints},
        )

    def _by_name(
        self, told: Any, constraints: Mapping[str, Any] | None, where: str
    ) -> dict[str, Any]:
        """Everything told, under its name, with all the names and no others."""
        if isinstance(told, Mapping):
            given = dict(told)
        elif len(self.objectives) == 1 and _is_one(told):
            given = {self.names[0]: told}
        else:
            raise _not_one(told, self.names, where)
        if constraints is not None and not isinstance(constraints, Mapping):
            raise TypeError(
                f"{where}constraints must be {{name: value}}; got {shown(constraints)} "
                f"({type(constraints).__name__})."
            )
        for name, value in (constraints or {}).items():
            if name in given:
                raise ValueError(f"{where}constraint {name!r} was told twice.")
            given[name] = value
        expected = [*self.names, *(c.name for c in self.constraints)]
        missing = [name for name in expected if name not in given]
        unknown = [name for name in given if name not in expected]
        if missing or unknown:
            raise ValueError(
                f"{where}expected values named {listing(expected)}; got {listing(given) or 'none'}."
                + f" Missing: {listing(missing)}." * bool(missing)
                + f" Unknown: {listing(unknown)}." * bool(unknown)
            )
        return given

    def _failure(self, name: str, value: float, where: str) -> str | None:
        """Why this value makes the trial a failure, if it does."""
        if math.isfinite(value):
            return None
        sign = next(
            part.sign for part in (*self.objectives, *self.constraints) if part.name == name
        )
        if sign * value == math.inf:
            raise ValueError(
                f"{where}{name!r} is {value}, better than anything can be. Tell the real value, "
                f'or failed="why" if there is none.'
            )
        kind = "objective" if name in self.names else "constraint"
        return f"{kind} {name!r} is {value}"

    # ----------------------------------------------------------------------------------
    # Written down, compared
    # ----------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""
        return {
            "space": self.space.to_json(),
            "objectives": [
                {"name": o.name, "direction": o.direction, "noise": o.noise}
                for o in self.objectives
            ],
            "constraints": [c.to_json() for c in self.constraints],
            "reference_point": self.reference_point and dict(self.reference_point),
        }

    @classmethod
    def from_json(
        cls, data: Mapping[str, Any], objects: Mapping[str, Mapping[str, Any]] | None = None
    ) -> "Problem":
        """The problem that `to_json` wrote; for `objects` see `Space.from_json`.

        Raises:
            ValueError: If it is no such thing, or makes no sense, naming the place.
        """
        what = ("space", "objectives", "constraints", "reference_point")
        fields_of(data, "a problem", what)
        point = data["reference_point"]
        if point is not None and not isinstance(point, Mapping):
            raise ValueError(f"reference_point must be {{objective: value}}; got {shown(point)}.")
        with reading("space: "):
            space = Space.from_json(data["space"], objects)
        with reading():
            return cls(
                space,
                tuple(Objective(**part) for part in _parts(data, "objectives", Objective)),
                tuple(Constraint(**part) for part in _parts(data, "constraints", Constraint)),
                None if point is None else dict(point),
            )

    def difference(self, other: "Problem") -> list[str]:
        """How another problem differs from this one: a sentence each, none when they are equal."""
        found = self.space.difference(other.space)
        old = {o.name: o for o in self.objectives}
        new = {o.name: o for o in other.objectives}
        found += [f"objective {name!r} was removed." for name in old if name not in new]
        found += [f"objective {name!r} was added." for name in new if name not in old]
        for name in old:
            for what in ("direction", "noise") if name in new else ():
                was, now = getattr(old[name], what), getattr(new[name], what)
                if was != now:
                    found.append(f"objective {name!r}: {what} was {was} and is now {now}.")
        if set(old) == set(new) and self.names != other.names:
            found.append(
                f"the order of the objectives was {listing(old)} and is now {listing(new)}."
            )
        for what in ("constraints", "reference_point"):
            was, now = self.to_json()[what], other.to_json()[what]
            if was != now:
                found.append(f"{what}: was {was} and is now {now}.")
        return found


def _parts(data: Mapping[str, Any], what: str, kind: type) -> list[Mapping[str, Any]]:
    """What each part of a list is built of, looked at: these fields and no others."""
    if not isinstance(data[what], list):
        raise ValueError(f"{what} must be a list; got {shown(data[what])}.")
    required = [f.name for f in fields(kind) if f.default is MISSING]
    optional = [f.name for f in fields(kind) if f.default is not MISSING]
    return [
        fields_of(part, f"{what}[{i}]", required, optional) for i, part in enumerate(data[what])
    ]


# What `Problem.make` takes as constraints.
Constraints = str | Constraint | Sequence[str | Constraint] | Mapping[str, Any]

_LARGEST = np.finfo(float).max  # differences of doubles may overflow
_BOUNDED = re.compile(r"\s*(.*\S)\s*(<=|>=|≤|≥)\s*(\S+)\s*")
_BOUNDS = (
    'Write "latency <= 200" or "accuracy >= 0.9", {"latency": 200} for an upper bound, or '
    '{"accuracy": (">=", 0.9)}.'
)

_ADVICE = 'Name it with its direction: minimize="error" or maximize="accuracy".'


def _is_one(told: Any) -> bool:
    """Whether told can be the value of one objective. Lists are not: they may be several."""
    return not isinstance(told, list | tuple) or (isinstance(told, tuple) and len(told) == 2)


def _not_one(told: Any, names: Sequence[str], where: str) -> Exception:
    example = "{" + ", ".join(f"{name!r}: …" for name in names) + "}"
    text = f"{where}expected {example}; got {shown(told)} ({type(told).__name__})."
    if len(names) == 1:
        text += " A pair (mean, standard error) must be a tuple."
    return (ValueError if isinstance(told, list | tuple | numbers.Number) else TypeError)(text)


def to_number(what: str, value: Any) -> float:
    """The float inside a number, or inside an array or tensor of one element."""
    plain = value
    if no_number(value):
        raise TypeError(
            f"{what} must be a number; got {shown(value)} ({type(value).__name__}): "
            f"dates, masked elements and tensors without data are none."
        )
    if callable(getattr(value, "item", None)):
        try:
            plain = value.item()
        except (ValueError, RuntimeError):
            shape = tuple(getattr(value, "shape", ()))
            raise ValueError(f"{what} must be one number; got an array of shape {shape}.") from None
    if isinstance(plain, numbers.Real):
        try:
            return float(plain)
        except OverflowError:
            raise ValueError(f"{what} is too large for a float.") from None
    raise TypeError(f"{what} must be a number; got {shown(value)} ({type(value).__name__}).")


def _names(argument: str, given: str | Sequence[str] | None) -> list[str]:
    if given is None:
        return []
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list | tuple):
        raise TypeError(f"{argument} must be a name or a list of names; got {given!r}. {_ADVICE}")
    return list(names)


def _constraints(given: Constraints) -> list[Constraint]:
    if isinstance(given, Mapping):
        return [_bounded(name, bound) for name, bound in given.items()]
    several = [given] if isinstance(given, str | Constraint) else given
    if not isinstance(several, list | tuple):
        raise TypeError(f"constraints must be texts or {{name: bound}}; got {given!r}. {_BOUNDS}")
    return [c if isinstance(c, Constraint) else _parsed(c) for c in several]


def _bounded(name: Any, bound: Any) -> Constraint:
    """The constraint of {name: bound} or {name: (sense, bound)}."""
    if isinstance(bound, list | tuple):
        if len(bound) != 2:
            raise ValueError(f"constraint {name!r}: expected (sense, bound); got {bound!r}.")
        return Constraint(name, bound[1], bound[0])
    if isinstance(bound, str):
        raise TypeError(f"constraint {name!r}: {bound!r} is no bound. {_BOUNDS}")
    return Constraint(name, bound)


def _parsed(text: Any) -> Constraint:
    """The constraint of "latency <= 200", or of a name alone."""
    if not isinstance(text, str) or not re.search("[<>≤≥]", text):
        return Constraint(text)
    match = _BOUNDED.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        bound = float(match[3])
    except ValueError:
        raise ValueError(f"constraint {text!r} cannot be read. {_BOUNDS}") from None
    return Constraint(match[1], bound, ">=" if match[2] in (">=", "≥") else "<=")


def _check_name(what: str, name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(f"{what} needs a name, a non-empty string; got {name!r}.")


def _check_word(what: str, word: Any, allowed: tuple[str, ...]) -> None:
    if word not in allowed:
        raise ValueError(f"{what} must be {' or '.join(map(repr, allowed))}; got {word!r}.")
