"""The contract of the room `data`, for every source there is: a new one needs a tiny set of its own in `TINY`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from bascule.core import catalog
from bascule.core.errors import RequestError
from bascule.data.contract import Source
from pickles import python2_pickle

TRAIN, TEST = 12, 7
EMBEDDED = ("digits",)
"""Sources that ship with a dependency and read no file."""


def pictures(count: int, seed: int, side: int = 6) -> np.ndarray:
    """Noise, count x side x side x 3."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def labels(count: int) -> np.ndarray:
    return np.arange(count) % 3


def write_parquet(folder: Path, seed: int, side: int) -> None:
    folder.mkdir(exist_ok=True)
    for split, count in (("train", TRAIN), ("test", TEST)):
        cells = []
        for pixels in pictures(count, seed, side):
            file = BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            cells.append({"bytes": file.getvalue(), "path": None})
        pq.write_table(pa.table({"img": cells, "label": labels(count)}), folder / f"{split}-00000-of-00001.parquet")


def tiny_digits(root: Path, seed: int) -> dict[str, Any]:
    return {}


def tiny_mnist(root: Path, seed: int) -> dict[str, Any]:
    folder = root / "idx"
    folder.mkdir(exist_ok=True)
    for stem, count in (("train", TRAIN), ("t10k", TEST)):
        number, side = count.to_bytes(4, "big"), (6).to_bytes(4, "big")
        images = pictures(count, seed)[..., 0].tobytes()
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(b"\x00\x00\x08\x03" + number + side + side + images)
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(b"\x00\x00\x08\x01" + number + bytes(labels(count).tolist()))
    return {"path": "idx"}


def tiny_parquet(root: Path, seed: int) -> dict[str, Any]:
    write_parquet(root / "set", seed, 6)
    return {"path": "set", "classes": ["cat", "dog", "owl"], "size": 5, "channels": 1}


def tiny_cifar10(root: Path, seed: int) -> dict[str, Any]:
    write_parquet(root / "cifar10", seed, 32)
    return {}


def tiny_cifar100(root: Path, seed: int) -> dict[str, Any]:
    folder = root / "cifar-100-python"
    folder.mkdir(exist_ok=True)
    for split, count in (("train", TRAIN), ("test", TEST)):
        pixels = pictures(count, seed, 32).transpose(0, 3, 1, 2).reshape(count, -1)
        content = python2_pickle(pixels, fine_labels=labels(count).tolist(), coarse_labels=[0] * count)
        (folder / split).write_bytes(content)
    return {}


def tiny_svhn(root: Path, seed: int) -> dict[str, Any]:
    (root / "svhn").mkdir(exist_ok=True)
    for split, count in (("train", TRAIN), ("test", TEST)):
        y = np.where(labels(count) == 0, 10, labels(count)).astype(np.uint8)[:, None]
        x = pictures(count, seed, 32).transpose(1, 2, 3, 0)
        savemat(root / "svhn" / f"{split}_32x32.mat", {"X": x, "y": y}, do_compression=True)
    return {}


def tiny_stl10(root: Path, seed: int) -> dict[str, Any]:
    (root / "stl10").mkdir(exist_ok=True)
    for split, count in (("train", TRAIN), ("test", TEST)):
        (root / "stl10" / f"{split}_X.bin").write_bytes(pictures(count, seed, 96).transpose(0, 3, 2, 1).tobytes())
        (root / "stl10" / f"{split}_y.bin").write_bytes(bytes((labels(count) + 1).tolist()))
    return {}


def tiny_folder(root: Path, seed: int) -> dict[str, Any]:
    for split, count in (("train", TRAIN), ("val", TEST)):
        for i, pixels in enumerate(pictures(count, seed)):
            path = root / "set" / split / ("cat", "dog", "owl")[i % 3] / f"{i}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return {"path": "set"}


def tiny_npz(root: Path, seed: int) -> dict[str, Any]:
    arrays = {}
    for split, count in (("train", TRAIN), ("test", TEST)):
        arrays |= {f"x_{split}": pictures(count, seed), f"y_{split}": labels(count)}
    np.savez(root / "set.npz", **arrays)
    return {"path": "set.npz", "classes": ["cat", "dog", "owl"]}


TINY: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "cifar10": tiny_cifar10,
    "cifar100": tiny_cifar100,
    "digits": tiny_digits,
    "folder": tiny_folder,
    "mnist": tiny_mnist,
    "npz": tiny_npz,
    "parquet": tiny_parquet,
    "stl10": tiny_stl10,
    "svhn": tiny_svhn,
}
"""For each source: writes a set of three classes into the folder, other pixels for another seed; gives the settings."""


@pytest.fixture(params=catalog.names("data"))
def name(request: pytest.FixtureRequest) -> str:
    assert request.param in TINY, f"data/{request.param} has no tiny set in TINY, so nothing tests its contract"
    return request.param


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "here"
    place.mkdir()
    return place


@pytest.fixture
def source(name: str, root: Path) -> Source:
    settings = TINY[name](root, 0)
    return catalog.build("data", {"name": name, **settings})


