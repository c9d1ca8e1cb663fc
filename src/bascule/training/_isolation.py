"""What defences in training share that isolate images and unlearn them in the end."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core.ball import Ball
from bascule.core.catalog import name_of
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.training.contract import Course, CrossEntropy, Objective, check_plain


class Isolating(Course):
    """A course around an inner objective whose losses are those of single images."""

    inner: Objective
    """A setting of each of them: what chooses the images."""

    def __post_init__(self) -> None:
        wanted = (
            "images are unlearnt one by one, so the inner objective must be one that is plain cross-entropy on images "
            "it chooses, such as standard or pgd"
        )
        check_plain(self.inner, wanted, place="inner")

    @property
    def follows_gradients(self) -> bool:
        return self.inner.follows_gradients

    @property
    def ball(self) -> Ball | None:
        return self.inner.ball

    def check_model(self, model: nn.Module, x: Tensor) -> None:
        self.inner.check_model(model, x)

    def inputs(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        return self.inner.inputs(model, x, y, progress=progress, generator=generator)

    def losses(self, model: nn.Module, seen: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of each image of a batch, shape (B,), smoothed as the inner objective has it.

        Args:
            model: As for `loss`.
            seen: The images of the step (`inputs`).
            y: int64 labels, shape (B,).
        """
        assert isinstance(self.inner, CrossEntropy)
        return F.cross_entropy(model(seen), y, reduction="none", label_smoothing=self.inner.label_smoothing)


def stage(share: float, epochs: int) -> int:
    """Epochs of a stage that takes this share of a training: rounded, one at least; none where the share is 0."""
    return max(1, round(share * epochs)) if share else 0


def check_stages(course: Course, first: int, last: int, *, epochs: int) -> None:
    """Refuse a training in which the stages before isolation and of unlearning have no room.

    Raises:
        RequestError: It is too short.
    """
    if first + last > epochs:
        raise RequestError(
            f"{name_of(course)} isolates after {first} and unlearns for {last} of {epochs} epochs: train for longer",
            place=("epochs",),
        )


def nobody(images: Images) -> Tensor:
    """No image of the set: bool, shape (N,), on its device."""
    return torch.zeros(len(images), dtype=torch.bool, device=images.device)


def share_of(images: Images, share: float) -> int:
    """How many images a share of the set is: rounded down, one at least."""
    return max(1, int(share * len(images)))


def lowest(values: Tensor, ids: Tensor, count: int) -> Tensor:
    """bool, shape (N,): the `count` lowest values; of equal ones those with the lower id."""
    by_id = ids.argsort()
    chosen = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    chosen[by_id[values[by_id].argsort(stable=True)[:count]]] = True
    return chosen
