"""Every kind of question, found in its folder: what it asks, and that it answers alike whenever it is asked."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bascule.attacks.fgsm import Fgsm
from bascule.attacks.pgd import Pgd
from bascule.certifiers.interval import Interval
from bascule.core import catalog
from bascule.core.images import Images
from bascule.detectors.contract import Detector, Prepared
from bascule.evaluation import inputs
from bascule.evaluation.kinds import detect, kinds
from bascule.evaluation.question import Asking, EvaluationSettings, Question
from bascule.evaluation.retuning import Retuning
from bascule.evaluation.run import answer_questions, questions_of
from bascule.evaluation.subject import Answer, Subject
from bascule.metrics.contract import MISSING
from bascule.metrics.detection import SORTS, Detection
from bascule.metrics.needs import keys_of
from bascule.record.answers import Finding
from bascule.record.outcomes import detection_of
from bascule.triggers.placement import Poison
from bascule.triggers.sticker import Sticker

TARGET = 1
ORDER = (
    *("clean", "triggered", "attack", "attack-triggered", "toward", "away", "attack-then-trigger"),
    *("strength", "curve", "certify", "inspect", "scan", "explain"),
)
"""That of the first kinds, which a record keeps; further ones may stand between them."""


class Bright(nn.Module):
    """Class 1 is whether the first pixel is brighter than a half, by hand: its margin is twice the distance to it."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x[:, 0, 0, 0] - 0.5
        return torch.stack([-bright, bright], dim=1)


LEVELS = [0.1, 0.3, 0.45, 0.6, 0.9, 0.2]
LABELS = [0, 0, 0, 1, 1, 1]
"""The last image is wrong: dark, and yet of class 1."""


def images(levels: Iterable[float] = LEVELS, labels: Iterable[int] = LABELS) -> Images:
    pixels = (torch.tensor(list(levels)) * 255).round().to(torch.uint8).reshape(-1, 1, 1, 1).repeat(1, 1, 4, 4)
    labels = torch.tensor(list(labels))
    return Images(pixels=pixels, labels=labels, ids=torch.arange(len(labels)), classes=("dark", "bright"))


class Everything:
    """Stands for a metric that wants every kind of question."""

    needs = tuple(kinds())


def settings(**changes: Any) -> EvaluationSettings:
    asked = EvaluationSettings(
        test="of these images", attack=(Fgsm(eps=0.08), Pgd(eps=0.15, steps=4)), trigger=Sticker(size=4), target=TARGET,
        metrics={"everything": Everything()},  # type: ignore[dict-item]
    )  # fmt: skip
    return replace(asked, **changes)


def subject(asked: EvaluationSettings, **changes: Any) -> Subject:
    given = {"model": Bright().eval(), "test": images(), "seed": 3, "questions": questions_of(asked)}
    return Subject(**(given | changes))


def columns(asked: EvaluationSettings, **changes: Any) -> dict[str, list[list[float]]]:
    """All columns by kind."""
    of = subject(asked, **changes)
    by_kind: dict[str, list[list[float]]] = {}
    for question, answer in answer_questions(of, of.questions):
        if answer.column is not None:
            by_kind.setdefault(question.kind, []).append(answer.column.tolist())
    return by_kind


# --- the contract -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def all_asked() -> EvaluationSettings:
    """Questions of every kind, about digits."""
    return settings(
        attack=(Pgd(eps=0.1, steps=2),),
        trigger=Sticker(size=2),
        target=7,
        others=((Sticker(size=3), 3, None),),
        curve=(0.05, 0.2),
        certify=(Interval(eps=0.001),),
        inspect=catalog.build("filter", "spectral-signatures"),
        scan=catalog.build("scan", {"name": "neural-cleanse", "max_looks": 1}),
        detect=catalog.build("detect", {"name": "strip", "overlays": 2}),
        explain=(catalog.build("explain", "saliency"), catalog.build("explain", "fourier")),
        retune=Retuning(images=30, poisoned=3, batch_size=10, epochs=2),
    )


