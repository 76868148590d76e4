"""Facts about the colours of the dashboard's page, computed from its files."""

import ast
import re
from pathlib import Path

import pytest

from bbmmopt import dashboard
from bbmmopt.plots.style import MARKS

STATIC = Path(dashboard.__file__).parent / "static"
STYLE = (STATIC / "style.css").read_text()
LIGHT, DARK = (
    dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
)


def luminance(colour: str) -> float:
    """Relative luminance, from 0 to 1. Source: WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """From 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_texts_and_controls_stand_out_as_wcag_asks(theme):
    texts = [
        *((text, on) for text in ("text", "muted", "bad") for on in ("page", "panel", "hover")),
        *(("text", "bad-panel"), ("on-accent", "accent")),
    ]
    weak = {pair: contrast(*(theme[name] for name in pair)) for pair in texts}
    assert {pair: found for pair, found in weak.items() if found < 4.5} == {}
    # Borders of controls, and the frame around what has the focus.
    edges = [(edge, on) for edge in ("edge", "accent") for on in ("page", "panel")]
    weak = {pair: contrast(*(theme[name] for name in pair)) for pair in edges}
    assert {pair: found for pair, found in weak.items() if found < 3} == {}


def test_points_have_the_faces_that_they_have_in_matplotlib():
    code = (STATIC / "charts.js").read_text()
    named = dict(re.findall(r'export const ([A-Z]+) = "(#\w+)";', code))
    named |= {"PAPER": "white", "INK": MARKS["observed"].edge}
    block = re.search(r"export const MARKS = \{(.*?)\n\};", code, re.DOTALL)
    assert block is not None
    found = {}
    for name, values in re.findall(r'^  "?([a-z ]+)"?: \[(.*?)\]', block[1], re.MULTILINE):
        shape, _, face, _ = values.split(", ")
        found[name] = (ast.literal_eval(shape), named[face])
    shapes = {
        **{"o": "circle", "s": "square", "v": "triangle-down", "X": "x"},
        **{"^": "triangle-up", "D": "diamond", "*": "star"},
    }
    expected = {name: (shapes[MARKS[name].marker], MARKS[name].face) for name in found}
    assert len(found) >= 8
    assert found == expected
