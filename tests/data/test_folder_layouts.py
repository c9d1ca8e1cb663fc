"""Image folders under other names, without a split, and one folder deeper."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from bascule.core.errors import RequestError
from bascule.data.folder import Folder
from folders import greys, save, two_classes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return two_classes(tmp_path)


def refused(root: Path, text: str) -> None:
    with pytest.raises(RequestError, match=text):
        Folder(path="set").load([root])


@pytest.mark.parametrize("above", [(), ("archive",), ("archive", "images")])
@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "test"), ("Train", "Test"), ("train", "valid"), ("training", "testing"), ("TRAINING", "Validation")],
)
def test_usual_names_of_splits(train: str, test: str, above: tuple[str, ...], root: Path) -> None:
    place = root.joinpath("other", *above)
    place.mkdir(parents=True)
    (root / "set" / "train").rename(place / train)
    (root / "set" / "val").rename(place / test)
    (root / "other" / "readme.txt").write_text("x")
    (root / "other" / "__MACOSX").mkdir()
    found = Folder(path="other").load([root])
    assert (greys(found.train.pixels), greys(found.test.pixels)) == ([10, 20, 30, 40], [50, 60])


def test_a_name_as_it_is_written_goes_before_another_case(root: Path) -> None:
    for name in ("Train", "TEST", "valid", "testing"):
        for animal in ("cat", "dog"):
            save(root / "set" / name / animal / "1.png", 99)
    found = Folder(path="set").load([root])
    assert (greys(found.train.pixels), greys(found.test.pixels)) == ([10, 20, 30, 40], [50, 60])


def test_the_digest_of_usual_names_has_not_changed(root: Path) -> None:
    """The formula worked out again: records of runs hold it."""
    known, pictures = hashlib.sha256(), []
    for file in (
        "train/cat/10.png",
        "train/cat/9.ppm",
        "train/dog/a.BMP",
        "train/dog/b.png",
        "val/cat/x.png",
        "val/dog/x.tif",
    ):
        path = root / "set" / file
        known.update(f"{file}\0{path.stat().st_size}\n".encode())
        pictures.append(hashlib.sha256(path.read_bytes()).hexdigest())
    for group in (pictures[:4], pictures[4:]):
        known.update(hashlib.sha256(" ".join(group).encode()).hexdigest().encode())
    assert Folder(path="set").facts([root]).digest == known.hexdigest()


class TestWithoutASplit:
    @pytest.fixture
    def flat(self, tmp_path: Path) -> Path:
        """10 cats, greys 0 .. 9, and 3 dogs, greys 100 .. 102."""
        for first, animal, count in ((0, "cat", 10), (100, "dog", 3)):
            for i in range(count):
                save(tmp_path / "set" / animal / f"{i}.png", first + i)
        return tmp_path

    def load(self, flat: Path, path: str = "set") -> Any:
        with pytest.warns(UserWarning, match=r"so that 20 % of each class.* are the test set \(3 of 13 pictures\)"):
            return Folder(path=path).load([flat])

    def test_a_fifth_of_each_class_is_the_test_set(self, flat: Path) -> None:
        train, test = self.load(flat)
        assert test.labels.tolist() == [0, 0, 1]
        assert train.labels.tolist() == [0] * 8 + [1] * 2
        assert sorted(greys(train.pixels) + greys(test.pixels)) == [*range(10), 100, 101, 102]
        assert greys(test.pixels) == greys(self.load(flat).test.pixels)

    def test_names_are_those_of_the_training_pictures(self, flat: Path) -> None:
        train, _ = self.load(flat)
        with pytest.warns(UserWarning, match="20 %"):
            names = Folder(path="set").names([flat])
        assert [int(Path(name).stem) + 100 * ("dog" in name) for name in names] == greys(train.pixels)

    def test_the_digest_is_the_same_elsewhere(self, flat: Path) -> None:
        digests = []
        for name in ("set", "elsewhere"):
            (flat / "set").rename(flat / name)
            with pytest.warns(UserWarning, match="20 %"):
                digests.append(Folder(path=name).facts([flat]).digest)
            (flat / name).rename(flat / "set")
        assert digests[0] == digests[1]

    def test_one_folder_deeper(self, flat: Path) -> None:
        (flat / "above").mkdir()
        (flat / "set").rename(flat / "above" / "set")
        assert len(self.load(flat, "above").test) == 3

    def test_a_class_of_one_picture_is_refused(self, flat: Path) -> None:
        save(flat / "set" / "owl" / "1.png", 1)
        refused(flat, "owl: only one picture, and no folder says which pictures are for tests")

    def test_one_split_alone_is_not_a_class(self, flat: Path) -> None:
        save(flat / "set" / "Test" / "1.png", 1)
        refused(flat, "needs a folder train .*it holds the folders Test, cat, dog")
