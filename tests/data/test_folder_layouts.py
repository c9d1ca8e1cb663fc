"""Image folders under other names, without a split, and one folder deeper."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from bascule.core.catalog import describe
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

    def test_the_default_leaves_fingerprints_as_they_were(self) -> None:
        assert set(describe(Folder(path="set"))) == {
            "name",
            "path",
            "size",
            "channels",
            "max_train",
            "max_test",
            "held_out",
        }

    def test_another_share(self, flat: Path) -> None:
        with pytest.warns(UserWarning, match=r"so that 50 % of each class.* \(7 of 13 pictures\)"):
            assert Folder(path="set", test_share=0.5).load([flat]).test.labels.tolist() == [0] * 5 + [1] * 2

    @pytest.mark.parametrize("below", ["", "train", "Train"])
    def test_whoever_needs_no_test_pictures_gets_all(self, flat: Path, below: str) -> None:
        (flat / "set").rename(flat / "whole")
        (flat / "set").mkdir()
        (flat / "whole").rename(flat / "set" / (below or "deeper"))
        whole = Folder(path="set").without_test()
        train = whole.load_train([flat])
        assert greys(train.pixels) == [*range(10), 100, 101, 102]
        assert [int(Path(name).stem) for name in whole.names([flat])] == [*range(10), 0, 1, 2]
        for look in (whole.load, whole.facts):
            with pytest.raises(RequestError, match=r"no folder of test pictures; add one, or set `test_share`"):
                look([flat])

    def test_training_pictures_alone_are_split_too(self, flat: Path) -> None:
        (flat / "set").rename(flat / "train")
        (flat / "set").mkdir()
        (flat / "train").rename(flat / "set" / "train")
        train, test = self.load(flat)
        assert (len(train), len(test)) == (10, 3)
        with pytest.warns(UserWarning, match="20 %"):
            assert greys(Folder(path="set").load_train([flat]).pixels) == greys(train.pixels)


def test_a_set_with_a_split_has_the_same_training_pictures_without_it(root: Path) -> None:
    source = Folder(path="set", max_train=3)
    expected = source.load([root]).train
    for one in (source, source.without_test()):
        assert torch.equal(one.load_train([root]).ids, expected.ids)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("train_images", "val_images"),
        ("images-train", "images-test"),
        ("Training Data", "Testing Data"),
        ("trainset", "testset"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("Final_Training", "Final_Test"),
        ("training_set/training_set", "test_set/test_set"),
    ],
)
def test_names_of_splits_with_other_words(train: str, test: str, root: Path) -> None:
    for name, split in ((train, "train"), (test, "val")):
        (root / "other" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "set" / split).rename(root / "other" / name)
    found = Folder(path="other").load([root])
    assert (greys(found.train.pixels), greys(found.test.pixels)) == ([10, 20, 30, 40], [50, 60])


def test_pictures_of_a_class_in_its_only_sub_folder(root: Path) -> None:
    for split, animal in (("train", "cat"), ("train", "dog"), ("val", "cat")):
        place = root / "set" / split / animal
        place.rename(root / "moved")
        place.mkdir()
        (root / "moved").rename(place / "images")
    source = Folder(path="set")
    train, test = source.load([root])
    assert (greys(train.pixels), greys(test.pixels)) == ([10, 20, 30, 40], [50, 60])
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert source.names([root])[0].endswith("set/train/cat/images/10.png")
    (root / "set" / "train").rename(root / "flat")
    with pytest.warns(UserWarning, match="20 %"):
        assert len(Folder(path="flat").load([root]).test) == 2


class TestTinyImageNet:
    """train/WNID/images/*.JPEG with boxes, val/images with val_annotations.txt, test/images without labels."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        place = tmp_path / "tiny-imagenet-200"
        for number, wnid in enumerate(("n01443537", "n01629819")):
            for i in range(3):
                save(place / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", 10 * number + i)
            (place / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t62\t63\t63\n")
        for i, grey in enumerate((200, 100, 201)):
            save(place / "val" / "images" / f"val_{i}.JPEG", grey)
            save(place / "test" / "images" / f"test_{i}.JPEG", 255)
        lines = [f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n" for i, wnid in enumerate(("n01629819", "n01443537") * 2)][:3]
        (place / "val" / "val_annotations.txt").write_text("".join(lines))
        (place / "wnids.txt").write_text("n01629819\nn01443537\n")
        (place / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\n")
        return tmp_path

    @pytest.mark.parametrize("path", ["tiny-imagenet-200", "."])
    def test_is_read(self, root: Path, path: str) -> None:
        with pytest.warns(UserWarning, match="left out") as caught:
            train, test = Folder(path=path).load([root])
        said = [str(one.message) for one in caught]
        assert any("pictures without labels in test are left out; val is the test set" in one for one in said)
        assert any("2 files that are no pictures, e.g. n01443537/n01443537_boxes.txt" in one for one in said)
        assert (greys(train.pixels), train.labels.tolist()) == ([0, 1, 2, 10, 11, 12], [0, 0, 0, 1, 1, 1])
        assert (greys(test.pixels), test.labels.tolist()) == ([100, 200, 201], [0, 1, 1])
        assert train.classes == ("n01443537", "n01629819")

    @pytest.mark.filterwarnings("ignore")
    def test_the_digest_knows_the_labels(self, root: Path) -> None:
        path = root / "tiny-imagenet-200" / "val" / "val_annotations.txt"
        source = Folder(path="tiny-imagenet-200")
        before = source.facts([root]).digest
        path.write_text(path.read_text().replace("val_0.JPEG\tn01629819", "val_0.JPEG\tn01443537"))
        facts = source.facts([root])
        assert facts.digest != before
        assert facts.test_labels.tolist() == [0, 0, 1]

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize(
        ("old", "new", "text"),
        [
            ("n01443537", "n9", r"names the class 'n9'; the training pictures have n01443537, n01629819"),
            ("val_1.JPEG", "val_7.JPEG", r"names val_7.JPEG, not in .*val.images; unpack all of the set"),
            ("val_1.JPEG", "val_0.JPEG", r"val_0.JPEG is there twice"),
            ("\tn01443537\t0\t32\t44\t62", "", r"entry 2 has 1 columns, too few: val_1.JPEG"),
        ],
    )
    def test_a_list_that_does_not_fit_is_refused(self, root: Path, old: str, new: str, text: str) -> None:
        path = root / "tiny-imagenet-200" / "val" / "val_annotations.txt"
        path.write_text(path.read_text().replace(old, new))
        with pytest.raises(RequestError, match=f"val_annotations.txt: {text}"):
            Folder(path="tiny-imagenet-200").load([root])

    @pytest.mark.filterwarnings("ignore")
    def test_pictures_that_the_list_does_not_name_are_counted(self, root: Path) -> None:
        save(root / "tiny-imagenet-200" / "val" / "images" / "more.JPEG", 1)
        with pytest.warns(
            UserWarning, match=r"val: left out is 1 picture that the list of labels does not name, e.g. mo"
        ):
            assert len(Folder(path="tiny-imagenet-200").load([root]).test) == 3


class TestGtsrb:
    """Pictures of several sizes, .ppm, classes by number; test pictures with a list."""

    HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\r\n"

    def write(self, train: Path, test: Path, ground_truth: Path, *, digits: int = 5, ending: str = "ppm") -> None:
        for number in range(3):
            for i in range(2):
                save(train / f"{number:0{digits}}" / f"00000_0000{i}.{ending}", 10 * number + i, 4 + i, 5)
            if digits == 5:
                (train / f"{number:05}" / f"GT-{number:05}.csv").write_text(self.HEADER)
        for i, grey in enumerate((100, 101, 102)):
            save(test / f"0000{i}.{ending}", grey, 6, 5 + i)
        lines = [f"0000{i}.ppm;5;6;0;0;5;6;{number}\r\n" for i, number in enumerate((2, 0, 1))]
        ground_truth.parent.mkdir(parents=True, exist_ok=True)
        ground_truth.write_text(self.HEADER + "".join(lines), newline="")

    @pytest.mark.filterwarnings("ignore:.*left out are 3 files that are no pictures, e.g. 00000/GT-00000.csv")
    @pytest.mark.parametrize(
        ("path", "train", "test", "ground_truth"),
        [
            ("GTSRB", "Final_Training/Images", "Final_Test/Images", "Final_Test/Images/GT-final_test.csv"),
            ("GTSRB", "Final_Training/Images", "Final_Test/Images", "GT-final_test.csv"),
            ("gtsrb", "GTSRB/Training", "GTSRB/Final_Test/Images", "GT-final_test.csv"),  # as torchvision unpacks it
            ("gtsrb", "GTSRB/Final_Training/Images", "GTSRB/Final_Test/Images", "GTSRB/GT-final_test.csv"),
            ("gtsrb", "train", "testset", "testset/GT-final_test.csv"),
            ("gtsrb/GTSRB", "Training", "Final_Test/Images", "../GT-final_test.csv"),  # the inner folder of that
        ],
    )
    def test_is_read(self, tmp_path: Path, path: str, train: str, test: str, ground_truth: str) -> None:
        place = tmp_path / path
        self.write(place / train, place / test, place / ground_truth)
        if test.endswith("Images"):  # as in the authors' archive, without classes
            (place / test / "GT-final_test.test.csv").write_text("Filename;Width\r\n00000.ppm;5\r\n")
        found = Folder(path=path, size=4).load([tmp_path])
        assert (found.train.labels.tolist(), found.test.labels.tolist()) == ([0, 0, 1, 1, 2, 2], [0, 1, 2])
        assert greys(found.test.pixels) == [101, 102, 100]
        assert found.train.classes == ("00000", "00001", "00002")
        with pytest.raises(RequestError, match=r"where 4 x 5 is expected. Set `size`"):
            Folder(path=path).load([tmp_path])

    def test_as_kaggle_has_it(self, tmp_path: Path) -> None:
        """Train/7/*.png with numbers that are not padded, Test.csv with paths, commas and the class in the middle."""
        self.write(tmp_path / "Train", tmp_path / "Test", tmp_path / "x.csv", digits=1, ending="png")
        (tmp_path / "x.csv").unlink()
        (tmp_path / "Meta").mkdir()
        rows = "".join(f"5,6,0,0,5,6,{number},Test/0000{i}.png\n" for i, number in enumerate((2, 0, 1)))
        (tmp_path / "Test.csv").write_text("Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path\n" + rows)
        found = Folder(path=".", size=4).load([tmp_path])
        assert (greys(found.test.pixels), found.test.labels.tolist()) == ([101, 102, 100], [0, 1, 2])

    @pytest.mark.filterwarnings("ignore")
    def test_without_its_list_the_refusal_says_what_is_needed_and_there(self, tmp_path: Path) -> None:
        place = tmp_path / "set"
        self.write(place / "train", place / "test", place / "test" / "GT-final_test.csv")
        (place / "test" / "GT-final_test.csv").rename(place / "test" / "GT-final_test.test.csv")
        refused(
            tmp_path,
            r"test: no sub-folders; .* or in a list: val_annotations.txt .*; it holds the files 00000.ppm, .*test.csv",
        )
        (place / "test" / "labels.csv").write_text("name,kind\na,b\n")
        refused(
            tmp_path, r"labels.csv: needs a column filename and a column ClassId or label; its columns are name, kind"
        )
