"""Class activation maps by gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.errors import RequestError, unknown
from bascule.core.optional import import_optional
from bascule.explain import HeatMap
from bascule.explain.gradient import score_of


@component
class GradCam(HeatMap):
    """Grad-CAM (Selvaraju et al. 2017, section 3), through captum: where features that raise the logit are active.

    The channels of a layer's output, weighted by their mean gradient, summed, cut at zero and scaled up to the image
    (bilinear). As coarse as the layer: a trigger of a few pixels is not resolved by a late one.
    """

    layer: str | None = None
    """Name of a module whose output is B x C x H x W, as in `model.named_modules()`; by default the last Conv2d."""

    def heat(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        name, layer = self._chosen(model)
        method = import_optional("captum.attr", extra="explain").LayerGradCam(score_of(model, "logit"), layer)
        inputs = x.detach().requires_grad_(True)  # a frozen model's layers have gradients only through their input
        cam: Tensor = method.attribute(inputs, additional_forward_args=(y,), relu_attributions=True)
        if cam.ndim != 4:
            problem = f"the output of {name!r} has {cam.ndim} dimensions, a heat map needs B x C x H x W"
            raise RequestError(f"{problem}; name a layer before the images are flattened", place=("layer",))
        return F.interpolate(cam.detach(), x.shape[2:], mode="bilinear", align_corners=False).squeeze(1)

    def _chosen(self, model: nn.Module) -> tuple[str, nn.Module]:
        modules = dict(model.named_modules())
        if self.layer is not None:
            if self.layer not in modules:
                raise RequestError(unknown("layer", self.layer, filter(None, modules)), place=("layer",))
            return self.layer, modules[self.layer]
        convolutions = [(name, module) for name, module in modules.items() if isinstance(module, nn.Conv2d)]
        if not convolutions:
            names = ", ".join(filter(None, modules))
            raise RequestError(f"the model has no Conv2d; name a layer of it: {names}", place=("layer",))
        return convolutions[-1]
