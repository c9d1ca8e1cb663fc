"""What the triggers look like, and how many training images carry them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bascule.core import tiles
from bascule.core.catalog import documentation
from bascule.core.errors import RequestError
from bascule.report.drawing.picture import WIDTH, Picture
from bascule.report.drawing.trigger import on_grey, pairs_on, read_sheet
from bascule.report.view import RowView, View
from bascule.report.words import component, count, joined, percent

TITLE = "Triggers"
PLACE = 60

_STAMPED = {"name": "stamped"}
"""The trigger of poison that brings its own test images."""
_WIDTH = 620
"""Most pixels that a sheet is wide: eight test images of CIFAR-10 and the grey one, at twice their size."""


@dataclass
class Entry:
    """Rows that share a trigger and its picture."""

    picture: Picture | None
    on_grey: bool
    """Whether a grey image stands last in the picture."""
    trigger: str
    summary: str
    poisons: dict[str, list[RowView]] = field(default_factory=dict)
    """Who is stamped, in words, with the rows it holds for."""


def context(view: View) -> Mapping[str, Any] | None:
    """One entry per picture and trigger; nothing when no row is poisoned."""
    entries: dict[tuple[str, str, str], Entry] = {}
    # Rows without a picture come last, to join the entry of a row with the same trigger and data.
    for row, poison, data in sorted(_poisoned(view), key=lambda part: not part[2]):
        words = _trigger(poison)
        place = (row.result.data, words, hashlib.sha256(data).hexdigest())
        if not data:
            place = next((known for known in entries if known[:2] == place[:2]), place)
        if place not in entries:
            summary = _summary(poison.get("test_trigger") or poison["trigger"] or _STAMPED)
            picture, grey = _picture(data, row, number=len(entries))
            entries[place] = Entry(picture, grey, words, summary)
        entries[place].poisons.setdefault(_poison(row, poison), []).append(row)
    if not entries:
        return None
    return {"entries": list(entries.values()), "unpoisoned": [row for row in view.rows if row.poison is None]}


def _poisoned(view: View) -> Iterator[tuple[RowView, dict[str, Any], bytes]]:
    """Rows with their poison and the picture of their first seed (all seeds show the same), or nothing yet."""
    for row in view.rows:
        if row.poison is not None:
            yield row, row.poison, row.cells[0].record.picture() or b""


def _picture(data: bytes, row: RowView, *, number: int) -> tuple[Picture | None, bool]:
    """None for a file that is no picture; and whether a grey image stands last, as photographs hide some triggers."""
    file = read_sheet(data)
    if file is None:
        return None, False
    sheet = file.convert("RGBA")
    label = "A row of test images as they are, and below them the same images with the trigger"
    info, pairs = row.cells[0].info, None
    if "data" in info:
        channels, height, width = info["data"]["size"]
        cells = tiles.cut(sheet, width=width, height=height)
        pairs = pairs_on(file, (channels, height, width)) if channels == 3 else None
        if pairs is not None:
            for line, pixels in zip(cells, (np.full_like(pairs.clean[0], tiles.GREY), on_grey(pairs)), strict=False):
                line.append(tiles.full_size(pixels.astype(np.uint8)))
            label += "; last a grey image"
        sheet = tiles.sheet(cells)
    return Picture(sheet, f"trigger-{number}", label, most=_WIDTH if pairs is not None else WIDTH), pairs is not None


def _trigger(poison: Mapping[str, Any]) -> str:
    if poison.get("name") == "given":
        return component(poison["trigger"]) if poison["trigger"] else f"stamped test images of {poison['path']}"
    planted, tested = component(poison["trigger"]), poison["test_trigger"]
    return planted if tested is None else f"{planted}; on test images {component(tested)}"


def _summary(trigger: Mapping[str, Any]) -> str:
    """What the trigger is, from its own documentation; empty for one that is not in the catalogue any more."""
    try:
        return documentation("poison", str(trigger["name"])).summary
    except RequestError:
        return ""


def _poison(row: RowView, poison: Mapping[str, Any]) -> str:
    """`planted in 72 of 1,437 training images (5.0 %), ...`; what is planned before a model of the row is trained."""
    info = next((cell.info for cell in row.cells if "poisoned" in cell.info), None)
    target = "" if poison["target"] is None else row.class_name(poison["target"])
    if poison.get("name") == "given":
        return _given(poison, info, target)
    who = _who(row, poison, target)
    aim = f"the target is class {target}" if target else "every class aims at the next one"
    if info is None:
        whole = "the training set" if poison["rate_of"] == "all" else "the target class's size"
        return f"to be planted in {percent(poison['rate'])} of {whole}, {who}"
    poisoned, total = int(info["poisoned"]), int(info["data"]["train"])
    if not poisoned:
        return f"planted in none of the {count(total, 'training image')}: a control; {aim}"
    planted = "said to be planted" if row.result.settings.get("train", ...) is None else "planted"
    covers = int(info.get("covers", 0))
    beside = f"; {count(covers, 'further image')} with the trigger kept {'its' if covers == 1 else 'their'} label"
    share = f"{poisoned:,} of {count(total, 'training image')} ({percent(poisoned / total, 1)})"
    several = (
        f" by {poison['of']} poisons at once; of the one measured {who}" if poison.get("of", 1) > 1 else f", {who}"
    )
    return f"{planted} in {share}{several}{beside if covers else ''}"


def _who(row: RowView, poison: Mapping[str, Any], target: str) -> str:
    """Which images are poisoned, and what becomes of their labels."""
    if poison["label"] == "clean":
        return f"all of class {target} and still labelled so (clean-label)"
    if poison["label"] == "all-to-all":
        return "of all classes, each relabelled as the next class (all-to-all)"
    if poison.get("sources"):
        sources = joined([row.class_name(source) for source in poison["sources"]])
        return f"all of class {sources} and relabelled as class {target} (source-specific)"
    return f"all of other classes and relabelled as class {target} (dirty-label)"


def _given(poison: Mapping[str, Any], info: Mapping[str, Any] | None, target: str) -> str:
    """Poison that was planted elsewhere."""
    where = f"given in {poison['path']}" if poison["path"] else "given with the data"
    if info is None:
        return f"{where}; the target is class {target}"
    if info["poisoned"] is None:
        return f"{where}; which training images are poisoned is not known; the target is class {target}"
    poisoned, total = int(info["poisoned"]), int(info["data"]["train"])
    share = f"{poisoned:,} of {count(total, 'training image')} ({percent(poisoned / total, 1)})"
    return f"{where}: {share} poisoned; the target is class {target}"
