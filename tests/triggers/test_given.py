"""Poison that others have planted: read from disk, put in place, stamped on test images."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from attack_results import FORMATS, POISON, Attack, attack_on, parts_of, state, whole, write_in_file, write_old
from bascule.core import rng
from bascule.core.catalog import build, construct, describe
from bascule.core.errors import RequestError
from bascule.core.images import Splits, as_bytes
from bascule.data.contract import Facts
from bascule.plan.schema import Setup
from bascule.triggers.given import GivenPoison
from bascule.triggers.placement import Poison
from bascule.triggers.stamped import Stamped
from bascule.triggers.stamping import stamp_at
from bascule.triggers.sticker import Sticker


@pytest.fixture(scope="module")
def attack(digits: Splits) -> Attack:
    return attack_on(digits)


@pytest.fixture(scope="module")
def facts() -> Facts:
    return build("data", "digits").facts([])


def given(path: Path | None, **more: Any) -> GivenPoison:
    return GivenPoison(name="given", path=None if path is None else str(path), **more)


def planted(poison: GivenPoison, splits: Splits) -> Any:
    return poison.plant(splits.train, generator=torch.Generator())


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_read_is_what_was_planted(
    kind: str, attack: Attack, digits: Splits, facts: Facts, tmp_path: Path
) -> None:
    poison = given(FORMATS[kind](attack, tmp_path), target=7)
    poison.check_data(facts)
    train, truth = planted(poison, digits)
    everything = torch.arange(len(train))
    assert torch.equal(train.pixels[everything], attack.train.pixels[everything])
    assert torch.equal(train.labels, attack.train.labels)
    for name in ("ids", "labels_before", "labels_after"):
        assert torch.equal(getattr(truth, name), getattr(attack.truth, name)), name
    places = torch.arange(len(digits.test))
    stamped = as_bytes(stamp_at(poison.trigger_at_test, digits.test, places, generator=torch.Generator()))
    others = digits.test.labels != 7
    assert torch.equal(stamped[others], attack.test.pixels[places][others])
    assert torch.equal(stamped[~others], digits.test.pixels[places][~others]), "the target class stays as it is"
    assert poison.count(facts.train_labels, 10) == len(truth.ids)


@pytest.mark.parametrize("kind", ["in the file", "beside it", "old", "npz"])
def test_the_target_is_read_where_it_is_told(kind: str, attack: Attack, tmp_path: Path) -> None:
    file = FORMATS[kind](attack, tmp_path)
    assert given(file).target == 7
    with pytest.raises(RequestError, match=r"target: 3 is given, and .* aims at 7"):
        given(file, target=3)


def test_folders_alone_do_not_tell_it(attack: Attack, tmp_path: Path) -> None:
    folder = FORMATS["folders"](attack, tmp_path)
    with pytest.raises(RequestError, match=r"target: .* does not tell the class"):
        given(folder)


def test_a_perturbed_image_gets_what_the_stamp_changed(attack: Attack, digits: Splits, tmp_path: Path) -> None:
    trigger = Stamped(path=str(write_in_file(attack, tmp_path)))
    index = (digits.test.labels != 7).nonzero().squeeze(1)[:5]
    x = digits.test.batch(index)
    moved = (x + 0.2).clamp(0, 1)
    got = trigger.stamp_at(digits.test, index, moved, generator=torch.Generator())
    corner = got[:, :, -2:, -2:]
    assert (corner >= moved[:, :, -2:, -2:] - 1e-6).all()
    assert torch.equal(got[:, :, :-2], moved[:, :, :-2])
    torch.testing.assert_close(corner, (moved + 1 - x)[:, :, -2:, -2:].clamp(0, 1))


def test_a_part_of_the_data_takes_its_part_of_the_poison(attack: Attack, tmp_path: Path) -> None:
    source = build("data", {"name": "digits", "max_train": 400, "held_out": 100, "max_test": 50})
    poison = given(write_in_file(attack, tmp_path))
    poison.check_data(source.facts([]))
    splits = source.load([])
    _, truth = planted(poison, splits)
    assert set(truth.ids.tolist()) == set(attack.truth.ids.tolist()) & set(splits.train.ids.tolist())
    assert 0 < len(truth.ids) < len(attack.truth.ids)
    old = given(write_old(attack, tmp_path))
    with pytest.raises(RequestError, match="only of a whole test set, without `max_test`"):
        old.check_data(source.facts([]))


def test_pictures_that_keep_their_label_are_replaced_and_not_poisoned(
    attack: Attack, digits: Splits, tmp_path: Path
) -> None:
    """WaNet's noise images: warped at random and labelled as they were."""
    (images, ids, before, after), test = parts_of(attack, 7)
    after = [*before[:10], *after[10:]]
    torch.save(whole(state(images, ids, before, after), state(*test)), tmp_path / "attack_result.pt")
    poison = given(tmp_path / "attack_result.pt")
    train, truth = planted(poison, digits)
    assert truth.ids.tolist() == ids[10:]
    assert (train.labels == digits.train.labels).sum() == len(train) - len(ids) + 10
    assert torch.equal(train.pixels[torch.arange(len(train))], attack.train.pixels[torch.arange(len(train))])


