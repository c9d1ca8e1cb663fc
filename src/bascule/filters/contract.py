"""Data defences before training. One file each: model, images -> how suspicious each image is, and which to remove.

The model was trained on these very images, with these labels, some of which may be poisoned. Which class or which
images is what a filter has to say: it looks at all classes and is told nothing. `run` calls it with the images in the
order of their ids, so that no answer depends on how a set happens to be sorted, and checks what comes back.

The `score` orders the whole set, across classes. `removed` is the decision of the filter's own rule, and may differ
from cutting at a score: most rules decide class by class. A rule that cannot remove anything, or not from some class,
says so in `notes`: removing nothing must not look like finding nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.calling import verb_of
from bascule.core.documented import documented
from bascule.core.features import Features, features
from bascule.core.given import Data, Labels
from bascule.core.grid import Grid, TableCell
from bascule.core.images import Images
from bascule.core.shown import Lines, Picture, Pictures, by_identity, html_of
from bascule.core.text import count
from bascule.core.tiles import tile

FIRST = 12
"""Images that are shown of those that were judged."""


@documented
@by_identity
class Judged(NamedTuple):
    """What a filter says of every image, in the order of the set, on the CPU."""

    score: Tensor
    """float32, shape (N,), finite: higher is more suspicious, comparable over the whole set."""
    removed: Tensor
    """bool, shape (N,): what the filter's rule would leave out of the training set."""
    notes: tuple[str, ...] = ()
    """What the rule could not do on this set, with the reason: a class that it does not look at, a threshold that no
    image can pass. Empty where it could have removed any image."""
    first: Tensor | None = None
    """uint8: the most suspicious images, in order, to be looked at; None where nobody kept them."""

    @property
    def keep(self) -> Tensor:
        """bool, shape (N,): what the rule leaves in the training set."""
        return ~self.removed

    def __repr__(self) -> str:
        there, gone = len(self.score), int(self.removed.sum())
        first = self.score.argsort(descending=True, stable=True)[:5].tolist()
        return "\n  ".join(
            [
                f"Judged: {count(there, 'image')}, {gone} removed ({100 * gone / max(1, there):.1f} %)",
                "most suspicious: " + ", ".join(f"{place} ({float(self.score[place]):.3g})" for place in first),
                *self.notes[:5],
            ]
        )

    def _repr_html_(self) -> str:
        there, gone = len(self.score), int(self.removed.sum())
        first = self.score.argsort(descending=True, stable=True)[:FIRST].tolist()
        lines = [
            [
                TableCell(f"{place}"),
                TableCell(f"{float(self.score[place]):.3g}"),
                TableCell("removed" if bool(self.removed[place]) else ""),
            ]
            for place in first
        ]
        head = f"{count(there, 'image')}, {gone} removed ({100 * gone / max(1, there):.1f} %)"
        pictures = [] if self.first is None else list(zip(self.first.cpu().numpy(), first, strict=False))
        return html_of(
            [
                Lines([head]),
                Grid(["Most suspicious"], ["Score", "Rule"], lines),
                Pictures([Picture(tile(image), f"image {place}") for image, place in pictures]),
                Lines(self.notes),
            ]
        )


@catalog.contract("filter")
@catalog.component
class Filter(ABC):
    """Settings of a data defence."""

    @abstractmethod
    def judge(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Judged:
        """Score and decision for every image, in the order of `images`, finite; on any device.

        Args:
            model: From [0, 1] images to logits, trained on `images`; in eval mode, parameters frozen.
            images: The training set with the labels as trained on, sorted by id. Not to be changed.
            generator: On the device of the images.

        Raises:
            RequestError: The settings do not fit the model or the images.
        """

    def check_model(self, model: nn.Module, images: Images) -> None:  # noqa: B027  (most take any model)
        """Refuse, before any training, a model that `judge` cannot work on; here none is.

        Args:
            model: As for `judge`; a fresh one that is thrown away. Called without gradients.
            images: Two images, as for `judge`; their labels mean nothing.

        Raises:
            RequestError: It has not what the method needs.
        """

    def __call__(self, model: nn.Module, x: Data, y: Labels | None = None, *, seed: int = 0) -> Judged:
        """How suspicious each training image is: `bascule.filter(model, x, y, self, seed=seed)`."""
        return verb_of("filter")(model, x, y, self, seed=seed)


@catalog.component
class LayerFilter(Filter):
    """Settings of a data defence that looks at one layer of the model."""

    layer: str | None = None
    """Module whose output is looked at, named as in the model (`group3.1`); by default the input of the last linear
    layer. Maps are flattened."""

    def check_model(self, model: nn.Module, images: Images) -> None:
        self.features(model, images)

    def features(self, model: nn.Module, images: Images) -> Features:
        """The layer's output for every image."""
        return features(model, images, layer=self.layer)
