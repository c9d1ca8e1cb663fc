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
from torch import nn

from bascule.api.given import ARGUMENTS
from bascule.core.apart import apart
from bascule.core.catalog import names, plain_number
from bascule.core.errors import RequestError, nearest, unknown
from bascule.core.text import joined, quote

P = ParamSpec("P")
R = TypeVar("R")


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function a verb, whose keywords of the types in `_CHECKS` are what they should be, or refused by name."""
    signature = inspect.signature(function)
    parameters = signature.parameters.values()
    named = [one for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY]
    placed = [one.name for one in parameters if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    checks = {one.name: _CHECKS[str(one.annotation)] for one in named if str(one.annotation) in _CHECKS}

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if len(args) > len(placed):
            further = f"{named[0].name}=..." if named else "by name"
            raise RequestError(
                f"{function.__name__} takes {joined(placed)} by position; give what is more as {further}"
            )
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise _wrongly_called(function.__name__, signature, args, kwargs, error) from None
        for name, check in checks.items():
            if name in kwargs:
                kwargs[name] = check(kwargs[name], name)
        seed = kwargs.get("seed") or 0
        assert isinstance(seed, int)
        with apart(seed, *(one for one in (*args, *kwargs.values()) if isinstance(one, nn.Module))):
            return function(*args, **kwargs)

    return run


def _wrongly_called(
    verb: str, signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any], error: TypeError
) -> RequestError:
    """What is missing, with what there is of it; or what the verb does not know."""
    parameters = signature.parameters
    placed = [one.name for one in parameters.values() if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    foreign = [name for name in kwargs if name not in parameters]
    if foreign and not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return RequestError(unknown(f"argument of bascule.{verb}", foreign[0], parameters))
    missing = [
        one.name
        for one in parameters.values()
        if one.name not in (*placed[: len(args)], *kwargs)
        and one.default is inspect.Parameter.empty
        and one.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    if not missing:
        return RequestError(f"bascule.{verb}: {error}")  # something twice
    part = placed[-1] if placed[-1] in _EXAMPLES else ""
    given = [*(placed[:-1] if part else placed), *([f'"{_EXAMPLES[part]}"'] if part else [])]
    call = ", ".join([*given, *(f"{name}=..." for name in missing if name not in placed)])
    said = [f"bascule.{verb} needs {joined(missing)} too, as in bascule.{verb}({call})"]
    near = {name: nearest(name, foreign, most=1, likeness=0.6) for name in missing}
    said += [f"{found[0]} is no argument of it: did you mean {name}" for name, found in near.items() if found]
    if "y" in missing:
        said.append("y is None where x is a data set that brings its labels along")
    if part in missing:
        room = next(room for room, argument in ARGUMENTS.items() if argument == part)
        said.append(f"there are {joined(names(room))}")
    return RequestError("; ".join(said))


_EXAMPLES = {
    "attack": "pgd",
    "certifier": "interval",
    "filter": "spectral-signatures",
    "scanner": "mm-bd",
    "detector": "strip",
    "repair": "fine-pruning",
}
"""One of the components that a verb is given last, by its argument."""


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


def _or_none(check: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """As this check, where None stands for what is not given."""
    return lambda given, place: None if given is None else check(given, place)


def _number(given: Any, place: str) -> float:
    given = plain_number(given)
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise RequestError(f"expected a number, got {quote(given)}", place=(place,))
    return given


def _flag(given: Any, place: str) -> bool:
    given = plain_number(given)
    if not isinstance(given, bool):
        raise RequestError(f"expected True or False, got {quote(given)}", place=(place,))
    return given


def _text(given: Any, place: str) -> str:
    if not isinstance(given, str):
        raise RequestError(f"expected a text, got {quote(given)}", place=(place,))
    return given


def _label(given: Any, place: str) -> int | str:
    """A class by its label or its name, which is looked for where the images are."""
    return given if isinstance(given, str) else whole(given, place)


def _several_labels(given: Any, place: str) -> tuple[int | str, ...]:
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise RequestError(f"expected classes, for example [1, 2], got {quote(given)}", place=(place,))
    return tuple(_label(one, place) for one in given)


def _names(given: Any, place: str) -> str | Sequence[str]:
    if not isinstance(given, (str, list, tuple)):
        raise RequestError(f"expected a name, or a list of names, got {quote(given)}", place=(place,))
    return given


def _mapping(given: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise RequestError(f"expected a mapping, for example {{'lr': 0.1}}, got {quote(given)}", place=(place,))
    return given


def _device(given: Any, place: str) -> torch.device:
    """Where to train, if it is there: tried with one number."""
    if not isinstance(given, (str, torch.device)):
        raise RequestError(f"expected a device, for example 'cpu' or 'cuda:0', got {quote(given)}", place=(place,))
    try:
        device = torch.device(given)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise RequestError(f"cannot use {quote(str(given))}: {reason}", place=(place,)) from error
    return device


def _where(given: Any, place: str) -> str:
    """`auto` or a device, which `pick_device` looks for."""
    if not isinstance(given, (str, torch.device)):
        raise RequestError(f"allowed are auto, cpu, cuda and cuda:N; got {quote(given)}", place=(place,))
    return str(given)


def _called(given: Any, place: str) -> Any:
    if not callable(given):
        raise RequestError(f"expected a function, got {quote(given)}", place=(place,))
    return given


_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "bool": _flag,
    "int": whole,
    "int | None": _or_none(whole),
    "int | str | None": _or_none(_label),
    "float": _number,
    "float | None": _or_none(_number),
    "str": _text,
    "str | None": _or_none(_text),
    "Precision": _text,
    "str | PathLike[str]": path,
    "str | PathLike[str] | None": _or_none(path),
    "str | Sequence[str]": _names,
    "Sequence[int | str]": _several_labels,
    "Mapping[str, Any] | None": _or_none(_mapping),
    "str | torch.device": _where,
    "torch.device | str | None": _or_none(_device),
    "Told | None": _or_none(_called),
}
"""Of keywords, by their types as a verb writes them."""
