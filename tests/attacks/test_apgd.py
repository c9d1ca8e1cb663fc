from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.attacks import _boundary
from bascule.attacks._auto_pgd import Searched, auto_pgd, checkpoints
from bascule.attacks.apgd import Apgd
from bascule.attacks.losses import AimedLoss, dlr, dlr_targeted, precise_cross_entropy
from bascule.attacks.pgd import Pgd
from bascule.attacks.run import run_attack
from bascule.core.ball import Ball, LinfBall, ball
from bascule.core.restore import untouched
from bascule.core.rng import borrowed_global_stream, stream

LOSSES: dict[str, AimedLoss] = {
    "ce": lambda logits, y, target: precise_cross_entropy(logits, y),
    "dlr": lambda logits, y, target: dlr(logits, y),
    "ce-targeted": lambda logits, y, target: -precise_cross_entropy(logits, target),
    "dlr-targeted": dlr_targeted,
}
EPS = {"linf": 0.1, "l2": 0.8}
norms = pytest.mark.parametrize("norm", list(EPS))
losses = pytest.mark.parametrize("loss", list(LOSSES))


class Recorded(nn.Module):
    """A model that keeps what it is shown."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return self.inner(x)

    @property
    def sizes(self) -> list[int]:
        return [len(x) for x in self.seen]


class Peak(nn.Module):
    """One pixel; label 0 always wins, least clearly at brightness `top`."""

    def __init__(self, top: float) -> None:
        super().__init__()
        self.top = top

    def forward(self, x: Tensor) -> Tensor:
        score = -(x.flatten(1)[:, 0] - self.top).abs() - 1
        return torch.stack([torch.zeros_like(score), score], 1)


def pixels(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


def smooth_net(classes: int = 5) -> nn.Module:
    """Random weights, 12 inputs, double precision, so that two implementations stay together for many steps."""
    with borrowed_global_stream(0, "net"):
        net = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, classes))
    net.double().requires_grad_(False)
    net[1].weight *= 3  # so that classes are near each other
    net[3].weight *= 3
    return net


def winding_net() -> nn.Module:
    """Class 0 wins everywhere, by a margin with hills and valleys inside a small ball."""
    net = smooth_net()
    with torch.no_grad():
        net[1].weight *= 7  # type: ignore[index, operator, union-attr]
        net[3].bias[0] += 10.0  # type: ignore[index, operator, union-attr]
    return net


def random_images(count: int) -> Tensor:
    return torch.rand(count, 1, 3, 4, dtype=torch.float64, generator=stream(0, "images"))


def search(model: nn.Module, x: Tensor, y: Tensor, region: Ball, **changes: Any) -> Searched:
    loss = changes.pop("loss", "ce")
    settings: dict[str, Any] = {"start": x, "steps": 10, "rho": 0.75, "target": (y + 1) % 2, **changes}
    return auto_pgd(model, x, y, ball=region, loss=LOSSES[loss], **settings)


# --- the schedule ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        # The paper's shares: 0.22, then gaps of 0.19, 0.16, 0.13, 0.10, 0.07, and 0.06 from there on.
        (100, [22, 41, 57, 70, 80, 87, 93, 99]),
        # 4.4, 8.2, 11.4, 14, 16, 17.4, 18.6 and 19.8, rounded up; after the last step nothing follows.
        (20, [5, 9, 12, 14, 16, 18, 19]),
        (1000, [220, 410, 570, 700, 800, 870, 930, 990]),
        (4, [1, 2, 3]),
        (1, []),
    ],
)
def test_checkpoints(steps: int, expected: list[int]) -> None:
    assert checkpoints(steps) == expected


# --- the search ------------------------------------------------------------------------------------------------------


def test_four_steps_by_hand() -> None:
    # The loss is highest at 0.52. Checkpoints are after steps 1, 2 and 3; a window of one step needs one rise.
    model, region = Recorded(Peak(0.52)), LinfBall(eps=0.2)
    x = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)
    found = search(model, x, torch.tensor([0]), region, steps=4)
    expected = [
        0.5,  # the start, 0.02 below the top
        0.7,  # a step of 0.4 up, cut off; 0.18 beyond the top. No rise: back to 0.5, and steps are 0.2 now
        # Up to 0.7, three quarters of the way, and a quarter of the last move, which after a return to the start is 0.
        0.65,  # a rise, from 0.18 to 0.13
        # Down to 0.45: 0.65 - 0.75 * 0.2 + 0.25 * (0.65 - 0.5)
        0.5375,  # a rise, and the new best
        # Down to 0.3375: 0.5375 - 0.75 * 0.2 + 0.25 * (0.5375 - 0.65)
        0.359375,
    ]
    assert [x.item() for x in model.seen] == pytest.approx(expected)
    assert found.x.item() == pytest.approx(0.5375)
    assert not found.fooled.any()


@pytest.mark.parametrize(
    ("image", "first", "met"),
    [
        (0.6, "few", "stuck"),
        # Here the second step rises and is not better, but the first checkpoint has none before it to compare with.
        (0.5, "none", "few"),
    ],
)
def test_steps_are_halved_when_nothing_better_is_found(image: float, first: str, met: str) -> None:
    """The second condition: rises, but none above the best, and no halving at the checkpoint before."""
    # rho = 0 leaves the first condition to windows without any rise. With 9 steps checkpoints are 2, 4, 6, 7, 8.
    model, region = Recorded(Peak(0.5)), LinfBall(eps=0.2)
    x, start = pixels(image), pixels(0.51)
    search(model, x, torch.tensor([0]), region, steps=9, rho=0.0, start=start)
    expected = by_the_paper(Peak(0.5), x, 0, 1, region, "ce", start, 9, rho=0.0)
    assert [x.item() for x in model.seen] == pytest.approx(expected["places"])
    assert expected["reasons"][0] == first
    assert met in expected["reasons"]


def by_the_paper(
    model: nn.Module,
    x: Tensor,
    y: int,
    target: int,
    region: Ball,
    loss: str,
    start: Tensor,
    steps: int,
    rho: float = 0.75,
) -> dict[str, Any]:
    """Algorithm 1 for one image, word for word, with lists of all values; nothing is dropped."""

    def f(point: Tensor) -> tuple[float, Tensor]:
        point = point.detach().requires_grad_(True)
        value = LOSSES[loss](model(point), torch.tensor([y]), torch.tensor([target])).squeeze(0)
        return value.item(), torch.autograd.grad(value, point)[0]

    def norm_step(gradient: Tensor) -> Tensor:
        return gradient.sign() if isinstance(region, LinfBall) else gradient / gradient.norm().clamp_min(1e-300)

    checks = [math.ceil(round(share * steps, 9)) for share in (0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99)]
    points, values, gradients = [start], *([part] for part in f(start))
    sizes, best_at, halved_at, reasons, shown = [2 * region.eps], [values[0]], [True], [], [start]
    best = (values[0], start, gradients[0])
    last = 0
    for k in range(steps):
        eta = sizes[-1]
        z = region.project(points[k] + eta * norm_step(gradients[k]), x)
        if k > 0:
            z = region.project(points[k] + 0.75 * (z - points[k]) + 0.25 * (points[k] - points[k - 1]), x)
        value, gradient = f(z)
        points.append(z)
        shown.append(z)
        values.append(value)
        gradients.append(gradient)
        if value > best[0]:
            best = (value, z, gradient)
        if k + 1 in checks and k + 1 < steps:
            rises = sum(values[i + 1] > values[i] for i in range(last, k + 1))
            few = rises <= rho * (k + 1 - last)
            stuck = not halved_at[-1] and best[0] == best_at[-1]
            reasons.append("few" if few else "stuck" if stuck else "none")
            if few or stuck:
                sizes.append(eta / 2)
                points[-1], gradients[-1] = best[1], best[2]
            halved_at.append(few or stuck)
            best_at.append(best[0])
            last = k + 1
    return {"places": [p.item() for p in shown if p.numel() == 1], "best": best[1], "reasons": reasons}


@norms
@losses
@pytest.mark.parametrize("rho", [0.3, 0.75])
def test_the_search_is_the_papers_algorithm(norm: str, loss: str, rho: float) -> None:
    net, region = winding_net(), ball(norm, {"linf": 0.1, "l2": 0.3}[norm])
    x = random_images(12)
    y, target = torch.zeros(12, dtype=torch.int64), 1 + torch.arange(12) % 4
    start = region.random_point(x, generator=stream(0, "start"))
    with untouched(net):
        found = search(net, x, y, region, loss=loss, start=start, steps=50, target=target, rho=rho)
        alone = [
            by_the_paper(net, x[i : i + 1], 0, int(target[i]), region, loss, start[i : i + 1], 50, rho)
            for i in range(12)
        ]
    torch.testing.assert_close(found.x, torch.cat([one["best"] for one in alone]), rtol=0, atol=1e-7)
    assert not found.fooled.any()
    reasons = [reason for one in alone for reason in one["reasons"]]
    # A lenient rho is what the second condition needs to be met.
    for reason in ("none", "few" if rho == 0.75 else "stuck"):
        assert reasons.count(reason) >= 4


@pytest.fixture
def double() -> Iterator[None]:
    """Everything in double precision, also what others make themselves."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@norms
