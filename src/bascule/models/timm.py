"""Architectures of the package timm."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from torch import nn

from bascule.core.catalog import component
from bascule.core.optional import import_optional
from bascule.models._package import build_net, check_name, check_settings
from bascule.models.contract import Pretrainable
from bascule.models.normalise import Normalise

_FILE = "give a file as the model's own setting `weights`; nothing is downloaded"
_TAKEN = {
    "pretrained": _FILE,
    "pretrained_cfg": _FILE,
    "pretrained_cfg_overlay": _FILE,
    "checkpoint_path": _FILE,
    "cache_dir": _FILE,
    "num_classes": "the data decide it",
    "in_chans": "the data decide it",
}


@component
class Timm(Pretrainable):
    """An architecture of timm (PyTorch Image Models); `timm:resnet18` is short for it with `model: resnet18`.

    Freshly initialised, nothing is downloaded; `weights` takes a file that you have. The package comes with
    `bascule[vision]`. Transformers are built for one size: give it as `settings: {img_size: 32}`.
    """

    variant: ClassVar[str] = "model"

    model: str
    """Name in `timm.list_models()`, without the tag of a set of weights."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Further arguments of `timm.create_model`, for example `{drop_rate: 0.1}`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self.settings, _TAKEN)

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        timm = import_optional("timm", extra="vision")
        check_name("timm", self.model, timm.list_models())
        return build_net(
            lambda: timm.create_model(
                self.model, pretrained=False, num_classes=classes, in_chans=size[0], **self.settings
            ),
            f"timm:{self.model}",
            Normalise(self.mean, self.std, channels=size[0]),
            size,
            classes,
        )
