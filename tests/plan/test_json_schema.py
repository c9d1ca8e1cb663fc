"""The schema that editors get says what the parser says.

Oracles: pydantic's own judgement of every setting's type, and `make_plan`, which `bascule validate` is.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pydantic
import pytest
import yaml

from bascule.core import catalog
from bascule.core.errors import RequestError
from bascule.core.json_types import json_type
from bascule.plan._loading import Loader
from bascule.plan.document import built_in_names, parse_study, read_study
from bascule.plan.json_schema import study_schema
from bascule.plan.resolve import make_plan


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return study_schema()


@pytest.fixture(scope="module")
def check(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


class AsEditors(Loader):
    """Reads what an editor reads: fractions are text there."""


AsEditors.add_constructor("!fraction", lambda loader, node: str(node.value))


@pytest.mark.parametrize("name", built_in_names())
def test_every_built_in_study_fits_all_of_its_scales(name: str, check: jsonschema.Draft202012Validator) -> None:
    study = read_study(name)
    for content in (study.content, yaml.load(study.text, Loader=AsEditors)):
        assert [error.message for error in check.iter_errors(content)] == []


STUDY = """
base:
  data: {name: digits, max_train: 200, max_test: 40}
  poison: {trigger: {name: sticker, size: 2}, target: 7, rate: 0.05}
  model: digits-cnn
  train: {objective: standard, epochs: 1}
  attack: [{name: fgsm, eps: 0.1}, {name: pgd, eps: 8/255}]
