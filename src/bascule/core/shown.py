"""What a result looks like where somebody prints it, and in a notebook: tables, lines, pictures."""

from __future__ import annotations

import base64
import html
import io
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar

from PIL import Image

from bascule.core import grid
from bascule.core.grid import Grid, TableCell
from bascule.core.text import count, message, printable

T = TypeVar("T")
LARGEST = 180_000
"""Most characters of a result in a notebook, whose file keeps them; what is more is said to be there."""
_RESERVED = 2_000
"""Of these for what says so."""
_SIDE = 112
"""Pixels that a small picture is blown up to, by a whole factor."""


@dataclass(frozen=True)
class Lines:
    """Lines of text: below the table before them, or under a title."""

    lines: Sequence[str]
    title: str = ""


class Picture(NamedTuple):
    """A picture with what it shows."""

    image: Image.Image
    caption: str


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side. A notebook shows them, text names them."""

    pictures: Sequence[Picture]
    title: str = ""


Part: TypeAlias = Grid | Lines | Pictures


class Shown(ABC):
    """A result that people read. A dataclass says `repr=False`, or it would be shown field by field."""

    @abstractmethod
    def shown(self) -> Sequence[Part]:
        """What there is to read, in order."""

    def __str__(self) -> str:
        return text_of(self.shown(), width=terminal_width())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return html_of(self.shown())


def by_identity(cls: type[T]) -> type[T]:
    """Class decorator for a result that is a tuple: it equals itself alone, as the others do.

    Compared entry by entry, two of tensors or frames would ask these for a truth that they do not have.
    """
    cls.__eq__, cls.__ne__ = object.__eq__, object.__ne__  # type: ignore[method-assign]
    cls.__hash__ = object.__hash__  # type: ignore[method-assign]
    return cls


def terminal_width() -> int | None:
    """A log, a pipe or a notebook gets a table whole; a terminal one that fits."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if is_terminal else None


# --- as text ---------------------------------------------------------------------------------------------------------


def text_of(parts: Sequence[Part], *, width: int | None = None) -> str:
    """The parts as text without a line break at the end, in lines of at most `width` columns where given."""
    return "\n\n".join(_blocks(parts, width))


def _blocks(parts: Sequence[Part], width: int | None) -> Iterator[str]:
    waiting: Grid | None = None
    for part in parts:
        if isinstance(part, Lines) and waiting is not None and not part.title:
            yield _table(waiting, part.lines, width)
            waiting = None
            continue
        if waiting is not None:
            yield _table(waiting, (), width)
        waiting = part if isinstance(part, Grid) else None
        if isinstance(part, Lines):
            yield "\n".join(_lines(part, width))
        elif isinstance(part, Pictures) and part.pictures:
            names = ", ".join(picture.caption for picture in part.pictures)
            said = f"{count(len(part.pictures), 'picture')}, which a notebook shows: {names}"
            yield "\n".join(_lines(Lines([said], part.title), width))
    if waiting is not None:
        yield _table(waiting, (), width)


def _table(table: Grid, below: Sequence[str], width: int | None) -> str:
    return grid.render([table], [below], "text", width=width).rstrip("\n")


def _lines(part: Lines, width: int | None) -> Iterator[str]:
    yield from [printable(part.title)] if part.title else []
    indent = "  " if part.title else ""
    inner = None if width is None else max(20, width - len(indent))
    yield from (f"{indent}{line}" for line in grid.wrapped([printable(line) for line in part.lines], inner))


# --- in a notebook ---------------------------------------------------------------------------------------------------

_RULE = "1px solid rgba(128,128,128,.35)"
"""Seen on a light page and on a dark one; all other colours are the page's own."""
_TABLE = "border-collapse:collapse;margin:.25em 0"
_CELL = f"padding:.3em .9em .3em 0;vertical-align:top;border:0;border-top:{_RULE}"
_SOFT = "opacity:.75;font-size:.9em"


def html_of(parts: Sequence[Part]) -> str:
    """The parts as HTML without scripts and with everything escaped, in the page's own colours."""
    room = _Room(LARGEST - _RESERVED)
    inner = "".join(piece for part in parts for piece in _pieces(part, room))
    more = f"<p>{count(room.refused, 'piece')} more: print it to see all.</p>" if room.refused else ""
    return f'<div style="overflow-x:auto">{inner}{more}</div>'


class _Room:
    """How much may still be said."""

    def __init__(self, characters: int) -> None:
        self.left, self.refused = characters, 0

    def take(self, pieces: Iterable[str]) -> Iterator[str]:
        for piece in pieces:
            if len(piece) > self.left:
                self.refused += 1
            else:
                self.left -= len(piece)
                yield piece


def _pieces(part: Part, room: _Room) -> Iterator[str]:
    if isinstance(part, Grid):
        head = list(room.take([_head(part)]))
        if not head:
            return
        yield f"{head[0]}<tbody>"
        yield from room.take(_row(line, len(part.names)) for line in part.lines)
        yield "</tbody></table>"
        return
    if part.title:
        yield from room.take([f'<p style="margin:.8em 0 .2em"><strong>{_safe(part.title)}</strong></p>'])
    if isinstance(part, Lines):
        yield from room.take(f'<p style="margin:.2em 0;max-width:60em">{_safe(line)}</p>' for line in part.lines)
        return
    yield '<div style="display:flex;flex-wrap:wrap;gap:1em">'
    yield from room.take(map(_figure, part.pictures))
    yield "</div>"


def _safe(text: str) -> str:
    return html.escape(message(text))


def _head(table: Grid) -> str:
    aligned = [*((name, "left") for name in table.names), *((name, "right") for name in table.numbers)]
    style = f"{_CELL};border-top:0;vertical-align:bottom"
    cells = "".join(f'<th scope="col" style="{style};text-align:{side}">{_safe(name)}</th>' for name, side in aligned)
    return f'<table style="{_TABLE}"><thead><tr>{cells}</tr></thead>'


def _row(line: Sequence[TableCell], names: int) -> str:
    cells = []
    for place, (value, interval) in enumerate(line):
        below = f'<br><span style="{_SOFT}">{_safe(interval)}</span>' if interval else ""
        side = "left" if place < names else "right;white-space:nowrap"
        tag, scope = ("th", ' scope="row"') if place == 0 else ("td", "")
        cells.append(f'<{tag}{scope} style="{_CELL};text-align:{side}">{_safe(value)}{below}</{tag}>')
    return f"<tr>{''.join(cells)}</tr>"


def _figure(picture: Picture) -> str:
    image, caption = picture.image, _safe(picture.caption)
    scale = max(1, _SIDE // max(image.size))
    size = f'width="{scale * image.width}" height="{scale * image.height}" style="image-rendering:pixelated"'
    return (
        f'<figure style="margin:0"><img src="{png_uri(image)}" alt="{caption}" {size}>'
        f'<figcaption style="{_SOFT}">{caption}</figcaption></figure>'
    )


# --- pictures --------------------------------------------------------------------------------------------------------


def png_of(image: Image.Image) -> bytes:
    """The picture as the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def png_uri(image: Image.Image) -> str:
    """The picture itself, as an address for a page."""
    return f"data:image/png;base64,{base64.b64encode(png_of(image)).decode('ascii')}"
