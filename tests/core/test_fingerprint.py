"""Identity: pinned, moved by every setting, and by nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bascule.attacks.fgsm import Fgsm
from bascule.core import catalog
from bascule.core import fingerprint as fingerprints
from bascule.core.fingerprint import file_digest, fingerprint
from bascule.models.contract import UserModel
from bascule.models.digits_cnn import DigitsCnn
from bascule.scanners.neural_cleanse import NeuralCleanse
from bascule.training.awp import WeightPerturbation
from bascule.training.crop import ResizedCrop
from bascule.training.pgd import Pgd
from bascule.training.settings import Augment, Training
from bascule.training.standard import Standard
from bascule.triggers.channel import Channel
from bascule.triggers.placement import Poison
from bascule.triggers.sticker import Sticker

REQUIRED = {"attacks": ({"name": "fgsm", "eps": 0.125},), "eps": 0.125, "model": "resnet18", "path": __file__}
"""A value for every setting without a default, by its name; some look at what lies at a path."""

DEPENDENT = {"stamped": {"path", "sha256"}}
"""Settings that cannot be changed alone, by component."""


def test_the_golden_value_is_the_hash_of_the_written_settings() -> None:
    text = '[1,"attack",{"eps":0.25,"name":"fgsm","norm":"linf","restarts":1},7,"abc"]'
    wanted = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert wanted == "8243436d24eb704d"
    assert fingerprint("attack", Fgsm(eps=0.25), 7, "abc") == wanted


def examples() -> Iterator[tuple[str, Any, set[str]]]:
    """A component of each class, and settings that cannot be changed alone."""
    for room in catalog.ROOMS:
        for name in catalog.names(room):
            required = {f.name: REQUIRED[f.name] for f in catalog.documentation(room, name).fields if f.default is None}
            yield f"{room}/{name}", catalog.build(room, {"name": name, **required}), DEPENDENT.get(name, set())
    yield "models/user", UserModel(factory="nets:net", settings={"width": 4}, code="0"), set()
    yield "poison", Poison(trigger=Sticker(), target=7, rate=0.05, cover=0.05), {"sources", "proxy"}
    dirty = Poison(trigger=Sticker(), target=7, rate=0.05, label="dirty")
    yield "poison-dirty", dirty, {"prepare", "cover_trigger", "proxy"}
    yield "augment", Augment(), set()
    yield "resized-crop", ResizedCrop(), set()
    yield "weight-perturbation", WeightPerturbation(), set()
    yield "training", Training(objective=Standard(), epochs=1, batch_size=15), {"milestones"}
    stepwise = Training(objective=Standard(), epochs=1, batch_size=15, schedule="piecewise", milestones=((0, 1.0),))
    yield "training-piecewise", stepwise, {"schedule"}


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("pictures") / "dot.png"
    Image.new("L", (2, 2), 200).save(path)
    return str(path)


def words(hint: Any) -> list[str]:
    """All words that stand in a type, as in `Literal["a", "b"]`."""
    if isinstance(hint, str):
        return [hint]
    return [word for part in typing.get_args(hint) for word in words(part)]


def variants(made: Any, field: str, *, picture: str) -> Iterator[Any]:
    """Copies of `made` that differ in `field` only."""
    hint = typing.get_type_hints(type(made), include_extras=True)[field]
    others = [
        True,
        False,
        3,
        5,
        0.5,
        0.75,
        *words(hint),
        picture,
        ("a", "b"),
        (0.25,),
        (0.25, 0.5),
        (0.25,) * 4,
        (3,),
        (8, 8, 8, 8),
        {"depth": 3},
        ((0, 1.0), (9, 0.5)),
    ]
    components = [
        Sticker(size=5),
        (Sticker(size=5),) * 4,
        Channel(),
        Fgsm(eps=0.5),
        Pgd(eps=0.5),
        DigitsCnn(),
        Augment(pad=1),
        NeuralCleanse(lr=0.5),
        ResizedCrop(),
        WeightPerturbation(),
    ]
    for other in (*others, *components):
        try:
            copy = dataclasses.replace(made, **{field: other})
        except Exception:  # not a value of this field
            continue
        if copy != made:
            yield copy


@pytest.mark.parametrize(
    ("made", "dependent"), [pytest.param(made, fields, id=name) for name, made, fields in examples()]
)
def test_every_single_setting_moves_it(made: Any, dependent: set[str], picture: str) -> None:
    seen = {fingerprint("link", made)}
    assert fingerprint("link", dataclasses.replace(made)) in seen
    for field in dataclasses.fields(made):
        only_one_value = typing.get_args(typing.get_type_hints(type(made))[field.name]) == (getattr(made, field.name),)
        if field.name in dependent or only_one_value:
            continue
        copies = list(variants(made, field.name, picture=picture))
        assert copies, f"no other value found for {field.name}"
        for copy in copies:
            mark = fingerprint("link", copy)
            assert mark not in seen, f"{copy!r} is taken for another"
            seen.add(mark)


def test_kind_order_and_version_move_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = [fingerprint("a", 1, 2), fingerprint("b", 1, 2), fingerprint("a", 2, 1), fingerprint("a", [1, 2])]
    monkeypatch.setattr(fingerprints, "VERSION", fingerprints.VERSION + 1)
    marks.append(fingerprint("a", 1, 2))
    assert len(set(marks)) == 5


def test_equal_settings_of_two_components_are_two() -> None:
    assert fingerprint("part", catalog.build("measure", "asr")) != fingerprint(
        "part", catalog.build("measure", "asr-paper")
    )


def test_the_order_of_keys_does_not_matter() -> None:
    assert fingerprint("a", {"x": 1, "y": {"p": 2, "q": 3}}) == fingerprint("a", {"y": {"q": 3, "p": 2}, "x": 1})
    one, two = (
        UserModel(factory="a:b", settings=settings, code="0")
        for settings in ({"width": 4, "depth": 2}, {"depth": 2, "width": 4})
    )
    assert fingerprint("cell", one) == fingerprint("cell", two)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_a_value_that_is_no_number_has_no_identity(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint("a", {"lr": value})


def test_values_of_other_types_have_no_identity() -> None:
    with pytest.raises(TypeError, match="holds set"):
        fingerprint("a", {1, 2})


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # The example of FIPS 180-2, appendix B.1.
    assert file_digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
