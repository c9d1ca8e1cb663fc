"""SVHN in MATLAB files, as SciPy writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from bascule.core.errors import RequestError
from bascule.data.svhn import Svhn


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """height x width x channels x count."""
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3, count), dtype=np.uint8)


def write(folder: Path, **arrays: Any) -> Path:
    """A set of 4 training and 2 test images in `folder`/svhn; `arrays` replace those of the training file."""
    (folder / "svhn").mkdir(exist_ok=True)
    train = {"X": pictures(4), "y": np.array([[1], [10], [9], [2]], np.uint8), **arrays}
    for name, content in (("train", train), ("test", {"X": pictures(2, 1), "y": np.array([[10], [5]], np.uint8)})):
        kept = {key: value for key, value in content.items() if value is not None}
        savemat(folder / "svhn" / f"{name}_32x32.mat", kept, do_compression=True)
    return folder


def test_the_label_10_is_the_digit_0(tmp_path: Path) -> None:
    train, test = Svhn().load([write(tmp_path)])
    assert (train.labels.tolist(), test.labels.tolist()) == ([1, 0, 9, 2], [0, 5])
    assert train.classes == tuple("0123456789")
    assert train.size == (3, 32, 32)


def test_places_of_pixels(tmp_path: Path) -> None:
    x = pictures(4)
    found = Svhn().load([write(tmp_path, X=x)]).train.pixels[torch.arange(4)]
    assert int(found[3, 1, 7, 30]) == x[7, 30, 1, 3]
    assert np.array_equal(found.numpy(), x.transpose(3, 2, 0, 1))


@pytest.mark.parametrize("place", ["svhn", "SVHN", "."])
def test_places_of_the_files(tmp_path: Path, place: str) -> None:
    write(tmp_path)
    (tmp_path / "root").mkdir()
    (tmp_path / "svhn").rename(tmp_path / "root" / "other")
    if place == ".":
        assert len(Svhn().load([tmp_path / "root" / "other"]).train) == 4
    else:
        (tmp_path / "root" / "other").rename(tmp_path / "root" / place)
        assert len(Svhn().load([tmp_path / "root"]).train) == 4
        assert len(Svhn(path=place).load([tmp_path / "root"]).train) == 4


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        (
            {"y": np.array([[0], [1], [2], [3]])},
            "y holds values from 0 to 3; labels of SVHN are whole numbers in 1..10",
        ),
        ({"y": np.array([[1], [1], [2], [11]])}, "y holds values from 1 to 11; labels of SVHN"),
        ({"y": np.array([[1], [1], [2], [1.5]])}, "y holds values from 1.0 to 2.0; labels of SVHN"),
        ({"y": np.array([[1], [2]])}, "4 images but 2 labels"),
        ({"y": np.array(["one"])}, "y holds 1 of <U3; labels of SVHN"),
        ({"X": pictures(4)[:28, :28]}, r"X has the shape \(28, 28, 3, 4\), not \(32, 32, 3, N\)"),
        ({"X": pictures(4).transpose(3, 0, 1, 2)}, r"X has the shape \(4, 32, 32, 3\), not"),
        ({"X": None}, "no array X, or cut short; the file holds y of shape 4 x 1"),
    ],
)
def test_refuses(arrays: dict[str, Any], text: str, tmp_path: Path) -> None:
    write(tmp_path, **arrays)
    with pytest.raises(RequestError, match=f"train_32x32.mat: {text}"):
        Svhn().load([tmp_path])
    if "X" not in arrays or arrays["X"] is not None:
        with pytest.raises(RequestError, match=f"train_32x32.mat: {text}"):
            Svhn().facts([tmp_path])


def test_refuses_floats(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"train_32x32.mat: X holds float64, not bytes"):
        Svhn().load([write(tmp_path, X=pictures(4) / 255)])


def test_refuses_a_missing_file_naming_those_there(tmp_path: Path) -> None:
    (write(tmp_path) / "svhn" / "test_32x32.mat").rename(tmp_path / "svhn" / "extra_32x32.mat")
    with pytest.raises(RequestError, match=r"test_32x32.mat is not there; it holds the files extra_32x32.mat, train_"):
        Svhn().load([tmp_path])
    (tmp_path / "svhn" / "train_32x32.mat").rename(tmp_path / "svhn" / "train.tar.gz")
    with pytest.raises(
        RequestError, match=r"train_32x32.mat is not there; it holds the files extra_32x32.mat, train.t"
    ):
        Svhn().load([tmp_path])


@pytest.mark.parametrize("damage", ["cut", "hello", "empty", "hdf5"])
def test_refuses_a_damaged_file(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path) / "svhn" / "train_32x32.mat"
    content = path.read_bytes()
    newer = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(100)  # what MATLAB's -v7.3 begins with
    path.write_bytes({"cut": content[: len(content) // 2], "hello": b"hello", "empty": b"", "hdf5": newer}[damage])
    for look in (Svhn().load, Svhn().facts):
        with pytest.raises(RequestError, match=r"train_32x32.mat: (damaged or unreadable MATLAB file|.* or cut short)"):
            look([tmp_path])
