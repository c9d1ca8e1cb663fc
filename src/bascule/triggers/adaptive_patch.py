"""Several faint marks of which each training image shows one, and test images all of them, plainly."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from annotated_types import Interval
from torch import Tensor

from bascule.core.catalog import Of, component
from bascule.core.errors import RequestError
from bascule.triggers.contract import Trigger
from bascule.triggers.sticker import Sticker

Opacity = Annotated[float, Interval(gt=0, le=1)]


@component
class AdaptivePatch(Trigger):
    """One of several marks, see-through, dealt to the images at random in equal groups; on test images all at once.

    Source: Qi et al. 2023 (Adaptive-Patch), "Revisiting the Assumption of Latent Separability for Backdoor Defenses",
    and their code (vtu81/backdoor-toolbox: poison_tool_box/adaptive_patch.py, config.py, README.md): four pictures with
    opacity 0.5, 0.2, 0.5 and 0.3 in training, in the test two of them with opacity 1; dirty labels, rate 0.003 and
    twice as many covers: `trigger: adaptive-patch, label: dirty, rate: 0.003, cover: 0.006`. Departures: their pictures
    are not shipped; without `patches` four stickers lie in the corners. In the test all are shown, unless the poison's
    `test_trigger` names others. Dealt at random, not in the order of the images.
    """

    patches: Annotated[tuple[Trigger, ...], Of("poison", many=True)] = (
        Sticker(position="bottom-right"),
        Sticker(position="bottom-left", pattern="checker"),
        Sticker(position="top-right", pattern="coarse-checker"),
        Sticker(position="top-left", color=0.5),
    )
    """The marks; any triggers."""
    opacities: tuple[Opacity, ...] = (0.5, 0.2, 0.5, 0.3)
    """Of each in training: x + opacity * (marked x - x)."""
    test_opacity: Opacity = 1.0
    """Of all of them on test images."""
    shown: Literal["one", "all"] = "one"
    """`one` of them in each image, or `all`, one over the other, with `test_opacity`: what test images show."""

    def __post_init__(self) -> None:
        if not self.patches:
            raise RequestError("at least one mark is needed", place=("patches",))
        if len(self.opacities) != len(self.patches):
            raise RequestError(
                f"{len(self.patches)} patches need as many opacities, got {len(self.opacities)}", place=("opacities",)
            )
        if any(patch.numbered for patch in self.patches):
            raise RequestError("one belongs to test images and cannot mark training images", place=("patches",))

    @property
    def at_test(self) -> Trigger:
        """All patches at once."""
        return replace(self, shown="all")

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        stamped = x.clone()
        if self.shown == "all":
            for patch in self.patches:
                stamped = stamped.lerp(patch.at_test.stamp(stamped, generator=generator), self.test_opacity)
            return stamped.clamp_(0, 1)
        many = len(self.patches)
        order = torch.randperm(len(x), generator=generator, device=x.device)
        first = torch.randint(many, (1,), generator=generator, device=x.device)  # a lone image may get any of them
        dealt = (order + first) % many
        for number, (patch, opacity) in enumerate(zip(self.patches, self.opacities, strict=True)):
            group = (dealt == number).nonzero().squeeze(1)
            stamped[group] = x[group].lerp(patch.stamp(x[group], generator=generator), opacity)
        return stamped.clamp_(0, 1)
