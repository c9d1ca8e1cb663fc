"""Questions about a trained model, each under a key that holds everything that can change the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from bascule.attacks.contract import Attack, Evasion
from bascule.attacks.two_precisions import Precision, check_in_float32
from bascule.certifiers.contract import Certifier
from bascule.certifiers.run import check_certifier
from bascule.core import rng
from bascule.core.catalog import describe
from bascule.core.errors import RequestError, placed
from bascule.core.fingerprint import fingerprint
from bascule.core.images import Shown
from bascule.detectors.contract import Detector
from bascule.evaluation.retuning import Retuning
from bascule.explanations.contract import HeatMap, Projection, Spectrum
from bascule.filters.contract import Filter
from bascule.metrics.contract import AIM, OF_BASE, OF_TWIN, Metric
from bascule.metrics.needs import keys_of
from bascule.record.plan import Reach, RecordedQuestion
from bascule.scanners.contract import Scanner
from bascule.triggers.aims import NOWHERE, Aims, aim_of
from bascule.triggers.contract import Trigger
from bascule.triggers.stamping import stamp_at


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question about a model; the answer is kept under `key`."""

    key: str
    kind: str
    settings: Any
    component: Any = None
    after: tuple[str, ...] = ()
    """Keys of the questions whose survivors this one works on."""
    trigger: Trigger | None = None
    """What test images are stamped with, where the question compares them with and without it."""
    stamped: Question | None = None
    """The question whose stamped images this one works on; None: the images as they are."""
    attacked: Question | None = None
    """The question whose attack this one runs again, to look at the images that it makes."""
    of: Question | None = None
    """The question whose changed copy of the model this one is about; None: the model as it is."""
    target: int | None = None
    """The poison's target, where the question is about it."""
    aims: Aims | None = None
    """What each class is meant to be taken for, where the question is about it and that is not `target` for all."""
    radii: tuple[tuple[str, float], ...] = ()
    """For a point of the security curve: what is known already, as (key, eps)."""
    value: float | None = None
    """The radius of a point of the security curve, the strength of a weakened trigger, the size of a defender's set,
    how many poisoned images a model is retuned on."""
    precision: Precision = "float32"
    """Of the attacks' searches."""
    closing: bool = False
    """Whether an attack is the last one of some row that asks this model: no part of the answer, only of its notes."""

    def aim_of(self, labels: Tensor) -> Tensor:
        """For each of these labels the one that the poison aims at; NOWHERE where none is."""
        return aim_of(labels, self.target, self.aims)

    @property
    def recorded(self) -> RecordedQuestion:
        """As a plan keeps it."""
        reach = reach_of(self.component) if isinstance(self.component, (Evasion, Certifier)) else None
        name = self.settings.get("name") if isinstance(self.settings, Mapping) else None
        return RecordedQuestion(key=self.key, kind=self.kind, reach=reach, value=self.value, name=name)


def reach_of(part: Evasion | Certifier) -> Reach:
    """What ball or other threat model an attack or a certifier speaks of, and what more there is to know for flags."""
    if isinstance(part, Attack):
        return Reach(norm=part.norm, eps=part.eps, uses_gradient=part.uses_gradient)
    if isinstance(part, Evasion):
        return Reach(uses_gradient=part.uses_gradient, within=part.threat.words)
    return Reach(norm=part.norm, eps=part.eps, of_model=part.of_model)


