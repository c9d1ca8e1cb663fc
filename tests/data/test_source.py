"""What all sources share: where data are looked for, how classes are named, what `load` guarantees."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits
from bascule.data.contract import Facts, Source, class_names, default_roots, find


def images(count: int, size: tuple[int, int, int], classes: tuple[str, ...]) -> Images:
    return Images(
        pixels=torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(count, *size).contiguous(),
        labels=torch.arange(count) % len(classes),
        ids=torch.arange(count),
        classes=classes,
    )


@component
class Pair(Source):
    """Two splits that need not fit each other."""

    test_side: int = 4
    test_classes: tuple[str, ...] = ("cat", "dog")

    def read(self, roots: Sequence[Path]) -> Splits:
        test = images(6, (1, self.test_side, self.test_side), self.test_classes)
        return Splits(images(10, (1, 4, 4), ("cat", "dog")), test)

    def peek(self, roots: Sequence[Path]) -> Facts:
        train, test = self.read(roots)
        return Facts(
            size=train.size, classes=train.classes, train_labels=train.labels, test_labels=test.labels, digest="pair"
        )


class TestLoad:
    def test_whole_without_limits(self) -> None:
        train, test = Pair().load([])
        assert (len(train), len(test)) == (10, 6)

    def test_limits_cut_a_fixed_subset_in_order(self) -> None:
        train, test = Pair(max_train=4, max_test=2).load([])
        assert (len(train), len(test)) == (4, 2)
        assert train.ids.tolist() == sorted(train.ids.tolist())
        assert torch.equal(train.pixels[torch.arange(4)][:, 0, 0, 0], train.ids.to(torch.uint8))
        assert torch.equal(train.labels, train.ids % 2)
        assert torch.equal(train.ids, Pair(max_train=4).load([]).train.ids)

    def test_a_limit_above_the_size_keeps_everything(self) -> None:
        assert len(Pair(max_train=1000).load([]).train) == 10

    def test_refuses_splits_of_different_size(self) -> None:
        with pytest.raises(RequestError, match="training images are 1 x 4 x 4 but test images 1 x 5 x 5"):
            Pair(test_side=5).load([])

    def test_refuses_splits_of_different_classes(self) -> None:
        with pytest.raises(RequestError, match="different classes"):
            Pair(test_classes=("dog", "cat")).load([])


class TestClassNames:
    def names(self, train: list[int], test: list[int], names: tuple[str, ...] | None = None) -> tuple[str, ...]:
        return class_names("here", [torch.tensor(train), torch.tensor(test)], names)

    def test_numbers_cover_both_splits(self) -> None:
        assert self.names([0, 1], [2]) == ("0", "1", "2")
        assert self.names([2, 1], [0]) == ("0", "1", "2")

    def test_given_names_may_be_more_than_the_labels(self) -> None:
        assert self.names([0, 1], [1], ("a", "b", "c")) == ("a", "b", "c")

    def test_refuses_a_label_without_a_name(self) -> None:
        with pytest.raises(RequestError, match="here: labels go up to 2, but 2 classes are named"):
            self.names([0, 1], [2], ("a", "b"))

    def test_refuses_a_gap(self) -> None:
        with pytest.raises(RequestError, match="labels go up to 10000000000, but no image has the label 1"):
            self.names([0, 2], [10**10])

    def test_names_fill_a_gap(self) -> None:
        assert self.names([0, 2], [0], ("a", "b", "c")) == ("a", "b", "c")

    def test_refuses_a_negative_label(self) -> None:
        with pytest.raises(RequestError, match="here: test image 1 has the label -1"):
            self.names([0, 1], [0, -1])

    def test_refuses_an_empty_split(self) -> None:
        with pytest.raises(RequestError, match="here: there are no test images"):
            self.names([0], [])


class TestFind:
    def test_first_root_first(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / name / "set").mkdir(parents=True)
        assert find([tmp_path / "none", tmp_path / "b", tmp_path / "a"], "other", "set") == tmp_path / "b" / "set"

    def test_absolute_path_is_taken_as_it_is(self, tmp_path: Path) -> None:
        assert find([Path("elsewhere")], str(tmp_path)) == tmp_path

    def test_error_lists_names_and_places(self, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match=r"no 'x' or 'y' found in: one, two. Set `roots` or "):
            find([Path("one"), Path("two")], "x", "y")

    def test_a_place_of_dots_is_named_whole(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "in").mkdir()
        monkeypatch.chdir(tmp_path / "in")
        places = f"data, {tmp_path / 'in'}, {tmp_path}."
        with pytest.raises(RequestError, match=re.escape(f"no 'x' found in: {places} Set ")):
            find([Path("data"), Path(), Path(".."), Path("../in/..")], "x")

    def test_error_for_an_absolute_path(self, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match=r"gone does not exist$"):
            find([Path("one")], str(tmp_path / "gone"))

    def test_roots_in_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BASCULE_DATA", "set")
        roots = default_roots(Path("given"))
        assert roots[:3] == [Path("given"), Path("set"), Path("data")]
        assert roots[3].name == "bascule"
        assert roots[4:] == [Path()]