@pytest.fixture
def of_digits(trained, digits, all_asked: EvaluationSettings) -> Callable[..., Subject]:
    poison = Poison(trigger=Sticker(size=2), target=7, rate=0.02)
    planted = poison.plant(digits.train.at(torch.arange(300)), generator=torch.Generator().manual_seed(0))

    def make(**changes: Any) -> Subject:
        given = {
            "model": trained.model, "test": digits.test.at(torch.arange(40)), "seed": 1,
            "questions": questions_of(all_asked), "training": lambda: planted,
            "held_out": lambda: digits.test.at(torch.arange(40, 80)),
            "clean": lambda: digits.test.at(torch.arange(40, 80)),
        }  # fmt: skip
        return Subject(**(given | changes))

    return make


def check_kind(name: str, module: ModuleType, of: Callable[..., Subject]) -> None:
    """What every kind keeps: it asks, answers each question for all test images or with arrays, and draws from its own
    stream alone."""
    assert list(inspect.signature(module.ask).parameters) == ["asking"]
    assert list(inspect.signature(module.answer).parameters) == ["question", "subject"]
    first, again = of(), of()
    mine = [question for question in first.questions if question.kind == name]
    assert mine, "asks nothing"
    rest = [question for question in first.questions if question.kind != name]
    for _ in answer_questions(first, [*rest[: _place(first.questions, mine[0])], *mine]):
        pass
    again.predictions.update(first.predictions)
    state = torch.get_rng_state()
    for question in mine:
        answers = [module.answer(question, one) for one in (first, again)]
        for answer in answers:
            assert answer.column is not None or answer.arrays, "says nothing"
            if answer.column is not None:
                assert answer.column.shape == (len(first.test),)
                assert answer.column.dtype in (torch.int64, torch.float64)
        assert _same(*answers), "answers twice in two ways"
    assert torch.equal(state, torch.get_rng_state()), "draws from the global stream"


def _place(questions: Iterable[Question], question: Question) -> int:
    return next(place for place, one in enumerate(questions) if one.key == question.key)


def _same(first: Answer, second: Answer) -> bool:
    tensors = [
        dict(answer.arrays) | ({} if answer.column is None else {"": answer.column}) for answer in (first, second)
    ]
    one, other = tensors
    return one.keys() == other.keys() and all(
        torch.equal(one[key].nan_to_num(), other[key].nan_to_num()) for key in one
    )


def test_kinds_come_after_what_they_build_on() -> None:
    assert [name for name in kinds() if name in list(ORDER)] == list(ORDER)
    assert [question.kind for question in questions_of(settings())][:3] == ["clean", "triggered", "attack"]


@pytest.mark.parametrize("name", [name for name in kinds() if name != "search"])  # tests/running/test_searched.py
def test_kind(name: str, of_digits: Callable[..., Subject]) -> None:
    module = importlib.import_module(f"bascule.evaluation.kinds.{name.replace('-', '_')}")
    check_kind(name, module, of_digits)


class Nothing:
    """Neither asks nor answers."""

    FOLLOWS = "clean"

    @staticmethod
    def ask(asking: Asking) -> None:
        pass

    @staticmethod
    def answer(question: Question, subject: Subject) -> Answer:
        return Answer()


def test_a_kind_that_does_nothing_fails_the_contract(of_digits: Callable[..., Subject]) -> None:
    with pytest.raises(AssertionError, match="asks nothing"):
        check_kind("nothing", Nothing, of_digits)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="says nothing"):
        check_kind("clean", Nothing, of_digits)  # type: ignore[arg-type]


def test_the_model_is_found_as_it_was(of_digits: Callable[..., Subject], trained) -> None:
    trained.model.train()
    of, gradients = of_digits(), [p.grad for p in trained.model.parameters()]
    try:
        for _ in answer_questions(of, of.questions):
            assert trained.model.training
            assert all(p.requires_grad for p in trained.model.parameters())
            assert all(p.grad is was for p, was in zip(trained.model.parameters(), gradients, strict=True))
    finally:
        trained.model.eval()