@pytest.mark.parametrize("loss", ["ce", "dlr", "dlr-targeted"])
@pytest.mark.usefixtures("double")
def test_the_search_is_that_of_torchattacks(norm: str, loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside an implementation of others, from a shared start; with 100 steps its checkpoints are the paper's."""
    module, name = ("apgdt", "APGDT") if loss == "dlr-targeted" else ("apgd", "APGD")
    attack = getattr(pytest.importorskip(f"torchattacks.attacks.{module}"), name)
    net, region = winding_net(), ball(norm, {"linf": 0.1, "l2": 0.3}[norm])
    x = random_images(12)
    y, target = net(x).sort(dim=1).indices[:, -1], net(x).sort(dim=1).indices[:, -2]
    noise = 2 * torch.rand(x.shape, generator=stream(0, "noise")) - 1
    start = (x + noise * (region.eps / region.distance(noise, 0 * noise)).reshape(-1, 1, 1, 1)).clamp(0, 1)
    theirs = attack(net, norm={"linf": "Linf", "l2": "L2"}[norm], eps=region.eps, steps=100)
    theirs.loss, theirs.target_class = loss, 2
    # It takes the first step for a rise when the loss is positive.
    for part in ("dlr_loss", "dlr_loss_targeted"):
        if raw := getattr(theirs, part, None):
            monkeypatch.setattr(theirs, part, lambda *given, raw=raw: raw(*given) + 10)
    with untouched(net):
        found = search(net, x, y, region, loss=loss, start=start, steps=100, target=target)
        for i in range(len(x)):  # one by one: in L2 its targeted attack gives all images the first one's step size
            one = slice(i, i + 1)
            with monkeypatch.context() as patch:
                patch.setattr(torch, "rand", lambda shape, part=noise[one]: (part + 1) / 2)
                patch.setattr(torch, "randn", lambda shape, part=noise[one]: part)
                best, standing, _, _ = theirs.attack_single_run(x[one], y[one])
            assert standing
            torch.testing.assert_close(found.x[one], best, rtol=0, atol=1e-7)


# --- who leaves, and when --------------------------------------------------------------------------------------------


class Slope(nn.Module):
    """One pixel b; logits (0, b - edge): label 0 is lost above the edge."""

    def __init__(self, edge: float) -> None:
        super().__init__()
        self.edge = edge

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1)[:, 0] - self.edge
        return torch.stack([torch.zeros_like(score), score], 1)


