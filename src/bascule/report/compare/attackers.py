"""Recipes against attackers: what each attacker's trigger does to the models of each recipe, and what a recipe costs.

Attackers are the named values of something about the poison that a study varies (`vary: {poison: {NAME: ...}}`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bascule.core.errors import RequestError, unknown
from bascule.metrics.contract import Outcomes
from bascule.metrics.interval import share_of
from bascule.metrics.paired import LEAST_SEEDS, Difference, difference, paired_over_seeds
from bascule.record.rows import RowResult
from bascule.report.words import count, joined, setting

MARGIN = 0.02
"""How far ASR may lie above the twin's, and robust accuracy below the reference's, and still count as kept."""

_ASR, _ROBUST = "asr", "robust_accuracy"


@dataclass(frozen=True)
class Bout:
    """One recipe against one attacker."""

    row: RowResult
    taken: Difference
    """ASR less that of the twin."""
    cost: Difference | None
    """Robust accuracy less that of the reference against the same attacker; None for the reference itself."""

    @property
    def end(self) -> Literal["held", "fell", "open"]:
        """Whether ASR clearly lies within `MARGIN` of the twin's, or clearly above; open where the interval does not
        say, and at one seed."""
        taken = self.taken
        if taken.low is None or taken.high is None or taken.too_few_seeds:
            return "open"
        if taken.high <= MARGIN:
            return "held"
        return "fell" if taken.low > MARGIN else "open"


@dataclass(frozen=True)
class Standing:
    """A recipe against all attackers that were measured."""

    recipe: str
    bouts: Mapping[str, Bout]

    def ended(self, end: str) -> tuple[str, ...]:
        """The attackers against which it ended so."""
        return tuple(name for name, bout in self.bouts.items() if bout.end == end)

    @property
    def perhaps_fell(self) -> tuple[str, ...]:
        """Those against which that is open, and ASR more than `MARGIN` above the twin's in value."""
        return tuple(name for name in self.ended("open") if (self.bouts[name].taken.value or 0.0) > MARGIN)

    @property
    def worst(self) -> tuple[str, Bout]:
        """The attacker that takes it furthest above its twin."""
        return max(self.bouts.items(), key=lambda item: item[1].taken.value or 0.0)

    @property
    def costliest(self) -> tuple[str, Difference] | None:
        """The attacker under which most robust accuracy is lost against the reference."""
        costs = {name: bout.cost for name, bout in self.bouts.items() if bout.cost and bout.cost.value is not None}
        return min(costs.items(), key=lambda item: item[1].value or 0.0) if costs else None

    @property
    def keeps_robustness(self) -> bool:
        """Whether it is within `MARGIN` of the reference's robust accuracy, in value, against every attacker."""
        return self.costliest is not None and (self.costliest[1].value or 0.0) >= -MARGIN

    @property
    def images(self) -> int:
        """The fewest images that count at either end."""
        numbers = (bout.row.metrics.get(name) for bout in self.bouts.values() for name in (_ASR, _ROBUST))
        return min((number.n for number in numbers if number is not None and number.n), default=1)

    def by_seed(self) -> dict[int, tuple[float, float]]:
        """By seed: the highest ASR and the lowest robust accuracy over the attackers; only seeds that have met all."""
        seen: dict[int, list[tuple[float, float]]] = {}
        for bout in self.bouts.values():
            for seed, outcomes in bout.row.outcomes.items():
                shares = [_share(bout.row, name, outcomes) for name in (_ASR, _ROBUST)]
                if shares[0] is not None and shares[1] is not None:
                    seen.setdefault(seed, []).append((shares[0], shares[1]))
        return {
            seed: (max(asr for asr, _ in pairs), min(robust for _, robust in pairs))
            for seed, pairs in sorted(seen.items())
            if len(pairs) == len(self.bouts)
        }


@dataclass(frozen=True)
class Contest:
    """Recipes and attackers of one run."""

    name: str
    """The run, where there are several, and what else varies; else empty."""
    attackers: tuple[str, ...]
    standings: tuple[Standing, ...]
    reference: str
    """The recipe whose robust accuracy the others are compared with; empty where there is none."""


