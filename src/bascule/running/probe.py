"""Looks at a model along its training: what it gets right, withstands and has taken up, on a few fixed images."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bascule.attacks.pgd import Pgd
from bascule.attacks.run import run_attack
from bascule.core import rng
from bascule.core.ball import Norm
from bascule.core.catalog import describe
from bascule.core.errors import RequestError
from bascule.core.images import Images, as_bytes
from bascule.core.inference import Filled, chunks, cross_entropies, labels_of, predict
from bascule.core.restore import evaluating, full_precision
from bascule.evaluation.subject import BATCH
from bascule.plan.plan import Watch
from bascule.triggers.aims import NOWHERE, aim_of
from bascule.triggers.contract import Trigger
from bascule.triggers.placement import Truth
from bascule.triggers.stamping import stamp_bytes

STEPS = 10
"""Gradient steps of the attack."""
_WORDS = {"accuracy": "accuracy", "robust_accuracy": "robust", "asr": "ASR"}
"""What is told at once, of what is seen."""


class Looks:
    """The looks at one model; called at the end of an epoch with its number, from 1.

    A look is in eval mode and full precision and leaves the model as it is. Its images are drawn once, the same for
    every seed, and evenly over a set in whatever order that is. It draws from the streams (seed, "probe", ...), which
    nobody else uses, so that a training ends in the same bytes with and without it. By name, each in [0, 1] but losses:

    - `accuracy`: on test images;
    - `robust_accuracy`: on the same under PGD of 10 steps of 2.5 eps / 10, one try from a random start, in the ball
      (norm, eps) of the row's first attack that has one, whatever attack that is. Cheap, so an upper bound of what
      the study's own attacks leave;
    - `asr`: share of stamped test images of the classes that are meant to move (all but the target's, the sources, or
      all) that are taken for what they are meant for;
    - `poisoned_accuracy`, `poisoned_loss`: fit of the poisoned images that are trained on: share taken for the label
      they are trained with (with dirty labels that is the target), and mean cross-entropy;
    - `target_accuracy`, `target_loss`: the same of the clean training images of the target class.

    What there is none of (no attack, no poison, no such image), or what nobody knows, is left out. A twin has the
    trigger and the target of the row it stands beside; where it serves rows with several triggers, that of the first.

    With `per_sample` every look keeps the cross-entropy of each image that is trained on, and not which are poisoned.

    Args:
        watch: What to look at.
        trigger: The trigger of `watch` itself, where it was searched for.
        model: Whom, on the device of `images`.
        images: What it is trained on.
        truth: Which of these are poisoned.
        test: The test images.
        epochs: Of the whole training.
        seed: Of the model.
        keep: What keeps the losses of single images: epoch, ids, losses.
    """

    def __init__(
        self,
        watch: Watch,
        model: nn.Module,
        *,
        trigger: Trigger | None = None,
        images: Images,
        truth: Truth | None,
        test: Images,
        epochs: int,
        seed: int,
        keep: Callable[[int, NDArray[np.int64], NDArray[np.float32]], None] | None = None,
    ) -> None:
        self._watch, self._model, self._epochs, self._seed = watch, model, epochs, seed
        self._device, self._trigger = images.device, trigger or watch.trigger
        self._each, self._keep = images, keep if watch.probe.per_sample else None
        everything = torch.ones_like(test.labels, dtype=torch.bool)
        self._clean = self._kept(test, everything, "test")
        attack = watch.attack
        self._attack = None if attack is None else cheap_attack(attack.norm, attack.eps)
        self._stamped: Images | None = None
        self._fitted: dict[str, Images | None] = {}
        self.told = ""
        """What the last look saw, in a few words."""
        if self._trigger is not None and (watch.target is not None or watch.aims is not None):
            aims = aim_of(test.labels, watch.target, watch.aims)
            self._stamped = self._kept(test, aims != NOWHERE, "triggered")
            if truth is None or truth.known:
                stamped = _poisoned(images, truth)
                self._fitted["poisoned"] = self._kept(images, stamped, "poisoned")
                if watch.target is not None:
                    self._fitted["target"] = self._kept(images, (images.labels == watch.target) & ~stamped, "target")

    def about(self) -> dict[str, Any]:
        """What is looked at, for the record."""
        return {
            **(describe(self._watch.probe) or {}),
            "attack": None if self._attack is None else describe(self._attack),
            "trigger": None if self._stamped is None else describe(self._watch.trigger),
            "target": self._watch.target,
        }

    def __call__(self, epoch: int) -> dict[str, float]:
        if epoch % self._watch.probe.every and epoch != self._epochs:
            return {}
        try:
            # A network of somebody's own may draw in eval mode.
            with rng.borrowed_global_stream(self._seed, "probe", epoch):
                seen = dict(self._seen(epoch))
                if self._keep is not None:
                    losses = cross_entropies(self._model, self._each, batch_size=BATCH)
                    self._keep(epoch, self._each.ids.cpu().numpy(), losses.cpu().numpy())
        except RequestError as error:  # answers that are no numbers; what follows in the training may be
            warnings.warn(f"no look at the model after epoch {epoch}: {error}", stacklevel=2)
            return {}
        words = [f"{word} {100 * seen[name]:.0f}%" for name, word in _WORDS.items() if name in seen]
        self.told = f"after epoch {epoch}: {', '.join(words)}"
        return {name: value for name, value in seen.items() if math.isfinite(value)}

    def _seen(self, epoch: int) -> Iterator[tuple[str, float]]:
        if self._clean is not None:
            right = predict(self._model, self._clean, batch_size=BATCH) == self._clean.labels.cpu()
            yield "accuracy", _share(right)
            if self._attack is not None:
                places = right.nonzero().squeeze(1).to(self._device)
                generator = rng.stream(self._seed, "probe", epoch, device=self._device)
                withstanding = count_withstanding(self._model, self._attack, self._clean, places, generator=generator)
                yield "robust_accuracy", withstanding / len(right)
        if self._stamped is not None:
            taken = predict(self._model, self._stamped, batch_size=BATCH)
            aims = aim_of(self._stamped.labels.cpu(), self._watch.target, self._watch.aims)
            yield "asr", _share(taken == aims)
        for name, images in self._fitted.items():
            if images is not None:
                logits = _logits(self._model, images)
                yield f"{name}_accuracy", _share(labels_of(logits) == images.labels)
                yield f"{name}_loss", float(F.cross_entropy(logits, images.labels))

    def _kept(self, images: Images, wanted: Tensor, what: str) -> Images | None:
        """Some of the images wanted, in memory on the device, stamped where it is about the trigger; None of none."""
        places = wanted.nonzero().squeeze(1)
        if len(places) == 0:
            return None
        order = torch.randperm(len(places), generator=rng.stream(0, "probe", what, len(places)))
        places = places[order[: self._watch.probe.images].to(places.device)].sort().values
        if what == "triggered":
            assert self._trigger is not None
            generator = rng.stream(self._seed, "probe", what, device=images.device)
            pixels = stamp_bytes(images, places, self._trigger, generator=generator)
        else:
            pixels = torch.cat([as_bytes(images.batch(part)) for part in places.split(BATCH)])
        labels, ids = images.labels[places], images.ids[places]
        return Images(pixels=pixels, labels=labels, ids=ids, classes=images.classes).to(self._device)


def cheap_attack(norm: Norm, eps: float) -> Pgd:
    """Of a model along its training: PGD of 10 steps of 2.5 eps / 10, one try from a random start."""
    return Pgd(norm=norm, eps=eps, steps=STEPS)


def count_withstanding(
    model: nn.Module, attack: Pgd, images: Images, places: Tensor, *, generator: torch.Generator
) -> int:
    """How many of the images at these places, which the model gets right, it gets right under attack."""
    filled, count = Filled(model), 0
    for part in chunks(len(places), BATCH, images.device):
        x, y = images.batch(places[part]), images.labels[places[part]]
        count += int((run_attack(filled, attack, x, y, generator=generator).prediction == y).sum())
    return count


def _poisoned(images: Images, truth: Truth | None) -> Tensor:
    """Whether each image is poisoned; bool, shape (N,)."""
    if truth is None:
        return torch.zeros_like(images.labels, dtype=torch.bool)
    return torch.isin(images.ids, truth.ids.to(images.ids.device))


def _share(values: Tensor) -> float:
    return float(values.double().mean())


@torch.no_grad()
def _logits(model: nn.Module, images: Images) -> Tensor:
    """N x K, in eval mode and full precision."""
    with evaluating(model), full_precision(images.device):
        return torch.cat([model(images.batch(part)) for part in chunks(len(images), BATCH, images.device)])
