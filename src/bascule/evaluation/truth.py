"""What a filter said, joined with the truth that it was never told."""

from __future__ import annotations

import torch

from bascule.core.images import Images
from bascule.evaluation.subject import Answer
from bascule.filters.contract import Judged
from bascule.triggers.placement import Truth


def beside_truth(judged: Judged, images: Images, truth: Truth | None) -> Answer:
    """What a filter said of a training set, image by image, beside the truth; and what its rule could not do."""
    return Answer(
        arrays={
            "id": images.ids,
            "label": images.labels,
            "score": judged.score,
            "removed": judged.removed,
            **poisoned(images, truth),
        },
        notes={
            "removed": int(judged.removed.sum()),
            "notes": list(judged.notes),
            **({} if truth is None or truth.known else {"truth": None}),
            **_of_covers(judged, images, truth),
        },
    )


def _of_covers(judged: Judged, images: Images, truth: Truth | None) -> dict[str, int]:
    """How many covers there are and how many are removed; they count among the clean images. Nothing without any."""
    if truth is None or len(truth.covers) == 0:
        return {}
    cover = torch.isin(images.ids.cpu(), truth.covers.cpu())
    return {"covers": int(cover.sum()), "removed_covers": int((cover & judged.removed.cpu()).sum())}


def poisoned(images: Images, truth: Truth | None) -> dict[str, torch.Tensor]:
    """Under `poisoned`, which images are, shape (N,), on the CPU; nothing where nobody knows."""
    if truth is None:
        return {"poisoned": torch.zeros(len(images), dtype=torch.bool)}
    return {"poisoned": torch.isin(images.ids.cpu(), truth.ids.cpu())} if truth.known else {}
