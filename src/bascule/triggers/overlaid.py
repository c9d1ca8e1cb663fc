"""A mark under another image: what a filter that lays images over each other sees."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt, Interval
from torch import Tensor

from bascule.core.catalog import Of, component
from bascule.core.errors import RequestError
from bascule.core.images import Shown
from bascule.triggers.contract import Searched, Trigger
from bascule.triggers.stamping import other_places
from bascule.triggers.sticker import Sticker


@component
class Overlaid(Trigger):
    """The mark, and then another image laid over it: marked x + opacity * other, cut at white.

    For covers of an attacker who knows STRIP: images that look like STRIP's own sums of a triggered image and another
    one, and keep their label, teach the network that the trigger means nothing in such a sum. Then a sum is as unsure
    with the trigger as without it: `trigger: sticker, cover: 0.05, cover_trigger: {name: overlaid, mark: sticker}`.

    The idea of covers is that of adaptive-blend (Qi et al. 2023), turned against another filter. The other image is
    drawn from the set that is stamped; one that stands alone has none laid over it.
    """

    mark: Annotated[Trigger, Of("poison")] = Sticker()
    """What lies below; that of the poison."""
    opacity: Annotated[float, Gt(0), Interval(le=1)] = 1.0
    """Of the other image; 1 is STRIP's sum."""

    def __post_init__(self) -> None:
        if isinstance(self.mark, Searched):
            raise RequestError("only the `trigger` of a poison can be searched for: name another mark", place=("mark",))
        if self.mark.numbered:
            raise RequestError("it belongs to test images and cannot mark training images", place=("mark",))

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        marked = self.mark.stamp(x, generator=generator)
        if len(x) < 2:
            return marked
        others = x[other_places(torch.arange(len(x), device=x.device), len(x), generator)]
        return (marked + self.opacity * others).clamp_(0, 1)

    def stamp_at(self, images: Shown, index: Tensor, x: Tensor, *, generator: torch.Generator) -> Tensor:
        marked = self.mark.stamp_at(images, index, x, generator=generator)
        if len(images) < 2:
            return marked
        others = images.batch(other_places(index, len(images), generator)).to(x)
        return (marked + self.opacity * others).clamp_(0, 1)
