"""From one recipe to its cells: one for each seed, and its twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bascule.core.catalog import name_of
from bascule.core.fingerprint import fingerprint
from bascule.data import Facts
from bascule.data.identity import content_settings, test_identity
from bascule.evaluation.question import EvaluationSettings, Question
from bascule.evaluation.run import questions_of
from bascule.measure import Metric
from bascule.plan.plan import Cell, Row
from bascule.plan.schema import EVALUATIONS, Setup


def make_row(
    name: str,
    varied: dict[str, Any],
    setup: Setup,
    given: dict[str, Any],
    facts: Facts,
    seeds: Sequence[int],
    *,
    metrics: Sequence[Metric],
    twin: bool,
) -> Row:
    """The cells of one row of a study.

    Args:
        name: The row's name.
        varied: What varies, by path.
        setup: Its settings.
        given: Its settings as written.
        facts: About its data.
        seeds: One cell for each.
        metrics: What is measured; some want evaluations of their own.
        twin: Whether each cell gets a twin, if it has poison.

    Raises:
        RequestError: The evaluations do not go together.
    """
    label = " · ".join((name, *(f"{path} {value}" for path, value in varied.items())))
    poison, control = setup.poison, replace(setup, poison=None)
    settings = EvaluationSettings(
        test=test_identity(setup.data, facts),
        attack=setup.attack,
        curve=setup.curve,
        certify=setup.certify,
        inspect=setup.inspect,
        scan=setup.scan,
        defender=setup.defender,
        explain=setup.explain,
        trigger=poison.trigger_at_test if poison else None,
        target=poison.target if poison else None,
        metrics={name_of(metric): metric for metric in metrics},
    )
    questions = questions_of(settings)
    attack = setup.attack if "twin-attack" in settings.needs else ()
    of_twin = questions_of(replace(settings, attack=attack, curve=(), certify=(), metrics={}))
    has_twin = twin and poison is not None and poison.count(facts.train_labels, len(facts.classes)) > 0
    return Row(
        name=name,
        vary=varied,
        setup=setup,
        given=given,
        cells=tuple(_cell(setup, facts, seed, f"{label} · seed {seed}", given, questions) for seed in seeds),
        twins=tuple(
            _cell(control, facts, seed, f"{label} · seed {seed} · twin", {**given, "poison": None}, of_twin)
            for seed in seeds
            if has_twin
        ),
    )


def _cell(
    setup: Setup, facts: Facts, seed: int, label: str, given: Mapping[str, Any], questions: tuple[Question, ...]
) -> Cell:
    # What only the test images meet must not lead to another model.
    data = {**content_settings(setup.data), "max_test": None}
    poison = replace(setup.poison, test_trigger=None) if setup.poison else None
    repaired = (setup.repair, setup.defender) if setup.repair else None
    name = fingerprint("cell", facts.digest, data, poison, setup.filter, setup.model, setup.train, repaired, seed)
    written = {key: value for key, value in given.items() if key not in EVALUATIONS}

    def needed(changed: Setup, what: str, **without: None) -> Cell:
        return _cell(changed, facts, seed, f"{label} · {what}", {**given, **without}, ())

    base = proxy = None
    if setup.repair is not None:
        base = needed(replace(setup, repair=None), "before repair", repair=None)
    elif setup.filter is not None:
        base = needed(replace(setup, filter=None), "unfiltered", filter=None)
    if setup.poison is not None and setup.poison.prepare is not None:
        # Label-consistent images are prepared on the twin, whatever defence the recipe has.
        plain = replace(setup, poison=None, filter=None, repair=None)
        proxy = needed(plain, "proxy", poison=None, filter=None, repair=None)
    return Cell(
        fingerprint=name,
        label=label,
        setup=setup,
        given=written,
        seed=seed,
        questions=questions,
        base=base,
        proxy=proxy,
    )