rows: {None: {}}
"""
RIGHT = {
    "a row changes a setting": "rows: {A: {poison: {trigger: {size: 3}}, train: {lr: 1/100}}}",
    "a row without anything": "rows: {A: null, B: {}}",
    "a model as it comes": "rows: {A: {train: none}}",
    "a family": "rows: {A: {model: 'torchvision:resnet18'}}",
    "a family with settings": "rows: {A: {model: {name: 'timm:resnet18', settings: {img_size: 32}, mean: [0.5]}}}",
    "own code": "rows: {A: {model: {name: 'nets.py:small', depth: 3}, poison: {trigger: 'my/blot.py:Blot'}}}",
    "own code in a list": "rows: {A: {attack: ['own.module:Attack', {name: 'own.py:A', whatever: [1]}]}}",
    "no poison": "rows: {A: {poison: null}}",
    "poison of others": "rows: {A: {poison: {name: given, path: x.npz}}}",
    "several poisons": "rows: {A: {poison: {name: several, parts: [{trigger: sticker, target: 1, rate: 0.1}]}}}",
    "a change of several": "rows: {A: {poison: {measured: 1}}}",
    "one attack": "rows: {A: {attack: {name: patch, size: 2}}}",
    "a composite": "rows: {A: {attack: {name: composite, attacks: [{name: spatial}, {name: pgd, eps: 0.1}]}}}",
    "nested settings": "rows: {A: {train: {augment: {resized_crop: {}, flip: true}, awp: {gamma: 0.01}}}}",
    "pairs": "rows: {A: {train: {schedule: piecewise, milestones: [[0, 1.0], [9, 1/10]]}}}",
    "a percentage": "rows: {A: {poison: {rate: 5 %}}}",
    "seeds": "seeds: [0, 4]",
    "names for what varies": "vary: {poison: {Wave: {trigger: sig}, Nobody: null}, train.epochs: [1, 2]}",
    "a setting of own code varies": "vary: {model.depth: [1, 2]}",
    "a scale": "scales: {fast: {base: {train: {epochs: 1}}, vary: {train.lr: null}, seeds: 1}, full: null}",
    "one metric": "measure: asr",
    "published": "published: [{row: None, metrics: {asr_paper: 0.6}, note: x}]",
}


def changed(change: str) -> dict[str, Any]:
    """The study with other keys, where ratios are text as in an editor."""
    return {**yaml.safe_load(STUDY), **yaml.safe_load(change)}


@pytest.mark.parametrize("change", RIGHT.values(), ids=RIGHT.keys())
def test_what_is_right_fits(change: str, check: jsonschema.Draft202012Validator) -> None:
    assert [error.message for error in check.iter_errors(changed(change))] == []


WRONG = {
    "unknown key of a study": "titel: x",
    "unknown key of a row": "rows: {A: {atack: [{name: pgd, eps: 0.1}]}}",
    "a row that is text": "rows: {A: yes}",
    "rows as a list": "rows: [None]",
    "a blank row name": "rows: {' ': {}}",
    "misspelt attack": "rows: {A: {attack: [{name: pdg, eps: 0.1}]}}",
    "misspelt trigger": "rows: {A: {poison: {trigger: stiker}}}",
    "misspelt setting": "rows: {A: {attack: [{name: pgd, eps: 0.1, stpes: 3}]}}",
    "misspelt setting of another row's part": "rows: {A: {poison: {trigger: {sice: 3}}}}",
    "a setting of another attack": "rows: {A: {attack: [{name: fgsm, eps: 0.1, steps: 3}]}}",
    "an attack without its radius": "rows: {A: {attack: [pgd]}}",
    "an entry without a name": "rows: {A: {attack: [{eps: 0.1}]}}",
    "a metric as an attack": "rows: {A: {attack: asr}}",
    "a list for one part": "rows: {A: {model: [digits-cnn]}}",
    "no network": "rows: {A: {model: null}}",
    "text for a number": "rows: {A: {train: {lr: fast}}}",
    "truth for a number": "rows: {A: {train: {epochs: true}}}",
    "a number for truth": "twin: 1",
    "a number for text": "title: 3",
    "a fraction of epochs": "rows: {A: {train: {epochs: 1.5}}}",
    "a ratio for a whole number": "rows: {A: {train: {epochs: 8/4}}}",
    "no epochs": "rows: {A: {train: {epochs: 0}}}",
    "a rate above one": "rows: {A: {poison: {rate: 1.5}}}",
    "a negative radius": "rows: {A: {attack: [{name: pgd, eps: -0.1}]}}",
    "a negative ratio": "rows: {A: {attack: [{name: pgd, eps: -8/255}]}}",
    "a momentum of one": "rows: {A: {train: {momentum: 1}}}",
    "a norm that is none": "rows: {A: {attack: [{name: pgd, eps: 0.1, norm: l3}]}}",
    "a norm that this one has not": "rows: {A: {attack: [{name: fgsm, eps: 0.1, norm: l1}]}}",
    "an optimiser that is none": "rows: {A: {train: {optimizer: lion}}}",
    "a label mode that is none": "rows: {A: {poison: {label: dirt}}}",
    "a percentage of epochs": "rows: {A: {train: {epochs: 5 %}}}",
    "a negative percentage": "rows: {A: {poison: {rate: -5 %}}}",
    "a pair of three": "rows: {A: {train: {schedule: piecewise, milestones: [[0, 1.0, 2]]}}}",
    "a colour of two": "rows: {A: {poison: {trigger: {color: [1, 0]}}}}",
    "a part without its rate": "rows: {A: {poison: {name: several, parts: [{trigger: sticker, target: 1}]}}}",
    "unknown poison": "rows: {A: {poison: {name: severl}}}",
    "unknown setting of augment": "rows: {A: {train: {augment: {flipp: true}}}}",
    "seeds of none": "seeds: 0",
    "a seed twice": "seeds: [1, 1]",
    "too many seeds": "seeds: 1001",
    "vary as a list": "vary: [train.lr]",
    "vary without values": "vary: {train.lr: []}",
    "vary with one value": "vary: {train.lr: 0.1}",
    "vary of what there is not": "vary: {train.lrr: [0.1]}",
    "vary of the wrong type": "vary: {train.epochs: [a]}",
    "probe varies": "vary: {probe.every: [1, 2]}",
    "unknown key of a scale": "scales: {fast: {measure: [asr]}}",
    "a scale with a slash": "scales: {a/b: {}}",
    "misspelt metric": "measure: [asrr]",
    "published without a row": "published: [{metrics: {asr: 0.1}}]",
    "published under another name": "published: [{row: None, metrics: {asr-paper: 0.1}}]",
    "a positional network": "rows: {A: {model: {name: digits-cnn, width: wide}}}",
    "probe of no image": "rows: {A: {probe: {images: 0}}}",
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_refused_by_the_schema_and_by_the_parser(
    change: str, check: jsonschema.Draft202012Validator
) -> None:
    assert not check.is_valid(changed(change))
    text = yaml.safe_dump(changed(change))
    with pytest.raises(RequestError):
        make_plan(parse_study(text, name="wrong", source="wrong.yaml"))


def test_the_example_that_is_changed_is_right(check: jsonschema.Draft202012Validator) -> None:
    assert len(WRONG) >= 30
    assert check.is_valid(changed("{}"))
    make_plan(parse_study(STUDY, name="right", source="right.yaml"))


VALUES = (
    *(-1, 0, 1, 2, 3, 200, -0.5, 0.25, 0.5, 1.0, 1.5, True, False, None, "", "text"),
    *([], [1], [0.5], [0.5, 0.5], [1, 2], [-1, 2], [0.1, 0.2, 0.3], [1, 2, 3, 4], ["text"], [[0.5, 0.5]], {}, {"a": 1}),
)


def settings() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Name, type and schema of each setting that holds no component."""
    for room in catalog.ROOMS:
        for name in catalog.names(room):
            cls = catalog.load(room, name)
            hints = typing.get_type_hints(cls, include_extras=True)
            for field in catalog.documentation(room, name).fields:
                if "$ref" not in json.dumps(field.accepts):
                    yield f"{room}/{name}.{field.name}", hints[field.name], field.accepts


