"""What the system refuses, in words: a full disk, missing permission, no memory."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable

from bascule.core.errors import LostError
from bascule.core.text import quote

_REMEDIES = {
    errno.ENOSPC: "Make room there, or write to another place",
    errno.EDQUOT: "Make room there, or write to another place",
    errno.EFBIG: "Write to another place, or raise the limit on the size of files (ulimit -f)",
    errno.EACCES: "Ask its owner for permission, or give another place",
    errno.EPERM: "Ask its owner for permission, or give another place",
    errno.EROFS: "Give a place that can be written to",
    errno.EIO: "The disk or the network drive is failing: try another place",
    errno.ENAMETOOLONG: "Give a shorter name",
    errno.EMFILE: "Raise the limit on open files (ulimit -n)",
    errno.ENOENT: "See that it is still there",
    errno.ENOTDIR: "A part of this path is a file, not a folder",
    errno.EISDIR: "Give the name of a file, not of a folder",
    errno.ELOOP: "Its links lead in a circle",
    errno.ESTALE: "The network drive has gone: mount it again",
    errno.ENOTCONN: "The network drive has gone: mount it again",
}
_KEPT = "What is finished is kept; the same command continues."


def explain(error: BaseException) -> str | None:
    """One message for what is no fault of the request and none of ours; None for anything else.

    The cause may stand behind another error: a library that writes a file reports in its own words what the system
    said.
    """
    for known in _causes(error):
        for kind, words in _KINDS:
            if isinstance(known, kind):
                return words(known)
        if type(known).__name__ in ("OutOfMemoryError", "ArrowMemoryError") or _means_memory(known):
            return _no_memory(known)
        if type(known).__name__ == "SafetensorError":
            return f"a file of weights cannot be read or written: {_line(known)}. {_KEPT}"
    return None


def _causes(error: BaseException) -> list[BaseException]:
    chain = [error]
    while len(chain) < 10 and (behind := chain[-1].__cause__) is not None:
        chain.append(behind)
    return chain


def _means_memory(error: BaseException) -> bool:
    """What PyTorch says when the system gives it no more."""
    return isinstance(error, RuntimeError) and bool(re.search("(allocate|not enough) memory", str(error)))


def _system(error: BaseException) -> str:
    assert isinstance(error, OSError)
    reason = error.strerror or _line(error)
    files = [quote(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    where = f"cannot read or write {' to '.join(files)}: " if files else "cannot read or write: "
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{where}{reason}. {remedy + '. ' if remedy else ''}{_KEPT}"


def _no_memory(error: BaseException) -> str:
    return (
        f"not enough memory ({_line(error)[:300] or type(error).__name__}). Use fewer or smaller images, or a smaller "
        f"network. {_KEPT}"
    )


def _too_deep(error: BaseException) -> str:
    return f"something is nested too deeply to be worked through ({_line(error)}): a file, a study or a network"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _lost(error: BaseException) -> str:
    return f"{_line(error)}. {_KEPT}"


_KINDS: tuple[tuple[type[BaseException], Callable[[BaseException], str]], ...] = (
    (OSError, _system),
    (MemoryError, _no_memory),
    (RecursionError, _too_deep),
    (LostError, _lost),
)