def test_pictures_that_are_not_used_are_not_taken(attack: Attack, digits: Splits, tmp_path: Path) -> None:
    train, test = parts_of(attack, 7)
    made = state(*train)
    made["poison_indicator"][train[1][0]] = 0
    torch.save(whole(made, state(*test)), tmp_path / "attack_result.pt")
    _, truth = planted(given(tmp_path / "attack_result.pt"), digits)
    assert truth.ids.tolist() == train[1][1:]


def test_data_that_are_poisoned_already(digits: Splits, facts: Facts, tmp_path: Path) -> None:
    listed = tmp_path / "poisoned.txt"
    listed.write_text("1\n2\n\n7\n")
    poison = given(None, target=7, trigger=Sticker(), indices=str(listed))
    poison.check_data(facts)
    train, truth = planted(poison, digits)
    assert train is digits.train
    assert truth.ids.tolist() == [1, 2, 7]
    assert truth.labels_before.tolist() == [-1, -1, -1]
    assert poison.count(facts.train_labels, 10) == 0, "nothing is replaced, so there is no twin"
    np.savez(tmp_path / "list.npz", train_index=np.array([7, 2, 1]))
    same = given(tmp_path / "list.npz", target=7, trigger=Sticker())
    assert planted(same, digits)[1].ids.tolist() == [1, 2, 7]
    _, unknown = planted(given(None, target=7, trigger=Sticker()), digits)
    assert not unknown.known
    assert unknown.count is None


def test_two_stamps_of_the_same_number_of_pictures_are_different_poison(attack: Attack, tmp_path: Path) -> None:
    file = write_in_file(attack, tmp_path)
    poison = given(file)
    moved = file.rename(tmp_path / "moved.pt")
    assert given(moved).planting == poison.planting, "the file may move"
    with pytest.raises(RequestError, match="does not exist"):
        construct(GivenPoison, describe(poison))
    (images, ids, before, after), test = parts_of(attack, 7)
    torch.save(whole(state(images, ids[1:], before[1:], after[1:]), state(*test)), moved)
    assert given(moved).planting != poison.planting
    with pytest.raises(RequestError, match="its content changed"):
        given(moved, sha256=poison.sha256)


def test_a_study_names_either_sort(attack: Attack, tmp_path: Path) -> None:
    file = str(write_in_file(attack, tmp_path))
    rest = {"data": "digits", "model": "digits-cnn", "train": {"objective": "standard", "epochs": 1}}
    setup = construct(Setup, {**rest, "poison": {"name": "given", "path": file}})
    assert isinstance(setup.poison, GivenPoison)
    assert construct(Setup, {**rest, "poison": describe(setup.poison)}).poison == setup.poison
    own = construct(Setup, {**rest, "poison": {"trigger": "sticker", "target": 7, "rate": 0.1}})
    assert isinstance(own.poison, Poison)
    with pytest.raises(RequestError, match=r"poison\.name: unknown name 'givn'\. Did you mean 'given'\?"):
        construct(Setup, {**rest, "poison": {"name": "givn", "path": file}})
    with pytest.raises(RequestError, match=r"trigger: .*poison: \{name: given, path: \.\.\.\}"):
        Poison(trigger=Stamped(path=file), target=7, rate=0.1)


# --- what cannot be ---------------------------------------------------------------------------------------------------


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hacked",)


