"""STL-10 in binary files of the authors' format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bascule.core.errors import RequestError
from bascule.data.stl10 import Stl10


def pictures(count: int, seed: int) -> np.ndarray:
    """count x channels x height x width."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 96, 96), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "stl10_binary"
    place.mkdir()
    for seed, (split, labels) in enumerate({"train": [1, 10, 3], "test": [2, 2]}.items()):
        # As the authors' MATLAB wrote them: every channel column by column.
        (place / f"{split}_X.bin").write_bytes(pictures(len(labels), seed).swapaxes(2, 3).tobytes())
        (place / f"{split}_y.bin").write_bytes(bytes(labels))
    names = "airplane bird car cat deer dog horse monkey ship truck"
    (place / "class_names.txt").write_text("\n".join(names.split()) + "\n")
    return place


@pytest.mark.parametrize("path", [None, ".", "stl10_binary"])
def test_pictures_and_labels(folder: Path, tmp_path: Path, path: str | None) -> None:
    train, test = Stl10(path=path).load([tmp_path])
    assert np.array_equal(train.pixels[torch.arange(3)].numpy(), pictures(3, 0))
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 9, 2], [1, 1])
    assert train.classes[9] == "truck"


@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 2, 11]])
def test_refuses_other_labels(folder: Path, tmp_path: Path, labels: list[int]) -> None:
    (folder / "train_y.bin").write_bytes(bytes(labels))
    with pytest.raises(RequestError, match=rf"train_y.bin: labels range from {labels[0]} to {labels[2]}; .* in 1..10"):
        Stl10().load([tmp_path])


def test_refuses_a_cut_file(folder: Path, tmp_path: Path) -> None:
    (folder / "test_X.bin").write_bytes(bytes(27648 + 1))
    for look in (Stl10().load, Stl10().facts):
        with pytest.raises(RequestError, match=r"test_X.bin: 27,649 bytes, which is not 2 images \(one for each"):
            look([tmp_path])
    (folder / "test_y.bin").write_bytes(b"")
    with pytest.raises(RequestError, match=r"test_y.bin: the file is empty"):
        Stl10().load([tmp_path])


def test_refuses_other_classes(folder: Path, tmp_path: Path) -> None:
    (folder / "class_names.txt").write_text("cat\ndog\n")
    with pytest.raises(RequestError, match=r"class_names.txt: the classes are cat, dog: not STL-10"):
        Stl10().load([tmp_path])


def test_refuses_missing_files_and_says_what_to_do_with_the_archive(folder: Path, tmp_path: Path) -> None:
    (folder / "train_X.bin").rename(folder / "unlabeled_X.bin")
    with pytest.raises(RequestError, match=r"binary: train_X.bin not found; it holds the files class_names.txt, test_"):
        Stl10().load([tmp_path])
    folder.rename(tmp_path / "elsewhere")
    (tmp_path / "stl10_binary.tar.gz").write_bytes(b"x")
    with pytest.raises(RequestError, match=r"train_X.bin, .* not found; unpack the archive first: tar -xzf stl10"):
        Stl10().load([tmp_path])
    with pytest.raises(RequestError, match=r"unpack the archive first"):
        Stl10(path=".").load([tmp_path])
