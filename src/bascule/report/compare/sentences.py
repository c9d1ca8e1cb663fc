"""What a row does to both ends, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bascule.metrics.paired import Difference
from bascule.record.flags import TWIN_LIMIT
from bascule.record.plan import came_as_it_is
from bascule.record.rows import RowResult
from bascule.report.compare.comparable import also_different
from bascule.report.compare.pairwise import NAMES, Comparison, end_metrics
from bascule.report.words import count, joined, percent, percent_pair, points, points_around

_NOT_ASKED = "does not measure it"
_VERBS = {"up": "raises", "down": "lowers"}
_MEANING = {
    ("up", "up"): "safer against adversarial examples, but easier to backdoor",
    ("up", "down"): "safer at both ends",
    ("down", "up"): "weaker at both ends",
    ("down", "down"): "weaker against adversarial examples, but harder to backdoor",
}
_MEANING_ALONE = {
    ("robust", "up"): "safer against adversarial examples",
    ("robust", "down"): "weaker against adversarial examples",
    ("asr", "up"): "easier to backdoor",
    ("asr", "down"): "harder to backdoor",
}
_TRADE_OFF = {
    ("up", "up"): "That is the trade-off",
    ("down", "down"): "That is the trade-off, taken the other way",
}


@dataclass(frozen=True)
class Statement:
    """What is said of one row; the sentence begins with the row's name, which stands in front."""

    facts: str
    meaning: str = ""
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All of it but the name."""
        return " ".join((f"{self.facts}: {self.meaning}." if self.meaning else f"{self.facts}.", *self.notes))


def describe(comparison: Comparison) -> Statement:
    """What the row does to both ends, measured against the reference by their paired differences."""
    reference, row, differences = comparison.reference, comparison.row, comparison.differences
    both = end_metrics(row)
    changes = {name: differences[name].change if name in differences else "missing" for name in both}
    clear = [name for name in both if changes[name] in _VERBS]
    unclear = [name for name in both if changes[name] == "unclear"]
    missing = [name for name in both if changes[name] == "missing"]
    notes = []
    if clear:
        facts, meaning = _clear(differences, changes, clear)
        if (pair := tuple(changes.values())) in _TRADE_OFF:
            given = all(came_as_it_is(one.settings) for one in (reference, row))
            notes.append(f"{_TRADE_OFF[pair]}, for this trigger and {'these models' if given else 'training'}.")
        notes += [_unclear_note(name, differences[name]) for name in unclear]
    elif unclear:
        doubt = _doubt(comparison.seeds, min(differences[name].least_seeds for name in unclear))
        facts, meaning = f"{_unclear(differences, unclear)} {doubt}", ""
    else:
        facts, meaning = "cannot be compared", ""
    notes += _missing_notes(comparison, missing, both)
    notes += _accuracy_note(differences.get("accuracy"))
    if any(_held_back(differences[name]) for name in ("accuracy", *both) if name in differences):
        notes.append(
            "One seed is not enough to tell: training again may move the numbers by more than these intervals."
        )
    if comparison.seeds and comparison.seeds < max(reference.seeds, row.seeds):
        notes.append(f"Compared at the {count(comparison.seeds, 'seed')} that both rows have.")
    if changes["asr"] != "missing":
        notes += _trigger_note(row, "this row") + _trigger_note(reference, "the reference row")
    if reference.run != row.run and (settings := also_different(reference, row)):
        notes.append(f"Between these two differ: {joined(settings)}.")
    return Statement(facts, meaning, tuple(notes))


def describe_alone(row: RowResult) -> Statement:
    """The numbers of a row that has nothing to be compared with."""
    both = end_metrics(row)
    known = [
        f"{percent(value)} {NAMES[name]}" for name in ("accuracy", *both) if (value := _value(row, name)) is not None
    ]
    facts = f"reaches {joined(known)}" if known else "has no numbers yet"
    notes = [f"{_capital(NAMES[name])}: {why}." for name in both if (why := _why_missing(row, name))]
    return Statement(facts, "", (*notes, *_trigger_note(row, "this row")))


# --- parts of the sentences ------------------------------------------------------------------------------------------


def _clear(differences: Mapping[str, Difference], changes: Mapping[str, str], clear: list[str]) -> tuple[str, str]:
    parts, last_verb = [], ""
    for name in clear:
        verb = _VERBS[changes[name]]
        parts.append(f"{verb if verb != last_verb else ''} {NAMES[name]} {_from_to(differences[name])}".strip())
        last_verb = verb
    if len(clear) == 2:
        first, second = changes.values()
        return joined(parts), _MEANING[first, second]
    end = "asr" if clear[0] == "asr" else "robust"
    return joined(parts), _MEANING_ALONE[end, changes[clear[0]]]


def _unclear(differences: Mapping[str, Difference], names: list[str]) -> str:
    """What may differ, and what does not for all that is known."""
    held_back = [name for name in names if _held_back(differences[name])]
    rest = [name for name in names if name not in held_back]
    parts = [
        f"{verb} in {joined([f'{NAMES[name]} ({_both(differences[name])})' for name in group], word)}"
        for verb, word, group in (("perhaps differs", "and", held_back), ("does not clearly differ", "or", rest))
        if group
    ]
    return joined(parts, "but")


def _values(difference: Difference) -> tuple[str, str]:
    """Before and after, of a difference that is known."""
    assert difference.before is not None
    assert difference.after is not None
    return percent_pair(difference.before, difference.after)


def _from_to(difference: Difference) -> str:
    """`from 0 % to 35 % (by 31 to 39 points)`; of a clear difference, which has an interval."""
    first, second = _values(difference)
    assert difference.low is not None
    assert difference.high is not None
    low, high = difference.low, difference.high
    return f"from {first} to {second} (by {points(low, high) if low > 0 else points(-high, -low)})"


def _both(difference: Difference) -> str:
    """`30 % and 31 %, from 2 points lower to 4 points higher`; without the end where there is no interval."""
    first, second = _values(difference)
    values = f"{first} in both" if first == second else f"{first} and {second}"
    if difference.low is None or difference.high is None:
        return values
    return f"{values}, {points_around(difference.low, difference.high)}"


def _held_back(difference: Difference) -> bool:
    """Whether it would be clear if the seeds were enough."""
    low, high = difference.low, difference.high
    return difference.too_few_seeds and low is not None and high is not None and (low > 0 or high < 0)


def _unclear_note(name: str, difference: Difference) -> str:
    doubt = _doubt(difference.seeds, difference.least_seeds)
    return f"The difference in {NAMES[name]} ({_both(difference)}) is not clear {doubt}."


def _doubt(seeds: int, least: int) -> str:
    """What leaves a difference unclear: of models that came as they are no seed does, but the number of images."""
    if least == 1:
        return "on these images"
    return "at one seed" if seeds == 1 else f"at {count(seeds, 'seed')}"


def _missing_notes(comparison: Comparison, missing: list[str], both: tuple[str, str]) -> list[str]:
    """One sentence per reason, with the metrics it holds for."""
    reasons: dict[str, list[str]] = {}
    for name in missing:
        whys = {
            "this row": _why_missing(comparison.row, name),
            "the reference row": _why_missing(comparison.reference, name),
        }
        gaps = {who: why for who, why in whys.items() if why}
        if len(gaps) == 2 and len(set(gaps.values())) == 1:
            gaps = {"either row": whys["this row"]}
        places = [why if why.endswith(_NOT_ASKED) else f"{why} in {who}" for who, why in gaps.items()]
        reasons.setdefault("; ".join(places) or _why_unpaired(comparison.differences[name]), []).append(NAMES[name])
    said = "" if len(missing) == len(both) else " cannot be compared"  # the sentence says it already
    return [f"{_capital(joined(names))}{said}: {reason}." for reason, names in reasons.items()]


def _why_missing(row: RowResult, name: str) -> str:
    """Empty when the number is there."""
    if _value(row, name) is not None:
        return ""
    if name not in row.metrics:
        return f"{row.run or 'the study'} {_NOT_ASKED}"
    if name == "asr" and row.settings.get("poison") is None:
        return "no poison is planted"
    if name == "robust_accuracy" and not row.settings.get("attack"):
        return "no attack is run"
    return "not measured"


def _why_unpaired(difference: Difference) -> str:
    return "not counted on the same images in both rows" if difference.seeds else "the rows have no seed in common"


def _accuracy_note(difference: Difference | None) -> list[str]:
    if difference is None or difference.change == "missing":
        return []
    if difference.change == "unclear":
        verb = "perhaps differs" if _held_back(difference) else "does not clearly differ"
        return [f"Accuracy {verb} ({_both(difference)})."]
    return [f"Accuracy {'rises' if difference.change == 'up' else 'falls'} {_from_to(difference)}."]


def _trigger_note(row: RowResult, who: str) -> list[str]:
    share = _value(row, "asr_twin")
    if share is None or share <= TWIN_LIMIT:
        return []
    return [
        f"In {who} the trigger alone moves {percent(share)} of the images of a clean model, "
        "so ASR overstates the backdoor."
    ]


def _value(row: RowResult, name: str) -> float | None:
    measure = row.metrics.get(name)
    return None if measure is None else measure.value


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
