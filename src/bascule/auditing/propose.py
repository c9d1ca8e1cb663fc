"""What an audit asks of a model: proposed from its data, its record and the time that it takes, each with a reason."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from bascule.attacks.contract import Attack, Evasion
from bascule.auditing.cost import Cost, measure_cost
from bascule.auditing.open import AuditedModel
from bascule.certifiers.run import run_certifier
from bascule.core import rng
from bascule.core.catalog import build, names
from bascule.core.errors import RequestError
from bascule.core.images import Images
from bascule.core.restore import evaluating
from bascule.core.text import count
from bascule.scanners.run import LEAST_CLASSES

AS_IT_IS = "as it is"
"""Row of the model without any defence, as everywhere in an audit's study."""
_LIGHT_FILTERS = ("spectral-signatures", "activation-clustering", "two-component")
_EARLY_LOSS = 25
"""Forward passes of an image that early-loss takes: it trains a model of its own."""
_INVERSIONS = ("neural-cleanse", "universal-perturbation", "feature-inversion")
"""Scanners that search a trigger for each class, in the order in which they are given up."""
_PER_LOOK = 320
"""Images that such a search takes through the model and back for each class and look."""
_LOOKS = 100
"""Looks by default."""
_SHARE_OF_LOOKS = 0.45
"""Of them, what a search takes until every class is decided, as seen on small networks."""
_LEAST_LOOKS = 30
"""With fewer the masks have not become small yet."""
_MM_BD = 3000
"""Images that mm-bd takes through the model and back for each class."""
_TRIED = 16
"""Images on which bounds are tried before they are proposed."""
_PGD = {"name": "pgd", "steps": 20, "restarts": 2}


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked of an audit beside its model and data."""

    full: bool = False
    """The strongest attacks, every scanner and filter with its own settings, whatever the time."""
    minutes: float = 6.0
    """What the light set may take, as it is measured first."""
    images: int | None = None
    """Test images; by default as many as fit."""
    repairs: tuple[Mapping[str, Any], ...] = ()
    trained_on_it: bool = True
    """Whether the training images of the data are taken for those that the model was trained on."""


@dataclass
class Proposal:
    """What to ask of the model, and why."""

    data: dict[str, Any] = field(default_factory=dict)
    """Settings of the data beside what they are."""
    base: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    """A sentence each."""
    left_out: list[str] = field(default_factory=list)
    """What is not looked at, and why; a sentence each."""


def propose(audited: AuditedModel, wish: Wish) -> Proposal:
    """The study of an audit, but for what only its scanners can tell."""
    cost, proposal = measure_cost(audited.model, audited.test), Proposal()
    seconds = 60 * wish.minutes
    said = f"a pass and its gradient take {1000 * cost.both:.3g} ms an image here"
    if wish.full:
        proposal.reasons.append(f"The full set, which may take hours: {said}.")
    else:
        proposal.reasons.append(f"The light set, meant to end in about {_minutes(wish.minutes)}: {said}.")
    _images(proposal, audited, wish, cost, 0.25 * seconds)
    _attacks(proposal, audited, wish, cost)
    _bounds(proposal, audited)
    _explanations(proposal, audited, wish, cost, 0.03 * seconds)
    _scanners(proposal, audited, wish, cost, 0.6 * seconds)
    _filters(proposal, audited, wish, cost, 0.1 * seconds)
    _always_left_out(proposal, wish)
    return proposal


# --- both sets of images ---------------------------------------------------------------------------------------------


def _images(proposal: Proposal, audited: AuditedModel, wish: Wish, cost: Cost, seconds: float) -> None:
    there, repaired = len(audited.test), len(wish.repairs)
    passes = 41 * 3 + 20 + 41 * 3 * (repaired + bool(repaired))
    fit = max(50, min(1000, int(seconds / (passes * cost.both)) // 10 * 10))
    images = min(there, wish.images or (1000 if wish.full else fit))
    why = "as asked" if wish.images else "the full set" if wish.full else "as many as the attacks have time for"
    width = 100 / math.sqrt(images)
    proposal.reasons.append(
        f"{count(images, 'test image')} of {there} ({why}): shares are known to about {width:.0f} points."
        if images < there
        else f"All {count(there, 'test image')}: shares are known to about {width:.0f} points."
    )
    if images < there:
        proposal.data["max_test"] = images
    total = len(audited.train) + audited.source.held_out
    if not audited.source.held_out:
        proposal.data["held_out"] = held_out = min(500, total // 5)
        proposal.reasons.append(
            f"{count(held_out, 'training image')} set aside for scanners and repairs, which so see no test image."
        )


def _attacks(proposal: Proposal, audited: AuditedModel, wish: Wish, cost: Cost) -> None:
    eps, why = _radius(audited)
    second = _l2_radius(audited.test.size)
    row: dict[str, Any] = {"curve": [_short(eps / 4), _short(eps / 2)]}
    if wish.full:
        first: list[dict[str, Any]] = [{**_PGD, "eps": eps}, {"name": "autoattack", "eps": eps}]
        other: list[dict[str, Any]] = [{"name": "autoattack", "norm": "l2", "eps": second}]
    elif cost.gradients:
        first = [{"name": "fgsm", "eps": eps}, {**_PGD, "eps": eps}]
        other = [{"name": "pgd", "norm": "l2", "eps": second, "steps": 20}]
    else:
        first, other = [{"name": "square", "eps": eps, "queries": 500}], []
        proposal.left_out.append("Attacks that follow gradients: the model has none; only square was tried, in Linf.")
    named = " and ".join(str(attack["name"]) for attack in first)
    proposal.reasons.append(f"{named} within {_said(eps)} in Linf, {why}; a quarter and half of it for the curve.")
    if other:
        named = str(other[0]["name"])
        proposal.reasons.append(f"{named} within {second:g} in L2, a usual radius for pictures of this size.")
    proposal.base["attack"] = first
    proposal.rows[AS_IT_IS] = row
    if other:
        proposal.rows["in L2"] = {"attack": other}


def _radius(audited: AuditedModel) -> tuple[float, str]:
    """In Linf, and why."""
    balls = [attack for attack in _parts(audited.attacks) if isinstance(attack, Attack)]
    known = [attack for attack in balls if attack.norm == "linf" and attack.eps > 0]
    if known:
        return known[0].eps, "the radius that its record was measured with"
    channels, height, width = audited.test.size
    if channels == 1 and max(height, width) <= 32:
        return 0.3, "the usual radius for small grey pictures"
    if min(height, width) >= 64:
        return 4 / 255, "the usual radius for photographs"
    return 8 / 255, "the usual radius for small pictures"


def _parts(attacks: Sequence[Evasion]) -> Iterator[Evasion]:
    for attack in attacks:
        yield from attack.parts()


def _l2_radius(size: tuple[int, int, int]) -> float:
    """1.5 on MNIST and 0.5 on CIFAR-10, growing with the side of the picture: 3.5 on 224 x 224."""
    channels, height, width = size
    if channels == 1:
        return float(f"{1.5 * math.sqrt(height * width / 784):.2g}")
    return float(f"{0.5 * math.sqrt(height * width / 1024):.2g}")


def _short(eps: float) -> float:
    return float(f"{eps:.6g}")


def _said(eps: float) -> str:
    steps = 255 * eps
    return f"{round(steps)}/255" if abs(steps - round(steps)) < 1e-6 else f"{eps:g}"


def _bounds(proposal: Proposal, audited: AuditedModel) -> None:
    """Certified bounds where they can follow the network and prove anything."""
    eps, _ = _radius(audited)
    kept, problems = [], []
    device = audited.device
    index = torch.arange(min(_TRIED, len(audited.test)))
    x, y = audited.test.batch(index).to(device), audited.test.labels[index].to(device)
    for name in ("interval", "crown-ibp"):
        try:
            certifier = build("certify", {"name": name, "eps": eps})
            proved = run_certifier(audited.model, certifier, x, y, generator=rng.stream(0, "trial", device=device))
        except RequestError as error:
            problems.append(error.problem)
            continue
        if bool(proved.certified.any()):
            kept.append({"name": name, "eps": eps})
        else:
            problems.append(f"{name} proves none of {count(len(x), 'image')} tried at {_said(eps)}")
    if kept:
        proposal.rows[AS_IT_IS]["certify"] = kept
        named = " and ".join(str(one["name"]) for one in kept)
        proposal.reasons.append(f"The bound{'s' if len(kept) > 1 else ''} {named}, which can follow this network.")
    else:
        first = "; ".join(dict.fromkeys(problems))
        proposal.left_out.append(f"Certified accuracy: {first}.")


def _explanations(proposal: Proposal, audited: AuditedModel, wish: Wish, cost: Cost, seconds: float) -> None:
    wanted: list[Any] = []
    if cost.gradients:
        wanted += [name for name in ("saliency", "band-energy") if _fits("explain", name, audited) is None]
    _, height, width = audited.test.size
    stride = max(1, math.ceil(math.sqrt(256 * height * width / 2 * cost.forward / max(seconds, 1e-9))))
    if wish.full:
        stride = 1
    if stride * 4 <= min(height, width):
        wanted.append({"name": "fourier", "stride": stride})
    if wanted:
        proposal.rows[AS_IT_IS]["explain"] = wanted


# --- backdoors -------------------------------------------------------------------------------------------------------


def _scanners(proposal: Proposal, audited: AuditedModel, wish: Wish, cost: Cost, seconds: float) -> None:
    classes = len(audited.train.classes)
    if classes < LEAST_CLASSES:
        proposal.left_out.append(
            f"Backdoors in the model: a scanner compares classes with each other, and there are {classes}."
        )
        return
    chosen: list[dict[str, Any]] = []
    one = classes * cost.both
    if wish.full:
        wanted = [{"name": name} for name in sorted(names("scan"))]
    else:
        wanted = _light_scanners(proposal, one, seconds)
    for scanner in wanted:
        problem = _fits("scan", scanner, audited, gradients=cost.gradients)
        if problem is None:
            chosen.append(scanner)
        else:
            proposal.left_out.append(f"The scanner {scanner['name']}: {problem}.")
    for scanner in chosen:
        proposal.rows[scanner["name"]] = {"attack": [], "scan": scanner if len(scanner) > 1 else scanner["name"]}
    if chosen:
        listed = ", ".join(scanner["name"] for scanner in chosen)
        proposal.reasons.append(f"{count(len(chosen), 'scanner')}, each on its own: {listed}.")


def _light_scanners(proposal: Proposal, one: float, seconds: float) -> list[dict[str, Any]]:
    """Those that have the time, with fewer looks where they must; `one` is a pass over an image of each class.

    The quickest of them comes first, if need be with a third of its starts and all of the time.
    """
    chosen: list[dict[str, Any]] = []
    if seconds >= _MM_BD * one / 3:
        share = max(seconds / 3 / (_MM_BD * one), 1 / 3)
        chosen.append({"name": "mm-bd"} if share >= 1 else {"name": "mm-bd", "starts": max(10, int(30 * share))})
        seconds -= min(1.0, share) * _MM_BD * one
    else:
        proposal.left_out.append(f"The scanner mm-bd: {_too_long(_MM_BD * one)}.")
    whole = _LOOKS * _SHARE_OF_LOOKS * _PER_LOOK * one
    for taken in range(len(_INVERSIONS), 0, -1):
        looks = min(_LOOKS, int(seconds / (taken * _PER_LOOK * one)))
        if seconds >= taken * whole:
            looks = _LOOKS
        if looks >= _LEAST_LOOKS:
            break
    else:
        taken, looks = 0, 0
    for name in _INVERSIONS[:taken]:
        chosen.append({"name": name} if looks == _LOOKS else {"name": name, "max_looks": looks})
    if taken and looks < _LOOKS:
        proposal.reasons.append(f"Searches for triggers end after {looks} looks instead of {_LOOKS}, for want of time.")
    for name in _INVERSIONS[taken:]:
        proposal.left_out.append(f"The scanner {name}: {_too_long(whole)}.")
    return chosen


def _too_long(seconds: float) -> str:
    return f"it would take about {_minutes(max(1, round(seconds / 60)))}; allow more time, or take the full set"


def _minutes(number: float) -> str:
    return f"{number:g} minute{'' if number == 1 else 's'}"


def _filters(proposal: Proposal, audited: AuditedModel, wish: Wish, cost: Cost, seconds: float) -> None:
    if not wish.trained_on_it:
        proposal.left_out.append("The training set: these data are said not to be what the model was trained on.")
        return
    there = len(audited.train) - proposal.data.get("held_out", 0)
    recorded = audited.poison is not None and audited.on_data_of_its_run  # drawn among all images, not among a part
    fit = max(500, int(seconds / (6 * cost.forward)) // 100 * 100)
    most = there if wish.full or recorded else min(there, fit)
    propose_filters(proposal, audited, wish, cost, seconds, most=most)


def propose_filters(
    proposal: Proposal, audited: AuditedModel, wish: Wish, cost: Cost, seconds: float, *, most: int
) -> None:
    """A row for each filter that fits the model and, in the light set, has the time.

    Args:
        proposal: What it is added to.
        audited: The model and the data.
        wish: Which set.
        cost: Of the model's passes.
        seconds: For all of them.
        most: Training images that are judged.
    """
    there = len(audited.train) - proposal.data.get("held_out", 0)
    quick = list(_LIGHT_FILTERS)
    if seconds >= _EARLY_LOSS * most * cost.forward:
        quick.append("early-loss")
    chosen = []
    for name in sorted(names("filter")) if wish.full else quick:
        problem = _fits("filter", name, audited)
        if problem is None:
            chosen.append(name)
        else:
            proposal.left_out.append(f"The filter {name}: {problem}.")
    if not chosen:
        return
    if most < there:
        proposal.data["max_train"] = most
    for name in chosen:
        proposal.rows[name] = {"attack": [], "inspect": name}
    part = f"{most} of {there} training images" if most < there else f"all {there} training images"
    proposal.reasons.append(
        f"{count(len(chosen), 'filter')} on {part}, taken to be what the model was trained on: {', '.join(chosen)}."
    )
    if not wish.full:
        others = [name for name in sorted(names("filter")) if name not in chosen]
        proposal.left_out.append(f"Other filters, in the full set only: {', '.join(others)}.")


def _fits(room: str, spec: Any, audited: AuditedModel, *, gradients: bool = True) -> str | None:
    """Why a part cannot work on this model; None where it can."""
    part = build(room, spec)
    if getattr(part, "follows_gradients", False) and not gradients:
        return "it follows gradients, and the model has none"
    check = getattr(part, "check_model", None)
    if check is None:
        return None
    images: Images = audited.train.at(torch.arange(min(2, len(audited.train)))).to(audited.device)
    subject: Any = images.batch(torch.arange(len(images), device=images.device)) if room == "explain" else images
    try:
        with evaluating(audited.model), torch.no_grad(), rng.borrowed_global_stream(0, "trial"):
            check(audited.model, subject)
    except RequestError as error:
        return error.problem
    return None


def _always_left_out(proposal: Proposal, wish: Wish) -> None:
    if not wish.full:
        proposal.left_out.append("AutoAttack and attacks without gradients beyond a short probe: in the full set only.")
    proposal.left_out += [
        "Adaptive attacks, made for this very model, and attacks in L1 or without a norm (`spatial`).",
        "Backdoors whose trigger is no pattern of pixels (a pose, an object, a style), that need several triggers or "
        "aim at several classes: the scanners here do not look for them.",
    ]


def accuracy_of(audited: AuditedModel, most: int = 200) -> tuple[float, int]:
    """Share of the first test images that the model gets right, and of how many."""
    images = audited.test.at(torch.arange(min(most, len(audited.test)))).to(audited.device)
    return audited.accuracy(images), len(images)
