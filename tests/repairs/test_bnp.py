"""BNP: the statistics of clean images, their divergence from the running ones, and what is pruned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bascule.core import rng
from bascule.core.images import Images
from bascule.core.rng import stream
from bascule.repairs.bnp import Bnp, clean_statistics, divergence_from_running
from bascule.repairs.run import run_repair


def normed() -> nn.Module:
    """Two convolutions with batch norm, whose running statistics are those of nobody's images."""
    with rng.borrowed_global_stream(0, "net"):
        net = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 3),
        ).eval()
        for norm in (net[1], net[4]):
            norm.running_mean.normal_()  # type: ignore[union-attr, operator]
            norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    return net


def pruned_by_the_authors(net: nn.Sequential, x: Tensor, k: float) -> list[list[int]]:
    """Channels that the function BNP in `defense.py` of RJ-T/NIPS2022_EP_BNP prunes of each batch norm, from what it
    says: on one batch, in eval mode, the mean and `var` of the layer's inputs; log of the ratio of the roots of the
    variances + (var + squared distance of means) / (2 running var) - 1/2, above its mean + k of its deviations."""
    found = []
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.BatchNorm2d):
                mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
                known, centre = layer.running_var, layer.running_mean
                assert known is not None
                assert centre is not None
                measure = (known.sqrt() / var.sqrt()).log() + (var + (mean - centre).pow(2)) / (2 * known) - 1 / 2
                found.append(torch.where(measure > measure.mean() + k * measure.std())[0].tolist())
            x = layer(x)
    return found


def test_it_prunes_what_the_authors_code_prunes(some: Images) -> None:
    net = normed()
    for k in (0.0, 0.5, 1.0):
        wanted = pruned_by_the_authors(net, some.batch(some.ids), k)  # type: ignore[arg-type]
        found = run_repair(net, Bnp(u=k), some, generator=stream(0, "r"))
        gains = [found.model.get_submodule(name).weight for name in ("1", "4")]
        assert [(gain == 0).nonzero().flatten().tolist() for gain in gains] == wanted
        assert found.notes["silenced"] == sum(map(len, wanted))
        for name in ("1", "4"):
            assert torch.equal(found.model.get_submodule(name).bias, net.get_submodule(name).bias)  # type: ignore[arg-type]
    assert found.notes["silenced"] < sum(map(len, pruned_by_the_authors(net, some.batch(some.ids), 0.0)))  # type: ignore[arg-type]


def test_the_divergence_is_that_of_two_normal_distributions() -> None:
    norm = nn.BatchNorm2d(4, eps=0.0)
    norm.running_mean = torch.tensor([0.0, 1.0, -1.0, 0.5])
    norm.running_var = torch.tensor([1.0, 2.0, 0.5, 3.0])
    mean, variance = torch.tensor([0.0, 0.0, 2.0, 0.5]).double(), torch.tensor([1.0, 1.0, 0.25, 1.0]).double()
    known = torch.distributions.Normal(norm.running_mean.double(), norm.running_var.double().sqrt())
    wanted = torch.distributions.kl_divergence(torch.distributions.Normal(mean, variance.sqrt()), known)
    torch.testing.assert_close(divergence_from_running(norm, mean, variance), wanted)
    assert divergence_from_running(norm, mean, variance)[0] == 0


def test_statistics_are_those_of_all_images_at_once(some: Images) -> None:
    net = normed()
    (mean, variance), _ = clean_statistics(net, [net.get_submodule("1"), net.get_submodule("4")], some)  # type: ignore[list-item]
    seen = net.get_submodule("0")(some.batch(some.ids)).double()
    torch.testing.assert_close(mean, seen.mean((0, 2, 3)))
    torch.testing.assert_close(variance, seen.var((0, 2, 3)))


def test_dead_channels_and_norms_that_no_image_reaches_are_left(some: Images) -> None:
    net = normed()
    with torch.no_grad():
        conv, norm = net.get_submodule("0"), net.get_submodule("1")
        conv.weight[0] = conv.bias[0] = 0  # type: ignore[index, operator]
        norm.running_mean[0] = norm.running_var[0] = 0  # type: ignore[index, operator]
    found = run_repair(WithSpare(net), Bnp(u=0.5), some, generator=stream(0, "r"))
    assert found.notes["silenced"] > 0
    assert found.model.get_submodule("net.1").weight[0] != 0  # type: ignore[index]
    assert (found.model.get_submodule("spare").weight == 1).all()  # type: ignore[union-attr]


class WithSpare(nn.Module):
    """A network with a batch norm that it does not use."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.spare = net, nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits
