from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bascule.attacks import square
from bascule.attacks._squares import L1Squares, L2Squares, LinfSquares, _pyramids
from bascule.attacks.losses import margin
from bascule.attacks.pgd import Pgd
from bascule.attacks.run import run_attack
from bascule.attacks.square import Square, share_of_pixels
from bascule.core.ball import L1Ball, L2Ball
from bascule.core.restore import untouched
from bascule.core.rng import stream

EPS = {"linf": 0.1, "l2": 0.8, "l1": 3.0}
norms = pytest.mark.parametrize("norm", list(EPS))


def perturbed(attack: Square, model: nn.Module, x: Tensor, y: Tensor, *, seed: int = 0) -> Tensor:
    with untouched(model):
        return attack.perturb(model, x, y, generator=stream(seed, "attack"))


def draws(count: int, width: int) -> Tensor:
    return torch.rand(count, width, generator=stream(1, "draws"))


# --- schedule --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("iteration", "halvings"),
    [
        *[(1, 0), (10, 0), (11, 1), (50, 1), (51, 2), (200, 2), (201, 3), (501, 4), (1001, 5), (2001, 6), (4001, 7)],
        *[(6000, 7), (6001, 8), (8000, 8), (8001, 9), (9999, 9)],
    ],
)
def test_the_papers_schedule(iteration: int, halvings: int) -> None:
    assert share_of_pixels(0.8, iteration, 10_000) == 0.8 / 2**halvings


def test_the_schedule_is_stretched_to_the_queries() -> None:
    # 5 of 5,000 is 10 of 10,000; 6 of 5,000 is 12.
    assert [share_of_pixels(0.4, i, 5000) for i in (5, 6, 4000, 4001)] == [0.4, 0.2, 0.4 / 2**8, 0.4 / 2**9]
    assert share_of_pixels(0.4, 99, 100) == 0.4 / 2**9


def test_without_stretching_a_short_search_ends_with_larger_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: dict[bool, list[float]] = {}
    for stretch in (True, False):
        seen = shares.setdefault(stretch, [])
        monkeypatch.setattr(square, "_play", watched(seen))
        attack = Square(eps=0.1, queries=101, stretch=stretch)
        attack.perturb(nn.Flatten(), torch.full((20, 1, 2, 2), 0.5), torch.zeros(20).long(), generator=stream(0, "a"))
    # Iterations 1 to 10, 11 to 50 and 51 to 100 of the schedule for 10,000 queries.
    assert [shares[False].count(0.8 / 2**halvings) for halvings in range(4)] == [10, 40, 50, 0]
    assert shares[True][-1] == 0.8 / 2**9


def watched(seen: list[float]) -> Any:
    """In place of the moves: nobody falls, and the shares are kept."""

    def play(model: Any, squares: Any, best: Tensor, loss: Tensor, x: Any, y: Any, draws: Tensor, share: float) -> Any:
        seen.extend([share] * len(draws))
        return best, torch.full_like(loss, -1.0), len(draws)

    return play


# --- squares in Linf -------------------------------------------------------------------------------------------------


def test_linf_starts_with_stripes() -> None:
    x = torch.tensor([0.5, 0.05, 0.95]).reshape(3, 1, 1, 1).expand(3, 2, 4, 50)
    start = LinfSquares(eps=0.1).start(x, generator=stream(0, "start"))
    assert torch.equal(start, start[:, :, :1].expand_as(start))
    for image, ends in zip(start, [(0.4, 0.6), (0.0, 0.15), (0.85, 1.0)], strict=True):
        assert sorted(image.unique().tolist()) == pytest.approx(ends)
        assert 0.2 < (image[:, 0] == image.min()).double().mean() < 0.8
    assert not torch.equal(start[0, 0] - x[0, 0], start[0, 1] - x[0, 1])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_linf_square_changes_one_square_to_an_end(channels: int) -> None:
    squares, x = LinfSquares(eps=0.1), torch.full((400, channels, 7, 6), 0.5)
    best = squares.start(x, generator=stream(0, "start"))
    # 0.1 * 42 = 4.2 pixels: side 2.
    found = squares.propose(best, x, draws(400, squares.draws(x)), share=0.1)
    changed = (found != best).any(1)
    assert changed.flatten(1).any(1).all(), "some proposal is no proposal"
    rows, columns = changed.any(2).nonzero(), changed.any(1).nonzero()
    for places, length in ((rows, 7), (columns, 6)):
        first = torch.full((400,), length).scatter_reduce(0, places[:, 0], places[:, 1], "amin")
        last = torch.zeros(400, dtype=torch.int64).scatter_reduce(0, places[:, 0], places[:, 1], "amax")
        assert (last - first).max() == 1
        # Every place is reached, the borders too.
        assert first.min() == 0
        assert last.max() == length - 1
    assert torch.allclose((found - x).abs(), torch.full_like(x, 0.1))


