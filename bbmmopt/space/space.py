"""Space: dicts in the user's units ⇄ rows of [0, 1]^d, and the checks on the way in.

Every parameter has one column. Where a conditional parameter is not active its column holds the
constant ½: an imputed constant keeps every kernel positive definite, and two rows that differ
only in what does not matter are the same row.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bbmmopt.space.checks import Value, did_you_mean, listing, naming, reading, shown
from bbmmopt.space.conditions import Conditions
from bbmmopt.space.constraints import InputConstraint, constraint_from_json
from bbmmopt.space.limits import Constraints
from bbmmopt.space.parameters import Categorical, Kind, Parameter, parameter_from_json
from bbmmopt.space.reading import parts_of

_MOST_POSITIONS = 10_000
_MOST_ROWS = 100_000


@dataclass(frozen=True)
class Column:
    """What a search needs to know about one column of the encoded rows.

    Attributes:
        name: The parameter.
        kind: continuous, ordered, categorical, or fixed when there is only one value.
        levels: Number of values; None for a continuous column.
    """

    name: str
    kind: Kind
    levels: int | None


class Space:
    """The points a study may try: named parameters, some of them conditional, under constraints.

    Args:
        parameters: The parameters by name. The order is that of the columns.
        constraints: `Linear`, `Simplex` and `Nonlinear` ones, in the user's units.

    Raises:
        ValueError, TypeError: If there are none, a name is not a non-empty string, a parameter
            makes no sense, a condition names an unknown parent, a real one, a value the parent
            does not have, or leads back to itself, or a constraint makes no sense or cannot be met
            within the bounds.
    """

    def __init__(
        self, parameters: Mapping[str, Parameter], constraints: Sequence[InputConstraint] = ()
    ) -> None:
        if not isinstance(parameters, Mapping):
            raise TypeError(
                f"Space needs {{name: parameter}}; got {parameters!r} "
                f"({type(parameters).__name__})."
            )
        if not parameters:
            raise ValueError('a space needs at least one parameter: Space({"x": Real(0, 1)}).')
        checked = {}
        for name, parameter in parameters.items():
            if not isinstance(name, str) or not name:
                raise ValueError(f"parameter names must be non-empty strings; got {name!r}.")
            if not isinstance(parameter, Parameter):
                raise TypeError(
                    f"parameter {name!r}: expected Real, Integer, Categorical or Ordinal; "
                    f"got {parameter!r} ({type(parameter).__name__})."
                )
            with naming(f"parameter {name!r}: "):
                checked[str.__str__(name)] = parameter.checked()
        self.parameters: Mapping[str, Parameter] = checked
        self.names: tuple[str, ...] = tuple(checked)
        self.columns: tuple[Column, ...] = tuple(
            Column(name, p.kind, p.levels) for name, p in checked.items()
        )
        self._objects = {
            name: p.objects
            for name, p in checked.items()
            if isinstance(p, Categorical) and p.objects is not None
        }
        self._conditions = Conditions(checked)
        self.limits = Constraints(constraints, checked)  # as the search needs them
        self.constraints: tuple[InputConstraint, ...] = self.limits.given
        self._plan_snap()

    def _plan_snap(self) -> None:
        """Sort the columns into those that `snap` treats alike."""
        lattices = [(j, p.lattice) for j, p in enumerate(self.parameters.values()) if p.lattice]
        even = [(j, lattice) for j, lattice in lattices if lattice.even]
        self._even = np.array([j for j, _ in even], dtype=np.intp)
        self._even_sizes = np.array([lattice.size for _, lattice in even], dtype=np.float64)
        self._uneven = [(j, lattice) for j, lattice in lattices if not lattice.even]
        self._constant = [
            j
            for j, p in enumerate(self.parameters.values())
            if p.kind == "fixed" and p.lattice is None
        ]

    # ----------------------------------------------------------------------------------
    # Rows of the unit cube
    # ----------------------------------------------------------------------------------

    def encode(self, params: Mapping[str, Any]) -> np.ndarray:
        """The row of a point, shape (d,): float64 in [0, 1], or outside for values out of bounds.

        Args:
            params: A complete point as `validate` or `decode` returns it.
        """
        return np.array(self._row(params))  # (d,)

    def encode_many(self, points: Iterable[Mapping[str, Any]]) -> np.ndarray:
        """The rows of several points, shape (n, d); n may be 0."""
        rows = [self._row(params) for params in points]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self))

    def _row(self, params: Mapping[str, Any]) -> list[float]:
        row = []
        for name, parameter in self.parameters.items():
            if name in params:
                row.append(parameter.to_unit(params[name]))
            elif name in self._conditions.needs:
                row.append(0.5)
            else:
                self.validate(params)  # says what is missing
        return row

    def decode(self, row: np.ndarray) -> dict[str, Value]:
        """The point at a row of shape (d,): active parameters only, in order, in native types.

        Raises:
            ValueError: If the shape is another, or an element is not finite.
        """
        row = np.asarray(row, dtype=np.float64)
        if row.shape != (len(self),) or not np.isfinite(row).all():
            raise ValueError(
                f"a row must have shape ({len(self)},) and be finite; "
                f"got {row.tolist()} of shape {row.shape}."
            )
        clipped = row.clip(0.0, 1.0).tolist()
        values = {
            name: p.from_unit(u)
            for (name, p), u in zip(self.parameters.items(), clipped, strict=True)
        }
        return self._conditions.drop_inactive(values)

    def snap(self, X: np.ndarray) -> np.ndarray:
        """Move every row onto the lattice of the space: a new array of the same shape (..., d).

        Discrete columns go to the level in whose cell they lie, continuous ones are clipped to
        [0, 1], fixed and inactive ones become ½.
        """
        X = np.asarray(X, dtype=np.float64).clip(0.0, 1.0)
        if self._even.size:
            k = self._even_sizes
            X[..., self._even] = (np.floor(X[..., self._even] * k).clip(max=k - 1) + 0.5) / k
        for j, lattice in self._uneven:
            X[..., j] = lattice.snap(X[..., j])
        for j in self._constant:
            X[..., j] = 0.5
        if self._conditions:
            X[~self.active(X)] = 0.5
        return X

    def active(self, X: np.ndarray) -> np.ndarray:
        """Which parameters matter at each row of X (..., d): bool, same shape."""
        return self._conditions.active(np.asarray(X, dtype=np.float64))

    def positions(self, j: int) -> np.ndarray:
        """Encoded values of all levels of column j, increasing, shape (k,).

        Raises:
            ValueError: If the column is continuous or has over 10,000 levels.
        """
        column = self.columns[j]
        if column.levels is None or column.levels > _MOST_POSITIONS:
            raise ValueError(
                f"column {j} ({column.name!r}, {column.kind}) has "
                f"{column.levels or 'infinitely many'} positions; up to {_MOST_POSITIONS} can be "
                f"listed. Use snap."
            )
        lattice = self.parameters[column.name].lattice
        return np.array([0.5]) if lattice is None else lattice.positions()

    # ----------------------------------------------------------------------------------
    # How many points there are
    # ----------------------------------------------------------------------------------

    @property
    def size(self) -> int | None:
        """Number of distinct points; None if a parameter is continuous.

        Points that break a constraint are counted too. Conditions are taken into account, as long
        as the parents have up to 100,000 combinations; beyond, this is the product of all numbers
        of levels, which is an upper bound.
        """
        levels = [column.levels for column in self.columns]
        if None in levels:
            return None
        product = math.prod(k for k in levels if k is not None)
        if not self._conditions:
            return product
        parents = self._conditions.parents
        try:
            rows = self._rows(parents)
        except ValueError:
            return product
        others = [j for j in range(len(self)) if j not in parents]
        masks, counts = np.unique(self.active(rows)[:, others], axis=0, return_counts=True)
        return sum(
            int(count) * math.prod(levels[j] or 1 for j, on in zip(others, mask, strict=True) if on)
            for mask, count in zip(masks, counts, strict=True)
        )

    def enumerate(self) -> np.ndarray:
        """All distinct rows of a finite space, shape (size, d), whether `feasible` or not.

        Raises:
            ValueError: If the space is infinite or has over 100,000 points.
        """
        return self._rows(set(range(len(self))))

    def _rows(self, columns: set[int]) -> np.ndarray:
        """All distinct rows over these columns, the others ½. Closed under taking parents."""
        rows = np.full((1, len(self)), 0.5)  # (n, d), growing column by column
        for j in map(self.names.index, self._conditions.order):
            if j not in columns:
                continue
            k = self.columns[j].levels
            on = self.active(rows)[:, j]
            if k is None or int(on.sum()) * k > _MOST_ROWS:
                raise ValueError(
                    f"only spaces of up to {_MOST_ROWS} points can be listed; "
                    f"parameter {self.names[j]!r} makes this one larger."
                )
            grown = np.repeat(rows[on], k, axis=0)
            grown[:, j] = np.tile(self.positions(j), int(on.sum())) if k > 1 else 0.5
            rows = np.concatenate([grown, rows[~on]])
        if len(rows) > _MOST_ROWS:
            raise ValueError(f"only spaces of up to {_MOST_ROWS} points can be listed.")
        return rows

    # ----------------------------------------------------------------------------------
    # Constraints
    # ----------------------------------------------------------------------------------

    def violations(self, params: Mapping[str, Any]) -> list[str]:
        """Which constraints a complete point breaks: a sentence each, none when it may be tried.

        Args:
            params: A complete point as `validate` or `decode` returns it.
        """
        return self.limits.violations(params)

    def satisfies(self, params: Mapping[str, Any]) -> bool:
        """Whether a complete point meets every constraint."""
        return self.limits.satisfied(params)

    def feasible(self, X: np.ndarray, *, exact: bool = False) -> np.ndarray:
        """Whether the points that `decode` gives at the rows of X (m, d) meet every constraint.

        Args:
            X: Rows.
            exact: Have equalities met but for rounding, as in points that are proposed; points
                that are entered may miss them by a little more, see `Linear`.

        Returns:
            bool, shape (m,).
        """
        X = np.asarray(X, dtype=np.float64)
        return self.limits.feasible(X, self.decode, exact=exact)

    # ----------------------------------------------------------------------------------
    # Dicts in the user's units
    # ----------------------------------------------------------------------------------

    def validate(
        self, params: Mapping[str, Any], *, where: str = "", outside: bool = False
    ) -> dict[str, Value]:
        """The same point in native types and in declaration order.

        Args:
            params: A value for each active parameter.
            where: What the point belongs to, such as "trial 3", for the message.
            outside: Accept numbers beyond the bounds and points that break constraints: data is
                data.

        Raises:
            ValueError, TypeError: If a parameter is unknown, missing or not active, its value
                is out of bounds, between the steps, or of the wrong type, or if the point breaks
                a constraint.
        """
        values = self._validate(params, where, outside, complete=True)
        broken = [] if outside else self.violations(values)
        if broken:
            raise ValueError(f"{where}: {' '.join(broken)}" if where else " ".join(broken))
        return values

    def validate_partial(
        self, params: Mapping[str, Any], *, where: str = "", outside: bool = False
    ) -> dict[str, Value]:
        """`validate` for a point of which some parameters are still open.

        A conditional parameter is refused only when the values given rule it out. Constraints are
        not looked at.
        """
        return self._validate(params, where, outside, complete=False)

    def _validate(
        self, params: Mapping[str, Any], where: str, outside: bool, *, complete: bool
    ) -> dict[str, Value]:
        prefix = f"{where}: " if where else ""
        if not isinstance(params, Mapping):
            raise TypeError(
                f"{prefix}expected {{parameter: value}}; got {shown(params)} "
                f"({type(params).__name__})."
            )
        for name in params:
            if name not in self.parameters:
                hint = did_you_mean(name, self.names) or f" The space has {listing(self.names)}."
                raise ValueError(f"{prefix}unknown parameter {shown(name)}.{hint}")
        values: dict[str, Value] = {}
        off: set[str] = set()  # parameters that cannot be active
        for name in self._conditions.order:
            unmet = self._conditions.unmet(name, values, off)
            if unmet is not None:
                off.add(name)
                if name in params:
                    raise ValueError(
                        f"{prefix}parameter {name!r} = {shown(params[name])} is not active: "
                        f"{unmet} Leave it out."
                    )
            elif name in params:
                with naming(f"{prefix}parameter {name!r}: "):
                    values[name] = self.parameters[name].check(params[name], outside=outside)
            elif complete:
                expected = self.parameters[name].expected
                raise ValueError(f"{prefix}parameter {name!r} is missing: give it {expected}.")
        return {name: values[name] for name in self.names if name in values}

    def arguments(self, params: Mapping[str, Value]) -> dict[str, Any]:
        """What to call the objective with: labels that stand for objects become the objects.

        A label that is none of the choices, as of a trial from before, stays as it is.
        """
        result: dict[str, Any] = dict(params)
        for name, objects in self._objects.items():
            if name in result:
                result[name] = objects.get(str(result[name]), result[name])
        return result

    # ----------------------------------------------------------------------------------
    # Written down, compared
    # ----------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """JSON types only. A list, because JSON objects need not keep their order."""
        data = {"parameters": [{"name": n} | p.to_json() for n, p in self.parameters.items()]}
        if self.constraints:
            data["constraints"] = [c.to_json() for c in self.constraints]
        return data

    @classmethod
    def from_json(
        cls, data: Mapping[str, Any], objects: Mapping[str, Mapping[str, Any]] | None = None
    ) -> "Space":
        """The space that `to_json` wrote.

        A `Nonlinear` constraint comes back by name: its function is not written down, and
        evaluating it says so.

        Args:
            data: What `to_json` returned.
            objects: {parameter: {label: object}} for choices that stand for objects, which are
                not written down; without it, their labels are handed out.

        Raises:
            ValueError: If it is no such thing, or makes no sense, naming the place.
        """
        parameters = {}
        listed, constraints = parts_of(data)
        for fields in listed:
            own = (objects or {}).get(fields["name"])
            with reading(f"parameter {fields['name']!r}: "):
                parameters[fields["name"]] = parameter_from_json(fields, own)
        with reading():
            return cls(parameters, [constraint_from_json(fields) for fields in constraints])

    def difference(self, other: "Space") -> list[str]:
        """How another space differs from this one: a sentence each, none when they are equal."""
        found = []
        for name in self.names:
            if name not in other.parameters:
                found.append(f"parameter {name!r} was removed.")
        for name, theirs in other.parameters.items():
            if name not in self.parameters:
                found.append(f"parameter {name!r} was added.")
                continue
            old, new = self.parameters[name].to_json(), theirs.to_json()
            for field in old.keys() | new.keys():
                was, now = (json.dumps(side.get(field), ensure_ascii=False) for side in (old, new))
                if was != now:
                    found.append(f"parameter {name!r}: {field} was {was} and is now {now}.")
        if not found and self.names != other.names:
            found.append(f"the order was {listing(self.names)} and is now {listing(other.names)}.")
        ours, others = self.constraints, other.constraints
        changed = [f"constraint {c!r} was removed." for c in ours if c not in others]
        changed += [f"constraint {c!r} was added." for c in others if c not in ours]
        if not changed and ours != others:
            changed = [f"the constraints were {list(ours)!r} and are now {list(others)!r}."]
        return sorted(found + changed)

    def __len__(self) -> int:
        """Number of columns, d."""
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Space):
            return NotImplemented
        return (
            list(self.parameters.items()) == list(other.parameters.items())
            and self.constraints == other.constraints
        )

    def __hash__(self) -> int:
        return hash((tuple(self.parameters.items()), self.constraints))

    def _repr_html_(self) -> str:
        from bbmmopt.space.html import space_html

        return space_html(self)

    def __repr__(self) -> str:
        lines = (f"    {name!r}: {parameter!r},\n" for name, parameter in self.parameters.items())
        constraints = f", constraints={list(self.constraints)!r}" if self.constraints else ""
        return f"Space({{\n{''.join(lines)}}}{constraints})"
