"""Every command with its arguments and options, from what `--help` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from bascule.cli.app import app
from generators.markdown import code, escaped, table


def page() -> str:
    """The page in Markdown."""
    root = typer.main.get_command(app)
    head = (
        "# Commands\n\nWhat `bascule COMMAND --help` says. How they go together, and the exit codes: "
        "[the guide](../guide/commands.md)."
    )
    return "\n\n".join([head, *(_command(context) for context in _contexts(root, "bascule", None))]) + "\n"


def _contexts(command: Any, name: str, parent: Any) -> Iterator[Any]:
    """The command and those below it, each in a context that knows its full name."""
    context = command.context_class(command, info_name=name, parent=parent)
    below = getattr(command, "commands", None)
    if below is None:
        yield context
    for key, sub in (below or {}).items():
        if not sub.hidden:
            yield from _contexts(sub, key, context)


def _command(context: Any) -> str:
    command = context.command
    usage = command.get_usage(context).removeprefix("Usage: ")
    parts = [f"({context.command_path.replace(' ', '-')})=\n## {context.command_path}", escaped(command.help or "")]
    parts.append(f"```text\n{usage}\n```")
    lines = [line for param in command.params if (line := _param(param, context)) is not None]
    return "\n\n".join([*parts, table(("argument or option", "what it is"), lines)] if lines else parts)


def _param(param: Any, context: Any) -> tuple[str, str] | None:
    """Name and help, as `--help` prints them; None for what it hides."""
    record = param.get_help_record(context)
    if record is None:
        return None
    name, text = record
    return code(" ".join(name.split())), escaped(text)
