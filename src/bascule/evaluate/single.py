"""Both ends of one model that need not belong to a run: what it answers, the numbers, what may not be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bascule.attack import Attack
from bascule.attack.checks import SAMPLE, signs_of_attack, signs_of_model
from bascule.certify import Certifier
from bascule.core import rng
from bascule.core.catalog import build, name_of
from bascule.core.errors import RequestError
from bascule.core.images import Shown
from bascule.core.inference import predict
from bascule.core.progress import Progress
from bascule.core.restore import full_precision
from bascule.evaluate.passes import BATCH, answers_under, batches, batches_with, first_of, radii_under
from bascule.measure import MISSING, Labels, Measure, Metric, Outcomes
from bascule.measure.interval import summarise
from bascule.measure.worst import survivors
from bascule.plan.questions import reach_of
from bascule.poison import Trigger
from bascule.poison.placement import stamp
from bascule.record.cell import Radii
from bascule.record.flags import Tried, flags_of_one

METRICS = ("accuracy", "robust-accuracy", "certified-accuracy", "asr", "triggered-accuracy")
"""What is always told, as not measured where it was not asked for."""
_NEEDS = ("attack-triggered",)
"""Evaluations that a metric may want of a model alone."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be known about a model."""

    attacks: tuple[Attack, ...] = ()
    """In order: a later one meets only the images that withstood the earlier ones."""
    certifiers: tuple[Certifier, ...] = ()
    trigger: Trigger | None = None
    target: int | None = None
    """The class that the trigger aims at."""
    metrics: Mapping[str, Metric] = field(default_factory=lambda: metrics_of(()))
    """By their names in tables."""
    seed: int = 0
    """Of everything that is drawn."""

    @property
    def parts(self) -> list[Attack]:
        """The attacks one by one, also those that are parts of another."""
        return [part for attack in self.attacks for part in attack.parts()]

    def check(self, classes: int) -> None:
        """Refuse a trigger without target, and a target that is no class.

        Raises:
            RequestError: Either of these.
        """
        if self.trigger is not None and self.target is None:
            raise RequestError("a trigger aims at a class: name it with `target`")
        if self.target is not None and not 0 <= self.target < classes:
            raise RequestError(f"there is no class {self.target}; the classes are 0..{classes - 1}", place=("target",))


def metrics_of(more: Sequence[str]) -> dict[str, Metric]:
    """`METRICS` and more, by their names in tables.

    Raises:
        RequestError: An unknown name, or a metric that needs more than the model.
    """
    found: dict[str, Metric] = {}
    for name in (*METRICS, *more):
        metric: Metric = build("measure", name)
        if set(metric.needs) - set(_NEEDS):
            raise RequestError(f"{name} needs more than one model and its answers: measure it in a study")
        found[name_of(metric).replace("-", "_")] = metric
    return found


@dataclass(frozen=True)
class Fooled:
    """What one attack did to the images that the attacks before it had left."""

    name: str
    norm: str
    eps: float
    fooled: float
    """Share of all images that it fooled."""
    left: float
    """Share of all images still right after it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ends(Mapping[str, Measure]):
    """The numbers of one model by their names in tables, each with value, interval and the images that counted."""

    metrics: Mapping[str, Measure]
    kinds: Mapping[str, Metric] = field(repr=False)
    """What the metrics are, by the same names."""
    attacks: tuple[Fooled, ...]
    """In order; the last one's `left` is the robust accuracy."""
    flags: tuple[str, ...]
    """Reasons not to trust the numbers: see docs/flags.md."""
    outcomes: Outcomes = field(repr=False)
    """What the model answered, image by image."""

    def __getitem__(self, name: str) -> Measure:
        return self.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def as_dict(self) -> dict[str, Any]:
        """`metrics` and `flags` in the format of `bascule table --format json`, and `attacks`."""
        return {
            "metrics": {name: measure.as_dict() for name, measure in self.metrics.items()},
            "flags": list(self.flags),
            "attacks": [dict(vars(part)) for part in self.attacks],
        }


