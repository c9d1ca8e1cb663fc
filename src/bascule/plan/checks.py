"""What is refused before anything runs: settings that are each right and cannot work together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch

from bascule.certify import Certifier
from bascule.certify.run import check_certifier
from bascule.core import rng
from bascule.core.catalog import name_of
from bascule.core.errors import RequestError, placed
from bascule.core.gradients import no_gradients
from bascule.core.text import quote
from bascule.data import Facts, Source
from bascule.explain import HeatMap
from bascule.measure import Metric
from bascule.models.checks import check_network
from bascule.plan.plan import Row
from bascule.plan.schema import Setup
from bascule.train import Objective


class Checks:
    """What has been looked at: facts of each source and the fit of each network once per plan, however many rows."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots
        self._facts: dict[str, Facts] = {}
        self._flat: dict[str, bool] = {}
        """Of the networks that fit, whether they are without gradients."""
        self._bounded: set[str] = set()
        """Bounds and the networks that they can follow."""

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
                setup.poison.check_data(facts)
            assert setup.poison.target is not None
            if not bool((facts.test_labels != setup.poison.target).any()):
                raise RequestError(
                    "every test image is of the target class; nothing can be attacked", place=("poison",)
                )
        _check_defences(setup)
        if setup.train is None:
            _check_as_it_is(setup)
        key = repr((setup.model, facts.size, len(facts.classes), setup.train is None))
        if key not in self._flat:
            with placed("model"):
                trained = setup.train is not None
                self._flat[key] = check_network(
                    setup.model, facts.size, len(facts.classes), trained=trained, complete=not trained
                )
        if self._flat[key]:
            _check_without_gradients(setup)
        self._check_bounds(setup, facts)
        return facts

    def _check_bounds(self, setup: Setup, facts: Facts) -> None:
        """Bounds look into the network, and some of its layers they may not know.

        Raises:
            RequestError: One of them cannot follow the network.
        """
        asking: list[tuple[str, Certifier | Objective]] = [("certify", part) for part in setup.certify]
        asking += [] if setup.train is None else [("train", setup.train.objective)]
        for place, part in asking:
            key = repr((part, setup.model, facts.size, len(facts.classes)))
            looks = part.of_model if isinstance(part, Certifier) else part.needs_float32
            if not looks or key in self._bounded:
                continue
            network = setup.model.initialised(facts.size, len(facts.classes), seed=0)
            images = torch.rand(2, *facts.size, generator=rng.stream(0, "trial", "bounds"))
            with placed(place), rng.borrowed_global_stream(0, "trial"), torch.no_grad():
                if isinstance(part, Certifier):
                    check_certifier(network, part, images)
                else:
                    part.check_model(network.train(), images)
            self._bounded.add(key)


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
    prepared = setup.poison is not None and setup.poison.prepare is not None
    for given, place, instead in (
        (setup.filter is not None, ("filter",), ", or judge the training set with `inspect`"),
        (setup.probe is not None, ("probe",), ""),
        (prepared, ("poison", "prepare"), ": poisoned images are prepared on a model that is trained for it"),
    ):
        if given:
            raise RequestError(f"{without}{instead}", place=place)


def _check_without_gradients(setup: Setup) -> None:
    """What follows gradients has no use for a network that has none; attacks go on, and are flagged.

    Raises:
        RequestError: The objective, scanner or explanation would work on noise.
    """
    objective = None if setup.train is None else setup.train.objective
    asking: list[tuple[str, object]] = [("train", objective)] if objective and objective.follows_gradients else []
    asking += [("scan", setup.scan)] if setup.scan is not None and setup.scan.follows_gradients else []
    asking += [("repair", setup.repair)] if setup.repair is not None and setup.repair.follows_gradients else []
    asking += [("explain", part) for part in setup.explain if isinstance(part, HeatMap) and part.follows_gradients]
    for place, part in asking:
        with placed(place):
            raise RequestError(no_gradients(name_of(part)))


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


def check_metrics(metrics: Sequence[Metric]) -> None:
    """Refuse a metric with settings: the record keeps its name alone, and would read it back with others."""
    for number, metric in enumerate(metrics):
        if settings := [field.name for field in fields(metric)]:
            raise RequestError(
                f"{name_of(metric)} has settings ({', '.join(settings)}), and a metric must have none: give each value "
                "a metric of its own",
                place=(f"measure[{number}]",),
            )


def check_rows_differ(rows: Sequence[Row]) -> None:
    """Two rows with the same settings are one too many."""
    seen: dict[str, str] = {}
    for row in rows:
        key = repr((*(cell.setup for cell in row.cells), row.vary))
        if key in seen:
            raise RequestError(
                f"is the same as row {quote(seen[key])}: every setting is equal. Remove one.", place=("rows", row.name)
            )
        seen[key] = row.name
