"""What is unlearnt, by a scanner that knows, one that suspects nobody, and one that recovers nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bascule.core import catalog
from bascule.core.catalog import component
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.repairs.fine_tune import FineTune
from bascule.repairs.run import run_repair
from bascule.repairs.unlearn import Stamping, Unlearn
from bascule.scanners.contract import Scan, Scanner


@component
class Says(Scanner):
    """Answers as told; the trigger of class k is a corner pixel of brightness k / 4, of two classes alike."""

    anomaly: tuple[float, ...]
    triggers: bool = True

    def scan(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Scan:
        classes = len(self.anomaly)
        mask = torch.zeros(classes, 1, 6, 6)
        mask[:, :, 0, 0] = 1
        pattern = torch.arange(classes).div(4).reshape(-1, 1, 1, 1).expand(-1, 1, 6, 6)
        parts = {"mask": mask, "pattern": pattern} if self.triggers else {}
        return Scan(anomaly=torch.tensor(self.anomaly), threshold=2.0, **parts)


def test_without_a_suspect_nothing_changes(plain: nn.Module, some: Images) -> None:
    found = run_repair(plain, Unlearn(scanner=Says(anomaly=(0.5, 1.0, 2.0))), some, generator=stream(0, "r"))
    assert found.notes == {"suspects": 0.0, "distance": 0.0}
    assert all(torch.equal(v, plain.state_dict()[name]) for name, v in found.model.state_dict().items())


def test_always_takes_the_most_suspicious(plain: nn.Module, some: Images) -> None:
    repair = Unlearn(scanner=Says(anomaly=(0.5, 1.0, 0.2)), always=True, epochs=1)
    found = run_repair(plain, repair, some, generator=stream(0, "r"))
    assert found.notes["suspects"] == 0
    assert found.notes["unlearnt"] == 1
    assert found.notes["distance"] > 0


def test_suspects_are_unlearnt(plain: nn.Module, some: Images) -> None:
    repair = Unlearn(scanner=Says(anomaly=(3.0, 1.0, 4.0)), epochs=1)
    found = run_repair(plain, repair, some, generator=stream(0, "r"))
    assert found.notes["suspects"] == 2
    assert found.notes["unlearnt"] == 2
    assert found.notes["distance"] > 0


def test_a_scanner_without_triggers_is_refused(plain: nn.Module, some: Images) -> None:
    repair = Unlearn(scanner=Says(anomaly=(3.0, 1.0, 1.0), triggers=False))
    with pytest.raises(RequestError, match=r"scanner: .*recovers no trigger.*neural-cleanse"):
        run_repair(plain, repair, some, generator=stream(0, "r"))


def test_stamping() -> None:
    """The first fifth of the batch carries triggers of the classes drawn; stamped first, shifted afterwards."""

    def stamp(x: Tensor, labels: Tensor) -> Tensor:
        stamped = x.clone()
        stamped[:, :, 2, 2] = labels.reshape(-1, 1) / 10
        return stamped

    x = torch.zeros(50, 1, 6, 6)
    found = Stamping(stamp=stamp, classes=(4, 7), share=0.2).apply(x, generator=stream(0, "a"))
    assert found[:10, 0, 2, 2].unique().tolist() == pytest.approx([0.4, 0.7])
    assert found.count_nonzero() == 10
    assert found[10:].count_nonzero() == 0
    assert x.count_nonzero() == 0
    shifted = Stamping(stamp=stamp, classes=(4,), share=0.2, pad=1).apply(x, generator=stream(0, "a"))
    assert shifted.count_nonzero() == 10
    assert len({tuple(place[2:]) for place in shifted.nonzero().tolist()}) > 3


def test_the_known_target_of_the_study_is_the_scanners_business() -> None:
    repair = catalog.build("repair", {"name": "unlearn", "scanner": {"name": "neural-cleanse", "target": 7}})
    assert repair.scanner.target == 7


def test_a_trigger_that_clean_images_cannot_show_is_unlearnt() -> None:
    """Clean images are dark in the corner, so that plain fine-tuning gives its weights no gradient."""
    pixels = torch.randint(100, (60, 1, 6, 6), dtype=torch.uint8, generator=stream(0, "images"))
    labels = torch.arange(60) % 2
    pixels[labels == 1, :, 3:] += 100
    pixels[:, :, 0, 0] = 0
    images = Images(pixels=pixels, labels=labels, ids=torch.arange(60), classes=("dark", "light", "target"))
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].weight[1] = torch.arange(36) // 18 - 0.5
        net[1].weight[2, 0] = 20.0
        net[1].bias.copy_(torch.tensor([1.5, 0.0, -1.0]))
    settings = {"epochs": 30, "lr": 0.5}
    scanner = Says(anomaly=(1.0, 1.0, 3.0))
    hits = []
    for repair in (FineTune(**settings), Unlearn(scanner=scanner, **settings)):  # type: ignore[arg-type]
        found = run_repair(net, repair, images, generator=stream(0, "r"))
        stamped = images.batch(images.ids)
        assert (found.model(stamped).argmax(1) == labels).all()
        stamped[:, :, 0, 0] = 0.5
        hits.append((found.model(stamped).argmax(1) == 2).double().mean().item())
    assert hits[0] > 0.9
    assert hits[1] == 0
