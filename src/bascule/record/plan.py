"""The plan of a run as kept in `study.json`: typed, checked when read, and brought up to date in this file alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bascule.core.text import quote, with_ball


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The ball that an attack or a bound speaks of, and what more flags want to know of it."""

    norm: str | None = None
    """None, as `eps`, of an attack in a threat model that is no ball."""
    eps: float | None = None
    uses_gradient: bool | None = None
    """Of an attack: whether its search differentiates the model."""
    of_model: bool | None = None
    """Of a bound: whether it speaks of the model itself, and not of another classifier made from it."""

    within: str | None = None
    """Of an attack without a ball: its threat model, for people."""

    def as_dict(self) -> dict[str, Any]:
        """As recorded: what does not apply is left out."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class RecordedQuestion:
    """One question that a plan asks of a model; the answer is kept under its key."""

    key: str
    kind: str
    reach: Reach | None = None
    value: float | None = None
    """The radius of a point of the security curve, the strength of a weakened trigger, the size of a defender's set,
    how many poisoned images a model is retuned on."""
    name: str | None = field(default=None, compare=False)
    """Of the component that it is about; None where it is about none or several, and in plans of version 0.2."""

    @property
    def words(self) -> str:
        """What an attack or a bound is called below a table: `pgd (linf, eps 8/255)`; without a name its kind."""
        if self.reach is None or self.name is None:
            return self.name or self.kind
        ball = {} if self.reach.eps is None else {"norm": self.reach.norm, "eps": self.reach.eps}
        return with_ball({"name": self.name, **ball})


def words_of(questions: Sequence[RecordedQuestion], asked: Sequence[RecordedQuestion]) -> list[str]:
    """What each of some questions is called: `1 of 2 apgd (linf, eps 8/255)` where more are called so, as by the parts
    of AutoAttack, and not all of them are among these."""
    some, all_ = (Counter((question.kind, question.words) for question in each) for each in (questions, asked))
    numbers = {called: f"{times} of {all_[called]} " if times < all_[called] else "" for called, times in some.items()}
    return [numbers[question.kind, question.words] + question.words for question in questions]


@dataclass(frozen=True, kw_only=True)
class RecordedCell:
    """One model of a plan and what it is asked."""

    fingerprint: str
    questions: tuple[RecordedQuestion, ...] = ()

    def of(self, kind: str) -> tuple[RecordedQuestion, ...]:
        """Its questions of one kind, in order."""
        return tuple(question for question in self.questions if question.kind == kind)

    @property
    def keys(self) -> frozenset[str]:
        """Keys of all its questions."""
        return frozenset(question.key for question in self.questions)


@dataclass(frozen=True, kw_only=True)
class RecordedSeed:
    """One seed of a row: its model, and the twin where there is one."""

    seed: int
    cell: RecordedCell
    twin: RecordedCell | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedValues:
    """What a publication reports for a row."""

    metrics: Mapping[str, float]
    """True values, by metric."""
    printed: Mapping[str, float] = field(default_factory=dict)
    """Values as printed, where they are known to be wrong."""
    note: str = ""
    row: str = ""
    vary: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As recorded."""
        return {name: getattr(self, name) for name in ("row", "vary", "metrics", "printed", "note")}


@dataclass(frozen=True, kw_only=True)
class RecordedRow:
    """One row of a plan."""

    row: str
    data: str
    vary: Mapping[str, Any]
    target: int | None
    """Label that the poison aims at; None where there is no single one."""
    settings: Mapping[str, Any]
    """With defaults."""
    given: Mapping[str, Any]
    """As written."""
    seeds: tuple[RecordedSeed, ...]
    aims: tuple[int, ...] | None = None
    """Label that each class aims at, -1 for none; None where that is `target` for every other class."""
    published: PublishedValues | None = None


@dataclass(frozen=True, kw_only=True)
class RecordedPlan:
    """A plan, readable without the components that it names."""

    study: str
    title: str
    about: str
    rows: tuple[RecordedRow, ...]
    metrics: tuple[str, ...]
    """Names in the catalogue."""
    overrides: tuple[str, ...] = ()
    text: str = ""
    """The study file."""
    folder: str = ""
    """Where it lay, for the files that it names; empty where that was the current folder."""
    scale: str | None = None

    def cells(self) -> Iterator[RecordedCell]:
        """Every model that is listed, each before its twin; one that rows share comes once per row."""
        for row in self.rows:
            for seed in row.seeds:
                yield seed.cell
                if seed.twin is not None:
                    yield seed.twin

    def as_dict(self) -> dict[str, Any]:
        """As recorded."""
        return {
            "study": self.study,
            "scale": self.scale,
            "title": self.title,
            "about": self.about,
            "overrides": list(self.overrides),
            "text": self.text,
            **({"folder": self.folder} if self.folder else {}),
            "metrics": list(self.metrics),
            "rows": [_row_as_dict(row) for row in self.rows],
        }


def plain_name(value: Any) -> str:
    """The name of a cell, or the key of a question: what a path may be made of without leaving the run's folder.

    Raises:
        ValueError: It has other characters than letters, digits, `_`, `-`, and in a key one `:`; or is endless.
    """
    if not re.fullmatch(r"[\w-]{1,100}(:[\w-]{1,100})?", name := str(value)):
        raise ValueError(f"{quote(name)} is no name of a cell and no key of a question")
    return name