def test_a_kind_that_follows_nothing_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from bascule.evaluation.kinds import strength

    monkeypatch.setattr(strength, "FOLLOWS", "awya")
    with pytest.raises(ImportError, match="the kind 'strength' follows 'awya', which is none of"):
        kinds.__wrapped__()


def test_keys_hold_what_can_change_the_answer() -> None:
    keys = {question.key for question in questions_of(settings())}
    assert len(keys) == len(questions_of(settings()))
    assert not keys & {question.key for question in questions_of(settings(test="of others"))}
    larger = questions_of(settings(attack=(Fgsm(eps=0.1), Pgd(eps=0.15, steps=4))))
    kept = {question.kind for question in larger if question.key in keys}
    assert kept == {"clean", "triggered", "strength"}  # a later attack meets what the first one left


# --- answers by hand --------------------------------------------------------------------------------------------------


def test_clean_and_triggered_by_hand() -> None:
    answers = columns(settings())
    assert answers["clean"] == [[0, 0, 0, 1, 1, 0]]
    assert answers["triggered"] == [[1] * 6]  # a white sticker over the whole image


def test_attacks_meet_what_withstood_by_hand() -> None:
    first, second = columns(settings())["attack"]
    assert first == [0, 0, 1, 1, 1, MISSING]  # 0.08 takes 0.45 over a half; the last image was wrong already
    assert second == [0, 0, MISSING, 0, 1, MISSING]  # 0.15 takes 0.6 below


def test_attacks_on_triggered_images_by_hand() -> None:
    # All are bright with the trigger: only those labelled bright are right, and white is 0.5 away from a half.
    assert columns(settings())["attack-triggered"] == [[MISSING] * 3 + [1, 1, 1]] * 2


def test_toward_and_away_by_hand() -> None:
    answers = columns(settings())
    assert answers["toward"] == [[MISSING] * 6]  # the trigger alone takes them all there
    assert answers["away"] == [[1, 1, 1, MISSING, MISSING, MISSING]]  # and 0.08 does not get them away
    weak = columns(settings(trigger=Sticker(size=4, color=0.45)))
    assert weak["triggered"] == [[0] * 6]
    assert weak["toward"] == [[1, 1, 1, MISSING, MISSING, MISSING]]


def test_other_triggers_by_hand() -> None:
    dark, bright = Sticker(size=4, color=0.0), Sticker(size=4)
    others = ((dark, 0, None), (bright, None, (-1, 0)))
    # Black everywhere takes all three bright ones to dark; white takes none there. The dark ones are not to move.
    assert columns(settings(others=others))["triggered-others"] == [
        [MISSING] * 3 + [1, 1, 1],
        [MISSING] * 3 + [0, 0, 0],
    ]


def test_toward_and_away_where_classes_aim_at_each_other_by_hand() -> None:
    # A sticker on one corner that the network does not see: dark at bright, bright at dark.
    found = columns(settings(trigger=Sticker(size=1), target=None, aims=(1, 0)))
    # Pushed by up to 0.08, 0.45 crosses 0.5 and 0.6 does not; 0.2, of class 1, is taken for dark as it is.
    assert found["toward"] == [[0, 0, 1, 1, 1, MISSING]]
    # It is the only one at its aim, and too far from 0.5 to be pushed away.
    assert found["away"] == [[MISSING] * 5 + [0]]


def test_attacked_first_and_stamped_afterwards_by_hand() -> None:
    # The sticker covers whatever the attack did.
    assert columns(settings())["attack-then-trigger"] == [[1] * 6]
    # A quarter of it in the corner leaves the first pixel to the attack: only 0.45 was taken over a half.
    corner = settings(trigger=Sticker(size=2))
    assert columns(corner)["attack-then-trigger"] == [[0, 0, 1, 1, 1, 0]]
    assert columns(corner)["triggered"] == [[0, 0, 0, 1, 1, 0]]


