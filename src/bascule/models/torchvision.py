"""Architectures of the package torchvision."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from torch import nn

from bascule.core.catalog import component
from bascule.core.optional import import_optional
from bascule.models._package import build_net, check_name, check_settings
from bascule.models.contract import Pretrainable
from bascule.models.normalise import Normalise

_TAKEN = {
    "weights": "give a file as the model's own setting `weights`; nothing is downloaded",
    "weights_backbone": "nothing is downloaded",
    "pretrained": "give a file as the model's own setting `weights`; nothing is downloaded",
    "num_classes": "the data decide it",
}


@component
class Torchvision(Pretrainable):
    """A classification architecture of torchvision; `torchvision:resnet18` is short for it with `model: resnet18`.

    Freshly initialised, nothing is downloaded; `weights` takes a file that you have. The package comes with
    `bascule[vision]`. Most of these take colour images of at least 32 x 32.
    """

    variant: ClassVar[str] = "model"

    model: str
    """Name in `torchvision.models.list_models(module=torchvision.models)`."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Further arguments of the architecture, for example `{image_size: 32}` of `vit_b_16`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self.settings, _TAKEN)

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        models = import_optional("torchvision.models", extra="vision")
        check_name("torchvision", self.model, models.list_models(module=models))
        return build_net(
            lambda: models.get_model(self.model, weights=None, num_classes=classes, **self.settings),
            f"torchvision:{self.model}",
            Normalise(self.mean, self.std, channels=size[0]),
            size,
            classes,
        )