def contests_of(rows: Sequence[RowResult], against: str | None = None) -> list[Contest]:
    """Every contest that the rows make, run by run; none where nothing about the poison varies under names.

    Args:
        rows: Of one run or of several.
        against: The recipe whose robust accuracy the others are compared with; by default the first that is hardened
            and has neither filter nor repair.

    Raises:
        RequestError: No row has this name.
    """
    if against is not None and against not in (known := dict.fromkeys(row.row for row in rows)):
        raise RequestError(unknown("row", against, known))
    groups: dict[tuple[str, ...], tuple[str, list[RowResult]]] = {}
    for row in rows:
        path = _named(row)
        if path is not None:
            rest = tuple(f"{other} {setting(value)}" for other, value in row.vary.items() if other != path)
            groups.setdefault((row.run, path, *rest), (path, []))[1].append(row)
    contests = [_contest((key[0], *key[2:]), path, own, against) for key, (path, own) in groups.items()]
    return [contest for contest in contests if len(contest.attackers) > 1 and contest.standings]


def _named(row: RowResult) -> str | None:
    """What of the poison varies under names."""
    paths = (path for path in row.vary if path.partition(".")[0] == "poison")
    return next((path for path in paths if isinstance(row.vary[path], str)), None)


def _contest(name: Sequence[str], path: str, rows: Sequence[RowResult], against: str | None) -> Contest:
    met = [row for row in rows if _ASR in row.kinds and any(outcomes.twin for outcomes in row.outcomes.values())]
    reference = against or next((row.row for row in rows if _is_plainly_hardened(row)), "")
    references = {str(row.vary[path]): row for row in rows if row.row == reference}
    standings = []
    for recipe in dict.fromkeys(row.row for row in met):
        own = {str(row.vary[path]): row for row in met if row.row == recipe}
        standings.append(
            Standing(recipe, {attacker: _bout(row, references.get(attacker)) for attacker, row in own.items()})
        )
    attackers = tuple(dict.fromkeys(str(row.vary[path]) for row in rows))
    return Contest(" · ".join(filter(None, name)), attackers, tuple(standings), reference)


def _is_plainly_hardened(row: RowResult) -> bool:
    train = row.settings.get("train") or {}
    objective = train.get("objective") or {}
    hardened = bool(objective.get("eps")) or bool(objective.get("attacks"))
    return hardened and not row.settings.get("filter") and not row.settings.get("repair")


def _bout(row: RowResult, reference: RowResult | None) -> Bout:
    twins = {seed: outcomes.twin for seed, outcomes in row.outcomes.items() if outcomes.twin is not None}
    cost = None
    if reference is not None and reference is not row and _ROBUST in row.kinds:
        cost = difference(row.kinds[_ROBUST], reference.outcomes, row.outcomes)
    return Bout(row, difference(row.kinds[_ASR], twins, row.outcomes), cost)


def _share(row: RowResult, name: str, outcomes: Outcomes) -> float | None:
    sample = row.kinds[name].per_sample(outcomes) if name in row.kinds else None
    return None if sample is None or len(sample) == 0 else share_of(sample)


# --- in sentences ----------------------------------------------------------------------------------------------------

_HOLDS = "A recipe holds where ASR clearly lies within 2 points of the twin's, and falls where it clearly lies above."


def sentences(contest: Contest, worst: Sequence[str] | None = None) -> list[str]:
    """What holding means, one on each recipe, then which of them nobody beats at both ends in the worst case: what
    `in_the_worst_case` says, where that is known already."""
    worst = list(in_the_worst_case(contest)) if worst is None else worst
    return [_HOLDS, *(_about(standing, contest) for standing in contest.standings), *worst]


