"""What is proved about a model's predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from bascule.api.given import floats_for, part_of
from bascule.api.verb import verb
from bascule.certifiers.contract import Certified, Certifier
from bascule.core.given import Data, Labels
from bascule.evaluation.question import Asking, EvaluationSettings
from bascule.evaluation.run import answer_questions
from bascule.evaluation.subject import Subject, content_identity


@verb
def certify(
    model: nn.Module,
    x: Data,
    y: Labels | None,
    certifier: str | Mapping[str, Any] | Certifier,
    *,
    seed: int = 0,
    **settings: Any,
) -> Certified:
    """Radii within which predictions provably stay: `bascule.certify(model, x, y, "interval", eps=2 / 255)`.

    Images that the model gets wrong have the radius 0. The same radii as `evaluate` finds with this seed.

    Args:
        model: From [0, 1] images to logits; normalisation is its first layer. Found as it was afterwards.
        x: N x C x H x W, floats in [0, 1] or uint8 (0 to 255); or a data set or loader, as `evaluate` takes it.
        y: Labels, whole numbers, shape (N,); None with a data set.
        certifier: A name (see `bascule ls certify`) with its settings as keywords; or a mapping as in a study file, or
            a certifier itself.
        seed: Of everything that is drawn.
        settings: Of the certifier: `bascule show certify/NAME`.

    Returns:
        The radius of each image, in [0, 1] pixel units, whether the model gets it right, and whether the radius reaches
        `eps`; float64 and bool, on the CPU.

    Raises:
        RequestError: A wrong name, setting, shape, range or label, a model that does not answer with logits, or one
            whose operations the bound cannot follow.
    """
    bound: Certifier = part_of("certify", certifier, settings)
    images, classes = floats_for(model, x, y, seed)
    asked = EvaluationSettings(test=content_identity(images), certify=(bound,))
    asked.check(images, classes, model)
    asking = Asking(asked)
    clean = asking.ask("clean")
    question = asking.ask("certify", bound, [clean])
    subject = Subject(model=model, test=images, seed=seed, questions=asking.questions)
    (_, _), (_, answer) = answer_questions(subject, asking.questions)
    radius = answer.column
    assert radius is not None
    right = torch.from_numpy(subject.right(question.after))
    return Certified(radius=radius, right=right, certified=right & (radius >= bound.eps), eps=bound.eps)
