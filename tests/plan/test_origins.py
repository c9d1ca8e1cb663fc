"""Every value keeps where it was written, however the layers of a study are merged, and errors say it."""

from __future__ import annotations

import pickle

import pytest

from bascule.core.errors import RequestError
from bascule.plan.document import parse_study
from bascule.plan.origins import Layer, Origin, merge_values, nested
from bascule.plan.overrides import Override, parse_override
from bascule.plan.resolve import make_plan

STUDY = """\
base:
  data:
    name: digits
    max_train: 300
    max_test: 60
  model: {name: digits-cnn, width: 4, hidden: 16}
  train:
    objective: standard
    epochs: 2
    lr: 1e-2
  attack:
    - name: fgsm
      eps: 0.1
    - name: pgd
      eps: 0.1
rows:
  None: {}
  Other:
    train:
      momentum: 0.5
scales:
  fast: {}
  paper:
    base:
      train: {epochs: 3}
    rows:
      Other: {train: {momentum: 0.6}}
    seeds: 3
"""


def refused(*overrides: str | Override, scale: str | None = None, change: tuple[str, str] = ("", "")) -> str:
    """What is said of the study with these overrides, after a change of its text."""
    assert change[0] in STUDY
    document = parse_study(STUDY.replace(*change, 1), name="s", source="s.yaml")
    given = [parse_override(item, "--set") if isinstance(item, str) else item for item in overrides]
    with pytest.raises(RequestError) as caught:
        make_plan(document, overrides=given, scale=scale)
    return str(caught.value)


def layer(text: str) -> Layer:
    return Layer.of_file(parse_study(text, name="s", source="s.yaml"))


def test_the_longest_known_part_of_a_place_counts() -> None:
    study = layer("base:\n  train:\n    epochs: 3\n  attack:\n    - fgsm\n    - name: pgd\n      eps: 1\n")
    labels = {
        ("base", "train", "epochs"): "s.yaml, line 3",
        ("base", "train", "lr"): "s.yaml, line 2",
        ("base", "train", "milestones[1]", "x"): "s.yaml, line 2",
        ("base", "attack[1]", "eps"): "s.yaml, line 7",
        ("base", "attack[1]", "norm"): "s.yaml, line 6",
        ("base", "attack[7]", "norm"): "s.yaml, line 4",
        ("base", "attack[0][3]"): "s.yaml, line 5",
        ("rows", "A"): "s.yaml",
        (): "s.yaml",
    }
    assert {place: study.find(place).label for place in labels} == labels


def test_a_file_is_named_with_the_whole_path_whatever_part_is_looked_at() -> None:
    study = layer("base:\n  train:\n    epochs: 3\n")
    wrong = RequestError("is wrong", place=("base", "train", "epochs"))
    assert str(study.error(wrong)) == "s.yaml, line 3: base.train.epochs: is wrong"
    inside = RequestError("is wrong", place=("train", "epochs"))
    assert str(study.at("base").error(inside, "in row 'A'")) == "s.yaml, line 3: base.train.epochs: is wrong"
    missing = RequestError("is wrong", place=("base", "train", "lr"))
    assert str(study.error(missing)) == "s.yaml, line 2: base.train.lr: is wrong"


def test_merging_goes_key_by_key_but_replaces_other_components_whole() -> None:
    base = {"objective": {"name": "pgd", "eps": 0.3, "steps": 5}, "lr": 0.1}
    assert merge_values(base, {"objective": {"eps": 0.1}})["objective"] == {"name": "pgd", "eps": 0.1, "steps": 5}
    assert merge_values(base, {"objective": {"name": "pgd", "eps": 0.1}})["objective"]["steps"] == 5
    other = {"name": "trades", "beta": 6}
    assert merge_values(base, {"objective": other})["objective"] == other
    assert merge_values(base, {"objective": "standard"}) == {"objective": "standard", "lr": 0.1}
    assert merge_values("pgd", {"eps": 0.1}) == {"name": "pgd", "eps": 0.1}
    assert merge_values({"poison": {"rate": 1}}, {"poison": None}) == {"poison": None}
    assert base["objective"] == {"name": "pgd", "eps": 0.3, "steps": 5}


