"""What every model scanner keeps, whichever file or package it comes from: `bascule.testing.scanners`, on ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.images import Images
from bascule.scanners.contract import Scan, Scanner
from bascule.testing import scanners as contract
from bascule.testing.settings import check_settings

NAMES = catalog.names("scan")
BRIEF: dict[str, Any] = {"mm-bd": {"steps": 4, "starts": 3}}
"""Settings for tests that look at form and not at findings; by default two looks."""

names = pytest.mark.parametrize("name", NAMES)


def brief(name: str) -> Scanner:
    fields = {doc.name for doc in catalog.documentation("scan", name).fields}
    return catalog.build("scan", {"name": name, **BRIEF.get(name, {"max_looks": 2} if "max_looks" in fields else {})})


def test_the_room_is_not_empty() -> None:
    assert {"neural-cleanse", "mm-bd", "universal-perturbation", "feature-inversion"} <= set(NAMES)


@names
def test_scanner(name: str) -> None:
    contract.check_findings(catalog.build("scan", name))


@names
def test_shapes(name: str) -> None:
    contract.check_shapes(brief(name))


@names
def test_same_seed_same_scan(name: str) -> None:
    contract.check_repeats(brief(name))


@names
def test_model_and_images_are_left_as_found(name: str) -> None:
    contract.check_left(brief(name))


@names
def test_model_is_left_as_found_after_a_failure(name: str) -> None:
    contract.check_failure(brief(name))


@names
def test_two_classes_are_refused(name: str) -> None:
    contract.check_classes(brief(name))


# --- configuration ---------------------------------------------------------------------------------------------------


@names
def test_description_and_repr_rebuild_it(name: str) -> None:
    for scanner in (catalog.build("scan", name), brief(name)):
        check_settings(scanner)
        assert catalog.describe(scanner)["name"] == name


@names
def test_every_setting_is_explained(name: str) -> None:
    documentation = catalog.documentation("scan", name)
    assert documentation.summary
    assert all(field.text for field in documentation.fields)


# --- the contract itself ---------------------------------------------------------------------------------------------


def answer(of: Images, anomaly: Tensor) -> Scan:
    return Scan(anomaly=anomaly, threshold=2.0)


@component
class Nothing(Scanner):
    """Asks the model and finds nothing."""

    def scan(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Scan:
        model(images.batch(torch.arange(2)))
        return answer(images, torch.zeros(len(images.classes)))


@component
class Asleep(Scanner):
    """Never asks the model."""

    def scan(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Scan:
        return answer(images, torch.zeros(len(images.classes)))


@component
class Accuser(Scanner):
    """Accuses the right class of every model, which it happens to know."""

    def scan(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Scan:
        with torch.no_grad():
            stamped = images.batch(torch.arange(len(images)))
            stamped[:, :, -2:, -2:] = 1
            share = torch.bincount(model(stamped).argmax(1), minlength=len(images.classes)) / len(images)
        return answer(images, 3 + share)


@component
class Guess(Scanner):
    """Draws a class."""

    def scan(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Scan:
        model(images.batch(torch.arange(2)))
        return answer(images, torch.rand(len(images.classes), generator=generator))


@pytest.mark.parametrize(
    ("scanner", "complaint"),
    [
        (Nothing, "stands out"),
        (Asleep, "never asked the model"),
        (Accuser, "every clean model is accused"),
        (Guess, "stands out"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_a_bad_scanner_fails_the_contract(scanner: type[Scanner], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        contract.check_findings(scanner())
