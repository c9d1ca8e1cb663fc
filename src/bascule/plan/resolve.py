"""From a study file to a plan: base, rows, what varies, scales and seeds; everything that cannot work is refused."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bascule.core.catalog import construct, name_of
from bascule.core.errors import RequestError, placed, unknown
from bascule.data import Facts, Source
from bascule.measure import Metric
from bascule.models.checks import check_network
from bascule.plan.document import Document, merged, nested, parse_value
from bascule.plan.expand import make_row
from bascule.plan.plan import Plan, Row
from bascule.plan.schema import KEYS, MAX_SEEDS, METRICS, SCALED, Frame, Published, Setup


def make_plan(
    document: Document,
    *,
    overrides: Sequence[str] = (),
    scale: str | None = None,
    seeds: int | None = None,
    roots: Sequence[Path] = (),
    adding: str = "--set {}+=",
) -> Plan:
    """Resolve a study: every name found, every value checked, every combination tried on the shape of its data.

    Args:
        document: The study file.
        overrides: `path=value` texts; a path inside a row's settings (`train.epochs`, applied to every row, and instead
            of what varies there), `rows.NAME.path` for one row, or `seeds`, `twin`, `vary.path`. `path+=value` adds to
            a list (`attack`, `certify`, `curve`, `measure`) what is not in it yet.
        scale: Which of the study's scales; by default its first, if it has any.
        seeds: Number of seeds instead of the study's.
        roots: Folders searched for data.
        adding: How errors name the option that adds to a list.

    Raises:
        RequestError: Anything wrong with the study, with its place in the file, or the option that it comes from.
    """
    for key in document.content:
        if key not in KEYS:
            raise document.error(unknown("key", str(key), KEYS), str(key))
    content, scale = _scaled(document, scale)
    added = [text for text in overrides if text.partition("=")[0].rstrip().endswith("+")]
    everywhere, by_row, options = _apply_overrides(content, document, [text for text in overrides if text not in added])
    more = _additions(added)
    if seeds is not None:
        content["seeds"] = seeds
        options[("seeds",)] = "--seeds"
    metrics = more.pop("measure", [])
    if metrics:
        known = _extended(content.get("measure", METRICS), ())
        content["measure"] = _extended(known, metrics)
        news = range(len(known), len(content["measure"]))
        options |= {(f"measure[{number}]",): adding.format("measure") for number in news}
    document = replace(document, options=options)
    frame = _frame(document, content)
    vary = {
        path: values
        for path, values in _mapping(document, content, "vary").items()
        if not any(path == given or path.startswith(given + ".") for given in everywhere)
    }
    for path, values in vary.items():
        if not isinstance(values, list) or not values:
            raise document.error(f"expected a list of values, got {values!r}", "vary", path)
    rows = _mapping(document, content, "rows")
    if not rows:
        raise document.error("a study needs at least one row", "rows")
    base = _mapping(document, content, "base")
    seed_numbers = tuple(range(frame.seeds)) if isinstance(frame.seeds, int) else frame.seeds
    if len(set(seed_numbers)) != len(seed_numbers) or not 0 < len(seed_numbers) <= MAX_SEEDS:
        raise document.error(f"expected 1 to {MAX_SEEDS} different seeds, got {frame.seeds}", "seeds")
    checks = _Checks(roots)
    built: list[Row] = []
    for row_name, change in rows.items():
        if change is not None and not isinstance(change, Mapping):
            raise document.error(f"expected the settings that this row changes, got {change!r}", "rows", row_name)
        for values in itertools.product(*vary.values()):
            varied = dict(zip(vary, values, strict=True))
            given = merged(base, change or {})
            for path, value in {**everywhere, **by_row.get(row_name, {}), **varied}.items():
                given = merged(given, nested(path, value))
            listed = {(key, adding.format(key)): len(_extended(given.get(key), ())) for key in more}
            given |= {key: _extended(given.get(key), values) for key, values in more.items()}
            try:
                setup = construct(Setup, given)
                facts = checks.check(setup)
                row = make_row(
                    row_name, varied, setup, given, facts, seed_numbers, metrics=frame.measure, twin=frame.twin
                )
            except RequestError as error:
                overridden = {path: f"--set {path}" for path in everywhere}
                overridden |= {path: f"--set rows.{row_name}.{path}" for path in by_row.get(row_name, {})}
                raise _added(error, row_name, listed) or _placed(
                    document, error, row_name, varied, overridden, scale
                ) from None
            built.append(row)
    _refuse_twins_of_rows(document, built)
    published = _published(document, content, rows, frame.measure)
    return Plan(
        document=replace(document, options={}),
        overrides=(*overrides, *([f"seeds={seeds}"] if seeds is not None else [])),
        title=frame.title or document.name,
        about=frame.about,
        rows=tuple(replace(row, published=_matching(published, row)) for row in built),
        metrics=frame.measure,
        scale=scale,
    )


def _scaled(document: Document, scale: str | None) -> tuple[dict[str, Any], str | None]:
    """The study's content with its scale applied, and the scale's name."""
    content = dict(document.content)
    scales = _mapping(document, content, "scales")
    if not scales:
        if scale is not None:
            raise RequestError(f"--scale {scale!r}: the study {document.name!r} has no scales")
        return content, None
    scale = scale or next(iter(scales))
    if scale not in scales:
        raise RequestError(f"--scale: {unknown('scale', scale, scales)}")
    changes = _mapping(document, scales, scale)
    for key in changes:
        if key not in SCALED:
            raise document.error(unknown("key", key, SCALED), "scales", scale, key)
    return {**content, **{key: merged(content.get(key), value) for key, value in changes.items()}}, scale


def _published(
    document: Document, content: Mapping[str, Any], rows: Mapping[str, Any], metrics: Sequence[Metric]
) -> list[Published]:
    entries = content.get("published") or []
    if not isinstance(entries, list):
        raise document.error(f"expected a list, got {entries!r}", "published")
    allowed = [name_of(metric).replace("-", "_") for metric in metrics]
    found = []
    for number, entry in enumerate(entries):
        place = f"published[{number}]"
        try:
            published = construct(Published, entry if isinstance(entry, Mapping) else {"row": entry})
        except RequestError as error:
            raise document.error(error.problem, place, *error.place) from None
        if published.row not in rows:
            raise document.error(unknown("row", published.row, rows), place, "row")
        for name in (*published.metrics, *published.printed):
            if name not in allowed:
                raise document.error(unknown("metric of this study", name, allowed), place)
        found.append(published)
    return found


def _matching(published: Sequence[Published], row: Row) -> Published | None:
    return next((entry for entry in published if entry.row == row.name and entry.vary == row.vary), None)


def _apply_overrides(
    content: dict[str, Any], document: Document, overrides: Sequence[str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]], dict[tuple[str, ...], str]]:
    """Split `--set` texts into those for all rows and those for one; those for the study itself go into `content`, and
    are named last, by the path of keys that each stands in for."""
    options: dict[tuple[str, ...], str] = {}
    everywhere: dict[str, Any] = {}
    by_row: dict[str, dict[str, Any]] = {}
    for text in overrides:
        path, equals, value_text = text.partition("=")
        path = path.strip().removeprefix("base.")
        if not equals or not path:
            raise RequestError(f"--set {text!r}: expected key=value, for example train.epochs=3")
        value = _value(path, value_text)
        head, _, rest = path.partition(".")
        if head == "rows":
            names = [str(name) for name in _mapping(document, content, "rows")]
            row = next((name for name in names if rest.startswith(f"{name}.")), None)
            if row is None:
                raise RequestError(f"--set {text!r}: {unknown('row', rest, names)}")
            by_row.setdefault(row, {})[rest[len(row) + 1 :]] = value
        elif head == "vary" and rest:
            content["vary"] = {**_mapping(document, content, "vary"), rest: value}
            options["vary", rest] = f"--set vary.{rest}"
        elif head in KEYS:
            content[path] = value
            options[(path,)] = f"--set {path}"
        else:
            everywhere[path] = value
    return everywhere, by_row, options


def _value(path: str, text: str) -> Any:
    try:
        return parse_value(text)
    except RequestError as error:
        raise RequestError(f"--set {path}: {error}") from None


def _additions(texts: Sequence[str]) -> dict[str, list[Any]]:
    """What `key+=value` texts add to each list."""
    lists = ("measure", "attack", "certify", "curve", "explain")
    found: dict[str, list[Any]] = {}
    for text in texts:
        path, _, value_text = text.partition("=")
        key = path.strip().removesuffix("+").rstrip()
        if key not in lists:
            raise RequestError(f"--set {text!r}: {unknown('list', key, lists)}")
        value = _value(f"{key}+", value_text)
        found.setdefault(key, []).extend(value if isinstance(value, list) else [value])
    return found


def _extended(known: Any, values: Sequence[Any]) -> list[Any]:
    """The list `known` (or a single entry, or nothing) with those of `values` that it does not hold yet."""
    entries = [] if known is None else list(known) if isinstance(known, (list, tuple)) else [known]
    return entries + [value for value in values if value not in entries]


def _mapping(document: Document, content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key) or {}
    if not isinstance(value, Mapping):
        raise document.error(f"expected a mapping, got {value!r}", key)
    return {str(k): v for k, v in value.items()}


def _frame(document: Document, content: Mapping[str, Any]) -> Frame:
    own = {key: content[key] for key in ("title", "about", "seeds", "twin", "measure") if key in content}
    try:
        return construct(Frame, {"measure": METRICS, **own})
    except RequestError as error:
        raise document.error(error.problem, *error.place) from None


def _added(error: RequestError, row: str, listed: Mapping[tuple[str, str], int]) -> RequestError | None:
    """The error with the option that it comes from, if it is about what an option added to a list.

    Args:
        error: What is wrong.
        row: In which row.
        listed: Entries that each list had without the option, by the list's name and the option's.
    """
    name, _, number = "".join(error.place[:1]).partition("[")
    for (key, option), known in listed.items():
        if name == key and (not number or int(number.rstrip("]")) >= known):
            return RequestError(f"{option}: in row {row!r}: {RequestError(error.problem, place=error.place[1:])}")
    return None


def _placed(
    document: Document,
    error: RequestError,
    row: str,
    varied: Mapping[str, Any],
    overridden: Mapping[str, str],
    scale: str | None,
) -> RequestError:
    """The error with the place it was written at: an override, what varies, the row, or the base."""
    path = ".".join(key.partition("[")[0] for key in error.place)
    for source, given in (("--set", list(overridden)), ("vary", list(varied))):
        for key in given:
            if path == key or path.startswith(key + ".") or (path and key.startswith(path + ".")):
                if source == "vary":
                    return document.error(f"in row {row!r} with {key} = {varied[key]!r}: {error}", "vary", key)
                return RequestError(f"{overridden[key]}: in row {row!r}: {error}")
    prefixes: list[tuple[str, ...]] = [("rows", row), ("base",)]
    if scale is not None:
        prefixes = [("scales", scale, *prefix) for prefix in prefixes] + prefixes
    for prefix in prefixes:
        for end in range(len(error.place), 0, -1):
            if (*prefix, *error.place[:end]) in document.lines:
                return document.error(error.problem, *prefix, *error.place)
    return document.error(error.problem, "rows", row, *error.place)


class _Checks:
    """What has been looked at: facts of each source and the fit of each network once per plan, however many rows."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots
        self._facts: dict[str, Facts] = {}
        self._fitting: set[str] = set()

    def facts(self, source: Source) -> Facts:
        """Reading the labels of a large set takes a moment."""
        key = repr(source)
        if key not in self._facts:
            with placed("data"):
                self._facts[key] = source.facts(self._roots)
        return self._facts[key]

    def check(self, setup: Setup) -> Facts:
        """Refuse what cannot work: poison that does not fit the data, a network that does not take the images."""
        facts = self.facts(setup.data)
        if setup.poison is not None:
            with placed("poison"):
                setup.poison.check(facts.size, facts.train_labels, len(facts.classes))
            if not bool((facts.test_labels != setup.poison.target).any()):
                raise RequestError(
                    "every test image is of the target class; nothing can be attacked", place=("poison",)
                )
        _check_defences(setup)
        key = repr((setup.model, facts.size, len(facts.classes)))
        if key not in self._fitting:
            with placed("model"):
                check_network(setup.model, facts.size, len(facts.classes))
            self._fitting.add(key)
        return facts


def _check_defences(setup: Setup) -> None:
    """Defenders need images of their own, and a filter judges once."""
    asking = ["repair"] if setup.repair is not None and setup.repair.needs_images else []
    asking += ["scan"] if setup.scan is not None else []
    held_out = setup.data.held_out
    if asking and not held_out:
        raise RequestError(
            f"{' and '.join(asking)} needs clean images that are not trained on: say how many with data.held_out, "
            f"for example 500",
            place=("data", "held_out"),
        )
    if setup.defender is not None and setup.defender > held_out:
        raise RequestError(f"{setup.defender} images asked for, {held_out} are held out", place=("defender",))
    if setup.inspect is not None and setup.filter is not None:
        raise RequestError(
            "the row's own filter judges the training set already; leave one of `inspect` and `filter` out",
            place=("inspect",),
        )


def _refuse_twins_of_rows(document: Document, rows: Sequence[Row]) -> None:
    seen: dict[str, str] = {}
    for row in rows:
        key = repr((row.setup, row.vary))
        if key in seen:
            raise document.error(
                f"is the same as row {seen[key]!r}: every setting is equal. Remove one.", "rows", row.name
            )
        seen[key] = row.name