def test_an_image_leaves_at_its_first_misclassified_iterate() -> None:
    model = Recorded(Slope(0.75))
    # Fooled at the start; after one step; never.
    x, start = pixels(0.7, 0.6, 0.3), pixels(0.8, 0.6, 0.3)
    found = search(model, x, torch.zeros(3, dtype=torch.int64), LinfBall(eps=0.2), start=start, steps=5)
    assert found.fooled.tolist() == [True, True, False]
    assert found.x.flatten().tolist() == pytest.approx([0.8, 0.8, 0.5])
    assert model.sizes == [3, 2, 1, 1, 1, 1]


def test_the_search_ends_when_all_are_fooled() -> None:
    model = Recorded(Slope(0.75))
    found = search(model, pixels(0.7, 0.6), torch.zeros(2, dtype=torch.int64), LinfBall(eps=0.2), steps=100)
    assert found.fooled.all()
    assert model.sizes == [2, 2]


def test_no_images() -> None:
    x = pixels()
    found = search(Slope(0.75), x, torch.zeros(0, dtype=torch.int64), LinfBall(eps=0.2))
    assert found.x.shape == x.shape
    assert found.fooled.shape == (0,)


@norms
@losses
def test_an_image_walks_the_same_way_alone_and_in_a_batch(norm: str, loss: str) -> None:
    net, region = smooth_net(), ball(norm, {"linf": 0.05, "l2": 0.15}[norm])
    x = random_images(8)
    y = net(x).argmax(1)
    target, start = (y + 1) % 5, region.random_point(x, generator=stream(0, "start"))
    together = search(net, x, y, region, loss=loss, start=start, steps=30, target=target)
    for i in range(8):
        one = slice(i, i + 1)
        alone = search(net, x[one], y[one], region, loss=loss, start=start[one], steps=30, target=target[one])
        torch.testing.assert_close(together.x[one], alone.x, rtol=0, atol=1e-6)
        assert together.fooled[i] == alone.fooled[0]
    assert 0 < int(together.fooled.sum()) < 8


