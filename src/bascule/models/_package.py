"""Architectures of other packages: found, built without weights, and normalised."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bascule.core.errors import RequestError, unknown
from bascule.core.restore import using_batch_statistics
from bascule.models.normalise import Normalise


def check_name(package: str, model: str, names: Collection[str]) -> None:
    """Refuse a model that the package does not list.

    Raises:
        RequestError: With the nearest name.
    """
    if model not in names:
        listing = f"{package} lists {len(names)} classification models."
        raise RequestError(unknown(f"{package} model", model, names, listing=listing), place=("model",))


def check_settings(settings: Mapping[str, Any], taken: Mapping[str, str]) -> None:
    """Refuse settings that are not the study's to give.

    Raises:
        RequestError: With what decides instead.
    """
    for key in settings.keys() & taken.keys():
        raise RequestError(f"{key!r} cannot be set here: {taken[key]}", place=("settings", key))


def build_net(
    make: Callable[[], Any], name: str, normalise: Normalise, size: tuple[int, int, int], classes: int
) -> Any:
    """The package's network behind its normalisation: parts `normalise` and `net`.

    Raises:
        RequestError: The package cannot build it, or it does not turn images of this size into logits.
    """
    try:
        net = nn.Sequential(OrderedDict(normalise=normalise, net=make()))
    except Exception as error:
        raise RequestError(f"{name} cannot be built: {type(error).__name__}: {error}") from error
    # In train mode, in which some networks answer with more than logits.
    with torch.no_grad(), using_batch_statistics(net):
        try:
            logits = net.forward(torch.zeros(2, *size))  # without the check on answers, whose message says less
        except Exception as error:
            shape = " x ".join(map(str, size))
            raise RequestError(f"{name} cannot take images of {shape}: {type(error).__name__}: {error}") from error
    if not isinstance(logits, Tensor):
        problem = f"{name} answers with {type(logits).__name__} while it trains, not with logits"
        raise RequestError(f"{problem}; a setting such as aux_logits: false may change that", place=("settings",))
    if logits.shape != (2, classes):
        raise RequestError(f"{name} answers two images with shape {tuple(logits.shape)}, expected (2, {classes})")
    return net
