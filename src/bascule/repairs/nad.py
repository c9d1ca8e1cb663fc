"""Learning where to look from a fine-tuned copy."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from bascule.core.catalog import Of, component
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.restore import evaluating
from bascule.repairs.contract import FineTuning, Repaired
from bascule.repairs.layers import capture, layers_of
from bascule.training.contract import Objective, check_plain


@component
class Nad(FineTuning):
    """Fine-tunes the model to attend to the same places as a copy fine-tuned before (neural attention distillation).

    Loss: CE + weight * sum over stages of the mean squared difference between the two nets' attention maps, where the
    map of a stage is the sum of its squared channels, scaled to length one. Source: Li et al. 2021, section 3, with the
    2nd power and the weight of their code (500 for the first of three stages, 1000 for the others; here 1000 for all).

    Defaults: the training of `fine-tune`, and 10 passes for the teacher, as in BackdoorBench.

    Departure: a stage is the rectified output of the last convolution (through its batch norm) of every resolution;
    theirs are the three groups of a wide residual network.
    """

    teacher_epochs: Annotated[int, Ge(0)] = 10
    """Passes over the defender's images by which the teacher, a copy of the model, is fine-tuned first."""
    weight: Annotated[float, Ge(0)] = 1000.0
    """Weight of the difference of attention."""

    def __post_init__(self) -> None:
        wanted = "attention is compared on the images a plain cross-entropy is taken on, as in standard or pgd"
        check_plain(self.objective, wanted, place="objective")

    def check_model(self, model: nn.Module, images: Images) -> None:
        _stages(model, images)

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        stages = _stages(model, images)
        if self.epochs:
            teacher = copy.deepcopy(model)
            self.tune(teacher, images, generator=generator, epochs=self.teacher_epochs)
            teacher.eval()
            like_teacher = Attentive(inner=self.objective, teacher=teacher, stages=stages, weight=self.weight)
            self.tune(model, images, generator=generator, objective=like_teacher)
        return Repaired(model, {"stages": float(len(stages))})


def _stages(model: nn.Module, images: Images) -> tuple[str, ...]:
    """Names of the modules whose outputs are compared: the last one of every resolution.

    Raises:
        RequestError: No convolution gives a map of several positions.
    """
    layers = [layer for layer in layers_of(model, images.size) if isinstance(layer.module, nn.Conv2d)]
    first = torch.zeros(1, dtype=torch.int64, device=images.device)
    with evaluating(model), torch.no_grad(), capture([layer.output for layer in layers]) as maps:
        model(images.batch(first))
    last = {tuple(output.shape[2:]): layer for layer, output in zip(layers, maps, strict=True)}
    stages = [layer.norm_name or layer.name for size, layer in last.items() if size != (1, 1)]
    if not stages:
        raise RequestError("nad compares maps of convolutions, and the model has none; use fine-tune")
    return tuple(stages)


@component
class Attentive(Objective):
    """Cross-entropy on another objective's images, plus the difference of attention from a teacher."""

    inner: Annotated[Objective, Of("train")]
    """Chooses the images."""
    teacher: nn.Module
    """The network to look like, in eval mode."""
    stages: tuple[str, ...]
    """Names of the modules whose outputs are compared."""
    weight: float
    """Of the difference."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, progress: float, generator: torch.Generator) -> Tensor:
        seen = self.inner.inputs(model, x, y, progress=progress, generator=generator)
        with capture([self.teacher.get_submodule(name) for name in self.stages]) as wanted, torch.no_grad():
            self.teacher(seen)
        with capture([model.get_submodule(name) for name in self.stages]) as maps:
            loss = F.cross_entropy(model(seen), y)
        return loss + self.weight * attention_difference(maps, wanted)


def attention_difference(maps: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Sum over stages of the mean squared difference of attention maps; stages are B x C x H x W, before the ReLU."""
    return torch.stack([F.mse_loss(_attention(f), _attention(w)) for f, w in zip(maps, wanted, strict=True)]).sum()


def _attention(maps: Tensor) -> Tensor:
    """B x C x H x W to B x HW: the sum of squares over channels, scaled to length one."""
    return F.normalize(maps.relu().square().sum(1).flatten(1), dim=1)
