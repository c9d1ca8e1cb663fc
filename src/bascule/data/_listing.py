"""The pictures of a folder `split/class/picture`, and what else lies there: nothing is left out without a word."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bascule.core.errors import RequestError
from bascule.data._files import contents_of, reading
from bascule.data.decode import ENDINGS

TESTS = ("test", "val", "validation")
"""Names of the folder of test pictures; the first there is counts."""

_SUB_FOLDER = "pictures in sub-folders of classes"
_LINK = "links that lead nowhere"
_HIDDEN = "hidden files or folders"
_OTHER = "files that are no pictures"
_BESIDE = "files beside the folders of classes"


@dataclass(frozen=True, kw_only=True)
class Split:
    """The picture files of one split."""

    folder: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]
    """Paths below the folder, `class/name`, sorted by class, then name."""
    sizes: tuple[int, ...]
    """Bytes of each file."""
    labels: Tensor
    """int64, shape (N,)."""


def find_splits(folder: Path) -> tuple[Split, Split]:
    """Training and test files of the image folder. What is left out is named in a warning.

    Raises:
        RequestError: A split is missing, a class has no pictures, or the two splits have different classes.
    """
    tests = [name for name in TESTS if (folder / name).is_dir()]
    if not (folder / "train").is_dir() or not tests:
        raise RequestError(
            f"{folder}: needs a folder train and a folder {', '.join(TESTS[:-1])} or {TESTS[-1]}, "
            f"each with one sub-folder of pictures per class; {contents_of(folder)}"
        )
    train, test = _split(folder / "train"), _split(folder / tests[0])
    for split, other in ((train, test), (test, train)):
        missing = [name for name in other.classes if name not in split.classes]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise RequestError(
                f"{split.folder}: no sub-folder for {', '.join(missing[:5])}{more}, which {other.folder.name} has; "
                "both need the same classes"
            )
    return train, test


def _split(folder: Path) -> Split:
    classes: list[str] = []
    pictures: list[tuple[str, int]] = []
    labels: list[int] = []
    left: dict[str, list[str]] = {}
    with reading(folder, "folder"):
        for kind, entry in _entries(folder):
            if kind != "folder":
                left.setdefault(kind if kind in (_LINK, _HIDDEN) else _BESIDE, []).append(entry.name)
                continue
            inside = _class_pictures(folder, entry.name, left)
            pictures += inside
            labels += [len(classes)] * len(inside)
            classes.append(entry.name)
    if not classes:
        raise RequestError(
            f"{folder}: no sub-folders; the pictures of each class belong in a folder of its name; "
            f"{contents_of(folder)}"
        )
    _warn(folder, left)
    return Split(
        folder=folder,
        classes=tuple(classes),
        files=tuple(file for file, _ in pictures),
        sizes=tuple(size for _, size in pictures),
        labels=torch.tensor(labels),
    )


def _class_pictures(folder: Path, name: str, left: dict[str, list[str]]) -> list[tuple[str, int]]:
    """Path below `folder` and bytes of each picture of a class; the rest is added to `left`, by kind."""
    pictures = []
    for kind, entry in _entries(folder / name):
        file = f"{name}/{entry.name}"
        if kind == "folder":
            left.setdefault(_SUB_FOLDER, []).extend(_pictures_below(folder, file))
        elif kind != "file":
            left.setdefault(kind, []).append(file)
        elif not _is_picture(file):
            left.setdefault(_OTHER, []).append(file)
        else:
            pictures.append((file, entry.stat().st_size))
    if not pictures:
        raise RequestError(
            f"{folder / name}: no pictures in this folder; known endings: {', '.join(sorted(ENDINGS))}; "
            f"{contents_of(folder / name)}"
        )
    return pictures


def _entries(folder: Path) -> Iterable[tuple[str, os.DirEntry[str]]]:
    """What lies in a folder, sorted by name, each with its kind: folder, file, or why it is left out."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            yield _kind(entry), entry


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.name.startswith("."):
        return _HIDDEN
    try:
        kind = "folder" if entry.is_dir() else "file" if entry.is_file() else _OTHER
    except OSError:  # a link that leads to itself
        return _LINK
    return _LINK if kind == _OTHER and entry.is_symlink() and not Path(entry.path).exists() else kind


def _is_picture(file: str) -> bool:
    return Path(file).suffix.lower() in ENDINGS


def _pictures_below(folder: Path, place: str) -> Iterable[str]:
    for here, _, files in os.walk(folder / place):
        yield from (str((Path(here) / file).relative_to(folder)) for file in sorted(files) if _is_picture(file))


def _warn(folder: Path, left: dict[str, list[str]]) -> None:
    """Say how many of each kind are left out, with the first."""
    parts = [f"{len(files):,} {kind}, e.g. {files[0]}" for kind, files in left.items() if files]
    if parts:
        problem = f"{folder}: left out are {'; '.join(parts)}"
        warnings.warn(problem, stacklevel=2)
