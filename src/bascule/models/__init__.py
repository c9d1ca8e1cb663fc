"""Architectures. One file each: settings -> a network for images of a given size and number of classes.

Every network takes images in [0, 1] (normalisation is its first layer) and returns logits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import torch
from annotated_types import Gt, MinLen
from torch import nn

from bascule.core import catalog, rng
from bascule.core.errors import RequestError
from bascule.core.fingerprint import checked_digest
from bascule.models.weights import load_weights


@catalog.contract("models")
@catalog.component
class Architecture(ABC):
    """Settings of a network."""

    @abstractmethod
    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        """A freshly initialised network from [0, 1] images, B x C x H x W of this size, to B x classes logits.

        Raises:
            RequestError: The network cannot take images of this size.
        """

    def initialised(self, size: tuple[int, int, int], classes: int, *, seed: int) -> nn.Module:
        """`build`, with weights drawn from the stream (seed, "init")."""
        with rng.borrowed_global_stream(seed, "init"):
            model = self.build(size, classes)
            if any(nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
                with torch.no_grad():
                    model(torch.zeros(2, *size))  # gives lazy layers their shapes
            return model


@catalog.component
class Pretrainable(Architecture):
    """Settings of a network that may start from a file of weights, and the normalisation these were trained with."""

    mean: Annotated[tuple[float, ...], MinLen(1)] = (0.485, 0.456, 0.406)
    """Subtracted from images in [0, 1]: a value for each channel, or one for all. The default is ImageNet's."""
    std: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)] = (0.229, 0.224, 0.225)
    """Divides the difference: a value for each channel, or one for all. The default is ImageNet's."""
    weights: str | None = None
    """A safetensors file, or one by `torch.save` with a state dict anywhere in it, to start from; no code in it is run.
    The last linear layer starts fresh when the file's has another number of classes."""
    weights_sha256: str | None = None
    """Filled in from the file."""

    def __post_init__(self) -> None:
        if self.weights is not None:
            digest = checked_digest(self.weights, self.weights_sha256, what="file", place="weights")
            object.__setattr__(self, "weights_sha256", digest)

    def with_weights(self, net: nn.Module, *, fresh: Iterable[str] = ()) -> nn.Module:
        """`net`, started from the file of weights if there is one.

        Args:
            net: The network; its layers are named as in the file.
            fresh: Names of modules that may be missing in the file and then keep their fresh weights.

        Raises:
            RequestError: The file cannot be read, or names or shapes do not fit.
        """
        if self.weights is not None:
            load_weights(net, self.weights, fresh=fresh)
        return net


@catalog.component
class UserModel(Architecture):
    """A network of the user's own: `module:factory` or `path/to/file.py:factory`.

    The factory is called as `factory(size, classes, **settings)` with `size` = (channels, height, width), and returns
    an `nn.Module` from images in [0, 1] to logits.
    """

    factory: str
    settings: dict[str, Any]
    code: str
    """Identity of the factory's file and what it imports: when the code changes, models are trained anew."""

    @property
    def catalogue_name(self) -> str:
        """The name it was asked for by."""
        return self.factory

    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        factory = catalog.load("models", self.factory)
        try:
            model = factory(size, classes, **self.settings)
        except RequestError:
            raise
        except (Exception, SystemExit) as error:
            problem = f"{self.factory}({size}, {classes}, **{self.settings}) failed: {type(error).__name__}: {error}"
            raise RequestError(problem) from error
        if not isinstance(model, nn.Module):
            raise RequestError(f"{self.factory} returned {type(model).__name__}, not an nn.Module")
        return model


def adopt(name: str, settings: Mapping[str, Any]) -> Architecture:
    """The architecture behind a user's factory; called by the catalogue for names of the form `module:factory`.

    Raises:
        RequestError: The factory is no function or class written in Python, or `settings` is a description of a
            `UserModel` whose code has changed since.
    """
    factory = catalog.load("models", name)
    code = catalog.code_of(factory, name)
    if settings.keys() == {"factory", "settings", "code"}:  # as `describe` writes it
        catalog.check_code(factory, name, settings["code"], what="the factory")
        code = settings["code"] if catalog.has_code(factory, name, settings["code"]) else code
        settings = settings["settings"]
    return UserModel(factory=name, settings=dict(settings), code=code)
