"""The contract of the room `data`, `bascule.testing.sources`, for every source there is: a new one needs a tiny set of
its own in `TINY`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.io import savemat

from bascule.core import catalog
from bascule.data.contract import Source
from bascule.testing import sources as contract
from bascule.testing.settings import check_settings
from pickles import python2_pickle
from tars import png, write_tar

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


def tiny_shards(root: Path, seed: int) -> dict[str, Any]:
    (root / "tars").mkdir(exist_ok=True)
    for split, count in (("train", TRAIN), ("val", TEST)):
        samples = [{"png": png(pixels), "cls": str(i % 3)} for i, pixels in enumerate(pictures(count, seed))]
        for number, part in enumerate((samples[:4], samples[4:])):
            write_tar(root / "tars" / f"set-{split}-{number:06}.tar", part, first=4 * number)
    return {"path": "tars", "classes": ["cat", "dog", "owl"]}


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
    "shards": tiny_shards,
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


def test_every_tiny_set_is_of_a_source() -> None:
    assert set(TINY) <= set(catalog.names("data"))


limits = pytest.mark.parametrize("limits", contract.LIMITS, ids=str)


@limits
def test_load_gives_labelled_bytes_of_one_size(source: Source, root: Path, limits: dict[str, int]) -> None:
    contract.check_load(source, [root], limits)


def test_limits_cut_the_same_pictures_out(source: Source, root: Path) -> None:
    contract.check_limits(source, [root])


@pytest.mark.parametrize("limits", contract.LIMITS[:2], ids=str)
def test_the_training_images_alone_are_those_of_the_whole(source: Source, root: Path, limits: dict[str, int]) -> None:
    contract.check_training_part(source, [root], limits)


def test_loading_again_gives_the_same(source: Source, root: Path) -> None:
    contract.check_again(source, [root])


@limits
def test_facts_agree_with_load(source: Source, root: Path, limits: dict[str, int]) -> None:
    contract.check_facts(source, [root], limits)


def test_digest_and_pictures_follow_the_content_not_the_place(
    name: str, source: Source, root: Path, tmp_path: Path
) -> None:
    there, other = tmp_path / "there", tmp_path / "other"
    there.mkdir()
    other.mkdir()
    TINY[name](there, 0)
    TINY[name](other, 1)
    contract.check_digest(source, root, there)
    if name not in EMBEDDED:
        contract.check_content(source, root, other)


def test_description_rebuilds_it(name: str, source: Source) -> None:
    for variant in (source, replace(source, max_train=5)):
        check_settings(variant)
        assert catalog.describe(variant)["name"] == name
    assert replace(source, max_train=5) != source


def test_every_setting_is_documented(name: str) -> None:
    documentation = catalog.documentation("data", name)
    assert documentation.summary
    assert [field.name for field in documentation.fields if not field.text] == []


def test_data_that_are_not_there_are_refused(name: str, source: Source, tmp_path: Path) -> None:
    if name in EMBEDDED:
        pytest.skip("reads no file")
    contract.check_absent(source, tmp_path / "nowhere")


def test_unreadable_files_are_refused(name: str, source: Source, root: Path) -> None:
    if name in EMBEDDED:
        pytest.skip("reads no file")
    contract.check_damaged(source, root)