def test_a_path_is_a_mapping_in_mappings() -> None:
    assert nested("a.b.c", 1) == {"a": {"b": {"c": 1}}}


def test_values_and_origins_are_merged_together() -> None:
    base = layer("a:\n  name: pgd\n  eps: 1\nb: [1, 2]\nc: 3\n")
    option = Origin(label="option")
    same = base.merge(Layer.of({"a": {"eps": 2}}, option))
    assert same.values == {"a": {"name": "pgd", "eps": 2}, "b": [1, 2], "c": 3}
    assert same.find(("a", "eps")).label == "option"
    assert same.find(("a", "name")).label == "s.yaml, line 2"
    assert same.find(("a",)).label == "option"  # what changed anything in it last
    other = base.merge(Layer.of({"a": {"name": "fgsm"}, "b": [7], "c": {"d": 4}}, option))
    assert other.values == {"a": {"name": "fgsm"}, "b": [7], "c": {"d": 4}}
    assert set(other.origins.values()) == {option}
    assert same.find(()).label == "s.yaml"


def test_what_is_added_to_a_list_has_its_own_origin() -> None:
    base = layer("attack:\n  - name: pgd\n    eps: 1\n").add(
        "attack", [{"name": "pgd", "eps": 1}], Origin(label="none")
    )
    assert base.values == {"attack": [{"name": "pgd", "eps": 1}]}
    assert base.find(("attack",)).label == "s.yaml, line 1"
    more = base.add("attack", ["fgsm", {"name": "cw", "eps": 2}], Origin(label="option"))
    labels = {
        ("attack[0]",): "s.yaml, line 2",
        ("attack[0]", "eps"): "s.yaml, line 3",
        ("attack[1]",): "option",
        ("attack[2]", "eps"): "option",
        ("attack",): "option",
    }
    assert {place: more.find(place).label for place in labels} == labels
    single = layer("attack: pgd").add("attack", ["cw"], Origin(label="option"))
    assert single.values == {"attack": ["pgd", "cw"]}
    assert [single.find((f"attack[{number}]",)).label for number in (0, 1)] == ["s.yaml, line 1", "option"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.epochs=-1"], "--set train.epochs: in row 'None': train.epochs: must be greater"),
        (["rows.Other.train.epochs=-1"], "--set rows.Other.train.epochs: in row 'Other': train.epochs: must be"),
        (["train={epochs: -1}"], "--set train: in row 'None': train.epochs: must be greater"),
        (["attack=[fgsm]"], "--set attack: in row 'None': attack[0]: the key 'eps' is missing"),
        (["attack+=fgsm"], "--set attack+=: in row 'None': the key 'eps' is missing"),
        (["attack+={name: pgd, eps: -1}"], "--set attack+=: in row 'None': eps: must be greater"),
        (
            ["attack=[{name: cw, eps: -1}]", "attack+={name: pgd, eps: 1}"],
            "--set attack: in row 'None': attack[0].eps: ",
        ),
        (["attack=[]", "curve+=0.3"], "--set curve+=: in row 'None': a security curve needs attacks that share"),
        (["measure+=[drift, nine]"], "--set measure+=: unknown measure name 'nine'"),
        (["measure=[drift, nine]"], "--set measure: unknown measure name 'nine'"),
        (["seeds=0"], "--set seeds: must be greater than or equal to 1; got 0"),
        (["vary.train.lr=0.1"], "--set vary.train.lr: expected a list of values, got 0.1"),
        (["vary.train.lr={Slow: -1}"], "--set vary.train.lr: Slow: in row 'None' with train.lr = 'Slow': train.lr:"),
        (["vary.train.lr={}"], "--set vary.train.lr: expected a list of values, got {}"),
        (["vary.train.lr=[0.1, -1]"], "--set vary.train.lr: in row 'None' with train.lr = -1: train.lr: must be"),
        (["published=[{row: Nine, metrics: {}}]"], "--set published: row: unknown row 'Nine'"),
        (["base={data: 3}"], "--set base: in row 'None': data: expected a name"),
        (["base=3"], "--set base: expected a mapping, got 3"),
        (["rows.None=3"], "--set rows.None: expected a setting of a row, for example rows.None.train.epochs"),
        (["rows.Nine.train.epochs=3"], "--set rows.Nine.train.epochs: unknown row 'Nine.train.epochs'."),
        (["seeds.more=3"], "--set seeds.more: unknown key 'seeds.more'. Did you mean 'seeds'?"),
        (["scan+=strip"], "--set scan+=: unknown list 'scan'. Allowed: attack"),
        ([Override(path="seeds", value=0, origin="--seeds")], "--seeds: must be greater than or equal to 1; got 0"),
        (
            [Override(path="attack", value="pdg", origin="--attack", adds=True)],
            "--attack: in row 'None': unknown attack",
        ),
    ],
)
def test_an_override_is_named_by_its_origin(overrides: list[str | Override], said: str) -> None:
    assert refused(*overrides).startswith(said)


