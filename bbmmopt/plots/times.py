"""Spans of time in units that people read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """A unit of time.

    Attributes:
        seconds: How long it is.
        name: What several of them are called.
    """

    seconds: float
    name: str


_UNITS = (
    Unit(1e-3, "milliseconds"),
    Unit(1.0, "seconds"),
    Unit(60.0, "minutes"),
    Unit(3600.0, "hours"),
    Unit(86400.0, "days"),
)


def unit_for(span: float) -> Unit:
    """The largest unit of which a span of seconds has at least two; seconds for a span of 0."""
    if span <= 0:
        return _UNITS[1]
    return next((unit for unit in reversed(_UNITS) if span >= 2 * unit.seconds), _UNITS[0])


def in_words(span: float) -> str:
    """A span of seconds with two digits: "3.2 hours"."""
    unit = unit_for(span)
    amount = span / unit.seconds
    return f"{amount:.0f} {unit.name}" if amount >= 10 else f"{amount:.2g} {unit.name}"
