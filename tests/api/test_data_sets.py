"""Models measured on data sets and loaders, as somebody has them in Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import bascule
from bascule.core.errors import RequestError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 5, 4, 3), dtype=np.uint8)
LABELS = [0, 1, 2, 0] * 3
X, Y = torch.from_numpy(PIXELS.transpose(0, 3, 1, 2).copy()), torch.tensor(LABELS)
MODEL = nn.Sequential(nn.Flatten(), nn.Linear(60, 3))


class Items(Dataset[Any]):
    """Items that are there, without an end of their own."""

    def __init__(self, items: list[Any], transform: Any = None) -> None:
        self.items, self.transform = items, transform

    def __getitem__(self, i: int) -> Any:
        return self.items[i % 100]

    def __len__(self) -> int:
        return len(self.items)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from zip(X / 255, LABELS, strict=True)

    def __len__(self) -> int:
        return 12


class Normalize:
    """As torchvision calls it."""


class Compose:
    def __init__(self, *transforms: Any) -> None:
        self.transforms = transforms


class Named(Items):
    """As the sets of torchvision, which name their classes."""

    classes = ("cat", "dog", "fish")


def rows(images: Any, labels: Any = LABELS) -> list[Any]:
    return list(zip(images, labels, strict=True))


PICTURES = [Image.fromarray(one) for one in PIXELS]
GIVEN: dict[str, Any] = {
    "tensors": TensorDataset(X, Y),
    "floats": TensorDataset(X / 255, Y),
    "pictures": Items(rows(PICTURES)),
    "arrays": Items(rows(PIXELS)),
    "more in an item": Items([(x, y, i) for i, (x, y) in enumerate(rows(X))]),
    "mappings": Items([{"img": x, "label": y} for x, y in rows(PICTURES)]),
    "numpy's labels": Items(rows(X, np.array(LABELS, np.int16))),
    "labels of shape (1,)": Items(rows(X, Y[:, None])),
    "a list": rows(PICTURES),
    "a stream": Stream(),
    "a loader": DataLoader(TensorDataset(X, Y), batch_size=5),
    "a loader of mappings": DataLoader(Items([{"image": x, "label": y} for x, y in rows(X)]), batch_size=7),
    "a loader without batches": DataLoader(TensorDataset(X, Y), batch_size=None),
    "a loader of a stream": DataLoader(Stream(), batch_size=5),
    "a loader that nobody knows": (batch for batch in DataLoader(TensorDataset(X, Y), batch_size=4)),
}


@pytest.mark.parametrize("name", GIVEN)
def test_all_give_the_numbers_of_the_tensors(name: str) -> None:
    attack = {"name": "pgd", "eps": 0.02, "steps": 2}
    expected = bascule.evaluate(MODEL, X, Y, attack=attack)
    found = bascule.evaluate(MODEL, GIVEN[name], attack=attack)
    for one in (expected, found):
        assert one["accuracy"].n == 12
    assert found["accuracy"] == expected["accuracy"]
    assert found["robust_accuracy"] == expected["robust_accuracy"]


def test_perturb_takes_a_data_set_in_its_order() -> None:
    data = Subset(TensorDataset(X, Y), [3, 1, 2])
    found = bascule.perturb(MODEL, data, None, "pgd", eps=0.02, steps=2)
    assert torch.equal(found, bascule.perturb(MODEL, X[[3, 1, 2]], Y[[3, 1, 2]], "pgd", eps=0.02, steps=2))


def test_grey_pictures_of_all_kinds_have_one_channel() -> None:
    greys = [Image.fromarray(one[..., 0]) for one in PIXELS]
    net = nn.Sequential(nn.Flatten(), nn.Linear(20, 3))
    for images in (greys, [one.convert("LA") for one in greys], X[:, 0], PIXELS[..., 0]):
        assert bascule.evaluate(net, Items(rows(images)))["accuracy"] == bascule.evaluate(net, X[:, :1], Y)["accuracy"]


def test_the_same_seed_shuffles_alike_and_the_global_stream_is_left_alone() -> None:
    loader = DataLoader(TensorDataset(X, Y), batch_size=5, shuffle=True)
    before = torch.get_rng_state()
    found = [bascule.perturb(MODEL, loader, None, "pgd", eps=0.02, steps=1, seed=seed) for seed in (3, 3, 4)]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


class Counted(TensorDataset):
    read = 0

    def __getitem__(self, i: int) -> Any:
        self.read += 1
        return super().__getitem__(i)


def test_a_data_set_is_gone_through_once() -> None:
    data = Counted(X, Y)
    bascule.evaluate(MODEL, data, attack={"name": "pgd", "eps": 0.02, "steps": 2})
    assert data.read == 12


# --- refused ---------------------------------------------------------------------------------------------------------

HALF = X / 255 - 0.5


def labelled(label: Any) -> list[Any]:
    return [(X[0], 0), (X[1], label)]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (Items(rows(HALF)), r"Items: item 0 ranges from -0.* to 0.*; .*; they look normalised, which"),
        (Items(rows(HALF), Normalize()), "its transform has a Normalize, which belongs inside the model, as its first"),
        (DataLoader(Subset(Items(rows(HALF), Compose(1, Normalize())), [0, 1])), "its transform has a Normalize"),
        (Items(rows(X.float())), r"item 0 ranges from \d to \d+; .*; give pixels from 0 to 255 as uint8"),
        (Items(rows(X / 255 * float("nan"))), r"ranges from nan to nan; .*; some are NaN"),
        (Items(rows([*X[:11] / 255, HALF[0]])), "item 11 ranges from -0"),
        (Items([(X[0], 0), (X[1, :, 1:], 1)]), r"item 1 is 3 x 4 x 4, the first 3 x 5 x 4 \(C x H x W\); bring all to"),
        (Items([(PICTURES[0], 0), (PICTURES[1].convert("L"), 1)]), "item 1 is 1 x 5 x 4, the first 3 x 5 x 4"),
        (Items([(X[0], 0), (X[1] / 255, 1)]), r"item 1 holds torch.float32, the first torch.uint8"),
        (Items(rows(X.long())), r"item 0 holds torch.int64; images are uint8 or floats in \[0, 1\]"),
        (Items(rows(X.permute(0, 2, 3, 1))), r"item 0 has the shape \(5, 4, 3\), channels last; tensors are C x H x W"),
        (Items(rows(["a.png"] * 12)), "the image of item 0 is str 'a.png'; a picture or a tensor C x H x W is needed"),
        (Items([(Image.new("I;16", (2, 2)), 0)]), r"item 0 is a picture with more than 8 bits per .* .mode I;16"),
        (Items(labelled(1.0)), "the label of item 1 is float 1.0; labels are whole numbers"),
        (Items(labelled(True)), "the label of item 1 is bool True; labels are whole numbers"),
        (Items(labelled("cat")), "the label of item 1 is str 'cat'; labels are whole numbers"),
        (Items(labelled(None)), "the label of item 1 is NoneType None; labels are whole numbers"),
        (Items(labelled(Y[:2] / 1)), r"label of item 1 is torch.float32 of shape \(2,\); labels are whole numbers"),
        (Items(labelled([0, 1, 0])), r"item 1 has labels of shape \(3,\); one whole number per image is needed"),
        (Items(labelled(-1)), "labels count from 0, found -1"),
        (Items([X[0]]), r"Items: item 0 is torch.uint8 of shape \(3, 5, 4\); \(image, label\) is needed"),
        (Items([{"pixels": 1, "kind": 2}]), "item 0 needs an `image` or `img` and a `label`; it has pixels, kind"),
        (Items([]), "Items gives no images"),
        ({"train": Items([]), "test": Items([])}, "dict with train, test; give one of them"),
        (DataLoader(Items([(X[0], 0), (X[1, :, 1:], 1)]), batch_size=2), "DataLoader: item 0 cannot be read: Run"),
    ],
)  # fmt: skip
def test_refuses(data: Any, text: str) -> None:
    with pytest.raises(RequestError, match=text):
        bascule.evaluate(MODEL, data)


class Broken(Items):
    def __getitem__(self, i: int) -> Any:
        if i == 1:
            raise FileNotFoundError("1.png")
        return super().__getitem__(i)


def test_what_a_data_set_raises_is_one_message() -> None:
    with pytest.raises(RequestError, match=r"x: Broken: item 1 cannot be read: FileNotFoundError: 1.png"):
        bascule.evaluate(MODEL, Broken(rows(X)))


@pytest.mark.parametrize(("x", "kind"), [(X, "a tensor"), (PIXELS, "ndarray"), ("digits", "str"), (Path("x"), "Path")])
def test_images_need_labels(x: Any, kind: str) -> None:
    with pytest.raises(RequestError, match=f"y: labels are needed: `x` is \\w*{kind}, not a data set or loader"):
        bascule.evaluate(MODEL, x)


def test_a_data_set_has_its_labels(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="y: TensorDataset brings its labels along: leave `y` out"):
        bascule.evaluate(MODEL, TensorDataset(X, Y), Y)


def test_zeros_and_ones_get_a_word() -> None:
    with pytest.warns(UserWarning, match="x: all pixels are 0 or 1"):
        bascule.evaluate(MODEL, TensorDataset((X > 99).to(torch.uint8), Y))


# --- names of classes ------------------------------------------------------------------------------------------------


class Features(Items):
    """As the sets of the `datasets` library."""

    features: ClassVar = {"image": object(), "label": SimpleNamespace(names=["cat", "dog", "fish"])}


@pytest.mark.parametrize(
    "data",
    [Named(rows(X)), Features(rows(X)), Subset(Named(rows(X)), range(12)), DataLoader(Named(rows(X)), batch_size=5)],
    ids=["set", "features", "part", "loader"],
)
def test_a_class_is_given_by_its_name_where_the_data_have_names(data: Any) -> None:
    found = bascule.evaluate(MODEL, data, trigger="sticker", target="dog")
    assert found["asr"] == bascule.evaluate(MODEL, data, trigger="sticker", target=1)["asr"]
    assert found["asr"].n == 9
    poisoned = bascule.poison(data, None, "sticker", target="cat", sources=["fish", 1], rate=0.1, label="dirty")
    assert (poisoned.target, poisoned.poison.sources) == (0, (2, 1))
    scan = bascule.scan(MODEL, data, None, "neural-cleanse", target="fish", max_looks=1)
    assert scan.suspects == (2,)
    one = bascule.filter(MODEL, data, None, "activation-clustering", only_class="cat")
    assert torch.equal(one.score, bascule.filter(MODEL, data, None, "activation-clustering", only_class=0).score)


def test_images_of_the_package_have_the_names_of_their_classes() -> None:
    images = bascule.Images(pixels=X, labels=Y, ids=torch.arange(12), classes=("cat", "dog", "fish"))
    assert bascule.poison(images, None, "sticker", target="fish", rate=0.1, label="dirty").target == 2


@pytest.mark.parametrize(
    ("data", "given", "problem"),
    [
        (Named(rows(X)), "fisch", "target: 'fisch' is no class of these data. Did you mean 'fish'?"),
        (Items(rows(X)), "fish", "target: the classes of these images have no names: give the number"),
        (Named(rows(X)), 1.5, "target: expected a whole number, got 1.5"),
    ],
)
def test_a_class_that_there_is_not_is_refused(data: Any, given: Any, problem: str) -> None:
    with pytest.raises(RequestError, match=re.escape(problem)):
        bascule.evaluate(MODEL, data, trigger="sticker", target=given)
    with pytest.raises(RequestError, match=re.escape(problem)):
        bascule.poison(data, None, "sticker", target=given, rate=0.1, label="dirty")
    assert bascule.evaluate(MODEL, data, trigger="sticker", target="1")["asr"].n == 9  # as on the command line
