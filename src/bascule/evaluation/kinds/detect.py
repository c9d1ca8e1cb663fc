"""What a test-time detector says of inputs of several sorts: as they are, triggered, adversarial, both, and evading it.

- `benign`: all test images as they are.
- `triggered`: all test images with the trigger.
- `adversarial`: the very images that the first attack made for robust accuracy, successful or not, of the first
  `ATTACKED` test images that the model gets right; one before these that is wrong needs no attack and is as it is.
- `both`: triggered images that are meant to move, pushed towards the target by the first attack run to its end, also
  where the trigger alone would do; the first `ATTACKED`. Towards, since that is what a backdoor's owner wants; away
  from the truth a trigger that works needs no help.
- `evading`, `both_evading`: as these two, the first `EVADED` of each, by an attacker who knows the detector: what was
  made already where it works and is not refused at the threshold for 5 % false alarms, else what `detect/evade` makes
  in the ball of the first attack. Without a ball there are none.

All but the last two are the same inputs whichever detector looks at them, so that detectors are compared on the same
images (`evaluation/inputs`). Truth is joined to this in `measure` alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from bascule.attacks.contract import Attack
from bascule.attacks.toward import Toward
from bascule.core import rng
from bascule.core.inference import chunks
from bascule.detectors.contract import Guard
from bascule.detectors.evade import evade
from bascule.detectors.run import prepare_detector
from bascule.evaluation.inputs import adversarial, pushed
from bascule.evaluation.question import Asking, Question
from bascule.evaluation.subject import Answer, Subject
from bascule.metrics.contract import MISSING
from bascule.metrics.detection import FALSE_ALARMS, REFUSING
from bascule.triggers.aims import NOWHERE

FOLLOWS = "scan"
ATTACKED = 2000
"""Most images that are attacked, whole batches of them."""
EVADED = 100
"""Most images for which the detector is evaded: each step asks it again."""
_VERSION = 2
"""Of answers about images with the trigger that are attacked: in the first, each detector met images of its own."""
_VALUES = 25_000
"""Pixel values of the images for which it is evaded at once: a suspicion may take a hundred passes for each."""


def ask(asking: Asking) -> None:
    """Where a detector is to look."""
    settings = asking.settings
    if settings.detect is not None:
        stamped, attacked = asking.first("triggered"), asking.first("attack")
        asking.ask(
            "detect", settings.detect, asking.of("clean"), stamped=stamped, attacked=attacked, value=settings.defender,
            version=_VERSION if stamped is not None and attacked is not None else 1, **settings.aim,
        )  # fmt: skip


def answer(question: Question, subject: Subject) -> Answer:
    """Suspicion and predicted label of each input, NaN and MISSING where there is none, by sort; thresholds."""
    # A stream of the model's own, whatever the trigger and the attack: neither moves a detector's thresholds, and all
    # detectors are prepared on the same half of the images.
    drawing = rng.stream(subject.seed, "detector", device=subject.test.device)
    guard = prepare_detector(subject.model, question.component, subject.defenders_images(), generator=drawing)
    asked = _Asked(question, subject, guard)
    with subject.progress.stage("detect", 1):
        for _, index, x in subject.all_batches():
            asked.put("benign", index, x)
        if question.stamped is not None:
            for _, index, x in subject.batches(question, np.ones(len(subject.test), dtype=bool)):
                asked.put("triggered", index, x)
        if question.attacked is not None:
            _adversarial(asked)
            if question.stamped is not None:
                _both(asked)
    thresholds = torch.tensor([guard.threshold(share) for share in FALSE_ALARMS])
    return Answer(arrays={"id": subject.test.ids, "calm": guard.calm, "thresholds": thresholds, **asked.arrays})


@dataclass(frozen=True)
class _Asked:
    """What the detector has said so far."""

    question: Question
    subject: Subject
    guard: Guard
    arrays: dict[str, Tensor] = field(default_factory=dict)

    def put(self, sort: str, index: Tensor, x: Tensor) -> None:
        """Ask about inputs made of the test images at these positions."""
        self.keep(sort, index, self.guard.suspicion(x), self.subject.labels_on(x))

    def keep(self, sort: str, index: Tensor, suspicion: Tensor, prediction: Tensor) -> None:
        count = len(self.subject.test)
        suspicions = self.arrays.setdefault(f"{sort}_suspicion", torch.full((count,), torch.nan))
        predictions = self.arrays.setdefault(f"{sort}_prediction", torch.full((count,), MISSING))
        suspicions[index.cpu()], predictions[index.cpu()] = suspicion.cpu(), prediction.cpu()

    def copy(self, sort: str, other: str, index: Tensor) -> None:
        """Images at these positions are the same inputs in another sort."""
        suspicion, prediction = (self.arrays[f"{other}_{name}"][index.cpu()] for name in ("suspicion", "prediction"))
        self.keep(sort, index, suspicion, prediction)

    def prediction(self, sort: str, index: Tensor) -> Tensor:
        """What the model takes each for."""
        return self.arrays[f"{sort}_prediction"][index.cpu()].to(index.device)

    def evade(self, sort: str, index: Tensor, x: Tensor, y: Tensor, model: nn.Module, works: dict[str, Tensor]) -> None:
        """Inputs that the detector does not refuse and `model` does not take for `y`.

        Args:
            sort: Where to keep them.
            index: Positions in the test set, shape (B,).
            x: The images around which the ball lies.
            y: Shape (B,).
            model: The model, or a view of it.
            works: Sorts of inputs in the ball that there are already, with which of them do what is wanted.
        """
        assert self.question.attacked is not None
        ball, threshold = self.question.attacked.component.ball, self.guard.threshold(REFUSING)
        left = torch.ones(len(index), dtype=torch.bool, device=index.device)
        for other, working in works.items():
            accepted = self.arrays[f"{other}_suspicion"][index.cpu()].to(index.device) <= threshold
            done = left & working & accepted
            self.copy(sort, other, index[done])
            left &= ~done
        index, x, y = index[left], x[left], y[left]
        for part in chunks(len(x), max(1, _VALUES // x[0].numel()) if len(x) else 1, x.device):
            made = evade(self.guard, x[part], y[part], ball=ball, threshold=threshold, model=model)
            self.put(sort, index[part], made)


def _adversarial(asked: _Asked) -> None:
    """Away from the truth, by the first attack as it is and then by one who knows the detector."""
    subject, attacked = asked.subject, asked.question.attacked
    assert attacked is not None
    right, labels, model = torch.from_numpy(subject.right(asked.question.after)), subject.test.labels, subject.model
    evaded = _first(right, EVADED).to(labels.device) & isinstance(attacked.component, Attack)
    for sort, count in (("adversarial", ATTACKED), *((("evading", EVADED),) if bool(evaded.any()) else ())):
        asked.copy(sort, "benign", (~right & (right.cumsum(0) <= count)).nonzero().squeeze(1))
    for batch in adversarial(asked.question, subject, _first(right, ATTACKED).numpy()):
        index, y = batch.index, labels[batch.index]
        asked.keep("adversarial", index, asked.guard.suspicion(batch.made), batch.prediction)
        chosen = evaded[index]
        if bool(chosen.any()):
            index, y = index[chosen], y[chosen]
            works = {"adversarial": asked.prediction("adversarial", index) != y}
            asked.evade("evading", index, batch.x[chosen], y, model, works)


def _both(asked: _Asked) -> None:
    """Triggered images towards the target, by the first attack and then by one who knows the detector."""
    question, subject, attacked = asked.question, asked.subject, asked.question.attacked
    assert attacked is not None
    meant = question.aim_of(subject.test.labels) != NOWHERE
    evaded = _first(meant, EVADED) & isinstance(attacked.component, Attack)
    for batch in pushed(question, subject, _first(meant, ATTACKED).cpu().numpy()):
        index, target = batch.index, batch.target
        asked.put("both", index, batch.made)
        chosen = evaded[index]
        if bool(chosen.any()):
            assert target is not None
            index, view = index[chosen], Toward(subject.model, target)
            works = {sort: asked.prediction(sort, index) == target for sort in ("triggered", "both")}
            asked.evade("both_evading", index, batch.x[chosen], torch.zeros_like(index), view, works)


def _first(wanted: Tensor, count: int) -> Tensor:
    """The first of the images wanted, `count` at most; a mask."""
    return wanted & (wanted.cumsum(0) <= count)