def test_an_idle_square_is_replaced_by_any_other_choice_of_signs() -> None:
    # The square covers the whole image and every channel is at its upper end: "all up" changes nothing.
    squares, x = LinfSquares(eps=0.1), torch.full((7000, 3, 2, 2), 0.5)
    found = squares.propose(x + 0.1, x, draws(7000, 6), share=1.0)
    signs = ((found[:, :, 0, 0] < 0.5).long() * torch.tensor([1, 2, 4])).sum(1)
    counts = torch.bincount(signs, minlength=8)
    # Each of the other seven: 1/7, standard error 0.004.
    assert counts[0] == 0
    assert (counts[1:] / 7000 - 1 / 7).abs().max() < 0.02


# --- squares in L2 ---------------------------------------------------------------------------------------------------


def test_pyramids_by_hand() -> None:
    # Side 3: nested rectangles with weights 1 and 1/4; their centre is in both.
    upper = torch.tensor([[0.25, 1.25, 0.25]]).double()
    lower = torch.tensor([[0.25, 0.25, 0.25], [0.25, 1.25, 0.25]]).double()
    shape = torch.cat([upper / upper.norm(), -lower / lower.norm()]) / math.sqrt(2)
    torch.testing.assert_close(_pyramids(3), torch.stack([shape, shape.T]))
    # Side 5, weights 1, 1/4 and 1/9.
    a, b, c = 1 + 1 / 4 + 1 / 9, 1 / 4 + 1 / 9, 1 / 9
    upper = torch.tensor([[c, b, b, b, c], [c, b, a, b, c]]).double()
    torch.testing.assert_close(_pyramids(5)[0, :2], upper / upper.norm() / math.sqrt(2))
    assert _pyramids(1).tolist() == [[[-1.0]], [[-1.0]]]
    for side in (2, 5, 12):
        assert _pyramids(side).flatten(1).norm(dim=1).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (6, 5), (32, 20), (3, 4)], ids=str)
def test_l2_starts_on_the_sphere(size: tuple[int, int]) -> None:
    x = torch.full((20, 3, *size), 0.5)
    start = L2Squares(eps=0.3).start(x, generator=stream(0, "start"))
    assert (start - x).flatten(1).norm(dim=1).tolist() == pytest.approx([0.3] * 20, rel=1e-5)
    assert len(start.flatten(1).unique(dim=0)) == 20
    assert not torch.equal(start[0, 0], start[0, 1])


def windows(places: Tensor, side: int, x: Tensor) -> Tensor:
    """Masks of squares given by two draws in [0, 1) per image, one by one."""
    mask = torch.zeros(len(x), 1, *x.shape[2:], dtype=torch.bool)
    for one, (a, b) in zip(mask, places.tolist(), strict=True):
        top, left = int(a * (x.shape[2] - side + 1)), int(b * (x.shape[3] - side + 1))
        one[0, top : top + side, left : left + side] = True
    return mask


