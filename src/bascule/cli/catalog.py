"""Commands that list and describe components and studies."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from typing import Annotated

import typer

import bascule.cli.completion as completion
from bascule.cli.options import writable_file
from bascule.cli.output import complain, echo, echo_json
from bascule.core.errors import RequestError


def ls(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND", help="One kind of component, studies or hooks.", autocompletion=completion.kinds
        ),
    ] = None,
) -> None:
    """List kinds of components, the components of one kind, the built-in studies, or the installed hooks."""
    from bascule.core import catalog
    from bascule.plan.document import built_in_names, read_study

    if kind == "studies":
        lines = [(name, str(read_study(name).content.get("title", ""))) for name in built_in_names()]
    elif kind == "hooks":
        lines = _hooks()
    elif kind is not None:
        if kind not in catalog.ROOMS:
            raise RequestError(catalog.unknown_kind(kind, besides=("studies", "hooks")))
        listed = sorted([*catalog.names(kind), *catalog.named_settings(kind)])
        lines = [(f"{kind}/{name}", _summary(kind, name)) for name in listed]
    else:
        lines = [(room, f"{about}: {', '.join(catalog.names(room))}") for room, about in catalog.ROOMS.items()]
        lines.append(("studies", f"built-in studies: {', '.join(built_in_names())}"))
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        echo(f"{name:<{width}}  {text}")
    for room in catalog.ROOMS if kind is None else {kind} & catalog.ROOMS.keys():
        _warn_of_ignored(room)


def _hooks() -> list[tuple[str, str]]:
    """What other packages do along a run, and whether they do."""
    from bascule.hooks.announced import SWITCH, installed

    found = [
        (f"hooks/{one.name}", f"{'told of every run' if one.on else f'off by ${SWITCH}'} [{one.origin}]")
        for one in installed()
    ]
    return found or [("hooks", "none are installed")]


def _summary(kind: str, name: str) -> str:
    """What a component is in a sentence, and where it comes from unless it is built in."""
    from bascule.core import catalog

    if name in catalog.named_settings(kind):
        return f"{catalog.summary(kind, name)} [{kind}: {{name: {name}, ...}}]"
    try:
        origin, summary = catalog.origin(kind, name), catalog.summary(kind, name)
    except RequestError as error:  # several packages claim the name
        return f"refused: {error}"
    return summary if origin == catalog.BUILT_IN else " ".join(filter(None, (summary, f"[{origin}]")))


def _warn_of_ignored(kind: str, *names: str) -> None:
    """What other packages announce under names that are not theirs to take: all of a kind, or of these names."""
    from bascule.core import catalog

    for name, problem in catalog.plugins_of(kind).ignored.items():
        if not names or name in names:
            complain(f"warning: {problem}")


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="KIND/NAME",
            help="For example attack/pgd, studies/digits or own.py:Class.",
            autocompletion=completion.things,
        ),
    ],
) -> None:
    """Describe a component with all its settings, or print a built-in study."""
    from bascule.core import catalog
    from bascule.plan.document import read_study

    kind, slash, rest = name.partition("/")
    if ":" in name and kind not in catalog.ROOMS:
        kind, slash, rest = _room_of(name), "/", name
    if not slash:
        if name not in catalog.ROOMS and name != "studies":
            raise _without_kind(name)
        ls(name)
    elif kind == "studies":
        echo(read_study(rest).text, nl=False)
    elif kind not in catalog.ROOMS:
        raise RequestError(catalog.unknown_kind(kind, besides=("studies",)))
    else:
        _print_component(name, kind, rest)


def schema(
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write; by default it is printed.")
    ] = None,
) -> None:
    """Print the JSON Schema of study files, with which editors complete and check them.

    In the first line of a study: # yaml-language-server: $schema=FILE
    """
    import json
    from functools import partial

    from bascule.core.files import write_atomically
    from bascule.plan.json_schema import study_schema

    text = json.dumps(study_schema(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if output is None:
        echo_json(text)
        return
    write_atomically(writable_file(output), partial(Path.write_text, data=text, encoding="utf-8"))
    echo(output)


def _room_of(name: str) -> str:
    """The kind of a component of one's own, `module:Class`.

    Raises:
        RequestError: It is no component.
    """
    from bascule.core import catalog

    kind = str(getattr(catalog.load("models", name), "room", None))
    if kind not in catalog.ROOMS:
        raise RequestError(f"{name!r} is no component, so that it has no settings to show")
    return kind


def _without_kind(name: str) -> RequestError:
    """What is wrong with a bare name, and which ones may be meant."""
    from bascule.core import catalog
    from bascule.plan.document import built_in_names

    rooms = [(room, (*catalog.names(room), *catalog.named_settings(room))) for room in catalog.ROOMS]
    meant = [f"{room}/{name}" for room, known in rooms if name in known]
    meant += [f"studies/{name}"] if name in built_in_names() else []
    guess = f"Did you mean {' or '.join(meant)}?" if meant else catalog.kind_hint(name)
    kinds = f"Kinds: {', '.join(catalog.ROOMS)}, studies"
    said = (f"{name!r}: expected KIND/NAME, for example attack/pgd.", guess, kinds)
    return RequestError(" ".join(filter(None, said)))


def _print_component(name: str, kind: str, rest: str) -> None:
    from bascule.core import catalog

    about = catalog.documentation(kind, rest)
    echo(f"{name}\n\n{about.text}\n\nsettings:" + ("" if about.fields else " none"))
    for field in about.fields:
        default = "required" if field.written is None else f"default {field.written}"
        echo(f"  {field.name} ({default}): {field.allowed}\n{indent(field.text, 6 * ' ')}")
    if rest in catalog.named_settings(kind):
        echo(f"\nwritten: {kind}: {{name: {rest}, ...}}\nfrom: {catalog.BUILT_IN}")
        return
    echo(f"\nfrom: {catalog.origin(kind, rest)}")
    _warn_of_ignored(kind, rest)