Spec = str | Mapping[str, Any]
"""A component by name, or as a mapping with its settings, as in a study file."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What is to be known about a model, whoever trained it."""

    test: str
    """Identity of the test images."""
    attack: tuple[Evasion, ...] = ()
    """Evasion attacks, in order; each meets only the images that withstood the ones before it."""
    attack_precision: Precision = "float32"
    """Of the attacks' searches; one that cannot do with two precisions stays in float32."""
    curve: tuple[float, ...] = ()
    """Further radii for the security curve."""
    certify: tuple[Certifier, ...] = ()
    inspect: Filter | None = None
    scan: Scanner | None = None
    detect: Detector | None = None
    defender: int | None = None
    """How many held-out images a scanner or a detector is given."""
    explain: tuple[HeatMap | Spectrum | Projection, ...] = ()
    retune: Retuning | None = None
    """How a copy of the model is trained further, to ask whether a backdoor sleeps in it."""
    trigger: Trigger | None = None
    """What is stamped on test images, if anything."""
    target: int | None = None
    """Label that the trigger aims at; None also where there is no single one."""
    aims: Aims | None = None
    """Label that it aims at for each class, where that is not `target` for every other one."""
    others: tuple[tuple[Trigger, int | None, Aims | None], ...] = ()
    """Further triggers that the model was poisoned with: what is stamped, target and aims."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """What is measured, by the names in tables; some metrics want questions of their own."""

    besides: frozenset[str] = frozenset()
    """Further kinds of questions to ask."""

    @property
    def needs(self) -> frozenset[str]:
        """Kinds of questions that metrics are made from (`Metric.needs`), or that are asked besides."""
        return self.besides | {need for need in self._wanted if not need.startswith((OF_TWIN, OF_BASE))}

    @property
    def needs_of_base(self) -> frozenset[str]:
        """Kinds of questions that a metric wants asked of the model before the repair."""
        return self._wanted_of(OF_BASE)

    @property
    def _wanted(self) -> frozenset[str]:
        """What metrics want asked, of whomever."""
        return frozenset(need for metric in self.metrics.values() for need in metric.needs if need != AIM)

    def _wanted_of(self, whom: str) -> frozenset[str]:
        """What they want asked of another model, by what stands before the kind."""
        return frozenset(need.removeprefix(whom) for need in self._wanted if need.startswith(whom))

    def for_twin(self) -> EvaluationSettings:
        """What the twin of a model that is asked this is asked: no attacks, bounds or curves unless a metric wants them
        of the twin."""
        besides = self._wanted_of(OF_TWIN) - {AIM}
        attack = self.attack if "attack" in keys_of(besides) else ()
        return replace(self, attack=attack, curve=(), certify=(), metrics={}, besides=besides)

    @property
    def aim(self) -> dict[str, Any]:
        """What the trigger aims at, as fields of a question about it."""
        return {"target": self.target, "aims": self.aims}

    @property
    def attack_parts(self) -> list[Evasion]:
        """The attacks one by one, also those that are parts of another."""
        return [part for attack in self.attack for part in attack.parts()]

    def check(
        self,
        images: Shown,
        classes: int,
        model: nn.Module,
        found: Callable[[Trigger], Trigger] = lambda trigger: trigger,
    ) -> None:
        """Refuse now what would fail after hours of attacks; `found` as for a `Subject`.

        Raises:
            RequestError: A trigger without target, a target that is no class, a trigger that does not fit the images, a
                bound that cannot follow the model, a model that cannot be attacked in two precisions.
        """
        if self.attack_precision == "mixed":
            check_in_float32(model)
        for attack in self.attack:
            with placed("attack"):
                attack.threat.check_size(images.size)
        if self.trigger is not None and self.target is None and self.aims is None:
            raise RequestError("a trigger aims at a class: name it with `target`")
        if self.target is not None and not 0 <= self.target < classes:
            raise RequestError(f"there is no class {self.target}; the classes are 0..{classes - 1}", place=("target",))
        if self.trigger is not None:
            with placed("trigger"):
                trigger, first = found(self.trigger), torch.arange(1, device=images.device)
                stamp_at(trigger, images, first, generator=rng.stream(0, "check", device=images.device))
                aimed_at = NOWHERE if self.target is None else self.target
                trigger.check_test(images.ids.cpu(), images.labels.cpu(), aimed_at)
        for certifier in self.certify:
            with placed("certify"):
                few = images.batch(torch.arange(min(2, len(images)), device=images.device))
                check_certifier(model, certifier, few.to(next(model.parameters(), few).device))


class Asking:
    """The questions asked so far, in order, and how to ask another one."""

    def __init__(self, settings: EvaluationSettings) -> None:
        self.settings = settings
        self.questions: list[Question] = []

    def of(self, kind: str) -> list[Question]:
        """Those of one kind, in order."""
        return [question for question in self.questions if question.kind == kind]

    def first(self, kind: str) -> Question | None:
        """The first of one kind."""
        return next(iter(self.of(kind)), None)

    def ask(
        self, kind: str, part: Any = None, after: Sequence[Question] = (), *, version: int = 1, **about: Any
    ) -> Question:
        """Ask a question of `kind` about `part`.

        Args:
            kind: Name of the kind.
            part: The component that it is about, or several of them.
            after: The questions whose survivors it works on.
            version: Of the way in which it is answered, where answers of an earlier one must not be taken for its own.
            about: Further fields of `Question`.
        """
        keys = tuple(question.key for question in after)
        radii, trigger = about.get("radii"), about.get("trigger")
        built_on = [one.key for name in ("stamped", "attacked", "of") if (one := about.get(name)) is not None]
        sources = [*built_on, *(key for key, _ in radii or ()), *filter(None, [trigger])]
        shown = {name: about[name] for name in ("target", "aims", "value") if about.get(name) is not None}
        precision = self._precision(part)
        searched = [] if precision == "float32" else [precision]  # keys are as they were before it was a setting
        later = [] if version == 1 else [f"version {version}"]
        name = fingerprint(kind, part, self.settings.test, *keys, *sources, *shown.values(), *searched, *later)
        settings = {"name": kind, "parts": describe(part)} if isinstance(part, tuple) else describe(part)
        question = Question(
            key=f"{kind}:{name}",
            kind=kind,
            settings={**shown, **(settings or {})} if shown else settings,  # a component's own setting is not hidden
            component=part,
            after=keys,
            precision=precision,
            **about,
        )
        self.questions.append(question)
        return question

    def _precision(self, part: Any) -> Precision:
        """Of the search that `part` is: float32 also where two precisions are asked of one that cannot do with them."""
        parts = part if isinstance(part, tuple) else (part,)
        able = any(isinstance(one, Evasion) and one.mixed_precision for one in parts)
        return self.settings.attack_precision if able else "float32"

    def ask_in_turn(self, kind: str, parts: Sequence[Evasion], first: Question, **about: Any) -> None:
        """A question about each attack, each on what withstood `first` and all attacks before it."""
        before = [first]
        for part in parts:
            before.append(self.ask(kind, part, before, **about))
