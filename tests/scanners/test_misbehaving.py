"""Scans of models without gradients, of models that write into their images, and of networks with attention."""

from __future__ import annotations

import pytest
import torch

import networks
from bascule.core import catalog
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.rng import borrowed_global_stream, stream
from bascule.scanners.contract import Scan
from bascule.scanners.run import run_scanner

NAMES = catalog.names("scan")
QUICK = {"mm-bd": {"starts": 2, "steps": 2}}
SIZE = (1, 4, 4)


def scan(name: str, scanner: str) -> Scan:
    with borrowed_global_stream(0, "net"):
        model = getattr(networks, name)(SIZE, 3).eval()
    pixels = torch.randint(256, (12, *SIZE), dtype=torch.uint8, generator=stream(0, "pixels"))
    images = Images(pixels=pixels, labels=torch.arange(12) % 3, ids=torch.arange(12), classes=("a", "b", "c"))
    method = catalog.build("scan", {"name": scanner, **QUICK.get(scanner, {"max_looks": 2})})
    return run_scanner(model, method, images, generator=stream(0, "scan"))


@pytest.mark.parametrize("scanner", NAMES)
@pytest.mark.parametrize("name", ["detached", "outside", "inference", "rounded"])
def test_without_gradients_a_scan_is_refused(name: str, scanner: str) -> None:
    with pytest.raises(RequestError, match=f"{scanner} follows the gradient .* this model has none"):
        scan(name, scanner)


@pytest.mark.parametrize("scanner", NAMES)
def test_a_model_that_writes_into_its_images_is_scanned_as_one_that_does_not(scanner: str) -> None:
    assert torch.equal(scan("in_place", scanner).anomaly, scan("plain", scanner).anomaly)


@pytest.mark.parametrize("scanner", NAMES)
@pytest.mark.parametrize("name", ["Encoder", "Windows"])
def test_networks_with_attention_are_scanned(name: str, scanner: str) -> None:
    assert bool(scan(name, scanner).anomaly.isfinite().all())


def test_features_that_are_no_vector_are_refused() -> None:
    with pytest.raises(RequestError, match=r"last linear layer takes .* not one vector for each"):
        scan("HeadOnTokens", "feature-inversion")
