"""CIFAR-10 as parquet and as its authors' pickles, which must never run anything."""

from __future__ import annotations

import json
import os
import pickle
import tarfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from bascule.core.errors import RequestError
from bascule.data.cifar10 import Cifar10
from pickles import python2_pickle

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
TRAIN = [f"data_batch_{i}" for i in range(1, 6)]


def batch(number: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (count, 3072), dtype=np.uint8)


def write_batches(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number, name in enumerate([*TRAIN, "test_batch"]):
        (folder / name).write_bytes(python2_pickle(batch(number), labels=[number, 9, 0]))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [name.encode() for name in CLASSES]}))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_batches(tmp_path / "cifar-10-batches-py")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    write_batches(tmp_path / "unpacked" / "cifar-10-batches-py")
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as file:
        for path in sorted((tmp_path / "unpacked" / "cifar-10-batches-py").iterdir(), reverse=True):
            file.add(path, f"cifar-10-batches-py/{path.name}")
    return tmp_path / "cifar-10-python.tar.gz"


def write_parquet(path: Path, labels: list[int], side: int = 32, names: list[str] = CLASSES) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = []
    for label in labels:
        file = BytesIO()
        Image.fromarray(np.full((side, side, 3), 10 * label, np.uint8)).save(file, "PNG")
        cells.append({"bytes": file.getvalue(), "path": None})
    note = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = pa.table({"img": cells, "label": labels})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(note)}), path)


