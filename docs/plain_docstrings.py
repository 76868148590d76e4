"""Docstrings of this project are plain text: `code` in single backticks, examples indented.

This makes reStructuredText of them before Sphinx reads them: examples become literal blocks, a
name in backticks a link where Sphinx knows it, and *, | and _ stand for themselves, as in |K|.
"""

from __future__ import annotations

import re
from typing import Any

_CODE = re.compile(r"(`+)(.+?)\1")
_NAME = re.compile(r"[A-Za-z_][\w.]*")
# Headings of sections, which napoleon reads.
_SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Warns|Example|Examples):")
# A name and its description, within a section.
_ITEM = re.compile(r"(\s*)([*\w][\w*, ]*)(: .*)")


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _process, priority=400)  # napoleon comes at 500
    app.setup_extension("sphinx_click")
    app.connect("sphinx-click-process-description", _process_help)
    return {"parallel_read_safe": True}


def _process_help(app: Any, context: object, lines: list[str]) -> None:
    """What the help of a command shows line by line is to be typed, or a table."""
    out: list[str] = []
    for line in lines:
        if line.startswith("| "):
            if not out or not out[-1].startswith("    "):
                out += ["", ".. code-block:: text", ""]
            line = "    " + line.removeprefix("| ")
        elif out and out[-1].startswith("    "):
            out.append("")
        out.append(line)
    lines[:] = out


def _process(
    app: Any, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    lines[:] = restructured(lines)


def restructured(lines: list[str]) -> list[str]:
    """The same in reStructuredText."""
    out: list[str] = []
    section = ""
    after_blank = True
    depth: int | None = None  # of the literal block that we are in
    text = 0  # how far the text around is indented
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            out.append("")
            after_blank = True
            continue
        if depth is not None and indent >= depth:
            out.append(line)
            after_blank = False
            continue
        depth = None
        if indent == 0:
            found = _SECTION.fullmatch(line.strip())
            section = found.group(1) if found else ("" if after_blank else section)
        if after_blank and indent >= text + 4 and not (section and indent == 4):
            # An example: what it is indented by says so, and a "::" before it tells Sphinx.
            depth = indent
            out += [" " * text + "::", "", line]
            after_blank = False
            continue
        out.append(line if _SECTION.fullmatch(line) else _escaped(line, bool(section)))
        text = indent if not section else max(indent, 4)
        after_blank = False
    return out


def _escaped(line: str, in_section: bool) -> str:
    """A line of text in which nothing but `code` means anything."""
    found = _ITEM.fullmatch(line) if in_section else None
    if found and _NAME.match(found[2].strip("*")):
        # napoleon escapes the name itself
        return f"{found[1]}{found[2]}{_plain(found[3])}"
    return _plain(line)


def _plain(text: str) -> str:
    out, end = [], 0
    for found in _CODE.finditer(text):
        out.append(_special(text[end : found.start()]))
        code = found[2].strip()
        # A character after the backticks that is no blank would hide their end.
        close = "\\ " if text[found.end() : found.end() + 1].isalnum() else ""
        out.append((f"`{code}`" if _NAME.fullmatch(code) else f"``{code}``") + close)
        end = found.end()
    return "".join([*out, _special(text[end:])])


def _special(text: str) -> str:
    return re.sub(r"[*|\\]|_(?=\W|$)", lambda found: "\\" + found[0], text)
