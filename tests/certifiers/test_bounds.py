"""Bounds by hand on nets small enough, and the law they must never break: no point of the ball lies outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.certifiers.bounds import ROUNDING, Bounds, bound, bound_for_training
from bascule.core.ball import ball
from bascule.core.restore import frozen
from bascule.core.rng import borrowed_global_stream, stream

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

Draw = Callable[..., tuple[Tensor, Tensor]]

EPS = {"linf": (0.0, 0.004, 0.02, 0.1, 0.4), "l2": (0.0, 0.02, 0.1, 0.5, 2.0)}
norms = pytest.mark.parametrize("norm", list(EPS))


def net_of(*layers: tuple[list[list[float]], list[float]], slope: float | None = 0.0) -> nn.Module:
    """Linear layers with these weights and biases, an activation between them."""
    parts: list[nn.Module] = [nn.Flatten()]
    for weight, bias in layers:
        linear = nn.Linear(len(weight[0]), len(weight))
        linear.weight.data, linear.bias.data = torch.tensor(weight), torch.tensor(bias)
        parts += [linear, nn.ReLU() if slope == 0 else nn.LeakyReLU(slope)]
    return nn.Sequential(*parts[:-1])


def image(*pixels: float) -> Tensor:
    return torch.tensor(pixels).reshape(1, 1, 1, -1)


def margins(net: nn.Module, x: Tensor, label: int, eps: float, **settings: Any) -> tuple[list[float], list[float]]:
    """Interval and linear bounds of the margins of one image."""
    found, y = bound(net, x, eps=eps, **settings), torch.tensor([label])
    with torch.no_grad():
        return found.interval_margins(y)[0].tolist(), found.crown_margins(y)[0].tolist()


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_a_linear_net_is_bounded_exactly() -> None:
    # Margin of 0 over 1: (2, -1) . x + 0.5, at (0.5, 0.4): 1.1; the worst of the ball of radius 0.1 loses 0.3.
    net = net_of(([[1.0, 0.0], [-1.0, 1.0]], [0.5, 0.0]))
    interval, linear = margins(net, image(0.5, 0.4), 0, 0.1)
    assert interval == pytest.approx([0.0, 0.8])
    assert linear == pytest.approx([0.0, 0.8])


def test_the_ball_is_cut_to_the_range_of_images() -> None:
    # Around (0.95, 0.02) with radius 0.1: first pixel in [0.85, 1], second in [0, 0.12]. 2 * 0.85 - 0.12 + 0.5 = 2.08
    net = net_of(([[1.0, 0.0], [-1.0, 1.0]], [0.5, 0.0]))
    for found in margins(net, image(0.95, 0.02), 0, 0.1):
        assert found == pytest.approx([0.0, 2.08])


def test_an_l2_ball() -> None:
    # 1.1 - 0.1 * |(2, -1)| = 1.1 - 0.1 * sqrt(5): all of the net is affine, so intervals need no box around the ball.
    net = net_of(([[1.0, 0.0], [-1.0, 1.0]], [0.5, 0.0]))
    for found in margins(net, image(0.5, 0.4), 0, 0.1, norm="l2"):
        assert found == pytest.approx([0.0, 1.1 - 0.1 * 5**0.5])


def test_an_l2_ball_before_an_activation_by_hand() -> None:
    # Hidden: 3 x1 - 4 x2 + 0.4 = 0.3 at (0.5, 0.4), whose weights have the length 5, so within 0.04 it is 0.1 to 0.5;
    # the box around the ball gives 7 * 0.04 to each side. The logits are that unit and 0.1.
    net = net_of(([[3.0, -4.0]], [0.4]), ([[1.0], [0.0]], [0.0, 0.1]))
    found = bound(net, image(0.5, 0.4), norm="l2", eps=0.04)
    assert found.answers.lower.tolist() == [pytest.approx([0.1, 0.1])]
    assert found.answers.upper.tolist() == [pytest.approx([0.5, 0.1])]
    assert bound(net, image(0.5, 0.4), norm="linf", eps=0.04).answers.lower.tolist() == [pytest.approx([0.02, 0.1])]


def before_activation(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.LeakyReLU(0.5))


STARTS = {
    "linear": lambda: before_activation(nn.Flatten(), nn.Linear(72, 7)),
    "two-linear": lambda: before_activation(nn.Flatten(), nn.Linear(72, 9), nn.BatchNorm1d(9), nn.Linear(9, 5)),
    "conv": lambda: before_activation(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.Flatten()),
    "conv-conv": lambda: before_activation(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 2), nn.Flatten()),
    "grouped": lambda: before_activation(nn.Conv2d(2, 4, (3, 2), dilation=2, groups=2), nn.Flatten()),
    "avg-pool": lambda: before_activation(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(18, 6)),
    "pool-conv": lambda: before_activation(nn.AvgPool2d(3, stride=1, padding=1), nn.Conv2d(2, 3, 3), nn.Flatten()),
    "reflect": lambda: before_activation(nn.ReflectionPad2d(2), nn.Conv2d(2, 3, 3), nn.Flatten()),
    "replicate": lambda: before_activation(nn.ReplicationPad2d(1), nn.Flatten(), nn.Linear(128, 3)),
    "cropped": lambda: before_activation(nn.ZeroPad2d((-1, 2, 1, 0)), nn.Conv2d(2, 3, 3), nn.Flatten()),
}  # fmt: skip
"""What may stand before the first activation, for images of 2 x 6 x 6."""


@pytest.mark.parametrize("start", list(STARTS))
@pytest.mark.parametrize("pulled", [True, False], ids=["small", "large"])
def test_what_is_affine_in_the_image_is_bounded_by_the_lengths_of_its_weights(
    start: str, pulled: bool, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lengths are those of the rows of the Jacobian, which autograd gives; `large` forgoes working them out."""
    with borrowed_global_stream(1, start):
        net = STARTS[start]().double().eval()
    if not pulled:
        monkeypatch.setattr("bascule.certifiers.bounds._PULLED", 0)
    x, eps = draw(4)[0], 0.05
    x = 0.2 + 0.6 * x  # the ball is not cut
    found = bound(net, x, norm="l2", eps=eps).answers
    value = net[:-1](x)
    jacobian = torch.autograd.functional.jacobian(net[:-1], x[:1]).flatten(3).reshape(value.shape[1], -1)
    exact = F.leaky_relu(torch.stack([value - eps * jacobian.norm(dim=1), value + eps * jacobian.norm(dim=1)]), 0.5)
    box = bound(net, x, norm="linf", eps=eps).answers
    assert (found.lower <= exact[0] + 1e-12).all()
    assert (found.upper >= exact[1] - 1e-12).all()
    assert (found.lower >= box.lower - 1e-12).all()
    assert (found.upper <= box.upper + 1e-12).all()
    if pulled or start in ("linear", "conv", "grouped", "cropped"):
        torch.testing.assert_close(found.lower, exact[0])
        torch.testing.assert_close(found.upper, exact[1])


