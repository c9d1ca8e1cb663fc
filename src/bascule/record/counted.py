"""Which answers count in a row of the table: those of its finished seeds to the questions that all of them answered.

Else one row would mix numbers of several sets of seeds: accuracy of five, and robust accuracy of the two that a new
attack has reached, or whose file is whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from bascule.core.text import count
from bascule.record.answers import Answers
from bascule.record.cell import FILTERED, ISOLATED
from bascule.record.plan import RecordedCell, RecordedQuestion, RecordedRow, RecordedSeed, words_of
from bascule.record.run import RunRecord

_CHAINS = ("attack", "attack-triggered")
"""Kinds whose questions work on what the ones before them left: without one there are none of those after it."""
_WHOLES = ("curve", "strength")
"""Kinds whose questions are points of one curve."""


_SAID = {FILTERED: "what the filter said", ISOLATED: "what the training isolated"}
"""What is said of training images beside the questions, by key."""


@dataclass(frozen=True)
class Counted:
    """The part of a row that counts."""

    row: RecordedRow
    """With the seeds and the questions that count."""
    hidden: frozenset[str]
    """Keys of findings beside the questions that do not count."""
    flags: tuple[str, ...]
    """What is left out of the seeds that count."""
    finished: int
    """Seeds that have answered everything; where there are none, those count that have begun."""
    missing: tuple[str, ...] = ()
    """What the seeds that count have not all answered: `attack pgd (linf, eps 8/255)`."""


def counted_part(run: RunRecord, row: RecordedRow) -> Counted:
    """What counts of a row: of the seeds that are finished, or of those that are begun while none is."""
    begun = [seed for seed in row.seeds if _answers(run, seed.cell) is not None]
    finished = [seed for seed in begun if _finished(run, seed)]
    seeds = finished or begun
    own = _missing(run, [seed.cell for seed in seeds])
    twins = [seed.twin for seed in seeds if seed.twin is not None]
    of_twin = _missing(run, twins)
    said = {key: sum(len(_answered(run, seed.cell, (key,))) for seed in seeds) for key in _SAID}
    hidden = [key for key, times in said.items() if 0 < times < len(seeds)]
    flags = [
        *_flags(run, [seed.cell for seed in seeds], own, "", whole=bool(finished)),
        *_flags(run, twins, of_twin, " of the twin", whole=bool(finished)),
        *(f"unfinished: {_SAID[key]} is not there for all of {len(seeds)} seeds and is left out" for key in hidden),
    ]
    kept = tuple(replace(seed, cell=_without(seed.cell, own), twin=_twin_without(seed, of_twin)) for seed in seeds)
    missing = tuple(dict.fromkeys(_texts(run, [seed.cell for seed in seeds], own)))
    return Counted(replace(row, seeds=kept), frozenset(hidden), tuple(flags), len(finished), missing)


def flags_of_asked(run: RunRecord, row: RecordedRow, seeds: Sequence[int]) -> Iterator[str]:
    """What more was asked of a row by an evaluation that has not been finished.

    Args:
        run: The run.
        row: One of the rows of its plan.
        seeds: Those that count.
    """
    asked = run.asked()
    same = (other for other in (asked.rows if asked else ()) if (other.row, other.vary) == (row.row, row.vary))
    if asked is None or (whole := next(same, None)) is None:
        return
    known = {key for seed in row.seeds for cell in _cells(seed) for key in cell.keys}
    counts = [
        all(_answered(run, cell, cell.keys - known) == cell.keys - known for cell in _cells(seed))
        for seed in whole.seeds
        if seed.seed in seeds
    ]
    if not all(counts):
        added = [text for text in asked.overrides if text not in run.plan().overrides]
        what = ", ".join(map(_written, added)) or "a further evaluation"
        yield f"unfinished: {what} has answers for {sum(counts)} of {count(len(counts), 'seed')} and is left out"


def _written(override: str) -> str:
    """`attack autoattack` for `attack+={"name": "autoattack", "eps": 0.3}`."""
    path, _, value = override.partition("=")
    _, named, rest = value.partition('"name": "')
    return f"{path.rstrip('+')} {rest.partition(chr(34))[0] if named else value}"


def _cells(seed: RecordedSeed) -> Iterator[RecordedCell]:
    yield seed.cell
    if seed.twin is not None:
        yield seed.twin


def _answers(run: RunRecord, cell: RecordedCell) -> Answers | None:
    return run.cell(cell.fingerprint).answers_to(cell)


def _finished(run: RunRecord, seed: RecordedSeed) -> bool:
    """Whether its models have answered everything once; a twin that failed is not waited for."""
    records = [run.cell(cell.fingerprint) for cell in _cells(seed)]
    return all(record.finished() or (record.failure() is not None) for record in records[1:]) and records[0].finished()


def _answered(run: RunRecord, cell: RecordedCell, keys: Iterable[str]) -> set[str]:
    """Those of some questions that a model has answered."""
    answers = run.cell(cell.fingerprint).answers()
    return {key for key in keys if key in answers.predictions or key in answers.radii or key in answers.findings}


def _missing(run: RunRecord, cells: Sequence[RecordedCell]) -> Counter[str]:
    """Questions that not all of these models have answered, each with the number of those that have."""
    questions = list({question.key: question for cell in cells for question in cell.questions}.values())
    keys = [question.key for question in questions]
    counts = Counter(key for cell in cells for key in _answered(run, cell, keys))
    missing = {question.key for question in questions if counts[question.key] < len(cells)}
    missing |= {question.key for question in _following(questions, missing)}
    return Counter({question.key: counts[question.key] for question in questions if question.key in missing})


def _following(questions: Sequence[RecordedQuestion], missing: set[str]) -> Iterator[RecordedQuestion]:
    """Questions that mean nothing without those that are missing."""
    for kind in (*_CHAINS, *_WHOLES):
        chain = [question for question in questions if question.kind == kind]
        first = next((place for place, question in enumerate(chain) if question.key in missing), len(chain))
        yield from chain if kind in _WHOLES and first < len(chain) else chain[first:]


def _without(cell: RecordedCell, missing: Counter[str]) -> RecordedCell:
    return replace(cell, questions=tuple(question for question in cell.questions if question.key not in missing))


def _twin_without(seed: RecordedSeed, missing: Counter[str]) -> RecordedCell | None:
    twin = None if seed.twin is None else _without(seed.twin, missing)
    return twin if twin is not None and twin.of("clean") else None


def _flags(
    run: RunRecord, cells: Sequence[RecordedCell], missing: Counter[str], whose: str, *, whole: bool
) -> Iterator[str]:
    """What is left out. Of seeds that are all on their way for the first time (`whole` is false), what none has is
    no more than not begun."""
    texts: dict[str, int] = {}
    for answered, what in zip(missing.values(), _texts(run, cells, missing), strict=True):
        if answered or whole:
            texts[what] = min(answered, texts.get(what, answered))
    for what, answered in texts.items():
        yield f"unfinished: {what}{whose} has answers for {answered} of {count(len(cells), 'seed')} and is left out"


def _texts(run: RunRecord, cells: Sequence[RecordedCell], keys: Iterable[str]) -> list[str]:
    """What each of these questions is called: its kind, and what it is about where somebody knows."""
    if not (keys := list(keys)):
        return []
    questions = {question.key: question for cell in cells for question in cell.questions}
    asked = {key: _named(run, cells, question) for key, question in questions.items()}
    those = [asked[key] for key in keys]
    words = words_of(those, list(asked.values()))
    return [" ".join(dict.fromkeys((question.kind, text))) for question, text in zip(those, words, strict=True)]


def _named(run: RunRecord, cells: Sequence[RecordedCell], question: RecordedQuestion) -> RecordedQuestion:
    """With its name, which the answers say in plans of version 0.2."""
    if question.name is not None:
        return question
    notes = [run.cell(cell.fingerprint).evaluations().get(question.key, {}) for cell in cells]
    settings = [note["settings"] for note in notes if isinstance(note.get("settings"), dict)]
    return replace(question, name=next((str(setting["name"]) for setting in settings if "name" in setting), None))
