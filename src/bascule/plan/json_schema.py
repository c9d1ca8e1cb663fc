"""The JSON Schema of study files, for editors: what may stand where, read from the types that the parser uses.

Made from source text, so that nothing is imported for it. Base, rows, scales and what varies are merged before anything
is checked, so that whether a setting is missing shows in lists alone, into which nothing is merged.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bascule.core import catalog
from bascule.core.definitions import definition, parsed
from bascule.core.errors import RequestError
from bascule.core.json_types import Schema, any_of, list_of, reference
from bascule.core.text import FRACTION, LONGEST_NAME
from bascule.plan.document import parse_value
from bascule.plan.labels import LABELS

_SOURCE = "bascule.plan.schema"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_OWN_CODE = r"^.+:[^\W\d]\w*$"
"""`path/to/file.py:Class`, `module:Class`."""
_ABOUT = """\
A study of Bascule: a base, rows, what varies, seeds, what is measured. Made by `bascule schema` from the components \
that are installed there. More lenient than `bascule validate FILE`, which knows the whole plan: which settings are \
missing once base, rows, scales and what varies are merged; which ones go together, and with the data; whether a \
fraction or percentage is in range, or a radius in linf above 1; that 3.0 is no whole number; settings of your own \
code, which stand beside its name; what stands behind the dots of a component in `vary`; names of rows and metrics in \
`published`."""
_KEYS = {
    "base": "Settings of every row.",
    "rows": "What each row changes in the base, by the row's name: it is merged into the base key by key, and a "
    "component with another name replaces the base's whole.",
    "vary": "Every row is run for every value: a list of them, or a mapping of their names. Keys are paths of "
    "settings, such as `poison.rate`.",
    "scales": "Named changes to all of the study; a run takes the one that is asked for, or the first.",
    "published": "What a publication reports for rows, to stand beside what is measured.",
}  # fmt: skip


def study_schema() -> Schema:
    """The schema, with references to its `$defs` for every kind of component; the same text wherever the same is
    installed."""
    constants = {name: _constant(name) for name in ("KEYS", "SCALED", "METRICS", "MAX_SEEDS", "SCALE_NAME")}
    frame = {field.name: _property(field) for field in catalog.documentation_of(_SOURCE, "Frame").fields}
    frame["seeds"] = _seeds(frame["seeds"], constants["MAX_SEEDS"])
    frame["measure"]["default"] = list(constants["METRICS"])
    row = reference("plan.schema.Setup")
    names = {"propertyNames": {"maxLength": LONGEST_NAME, "pattern": r"\S"}}
    known: dict[str, Schema] = {
        **frame,
        "base": {**any_of([row, {"type": "null"}])},
        "rows": {"type": ["object", "null"], "additionalProperties": any_of([row, {"type": "null"}]), **names},
        "vary": reference("vary"),
        "published": {"type": ["array", "null"], "items": reference("plan.schema.Published")},
    }
    for key, about in _KEYS.items():
        known[key] = {**known.get(key, {}), "description": about}
    scale = _object({key: known[key] for key in constants["SCALED"]}, title="scale")
    known["scales"] |= {
        "type": ["object", "null"],
        "additionalProperties": any_of([scale, {"type": "null"}]),
        "propertyNames": {"pattern": f"^{constants['SCALE_NAME']}$", "maxLength": LONGEST_NAME},
    }
    return {
        "$schema": _DIALECT,
        "title": "Bascule study",
        "description": _ABOUT,
        **_object({key: known[key] for key in constants["KEYS"]}),
        "anyOf": [{"required": ["rows"]}, {"required": ["scales"]}],
        "$defs": _definitions(),
    }


def _constant(name: str) -> Any:
    found = definition(name, parsed(_SOURCE), _SOURCE)
    assert found is not None
    assert isinstance(found.node, ast.expr)
    return ast.literal_eval(found.node)


def _seeds(schema: Schema, most: int) -> Schema:
    count, listed = schema["anyOf"]
    limits = {"minItems": 1, "maxItems": most, "uniqueItems": True}
    return {**schema, "anyOf": [{**count, "maximum": most}, {**listed, **limits}]}


def _object(properties: Mapping[str, Schema], **more: Any) -> Schema:
    return {"type": "object", **more, "properties": dict(properties), "additionalProperties": False}


# --- definitions -----------------------------------------------------------------------------------------------------


def _definitions() -> dict[str, Schema]:
    """Of every kind of component, of each component, and of all settings that belong to no kind."""
    defined: dict[str, Schema] = {}
    for room in catalog.ROOMS:
        defined |= _room(room)
    for name, about in _plain_parts(("plan.schema.Setup", "plan.schema.Published"), defined).items():
        defined[name] = _plain(name, about)
    setup = defined["plan.schema.Setup"]["properties"]
    setup["train"]["anyOf"].insert(0, {"const": "none"})  # what a validator before the type takes
    metrics = defined["plan.schema.Published"]["properties"]
    for key in ("metrics", "printed"):
        values = metrics[key].pop("additionalProperties")
        metrics[key] |= _object({name.replace("-", "_"): values for name in catalog.names("measure")})
    defined["plan.schema.Published"]["required"] = ["row", "metrics"]
    for schema in defined.values():
        _take_names(schema.get("properties", {}))
    defined["vary"] = _vary(defined)
    return dict(sorted(defined.items()))


def _take_names(properties: dict[str, Schema]) -> None:
    """Let labels be names of classes."""
    for key in properties.keys() & set(LABELS):
        schema = {**properties[key]}
        if "items" in schema:
            schema["items"] = _or_text(schema["items"])
        properties[key] = _or_text(schema)


def _or_text(schema: Schema) -> Schema:
    """A whole number from 0, or a text; what is none stays as it is."""
    types = schema.get("type")
    named = [*([types] if isinstance(types, str) else types or ()), "string"]
    return {**schema, "type": named} if schema.get("minimum") == 0 else schema


def _property(field: catalog.FieldDoc) -> Schema:
    """What a setting takes, with what it means and its default."""
    text = " ".join(field.text.split())
    schema = {**field.accepts, "description": text or f"{field.allowed}."}
    if field.written is not None:
        with contextlib.suppress(RequestError):
            fraction = re.fullmatch(FRACTION, field.written)
            schema["default"] = field.written if fraction else _as_written(parse_value(field.written))
    return schema


def _as_written(value: Any) -> Any:
    """Floats that are whole numbers as such, which is how people write them: 1 for 1.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _room(room: str) -> dict[str, Schema]:
    """One component of a room, a list of them, and each component with its settings."""
    defined: dict[str, Schema] = {}
    one: list[Schema] = []
    whole: list[Schema] = []
    bare: list[str] = []
    settings: dict[str, list[Schema]] = {}
    for name in catalog.names(room):
        try:
            about = catalog.documentation_read(room, name)
        except RequestError:  # several packages claim it, so that it is nobody's
            continue
        needed = [] if about is None else [field.name for field in about.fields if field.default is None]
        key = f"{room}.{name}"
        defined[key] = _component(room, name, about)
        one.append(reference(key))
        whole.append({**reference(key), "required": ["name", *needed]})
        bare += [] if needed else [name]
        for field in () if about is None else about.fields:
            settings.setdefault(field.name, []).append({**field.accepts, "description": " ".join(field.text.split())})
        if about is not None and about.variant is not None:
            key = f"{key}._family"
            family = {"type": "string", "pattern": f"^{re.escape(name)}:.+$", "description": f"`{name}:NAME`"}
            defined[key] = _component(room, name, about, family)
            needed = [field for field in needed if field != about.variant]
            one.append(reference(key))
            whole.append({**reference(key), "required": ["name", *needed]})
    own = {
        "title": "your own",
        "type": "object",
        "properties": {"name": {"type": "string", "pattern": _OWN_CODE}},
        "required": ["name"],
    }
    texts = {"type": "string", "pattern": _OWN_CODE}
    changes = []
    if settings:
        defined[_changes_of(room)] = _changes(settings)
        changes = [reference(_changes_of(room))]
    defined[room] = {"anyOf": [{"enum": list(catalog.names(room))}, texts, *one, own, *changes]}
    # The names once more, since editors offer none of an entry that lacks a setting so far.
    known = {"anyOf": [{"enum": list(catalog.names(room))}, {"type": "string", "pattern": ":"}]}
    entry = {"properties": {"name": known}, "anyOf": [{"enum": bare}, texts, *whole, own]}
    listed = {"type": "array", "items": entry}
    defined[list_of(room)] = {"anyOf": [*defined[room]["anyOf"], listed]}
    return defined


