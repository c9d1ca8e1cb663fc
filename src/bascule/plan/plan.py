"""A resolved study: which models to train, and what to ask of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bascule.attacks.contract import Attack
from bascule.core.catalog import describe, name_of
from bascule.core.fingerprint import fingerprint
from bascule.data.contract import Facts
from bascule.data.identity import content_settings, test_identity
from bascule.evaluation.kinds.search import search_for
from bascule.evaluation.question import EvaluationSettings, Question
from bascule.evaluation.retuning import Retuning
from bascule.evaluation.run import questions_of
from bascule.metrics.contract import Metric
from bascule.plan.beside import as_written
from bascule.plan.document import Document
from bascule.plan.schema import EVALUATIONS, Frame, Probe, Published, Setup
from bascule.record.plan import PublishedValues, RecordedCell, RecordedPlan, RecordedRow, RecordedSeed
from bascule.training.standard import Standard
from bascule.triggers.aims import Aims
from bascule.triggers.contract import Searched, Trigger
from bascule.triggers.placement import Poison
from bascule.triggers.several import SeveralPoisons


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What is looked at along the training of a model. A twin is looked at as the model beside it, without poison."""

    probe: Probe
    attack: Attack | None = None
    """The first attack of the row that has a ball."""
    trigger: Trigger | None = None
    """What test images are stamped with."""
    target: int | None = None
    """What the trigger aims at."""
    aims: Aims | None = None
    """What it aims at for each class, where that is not `target` for every other one."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model to train, and what is to be known about it."""

    fingerprint: str
    label: str
    """For people: row, what varies, seed."""
    setup: Setup
    given: dict[str, Any]
    """The settings that make the model, as written, before defaults."""
    seed: int
    questions: tuple[Question, ...]
    watch: Watch | None = None
    """Looks along the training, where the row asks for them."""
    base: Cell | None = None
    """The cell whose model this one repairs, or filters its training data with."""
    proxies: tuple[Cell, ...] = ()
    """The cells on whose models its poison was prepared or searched for, or a trigger that it is asked about: of a
    poisoned cell one at most, of its twin the same, which may be the twin itself."""

    @property
    def proxy(self) -> Cell | None:
        """The cell on whose model its own poison was prepared or searched for."""
        poison = self.setup.poison
        return self.proxies[0] if isinstance(poison, Poison) and poison.needs_proxy else None

    @property
    def made_from(self) -> tuple[Cell, ...]:
        """The cells whose models have a part in it, or in what it is asked; it may be among them."""
        return (*(() if self.base is None else (self.base,)), *self.proxies)

    @property
    def needs(self) -> tuple[Cell, ...]:
        """Cells whose models must be there first."""
        return tuple(cell for cell in self.made_from if cell.fingerprint != self.fingerprint)

    def settings(self) -> dict[str, Any]:
        """The settings that make the model, with defaults; evaluations are kept with their results."""
        return {key: value for key, value in describe(self.setup).items() if key not in EVALUATIONS}


@dataclass(frozen=True, kw_only=True)
class Row:
    """Cells that differ only by seed, with their twins."""

    name: str
    vary: dict[str, Any]
    setup: Setup
    given: dict[str, Any]
    """Its settings as written, before defaults."""
    cells: tuple[Cell, ...]
    twins: tuple[Cell, ...]
    aims: Aims | None = None
    """What its poison aims at for each class, where that is not one target for every other one."""
    published: Published | None = None

    @property
    def label(self) -> str:
        """Its name and what varies, as in tables."""
        return " · ".join((self.name, *(f"{path} {value}" for path, value in self.vary.items())))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study, resolved: nothing about it can be refused any more but damaged pictures."""

    document: Document
    overrides: tuple[str, ...]
    title: str
    about: str
    rows: tuple[Row, ...]
    metrics: tuple[Metric, ...]
    scale: str | None = None

    @property
    def name(self) -> str:
        """The study's name."""
        return self.document.name

    @property
    def folder(self) -> str:
        """Name of the run folder: the study's name, and its scale where it has several."""
        return self.name if self.scale is None else f"{self.name}-{self.scale}"

    def cells(self) -> list[Cell]:
        """Every model once, in the order they are made: row by row within a seed, each after those it needs."""
        models: dict[str, Cell] = {}

        def add(cell: Cell) -> None:
            for needed in cell.made_from:
                add(needed)
            known = models.get(cell.fingerprint)
            models[cell.fingerprint] = cell if known is None else _both(known, cell)

        for place in range(max(len(row.cells) for row in self.rows)):
            for row in self.rows:
                for cell in (*row.cells[place : place + 1], *row.twins[place : place + 1]):
                    add(cell)
        return _each_after_what_it_needs(models)

    def recorded(self) -> RecordedPlan:
        """What the run folder keeps of the plan: enough to read the record without the components."""
        return RecordedPlan(
            study=self.name,
            scale=self.scale,
            title=self.title,
            about=self.about,
            overrides=self.overrides,
            text=self.document.text,
            folder="" if self.document.folder is None else str(self.document.folder),
            metrics=tuple(map(name_of, self.metrics)),
            rows=tuple(map(_recorded_row, self.rows)),
        )