def ends_of(model: nn.Module, images: Shown, asked: Asked, *, progress: Progress) -> Ends:
    """Everything asked about the model on these images, in full precision.

    Args:
        model: From [0, 1] images to logits. Found as it was afterwards.
        images: On the device of the model.
        asked: Checked.
        progress: Where to tell how far it is.
    """
    with full_precision(images.device):
        outcomes = outcomes_of_model(model, images, asked, progress=progress)
        assert outcomes.clean is not None
        radii = _radii(model, images, asked, outcomes.clean == outcomes.label, progress)
        if radii:
            proved = [found >= part.eps for part, found in zip(asked.certifiers, radii, strict=True)]
            outcomes = replace(outcomes, certified=np.logical_or.reduce(proved))
        measures = {name: summarise(metric, [outcomes]) for name, metric in asked.metrics.items()}
        tried = _tried(model, images, asked, outcomes, radii)
    return Ends(
        metrics=measures,
        kinds=asked.metrics,
        attacks=tuple(_fooled(asked.parts, outcomes)),
        flags=tuple(flags_of_one(tried, outcomes, measures)),
        outcomes=outcomes,
    )


def outcomes_of_model(model: nn.Module, images: Shown, asked: Asked, *, progress: Progress) -> Outcomes:
    """The model's answers: clean, under the attacks one after the other, and with the trigger, where there are such."""
    labels = images.labels.cpu().numpy()
    clean, triggered, on_top = predict(model, images, batch_size=BATCH).numpy(), None, []

    def chain(purpose: str, before: Labels, shown: Any) -> list[Labels]:
        found: list[Labels] = []
        for place, attack in enumerate(asked.parts):
            wanted = survivors(labels, before, found)
            draws = _stream(asked, images, f"{purpose} {place}")
            with progress.stage(name_of(attack), int(wanted.sum())):
                under = answers_under(attack, model, shown(wanted), images.labels, generator=draws, progress=progress)
            found.append(under.numpy())
        return found

    adversarial = chain("attack", clean, lambda wanted: batches(images, wanted))
    if (trigger := asked.trigger) is not None:
        draws = _stream(asked, images, "trigger")
        stamped = predict(model, images, batch_size=BATCH, change=lambda x: stamp(trigger, x, generator=draws))
        triggered = stamped.numpy()
        if any("attack-triggered" in metric.needs for metric in asked.metrics.values()):
            again = lambda wanted: batches_with(  # noqa: E731
                trigger, images, wanted, generator=_stream(asked, images, "trigger")
            )
            on_top = chain("attack-triggered", triggered, again)
    return Outcomes(
        label=labels, clean=clean, adversarial=adversarial, attacks=len(asked.parts), triggered=triggered,
        triggered_adversarial=on_top, target=asked.target,
    )  # fmt: skip


def _stream(asked: Asked, images: Shown, purpose: str) -> torch.Generator:
    return rng.stream(asked.seed, purpose, device=images.device)


def _radii(model: nn.Module, images: Shown, asked: Asked, right: NDArray[np.bool_], progress: Progress) -> list[Radii]:
    found = []
    for place, certifier in enumerate(asked.certifiers):
        draws = _stream(asked, images, f"certify {place}")
        with progress.stage(name_of(certifier), int(right.sum())):
            radii = radii_under(
                certifier, model, batches(images, right), images.labels, generator=draws, progress=progress
            )
        found.append(radii.numpy())
    return found


def _tried(model: nn.Module, images: Shown, asked: Asked, outcomes: Outcomes, radii: Sequence[Radii]) -> Tried:
    """What flags are raised from."""
    assert outcomes.clean is not None
    label, parts = outcomes.label, asked.parts
    left = survivors(label, outcomes.clean, outcomes.adversarial)
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    if parts:
        first = signs_of_model(model, parts[0], *first_of(images, outcomes.clean == label, SAMPLE))
        draws = _stream(asked, images, "signs")
        last = signs_of_attack(model, parts[-1], *first_of(images, left, SAMPLE), generator=draws)
    return Tried(
        label=label,
        attacks=[(reach_of(part), answers) for part, answers in zip(parts, outcomes.adversarial, strict=True)],
        proofs=[(reach_of(part), found) for part, found in zip(asked.certifiers, radii, strict=True)],
        first=first,
        last=last,
        standing=float(left.mean()),
    )


def _fooled(parts: Sequence[Attack], outcomes: Outcomes) -> Iterator[Fooled]:
    assert outcomes.clean is not None
    for place, (attack, answers) in enumerate(zip(parts, outcomes.adversarial, strict=True)):
        wrong = (answers != outcomes.label) & (answers != MISSING)
        left = survivors(outcomes.label, outcomes.clean, outcomes.adversarial[: place + 1])
        yield Fooled(name_of(attack), attack.norm, attack.eps, float(wrong.mean()), float(left.mean()))
