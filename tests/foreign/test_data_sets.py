"""Data sets of torchvision, with its transforms and loaders: measured as the tensors they hold are."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch import Tensor, nn
from torch.utils.data import DataLoader

import bascule
from bascule.core.errors import RequestError
from bascule.data.cifar100 import Cifar100
from bascule.data.folder import Folder
from bascule.data.stl10 import Stl10
from bascule.data.svhn import Svhn
from folders import save
from pickles import python2_pickle

datasets = pytest.importorskip("torchvision.datasets", reason="needs timm and torchvision: make foreign")
transforms = pytest.importorskip("torchvision.transforms.v2")
pytestmark = pytest.mark.filterwarnings("default")  # the library's own

SIZE = (3, 8, 8)
MODEL = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
BYTES = transforms.PILToTensor()
FLOATS = transforms.Compose([transforms.ToImage(), transforms.ToDtype(torch.float32, scale=True)])


def numbers(data: Any, y: Tensor | None = None) -> Any:
    found = bascule.evaluate(MODEL, data, y, attack={"name": "fgsm", "eps": 0.02})
    return found["accuracy"], found["robust_accuracy"]


def fake(transform: Any = None) -> Any:
    return datasets.FakeData(size=20, image_size=SIZE, num_classes=4, transform=transform)


@pytest.mark.parametrize("transform", [None, BYTES, FLOATS], ids=["pictures", "bytes", "floats"])
@pytest.mark.parametrize("loader", [False, True])
def test_data_sets_and_loaders(transform: Any, loader: bool) -> None:
    x = torch.stack([BYTES(picture) for picture, _ in fake()])
    y = torch.tensor([label for _, label in fake()])
    data: Any = fake(transform)
    if loader and transform is not None:
        data = DataLoader(data, batch_size=6)
    assert numbers(data) == numbers(x, y)


def test_normalised_pictures_are_noticed() -> None:
    data = fake(transforms.Compose([FLOATS, transforms.Normalize([0.5] * 3, [0.5] * 3)]))
    with pytest.raises(RequestError, match=r"x: FakeData: item 0 ranges from -1 .* its transform has a Normalize"):
        numbers(data)


def test_an_image_folder_is_ours(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for i in range(8):
            save(tmp_path / split / "abcd"[i % 4] / f"{i}.png", generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    test = Folder(path=".").load([tmp_path]).test
    index = torch.arange(len(test))
    assert numbers(datasets.ImageFolder(tmp_path / "test")) == numbers(test.pixels[index], test.labels)


def same(ours: Any, theirs: Any) -> None:
    """The same pictures and labels in the same order."""
    assert len(ours) == len(theirs)
    for i, (picture, label) in enumerate(theirs):
        assert torch.equal(ours.pixels[torch.tensor([i])][0], BYTES(picture))
        assert int(ours.labels[i]) == label


def test_svhn_is_read_as_torchvision_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)
    x = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    for split in ("train", "test"):
        savemat(tmp_path / f"{split}_32x32.mat", {"X": x, "y": np.array([[1], [10], [9], [2]], np.uint8)})
    same(Svhn().load([tmp_path]).test, datasets.SVHN(tmp_path, split="test"))


def test_stl10_is_read_as_torchvision_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)
    place = tmp_path / "stl10_binary"
    place.mkdir()
    for split in ("train", "test"):
        pixels = np.random.default_rng(1).integers(0, 256, (3, 3, 96, 96), dtype=np.uint8)
        (place / f"{split}_X.bin").write_bytes(pixels.tobytes())
        (place / f"{split}_y.bin").write_bytes(bytes([1, 10, 4]))
    (place / "class_names.txt").write_text("\n".join(Stl10().load([tmp_path]).train.classes) + "\n")
    same(Stl10().load([tmp_path]).test, datasets.STL10(tmp_path, split="test"))


def test_cifar100_is_read_as_torchvision_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    place = tmp_path / "cifar-100-python"
    place.mkdir()
    pixels = np.random.default_rng(2).integers(0, 256, (3, 3072), dtype=np.uint8)
    for split in ("train", "test"):
        (place / split).write_bytes(python2_pickle(pixels, coarse_labels=[0, 1, 2], fine_labels=[99, 5, 0]))
    names = list(Cifar100().load([tmp_path]).train.classes)
    (place / "meta").write_bytes(pickle.dumps({"fine_label_names": names}))
    theirs = datasets.CIFAR100(tmp_path, train=False)
    (place / "meta").unlink()
    same(Cifar100().load([tmp_path]).test, theirs)
    assert theirs.classes == names


def test_gtsrb_is_read_as_torchvision_reads_it(tmp_path: Path) -> None:
    base = tmp_path / "gtsrb"
    test = base / "GTSRB" / "Final_Test" / "Images"
    for i in range(4):
        save(base / "GTSRB" / "Training" / f"{i % 2:05}" / f"0000{i}.ppm", 10 * i, 6, 6)
        save(test / f"0000{i}.ppm", 10 * i, 6, 6)
    lines = "".join(f"0000{i}.ppm;6;6;0;0;6;6;{i // 2}\n" for i in range(4))
    (base / "GT-final_test.csv").write_text("Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n" + lines)
    ours = Folder(path="gtsrb").load([tmp_path])
    same(ours.train, datasets.GTSRB(tmp_path, split="train"))
    same(ours.test, datasets.GTSRB(tmp_path, split="test"))


def test_pictures_of_several_sizes_are_one_message(tmp_path: Path) -> None:
    for i, side in enumerate((8, 9)):
        save(tmp_path / "a" / f"{i}.png", 1, side, side)
    with pytest.raises(RequestError, match=r"ImageFolder: item 1 is 3 x 9 x 9, the first 3 x 8 x 8"):
        numbers(datasets.ImageFolder(tmp_path))
