"""MNIST's IDX files."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest
import torch

from bascule.core.errors import RequestError
from bascule.data.mnist import Mnist


def write(folder: Path, stem: str, labels: list[int], *, height: int = 2, width: int = 3, zipped: bool = False) -> None:
    """A split whose pixels count up from 0 through all its pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(size.to_bytes(4, "big") for size in (len(labels), height, width))
    images = b"\x00\x00\x08\x03" + sizes + bytes(range(len(labels) * height * width))
    parts = {"images-idx3-ubyte": images, "labels-idx1-ubyte": b"\x00\x00\x08\x01" + sizes[:4] + bytes(labels)}
    for part, content in parts.items():
        if zipped:
            (folder / f"{stem}-{part}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / f"{stem}-{part}").write_bytes(content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "MNIST" / "raw"
    write(place, "train", [2, 0, 1])
    write(place, "t10k", [1, 0], zipped=True)
    return place


def test_plain_and_zipped_files(folder: Path, tmp_path: Path) -> None:
    train, test = Mnist().load([tmp_path])
    assert train.pixels[torch.tensor([1])].tolist() == [[[[6, 7, 8], [9, 10, 11]]]]
    assert test.pixels[torch.tensor([0])].tolist() == [[[[0, 1, 2], [3, 4, 5]]]]
    assert train.labels.tolist() == [2, 0, 1]
    assert train.ids.tolist() == [0, 1, 2]


def test_both_splits_have_the_classes_of_both(folder: Path, tmp_path: Path) -> None:
    train, test = Mnist().load([tmp_path])
    assert train.classes == test.classes == Mnist().facts([tmp_path]).classes == ("0", "1", "2")


def test_named_classes(folder: Path, tmp_path: Path) -> None:
    assert Mnist(classes=("a", "b", "c", "d")).load([tmp_path]).test.classes == ("a", "b", "c", "d")
    with pytest.raises(RequestError, match="raw: labels go up to 2, but 2 classes are named"):
        Mnist(classes=("a", "b")).facts([tmp_path])


def refused(root: Path, text: str) -> None:
    """`load` and `facts` refuse alike."""
    for action in (Mnist().load, Mnist().facts):
        with pytest.raises(RequestError, match=text):
            action([root])


def test_refuses_a_missing_file(folder: Path, tmp_path: Path) -> None:
    (folder / "train-labels-idx1-ubyte").unlink()
    refused(tmp_path, r"raw: neither train-labels-idx1-ubyte nor train-labels-idx1-ubyte.gz is there")


def test_refuses_counts_that_differ(folder: Path, tmp_path: Path) -> None:
    (folder / "train-labels-idx1-ubyte").write_bytes(b"\x00\x00\x08\x01\x00\x00\x00\x02\x00\x01")
    refused(tmp_path, "raw: 3 train images but 2 labels")


def test_refuses_splits_of_different_size(folder: Path, tmp_path: Path) -> None:
    write(folder, "train", [2, 0, 1], height=3)
    refused(tmp_path, "raw: training images are 1 x 3 x 3 but test images 1 x 2 x 3")


def test_refuses_an_empty_set(folder: Path, tmp_path: Path) -> None:
    write(folder, "train", [])
    refused(tmp_path, r"train-labels-idx1-ubyte: header announces no data \(sizes 0\)")


def test_refuses_another_kind_of_file(folder: Path, tmp_path: Path) -> None:
    (folder / "train-images-idx3-ubyte").write_bytes(b"hello, I am no IDX file")
    refused(tmp_path, "train-images-idx3-ubyte: not an IDX file of unsigned bytes with 3")


@pytest.mark.parametrize("kept", [0, 5, -4])
def test_refuses_a_damaged_gzip(kept: int, folder: Path, tmp_path: Path) -> None:
    path = folder / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:kept])
    refused(tmp_path, r"t10k-labels-idx1-ubyte.gz: (damaged or unreadable|not an) IDX file")


def test_refuses_a_damaged_gzip_of_pictures_when_peeking(folder: Path, tmp_path: Path) -> None:
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(b"hello")
    refused(tmp_path, r"t10k-images-idx3-ubyte.gz: damaged or unreadable IDX file")


def test_refuses_missing_bytes(folder: Path, tmp_path: Path) -> None:
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RequestError, match="train-images-idx3-ubyte: header announces 18 bytes, file holds 17"):
        Mnist().load([tmp_path])


@pytest.mark.data
def test_real_set(data_root: Path) -> None:
    train, test = Mnist().load([data_root])
    assert (train.pixels.shape, test.pixels.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert train.classes == tuple("0123456789")
    header = b"\x00\x00\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (60_000, 28, 28))
    content = header + train.pixels[torch.arange(60_000)].numpy().tobytes()
    assert hashlib.md5(content).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"


@pytest.mark.parametrize("part", ["train-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz"])
def test_a_file_cut_short_is_known_before_the_pictures_are_read(part: str, folder: Path, tmp_path: Path) -> None:
    path = folder / part
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RequestError, match=f"{part}: (header announces 18 bytes, file holds 9|damaged or unreadable)"):
        Mnist().facts([tmp_path])


def test_a_gzip_file_of_several_parts_is_whole(folder: Path, tmp_path: Path) -> None:
    path = folder / "t10k-images-idx3-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:7]) + gzip.compress(content[7:]))
    assert len(Mnist().facts([tmp_path]).test_labels) == 2
