"""`when=`: which parameters are active, for a dict of values and for whole arrays of rows."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bbmmopt.space.checks import Value, did_you_mean, listing, naming
from bbmmopt.space.parameters import Parameter
from bbmmopt.space.scales import Lattice, LogLattice

# Up to so many levels of a parent, a table says which of them are allowed.
_TABLE = 10_000


@dataclass(frozen=True)
class Need:
    """One condition of a parameter: its parent must be active and have one of these values.

    Attributes:
        parent: Name of the parent.
        column: Its column.
        values: The values that will do.
        lattice: Tells the parent's level from its position.
        levels: Levels of `values`, shape (a,).
        table: Whether each level will do, shape (k,); None where k is large.
    """

    parent: str
    column: int
    values: tuple[Value, ...]
    lattice: Lattice | LogLattice
    levels: np.ndarray
    table: np.ndarray | None

    def met(self, U: np.ndarray) -> np.ndarray:
        """Whether each position in the parent's column is at one of the levels: bool, as U."""
        levels = self.lattice.levels(U)
        return np.isin(levels, self.levels) if self.table is None else self.table[levels]


class Conditions:
    """The conditions of a whole space.

    Args:
        parameters: All parameters of the space, checked, in the order of the columns.

    Raises:
        ValueError, TypeError: If a condition names an unknown parent, a real one, a value that
            the parent does not have, or leads back to itself.
    """

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        names = list(parameters)
        needs = {
            name: tuple(
                _need(name, parent, values, parameters, names.index(parent))
                for parent, values in _known_parents(name, parameter, names).items()
            )
            for name, parameter in parameters.items()
            if parameter.when is not None
        }
        # Each conditional parameter after all of its parents, so one pass settles everything.
        self.needs = {name: needs[name] for name in _parents_first(needs)}
        self._columns = [(names.index(name), own) for name, own in self.needs.items()]
        self.parents = {need.column for own in self.needs.values() for need in own}
        self.order = [name for name in names if name not in needs] + list(self.needs)

    def __bool__(self) -> bool:
        """Whether any parameter is conditional."""
        return bool(self.needs)

    def active(self, X: np.ndarray) -> np.ndarray:
        """Which parameters matter at each row of X (..., d): bool, same shape."""
        result = np.ones(X.shape, dtype=bool)
        for j, needs in self._columns:
            for need in needs:
                result[..., j] &= result[..., need.column] & need.met(X[..., need.column])
        return result

    def drop_inactive(self, values: dict[str, Value]) -> dict[str, Value]:
        """Only the active ones of a value for every parameter."""
        kept = dict(values)
        for name, needs in self.needs.items():
            if not all(need.parent in kept and kept[need.parent] in need.values for need in needs):
                del kept[name]
        return kept

    def unmet(self, name: str, values: Mapping[str, Value], off: set[str]) -> str | None:
        """Why a parameter cannot be active, in words; None if it can be, as far as is known.

        Args:
            name: The parameter.
            values: The values given so far. A parent without one is still open.
            off: Parameters known not to be active.
        """
        for need in self.needs.get(name, ()):
            wanted = f"it needs {need.parent!r} to be {' or '.join(map(repr, need.values))}"
            if need.parent in off:
                return f"{wanted}, which is not active either."
            if need.parent in values and values[need.parent] not in need.values:
                return f"{wanted}, not {values[need.parent]!r}."
        return None


def _known_parents(
    name: str, parameter: Parameter, names: list[str]
) -> Mapping[str, tuple[Value, ...]]:
    when = parameter.when or {}
    for parent in when:
        if parent not in names:
            raise ValueError(
                f"parameter {name!r}: when names {parent!r}, which is not in the space; it has "
                f"{listing(names)}.{did_you_mean(parent, names)}"
            )
    return when


def _need(
    name: str,
    parent: str,
    values: tuple[Value, ...],
    parameters: Mapping[str, Parameter],
    column: int,
) -> Need:
    of = parameters[parent]
    lattice = of.lattice
    if lattice is None:
        raise ValueError(
            f"parameter {name!r}: when names {parent!r}, which is Real. Conditions need an "
            f"Integer, Categorical or Ordinal parent."
        )
    with naming(f"parameter {name!r}: when[{parent!r}]: "):
        values = tuple(of.check(value) for value in values)
    levels = np.array([lattice.level(of.to_unit(v)) for v in values], dtype=np.int64)  # (a,)
    table = None
    if lattice.size <= _TABLE:
        table = np.zeros(lattice.size, dtype=bool)  # (k,)
        table[levels] = True
    return Need(parent, column, values, lattice, levels, table)


def _parents_first(needs: Mapping[str, tuple[Need, ...]]) -> list[str]:
    """The conditional parameters, each after its parents; ValueError if that is impossible."""
    done: dict[str, None] = {}  # in order
    while len(done) < len(needs):
        ready = [
            name
            for name, own in needs.items()
            if name not in done and all(n.parent in done or n.parent not in needs for n in own)
        ]
        if not ready:
            circle = [name for name in needs if name not in done]
            raise ValueError(
                f"parameter {circle[0]!r}: the conditions of {listing(circle)} go round in a "
                f"circle. Let one of them be unconditional."
            )
        done |= dict.fromkeys(ready)
    return list(done)