def one(picture: Any = None, number: Any = 1, labels: Any = (7, 1)) -> dict[str, Any]:
    """A state with one entry."""
    picture = Image.fromarray(np.zeros((8, 8), np.uint8)) if picture is None else picture
    return {"bd_data_container": {"save_folder_path": None, "data_dict": {number: (picture, *labels)}}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"bd_train": Hostile(), "bd_test": None}, "which could run code. Nothing in it was run"),
        ({"model": {}}, "needed is an attack_result.pt of BackdoorBench"),
        ({"bd_train": [1], "bd_test": None}, "bd_train holds list; needed is a mapping"),
        ({"bd_train": one(nn.Identity()), "bd_test": None}, "needed is a picture of Pillow"),
        ({"bd_train": one(labels=(7,)), "bd_test": None}, "picture 1 has no poisoned and true label"),
        ({"bd_train": one(labels=(7.5, 1)), "bd_test": None}, "a label is float; needed is a whole number"),
        ({"bd_train": one(number=-4), "bd_test": None}, "numbers from -4 to -4 cannot be"),
        ({"bd_train": one(Image.new("F", (8, 8))), "bd_test": None}, "picture of mode 'F'"),
        (
            {"bd_train": None, "bd_test": {"x": torch.zeros(1).expand(10**9, 1, 8, 8), "y": torch.zeros(3).long()}},
            "announces 64,000,000,000 values, more than the file holds",
        ),
        (
            {"bd_train": {"x": torch.zeros(3, 1, 8, 8), "y": torch.zeros(2).long(), "original_index": np.arange(3)},
             "bd_test": None},
            "3 pictures but 2 labels",
        ),
        (
            {"bd_train": {"x": torch.zeros(3, 1, 8, 8), "y": torch.zeros(3).long(), "original_index": None},
             "bd_test": None},
            "nobody knows which images its pictures replace",
        ),
        (
            {"bd_train": {"bd_data_container": {"data_dict": {1: {"path": "/x/../etc/passwd", "other_info": [7, 1]}}}},
             "bd_test": None},
            "which has no folder bd_train_dataset in it",
        ),
        (
            {"bd_train": {"bd_data_container": {
                "data_dict": {1: {"path": "/bd_train_dataset/../../secret.png", "other_info": [7, 1]}}}},
             "bd_test": None},
            "outside of bd_train_dataset",
        ),
    ],
)  # fmt: skip
def test_hostile_and_damaged_files_are_one_clear_error(
    content: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "attack_result.pt")
    with pytest.raises(RequestError, match=re.escape(said)) as caught:
        given(Path("attack_result.pt"), target=7, trigger=Sticker())
    assert caught.value.place == ("path",)
    assert not Path("hacked").exists()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ([{}, "L", (8, 8), None, b"\0" * 63], "announces 8 x 8 pixels and holds 63 bytes"),
        ([{}, "L", (10**9, 10**9), None, b"\0"], "announces 1000000000 x 1000000000 pixels"),
        ([{}, "L", (0, 8), None, b"\0"], "it is damaged"),
        ([{}, "L"], "picture 1 is damaged"),
    ],
)
def test_a_picture_that_lies_about_itself(
    state: list[Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "__getstate__", lambda _: state)
        torch.save({"bd_train": one(), "bd_test": None}, tmp_path / "attack_result.pt")
    with pytest.raises(RequestError, match=re.escape(said)):
        given(tmp_path / "attack_result.pt", target=7, trigger=Sticker())


def changed(attack: Attack, path: Path, **changes: Callable[[Any], Any]) -> Path:
    """A file whose training images are not what they should be."""
    (images, ids, before, after), test = parts_of(attack, 7)
    made = state(images, ids, before, after)
    entries = made["bd_data_container"]["data_dict"]
    for number, entry in list(entries.items()):
        for name, change in changes.items():
            place = {"pictures": 0, "after": 1, "before": 2}.get(name)
            if place is not None:
                entry = (*entry[:place], change(entry[place]), *entry[place + 1 :])
        entries[number] = entry
    if "numbers" in changes:
        made["bd_data_container"]["data_dict"] = {changes["numbers"](key): entry for key, entry in entries.items()}
        made["poison_indicator"] = np.ones(10_000)
    torch.save(whole(made, state(*test)), path)
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"numbers": lambda number: number + 5000}, "there is no training image 500"),
        ({"before": lambda label: (label + 1) % 7}, "These are other data, or in another order"),
        ({"pictures": lambda picture: picture.resize((9, 8))}, "of 8 x 9 pixels, the data of 8 x 8; they are not res"),
        ({"pictures": lambda picture: picture.convert("RGB")}, ""),
        ({"after": lambda label: 12}, "a picture has the label 12; the classes are 0..9"),
    ],
)
def test_poison_of_other_data_is_refused(
    changes: dict[str, Any], said: str, attack: Attack, facts: Facts, tmp_path: Path
) -> None:
    poison = given(changed(attack, tmp_path / "attack_result.pt", **changes))
    if not said:  # three equal channels are a grey picture
        poison.check_data(facts)
        return
    with pytest.raises(RequestError, match=re.escape(said)):
        poison.check_data(facts)


