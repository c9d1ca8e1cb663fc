"""Traces of tampering in the spectrum of an image."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from bascule.core import rng
from bascule.core.ahead import read_batches
from bascule.core.catalog import component
from bascule.core.images import Images, as_bytes
from bascule.core.inference import chunks
from bascule.core.projection import whole_number
from bascule.core.restore import evaluating
from bascule.filters._tampering import tamper
from bascule.filters.contract import Filter, Judged
from bascule.training.loop import train
from bascule.training.settings import Training
from bascule.training.standard import Standard

_CHUNK = 1000


@component
class Frequency(Filter):
    """A detector of tampered images from their discrete cosine transform (Zeng et al. 2021, section 4).

    A small network learns to tell images of the set from copies of them that were tampered with at random (a white
    patch, a patch of noise, noise all over, another image blended in, a shadow), seeing log-magnitudes of the DCT-II of
    each channel only. It needs neither the model nor the labels, and finds triggers that leave traces like those.

    Score: log-odds of being tampered with. Removed from `probability` on.

    Departures: the images called clean are those of the set itself, poison among them, so a trigger that is frequent in
    the set can be learned as clean; two convolutions and a linear layer instead of six convolutions.
    """

    samples: Annotated[int, Ge(2)] = 5000
    """Images of the set that the detector learns from, at most; drawn at random."""
    epochs: Annotated[int, Ge(1)] = 10
    """Passes over them and their copies."""
    probability: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    """Probability of being tampered with from which an image is removed."""

    def judge(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Judged:
        index = torch.randperm(len(images), generator=generator, device=images.device)[: self.samples]
        seed = whole_number(generator=generator)
        with rng.borrowed_global_stream(seed, "detector"):
            detector = _detector(images.size).to(images.device)
        settings = Training(objective=Standard(), epochs=self.epochs, batch_size=128)
        with torch.enable_grad():
            train(detector, _lesson(images.at(index), generator), settings, seed=seed)
        score = _log_odds(detector, images)
        return Judged(score, score >= math.log(self.probability / (1 - self.probability)))


def _lesson(images: Images, generator: torch.Generator) -> Images:
    """The images (label 0) and a tampered copy of each (label 1)."""
    clean, copies = [], []
    for _, x in read_batches(images, chunks(len(images), _CHUNK, images.device)):
        clean.append(as_bytes(x.clone()))
        copies.append(as_bytes(tamper(x, generator=generator)))
    labels = torch.arange(2, device=images.device).repeat_interleave(len(images))
    ids = torch.arange(len(labels), device=images.device)
    return Images(pixels=torch.cat([*clean, *copies]), labels=labels, ids=ids, classes=("as is", "tampered"))


def _detector(size: tuple[int, int, int]) -> nn.Module:
    channels, height, width = size
    pool = max(1, math.ceil(max(height, width) / 16))
    cells = math.ceil(math.ceil(height / 2) / pool) * math.ceil(math.ceil(width / 2) / pool)
    return nn.Sequential(
        Spectrum(height, width),
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(pool, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(32 * cells, 2),
    )


class Spectrum(nn.Module):
    """Log-magnitudes of the orthonormal DCT-II of each channel, B x C x H x W, low frequencies first."""

    over_height: Tensor
    over_width: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.register_buffer("over_height", dct_matrix(height))
        self.register_buffer("over_width", dct_matrix(width))

    def forward(self, x: Tensor) -> Tensor:
        """For images in [0, 1]; magnitudes below a 255th count little."""
        return ((self.over_height @ x @ self.over_width.T).abs() + 1 / 255).log()


def dct_matrix(size: int) -> Tensor:
    """The orthonormal DCT-II as a matrix, size x size: row k is the k-th cosine."""
    k, n = torch.arange(size).reshape(-1, 1), torch.arange(size)
    basis = torch.cos(math.pi * k * (2 * n + 1) / (2 * size)) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


@torch.no_grad()
def _log_odds(detector: nn.Module, images: Images) -> Tensor:
    with evaluating(detector):
        parts = [detector(x) for _, x in read_batches(images, chunks(len(images), _CHUNK, images.device))]
    logits = torch.cat(parts)
    return logits[:, 1] - logits[:, 0]