def _both(known: Cell, cell: Cell) -> Cell:
    """One model that two rows speak of: with the questions of both."""
    closing = {question.key for question in (*known.questions, *cell.questions) if question.closing}
    asked = {question.key: question for question in (*known.questions, *cell.questions)}
    questions = tuple(replace(question, closing=key in closing) for key, question in asked.items())
    proxies = {proxy.fingerprint: proxy for proxy in known.proxies}
    for proxy in cell.proxies:  # one network may be searched for the triggers of several rows
        before = proxies.get(proxy.fingerprint)
        proxies[proxy.fingerprint] = proxy if before is None else _both(before, proxy)
    return replace(known, questions=questions, watch=_fuller(known.watch, cell.watch), proxies=tuple(proxies.values()))


def _each_after_what_it_needs(models: Mapping[str, Cell]) -> list[Cell]:
    """In their order, but a model that a later row's question makes another one need goes before that one."""
    placed: dict[str, Cell] = {}

    def place(cell: Cell) -> None:
        if cell.fingerprint not in placed:
            for needed in cell.needs:
                place(models[needed.fingerprint])
            placed[cell.fingerprint] = cell

    for cell in models.values():
        place(cell)
    return list(placed.values())


def _fuller(first: Watch | None, second: Watch | None) -> Watch | None:
    """Of the looks that two rows want at a model they share: the first ones, unless only the others know a trigger."""
    if first is None or (first.trigger is None and second is not None and second.trigger is not None):
        return second
    return first


# --- from one recipe to its cells -------------------------------------------------------------------------------------


def make_row(
    name: str,
    varied: dict[str, Any],
    setups: Mapping[int, Setup],
    given: dict[str, Any],
    facts: Facts,
    frame: Frame,
    files: Mapping[str, str],
) -> Row:
    """The cells of one row of a study.

    Args:
        name: The row's name.
        varied: What varies, by path.
        setups: Its settings by seed, one cell for each; they differ in the file of the model's weights at most.
        given: Its settings as written.
        facts: About its data.
        frame: What is measured, and whether each cell gets a twin, if it has poison.
        files: Names of files as they were written, by where they were found; of those that are called otherwise.

    Raises:
        RequestError: The evaluations do not go together.
    """
    setup = next(iter(setups.values()))
    label = " · ".join((name, *(f"{path} {value}" for path, value in varied.items())))
    poison, settings = setup.poison, _asked(setup, facts, frame)
    questions = questions_of(settings)
    of_twin = questions_of(settings.for_twin())
    watch = _watch(setup, settings)
    has_twin = frame.twin and setup.train is not None  # the twin of a model that came as it is would be the same model
    has_twin = has_twin and poison is not None and poison.count(facts.train_labels, len(facts.classes)) > 0
    cells = tuple(
        _cell(own, facts, seed, f"{label} · seed {seed}", given, questions, watch, files, (), settings.needs_of_base)
        for seed, own in setups.items()
    )
    return Row(
        name=name,
        vary=varied,
        setup=setup,
        given=given,
        aims=settings.aims,
        cells=cells,
        twins=tuple(
            _cell(
                replace(own, poison=None),
                facts,
                seed,
                f"{label} · seed {seed} · twin",
                {**given, "poison": None},
                of_twin,
                watch,
                files,
                cell.proxies,
            )
            for cell, (seed, own) in zip(cells, setups.items(), strict=True)
            if has_twin
        ),
    )


def _watch(setup: Setup, settings: EvaluationSettings) -> Watch | None:
    """What is looked at along the training; None where nobody looks."""
    if setup.probe is None:
        return None
    attack = next((one for one in setup.attack if isinstance(one, Attack)), None)
    return Watch(probe=setup.probe, attack=attack, trigger=settings.trigger, **settings.aim)