def whole(pixels: Any) -> torch.Tensor:
    return pixels[torch.arange(pixels.shape[0])]


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_pickles_in_order(form: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    request.getfixturevalue(form)
    train, test = Cifar10().load([tmp_path])
    assert train.classes == tuple(CLASSES)
    assert train.labels.tolist() == [0, 9, 0, 1, 9, 0, 2, 9, 0, 3, 9, 0, 4, 9, 0]
    assert test.labels.tolist() == [5, 9, 0]
    assert test.ids.tolist() == [0, 1, 2]
    expected = np.concatenate([batch(number) for number in range(5)])
    assert np.array_equal(whole(train.pixels).flatten(1).numpy(), expected)


def test_rows_are_red_then_green_then_blue(folder: Path, tmp_path: Path) -> None:
    pixels = np.zeros((1, 3072), np.uint8)
    pixels[0, 0], pixels[0, 1024 + 32 * 2 + 5], pixels[0, 3071] = 1, 2, 3
    (folder / "test_batch").write_bytes(python2_pickle(pixels, labels=[0]))
    x = whole(Cifar10().load([tmp_path]).test.pixels)[0]
    assert (int(x[0, 0, 0]), int(x[1, 2, 5]), int(x[2, 31, 31]), int(x.sum())) == (1, 2, 3, 6)


def test_pickles_written_by_numpy_today(folder: Path, tmp_path: Path) -> None:
    for order in ("C", "F"):
        loaded = {b"data": np.asarray(batch(7), order=order), b"labels": [1, 2, 3]}
        (folder / "test_batch").write_bytes(pickle.dumps(loaded, protocol=4))
        assert np.array_equal(whole(Cifar10().load([tmp_path]).test.pixels).flatten(1).numpy(), batch(7))


def test_loaded_images_may_be_written_to(folder: Path, tmp_path: Path) -> None:
    whole(Cifar10().load([tmp_path]).test.pixels)[0] = 0


def test_archive_is_found_beside_the_parquet_folder_names(archive: Path, tmp_path: Path) -> None:
    facts = Cifar10(path=archive.name).facts([tmp_path])
    assert facts.size == (3, 32, 32)
    assert facts.test_labels.tolist() == [5, 9, 0]


@pytest.mark.parametrize("inside", ["cifar10", "cifar10/plain_text", "cifar10/data"])
def test_parquet(inside: str, tmp_path: Path) -> None:
    write_parquet(tmp_path / inside / "train-00000-of-00001.parquet", [3, 1])
    write_parquet(tmp_path / inside / "test-00000-of-00001.parquet", [2])
    train, test = Cifar10().load([tmp_path])
    assert whole(train.pixels)[:, 0, 5, 5].tolist() == [30, 10]
    assert train.classes == test.classes == tuple(CLASSES)
    assert test.labels.tolist() == [2]


# --- refused ---------------------------------------------------------------------------------------------------------


class Attack:
    """Its pickle calls `function(*arguments)` when it is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "named"),
    [(os.system, "system"), (os.mkdir, "mkdir"), (exec, "exec"), (np.save, "save")],
    ids=["system", "mkdir", "exec", "numpy"],
)
@pytest.mark.parametrize("form", ["folder", "archive"])
def test_a_malicious_pickle_runs_nothing(
    form: str, function: Callable[..., Any], named: str, protocol: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    mark = tmp_path / "mark.npy"
    arguments: tuple[object, ...] = (str(mark),)
    if function is os.system:
        arguments = (f"touch {mark}",)
    elif function is exec:
        arguments = (f"open({str(mark)!r}, 'w').close()",)
    elif function is np.save:
        arguments = (str(mark), 0)
    content = pickle.dumps({b"data": batch(0), b"labels": Attack(function, *arguments)}, protocol=protocol)

    pickle.loads(content)
    assert mark.exists(), "the attack must work, or the rest proves nothing"
    mark.rmdir() if mark.is_dir() else mark.unlink()

    path = request.getfixturevalue(form)
    if form == "folder":
        (path / "data_batch_1").write_bytes(content)
    else:
        with tarfile.open(path, "w:gz") as file:
            member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
            member.size = len(content)
            file.addfile(member, BytesIO(content))
    for action in (Cifar10().load, Cifar10().facts):
        with pytest.raises(RequestError, match=r"data_batch_1: refused, because it asks for (\S*)") as caught:
            action([tmp_path])
        assert named in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    [
        "numpy.core.multiarray\n_reconstruct.__globals__",
        "numpy\nload",
        "numpy\nndarray.tofile",
        "copyreg\n_reconstructor",
    ],
)
def test_names_near_the_allowed_ones_are_refused(name: str, folder: Path, tmp_path: Path) -> None:
    (folder / "data_batch_1").write_bytes(b"c" + name.encode() + b"\n.")
    module, _, attribute = name.partition("\n")
    with pytest.raises(RequestError, match=f"refused, because it asks for {module}.{attribute}, "):
        Cifar10().load([tmp_path])


def test_arrays_of_objects_are_refused(folder: Path, tmp_path: Path) -> None:
    loaded = {b"data": np.array([[1, None]], object), b"labels": [0]}
    (folder / "test_batch").write_bytes(pickle.dumps(loaded, protocol=4))
    with pytest.raises(RequestError, match=r"test_batch: .*an array that is not of unsigned bytes"):
        Cifar10().load([tmp_path])


@pytest.mark.parametrize(
    ("loaded", "text"),
    [
        ([1, 2], "a dictionary is expected, found list"),
        ({b"labels": [0]}, r"'data' must be an array of bytes of shape \(N, 3072\), found NoneType"),
        ({b"data": np.zeros((2, 784), np.uint8), b"labels": [0, 1]}, r".* found shape \(2, 784\)"),
        ({b"data": batch(0), b"labels": [0, 1]}, "3 images but 2 labels"),
        ({b"data": batch(0), b"labels": [0, 1, 10]}, "'labels' must be a list of integers in 0..9"),
        ({b"data": batch(0), b"labels": [0, 1, -1]}, "'labels' must be a list of integers in 0..9"),
        ({b"data": batch(0), b"labels": [0, 1, 2.0]}, "'labels' must be a list of integers in 0..9"),
        ({b"data": batch(0), b"fine_labels": [0, 1, 2]}, "'labels' must be a list of integers in 0..9"),
    ],
)
def test_refuses_other_content(loaded: Any, text: str, folder: Path, tmp_path: Path) -> None:
    (folder / "data_batch_3").write_bytes(pickle.dumps(loaded, protocol=4))
    with pytest.raises(RequestError, match=f"data_batch_3: {text}"):
        Cifar10().load([tmp_path])


def test_refuses_other_class_names(folder: Path, tmp_path: Path) -> None:
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"cat", b"dog"]}))
    with pytest.raises(RequestError, match=r"batches.meta: the classes are cat, dog: not CIFAR-10"):
        Cifar10().load([tmp_path])


def test_refuses_a_missing_batch(folder: Path, tmp_path: Path) -> None:
    (folder / "data_batch_2").unlink()
    (folder / "test_batch").unlink()
    with pytest.raises(
        RequestError, match=r"cifar-10-batches-py: data_batch_2, test_batch not found. Give a folder of"
    ):
        Cifar10().load([tmp_path])


@pytest.mark.parametrize("kept", [0, 1, 1000])
def test_refuses_a_pickle_cut_short(kept: int, folder: Path, tmp_path: Path) -> None:
    path = folder / "data_batch_4"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RequestError, match="data_batch_4: damaged or unreadable pickle"):
        Cifar10().load([tmp_path])


def test_refuses_a_damaged_archive(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    for damaged in (b"hello", content[: len(content) // 2], content[:-4]):
        archive.write_bytes(damaged)
        with pytest.raises(RequestError, match=r"cifar-10-python.tar.gz: damaged or unreadable gzipped tar archive"):
            Cifar10().load([tmp_path])


def test_refuses_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "cifar10").mkdir()
    with pytest.raises(RequestError, match=r"cifar10: data_batch_1, .* not found. Give a folder of train"):
        Cifar10().load([tmp_path])


def test_refuses_parquet_of_another_size(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_parquet(tmp_path / "cifar10" / f"{split}.parquet", [0, 1], side=28)
    with pytest.raises(
        RequestError, match=r"train.parquet: row 0: picture of 28 x 28 .* 32 x 32 is expected. Use data/p"
    ):
        Cifar10().load([tmp_path])
    with pytest.raises(RequestError, match=r"cifar10: pictures of 28 x 28 pixels, not 32 x 32. Use data/parquet"):
        Cifar10().facts([tmp_path])


def test_refuses_parquet_of_other_classes(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_parquet(tmp_path / "cifar10" / f"{split}.parquet", [0, 1], names=["apple", "bee"])
    with pytest.raises(
        RequestError, match=r"train.parquet: the classes are apple, bee: not CIFAR-10. Use data/parquet"
    ):
        Cifar10().load([tmp_path])


def test_refuses_a_label_beyond_the_classes(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_parquet(tmp_path / "cifar10" / f"{split}.parquet", [0, 10])
    with pytest.raises(RequestError, match="cifar10: labels go up to 10, but 10 classes are named"):
        Cifar10().facts([tmp_path])


# --- the real set ----------------------------------------------------------------------------------------------------


@pytest.mark.data
def test_real_set(data_root: Path) -> None:
    start = time.perf_counter()
    train, test = Cifar10().load([data_root])
    elapsed = time.perf_counter() - start
    assert (len(train), len(test), train.size) == (50_000, 10_000, (3, 32, 32))
    assert train.labels.bincount().tolist() == [5000] * 10
    assert test.labels.bincount().tolist() == [1000] * 10
    # Channel means of the training set as published with many models: 0.4914, 0.4822, 0.4465.
    means = whole(train.pixels).numpy().mean((0, 2, 3)) / 255
    assert means == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-3)
    assert elapsed < 120, f"decoding 60,000 pictures of 32 x 32 took {elapsed:.0f} s"
