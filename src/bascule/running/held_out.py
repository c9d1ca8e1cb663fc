"""How good a model is on held-out images along its training, so that its best epoch can be kept."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from bascule.core import rng
from bascule.core.catalog import describe
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.inference import predict
from bascule.evaluation.subject import BATCH
from bascule.running.probe import cheap_attack, count_withstanding
from bascule.training.contract import Objective
from bascule.training.loop import best_epoch


class HeldOut:
    """Robust accuracy on the held-out images, in eval mode and full precision; called with the number of an epoch.

    In the objective's ball, under the attack of a look at a model (`run.probe`), which starts from the same points each
    time; accuracy where the objective has no ball. It leaves the model as it is, and draws from the stream (seed,
    "keep"), which nobody else uses.

    Args:
        objective: What the model is trained with.
        model: Whom, on the device of `images`.
        images: Clean ones that are not trained on: no test images.
        seed: Of the model.
    """

    def __init__(self, objective: Objective, model: nn.Module, images: Images, *, seed: int) -> None:
        self._model, self._images, self._seed = model, images, seed
        region = objective.ball
        self._attack = None if region is None or region.eps == 0 else cheap_attack(region.norm, region.eps)
        self.name = "held_out_accuracy" if self._attack is None else "held_out_robust_accuracy"

    def __call__(self, epoch: int) -> float:
        images = self._images
        try:
            # A network of somebody's own may draw in eval mode.
            with rng.borrowed_global_stream(self._seed, "keep"):
                right = predict(self._model, images, batch_size=BATCH) == images.labels.cpu()
                if self._attack is None:
                    return float(right.double().mean())
                places = right.nonzero().squeeze(1).to(images.device)
                generator = rng.stream(self._seed, "keep", device=images.device)
                withstanding = count_withstanding(self._model, self._attack, images, places, generator=generator)
                return withstanding / len(images)
        except RequestError as error:  # answers that are no numbers; what follows in the training may be
            warnings.warn(f"no held-out image counts as right after epoch {epoch}: {error}", stacklevel=2)
            return 0.0

    def about(self, curve: Sequence[Mapping[str, float]]) -> dict[str, Any]:
        """Which epoch was kept and by what, for the record."""
        epoch = best_epoch(curve, self.name)
        return {
            "epoch": epoch,
            self.name: curve[epoch - 1][self.name],
            "last": curve[-1][self.name],
            "images": len(self._images),
            "attack": None if self._attack is None else describe(self._attack),
        }
