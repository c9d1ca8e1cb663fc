"""Hugging Face style parquet."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from bascule.core.catalog import describe
from bascule.core.errors import RequestError
from bascule.data import _parquet
from bascule.data.parquet import Parquet


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def flat(value: int, height: int = 2, width: int = 3) -> bytes:
    """A picture of one grey."""
    return encode(np.full((height, width, 3), value, np.uint8))


def write(
    path: Path,
    pictures: list[Any],
    labels: Any,
    *,
    image: str = "image",
    label: str = "label",
    raw: bool = False,
    names: list[str] | None = None,
    rows: int = 2,
) -> None:
    """A parquet file as `datasets` writes it; `raw` puts the bytes straight into the column."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = pictures if raw else [None if cell is None else {"bytes": cell, "path": "x.png"} for cell in pictures]
    kind = pa.binary() if raw else pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({image: pa.array(cells, kind), label: labels})
    if names is not None:
        note = {"info": {"features": {image: {"_type": "Image"}, label: {"_type": "ClassLabel", "names": names}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(note)})
    pq.write_table(table, path, row_group_size=rows)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A set of 5 training pictures (greys 10 .. 50) and 2 test pictures (60, 70), two classes."""
    write(tmp_path / "set" / "train-00000-of-00001.parquet", [flat(v) for v in (10, 20, 30, 40, 50)], [0, 1, 0, 1, 1])
    write(tmp_path / "set" / "test-00000-of-00001.parquet", [flat(60), flat(70)], [1, 0])
    return tmp_path


def greys(pixels: Any) -> list[int]:
    """The grey of each picture, which must be the same everywhere in it."""
    whole = pixels[torch.arange(pixels.shape[0])].flatten(1)
    assert bool((whole == whole[:, :1]).all())
    return whole[:, 0].tolist()


def test_reads_pictures_labels_and_ids_in_file_order(root: Path) -> None:
    train, test = Parquet(path="set").load([root])
    assert greys(train.pixels) == [10, 20, 30, 40, 50]
    assert greys(test.pixels) == [60, 70]
    assert train.labels.tolist() == [0, 1, 0, 1, 1]
    assert train.ids.tolist() == [0, 1, 2, 3, 4]
    assert train.size == (3, 2, 3)
    assert train.classes == ("0", "1")


def test_places_of_pixels_and_channels(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)  # height, width, channel
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", [encode(pixels)], [0])
    x = Parquet(path=str(tmp_path)).load([tmp_path]).train.pixels[torch.tensor([0])][0]
    assert x[0].tolist() == [[0, 3, 6], [9, 12, 15]]
    assert x[2].tolist() == [[2, 5, 8], [11, 14, 17]]


def test_small_batches_give_the_same_pictures(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_parquet, "_ROWS", 1)
    assert greys(Parquet(path="set").load([root]).train.pixels) == [10, 20, 30, 40, 50]


def test_raw_bytes_and_other_column_names(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write(tmp_path / f"{split}.parquet", [flat(1), flat(2)], [0, 1], image="img", label="fine_label", raw=True)
    assert greys(Parquet(path=".").load([tmp_path]).test.pixels) == [1, 2]


def test_named_columns(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", [flat(1), flat(2)], [1, 0], image="photo", label="kind")
    assert Parquet(path=".", image="photo", label="kind").load([tmp_path]).train.labels.tolist() == [1, 0]


def test_several_files_in_name_order_inside_data(tmp_path: Path) -> None:
    for i, grey in enumerate((10, 20, 30)):
        write(tmp_path / "data" / f"train-0000{i}-of-00003-a1b2.parquet", [flat(grey)], [i])
    write(tmp_path / "data" / "val-00000-of-00001.parquet", [flat(40)], [0])
    train, test = Parquet(path=".").load([tmp_path])
    assert greys(train.pixels) == [10, 20, 30]
    assert greys(test.pixels) == [40]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet"),
        ("default/train-00000-of-00001.parquet", "default/validation-00000-of-00001.parquet"),
        ("train/0000.parquet", "test/0000.parquet"),
        ("train/train-00000-of-00001.parquet", "valid/valid-00000-of-00001.parquet"),
        ("data/train/0000.parquet", "data/validation/0000.parquet"),
        ("plain_text/train/0000.parquet", "plain_text/test/0000.parquet"),
    ],
)
def test_clones_of_the_hub(tmp_path: Path, train: str, test: str) -> None:
    write(tmp_path / train, [flat(10), flat(20)], [0, 1])
    write(tmp_path / test, [flat(30)], [0])
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.md").write_text("x")
    found = Parquet(path=".").load([tmp_path])
    assert (greys(found.train.pixels), greys(found.test.pixels)) == ([10, 20], [30])


def test_several_sets_in_one_clone_are_named(tmp_path: Path) -> None:
    for name in ("coarse", "fine"):
        write(tmp_path / "set" / name / "train.parquet", [flat(10)], [0])
    refused(tmp_path, "set: several sub-folders hold training files: coarse, fine; give one of them as the path")


def test_files_in_the_folder_itself_go_first(root: Path) -> None:
    for name in ("train/0000", "test/0000", "other/train-00000-of-00001"):
        write(root / "set" / f"{name}.parquet", [flat(99)], [0])
    found = Parquet(path="set").load([root])
    assert (greys(found.train.pixels), greys(found.test.pixels)) == ([10, 20, 30, 40, 50], [60, 70])


def test_test_files_go_before_validation_files(root: Path) -> None:
    write(root / "set" / "validation.parquet", [flat(99)], [0])
    assert greys(Parquet(path="set").load([root]).test.pixels) == [60, 70]


def test_annotated_class_names_are_used_and_given_ones_go_first(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", [flat(1), flat(2)], [0, 1], names=["cat", "dog", "owl"])
    assert Parquet(path=".").load([tmp_path]).train.classes == ("cat", "dog", "owl")
    assert Parquet(path=".", classes=("a", "b")).load([tmp_path]).train.classes == ("a", "b")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_names_of_classes_as_labels(tmp_path: Path, kind: pa.DataType) -> None:
    write(tmp_path / "train.parquet", [flat(v) for v in (1, 2, 3)], pa.array(["dog", "cat", "dog"]).cast(kind))
    write(tmp_path / "test.parquet", [flat(4)], pa.array(["owl"]).cast(kind))
    for source, classes in (
        (Parquet(path="."), ("cat", "dog", "owl")),
        (Parquet(path=".", classes=("owl", "dog", "cat")), ("owl", "dog", "cat")),
    ):
        train, test = source.load([tmp_path])
        assert train.classes == classes
        assert [classes[label] for label in (*train.labels, *test.labels)] == ["dog", "cat", "dog", "owl"]
        assert torch.equal(source.facts([tmp_path]).train_labels, train.labels)


def test_conversion_to_grey(tmp_path: Path) -> None:
    red = encode(np.array([[[255, 0, 0]]], np.uint8))
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", [red], [0])
    train = Parquet(path=".", channels=1).load([tmp_path]).train
    assert train.size == (1, 1, 1)
    assert greys(train.pixels) == [76]


def test_size_brings_all_to_one(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [flat(1, 4, 6), flat(2, 9, 5)], [0, 1])
    write(tmp_path / "test.parquet", [flat(3, 2, 2)], [0])
    train, test = Parquet(path=".", size=4).load([tmp_path])
    assert train.size == test.size == (3, 4, 4)
    assert greys(train.pixels) == [1, 2]


def test_the_cache_of_the_hub(tmp_path: Path) -> None:
    """Snapshots of links into a folder of blobs."""
    place = tmp_path / "datasets--uoft-cs--cifar10"
    rev = place / "snapshots" / "0b2714987fa478483af9968de7c934580d0bb9a2" / "plain_text"
    (place / "refs").mkdir(parents=True)
    rev.mkdir(parents=True)
    for name, greys_ in (("train", [10, 20]), ("test", [30])):
        blob = place / "blobs" / name
        write(blob, [flat(grey) for grey in greys_], list(range(len(greys_))))
        (rev / f"{name}-00000-of-00001.parquet").symlink_to(blob)
    train, test = Parquet(path=place.name).load([tmp_path])
    assert (greys(train.pixels), greys(test.pixels)) == ([10, 20], [30])
    (rev.parent.parent / "other").mkdir()
    refused(
        tmp_path, r"no train.*it holds the folders 0b2714987fa478483af9968de7c934580d0bb9a2, other", path=place.name
    )


class TestArrow:
    """Files as the `datasets` library writes them: Arrow's streaming format."""

    def write(
        self, path: Path, pictures: list[Any], labels: list[int], *, stream: bool = True, names: Any = ("cat", "dog")
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        cells = pa.array([{"bytes": one, "path": None} for one in pictures], kind)
        note = {"info": {"features": {"label": {"_type": "ClassLabel", "names": list(names)}}}}
        schema = pa.schema({"img": kind, "label": pa.int64()}, {"huggingface": json.dumps(note)})
        table = pa.Table.from_arrays([cells, pa.array(labels)], schema=schema)
        with (pa.ipc.new_stream if stream else pa.ipc.new_file)(str(path), schema) as writer:
            writer.write_table(table, max_chunksize=2)

    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize(
        ("train", "test"),
        [
            ("uoft-cs___cifar10/plain_text/0.0.0/0b27149/cifar10-train.arrow", "cifar10-test.arrow"),
            ("mnist/mnist/1.0.0/0b27149/mnist-train.arrow", "mnist-validation.arrow"),
            ("set/default/0.0.0/0b27149/set-train-00000-of-00001.arrow", "set-test-00000-of-00001.arrow"),
            ("saved/train/data-00000-of-00001.arrow", "../test/data-00000-of-00001.arrow"),
            ("saved/train/dataset.arrow", "../validation/dataset.arrow"),
        ],
    )
    def test_usual_places(
        self, tmp_path: Path, train: str, test: str, stream: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_parquet, "_ROWS", 1)
        place = (tmp_path / train).parent
        self.write(tmp_path / train, [flat(v) for v in (10, 20, 30, 40, 50)], [0, 1, 0, 1, 1], stream=stream)
        self.write(place / test, [flat(60), flat(70)], [1, 0], stream=stream)
        (place / "dataset_info.json").write_text("{}")
        (place / "cache-1a2b.arrow").write_bytes(b"what map() left there")
        (tmp_path / train.split("/")[0] / "some.lock").write_text("")
        source = Parquet(path=train.split("/")[0])
        found = source.load([tmp_path])
        assert greys(found.train.pixels) == [10, 20, 30, 40, 50]
        assert (greys(found.test.pixels), found.test.labels.tolist()) == ([60, 70], [1, 0])
        assert found.train.classes == ("cat", "dog")
        assert source.facts([tmp_path]).train_labels.tolist() == [0, 1, 0, 1, 1]
        source.check([tmp_path])

    def test_several_files_and_a_missing_part(self, tmp_path: Path) -> None:
        for part, grey in (("00000", 10), ("00001", 20)):
            self.write(tmp_path / f"set-train-{part}-of-00002.arrow", [flat(grey)], [int(part)])
        self.write(tmp_path / "set-test.arrow", [flat(30)], [0])
        assert greys(Parquet(path=".").load([tmp_path]).train.pixels) == [10, 20]
        (tmp_path / "set-train-00000-of-00002.arrow").unlink()
        refused(tmp_path, "set-train-00000-of-00002 is missing", path=".")

    @pytest.mark.parametrize("damage", ["empty", "cut", "zeros", "text", "flipped"])
    def test_refuses_a_damaged_file(self, tmp_path: Path, damage: str) -> None:
        path = tmp_path / "set" / "set-train.arrow"
        for split in ("train", "test"):
            self.write(tmp_path / "set" / f"set-{split}.arrow", [flat(10), flat(20)], [0, 1])
        content = path.read_bytes()
        offsets = content.find(np.array([0, len(flat(10))], np.int32).tobytes())
        assert offsets > 0
        flipped = content[:offsets] + b"\xff\xff\xff\x7f" + content[offsets + 4 :]
        cut = content[: len(content) // 2]
        broken = {"empty": b"", "cut": cut, "zeros": bytes(len(content)), "text": b"hello, world", "flipped": flipped}
        path.write_bytes(broken[damage])
        refused(tmp_path, "set-train.arrow: damaged or unreadable Arrow file")

    def test_pictures_that_are_elsewhere_are_refused(self, tmp_path: Path) -> None:
        """`load_dataset("imagefolder")` keeps paths."""
        for split in ("train", "test"):
            self.write(tmp_path / "set" / f"set-{split}.arrow", [None], [0])
        refused(tmp_path, "row 0: no picture bytes; write the file with the bytes embedded")

    def test_a_saved_set_without_a_split(self, tmp_path: Path) -> None:
        labels = [0] * 6 + [1] * 5
        self.write(tmp_path / "set" / "data-00000-of-00001.arrow", [flat(10 + v) for v in range(11)], labels)
        (tmp_path / "set" / "state.json").write_text("{}")
        refused(
            tmp_path,
            "set: training files but neither .*; it holds the files data-00000-of-00001.arrow, state.json. "
            "Add them, or set `test_share`",
        )
        assert len(Parquet(path="set").load_train([tmp_path])) == 11
        source = Parquet(path="set", test_share=0.2)
        assert len(source.without_test().load_train([tmp_path])) == 11
        with pytest.warns(UserWarning, match=r"no file says .* 20 % of each class.* \(2 of 11 pictures\)"):
            train, test = source.load([tmp_path])
        assert sorted(greys(train.pixels) + greys(test.pixels)) == list(range(10, 21))
        with pytest.warns(UserWarning, match="20 %"):
            facts = source.facts([tmp_path])
        assert torch.equal(facts.train_labels, train.labels)
        assert test.ids.tolist() == [0, 1]
        assert "test_share" not in describe(Parquet(path="set"))


# --- refused ---------------------------------------------------------------------------------------------------------


def refused(root: Path, text: str, **settings: Any) -> None:
    with pytest.raises(RequestError, match=text):
        Parquet(**{"path": "set", **settings}).load([root])


TRAIN = "train-00000-of-00001.parquet"


def test_refuses_other_sizes_naming_the_first_row(root: Path) -> None:
    write(root / "set" / TRAIN, [flat(1), flat(2), flat(3, 5, 4), flat(4, 6, 6)], [0, 1, 0, 1])
    refused(root, rf"{TRAIN}: row 2: picture of 5 x 4 pixels .* where 2 x 3 is expected. Set `size`")


def test_refuses_a_test_set_of_another_size(root: Path) -> None:
    write(root / "set" / "test-00000-of-00001.parquet", [flat(1, 5, 5)], [0])
    refused(root, "test-00000-of-00001.parquet: row 0: picture of 5 x 5 pixels .* where 2 x 3 is expected")


def test_refuses_a_damaged_picture_naming_its_row(root: Path) -> None:
    jpeg = encode(np.zeros((2, 3, 3), np.uint8), "JPEG")
    write(root / "set" / TRAIN, [jpeg, jpeg, jpeg, jpeg[:-3]], [0, 1, 0, 1])
    refused(root, rf"{TRAIN}: row 3: damaged or unreadable picture \(.*truncated.*\); replace or remove it")


def test_a_damaged_first_picture_is_named_by_peek_too(root: Path) -> None:
    write(root / "set" / TRAIN, [b"hello"], [0])
    with pytest.raises(RequestError, match=f"{TRAIN}: row 0: damaged, or not of a known format"):
        Parquet(path="set").facts([root])


@pytest.mark.parametrize("empty", [None, b""])
def test_refuses_a_row_without_bytes(root: Path, empty: bytes | None) -> None:
    write(root / "set" / TRAIN, [flat(1), flat(1), empty], [0, 1, 0])
    refused(root, rf"{TRAIN}: row 2: no picture bytes; write the file with the bytes embedded")


def test_refuses_other_labels(root: Path) -> None:
    write(root / "set" / TRAIN, [flat(1)], ["cat"])
    refused(root, "set: labels are texts in one split and numbers in the other")
    write(root / "set" / "test-00000-of-00001.parquet", [flat(1)], ["owl"])
    refused(root, "set: a label: owl is not among the `classes`", classes=("cat", "dog"))
    write(root / "set" / TRAIN, [flat(1), flat(1)], ["cat", ""])
    refused(root, "set: a label holds an empty text; give every image the name of its class")
    write(root / "set" / TRAIN, [flat(1)], [0.0])
    refused(root, "column 'label' holds double; labels must be integers from 0, or texts")


def test_refuses_a_missing_label(root: Path) -> None:
    write(root / "set" / TRAIN, [flat(1), flat(1), flat(1)], [0, 1, None])
    refused(root, rf"{TRAIN}: row 2 has no label")


def test_refuses_labels_that_do_not_fit(root: Path) -> None:
    refused(root, "set: labels go up to 1, but 1 class is named", classes=("cat",))
    write(root / "set" / TRAIN, [flat(1), flat(1)], [0, -1])
    refused(root, "set: training image 1 has the label -1")
    write(root / "set" / TRAIN, [flat(1), flat(1)], [0, 3])
    refused(root, "set: labels go up to 3, but no image has the label 2")


def test_refuses_numbers_as_pictures(root: Path) -> None:
    pq.write_table(pa.table({"image": [1, 2], "label": [0, 1]}), root / "set" / TRAIN)
    refused(root, "column 'image' holds int64; pictures must be bytes, or a struct with `bytes`")


def test_refuses_a_missing_column(root: Path) -> None:
    refused(root, "unknown image column 'imge'. Did you mean 'image'", image="imge")
    write(root / "set" / TRAIN, [flat(1)], [0], label="kind")
    refused(root, "no label column called label or labels or fine_label; set `label` to one of: image, kind")


def test_refuses_splits_that_name_different_classes(root: Path) -> None:
    write(root / "set" / TRAIN, [flat(1), flat(1)], [0, 1], names=["cat", "dog"])
    write(root / "set" / "test-00000-of-00001.parquet", [flat(1)], [0], names=["dog", "cat"])
    refused(root, "training files name the classes cat, dog, test files dog, cat")


def test_refuses_a_missing_part(root: Path) -> None:
    (root / "set" / TRAIN).rename(root / "set" / "train-00000-of-00002.parquet")
    refused(root, "train-00001-of-00002 is missing; the set must be complete")


def test_refuses_a_part_that_is_there_twice(root: Path) -> None:
    content = (root / "set" / TRAIN).read_bytes()
    (root / "set" / "train-00000-of-00001-b2.parquet").write_bytes(content)
    refused(root, "train-00000-of-00001 is there more than once")


def test_refuses_an_empty_table(root: Path) -> None:
    write(root / "set" / TRAIN, [], pa.array([], pa.int64()))
    refused(root, f"{TRAIN}: the set holds no rows")


def test_refuses_missing_files(root: Path) -> None:
    (root / "set" / "test-00000-of-00001.parquet").unlink()
    refused(root, "set: training files but neither test")
    (root / "set" / TRAIN).unlink()
    refused(root, "no train.*parquet in .*set or .*data")


@pytest.mark.parametrize("damage", ["empty", "cut", "zeros", "text"])
def test_refuses_a_damaged_file(root: Path, damage: str) -> None:
    path = root / "set" / TRAIN
    content = path.read_bytes()
    middle = len(content) // 2
    broken = {"empty": b"", "cut": content[:middle], "zeros": bytes(len(content)), "text": b"hello, world"}
    path.write_bytes(broken[damage])
    refused(root, f"{TRAIN}: damaged or unreadable parquet file")


def test_refuses_damage_that_page_checksums_reveal(root: Path) -> None:
    path = root / "set" / TRAIN
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    table = pa.table({"image": [encode(pixels, "BMP")] * 2, "label": [0, 1]})
    pq.write_table(table, path, write_page_checksum=True, compression="none")
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)
    refused(root, f"{TRAIN}: damaged or unreadable parquet file .*CRC")


@pytest.mark.data
def test_real_cifar10_as_any_parquet_set(data_root: Path) -> None:
    facts = Parquet(path="cifar10").facts([data_root])
    assert facts.size == (3, 32, 32)
    assert facts.classes[3] == "cat"
    assert len(facts.train_labels) == 50_000
    assert facts.test_labels.bincount().tolist() == [1000] * 10


def test_a_check_reads_the_header_of_every_picture(root: Path) -> None:
    source, path = Parquet(path="set"), root / "set" / "test-00000-of-00001.parquet"
    source.check([root])
    write(path, [flat(60), b"hello"], [1, 0])
    with pytest.raises(RequestError, match=r"test-00000-of-00001.parquet: row 1: damaged, or not of a known format"):
        source.check([root])
    write(path, [flat(60), flat(60, height=4)], [1, 0])
    with pytest.raises(RequestError, match=r"row 1: picture of 4 x 3 pixels .* where 2 x 3 is expected"):
        source.check([root])
    Parquet(path="set", size=2).check([root])
    wide = BytesIO()
    Image.fromarray(np.full((2, 3), 40000, np.uint16)).save(wide, "PNG")
    write(path, [flat(60), wide.getvalue()], [1, 0])
    with pytest.warns(UserWarning, match="16 bits per channel are scaled to 8 bits"):
        source.check([root])


@pytest.mark.parametrize(("deep", "of"), [(False, "in the 2 pictures looked at, "), (True, "")])
def test_pictures_of_zeros_and_ones_get_a_word(root: Path, deep: bool, of: str) -> None:
    write(root / "set" / "train-00000-of-00001.parquet", [flat(0), flat(1)], [0, 1])
    with pytest.warns(UserWarning, match=f"^parquet: {of}all pixels are 0 or 1"):
        Parquet(path="set").check([root], deep=deep)