TWO_LAYERS = (([[1.0, 1.0], [1.0, -1.0]], [-0.5, 0.0]), ([[1.0, 1.0], [-1.0, 2.0]], [0.3, 0.0]))
"""Hidden: a = x1 + x2 - 0.5, b = x1 - x2; logits r(a) + r(b) + 0.3 and 2 r(b) - r(a).

The margin of label 0 is 2 r(a) - r(b) + 0.3.
"""


def test_two_layers_by_hand() -> None:
    # Around (0.5, 0.4), radius 0.1: a in [0.2, 0.6], b in [-0.1, 0.3].
    # Intervals: 2 * 0.2 - 0.3 + 0.3 = 0.4. Without merging the last layer: logit 0 from 0.2 + 0 + 0.3 = 0.5, logit 1 up
    # to 2 * 0.3 - 0.2 = 0.4: 0.1.
    # Linear: r(b) <= 0.75 (b + 0.1), so 2 (x1 + x2 - 0.5) - 0.75 (x1 - x2 + 0.1) + 0.3 = 1.25 x1 + 2.75 x2 - 0.775,
    # least at (0.4, 0.3): 0.5 + 0.825 - 0.775 = 0.55.
    net = net_of(*TWO_LAYERS)
    interval, linear = margins(net, image(0.5, 0.4), 0, 0.1)
    assert interval == pytest.approx([0.0, 0.4])
    assert linear == pytest.approx([0.0, 0.55])
    box = bound(net, image(0.5, 0.4), eps=0.1).answers
    assert box.lower[0].tolist() == pytest.approx([0.5, -0.6])
    assert box.upper[0].tolist() == pytest.approx([1.2, 0.4])


