"""What a fresh model learns first."""

from __future__ import annotations

import copy
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from bascule.core import rng
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.inference import cross_entropies
from bascule.core.projection import whole_number
from bascule.filters.contract import Filter, Judged
from bascule.filters.rules import highest
from bascule.training.abl import local_ascent
from bascule.training.contract import Objective
from bascule.training.loop import train
from bascule.training.settings import Training


@component
class EarlyLoss(Filter):
    """Isolation by early loss, in the manner of Anti-Backdoor Learning (Li et al. 2021, section 3.3).

    Backdoors are learned before the task. A fresh copy of the model is trained for a few epochs with local gradient
    ascent, loss sign(CE - gamma) x CE, which pushes an image's loss up again once it is below gamma, so that only what
    is learned with great ease stays low. The trained model itself is used for its architecture alone.

    Score: minus the cross-entropy of the image with its label after that training. Removed: the `share` of the whole
    set with the lowest loss, whether or not it looks poisoned: the paper's rule.

    The fresh copy is a deep copy in which every layer draws new parameters by its own `reset_parameters` (PyTorch's
    usual initialisation, which may differ from the architecture's own). Models with parameters outside such layers are
    refused.
    """

    share: Annotated[float, Interval(gt=0, lt=1)] = 0.05
    """Share of the whole set that is removed (0.01 in the paper, which unlearns it afterwards)."""
    epochs: Annotated[int, Ge(1)] = 5
    """Passes over the set (20 in the paper, with SGD)."""
    gamma: Annotated[float, Ge(0)] = 0.5
    """Loss below which an image is pushed away; 0 is ordinary training."""
    lr: Annotated[float, Gt(0)] = 1e-3
    """Learning rate of Adam."""
    batch_size: Annotated[int, Ge(1)] = 128
    """Images per step."""

    def check_model(self, model: nn.Module, images: Images) -> None:
        _fresh(model, 0)

    def judge(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Judged:
        seed = whole_number(generator=generator)
        fresh = _fresh(model, seed)
        objective = _LocalGradientAscent(gamma=self.gamma)
        settings = Training(objective=objective, epochs=self.epochs, lr=self.lr, batch_size=self.batch_size)
        with torch.enable_grad():
            train(fresh, images, settings, seed=seed)
        loss = cross_entropies(fresh, images)
        count = round(self.share * len(images))
        notes = (
            () if count else (f"no image can be removed: a share of {self.share:g} of {len(images)} images is none",)
        )
        return Judged(-loss, highest(-loss, count), notes)


@component
class _LocalGradientAscent(Objective):
    """sign(CE - gamma) x CE, image by image (Li et al. 2021, equation 3)."""

    gamma: float

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        loss = F.cross_entropy(model(x), y, reduction="none")
        return local_ascent(loss, self.gamma)


def _fresh(model: nn.Module, seed: int) -> nn.Module:
    """A copy with parameters as if it had never been trained, all wanting gradients, without the hooks of others.

    Raises:
        RequestError: A module holds parameters of its own and cannot draw new ones.
    """
    fresh = copy.deepcopy(model)
    with rng.borrowed_global_stream(seed, "fresh"):
        for name, module in fresh.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif next(module.parameters(recurse=False), None) is not None:
                what = f"{name or 'the model'} ({type(module).__name__})"
                raise RequestError(f"{what} holds parameters but has no reset_parameters(), so it cannot start afresh")
    return fresh.requires_grad_(True)
