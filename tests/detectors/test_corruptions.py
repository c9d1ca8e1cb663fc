"""The corruptions against SciPy, Pillow and loops, by the formulas of make_cifar_c.py and corruptions.py.

Both of hendrycks/robustness; motion blur of bethgelab/imagecorruptions. Their code needs OpenCV, scikit-image and
ImageMagick, whose formulas are: Gaussian filter to four deviations with the outer pixels held, correlation mirrored at
the outer pixels' centres.
"""

from __future__ import annotations

import colorsys
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from bascule.core.rng import stream
from bascule.detectors import _corruptions as made
from bascule.detectors._corruptions import NAMES, corruptions

SIZES = [(1, 28, 28), (3, 32, 32), (3, 9, 14)]
ROWS = ("cifar-c", "imagenet-c")


def picture(size: tuple[int, int, int], count: int = 2) -> Tensor:
    """Smooth bright and dark places, in whole bytes, black and white among them."""
    x = torch.rand(count, *size, generator=stream(0, "picture")).numpy()
    x = ndimage.gaussian_filter(x, (0, 0, 1, 1)) * 3 - 1
    return torch.from_numpy(np.round(255 * np.clip(x, 0, 1)) / 255).float()


def place(size: tuple[int, int, int], seed: int = 0) -> made._Place:
    return made._Place(size, stream(seed, "place"))


def parameters(name: str) -> list[object]:
    _, cifar, imagenet = made._TABLE[name]
    assert len(cifar) == len(imagenet) == 5
    return [*cifar, *imagenet]


sizes = pytest.mark.parametrize("size", SIZES, ids=str)


@sizes
@pytest.mark.parametrize("row", ROWS)
def test_each_image_for_itself_the_same_each_time_and_in_range(
    size: tuple[int, int, int], row: made.Severities
) -> None:
    x = picture(size, 3)
    given = x.clone()
    ways = corruptions(size, row, generator=stream(0, "a"))
    again = corruptions(size, row, generator=stream(0, "a"))
    assert tuple(ways) == NAMES
    for name, levels in ways.items():
        assert len(levels) == 5
        for level, other in zip(levels, again[name], strict=True):
            found = level(x)
            assert found.shape == x.shape
            assert found.dtype == x.dtype
            assert found.min() >= 0
            assert found.max() <= 1
            assert torch.allclose(torch.cat([level(one) for one in x.split(1)]), found, atol=1e-6), name
            assert torch.equal(other(x), found), name
            assert level(x[:0]).shape == x[:0].shape
    assert torch.equal(x, given)


@pytest.mark.parametrize("row", ROWS)
def test_a_higher_severity_changes_more(row: made.Severities) -> None:
    """On the whole: glass blur of CIFAR-10-C is one of two numbers that trade places."""
    x = picture((3, 32, 32), 20)
    for name, levels in corruptions((3, 32, 32), row, generator=stream(0, "a")).items():
        changed = [float((level(x) - x).square().mean()) for level in levels]
        assert changed[4] > changed[0], name
        if "glass" not in name:
            assert sorted(changed) == pytest.approx(changed, rel=0.15), name


@pytest.mark.parametrize("row", ROWS)
def test_gradients_reach_the_image(row: made.Severities) -> None:
    x = picture((3, 12, 12)).clamp(0.2, 0.8).requires_grad_(True)
    for name, levels in corruptions((3, 12, 12), row, generator=stream(0, "a")).items():
        (gradient,) = torch.autograd.grad(levels[1](x).sum(), x)
        assert gradient.isfinite().all(), name
        assert (gradient != 0).double().mean() > 0.5, name


def test_noise_has_its_distribution() -> None:
    size = (3, 64, 64)
    x = torch.full((1, *size), 0.5)
    gaussian = made._gaussian_noise(place(size), 0.1)(x) - x
    assert float(gaussian.mean()) == pytest.approx(0, abs=0.005)
    assert float(gaussian.std()) == pytest.approx(0.1, rel=0.03)
    shot = made._shot_noise(place(size), 60)(x) * 60
    assert torch.allclose(shot, shot.round(), atol=1e-4)
    assert float(shot.mean()) == pytest.approx(30, rel=0.01)
    assert float(shot.std()) == pytest.approx(30**0.5, rel=0.05)
    impulse = made._impulse_noise(place(size), 0.2)(x)
    assert float((impulse == 0).double().mean()) == pytest.approx(0.1, abs=0.01)
    assert float((impulse == 1).double().mean()) == pytest.approx(0.1, abs=0.01)


@sizes
@pytest.mark.parametrize("value", parameters("defocus blur"))
def test_defocus(size: tuple[int, int, int], value: tuple[float, float]) -> None:
    radius, deviation = value
    reach, soft = (8, 1) if radius <= 8 else (radius, 2)
    steps = np.arange(-reach, reach + 1)
    disk = (steps[:, None] ** 2 + steps[None] ** 2 <= radius**2).astype(float)
    line = np.exp(-(np.arange(-soft, soft + 1) ** 2) / (2 * deviation**2))
    kernel = ndimage.correlate(disk / disk.sum(), np.outer(line, line) / line.sum() ** 2, mode="mirror")
    x = picture(size)
    expected = ndimage.correlate(x.numpy(), kernel[None, None], mode="mirror")
    assert np.allclose(made._defocus_blur(place(size), value)(x).numpy(), expected.clip(0, 1), atol=1e-5)