def _asked(setup: Setup, facts: Facts, frame: Frame) -> EvaluationSettings:
    """What is to be known about the models of a row."""
    poison = setup.poison
    return EvaluationSettings(
        test=test_identity(setup.data, facts),
        attack=setup.attack,
        attack_precision=setup.attack_precision,
        curve=setup.curve,
        certify=setup.certify,
        inspect=setup.inspect,
        scan=setup.scan,
        detect=setup.detect,
        defender=setup.defender,
        explain=setup.explain,
        retune=None if setup.retune is None else retuning_of(setup),
        trigger=poison.trigger_at_test if poison else None,
        target=poison.target if poison else None,
        aims=poison.aims(len(facts.classes)) if poison else None,
        others=poison.others(len(facts.classes)) if isinstance(poison, SeveralPoisons) else (),
        metrics={name_of(metric): metric for metric in frame.measure},
    )


def retuning_of(setup: Setup) -> Retuning:
    """How a row that is to be is retuned, with the label that its poison has."""
    poison, retune = setup.poison, setup.retune
    assert retune is not None
    if retune.label is not None:
        return retune
    poison = poison.parts[poison.measured] if isinstance(poison, SeveralPoisons) else poison
    return replace(retune, label="clean" if isinstance(poison, Poison) and poison.label == "clean" else "dirty")


def _cell(
    setup: Setup,
    facts: Facts,
    seed: int,
    label: str,
    given: Mapping[str, Any],
    questions: tuple[Question, ...],
    watch: Watch | None,
    files: Mapping[str, str],
    proxies: tuple[Cell, ...] = (),
    of_base: frozenset[str] = frozenset(),
) -> Cell:
    # What only the test images meet must not lead to another model.
    data = {**content_settings(setup.data), "max_test": None}
    poison = setup.poison.planting if setup.poison else None
    repaired = (setup.repair, setup.defender) if setup.repair else None
    # A model that came as it is has the same name wherever its file lies.
    model = setup.model if setup.train is not None else replace(setup.model, weights=None)
    parts = [poison, setup.filter, model, setup.train, repaired]
    if files:
        parts = [as_written(describe(part), files) for part in parts]
    name = fingerprint("cell", facts.digest, data, *parts, seed)
    written = {key: value for key, value in given.items() if key not in EVALUATIONS}

    def needed(changed: Setup, what: str, asked: tuple[Question, ...] = (), **without: Any) -> Cell:
        return _cell(changed, facts, seed, f"{label} · {what}", {**given, **without}, asked, watch, files)

    base = None
    if setup.repair is not None:
        asked_before = tuple(question for question in questions if question.kind in of_base)
        base = needed(replace(setup, repair=None), "before repair", asked_before, repair=None)
    elif setup.filter is not None:
        base = needed(replace(setup, filter=None), "unfiltered", filter=None)
    if isinstance(setup.poison, Poison) and setup.poison.needs_proxy:
        # The attacker's network knows no filter and no repair, and the training where the poison says so.
        plain, without = replace(setup, poison=None, filter=None, repair=None), {}
        if setup.poison.proxy == "standard" and setup.train is not None:
            plain = replace(plain, train=replace(setup.train, objective=Standard()))
            without = {"train": {**(given.get("train") or {}), "objective": "standard"}}
        asked = (search_for(setup.poison),) if isinstance(setup.poison.trigger, Searched) else ()
        proxies = (needed(plain, "proxy", asked, poison=None, filter=None, repair=None, **without),)
    return Cell(
        fingerprint=name,
        label=label,
        setup=setup,
        given=written,
        seed=seed,
        questions=questions,
        watch=watch,
        base=base,
        proxies=proxies,
    )


# --- for the record ---------------------------------------------------------------------------------------------------


def _recorded_row(row: Row) -> RecordedRow:
    twins = row.twins or (None,) * len(row.cells)
    return RecordedRow(
        row=row.name,
        data=name_of(row.setup.data),
        vary=row.vary,
        target=row.setup.poison.target if row.setup.poison else None,
        aims=row.aims,
        settings=describe(row.setup),
        given=row.given,
        published=None if row.published is None else PublishedValues(**describe(row.published)),
        seeds=tuple(
            RecordedSeed(seed=cell.seed, cell=_recorded_cell(cell), twin=None if twin is None else _recorded_cell(twin))
            for cell, twin in zip(row.cells, twins, strict=True)
        ),
    )


def _recorded_cell(cell: Cell) -> RecordedCell:
    return RecordedCell(fingerprint=cell.fingerprint, questions=tuple(question.recorded for question in cell.questions))
