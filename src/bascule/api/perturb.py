"""Adversarial copies of images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from bascule.api.given import floats_for, part_of, precision_of
from bascule.api.verb import verb
from bascule.attacks.contract import Evasion
from bascule.attacks.run import run_attack
from bascule.attacks.two_precisions import Precision
from bascule.core.catalog import name_of
from bascule.core.given import Data, Labels, outside
from bascule.core.gradients import is_differentiable, no_gradients
from bascule.core.inference import Filled, predict
from bascule.evaluation.question import Asking, EvaluationSettings
from bascule.evaluation.subject import Subject, batch_size, content_identity


@verb
def perturb(
    model: nn.Module,
    x: Data,
    y: Labels | None,
    attack: str | Mapping[str, Any] | Evasion,
    *,
    seed: int = 0,
    attack_precision: Precision = "float32",
    **settings: Any,
) -> Tensor:
    """Adversarial copies of images: `bascule.perturb(model, x, y, "pgd", eps=8 / 255, steps=40)`.

    Images that the model gets wrong are not attacked and come back as they are. The others are found in the attack's
    threat model, mostly a ball, and in [0, 1], whatever the attack; where it failed, as its last try left them. The
    model is attacked in eval mode, batch by batch on its own device, and found as it was: modes, parameters, gradients,
    hooks, random numbers.

    Args:
        model: From [0, 1] images to logits; normalisation is its first layer.
        x: N x C x H x W, floats in [0, 1] or uint8 (0 to 255); or a data set or loader, as `evaluate` takes it.
        y: Labels, whole numbers, shape (N,); None with a data set.
        attack: A name (see `bascule ls attack`) with its settings as keywords; or a mapping as in a study file, or an
            attack itself.
        seed: Of everything that is drawn.
        attack_precision: `mixed` lets `pgd`, `fgsm`, `apgd` and the like take their gradients in bfloat16, which is
            faster on processors and GPUs that have it; who is fooled is decided in float32. For models in float32.
        settings: Of the attack: `bascule show attack/NAME`.

    Returns:
        Floats of the type of the model's parameters (of 32 bits for one of 16), N x C x H x W, on the device of `x`; of
        a data set in its order, on the CPU.

    Raises:
        RequestError: A wrong name, setting, shape, range or label, a data set that gives something else, or a model
            that does not answer with logits.
    """
    search: Evasion = part_of("attack", attack, settings)
    images, classes = floats_for(model, x, y, seed)
    asked = EvaluationSettings(
        test=content_identity(images), attack=(search,), attack_precision=precision_of(attack_precision, (search,))
    )
    asked.check(images, classes, model)
    asking = Asking(asked)
    question = asking.ask("attack", search, [asking.ask("clean")])
    subject = Subject(model=model, test=images, seed=seed, questions=asking.questions)
    if search.uses_gradient and not is_differentiable(model, images.x):
        warnings.warn(f"hardly attacked: {no_gradients(name_of(search))}", stacklevel=outside())
    right = predict(model, images, batch_size=batch_size(images)) == images.labels.cpu()
    perturbed, filled = images.x.clone(), Filled(model)
    for number, index, part in subject.batches(question, right.numpy()):
        labels, generator = images.labels[index], subject.generator(question, batch=number)
        perturbed[index] = run_attack(filled, search, part, labels, generator=generator, precision=question.precision).x
    return perturbed.to(x.device if isinstance(x, Tensor) else "cpu")
