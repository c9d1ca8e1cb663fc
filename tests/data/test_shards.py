"""Tar files of samples, in memory and streamed."""

from __future__ import annotations

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bascule.core.errors import RequestError
from bascule.data import _files, _streamed, _tar, contract
from bascule.data.shards import Shards
from folders import greys, whole
from tars import png, write_members, write_tar


def sample(grey: int, label: str | int) -> dict[str, bytes | str]:
    return {"png": png(grey), "cls": str(label)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A set of 5 training pictures (greys 10 .. 50) in two files and 2 test pictures (60, 70), two classes."""
    write_tar(tmp_path / "set" / "x-train-000000.tar", [sample(10, 0), sample(20, 1), sample(30, 0)])
    write_tar(tmp_path / "set" / "x-train-000001.tar", [sample(40, 1), sample(50, 1)], first=3)
    write_tar(tmp_path / "set" / "x-val-000000.tar", [sample(60, 1), sample(70, 0)])
    return tmp_path


@pytest.mark.usefixtures("kept")
def test_pictures_in_the_order_of_files_and_members(root: Path) -> None:
    train, test = Shards(path="set").load([root])
    assert greys(train.pixels) == [10, 20, 30, 40, 50]
    assert greys(test.pixels) == [60, 70]
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 0, 1, 1], [1, 0])
    assert train.ids.tolist() == [0, 1, 2, 3, 4]
    assert (train.size, train.classes) == ((3, 2, 3), ("0", "1"))
    assert greys(train.at(torch.tensor([4, 0])).pixels) == [50, 10]


def test_both_ways_give_the_pixels_of_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, samples, folder = np.random.default_rng(0), [], tmp_path / "folder" / "train" / "a"
    folder.mkdir(parents=True)
    for i in range(30):
        kind = ("JPEG", "PNG", "WEBP")[i % 3]
        file = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, (21, 34, 3), dtype=np.uint8)).save(file, kind)
        samples.append({kind.lower(): file.getvalue(), "cls": "0"})
    write_tar(tmp_path / "set" / "train-0.tar", samples)
    write_tar(tmp_path / "set" / "test-0.tar", samples[:2])
    source = Shards(path="set", size=12, channels=1)
    memory = source.load([tmp_path]).train
    monkeypatch.setattr(_streamed, "IN_MEMORY", 0)
    streamed = source.load([tmp_path]).train
    assert isinstance(memory.pixels, torch.Tensor)
    assert streamed.is_decoded
    index = torch.tensor([29, 0, 7, 7, 15])
    assert torch.equal(streamed.pixels[index], memory.pixels[index])
    with ThreadPoolExecutor(4) as pool:  # several threads read one file
        parts = list(pool.map(lambda _: whole(streamed.pixels), range(8)))
    assert all(torch.equal(part, memory.pixels) for part in parts)


def test_names_of_splits_and_folders(tmp_path: Path) -> None:
    for place in (
        "a/imagenet1k-train-0000.tar",
        "b/deeper/train/0.tar",
        "c/snapshots/1a/Training-0.tar",
        "d/Train/0.tar",
    ):
        write_tar(tmp_path / place, [sample(10, 0), sample(20, 1)])
    for place in ("a/imagenet1k-validation-00.tar", "b/deeper/val/0.tar", "c/snapshots/1a/TEST.tar", "d/valid/0.tar"):
        write_tar(tmp_path / place, [sample(60, 1), sample(70, 0)])
    for name in "abcd":
        train, test = Shards(path=name).load([tmp_path])
        assert (greys(train.pixels), greys(test.pixels)) == ([10, 20], [60, 70])


def test_a_test_set_is_drawn_where_asked(tmp_path: Path) -> None:
    write_tar(tmp_path / "set" / "000000.tar", [sample(i, i % 2) for i in range(2, 42)])
    with pytest.raises(
        RequestError, match=r"no tar files of test pictures .*; it holds the file 000000.tar. Add them, or set"
    ):
        Shards(path="set").load([tmp_path])
    with pytest.warns(UserWarning, match="so that 25 % of each class, drawn by a fixed seed, are the test set"):
        train, test = Shards(path="set", test_share=0.25).load([tmp_path])
    assert sorted(greys(train.pixels) + greys(test.pixels)) == list(range(2, 42))
    assert (len(test), test.labels.bincount().tolist()) == (10, [5, 5])
    assert train.ids.tolist() == list(range(30))
    assert greys(Shards(path="set").load_train([tmp_path]).pixels) == list(range(2, 42))


LABELS: dict[str, tuple[dict[str, Any], list[dict[str, str]], list[int], tuple[str, ...]]] = {
    "names": ({}, [{"cls": "cat"}, {"cls": "ant "}], [1, 0], ("ant", "cat")),
    "named": ({"classes": ("cat", "ant")}, [{"cls": "cat"}, {"cls": "ant"}], [0, 1], ("cat", "ant")),
    "numbers-as-names": ({"classes": ("cat", "7")}, [{"cls": "7"}, {"json": '{"label": "cat"}'}], [1, 0], ("cat", "7")),
    "number-or-text-in-json": ({}, [{"json": '{"label": 1}'}, {"json": '{"label": "0"}'}], [1, 0], ("0", "1")),
    "json": ({}, [{"json": '{"label": 1}'}, {"json": '{"label": 0, "x": 3}'}], [1, 0], ("0", "1")),
    "json-number": ({}, [{"json": "1"}, {"json": "0"}], [1, 0], ("0", "1")),
    "json-key": (
        {"label": "json.kind"},
        [{"cls": "9", "json": '{"kind": "b"}'}, {"cls": "9", "json": '{"kind": "a"}'}],
        [1, 0],
        ("a", "b"),
    ),
    "txt": ({"label": "txt"}, [{"txt": "1"}, {"txt": "0\n"}], [1, 0], ("0", "1")),
    "cls-first": ({}, [{"json": '{"label": 7}', "cls": "0"}, {"json": '{"label": 7}', "cls": "1"}], [0, 1], ("0", "1")),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_in_the_forms_that_there_are(case: str, tmp_path: Path) -> None:
    settings, labels, expected, classes = LABELS[case]
    for split in ("train", "test"):
        write_tar(tmp_path / "set" / f"{split}.tar", [{"png": png(10), **label} for label in labels])
    train, _ = Shards(path="set", **settings).load([tmp_path])
    assert (train.labels.tolist(), train.classes) == (expected, classes)


def test_one_of_several_pictures(root: Path) -> None:
    path = root / "set" / "x-val-000000.tar"
    write_members(path, [("a.left.PNG", png(60)), ("a.right.png", png(90)), ("a.cls", "0")])
    refused(
        root, r"x-val-000000.tar: the sample 'a' has several pictures: set `image` to the ending of one; its files are"
    )
    write_tar(root / "set" / "x-train-000000.tar", [{"left.png": png(10), "right.png": png(2), "cls": "0"}])
    write_tar(root / "set" / "x-train-000001.tar", [{"left.png": png(1), "right.png": png(2), "cls": "1"}])
    assert greys(Shards(path="set", image="left.png").load([root]).test.pixels) == [60]


def test_what_is_no_sample_is_left_out_with_a_word(root: Path, tmp_path: Path) -> None:
    path = root / "set" / "x-val-000000.tar"
    outside = tmp_path / "secret.png"
    outside.write_bytes(png(99))
    with tarfile.open(path, "w") as tar:
        for name, kind, target in (
            ("link.png", tarfile.SYMTYPE, str(outside)),
            ("hard.png", tarfile.LNKTYPE, "../secret.png"),
            ("pipe", tarfile.FIFOTYPE, ""),
            ("folder", tarfile.DIRTYPE, ""),
        ):
            about = tarfile.TarInfo(name)
            about.type, about.linkname = kind, target
            tar.addfile(about)
        for name, data in (
            ("__meta__", b"x"),
            ("README", b"x"),
            (".hidden", b"x"),
            ("../../up.png", png(60)),
            ("../../up.cls", b"0"),
            ("/etc/a.png", png(70)),
            ("/etc/a.cls", b"1"),
        ):
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    before = sorted(tmp_path.rglob("*"))
    said = "left out in tar files: 2 links; 1 member that is no file; 2 files without a key or an ending$"
    with pytest.warns(UserWarning, match=said):
        test = Shards(path="set").load([root]).test
    assert greys(test.pixels) == [60, 70]
    assert sorted(tmp_path.rglob("*")) == before


def refused(root: Path, text: str, **settings: Any) -> None:
    with pytest.raises(RequestError, match=text):
        Shards(**{"path": "set", **settings}).load([root])


WRONG: dict[str, tuple[list[tuple[str, bytes | str]], str]] = {
    "no-label": ([("a.png", png(1))], r"the sample 'a' has no label, which would be a.cls; its files are png"),
    "no-picture": ([("a.cls", "0"), ("a.txt", "x")], r"the sample 'a' has no picture; its files are cls, txt"),
    "twice": ([("a.png", png(1)), ("a.PNG", png(1)), ("a.cls", "0")], r"a.PNG is there twice"),
    "apart": (
        [("a.png", png(1)), ("a.cls", "0"), ("b.png", png(1)), ("b.cls", "0"), ("a.txt", "x")],
        r"the key 'a' is there twice; the files of a sample must follow each other",
    ),
    "negative": ([("a.png", png(1)), ("a.cls", "-1")], r"has the label -1; labels count from 0"),
    "gap": ([("a.png", png(1)), ("a.cls", "5")], r"labels go up to 5, but no image has the label 2"),
    "empty-text": ([("a.png", png(1)), ("a.cls", "")], r"a label holds an empty text"),
    "texts-and-numbers": (
        [("a.png", png(1)), ("a.cls", "1"), ("b.png", png(1)), ("b.cls", "cat")],
        r"some labels are numbers and others are names of classes: '0' of .*x-train-000000.tar: .*.png, 'cat' of "
        r".*x-val-000000.tar: b.png. Write numbers in all samples or names in all; .* list all names with `classes`",
    ),
    "no-json": ([("a.png", png(1)), ("a.json", "{")], r"has a label that cannot be read"),
    "json-without": (
        [("a.png", png(1)), ("a.json", "{}")],
        r"a.json must hold an entry label or cls or class that is a nu",
    ),
    "json-list": ([("a.png", png(1)), ("a.json", '{"label": [1]}')], r"must hold an entry"),
    "not-text": ([("a.png", png(1)), ("a.cls", b"\xff\xfe")], r"has a label that cannot be read"),
    "long": ([("a.png", png(1)), ("a.cls", "x" * 300)], r"a.cls must hold a number or the name of a class"),
    "empty": ([], r"no pictures in 1 tar file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_samples_that_are_none_are_refused(case: str, root: Path) -> None:
    members, said = WRONG[case]
    write_members(root / "set" / "x-val-000000.tar", members)
    refused(root, said)


@pytest.mark.usefixtures("kept")
def test_damaged_files_are_refused(root: Path) -> None:
    path = root / "set" / "x-train-000001.tar"
    content = path.read_bytes()
    path.write_bytes(content[:700])  # within the first picture
    refused(root, "x-train-000001.tar: damaged or unreadable tar file")
    path.write_bytes(content[:2048] + b"x" * 512 + content[2560:])  # a header
    refused(root, "x-train-000001.tar: damaged: no header of a file at byte")
    path.write_bytes(b"hello")
    refused(root, "x-train-000001.tar: damaged or unreadable tar file")
    path.write_bytes(b"")
    refused(root, "x-train-000001.tar: damaged or unreadable tar file")
    write_tar(path, [{"png": b"no picture", "cls": "1"}])
    refused(root, r"x-train-000001.tar: 000000.png: damaged, or not of a known format")
    write_tar(path, [{"png": png(np.zeros((4, 5, 3), np.uint8)), "cls": "1"}])
    refused(root, r"x-train-000001.tar: 000000.png: picture of 4 x 5 pixels .* where 2 x 3 is expected")


def test_a_file_that_ends_early_but_between_members_gets_a_word(root: Path) -> None:
    path = root / "set" / "x-val-000000.tar"
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"000001.png")])
    with pytest.warns(UserWarning, match="no end mark in x-val-000000.tar: perhaps cut short"):
        assert greys(Shards(path="set").load([root]).test.pixels) == [60]


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_compressed_files_are_refused(root: Path, kind: str) -> None:
    write_members(root / "set" / "x-val-000000.tar", [("a.png", png(1)), ("a.cls", "0")], f"w:{kind}")
    refused(root, r"x-val-000000.tar: compressed \(\w+\), so that no picture can be read .*; unpack it to a .tar")
    write_members(root / "other" / f"train-0.tar.{kind}", [("a.png", png(1))], f"w:{kind}")
    refused(root, rf"needs tar files .*; train-0.tar.{kind} is compressed, unpack it to a .tar first", path="other")


def test_a_missing_file_is_noticed(root: Path) -> None:
    write_tar(root / "set" / "x-train-000003.tar", [sample(1, 0)])
    refused(root, r"number 2 is missing after x-train-000001.tar; the set must be complete")
    (root / "set" / "x-train-000003.tar").rename(root / "set" / "x-train-1.tar")
    refused(root, r"x-train-000001.tar and x-train-1.tar have the same number")
    (root / "set" / "x-train-1.tar").rename(root / "set" / "x-train-99999999999999999999.tar")
    refused(root, "number 2 is missing")


def test_no_tar_files_at_all(tmp_path: Path) -> None:
    (tmp_path / "set" / "pictures").mkdir(parents=True)
    refused(tmp_path, "needs tar files with train in their names .*; it holds nothing")


def test_the_digest_follows_pictures_labels_and_names(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, source = root / "set" / "x-val-000000.tar", Shards(path="set")
    digests = [source.facts([root]).digest]
    for samples in ([sample(61, 1), sample(70, 0)], [sample(61, 0), sample(70, 0)]):
        write_tar(path, samples)
        digests.append(source.facts([root]).digest)
    write_tar(path, samples, first=5)
    digests.append(source.facts([root]).digest)
    assert len(set(digests)) == 4
    monkeypatch.setattr(_files, "HASHED", 0)
    monkeypatch.setattr(contract.Path, "home", lambda: root / "home")
    digests = [source.facts([root]).digest]
    write_tar(path, [sample(61, 0), sample(99, 0)], first=5)  # as long, and nobody looks into it
    assert source.facts([root]).digest == digests[0]
    write_tar(path, [sample(61, 1), sample(99, 0)], first=5)
    assert source.facts([root]).digest != digests[0]


@pytest.mark.usefixtures("large")
class TestRemembered:
    """Large files are gone through once."""

    @pytest.fixture
    def gone_through(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        calls: list[Any] = []
        real = _tar._find_out
        monkeypatch.setattr(_tar, "_find_out", lambda *given: calls.append(given) or real(*given))
        return calls

    def test_until_one_of_them_changes(self, root: Path, gone_through: list[Any]) -> None:
        for _ in range(3):
            assert greys(Shards(path="set").load([root]).train.pixels) == [10, 20, 30, 40, 50]
        assert len(gone_through) == 2  # training and test files
        write_tar(root / "set" / "x-train-000001.tar", [sample(45, 1)], first=3)
        assert greys(Shards(path="set").load([root]).train.pixels) == [10, 20, 30, 45]
        assert len(gone_through) == 3
        Shards(path="set", label="cls").load([root])
        assert len(gone_through) == 5

    def test_what_is_left_out_is_said_each_time(self, root: Path) -> None:
        write_members(root / "set" / "x-val-000000.tar", [("README", "x"), ("a.png", png(60)), ("a.cls", "0")])
        for _ in range(2):
            with pytest.warns(UserWarning, match="left out in tar files: 1 file without a key or an ending"):
                Shards(path="set").load([root])

    def test_damage_and_a_folder_that_cannot_be_written_cost_nothing_but_time(
        self, root: Path, gone_through: list[Any]
    ) -> None:
        expected = Shards(path="set").facts([root])
        places = list((root / "home" / ".cache" / "bascule" / "files").iterdir())
        for path in places:
            path.write_bytes(path.read_bytes()[:40])
        assert Shards(path="set").facts([root]).digest == expected.digest
        for path in places:
            path.unlink()
        places[0].parent.rmdir()
        places[0].parent.write_text("in the way")
        assert Shards(path="set").facts([root]).digest == expected.digest
        assert len(gone_through) == 6


def test_a_file_that_vanishes_or_is_cut_meanwhile_is_one_message(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_streamed, "IN_MEMORY", 0)
    train, path = Shards(path="set").load([root]).train, root / "set" / "x-train-000001.tar"
    path.write_bytes(path.read_bytes()[:520])
    with pytest.raises(RequestError, match=r"^[^:]*x-train-000001.tar: 000003.png: the tar file is shorter than"):
        train.batch(torch.arange(5))
    path.unlink()
    with pytest.raises(RequestError, match=r"^[^:]*x-train-000001.tar: 000003.png: this file is not there any more"):
        train.batch(torch.arange(5))


def test_a_file_without_pictures_gets_a_word(root: Path) -> None:
    write_tar(root / "set" / "x-train-000002.tar", [])
    with pytest.warns(UserWarning, match=r"no pictures in x-train-000002.tar$"):
        Shards(path="set").load([root])


def test_a_picture_is_read_no_further_than_its_end(root: Path) -> None:
    samples = _tar.read_samples([root / "set" / "x-train-000000.tar"], image=None, label=None)
    (head,) = samples.heads([1])
    content = samples.take([1])[0]
    assert head.read(8) == content[:8] == b"\x89PNG\r\n\x1a\n"
    assert head.seek(-4, io.SEEK_END) == len(content) - 4
    assert head.read() == content[-4:]
    assert head.read() == b""
    assert samples.name(1) == f"{root / 'set' / 'x-train-000000.tar'}: 000001.png"
