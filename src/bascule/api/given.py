"""What somebody has in Python, as the rooms want it: images with labels, a model, a component."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from bascule.attacks.contract import Evasion
from bascule.attacks.two_precisions import Precision, precision_named
from bascule.core import rng
from bascule.core.catalog import build, name_of
from bascule.core.errors import RequestError, placed
from bascule.core.gather import class_names
from bascule.core.given import Data, Labels, labelled
from bascule.core.images import Exact, Floats, Images, as_bytes, as_floats
from bascule.core.inference import check_answers, labels_of
from bascule.core.restore import evaluating
from bascule.core.text import joined, quote
from bascule.evaluation.subject import batch_size
from bascule.models.checks import check_logits, flat
from bascule.plan.labels import label_of, with_labels

ARGUMENTS = {
    "attack": "attack",
    "certify": "certifier",
    "poison": "trigger",
    "train": "objective",
    "filter": "filter",
    "scan": "scanner",
    "detect": "detector",
    "repair": "repair",
    "models": "model",
}
"""How verbs call the component of each kind that they are given."""
_CHUNK = 2000
_MOST_CLASSES = 1_000_000
"""More of them are a mistake: an index or a missing label among the labels."""


def part_of(room: str, given: str | Mapping[str, Any] | Any, settings: Mapping[str, Any], x: object = None) -> Any:
    """The component that is meant by a name with settings, by a mapping as in a study file, or by itself.

    Args:
        room: Its kind.
        given: What was given.
        settings: That go with a name.
        x: The images, whose classes may be named in settings that hold labels.

    Raises:
        RequestError: There is none like that, or no class of this name; its place is the argument.
    """
    argument = ARGUMENTS[room]
    with placed(argument):
        if settings and not isinstance(given, str):
            raise RequestError(f"settings ({', '.join(settings)}) go with a name; put them into the {argument} itself")
        if "name" in settings:
            raise RequestError(f"its name is {quote(given)} already", place=("name",))
        return build(room, with_numbers({"name": given, **settings} if isinstance(given, str) else given, x))


def with_numbers(given: Any, x: object) -> Any:
    """Settings as they are given, with the names of classes of these images as labels; what is no mapping stays.

    Raises:
        RequestError: There is no class of this name, or the images have no names; its place is the setting.
    """
    return with_labels(given, lambda: _class_names(x)) if isinstance(given, Mapping) else given


def numbered(label: int | str | None, x: object, place: str) -> int | None:
    """A class of these images by its label, where it may be given by its name.

    Raises:
        RequestError: As `with_numbers`; its place is `place`.
    """
    if not isinstance(label, str):
        return label
    with placed(place):
        try:
            return label_of(label, _class_names(x))
        except RequestError:
            if label.isdecimal():
                return int(label)
            raise


def _class_names(x: object) -> Sequence[str]:
    names = class_names(x)
    if names is None:
        problem = "the classes of these images have no names: give the number (a data set with `classes` has names)"
        raise RequestError(problem)
    return names


def precision_of(given: str, attacks: Sequence[Evasion]) -> Precision:
    """Of these attacks' searches.

    Raises:
        RequestError: There is none of this name, or none of the attacks searches in two precisions.
    """
    with placed("attack_precision"):
        precision = precision_named(given)
        if precision == "mixed" and not any(attack.mixed_precision for attack in attacks):
            what = f"not with {joined([name_of(attack) for attack in attacks])}" if attacks else "not without an attack"
            raise RequestError(f"'mixed' is for attacks that follow gradients, {what}: leave it out")
        return precision


def floats_for(model: nn.Module, x: Data, y: Labels | None, seed: int) -> tuple[Floats, int]:
    """The images where the model is and as it takes them, and the number of its classes, tried on a few of them.

    Raises:
        RequestError: A wrong type, shape, range or label, or a model that does not answer with logits, or with NaN; its
            place is the argument.
    """
    check_module(model)
    images = labelled(x, y, seed=seed)
    weight = next((part for part in model.parameters() if part.is_floating_point()), None)
    device = images.device if weight is None else weight.device
    # As the model has it, but never in 16 bits: what is rounded to them does not stay in its ball.
    dtype = images.x.dtype if weight is None else torch.promote_types(torch.float32, weight.dtype)
    images = Floats(x=images.x.to(device, dtype), labels=images.labels.to(device))
    few = images.x[:2]
    with placed("model"):
        try:
            with evaluating(model), torch.no_grad():
                logits = model(few)
        except RequestError:
            raise
        except Exception as error:  # somebody's code may raise anything
            size = " x ".join(map(str, few.shape[1:]))
            remedy = flat(model, few) or f": {type(error).__name__}: {error}"
            raise RequestError(f"cannot take images of {size}{remedy}") from error
        classes = logits.shape[1] if isinstance(logits, Tensor) and logits.ndim == 2 else 0
        check_logits(type(model).__name__, logits, len(few), classes)
        labels_of(logits)
    highest = int(images.labels.max())
    if highest >= classes:
        raise RequestError(f"labels go up to {highest}, but the model has the classes 0..{classes - 1}", place=("y",))
    return images, classes


def images_for(model: nn.Module, x: Data, y: Labels | None, seed: int) -> Images:
    """`floats_for`, as the rooms of defences and training take a set: whole bytes where the images are such.

    Raises:
        RequestError: As `floats_for`, images of another number of channels than 1 or 3, or a model that answers one of
            them with NaN or infinite logits.
    """
    floats, classes = floats_for(model, x, y, seed)
    images = as_set(floats, classes)
    with placed("model"), rng.borrowed_global_stream(seed, "answers"):
        check_answers(model, images, batch_size=batch_size(images))
    return images


def as_set(images: Floats, classes: int) -> Images:
    """The images with their positions as ids, on their device.

    Raises:
        RequestError: Another number of channels than 1 or 3, or so many classes that the labels must be wrong.
    """
    if classes > _MOST_CLASSES:
        found = int(images.labels.max())
        place, what = ("y", f"labels go up to {found:,}") if found >= _MOST_CLASSES else ("classes", f"{classes:,}")
        raise RequestError(f"{what}: more than {_MOST_CLASSES:,} classes; labels count from 0", place=(place,))
    with placed("x"):
        pixels = _whole_bytes(images.x)
        return Images(
            pixels=Exact(images.x.float()) if pixels is None else pixels,
            labels=images.labels,
            ids=images.ids,
            classes=tuple(map(str, range(classes))),
        )


def _whole_bytes(x: Tensor) -> Tensor | None:
    """The images as uint8, where nothing is lost by that; None where something is."""
    parts = []
    for part in x.split(_CHUNK):
        parts.append(as_bytes(part))
        if not torch.equal(as_floats(parts[-1]), part.float()):
            return None
    return torch.cat(parts)


def check_module(model: object, argument: str = "model") -> None:
    """Refuse what is no network, given as this argument.

    Raises:
        RequestError: It is none.
    """
    if not isinstance(model, nn.Module):
        inner = ": give its `.model`" if isinstance(getattr(model, "model", None), nn.Module) else ""
        file = ": load a file's weights into a network first" if isinstance(model, (str, PathLike)) else ""
        raise RequestError(f"expected a torch.nn.Module, got {type(model).__name__}{inner or file}", place=(argument,))
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise RequestError(
            "its parameters were made under torch.inference_mode(), and have no gradients for ever: make it outside",
            place=(argument,),
        )


def drawing(seed: int, purpose: str, images: Images) -> torch.Generator:
    """The stream of a verb, on the device of the images: the one of the command of that name."""
    return rng.stream(seed, purpose, device=images.device)
