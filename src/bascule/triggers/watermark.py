"""A faint picture over the whole image."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.triggers.contract import Trigger
from bascule.triggers.pictures import picture_digest, read_picture, saturated_picture, silhouette_picture

_GENERATED = {"saturated": saturated_picture, "silhouette": silhouette_picture}


@component
class Watermark(Trigger):
    """A picture added to, or blended into, the whole image ("Blended"), then clipped to [0, 1].

    Sources: Chen et al. 2017, the attack known as Blended: mode `blend` with strength 0.2. Weng, Lee & Wu 2020: mode
    `add`, the "simple" watermark (table 2a) with a silhouette at strength 0.3 on MNIST, 64/255 with margin 2 on
    CIFAR-10 and with margin 20 on ImageNet, the "complex" one (table 3c) with a saturated picture. Departure: their
    pictures are not shipped; without `picture` one of the same kind is generated.
    """

    strength: Annotated[float, Interval(gt=0, le=1)] = 0.25
    """Weight of the picture, in [0, 1] pixel units for `add`, as the share of the mix for `blend`."""
    mode: Literal["add", "blend"] = "add"
    """`add`: clip(x + strength * picture); `blend`: (1 - strength) * x + strength * picture."""
    margin: Annotated[int, Ge(0)] = 0
    """Width in pixels of an unmarked frame; keeps the mark whole under small random crops."""
    pattern: Literal["saturated", "silhouette"] = "saturated"
    """The generated picture: `saturated` colour patches, or the white `silhouette` of a robot on black."""
    picture: str | None = None
    """A picture file, scaled to the image; its transparency weighs the mark. By default `pattern`."""
    picture_sha256: str | None = None
    """Filled in from the file."""

    def __post_init__(self) -> None:
        if self.picture is not None:
            if self.pattern != "saturated":
                raise ValueError(f"give a picture or the pattern {self.pattern!r}, not both")
            object.__setattr__(self, "picture_sha256", picture_digest(self.picture, self.picture_sha256))

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        channels, height, width = x.shape[1], x.shape[2] - 2 * self.margin, x.shape[3] - 2 * self.margin
        if height < 1 or width < 1:
            raise RequestError(f"margin {self.margin} leaves nothing of images of {x.shape[2]} x {x.shape[3]}")
        if self.picture is not None:
            picture, opacity = read_picture(self.picture, channels=channels, height=height, width=width)
        else:
            picture = _GENERATED[self.pattern](channels=channels, height=height, width=width)
            opacity = torch.ones(1, height, width)
        picture, weight = picture.to(x), (opacity * self.strength).to(x)
        stamped = x.clone()
        inner = stamped[:, :, self.margin : self.margin + height, self.margin : self.margin + width]
        if self.mode == "blend":
            inner.mul_(1 - weight)
        inner.add_(picture * weight).clamp_(0, 1)
        return stamped
