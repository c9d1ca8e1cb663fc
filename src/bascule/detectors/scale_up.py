"""Whether the label stays when all pixel values are multiplied."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, MinLen
from torch import Tensor, nn

from bascule.core.ahead import read_batches
from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.core.inference import chunks, labels_of
from bascule.detectors._kept import firmness
from bascule.detectors.contract import Detector, Prepared

_CHUNK = 500


@component
class ScaleUp(Detector):
    """SCALE-UP (Guo et al. 2023): a triggered image keeps its label when its pixel values are multiplied.

    Scaled prediction consistency (SPC) of an image: the share of `scales` n for which the model gives n times the
    image, cut to [0, 1], the label of the image itself. Suspicion with `by_class` (their data-limited setting): (SPC -
    mean) / deviation, of the SPC of the defender's images that are given the same label; a few deviations either way.
    Without (data-free): SPC itself, between 0 and 1. SPC takes only one value more than there are scales, so where the
    model is sure of many multiplied clean images, no threshold refuses the triggered ones without refusing those too.
    Images of bright strokes on black (MNIST) lose little to multiplication, and keep their labels triggered or not. By
    class, nothing is found where images that multiplication has whitened get the target's label, as its clean images
    keep it.

    Defaults: the five scales of the paper and of BackdoorBox. (The authors' own script takes 1 to 11, the 1 included.)

    Departures: a label that fewer than two of the defender's images have takes the mean and deviation of all of them,
    one whose images have the same SPC the deviation of all, and where all agree it is 1. BackdoorBox takes one mean and
    deviation for all classes, which changes no ranking, and counts clean images by their true labels.
    """

    scales: Annotated[tuple[Annotated[float, Ge(1)], ...], MinLen(1)] = (3.0, 5.0, 7.0, 9.0, 11.0)
    """Factors of the pixel values; each costs a forward pass."""
    by_class: bool = True
    """Whether SPC counts by how far it lies from that of the defender's images with the same label."""

    def prepare(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Prepared:
        usual = self._usual(model, images) if self.by_class else None

        def suspicion(x: Tensor) -> Tensor:
            labels = labels_of(model(x))
            found = self._consistency(model, x, labels)
            return found if usual is None else (found - usual.mean[labels]) / usual.deviation[labels]

        def smooth(x: Tensor) -> Tensor:
            labels = labels_of(model(x).detach())
            kept = [firmness(model((x * scale).clamp(max=1)), labels) for scale in self.scales]
            return torch.stack(kept).mean(0)

        return Prepared(suspicion=suspicion, smooth=smooth)

    def _consistency(self, model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
        """SPC of images with these labels, shape (B,)."""
        kept = [labels_of(model((x * scale).clamp(max=1))) == labels for scale in self.scales]
        return torch.stack(kept).float().mean(0)

    @torch.no_grad()
    def _usual(self, model: nn.Module, images: Images) -> _Usual:
        labels, found = [], []
        for _, x in read_batches(images, chunks(len(images), _CHUNK, images.device)):
            labels.append(labels_of(model(x)))
            found.append(self._consistency(model, x, labels[-1]))
        return _usual(torch.cat(found), torch.cat(labels), len(images.classes))


class _Usual(NamedTuple):
    """Mean and deviation of the SPC of clean images by the label they are given, shape (K,) each."""

    mean: Tensor
    deviation: Tensor


def _deviation(found: Tensor, otherwise: Tensor) -> Tensor:
    own = found.std() if len(found) > 1 else found.new_zeros(())
    return own if own > 0 else otherwise


def _usual(found: Tensor, labels: Tensor, classes: int) -> _Usual:
    mean, deviation = found.mean().repeat(classes), _deviation(found, found.new_ones(())).repeat(classes)
    for label in labels.unique().tolist():
        own = found[labels == label]
        if len(own) > 1:
            mean[label], deviation[label] = own.mean(), _deviation(own, deviation[label])
    return _Usual(mean, deviation)
