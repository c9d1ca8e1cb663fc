"""What lies in a file of weights, read without running any code in it."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from bascule.core.errors import RequestError
from bascule.core.text import quote
from bascule.core.unread import Unread, load_unread

_PLACE = ("weights",)
_WEIGHTS_ALONE = "save its weights alone: model.state_dict()"
_UNSAFE = f"it holds more than tensors, or is damaged. Where you trust it, {_WEIGHTS_ALONE}"
_KINDS = (
    (rb"version https://git-lfs", "it is a Git LFS pointer, not the file it stands for; run: git lfs pull"),
    (rb"(?i)<(!doctype html|html|\?xml)", "it is a web page; get the file itself"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|\x28\xb5\x2f\xfd|Rar!", "it is a compressed archive; unpack it first"),
    (rb"\x89HDF", "it is an HDF5 file, as Keras writes it; a state dict of PyTorch is needed"),
    (rb"\x93NUMPY", "it is a NumPy array; a state dict of PyTorch is needed"),
    (rb'[{\[]\s*["{\[}]', "it is JSON text, not the weights"),
    (
        rb"(?s)\x80[\x00-\x09](?!(\x95.{8})?\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19)",
        "it is a plain pickle, not a file by torch.save, and unpickling may run code. Where you trust it, write it "
        "anew: torch.save(pickle.load(open(FILE, 'rb')), 'weights.pt')",
    ),
)
"""How files begin that downloads, clones and other programs leave in the place of weights, and what they are. What
`torch.save` wrote before version 1.6 begins as a pickle with its magic number."""
_BEGINS = (b"PK", b"\x80")
"""How files by `torch.save` begin; safetensors have a mapping after the eight bytes of its length."""
_DEEPEST = 6
_WIDEST = 64
"""Most entries of a list that are looked into."""
_CHANNELS = 4
"""Most channels of images."""
_NO_WEIGHTS = re.compile(r"optim|sched|scaler|grad|moment|exp_avg|callback", re.IGNORECASE)
"""Keys of what belongs to a training: an optimiser's averages may have the names of the network, and what Lightning's
callbacks keep has other running statistics."""


class Found(NamedTuple):
    """One mapping from names to tensors in a file."""

    keys: tuple[str, ...]
    """That lead to it."""
    tensors: dict[str, Tensor]
    beside: dict[str, Tensor]
    """A few numbers by name (tensors, lists, tuples) that lie in it or in the mappings around it, the nearest first."""


def read_state_dicts(path: str) -> list[Found]:
    """All mappings from names to tensors in a file.

    Objects of classes that torch does not know (settings of a training, paths, numbers of NumPy) are stood for by
    `Unread`. What an optimiser keeps is left out.

    Raises:
        RequestError: The file cannot be read, is no file of weights, holds none, or asks for what could run code.
    """
    file = Path(path).expanduser()
    start = _start(file)
    if problem := _no_weights(file, start):
        raise RequestError(f"cannot read the weights {path!r}: {problem}", place=_PLACE)
    try:
        if start[8:9] == b"{" or (file.suffix == ".safetensors" and start[:2] not in (b"PK", b"\x80\x02")):
            content: Any = safetensors.torch.load_file(file)
        else:
            content = load_unread(file)
    except Exception as error:
        if isinstance(error, RequestError):
            reason = error.problem
        elif isinstance(error, pickle.UnpicklingError):
            reason = _UNSAFE  # what torch says of unsafe files is to load them all the same
        else:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
        problem = f"cannot read the weights {path!r} as a {file.suffix or 'torch'} file: {reason}"
        raise RequestError(problem, place=_PLACE) from error
    if content == {}:
        raise RequestError(f"the file {path!r} holds no tensors", place=_PLACE)
    found = list(_state_dicts(content, (), {}))
    if not found:
        raise RequestError(f"the file {path!r} holds no state dict: {_instead(content)}", place=_PLACE)
    return found


def _start(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(512)
    except OSError:
        return b" "  # reading it says why


def _no_weights(file: Path, start: bytes) -> str:
    """What a file is that is none of weights; empty when it may be one."""
    if not start.strip():
        return "" if start == b" " else "the file is empty"
    for pattern, kind in _KINDS:
        if re.match(pattern, start.lstrip()):
            return kind
    if start.startswith(b"PK"):
        if not zipfile.is_zipfile(file):
            return "it is cut off or damaged; get it again"
        with zipfile.ZipFile(file) as archive:
            inside = {name.rpartition("/")[2] for name in archive.namelist()}
        if "constants.pkl" in inside:
            return (
                "it is a TorchScript program; opening it runs it. "
                "Where you trust it, save its weights alone: torch.jit.load(FILE).state_dict()"
            )
        if any(name.endswith(".npy") for name in inside):
            return "it is an archive of NumPy arrays; a state dict of PyTorch is needed"
        if "data.pkl" not in inside:
            return "it is a zip archive; unpack it first"
    elif not start.startswith(_BEGINS) and start[8:9] != b"{":
        return "it is neither a file by torch.save nor safetensors, or it is damaged"
    return ""


def _state_dicts(content: Any, keys: tuple[str, ...], around: Mapping[str, Tensor]) -> Iterator[Found]:
    if len(keys) > _DEEPEST:
        return
    if isinstance(content, list | tuple):
        content = {str(place): value for place, value in enumerate(content[:_WIDEST]) if not isinstance(value, Tensor)}
    if not isinstance(content, Mapping):
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    tensors = {key: value.detach() for key, value in named.items() if isinstance(value, Tensor)}
    beside = {**around, **{key: few for key, value in named.items() if (few := _few_numbers(value)) is not None}}
    if tensors:
        yield Found(keys, tensors, beside)
    for key, value in named.items():
        if not isinstance(value, Tensor) and not _NO_WEIGHTS.search(key):
            yield from _state_dicts(value, (*keys, key), beside)


def _few_numbers(value: Any) -> Tensor | None:
    """What may be one number a channel, as float32, or None."""
    if isinstance(value, Tensor):
        return value.detach().float() if 1 <= value.numel() <= _CHANNELS and value.is_floating_point() else None
    given = value if isinstance(value, list | tuple) else [value]
    plain = 1 <= len(given) <= _CHANNELS and all(type(one) in (int, float) for one in given)
    return torch.tensor(given, dtype=torch.float32) if plain else None


def _instead(content: Any) -> str:
    """What a file holds that has no state dict."""
    values = content.values() if isinstance(content, Mapping) else content if isinstance(content, list) else [content]
    for value in (content, *values):
        if isinstance(value, Unread) and isinstance(value.state, Mapping) and "_modules" in value.state:
            whole = f"it holds a whole pickled network ({quote(value.origin)}), which is code"
            return f"{whole}. Where you trust it, {_WEIGHTS_ALONE}"
    return "a mapping from names to tensors"
