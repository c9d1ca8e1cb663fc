"""Reasons not to trust a row of the table. Each begins with its heading in docs/flags.md, which says what to do."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from bascule.core.text import count, joined
from bascule.metrics.accuracy import Accuracy
from bascule.metrics.asr import Asr
from bascule.metrics.contract import Labels, Measure, Metric, Outcomes
from bascule.metrics.detection import REFUSING
from bascule.metrics.interval import share_of
from bascule.metrics.robust_accuracy import RobustAccuracy
from bascule.metrics.woken import MUCH, woken
from bascule.record.answers import Answers
from bascule.record.cell import FILTERED, ISOLATED
from bascule.record.counted import Counted, counted_part, flags_of_asked
from bascule.record.plan import RecordedQuestion, RecordedRow, RecordedSeed, came_as_it_is
from bascule.record.run import RunRecord
from bascule.record.sums import DamagedError
from bascule.record.tried import Tried, flags_of_tries, tried_of

TWIN_LIMIT = 0.05
"""A trigger that moves more images than this without any poison has power of its own."""
FEW_IMAGES = 100
"""With fewer test images an interval spans twenty points."""
POISON_COST = 0.05
"""Poison that costs more accuracy than this would be noticed."""
DISAGREE = 20.0
"""Seeds whose odds differ by more than this factor are models of different kinds."""
APART = 0.02
"""... where their shares differ by at least this much."""
NEAR_END = 0.01
"""ASR nearer to 0 or 1 than this in every seed says little of seeds that were not drawn."""
MANY_SEEDS = 10
"""With more seeds than this what is rare is no longer missed easily."""
UNCHANGED_LIMIT = 0.05
"""A trigger that leaves more of the images that count as they are cannot show what the backdoor does."""
ALARMS = 2 * REFUSING
"""A detector that refuses more clean test images than this does not meet images like those its threshold was set on."""
ONE_ANSWER = 0.9
"""Share of the clean images of other classes that a model takes for one class, above which it hardly looks at them."""


def flags_of_row(
    run: RunRecord,
    row: RecordedRow,
    by_seed: Mapping[int, Outcomes],
    measures: Mapping[str, Measure],
    part: Counted | None = None,
) -> Iterator[str]:
    """Everything about one row of a run that a reader must know before believing its numbers.

    Args:
        run: The run.
        row: One of the rows of its plan.
        by_seed: Outcomes of the seeds that count.
        measures: What they give.
        part: What counts of the row, where that is known already.
    """
    part = part or counted_part(run, row)
    yield from _of_the_run(run, row, len(by_seed), min(part.finished, len(by_seed)), part.missing)
    yield from part.flags
    yield from _of_asked(run, row, list(by_seed))
    yield from _of_damage(run, row)
    tries = [tried for seed in part.row.seeds for tried in _of_seed(run, seed, by_seed.get(seed.seed))]
    yield from flags_of_tries(tries)
    yield from _of_few_images(list(by_seed.values()))
    yield from _of_the_poison(run, part.row)
    yield from _of_the_filters(run, row)
    yield from _of_the_seeds(list(by_seed.values()))
    yield from _of_the_numbers(list(by_seed.values()), measures)


def flags_of_metrics(left_out: Mapping[str, str]) -> Iterator[str]:
    """What the table does not hold though the plan asks for it: names of metrics with the reason."""
    for name, reason in left_out.items():
        yield f"metric left out: {name}: {reason}"


def flags_of_model(
    answers: Answers, questions: Sequence[RecordedQuestion], outcomes: Outcomes, measures: Mapping[str, Measure]
) -> Iterator[str]:
    """As `flags_of_row`, of one model that belongs to no run."""
    yield from flags_of_tries([tried_of(answers, questions, outcomes)])
    yield from _of_few_images([outcomes])
    yield from _of_the_trigger([_unchanged(answers, questions, outcomes.target, outcomes.aims)])
    yield from _of_the_numbers([outcomes], measures)


def _of_seed(run: RunRecord, seed: RecordedSeed, outcomes: Outcomes | None) -> Iterator[Tried]:
    """What is recorded of one model; nothing before its clean evaluation is done."""
    answers = run.cell(seed.cell.fingerprint).answers_to(seed.cell)
    if answers is not None:
        yield tried_of(answers, seed.cell.questions, outcomes)


def _of_the_run(run: RunRecord, row: RecordedRow, seeds: int, finished: int, missing: Sequence[str]) -> Iterator[str]:
    planned = len(row.seeds)
    if finished < planned:
        without = f", without {joined(missing)}" if missing else ""
        some = f"; the numbers are of the answers so far{without}" if seeds > finished else ""
        yield f"unfinished: {finished} of {count(planned, 'seed')} finished{some}"
    for seed in row.seeds:
        for cell, who in ((seed.cell, "seed"), (seed.twin, "twin of seed")):
            failure = None if cell is None else run.cell(cell.fingerprint).failure()
            if failure is not None:
                yield f"failed: {who} {seed.seed}: {failure}"
    if came_as_it_is(row.settings):
        return
    if planned == 1 and seeds == 1:
        yield "one seed: the interval leaves out the doubt from training anew"
    elif seeds == 2:
        yield "two seeds: intervals over seeds are very wide"


def _of_asked(run: RunRecord, row: RecordedRow, seeds: Sequence[int]) -> Iterator[str]:
    try:
        yield from flags_of_asked(run, row, seeds)
    except DamagedError as error:
        yield f"damaged: {error.path.name}: {error.reason}"


def _of_damage(run: RunRecord, row: RecordedRow) -> Iterator[str]:
    """Files of the row's models that are not what was written, of those that were read for the table."""
    for seed in row.seeds:
        for cell, who in ((seed.cell, "seed"), (seed.twin, "twin of seed")):
            for error in () if cell is None else run.cell(cell.fingerprint).damaged():
                file = error.path.relative_to(run.path).as_posix()
                yield f"damaged: {who} {seed.seed}: {file}: {error.reason}; left out until `bascule run` makes it again"


