"""A model without its backdoor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from bascule.api.given import drawing, images_for, part_of
from bascule.api.verb import verb
from bascule.core.given import Data, Labels
from bascule.repairs.contract import Repair, Repaired
from bascule.repairs.run import run_repair


@verb
def repair(
    model: nn.Module,
    x: Data,
    y: Labels | None,
    repair: str | Mapping[str, Any] | Repair,
    *,
    seed: int = 0,
    **settings: Any,
) -> Repaired:
    """A repaired copy of a model: `bascule.repair(model, x, y, "fine-pruning").model`.

    The same weights as `bascule repair WEIGHTS` writes with these images and this seed.

    Args:
        model: From [0, 1] images to logits; normalisation is its first layer. Found as it was afterwards.
        x: Clean images of the defender, N x C x H x W with 1 or 3 channels, floats in [0, 1] or uint8
            (0 to 255); or a data set or loader, as `evaluate` takes it.
        y: Labels, whole numbers, shape (N,); None with a data set.
        repair: A name (see `bascule ls repair`) with its settings as keywords; or a mapping as in a study file, or a
            repair itself.
        seed: Of everything that is drawn.
        settings: Of the repair: `bascule show repair/NAME`.

    Returns:
        The new model, in eval mode, and notes on what was changed. The model that was given stays as it is.

    Raises:
        RequestError: A wrong name, setting, shape, range or label, a model that does not answer with logits, or a
            method that cannot work on it.
    """
    method: Repair = part_of("repair", repair, settings, x)
    images = images_for(model, x, y, seed)
    return run_repair(model, method, images, generator=drawing(seed, "repair", images))
