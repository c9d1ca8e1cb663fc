"""Both ends of a model that is in memory, on images that are in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from bascule.api.given import floats_for, numbered, precision_of, with_numbers
from bascule.api.verb import verb
from bascule.attacks.contract import Evasion
from bascule.attacks.two_precisions import Precision
from bascule.certifiers.contract import Certifier
from bascule.core.catalog import build
from bascule.core.errors import placed
from bascule.core.given import Data, Labels
from bascule.core.progress import Progress
from bascule.evaluation.model import evaluate_model
from bascule.evaluation.question import EvaluationSettings
from bascule.evaluation.subject import content_identity
from bascule.record.evaluation import Evaluation, check_measurable, check_target, metrics_named
from bascule.triggers.contract import Trigger


@verb
def evaluate(
    model: nn.Module,
    x: Data,
    y: Labels | None = None,
    *,
    attack: str | Mapping[str, Any] | Evasion | Sequence[str | Mapping[str, Any] | Evasion] = (),
    certify: str | Mapping[str, Any] | Certifier | Sequence[str | Mapping[str, Any] | Certifier] = (),
    trigger: str | Mapping[str, Any] | Trigger | None = None,
    target: int | str | None = None,
    measure: str | Sequence[str] = (),
    attack_precision: Precision = "float32",
    seed: int = 0,
) -> Evaluation:
    """Both ends of a model, with intervals: the same numbers as `bascule evaluate WEIGHTS` on these images.

    `found["robust_accuracy"].value`, `.low`, `.high` and `.n`; `accuracy`, `certified_accuracy`, `asr` and
    `triggered_accuracy` likewise, with None for what was not asked for. `found.flags` says what may not be trusted,
    `found.attacks` what each attack did, `found.outcomes` what was answered to each image.

    Args:
        model: From [0, 1] images to logits; normalisation is its first layer. Found as it was afterwards.
        x: N x C x H x W, floats in [0, 1] or uint8 (0 to 255). Or a torch data set or loader (or what is like one) that
            gives (image, label) or {"image": ..., "label": ...}, one by one or in batches, where an image is a picture
            of Pillow, or a tensor in that range. It is gone through once, and all of it is held in memory.
        y: Labels, whole numbers, shape (N,); absent with a data set.
        attack: One attack or several, cheap ones first, each `{"name": "pgd", "eps": 8 / 255}` or an attack itself.
            Robust accuracy is the worst case over all.
        certify: Certified bounds, written alike.
        trigger: A backdoor's trigger, for ASR.
        target: The class that the trigger aims at: its label, or its name where the data set has names (`classes`).
        measure: Further metrics by name, for example `triggered-robust-accuracy`.
        attack_precision: Of the attacks' searches, as in `perturb`.
        seed: Of everything that is drawn.

    Raises:
        RequestError: A wrong name, setting, shape, range or label, a data set that gives something else, a model that
            does not answer with logits, or something that nothing is done with: a target without a trigger (nor a
            metric that asks for one), two precisions without an attack that searches in them.
    """
    asked = [measure] if isinstance(measure, str) else measure
    with placed("measure"):
        metrics = metrics_named(asked)
    with placed("trigger"):
        mark = None if trigger is None else build("poison", with_numbers(trigger, x))
    attacks, certifiers = _parts("attack", attack), _parts("certify", certify)
    with placed("measure"):
        there = {"attack": bool(attacks), "certify": bool(certifiers)}
        check_measurable(asked, there | {"trigger": mark is not None, "target": target is not None})
    check_target(aim := numbered(target, x, "target"), asked, trigger=mark is not None)
    images, classes = floats_for(model, x, y, seed)
    settings = EvaluationSettings(
        test=content_identity(images),
        attack=attacks,
        attack_precision=precision_of(attack_precision, attacks),
        certify=certifiers,
        trigger=mark,
        target=aim,
        metrics=metrics,
    )
    settings.check(images, classes, model)
    return evaluate_model(model, images, settings, seed=seed, progress=Progress())


def _parts(room: str, given: Any) -> tuple[Any, ...]:
    with placed(room):
        several = isinstance(given, (list, tuple))
        return tuple(build(room, part) for part in given) if several else (build(room, given),)
