"""The worst of a grid is the worst of its points, one by one; and what the rest of the house says of it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bascule
from bascule.attacks.losses import margin
from bascule.attacks.run import run_attack
from bascule.attacks.spatial import Spatial
from bascule.core.errors import RequestError
from bascule.core.rng import stream
from bascule.evaluation.kinds.curve import ask
from bascule.evaluation.question import Asking, EvaluationSettings, reach_of
from bascule.record.plan import Reach


class Lit(nn.Module):
    """Class 1 where the pixel at the top left is bright."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5], 1)


def test_the_only_motion_that_fools_is_found() -> None:
    """A lit pixel two to the right and one below: it must go up by one and to the left by two."""
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 1, 2] = 1.0
    y = torch.zeros(1, dtype=torch.int64)
    attack = Spatial(degrees=0.0, pixels=2.0, angles=1, shifts=5)
    motion = attack.perturb(Lit(), x, y, generator=stream(0, "t"))
    assert motion.tolist() == [[0.0, -1.0, -2.0]]
    found = run_attack(Lit(), attack, x, y, generator=stream(0, "t"))
    assert found.prediction.tolist() == [1]
    assert found.x[0, 0, 0, 0] == pytest.approx(1.0)
    # With less room there is none.
    near = run_attack(Lit(), Spatial(degrees=0.0, pixels=1.0, shifts=3), x, y, generator=stream(0, "t"))
    assert near.prediction.tolist() == [0]


@pytest.mark.parametrize("count", [1, 40], ids=["several at once", "one by one"])
def test_a_grid_is_searched_to_its_end(trained: Any, count: int) -> None:
    model, x, y = trained.model, trained.x[:count], trained.y[:count]
    attack = Spatial(degrees=20.0, pixels=1.0, angles=3, shifts=3, stop_when_fooled=False)
    found = attack.threat.realise(attack.perturb(model, x, y, generator=stream(0, "t")), x)
    worst = torch.full(y.shape, -torch.inf)
    for point in itertools.product((-20.0, 0.0, 20.0), (-1.0, 0.0, 1.0), (-1.0, 0.0, 1.0)):
        with torch.no_grad():
            moved = attack.threat.realise(torch.tensor([point]).expand(count, -1), x)
            worst = worst.maximum(margin(model(moved), y))
    with torch.no_grad():
        torch.testing.assert_close(margin(model(found), y), worst, rtol=1e-4, atol=1e-4)
    # Stopped early it fools the same images.
    early = run_attack(model, Spatial(degrees=20.0, pixels=1.0, angles=3, shifts=3), x, y, generator=stream(0, "t"))
    assert torch.equal(early.prediction != y, worst > 0)


def test_random_motions_are_each_images_own(trained: Any) -> None:
    attack = Spatial(search="random", tries=1, stop_when_fooled=False)
    motion = attack.perturb(trained.model, trained.x, trained.y, generator=stream(0, "t"))
    assert len(motion.unique(dim=0)) == len(trained.x)
    assert (motion.abs() <= attack.threat.limits(motion)).all()
    more = [
        int(
            (
                run_attack(trained.model, one, trained.x, trained.y, generator=stream(0, "t")).prediction != trained.y
            ).sum()
        )
        for one in (attack, Spatial(search="random", tries=10), Spatial())
    ]
    assert more[0] < more[1] <= more[2]


# --- what is said of it ----------------------------------------------------------------------------------------------


def test_it_has_no_norm_and_no_eps() -> None:
    reach = reach_of(Spatial(degrees=10.0, pixels=1.0))
    assert reach == Reach(uses_gradient=False, within="turned by up to 10 degrees, shifted by up to 1 pixels")
    assert reach.as_dict() == {"uses_gradient": False, "within": reach.within}


def test_a_security_curve_is_refused() -> None:
    asking = Asking(EvaluationSettings(test="", attack=(Spatial(),), curve=(0.1,)))
    with pytest.raises(RequestError, match=r"needs attacks that have a radius; spatial has none\. Ask for"):
        ask(asking)


def test_one_model_is_told_of_without_a_ball(trained: Any) -> None:
    found = bascule.evaluate(
        trained.model, trained.x, trained.y, attack=[{"name": "fgsm", "eps": 0.1}, {"name": "spatial", "shifts": 3}]
    )
    ball, motions = (part.as_dict() for part in found.attacks)
    assert (ball["norm"], ball["eps"]) == ("linf", 0.1)
    assert "within" not in ball
    assert (motions["norm"], motions["eps"]) == (None, None)
    assert motions["within"].startswith("turned by up to 30 degrees")
    assert motions["fooled"] > 0
