"""What every source of images keeps, whichever file or package it comes from."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from bascule.core.images import Images
from bascule.data.contract import Source
from bascule.testing.demands import demand, one_sentence, refusal
from bascule.testing.settings import check_settings

LIMITS: tuple[dict[str, int], ...] = (
    {},
    {"max_train": 5},
    {"max_train": 4, "max_test": 3},
    {"max_train": 10**6, "max_test": 10**6},
)
"""Settings by which a set is cut to so many images, or is not."""


@one_sentence
def check_source(source: Source, root: Path | None = None, *, other: Path | None = None) -> None:
    """The contract of a source of images: labelled bytes of one size, whose facts and digest agree with what it loads.

    Args:
        source: Of a small set that has a training and a test part; at least 7 training and 3 test images.
        root: The folder where its files lie, which is copied before anything in it is moved or damaged; None for one
            that reads none.
        other: A folder with a set of the same labels and other pictures.

    Raises:
        AssertionError: It does not keep the contract; the text says what is wrong.
    """
    check_settings(source)
    check_settings(replace(source, max_train=5))
    roots = [] if root is None else [root]
    for limits in LIMITS:
        check_load(source, roots, limits)
        check_facts(source, roots, limits)
    for limits in LIMITS[:2]:
        check_training_part(source, roots, limits)
    check_limits(source, roots)
    check_again(source, roots)
    if root is None:
        return
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "there"
        shutil.copytree(root, copy)
        check_digest(source, root, copy)
        check_absent(source, Path(place) / "nowhere")
        check_damaged(source, copy)
    if other is not None:
        check_content(source, root, other)


def _pixels(images: Images) -> torch.Tensor:
    return images.pixels[torch.arange(len(images))]


def check_load(source: Source, roots: Sequence[Path], limits: dict[str, int]) -> None:
    """It loads labelled bytes of one size and the same classes in both parts."""
    train, test = splits = replace(source, **limits).load(roots)
    demand(train.size == test.size, f"training images are {train.size}, test images {test.size}")
    demand(train.classes == test.classes, "the training part has other classes than the test part")
    demand(all(isinstance(label, str) for label in train.classes), f"classes are no words: {train.classes}")
    for images in splits:
        whole, count = _pixels(images), len(images)
        demand(whole.dtype == torch.uint8, f"pixels are {whole.dtype}")
        shapes = {tuple(whole.shape), tuple(images.pixels.shape), (count, *images.size)}
        demand(len(shapes) == 1, f"the pixels are of several shapes: {shapes}")
        demand(images.size[0] in (1, 3), f"images have {images.size[0]} channels")
        for name, values in (("labels", images.labels), ("ids", images.ids)):
            demand(values.dtype == torch.int64, f"{name} are {values.dtype}")
            demand(values.shape == (count,), f"{name} have shape {tuple(values.shape)}, images are {count}")
        demand(len(images.ids.unique()) == count, "two images have the same id")
        demand((whole.flatten(1).amax(1) > whole.flatten(1).amin(1)).all(), "a picture is blank")


def check_limits(source: Source, roots: Sequence[Path]) -> None:
    """A limit cuts the same pictures out of a part, and leaves the other part alone."""
    train, test = source.load(roots)
    few, others = replace(source, max_train=5).load(roots)
    demand(len(few) == 5, f"max_train 5 leaves {len(few)} training images")
    demand(len(others) == len(test), f"max_train 5 leaves {len(others)} test images of {len(test)}")
    place = {int(i): k for k, i in enumerate(train.ids)}
    index = torch.tensor([place[int(i)] for i in few.ids])
    demand(torch.equal(_pixels(few), train.pixels[index]), "a limit changes the pictures of its ids")
    demand(torch.equal(few.labels, train.labels[index]), "a limit changes the labels of its ids")


def check_training_part(source: Source, roots: Sequence[Path], limits: dict[str, int]) -> None:
    """The training images alone are those of the whole."""
    cut = replace(source, **limits, held_out=2)
    expected = cut.load(roots).train
    for one in (cut, cut.without_test()):  # a set that has a split has it with and without
        train = one.load_train(roots)
        demand(torch.equal(train.ids, expected.ids), "the training images alone are others")
        demand(torch.equal(_pixels(train), _pixels(expected)), "the training images alone have other pictures")
        same = (train.classes, train.labels.tolist()) == (expected.classes, expected.labels.tolist())
        demand(same, "the training images alone have other labels")


def check_again(source: Source, roots: Sequence[Path]) -> None:
    """Loading again gives the same."""
    first, again = source.load(roots).train, source.load(roots).train
    demand(torch.equal(_pixels(first), _pixels(again)), "loading again gives other pictures")
    demand(torch.equal(first.ids, again.ids), "loading again gives other ids")


def check_facts(source: Source, roots: Sequence[Path], limits: dict[str, int]) -> None:
    """What it says of a set before loading it agrees with what it loads."""
    cut = replace(source, **limits)
    facts, (train, test) = cut.facts(roots), cut.load(roots)
    demand(facts.size == train.size, f"its facts say {facts.size}, its images are {train.size}")
    demand(facts.classes == train.classes, "its facts have other classes")
    for part, told, images in (("training", facts.train_labels, train), ("test", facts.test_labels, test)):
        demand(torch.equal(told, images.labels), f"its facts have other {part} labels")
        demand(told.dtype == torch.int64, f"its facts have {part} labels of {told.dtype}")


def check_digest(source: Source, root: Path, copy: Path) -> None:
    """The digest follows the content, not the place."""
    same = source.facts([root]).digest == source.facts([copy]).digest
    demand(same, "the same files in another folder have another digest")


def check_content(source: Source, root: Path, other: Path) -> None:
    """Other content has another digest and gives other pictures."""
    demand(source.facts([root]).digest != source.facts([other]).digest, "other files have the same digest")
    before, after = source.load([root]).train, source.load([other]).train
    demand(torch.equal(before.labels, after.labels), "the other set has other labels: it must differ in pictures alone")
    demand(not torch.equal(_pixels(before), _pixels(after)), "other files give the same pictures")


def check_absent(source: Source, nowhere: Path) -> None:
    """Data that are not there are refused."""
    for action in (source.load, source.facts):
        refusal(
            lambda action=action: action([nowhere]),  # type: ignore[misc]
            what="a set that is not there",
            text=r"found in: .*nowhere. Set `roots` or \$BASCULE_DATA",
        )


def check_damaged(source: Source, copy: Path) -> None:
    """Files of which the second half is missing are refused; those in `copy` are cut."""
    for path in [path for path in copy.rglob("*") if path.is_file()]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for action in (source.load, source.facts):
        error = refusal(lambda action=action: action([copy]), what="a damaged file")  # type: ignore[misc]
        demand(str(copy) in str(error), f"the refusal of a damaged file does not say where it lies: {error}")