LIMITS = [{}, {"max_train": 5}, {"max_train": 4, "max_test": 3}, {"max_train": 10**6, "max_test": 10**6}]


def test_every_tiny_set_is_of_a_source() -> None:
    assert set(TINY) <= set(catalog.names("data"))


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_load_gives_labelled_bytes_of_one_size(source: Source, root: Path, limits: dict[str, int]) -> None:
    train, test = splits = replace(source, **limits).load([root])
    assert train.size == test.size
    assert train.classes == test.classes
    assert all(isinstance(label, str) for label in train.classes)
    for images in splits:
        whole = images.pixels[torch.arange(len(images))]
        assert whole.dtype == torch.uint8
        assert whole.shape == images.pixels.shape == (len(images), *images.size)
        assert images.size[0] in (1, 3)
        assert images.labels.dtype == images.ids.dtype == torch.int64
        assert images.labels.shape == images.ids.shape == (len(images),)
        assert len(images.ids.unique()) == len(images)
        assert bool((whole.flatten(1).amax(1) > whole.flatten(1).amin(1)).all()), "a picture is blank"


def test_limits_cut_the_same_pictures_out(source: Source, root: Path) -> None:
    train, test = source.load([root])
    few, _ = replace(source, max_train=5).load([root])
    assert (len(few), len(test)) == (5, len(source.load([root]).test))
    place = {int(i): k for k, i in enumerate(train.ids)}
    index = torch.tensor([place[int(i)] for i in few.ids])
    assert torch.equal(few.pixels[torch.arange(5)], train.pixels[index])
    assert torch.equal(few.labels, train.labels[index])


@pytest.mark.parametrize("limits", LIMITS[:2], ids=str)
def test_the_training_images_alone_are_those_of_the_whole(source: Source, root: Path, limits: dict[str, int]) -> None:
    cut = replace(source, **limits, held_out=2)
    expected = cut.load([root]).train
    index = torch.arange(len(expected))
    for one in (cut, cut.without_test()):  # a set that has a split has it with and without
        train = one.load_train([root])
        assert torch.equal(train.ids, expected.ids)
        assert torch.equal(train.pixels[index], expected.pixels[index])
        assert (train.classes, train.labels.tolist()) == (expected.classes, expected.labels.tolist())


def test_loading_again_gives_the_same(source: Source, root: Path) -> None:
    first, again = source.load([root]).train, source.load([root]).train
    index = torch.arange(len(first))
    assert torch.equal(first.pixels[index], again.pixels[index])
    assert torch.equal(first.ids, again.ids)


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_facts_agree_with_load(source: Source, root: Path, limits: dict[str, int]) -> None:
    cut = replace(source, **limits)
    facts, (train, test) = cut.facts([root]), cut.load([root])
    assert facts.size == train.size
    assert facts.classes == train.classes
    assert torch.equal(facts.train_labels, train.labels)
    assert torch.equal(facts.test_labels, test.labels)
    assert facts.train_labels.dtype == facts.test_labels.dtype == torch.int64


def test_digest_follows_the_content_not_the_place(name: str, source: Source, root: Path, tmp_path: Path) -> None:
    before = source.facts([root]).digest
    shutil.move(root, tmp_path / "there")
    assert source.facts([tmp_path / "there"]).digest == before
    if name not in EMBEDDED:
        TINY[name](tmp_path / "there", 1)
        assert source.facts([tmp_path / "there"]).digest != before


def test_other_content_gives_other_pictures(name: str, source: Source, root: Path) -> None:
    before = source.load([root]).train
    TINY[name](root, 1)
    after = source.load([root]).train
    index = torch.arange(len(before))
    assert torch.equal(before.labels, after.labels)
    assert torch.equal(before.pixels[index], after.pixels[index]) is (name in EMBEDDED)


def test_description_rebuilds_it(source: Source) -> None:
    for variant in (source, replace(source, max_train=5)):
        assert catalog.build("data", catalog.describe(variant)) == variant
        assert eval(repr(variant), {type(variant).__name__: type(variant)}) == variant
    assert replace(source, max_train=5) != source


def test_every_setting_is_documented(name: str) -> None:
    documentation = catalog.documentation("data", name)
    assert documentation.summary
    assert [field.name for field in documentation.fields if not field.text] == []


def test_data_that_are_not_there_are_refused(name: str, source: Source, tmp_path: Path) -> None:
    if name in EMBEDDED:
        pytest.skip("reads no file")
    for action in (source.load, source.facts):
        with pytest.raises(RequestError, match=r"found in: .*nowhere. Set `roots` or \$BASCULE_DATA"):
            action([tmp_path / "nowhere"])


def test_unreadable_files_are_refused(name: str, source: Source, root: Path) -> None:
    if name in EMBEDDED:
        pytest.skip("reads no file")
    for path in [path for path in root.rglob("*") if path.is_file()]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for action in (source.load, source.facts):
        with pytest.raises(RequestError, match=str(root)):
            action([root])
