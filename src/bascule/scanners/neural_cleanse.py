"""Neural Cleanse: the smallest trigger for every class."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.scanners.contract import Scan, Scanner
from bascule.scanners.inversion import Drawn, Form, Schedule, invert
from bascule.scanners.verdict import verdict


@component
class NeuralCleanse(Scanner):
    """Neural Cleanse (Wang et al. 2019): the class whose smallest trigger is far smaller than the others' is a target.

    For each class a mask and a pattern are sought that move images of the other classes to it: cross-entropy plus
    `cost` times the mask's size, by Adam (betas 0.5 and 0.9) in tanh space from a random start. The cost rises while
    the wanted success is reached and falls while it is not. The answer is the smallest mask that reached it; the
    anomaly is the number of deviations (MAD) by which the mask is smaller than the median, and above 2 is a suspect.

    Departures from the authors' script: all classes form one batch; the cost moves every 10 steps instead of after 5
    rounds of 31, which reaches the same masks in a fraction of the steps; a class is done, and leaves the batch, when
    its mask has not become 1 % smaller for 15 looks; the mean of a look's iterates is taken instead of the last one;
    images of the class itself are left out; images are drawn with replacement.

    Weng, Lee & Wu 2020 know the target, take a mask per channel and the round of least loss, and test nothing:
    `{target: 7, mask: channel, best: loss, cost_from_start: true, cost_factor: 2, patience: 5, batch_size: 100,
    look_every: null, stop_after: null, max_looks: 20}`. Losses of different costs are not comparable, so prefer the
    default outside a reproduction.
    """

    mask: Literal["pixel", "channel"] = "pixel"
    """One mask value per pixel, or one per pixel and channel."""
    wanted_success: Annotated[float, Interval(gt=0, le=1)] = 0.99
    """Share of images of other classes that a trigger must move to the class."""
    threshold: Annotated[float, Gt(0)] = 2.0
    """Anomaly index above which a class is a suspect."""
    target: Annotated[int, Ge(0)] | None = None
    """Only this class is inverted and is taken for the target untested; by default all classes are compared."""
    best: Literal["smallest", "loss"] = "smallest"
    """Which look gives the trigger: the `smallest` mask with the wanted success, or the least mean `loss`, cost
    included; `loss` takes the look's last iterate."""
    first_cost: Annotated[float, Gt(0)] = 1e-3
    """Cost of one masked pixel (all channels) in units of cross-entropy, once there is a cost."""
    cost_from_start: bool = False
    """Begin with the first cost instead of none."""
    cost_factor: Annotated[float, Gt(1)] = 1.5
    """The cost is multiplied by this, or divided by this to the power 1.5."""
    patience: Annotated[int, Ge(1)] = 1
    """Looks in a row with (or without) the wanted success before the cost rises (or falls)."""
    lr: Annotated[float, Gt(0)] = 0.1
    """Adam's step length in tanh space."""
    batch_size: Annotated[int, Ge(1)] = 32
    """Images per class and step."""
    look_every: Annotated[int, Ge(1)] | None = 10
    """Steps between two looks at success and size; null: as many as use each image once."""
    stop_after: Annotated[int, Ge(1)] | None = 15
    """Looks without progress (1 %) after which a class is done, once its cost has moved both ways; null: never."""
    max_looks: Annotated[int, Ge(1)] = 100
    """Looks after which a class is done in any case."""

    def scan(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Scan:
        labels = torch.arange(len(images.classes), device=images.device)
        if self.target is not None:
            if self.target >= len(labels):
                raise RequestError(
                    f"there is no class {self.target}; the classes are 0..{len(labels) - 1}", place=("target",)
                )
            labels = labels[self.target : self.target + 1]
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(Schedule)}
        form = MaskAndPattern(images.size, per_channel=self.mask == "channel")
        inverted = invert(model, images, labels, form, Schedule(**settings), generator=generator)
        return verdict(inverted, labels, images, threshold=self.threshold, largest=form.area, assumed=self.target)


class MaskAndPattern(Form):
    """Mask and pattern in tanh space; the size is the mask's L1 norm in pixels, its sum over channels divided by C."""

    def __init__(self, size: tuple[int, int, int], *, per_channel: bool) -> None:
        self.size = size
        self.masks = size[0] if per_channel else 1

    @property
    def area(self) -> float:
        """The size of a mask that covers everything."""
        return float(self.size[1] * self.size[2])

    def start(self, count: int, *, generator: torch.Generator) -> Tensor:
        channels, height, width = self.size
        values = torch.rand(
            count, (self.masks + channels) * height * width, generator=generator, device=generator.device
        )
        return torch.atanh((2 * values - 1) * (1 - 1e-6))

    def draw(self, raw: Tensor) -> Drawn:
        channels, height, width = self.size
        values = torch.sigmoid(2 * raw).view(len(raw), self.masks + channels, height, width)  # = tanh(raw) / 2 + 1/2
        mask, pattern = values.split([self.masks, channels], 1)
        return Drawn(mask, pattern, mask.flatten(1).sum(1) / self.masks)
