"""Plain text of docstrings and help texts as Markdown that says the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def paragraphs(text: str) -> str:
    """A docstring: each paragraph on one line, so that no line of it begins like a list, a heading or a comment."""
    return "\n\n".join(_paragraph(part) for part in re.split(r"\n\s*\n", text.strip()))


def _paragraph(text: str) -> str:
    if text.startswith("- "):
        return "\n".join(f"- {escaped(item)}" for item in re.split(r"\n?^- ", text, flags=re.MULTILINE) if item)
    return escaped(text)


def escaped(text: str) -> str:
    """On one line, with `<`, `*` and `_` as themselves; what stands between backticks is code as it is."""
    parts = re.split(r"(`+[^`]+`+)", " ".join(text.split()))
    parts[::2] = [re.sub(r"([<*_\[\]])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table; a cell is one line, `|` in it is escaped."""
    rows = [heads, ["---"] * len(heads), *lines]
    cells = ([cell.replace("|", r"\|").replace("\n", " ") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def code(text: str) -> str:
    """Code in a line of text."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}"
