"""Code that only a record names is not imported unasked: a record may come from somebody else.

What the user names, in a study, an option or a call of their own, may always be imported, and is remembered by its
identity in `trusted.json` (in `$XDG_STATE_HOME/bascule`, by default `~/.local/state/bascule`): a record made with it
is read and asked again without a question, as long as the code is the same. Where a model is asked more, a file that
the user named there may have changed since: it is their own. Components of installed distributions are part of the
user's own installation.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from bascule.core.catalog.identity import code_named
from bascule.core.catalog.importing import place_of
from bascule.core.catalog.sources import is_installed
from bascule.core.errors import RequestError
from bascule.core.files import write_atomically

_NAMED: dict[str, str] = {}
"""Identities and places of code that the user named in this process, with a name for people."""
_AGREED: set[str] = set()
"""Identities of code that may be imported in this process only."""


@dataclass(frozen=True)
class _Asking:
    """What may be imported of what a record names."""

    trust: bool
    changed: bool
    named: frozenset[str]


_ASKING: ContextVar[_Asking | None] = ContextVar("asking", default=None)


class ForeignCodeError(RequestError):
    """A record names code that the user did not."""


@contextmanager
def recorded_code(*, trust: bool = False, changed: bool = False, named: Collection[str] = ()) -> Iterator[None]:
    """Inside the block, names come from a record: `file.py:name` and `module:name` are imported only with consent.

    Args:
        trust: The user trusts whatever the record names.
        changed: A file that the user named before may have changed since.
        named: Names that the user gave beside the record.
    """
    token = _ASKING.set(_Asking(trust, changed, frozenset(named)))
    try:
        yield
    finally:
        _ASKING.reset(token)


def check_consent(name: str) -> None:
    """Whether what `file.py:name` or `module:name` leads to may be imported now.

    Raises:
        ForeignCodeError: Only a record names it.
    """
    where = name.rpartition(":")[0]
    asking, code, place = _ASKING.get(), code_named(name), place_of(where)
    keys = {key for key in (code, None if place is None or is_installed(place) else f"file {place.resolve()}") if key}
    if asking is None or name in asking.named:
        _NAMED.update(dict.fromkeys(keys, name))
        return
    good = keys if asking.changed else keys & {code}
    gone = where.endswith(".py") and place is None  # nothing can run; what is missing is said by the import
    if gone or good & (_NAMED.keys() | _AGREED | _remembered().keys()):
        return
    if asking.trust:
        _AGREED.update(keys & {code})
    else:
        raise ForeignCodeError(
            f"{name!r} is code that only the record names, and nothing of it was run. Look at it; if you trust it, say "
            "so with `trust_code`"
        )


def remember_named() -> None:
    """Keep the identities of the code that the user named in this process."""
    known = _remembered()
    if _NAMED.keys() <= known.keys():
        return
    text = json.dumps({**known, **_NAMED}, indent=1, sort_keys=True) + "\n"
    data = text.encode("utf-8", errors="backslashreplace")
    with suppress(OSError, RuntimeError):  # no home to write to: there will be a question the next time
        write_atomically(trusted_file(), lambda temporary: temporary.write_bytes(data))


def trusted_file() -> Path:
    """Where the identities of code that the user named are kept."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "bascule" / "trusted.json"


def _remembered() -> dict[str, str]:
    try:
        content = json.loads(trusted_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # none yet, damaged, or no home
        return {}
    return {str(code): str(name) for code, name in content.items()} if isinstance(content, dict) else {}


def names_in(value: object) -> Iterator[str]:
    """Everything in a value of a study file, or in an option, that may be the name of somebody's own code."""
    if isinstance(value, str) and ":" in value:
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from names_in(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from names_in(part)
