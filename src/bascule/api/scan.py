"""Whether a model hides a backdoor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from bascule.api.given import drawing, images_for, part_of
from bascule.api.verb import verb
from bascule.core.given import Data, Labels
from bascule.scanners.contract import Scan, Scanner
from bascule.scanners.run import run_scanner


@verb
def scan(
    model: nn.Module,
    x: Data,
    y: Labels | None,
    scanner: str | Mapping[str, Any] | Scanner,
    *,
    seed: int = 0,
    **settings: Any,
) -> Scan:
    """Which classes of a model look like a backdoor's target: `bascule.scan(model, x, y, "neural-cleanse").suspects`.

    The same numbers as `bascule scan WEIGHTS` with these images and this seed.

    Args:
        model: From [0, 1] images to logits; normalisation is its first layer. Found as it was afterwards.
        x: Clean images of at least three classes, N x C x H x W with 1 or 3 channels, floats in [0, 1] or uint8
            (0 to 255); or a data set or loader, as `evaluate` takes it.
        y: Labels, whole numbers, shape (N,); None with a data set.
        scanner: A name (see `bascule ls scan`) with its settings as keywords; or a mapping as in a study file, or a
            scanner itself.
        seed: Of everything that is drawn.
        settings: Of the scanner: `bascule show scan/NAME`.

    Returns:
        The anomaly of each class, the suspects, and the triggers that were recovered, if any; on the model's device.

    Raises:
        RequestError: A wrong name, setting, shape, range or label, a model that does not answer with logits, or one
            that cannot be scanned.
    """
    method: Scanner = part_of("scan", scanner, settings, x)
    images = images_for(model, x, y, seed)
    return run_scanner(model, method, images, generator=drawing(seed, "scan", images))