def test_every_type_takes_what_pydantic_takes_and_nothing_else() -> None:
    seen: dict[str, tuple[str, Any, dict[str, Any]]] = {}
    for name, hint, accepts in settings():
        seen.setdefault(repr((hint, accepts)), (name, hint, accepts))
    assert len(seen) > 50
    strict = pydantic.ConfigDict(strict=True, allow_inf_nan=False)
    for name, hint, accepts in seen.values():
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(hint, config=strict)
        judge = jsonschema.Draft202012Validator(accepts)
        words = [word for part in (accepts, *accepts.get("anyOf", ())) for word in part.get("enum", ())]
        for value in (*VALUES, *words):
            try:
                adapter.validate_python(_tuples(value))
                taken = True
            except pydantic.ValidationError:
                taken = False
            except AttributeError:  # a validator looks at the field beside it, once the type is right
                taken = True
            if value is True and "enum" in accepts:
                continue  # which equals 1 to Python
            lenient = isinstance(value, float) and value.is_integer()  # 1.0 is a whole number to JSON Schema
            assert judge.is_valid(value) == taken or (lenient and not taken), (name, value, accepts)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def test_every_default_fits_its_own_setting(schema: dict[str, Any]) -> None:
    count = 0
    for name, defined in schema["$defs"].items():
        for key, setting in defined.get("properties", {}).items():
            if "default" in setting:
                judge = jsonschema.Draft202012Validator({**setting, "$defs": schema["$defs"]})
                assert judge.is_valid(setting["default"]), (name, key, setting["default"])
                count += 1
    assert count > 300


def test_every_setting_of_every_component_is_there_with_its_text(schema: dict[str, Any]) -> None:
    for room in catalog.ROOMS:
        for name in catalog.names(room):
            properties = schema["$defs"][f"{room}.{name}"]["properties"]
            fields = catalog.documentation(room, name).fields
            assert list(properties) == ["name", *(field.name for field in fields)]
            assert all(properties[field.name]["description"] for field in fields)


def test_types_that_cannot_be_read_are_left_open() -> None:
    module = ast.parse("from elsewhere import Strange\nclass Own: ...")
    for text in ("Strange", "Strange | None", "Own", "list[int]", "Callable[[int], str]"):
        assert json_type(ast.parse(text, mode="eval").body, module) == {}


def test_it_is_the_same_text_every_time_and_loads_no_torch(schema: dict[str, Any]) -> None:
    code = (
        "import json, sys; from bascule.plan.json_schema import study_schema; "
        "print(json.dumps(study_schema())); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == json.dumps(schema) + "\n"


def test_a_plug_in_is_in_it_with_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plug_blot.py").write_text(
        "from typing import Annotated, Literal\nfrom annotated_types import Ge\n"
        'class Blot:\n    """A blot."""\n    size: Annotated[int, Ge(2)] = 3\n    kind: Literal["round", "star"]\n'
    )
    info = tmp_path / "blots-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: blots\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[bascule.poison]\nblot = plug_blot:Blot\nlost = nowhere:Lost\nsticker = plug_blot:Blot\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    catalog.names.cache_clear()
    try:
        found = study_schema()
    finally:
        monkeypatch.undo()
        catalog.names.cache_clear()
    assert "plug_blot" not in sys.modules
    check = jsonschema.Draft202012Validator(found)
    for right in ("{name: blot, kind: star}", "{name: blot, size: 2}", "blot", "{name: lost, any: 1}", "{kind: star}"):
        assert check.is_valid(changed(f"rows: {{A: {{poison: {{trigger: {right}}}}}}}")), right
    for wrong in ("{name: blot, size: 1}", "{name: blot, kind: square}", "{name: blot, sice: 3}", "blott"):
        assert not check.is_valid(changed(f"rows: {{A: {{poison: {{trigger: {wrong}}}}}}}")), wrong
    assert "kind" not in found["$defs"]["poison.sticker"]["properties"]
