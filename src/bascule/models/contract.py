"""Architectures. One file each: settings -> a network for images of a given size and number of classes.

Every network takes images in [0, 1] (normalisation is its first layer) and returns logits.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Gt, MinLen
from torch import nn

from bascule.core import catalog, rng
from bascule.core.errors import RequestError
from bascule.core.fingerprint import checked_digest, kept_of
from bascule.core.returned import returned
from bascule.models.weights import load_weights


@catalog.contract("models")
@catalog.component
class Architecture(ABC):
    """Settings of a network."""

    later: ClassVar[tuple[str, ...]] = ("weights", "weights_sha256")

    weights: str | None = None
    """A safetensors file, or one by `torch.save` with a state dict anywhere in it, to start from, or with `train: none`
    to measure; no code in it is run. In training the last linear layer starts fresh when the file's has another number
    of classes. `{seed}` in the name stands for the row's seed."""
    weights_sha256: str | None = None
    """Filled in from the file."""

    def __post_init__(self) -> None:
        if self.weights is not None:
            digest = checked_digest(self.weights, self.weights_sha256, what="file", place="weights")
            object.__setattr__(self, "weights_sha256", digest)

    @abstractmethod
    def build(self, size: tuple[int, int, int], classes: int) -> nn.Module:
        """A freshly initialised network from [0, 1] images, B x C x H x W of this size, to B x classes logits.

        The file of weights is not its business, but `initialised`'s.

        Raises:
            RequestError: The network cannot take images of this size.
        """

    @property
    def fresh(self) -> tuple[str, ...]:
        """Names of modules that may be missing in the file of weights and then keep their fresh ones."""
        return ()

    def initialised(self, size: tuple[int, int, int], classes: int, *, seed: int, complete: bool = False) -> nn.Module:
        """`build`, with weights drawn from the stream (seed, "init"), and then those of the file, if there is one.

        Args:
            size: Of the images: channels, height, width.
            classes: Number of classes.
            seed: Of what is drawn.
            complete: Whether the file is the whole model, one to be judged, so that nothing may start fresh.

        Raises:
            RequestError: The network cannot take such images, or the file of weights does not fit it.
        """
        with rng.borrowed_global_stream(seed, "init"):
            model = returned(self.build(size, classes), nn.Module, who=self, method="build")
            if any(nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
                with torch.no_grad():
                    model(torch.zeros(2, *size))  # gives lazy layers their shapes
        kept = None if self.weights is None else kept_of(self.weights)
        file = self.weights if kept is None else kept.copy
        if file is not None:  # of a model that was trained further the record has the end, not what it started from
            fresh = () if complete else self.fresh
            load_weights(model, str(file), fresh=fresh, other_classes=not complete)
        return model


@catalog.component
class Pretrainable(Architecture):
    """Settings of a network that often starts from a file of weights, and the normalisation these were trained with."""

    later: ClassVar[tuple[str, ...]] = ()

    mean: Annotated[tuple[float, ...], MinLen(1)] = (0.485, 0.456, 0.406)
    """Subtracted from images in [0, 1]: a value for each channel, or one for all. The default is ImageNet's."""
    std: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)] = (0.229, 0.224, 0.225)
    """Divides the difference: a value for each channel, or one for all. The default is ImageNet's."""


@catalog.component
class UserModel(Architecture):
    """A network of the user's own: `module:factory` or `path/to/file.py:factory`.

    The factory is called as `factory(size, classes, **settings)` with `size` = (channels, height, width), and returns
    an `nn.Module` from images in [0, 1] to logits. A setting `weights` is the file of weights as for other networks,
    unless the factory has an argument of this name.
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
    weights: dict[str, Any] = {}
    if not _takes(factory, "weights"):
        weights = {key: settings[key] for key in Architecture.later if key in settings}
        settings = {key: value for key, value in settings.items() if key not in weights}
    if settings.keys() == {"factory", "settings", "code"}:  # as `describe` writes it
        catalog.check_code(factory, name, settings["code"], what="the factory")
        code = settings["code"] if catalog.has_code(factory, name, settings["code"]) else code
        settings = settings["settings"]
    return UserModel(factory=name, settings=dict(settings), code=code, **weights)


def _takes(factory: Any, argument: str) -> bool:
    """Whether a function or class has an argument of this name."""
    try:
        return argument in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # one without a signature
        return False
