"""Weights from a file, whatever they are wrapped in.

One rule: any mapping from names to tensors in the file may be the weights. Its names must be those of the network,
after one prefix is taken away or added.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import torch
from torch import Tensor, nn

from bascule.core.errors import RequestError
from bascule.core.text import quote
from bascule.models._checkpoint import read_state_dicts
from bascule.models.normalise import Normalise

_PLACE = ("weights",)
DOES_NOT_FIT = "does not fit this network"
"""In every message that is about names or shapes, and not about the file."""
_USUAL = ("state_dict", "model_state_dict", "model", "net", "network", "params", "weights", "module", "teacher")
"""Keys and prefixes of weights, the best first. In self-distillation the teacher is the average of the student."""
_AVERAGED = frozenset(("ema", "swa", "avg", "average", "averaged", "averages", "polyak"))
"""Words in keys and prefixes of averaged weights."""
_BOOKKEEPING = frozenset(("num_batches_tracked", "n_averaged", "total_ops", "total_params"))
"""Last parts of names of numbers that no answer depends on."""
_TRAINING_ONLY = re.compile(r"(^|\.)(criterion|loss|loss_?(fn|func(tion)?)|[a-z_]*metrics?)\.", re.IGNORECASE)
"""Parts of a training beside the network that lie in its state dict: class weights of a loss, counts of a metric."""
_MEANS, _STDS = (
    tuple(f"{before}{name}" for before in ("", "new_", "image_", "pixel_") for name in names)
    for names in (("mean", "mu"), ("std", "sigma"))
)
_ROUNDED = 2e-3
"""Means and standard deviations that differ by less are the same, rounded."""
_PAIRS = 16
"""Most prefixes tried on one mapping."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Candidate:
    """One way to read a mapping of a file as the network's weights."""

    keys: tuple[str, ...]
    """That lead to the mapping, then the parts of the prefix that is taken away."""
    given: Mapping[str, Tensor]
    """By the network's names, without what starts fresh."""
    used: frozenset[str]
    """Names in the mapping."""
    matched: int
    problems: tuple[str, ...]
    averaged: bool
    normaliser: tuple[Tensor, ...] = ()
    """Mean and standard deviation of images, where they lie beside the weights or the mapping of the weights."""

    @property
    def order(self) -> tuple[bool, tuple[int, ...]]:
        """Averaged weights first, then as the keys are usual."""
        return not self.averaged, tuple(_USUAL.index(key) if key in _USUAL else len(_USUAL) for key in self.keys)

    @property
    def label(self) -> str:
        """For messages."""
        name = quote(".".join(self.keys)) if self.keys else "the top level"
        return f"{name} (averaged)" if self.averaged else name

    def equals(self, other: _Candidate) -> bool:
        """Whether the same values are taken."""
        return self.given.keys() == other.given.keys() and all(
            torch.equal(value, other.given[name]) for name, value in self.given.items()
        )


def load_weights(net: nn.Module, path: str, *, fresh: Iterable[str] = (), other_classes: bool = True) -> None:
    """Copy the weights in a file into `net`, in place.

    Of several mappings that fit, averaged weights (EMA, SWA) are taken, as by timm's `load_checkpoint(use_ema=True)`,
    then those under the more usual key; a warning says which. Counters may be missing; a normalisation beside the
    weights is compared with the network's. With `other_classes`, the last linear layer keeps its fresh weights when the
    file's has another number of rows.

    Args:
        net: The network; its layers are named as in the file.
        path: A safetensors file, or whatever `torch.save` wrote that holds a state dict; no code in it is run.
        fresh: Names of modules that may be missing in the file as a whole and then keep their fresh weights.
        other_classes: Whether the file may be of a model for other classes: one to start from, not one to judge.

    Raises:
        RequestError: The file holds no state dict, names or shapes do not fit, or several fit and none is to be
            preferred.
    """
    head = next((name for name, part in reversed(list(net.named_modules())) if isinstance(part, nn.Linear)), None)
    wanted = net.state_dict()
    reader = _Reader(wanted, head if other_classes else None, tuple(fresh))
    found = [one for place in read_state_dicts(path) for one in reader.candidates(*place)]
    fitting = sorted((one for one in found if not one.problems), key=lambda one: one.order)
    if not fitting:
        nearest = max(found, key=lambda one: one.matched)
        where = f"of {nearest.label}, " if nearest.keys else ""
        text = "; it ".join(nearest.problems)
        raise RequestError(f"the file {path!r} {DOES_NOT_FIT}: {where}it {text}", place=_PLACE)
    taken, *others = fitting
    others = [one for one in others if not one.equals(taken)]
    if others and others[0].order == taken.order:
        names = ", ".join(one.label for one in fitting[:5])
        problem = f"the file {path!r} holds several sets of weights that fit: {names}. Save the one that is meant alone"
        raise RequestError(problem, place=_PLACE)
    passed = [] if taken.averaged else [one for one in found if one.averaged and one.problems and one.matched]
    for note in (_choice(taken, others, passed), _other_normalisation(taken, net)):
        if note:
            warnings.warn(f"weights: {path}: {note}", stacklevel=2)
    try:
        net.load_state_dict({**wanted, **taken.given})
    except RuntimeError as error:
        reason = str(error).strip().replace("\n", " ")
        raise RequestError(f"the file {path!r} {DOES_NOT_FIT}: {reason}", place=_PLACE) from error