@norms
@losses
def test_batch_mates_do_not_matter(norm: str, loss: str) -> None:
    """Others that fall at once, or stand to the end, leave an image its random numbers."""
    net, attack = smooth_net(), Apgd(norm=norm, eps={"linf": 0.05, "l2": 0.15}[norm], loss=loss, steps=10, targets=3)
    x = random_images(8)
    y = net(x).argmax(1)
    wrong = torch.where(torch.arange(8) % 2 == 0, y, (y + 1) % 5)
    found, beside = (attack.perturb(net, x, labels, generator=stream(0, "attack")) for labels in (y, wrong))
    torch.testing.assert_close(found[::2], beside[::2], rtol=0, atol=1e-6)
    assert not torch.allclose(found[1::2], beside[1::2], atol=1e-3)


@norms
@losses
def test_every_iterate_lies_in_the_ball(norm: str, loss: str) -> None:
    model, attack = Recorded(smooth_net()), Apgd(norm=norm, eps=0.4, loss=loss, steps=15, targets=2)
    x = random_images(3)
    # A label that wins everywhere, so that nobody leaves.
    with torch.no_grad():
        model.inner[3].bias[2] += 50.0  # type: ignore[index, operator, union-attr]
    attack.perturb(model, x, torch.full((3,), 2), generator=stream(0, "attack"))
    # Two targets share a batch.
    assert model.sizes == ([3, *[6] * 16] if loss.endswith("targeted") else [3] * 16)
    for seen in model.seen:
        assert seen.min() >= 0
        assert seen.max() <= 1
        assert attack.ball.distance(seen, x.repeat(len(seen) // 3, 1, 1, 1)).max() <= 0.4 + 1e-12


# --- targets ---------------------------------------------------------------------------------------------------------


class OneWay(nn.Module):
    """Logits of one pixel b: label 0 has 1, class 4 follows with 0.9 for ever, class 2 has 0.4 + 2 (b - 1/2)."""

    def forward(self, x: Tensor) -> Tensor:
        b = x.flatten(1)[:, 0]
        fixed = torch.tensor([1.0, -1.0, 0.0, -2.0, 0.9], dtype=x.dtype) + 0 * b.unsqueeze(1)
        return fixed + torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0], dtype=x.dtype) * (0.4 + 2 * (b - 0.5)).unsqueeze(1)


@pytest.mark.parametrize("loss", ["ce-targeted", "dlr-targeted"])
@pytest.mark.parametrize(("targets", "fooled"), [(1, False), (2, True), (9, True)])
def test_targets_are_tried_likeliest_first(loss: str, targets: int, fooled: bool) -> None:
    # Class 4 is likelier but out of reach: with it as the only target the DLR has no slope that leads to class 2.
    model, x, y = OneWay(), pixels(0.5), torch.tensor([0])
    attack = Apgd(eps=0.4, loss=loss, targets=targets, steps=10)
    found = attack.perturb(model, x, y, generator=torch.Generator().manual_seed(4))
    assert bool(model(found).argmax(1) != y) == fooled


def test_a_later_target_sees_only_those_who_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_boundary, "_TOGETHER", 0)
    model = Recorded(OneWay())
    # The first image reaches class 2, its second target; the other one, below the edge of its ball, never does.
    x, y = pixels(0.5, 0.1), torch.tensor([0, 0])
    attack = Apgd(eps=0.4, loss="dlr-targeted", targets=4, steps=3)
    attack.perturb(model, x, y, generator=torch.Generator().manual_seed(4))
    # The clean pass; target 4; target 2 until it is reached; the others.
    assert model.sizes == [2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1][: len(model.sizes)]
    assert model.sizes[-8:] == [1] * 8


