"""What a shell offers for a word that is being typed: studies, runs, rows, kinds, components, metrics.

Nothing here loads torch, and nothing complains: where something is missing or damaged there is nothing to offer.
"""

from __future__ import annotations

import functools
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from textwrap import shorten
from typing import Any

import typer

Offered = list[tuple[str, str]]
"""Words, each with what it means or nothing."""
Completion = Callable[[typer.Context, str], Offered]
_WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar", ".pkl")
_STUDIES = (".yaml", ".yml")
_LONGEST = 70
"""Letters of what is said of a word: a line for each."""


def _completion(offer: Callable[[typer.Context, str], Iterable[str | tuple[str, str]]]) -> Completion:
    """What is offered, as pairs; nothing where that fails."""

    @functools.wraps(offer)
    def complete(ctx: typer.Context, incomplete: str) -> Offered:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = [(word, "") if isinstance(word, str) else word for word in offer(ctx, incomplete)]
        except Exception:  # whatever it is, a message would stand in the middle of what is being typed
            return []
        return [(_typed(word), shorten(about, _LONGEST, placeholder=" ...")) for word, about in found]

    return complete


def _typed(word: str) -> str:
    """As it must stand on the command line. zsh and fish see to that themselves."""
    if os.environ.get("_BASCULE_COMPLETE", "").endswith("bash"):
        return re.sub(r"([^\w./:@%+=,~-])", r"\\\1", word)
    return word


# --- names -----------------------------------------------------------------------------------------------------------


def components(room: str) -> Completion:
    """Names of a kind of component, with a sentence on each."""

    @_completion
    def offer(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
        yield from _components(room, incomplete)

    return offer


def _components(room: str, incomplete: str) -> Iterator[tuple[str, str]]:
    from bascule.core import catalog

    for name in (*catalog.names(room), *catalog.named_settings(room)):
        if name.startswith(incomplete):  # before its source is read
            yield name, catalog.summary(room, name)


@_completion
def kinds(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Kinds of components, studies and hooks."""
    from bascule.core import catalog

    yield from catalog.ROOMS.items()
    yield "studies", "built-in studies"
    yield "hooks", "installed hooks"


@_completion
def new_kinds(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Kinds of what can be begun."""
    from bascule.core import catalog

    yield "study", "a study file"
    yield from catalog.ROOMS.items()


@_completion
def things(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """KIND/NAME of every component and study."""
    from bascule.core import catalog
    from bascule.plan.document import built_in_names

    kind, slash, rest = incomplete.partition("/")
    for room in catalog.ROOMS:
        if room == kind and slash:
            yield from ((f"{room}/{name}", about) for name, about in _components(room, rest))
        elif room.startswith(incomplete):
            yield from ((f"{room}/{name}", "") for name in catalog.names(room))
    yield from ((f"studies/{name}", "") for name in built_in_names())


@_completion
def metrics(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Metrics as tables name them: those of the run, if one is named."""
    from bascule.core import catalog

    plans = [_plan(name, ctx) for name in _named(ctx, "run", "what")]
    recorded = [metric for plan in plans if plan is not None for metric in plan.metrics]
    yield from (name.replace("-", "_") for name in dict.fromkeys(recorded or catalog.names("measure")))


@_completion
def devices(ctx: typer.Context, incomplete: str) -> tuple[str, ...]:
    """Where models run."""
    return ("auto", "cpu", "cuda")


# --- studies ---------------------------------------------------------------------------------------------------------


@_completion
def studies(ctx: typer.Context, incomplete: str) -> Iterator[str | tuple[str, str]]:
    """Built-in studies and study files."""
    from bascule.plan.document import built_in_names, read_study

    for name in built_in_names():
        if name.startswith(incomplete):
            yield name, str(read_study(name).content.get("title", ""))
    yield from _files(incomplete, _STUDIES)


@_completion
def scales(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Scales of the study that is named."""
    from bascule.plan.document import read_study

    for name in _named(ctx, "study"):
        yield from read_study(name).content.get("scales") or ()


@_completion
def settings(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Paths of settings, for KEY=VALUE: those of the next level, `train.objective=` and `train.objective.`."""
    from bascule.plan.json_schema import study_schema

    known = len(incomplete)
    paths = (*study_schema()["$defs"]["vary"]["properties"], "seeds", "twin", "measure")
    parts = [path[known:].partition(".") for path in paths if path.startswith(incomplete)]
    yield from dict.fromkeys(f"{incomplete}{level}{dot or '='}" for level, dot, _ in parts)


# --- runs and models -------------------------------------------------------------------------------------------------


def _folder(ctx: typer.Context) -> Path:
    return Path(ctx.params.get("runs") or "runs")


@_completion
def runs(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Runs by their name in the folder of runs."""
    yield from _runs(ctx)


@_completion
def models(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Folders of trained cells, and files of weights."""
    yield from chain(_models(ctx), _files(incomplete, _WEIGHTS))


@_completion
def runs_and_models(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Both."""
    yield from chain(_runs(ctx), _models(ctx), _files(incomplete, _WEIGHTS))


def _runs(ctx: typer.Context) -> Iterator[str]:
    folder = _folder(ctx)
    for pattern in ("*/study.json", "*/*/study.json"):  # a study of a folder has its run in one; deeper lie cells
        yield from sorted(path.parent.relative_to(folder).as_posix() for path in folder.glob(pattern))


def _models(ctx: typer.Context) -> Iterator[str]:
    for run in _runs(ctx):
        yield from sorted(path.parent.as_posix() for path in (_folder(ctx) / run).glob("cells/*/model.safetensors"))


@_completion
def rows(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Rows of the runs that are named."""
    plans = [_plan(name, ctx) for name in _named(ctx, "run", "what")]
    yield from dict.fromkeys(row.row for plan in plans if plan is not None for row in plan.rows)


def _named(ctx: typer.Context, *arguments: str) -> list[str]:
    """What stands on the line for one of these arguments, which may take several words."""
    for argument in arguments:
        if given := ctx.params.get(argument):
            return [given] if isinstance(given, str) else list(given)
    return list(ctx.args)  # after an option that waits for its value, words have not been given to arguments yet


def _plan(name: str, ctx: typer.Context) -> Any:
    from bascule.core.errors import RequestError
    from bascule.record.run import open_run

    try:
        return open_run(name, _folder(ctx)).plan()
    except RequestError:  # one model, or nothing yet
        return None


def _files(incomplete: str, endings: tuple[str, ...]) -> Iterator[str]:
    """Files with these endings whose path begins so; of folders the shell knows, where nothing else is offered."""
    folder, _ = os.path.split(incomplete)
    for path in sorted(Path(folder or ".").glob("*")):
        if path.suffix in endings and not path.name.startswith("."):
            yield os.path.join(folder, path.name)  # noqa: PTH118  (`./x` must stay as it was typed)