def _choice(taken: _Candidate, others: Sequence[_Candidate], passed: Sequence[_Candidate]) -> str:
    """What is said where there was a choice; empty where there was none."""
    parts = []
    if others:
        parts.append(f"not those under {', '.join(one.label for one in others[:5])}")
    parts += [f"those under {one.label} do not fit: it {one.problems[0]}" for one in passed[:1]]
    return f"taken are the weights under {taken.label}; {'; '.join(parts)}" if parts else ""


@dataclass(frozen=True)
class _Reader:
    """What a mapping must be to fit."""

    wanted: Mapping[str, Tensor]
    head: str | None
    """The layer that starts fresh when the file's is for other classes; None when that does not fit."""
    fresh: tuple[str, ...]

    def candidates(
        self, keys: tuple[str, ...], given: Mapping[str, Tensor], beside: Mapping[str, Tensor]
    ) -> list[_Candidate]:
        """The ways to read one mapping, at least one; where none fits, each says why. `beside` is all but weights."""
        given = self._without_compiler(given)
        found = [self._read(keys, given, *pair) for pair in _prefixes(given, self._needed())]
        # One prefix may leave names only where they are another full set, or no weights.
        several = len({name.rpartition(".")[0] for name in self._needed()}) > 1
        sets = frozenset().union(*(one.used for one in found if several and not one.problems))
        normalisers = _normalisers(given.keys() - self.wanted.keys(), given)
        idle = {name for name in given if name.rpartition(".")[2] in _BOOKKEEPING or _TRAINING_ONLY.search(name)}
        spared = sets | idle.union(*normalisers)
        values = tuple(given[name] for name in normalisers[0]) if normalisers else ()
        if not values and (outside := _normalisers(beside.keys() - self.wanted.keys(), beside)):
            values = tuple(beside[name] for name in outside[0])
        return [self._finished(one, given.keys() - one.used - spared, values) for one in found]

    @staticmethod
    def _finished(one: _Candidate, extra: Iterable[str], normaliser: tuple[Tensor, ...]) -> _Candidate:
        problems = filter(None, (*one.problems, _problem("has what the network lacks:", extra)))
        return replace(one, problems=tuple(problems), normaliser=normaliser)

    def _needed(self) -> list[str]:
        return [name for name in self.wanted if name.rpartition(".")[2] not in _BOOKKEEPING]

    def _without_compiler(self, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Without the parts that torch.compile puts into names, at any depth."""
        if any("_orig_mod" in name.split(".") for name in self.wanted):
            return given
        cleaned = {re.sub(r"(^|(?<=\.))_orig_mod\.", "", name): value for name, value in given.items()}
        return cleaned if len(cleaned) == len(given) else given

    def _read(self, keys: tuple[str, ...], mapping: Mapping[str, Tensor], taken: str, added: str) -> _Candidate:
        under = {added + name.removeprefix(taken): name for name in mapping if name.startswith(taken)}
        given = {name: mapping[under[name]] for name in under if name in self.wanted}
        used = frozenset(under[name] for name in given)
        matched, fresh, head = len(given), self.fresh, self.head
        weight = f"{head}.weight"
        if head and weight in given and weight in self.wanted and _other_rows(given[weight], self.wanted[weight]):
            given = {name: value for name, value in given.items() if name.rpartition(".")[0] != head}
            fresh = (*fresh, head)
        spared = tuple(f"{part}." for part in fresh if not any(name.startswith(f"{part}.") for name in given))
        problems = (
            _problem("lacks", (n for n in self._needed() if n not in given and not n.startswith(spared))),
            _problem(
                "has other shapes:",
                (
                    f"{name} {tuple(value.shape)} instead of {tuple(self.wanted[name].shape)}"
                    for name, value in given.items()
                    if value.shape != self.wanted[name].shape
                ),
            ),
        )
        where = (*keys, *filter(None, taken.split(".")))
        counter = f"{taken.removesuffix('module.')}n_averaged"
        return _Candidate(
            keys=where, given=given, used=used, matched=matched, problems=tuple(filter(None, problems)),
            averaged=any(_words(key) & _AVERAGED for key in where) or counter in mapping,
        )  # fmt: skip


def _prefixes(given: Iterable[str], wanted: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of a prefix to take away and one to add, the one with which most names fit first; at least one pair."""
    modules = [name.split(".")[:-1] for name in wanted]
    common = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*modules, strict=False))]
    matched: Counter[tuple[str, str]] = Counter()
    for depth in range(len(common) + 1):
        added = "".join(f"{part}." for part in common[:depth])
        inside = {name.removeprefix(added) for name in wanted}
        for name in given:
            for start in _starts(name):
                if name[start:] in inside:
                    matched[name[:start], added] += 1
    ordered = sorted(matched, key=lambda pair: (-matched[pair], len(pair[0]) + len(pair[1]), pair))
    return [pair for pair in ordered if 2 * matched[pair] >= matched[ordered[0]]][:_PAIRS] or [("", "")]


