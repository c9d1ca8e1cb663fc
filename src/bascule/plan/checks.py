"""What is refused before anything runs: settings that are each right and cannot work together."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bascule.certifiers.contract import Certifier
from bascule.certifiers.run import check_certifier
from bascule.core import rng
from bascule.core.catalog import build, name_of
from bascule.core.errors import RequestError, placed, unknown
from bascule.core.features import features
from bascule.core.gradients import no_gradients
from bascule.core.images import Images, as_bytes
from bascule.core.text import count, quote
from bascule.data.contract import Facts, Source
from bascule.detectors.contract import Detector
from bascule.detectors.run import images_needed
from bascule.evaluation.kinds import kinds
from bascule.explanations.contract import HeatMap, Projection
from bascule.filters.contract import Filter
from bascule.metrics.contract import AIM, OF_BASE, OF_TWIN, Metric
from bascule.metrics.detection import REFUSING
from bascule.metrics.needs import in_words, keys_of
from bascule.models.checks import check_network
from bascule.plan.plan import Cell, Row, retuning_of
from bascule.plan.schema import Setup
from bascule.repairs.contract import Repair
from bascule.scanners.contract import Scanner
from bascule.training.contract import Course, Objective
from bascule.triggers.aims import NOWHERE, aim_of
from bascule.triggers.given import GivenPoison

_ROOMS = (Certifier, Filter, Repair, Scanner, Detector, HeatMap, Objective)
"""Whose components may say of a network, before any training, that they cannot work on it."""


class Checks:
    """What has been looked at: facts of each source and the fit of each network once per plan, however many rows."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots
        self._facts: dict[str, Facts] = {}
        self._flat: dict[str, bool] = {}
        """Of the networks that fit, whether they are without gradients."""
        self._fitting: set[str] = set()
        """Parts and the networks that they can work on."""

    def facts(self, source: Source) -> Facts:
        """Reading the labels of a large set takes a moment."""
        key = repr(source)
        if key not in self._facts:
            with placed("data"):
                self._facts[key] = source.facts(self._roots)
        return self._facts[key]

    def classes(self, data: Any) -> tuple[str, ...]:
        """Names of the classes of a source that is still plain settings."""
        with placed("data"):
            source: Source = build("data", data)
        return self.facts(source).classes

    def check(self, setup: Setup) -> Facts:
        """Refuse what cannot work: poison that does not fit the data, a network that does not take the images."""
        facts = self.facts(setup.data)
        if setup.poison is not None:
            with placed("poison"):
                setup.poison.check_data(facts)
            aims = setup.poison.aims(len(facts.classes))
            if bool((aim_of(facts.test_labels, setup.poison.target, aims) == NOWHERE).all()):
                what = "every test image is of the target class"
                what = what if aims is None else "no test image is of a source class"
                raise RequestError(f"{what}; nothing can be attacked", place=("poison",))
        _check_defences(setup)
        _check_retuning(setup, facts)
        for attack in setup.attack:
            with placed("attack"):
                attack.threat.check_size(facts.size)
        if setup.train is None:
            _check_as_it_is(setup)
        elif isinstance(setup.train.objective, Course):
            with placed("train"):
                setup.train.objective.check_epochs(setup.train.epochs)
        key = repr((setup.model, facts.size, len(facts.classes), setup.train is None))
        if key not in self._flat:
            with placed("model"):
                trained = setup.train is not None
                self._flat[key] = check_network(
                    setup.model, facts.size, len(facts.classes), trained=trained, complete=not trained
                )
        if self._flat[key]:
            _check_without_gradients(setup)
        self._check_parts(setup, facts)
        return facts

    def _check_parts(self, setup: Setup, facts: Facts) -> None:
        """Some parts look into the network, and it may not have what they need.

        Raises:
            RequestError: Bounds cannot follow it, a layer does not run, an operation has no second derivative ...
        """
        network = functools.cache(lambda: setup.model.initialised(facts.size, len(facts.classes), seed=0).eval())
        pixels = torch.rand(2, *facts.size, generator=rng.stream(0, "trial", "bounds"))
        for place, part in _looking_inside(setup):
            key = repr((part, setup.model, facts.size, len(facts.classes)))
            if key in self._fitting:
                continue
            with placed(place), rng.borrowed_global_stream(0, "trial"), torch.no_grad():
                _check_part(part, network(), pixels, facts.classes)
            self._fitting.add(key)


def _looking_inside(setup: Setup) -> list[tuple[str, Any]]:
    """The parts that say of a network whether they can work on it, with their places; the objective last.

    It is given the network in train mode, which moves running statistics.
    """
    rooms = ("certify", "filter", "inspect", "repair", "scan", "detect", "explain")
    places = [(name, getattr(setup, name)) for name in rooms]
    given = [(name, part) for name, value in places for part in (value if isinstance(value, tuple) else (value,))]
    if setup.train is not None:
        given.append(("train", setup.train.objective))
    return [(name, part) for name, part in given if isinstance(part, Projection) or _checks_model(part)]