def test_two_layers_seen_from_the_other_label() -> None:
    # Margin of 1: r(b) - 2 r(a) - 0.3. Intervals: 0 - 1.2 - 0.3 = -1.5.
    # Linear: 0.3 > 0.1, so r(b) >= b: x1 - x2 - 2 (x1 + x2 - 0.5) - 0.3 = -x1 - 3 x2 + 0.7, least at (0.6, 0.5): -1.4.
    interval, linear = margins(net_of(*TWO_LAYERS), image(0.5, 0.4), 1, 0.1)
    assert interval == pytest.approx([-1.5, 0.0])
    assert linear == pytest.approx([-1.4, 0.0])


def test_two_layers_with_a_leak() -> None:
    # Slope 0.5: b in [-0.1, 0.3] goes to [-0.05, 0.3]; chord slope (0.3 + 0.05) / 0.4 = 0.875, height 0.3 * 0.125.
    # Intervals: 2 * 0.2 - 0.3 + 0.3 = 0.4. Linear: 2 a - 0.875 b - 0.0375 + 0.3 = 1.125 x1 + 2.875 x2 - 0.7375, least
    # at (0.4, 0.3): 0.575.
    interval, linear = margins(net_of(*TWO_LAYERS, slope=0.5), image(0.5, 0.4), 0, 0.1)
    assert interval == pytest.approx([0.0, 0.4])
    assert linear == pytest.approx([0.0, 0.575])


def test_below_a_unit_that_is_mostly_off_the_line_is_flat() -> None:
    # One unit r(x - 0.55) with x in [0.4, 0.6]: from below 0, from above 0.25 (x - 0.4).
    net = net_of(([[1.0]], [-0.55]), ([[1.0], [0.0]], [0.0, 0.0]))
    assert margins(net, image(0.5), 0, 0.1)[1] == pytest.approx([0.0, 0.0], abs=1e-7)
    assert margins(net, image(0.5), 1, 0.1)[1] == pytest.approx([-0.05, 0.0], abs=1e-7)


def test_max_pooling_by_hand() -> None:
    # Pixels (0.5, 0.4, 0.9) with radius 0.1; windows of three. The third is sure to be the largest: the margin over
    # three times the third pixel, max - 3 x3 = -2 x3 >= -2, exactly; intervals see 0.8 - 3 = -2.2.
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            top = F.max_pool2d(x, (1, 3)).flatten(1)
            return torch.cat([top, 3 * x[:, 0, :, 2]], 1)

    interval, linear = margins(Net(), image(0.5, 0.4, 0.9), 0, 0.1)
    assert interval == pytest.approx([0.0, -2.2])
    assert linear == pytest.approx([0.0, -2.0])
    # At (0.5, 0.4, 0.55) it is not: from above the constant 0.65. 3 x3 - max >= 3 * 0.45 - 0.65 = 0.7.
    assert margins(Net(), image(0.5, 0.4, 0.55), 1, 0.1)[1] == pytest.approx([0.7, 0.0])


def test_inner_linear_bounds_are_tighter() -> None:
    # Two units that are each other's negative, added up behind a ReLU: always 1. Intervals of the second layer lose it.
    net = net_of(
        ([[1.0], [-1.0]], [1.0, 1.0]), ([[1.0, 1.0]], [-1.5]), ([[1.0], [-1.0]], [0.0, 0.9])
    )  # r(x + 1) + r(1 - x) - 1.5 = 0.5
    x, y = image(0.5), torch.tensor([0])
    with torch.no_grad():
        found = [bound(net, x, eps=0.3, intermediate=how).interval_margins(y)[0, 1] for how in ("interval", "crown")]
    # By intervals r(x + 1) in [1.2, 1.8] and r(1 - x) in [0.2, 0.8], so the sum is above -0.1: off.
    assert [float(margin) for margin in found] == pytest.approx([-0.9, 2 * 0.5 - 0.9])


def test_a_difference_of_branches() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)
            return torch.relu(x[:, :1] - torch.relu(2 * x[:, 1:]) + torch.tensor([3.0, 0.0]))

    # x1 - 2 x2 + 3 at (0.5, 0.4) with radius 0.1: from 0.4 - 1 + 3 to 0.6 - 0.6 + 3.
    box = bound(Net(), image(0.5, 0.4), eps=0.1).answers
    assert box.lower[0].tolist() == pytest.approx([2.4, 0.0])
    assert box.upper[0].tolist() == pytest.approx([3.0, 0.0])


