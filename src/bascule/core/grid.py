"""A table of texts in the formats people paste: text, Markdown, LaTeX."""

from __future__ import annotations

import functools
import io
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from bascule.core.text import printable

Form = Literal["text", "markdown", "latex"]


class TableCell(NamedTuple):
    """A value and its interval, in words; either may be empty."""

    value: str
    interval: str = ""


@dataclass(frozen=True)
class Grid:
    """Headings and lines. The first columns say what a line is about, the others are numbers."""

    names: Sequence[str]
    numbers: Sequence[str]
    lines: Sequence[Sequence[TableCell]]


_NO_BREAK = "\N{NO-BREAK SPACE}"
_NAME, _HEADING, _NUMBER = 36, 16, 9
"""Most letters in a line of a name and of a heading; least in a number."""
_NAMES = (_NAME, 24, 16, 12)
"""What a line of a name may have in a table that is broken: what makes the fewest blocks."""


def render(grids: Iterable[Grid], paragraphs: Sequence[Sequence[str]], form: Form, *, width: int | None = None) -> str:
    """Each grid with the lines of text below it.

    Args:
        grids: The tables.
        paragraphs: The lines below each.
        form: What to write.
        width: Most columns of a line of text. A wider table is broken into blocks of columns, each with the names.
    """
    parts = [
        (_printable(grid), [printable(line) for line in below]) for grid, below in zip(grids, paragraphs, strict=True)
    ]
    return _text(parts, width) if form == "text" else _RENDER[form](parts)


def _printable(grid: Grid) -> Grid:
    """The table without characters that would steer a terminal or end a line of a file."""
    return Grid(
        names=list(map(printable, grid.names)),
        numbers=list(map(printable, grid.numbers)),
        lines=[[TableCell(*map(printable, cell)) for cell in line] for line in grid.lines],
    )


def _text(parts: Sequence[tuple[Grid, Sequence[str]]], width: int | None) -> str:
    return (
        "\n".join("\n".join([*_table(grid, width), *wrapped(below, width)]) for grid, below in parts).strip("\n") + "\n"
    )


def wrapped(lines: Sequence[str], width: int | None) -> list[str]:
    """Between words; what belongs to one line is indented below it."""
    if width is None:
        return list(lines)
    wrap = functools.partial(
        textwrap.wrap, width=width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return [part for line in lines for part in (wrap(line) or [""])]


def _table(grid: Grid, width: int | None) -> list[str]:
    """The whole table, or blocks of as many columns as fit side by side; at least one number each."""
    every = range(len(grid.numbers))
    whole = _block(grid, every)
    if width is None or _widest(whole) <= width:
        return whole
    names = _widest(_block(grid, []))
    wide = [_widest(_block(grid, [one], heading=_NUMBER)) - names for one in every]
    ways = {most: _shared(wide, width - _widest(_block(grid, [], most))) for most in _NAMES}
    name = min(ways, key=lambda most: (ways[most][1], len(ways[most][0])))
    blocks = [_block(grid, block, name, _NUMBER) for block in ways[name][0]]
    return [*blocks[0], *(line for block in blocks[1:] for line in block[1:])]  # one empty line between two


def _shared(wide: Sequence[int], width: int) -> tuple[list[list[int]], int]:
    """Columns of these widths in order, as many in a block as fit; and by how much the widest does not fit alone."""
    blocks: list[list[int]] = [[]]
    for one in range(len(wide)):
        if blocks[-1] and sum(wide[other] for other in (*blocks[-1], one)) > width:
            blocks.append([])
        blocks[-1].append(one)
    return blocks, max(0, max(wide) - width)


def _widest(lines: Iterable[str]) -> int:
    return max(map(cell_len, lines))


def _block(grid: Grid, numbers: Sequence[int], name: int = _NAME, heading: int = _HEADING) -> list[str]:
    """These numbers beside the names. Headings and long names are broken, to the width of a number at least; numbers
    never are."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for about in grid.names:
        table.add_column(about, vertical="top", max_width=name)
    for number in numbers:
        title, place = grid.numbers[number], len(grid.names) + number
        longest = max((len(part) for line in grid.lines for part in line[place]), default=0)
        whole = _NO_BREAK.join(title.rsplit(" ", 1)) if title[-1:] in "↑↓" else title  # an arrow keeps its unit
        broken = "\n".join(textwrap.wrap(whole, max(longest, heading))).replace(_NO_BREAK, " ")
        table.add_column(broken, justify="right", no_wrap=True, min_width=_NUMBER if number else 0)
    places = [*range(len(grid.names)), *(len(grid.names) + number for number in numbers)]
    for line in grid.lines:
        cells = (line[place] for place in places)
        table.add_row(*(f"{value}\n{interval}" if interval else value for value, interval in cells))
    # Elsewhere the console decides by where it is: in a notebook it would show the table itself, besides and first.
    console = Console(file=io.StringIO(), width=10_000, markup=False, force_terminal=False, force_jupyter=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def _markdown(parts: Sequence[tuple[Grid, Sequence[str]]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(_marked(cell) for cell in cells) + " |"

    blocks = []
    for grid, below in parts:
        rows = [[f"{value} ({interval})" if interval else value for value, interval in cells] for cells in grid.lines]
        rule = "| " + " | ".join(["---"] * len(grid.names) + ["---:"] * len(grid.numbers)) + " |"
        blocks.append("\n".join([line([*grid.names, *grid.numbers]), rule, *map(line, rows)]))
        if below:
            blocks.append("\n".join(f"- {_without_tags(note)}" for note in below))
    return "\n\n".join(blocks) + "\n"


def _marked(text: str) -> str:
    """Text in a cell of Markdown, which it does not end."""
    return _without_tags(text.replace("\\", "\\\\").replace("|", "\\|"))


def _without_tags(text: str) -> str:
    """Text in Markdown that begins no HTML: a row may be called like a tag."""
    return text.replace("<", "\\<")


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "—": "---", "↑": r"$\uparrow$",  # noqa: RUF001
    "↓": r"$\downarrow$", "·": r"$\cdot$",
}  # fmt: skip


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _latex(parts: Sequence[tuple[Grid, Sequence[str]]]) -> str:
    lines = ["% needs \\usepackage{booktabs}"]
    for grid, below in parts:
        rows = [[f"{value} [{interval}]" if interval else value for value, interval in cells] for cells in grid.lines]
        lines += [
            r"\begin{tabular}{" + "l" * len(grid.names) + "r" * len(grid.numbers) + "}",
            r"\toprule",
            *(
                " & ".join(map(_escaped, cells)) + r" \\" + (f"\n{rule}" if rule else "")
                for cells, rule in [([*grid.names, *grid.numbers], r"\midrule"), *((cells, "") for cells in rows)]
            ),
            r"\bottomrule",
            r"\end{tabular}",
            *(f"% {note}" for note in below),
        ]
    return "\n".join(lines) + "\n"


_RENDER: dict[Form, Callable[[Sequence[tuple[Grid, Sequence[str]]]], str]] = {
    "markdown": _markdown,
    "latex": _latex,
}
