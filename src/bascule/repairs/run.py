"""Running a repair: what is guaranteed whatever it does."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bascule.core.catalog import name_of
from bascule.core.errors import DivergedError
from bascule.core.images import Images
from bascule.core.lending import lending, stop_lending
from bascule.core.restore import trainable_copy
from bascule.core.returned import returned
from bascule.repairs.contract import Repair, Repaired


class BrokenError(DivergedError):
    """A repair left a weight or a running statistic that is not finite."""


def run_repair(model: nn.Module, repair: Repair, images: Images, *, generator: torch.Generator) -> Repaired:
    """A repaired copy of `model`; the model itself is never touched.

    The copy is in eval mode, its parameters want a gradient where the model's do, and hold none. Every floating
    parameter may be changed by the repair, frozen or not.

    Args:
        model: From [0, 1] images to logits.
        repair: The method.
        images: The defender's clean images with their true labels, on the model's device. A repair that needs none
            gets to know their size only.
        generator: On the device of the images.

    Raises:
        RequestError: The method cannot work on this model or with these images.
        BrokenError: A weight of the result is not finite.
        DivergedError: The same, found while it was training.
    """
    ours = trainable_copy(model)
    if not repair.needs_images:
        images = _black(images)
    with torch.enable_grad(), lending(ours):
        found = repair.repair(ours, images, generator=generator)
        repaired, notes = returned(found, tuple, who=repair, method="repair")  # as Repaired is
    stop_lending(repaired)  # a copy that the repair made took the hooks along
    _check(repair, repaired, model)
    wanted = {name: p.requires_grad for name, p in model.named_parameters()}
    for name, p in repaired.named_parameters():
        p.requires_grad_(wanted[name])
        p.grad = None
    return Repaired(repaired.eval(), {**notes, "distance": _distance(repaired, model)})


def _black(images: Images) -> Images:
    """One black image instead of these."""
    pixels = torch.zeros(1, *images.size, dtype=torch.uint8, device=images.device)
    nought = torch.zeros(1, dtype=torch.int64, device=images.device)
    return Images(pixels=pixels, labels=nought, ids=nought, classes=images.classes)


def _check(repair: Repair, repaired: nn.Module, model: nn.Module) -> None:
    """The same weights by name and shape, all finite."""
    before, after = _shapes(model), _shapes(repaired)
    if after != before:
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        raise ValueError(f"{name_of(repair)} changed the architecture: {', '.join(changed)}")
    broken = [name for name, value in repaired.state_dict().items() if not bool(value.isfinite().all())]
    if broken:
        raise BrokenError(f"{name_of(repair)} left values that are not finite in {', '.join(broken)}")


def _shapes(model: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in model.state_dict().items()}


@torch.no_grad()
def _distance(repaired: nn.Module, model: nn.Module) -> float:
    """Length of the change of all parameters, divided by their length before; 0 for a model of zeros unchanged."""
    pairs = list(zip(repaired.parameters(), model.parameters(), strict=True))
    change = _length([after - before for after, before in pairs])
    return change / _length([before for _, before in pairs]) if change else 0.0


def _length(parts: list[Tensor]) -> float:
    return float(torch.stack([part.double().square().sum() for part in parts]).sum().sqrt())
