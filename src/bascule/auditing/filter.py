"""Ranking the training images of a model by suspicion."""

from __future__ import annotations

from pathlib import Path

from bascule.auditing.open import OpenedModel
from bascule.auditing.ranking import write_ranking
from bascule.filters.contract import Filter, Judged
from bascule.filters.run import run_filter


def filter_images(opened: OpenedModel, method: Filter, output: Path) -> tuple[Judged, list[Path]]:
    """Judge the training images, and write the ranking (CSV) and a contact sheet of the most suspicious (PNG).

    Returns:
        What the filter says of each image, and the files in the folder `output`.
    """
    judged = run_filter(opened.model, method, opened.train.to(opened.device), generator=opened.generator("filter"))
    order = judged.score.argsort(descending=True, stable=True).cpu().numpy()
    columns = {
        "suspicion": [f"{score:.6g}" for score in judged.score.tolist()],
        "removed": [str(int(removed)) for removed in judged.removed.tolist()],
    }
    return judged, write_ranking(output, opened.train, order, columns, files=opened.source.names(opened.roots))
