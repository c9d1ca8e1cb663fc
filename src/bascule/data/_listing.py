"""The pictures of a folder `split/class/picture` or `class/picture`, and what else lies there.

Nothing is left out without a word.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from bascule.core import rng
from bascule.core.errors import RequestError
from bascule.core.text import count
from bascule.data._files import contents_of, reading
from bascule.data.decode import ENDINGS

TRAINS = ("train", "training")
"""Names of the folder of training pictures, in any case of letters; the first there is counts."""
TESTS = ("test", "val", "validation", "valid", "testing")
"""Names of the folder of test pictures."""
TEST_SHARE = 0.2
"""Of each class, where no folder says which pictures are for tests."""

_DEEPEST = 4
"""Most folders that are looked into, each the only one in the last."""
_SUB_FOLDER = "pictures in sub-folders of classes"
_LINK = "links that lead nowhere"
_HIDDEN = "hidden files or folders"
_OTHER = "files that are no pictures"
_BESIDE = "files beside the folders of classes"
_ONE = {
    _SUB_FOLDER: "picture in a sub-folder of a class",
    _LINK: "link that leads nowhere",
    _HIDDEN: "hidden file or folder",
    _OTHER: "file that is no picture",
    _BESIDE: "file beside the folders of classes",
}
"""A single one of each kind, in words."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """The picture files of one split."""

    name: str
    """Its folder's, or `train` and `test` where both are drawn from one folder."""
    folder: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]
    """Paths below the folder, `class/name`, sorted by class, then name."""
    sizes: tuple[int, ...]
    """Bytes of each file."""
    labels: Tensor
    """int64, shape (N,)."""


def find_splits(folder: Path) -> tuple[Split, Split]:
    """Training and test files of the image folder. What is left out, and a split that is drawn, is said in a warning.

    Looked for are `train` and `test` or one of their other names; folders of classes without a split, of which each
    class gives `TEST_SHARE` to the test set, the same on every call; then the same inside of the only folder there is.

    Raises:
        RequestError: A split is missing, a class has no pictures, or the two splits have different classes.
    """
    place = folder
    for _ in range(_DEEPEST):
        inside = _folders(place)
        parts = _named(inside, TRAINS), _named(inside, TESTS)
        if parts[0] and parts[1]:
            return _agreeing(_split(place / parts[0]), _split(place / parts[1]))
        if any(parts):
            break
        if len(inside) > 1 and any(_has_pictures(place / name) for name in inside):
            return _drawn(_split(place))
        if len(inside) != 1:
            break
        place /= inside[0]
    raise RequestError(
        f"{folder}: needs a folder {TRAINS[0]} and a folder {', '.join(TESTS[:2])} or {TESTS[2]}, each with one "
        f"sub-folder of pictures per class, or only the folders of classes; {contents_of(folder)}"
    )


def _folders(place: Path) -> list[str]:
    """Names of the folders in a folder, without what archives and systems leave there."""
    if not place.is_dir():
        return []
    with reading(place, "folder"):
        return [entry.name for kind, entry in _entries(place) if kind == "folder" and entry.name != "__MACOSX"]


def _named(folders: Sequence[str], names: Sequence[str]) -> str:
    """The folder with the first of the names, as it is written rather than in another case; "" where there is none."""
    written = [name for name in names if name in folders]
    return next(iter((*written, *(one for name in names for one in folders if one.lower() == name))), "")


def _has_pictures(folder: Path) -> bool:
    with reading(folder, "folder"):
        return any(kind == "file" and _is_picture(entry.name) for kind, entry in _entries(folder))


def _drawn(whole: Split) -> tuple[Split, Split]:
    """Training and test set out of one folder of classes; each class is drawn by itself, by its name and size."""
    test = torch.zeros(len(whole.files), dtype=torch.bool)
    for label, name in enumerate(whole.classes):
        places = (whole.labels == label).nonzero().flatten()
        if len(places) < 2:
            raise RequestError(
                f"{whole.folder / name}: only one picture, and no folder says which pictures are for tests; "
                "two of each class are needed"
            )
        order = torch.randperm(len(places), generator=rng.stream(0, "test-share", name, len(places)))
        test[places[order[: max(1, round(TEST_SHARE * len(places)))]]] = True
    problem = (
        f"{whole.folder}: no folders {TRAINS[0]} and {TESTS[0]}, so that {100 * TEST_SHARE:.0f} % of each class, "
        f"drawn by a fixed seed, are the test set ({int(test.sum()):,} of {len(test):,} pictures)"
    )
    warnings.warn(problem, stacklevel=2)
    return _some(whole, "train", ~test), _some(whole, "test", test)


def _some(whole: Split, name: str, chosen: Tensor) -> Split:
    places = chosen.nonzero().flatten().tolist()
    return replace(
        whole,
        name=name,
        files=tuple(whole.files[place] for place in places),
        sizes=tuple(whole.sizes[place] for place in places),
        labels=whole.labels[chosen],
    )


def _agreeing(train: Split, test: Split) -> tuple[Split, Split]:
    """Both, which must have the same classes."""
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
        name=folder.name,
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
    parts = [f"{count(len(files), _ONE[kind], kind)}, e.g. {files[0]}" for kind, files in left.items() if files]
    if parts:
        verb = "is" if sum(map(len, left.values())) == 1 else "are"
        problem = f"{folder}: left out {verb} {'; '.join(parts)}"
        warnings.warn(problem, stacklevel=2)
