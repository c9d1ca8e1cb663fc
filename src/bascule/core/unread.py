"""Files by `torch.save` from elsewhere, read without running anything that they name."""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from pathlib import Path
from typing import IO, Any

import torch
from torch import serialization

from bascule.core.errors import RequestError
from bascule.core.text import quote

_RUNS = re.compile(
    r"(os|posix|nt|sys|subprocess|commands|builtins|importlib|runpy|shutil|socket|ctypes|code|pty|webbrowser|pickle|"
    r"_pickle|operator|functools|pip|pydoc|timeit|cProfile|pdb|asyncio|multiprocessing|threading)\."
    r"(?!(?<=builtins\.)(object|frozenset|slice|range)$)"
)
"""Modules of Python whose functions a file has no honest use for."""
_HEADERS = 3
"""Pickles before the content in a file of the format before torch 1.6: magic number, version, machine."""


class Unread:
    """Stands for an object in a file whose class is not imported; nothing of it is run.

    What its class or function would have been called with, and its state, are kept as they stand in the file: plain
    values, tensors and other objects of this kind.
    """

    origin = ""
    """Name of the class or function in the file."""
    args: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *args: Any) -> Unread:
        """Kept, not used."""
        made = super().__new__(cls)
        made.args = args
        return made

    def __init__(self, *_: Any) -> None:
        return

    def __setstate__(self, state: Any) -> None:
        self.state = state


def load_unread(file: Path) -> Any:
    """The content of a file by `torch.save`, with `Unread` for everything that torch does not allow by itself.

    Raises:
        RequestError: It names what could run code.
        Exception: It is damaged, or no such file: whatever torch trips over.
    """
    given = file if zipfile.is_zipfile(file) else _rewrapped(file)
    unknown = sorted(serialization.get_unsafe_globals_in_checkpoint(given)) if given else []
    for name in unknown:
        if _RUNS.match(name):
            asks = f"it asks for {quote(name)}, which could run code"
            raise RequestError(f"it holds more than tensors: {asks}. Nothing in it was run; do not open it with pickle")
    stands: list[Any] = [(type("Unread", (Unread,), {"origin": name}), name) for name in unknown]
    with serialization.safe_globals(stands), file.open("rb") as opened:  # opened, as torch looks at endings
        return torch.load(opened, map_location="cpu", weights_only=True)


def _rewrapped(file: Path) -> io.BytesIO | None:
    """The fourth pickle of a file as torch wrote them before 1.6, which holds the content, as torch packs it today.

    So that it can be asked which classes it names; None where it is no such file.
    """
    with file.open("rb") as opened:
        try:
            for _ in range(_HEADERS):
                _skip_pickle(opened)
            start = opened.tell()
            _skip_pickle(opened)
            length = opened.tell() - start
        except Exception:  # pickletools has no error of its own
            return None
        opened.seek(start)
        content = opened.read(length)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
    packed.seek(0)
    return packed


def _skip_pickle(opened: IO[bytes]) -> None:
    for _ in pickletools.genops(opened):
        pass
