"""Fine-tuning towards flat minima."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Gt, Interval
from torch import Tensor, nn

from bascule.core.catalog import Of, component, name_of
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.restore import using_batch_statistics
from bascule.repairs.contract import FineTuning, Repaired
from bascule.training.contract import CrossEntropy, Objective


@component
class FtSam(FineTuning):
    """Fine-tuning with the gradient taken at the worst nearby weights, so that large weights move (FT-SAM).

    Each step goes along the gradient at w + e, where e = rho * w^2 g / |w g| and g is the gradient at w: the worst
    change whose length relative to the weights, |e / w|, is rho. Source: Zhu et al. 2023 (Enhancing Fine-Tuning based
    Backdoor Defense with Sharpness-Aware Minimization).

    Defaults: as in their code for CIFAR-10, but for the batch (see `fine-tune`).

    Departure: with an adversarial objective the second pass looks for adversarial images of its own.
    """

    rho: Annotated[float, Gt(0)] = 2.0
    """Length of the change of weights, each measured relative to the weight itself."""
    label_smoothing: Annotated[float, Interval(ge=0, le=0.5)] = 0.1
    """Share of each label that is spread evenly over the other classes."""

    wraps = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_smoothing and not isinstance(self.objective, CrossEntropy):
            raise RequestError(
                f"labels are smoothed in a plain cross-entropy, as in standard or pgd; {name_of(self.objective)} is "
                "not one. Use label_smoothing 0 with it",
                place=("label_smoothing",),
            )

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        smoothed = self.objective
        if self.label_smoothing:
            smoothed = Smoothed(inner=self.objective, share=self.label_smoothing)
        sharpness = AtWorstWeights(inner=smoothed, rho=self.rho)
        self.tune(model, images, generator=generator, objective=sharpness)
        return Repaired(model, {})


@component
class Smoothed(Objective):
    """Cross-entropy on another objective's images with labels that are less than certain."""

    inner: Annotated[Objective, Of("train")]
    """Chooses the images."""
    share: Annotated[float, Interval(ge=0, le=0.5)]
    """Of each label, spread evenly over the other classes."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        logits = model(self.inner.inputs(model, x, y, progress=progress, generator=generator))
        classes = logits.shape[1]
        # PyTorch spreads its share over all classes, the label's own too.
        return F.cross_entropy(logits, y, label_smoothing=self.share * classes / (classes - 1))


@component
class AtWorstWeights(Objective):
    """Another objective's loss and gradient at nearby weights that raise it (adaptive sharpness-aware minimisation)."""

    inner: Annotated[Objective, Of("train")]
    """The objective."""
    rho: Annotated[float, Gt(0)]
    """As above."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        weights = [p for p in model.parameters() if p.requires_grad]
        loss = self.inner.loss(model, x, y, progress=progress, generator=generator)
        uphill = torch.autograd.grad(loss, weights, allow_unused=True)
        pairs = [(w, g) for w, g in zip(weights, uphill, strict=True) if g is not None]
        before = [w.detach().clone() for w, _ in pairs]
        with torch.no_grad():
            length = torch.stack([(w * g).square().sum() for w, g in pairs]).sum().sqrt()
            for w, g in pairs:
                w.add_(w.square() * g * (self.rho / length.clamp_min(torch.finfo(w.dtype).tiny)))
        try:
            with using_batch_statistics(model):  # the running statistics have seen this batch already
                worst = self.inner.loss(model, x, y, progress=progress, generator=generator)
            gradients = torch.autograd.grad(worst, [w for w, _ in pairs])
        finally:
            with torch.no_grad():
                for (w, _), value in zip(pairs, before, strict=True):
                    w.copy_(value)
        # The loss at the worst weights, with the gradient found there: the differences are zero.
        steps = [(g * (w - w.detach())).sum() for (w, _), g in zip(pairs, gradients, strict=True)]
        return worst.detach() + torch.stack(steps).sum()
