"""From a study file to a plan: base, rows, what varies, scales and seeds; everything that cannot work is refused."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bascule.core.catalog import construct, name_of
from bascule.core.errors import RequestError, placed, unknown
from bascule.core.text import count, quote
from bascule.metrics.contract import Metric
from bascule.plan.beside import SEED, found_beside
from bascule.plan.checks import Checks, check_measured, check_metrics, check_rows_differ
from bascule.plan.document import Document
from bascule.plan.labels import warn_of_numbers, with_labels
from bascule.plan.origins import Layer, Origin, nested
from bascule.plan.overrides import Override, RowChanges, apply_overrides
from bascule.plan.plan import Plan, Row, make_row
from bascule.plan.schema import (
    KEYS,
    MAX_MODELS,
    MAX_ROWS,
    MAX_SEEDS,
    METRICS,
    SCALE_NAME,
    SCALED,
    Frame,
    Published,
    Setup,
)
from bascule.record.audited import notes_of
from bascule.record.evaluation import METRICS as OF_ONE_MODEL

_FRAME = {field.name for field in fields(Frame)}


def make_plan(
    document: Document,
    *,
    overrides: Sequence[Override] = (),
    scale: str | None = None,
    roots: Sequence[Path] = (),
    recorded: Collection[str] = (),
) -> Plan:
    """Resolve a study: every name found, every value checked, every combination tried on the shape of its data.

    Args:
        document: The study file.
        overrides: Values instead of the study's, or added to its lists; of those with the same path, the last counts.
        scale: Which of the study's scales; by default its first, if it has any.
        roots: Folders searched for data.
        recorded: Metrics that a record of this study asks for already: they may stay empty.

    Raises:
        RequestError: Anything wrong with the study, with its line in the file or the origin of the override; its place
            is empty, or `scale` where there is no such scale.
    """
    study, scale = _read(document, scale)
    study, changes = apply_overrides(study, overrides)
    with study.trace_errors():
        frame = construct(Frame, {key: value for key, value in study.values.items() if key in _FRAME})
        check_metrics(frame.measure)
        seeds = _seeds(frame)
        _check_extent(study, changes, len(seeds))
        recipes = list(_recipes(study, changes))
    checks = Checks(roots)
    rows: list[Row] = []
    for recipe in recipes:
        with recipe.settings.trace_errors(f"in row {recipe.row!r}"):
            given = recipe.settings.values
            found, written = found_beside(recipe.settings, document.folder, seeds=seeds, roots=roots)
            found = with_labels(found, partial(checks.classes, found.get("data")))
            setups = _setups(found, seeds)
            for setup in {id(setup): setup for setup in setups.values()}.values():  # mostly one for all seeds
                facts = checks.check(setup)
            warn_of_numbers(given, facts.classes)
            rows.append(make_row(recipe.row, recipe.varied, setups, given, facts, frame, written))
    with study.trace_errors():
        check_measured(frame.measure, rows, unchecked=(*_may_stay_empty(document, overrides, scale), *recorded))
        check_rows_differ(rows)
        published = _published(study, frame.measure)
    return Plan(
        document=document,
        overrides=tuple(override.text for override in overrides),
        title=" ".join(frame.title.split()) or document.name,
        about=frame.about,
        rows=tuple(replace(row, published=_matching(published, row)) for row in rows),
        metrics=frame.measure,
        scale=scale,
    )


def _may_stay_empty(document: Document, overrides: Sequence[Override], scale: str | None) -> tuple[str, ...]:
    """Metrics whose columns may be empty.

    Those that nobody asked for by name, where the study names none; those of an audit, whose rows come only once its
    scanners have answered; and where a scale or an override takes something away (`twin: false`, no attack), those that
    the file asks for: it cannot ask for others then.
    """
    of_audit = () if notes_of(document.text) is None else OF_ONE_MODEL
    if any(more.path == "measure" and not more.adds for more in overrides):
        return of_audit
    if "measure" not in document.content:
        return (*of_audit, *METRICS)
    of_scale = (document.content.get("scales") or {}).get(scale) or {}
    named = (
        document.content["measure"] if any(map(_takes_away, [of_scale, *(more.value for more in overrides)])) else []
    )
    return (*of_audit, *map(str, named if isinstance(named, list) else [named]))


def _takes_away(value: Any) -> bool:
    """Whether a setting becomes nothing."""
    if isinstance(value, Mapping):
        return any(map(_takes_away, value.values()))
    return value is None or value is False or value in ("none", [])


def _read(document: Document, scale: str | None) -> tuple[Layer, str | None]:
    """What the study's file says, with a scale applied, and the scale's name."""
    study = Layer.of_file(document)
    with study.trace_errors():
        for key in study.values:
            if key not in KEYS:
                raise RequestError(unknown("key", str(key), KEYS), place=(str(key),))
        study = replace(study, values={"measure": METRICS, **study.values})
        scales = study.mapping("scales")
        for name in scales:
            if not re.fullmatch(SCALE_NAME, name):
                problem = "a run folder is called after its scale: letters, digits and . _ + - may be in the name"
                raise RequestError(f"{quote(name)}: {problem}", place=("scales",), key=name)
    if scale is None:
        scale = next(iter(scales), None)
    elif not scales:
        raise RequestError(f"the study {document.name!r} has no scales; got {quote(scale)}", place=("scale",))
    elif scale not in scales:
        raise RequestError(unknown("scale", scale, scales), place=("scale",))
    if scale is None:
        return study, None
    with study.trace_errors():
        changes = study.at("scales", scale)
        for key in changes.values:
            if key not in SCALED:
                raise RequestError(unknown("key", key, SCALED), place=("scales", scale, key))
        for path in changes.mapping("vary"):  # what varies is replaced as a whole, under names too
            study = study.without("vary", path)
        return study.merge(changes), scale


def _seeds(frame: Frame) -> tuple[int, ...]:
    distinct = frame.seeds if isinstance(frame.seeds, int) else len(set(frame.seeds))
    given = distinct if isinstance(frame.seeds, int) else len(frame.seeds)
    if distinct != given or not 0 < distinct <= MAX_SEEDS:  # before a range of them is made
        raise RequestError(f"expected 1 to {MAX_SEEDS} different seeds, got {quote(frame.seeds)}", place=("seeds",))
    return tuple(range(frame.seeds)) if isinstance(frame.seeds, int) else frame.seeds


def _setups(given: Mapping[str, Any], seeds: Sequence[int]) -> dict[int, Setup]:
    """A row's settings for each of its seeds: the same for all, unless `{seed}` stands in the name of the weights.

    One file that is measured as it is gives one model, whatever the number of seeds.
    """
    model = given.get("model")
    model = model if isinstance(model, Mapping) else {}
    file = model.get("weights")
    if isinstance(file, str):
        _check_braces(file)
    if isinstance(file, str) and SEED in file:
        files = {seed: {**model, "weights": file.replace(SEED, str(seed))} for seed in seeds}
        setups = {seed: construct(Setup, {**given, "model": own}) for seed, own in files.items()}
        _check_files_differ(setups)
        return setups
    setup = construct(Setup, given)
    return dict.fromkeys(seeds if setup.train is not None else seeds[:1], setup)


def _check_braces(file: str) -> None:
    """Refuse a word in braces that stands for nothing, unless a file has this very name.

    Raises:
        RequestError: There is one.
    """
    strange = [word for word in re.findall(r"\{[^{}]*\}", file) if word != SEED]
    if strange and not Path(file).expanduser().exists():
        raise RequestError(
            f"{quote(file)}: {strange[0]} stands for nothing; {SEED} stands for the row's seed",
            place=("model", "weights"),
        )


def _check_files_differ(setups: Mapping[int, Setup]) -> None:
    """Refuse one model under several seeds, which would count as several trainings."""
    seen: dict[str, int] = {}
    for seed, setup in setups.items():
        first = seen.setdefault(str(setup.model.weights_sha256), seed)
        if first != seed and setup.train is None:
            raise RequestError(
                f"the files of seeds {first} and {seed} are the same; give each seed a model of its own",
                place=("model", "weights"),
            )


def _check_extent(study: Layer, changes: RowChanges, seeds: int) -> None:
    """Refuse a study of too many models before the first of its rows is looked at.

    Raises:
        RequestError: Rows times what varies are more than `MAX_ROWS`, or times seeds more than `MAX_MODELS`.
    """
    rows, vary = len(study.mapping("rows")), _varying(study, changes)
    lines = math.prod((rows, *map(len, vary.values())))
    models = lines * seeds
    if lines > MAX_ROWS or models > MAX_MODELS:
        counts = [count(rows, "row"), *(f"{count(len(values), 'value')} of {path}" for path, values in vary.items())]
        raise RequestError(
            f"{' x '.join([*counts, count(seeds, 'seed')])} are {lines:,} rows of a table and {models:,} models; a "
            f"study has at most {MAX_ROWS:,} and {MAX_MODELS:,}. Make several studies of it",
            place=("rows",),
        )


def _varying(study: Layer, changes: RowChanges) -> dict[str, list[_Value]]:
    """The values of each path that varies: a list of them, or a mapping of their names.

    Raises:
        RequestError: Neither of these, or what changes no result.
    """
    varying: dict[str, list[_Value]] = {}
    vary = {path: values for path, values in study.mapping("vary").items() if not changes.replace_varied(path)}
    vary = {path: values for path, values in vary.items() if values is not None}  # as a scale may say
    for path, values in vary.items():
        if path.partition(".")[0] == "probe":
            raise RequestError(
                "`probe` looks at models along their training and changes no result, so that it cannot vary: set it in "
                "the base or in a row",
                place=("vary", path),
            )
        if not isinstance(values, (list, Mapping)) or not values:
            raise RequestError(
                f"expected a list of values, got {quote(values)}; values with names are a mapping of these",
                place=("vary", path),
            )
        if isinstance(values, Mapping):
            varying[path] = [_Value(str(name), value, ("vary", path, str(name))) for name, value in values.items()]
        else:
            varying[path] = [_Value(value, value, ("vary", path)) for value in values]
    return varying


class _Value(NamedTuple):
    """One value of what varies."""

    shown: Any
    """Its name, or the value itself."""
    value: Any
    place: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """The settings of one row with one value of everything that varies."""

    row: str
    varied: dict[str, Any]
    settings: Layer


def _recipes(study: Layer, changes: RowChanges) -> Iterator[_Recipe]:
    """Base, row, overrides and what varies, merged."""
    vary = _varying(study, changes)
    rows, base = study.mapping("rows"), study.at("base")
    if not rows:
        raise RequestError("a study needs at least one row", place=("rows",))
    for name, change in rows.items():
        if change is not None and not isinstance(change, Mapping):
            raise RequestError(
                f"expected the settings that this row changes, got {quote(change)}", place=("rows", name)
            )
        row = study.at("rows", name)
        settings = replace(base.merge(row), root=row.root)
        for values in itertools.product(*vary.values()):
            varied = dict(zip(vary, values, strict=True))
            layers = {path: _varied(study, path, value) for path, value in varied.items()}
            shown = {path: value.shown for path, value in varied.items()}
            yield _Recipe(row=name, varied=shown, settings=changes.apply(name, settings, layers))


def _varied(study: Layer, path: str, value: _Value) -> Layer:
    """One value of what varies at `path`."""
    known = study.find(value.place)
    about = f"with {path} = {quote(value.shown)}"
    origin = Origin(label=known.describe(value.place), about=about, in_file=known.in_file)
    return Layer.of(nested(path, value.value), origin)


def _published(study: Layer, metrics: Sequence[Metric]) -> list[Published]:
    entries = study.values.get("published") or []
    if not isinstance(entries, list):
        raise RequestError(f"expected a list, got {quote(entries)}", place=("published",))
    rows = study.mapping("rows")
    allowed = [name_of(metric).replace("-", "_") for metric in metrics]
    published = []
    for number, entry in enumerate(entries):
        with placed(f"published[{number}]"):
            values = construct(Published, entry if isinstance(entry, Mapping) else {"row": entry})
            if values.row not in rows:
                raise RequestError(unknown("row", values.row, rows), place=("row",))
            for name in (*values.metrics, *values.printed):
                if name not in allowed:
                    raise RequestError(unknown("metric of this study", name, allowed))
        published.append(values)
    return published


def _matching(published: Sequence[Published], row: Row) -> Published | None:
    return next((entry for entry in published if entry.row == row.name and entry.vary == row.vary), None)
