"""Fine-tuning on the trigger that a scanner recovered, with true labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn

from bascule.core.catalog import Of, component, name_of
from bascule.core.errors import RequestError, placed
from bascule.core.images import Images
from bascule.repairs.contract import FineTuning, Repaired
from bascule.scanners.contract import Scan, Scanner
from bascule.scanners.neural_cleanse import NeuralCleanse
from bascule.scanners.run import run_scanner
from bascule.training.settings import Augment


@component
class Unlearn(FineTuning):
    """Asks a scanner for the trigger, then teaches the model that stamped images keep their true labels.

    In every batch a share of the images carries the trigger recovered for a suspected class (drawn per image when there
    are several), stamped before augmentation and before any attack of the objective. Without a suspect the weights are
    returned as they are. Source: Wang et al. 2019 (Neural Cleanse), section VI-C, 20 % of the images stamped; Weng, Lee
    & Wu 2020 (table 3c): 10 epochs of SGD at 0.001 in batches of 100 of 10,000 images, for the known target, with plain
    cross-entropy even for adversarially trained models.

    Defaults: the training of `fine-tune`, as BackdoorBench has it; `share` of all three sources.
    """

    scanner: Annotated[Scanner, Of("scan")] = NeuralCleanse()
    """Recovers the triggers and names the suspected classes."""
    always: bool = False
    """Unlearn the most suspicious class when there is no suspect."""
    share: Annotated[float, Interval(gt=0, le=1)] = 0.2
    """Share of each batch that is stamped."""

    @property
    def follows_gradients(self) -> bool:
        return super().follows_gradients or self.scanner.follows_gradients

    def repair(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Repaired:
        if self.epochs == 0:
            return Repaired(model, {})
        with placed("scanner"):
            scan = run_scanner(model, self.scanner, images, generator=generator)
        classes = scan.suspects or ((most_suspicious(scan),) if self.always else ())
        notes = {"suspects": float(len(scan.suspects))}
        if not classes:
            return Repaired(model, notes)
        if scan.pattern is None or scan.mask is None:
            raise RequestError(
                f"{name_of(self.scanner)} recovers no trigger to unlearn; "
                "use one that does, for example neural-cleanse",
                place=("scanner",),
            )
        stamping = Stamping(
            pad=self.augment.pad, flip=self.augment.flip, stamp=scan.stamp, classes=classes, share=self.share
        )
        self.tune(model, images, generator=generator, augment=stamping)
        return Repaired(model, {**notes, "unlearnt": float(classes[0])})


def most_suspicious(scan: Scan) -> int:
    """The class with the largest anomaly, of those that were examined."""
    return int(scan.anomaly.nan_to_num(nan=-torch.inf).argmax())


@component
class Stamping(Augment):
    """Stamps the first images of each batch, whose order is random, then augments all."""

    stamp: Callable[[Tensor, Tensor], Tensor]
    """Images and the classes whose triggers they are to carry, shape (B,) -> stamped images."""
    classes: tuple[int, ...]
    """Classes to choose from, each image on its own."""
    share: float
    """Share of the batch that is stamped."""

    def apply(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        count = max(1, round(self.share * len(x)))
        choice = torch.randint(len(self.classes), (count,), generator=generator, device=x.device)
        targets = torch.tensor(self.classes, device=x.device)[choice]
        return super().apply(torch.cat([self.stamp(x[:count], targets), x[count:]]), generator=generator)
