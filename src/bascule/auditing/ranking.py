"""The training images of an audit, ranked by what several filters say of them together."""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from bascule.auditing.sheet import write_contact_sheet
from bascule.core.files import write_atomically
from bascule.core.images import Images
from bascule.core.text import csv_field
from bascule.data.contract import Source
from bascule.record.answers import Finding
from bascule.record.run import RunRecord

_SHOWN = 48
"""Pictures on the contact sheet."""


def rank_images(record: RunRecord, source: Source, roots: Sequence[Path]) -> list[Path]:
    """Write the ranking (CSV) and a contact sheet of the most suspicious images (PNG) into the run folder.

    An image's suspicion is the mean, over the filters, of the share of images that each ranks below it.

    Returns:
        The files; none where no filter has answered.

    Raises:
        RequestError: The data cannot be read any more.
    """
    judged = {name: finding.arrays for name, finding in _findings(record).items() if "score" in finding.arrays}
    if not judged:
        return []
    train, first = source.load_train(roots), next(iter(judged.values()))["id"]
    suspicion = together([arrays["score"] for arrays in judged.values()])
    columns = {"suspicion": [f"{value:.4f}" for value in suspicion]}
    for name, arrays in judged.items():
        columns[f"{name} score"] = [f"{float(score):.6g}" for score in arrays["score"]]
        columns[f"{name} removed"] = [str(int(removed)) for removed in arrays["removed"]]
    images = train.at(_places(train, first))
    order = np.argsort(-suspicion, kind="stable")
    return write_ranking(record.path, images, order, columns, files=source.names(roots))


def write_ranking(
    folder: Path,
    images: Images,
    order: NDArray[np.intp],
    columns: Mapping[str, Sequence[str]],
    *,
    files: Sequence[str] | None,
) -> list[Path]:
    """Write images by suspicion (`suspicion.csv`) and a contact sheet of the first (`suspicion.png`); both paths.

    Args:
        folder: Where.
        images: Those that were judged.
        order: Their positions, most suspicious first.
        columns: What is said of each, by name, in the order of `images`.
        files: Of the training images, by id; None where they have none.
    """
    ranking, sheet = folder / "suspicion.csv", folder / "suspicion.png"
    write_atomically(ranking, functools.partial(_write, images, order, columns, files))
    write_contact_sheet(sheet, images.batch(torch.from_numpy(order[:_SHOWN])))
    return [ranking, sheet]


def together(scores: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """The mean over filters of each image's rank, from 0 for the least suspicious to 1; equal scores share theirs."""
    count = max(1, len(scores[0]) - 1)
    ranks: NDArray[np.float64] = np.mean([(stats.rankdata(score) - 1) / count for score in scores], axis=0)
    return ranks


def _findings(record: RunRecord) -> dict[str, Finding]:
    """What each filter said of the training set of the first seed's model."""
    found: dict[str, Finding] = {}
    for row in record.plan().rows:
        for seed in row.seeds[:1]:
            for question in seed.cell.of("inspect"):
                finding = record.cell(seed.cell.fingerprint).finding(question.key)
                if finding is not None:
                    found[str((finding.info.get("settings") or {}).get("name", row.row))] = finding
    return found


def _places(images: Images, ids: NDArray[Any]) -> torch.Tensor:
    """Where the images with these ids stand."""
    order = images.ids.argsort()
    return order[torch.searchsorted(images.ids[order], torch.from_numpy(np.ascontiguousarray(ids)))]


def _write(
    images: Images,
    order: NDArray[np.intp],
    columns: Mapping[str, Sequence[str]],
    files: Sequence[str] | None,
    path: Path,
) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", "id", "file", "label", "class", *columns])
        for rank, place in enumerate(order.tolist(), start=1):
            number, label = int(images.ids[place]), int(images.labels[place])
            name = files[number] if files is not None else ""
            about = [rank, number, csv_field(name), label, csv_field(images.classes[label])]
            writer.writerow([*about, *(values[place] for values in columns.values())])
