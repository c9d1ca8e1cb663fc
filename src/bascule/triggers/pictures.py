"""Pictures used as triggers: read from a file with its transparency, or generated."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bascule.core.errors import RequestError
from bascule.core.fingerprint import checked_digest


def picture_digest(path: str, digest: str | None) -> str:
    """SHA-256 of a picture file, so that another picture under the same name is another trigger.

    Raises:
        RequestError: The file is missing, is no picture, or is not the one `digest` was taken of.
    """
    try:
        with Image.open(path) as picture:
            picture.verify()
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        why = "it is a folder; give the file" if isinstance(error, IsADirectoryError) else error
        raise RequestError(f"cannot read the picture {path!r}: {why}", place=("picture",)) from error
    return checked_digest(path, digest, what="picture", place="picture")


def read_picture(path: str, *, channels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """A picture file scaled to `height` x `width`: (C x H x W in [0, 1], opacity 1 x H x W in [0, 1])."""
    with Image.open(path) as picture:
        rgba = picture.convert("RGBA").resize((width, height), Image.Resampling.LANCZOS)
    colour = rgba.convert("RGB" if channels == 3 else "L")
    pixels = torch.from_numpy(np.array(colour, dtype=np.float32) / 255).reshape(height, width, channels)
    opacity = torch.from_numpy(np.array(rgba.getchannel("A"), dtype=np.float32) / 255)
    return pixels.permute(2, 0, 1).contiguous(), opacity.unsqueeze(0)


def _centres(count: int) -> Tensor:
    """Places of the pixel centres along a side, as shares of its length."""
    return (torch.arange(count, dtype=torch.float64) + 0.5).div(count)


def saturated_picture(*, channels: int, height: int, width: int) -> Tensor:
    """A saturated picture of smooth patches, C x H x W, every value 0 or 1, the same at every resolution.

    Each channel is the sign of a sum of three plane waves of one to four periods per side, so about half of each
    channel is on and the shapes survive small crops.
    """
    y, x = _centres(height).reshape(-1, 1), _centres(width).reshape(1, -1)
    waves = ((1.0, 2.0, 0.1), (3.0, -1.0, 0.4), (2.0, 3.0, 0.7))
    picture = []
    for channel in range(channels):
        total = sum(
            torch.sin(2 * torch.pi * (fy * y + (fx + 0.5 * channel) * x + phase + channel / 3))
            for fy, fx, phase in waves
        )
        picture.append(torch.as_tensor(total) > 0)
    return torch.stack(picture).to(torch.float32)


def silhouette_picture(*, channels: int, height: int, width: int) -> Tensor:
    """A white figure on black, C x H x W, every value 0 or 1, all channels alike, the same at every resolution.

    A round-headed robot with two eyes, antennae, arms and legs; about a third of the pixels is on.
    """
    y, x = _centres(height).reshape(-1, 1), _centres(width).reshape(1, -1)
    side = (x - 0.5).abs()  # it is symmetric
    skull = (side**2 + (y - 0.38) ** 2 < 0.26**2) & (y < 0.36)
    eyes = (side - 0.11) ** 2 + (y - 0.26) ** 2 < 0.035**2
    antennae = ((side - 0.12 - 0.5 * (0.16 - y)).abs() < 0.025) & (y > 0.04) & (y < 0.18)
    body = (side < 0.26) & (y >= 0.4) & (y < 0.76)
    arms = (side >= 0.3) & (side < 0.41) & (y >= 0.4) & (y < 0.68)
    legs = (side >= 0.06) & (side < 0.18) & (y >= 0.76) & (y < 0.95)
    figure = (skull & ~eyes) | antennae | body | arms | legs
    return figure.to(torch.float32).expand(channels, -1, -1).clone()
