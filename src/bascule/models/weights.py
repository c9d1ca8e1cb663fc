"""Weights from a file, read without running any code in it."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from bascule.core.errors import RequestError

_PLACE = ("weights",)
_UNSAFE = "it holds more than tensors, or is damaged. Where you trust it, save its weights alone: model.state_dict()"


def load_weights(net: nn.Module, path: str, *, fresh: Iterable[str] = (), other_classes: bool = True) -> None:
    """Copy the weights in a file into `net`, in place.

    With `other_classes`, the last linear layer keeps its fresh weights when the file's has another number of rows.

    Args:
        net: The network; its layers are named as in the file.
        path: A safetensors file, or a state dict saved by `torch.save`; one that lies under the key `state_dict`,
            `model_state_dict`, `model` or `net` is found, and the prefix `module.` of data-parallel training is taken
            away.
        fresh: Names of modules that may be missing in the file as a whole and then keep their fresh weights.
        other_classes: Whether the file may be of a model for other classes: one to start from, not one to judge.

    Raises:
        RequestError: The file holds no state dict, or names or shapes do not fit.
    """
    given, wanted = _read(path), net.state_dict()
    head = next((name for name, part in reversed(list(net.named_modules())) if isinstance(part, nn.Linear)), None)
    weight = f"{head}.weight"
    if other_classes and weight in given and weight in wanted and _other_rows(given[weight], wanted[weight]):
        given = {name: value for name, value in given.items() if name.rpartition(".")[0] != head}
        fresh = (*fresh, str(head))
    spared = [part for part in fresh if not any(name.startswith(f"{part}.") for name in given)]
    missing = [
        name
        for name in wanted.keys() - given.keys()
        # Counters are not used, and old files have none.
        if not name.endswith("num_batches_tracked") and not any(name.startswith(f"{part}.") for part in spared)
    ]
    problems = [
        _problem("lacks", missing),
        _problem("has what the network lacks:", given.keys() - wanted.keys()),
        _problem(
            "has other shapes:",
            (
                f"{name} {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
                for name in given.keys() & wanted.keys()
                if given[name].shape != wanted[name].shape
            ),
        ),
    ]
    if any(problems):
        text = "; it ".join(filter(None, problems))
        raise RequestError(f"the file {path!r} does not fit this network: it {text}", place=_PLACE)
    net.load_state_dict({**wanted, **given})


def _other_rows(given: Tensor, wanted: Tensor) -> bool:
    return given.ndim == wanted.ndim and given.shape[0] != wanted.shape[0] and given.shape[1:] == wanted.shape[1:]


def _problem(kind: str, names: Iterable[str]) -> str:
    """The first three of the names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return f"{kind} {', '.join(ordered[:3])}{more}" if ordered else ""


def _read(path: str) -> dict[str, Tensor]:
    file = Path(path).expanduser()
    if problem := _no_weights(file):
        raise RequestError(f"cannot read the weights {path!r}: {problem}", place=_PLACE)
    try:
        if file.suffix == ".safetensors":
            content: Any = safetensors.torch.load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # What torch says of unsafe files is to load them all the same.
        unsafe = isinstance(error, pickle.UnpicklingError)
        reason = _UNSAFE if unsafe else str(error).strip().partition("\n")[0]
        problem = f"cannot read the weights {path!r} as a {file.suffix or 'torch'} file: {reason}"
        raise RequestError(problem, place=_PLACE) from error
    for key in ("state_dict", "model_state_dict", "model", "net"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise RequestError(f"the file {path!r} holds no state dict: a mapping from names to tensors", place=_PLACE)
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    return {name.removeprefix(prefix): value for name, value in content.items()}


def _no_weights(file: Path) -> str:
    """What a file is that downloads and clones leave in the place of weights; empty when it is none of these."""
    try:
        with file.open("rb") as opened:
            start = opened.read(64).lstrip()
    except OSError:
        return ""  # reading it says why
    if not start:
        return "the file is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file it stands for; run: git lfs pull"
    if start[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "it is a web page; get the file itself"
    return ""
