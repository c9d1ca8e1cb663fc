"""`attack_result.pt` of BackdoorBench, read without running anything in it.

It is a mapping by `torch.save` with, among others, `bd_train` and `bd_test`. Each is today the state of a data set: a
container of pictures by number, (picture, poisoned label, true label), in the file or on disk beside it. In the first
version it was tensors `x`, `y` and for training images `original_index`. Facts of the format:
`utils/save_load_attack.py` and `utils/bd_dataset_v2.py` of https://github.com/SCLBD/BackdoorBench.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bascule.core.errors import RequestError
from bascule.core.text import quote
from bascule.core.unread import Unread, load_unread
from bascule.triggers._stored import (
    Bytes,
    Pictures,
    Stored,
    as_channels,
    checked,
    pictures_of,
    pixels_of,
    read_picture_file,
)

FOLDERS = ("bd_train_dataset", "bd_test_dataset")
"""Folders of pictures, `<folder>/<label>/<number>.png`."""
_KEYS = ("bd_train", "bd_test")
_NUMPY = ("numpy.core.multiarray.", "numpy._core.multiarray.")


def read_attack_result(file: Path) -> Stored:
    """What the file holds of the poisoned training set and the stamped test images.

    Raises:
        RequestError: It is another file, is damaged, or asks for what could run code.
        Exception: Whatever else a damaged file leads to.
    """
    content = load_unread(file)
    if not isinstance(content, Mapping) or not any(key in content for key in _KEYS):
        keys = ", ".join(map(str, list(content)[:8])) if isinstance(content, Mapping) else type(content).__name__
        raise RequestError(f"needed is an attack_result.pt of BackdoorBench, with bd_train or bd_test; found {keys}")
    train, test = (_part(content.get(key), key, file.parent / name) for key, name in zip(_KEYS, FOLDERS, strict=True))
    return Stored(train=train, test=test)


def _part(state: Any, key: str, folder: Path) -> Pictures | None:
    if state is None:
        return None
    if not isinstance(state, Mapping):
        raise RequestError(f"{key} holds {_kind(state)}; needed is a mapping")
    if "bd_data_container" in state:
        return _contained(state, key, folder)
    if "x" in state and "y" in state:
        return _tensors(state, key)
    raise RequestError(f"{key} has neither bd_data_container nor x and y; found {', '.join(map(str, list(state)[:8]))}")


# --- as it is today ---------------------------------------------------------------------------------------------------


def _contained(state: Mapping[Any, Any], key: str, folder: Path) -> Pictures | None:
    container = state["bd_data_container"]
    pictures = container.get("data_dict") if isinstance(container, Mapping) else None
    if not isinstance(pictures, Mapping):
        raise RequestError(f"{key}: bd_data_container has no data_dict")
    indicator = state.get("poison_indicator")
    used = None if indicator is None else _array(indicator, f"{key}: poison_indicator", kinds="iufb")
    entries: dict[int, tuple[Bytes, int | None, int | None]] = {}
    for number, entry in pictures.items():
        place = _whole(number, f"{key}: the number of a picture")
        what = f"{key}: picture {place}"
        if place in entries:
            raise RequestError(f"{what} comes twice")
        if used is not None and not 0 <= place < len(used):
            raise RequestError(f"{what}: poison_indicator tells of {len(used)} images")
        if used is not None and not used[place]:
            continue  # BackdoorBench takes the clean image then
        if isinstance(entry, Mapping):
            image, labels = _on_disk(entry.get("path"), folder, what), entry.get("other_info")
        else:
            image, *labels = entry if isinstance(entry, (tuple, list)) and entry else (None,)
            image = _picture(image, what)
        if not isinstance(labels, (list, tuple)) or len(labels) < 2:
            raise RequestError(f"{what} has no poisoned and true label")
        after, before = (_whole(label, f"{what}: a label") for label in labels[:2])
        entries[place] = (image, after, before)
    return pictures_of(entries)


def _picture(value: Any, what: str) -> Bytes:
    """A picture of Pillow, which pickles as info, mode, (width, height), palette and bytes."""
    if not isinstance(value, Unread) or not value.origin.startswith("PIL."):
        raise RequestError(f"{what} is {_kind(value)}; needed is a picture of Pillow")
    state = value.state
    if not isinstance(state, (list, tuple)) or len(state) < 5:
        raise RequestError(f"{what} is damaged")
    _, mode, size, _, content = state[:5]
    whole = isinstance(size, (list, tuple)) and len(size) == 2 and all(isinstance(side, int) for side in size)
    if not whole or not isinstance(mode, str) or not isinstance(content, (bytes, bytearray)):
        raise RequestError(f"{what} is damaged")
    return as_channels(bytes(content), mode, (size[0], size[1]), what)


def _on_disk(path: Any, folder: Path, what: str) -> Bytes:
    """A picture that lies beside the file: its path is that of another machine up to the name of the folder."""
    parts = path.replace("\\", "/").split("/") if isinstance(path, str) else []
    if folder.name not in parts:
        raise RequestError(f"{what} lies at {quote(path)}, which has no folder {folder.name} in it")
    inside = parts[len(parts) - parts[::-1].index(folder.name) :]
    if ".." in inside or not inside:
        raise RequestError(f"{what} lies at {quote(path)}, outside of {folder.name}")
    return read_picture_file(folder.joinpath(*inside))


# --- as it was --------------------------------------------------------------------------------------------------------


def _tensors(state: Mapping[Any, Any], key: str) -> Pictures:
    x, y = state["x"], state["y"]
    if not isinstance(x, Tensor) or not isinstance(y, Tensor) or x.ndim != 4 or y.ndim != 1:
        raise RequestError(f"{key}: x and y must be tensors, N x C x H x W and (N,)")
    for name, part in (("x", x), ("y", y)):
        if part.numel() * part.element_size() > part.untyped_storage().nbytes():
            raise RequestError(f"{key}: {name} announces {part.numel():,} values, more than the file holds")
    index = state.get("original_index")
    if index is None and key == "bd_train":
        raise RequestError(
            "bd_train has no original_index, so that nobody knows which images its pictures replace; save them as an "
            ".npz file with train_index, train_images and train_labels"
        )
    numbers = None if index is None else torch.from_numpy(_array(index, f"{key}: original_index").astype(np.int64))
    pixels = pixels_of(x.detach().numpy(), f"{key}: x")
    return checked(Pictures(index=numbers, pixels=pixels, after=y.detach().long()))


# --- what NumPy wrote -------------------------------------------------------------------------------------------------


def _array(value: Any, what: str, kinds: str = "iu") -> NDArray[Any]:
    """An array of numbers that NumPy wrote, or a tensor, or a list; whole numbers unless `kinds` of NumPy says else."""
    if isinstance(value, Tensor):
        value = value.numpy()
    elif isinstance(value, Unread) and value.origin in [f"{start}_reconstruct" for start in _NUMPY]:
        _, shape, dtype, fortran, content = value.state
        kind = _dtype(dtype, what, kinds)
        if not isinstance(content, (bytes, bytearray)) or math.prod(shape) * kind.itemsize != len(content):
            raise RequestError(f"{what} is damaged")
        value = np.frombuffer(bytes(content), kind).reshape(shape, order="F" if fortran else "C")
    elif isinstance(value, (list, tuple)):
        value = np.array([_whole(one, what) for one in value], dtype=np.int64)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in kinds or value.ndim != 1:
        raise RequestError(f"{what} holds {_kind(value)}; needed are whole numbers, shape (N,)")
    return value


def _whole(value: Any, what: str) -> int:
    """A whole number, as Python, torch or NumPy has it."""
    if isinstance(value, Unread) and value.origin in [f"{start}scalar" for start in _NUMPY] and len(value.args) == 2:
        kind, content = _dtype(value.args[0], what), value.args[1]
        if isinstance(content, (bytes, bytearray)) and len(content) == kind.itemsize:
            value = np.frombuffer(bytes(content), kind)[0]
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise RequestError(f"{what} is {_kind(value)}; needed is a whole number")
    return int(value)


def _dtype(value: Any, what: str, kinds: str = "iu") -> np.dtype[Any]:
    """The type of an array: numbers of up to 64 bits, whole ones unless `kinds` says else."""
    code = value.args[0] if isinstance(value, Unread) and value.origin == "numpy.dtype" and value.args else None
    big = isinstance(value, Unread) and isinstance(value.state, tuple) and value.state[1:2] == (">",)
    if not isinstance(code, str) or code not in [f"{kind}{size}" for kind in kinds for size in (1, 2, 4, 8)]:
        raise RequestError(f"{what} holds {quote(code)}; needed are whole numbers")
    return np.dtype(f"{'>' if big else '<'}{code}")


def _kind(value: Any) -> str:
    return quote(value.origin) if isinstance(value, Unread) else type(value).__name__