@pytest.mark.parametrize("linear", [False, True], ids=["interval", "linear"])
def test_a_margin_within_rounding_is_not_taken_for_positive(linear: bool) -> None:
    # The terms of the sum are 0.5 and 0.5: 3e-5 is allowed for rounding.
    for lead, sure in ((1e-6, False), (2e-5, False), (5e-5, True)):
        net = net_of(([[1.0], [1.0]], [lead, 0.0]), ([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]))
        found = bound(net, image(0.5), eps=0.0).sure(torch.tensor([0]), linear=linear)
        assert found.tolist() == [[False, sure]]


# --- laws ------------------------------------------------------------------------------------------------------------


def attacks(net: nn.Module, x: Tensor, y: Tensor, norm: Any, eps: float) -> Iterator[Tensor]:
    """Points of the ball: drawn, at corners, and searched for where a margin is small."""
    region, draws = ball(norm, eps), stream(0, "points")
    for _ in range(3):
        yield region.random_point(x, generator=draws)
        yield region.project(x + eps * torch.randn(x.shape, generator=draws, dtype=x.dtype).sign(), x)
    for other in range(4):
        current = region.random_point(x, generator=draws)
        for _ in range(5):
            current = current.detach().requires_grad_(True)
            logits = net(current)
            gap = logits[:, other] - logits.gather(1, y.unsqueeze(1)).squeeze(1)
            (gradient,) = torch.autograd.grad(gap.sum(), current)
            current = region.project(region.step(current.detach(), gradient, eps / 2), x).detach()
        yield current