@pytest.mark.parametrize("used", [0.3, 0.2])
def test_an_l2_square_spends_what_two_windows_free(used: float) -> None:
    squares, x = L2Squares(eps=0.3), torch.full((300, 2, 12, 10), 0.5).double()
    start = L2Squares(eps=used).start(x, generator=stream(0, "start"))
    chosen = draws(300, squares.draws(x))
    # 0.1 * 120 = 12 pixels: side 3.
    found = squares.propose(start, x, chosen, share=0.1)
    old, new = start - x, found - x
    assert new.flatten(1).norm(dim=1).tolist() == pytest.approx([0.3] * 300)
    changed, emptied = windows(chosen[:, 0:2], 3, x), windows(chosen[:, 2:4], 3, x)
    torch.testing.assert_close(new * ~(changed | emptied), old * ~(changed | emptied))
    assert (new * (emptied & ~changed) == 0).all()
    # Per channel, as much as both windows held before, and half of what was not used at all.
    freed = (old * (changed | emptied)).square().sum((2, 3))
    torch.testing.assert_close((new * changed).square().sum((2, 3)), freed + (0.3**2 - used**2) / 2)
    # The new shape: the pyramids added to the old shape at equal weight, to one sign or the other, turned or not.
    seen = set()
    for image in range(40):
        where = changed[image, 0]
        held = old[image, 0][where] / old[image, 0][where].norm()
        reached = new[image, 0][where] / new[image, 0][where].norm()
        options = [held + sign * shape.flatten() for sign in (1, -1) for shape in _pyramids(3)]
        errors = [(reached - option / option.norm()).norm().item() for option in options]
        assert min(errors) < 1e-9
        seen.add(errors.index(min(errors)))
    assert seen == {0, 1, 2, 3}


def test_length_lost_by_clipping_is_spent_again() -> None:
    squares, x = L2Squares(eps=1.0), torch.zeros(200, 1, 8, 8).double()
    best = squares.start(x, generator=stream(0, "start"))
    lengths = [best.flatten(1).norm(dim=1)]
    for i in range(10):
        best = squares.propose(best, x, torch.rand(200, 6, generator=stream(i, "more")), share=0.2)
        assert L2Ball(eps=1.0).distance(best, x).max() <= 1 + 1e-9
        lengths.append(best.flatten(1).norm(dim=1))
    # Half of the first tiles point below 0 and are lost.
    assert lengths[0].mean() < 0.8
    assert lengths[-1].mean() > 0.9


# --- squares in L1 ----------------------------------------------------------------------------------------------------
# Against what autoattack/square.py of the authors' code says for L1 (read in pyautoattack 0.2.0): weights 1 / k ** 4,
# lengths in L1, a window's channel is given what is unused plus as many times its own as there are channels, and the
# whole is projected.

PYRAMIDS = torch.tensor([[1 / 38, 17 / 38, 1 / 38], [-1 / 44, -1 / 44, -1 / 44], [-1 / 44, -17 / 44, -1 / 44]]).double()
"""Side 3: nested rectangles with weights 1 and 1/16, halves of equal length (19 and 22 sixteenths), length 1."""


def projected(x: Tensor, delta: Tensor, eps: float) -> Tensor:
    """What of a perturbation is left in the ball and [0, 1]: all entries shortened by one length, found by halving."""
    low, high = (-x).double(), (1 - x).double()

    def shortened(cut: float) -> Tensor:
        return (delta.sign() * (delta.abs() - cut).clamp_min(0)).clamp(low, high)

    least, most = 0.0, float(delta.abs().max())
    if shortened(0.0).abs().sum() <= eps:
        return shortened(0.0)
    for _ in range(60):
        cut = (least + most) / 2
        least, most = (cut, most) if shortened(cut).abs().sum() > eps else (least, cut)
    return shortened(most)


def test_pyramids_in_l1_by_hand() -> None:
    shapes = _pyramids(3, falloff=4, power=1)
    torch.testing.assert_close(shapes, torch.stack([PYRAMIDS, PYRAMIDS.T]))
    assert _pyramids(5, falloff=4, power=1).abs().sum((1, 2)).tolist() == pytest.approx([1, 1])


