"""NumPy archives."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bascule.core.catalog import describe
from bascule.core.errors import RequestError
from bascule.data import npz as module
from bascule.data.npz import Npz

X = np.arange(4 * 2 * 3, dtype=np.uint8).reshape(4, 2, 3)
"""Four grey pictures of height 2 and width 3."""
Y = np.array([0, 1, 2, 0])


def write(folder: Path, **arrays: Any) -> Path:
    """The four arrays, some of them replaced."""
    whole = {"x_train": X, "y_train": Y, "x_test": X[:2], "y_test": Y[:2], **arrays}
    np.savez(folder / "set.npz", **whole)
    return folder


def load(folder: Path, **settings: Any) -> Any:
    return Npz(path="set.npz", **settings).load([folder])


def values(images: Any) -> list[Any]:
    return images.pixels[torch.arange(len(images))].tolist()


def test_keras_style(tmp_path: Path) -> None:
    train, test = load(write(tmp_path))
    assert train.size == (1, 2, 3)
    assert values(train)[1] == [[[6, 7, 8], [9, 10, 11]]]
    assert train.labels.tolist() == [0, 1, 2, 0]
    assert train.classes == test.classes == ("0", "1", "2")
    assert test.ids.tolist() == [0, 1]


def test_medmnist_style(tmp_path: Path) -> None:
    pictures, labels = np.stack([X, X + 1, X + 2], -1), Y.astype(np.uint8)[:, None]
    arrays = {f"{split}_images": pictures for split in ("train", "val", "test")}
    arrays |= {f"{split}_labels": labels for split in ("train", "val", "test")}
    np.savez_compressed(tmp_path / "set.npz", **arrays)
    train, _ = load(tmp_path, classes=("a", "b", "c"))
    assert train.classes == ("a", "b", "c")
    assert values(train)[0] == [[[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]], [[2, 3, 4], [5, 6, 7]]]


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_first_and_last(axis: int, channels: int, tmp_path: Path) -> None:
    big = np.random.default_rng(0).integers(0, 256, (4, channels, 5, 6), dtype=np.uint8)
    given = big if axis == 1 else big.transpose(0, 2, 3, 1)
    train, _ = load(write(tmp_path, x_train=given, x_test=given[:2]))
    assert train.size == (channels, 5, 6)
    assert np.array_equal(train.pixels.numpy(), big)


def test_floats_from_0_to_1_are_rounded_to_bytes(tmp_path: Path) -> None:
    x = np.zeros((4, 2, 3), np.float32)
    x[0, 0] = 0.5, 1, 1.4 / 255  # 127.5 goes to the even neighbour
    train, _ = load(write(tmp_path, x_train=x, x_test=x[:2]))
    assert values(train)[0] == [[[128, 255, 1], [0, 0, 0]]]


@pytest.mark.parametrize("kind", ["<f2", "<f4", ">f4", "<f8"])
def test_bytes_survive_the_way_through_floats(kind: str, tmp_path: Path) -> None:
    x = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    for scale in (255, 1):
        floats = (x / scale).astype(kind)
        train, _ = load(write(tmp_path, x_train=floats, x_test=floats[:2]))
        assert np.array_equal(train.pixels[:, 0].numpy(), x)


def test_one_scale_for_both_splits(tmp_path: Path) -> None:
    dark = np.ones((2, 2, 3))  # alone it would be taken for white
    _, test = load(write(tmp_path, x_train=X.astype(float), x_test=dark))
    assert values(test)[0] == [[[1, 1, 1], [1, 1, 1]]]


@pytest.mark.parametrize("kind", ["int64", "uint16", ">i4"])
def test_wider_integers_in_range(kind: str, tmp_path: Path) -> None:
    train, _ = load(write(tmp_path, x_train=X.astype(kind), x_test=X[:2].astype(kind)))
    assert np.array_equal(train.pixels[:, 0].numpy(), X)


def test_fortran_order_and_small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 1)
    for x in (X, np.asfortranarray(X), np.asfortranarray(X / 255)):
        train, _ = load(write(tmp_path, x_train=x, x_test=x[:2]))
        assert np.array_equal(train.pixels[:, 0].numpy(), X)
        assert train.labels.tolist() == Y.tolist()


TEXTS = np.array(["dog", "cat", "owl", "dog"])


@pytest.mark.parametrize("kind", ["U", "S"])
def test_names_of_classes_as_labels(tmp_path: Path, kind: str) -> None:
    y = TEXTS.astype(kind)
    write(tmp_path, y_train=y, y_test=y[1:3])
    train, test = load(tmp_path)
    assert train.classes == test.classes == ("cat", "dog", "owl")
    assert (train.labels.tolist(), test.labels.tolist()) == ([1, 0, 2, 1], [0, 2])
    given = load(tmp_path, classes=("owl", "dog", "cat", "hen"))
    assert (given.train.labels.tolist(), len(given.train.classes)) == ([1, 2, 0, 1], 4)
    with pytest.raises(RequestError, match=r"y_train: owl is not among the `classes`"):
        load(tmp_path, classes=("dog", "cat"))


def test_a_class_that_only_the_test_images_have_has_a_number(tmp_path: Path) -> None:
    write(tmp_path, y_train=np.array(["b", "b", "c", "c"]), y_test=np.array(["a", "c"]))
    train, test = load(tmp_path)
    assert (train.labels.tolist(), test.labels.tolist()) == ([1, 1, 2, 2], [0, 2])
    assert Npz(path="set.npz").load_train([tmp_path]).labels.tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize(
    "names",
    [
        ("X_train", "y_train", "X_test", "y_test"),
        ("train_x", "train_y", "test_x", "test_y"),
        ("trainX", "trainY", "testX", "testY"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("images_train", "labels_train", "images_test", "labels_test"),
        ("train_data", "train_targets", "valid_data", "valid_targets"),
        ("x_train", "y_train", "x_val", "y_val"),
        ("Images", "labels", "test_images", "test_labels"),
    ],
)
def test_usual_names(names: tuple[str, ...], tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **dict(zip(names, (X, Y, X[:2], Y[:2]), strict=True)), other=X[:1])
    train, test = load(tmp_path)
    assert np.array_equal(train.pixels[:, 0].numpy(), X)
    assert test.labels.tolist() == [0, 1]


def test_test_arrays_go_before_validation_and_written_names_before_another_case(tmp_path: Path) -> None:
    write(tmp_path, x_val=X[:1] + 9, y_val=Y[:1], X_train=X + 9, Y_TEST=Y[:1])
    train, test = load(tmp_path)
    assert (len(test), int(train.pixels.max())) == (2, 23)


class TestWithoutASplit:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Ten cats and five dogs, told apart by their grey."""
        x = np.arange(15, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
        np.savez(tmp_path / "set.npz", images=x, labels=np.array(["cat"] * 10 + ["dog"] * 5))
        return tmp_path

    def test_the_refusal_says_what_can_be_done(self, root: Path) -> None:
        text = r"holds images, labels of shapes \(15, 4, 4\), \(15,\). Add the test images, or set `test_share`"
        for look in (Npz(path="set.npz").load, Npz(path="set.npz").facts):
            with pytest.raises(RequestError, match=text):
                look([root])

    def test_a_share_is_drawn(self, root: Path) -> None:
        source = Npz(path="set.npz", test_share=0.2)
        with pytest.warns(UserWarning, match=r"no array says .* 20 % of each class.* \(3 of 15 pictures\)"):
            train, test = source.load([root])
        assert test.labels.tolist() == [0, 0, 1]
        greys = [images.pixels[:, 0, 0, 0].tolist() for images in (train, test)]
        assert sorted(greys[0] + greys[1]) == list(range(15))
        with pytest.warns(UserWarning, match="20 %"):
            assert source.load_train([root]).pixels.equal(train.pixels)

    def test_whoever_needs_no_test_images_gets_all(self, root: Path) -> None:
        for source in (Npz(path="set.npz"), Npz(path="set.npz", test_share=0.2).without_test()):
            train = source.load_train([root])
            assert (len(train), train.classes) == (15, ("cat", "dog"))

    def test_the_default_leaves_fingerprints_as_they_were(self) -> None:
        assert "test_share" not in describe(Npz(path="set.npz"))
        assert describe(Npz(path="set.npz", test_share=0.2))["test_share"] == 0.2


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x_train": X / 15}, r"x_train range from 0 to 1\.\d+, with fractions; images must be uint8"),
        ({"x_train": X / 255 - 0.5}, r"range from -0.5 to .*Save them before they are normalised"),
        ({"x_train": X * 12.0, "x_test": X[:2] * 1.0}, r"x_train and x_test range from 0 to 276; images must be"),
        ({"x_train": np.where(X == 5, np.nan, X)}, "x_train holds NaN or infinite values"),
        ({"x_test": np.where(X == 5, np.inf, X)[:2]}, "x_test holds NaN or infinite values"),
        ({"x_train": X.astype(int) - 1}, r"x_train ranges from -1 to 22; integers must lie in 0..255"),
        ({"x_train": X.astype(int) + 250}, r"x_train ranges from 250 to 273; integers must lie in 0..255"),
        ({"x_train": X > 3}, "x_train holds bool; images must be uint8"),
        ({"x_train": np.array([X, None], object)}, "x_train holds Python objects, which may run code"),
        ({"x_train": X[:, 0]}, r"x_train has shape \(4, 3\); images must be N x H x W"),
        ({"x_train": np.zeros((4, 2, 3, 5), np.uint8)}, r"x_train has shape \(4, 2, 3, 5\); .* with 1 or 3 channels"),
        ({"x_train": np.zeros((4, 0, 3), np.uint8)}, r"x_train has shape \(4, 0, 3\)"),
        ({"x_train": X[:3]}, "x_train holds 3 images but y_train 4 labels"),
        ({"x_test": X[:0], "y_test": Y[:0]}, "x_test holds no images"),
        ({"x_test": X[:2, :, :2]}, "training images are 1 x 2 x 3 but test images 1 x 2 x 2"),
        ({"y_train": Y / 1}, "y_train holds float64; labels must be integers from 0"),
        ({"y_train": np.array(["a", "b", "c", "a"])}, "y_train holds texts but y_test holds numbers; labels must be"),
        ({"y_train": np.array([b"\xff"] * 4), "y_test": np.array([b"a"] * 2)}, "damaged or unreadable .*decode"),
        (
            {"y_train": np.array([""] * 4), "y_test": np.array([""] * 2)},
            "y_train holds an empty text",
        ),
        ({"y_train": np.eye(4, dtype=int)}, r"y_train has shape \(4, 4\); give one class number per image"),
        ({"y_train": np.int64(3)}, r"y_train has shape \(\); give one class number per image"),
        ({"y_train": Y - 1}, "training image 0 has the label -1"),
        ({"y_train": Y * 2}, "labels go up to 4, but no image has the label 3"),
    ],
)
def test_refuses(arrays: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=rf"set.npz: .*{text}"):
        load(write(tmp_path, **arrays))