def _checks_model(part: object) -> bool:
    base = next((room for room in _ROOMS if isinstance(part, room)), None)
    return base is not None and type(part).check_model is not base.check_model  # type: ignore[attr-defined]


def _check_part(part: Any, network: nn.Module, x: Tensor, classes: tuple[str, ...]) -> None:
    if isinstance(part, Certifier):
        check_certifier(network, part, x)
    elif isinstance(part, Objective):
        part.check_model(network.train(), x)
    elif isinstance(part, HeatMap):
        part.check_model(network, x)
    else:
        ids = torch.arange(len(x))
        images = Images(pixels=as_bytes(x), labels=ids % len(classes), ids=ids, classes=classes)
        if isinstance(part, Projection):
            features(network, images, layer=part.layer)
        else:
            part.check_model(network, images)


def _check_as_it_is(setup: Setup) -> None:
    """A model that nobody trains must come with its weights, and has no use for what belongs to a training.

    Raises:
        RequestError: It has no weights, or something would change its training.
    """
    if setup.model.weights is None:
        name = name_of(setup.model)
        raise RequestError(
            f"trains nothing, so that the model must bring its weights: model: {{name: {name}, weights: FILE}}",
            place=("train",),
        )
    if setup.model.weights_sha256 is None:
        raise RequestError(
            f"{type(setup.model).__name__}.__post_init__ must call super().__post_init__(), which looks at the file",
            place=("model", "weights"),
        )
    without = "nothing is trained (`train: none`); leave it out"
    poison = setup.poison
    needs_proxy = poison is not None and poison.needs_proxy
    what = "trigger" if getattr(poison, "prepare", None) is None else "prepare"
    for given, place, instead in (
        (setup.filter is not None, ("filter",), ", or judge the training set with `inspect`"),
        (setup.probe is not None, ("probe",), ""),
        (needs_proxy, ("poison", what), ": this poison is prepared on a model that is trained for it"),
    ):
        if given:
            raise RequestError(f"{without}{instead}", place=place)


def _check_without_gradients(setup: Setup) -> None:
    """What follows gradients has no use for a network that has none; attacks go on, and are flagged.

    Raises:
        RequestError: The objective, scanner, detector, repair or explanation would work on noise.
    """
    objective = None if setup.train is None else setup.train.objective
    asking: list[tuple[str, object]] = [("train", objective)] if objective and objective.follows_gradients else []
    asking += [("scan", setup.scan)] if setup.scan is not None and setup.scan.follows_gradients else []
    asking += [("detect", setup.detect)] if setup.detect is not None and setup.detect.follows_gradients else []
    asking += [("repair", setup.repair)] if setup.repair is not None and setup.repair.follows_gradients else []
    asking += [("explain", part) for part in setup.explain if isinstance(part, HeatMap) and part.follows_gradients]
    for place, part in asking:
        with placed(place):
            raise RequestError(no_gradients(name_of(part)))


def _check_defences(setup: Setup) -> None:
    """Defenders need images of their own, and a filter judges once."""
    asking = ["repair"] if setup.repair is not None and setup.repair.needs_images else []
    asking += [place for place in ("scan", "detect") if getattr(setup, place) is not None]
    held_out = setup.data.held_out
    if asking and not held_out:
        raise RequestError(
            f"{' and '.join(asking)} needs clean images that are not trained on: say how many with data.held_out, "
            f"for example 500",
            place=("data", "held_out"),
        )
    if setup.train is not None and setup.train.keep == "best" and not held_out:
        raise RequestError(
            "'best' is the epoch with the highest robust accuracy on clean images that are not trained on, and none "
            "are held out: say how many with data.held_out, for example 500",
            place=("train", "keep"),
        )
    if setup.defender is not None and setup.defender > held_out:
        raise RequestError(
            f"{count(setup.defender, 'image')} asked for, {count(held_out, 'is', 'are')} held out", place=("defender",)
        )
    there = held_out if setup.defender is None else setup.defender
    if setup.detect is not None and there < (least := images_needed(setup.detect, REFUSING)):
        raise RequestError(
            f"{name_of(setup.detect)} needs at least {least} clean images, half of them for a threshold at "
            f"{100 * REFUSING:g} % false alarms; there are {there}. Give more (`data.held_out`, `defender`)",
            place=("detect",),
        )
    if setup.inspect is not None and setup.filter is not None:
        raise RequestError(
            "the row's own filter judges the training set already; leave one of `inspect` and `filter` out",
            place=("inspect",),
        )


