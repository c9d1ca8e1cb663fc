"""Class activation maps by gradients."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.optional import import_optional
from bascule.explanations._picture import last_picture, named_layer
from bascule.explanations.contract import HeatMap
from bascule.explanations.gradient import score_of


@component
class GradCam(HeatMap):
    """Grad-CAM (Selvaraju et al. 2017, section 3), through captum: where features that raise the logit are active.

    The channels of a layer's output, weighted by their mean gradient, summed, cut at zero and scaled up to the image
    (bilinear). As coarse as the layer: a trigger of a few pixels is not resolved by a late one.
    """

    follows_gradients: ClassVar[bool] = True

    layer: str | None = None
    """Name of a module whose output is B x C x H x W, as in `model.named_modules()`; by default the last Conv2d with
    more than one pixel, or the last such module behind layers on tokens; refused where there is none (ViT, Swin)."""

    def check_model(self, model: nn.Module, x: Tensor) -> None:
        self._layer(model, x)
        import_optional("captum.attr", extra="explain")

    def _layer(self, model: nn.Module, x: Tensor) -> nn.Module:
        few = x[:2].detach()
        return last_picture(model, few) if self.layer is None else named_layer(model, self.layer, few)

    def heat(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        layer = self._layer(model, x)
        method = import_optional("captum.attr", extra="explain").LayerGradCam(score_of(model, "logit"), layer)
        inputs = x.detach().requires_grad_(True)  # a frozen model's layers have gradients only through their input
        cam: Tensor = method.attribute(inputs, additional_forward_args=(y,), relu_attributions=True)
        return F.interpolate(cam.detach(), x.shape[2:], mode="bilinear", align_corners=False).squeeze(1)