def _component(room: str, name: str, about: catalog.Documentation | None, family: Schema | None = None) -> Schema:
    """One component with its settings; any of them where they cannot be read. `family`: what its name may be where the
    name sets one of them."""
    title = {"title": f"{room}/{name}", "description": "" if about is None else about.summary}
    named = {"name": family or {"const": name}}
    if about is None:
        return {"type": "object", **title, "properties": named, "required": ["name"]}
    fields = [field for field in about.fields if family is None or field.name != about.variant]
    properties = named | {field.name: _property(field) for field in fields}
    if not catalog.is_built_in(room, name):  # as it stands in a record
        properties["code"] = {"type": "string", "description": "Identity of its code, filled in."}
    return {**_object(properties, **title), "required": ["name"]}


def _changes(settings: Mapping[str, Sequence[Schema]]) -> Schema:
    """Settings of some component that is named elsewhere, which these are merged into."""
    properties = {name: _common(options) for name, options in sorted(settings.items())}
    return _object(
        properties, title="changes", description="Without a name: settings of the component named elsewhere."
    )


def _common(options: Sequence[Schema]) -> Schema:
    """What fits one of these, with the text of those that have a meaning of their own left out."""
    texts = {option["description"] for option in options if option.get("description")}
    schema = any_of([{key: value for key, value in option.items() if key != "description"} for option in options])
    return {**schema, "description": texts.pop()} if len(texts) == 1 else schema


