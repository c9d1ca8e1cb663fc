"""The pictures of a folder `split/class/picture` or `class/picture`, and what else lies there.

Nothing is left out without a word.
"""

from __future__ import annotations

import os
import re
import warnings
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bascule.core.errors import RequestError
from bascule.core.text import count
from bascule.data._annotations import USUAL, find_list, number_of, read_list
from bascule.data._files import contents_of, reading
from bascule.data._remembered import Stated, as_states, state_of
from bascule.data._share import drawn_for_test
from bascule.data.decode import ENDINGS

TRAINS = ("train", "training")
"""Names of the folder of training pictures, in any case of letters; the first there is counts."""
TESTS = ("test", "val", "validation", "valid", "testing")
"""Names of the folder of test pictures."""

_BESIDE_NAMES = frozenset(("set", "data", "dataset", "image", "images", "pictures", "split", "final", "seg"))
"""Words that may stand beside these names: `training_set`, `images-test`, `Final_Test`."""
_DEEPEST = 4
"""Most folders that are looked into, each the only one in the last."""
_SUB_FOLDER = "pictures in sub-folders of classes"
_LINK = "links that lead nowhere"
_HIDDEN = "hidden files or folders"
_OTHER = "files that are no pictures"
_BESIDE = "files beside the folders of classes"
_UNLISTED = "pictures that the list of labels does not name"
_ONE = {
    _SUB_FOLDER: "picture in a sub-folder of a class",
    _LINK: "link that leads nowhere",
    _HIDDEN: "hidden file or folder",
    _OTHER: "file that is no picture",
    _BESIDE: "file beside the folders of classes",
    _UNLISTED: "picture that the list of labels does not name",
}
"""A single one of each kind, in words."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The picture files of one split."""

    name: str
    """Its folder's, or `train` and `test` where both are drawn from one folder."""
    folder: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]
    """Paths below the folder, `class/name`, sorted by class, then name."""
    states: NDArray[np.int64]
    """Of each file, its size and times of change, as `Stated` has them."""
    labels: Tensor
    """int64, shape (N,)."""
    listed: bool = False
    """Whether a list says the classes, which the paths do not."""

    @property
    def stated(self) -> Stated:
        """The files as they were when they were listed."""
        return Stated((str(self.folder.absolute()), *self.files), self.states)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each file."""
        return self.stated.sizes


@dataclass
class _Pictures:
    """Picture files as they are found."""

    files: list[str] = field(default_factory=list)
    states: array[int] = field(default_factory=lambda: array("q"))

    def add(self, file: str, entry: os.DirEntry[str]) -> None:
        self.files.append(file)
        self.states.extend(state_of(entry.stat()))

    def extend(self, others: _Pictures) -> None:
        self.files += others.files
        self.states += others.states


def find_splits(folder: Path, share: float) -> tuple[Split, Split | None]:
    """Training and test files of the image folder. What is left out, and a split that is drawn, is said in a warning.

    Looked for are `train` and `test` or one of their other names; `train` alone or folders of classes without a split,
    of which each class gives `share` to the test set, the same on every call (none where it is 0); then the same inside
    of the only folder there is.

    Raises:
        RequestError: A split is missing, a class has no pictures, or the two splits have different classes.
    """
    place = folder
    for _ in range(_DEEPEST):
        inside = _folders(place)
        trains, tests = named(inside, TRAINS), named(inside, TESTS)
        if trains and tests:
            train = _split(place / trains[0])
            return train, _test_split(train, [place / name for name in tests], folder)
        if trains and len(inside) == 1:
            return _drawn(_split(place / trains[0]), share)
        if trains or tests:
            break
        if len(inside) > 1 and any(_is_class(place / name) for name in inside):
            return _drawn(_split(place), share)
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


def named(folders: Sequence[str], names: Sequence[str]) -> list[str]:
    """The folders with one of the names: as it is written, then in another case, then with other words beside it."""
    written = [name for name in names if name in folders]
    other_case = [one for name in names for one in folders if one.lower() == name]
    beside = [one for name in names for one in folders if _bare(one) == name]
    return list(dict.fromkeys((*written, *other_case, *beside)))


def _bare(folder: str) -> str:
    words = re.split(r"[^a-z0-9]+", folder.lower())
    return " ".join(word.removesuffix("set") for word in words if word and word not in _BESIDE_NAMES)


def _is_class(folder: Path) -> bool:
    """Whether pictures lie in the folder, or in its only sub-folder that has any."""
    return _has_pictures(folder) or len(_with_pictures(folder)) == 1


def _with_pictures(folder: Path) -> list[str]:
    return [name for name in _folders(folder) if _has_pictures(folder / name)]


def _has_pictures(folder: Path) -> bool:
    with reading(folder, "folder"):
        return any(kind == "file" and _is_picture(entry.name) for kind, entry in _entries(folder))


def _drawn(whole: Split, share: float) -> tuple[Split, Split | None]:
    """Training and test set out of one folder of classes."""
    if not share:
        return replace(whole, name="train"), None
    test = drawn_for_test(whole.folder, whole.labels, whole.classes, share, "folder")
    return _some(whole, "train", ~test), _some(whole, "test", test)


def _some(whole: Split, name: str, chosen: Tensor) -> Split:
    places = chosen.nonzero().flatten().tolist()
    return replace(
        whole,
        name=name,
        files=tuple(whole.files[place] for place in places),
        states=whole.states[places],
        labels=whole.labels[chosen],
    )


def _test_split(train: Split, folders: Sequence[Path], whole: Path) -> Split:
    """The first of the folders whose pictures have labels: in folders of the same classes, or in a list."""
    for folder in folders:
        found = set(_folders(_class_folder(folder))) & set(train.classes)
        split = _split(folder) if found else _listed(train, folder, whole)
        if split is None:
            continue
        if skipped := folders[: folders.index(folder)]:
            names = " and ".join(one.name for one in skipped)
            problem = f"{folder.parent}: pictures without labels in {names} are left out; {folder.name} is the test set"
            warnings.warn(problem, stacklevel=2)
        return _agreeing(train, split)
    if not _folders(folders[0]) and _has_pictures(folders[0]):
        raise RequestError(
            f"{folders[0]}: no sub-folders; the pictures of each class belong in a folder of its name, or in a list: "
            f"{USUAL}; {contents_of(folders[0])}"
        )
    return _agreeing(train, _split(folders[0]))


def _listed(train: Split, folder: Path, whole: Path) -> Split | None:
    """The pictures of a folder without classes, labelled by a list there or above; None where there is none."""
    flat = folder if _has_pictures(folder) else None
    inside = [] if flat else _with_pictures(folder)
    flat = folder / inside[0] if len(inside) == 1 else flat
    if flat is None:
        return None
    above = [place for place in folder.parents if place == whole or whole in place.parents]
    path = find_list(folder.name, dict.fromkeys((flat, folder)), above, whole.parent)
    if path is None:
        return None
    listed, numbers = read_list(path), {name: number for number, name in enumerate(train.classes)}
    left: dict[str, list[str]] = {}
    with reading(flat, "folder"):
        inner = "" if flat == folder else flat.name
        pictures, _ = _pictures_in(folder, inner, left)
    named = {Path(file).name: place for place, file in enumerate(pictures.files)}
    if missing := sorted(listed.keys() - named.keys()):
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise RequestError(f"{path}: names {', '.join(missing[:3])}{more}, not in {flat}; unpack all of the set")
    left[_UNLISTED] = sorted(named.keys() - listed.keys())
    left.pop(_OTHER, None)  # the list itself among them
    _warn(folder, left)
    known = ((number_of(path, name, numbers), named[file]) for file, name in listed.items())
    labelled = sorted((number, pictures.files[place], place) for number, place in known)
    return Split(
        name=folder.name,
        folder=folder,
        classes=train.classes,
        files=tuple(file for _, file, _ in labelled),
        states=as_states(pictures.states)[[place for _, _, place in labelled]],
        labels=torch.tensor([number for number, _, _ in labelled]),
        listed=True,
    )


def _agreeing(train: Split, test: Split) -> Split:
    """The test split, which must have the classes of the training split."""
    for split, other in ((train, test), (test, train)):
        missing = [name for name in other.classes if name not in split.classes]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise RequestError(
                f"{split.folder}: no sub-folder for {', '.join(missing[:5])}{more}, which {other.name} has; "
                "both need the same classes"
            )
    return test


def _split(folder: Path) -> Split:
    classes: list[str] = []
    pictures = _Pictures()
    counts: list[int] = []
    left: dict[str, list[str]] = {}
    place = _class_folder(folder)
    with reading(place, "folder"):
        for kind, entry in _entries(place):
            if kind != "folder":
                left.setdefault(kind if kind in (_LINK, _HIDDEN) else _BESIDE, []).append(entry.name)
                continue
            inside = _class_pictures(place, entry.name, left)
            pictures.extend(inside)
            counts.append(len(inside.files))
            classes.append(entry.name)
    if not classes:
        raise RequestError(
            f"{folder}: no sub-folders; the pictures of each class belong in a folder of its name; "
            f"{contents_of(folder)}"
        )
    _warn(folder, left)
    return Split(
        name=folder.name,
        folder=place,
        classes=tuple(classes),
        files=tuple(pictures.files),
        states=as_states(pictures.states),
        labels=torch.arange(len(classes)).repeat_interleave(torch.tensor(counts)),
    )


def _class_folder(folder: Path) -> Path:
    """Where the folders of classes are: in the folder, or in the only one in it, which has no pictures of its own."""
    for _ in range(_DEEPEST):
        inside = _folders(folder)
        if len(inside) != 1 or _has_pictures(folder / inside[0]) or not _folders(folder / inside[0]):
            break
        folder /= inside[0]
    return folder


def _class_pictures(folder: Path, name: str, left: dict[str, list[str]]) -> _Pictures:
    """The pictures of a class by their paths below `folder`; the rest is added to `left`, by kind.

    Where the class has pictures in nothing but one sub-folder, they are its pictures.
    """
    pictures, below = _pictures_in(folder, name, left)
    filled = [] if pictures.files else [place for place in below if _has_pictures(folder / place)]
    if len(filled) == 1:
        below.remove(filled[0])
        pictures, deeper = _pictures_in(folder, filled[0], left)
        below += deeper
    for place in below:
        left.setdefault(_SUB_FOLDER, []).extend(_pictures_below(folder, place))
    if not pictures.files:
        raise RequestError(
            f"{folder / name}: no pictures in this folder; known endings: {', '.join(sorted(ENDINGS))}; "
            f"{contents_of(folder / name)}"
        )
    return pictures


def _pictures_in(folder: Path, place: str, left: dict[str, list[str]]) -> tuple[_Pictures, list[str]]:
    """The pictures that lie in `place` by their paths below `folder`, and the folders there."""
    pictures, folders = _Pictures(), []
    for kind, entry in _entries(folder / place):
        file = f"{place}/{entry.name}" if place else entry.name
        if kind == "folder":
            folders.append(file)
        elif kind != "file":
            left.setdefault(kind, []).append(file)
        elif not _is_picture(file):
            left.setdefault(_OTHER, []).append(file)
        else:
            pictures.add(file, entry)
    return pictures, folders


def _entries(folder: Path) -> Iterable[tuple[str, os.DirEntry[str]]]:
    """What lies in a folder, sorted by name, each with its kind: folder, file, or why it is left out."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=attrgetter("name")):
            yield _kind(entry), entry


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.name.startswith("."):
        return _HIDDEN
    try:
        kind = "file" if entry.is_file() else "folder" if entry.is_dir() else _OTHER
    except OSError:  # a link that leads to itself
        return _LINK
    return _LINK if kind == _OTHER and entry.is_symlink() and not Path(entry.path).exists() else kind


def _is_picture(file: str) -> bool:
    # As `os.path.splitext` has it, in a third of its time.
    return file[file.rfind(".") :].lower() in ENDINGS


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