def _about(standing: Standing, contest: Contest) -> str:
    total = count(len(standing.bouts), "attacker")
    held, fell, perhaps = standing.ended("held"), standing.ended("fell"), standing.perhaps_fell
    unclear = len(standing.ended("open")) - len(perhaps)
    name, bout = standing.worst
    said = [
        f"holds against {len(held)} of {total}" + (f", perhaps against {unclear} more" if unclear else "") + ".",
        f"Falls to {'; '.join(fell)}." if fell else "",
        f"Perhaps falls to {'; '.join(perhaps)}." if perhaps else "",
        f"Worst: {name}, ASR {_points(bout.taken)} above the twin's." if (bout.taken.value or 0) > 0 else "",
    ]
    cost = standing.costliest
    kept = ""
    if cost is not None:
        within = "within 2 points of" if standing.keeps_robustness else "farther than 2 points from"
        kept = (
            f"Robust accuracy is {within} that of {contest.reference}: at worst {_points(cost[1])}, against {cost[0]}."
        )
    return f"{standing.recipe}: {' '.join(filter(None, [*said, kept]))}"


def _points(number: Difference) -> str:
    value = f"{100 * (number.value or 0.0):.1f}"
    inside = (
        "" if number.low is None or number.high is None else f" ({100 * number.low:.1f} to {100 * number.high:.1f})"
    )
    return f"{value}{inside} points"


def in_the_worst_case(contest: Contest) -> Iterator[str]:
    """The recipes that no other one beats at both ends, when each meets its worst attacker seed by seed."""
    known = {one.recipe: one.by_seed() for one in contest.standings if len(one.bouts) == len(contest.attackers)}
    known = {recipe: seeds for recipe, seeds in known.items() if seeds}
    if len(known) < 2:
        return
    images = min(one.images for one in contest.standings)
    clear: dict[str, list[str]] = {}
    perhaps: dict[str, list[str]] = {}
    for recipe, own in known.items():
        for rival, other in known.items():
            common = sorted(own.keys() & other.keys())
            if rival == recipe or not common:
                continue
            verdict = _beats([other[seed] for seed in common], [own[seed] for seed in common], images)
            if verdict:
                (clear if verdict == "clearly" else perhaps).setdefault(recipe, []).append(rival)
    ends = {
        recipe: f"{recipe} (ASR {100 * np.mean([asr for asr, _ in seeds.values()]):.0f} %, robust accuracy "
        f"{100 * np.mean([robust for _, robust in seeds.values()]):.0f} %)"
        for recipe, seeds in known.items()
    }
    free = [ends[recipe] for recipe in known if recipe not in clear and recipe not in perhaps]
    yield (
        f"In the worst case, each recipe against the attacker that does best in each seed: not beaten at both ends is "
        f"{joined(free)}."
        if free
        else "In the worst case every recipe is beaten at both ends by another one."
    )
    for recipe in known:
        if recipe in clear:
            yield f"{ends[recipe]} is clearly beaten at both ends by {joined(clear[recipe]).rstrip('.')}."
        elif recipe in perhaps:
            yield f"{ends[recipe]} is perhaps beaten, by {joined(perhaps[recipe])}: {_doubt(known[recipe])}."


def _doubt(seeds: Mapping[int, tuple[float, float]]) -> str:
    return "one seed says nothing of training anew" if len(seeds) < LEAST_SEEDS else "the intervals do not tell"


def _beats(one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]], images: int) -> str:
    """Whether the first is better at both ends: clearly, perhaps (no worse at either), or not (empty)."""
    gains = []
    for end, sign in ((0, -1.0), (1, 1.0)):
        before, after = [pair[end] for pair in other], [pair[end] for pair in one]
        value = sign * float(np.mean(np.subtract(after, before)))
        low = -np.inf
        if len(one) >= LEAST_SEEDS:
            interval = paired_over_seeds(before, after, images)
            low = interval[0] if sign > 0 else -interval[1]
        gains.append((value, low))
    if all(low > 0 for _, low in gains):
        return "clearly"
    values = [value for value, _ in gains]
    return "perhaps" if min(values) >= 0 and max(values) > 0 else ""