@pytest.mark.parametrize(
    ("change", "scale", "said"),
    [
        (("eps: 0.1\nrows", "eps: -1\nrows"), None, "s.yaml, line 15: base.attack[1].eps: must be greater"),
        (("lr: 1e-2", "lr: -1"), None, "s.yaml, line 10: base.train.lr: must be"),
        (("lr: 1e-2", "lr: -1"), "paper", "s.yaml, line 10: base.train.lr: must be"),
        (("momentum: 0.5", "momentum: -1"), None, "s.yaml, line 20: rows.Other.train.momentum: must be"),
        (("epochs: 3", "epochs: -3"), "paper", "s.yaml, line 25: scales.paper.base.train.epochs: must be"),
        (("0.6", "-1"), "paper", "s.yaml, line 27: scales.paper.rows.Other.train.momentum: must be"),
        (("seeds: 3", "seeds: 0"), "paper", "s.yaml, line 28: scales.paper.seeds: must be"),
        (("fast: {}", "fast: 3"), None, "s.yaml, line 22: scales.fast: expected a mapping, got 3"),
        (
            ("fast: {}", "fast: {vary: {train.lr: [a]}}"),
            None,
            "s.yaml, line 22: scales.fast.vary.train.lr: in row",
        ),
        (
            ("  model: {name: digits-cnn, width: 4, hidden: 16}\n", ""),
            None,
            "s.yaml, line 16: rows.None: the key 'model'",
        ),
    ],
)
def test_a_value_of_the_file_is_named_by_its_line(change: tuple[str, str], scale: str | None, said: str) -> None:
    assert refused(change=change, scale=scale).startswith(said)


@pytest.mark.parametrize("change", [("epochs: 2", "epochs: -2"), ("momentum: 0.5", "momentum: -1")])
def test_a_scale_stands_above_the_file(change: tuple[str, str]) -> None:
    document = parse_study(STUDY.replace(*change), name="s", source="s.yaml")
    plan = make_plan(document, scale="paper")
    assert [(row.setup.train.epochs, row.setup.train.momentum) for row in plan.rows] == [(3, 0.9), (3, 0.6)]


def test_an_unknown_scale_is_a_matter_of_who_asked_for_it() -> None:
    document = parse_study(STUDY, name="s", source="s.yaml")
    with pytest.raises(RequestError, match="unknown scale 'papr'") as caught:
        make_plan(document, scale="papr")
    assert caught.value.place == ("scale",)


