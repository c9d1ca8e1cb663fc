"""What would be done nothing with, or could not hold, is refused in one sentence."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import bascule
from bascule import RequestError
from bascule.attacks.contract import Evasion
from bascule.core import catalog


@pytest.fixture
def some(trained, digits) -> tuple[nn.Module, Tensor, Tensor]:
    return copy.deepcopy(trained.model), digits.test.pixels[:60], digits.test.labels[:60]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"target": 3}, "target: nothing is done with it without `trigger`"),
        ({"attack_precision": "mixed"}, "attack_precision: .* not without an attack"),
        (
            {"attack": {"name": "square", "eps": 0.1}, "attack_precision": "mixed"},
            "attack_precision: .* not with square",
        ),
        ({"attack": [bascule.attacks.Pgd]}, r"attack: Pgd is a class: give one .* Pgd\(...\), or its name"),
        ({"attack": Evasion}, "attack: Evasion is abstract"),
        ({"trigger": bascule.attacks.Pgd(eps=0.1), "target": 3}, "trigger: expected one of the kind 'poison', got Pgd"),
        ({"measure": [3]}, "measure: expected a name"),
    ],
)
def test_of_an_evaluation(some, given: dict[str, Any], text: str) -> None:
    with pytest.raises(RequestError, match=text):
        bascule.evaluate(*some, **given)


def test_what_is_given_by_position(some) -> None:
    with pytest.raises(
        RequestError, match=r"evaluate takes model, x and y by position; give what is more as attack=\.\.\."
    ):
        bascule.evaluate(*some, ["nope"])  # type: ignore[misc]


PARTS = {
    "perturb": "attack", "certify": "certifier", "filter": "filter", "scan": "scanner", "detect": "detector",
    "repair": "repair",
}  # fmt: skip


@pytest.mark.parametrize("verb", PARTS)
def test_a_verb_without_its_part_says_what_there_is(some, verb: str) -> None:
    part, call = PARTS[verb], getattr(bascule, verb)
    kind = {"perturb": "attack"}.get(verb, verb)
    with pytest.raises(RequestError) as raised:
        call(*some)
    text = str(raised.value)
    assert re.match(rf'bascule\.{verb} needs {part} too, as in bascule\.{verb}\(model, x, y, "[\w-]+"\)', text)
    (example,) = re.findall(r'"(.*)"', text)
    assert example in catalog.names(kind)
    assert all(name in text for name in catalog.names(kind))
    with pytest.raises(RequestError, match=rf"needs y and {part} too, .*; y is None where x is a data set"):
        call(*some[:2])


def test_other_calls_that_do_not_fit(some) -> None:
    with pytest.raises(RequestError, match=r"bascule\.train needs y and epochs too, as in .*, epochs=\.\.\.\)"):
        bascule.train(*some[:2])  # type: ignore[call-arg]
    with pytest.raises(RequestError, match=r"needs epochs too, .*; epoch is no argument of it: did you mean epochs"):
        bascule.train(*some, epoch=1)  # type: ignore[call-arg]
    with pytest.raises(RequestError, match=r"the key 'eps' is missing \(number, at least 0\): Radius of the ball in"):
        bascule.perturb(*some, "pgd")
    with pytest.raises(
        RequestError, match=r"unknown argument of bascule\.evaluate 'attacks'\. Did you mean 'attack'\?"
    ):
        bascule.evaluate(*some, attacks="pgd")  # type: ignore[call-arg]
    with pytest.raises(RequestError, match=r"bascule\.scan: multiple values for argument 'y'"):
        bascule.scan(*some, "mm-bd", y=some[2])  # type: ignore[misc]


@pytest.mark.parametrize("verb", ["evaluate", "train", *PARTS])
def test_channels_last_are_told_also_where_the_model_flattens(digits, verb: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    x = digits.test.pixels[:20].permute(0, 2, 3, 1)
    kind = {"perturb": "attack"}.get(verb, verb)
    part = {"train": ["standard"], "evaluate": []}[verb] if verb not in PARTS else [catalog.names(kind)[0]]
    more = {"train": {"epochs": 1}, "certify": {"eps": 0.1}, "perturb": {"eps": 0.1}}.get(verb, {})
    text = r"x: images must be N x C x H x W, got shape \(20, 8, 8, 1\): the channels come last; give x\.permute"
    for images in (x, x.float() / 255, x.numpy()):
        with pytest.raises(RequestError, match=text):
            getattr(bascule, verb)(model, images, digits.test.labels[:20], *part, **more)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((20, 8, 8), r"give grey images as x\[:, None\]"),
        ((20, 64), r"give rows of pixels as images, x\.reshape"),
        ((20, 1, 8, 8), r"got int64 of shape .*: give whole numbers from 0 to 255 as uint8"),
    ],
)
def test_other_shapes_and_types_have_a_remedy(shape: tuple[int, ...], text: str) -> None:
    x = torch.zeros(shape) if len(shape) < 4 else torch.zeros(shape, dtype=torch.int64)
    with pytest.raises(RequestError, match=text):
        bascule.evaluate(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), x, torch.arange(20) % 10)


def test_a_model_of_rows_is_told_from_one_of_images(digits) -> None:
    x, y = digits.test.pixels[:20], digits.test.labels[:20]
    text = r"model: cannot take images of 1 x 8 x 8: it takes rows of 64 numbers; give nn\.Sequential\(nn\.Flatten\(\)"
    for call in (bascule.evaluate, lambda *some: bascule.train(*some, epochs=1)):
        with pytest.raises(RequestError, match=text):
            call(nn.Linear(64, 10), x, y)
        with pytest.raises(RequestError, match="its first layer takes 784 numbers, an image has 64"):
            call(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), x, y)


@pytest.mark.parametrize("attack", ["spatial", "composite"])
def test_a_shift_out_of_sight_is_refused(some, attack: str) -> None:
    spatial = {"name": "spatial", "pixels": 8}
    spec = spatial if attack == "spatial" else {"name": "composite", "attacks": [spatial]}
    with pytest.raises(
        RequestError, match=r"attack.*pixels: shifts by up to 8 pixels push images of 8 x 8 out of sight"
    ):
        bascule.perturb(*some, spec)


def test_a_list_of_pictures_is_a_set_of_images(some) -> None:
    model, x, y = some
    expected = bascule.perturb(model, x, y, "fgsm", eps=0.1)
    pictures = [Image.fromarray(one[0].numpy()) for one in x]
    for images in (pictures, list(x), [one[0] for one in x]):
        assert torch.equal(bascule.perturb(model, images, y, "fgsm", eps=0.1), expected)
    with pytest.raises(RequestError, match="x: list: item 1 is 1 x 4 x 4, the first 1 x 8 x 8"):
        bascule.perturb(model, [x[0], x[1, :, :4, :4]], y[:2], "fgsm", eps=0.1)


def test_a_target_without_a_trigger_is_used_where_a_metric_needs_it(some) -> None:
    found = bascule.evaluate(*some, attack={"name": "fgsm", "eps": 0.1}, target=3, measure="drift")
    assert found["drift"].n


def test_a_name_twice(some) -> None:
    with pytest.raises(RequestError, match=r"filter\.name: its name is 'strip' already"):
        bascule.filter(*some, "strip", name="frequency")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"study": "digits", "name": "mine"}, "name: a study that is no mapping has its name"),
        ({"report": "page.html"}, "report: expected True or False, got 'page.html'"),
        ({"compile_passes": "no"}, "compile_passes: expected True or False"),
        ({"study": {"base": {"attack": bascule.attacks.Pgd}}}, "Pgd is a class, which no study can hold"),
    ],
)
def test_of_a_run(tmp_path, change: dict[str, Any], text: str) -> None:
    with pytest.raises(RequestError, match=text):
        bascule.run(**{"study": "digits", "runs": tmp_path / "runs"} | change)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"other_training_data": True}, "other_training_data: there is no model that was trained"),
        ({"full": "no"}, "full: expected True or False"),
        ({"minutes": "many"}, "minutes: expected a number"),
        ({"seed": "3"}, "seed: expected a whole number"),
    ],
)
def test_of_an_audit(tmp_path, change: dict[str, Any], text: str) -> None:
    with pytest.raises(RequestError, match=text):
        bascule.audit(**{"data": "digits", "runs": tmp_path / "runs"} | change)


@pytest.mark.parametrize("condition", [3, None, ["accuracy > 0"], b"accuracy > 0"])
def test_of_a_condition(some, condition: Any) -> None:
    with pytest.raises(RequestError, match="conditions are texts, each an argument of its own"):
        bascule.check(bascule.evaluate(*some), condition)


def test_numbers_of_numpy_and_torch_are_taken(some) -> None:
    model, x, y = some
    wanted = bascule.perturb(model, x, y, "pgd", eps=0.5, steps=2)
    found = bascule.perturb(model, x, y, "pgd", eps=np.float32(0.5), steps=torch.tensor(2), seed=np.int64(0))
    assert torch.equal(found, wanted)
    poisoned = bascule.poison(x, y, "sticker", size=np.int64(2), target=np.int8(3), rate=torch.tensor(0.05))
    assert bascule.train(model, poisoned.x, poisoned.y, epochs=np.int64(1), training={"lr": np.float32(0.1)}).curve


class Broken(nn.Module):
    """Answers some images with what is no number."""

    def __init__(self, inner: nn.Module, value: float, above: float) -> None:
        super().__init__()
        self.inner, self.value, self.above = inner, value, above

    def forward(self, x: Tensor) -> Tensor:
        broken: Tensor = x.flatten(1).sum(1, keepdim=True) > self.above
        return torch.where(broken, self.value, self.inner(x))


VERBS: dict[str, Callable[..., Any]] = {
    "perturb": lambda *some: bascule.perturb(*some, "fgsm", eps=0.1),
    "certify": lambda *some: bascule.certify(*some, "smoothing", norm="l2", eps=0.1, n=8, n0=4),
    "evaluate": bascule.evaluate,
    "filter": lambda *some: bascule.filter(*some, "strip"),
    "frequency": lambda *some: bascule.filter(*some, "frequency"),
    "scan": lambda *some: bascule.scan(*some, "mm-bd"),
    "detect": lambda *some: bascule.detect(*some, "strip"),
    "repair": lambda *some: bascule.repair(*some, "anp"),
    "train": lambda *some: bascule.train(*some, epochs=1),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_model_that_answers_with_nan(some, verb: str) -> None:
    model, x, y = some
    with pytest.raises(RequestError, match=r"the model answers .* with NaN") as caught:
        VERBS[verb](Broken(model, torch.nan, above=0), x, y)
    assert caught.value.place == ("model",)


@pytest.mark.parametrize("verb", ["filter", "frequency", "scan", "detect", "repair"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_model_that_answers_one_image_so_has_nothing_to_be_found_in(some, verb: str, value: float) -> None:
    model, x, y = some
    sums = x.float().div(255).flatten(1).sum(1)
    above = float(sums[:2].max())  # so that the first ones say nothing
    many = int((sums > above).sum())
    with pytest.raises(RequestError, match=f"model: the model answers {many} of 60 images with NaN or infinite logits"):
        VERBS[verb](Broken(model, value, above), x, y)


def test_a_guard_that_meets_such_an_image(some) -> None:
    model, x, y = some
    guard = bascule.detect(Broken(model, torch.nan, above=40), x, y, "strip", overlays=1)
    with pytest.raises(RequestError, match="the model answers 60 of 60 images with NaN"):
        guard(torch.ones_like(x) * 255)


def test_a_training_that_diverges_has_an_error_of_its_own(some) -> None:
    with pytest.raises(bascule.DivergedError, match="training diverged at step") as caught:
        bascule.train(*some, epochs=3, training={"lr": 1e30})
    assert not isinstance(caught.value, RequestError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.step) == (str(caught.value), caught.value.step)


def test_results_equal_themselves_alone_and_a_guard_is_not_copied(some) -> None:
    judged = bascule.filter(*some, "strip", overlays=4)
    other = pickle.loads(pickle.dumps(judged))
    assert torch.equal(other.score, judged.score)
    assert judged in [other, judged]
    assert judged != other
    assert len({judged, other}) == 2
    guard = bascule.detect(*some, "strip", overlays=4)
    assert copy.copy(guard) is guard
    for keep in (pickle.dumps, copy.deepcopy):
        with pytest.raises(RequestError, match="a guard cannot be pickled or copied"):
            keep(guard)  # type: ignore[operator]
