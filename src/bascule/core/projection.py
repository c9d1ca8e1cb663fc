"""Few numbers out of many: principal and independent components of rows that are read in passes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

_EXACT_WIDTH = 512
"""Up to this length of a row the whole covariance is diagonalised; beyond, only its top is looked for."""
_STEPS = 60
_SPARE = 4


class Rows(Protocol):
    """N vectors of length D, float32, that need not be in memory together (`core.features.Features` is one)."""

    @property
    def width(self) -> int:
        """D."""

    def __len__(self) -> int:
        """N."""

    def chunks(self) -> Iterator[Tensor]:
        """The vectors in order, some at a time."""


class Matrix:
    """Rows that are in memory."""

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.width = rows, rows.shape[1]

    def __len__(self) -> int:
        return len(self.rows)

    def chunks(self) -> Iterator[Tensor]:
        """The vectors in order, 500 at a time."""
        yield from self.rows.split(500)


class Principal(NamedTuple):
    """The directions along which rows vary most."""

    mean: Tensor
    """The mean row, shape (D,)."""
    directions: Tensor
    """Orthonormal, k x D, the strongest first; of each, the entry of largest size is positive."""
    values: Tensor
    """Singular values of the centred rows, shape (k,), falling."""

    def of(self, rows: Rows) -> Tensor:
        """Coordinates of rows along the directions, N x k; of rows other than those it was made from, too."""
        return torch.cat([(part - self.mean) @ self.directions.T for part in rows.chunks()])


def mean_of(rows: Rows) -> Tensor:
    """The mean row, shape (D,), summed in double precision."""
    total: Tensor | float = 0.0
    for part in rows.chunks():
        total = total + part.sum(0, dtype=torch.float64)
    assert isinstance(total, Tensor)
    return (total / len(rows)).float()


def principal(rows: Rows, count: int, *, generator: torch.Generator) -> Principal:
    """The `count` strongest principal directions of the centred rows; fewer if N - 1 or D is less.

    Short rows: from their covariance, in one pass after the mean. Long ones: randomised block Krylov iteration (Musco &
    Musco 2015, algorithm 2), one pass per step, until the wanted singular pairs have settled (residual below 1e-4 of
    their own, or 1e-6 of the largest, squared singular value) or after 60 steps. Memory: 2 x D x (count + 4) floats a
    step.

    Args:
        rows: N x D, finite.
        count: Directions wanted.
        generator: On the device of the rows.
    """
    mean = mean_of(rows)
    count = max(1, min(count, len(rows) - 1, rows.width))
    if rows.width <= _EXACT_WIDTH:
        gram = sum(part.T @ part for part in ((part - mean).double() for part in rows.chunks()))
        assert isinstance(gram, Tensor)
        values, vectors = torch.linalg.eigh(gram)
        return _ordered(mean, values, vectors, count)
    return _krylov(rows, mean, count, generator)


def _krylov(rows: Rows, mean: Tensor, count: int, generator: torch.Generator) -> Principal:
    width = count + _SPARE
    block = torch.zeros(rows.width, width, device=mean.device)
    for part in rows.chunks():  # a start within the span of the rows: with few of them nothing else is needed
        block += (part - mean).T @ torch.randn(len(part), width, generator=generator, device=mean.device)
    basis = block.new_empty(rows.width, 0)
    image = basis.clone()
    while True:
        block = torch.linalg.qr(block - basis @ (basis.T @ block)).Q
        block = torch.linalg.qr(block - basis @ (basis.T @ block)).Q  # once more: rounding
        basis = torch.cat([basis, block], 1)
        image = torch.cat([image, _covariance_times(rows, mean, block)], 1)
        small = (basis.T.double() @ image.double()).cpu()
        values, within = torch.linalg.eigh((small + small.T) / 2)
        best = within[:, -count:].to(basis)
        directions = basis @ best
        residual = (image @ best - directions * values[-count:].to(basis)).norm(dim=0).double().cpu()
        settled = residual <= torch.maximum(1e-4 * values[-count:], 1e-6 * values[-1])
        if bool(settled.all()) or basis.shape[1] + width > min(rows.width, _STEPS * width):
            return _ordered(mean, values[-count:], directions, count)
        block = image[:, -width:]


def _covariance_times(rows: Rows, mean: Tensor, block: Tensor) -> Tensor:
    """(A^T A) block for the centred rows A."""
    product = torch.zeros_like(block)
    for part in rows.chunks():
        centred = part - mean
        product += centred.T @ (centred @ block)
    return product


def _ordered(mean: Tensor, values: Tensor, vectors: Tensor, count: int) -> Principal:
    """From eigenvalues in rising order and their vectors as columns."""
    directions = vectors[:, -count:].flip(1).T
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    directions = directions * torch.where(largest < 0, -1.0, 1.0)
    strengths = values[-count:].flip(0).clamp_min(0).sqrt()
    return Principal(mean, directions.to(mean).contiguous(), strengths.to(mean))


def components(
    rows: Rows, count: int, *, method: Literal["pca", "ica"], generator: torch.Generator
) -> tuple[Principal, Tensor]:
    """Coordinates along at most `count` principal (`pca`) or independent (`ica`) components, N x k, and the former.

    Directions along which the rows do not vary (less than 1e-5 of the strongest) are left out, so k can be 0.
    """
    axes = principal(rows, count, generator=generator)
    vary = axes.values > 1e-5 * (axes.values[0] + axes.mean.abs().max())
    axes = Principal(axes.mean, axes.directions[vary], axes.values[vary])
    coordinates = axes.of(rows)
    if method == "pca" or coordinates.shape[1] == 0:
        return axes, coordinates
    return axes, independent(coordinates, generator=generator).to(coordinates)


def independent(coordinates: Tensor, *, generator: torch.Generator) -> Tensor:
    """Independent components of the same number, uncorrelated and of variance 1, N x k: FastICA (Hyvarinen 1999).

    FastICA begins by cutting the rows down to k principal coordinates, so giving it these is the same as giving it the
    rows. A rotation that has not settled after 200 rounds is used as it stands. On the CPU.

    Args:
        coordinates: Principal coordinates, N x k, of rank k.
        generator: Draws the first rotation.
    """
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    method = FastICA(whiten="unit-variance", whiten_solver="eigh", random_state=whole_number(generator=generator))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return torch.from_numpy(method.fit_transform(coordinates.double().cpu().numpy())).float()


def whiten(points: Tensor, covariance: Tensor, *, floor: float) -> Tensor:
    """Points N x k turned and scaled so that `covariance` becomes the identity.

    Variances below `floor` x the largest count as that.
    """
    values, vectors = torch.linalg.eigh(covariance)
    return points @ vectors / values.clamp_min(floor * values[-1].clamp_min(1e-30)).sqrt()


def whole_number(*, generator: torch.Generator) -> int:
    """A seed for a library that cannot be given a generator of ours."""
    return int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
