"""What all verbs keep: their plain arguments are checked, and what is set around them in torch changes nothing."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

from bascule.core.apart import apart
from bascule.core.errors import RequestError
from bascule.core.text import quote

P = ParamSpec("P")
R = TypeVar("R")


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function a verb, whose keywords in `_CHECKS` are what they should be, or refused by name."""
    checked = [name for name in inspect.signature(function).parameters if name in _CHECKS]

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in checked:
            if name in kwargs:
                kwargs[name] = _CHECKS[name](kwargs[name], name)
        seed = kwargs.get("seed", 0)
        assert isinstance(seed, int)
        with apart(seed):
            return function(*args, **kwargs)

    return run


def whole(given: Any, place: str) -> int:
    """A whole number, also one of NumPy or torch.

    Raises:
        RequestError: It is something else.
    """
    try:
        if isinstance(given, bool) or (isinstance(given, torch.Tensor) and given.dtype == torch.bool):
            raise TypeError
        return operator.index(given)
    except (TypeError, ValueError, RuntimeError):
        raise RequestError(f"expected a whole number, got {quote(given)}", place=(place,)) from None


def path(given: Any, place: str) -> Path:
    """A folder or file.

    Raises:
        RequestError: It is no path.
    """
    if not isinstance(given, (str, PathLike)):
        raise RequestError(f"expected the path of a folder, got {quote(given)}", place=(place,))
    return Path(given)


def whole_or_none(given: Any, place: str) -> int | None:
    """As `whole`, where None stands for what is not given."""
    return None if given is None else whole(given, place)


def _several_whole(given: Any, place: str) -> tuple[int, ...]:
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise RequestError(f"expected whole numbers, for example [1, 2], got {quote(given)}", place=(place,))
    return tuple(whole(one, place) for one in given)


def _name(given: Any, place: str) -> str:
    if not isinstance(given, str):
        raise RequestError(f"expected a text, got {quote(given)}", place=(place,))
    return given


def _names(given: Any, place: str) -> str | Sequence[str]:
    if not isinstance(given, (str, list, tuple)):
        raise RequestError(f"expected a name, or a list of names, got {quote(given)}", place=(place,))
    return given


def _mapping(given: Any, place: str) -> Mapping[str, Any] | None:
    if given is not None and not isinstance(given, Mapping):
        raise RequestError(f"expected a mapping, for example {{'lr': 0.1}}, got {quote(given)}", place=(place,))
    return given


def _device(given: Any, place: str) -> torch.device | None:
    """Where to train, if it is there: tried with one number."""
    if given is None:
        return None
    if not isinstance(given, (str, torch.device)):
        raise RequestError(f"expected a device, for example 'cpu' or 'cuda:0', got {quote(given)}", place=(place,))
    try:
        device = torch.device(given)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise RequestError(f"cannot use {quote(str(given))}: {reason}", place=(place,)) from error
    return device


def _called(given: Any, place: str) -> Any:
    if given is not None and not callable(given):
        raise RequestError(f"expected a function, got {quote(given)}", place=(place,))
    return given


_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "seed": whole,
    "target": whole_or_none,
    "classes": whole_or_none,
    "sources": _several_whole,
    "measure": _names,
    "attack_precision": _name,
    "training": _mapping,
    "device": _device,
    "progress": _called,
}
"""Of arguments that are called so in every verb that has them, and are given by keyword."""