def _check_retuning(setup: Setup, facts: Facts) -> None:
    """Retuning needs clean images enough, and a trigger that can be stamped on them.

    Raises:
        RequestError: It has not.
    """
    retune, poison = setup.retune, setup.poison
    if retune is None or poison is None:
        return
    held_out = setup.data.held_out
    there = held_out or len(facts.train_labels)
    if retune.images > there:
        where = f"{count(there, 'is', 'are')} held out" if held_out else f"the training set has {there}"
        raise RequestError(f"{count(retune.images, 'image')} asked for, {where}", place=("retune", "images"))
    if isinstance(poison, GivenPoison) and poison.count(facts.train_labels, len(facts.classes)) == 0:
        problem = "the data are poisoned already, so that nobody has clean images to train on; leave it out"
        raise RequestError(problem, place=("retune",))
    if not held_out:  # else which images those are is known once they are drawn
        aims = aim_of(facts.train_labels, poison.target, poison.aims(len(facts.classes)))
        retuning_of(setup).able(aims)
    if retune.poisoned and poison.trigger_at_test.numbered:
        raise RequestError(
            "the trigger is known on stamped test images alone, and other images cannot be poisoned with it; give 0, "
            "or the trigger as `poison.trigger`",
            place=("retune", "poisoned"),
        )


def check_metrics(metrics: Sequence[Metric]) -> None:
    """Refuse a metric with settings: the record keeps its name alone, and would read it back with others."""
    for number, metric in enumerate(metrics):
        if settings := [field.name for field in fields(metric)]:
            raise RequestError(
                f"{name_of(metric)} has settings ({', '.join(settings)}), and a metric must have none: give each value "
                "a metric of its own",
                place=(f"measure[{number}]",),
            )


def check_measured(metrics: Sequence[Metric], rows: Sequence[Row], *, unchecked: Collection[str] = ()) -> None:
    """Refuse a metric that no row has what it is made from: its column would be empty.

    Args:
        metrics: Of the study.
        rows: Its rows.
        unchecked: Names of metrics that may stay empty.

    Raises:
        RequestError: There is such a metric, or one that wants questions of a kind that there is not.
    """
    known = [frozenset(_answered(row)) for row in rows]
    for number, metric in enumerate(metrics):
        missing = min(([need for need in metric.needs if need not in there] for there in known), key=len)
        if missing and name_of(metric) not in unchecked:
            with placed(f"measure[{number}]"):
                raise RequestError(_not_measured(metric, missing))


def _answered(row: Row) -> Iterator[str]:
    """What metrics of the row may be made from, as `Metric.needs` has it."""
    cell, twin = row.cells[0], next(iter(row.twins), None)
    of_row = [AIM] if row.setup.poison is not None else []
    yield from (*of_row, *_kinds(cell))
    if twin is not None:
        yield from (f"{OF_TWIN}{kind}" for kind in (*of_row, *_kinds(twin)))
    if row.setup.repair is not None and cell.base is not None:
        yield from (f"{OF_BASE}{kind}" for kind in _kinds(cell.base))


def _kinds(cell: Cell) -> Iterator[str]:
    """The kinds of the questions to a model; a filter before its training, or in it, says what an inspection does."""
    yield from (question.kind for question in cell.questions)
    objective = None if cell.setup.train is None else cell.setup.train.objective
    isolating = isinstance(objective, Course) and type(objective).isolated is not Course.isolated
    if cell.setup.filter is not None or isolating:
        yield "inspect"


def _not_measured(metric: Metric, missing: Sequence[str]) -> str:
    """Why a metric has nothing that it could be made from."""
    name = name_of(metric)
    try:
        needed, lacking = keys_of(metric.needs), keys_of(missing)
    except KeyError as error:
        return unknown(f"kind of question that {name} needs", str(error.args[0]), kinds())
    has = {1: "it", 2: "both"}.get(len(needed), "all of these")
    give = "it" if len(needed) == 1 else in_words(lacking)
    return (
        f"{name} needs {in_words(needed)}, and no row has {has}: its column would be empty. Give {give} in the base or "
        f"in a row, or leave {name} out"
    )


def check_rows_differ(rows: Sequence[Row]) -> None:
    """Two rows with the same settings are one too many; what `probe` sees of their models is the same too."""
    seen: dict[str, Row] = {}
    for row in rows:
        key = repr((*(replace(cell.setup, probe=None) for cell in row.cells), row.vary))
        other = seen.setdefault(key, row)
        if other is not row:
            but = "" if other.setup.probe == row.setup.probe else " but `probe`, which changes no result,"
            problem = f"is the same as row {quote(other.name)}: every setting{but} is equal. Remove one."
            raise RequestError(problem, place=("rows", row.name))
