"""The worst case over several attacks, each of which met only the images that withstood the ones before it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bascule.metrics.contract import MISSING, Labels


def survivors(label: Labels, before: Labels, adversarial: Sequence[Labels]) -> NDArray[np.bool_]:
    """Whether each image is right before the attacks and under every one that it met."""
    right = before == label
    for prediction in adversarial:
        right &= (prediction == label) | (prediction == MISSING)
    return right


def worst(before: Labels, adversarial: Sequence[Labels]) -> Labels:
    """Each image's last known prediction: where it ended, for an image that was moved."""
    last = before
    for prediction in adversarial:
        last = np.where(prediction == MISSING, last, prediction)
    return last
