"""Running a test-time detector: what is guaranteed whatever it does."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bascule.core.catalog import name_of
from bascule.core.errors import RequestError
from bascule.core.gradients import check_differentiable
from bascule.core.images import Images
from bascule.core.inference import chunks
from bascule.core.restore import untouched
from bascule.core.text import count
from bascule.detectors.contract import Detector, Suspicion

_CHUNK = 500


@dataclass(frozen=True, kw_only=True, eq=False)
class Guard:
    """A prepared detector beside its model, with what it says of clean images that it was not prepared on."""

    model: nn.Module
    detector: Detector
    calm: Tensor
    """Suspicion of the defender's other clean images, rising; float32, shape (M,)."""
    judge: Suspicion
    smooth: Suspicion
    """What an attacker who knows the detector lowers."""

    def suspicion(self, x: Tensor) -> Tensor:
        """How suspicious each image is, float32, shape (B,), without gradients.

        Raises:
            ValueError: The detector breaks its contract: shape, or a value that is not finite.
        """
        with untouched(self.model), torch.no_grad():
            parts = [self.judge(x[index]) for index in chunks(len(x), _CHUNK, x.device)]
        return self.checked(torch.cat(parts) if parts else x.new_zeros(0), len(x))

    def checked(self, found: Tensor, wanted: int) -> Tensor:
        """What the detector said of `wanted` images, float32, without gradients.

        Raises:
            ValueError: As `suspicion`.
        """
        return _checked(found.detach().to(torch.float32), wanted, self.detector)

    def threshold(self, false_alarms: float) -> float:
        """The suspicion above which an image is refused, so that at most this share of clean ones is.

        Of M clean images the one of rank ceil((M + 1) (1 - share)): then a further clean image lies above it with at
        most that probability, over the draw of all of them (Vovk et al. 2005, conformal prediction). Infinite where M
        is too small for the share: nothing is refused. Minus infinite for a share of 1: everything is.
        """
        rank = math.ceil((len(self.calm) + 1) * (1 - false_alarms) - 1e-9)
        if rank < 1:
            return -math.inf
        return float(self.calm[rank - 1]) if rank <= len(self.calm) else math.inf


def prepare_detector(model: nn.Module, detector: Detector, images: Images, *, generator: torch.Generator) -> Guard:
    """Prepare `detector` on one half of the defender's images; the other half tells what it says of clean ones.

    The halves are drawn. The model is in eval mode with frozen parameters, then and whenever the guard is asked, and is
    found as it was.

    Args:
        model: From [0, 1] images to logits.
        detector: The method.
        images: The defender's clean images with their true labels, on the model's device.
        generator: On the device of the images.

    Raises:
        RequestError: Too few images, a model without the gradients that the detector follows, or what it refuses.
        ValueError: The detector breaks its contract.
    """
    half = len(images) // 2
    if half < max(1, detector.least_images):
        least = 2 * max(1, detector.least_images)
        raise RequestError(
            f"{name_of(detector)} needs at least {least} clean images of the defender, half of them for its "
            f"thresholds; there are {count(len(images), 'image')}. Hold out more (`data.held_out`)"
        )
    order = torch.randperm(len(images), generator=generator, device=images.device)
    known, others = images.at(order[:half].sort().values), images.at(order[half:].sort().values)
    if detector.follows_gradients:
        few = images.batch(torch.arange(min(8, len(images)), device=images.device))
        check_differentiable(model, few, who=name_of(detector))
    with untouched(model):
        prepared = detector.prepare(model, known, generator=generator)
    guard = Guard(
        model=model,
        detector=detector,
        calm=torch.empty(0),
        judge=prepared.suspicion,
        smooth=prepared.smooth or prepared.suspicion,
    )
    calm = torch.cat([guard.suspicion(others.batch(part)) for part in chunks(len(others), _CHUNK, images.device)])
    return replace(guard, calm=calm.sort().values)


def images_needed(detector: Detector, false_alarms: float) -> int:
    """The fewest of the defender's images with which the detector can be prepared and its threshold for this share of
    false alarms is finite (`Guard.threshold`)."""
    others = math.ceil(1 / false_alarms - 1e-9) - 1  # rank ceil((M + 1) (1 - share)) <= M
    return 2 * max(1, detector.least_images, others)


def _checked(found: Tensor, wanted: int, detector: Detector) -> Tensor:
    if found.shape != (wanted,):
        raise ValueError(f"{detector!r} gave suspicions of shape {tuple(found.shape)} for {count(wanted, 'image')}")
    broken = int((~found.isfinite()).sum())
    if broken:
        raise ValueError(f"{detector!r} gave {count(broken, 'suspicion')} not finite")
    return found
