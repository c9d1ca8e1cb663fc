"""CIFAR-100 as its authors' pickles and as parquet; what it shares with CIFAR-10 is tested there."""

from __future__ import annotations

import json
import os
import pickle
import tarfile
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
from bascule.data.cifar100 import Cifar100
from pickles import python2_pickle

CLASSES = {form: Cifar100(labels=form)._set.classes for form in ("fine", "coarse")}


def batch(number: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (count, 3072), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "cifar-100-python"
    place.mkdir()
    train = python2_pickle(batch(0), coarse_labels=[11, 15, 4], fine_labels=[19, 29, 0])
    (place / "train").write_bytes(train)
    (place / "test").write_bytes(python2_pickle(batch(1), coarse_labels=[10, 10, 19], fine_labels=[49, 33, 72]))
    names = {f"{form}_label_names".encode(): [name.encode() for name in CLASSES[form]] for form in CLASSES}
    (place / "meta").write_bytes(pickle.dumps(names, protocol=4))
    return place


def test_names_of_classes() -> None:
    """Counts, and fine labels with their superclass as the authors' page groups them."""
    assert {form: len(set(names)) for form, names in CLASSES.items()} == {"fine": 100, "coarse": 20}
    assert all(list(names) == sorted(names) for names in CLASSES.values())
    assert (CLASSES["fine"][19], CLASSES["coarse"][11]) == ("cattle", "large_omnivores_and_herbivores")
    assert (CLASSES["fine"][29], CLASSES["coarse"][15]) == ("dinosaur", "reptiles")


@pytest.mark.parametrize("packed", [False, True])
def test_pickles(folder: Path, tmp_path: Path, packed: bool) -> None:
    root = tmp_path
    if packed:
        root = tmp_path / "packed"
        root.mkdir()
        with tarfile.open(root / "cifar-100-python.tar.gz", "w:gz") as file:
            file.add(folder, folder.name)
    train, test = Cifar100().load([root])
    assert (train.labels.tolist(), test.labels.tolist()) == ([19, 29, 0], [49, 33, 72])
    assert train.classes == CLASSES["fine"]
    assert np.array_equal(train.pixels[torch.arange(3)].flatten(1).numpy(), batch(0))
    coarse = Cifar100(labels="coarse").load([root])
    assert (coarse.train.labels.tolist(), coarse.test.labels.tolist()) == ([11, 15, 4], [10, 10, 19])
    assert coarse.train.classes == CLASSES["coarse"]


@pytest.mark.parametrize("form", ["fine", "coarse"])
def test_parquet_as_on_the_hub(tmp_path: Path, form: str) -> None:
    """The hub's annotation calls the crab `cra`."""
    place = tmp_path / "cifar100" / "cifar100"
    place.mkdir(parents=True)
    names = {"fine": ["cra" if name == "crab" else name for name in CLASSES["fine"]], "coarse": [*CLASSES["coarse"]]}
    file = BytesIO()
    Image.fromarray(batch(0, 1).reshape(32, 32, 3)).save(file, "PNG")
    cells = [{"bytes": file.getvalue(), "path": None}] * 2
    features = {f"{key}_label": {"names": value, "_type": "ClassLabel"} for key, value in names.items()}
    table = pa.table({"img": cells, "fine_label": [19, 99], "coarse_label": [11, 13]})
    for split in ("train", "test"):
        noted = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(noted, place / f"{split}-00000-of-00001.parquet")
    train, _ = Cifar100(labels=form).load([tmp_path])  # type: ignore[arg-type]
    assert train.labels.tolist() == {"fine": [19, 99], "coarse": [11, 13]}[form]
    assert train.classes == CLASSES[form]


@pytest.mark.parametrize(
    ("loaded", "text"),
    [
        ({b"data": batch(0), b"labels": [0, 1, 2]}, "'fine_labels' must be a list of integers in 0..99: not a file of"),
        ({b"data": batch(0), b"fine_labels": [0, 1, 100]}, "'fine_labels' must be a list of integers in 0..99"),
        ({b"data": batch(0), b"fine_labels": [0, 1]}, "3 images but 2 labels"),
        ({b"data": os.system, b"fine_labels": [0]}, r"refused, because it asks for \w+.system"),
    ],
)
def test_refuses_other_content(loaded: Any, text: str, folder: Path, tmp_path: Path) -> None:
    (folder / "train").write_bytes(pickle.dumps(loaded, protocol=4))
    with pytest.raises(RequestError, match=f"train: {text}"):
        Cifar100().load([tmp_path])


def test_refuses_what_is_not_there(folder: Path, tmp_path: Path) -> None:
    (folder / "test").unlink()
    with pytest.raises(RequestError, match=r"python: test not found. Give .* it holds the files meta, train\."):
        Cifar100().load([tmp_path])
    with pytest.raises(RequestError, match=r"no 'cifar100' or .* bascule data get cifar100"):
        Cifar100().load([tmp_path / "nowhere"])


def test_refuses_cifar10s_names(folder: Path, tmp_path: Path) -> None:
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": [b"cat"]}))
    with pytest.raises(RequestError, match=r"meta: the classes are cat: not CIFAR-100"):
        Cifar100().load([tmp_path])


def test_pickles_written_anew_by_python_3_are_read(folder: Path, tmp_path: Path) -> None:
    """Protocol 2 has no bytes: Python 3 writes a text and asks for `_codecs.encode`, answered for latin1 alone."""
    before = Cifar100().load([tmp_path]).train
    for name in ("train", "test", "meta"):
        loaded = pickle.loads((folder / name).read_bytes(), encoding="bytes")
        content = pickle.dumps(loaded, protocol=2)
        assert b"_codecs" in content
        (folder / name).write_bytes(content)
    after = Cifar100().load([tmp_path]).train
    assert torch.equal(before.pixels[torch.arange(3)], after.pixels[torch.arange(3)])
    for other in (b"c_codecs\nencode\n(Va\nVutf-7\ntR.", b"c_codecs\nencode\n(I3\nVlatin1\ntR."):
        (folder / "train").write_bytes(other)
        with pytest.raises(RequestError, match="an encoding that is not of bytes"):
            Cifar100().load([tmp_path])
