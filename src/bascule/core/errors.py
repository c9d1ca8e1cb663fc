"""The one error for requests that cannot be carried out as given, and what an interrupted run leaves to say."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

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
