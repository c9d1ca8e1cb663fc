"""Pictures of a split, decoded when they are asked for where all of them would take too much memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import IO, Protocol

import numpy as np
import torch
from torch import Tensor

from bascule.core.errors import RequestError
from bascule.core.images import Pixels
from bascule.data._remembered import Stated, remembered
from bascule.data.decode import PILLOW, Content, allocate, check_headers, decode, picture, warn_of_width

IN_MEMORY = 2**30
"""Bytes of decoded pictures up to which a split is held in memory; a larger one is decoded batch by batch."""
_CHECKED = 4096
"""Pictures whose headers are read between two looks at what was found."""


class Contents(Protocol):
    """The compressed pictures of a split, wherever they lie."""

    def __len__(self) -> int: ...

    def take(self, places: Sequence[int]) -> Sequence[Content]:
        """Those at these positions, in this order; called by several threads."""

    def heads(self, places: Sequence[int]) -> Sequence[Content | IO[bytes]]:
        """The same to be read no further than needed."""

    def name(self, place: int) -> str:
        """What to call the one at this position in an error."""


class Streamed:
    """Pictures decoded when they are asked for.

    Args:
        contents: What is decoded.
        size: Channels, height and width.
        resize: As for `decode.picture`.
    """

    def __init__(self, contents: Contents, size: tuple[int, int, int], resize: int | None) -> None:
        self.contents, self.resize = contents, resize
        self.shape = torch.Size((len(contents), *size))

    def __getitem__(self, index: Tensor, /) -> Tensor:
        places, name = index.tolist(), self.contents.name
        out = allocate(len(places), *self.shape[1:])
        decode(self.contents.take(places), out, name=lambda i: name(places[i]), resize=self.resize)
        return torch.from_numpy(out)

    def check(self, what: str, files: Stated) -> None:
        """Find now, from the headers, the picture that would stop a training later.

        Args:
            what: The settings that say which pictures of the files these are.
            files: Where they lie.
        """
        size = None if self.resize else (self.shape[2], self.shape[3])

        def look() -> bool:
            wide = False
            for start in range(0, len(self.contents), _CHECKED):
                places = range(start, min(start + _CHECKED, len(self.contents)))
                wide |= check_headers(self.contents.heads(places), size, name=partial(self._name, start))
            return wide

        check_once(f"{what} {size}", files, look)

    def _name(self, start: int, i: int) -> str:
        return self.contents.name(start + i)

    def kept(self) -> Pixels:
        """All of them decoded, or itself where that takes too much memory."""
        count, *size = self.shape
        return self[torch.arange(count)] if is_held(count, size) else self


def check_once(what: str, files: Stated, look: Callable[[], bool]) -> None:
    """Look at the headers of all pictures of these files; of large files once, until one of them changes.

    Args:
        what: All that it depends on besides the files.
        files: The files.
        look: Raises what is wrong; whether pictures with 16 bits per channel are among them, which is said each time.
    """
    found = remembered(f"headers {PILLOW} {what}", files, lambda: {"wide": np.array(look())})
    if found["wide"]:
        warn_of_width()


def is_held(count: int, size: Sequence[int]) -> bool:
    """Whether so many pictures of this size are held in memory."""
    return count * math.prod(size) <= IN_MEMORY


def first_size(contents: Contents, *, channels: int, resize: int | None) -> tuple[int, int, int]:
    """Channels, height and width of the first picture.

    Raises:
        RequestError: It cannot be decoded.
    """
    try:
        (content,) = contents.take([0])
        image = picture(content, channels=channels, resize=resize)
    except RequestError as error:
        raise RequestError(f"{contents.name(0)}: {error.problem}") from error.__cause__
    return channels, image.height, image.width
