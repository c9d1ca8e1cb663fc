"""Further training of a copy of the model that is asked: does a backdoor that seems gone come back?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.errors import DivergedError, RequestError
from bascule.core.images import Images
from bascule.core.restore import trainable_copy
from bascule.core.rng import draw_seed
from bascule.core.text import count
from bascule.training.loop import train
from bascule.training.settings import Training
from bascule.training.standard import Standard
from bascule.triggers.aims import NOWHERE
from bascule.triggers.contract import Trigger
from bascule.triggers.stamping import stamp_bytes


@component
class Retuning:
    """Training a copy of a trained model further on a few images, once with a handful of them poisoned and once clean.

    A backdoor that sleeps wakes within these few steps; the twin, which never had it, shows what the same images and
    steps teach a model anew. Images are clean ones that are held out or, where none is, of the training set before it
    was poisoned. The poisoned ones are stamped with what test images show and get the label that it aims at.

    Source: the Retuning Attack of Min et al. 2024 (Uncovering, Explaining, and Mitigating the Superficial Safety of
    Backdoor Defense).

    Defaults: those of its code (5 poisoned images; SGD at a constant 0.01, momentum 0.9, 5 passes, no weight decay),
    but for the count. There 1,000 images in batches of 128 make 40 steps; here 500 in batches of 64 make 35. Nothing
    was chosen by ASR.
    """

    images: Annotated[int, Ge(1)] = 500
    """How many images are trained on, the poisoned ones among them."""
    poisoned: Annotated[int, Ge(0)] = 5
    """How many of them are poisoned; 0 asks what clean images do, and nothing more."""
    label: Literal["clean", "dirty"] | None = None
    """Whom they are: `dirty`, images of other classes, relabelled; `clean`, images of the target class. By default as
    the row's poison, and `dirty` where that was planted by others."""
    epochs: Annotated[int, Ge(1)] = 5
    """Passes over the images."""
    batch_size: Annotated[int, Ge(1)] = 64
    """Images per step; all of them when there are fewer."""
    lr: Annotated[float, Gt(0)] = 0.01
    """Learning rate of SGD with momentum 0.9, constant."""

    def __post_init__(self) -> None:
        if self.poisoned > self.images:
            raise RequestError(f"{self.poisoned} of {count(self.images, 'image')} cannot be", place=("poisoned",))

    @property
    def training(self) -> Training:
        """The schedule."""
        return Training(
            objective=Standard(), epochs=self.epochs, batch_size=self.batch_size, optimizer="sgd", lr=self.lr
        )

    @property
    def steps(self) -> int:
        """How many there are."""
        return self.training.steps_per_epoch(self.images) * self.epochs

    def draw(self, clean: Images, aims: Tensor, trigger: Trigger, *, generator: torch.Generator) -> Images:
        """The images to train on.

        Args:
            clean: Clean images with their true labels.
            aims: For each of them what the trigger aims at, NOWHERE where it is not meant to move; int64, shape (N,).
            trigger: What is stamped on the poisoned ones.
            generator: On the device of the images.

        Raises:
            RequestError: There are too few images.
        """
        _check_enough("images", self.images, len(clean), "")
        order = torch.randperm(len(clean), generator=generator, device=clean.device)
        after = clean.labels if self.label == "clean" else aims
        able = order[self.able(aims)[order]]
        chosen = able[: self.poisoned]
        rest = order[~torch.isin(order, chosen)][: self.images - self.poisoned]
        index = torch.cat([chosen, rest]).sort().values
        images, places = clean.at(index), torch.isin(index, chosen).nonzero().squeeze(1)
        if len(places) == 0:
            return images
        pixels = stamp_bytes(images, places, trigger, generator=generator)
        return images.with_replaced(places, pixels, after[index[places]])

    def able(self, aims: Tensor) -> Tensor:
        """Which images may be stamped, of those that the trigger aims at so (`draw`): bool, shape (N,).

        Raises:
            RequestError: There are too few.
        """
        may = aims == NOWHERE if self.label == "clean" else aims != NOWHERE
        which = f" that {self.label or 'dirty'}-label poison may stamp"
        _check_enough("poisoned", self.poisoned, int(may.sum()), which)
        return may

    def tuned(
        self, model: nn.Module, images: Images, *, generator: torch.Generator, report: Callable[[int], None]
    ) -> nn.Module:
        """A copy of the model that was trained further, in eval mode; the model itself is left alone.

        Every floating parameter may move, frozen or not.

        Args:
            model: From [0, 1] images to logits.
            images: What `draw` gave.
            generator: On the device of the images.
            report: Told now and then how many steps are done.

        Raises:
            RuntimeError: It did not stay finite.
        """
        seed, ours = draw_seed(generator), trainable_copy(model)
        try:
            with torch.enable_grad():
                train(ours, images, self.training, seed=seed, report=lambda done, *_: report(done))
        except DivergedError as error:
            raise RuntimeError(f"retune: {error}; a lower lr may help") from error
        for p in ours.parameters():
            p.requires_grad_(False).grad = None
        return ours


def _check_enough(place: str, wanted: int, there: int, which: str) -> None:
    if wanted > there:
        raise RequestError(
            f"{wanted} asked for; there are {count(there, 'clean image')}{which}", place=("retune", place)
        )
