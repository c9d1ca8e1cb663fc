"""Projections to the plane: known mixtures, the same picture for every draw, and a clear word when UMAP is missing."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bascule.core.errors import RequestError
from bascule.core.projection import Matrix
from bascule.core.rng import stream
from bascule.explanations.latents import Latents


def mixture() -> tuple[Tensor, Tensor]:
    """700 rows of 30 numbers from two hidden ones: a skewed, peaked one and a flat one; and the hidden ones."""
    generator = stream(0, "sources")
    peaked = torch.rand(700, generator=generator).log().neg()
    flat = torch.rand(700, generator=generator) * 8
    sources = torch.stack([peaked, flat], 1)
    return sources @ torch.randn(2, 30, generator=generator) + 5, sources


def project(rows: Any, method: str, seed: int = 0) -> np.ndarray:
    return Latents(method=method).project(rows, generator=stream(seed, "latents"))  # type: ignore[arg-type]


def test_independent_components_are_the_hidden_numbers_in_a_fixed_order() -> None:
    rows, sources = mixture()
    found = project(rows, "ica")
    assert found.shape == (700, 2)
    assert found.dtype == np.float32
    likeness = np.corrcoef(np.hstack([sources.numpy(), found]).T)[:2, 2:]
    assert likeness[0, 0] > 0.98  # the peaked one first, long tail to the right
    assert abs(likeness[1, 1]) > 0.98
    assert found.std(0) == pytest.approx([1, 1], abs=0.01)
    assert project(rows, "ica", seed=5)[:, 0] == pytest.approx(found[:, 0], abs=0.02)


def test_principal_coordinates_are_those_of_the_full_decomposition() -> None:
    rows, _ = mixture()
    centred = rows.double().numpy() - rows.double().numpy().mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    assert np.abs(project(rows, "pca")) == pytest.approx(np.abs(left[:, :2] * values[:2]), abs=1e-3)


@pytest.mark.parametrize("method", ["ica", "pca"])
def test_same_stream_same_picture_from_tensors_and_passes(method: str) -> None:
    rows, _ = mixture()
    state = torch.get_rng_state()
    found = project(rows, method)
    assert np.array_equal(found, project(rows, method))
    assert np.array_equal(found, project(Matrix(rows), method))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("method", ["ica", "pca"])
def test_rows_that_vary_along_no_or_one_direction(method: str) -> None:
    assert not project(torch.ones(9, 4), method).any()
    found = project(torch.arange(9.0).reshape(-1, 1) * torch.ones(1, 4), method)
    assert np.ptp(found[:, 0]) > 1
    assert not found[:, 1].any()
    assert project(torch.ones(1, 4), method).shape == (1, 2)


def test_umap_is_asked_with_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class UMAP:
        def __init__(self, **settings: Any) -> None:
            asked.update(settings)

        def fit_transform(self, points: np.ndarray) -> np.ndarray:
            asked["width"] = points.shape[1]
            return points[:, :2]

    module = ModuleType("umap")
    module.UMAP = UMAP  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umap", module)
    rows = torch.randn(80, 70, generator=stream(0, "rows"))
    assert project(rows, "umap").shape == (80, 2)
    assert asked["width"] == 50
    assert asked["n_jobs"] == 1
    first = asked["random_state"]
    project(rows, "umap")
    assert asked["random_state"] == first
    project(rows, "umap", seed=1)
    assert asked["random_state"] != first


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(RequestError, match=r"bascule\[umap\]"):
        project(mixture()[0], "umap")


def test_umap_keeps_what_lies_apart_apart() -> None:
    """The real package, where it is installed."""
    pytest.importorskip("umap")
    rows = torch.randn(60, 8, generator=stream(0, "rows"))
    rows[30:] += 20
    found = project(rows, "umap")
    within = max(np.linalg.norm(part - part.mean(0), axis=1).max() for part in (found[:30], found[30:]))
    assert np.linalg.norm(found[:30].mean(0) - found[30:].mean(0)) > 2 * within
    assert np.array_equal(found, project(rows, "umap"))