def test_an_unknown_key_is_named_where_it_was_written() -> None:
    for overrides in (["train.lr=0.1", "train.epocs=3"], ["train.epocs=3", "train.lr=0.1"]):
        assert refused(*overrides).startswith("--set train.epocs: in row 'None': train: unknown key 'epocs'")
    typo = ("lr: 1e-2", "lr: 1e-2\n    sedule: x")
    assert refused("train.lr=0.1", change=typo).startswith("s.yaml, line 11: base.train: unknown key 'sedule'")
    assert refused("trian.lr=0.1").startswith("--set trian.lr: in row 'None': unknown key 'trian'")
    assert refused(change=("  train:\n    obj", "  trian:\n    obj")).startswith("s.yaml, line 7: base: unknown key")
    sent = pickle.loads(pickle.dumps(RequestError("x", place=("b",), key="c").at("a")))
    assert (str(sent), sent.place, sent.key) == ("a.b: x", ("a", "b"), "c")


def test_what_varies_goes_before_one_row_and_after_all_rows(plan_of) -> None:
    vary = "vary.train.lr=[0.1, 0.2]"
    assert [row.setup.train.lr for row in plan_of(vary, "rows.None.train.lr=0.5").rows] == [0.1, 0.2] * 2
    assert [row.setup.train.lr for row in plan_of(vary, "train.lr=0.5").rows] == [0.5, 0.5]
    said = "--set vary.train.lr: in row 'None' with train.lr = -1: train.lr: "
    assert refused("vary.train.lr=[0.1, -1]", "rows.None.train.lr=0.5").startswith(said)
    assert refused("vary.train.lr=[0.1, -1]", "train.lr=-2").startswith("--set train.lr: in row 'None': train.lr: ")


def test_of_overrides_with_the_same_path_the_last_counts(plan_of) -> None:
    plan = plan_of("train.objective={name: pgd, eps: 0.1, steps: 3}", "train.objective={name: pgd, eps: 0.2}")
    assert plan.rows[0].setup.train.objective.steps != 3
    assert plan.overrides[1] == "train.objective={name: pgd, eps: 0.2}"


def test_an_override_is_read_from_its_text_once() -> None:
    override = parse_override("train.epochs=3", "--set")
    assert (override.path, override.value, override.origin, override.adds) == (
        "train.epochs",
        3,
        "--set train.epochs",
        False,
    )
    adds = parse_override(" attack += {name: pgd, eps: 8/255}", "--set")
    assert (adds.path, adds.value["eps"], adds.origin, adds.adds) == ("attack", 8 / 255, "--set attack+=", True)
    assert parse_override("base.train.lr=1e-3").path == parse_override("base.train.lr=1e-3").origin == "train.lr"
    for text, said in {
        "nonsense": "--set 'nonsense': expected key=value, for example train.epochs=3",
        "=3": "--set '=3': expected key=value",
        "train={epochs": "--set train: cannot read the value '{epochs'",
        "attack+={epochs": "--set attack+=: cannot read the value '{epochs'",
    }.items():
        with pytest.raises(RequestError) as caught:
            parse_override(text, "--set")
        assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    "value", [3, 1e-5, "pgd", None, True, [0.1, 1], {"name": "pgd", "eps": 8 / 255, "at": ["a: b"]}]
)
@pytest.mark.parametrize("adds", [False, True])
def test_an_override_has_a_text_that_gives_it_back(value: object, adds: bool) -> None:
    override = Override(path="attack", value=value, origin="--attack", adds=adds)
    again = parse_override(override.text)
    assert (again.path, again.value, again.adds) == (override.path, value, adds)
    assert again.text == override.text


def test_the_record_keeps_the_texts(plan_of) -> None:
    texts = ("base.train.lr=1e-3", "attack+={name: pgd, eps: 8/255}")
    assert plan_of(*texts, seeds=1).recorded().as_dict()["overrides"] == [*texts, "seeds=1"]
