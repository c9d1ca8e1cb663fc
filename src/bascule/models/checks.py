"""Whether a network is one that can be measured and trained, tried on black images before any work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bascule.core import rng
from bascule.core.catalog import name_of
from bascule.core.errors import RequestError
from bascule.core.gradients import is_differentiable
from bascule.core.lending import not_logits
from bascule.core.restore import answer_in_training, evaluating
from bascule.core.text import count
from bascule.models.contract import Architecture


def check_network(
    model: Architecture,
    size: tuple[int, int, int],
    classes: int,
    *,
    trained: bool = False,
    complete: bool = False,
) -> bool:
    """Try the network on one black image; one that is to be `trained` on two in train mode as well.

    Args:
        model: The network.
        size: Of the images: channels, height, width.
        classes: Number of classes.
        trained: Whether it is to be trained.
        complete: Whether its file of weights is the whole model, which is to be measured as it is.

    Returns:
        Whether it is without gradients: none reaches the images from the answers. Looked for where it is `trained` or
        `complete`.

    Raises:
        RequestError: It cannot take images of this size, or does not answer with one logit per class; its weights do
            not fit.
    """
    with _trying(model, "cannot take", size):
        network = model.initialised(size, classes, seed=0, complete=complete).eval()
        try:
            with evaluating(network), torch.no_grad():
                logits = network(torch.zeros(1, *size))
        except Exception as error:
            if remedy := flat(network, torch.zeros(1, *size)):
                images = " x ".join(map(str, size))
                raise RequestError(f"{name_of(model)} cannot take images of {images}{remedy}") from error
            raise
    check_logits(name_of(model), logits, 1, classes)
    if complete:
        return not is_differentiable(network, torch.rand(2, *size, generator=rng.stream(0, "trial", "gradient")))
    if not trained:
        return False
    with _trying(model, "cannot be trained on", size), rng.borrowed_global_stream(0, "trial"):
        logits = answer_in_training(network, torch.zeros(2, *size))
    check_logits(f"{name_of(model)} in train mode", logits, 2, classes)
    return not _has_gradients(network, size)


def _has_gradients(network: nn.Module, size: tuple[int, int, int]) -> bool:
    """Whether a gradient of the answers reaches the images of a fresh network, which is changed by the trial.

    Random images and, in place of weights that begin with zeros, random ones: without them no gradient would come
    through a network that has one as soon as it is trained a little.
    """
    generator = rng.stream(0, "trial", "gradient")
    with torch.no_grad():
        for p in network.parameters():
            if p.ndim > 1 and p.is_floating_point() and not bool(p.any()):
                p.copy_(torch.randn(p.shape, generator=generator))
    return is_differentiable(network, torch.rand(2, *size, generator=generator))


def flat(network: nn.Module, x: Tensor) -> str:
    """What to say of a network that fails at images and takes rows of numbers; nothing of others.

    Args:
        network: From whatever it takes to logits.
        x: A few images, N x C x H x W, on its device.
    """
    layer = next((part for part in network.modules() if not [*part.children()] and [*part.parameters()]), None)
    if not isinstance(layer, nn.Linear):
        return ""
    numbers = x[0].numel()
    if layer.in_features != numbers:
        return f": its first layer takes {count(layer.in_features, 'number')}, an image has {numbers:,}"
    try:
        with evaluating(network), torch.no_grad():
            network(x.flatten(1))
    except Exception:  # somebody's code may raise anything
        return ""
    return f": it takes rows of {numbers:,} numbers; give nn.Sequential(nn.Flatten(), ...) with it inside"


@contextmanager
def _trying(model: Architecture, what: str, size: tuple[int, int, int]) -> Iterator[None]:
    """Whatever a user's code raises becomes one error about the network and the images."""
    try:
        yield
    except RequestError:
        raise
    except (Exception, SystemExit) as error:
        kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
        images = " x ".join(map(str, size))
        raise RequestError(f"{name_of(model)} {what} images of {images}: {kind}{error}") from error


def check_logits(name: str, logits: object, images: int, classes: int) -> None:
    """Whether this answer to some images is one that can be measured: one logit per class for each.

    Raises:
        RequestError: It is not; begins with the network's `name`.
    """
    if not isinstance(logits, Tensor):
        raise RequestError(not_logits(name, logits))
    if logits.shape != (images, classes) or not classes:
        who = "one image" if images == 1 else f"{images} images"
        raise RequestError(
            f"{name} answers with shape {tuple(logits.shape)} for {who}; "
            f"expected ({images}, {classes or 'classes'}): one logit per class"
        )
    if not logits.is_floating_point():
        raise RequestError(
            f"{name} answers with {str(logits.dtype).removeprefix('torch.')}; expected floats: one logit per class"
        )
    if classes == 1:
        raise RequestError(
            f"{name} answers with one number per image; expected one logit per class. For two classes and the logit z "
            "of the second, return torch.cat([torch.zeros_like(z), z], 1)"
        )
