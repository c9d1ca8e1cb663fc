"""What is printed, wherever it goes: a terminal, a file, a pipe nobody reads, in any encoding."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import typer

from bascule.core.text import json_text, printable
from bascule.core.text import message as as_message

_ROOT = Path(__file__).parents[1]


def echo(text: object = "", *, nl: bool = True) -> None:
    """Print to standard output; what would steer a terminal is written out."""
    with _about_the_output():
        typer.echo(printable(str(text), lines=True), nl=nl)


def echo_json(text: str) -> None:
    """Print JSON. What the output's encoding has no letters for is escaped as JSON does it, and so stays what it is."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"

    def escaped(found: re.Match[str]) -> str:
        try:
            found[0].encode(encoding)
        except (UnicodeError, LookupError):
            return "".join(f"\\u{unit:04x}" for unit in _units(found[0]))
        return found[0]

    with _about_the_output():
        typer.echo(re.sub(r"[^\x00-\x7f]", escaped, json_text(text)), nl=False)


def _units(letter: str) -> list[int]:
    """Its code units in UTF-16, which JSON's escapes are."""
    content = letter.encode("utf-16-be")
    return [int.from_bytes(content[i : i + 2], "big") for i in range(0, len(content), 2)]


def complain(text: str) -> None:
    """One message on standard error, unless nobody reads that either."""
    with contextlib.suppress(OSError, ValueError):
        typer.echo(f"bascule: {as_message(text)}", err=True)


def settle_streams() -> None:
    """Make sure that there are standard streams, that they take every character, and that warnings are one line."""
    # A file that is opened later must not become the standard stream of that number.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or io.StringIO()
    sys.stderr = sys.stderr or io.StringIO()
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
    warnings.formatwarning = _format_warning
    _said.clear()


def flush() -> None:
    """Write what is still held back.

    Raises:
        OSError: It cannot be written.
    """
    with _about_the_output():
        sys.stdout.flush()


@contextlib.contextmanager
def _about_the_output() -> Iterator[None]:
    """The system's error does not say what could not be written."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or "standard output"
        raise


def silence() -> None:
    """Let what cannot be written go nowhere, so that Python does not complain of it at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_plain_warning = warnings.formatwarning
_said: set[str] = set()
"""Warnings printed by this command; Python itself forgets them whenever a library sets filters of its own."""


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    if category is UserWarning and Path(filename).is_relative_to(_ROOT):
        text = f"bascule: warning: {as_message(str(message))}\n"
        if text in _said:
            return ""
        _said.add(text)
        return text
    return _plain_warning(message, category, filename, lineno, line)