# --- settings that belong to no room ---------------------------------------------------------------------------------


def _plain_parts(start: Sequence[str], defined: Mapping[str, Schema]) -> dict[str, catalog.Documentation]:
    """The classes of ours that are referred to and belong to no room, from these and from what is defined."""
    found: dict[str, catalog.Documentation] = {}
    wanted = [*start, *(name for schema in defined.values() for name in _references(schema) if _is_plain(name))]
    for name in wanted:  # grows on the way
        if name not in found:
            module, _, cls = name.rpartition(".")
            found[name] = catalog.documentation_of(f"bascule.{module}", cls)
            wanted += [
                other for field in found[name].fields for other in _references(field.accepts) if _is_plain(other)
            ]
    return found


def _references(schema: Any) -> Iterator[str]:
    """Names of what a schema refers to, however deep."""
    if isinstance(schema, Mapping):
        yield from _reference(dict(schema))
        for part in schema.values():
            yield from _references(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _references(part)


def _is_plain(name: str) -> bool:
    return re.fullmatch(r"[a-z_.]+\.[A-Z]\w+", name) is not None


def _plain(name: str, about: catalog.Documentation) -> Schema:
    """Settings of a class; one that goes under a name of its own needs it."""
    properties = {field.name: _several_plain(_property(field)) for field in about.fields}
    named = {"required": ["name"]} if "name" in properties else {}
    return {**_object(properties, title=name.rpartition(".")[2], description=about.summary), **named}


def _several_plain(schema: Schema) -> Schema:
    """Where several classes may stand: also the names of those that have one, and changes to either of them."""
    parts = [name for name in _references(schema.get("anyOf", ())) if _is_plain(name)]
    if len(parts) < 2:
        return schema
    settings: dict[str, list[Schema]] = {}
    words: list[str] = []
    for part in parts:
        module, _, cls = part.rpartition(".")
        for field in catalog.documentation_of(f"bascule.{module}", cls).fields:
            if field.name == "name":
                words += field.accepts["enum"]
            else:
                text = " ".join(field.text.split())
                settings.setdefault(field.name, []).append({**field.accepts, "description": text})
    return {**schema, "anyOf": [*schema["anyOf"], {"enum": words}, _changes(settings)]}


# --- what varies -----------------------------------------------------------------------------------------------------


def _changes_of(name: str) -> str:
    """The name in `$defs` of changes to a component that is named elsewhere, for that of a room or a list of it."""
    return f"{name.removesuffix('._list')}._changes"


def _vary(defined: Mapping[str, Schema]) -> Schema:
    """Paths of settings with the values that each may take."""
    paths: dict[str, Schema] = {}
    parts: list[str] = []
    _walk("", "plan.schema.Setup", defined, (), paths, parts)
    paths = {path: schema for path, schema in paths.items() if path.partition(".")[0] != "probe"}  # changes no result
    inside = "|".join(map(re.escape, parts))
    return {
        "type": ["object", "null"],
        "properties": {path: _values(schema) for path, schema in paths.items()},
        "patternProperties": {rf"^({inside})\.[^.]": _values({})},
        "additionalProperties": False,
    }


def _values(schema: Schema) -> Schema:
    """Some values, or a mapping of their names; null takes a path out in a scale."""
    several = {"items": schema, "additionalProperties": schema} if schema else {}
    return {"type": ["array", "object", "null"], "minItems": 1, "minProperties": 1, **several}


def _walk(
    path: str,
    name: str,
    defined: Mapping[str, Schema],
    around: tuple[str, ...],
    paths: dict[str, Schema],
    parts: list[str],
) -> None:
    """Enter the paths of what is defined under a name into `paths`, and the outermost ones of components into `parts`.

    Inside of one kind of component there is never another of the same kind: what stands deeper is left open.
    """
    for key, schema in defined[name]["properties"].items():
        here = f"{path}.{key}".lstrip(".")
        if key == "name" or here in paths:
            continue
        paths[here] = reference(f"{name}/properties/{key}")
        for inner in _held(schema):
            if not _is_plain(inner):
                parts += [] if any(here.startswith(f"{part}.") for part in parts) else [here]
                inner = _changes_of(inner)
            if inner in defined and inner not in (*around, name):
                _walk(here, inner, defined, (*around, name), paths, parts)


def _held(schema: Schema) -> list[str]:
    """Names of what a setting itself may be, without entries of lists."""
    return [name for option in (schema, *schema.get("anyOf", ())) for name in _reference(option)]


def _reference(schema: Schema) -> list[str]:
    return [schema["$ref"].removeprefix("#/$defs/")] if "$ref" in schema else []
