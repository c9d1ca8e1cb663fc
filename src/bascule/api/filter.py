"""How suspicious the images of a training set are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from bascule.api.given import drawing, images_for, part_of
from bascule.api.verb import verb
from bascule.core.given import Data, Labels
from bascule.core.images import as_bytes
from bascule.filters.contract import FIRST, Filter, Judged
from bascule.filters.run import run_filter


@verb
def filter(  # noqa: A001
    model: nn.Module,
    x: Data,
    y: Labels | None,
    filter: str | Mapping[str, Any] | Filter,  # noqa: A002
    *,
    seed: int = 0,
    **settings: Any,
) -> Judged:
    """How suspicious each image of a training set is: `bascule.filter(model, x, y, "spectral-signatures")`.

    The model was trained on these images with these labels, some of which may be poisoned. What is left is
    `x[judged.keep]`. The same numbers as `bascule filter WEIGHTS` with these images and this seed.

    Args:
        model: From [0, 1] images to logits; normalisation is its first layer. Found as it was afterwards.
        x: The training set, N x C x H x W with 1 or 3 channels, floats in [0, 1] or uint8
            (0 to 255); or a data set or loader, as `evaluate` takes it.
        y: Labels, whole numbers, shape (N,); None with a data set.
        filter: A name (see `bascule ls filter`) with its settings as keywords; or a mapping as in a study file, or a
            filter itself.
        seed: Of everything that is drawn.
        settings: Of the filter: `bascule show filter/NAME`.

    Returns:
        The suspicion of each image (`score`), what the filter's own rule removes, and notes; on the CPU, in the order
        of `x`.

    Raises:
        RequestError: A wrong name, setting, shape, range or label, a model that does not answer with logits, or
            settings that do not fit the model or the images.
    """
    method: Filter = part_of("filter", filter, settings, x)
    images = images_for(model, x, y, seed)
    judged = run_filter(model, method, images, generator=drawing(seed, "filter", images))
    first = judged.score.argsort(descending=True, stable=True)[:FIRST].to(images.device)
    return judged._replace(first=as_bytes(images.batch(first).float()).cpu())