def test_test_images_without_a_stamped_picture_are_no_failures(attack: Attack, facts: Facts, tmp_path: Path) -> None:
    train, (images, ids, before, after) = parts_of(attack, 7)
    torch.save(whole(state(*train), state(images, ids[3:], before[3:], after[3:])), tmp_path / "attack_result.pt")
    with pytest.raises(RequestError, match=r"3 of \d+ test images that are not of the target class 7 have no stamped"):
        given(tmp_path / "attack_result.pt").check_data(facts)


def test_all_to_all_is_refused(attack: Attack, tmp_path: Path) -> None:
    train, (images, ids, before, _) = parts_of(attack, 7)
    after = [(label + 1) % 10 for label in before]
    torch.save(whole(state(*train), state(images, ids, before, after)), tmp_path / "attack_result.pt")
    with pytest.raises(RequestError, match="aims at 9 classes"):
        given(tmp_path / "attack_result.pt")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pictures": [1]}, "needed are some of the arrays train_index"),
        ({"train_images": np.zeros((2, 8, 8), np.uint8)}, "train_images needs train_index"),
        ({"test_index": [1]}, "test_index needs test_images"),
        ({"train_index": [1, 1], "train_images": np.zeros((2, 8, 8), np.uint8)}, "image 1 comes twice"),
        ({"train_index": [1], "train_images": np.zeros((2, 8, 8), np.uint8)}, "2 pictures but 1 numbers"),
        ({"train_index": [1], "train_images": np.full((1, 8, 8), -3.0)}, "ranges from -3 to -3"),
        ({"train_index": [1], "train_images": np.array([Hostile()])}, "cannot read"),
        ({"train_index": [1], "train_images": np.zeros((1, 8))}, "has shape (1, 8)"),
    ],
)
def test_arrays_that_do_not_belong_together(arrays: dict[str, Any], said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "poison.npz", **{name: np.array(value) for name, value in arrays.items()})
    with pytest.raises(RequestError, match=re.escape(said)):
        given(tmp_path / "poison.npz", target=7, trigger=Sticker())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"target": 7}, "trigger: there are no stamped test images"),
        ({"path": "nowhere.pt"}, "path: 'nowhere.pt' does not exist; needed is an attack_result.pt"),
        ({"path": "."}, "path: '.' has no pictures in it"),
        ({"target": 7, "trigger": Sticker(), "indices": "gone.txt"}, "cannot read the indices 'gone.txt'"),
    ],
)
def test_settings_that_say_too_little(
    settings: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=re.escape(said)):
        GivenPoison(name="given", **settings)


def test_a_list_with_something_else_in_it(facts: Facts, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("1\nzwei\n")
    poison = given(None, target=7, trigger=Sticker(), indices=str(tmp_path / "list.txt"))
    with pytest.raises(RequestError, match=r"indices: .*line 2 is 'zwei'"):
        poison.check_data(facts)


def test_grey_pictures_on_coloured_data() -> None:
    from bascule.triggers._stored import fitted

    grey = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 2, 2)
    assert torch.equal(fitted(grey, (3, 2, 2), "it"), grey.expand(-1, 3, -1, -1))
    coloured: Tensor = torch.arange(12, dtype=torch.uint8).reshape(1, 3, 2, 2)
    with pytest.raises(RequestError, match="coloured, the data are grey"):
        fitted(coloured, (1, 2, 2), "it")


def test_numbers_in_either_byte_order(attack: Attack, digits: Splits, tmp_path: Path) -> None:
    train, test = parts_of(attack, 7)
    made = whole(state(*train), state(*test))
    entries = made["bd_train"]["bd_data_container"]["data_dict"]
    made["bd_train"]["bd_data_container"]["data_dict"] = {
        np.array(int(key), dtype=">i8")[()]: (picture, np.uint8(after), np.int16(before))
        for key, (picture, after, before) in entries.items()
    }
    torch.save(made, tmp_path / "attack_result.pt")
    _, truth = planted(given(tmp_path / "attack_result.pt"), digits)
    assert torch.equal(truth.ids, attack.truth.ids)


def test_the_seed_of_the_attack_is_the_planting_one(digits: Splits) -> None:
    """What the tests write is what a run with seed 0 plants."""
    train, _ = POISON.plant(digits.train, generator=rng.stream(0, "poison", device="cpu"))
    assert torch.equal(train.labels, attack_on(digits).train.labels)
