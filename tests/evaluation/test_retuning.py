"""A copy of the model, trained a little further: on which images, and what is left alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from bascule.core.errors import RequestError
from bascule.core.images import Images, Splits
from bascule.evaluation.question import EvaluationSettings, Question
from bascule.evaluation.retuning import Retuning
from bascule.evaluation.run import answer_questions, questions_of
from bascule.evaluation.subject import Subject
from bascule.triggers.aims import aim_of, all_to_all
from bascule.triggers.sticker import Sticker

SMALL = Retuning(images=6, poisoned=2, label="dirty", batch_size=3, epochs=2)


def images(labels: tuple[int, ...] = (0, 1, 2, 7, 7, 7, 0, 1)) -> Images:
    """Black ones."""
    count = len(labels)
    return Images(
        pixels=torch.zeros(count, 1, 4, 4, dtype=torch.uint8),
        labels=torch.tensor(labels),
        ids=torch.arange(count) + 10,
        classes=tuple(map(str, range(8))),
    )


def drawn(retuning: Retuning, of: Images, *, aims: Any = None, seed: int = 0) -> tuple[Images, torch.Tensor]:
    """The images, and which of them are stamped."""
    target = 7 if aims is None else None
    generator = torch.Generator().manual_seed(seed)
    found = retuning.draw(of, aim_of(of.labels, target, aims), Sticker(size=2), generator=generator)
    stamped = found.batch(torch.arange(len(found))).flatten(1).amax(1) > 0
    return found, stamped


@pytest.mark.parametrize("seed", range(4))
def test_a_few_of_the_images_are_stamped_and_relabelled(seed: int) -> None:
    clean = images()
    found, stamped = drawn(SMALL, clean, seed=seed)
    assert (len(found), int(stamped.sum())) == (6, 2)
    assert len(set(found.ids.tolist())) == 6
    before = clean.labels[found.ids - 10]
    assert found.labels[stamped].tolist() == [7, 7]
    assert bool((before[stamped] != 7).all())
    assert found.labels[~stamped].tolist() == before[~stamped].tolist()
    assert int(clean.batch(torch.arange(8)).sum()) == 0, "the clean images are left alone"


def test_clean_label_images_keep_theirs() -> None:
    found, stamped = drawn(replace(SMALL, label="clean"), images())
    assert found.labels[stamped].tolist() == [7, 7]
    assert bool((images().labels[found.ids[stamped] - 10] == 7).all())


def test_all_to_all_images_get_the_next_label() -> None:
    clean = images()
    found, stamped = drawn(replace(SMALL, poisoned=6), clean, aims=all_to_all(8))
    assert bool(stamped.all())
    assert found.labels.tolist() == ((clean.labels[found.ids - 10] + 1) % 8).tolist()


def test_without_poison_all_stay_as_they_are() -> None:
    found, stamped = drawn(replace(SMALL, poisoned=0, label=None), images())
    assert (len(found), int(stamped.sum())) == (6, 0)
    assert found.labels.tolist() == images().labels[found.ids - 10].tolist()


@pytest.mark.parametrize(
    ("retuning", "of", "expected"),
    [
        (SMALL, images((0, 1, 2)), "retune.images: 6 asked for; there are 3 clean images"),
        (SMALL, images((7,) * 5 + (0,)), "retune.poisoned: 2 asked for; there are 1 clean image that dirty-label"),
        (replace(SMALL, label="clean"), images((0,) * 6), "there are 0 clean images that clean-label poison may stamp"),
    ],
)
def test_too_few_images_are_said(retuning: Retuning, of: Images, expected: str) -> None:
    with pytest.raises(RequestError, match=expected):
        drawn(retuning, of)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"poisoned": 7}, "poisoned: 7 of 6 images cannot be"),
        ({"images": 0}, "images"),
        ({"lr": 0.0}, "lr"),
        ({"epochs": 0}, "epochs"),
        ({"label": "all-to-all"}, "label"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(RequestError, match=expected):
        replace(SMALL, **change)


# --- questions --------------------------------------------------------------------------------------------------------


def asked(retune: Retuning | None, **changes: Any) -> tuple[Question, ...]:
    settings = EvaluationSettings(test="of these", trigger=Sticker(size=2), target=7, retune=retune)
    return questions_of(replace(settings, **changes))


def keys(retune: Retuning | None, **changes: Any) -> dict[tuple[str, float | None], str]:
    return {(one.kind, one.value): one.key for one in asked(retune, **changes) if one.kind.startswith("retuned")}


def test_what_is_asked() -> None:
    assert list(keys(SMALL)) == [
        ("retuned-triggered", 2.0),
        ("retuned-triggered", 0.0),
        ("retuned", 2.0),
        ("retuned", 0.0),
    ]
    assert list(keys(replace(SMALL, poisoned=0))) == [("retuned-triggered", 0.0), ("retuned", 0.0)]
    assert keys(None) == keys(SMALL, trigger=None, target=None) == {}
    twin = EvaluationSettings(test="of these", trigger=Sticker(size=2), target=7, retune=SMALL).for_twin()
    assert {one.key for one in questions_of(twin)} >= set(keys(SMALL).values()), "the twin is retuned alike"


@pytest.mark.parametrize(
    "change",
    [{"images": 5}, {"poisoned": 1}, {"label": "clean"}, {"epochs": 3}, {"batch_size": 2}, {"lr": 0.02}],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_is_in_the_key(change: dict[str, Any]) -> None:
    before, after = keys(SMALL), keys(replace(SMALL, **change))
    of_poison = next(iter(change)) in ("poisoned", "label")
    for kind in ("retuned-triggered", "retuned"):
        assert before[kind, 2.0] not in after.values()
        assert (before[kind, 0.0] in after.values()) == of_poison, "clean images know neither label nor count"


def test_trigger_and_target_are_in_the_key() -> None:
    known = set(keys(SMALL).values())
    for other in ({"trigger": Sticker(size=3)}, {"target": 3}, {"test": "of others"}):
        assert not known & set(keys(SMALL, **other).values())


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def subject(trained, digits: Splits) -> Subject:
    return Subject(
        model=trained.model,
        test=digits.test.at(torch.arange(60)),
        seed=0,
        questions=asked(Retuning(images=64, poisoned=8, label="dirty", batch_size=16, epochs=4)),
        clean=lambda: digits.train.at(torch.arange(200)),
    )


def test_the_model_is_left_alone_and_the_copy_is_another(subject: Subject) -> None:
    before, gradients = copy.deepcopy(subject.model.state_dict()), [p.grad for p in subject.model.parameters()]
    answers = {question.key: answer for question, answer in answer_questions(subject, subject.questions)}
    for name, value in subject.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is was for p, was in zip(subject.model.parameters(), gradients, strict=True))
    assert all(p.requires_grad for p in subject.model.parameters())
    assert len(subject.copies) == 2, "one copy with poison, one without, each made once"
    for made in subject.copies.values():
        assert not made.training
        assert any(not torch.equal(value, before[name]) for name, value in made.state_dict().items())
    # Whoever asks one of them alone gets the same.
    for question in subject.questions:
        if question.kind.startswith("retuned"):
            alone = replace(subject, copies={})
            ((_, answer),) = answer_questions(alone, [question])
            assert answer.column is not None
            assert torch.equal(answer.column, answers[question.key].column)  # type: ignore[arg-type]


def test_without_clean_images_it_is_said(subject: Subject) -> None:
    alone = replace(subject, clean=None)
    question = next(one for one in alone.questions if one.kind == "retuned-triggered")
    with pytest.raises(RequestError, match="this needs clean images to train on, which are not known here"):
        list(answer_questions(alone, [question]))


def test_training_that_does_not_stay_finite_says_what_it_was(subject: Subject) -> None:
    wild = Retuning(images=64, poisoned=8, label="dirty", batch_size=16, epochs=4, lr=1e20)
    alone = replace(subject, questions=asked(wild), copies={})
    question = next(one for one in alone.questions if one.kind == "retuned-triggered")
    with pytest.raises(RuntimeError, match="retune: training diverged at step"):
        list(answer_questions(alone, [question]))
