"""Where a trigger lies whose place is drawn for every image: the same for whatever is asked of one model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bascule.attacks.fgsm import Fgsm
from bascule.core.images import Images
from bascule.evaluation.question import EvaluationSettings
from bascule.evaluation.run import answer_questions, questions_of
from bascule.evaluation.subject import Subject
from bascule.metrics.contract import Labels
from bascule.triggers.adaptive_patch import AdaptivePatch
from bascule.triggers.contract import Trigger
from bascule.triggers.sticker import Sticker

COUNT, SIDE = 60, 4


class Brightest(nn.Module):
    """The class is the place of the brightest pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Stamped:
    """Stands for a metric that wants images attacked first and stamped then."""

    needs = ("attack-then-trigger",)


def places(trigger: Trigger, *, seed: int = 0, kind: str = "triggered") -> Labels:
    """Where the trigger lies in each of the black images."""
    pixels = torch.zeros(COUNT, 1, SIDE, SIDE, dtype=torch.uint8)
    images = Images(
        pixels=pixels,
        labels=torch.zeros(COUNT, dtype=torch.int64),
        ids=torch.arange(COUNT),
        classes=tuple(map(str, range(SIDE**2))),
    )
    asked = EvaluationSettings(
        test="black", attack=(Fgsm(eps=0.01),), trigger=trigger, target=5, metrics={"stamped": Stamped()}
    )  # type: ignore[dict-item]
    subject = Subject(model=Brightest().eval(), test=images, seed=seed, questions=questions_of(asked))
    answers = {question.kind: answer.column for question, answer in answer_questions(subject, subject.questions)}
    column = answers[kind]
    assert column is not None
    return column.numpy()


TRIGGERS = {
    "random": Sticker(size=1, position="random"),
    "random-corner": Sticker(size=1, position="random-corner"),
    "one of several": AdaptivePatch(
        patches=tuple(Sticker(size=1, position=place) for place in ("top-left", "center")), opacities=(0.5, 0.6)
    ),
}


@pytest.mark.parametrize("trigger", TRIGGERS.values(), ids=TRIGGERS)
def test_each_image_has_its_place_whatever_is_asked(trigger: Trigger) -> None:
    drawn = places(trigger)
    assert len(np.unique(drawn)) > 1
    assert np.array_equal(places(trigger), drawn)
    assert np.array_equal(places(trigger, kind="attack-then-trigger"), drawn)
    assert not np.array_equal(places(trigger, seed=1), drawn)
