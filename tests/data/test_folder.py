"""Image folders, in memory and streamed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bascule.core.errors import RequestError
from bascule.core.images import as_floats
from bascule.data import _files, _remembered, _streamed
from bascule.data.folder import Folder
from folders import greys, save, two_classes, whole


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return two_classes(tmp_path)


@pytest.mark.usefixtures("kept")
def test_sorted_by_class_then_name(root: Path) -> None:
    train, test = Folder(path="set").load([root])
    assert train.classes == test.classes == ("cat", "dog")
    assert greys(train.pixels) == [10, 20, 30, 40]
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert train.ids.tolist() == [0, 1, 2, 3]
    assert greys(test.pixels) == [50, 60]
    assert train.size == (3, 2, 3)


def test_the_limit_decides_what_is_held_in_memory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, in_memory in ((4 * 18, True), (4 * 18 - 1, False)):
        monkeypatch.setattr(_streamed, "IN_MEMORY", limit)
        assert isinstance(Folder(path="set").load([root]).train.pixels, torch.Tensor) is in_memory


@pytest.mark.parametrize("settings", [{}, {"size": 12}, {"channels": 1}, {"size": 40, "channels": 1}])
def test_both_ways_give_the_same_pixels(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 4)):
        for i in range(count):
            pixels = generator.integers(0, 256, (21, 34, 3), dtype=np.uint8)
            save(tmp_path / split / "ab"[i % 2] / f"{i}.{('jpg', 'png', 'webp')[i % 3]}", pixels)
    memory = Folder(path=".", **settings).load([tmp_path]).train
    monkeypatch.setattr(_streamed, "IN_MEMORY", 0)
    streamed = Folder(path=".", **settings).load([tmp_path]).train
    index = torch.tensor([29, 0, 7, 7, 15])
    assert streamed.pixels.shape == memory.pixels.shape
    assert torch.equal(streamed.pixels[index], memory.pixels[index])
    assert torch.equal(streamed.batch(index), as_floats(memory.pixels[index]))
    assert torch.equal(streamed.at(index).pixels[torch.tensor([1, 4])], memory.pixels[torch.tensor([0, 15])])


def test_cut_while_streamed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_streamed, "IN_MEMORY", 0)
    train = Folder(path="set", max_train=2).load([root]).train
    assert greys(train.pixels) == [(10, 20, 30, 40)[i] for i in train.ids.tolist()]


@pytest.mark.parametrize("name", ["test", "val", "validation"])
def test_names_of_the_test_split(name: str, root: Path) -> None:
    (root / "set" / "val").rename(root / "set" / name)
    assert greys(Folder(path="set").load([root]).test.pixels) == [50, 60]


def test_test_goes_before_val(root: Path) -> None:
    save(root / "set" / "test" / "cat" / "x.png", 70)
    save(root / "set" / "test" / "dog" / "x.png", 80)
    assert greys(Folder(path="set").load([root]).test.pixels) == [70, 80]


def test_grey_and_colour_pictures_are_converted(tmp_path: Path) -> None:
    save(tmp_path / "train" / "a" / "1.png", np.array([[9, 9]], np.uint8))
    save(tmp_path / "train" / "a" / "2.png", np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8))
    save(tmp_path / "test" / "a" / "1.png", np.array([[9, 9]], np.uint8))
    assert whole(Folder(path=".").load([tmp_path]).train.pixels).tolist() == [
        [[[9, 9]], [[9, 9]], [[9, 9]]],
        [[[255, 0]], [[0, 0]], [[0, 255]]],
    ]
    grey = Folder(path=".", channels=1).load([tmp_path]).train
    assert whole(grey.pixels).tolist() == [[[[9, 9]]], [[[76, 29]]]]


@pytest.mark.usefixtures("kept")
def test_size_brings_all_to_one(root: Path) -> None:
    save(root / "set" / "train" / "cat" / "9.ppm", 20, 7, 5)
    train, test = Folder(path="set", size=4).load([root])
    assert train.size == test.size == (3, 4, 4)
    assert greys(train.pixels) == [10, 20, 30, 40]


def test_facts_come_from_names_and_the_first_picture(root: Path) -> None:
    save(root / "set" / "train" / "dog" / "b.png", 1, 9, 9)  # not looked into
    facts = Folder(path="set").facts([root])
    assert facts.size == (3, 2, 3)
    assert facts.train_labels.tolist() == [0, 0, 1, 1]


class TestDigest:
    def digest(self, root: Path) -> str:
        return Folder(path="set").facts([root]).digest

    def test_same_elsewhere(self, root: Path, tmp_path: Path) -> None:
        before = self.digest(root)
        (tmp_path / "other").mkdir()
        (root / "set").rename(tmp_path / "other" / "set")
        assert self.digest(tmp_path / "other") == before

    def test_other_content_of_the_same_size(self, root: Path) -> None:
        before, path = self.digest(root), root / "set" / "train" / "dog" / "a.BMP"
        size = path.stat().st_size
        save(path, 31)
        assert path.stat().st_size == size
        assert self.digest(root) != before

    def test_a_renamed_file(self, root: Path) -> None:
        before, path = self.digest(root), root / "set" / "train" / "dog" / "a.BMP"
        path.rename(path.with_name("a1.BMP"))
        assert self.digest(root) != before

    def test_of_a_large_set_covers_names_and_sizes(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_files, "HASHED", 0)
        before = self.digest(root)
        save(root / "set" / "train" / "dog" / "a.BMP", 31, 4, 4)
        assert self.digest(root) != before


# --- refused ---------------------------------------------------------------------------------------------------------


def refused(root: Path, text: str, **settings: Any) -> None:
    with pytest.raises(RequestError, match=text):
        Folder(**{"path": "set", **settings}).load([root])


@pytest.mark.usefixtures("kept")
def test_refuses_other_sizes_naming_the_first_file(root: Path) -> None:
    save(root / "set" / "train" / "dog" / "a.BMP", 1, 5, 4)
    save(root / "set" / "train" / "dog" / "b.png", 1, 6, 6)
    refused(root, r"dog.a.BMP: picture of 5 x 4 pixels \(height x width\) where 2 x 3 is expected. Set `size`")


@pytest.mark.usefixtures("kept")
def test_refuses_a_test_set_of_another_size(root: Path) -> None:
    save(root / "set" / "val" / "dog" / "x.tif", 1, 5, 4)
    refused(root, r"val.dog.x.tif: picture of 5 x 4 pixels .* where 2 x 3 is expected")


def test_refuses_a_picture_cut_short(root: Path) -> None:
    path = root / "set" / "train" / "dog" / "c.JPEG"
    save(path, 1)
    path.write_bytes(path.read_bytes()[:-3])
    refused(root, r"c.JPEG: damaged or unreadable picture \(.*truncated.*\); replace or remove it")


def test_a_streamed_picture_cut_short_is_refused_when_it_is_used(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_streamed, "IN_MEMORY", 0)
    path = root / "set" / "train" / "dog" / "c.JPEG"
    save(path, 1)
    path.write_bytes(path.read_bytes()[:-3])
    train = Folder(path="set").load([root]).train
    assert train.pixels[torch.tensor([0])].shape == (1, 3, 2, 3)
    with pytest.raises(RequestError, match=r"c.JPEG: damaged or unreadable picture"):
        train.pixels[torch.tensor([0, 4])]


def test_a_bad_first_picture_is_named_by_peek_too(root: Path) -> None:
    (root / "set" / "train" / "cat" / "10.png").write_bytes(b"hello")
    with pytest.raises(RequestError, match=r"10.png: damaged, or not of a known format"):
        Folder(path="set").facts([root])


def test_refuses_classes_that_do_not_agree(root: Path) -> None:
    save(root / "set" / "train" / "owl" / "a.png", 1)
    refused(root, "val: no sub-folder for owl, which train has; both need the same classes")
    for number in range(8):
        save(root / "set" / "val" / f"v{number}" / "a.png", 1)
    save(root / "set" / "val" / "owl" / "a.png", 1)
    refused(root, "train: no sub-folder for v0, v1, v2, v3, v4 and 3 more, which val has")


def test_refuses_a_class_without_pictures(root: Path) -> None:
    (root / "set" / "train" / "owl").mkdir()
    refused(root, r"train.owl: no pictures in this folder; known endings: .bmp, .*.webp")


def test_refuses_pictures_outside_classes(root: Path) -> None:
    for split in ("train", "val"):
        for path in list((root / "set" / split).iterdir()):
            path.rename(root / "set" / f"{split}-{path.name}")
    refused(root, "train: no sub-folders; the pictures of each class belong in a folder of its name")


def test_refuses_a_missing_split(root: Path) -> None:
    (root / "set" / "val").rename(root / "set" / "values")
    refused(root, "set: needs a folder train and a folder test, val or validation, each with one sub-folder")


def test_what_is_left_out_is_counted_and_named(root: Path) -> None:
    place = root / "set" / "train"
    (place / "dog" / "notes.txt").write_text("x")
    (place / "dog" / ".hidden.png").write_text("x")
    (place / ".cache").mkdir()
    (place / "list.csv").write_text("x")
    save(place / "dog" / "young" / "1.png", 1)
    save(place / "dog" / "young" / "small" / "2.png", 1)
    for name, target in (("gone.png", "nowhere.png"), ("round.png", "round.png"), ("good.png", "b.png")):
        (place / "dog" / name).symlink_to(target)
    (place / "owl").symlink_to("nowhere")
    os.mkfifo(place / "dog" / "pipe.png")
    with pytest.warns(UserWarning, match=r"train: left out are ") as caught:
        train = Folder(path="set").load([root]).train
    assert greys(train.pixels) == [10, 20, 30, 40, 40]
    (said,) = {str(one.message) for one in caught}
    for part in (
        "2 hidden files or folders, e.g. .cache",
        "2 files that are no pictures, e.g. dog/notes.txt",
        "2 pictures in sub-folders of classes, e.g. dog/young/1.png",
        "3 links that lead nowhere, e.g. dog/gone.png",
        "1 file beside the folders of classes, e.g. list.csv",
    ):
        assert part in said


def test_a_single_one_that_is_left_out_is_no_plural(root: Path) -> None:
    (root / "set" / "train" / "dog" / "gone.png").symlink_to("nowhere.png")
    with pytest.warns(UserWarning, match=r"train: left out is 1 link that leads nowhere, e.g. dog/gone.png$"):
        Folder(path="set").load([root])


@pytest.mark.parametrize("size", [None, 2])
def test_a_check_reads_all_headers_and_a_deep_one_all_pixels(
    root: Path, monkeypatch: pytest.MonkeyPatch, size: int | None
) -> None:
    monkeypatch.setattr(_streamed, "IN_MEMORY", 0)
    source, path = Folder(path="set", size=size), root / "set" / "train" / "dog" / "c.JPEG"
    source.check([root], deep=True)
    save(path, 1)
    path.write_bytes(path.read_bytes()[:-3])
    source.check([root])
    with pytest.raises(RequestError, match=r"c.JPEG: damaged or unreadable picture"):
        source.check([root], deep=True)
    path.write_bytes(b"hello")
    for look in (source.check, source.load):
        with pytest.raises(RequestError, match=r"c.JPEG: damaged, or not of a known format"):
            look([root])


def test_a_file_that_vanishes_meanwhile_is_one_message(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_streamed, "IN_MEMORY", 0)
    train = Folder(path="set").load([root]).train
    path = sorted((root / "set" / "train" / "dog").iterdir())[0]
    path.unlink()
    with pytest.raises(RequestError, match=f"{path.name}: this file is not there any more; put it back"):
        train.batch(torch.arange(4))


@pytest.mark.usefixtures("large")
class TestRemembered:
    """The headers of a large set are read once."""

    @pytest.fixture
    def read(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """How many headers were read at a time."""
        counts: list[int] = []
        real = _streamed.check_headers

        def counted(contents: Any, *given: Any, **more: Any) -> bool:
            counts.append(len(contents))
            return real(contents, *given, **more)

        monkeypatch.setattr(_streamed, "check_headers", counted)
        return counts

    def test_until_a_file_is_changed_added_removed_or_renamed(self, root: Path, read: list[int]) -> None:
        def start() -> list[int]:
            read.clear()
            Folder(path="set").load([root])
            return list(read)

        dog = root / "set" / "train" / "dog"
        assert start() == [4, 2]
        assert start() == []
        save(dog / "new.png", 70)
        assert start() == [5]
        (dog / "new.png").rename(dog / "renamed.png")
        assert start() == [5]
        (dog / "renamed.png").unlink()
        assert start() == []  # as it was before

    def test_what_looks_like_the_file_but_is_another_one_is_read(self, root: Path, read: list[int]) -> None:
        path = sorted((root / "set" / "train" / "dog").iterdir())[-1]
        Folder(path="set").load([root])
        before = path.stat()
        path.write_bytes(b"hello".ljust(before.st_size))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(RequestError, match=f"{path.name}: damaged, or not of a known format"):
            Folder(path="set").load([root])

    def test_what_was_written_just_now_is_read_again(
        self, root: Path, read: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_remembered, "SETTLED", 3600 * 10**9)
        for _ in range(2):
            Folder(path="set").load([root])
        assert read == [4, 2, 4, 2]

    def test_16_bits_get_a_word_each_time(self, root: Path, read: list[int]) -> None:
        Image.fromarray(np.full((2, 3), 40000, np.uint16)).save(root / "set" / "train" / "dog" / "wide.png")
        for _ in range(2):
            with pytest.warns(UserWarning, match="16 bits per channel are scaled to 8 bits"):
                Folder(path="set").load([root])
        assert read == [5, 2]

    def test_what_was_not_used_for_longest_makes_room(
        self, root: Path, read: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_remembered, "MOST_FILES", 2)
        Folder(path="set").load([root])
        Folder(path="set", size=2).load([root])
        assert read == [4, 2, 4, 2]
        assert len([*(root / "home" / ".cache" / "bascule" / "files").iterdir()]) == 2
        Folder(path="set", size=2).load([root])
        assert read == [4, 2, 4, 2]
        Folder(path="set").load([root])
        assert read == [4, 2, 4, 2, 4, 2]


def test_pictures_of_zeros_and_ones_get_a_word(root: Path, kept: str) -> None:
    for path in [*(root / "set" / "train").glob("*/*")]:
        path.unlink()
    for name in ("cat", "dog"):
        save(root / "set" / "train" / name / "a.png", np.array([[[0, 1, 0]] * 3] * 2, np.uint8))
    with pytest.warns(UserWarning, match="folder: all pixels are 0 or 1 on a scale from 0 to 255"):
        Folder(path="set").check([root], deep=True)
    few = "in the 2 pictures looked at, "
    with pytest.warns(UserWarning, match=f"^folder: {few}all pixels are 0 or 1"):
        Folder(path="set").check([root])
    with pytest.warns(UserWarning, match=f"^folder: {'' if kept == 'in memory' else few}all pixels are 0 or 1"):
        Folder(path="set").load([root])


def test_one_bright_picture_among_dark_ones_is_enough(root: Path) -> None:
    save(root / "set" / "train" / "cat" / "a.png", 0)
    Folder(path="set").check([root])  # a warning would be an error


def test_pictures_with_16_bits_get_a_word_from_their_headers(root: Path) -> None:
    Image.fromarray(np.full((2, 3), 40000, np.uint16)).save(root / "set" / "train" / "dog" / "wide.png")
    with pytest.warns(UserWarning, match="16 bits per channel are scaled to 8 bits"):
        Folder(path="set").check([root])


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (("Train/a", "Tset/a"), "it holds the folders Train, Tset"),
        (("train/a", "values/a"), "it holds the folders train, values"),
        (
            tuple(f"class{i}" for i in range(20)),
            "it holds the folders class0, class1, class10, class11, .* and 12 more",
        ),
        ((), "it holds nothing"),
    ],
)
def test_a_refusal_names_what_is_there(tmp_path: Path, there: tuple[str, ...], said: str) -> None:
    (tmp_path / "set").mkdir()
    for name in there:
        (tmp_path / "set" / name).mkdir(parents=True)
    refused(tmp_path, f"needs a folder train and a folder test, val or validation.*; {said}")
    for split in ("train", "test"):
        for deeper in ("cat/a", "cat/b", "dog/a"):
            save(tmp_path / "set" / split / deeper / "1.png", 1)
    if not there:
        refused(tmp_path, "train.cat: no pictures in this folder; .*; it holds the folders a, b$")


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "set").write_text("x")
    refused(tmp_path, "needs a folder train .*; set is not a folder")


def test_a_name_that_is_too_long_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"cannot look for '.*\.\.\. .*characters\): File name too long"):
        Folder(path="x" * 5000).load([tmp_path])


# --- a real set ------------------------------------------------------------------------------------------------------


@pytest.mark.data
def test_imagenette_streamed(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_streamed, "IN_MEMORY", 0)
    train, test = Folder(path="imagenette2-224").load([data_root])
    assert (len(train), len(test), train.size) == (6000, 3000, (3, 224, 224))
    assert train.labels.bincount().tolist() == [600] * 10
    assert train.classes[0] == "n01440764"
    batch = train.batch(torch.tensor([5999, 0, 3000]))
    assert batch.shape == (3, 3, 224, 224)
    with Image.open(sorted((data_root / "imagenette2-224" / "train" / "n01440764").iterdir())[0]) as image:
        expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(train.pixels[torch.tensor([0])][0].numpy(), expected)


@pytest.mark.data
def test_imagenette_made_smaller(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_streamed, "IN_MEMORY", 0)
    test = Folder(path="imagenette2-224", size=64, channels=1, max_test=8).load([data_root]).test
    assert test.batch(torch.arange(8)).shape == (8, 1, 64, 64)