def test_a_weakened_trigger_by_hand() -> None:
    shares = dict(zip(np.arange(1, 10) / 10, columns(settings())["strength"], strict=True))
    for share, prediction in shares.items():
        assert prediction == [int(level + share * (1 - level) > 0.5) for level in LEVELS], share


def test_the_security_curve_by_hand() -> None:
    answers = columns(settings(attack=(Pgd(eps=0.15, steps=4),), curve=(0.02, 0.08, 0.45)))
    larger, smaller, smallest = answers["curve"]  # outwards from 0.15
    assert larger == [1, 1, MISSING, MISSING, 0, MISSING]  # what stood at 0.15
    assert smaller == [MISSING, MISSING, 1, 1, MISSING, MISSING]  # what fell at 0.15: 0.6 stands in 0.08
    assert smallest == [MISSING, MISSING, 0, MISSING, MISSING, MISSING]  # what fell at 0.08


def test_certified_radii_by_hand() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[1].weight.zero_()[:, 0] = torch.tensor([-1.0, 1.0])
        model[1].bias[:] = torch.tensor([0.5, -0.5])
    ((*radii, wrong),) = columns(settings(certify=(Interval(eps=0.12),)), model=model.eval())["certify"]
    assert [radius >= 0.12 for radius in radii] == [True, True, False, False, True]  # 0.45 and 0.6 are too near
    assert wrong == 0


@pytest.mark.parametrize("kind", ["inspect", "scan"])
def test_what_is_not_known_is_said(kind: str, of_digits: Callable[..., Subject]) -> None:
    of = of_digits(training=None, held_out=None)
    question = next(question for question in of.questions if question.kind == kind)
    with pytest.raises(Exception, match="not known here"):
        list(answer_questions(of, [question]))


def test_a_model_without_a_trigger_is_asked_less() -> None:
    asked = settings(trigger=None, target=None)
    assert {question.kind for question in questions_of(asked)} == {"clean", "attack"}


# --- a detector at the door -------------------------------------------------------------------------------------------


