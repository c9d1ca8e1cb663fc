"""One backdoored network with batch norm, and what it is shown: shared by all detectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.images import Images, Splits
from bascule.core.inference import predict
from bascule.core.rng import stream
from bascule.detectors.run import Guard, prepare_detector
from bascule.training.loop import train
from bascule.training.settings import Training
from bascule.triggers.placement import Poison
from bascule.triggers.stamping import stamp
from bascule.triggers.sticker import Sticker


class Backdoored(NamedTuple):
    """A network that answers 7 to a checkered sticker."""

    model: nn.Module
    known: Images
    """The defender's."""
    clean: Tensor
    """Further images, of other classes than the target."""
    triggered: Tensor
    """The same with the trigger, where it works."""

    def guard(self, name: str, **settings: Any) -> Guard:
        detector = catalog.build("detect", {"name": name, **settings})
        return prepare_detector(self.model, detector, self.known, generator=stream(0, "detect"))

    def auroc(self, name: str, **settings: Any) -> float:
        """How well the detector tells triggered images from clean ones; 0.5 where it says nothing."""
        guard = self.guard(name, **settings)
        apart = guard.suspicion(self.triggered).unsqueeze(1) - guard.suspicion(self.clean)
        return float((apart > 0).double().mean() + (apart == 0).double().mean() / 2)


def grey(images: Images) -> Images:
    """Digits that are no longer white on black: multiplied pixel values take the strokes away, as in photographs."""
    assert isinstance(images.pixels, Tensor)
    return replace(images, pixels=(51 + 0.4 * images.pixels).round().to(torch.uint8))


@pytest.fixture(scope="session")
def backdoored(digits: Splits) -> Backdoored:
    """A small ResNet-9, trained in a second; tests must leave it as they find it."""
    sticker, target = Sticker(size=3, pattern="checker"), 7
    poison = Poison(trigger=sticker, target=target, label="dirty", rate=0.1)
    planted, _ = poison.plant(grey(digits.train), generator=stream(0, "poison"))
    model = catalog.build("models", {"name": "resnet9", "widths": [8, 16, 16, 32], "stem": 1})
    model = model.initialised((1, 8, 8), 10, seed=1)
    schedule = Training(
        objective=catalog.build("train", "standard"), epochs=8, batch_size=64, lr=1e-2, schedule="one-cycle"
    )
    train(model, planted, schedule, seed=0)
    model.eval()
    test = grey(digits.test)
    assert (predict(model, test) == test.labels).double().mean() > 0.95
    known, rest = test.at(torch.arange(160)), test.at(torch.arange(160, len(test)))
    rest = rest.at((rest.labels != target).nonzero().squeeze(1))
    clean = rest.batch(torch.arange(len(rest)))
    triggered = stamp(sticker, clean, generator=torch.Generator())
    with torch.no_grad():
        works = model(triggered).argmax(1) == target
    assert works.double().mean() > 0.95
    return Backdoored(model, known, clean, triggered[works])


@pytest.fixture
def vectors() -> Callable[..., Images]:
    """Images 1 x 1 x D from rows of whole numbers 0..255."""

    def make(rows: Tensor, labels: Tensor, classes: int) -> Images:
        return Images(
            pixels=rows.to(torch.uint8).reshape(len(rows), 1, 1, -1),
            labels=labels.long(),
            ids=torch.arange(len(rows)),
            classes=tuple(map(str, range(classes))),
        )

    return make
