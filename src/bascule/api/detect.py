"""Which inputs of a model are suspicious."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from bascule.api.given import drawing, images_for, part_of
from bascule.api.verb import verb
from bascule.core.given import Data, Labels
from bascule.detectors.contract import Detector, Guard
from bascule.detectors.run import prepare_detector


@verb
def detect(
    model: nn.Module,
    x: Data,
    y: Labels | None,
    detector: str | Mapping[str, Any] | Detector,
    *,
    seed: int = 0,
    **settings: Any,
) -> Guard:
    """A guard beside a model: `guard = bascule.detect(model, x, y, "strip")`, then `guard(inputs).refused(0.05)`.

    The detector is prepared on one half of the images, which is drawn; the other half sets its thresholds. A guard uses
    the model itself, in eval mode and frozen whenever it is asked, and leaves it as it was.

    Args:
        model: From [0, 1] images to logits; normalisation is its first layer. Found as it was afterwards.
        x: Clean images of the defender, N x C x H x W with 1 or 3 channels, floats in [0, 1] or uint8
            (0 to 255); or a data set or loader, as `evaluate` takes it.
        y: Labels, whole numbers, shape (N,); None with a data set.
        detector: A name (see `bascule ls detect`) with its settings as keywords; or a mapping as in a study file, or a
            detector itself.
        seed: Of everything that is drawn.
        settings: Of the detector: `bascule show detect/NAME`.

    Returns:
        What says of any further images how suspicious they are, and which are refused at a share of false alarms.

    Raises:
        RequestError: A wrong name, setting, shape, range or label, a model that does not answer with logits, too few
            images, or what the detector refuses.
    """
    method: Detector = part_of("detect", detector, settings, x)
    images = images_for(model, x, y, seed)
    return prepare_detector(model, method, images, generator=drawing(seed, "detector", images))