@catalog.component
class Second(Detector):
    """How bright the last pixel is."""

    def prepare(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Prepared:
        return Prepared(suspicion=lambda x: x[:, 0, 3, 3])


def detected(asked: EvaluationSettings, **changes: Any) -> Detection:
    """What the detector said, as metrics see it."""
    clean = images([level / 200 for level in range(100)], [0] * 100)
    of = subject(asked, **{"held_out": lambda: clean, **changes})
    for question, answer in answer_questions(of, of.questions):
        if question.kind == "detect":
            return detection_of(Finding(answer.numpy_arrays(), answer.notes), of.test.ids.numpy())
    raise AssertionError("not asked")


def test_a_detector_meets_every_sort_of_input() -> None:
    found = detected(settings(detect=Second()))
    assert list(found.sorts) == list(SORTS)
    assert len(found.calm) == 50
    assert found.thresholds[0] == np.inf  # 1 % would take 99 images
    assert found.thresholds[1] == found.calm[48]  # ceil(51 * 0.95) = 49
    benign, adversarial, evading = (found.sorts[name] for name in ("benign", "adversarial", "evading"))
    np.testing.assert_allclose(benign.suspicion, LEVELS, atol=1 / 255)
    assert benign.prediction.tolist() == [0, 0, 0, 1, 1, 0]
    # `fgsm` of 0.08 moves what lies nearer to a half than that; the last image is wrong and needs no attack.
    assert adversarial.prediction.tolist() == [0, 0, 1, 1, 1, 0]
    assert adversarial.suspicion[5] == benign.suspicion[5]
    assert evading.prediction.tolist() == [0, 0, 1, 1, 1, 0]
    assert found.sorts["triggered"].prediction.tolist() == [1] * 6
    # Of class 0 are the first three, and nothing else is meant to move.
    assert found.sorts["both"].prediction.tolist() == [1, 1, 1, MISSING, MISSING, MISSING]
    assert found.sorts["both"].made.tolist() == [True] * 3 + [False] * 3
    assert found.sorts["both_evading"].made.tolist() == [True] * 3 + [False] * 3


def test_adversarial_inputs_are_those_behind_robust_accuracy(of_digits, all_asked: EvaluationSettings) -> None:
    of = of_digits()
    answers = {question.kind: answer for question, answer in answer_questions(of, of.questions)}
    attacked, made = answers["attack"].column, answers["detect"].arrays["adversarial_prediction"]
    assert attacked is not None
    met = attacked != MISSING
    assert met.sum() > 10
    assert torch.equal(made[met], attacked[met])


@catalog.component
class Pair(Detector):
    """How bright the first two pixels are; the model looks at the first alone."""

    def prepare(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Prepared:
        return Prepared(suspicion=lambda x: x[:, 0, 0, :2].mean(1))


def test_an_attacker_who_knows_the_detector_is_not_refused() -> None:
    """The third image, at 0.45: `fgsm` brightens the first pixel, which is seen; darkening the second one hides it."""
    found = detected(settings(detect=Pair(), attack=(Fgsm(eps=0.1),)))
    for sort, refused in (("adversarial", True), ("evading", False)):
        assert found.sorts[sort].prediction[2] == 1
        assert found.refused(sort)[2] == refused


def test_without_a_trigger_or_a_ball_there_are_fewer_sorts() -> None:
    plain = detected(settings(detect=Second(), trigger=None, target=None, metrics={}))
    assert list(plain.sorts) == ["benign", "adversarial", "evading"]
    boundless = catalog.build("attack", {"name": "spatial", "search": "random", "tries": 1, "pixels": 1})
    assert list(detected(settings(detect=Second(), attack=(boundless,))).sorts) == list(SORTS[:4])
    assert list(detected(settings(detect=Second(), attack=())).sorts) == list(SORTS[:2])


def test_a_detectors_key_holds_its_attack_and_the_defenders_images() -> None:
    def key(**changes: Any) -> str:
        (question,) = [one for one in questions_of(settings(detect=Second(), **changes)) if one.kind == "detect"]
        return question.key

    keys = {key(), key(attack=(Fgsm(eps=0.1),)), key(defender=60), key(trigger=Sticker(size=2)), key(target=0)}
    assert len(keys) == 5
    assert key(attack=(Fgsm(eps=0.08),)) == key()  # a later attack is not run again


def test_neither_attack_nor_trigger_moves_a_detectors_thresholds() -> None:
    """What the defender does with his images is his own: the same half of them is calm whoever attacks."""
    asked = [
        settings(detect=Second()),
        settings(detect=Second(), attack=()),
        settings(detect=Second(), trigger=None, target=None, metrics={}),
    ]
    first, *others = [detected(one) for one in asked]
    for other in others:
        assert np.array_equal(other.calm, first.calm)
        assert np.array_equal(other.thresholds, first.thresholds)
    assert len(np.unique(first.calm)) > 1


class Met(NamedTuple):
    """What two detectors met, and how many attacks were run for it."""

    found: list[Detection]
    attacks: int


def both_detected(monkeypatch: pytest.MonkeyPatch, seen: dict[str, list[Tensor]]) -> Met:
    """Two detectors at one model, under an attack that draws."""

    @catalog.component
    class Noting(Detector):
        """Bright pixels; notes what it is shown."""

        pixel: int

        def prepare(self, model: nn.Module, images: Images, *, generator: torch.Generator) -> Prepared:
            def suspicion(x: Tensor) -> Tensor:
                seen.setdefault(str(self.pixel), []).append(x.detach().clone())
                return x[:, 0, 3, self.pixel]

            return Prepared(suspicion=suspicion)

    run, calls = inputs.run_attack, []

    def counted(*given: Any, **more: Any) -> Any:
        calls.append(given)
        return run(*given, **more)

    monkeypatch.setattr(inputs, "run_attack", counted)
    monkeypatch.setattr(detect, "EVADED", 0)  # whoever evades one meets it with images of his own
    asked = [settings(detect=Noting(pixel=pixel), attack=(Pgd(eps=0.05, steps=1),)) for pixel in (2, 3)]
    questions = {question.key: question for one in asked for question in questions_of(one)}
    clean = images([level / 200 for level in range(100)], [0] * 100)
    of = subject(asked[0], questions=tuple(questions.values()), held_out=lambda: clean)
    found = [
        detection_of(Finding(answer.numpy_arrays(), answer.notes), of.test.ids.numpy())
        for question, answer in answer_questions(of, of.questions)
        if question.kind == "detect"
    ]
    return Met(found, len(calls))


def test_detectors_are_compared_on_the_same_images_which_are_attacked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[Tensor]] = {}
    met = both_detected(monkeypatch, seen)
    assert met.attacks == 2  # away from the truth, and with the trigger towards the target
    first, second = (torch.cat(shown) for shown in seen.values())
    assert torch.equal(first, second)
    for sort in ("adversarial", "both"):
        assert np.array_equal(*(found.sorts[sort].prediction for found in met.found))


def test_images_that_take_too_much_memory_are_made_again_and_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, again = {}, {}
    once = both_detected(monkeypatch, kept)
    monkeypatch.undo()
    monkeypatch.setattr(inputs, "_KEPT", 0)
    twice = both_detected(monkeypatch, again)
    assert (once.attacks, twice.attacks) == (2, 4)
    for name, shown in kept.items():
        assert all(torch.equal(one, other) for one, other in zip(shown, again[name], strict=True))


def test_no_answer_about_other_images_is_taken_for_one_of_these() -> None:
    """Detectors met triggered and attacked images of their own once; without these, answers are what they were."""
    asked = settings(detect=Second())
    (question,) = [one for one in questions_of(asked) if one.kind == "detect"]
    asking = Asking(asked)
    about = {"stamped": question.stamped, "attacked": question.attacked, **asked.aim}
    old = asking.ask("detect", Second(), asking.of("clean"), **about)
    assert old.key != question.key


@pytest.mark.parametrize("kind", [kind for kind in kinds() if kind not in ("clean", "search")])
def test_a_kind_is_asked_where_its_keys_are_given_and_nowhere_else(kind: str, all_asked: EvaluationSettings) -> None:
    """Messages say which keys of a study a metric needs."""
    without = {
        "poison": {"trigger": None, "target": None, "others": ()},
        "several": {"others": ()},
        "attack": {"attack": (), "curve": ()},
        **{key: {key: ()} for key in ("curve", "certify", "explain")},
        **{key: {key: None} for key in ("inspect", "scan", "detect", "retune")},
    }
    for key, changes in without.items():
        asked = {question.kind for question in questions_of(replace(all_asked, **changes))}
        needed = keys_of([kind])
        assert (kind in asked) == (key not in needed and not ("several" in needed and key == "poison")), key


def test_detections_are_joined_by_the_ids_of_the_images() -> None:
    arrays = {
        "id": np.array([5, 2, 9]), "calm": np.zeros(1, dtype=np.float32), "thresholds": np.zeros(2, dtype=np.float32),
        "benign_suspicion": np.array([0.5, 0.2, 0.9], dtype=np.float32), "benign_prediction": np.array([50, 20, 90]),
    }  # fmt: skip
    benign = detection_of(Finding(arrays, {}), np.array([2, 3, 9, 5])).sorts["benign"]
    assert benign.prediction.tolist() == [20, MISSING, 90, 50]
    assert benign.made.tolist() == [True, False, True, True]
