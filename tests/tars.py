"""Tar files of samples that tests share, as WebDataset writes them."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image


def png(pixels: np.ndarray | int) -> bytes:
    """A picture, or one of 2 x 3 pixels of one grey."""
    file = BytesIO()
    Image.fromarray(np.full((2, 3, 3), pixels, np.uint8) if isinstance(pixels, int) else pixels).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, samples: Sequence[Mapping[str, bytes | str]], *, first: int = 0) -> None:
    """Samples with their members by ending, called by numbers from `first` on."""
    members = {f"{i:06}.{ending}": content for i, one in enumerate(samples, first) for ending, content in one.items()}
    write_members(path, members.items())


def write_members(path: Path, members: Sequence[tuple[str, bytes | str]] | object, kind: str = "w") -> None:
    """A tar file of these members, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, kind) as tar:
        for name, content in members:  # type: ignore[attr-defined]
            data = content.encode() if isinstance(content, str) else content
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, BytesIO(data))
