"""The errors: a request that cannot be carried out as given, numbers that diverge, what an interrupted run says."""

from __future__ import annotations

import difflib
import inspect
import os
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from bascule.core.text import LONGEST_NAME, quote


class RequestError(Exception):
    """A request (study, name, file, option) that cannot be carried out as given; the command line exits with 2.

    The text says where, what was given, what is allowed and what to do. `place` is the path of keys inside the study
    or component, or the argument, that the error is about; callers further out prefix their own keys with `at`. An
    argument that the text speaks of stands in it between backticks: the command line shows its options instead. `key`
    is a key at that place which should not be there: the text names it, and it may have been written elsewhere than
    what is around it.
    """

    def __init__(self, problem: str, *, place: tuple[str, ...] = (), key: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.place = place
        self.key = key

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self.problem, self.place, self.key)

    def at(self, *keys: str) -> RequestError:
        """The same error, seen from further out."""
        outer = RequestError(self.problem)
        vars(outer).update(vars(self), place=(*keys, *self.place))
        return outer

    def __str__(self) -> str:
        return f"{'.'.join(self.place)}: {self.problem}" if self.place else self.problem


class UnknownNameError(RequestError, KeyError):
    """There is nothing of this name in a result; also what Python expects of a mapping."""


class DivergedError(Exception):
    """A loss, weight or running statistic of a training or a repair is no longer finite: mostly the rate is too large.

    No `RequestError`, since nothing says before that it will happen. `step` counts from 0; None where none is known.
    """

    def __init__(self, problem: str, *, step: int | None = None) -> None:
        super().__init__(problem)
        self.step = step


class Interrupted(BaseException):
    """Somebody stopped a run (Ctrl-C); the text says what is done. The command line exits with 130.

    Like KeyboardInterrupt, which it takes the place of, it is not for `except Exception`.
    """


class LostError(Exception):
    """Another of several processes that work together cannot be reached any more."""


@contextmanager
def placed(*keys: str) -> Iterator[None]:
    """A wrong request inside the block is about these keys, or this argument."""
    try:
        yield
    except RequestError as error:
        raise error.at(*keys) from error.__cause__


_OURS = f"{Path(__file__).parents[1]}{os.sep}"


def say_where(error: BaseException, *, called: object = None) -> str:
    """What somebody else's code raised, and where: `KeyError: 'a' (mine.py, line 7)`.

    The file, given whole, is the first on the way to the error that is neither ours nor Python's own; the line is the
    last one in it. Where no such code ran, as with a wrong number of arguments, it is where `called` is defined.
    """
    line = _line_of_others(error.__traceback__)
    code = getattr(inspect.unwrap(called), "__code__", None) if callable(called) else None
    if not line and code is not None:
        line = f"{code.co_filename}, line {code.co_firstlineno}"
    return f"{type(error).__name__}: {error}{line and f' ({line})'}"


def _line_of_others(passed: TracebackType | None) -> str:
    pythons, lines = sysconfig.get_paths()["stdlib"], dict[str, int]()
    while passed is not None:
        file = passed.tb_frame.f_code.co_filename
        installed = "site-packages" in file or "dist-packages" in file
        if not file.startswith((_OURS, "<frozen ")) and (installed or not file.startswith(pythons)):
            lines[file] = passed.tb_lineno
        passed = passed.tb_next
    return next((f"{file}, line {line}" for file, line in lines.items()), "")


def _restored(problem: str, place: tuple[str, ...], key: str | None) -> RequestError:
    """An error that has been sent to another process."""
    return RequestError(problem, place=place, key=key)


def unknown(
    kind: str, given: str, allowed: Iterable[str], *, listing: str | None = None, hint: str | None = None
) -> str:
    """Text for an unknown word: what was given, `hint` or the nearest allowed word, all allowed words or `listing`."""
    allowed = sorted(allowed)
    near = nearest(given[:LONGEST_NAME], allowed, most=1, likeness=0.5)
    guess = hint or (f"Did you mean {near[0]!r}?" if near else "")
    listing = listing or f"Allowed: {', '.join(allowed) or 'none'}."
    return " ".join(filter(None, (f"unknown {kind} {quote(given)}.", guess, listing)))


def nearest(given: str, allowed: Iterable[str], *, most: int, likeness: float = 0.0) -> list[str]:
    """The allowed words most like the given one, at most so many, and at least so like it (1 is the word itself)."""
    return difflib.get_close_matches(given, list(allowed), n=most, cutoff=likeness)