def _starts(name: str) -> list[int]:
    """Where each dotted part of a name begins."""
    return [0, *(found.end() for found in re.finditer(r"\.", name))]


def _words(key: str) -> set[str]:
    """`modelEma` and `model_ema` -> {model, ema}."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", key)}


def _normalisers(names: Iterable[str], given: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """Names of each mean and standard deviation of images' channels, those with the shortest names first."""
    small = {name for name in names if 1 <= given[name].numel() <= 4 and given[name].is_floating_point()}
    pairs = []
    for name in sorted(small, key=lambda name: (len(name), name)):
        module, dot, last = name.rpartition(".")
        if last in _MEANS:
            other = f"{module}{dot}{_STDS[_MEANS.index(last)]}"
            if other in small and bool((given[other] > 0).all()):
                pairs.append((name, other))
    return pairs


def _other_normalisation(taken: _Candidate, net: nn.Module) -> str:
    """What is said where the file's normalisation is not the network's; empty where it is, or there is none."""
    if not taken.normaliser:
        return ""
    own = next((part for part in net.modules() if isinstance(part, Normalise)), None)
    has = (torch.zeros(1), torch.ones(1)) if own is None else (own.mean, own.std)
    pairs = [
        (one.flatten().double(), other.flatten().double().cpu())
        for one, other in zip(taken.normaliser, has, strict=True)
    ]
    if all(
        len({len(one), len(other), 1}) <= 2 and bool(((one - other).abs() < _ROUNDED).all()) for one, other in pairs
    ):
        return ""
    said = ", ".join(
        f"`{kind}` [{', '.join(f'{x:.4g}' for x in value.tolist())}]"
        for kind, (value, _) in zip(("mean", "std"), pairs, strict=True)
    )
    return f"these weights are for images normalised with {said}, and this network does otherwise"


def _other_rows(given: Tensor, wanted: Tensor) -> bool:
    return given.ndim == wanted.ndim and given.shape[0] != wanted.shape[0] and given.shape[1:] == wanted.shape[1:]


def _problem(kind: str, names: Iterable[str]) -> str:
    """The first three of the names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return f"{kind} {', '.join(ordered[:3])}{more}" if ordered else ""
