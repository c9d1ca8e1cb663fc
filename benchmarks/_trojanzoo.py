"""Neural Cleanse as TrojanZoo (`trojanvision.defenses`, 2.0.3) has it, which shares nothing with this project.

What runs unchanged is its search for one class: `NeuralCleanse.optimize_mark` with its loss, its schedule and its early
stopping. The network, the images and the stamp are handed to it by the small objects below. The search needs nothing of
torchvision, which the package imports everywhere, so only the modules of the search are loaded, and what they import
for annotations is left empty.

Its departures from Wang et al. 2019, as read in its code: the first cost holds from the first step and moves after ten
epochs, so its default of ten epochs ends before any move counts; the step length falls to 0 as a cosine over all
epochs; images of the class itself take part; what it returns is the last epoch's mask, whatever its success, because
the best norm is never written down. Its scan of all classes also takes each class's last cost over to the next one;
here every class begins anew.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SEARCH = "trojanvision.defenses.backdoor.model_inspection"
_FOR_ANNOTATIONS = {
    "torchvision": (),
    "torchvision.models": (),
    "torchvision.models._api": ("WeightsEnum",),
    "torchvision.transforms": ("Normalize",),
    "trojanvision.datasets": ("ImageSet",),
    "trojanvision.models": ("ImageModel",),
    "trojanvision.attacks": (),
    "trojanvision.attacks.backdoor": ("BadNet",),
}
"""Modules that the search imports and does not use, with the names it takes from them."""


@dataclass
class Found:
    """What the search for one class gives."""

    mask: Tensor
    """1 x H x W, of the last epoch."""
    pattern: Tensor
    """C x H x W."""
    smallest: float
    """Norm of the smallest mask at the end of an epoch with the wanted success; infinite where there is none."""
    epochs: int
    """Epochs until it stopped."""


def installed() -> bool:
    return importlib.util.find_spec("trojanvision") is not None


def invert(model: nn.Module, x: Tensor, y: Tensor, target: int, *, epochs: int, batch: int = 32) -> Found:
    """TrojanZoo's smallest trigger to class `target`.

    Args:
        model: From [0, 1] images to logits, parameters frozen.
        x: The defender's images.
        y: Their labels.
        target: The class.
        epochs: At most; TrojanZoo's default is 10.
        batch: Images per step.
    """
    search = _search()
    mark = SimpleNamespace(mark=torch.zeros(x.shape[1] + 1, *x.shape[2:], device=x.device))
    mark.get_mask = lambda: mark.mark[-1]
    attack = SimpleNamespace(mark=mark, load=lambda **settings: None, add_mark=lambda x: _stamped(x, mark.mark))
    defence = search(
        attack=attack,
        dataset=SimpleNamespace(loader={"train": _Batches(x, y, batch)}),
        model=_Model(model),
        defense_remask_epoch=epochs,
    )
    smallest, number = float("inf"), 0
    decide = defence.check_early_stop

    def watched(*, acc: float, norm: float, **others: float) -> bool:
        nonlocal smallest, number
        number += 1
        if acc >= defence.nc_asr_threshold:
            smallest = min(smallest, norm)
        return bool(decide(acc=acc, norm=norm, **others))

    defence.check_early_stop = watched
    found, _ = defence.optimize_mark(target, verbose=False)
    return Found(found[-1:], found[:-1], smallest, number)


def _stamped(x: Tensor, mark: Tensor) -> Tensor:
    return x + mark[-1] * (mark[:-1] - x)


class _Model:
    """A network as the search asks for one."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits

    def get_data(self, data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return data

    def loss(self, x: Tensor, y: Tensor, *, _output: Tensor) -> Tensor:
        return F.cross_entropy(_output, y)


class _Batches:
    """All images once, in a new order each time; draws from torch's own generator, as the search does."""

    def __init__(self, x: Tensor, y: Tensor, size: int) -> None:
        self.x, self.y, self.size = x, y, size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.randperm(len(self.x)).to(self.x.device).split(self.size):
            yield self.x[index], self.y[index]


def _search() -> Any:
    name = f"{_SEARCH}.neural_cleanse"
    if name not in sys.modules:
        spec = importlib.util.find_spec("trojanvision")
        if spec is None or spec.origin is None:
            raise SystemExit("TrojanZoo is not installed: pip install --no-deps trojanzoo==2.0.3")
        for module, names in _FOR_ANNOTATIONS.items():
            _put(module, names)
        sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]  # type: ignore[attr-defined]
        # The packages above the search, without what their __init__ imports.
        parts = _SEARCH.split(".")
        for depth in range(1, len(parts) + 1):
            place = Path(spec.origin).parent.joinpath(*parts[1:depth])
            _put(".".join(parts[:depth])).__path__ = [str(place)]
    return importlib.import_module(name).NeuralCleanse


def _put(module: str, names: tuple[str, ...] = ()) -> ModuleType:
    found = ModuleType(module)
    for name in names:
        setattr(found, name, type(name, (), {}))
    sys.modules[module] = found
    return found