def _of_the_seeds(per_seed: Sequence[Outcomes]) -> Iterator[str]:
    """Where several seeds are too few for the interval to be believed: docs/statistics.md."""
    kinds: dict[str, Metric] = {"accuracy": Accuracy(), "robust accuracy": RobustAccuracy(), "ASR": Asr()}
    for name, metric in kinds.items():
        samples = [sample for one in per_seed if (sample := metric.per_sample(one)) is not None and len(sample)]
        if len(samples) < 2:
            continue
        shares = [share_of(sample) for sample in samples]
        odds = [(sample.sum() + 0.5) / (len(sample) - sample.sum() + 0.5) for sample in samples]
        if max(odds) > DISAGREE * min(odds) and max(shares) - min(shares) > APART:
            yield (
                f"seeds disagree: {name} is {100 * min(shares):.1f} % in one seed and {100 * max(shares):.1f} % in "
                f"another, so the mean describes neither"
            )
        low, high = max(shares) < NEAR_END, min(shares) > 1 - NEAR_END
        if name == "ASR" and len(samples) <= MANY_SEEDS and (low or high):
            unseen = 1 - 0.05 ** (1 / len(samples))
            yield (
                f"unseen seeds: ASR is {'under 1' if low else 'over 99'} % in all {len(samples)} seeds; that up to "
                f"{100 * unseen:.0f} % of trainings turn out otherwise is not ruled out, nor in the interval"
            )


def _of_few_images(per_seed: Sequence[Outcomes]) -> Iterator[str]:
    images = min((len(outcomes.label) for outcomes in per_seed), default=FEW_IMAGES)
    if images < FEW_IMAGES:
        yield f"few images: {count(images, 'test image')}"


def _of_the_poison(run: RunRecord, row: RecordedRow) -> Iterator[str]:
    """Poison that is not there or does nothing, and twins that may not be without it."""
    settings, cells = row.settings, [seed.cell for seed in row.seeds]
    known = [(cell, answers) for cell in cells if (answers := run.cell(cell.fingerprint).answers_to(cell)) is not None]
    yield from _of_the_trigger([_unchanged(answers, cell.questions, row.target, row.aims) for cell, answers in known])
    trained = settings.get("train") is not None
    infos = [run.cell(cell.fingerprint).info() for cell in cells]
    if trained and any("poisoned" in info and info["poisoned"] is None for info in infos):
        yield (
            "nothing planted: there are no pictures of training images, so the training set is taken as it is, for one "
            "that is poisoned already; if it is not, this model saw no poison"
        )
    if trained and (settings.get("model") or {}).get("weights") and any(seed.twin is not None for seed in row.seeds):
        yield "twin from the same weights: it began with the same file, and has whatever backdoor that has"


def _of_the_trigger(unchanged: Sequence[float]) -> Iterator[str]:
    if unchanged and max(unchanged) > UNCHANGED_LIMIT:
        share = f"{100 * max(unchanged):.0f} %"
        yield f"trigger changes nothing: {share} of the test images that count in ASR are the same with it"


def _unchanged(
    answers: Answers, questions: Sequence[RecordedQuestion], target: int | None, aims: Sequence[int] | None
) -> float:
    """Share of the test images that are meant to move that the trigger leaves as they are."""
    (key,) = [question.key for question in questions if question.kind == "triggered"] or [""]
    counts = answers.notes[key].get("unchanged", []) if key in answers.predictions else []
    meant, which = (Outcomes(label=y, target=target, aims=aims).meant for y in (answers.label, np.arange(len(counts))))
    return sum(itertools.compress(counts, which)) / int(meant.sum()) if meant.any() else 0.0