def came_as_it_is(settings: Mapping[str, Any]) -> bool:
    """Whether the models of a row with these settings came with their weights, and nothing was trained or changed."""
    return "train" in settings and settings["train"] is None and settings.get("repair") is None


def plan_from(content: Mapping[str, Any]) -> RecordedPlan:
    """The plan in the content of `study.json`, of this version or an earlier one.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It is none; whoever read the file says which one.
    """
    return RecordedPlan(
        study=str(content["study"]),
        scale=content.get("scale"),
        title=str(content["title"]),
        about=str(content["about"]),
        overrides=tuple(map(str, content["overrides"])),
        text=str(content["text"]),
        folder=str(content.get("folder", "")),
        metrics=tuple(map(str, content["metrics"])),
        rows=tuple(map(_row_from, content["rows"])),
    )


# --- on disk ---------------------------------------------------------------------------------------------------------


def _row_as_dict(row: RecordedRow) -> dict[str, Any]:
    return {
        "row": row.row,
        "data": row.data,
        "vary": dict(row.vary),
        "target": row.target,
        **({} if row.aims is None else {"aims": list(row.aims)}),
        "settings": dict(row.settings),
        "given": dict(row.given),
        "published": None if row.published is None else row.published.as_dict(),
        "cells": [_seed_as_dict(seed) for seed in row.seeds],
    }


def _seed_as_dict(seed: RecordedSeed) -> dict[str, Any]:
    questions = seed.cell.questions
    names = {question.key: question.name for question in questions if question.name is not None}
    return {
        "seed": seed.seed,
        "cell": seed.cell.fingerprint,
        "twin": None if seed.twin is None else seed.twin.fingerprint,
        "columns": _by_kind(questions),
        "twin_columns": {} if seed.twin is None else _by_kind(seed.twin.questions),
        "balls": {question.key: question.reach.as_dict() for question in questions if question.reach is not None},
        "values": {question.key: question.value for question in questions if question.value is not None},
        **({"names": names} if names else {}),
    }


def _by_kind(questions: Sequence[RecordedQuestion]) -> dict[str, list[str]]:
    keys: dict[str, list[str]] = {}
    for question in questions:
        keys.setdefault(question.kind, []).append(question.key)
    return keys


def _row_from(content: Mapping[str, Any]) -> RecordedRow:
    published = content.get("published")
    return RecordedRow(
        row=str(content["row"]),
        data=str(content["data"]),
        vary=dict(content["vary"]),
        target=_label(content["target"]),
        aims=None if content.get("aims") is None else tuple(map(_aim, content["aims"])),
        settings=dict(content["settings"]),
        given=dict(content.get("given", {})),
        published=None if published is None else _published_from(published),
        seeds=tuple(_seed_from(cell, content["settings"]) for cell in content["cells"]),
    )


def _label(value: Any) -> int | None:
    if value is not None and not (isinstance(value, int) and 0 <= value < 2**31):
        raise ValueError(f"{value!r} is no label")
    return value


def _aim(value: Any) -> int:
    label = None if value == -1 else _label(value)
    return -1 if label is None else label


def _published_from(content: Mapping[str, Any]) -> PublishedValues:
    metrics, printed = (
        {str(name): float(value) for name, value in content.get(key, {}).items()} for key in ("metrics", "printed")
    )
    return PublishedValues(
        metrics=metrics,
        printed=printed,
        note=str(content.get("note", "")),
        row=str(content.get("row", "")),
        vary=dict(content.get("vary", {})),
    )


def _seed_from(content: Mapping[str, Any], settings: Mapping[str, Any]) -> RecordedSeed:
    asked, twin = content["columns"], content["twin"]
    # Runs recorded before twins had evaluations of their own asked them all but the attacks.
    of_twin = content.get("twin_columns", {kind: keys for kind, keys in asked.items() if kind != "attack"})
    reaches = {key: _reach_from(reach) for key, reach in content.get("balls", {}).items()}
    values = {key: float(value) for key, value in content.get("values", {}).items()}
    names = {key: str(name) for key, name in content.get("names", _names_in(settings, asked)).items()}
    return RecordedSeed(
        seed=int(content["seed"]),
        cell=_cell_from(content["cell"], asked, reaches, values, names),
        twin=None if twin is None else _cell_from(twin, of_twin, {}, values, names),
    )


def _names_in(settings: Mapping[str, Any], asked: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What attacks and bounds are called in a plan of version 0.2: as in the settings, where none has several parts."""
    names = dict[str, str]()
    for kind in ("attack", "certify"):
        keys, parts = asked.get(kind, ()), settings.get(kind) or ()
        if len(keys) == len(parts):
            names |= {key: part["name"] for key, part in zip(keys, parts, strict=True)}
    return names


def _reach_from(content: Mapping[str, Any]) -> Reach:
    if "within" in content:
        return Reach(**{**content, "within": str(content["within"])})
    return Reach(**{**content, "norm": str(content["norm"]), "eps": float(content["eps"])})


def _cell_from(
    fingerprint: Any,
    asked: Mapping[str, Sequence[str]],
    reaches: Mapping[str, Reach],
    values: Mapping[str, float],
    names: Mapping[str, str],
) -> RecordedCell:
    return RecordedCell(
        fingerprint=plain_name(fingerprint),
        questions=tuple(
            RecordedQuestion(
                key=plain_name(key), kind=kind, reach=reaches.get(key), value=values.get(key), name=names.get(key)
            )
            for kind, keys in asked.items()
            for key in keys
        ),
    )
