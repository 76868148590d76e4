"""HTML for notebooks: what `_repr_html_` of our classes is made of. Everything is escaped.

No colours of its own, no script, nothing from outside: it takes those of the page, light or dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

_LINE = "1px solid rgba(128,128,128,.35)"
_CELL = f"text-align:left;vertical-align:top;padding:.2em .9em .2em 0;border-bottom:{_LINE}"
_TABLE = "border-collapse:collapse;margin:.3em 0 .6em;font-size:90%;color:inherit"
_QUIET = "opacity:.7"
_SPARK = 240, 40  # size of a curve in pixels
_MOST_POINTS = 400  # of a curve


class Html(str):
    """Text that is HTML already, so that it is not escaped again."""


def html(content: object) -> Html:
    """The content, escaped unless it is HTML."""
    return content if isinstance(content, Html) else Html(escape(str(content)))


def joined(*parts: object) -> Html:
    """Several parts under one another, in one block; None is left out."""
    return Html(f"<div>{''.join(html(part) for part in parts if part is not None)}</div>")


def heading(text: object, aside: object = "") -> Html:
    """A line in bold, and an aside to it."""
    quiet = f' <span style="{_QUIET}">{html(aside)}</span>' if aside else ""
    return Html(f"<div><strong>{html(text)}</strong>{quiet}</div>")


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> Html:
    """A table.

    Args:
        header: Names of the columns.
        rows: As many cells each.
    """
    top = "".join(f'<th style="{_CELL};font-weight:600">{html(name)}</th>' for name in header)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{html(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    head = f"<thead><tr>{top}</tr></thead>"
    return Html(f'<table style="{_TABLE}">{head}<tbody>{body}</tbody></table>')


def facts(pairs: Mapping[str, object]) -> Html:
    """Names and what there is to say of each; what is None or empty is left out."""
    body = "".join(
        f'<tr><th style="{_CELL};font-weight:400;{_QUIET}">{html(name)}</th>'
        f'<td style="{_CELL}">{html(value)}</td></tr>'
        for name, value in pairs.items()
        if value is not None and value != ""
    )
    return Html(f'<table style="{_TABLE}"><tbody>{body}</tbody></table>' if body else "")


def folded(summary: object, content: object) -> Html:
    """What is only seen when it is opened."""
    inside = f"<div>{html(content)}</div>"
    return Html(f"<details><summary>{html(summary)}</summary>{inside}</details>")


def verbatim(text: str) -> Html:
    """Text of several lines, as it is."""
    style = "white-space:pre-wrap;font-size:85%;background:none;color:inherit"
    return Html(f'<pre style="{style}">{escape(text)}</pre>')


def sparkline(values: Sequence[float], words: str) -> Html:
    """A small curve of finite values, in steps; of very many, evenly chosen ones.

    Args:
        values: At least two.
        words: What it shows, for those who cannot see it.
    """
    count = len(values)
    picked = range(count)
    if count > _MOST_POINTS:
        picked = sorted({round(i * (count - 1) / (_MOST_POINTS - 1)) for i in range(_MOST_POINTS)})
    low, high = min(values), max(values)
    wide, tall = _SPARK
    # Divided first: a range may be beyond all doubles.
    span = high / 2 - low / 2
    x = [f"{2 + (wide - 4) * i / (count - 1):.1f}" for i in picked]
    y = [
        f"{2 + (tall - 4) * ((high / 2 - values[i] / 2) / span if span else 0.5):.1f}"
        for i in picked
    ]
    # Along to the next one at the height of this one, then up or down.
    steps = "".join(f"H{at}V{height}" for at, height in zip(x[1:], y[1:], strict=True))
    return Html(
        f'<svg role="img" width="{wide}" height="{tall}" viewBox="0 0 {wide} {tall}">'
        f"<title>{escape(words)}</title>"
        f'<path d="M{x[0]} {y[0]}{steps}" fill="none" stroke="currentColor" stroke-width="1.5" '
        f'opacity=".8"/></svg>'
    )


def rounded(value: Any) -> str:
    """A number in few digits, lists and dicts of such; a dash for what is missing."""
    if value is None or value != value:
        return "–"
    if isinstance(value, Mapping):
        return pairs_of(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(rounded, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def moment(seconds: float | None) -> str | None:
    """Seconds since 1970 as a time in UTC."""
    if seconds is None:
        return None
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def pairs_of(values: Mapping[str, Any]) -> str:
    """a = 1, b = 2"""
    return ", ".join(f"{name} = {rounded(value)}" for name, value in values.items())
