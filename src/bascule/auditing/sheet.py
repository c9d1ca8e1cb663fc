"""Pictures in rows, written as one file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from bascule.core.files import write_atomically
from bascule.core.images import as_bytes


def write_contact_sheet(path: Path, x: Tensor) -> None:
    """Write images in [0, 1], N x C x H x W, as one PNG."""
    sheet = contact_sheet(x)
    write_atomically(path, lambda temporary: sheet.save(temporary, format="PNG"))


def contact_sheet(x: Tensor, columns: int = 12) -> Image.Image:
    """Images in [0, 1], N x C x H x W, row by row, small ones enlarged."""
    scale = max(1, 64 // x.shape[3])
    pixels = as_bytes(x).permute(0, 2, 3, 1).cpu().numpy().repeat(scale, 1).repeat(scale, 2)
    pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    count, height, width, _ = pixels.shape
    columns = min(columns, count)
    sheet = np.full((math.ceil(count / columns) * (height + 2), columns * (width + 2), 3), 255, dtype=np.uint8)
    for place, picture in enumerate(pixels):
        top, left = place // columns * (height + 2), place % columns * (width + 2)
        sheet[top : top + height, left : left + width] = picture
    return Image.fromarray(sheet)