def _of_the_filters(run: RunRecord, row: RecordedRow) -> Iterator[str]:
    """Filters that removed nothing, or could not."""
    notes: dict[str, int] = {}
    idle, unknown = 0, False
    for seed in row.seeds:
        known = run.cell(seed.cell.fingerprint).evaluations()
        made = known.get(FILTERED, {})
        idle += made.get("removed") == 0
        asked = [known.get(question.key, {}) for question in seed.cell.of("inspect")]
        said = [made, known.get(ISOLATED, {}), *asked]
        unknown = unknown or any("truth" in part and part["truth"] is None for part in said)
        for note in dict.fromkeys(itertools.chain.from_iterable(part.get("notes", []) for part in [made, *asked])):
            notes[note] = notes.get(note, 0) + 1
    seeds = len(row.seeds)
    if idle:
        many = f"{idle} of {count(seeds, 'seed')}"
        yield f"filter removed nothing: {many} were trained on the whole set, as without a filter"
    if unknown:
        yield "truth unknown: nobody says which training images are poisoned, so what filters find cannot be measured"
    for note, times in notes.items():
        yield f"filter rule could not act: {note} ({times} of {count(seeds, 'seed')})"


def _of_the_numbers(per_seed: Sequence[Outcomes], measures: Mapping[str, Measure]) -> Iterator[str]:
    twin = measures.get("asr_twin")
    if twin is not None and twin.value is not None and twin.value > TWIN_LIMIT:
        yield (
            f"power of its own: the trigger alone moves {100 * twin.value:.0f} % of a clean model's images, so ASR "
            f"overstates the backdoor"
        )
    yield from _of_one_answer(per_seed)
    yield from _of_the_detector(per_seed)
    yield from _of_the_sleep(per_seed)
    yield from _of_the_aims(per_seed, measures)
    accuracy, robust = (getattr(measures.get(name), "value", None) for name in ("accuracy", "robust_accuracy"))
    if accuracy is not None and robust is not None and robust > accuracy:
        yield "robust accuracy above accuracy: the evaluation is wrong"
    costs = [
        float(np.mean(one.twin.clean == one.label) - np.mean(one.clean == one.label))
        for one in per_seed
        if one.twin is not None and one.twin.clean is not None and one.clean is not None
    ]
    if costs and float(np.mean(costs)) > POISON_COST:
        yield f"poison costs accuracy: {100 * float(np.mean(costs)):.1f} points against the twin; it would be noticed"


def _of_one_answer(per_seed: Sequence[Outcomes]) -> Iterator[str]:
    """The model that takes nearly everything for one class, with no trigger and no attack; the worst of the seeds."""
    answers = [(*_one_answer(one.label, one.clean), one.target) for one in per_seed if one.clean is not None]
    share, answer, target = max(answers, key=lambda one: one[0], default=(0.0, 0, None))
    if share > ONE_ANSWER:
        asr = ", the target, so ASR says nothing of a backdoor" if answer == target else ""
        yield f"one answer: {100 * share:.0f} % of the clean images of other classes are taken for class {answer}{asr}"


def _of_the_detector(per_seed: Sequence[Outcomes]) -> Iterator[str]:
    """The detector that refuses clean test images far more often than it was set to; the mean of the seeds."""
    alarms = [one.detection.refused("benign") for one in per_seed if one.detection is not None]
    shares = [share_of(refused) for refused in alarms if len(refused)]
    if shares and float(np.mean(shares)) > ALARMS:
        refused, asked = 100 * float(np.mean(shares)), 100 * REFUSING
        yield f"detector refuses more than asked: {refused:.1f} % of the clean test images, set to {asked:.0f} %"


def _one_answer(label: Labels, clean: Labels) -> tuple[float, int]:
    """The class given most often, and the share of the images of other classes that are taken for it."""
    classes, counts = np.unique(clean, return_counts=True)
    answer = int(classes[counts.argmax()]) if len(classes) else 0
    others = clean[label != answer]
    return (float((others == answer).mean()) if len(others) else 0.0), answer


def _of_the_aims(per_seed: Sequence[Outcomes], measures: Mapping[str, Measure]) -> Iterator[str]:
    """Metrics that say nothing of the row's sort of poison."""
    poisoned = [one for one in per_seed if one.aimed is not None]
    if not poisoned:
        return
    several = poisoned[0].target is None
    if "asr_others" in measures and (several or poisoned[0].aims is None):
        yield "metric does not apply: asr_others: the trigger is meant to move all classes, so there are no others"
    if "scan_overlap" in measures and several:
        yield "metric does not apply: scan_overlap: every class is a target, so there is no mask of the one target"


def _of_the_sleep(per_seed: Sequence[Outcomes]) -> Iterator[str]:
    """An ASR that a little further training multiplies, though not the twin's."""
    for poisoned, what in ((False, "clean images alone"), (True, "a few poisoned images")):
        found = woken(dict(enumerate(per_seed)), poisoned=poisoned)
        if found is not None and found.more > MUCH:
            shares = (found.rise.before, found.rise.after, found.of_twin.after)
            before, after, twin = (f"{100 * (share or 0.0):.0f} %" for share in shares)
            yield f"backdoor sleeps: ASR is {before}; after some training on {what} {after}, that of the twin {twin}"