@sizes
@pytest.mark.parametrize("value", parameters("glass blur"))
def test_glass(size: tuple[int, int, int], value: tuple[float, int, int]) -> None:
    """Two filters around a shuffling that carries pixels no farther than it may, of which each is kept."""
    deviation, reach, rounds = value
    x = picture(size)
    order = made._shuffled(place(size), reach, rounds)
    assert torch.equal(order.sort().values, torch.arange(size[1] * size[2]))
    if min(size[1:]) > 2 * reach + 1:
        assert not torch.equal(order, torch.arange(size[1] * size[2]))
    blurred = ndimage.gaussian_filter(x.numpy(), (0, 0, deviation, deviation), mode="nearest", truncate=4)
    shuffled = blurred.reshape(*blurred.shape[:2], -1)[:, :, order.numpy()].reshape(blurred.shape)
    expected = ndimage.gaussian_filter(shuffled, (0, 0, deviation, deviation), mode="nearest", truncate=4)
    assert np.allclose(made._glass_blur(place(size), value)(x).numpy(), expected.clip(0, 1), atol=1e-5)


@sizes
@pytest.mark.parametrize("value", parameters("motion blur"))
def test_motion(size: tuple[int, int, int], value: tuple[int, float]) -> None:
    """Copies of the image, each one moved a step farther, weighted by half a Gaussian."""
    radius, deviation = value
    x, (_, height, width) = picture(size).numpy(), size
    angle = math.radians(90 * float(torch.rand((), generator=stream(0, "place"))) - 45)
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * deviation**2))
    expected = np.zeros_like(x)
    for step, weight in enumerate(weights / weights.sum()):
        down, right = -math.ceil(step * math.sin(angle) - 0.5), -math.ceil(step * math.cos(angle) - 0.5)
        if abs(down) >= height or abs(right) >= width:
            break
        padded = np.pad(x, [(0, 0), (0, 0), (height, height), (width, width)], mode="edge")
        expected += weight * np.roll(padded, (down, right), (2, 3))[:, :, height:-height, width:-width]
    found = made._motion_blur(place(size), value)(torch.from_numpy(x))
    assert np.allclose(found.numpy(), expected, atol=1e-5)


@sizes
@pytest.mark.parametrize("value", parameters("zoom blur"))
def test_zoom(size: tuple[int, int, int], value: tuple[float, float]) -> None:
    x, factors = picture(size).numpy(), np.arange(1, *value)
    total = x.copy()
    for factor in factors:
        cut = [int(np.ceil(side / factor)) for side in size[1:]]
        top = [(side - part) // 2 for side, part in zip(size[1:], cut, strict=True)]
        middle = x[:, :, top[0] : top[0] + cut[0], top[1] : top[1] + cut[1]]
        large = ndimage.zoom(middle, (1, 1, factor, factor), order=1)
        trim = [(part - side) // 2 for part, side in zip(large.shape[2:], size[1:], strict=True)]
        total += large[:, :, trim[0] : trim[0] + size[1], trim[1] : trim[1] + size[2]]
    found = made._zoom_blur(place(size), value)(torch.from_numpy(x))
    assert np.allclose(found.numpy(), total / (len(factors) + 1), atol=1e-5)


@sizes
def test_brightness_is_the_value_of_hsv(size: tuple[int, int, int]) -> None:
    x = picture(size)
    found = made._brightness(place(size), 0.2)(x)
    for before, after in zip(x[0].flatten(1).T.tolist(), found[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(before * 3)[:3])
        expected = colorsys.hsv_to_rgb(hue, saturation, min(value + 0.2, 1))
        assert after == pytest.approx(expected[: size[0]], abs=1e-5)


def test_contrast_by_hand() -> None:
    x = torch.tensor([[[[0.0, 0.4], [0.6, 1.0]]]])
    found = made._contrast(place((1, 2, 2)), 0.3)(x)
    assert torch.allclose(found, torch.tensor([[[[0.35, 0.47], [0.53, 0.65]]]]))


def saved(x: Tensor) -> list[Image.Image]:
    pixels = (255 * x).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(one.squeeze(2) if one.shape[2] == 1 else one) for one in pixels]


def read(pictures: list[Image.Image], like: Tensor) -> Tensor:
    arrays = np.stack([np.array(one).reshape(*like.shape[2:], like.shape[1]) for one in pictures])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255


@sizes
@pytest.mark.parametrize("share", parameters("pixelate"))
def test_pixelation_is_pillows(size: tuple[int, int, int], share: float) -> None:
    """To a rounding to bytes after each of the four passes."""
    x, (_, height, width) = picture(size), size
    small = [one.resize((int(width * share), int(height * share)), Image.Resampling.BOX) for one in saved(x)]
    expected = read([one.resize((width, height), Image.Resampling.BOX) for one in small], x)
    assert torch.allclose(made._pixelate(place(size), share)(x), expected, atol=2.1 / 255)


@sizes
@pytest.mark.parametrize("quality", parameters("jpeg"))
def test_jpeg_is_pillows(size: tuple[int, int, int], quality: int) -> None:
    x = picture(size)
    files = []
    for one in saved(x):
        file = io.BytesIO()
        one.save(file, "JPEG", quality=quality)
        files.append(Image.open(file))
    assert torch.allclose(made._jpeg(place(size), quality)(x), read(files, x), atol=1e-6)
