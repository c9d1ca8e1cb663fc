"""Running a test-time detector: what is guaranteed whatever it does."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from bascule.core.ahead import read_batches
from bascule.core.catalog import name_of
from bascule.core.errors import RequestError
from bascule.core.gradients import check_differentiable
from bascule.core.images import Images
from bascule.core.inference import chunks
from bascule.core.restore import untouched
from bascule.core.returned import returned
from bascule.core.text import count
from bascule.detectors.contract import CHUNK, Detector, Guard, Prepared


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
        found = detector.prepare(model, known, generator=generator)
    prepared = returned(found, Prepared, who=detector, method="prepare")
    guard = Guard(
        model=model,
        detector=detector,
        calm=torch.empty(0),
        judge=prepared.suspicion,
        smooth=prepared.smooth or prepared.suspicion,
    )
    parts = chunks(len(others), CHUNK, images.device)
    calm = torch.cat([guard.suspicion(x) for _, x in read_batches(others, parts)])
    return replace(guard, calm=calm.sort().values)


def images_needed(detector: Detector, false_alarms: float) -> int:
    """The fewest of the defender's images with which the detector can be prepared and its threshold for this share of
    false alarms is finite (`Guard.threshold`)."""
    others = math.ceil(1 / false_alarms - 1e-9) - 1  # rank ceil((M + 1) (1 - share)) <= M
    return 2 * max(1, detector.least_images, others)