def one_window(eps: float, x: Tensor, before: Tensor, *, turned: bool, up: list[bool]) -> Tensor:
    """The new perturbation where both windows are the whole image of 3 x 3."""
    chosen = torch.tensor([[0.5] * 4 + [0.2 if turned else 0.8] + [0.2 if sign else 0.8 for sign in up]]).double()
    return L1Squares(eps=eps).propose(x + before, x, chosen, share=1.0) - x


def test_an_l1_square_by_hand() -> None:
    x, before = torch.full((1, 1, 3, 3), 0.5).double(), torch.zeros(1, 1, 3, 3).double()
    before[0, 0, 0, 1] = 0.4
    # 0.2 unused and 0.4 freed; old and new shape have length 1 each and agree in sign where both are.
    found = one_window(0.6, x, before, turned=False, up=[True])
    torch.testing.assert_close(found, 0.3 * (PYRAMIDS + before[0, 0] / 0.4)[None, None])
    # Turned and to the other sign: -(1/44) is at the old entry, so that 1/22 cancels out.
    found = one_window(0.6, x, before, turned=True, up=[False])
    shape = before[0, 0] / 0.4 - PYRAMIDS.T
    torch.testing.assert_close(found, 0.6 * (shape / shape.abs().sum())[None, None])
    # A border in the way: 55/76 do not fit, and the rest stays as it is.
    found = one_window(1.0, x, before, turned=False, up=[True])
    assert found[0, 0, 0, 1] == 0.5
    torch.testing.assert_close(found[0, 0, 1:], 0.5 * PYRAMIDS[1:])


def test_an_l1_square_of_several_channels_overspends_and_is_projected() -> None:
    x, before = torch.full((1, 2, 3, 3), 0.5).double(), torch.zeros(1, 2, 3, 3).double()
    before[0, 0, 0, 1] = 0.4
    found = one_window(0.6, x, before, turned=False, up=[True, False])
    # The first channel gets 0.2 + 2 * 0.4, the second 0.2; 1.2 in all, of which 0.6 may stay.
    spent = torch.stack([0.5 * (PYRAMIDS + before[0, 0] / 0.4), -0.2 * PYRAMIDS])
    torch.testing.assert_close(found[0], projected(x[0], spent, 0.6))
    assert found.abs().sum().item() == pytest.approx(0.6)


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (6, 5), (32, 20), (3, 4)], ids=str)
@pytest.mark.parametrize("eps", [0.5, 5.0, 500.0])
def test_l1_starts_in_the_ball_and_stays_there(size: tuple[int, int], eps: float) -> None:
    x = torch.rand(20, 3, *size, generator=stream(0, "images"))
    squares = L1Squares(eps=eps)
    best = squares.start(x, generator=stream(0, "start"))
    if eps == 0.5:
        assert L1Ball(eps=eps).distance(best, x).tolist() == pytest.approx([eps] * 20, rel=1e-3)
    for i in range(10):
        assert best.min() >= 0
        assert best.max() <= 1
        assert L1Ball(eps=eps).distance(best, x).max() <= eps * (1 + 1e-5)
        assert len(best.flatten(1).unique(dim=0)) == 20
        best = squares.propose(best, x, torch.rand(20, 8, generator=stream(i, "more")), share=0.2)


# --- the search ------------------------------------------------------------------------------------------------------


