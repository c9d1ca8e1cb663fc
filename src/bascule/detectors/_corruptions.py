"""Common corruptions of images (Hendrycks & Dietterich 2019) of rising severity, with everything drawn beforehand.

Eleven of their fifteen, in torch, for grey and colour images of any size: noise (Gaussian, shot, impulse), blur
(defocus, glass, motion, zoom), brightness, contrast, pixelation and JPEG. Left out: snow, frost and fog, which lay
other pictures over the image, and the elastic transform. The parameters are those of CIFAR-10-C and of ImageNet-C
(files `make_cifar_c.py` and `corruptions.py` in github.com/hendrycks/robustness).

Departures: what is drawn is drawn once for all images; nothing is rounded to bytes between steps or at the end; motion
blur is computed as in the package `imagecorruptions`, not by ImageMagick; glass blur swaps pixels in colour images as
in grey ones, where theirs copies one over the other; JPEG of grey images is grey.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from bascule.core.images import as_bytes, as_floats
from bascule.core.rng import draw_seed

Corruption = Callable[[Tensor], Tensor]
"""Images in [0, 1], B x C x H x W -> the same, corrupted: each for itself, and the same each time."""

Severities = Literal["cifar-c", "imagenet-c"]
SEVERITIES = 5


class _Place(NamedTuple):
    """What the images are and where draws come from."""

    size: tuple[int, int, int]
    generator: torch.Generator

    def uniform(self) -> Tensor:
        """A number in [0, 1) per channel and pixel."""
        return torch.rand(self.size, generator=self.generator, device=self.generator.device)


def corruptions(
    size: tuple[int, int, int], severities: Severities, *, generator: torch.Generator
) -> dict[str, tuple[Corruption, ...]]:
    """Every corruption by name, each of severity 1 to 5.

    Gradients flow through; through what counts or rounds (shot noise, JPEG) as if nothing were done to the image.

    Args:
        size: Channels, height and width of the images.
        severities: Whose parameters.
        generator: On the device of the images.
    """
    place = _Place(size, generator)
    column = ("cifar-c", "imagenet-c").index(severities)
    return {name: tuple(make(place, value) for value in table[column]) for name, (make, *table) in _TABLE.items()}


def _gaussian_noise(place: _Place, deviation: float) -> Corruption:
    noise = deviation * torch.randn(place.size, generator=place.generator, device=place.generator.device)
    return lambda x: (x + noise).clamp(0, 1)


def _shot_noise(place: _Place, photons: float) -> Corruption:
    seed = draw_seed(place.generator)

    def corrupt(x: Tensor) -> Tensor:
        # How many numbers are drawn depends on the pixels: each image gets the same stream from its beginning.
        given = x.detach() * photons
        streams = (torch.Generator(device=x.device).manual_seed(seed) for _ in given)
        counts = [torch.poisson(one, generator=own) for one, own in zip(given, streams, strict=True)]
        return _as_if_untouched(x, (torch.stack(counts) / photons).clamp(max=1)) if counts else x

    return corrupt


def _impulse_noise(place: _Place, amount: float) -> Corruption:
    hit, salt = place.uniform() < amount, (place.uniform() < 0.5).float()
    return lambda x: torch.where(hit, salt.to(x), x)


def _defocus_blur(place: _Place, value: tuple[float, float]) -> Corruption:
    kernel = defocus_kernel(*value).to(place.generator.device)
    return lambda x: _filtered(x, kernel, _mirrored).clamp(0, 1)


def defocus_kernel(radius: float, smoothing: float) -> Tensor:
    """A disk whose border is smoothed, as a square of odd side that sums to one."""
    reach, soft = (8, 1) if radius <= 8 else (int(radius), 2)
    steps = torch.arange(-reach, reach + 1, dtype=torch.float64)
    disk = (steps**2 + steps.reshape(-1, 1) ** 2 <= radius**2).double()
    disk /= disk.sum()
    return _filtered(disk[None, None], _bell(soft, smoothing), _mirrored)[0, 0].float()


def _glass_blur(place: _Place, value: tuple[float, int, int]) -> Corruption:
    deviation, reach, rounds = value
    kernel = _bell(int(4 * deviation + 0.5), deviation).float().to(place.generator.device)
    order = _shuffled(place, reach, rounds)

    def corrupt(x: Tensor) -> Tensor:
        shuffled = _filtered(x, kernel, _held).flatten(2)[:, :, order].reshape(x.shape)
        return _filtered(shuffled, kernel, _held).clamp(0, 1)

    return corrupt


def _shuffled(place: _Place, reach: int, rounds: int) -> Tensor:
    """Where each pixel comes from once pixels have been swapped with near ones, shape (H W,)."""
    _, height, width = place.size
    device = place.generator.device
    moves = torch.randint(-reach, reach, (rounds, height, width, 2), generator=place.generator, device=device).tolist()
    order = list(range(height * width))
    for move in moves:
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                down, right = move[row][column]
                here, there = row * width + column, (row + down) * width + column + right
                order[here], order[there] = order[there], order[here]
    return torch.tensor(order, device=device)


def _motion_blur(place: _Place, value: tuple[int, float]) -> Corruption:
    radius, deviation = value
    angle = math.radians(90 * float(torch.rand((), generator=place.generator, device=place.generator.device)) - 45)
    weights = [math.exp(-(step**2) / (2 * deviation**2)) for step in range(2 * radius + 1)]
    _, height, width = place.size

    def corrupt(x: Tensor) -> Tensor:
        rows, columns = (torch.arange(n, device=x.device) for n in (height, width))
        blurred = torch.zeros_like(x)
        for step, weight in enumerate(weights):
            down, right = (math.ceil(step * part - 0.5) for part in (math.sin(angle), math.cos(angle)))
            if abs(down) >= height or abs(right) >= width:
                break  # the rest of the weight is lost, as there: small images get a little darker
            moved = x[:, :, (rows + down).clamp(0, height - 1)][:, :, :, (columns + right).clamp(0, width - 1)]
            blurred = blurred + weight / sum(weights) * moved
        return blurred.clamp(0, 1)

    return corrupt


def _zoom_blur(place: _Place, value: tuple[float, float]) -> Corruption:
    factors = np.arange(1, *value)

    def corrupt(x: Tensor) -> Tensor:
        return ((x + sum(_zoomed(x, factor) for factor in factors)) / (len(factors) + 1)).clamp(0, 1)

    return corrupt


def _zoomed(x: Tensor, factor: float) -> Tensor:
    """The middle of the images, enlarged between the centres of its outer pixels and cut to the images' size."""
    sides = x.shape[2:]
    cut = [math.ceil(side / factor) for side in sides]
    begin = [(side - part) // 2 for side, part in zip(sides, cut, strict=True)]
    middle = x[:, :, begin[0] : begin[0] + cut[0], begin[1] : begin[1] + cut[1]]
    large = [max(side, round(part * factor)) for side, part in zip(sides, cut, strict=True)]
    zoomed = F.interpolate(middle, size=large, mode="bilinear", align_corners=True)
    trim = [(part - side) // 2 for side, part in zip(sides, large, strict=True)]
    return zoomed[:, :, trim[0] : trim[0] + sides[0], trim[1] : trim[1] + sides[1]]


def _brightness(place: _Place, added: float) -> Corruption:
    def corrupt(x: Tensor) -> Tensor:
        # The value of HSV is the largest channel; hue and saturation stay when all channels grow by the same factor.
        value = x.amax(1, keepdim=True)
        brighter = (value + added).clamp(max=1)
        return torch.where(value > 0, x * (brighter / value.clamp_min(1e-12)), brighter)

    return corrupt


def _contrast(place: _Place, left: float) -> Corruption:
    def corrupt(x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return ((x - mean) * left + mean).clamp(0, 1)

    return corrupt


def _pixelate(place: _Place, share: float) -> Corruption:
    _, height, width = place.size
    device = place.generator.device
    over_rows, over_columns = (_coarse(side, max(1, int(side * share))).to(device) for side in (height, width))
    return lambda x: (over_rows @ x @ over_columns.T).clamp(0, 1)


def _coarse(side: int, fewer: int) -> Tensor:
    """A row of pixels to fewer ones and back, as a matrix, side x side."""
    return (_boxes(fewer, side) @ _boxes(side, fewer)).float()


def _boxes(before: int, after: int) -> Tensor:
    """Box filter of Pillow as a matrix, after x before: the mean of the pixels whose centres lie in the box."""
    scale = before / after
    centres = (torch.arange(after, dtype=torch.float64) + 0.5).reshape(-1, 1) * scale
    away = (torch.arange(before, dtype=torch.float64) + 0.5 - centres) / max(scale, 1.0)
    inside = ((away > -0.5) & (away <= 0.5)).double()
    return inside / inside.sum(1, keepdim=True)


def _jpeg(place: _Place, quality: int) -> Corruption:
    def corrupt(x: Tensor) -> Tensor:
        pictures = as_bytes(x.detach()).cpu().permute(0, 2, 3, 1).numpy()
        read = [_through_jpeg(picture, quality) for picture in pictures]
        return _as_if_untouched(x, as_floats(torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2)).to(x)) if read else x

    return corrupt


def _through_jpeg(picture: Any, quality: int) -> Any:
    """Bytes H x W x C as they come out of a file."""
    file = io.BytesIO()
    Image.fromarray(picture.squeeze(2) if picture.shape[2] == 1 else picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(picture.shape)


def _as_if_untouched(x: Tensor, changed: Tensor) -> Tensor:
    """`changed`, with the gradient of `x`: a straight-through estimate."""
    return x + (changed - x).detach() if x.requires_grad else changed


def _filtered(x: Tensor, kernel: Tensor, border: Callable[[int, int], Tensor]) -> Tensor:
    """Every channel by the same odd square kernel; beyond the border with the pixels at the positions that it names."""
    reach = len(kernel) // 2
    rows, columns = (border(side, reach).to(x.device) for side in x.shape[2:])
    wide = x[:, :, rows][:, :, :, columns]
    one_by_one = wide.reshape(-1, 1, *wide.shape[2:])
    return F.conv2d(one_by_one, kernel[None, None].to(x)).reshape(x.shape)


def _mirrored(side: int, reach: int) -> Tensor:
    """Positions -reach to side + reach - 1, mirrored at the centres of the outer pixels."""
    away = torch.arange(-reach, side + reach).remainder(max(1, 2 * side - 2))
    return torch.minimum(away, 2 * side - 2 - away).clamp_min(0)


def _held(side: int, reach: int) -> Tensor:
    """The same, the outer pixels going on."""
    return torch.arange(-reach, side + reach).clamp(0, side - 1)


def _bell(reach: int, deviation: float) -> Tensor:
    """A Gaussian kernel that sums to one, in double precision."""
    line = torch.exp(-(torch.arange(-reach, reach + 1, dtype=torch.float64) ** 2) / (2 * deviation**2))
    line /= line.sum()
    return line.outer(line)


_TABLE: dict[str, tuple[Callable[[_Place, Any], Corruption], Sequence[Any], Sequence[Any]]] = {
    "gaussian noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot noise": (_shot_noise, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "impulse noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus blur": (
        _defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass blur": (
        _glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion blur": (
        _motion_blur,
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "zoom blur": (
        _zoom_blur,
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    ),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg": (_jpeg, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}
"""By name: how it is made, and its parameters at severities 1 to 5 in CIFAR-10-C and in ImageNet-C."""

NAMES = tuple(_TABLE)
