"""Whether a network is one that can be measured, tried on one image before any work."""

from __future__ import annotations

import torch
from torch import Tensor

from bascule.core.catalog import name_of
from bascule.core.errors import RequestError
from bascule.models import Architecture


def check_network(model: Architecture, size: tuple[int, int, int], classes: int) -> None:
    """Try the network on one black image.

    Raises:
        RequestError: It cannot take images of this size, or does not answer with one logit per class.
    """
    try:
        network = model.initialised(size, classes, seed=0).eval()
        with torch.no_grad():
            logits = network(torch.zeros(1, *size))
    except RequestError:
        raise
    except Exception as error:  # a user's code may raise anything
        channels, height, width = size
        kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
        raise RequestError(
            f"{name_of(model)} cannot take images of {channels} x {height} x {width}: {kind}{error}"
        ) from error
    check_logits(name_of(model), logits, 1, classes)


def check_logits(name: str, logits: object, images: int, classes: int) -> None:
    """Whether this answer to some images is one that can be measured: one logit per class for each.

    Raises:
        RequestError: It is not; begins with the network's `name`.
    """
    if not isinstance(logits, Tensor):
        raise RequestError(
            f"{name} answers with {type(logits).__name__}; expected a tensor of logits. "
            "Wrap it in a module whose `forward` returns the logits alone"
        )
    if logits.shape != (images, classes) or not classes:
        who = "one image" if images == 1 else f"{images} images"
        raise RequestError(
            f"{name} answers with shape {tuple(logits.shape)} for {who}; "
            f"expected ({images}, {classes or 'classes'}): one logit per class"
        )
