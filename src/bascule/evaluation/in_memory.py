"""A model and images that are in memory: attacked, and measured at both ends."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bascule.attacks.contract import Evasion
from bascule.attacks.run import run_attack
from bascule.attacks.two_precisions import Precision, precision_named
from bascule.certifiers.contract import Certifier
from bascule.core.catalog import build
from bascule.core.errors import RequestError, placed
from bascule.core.images import Floats, as_floats, only_marks
from bascule.core.inference import Filled, predict
from bascule.core.progress import Progress
from bascule.core.restore import evaluating
from bascule.evaluation._gather import gather, is_data_set
from bascule.evaluation.model import evaluate_model
from bascule.evaluation.question import Asking, EvaluationSettings, Spec
from bascule.evaluation.subject import Subject, batch_size, content_identity
from bascule.models.checks import check_logits
from bascule.record.evaluation import Evaluation, check_measurable, metrics_named
from bascule.triggers.contract import Trigger


def perturb(
    model: nn.Module,
    x: Any,
    y: Tensor | None,
    attack: Spec | Evasion,
    *,
    seed: int = 0,
    attack_precision: Precision = "float32",
    **settings: Any,
) -> Tensor:
    """See `bascule.perturb`."""
    with placed("attack"):
        if settings and not isinstance(attack, str):
            raise RequestError(f"settings ({', '.join(settings)}) go with a name; put them into the attack itself")
        search: Evasion = build("attack", {"name": attack, **settings} if isinstance(attack, str) else attack)
    images, classes = _given(model, x, y, seed)
    asked = EvaluationSettings(
        test=content_identity(images), attack=(search,), attack_precision=_precision(attack_precision)
    )
    asked.check(images, classes, model)
    asking = Asking(asked)
    question = asking.ask("attack", search, [asking.ask("clean")])
    subject = Subject(model=model, test=images, seed=seed, questions=asking.questions)
    right = predict(model, images, batch_size=batch_size(images)) == images.labels.cpu()
    perturbed, filled, generator = images.x.clone(), Filled(model), subject.generator(question)
    for index, part in subject.batches(question, right.numpy()):
        labels = images.labels[index]
        perturbed[index] = run_attack(filled, search, part, labels, generator=generator, precision=question.precision).x
    return perturbed.to("cpu" if y is None else torch.as_tensor(x).device)


def evaluate(
    model: nn.Module,
    x: Any,
    y: Tensor | None = None,
    *,
    attack: Spec | Evasion | Sequence[Spec | Evasion] = (),
    certify: Spec | Certifier | Sequence[Spec | Certifier] = (),
    trigger: Spec | Trigger | None = None,
    target: int | None = None,
    measure: str | Sequence[str] = (),
    attack_precision: Precision = "float32",
    seed: int = 0,
) -> Evaluation:
    """See `bascule.evaluate`."""
    asked = [measure] if isinstance(measure, str) else measure
    with placed("measure"):
        metrics = metrics_named(asked)
    with placed("trigger"):
        mark = None if trigger is None else build("poison", trigger)
    attacks, certifiers = _parts("attack", attack), _parts("certify", certify)
    with placed("measure"):
        there = {"attack": bool(attacks), "certify": bool(certifiers)}
        check_measurable(asked, there | {"trigger": mark is not None, "target": target is not None})
    images, classes = _given(model, x, y, seed)
    settings = EvaluationSettings(
        test=content_identity(images),
        attack=attacks,
        attack_precision=_precision(attack_precision),
        certify=certifiers,
        trigger=mark,
        target=target,
        metrics=metrics,
    )
    settings.check(images, classes, model)
    return evaluate_model(model, images, settings, seed=seed, progress=Progress())


def _precision(given: str) -> Precision:
    with placed("attack_precision"):
        return precision_named(given)


def _parts(room: str, given: Any) -> tuple[Any, ...]:
    with placed(room):
        several = isinstance(given, (list, tuple))
        return tuple(build(room, part) for part in given) if several else (build(room, given),)


def _given(model: nn.Module, x: Any, y: Tensor | None, seed: int) -> tuple[Floats, int]:
    """The images where the model is and as it takes them, and the number of its classes, tried on a few of them."""
    if not isinstance(model, nn.Module):
        raise RequestError(f"expected a torch.nn.Module, got {type(model).__name__}", place=("model",))
    if is_data_set(x):
        if y is not None:
            raise RequestError(f"{type(x).__name__} brings its labels along: leave `y` out", place=("y",))
        x, y = gather(x, seed=seed)
    elif y is None:
        what = "a tensor" if isinstance(x, Tensor) else type(x).__name__
        raise RequestError(f"labels are needed: `x` is {what}, not a data set or loader that has them", place=("y",))
    x, y = torch.as_tensor(x).detach(), torch.as_tensor(y)
    if y.is_floating_point() or y.dtype == torch.bool:
        raise RequestError(f"labels are whole numbers, int64; got {str(y.dtype).removeprefix('torch.')}", place=("y",))
    weight = next((part for part in model.parameters() if part.is_floating_point()), None)
    device = x.device if weight is None else weight.device
    if x.dtype == torch.uint8:
        problem = only_marks(x) if x.numel() else None
        if problem is not None:
            warnings.warn(f"x: {problem}", stacklevel=4)
        x = as_floats(x)
    if x.is_floating_point():
        # As the model has it, but never in 16 bits: what is rounded to them does not stay in its ball.
        x = x.to(torch.promote_types(torch.float32, x.dtype if weight is None else weight.dtype))
    images = Floats(x=x.to(device), labels=y.to(device, torch.int64))
    few = images.x[:2]
    with placed("model"):
        try:
            with evaluating(model), torch.no_grad():
                logits = model(few)
        except RequestError:
            raise
        except Exception as error:  # somebody's code may raise anything
            size = " x ".join(map(str, few.shape[1:]))
            raise RequestError(f"cannot take images of {size}: {type(error).__name__}: {error}") from error
        classes = logits.shape[1] if isinstance(logits, Tensor) and logits.ndim == 2 else 0
        check_logits(type(model).__name__, logits, len(few), classes)
    highest = int(images.labels.max())
    if highest >= classes:
        raise RequestError(f"labels go up to {highest}, but the model has the classes 0..{classes - 1}", place=("y",))
    return images, classes
