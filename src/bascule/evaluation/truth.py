"""What a filter said, joined with the truth that it was never told."""

from __future__ import annotations

import torch

from bascule.core.images import Images
from bascule.evaluation.subject import Answer
from bascule.filter import Judged
from bascule.poison.placement import Truth


def beside_truth(judged: Judged, images: Images, truth: Truth | None) -> Answer:
    """What a filter said of a training set, image by image, beside the truth; and what its rule could not do."""
    return Answer(
        arrays={
            "id": images.ids,
            "label": images.labels,
            "score": judged.score,
            "removed": judged.removed,
            "poisoned": poisoned(images, truth),
        },
        notes={"removed": int(judged.removed.sum()), "notes": list(judged.notes)},
    )


def poisoned(images: Images, truth: Truth | None) -> torch.Tensor:
    """Which images are poisoned, shape (N,), on the CPU."""
    if truth is None:
        return torch.zeros(len(images), dtype=torch.bool)
    return torch.isin(images.ids.cpu(), truth.ids.cpu())
