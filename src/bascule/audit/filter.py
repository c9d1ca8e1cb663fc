"""Ranking the training images of a model by suspicion."""

from __future__ import annotations

import csv
import functools
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from bascule.audit.open import OpenedModel
from bascule.audit.sheet import write_contact_sheet
from bascule.core.files import write_atomically
from bascule.core.images import Images
from bascule.core.text import csv_field
from bascule.filter import Filter, Judged
from bascule.filter.run import run_filter

_SHOWN = 48
"""Pictures on the contact sheet."""


def filter_images(opened: OpenedModel, method: Filter, output: Path) -> tuple[Judged, list[Path]]:
    """Judge the training images, and write the ranking (CSV) and a contact sheet of the most suspicious (PNG).

    Returns:
        What the filter says of each image, and the files in the folder `output`.
    """
    judged = run_filter(opened.model, method, opened.train.to(opened.device), generator=opened.generator("filter"))
    order = judged.score.argsort(descending=True, stable=True)
    files = opened.source.names(opened.roots)
    ranking, sheet = output / "suspicion.csv", output / "suspicion.png"
    write_atomically(ranking, functools.partial(_write_ranking, opened.train, judged, order, files))
    write_contact_sheet(sheet, opened.train.batch(order[:_SHOWN]))
    return judged, [ranking, sheet]


def _write_ranking(images: Images, judged: Judged, order: Tensor, files: Sequence[str] | None, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", "id", "file", "label", "class", "suspicion", "removed"])
        for rank, place in enumerate(order.tolist(), start=1):
            number, label = int(images.ids[place]), int(images.labels[place])
            name = files[number] if files is not None else ""
            score, removed = f"{float(judged.score[place]):.6g}", int(judged.removed[place])
            line = [rank, number, csv_field(name), label, csv_field(images.classes[label]), score, removed]
            writer.writerow(line)