def test_in_one_batch_a_target_ends_those_after_it() -> None:
    model = Recorded(OneWay())
    x, y = pixels(0.5, 0.1), torch.tensor([0, 0])
    attack = Apgd(eps=0.4, loss="dlr-targeted", targets=4, steps=3)
    attack.perturb(model, x, y, generator=torch.Generator().manual_seed(4))
    # The clean pass; two images towards four targets. When the first image falls to its second target, its third and
    # fourth end, and its first goes on: of eight searches five are left.
    assert model.sizes[:2] == [2, 8]
    assert model.sizes[-1] == 5


@norms
@pytest.mark.parametrize("loss", ["ce-targeted", "dlr-targeted"])
@pytest.mark.parametrize("steps", [1, 6, 25])
def test_targets_that_share_a_batch_find_what_they_find_one_by_one(
    norm: str, loss: str, steps: int, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x, y = copy.deepcopy(trained.model).double().requires_grad_(False), trained.x[:30].double(), trained.y[:30]
    attack = Apgd(norm=norm, eps={"linf": 0.08, "l2": 0.5}[norm], loss=loss, steps=steps, targets=3)
    found, drawn = [], []
    for size in (0, 60, 1000):  # one by one; two, once fewer stand; all
        monkeypatch.setattr(_boundary, "_TOGETHER", size)
        generator = stream(0, "attack")
        found.append(attack.perturb(net, x, y, generator=generator))
        drawn.append(torch.rand(1, generator=generator))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(found[2], found[0], rtol=0, atol=1e-9)
    assert drawn[0] == drawn[1] == drawn[2]
    fell = net(found[0]).argmax(1) != y
    assert 0 < int(fell.sum()) < 30


@pytest.mark.parametrize("classes", [2, 3])
@losses
def test_few_classes(classes: int, loss: str) -> None:
    net = smooth_net(classes)
    x = random_images(10)
    y = net(x).argmax(1)
    found = run_attack(net, Apgd(eps=0.3, loss=loss, steps=10), x, y, generator=stream(0, "attack"))
    assert (found.prediction != y).any()


# --- random outputs --------------------------------------------------------------------------------------------------


class Shaking(nn.Module):
    """A net whose first layer's input is noisy."""

    def __init__(self, inner: nn.Module, sigma: float) -> None:
        super().__init__()
        self.inner, self.sigma, self.generator = inner, sigma, stream(0, "noise")

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + self.sigma * torch.randn(x.shape, dtype=x.dtype, generator=self.generator))


def test_gradients_are_averaged_over_eot_iter_passes() -> None:
    model = Recorded(smooth_net())
    x = random_images(2)
    attack = Apgd(eps=0.0, steps=3, eot_iter=5)
    attack.perturb(model, x, model.inner(x).argmax(1), generator=stream(0, "attack"))
    assert model.sizes == [2] * (4 * 5)


def test_averaging_helps_against_a_model_with_random_outputs(trained: Any) -> None:
    x, y = trained.x[:60], trained.y[:60]
    left = []
    for passes in (1, 10):
        model = Shaking(trained.model, 0.25)
        attack = Apgd(eps=0.12, steps=10, eot_iter=passes)
        found = run_attack(model, attack, x, y, generator=stream(0, "attack")).x
        with torch.no_grad():
            left.append(sum(int((model(found).argmax(1) == y).sum()) for _ in range(20)) / (20 * 60))
    assert left[1] < left[0] - 0.05


# --- strength --------------------------------------------------------------------------------------------------------


@norms
def test_stronger_than_pgd_with_as_many_passes(norm: str, trained: Any) -> None:
    eps = 0.4 * EPS[norm]
    counts = [
        int(
            (
                run_attack(trained.model, attack, trained.x, trained.y, generator=stream(0, "a")).prediction
                == trained.y
            ).sum()
        )
        for attack in (
            Pgd(norm=norm, eps=eps, steps=60),
            Apgd(norm=norm, eps=eps, steps=20, loss="dlr-targeted", targets=3),
        )
    ]
    assert counts[1] <= counts[0]
    assert 0 < counts[1] < len(trained.y)


def test_settings_change_the_search(trained: Any) -> None:
    x, y = trained.x[:20], trained.y[:20]

    def found(**settings: Any) -> Tensor:
        attack = Apgd(eps=0.01, **{"steps": 15, **settings})
        with untouched(trained.model):
            return attack.perturb(trained.model, x, y, generator=stream(0, "attack"))

    base = found()
    assert torch.equal(found(), base)
    for change in ({"steps": 16}, {"loss": "dlr"}, {"rho": 0.1}):
        assert not torch.equal(found(**change), base), change