def margins_at(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    logits = net(x)
    return logits.gather(1, y.unsqueeze(1)) - logits


@norms
@pytest.mark.parametrize("intermediate", ["interval", "crown"])
def test_no_point_of_the_ball_breaks_a_bound(
    name: str, net: nn.Module, norm: Any, intermediate: Any, draw: Draw
) -> None:
    # 22 nets x 2 norms x 5 radii x 10 images, twice.
    x, y = draw(10, seed=len(norm + intermediate))
    for eps in EPS[norm]:
        with torch.no_grad():
            found = bound(net, x, norm=norm, eps=eps, intermediate=intermediate)
            interval, linear = found.interval_margins(y), found.crown_margins(y)
        with frozen(net):
            for point in attacks(net, x, y, norm, eps):
                with torch.no_grad():
                    logits, gaps = net(point), margins_at(net, point, y)
                assert (logits >= found.answers.lower - 1e-9).all()
                assert (logits <= found.answers.upper + 1e-9).all()
                assert (gaps >= interval - 1e-9).all()
                assert (gaps >= linear - 1e-9).all()


@norms
@pytest.mark.parametrize("intermediate", ["interval", "crown"])
def test_at_radius_zero_bounds_are_the_margins(net: nn.Module, norm: Any, intermediate: Any, draw: Draw) -> None:
    x, y = draw(6)
    found = bound(net, x, norm=norm, eps=0.0, nominal=True, intermediate=intermediate)
    clean = margins_at(net, x, y)
    for bounded in (found.interval_margins(y), found.crown_margins(y)):
        torch.testing.assert_close(bounded, clean, rtol=1e-9, atol=1e-9)
    for logits in (found.logits, found.answers.lower, found.answers.upper):
        torch.testing.assert_close(logits, net(x), rtol=1e-9, atol=1e-9)


@norms
def test_bounds_fall_with_the_radius(net: nn.Module, norm: Any, draw: Draw) -> None:
    x, y = draw(6)
    found = [bound(net, x, norm=norm, eps=eps).interval_margins(y) for eps in EPS[norm]]
    assert all((small >= large - 1e-9).all() for small, large in pairwise(found))
    assert (found[0] > found[-1]).any()


def plain_margins(found: Bounds, y: Tensor) -> Tensor:
    """Without merging the last layer: lowest logit of the label minus highest of the other."""
    lower, upper = found.answers
    gaps = lower.gather(1, y.unsqueeze(1)) - upper
    return gaps.scatter(1, y.unsqueeze(1), 0)


def test_merging_the_last_layer_is_never_looser(name: str, net: nn.Module, draw: Draw) -> None:
    x, y = draw(20)
    for eps in EPS["linf"]:
        found = bound(net, x, eps=eps)
        merged, plain = found.interval_margins(y), plain_margins(found, y)
        assert (merged >= plain - 1e-9).all()
        if eps and name != "ends-in-relu":
            assert merged.mean() > plain.mean()


@torch.no_grad()
def test_linear_bounds_are_tighter_on_the_whole(nets: Any, draw: Draw) -> None:
    x, y = draw(20)
    for name in ("mlp", "conv", "residual", "batch-norm", "functional"):
        for eps in (0.004, 0.02, 0.1):
            found, inner = (bound(nets(name), x, eps=eps, intermediate=how) for how in ("interval", "crown"))
            parts = (found.interval_margins(y), found.crown_margins(y), inner.crown_margins(y))
            means = [part.mean().item() for part in parts]
            assert means == sorted(means), (name, eps)


@pytest.mark.parametrize("linear", [False, True], ids=["interval", "linear"])
@pytest.mark.parametrize("intermediate", ["interval", "crown"])
@torch.no_grad()
def test_rounding_stays_far_below_what_is_allowed_for(
    net: nn.Module, intermediate: Any, linear: bool, draw: Draw
) -> None:
    """In float32 bounds are off by less than a tenth of the allowance, and so are the model's own margins."""
    kind = "crown_margins" if linear else "interval_margins"
    x, y = draw(20)
    x = x.float()
    for eps in (0.0, 0.004, 0.1):
        exact = getattr(bound(net.double(), x.double(), eps=eps, intermediate=intermediate), kind)(y)
        clean = margins_at(net, x.double(), y)
        found = bound(net.float(), x, eps=eps, intermediate=intermediate)
        rounded = getattr(found, kind)(y)
        sizes = [
            found._size(found._pull(found.answer.index, found._differences(y), through_all=through))
            for through in {False, linear}
        ]
        allowed = torch.finfo(x.dtype).eps * ROUNDING * torch.stack(sizes).amax(0)
        assert ((rounded - exact).abs() <= allowed / 10).all()
        assert ((margins_at(net, x, y) - clean).abs() <= allowed / 10).all()
        sure = found.sure(y, linear=linear)
        assert sure[rounded > allowed].all()
        if eps == 0:
            assert sure.any()


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["interval_margins", "crown_margins"])
def test_gradients_are_those_of_the_bound(nets: Any, kind: str, draw: Draw) -> None:
    """Against differences, in float64."""
    x, y = draw(3)
    for name in ("mlp", "residual", "max-pool", "functional"):
        net = nets(name)
        parameters = [p for p in net.parameters() if p.requires_grad]

        def value(net: nn.Module = net) -> Tensor:
            return getattr(bound(net, x, eps=0.02), kind)(y).square().sum()

        gradients = torch.autograd.grad(value(), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            assert gradient is not None
            direction = torch.randn(parameter.shape, generator=stream(0, "d"), dtype=parameter.dtype)
            moved = []
            for step in (1e-7, -1e-7):
                parameter.data.add_(direction, alpha=step)
                moved.append(float(value().detach()))
                parameter.data.add_(direction, alpha=-step)
            slope = (moved[0] - moved[1]) / 2e-7
            assert float((gradient * direction).sum()) == pytest.approx(
                slope, rel=1e-4, abs=1e-4 * abs(moved[0]) + 1e-6
            )


def test_in_train_mode_the_images_own_statistics_are_used(nets: Any, draw: Draw) -> None:
    x, y = draw(12)
    ours, twin = nets("residual").train(), nets("residual").train()
    found = bound_for_training(ours, x, eps=0.0)
    torch.testing.assert_close(found.logits, twin(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.answers.lower, found.logits, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        found.interval_margins(y), margins_at(nets("residual").train(), x, y), rtol=1e-9, atol=1e-9
    )
    for key, value in twin.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)  # running statistics moved once
    # With a radius, the network that the bounds are about is the one with these statistics held fixed.
    bound_for_training(ours, x, eps=0.01)
    assert ours.norms[0].num_batches_tracked == 2


def test_in_train_mode_images_and_bounds_share_the_dropped_units(nets: Any, draw: Draw) -> None:
    x, y = draw(12)
    net = nets("batch-norm-1d").train()
    with borrowed_global_stream(0, "dropout"):
        found = bound_for_training(net, x, eps=0.0)
    with borrowed_global_stream(0, "dropout"):
        logits = net(x)
    torch.testing.assert_close(found.logits, logits, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.answers.upper, logits, rtol=1e-9, atol=1e-9)
    assert found.interval_margins(y).isfinite().all()


def test_the_operations_are_looked_up_anew_when_modules_change(draw: Draw) -> None:
    x = draw(3)[0].float()
    net = nn.Sequential(nn.Flatten(), nn.Linear(72, 4), nn.ReLU())
    for change in (lambda: None, lambda: net.append(nn.Linear(4, 4)), lambda: net.pop(2), lambda: net[1].eval()):
        change()
        torch.testing.assert_close(bound_for_training(net, x, eps=0.0).logits, net(x))
