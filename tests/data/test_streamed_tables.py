"""Parquet and Arrow files too large for memory: the same pictures, a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from bascule.data import _files, _parquet, _remembered, _rows, _streamed, contract
from bascule.data._rows import Rows
from bascule.data.parquet import Parquet
from folders import whole

COUNT, GROUP = 25, 4


def encoded(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def table(count: int, seed: int, *, raw: bool) -> pa.Table:
    draw = np.random.default_rng(seed)
    cells = [encoded(draw.integers(0, 256, (7, 9, 3), dtype=np.uint8)) for _ in range(count)]
    images = pa.array(cells) if raw else pa.array([{"bytes": cell, "path": "x.png"} for cell in cells])
    return pa.table({"image": images, "label": np.arange(count) % 2})


def write(path: Path, content: pa.Table) -> None:
    if path.suffix == ".parquet":
        pq.write_table(content, path, row_group_size=GROUP)
        return
    opening = pa.ipc.new_stream if path.name.endswith("train.arrow") else pa.ipc.new_file
    with opening(str(path), content.schema) as file:
        for batch in content.to_batches(max_chunksize=GROUP):
            file.write_batch(batch)


@pytest.fixture(params=["parquet", "parquet raw", "arrow"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """25 training pictures, in parquet in two files, and 3 for tests."""
    kind, _, raw = request.param.partition(" ")
    (tmp_path / "set").mkdir()
    train, test = table(COUNT, 0, raw=bool(raw)), table(3, 1, raw=bool(raw))
    if kind == "arrow":
        parts = {"x-train.arrow": train, "x-test.arrow": test}
    else:
        parts = {
            "train-00000-of-00002.parquet": train[:11],
            "train-00001-of-00002.parquet": train[11:],
            "test-00000-of-00001.parquet": test,
        }
    for name, content in parts.items():
        write(tmp_path / "set" / name, content)
    return tmp_path


def both(root: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Iterator[Any]:
    source = Parquet(path="set", **settings)
    yield source.load([root]).train
    monkeypatch.setattr(_streamed, "IN_MEMORY", 0)
    yield source.load([root]).train


@pytest.mark.parametrize("settings", [{}, {"size": 5, "channels": 1}, {"max_train": 9}], ids=str)
def test_both_ways_give_the_same(root: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    memory, streamed = both(root, monkeypatch, **settings)
    assert isinstance(memory.pixels, torch.Tensor)
    assert streamed.is_decoded
    assert torch.equal(whole(streamed.pixels), memory.pixels)
    index = torch.tensor([8, 0, 3, 3, 7])
    assert torch.equal(streamed.batch(index), memory.batch(index))
    assert torch.equal(streamed.labels, memory.labels)
    facts = Parquet(path="set", **settings).facts([root])
    monkeypatch.setattr(_streamed, "IN_MEMORY", 2**30)
    assert facts.digest == Parquet(path="set", **settings).facts([root]).digest


def test_several_threads_read_one_set(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rows, "HELD", 0)
    memory, streamed = both(root, monkeypatch)
    orders = [torch.randperm(COUNT, generator=torch.Generator().manual_seed(seed)) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        for order, pixels in zip(orders, pool.map(streamed.pixels.__getitem__, orders), strict=True):
            assert torch.equal(pixels, memory.pixels[order])


def test_row_groups_are_read_once_and_held_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, content = tmp_path / "train.parquet", table(COUNT, 0, raw=True)
    write(path, content)
    cells = content.column("image").to_pylist()
    read: list[int] = []
    real = pq.ParquetFile.read_row_group

    def counted(self: Any, number: int, **more: Any) -> Any:
        read.append(number)
        return real(self, number, **more)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    rows = Rows([path], ["image"])
    assert rows.take(range(COUNT)) == cells
    assert rows.take([24, 3, 0, 3]) == [cells[24], cells[3], cells[0], cells[3]]
    assert read == list(range(7))
    monkeypatch.setattr(_rows, "HELD", max(map(len, cells)) * 2 * GROUP + 200)
    rows = Rows([path], ["image"])
    rows.take(range(COUNT))
    assert len(rows._held) in (2, 3)
    read.clear()
    assert rows.take([0]) == cells[:1]
    assert read == [0]


def test_large_row_groups_get_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rows, "LARGE", 100)
    write(tmp_path / "train.parquet", table(COUNT, 0, raw=False))
    with pytest.warns(UserWarning, match=r"train.parquet: row groups of up to 0 MiB, each read whole for one picture"):
        Rows([tmp_path / "train.parquet"], ["image.bytes"])


def test_rows_without_pictures_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_streamed, "IN_MEMORY", 0)
    cells = [encoded(np.zeros((2, 2, 3), np.uint8)), None, b""]
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", pa.table({"image": pa.array(cells), "label": [0, 1, 0]}))
    with pytest.raises(RequestError, match=r"train.parquet: row 1: no picture bytes"):
        Parquet(path=".").load([tmp_path])
    with pytest.raises(RequestError, match=r"train.parquet: row 2: no picture bytes"):
        Rows([tmp_path / "train.parquet"], ["image"]).take([2, 0])


def test_what_takes_long_to_find_out_is_found_out_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = Parquet(path="set").facts([root]).digest
    monkeypatch.setattr(_streamed, "IN_MEMORY", 0)
    monkeypatch.setattr(_files, "HASHED", 0)
    monkeypatch.setattr(_remembered, "SETTLED", 0)
    monkeypatch.setattr(contract.Path, "home", lambda: root / "home")
    done: list[str] = []
    for name in ("content_digest", "check_headers"):
        real = getattr(_parquet, name)
        monkeypatch.setattr(_parquet, name, lambda *a, of=(name, real), **k: done.append(of[0]) or of[1](*a, **k))
    source = Parquet(path="set")
    for _ in range(2):
        assert source.facts([root]).digest == digest
        source.load([root])
    assert done.count("content_digest") == 1
    once = done.count("check_headers")
    source.load([root])
    assert done.count("check_headers") == once
    name = next(path for path in (root / "set").iterdir() if "test" in path.name)
    write(name, table(3, 5, raw=False))
    assert source.facts([root]).digest != digest