def test_sets_with_several_labels_per_image_or_three_dimensions_are_refused(tmp_path: Path) -> None:
    """ChestMNIST and OrganMNIST3D."""
    for x, y, text in (
        (np.zeros((4, 28, 28), np.uint8), np.zeros((4, 14), np.uint8), r"shape \(4, 14\); .* Several labels per image"),
        (np.zeros((4, 28, 28, 28), np.uint8), Y[:, None], r"shape \(4, 28, 28, 28\); images must be N x H x W, "),
    ):
        np.savez(tmp_path / "set.npz", train_images=x, train_labels=y, test_images=x, test_labels=y)
        with pytest.raises(RequestError, match=text):
            load(tmp_path)


def test_refuses_a_label_without_a_name(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"set.npz: labels go up to 2, but 2 classes are named"):
        load(write(tmp_path), classes=("a", "b"))


def test_refuses_other_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=X, y=Y)
    with pytest.raises(RequestError, match=r"needs the arrays x_train, .* or train_images, .*; it holds x, y"):
        load(tmp_path)


@pytest.mark.parametrize("compressed", [False, True])
def test_refuses_a_damaged_file(compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    x = np.random.default_rng(0).integers(0, 256, (4, 20, 20), dtype=np.uint8)
    (np.savez_compressed if compressed else np.savez)(path, x_train=x, y_train=Y, x_test=x, y_test=Y)
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[600] ^= 255
    for damaged in (b"", b"hello", content[: len(content) // 2], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(RequestError, match=r"set.npz: damaged or unreadable .npz file"):
            load(tmp_path)


def test_refuses_an_array_that_is_shorter_than_announced(tmp_path: Path) -> None:
    write(tmp_path)
    with zipfile.ZipFile(tmp_path / "set.npz") as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as file:
        for name, content in members.items():
            file.writestr(name, content.replace(b"(4, 2, 3)", b"(9, 2, 3)"))
    with pytest.raises(RequestError, match=r"x_train announces shape \(9, 2, 3\), which is not what the file holds"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x_train": X * 300.0}, "range from 0 to 6900; images must be uint8"),
        ({"x_test": X[:2] - 0.5}, "range from -0.5 to 23, with fractions|range from -0.5"),
        ({"x_train": np.full_like(X, np.nan, dtype=float)}, "holds NaN or infinite values"),
        ({"x_test": X[:2].astype(np.int32) - 1}, "x_test ranges from -1 to 10; integers must lie in 0..255"),
        ({"x_train": X.astype(np.int64) + 300}, "x_train ranges from 300 to 323"),
    ],
)
def test_the_range_is_known_before_training(arrays: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=text):
        Npz(path="set.npz").facts([write(tmp_path, **arrays)])


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_zeros_and_ones_get_a_word(kind: type, tmp_path: Path) -> None:
    write(tmp_path, x_train=(X % 2).astype(kind))
    for look in (Npz(path="set.npz").facts, Npz(path="set.npz").load):
        with pytest.warns(UserWarning, match="npz: all pixels are 0 or 1 on a scale from 0 to 255: black to a model"):
            look([tmp_path])


def test_zeros_and_ones_as_floats_are_black_and_white(tmp_path: Path) -> None:
    assert load(write(tmp_path, x_train=X % 2 * 1.0)).train.pixels.unique().tolist() == [0, 255]


def test_one_hot_labels_are_called_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "hot.npz", x_train=np.zeros((3, 4, 4), np.uint8), y_train=np.eye(3))
    with pytest.raises(
        RequestError, match=r"y_train holds float64; .* One-hot labels are not taken: save their argmax"
    ):
        Npz(path="hot.npz").load([tmp_path])
