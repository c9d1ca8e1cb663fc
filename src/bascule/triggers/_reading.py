"""Reading poison that lies on disk, whatever its format.

`read_stored` tells the format by what lies there: an `attack_result.pt` of BackdoorBench (`_backdoorbench`), a folder
with `bd_train_dataset` or `bd_test_dataset`, or an `.npz` file.
"""

from __future__ import annotations

import functools
import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bascule.core.errors import RequestError
from bascule.core.fingerprint import file_digest
from bascule.triggers._backdoorbench import FOLDERS, read_attack_result
from bascule.triggers._stored import (
    Bytes,
    Pictures,
    Stored,
    checked,
    numbers_of,
    pictures_of,
    pixels_of,
    read_picture_file,
)

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp")
_ARRAYS = ("train_index", "train_images", "train_labels", "test_index", "test_images")


def stored_digest(path: str, digest: str | None) -> str:
    """SHA-256 of a file, or of everything that a folder of poison holds.

    Pictures that lie beside an `attack_result.pt` belong to it.

    Raises:
        RequestError: Nothing is there, it cannot be read, or it is not what `digest` was taken of.
    """
    place = Path(path).expanduser()
    try:
        files = [place] if place.is_file() else []
        folder = place.parent if place.suffix == ".pt" else place
        pictures = [file for name in FOLDERS for file in _picture_files(folder / name)] if folder.is_dir() else []
        if place.is_file() and not pictures:
            today = file_digest(place)
        else:
            named = [(file.relative_to(folder).as_posix(), file_digest(file)) for file in (*files, *pictures)]
            today = hashlib.sha256("\n".join(f"{name} {digest}" for name, digest in named).encode()).hexdigest()
    except OSError as error:
        raise RequestError(f"cannot read {path!r}: {error.strerror}", place=("path",)) from error
    if not place.is_file() and not pictures:
        known = f"an attack_result.pt, an .npz file, or a folder with {' or '.join(FOLDERS)} in it"
        said = "has no pictures in it" if place.is_dir() else "does not exist"
        raise RequestError(f"{path!r} {said}; needed is {known}", place=("path",))
    if digest not in (None, today):
        raise RequestError(f"{path!r} is not what this was made with (its content changed)", place=("path",))
    return today


def _picture_files(folder: Path) -> list[Path]:
    """Pictures in the sub-folders of a folder, by name; none where there is no such folder."""
    return sorted(file for file in folder.glob("*/*") if file.suffix.lower() in _ENDINGS) if folder.is_dir() else []


@functools.lru_cache(maxsize=2)
def read_stored(path: str, digest: str) -> Stored:
    """What is stored at a path; kept for the next time, as long as the content is the same.

    Raises:
        RequestError: It cannot be read, or does not hold what it should; its place is `path`.
    """
    place = Path(path).expanduser()
    with _reading(path):
        if place.is_dir():
            train, test = (_folder(place / name) for name in FOLDERS)
            return Stored(train=train, test=test)
        if place.suffix.lower() == ".npz":
            return _npz(place)
        return read_attack_result(place)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn whatever goes wrong inside the block into one error about this path.

    Raises:
        RequestError: What went wrong.
    """
    try:
        yield
    except RequestError as error:
        if error.place == ("target",):
            raise
        raise RequestError(f"cannot read {path!r}: {error.problem}", place=("path",)) from error
    except MemoryError as error:
        raise RequestError(f"{path!r} needs more memory than there is, or is damaged", place=("path",)) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RequestError(f"cannot read {path!r}, or it is damaged: {reason}", place=("path",)) from error


def _folder(folder: Path) -> Pictures | None:
    """`<label>/<number>.png`: the label is that of the image before it was poisoned; None of no picture."""
    entries: dict[int, tuple[Bytes, int | None, int | None]] = {}
    for file in _picture_files(folder):
        number, label = file.stem, file.parent.name
        if not number.isdecimal() or not label.isdecimal():
            raise RequestError(
                f"{file}: expected {folder.name}/LABEL/NUMBER{file.suffix}, with the label that the image had and its "
                "number in the data"
            )
        if int(number) in entries:
            raise RequestError(f"{folder} holds two pictures of image {int(number)}")
        entries[int(number)] = (read_picture_file(file), None, int(label))
    return pictures_of(entries)


# --- NumPy's archives -------------------------------------------------------------------------------------------------


def _npz(file: Path) -> Stored:
    with zipfile.ZipFile(file) as archive:
        there = {name.removesuffix(".npy") for name in archive.namelist()}
    if not there & set(_ARRAYS):
        raise RequestError(f"needed are some of the arrays {', '.join(_ARRAYS)}; it holds {', '.join(sorted(there))}")
    with np.load(file, allow_pickle=False) as content:
        arrays = {name: content[name] for name in _ARRAYS if name in there}
    for images, index in (("train_images", "train_index"), ("test_images", "test_index")):
        if images in arrays and index not in arrays:
            raise RequestError(f"{images} needs {index}: which image of the data each picture belongs to")
    if "test_index" in arrays and "test_images" not in arrays:
        raise RequestError("test_index needs test_images")
    test = None
    if "test_images" in arrays:
        test = _made(arrays["test_images"], arrays["test_index"], None, "test")
    if "train_images" in arrays:
        train = _made(arrays["train_images"], arrays["train_index"], arrays.get("train_labels"), "train")
        return Stored(train=train, test=test)
    poisoned = arrays.get("train_index")
    return Stored(test=test, poisoned=None if poisoned is None else numbers_of(poisoned.tolist()))


def _made(images: NDArray[Any], index: NDArray[Any], labels: NDArray[Any] | None, split: str) -> Pictures:
    pixels = pixels_of(images, f"{split}_images")
    columns = []
    for values in (index, labels):
        if values is not None and (values.dtype.kind not in "iu" or values.ndim != 1):
            raise RequestError(f"numbers and labels must be whole numbers, shape (N,), found {values.dtype}")
        columns.append(None if values is None else torch.from_numpy(values.astype(np.int64)))
    return checked(Pictures(index=columns[0], pixels=pixels, after=columns[1]))