class Counting(nn.Module):
    """A model that notes how many images it is asked about."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return self.inner(x)


@norms
def test_as_many_queries_as_asked_for(norm: str, trained: Any) -> None:
    for queries in (1, 2, 7):
        model = Counting(trained.model)
        perturbed(Square(norm=norm, eps=1e-4, queries=queries), model, trained.x[:5], trained.y[:5])
        assert model.sizes == [5] * queries


@norms
def test_images_that_fell_are_asked_about_no_more(norm: str, trained: Any) -> None:
    model, x, y = Counting(trained.model), trained.x[:60], trained.y[:60]
    found = perturbed(Square(norm=norm, eps=EPS[norm], queries=150), model, x, y)
    with torch.no_grad():
        standing = int((trained.model(found).argmax(1) == y).sum())
    assert 0 < standing < 50
    assert model.sizes[0] == 60
    assert model.sizes == sorted(model.sizes, reverse=True)
    assert model.sizes[-1] >= standing


@norms
@pytest.mark.parametrize("count", [1, 3, 4])
def test_squares_asked_about_at_once_are_those_asked_about_one_by_one(
    norm: str, count: int, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, y = copy.deepcopy(trained.model).double(), trained.x[:count].double(), trained.y[:count]
    for eps, queries in ((EPS[norm] / 4, 130), (EPS[norm] * 2, 130), (EPS[norm], 3)):  # none falls; all fall; the end
        found, drawn, sizes = [], [], []
        for most in (1, 16):
            monkeypatch.setattr(square, "_TOGETHER", most)
            generator, counting = stream(0, "attack"), Counting(model)
            with untouched(counting):
                attack = Square(norm=norm, eps=eps, queries=queries)
                found.append(attack.perturb(counting, x, y, generator=generator))
            drawn.append(torch.rand(1, generator=generator))
            sizes.append(len(counting.sizes))
        torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-9)
        assert drawn[0] == drawn[1]
        assert queries == 3 or sizes[1] < sizes[0]


@norms
def test_every_margin_rises_or_stays(norm: str, trained: Any) -> None:
    few, many = (
        perturbed(Square(norm=norm, eps=EPS[norm] / 2, queries=queries), trained.model, trained.x[:60], trained.y[:60])
        for queries in (1, 200)
    )
    with torch.no_grad():
        before, after = (margin(trained.model(x), trained.y[:60]) for x in (few, many))
    assert (after >= before).all()
    assert (after > before).double().mean() > 0.9


@norms
def test_the_fate_of_other_images_changes_nothing(norm: str, trained: Any) -> None:
    attack, x, y = Square(norm=norm, eps=EPS[norm] / 4, queries=50), trained.x[:6], trained.y[:6]
    others_fell = y.clone()
    others_fell[:4] = (y[:4] + 1) % 10
    first = perturbed(attack, trained.model, x, y)
    second = perturbed(attack, trained.model, x, others_fell)
    torch.testing.assert_close(first[4:], second[4:], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("norm", "dual", "reach"), [("linf", 1, 1.05), ("l2", 2, 2), ("l1", torch.inf, 4)])
def test_a_linear_model_falls_where_it_must(norm: str, dual: int, reach: float) -> None:
    # Score w.x - w.0.5 - 1 at the grey image: the boundary is 1 / ||w|| away, in the dual norm.
    w = torch.randn(64, generator=stream(0, "weights")).double()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).double().requires_grad_(False)
    model[1].weight.copy_(torch.stack([torch.zeros_like(w), w]))
    model[1].bias.copy_(torch.stack([torch.zeros_like(w.sum()), -0.5 * w.sum() - 1]))
    x, y = torch.full((20, 1, 8, 8), 0.5).double(), torch.zeros(20, dtype=torch.int64)
    for factor, share in ((0.99, 0.0), (reach, 1.0)):
        attack = Square(norm=norm, eps=factor / w.norm(p=dual).item(), queries=800)
        found = run_attack(model, attack, x, y, generator=stream(0, "attack"))
        assert (found.prediction == 1).double().mean() == share


class Rounded(nn.Module):
    """Looks at the image in 20 grey levels: its gradient is zero everywhere."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner((x * 19).round() / 19)


@norms
def test_masked_gradients_do_not_stop_it(norm: str, trained: Any) -> None:
    model, x = Rounded(trained.model), trained.x[:80]
    with torch.no_grad():
        y = model(x).argmax(1)
    fallen = {
        attack: (run_attack(model, attack, x, y, generator=stream(0, "a")).prediction != y).double().mean()
        for attack in (Pgd(norm=norm, eps=EPS[norm], steps=20), Square(norm=norm, eps=EPS[norm], queries=100))
    }
    pgd, square = fallen.values()
    assert pgd < 0.2
    assert square > pgd + 0.2
