from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.scanners.contract import Passes, Scan, Scanner
from bascule.scanners.run import run_scanner

NAN = float("nan")


def images(labels: list[int], classes: int = 3, value: int = 51) -> Images:
    count = len(labels)
    return Images(
        pixels=torch.full((count, 1, 1, 2), value, dtype=torch.uint8),
        labels=torch.tensor(labels),
        ids=torch.arange(count),
        classes=tuple("abcdef"[:classes]),
    )


class Threshold(nn.Module):
    """Class 1 where the left pixel is above 0.5, class 2 where the right one is above 0.7, else class 0."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.flatten(1).unbind(1)
        return torch.stack([torch.full_like(left, 0.5), left, right - 0.2], 1)


@component
class Given(Scanner):
    """Says what it was told to say."""

    answer: Any

    def scan(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Scan:
        return self.answer(model, images) if callable(self.answer) else self.answer


def run(answer: Any, of: Images | None = None, model: nn.Module | None = None) -> Scan:
    of = of if of is not None else images([0, 0, 1, 2])
    return run_scanner(model or Threshold(), Given(answer=answer), of, generator=stream(0, "scan"))


def told(**values: Any) -> Scan:
    return Scan(**{"anomaly": torch.tensor([0.5, 3.0, 2.5]), "threshold": 2.0, **values})


# --- what a scan says ------------------------------------------------------------------------------------------------


def test_suspects_are_the_classes_above_the_threshold_in_order() -> None:
    assert told().suspects == (1, 2)
    assert told(threshold=2.5).suspects == (1,)
    assert told(threshold=3.0).suspects == ()
    assert told(anomaly=torch.tensor([NAN, 2.1, NAN])).suspects == (1,)
    assert told(anomaly=torch.tensor([2.1, 2.1, 9.0])).suspects == (2, 0, 1)


def test_a_given_target_is_the_suspect() -> None:
    found = told(anomaly=torch.full((3,), NAN), assumed=2)
    assert found.suspects == (2,)


def test_stamp_by_hand() -> None:
    mask = torch.tensor([[0.0, 0.0], [1.0, 0.25], [0.0, 1.0]]).view(3, 1, 1, 2)
    pattern = torch.tensor([[0.0, 0.0], [0.9, 0.6], [0.3, 0.3]]).view(3, 1, 1, 2)
    found = told(mask=mask, pattern=pattern)
    x = torch.tensor([[0.2, 0.4], [0.8, 0.0]]).view(2, 1, 1, 2)
    assert torch.equal(found.stamp(x, 0), x)
    # 0.75 * 0.4 + 0.25 * 0.6 = 0.45 and 0.75 * 0 + 0.15 = 0.15
    torch.testing.assert_close(found.stamp(x, 1).flatten(), torch.tensor([0.9, 0.45, 0.9, 0.15]))
    torch.testing.assert_close(found.stamp(x, torch.tensor([2, 1])).flatten(), torch.tensor([0.2, 0.3, 0.9, 0.15]))


def test_one_mask_value_covers_all_channels() -> None:
    found = told(mask=torch.full((3, 1, 1, 2), 0.5), pattern=torch.ones(3, 3, 1, 2))
    assert torch.equal(found.stamp(torch.zeros(4, 3, 1, 2), 1), torch.full((4, 3, 1, 2), 0.5))


def test_stamping_without_a_trigger_is_refused() -> None:
    with pytest.raises(RequestError, match=r"recovers no trigger to stamp; use one that does"):
        told().stamp(torch.zeros(1, 1, 1, 2), 0)
    some = told(mask=torch.tensor([0.0, NAN, 0.0]).view(3, 1, 1, 1).expand(3, 1, 1, 2), pattern=torch.zeros(3, 1, 1, 2))
    some.stamp(torch.zeros(1, 1, 1, 2), 0)
    with pytest.raises(RequestError, match=r"no trigger was recovered for class 1"):
        some.stamp(torch.zeros(1, 1, 1, 2), 1)


# --- guarantees ------------------------------------------------------------------------------------------------------


def test_success_is_measured_on_the_other_classes() -> None:
    # Images 0.2 everywhere are class 0 to the model. Class 0's trigger does nothing, class 1's whitens the left pixel,
    # class 2's is not strong enough: 0.2 * 0.5 + 0.5 = 0.6.
    mask = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.5]]).view(3, 1, 1, 2)
    found = run(told(mask=mask, pattern=torch.ones(3, 1, 1, 2)), images([0, 0, 1, 2, 2]))
    assert found.details["success"].tolist() == [1, 1, 0]
    # Of the classes other than 0, those whose left pixel is bright stay class 1.
    of = images([0, 0, 1, 1, 2])
    of.pixels[3, 0, 0, 0] = 255  # type: ignore[index]
    found = run(told(mask=mask, pattern=torch.ones(3, 1, 1, 2)), of)
    assert found.details["success"].tolist() == pytest.approx([2 / 3, 1, 0])


def test_success_of_what_was_not_examined_is_unknown() -> None:
    mask = torch.tensor([NAN, 1.0, NAN]).view(3, 1, 1, 1).expand(3, 1, 1, 2)
    found = run(told(mask=mask, pattern=torch.ones(3, 1, 1, 2), assumed=1))
    assert found.details["success"].isnan().tolist() == [True, False, True]


def test_what_the_scanner_says_of_success_is_not_believed() -> None:
    trigger = {"mask": torch.zeros(3, 1, 1, 2), "pattern": torch.zeros(3, 1, 1, 2)}
    found = run(told(**trigger, details={"success": torch.ones(3), "size": torch.ones(3)}))
    assert found.details["success"].tolist() == [1, 0, 0]
    assert found.details["size"].tolist() == [1, 1, 1]


def test_triggers_are_clipped() -> None:
    mask, pattern = torch.full((3, 1, 1, 2), 1.5, requires_grad=True), torch.full((3, 1, 1, 2), -0.5)
    found = run(told(mask=mask, pattern=pattern))
    assert found.mask is not None
    assert found.pattern is not None
    assert found.mask.unique().tolist() == [1]
    assert found.pattern.unique().tolist() == [0]
    assert not found.mask.requires_grad


def test_passes_are_counted() -> None:
    def ask(model: nn.Module, of: Images) -> Scan:
        x = of.batch(torch.arange(3)).requires_grad_(True)
        model(x).sum().backward()
        model(x)
        with torch.no_grad():
            model(x[:2])
        return told(mask=torch.zeros(3, 1, 1, 2), pattern=torch.zeros(3, 1, 1, 2))

    # 3 + 3 + 2 forward, of which one batch went back; neither the check before nor the measurement after counts.
    assert run(ask).passes == Passes(forward=8, backward=3)


def test_the_scanner_sees_a_frozen_model_in_eval_mode_with_gradients() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3))
    seen = []

    def ask(model: nn.Module, of: Images) -> Scan:
        seen.append((model.training, any(p.requires_grad for p in model.parameters()), torch.is_grad_enabled()))
        return told()

    with torch.no_grad():
        run(ask, model=model)
    assert seen == [(False, False, True)]
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


# --- refusals --------------------------------------------------------------------------------------------------------


def test_images_of_one_class_are_refused() -> None:
    with pytest.raises(RequestError, match=r"all 3 images are of class 1; a scan needs images of several classes"):
        run(told(), images([1, 1, 1]))


def test_a_model_with_other_classes_is_refused() -> None:
    with pytest.raises(RequestError, match=r"shape \(1, 3\); these images have 4 classes, so it should be \(1, 4\)"):
        run(told(), images([0, 1, 2, 3], classes=4))


def test_a_broken_model_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3))
    nn.init.constant_(model[1].bias, NAN)
    with pytest.raises(RequestError, match=r"not finite"):
        run(told(), model=model)


def test_a_scanner_with_the_wrong_number_of_classes_is_a_fault_of_its_own() -> None:
    with pytest.raises(ValueError, match=r"anomalies of shape \(2,\) for 3 classes"):
        run(told(anomaly=torch.zeros(2)))


def test_a_scan_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        told().threshold = 1.0  # type: ignore[misc]
