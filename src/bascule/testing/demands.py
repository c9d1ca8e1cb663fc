"""What a check says when a contract does not hold: an AssertionError with one sentence, with or without pytest."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, ParamSpec

from bascule.core.errors import RequestError, say_where

P = ParamSpec("P")


def demand(holds: object, complaint: str) -> None:
    """`holds` must be true, in whatever mode Python runs: `assert` goes away under `python -O`.

    Raises:
        AssertionError: It is not; the text is `complaint`.
    """
    if not holds:
        raise AssertionError(complaint)


def one_sentence(check: Callable[P, None]) -> Callable[P, None]:
    """A check that also says what a component raises in one sentence, with the line of the component's own code.

    Raises:
        AssertionError: What the check raised, or anything else that was raised in it.
    """

    @functools.wraps(check)
    def checked(*args: P.args, **about: P.kwargs) -> None:
        try:
            check(*args, **about)
        except AssertionError:
            raise
        except Exception as error:
            raise AssertionError(f"it raises {say_where(error)}") from error

    return checked


def refusal(action: Callable[[], Any], *, what: str, text: str = "") -> RequestError:
    """The `RequestError` with which `action` refuses what it is asked for.

    Args:
        what: What is to be refused, for the complaint.
        text: A regular expression that its text must hold.

    Raises:
        AssertionError: It refuses nothing, in another way or with another text.
    """
    try:
        action()
    except RequestError as error:
        demand(re.search(text, str(error)), f"{what} is refused with {str(error)!r}, which lacks {text!r}")
        return error
    except Exception as error:
        raise AssertionError(f"{what} ends in {type(error).__name__} ({error}) instead of a RequestError") from error
    raise AssertionError(f"{what} is not refused")
