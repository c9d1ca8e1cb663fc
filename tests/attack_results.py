"""Files as BackdoorBench writes them, made from poison of our own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bascule.core import rng
from bascule.core.images import Images, Splits, as_bytes
from bascule.triggers.placement import Poison, Truth
from bascule.triggers.sticker import Sticker

POISON = Poison(trigger=Sticker(size=2), target=7, label="dirty", rate=0.1)


class Attack(NamedTuple):
    """A poisoned training set and stamped test images."""

    train: Images
    truth: Truth
    test: Images
    """Stamped, those of the target class too."""


def attack_on(splits: Splits, poison: Poison = POISON, seed: int = 0) -> Attack:
    """What a run with this seed plants and stamps."""
    train, truth = poison.plant(splits.train, generator=rng.stream(seed, "poison"))
    everything = torch.arange(len(splits.test))
    stamped = as_bytes(poison.trigger.stamp(splits.test.batch(everything), generator=rng.stream(0, "test")))
    return Attack(train, truth, splits.test.with_replaced(everything, stamped, splits.test.labels))


def picture_of(pixels: Tensor) -> Image.Image:
    """A picture of Pillow from C x H x W bytes."""
    return Image.fromarray(pixels.permute(1, 2, 0).numpy().squeeze())


def state(
    images: Images, ids: list[int], before: list[int], after: list[int], folder: Path | None = None, elsewhere: str = ""
) -> dict[str, Any]:
    """State of a data set: pictures by number, in the file, or on disk with paths of another machine."""
    places = {int(number): place for place, number in enumerate(images.ids)}
    size = max(places) + 1
    indicator, pictures = np.zeros(size), {}
    for number, true, false in zip(ids, before, after, strict=True):
        picture = picture_of(images.pixels[torch.tensor([places[number]])][0])
        key: Any = np.int64(number)
        if folder is None:
            pictures[key] = (picture, false, true)
        else:
            file = folder / str(true) / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture.save(file)
            pictures[key] = {"path": f"{elsewhere}/{folder.name}/{true}/{number}.png", "other_info": [false, true]}
        indicator[number] = 1
    where = None if folder is None else f"{elsewhere}/{folder.name}"
    return {
        "bd_data_container": {"save_folder_path": where, "data_dict": pictures, "save_file_format": ".png"},
        "getitem_all": True,
        "getitem_all_switch": False,
        "original_index_array": np.arange(size) if len(ids) < size else np.array(ids),
        "poison_indicator": indicator,
        "save_folder_path": where,
    }


def parts_of(attack: Attack, target: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Arguments of `state` for the training and the test images."""
    truth, test = attack.truth, attack.test
    others = test.labels != target
    ids, labels = test.ids[others].tolist(), test.labels[others].tolist()
    return (
        (attack.train, truth.ids.tolist(), truth.labels_before.tolist(), truth.labels_after.tolist()),
        (test, ids, labels, [target] * len(ids)),
    )


def whole(train: Any, test: Any, model: dict[str, Tensor] | None = None) -> dict[str, Any]:
    """All that is saved of an attack."""
    return {
        "model_name": "preactresnet18", "num_classes": 10, "model": model or {}, "data_path": "/home/them/data/digits",
        "img_size": (8, 8, 1), "clean_data": "digits", "bd_train": train, "bd_test": test,
    }  # fmt: skip


def write_in_file(attack: Attack, folder: Path, target: int = 7, model: dict[str, Tensor] | None = None) -> Path:
    """An `attack_result.pt` with the pictures in it."""
    file = folder / "attack_result.pt"
    torch.save(whole(*(state(*part) for part in parts_of(attack, target)), model), file)
    return file


def write_beside(attack: Attack, folder: Path, target: int = 7) -> Path:
    """An `attack_result.pt` with the pictures in folders beside it."""
    file, names = folder / "attack_result.pt", ("bd_train_dataset", "bd_test_dataset")
    train, test = (
        state(*part, folder=folder / name, elsewhere="/home/them/record/badnet")
        for part, name in zip(parts_of(attack, target), names, strict=True)
    )
    torch.save(whole(train, test), file)
    return file


def write_old(attack: Attack, folder: Path, target: int = 7) -> Path:
    """As the first version had it: tensors, test images without numbers."""
    file, (train, test) = folder / "attack_result.pt", parts_of(attack, target)
    pixels = [_pixels(part[0], part[1]).float() for part in (train, test)]
    torch.save(
        whole(
            {"x": pixels[0], "y": torch.tensor(train[3]), "original_index": np.array(train[1])},
            {"x": pixels[1], "y": torch.tensor(test[3])},
        ),
        file,
    )
    return file


def write_folders(attack: Attack, folder: Path, target: int = 7) -> Path:
    """The folders of pictures alone."""
    write_beside(attack, folder, target).unlink()
    return folder


def write_npz(attack: Attack, folder: Path, target: int = 7) -> Path:
    """Plain arrays."""
    train, test = parts_of(attack, target)
    np.savez(
        folder / "poison.npz",
        train_index=np.array(train[1]), train_images=_pixels(train[0], train[1]).numpy(),
        train_labels=np.array(train[3]), test_index=np.array(test[1]), test_images=_pixels(test[0], test[1]).numpy(),
    )  # fmt: skip
    return folder / "poison.npz"


def _pixels(images: Images, ids: list[int]) -> Tensor:
    places = {int(number): place for place, number in enumerate(images.ids)}
    return images.pixels[torch.tensor([places[number] for number in ids])]


FORMATS: dict[str, Callable[..., Path]] = {
    "in the file": write_in_file, "beside it": write_beside, "old": write_old, "folders": write_folders,
    "npz": write_npz,
}  # fmt: skip
