"""Inversion in feature space: the fewest features that carry a trigger, for every class."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from bascule.core.ahead import read_batches
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.features import last_linear
from bascule.core.images import Images
from bascule.core.inference import chunks
from bascule.scanners.contract import Scan, Scanner
from bascule.scanners.inversion import Drawn, Form, Schedule, invert
from bascule.scanners.verdict import verdict


@component
class FeatureInversion(Scanner):
    """Trigger inversion with a constraint in feature space (after FeatureRE, Wang, Mei, Zhai & Ma 2022).

    A backdoor is carried by a few features that take nearly the same values on every triggered image, however the
    trigger looks in the image. For each class a change of the image within `budget` is sought, and a mask over the
    features before the last linear layer: clean images whose masked features are replaced by the mean features of
    changed images must go to the class. A class that needs far fewer features than the median (MAD index) is a suspect.

    Departures: the change is one universal perturbation instead of a generator's; the masked features are set to their
    mean over the changed images, so their spread needs no loss of its own; the verdict compares classes instead of
    testing one success rate. The features of all images are kept in memory, images times features.
    """

    budget: Annotated[float, Gt(0)] = 0.2
    """Largest root mean square change of the image in [0, 1] pixel units, some more than a trigger needs: too little
    moves no class, too much moves every class."""
    wanted_success: Annotated[float, Interval(gt=0, le=1)] = 0.99
    """Share of images of other classes that the replaced features must move to the class."""
    threshold: Annotated[float, Gt(0)] = 2.0
    """Anomaly index above which a class is a suspect."""
    max_looks: Annotated[int, Ge(1)] = 100
    """Looks (of 10 steps) after which a class is done in any case."""

    def check_model(self, model: nn.Module, images: Images) -> None:
        _inputs(model, _last_linear(model, images), images)

    def scan(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Scan:
        labels = torch.arange(len(images.classes), device=images.device)
        layer = _last_linear(model, images)
        form = FeatureMask(images.size, layer, _inputs(model, layer, images), self.budget)
        schedule = Schedule(wanted_success=self.wanted_success, first_cost=1e-2, max_looks=self.max_looks)
        inverted = invert(model, images, labels, form, schedule, generator=generator)
        return verdict(inverted, labels, images, threshold=self.threshold, largest=float(form.features.shape[1]))


class FeatureMask(Form):
    """A perturbation in tanh space, brought into the budget, and a mask over features; the size is the mask's sum."""

    def __init__(self, size: tuple[int, int, int], layer: nn.Module, features: Tensor, budget: float) -> None:
        self.size = size
        self.layer = layer
        self.features = features
        self.radius = budget * math.sqrt(math.prod(size))

    def start(self, count: int, *, generator: torch.Generator) -> Tensor:
        shape = count, math.prod(self.size) + self.features.shape[1]
        return torch.randn(shape, generator=generator, device=generator.device).mul_(0.1)

    def draw(self, raw: Tensor) -> Drawn:
        pixels = math.prod(self.size)
        change = torch.tanh(raw[:, :pixels])
        norm = torch.linalg.vector_norm(change, dim=1, keepdim=True)
        change = change * (self.radius / norm).clamp_max(1)
        inner = torch.sigmoid(2 * raw[:, pixels:])
        pattern = (change.detach() > 0).to(change)
        return Drawn(change.abs().view(-1, *self.size), pattern.view(-1, *self.size), inner.sum(1), inner)

    def logits(self, model: nn.Module, stamped: Tensor, inner: Tensor | None, images: Tensor) -> Tensor:
        assert inner is not None
        clean = self.features[images]

        def replace(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            mean = args[0].unflatten(0, images.shape).mean(1, keepdim=True)
            return torch.lerp(clean, mean, inner.unsqueeze(1)).flatten(0, 1), *args[1:]

        with _before(self.layer, replace):
            return super().logits(model, stamped, inner, images)


def _last_linear(model: nn.Module, images: Images) -> nn.Module:
    return model.get_submodule(last_linear(model, images.batch(images.labels[:1] * 0)))


@contextmanager
def _before(layer: nn.Module, hook: Any) -> Iterator[None]:
    handle = layer.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def _inputs(model: nn.Module, layer: nn.Module, images: Images, *, batch_size: int = 1000) -> Tensor:
    """What `layer` is given for each image, N x D."""
    features: list[Tensor] = []
    with _before(layer, lambda module, args: features.append(args[0].clone())):
        for index, x in read_batches(images, chunks(len(images), batch_size, images.device)):
            model(x)
            if features[-1].ndim != 2 or sum(map(len, features)) != int(index[-1]) + 1:
                raise RequestError(
                    f"the model's last linear layer takes {tuple(features[-1].shape)} for {len(index)} images, not one "
                    "vector for each, so no features can be replaced there; use another scanner"
                )
    return torch.cat(features)
