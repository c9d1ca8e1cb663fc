"""From a study to cells: rows, what varies, seeds, twins, identity, and everything that is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bascule.core.errors import RequestError
from bascule.models.checks import check_network
from bascule.plan import checks
from bascule.plan.document import built_in_names, parse_study, read_study
from bascule.plan.overrides import parse_override
from bascule.plan.resolve import make_plan


def names(cells) -> list[str]:
    return [cell.fingerprint for cell in cells]


def test_rows_times_varied_values_times_seeds(plan_of) -> None:
    plan = plan_of("vary.poison.rate=[0.1, 0.3]", seeds=3)
    assert [(row.name, row.vary["poison.rate"], len(row.cells)) for row in plan.rows] == [
        ("None", 0.1, 3),
        ("None", 0.3, 3),
        ("Adv. training", 0.1, 3),
        ("Adv. training", 0.3, 3),
    ]
    # 4 poisoned models a seed, and one twin for each of the two recipes: both rates share it.
    assert len(plan.cells()) == 3 * (4 + 2)


def test_varied_values_may_have_names(plan_of) -> None:
    named = plan_of("vary.poison={Few: {rate: 0.1}, Many, dirty: {rate: 0.3, label: dirty}}".replace("y, d", "y d"))
    assert [row.vary for row in named.rows[:2]] == [{"poison": "Few"}, {"poison": "Many dirty"}]
    assert [(row.setup.poison.rate, row.setup.poison.label) for row in named.rows[:2]] == [
        (0.1, "clean"),
        (0.3, "dirty"),
    ]
    plain = plan_of("vary.poison.rate=[0.1]")
    assert names(named.rows[0].cells) == names(plain.rows[0].cells)  # a name changes no model


def test_what_varies_at_a_path_is_replaced_as_a_whole() -> None:
    text = STUDY_WITH_NAMES
    named = parse_study(text, name="named", source="named.yaml")
    assert [row.vary for row in make_plan(named).rows] == [{"poison": "One"}, {"poison": "Two"}]
    given = [parse_override("vary.poison={Three: {rate: 0.3}}")]
    assert [row.vary for row in make_plan(named, overrides=given).rows] == [{"poison": "Three"}]
    assert [row.vary for row in make_plan(named, scale="other").rows] == [{"poison": "Four"}]
    plain = make_plan(named, scale="plain")
    assert [row.vary for row in plain.rows] == [{"poison.rate": 0.5}]


def test_what_is_set_inside_of_what_varies_goes_on_top_of_it() -> None:
    named = parse_study(STUDY_WITH_NAMES, name="named", source="named.yaml")
    rows = make_plan(named, overrides=[parse_override("poison.rate=0.3")]).rows
    assert [(row.vary, row.setup.poison.rate) for row in rows] == [({"poison": "One"}, 0.3), ({"poison": "Two"}, 0.3)]
    rows = make_plan(named, overrides=[parse_override("rows.None.poison.label=dirty")]).rows
    assert [row.setup.poison.label for row in rows] == ["dirty", "dirty"]
    changes = [parse_override("vary.poison={Nobody: null, One: {rate: 0.2}}"), parse_override("poison.rate=0.3")]
    nobody, one = make_plan(named, overrides=changes).rows
    assert nobody.setup.poison is None
    assert one.setup.poison.rate == 0.3


def test_taking_out_what_does_not_vary_is_refused() -> None:
    named = parse_study(STUDY_WITH_NAMES, name="named", source="named.yaml")
    with pytest.raises(RequestError, match=r"unknown path that varies 'poison.One'. Did you mean 'poison'\?"):
        make_plan(named, overrides=[parse_override("vary.poison.One=null")])


STUDY_WITH_NAMES = """\
base:
  data: {name: digits, max_train: 200, max_test: 50}
  poison: {trigger: sticker, target: 7, rate: 0.1, rate_of: target}
  model: digits-cnn
  train: {objective: standard, epochs: 1}
rows: {None: {}}
vary: {poison: {One: {rate: 0.2}, Two: {rate: 0.4}}}
scales:
  full: {}
  other: {vary: {poison: {Four: {rate: 0.6}}}}
  plain: {vary: {poison: null, poison.rate: [0.5]}}
"""


def test_a_twin_is_the_same_recipe_and_seed_without_poison(plan_of) -> None:
    row = plan_of().rows[1]
    assert [twin.seed for twin in row.twins] == [cell.seed for cell in row.cells] == [0, 1]
    assert row.twins[0].setup.poison is None
    assert row.twins[0].setup.train == row.cells[0].setup.train
    assert [question.kind for question in row.twins[0].questions] == ["clean", "triggered"]


def test_a_twin_is_the_cell_of_an_unpoisoned_row(plan_of) -> None:
    plan = plan_of("rows.Adv. training.train.objective=standard", "rows.Adv. training.poison=null")
    poisoned, clean = plan.rows
    assert names(poisoned.twins) == names(clean.cells)
    assert clean.twins == ()
    merged = next(cell for cell in plan.cells() if cell.fingerprint == clean.cells[0].fingerprint)
    assert [question.kind for question in merged.questions] == ["clean", "triggered", "attack", "attack"]


def test_twins_can_be_switched_off_and_a_control_needs_none(plan_of) -> None:
    assert all(row.twins == () for row in plan_of("twin=false").rows)
    assert all(row.twins == () for row in plan_of("poison.rate=0").rows)


@pytest.mark.parametrize(
    "change",
    [
        "train.epochs=3",
        "train.lr=0.02",
        "train.augment={pad: 1}",
        "model.width=5",
        "poison.rate=0.4",
        "poison.target=3",
        "poison.trigger.size=3",
        "data.max_train=200",
    ],
)
def test_what_changes_a_model_changes_its_fingerprint(plan_of, change: str) -> None:
    assert not set(names(plan_of().rows[0].cells)) & set(names(plan_of(change).rows[0].cells))


@pytest.mark.parametrize(
    "change",
    [
        "attack=[{name: fgsm, eps: 0.2}]",
        "attack_precision=mixed",
        "data.max_test=30",
        "measure=[accuracy]",
        "title=Other",
        "poison.test_trigger=sticker",
    ],
)
def test_what_only_changes_the_evaluation_keeps_the_model(plan_of, change: str) -> None:
    old, new = plan_of().rows[0], plan_of(change).rows[0]
    assert names(old.cells) == names(new.cells)
    assert names(old.twins) == names(new.twins)


def test_an_attack_keeps_its_key_when_another_follows_and_not_when_one_precedes(plan_of) -> None:
    keys = [question.key for question in plan_of().rows[0].cells[0].questions if question.kind == "attack"]
    more = plan_of("attack=[{name: fgsm, eps: 0.1}, {name: pgd, eps: 0.1, steps: 3}, {name: pgd, eps: 0.1, steps: 9}]")
    other = plan_of("attack=[{name: pgd, eps: 0.1, steps: 3}, {name: fgsm, eps: 0.1}]")
    assert [question.key for question in more.rows[0].cells[0].questions if question.kind == "attack"][:2] == keys
    assert not set(keys) & {question.key for question in other.rows[0].cells[0].questions}


def test_an_attack_is_the_last_where_it_is_so_in_some_row(plan_of) -> None:
    attacks = ("{name: fgsm, eps: 0.1}", "{name: fgsm, eps: 0.1}, {name: pgd, eps: 0.1}", "{name: pgd, eps: 0.2}")

    def closing(order: tuple[str, ...]) -> dict[str, bool]:
        (cell, *_) = plan_of(f"vary.attack=[{', '.join(f'[{some}]' for some in order)}]", seeds=1).cells()
        return {question.key: question.closing for question in cell.questions if question.kind == "attack"}

    assert list(closing(attacks).values()) == [True, True, True]
    assert closing(attacks) == closing(attacks[::-1])
    assert list(closing(attacks[1:]).values()) == [False, True, True]


def test_a_search_in_two_precisions_is_another_question_where_the_attack_does_it(plan_of) -> None:
    attacks = "attack=[{name: square, eps: 0.1}, {name: pgd, eps: 0.1}]"
    plain, default, mixed = (
        [question for question in plan_of(attacks, *more).rows[0].cells[0].questions if question.kind == "attack"]
        for more in ([], ["attack_precision=float32"], ["attack_precision=mixed"])
    )
    assert [question.key for question in plain] == [question.key for question in default]
    assert mixed[0].key == plain[0].key
    assert mixed[1].key != plain[1].key
    assert [question.precision for question in mixed] == ["float32", "mixed"]
    assert mixed[1].settings == plain[1].settings


def test_where_the_data_lie_does_not_matter_what_they_hold_does(tmp_path: Path, plan_of) -> None:
    import numpy as np

    text = """\
base:
  data: {name: npz, path: PATH}
  model: {name: digits-cnn, width: 2, hidden: 4}
  train: {objective: standard, epochs: 1}
rows: {A: {}}
"""
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 255, (20, 8, 8), dtype=np.uint8),
        "y_train": np.arange(20) % 2,
        "x_test": rng.integers(0, 255, (6, 8, 8), dtype=np.uint8),
        "y_test": np.arange(6) % 2,
    }
    np.savez(tmp_path / "one.npz", **arrays)
    (tmp_path / "two.npz").write_bytes((tmp_path / "one.npz").read_bytes())
    arrays["x_train"][0, 0, 0] ^= 1
    np.savez(tmp_path / "three.npz", **arrays)
    prints = [
        names(plan_of(text=text.replace("PATH", f"{name}.npz"), roots=[tmp_path]).rows[0].cells)
        for name in ("one", "two", "three")
    ]
    assert prints[0] == prints[1] != prints[2]


def test_overrides_reach_every_row_or_one(plan_of) -> None:
    plan = plan_of("train.epochs=5", "rows.Adv. training.train.objective.steps=7", "seeds=1")
    assert [row.setup.train.epochs for row in plan.rows] == [5, 5]
    assert plan.rows[1].setup.train.objective.steps == 7
    assert [len(row.cells) for row in plan.rows] == [1, 1]


def test_an_override_replaces_what_varies(plan_of) -> None:
    plan = plan_of("vary.poison.rate=[0.1, 0.3]", "poison.rate=0.2")
    assert [row.vary for row in plan.rows] == [{}, {}]
    assert plan.rows[0].setup.poison.rate == 0.2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("train.epocs=3", "--set train.epocs: in row 'None': train: unknown key 'epocs'. Did you mean 'epochs'?"),
        ("train.epochs=ten", "train.epochs: must be a valid integer; got 'ten'"),
        ("train.epochs=0", "train.epochs: must be greater than or equal to 1; got 0"),
        ("train.lr=true", "train.lr: must be a valid number; got True"),
        ("train.optimizer=adamm", "train.optimizer: unknown value 'adamm'. Did you mean 'adam'?"),
        ("train.objective=pdg", "train.objective: unknown train name 'pdg'. Did you mean 'pgd'?"),
        ("train.objective=pgd", "train.objective: the key 'eps' is missing"),
        ("train.schedule=piecewise", "needs milestones"),
        ("model=digits-cn", "model: unknown models name 'digits-cn'. Did you mean 'digits-cnn'?"),
        ("model=nowhere.nets:net", "model: cannot import 'nowhere.nets'"),
        ("data=minst", "data: unknown data name 'minst'. Did you mean 'mnist'?"),
        ("poison.rate_of=all", "The largest possible rate is"),
        ("poison.rate=1.5", "poison.rate: must be less than or equal to 1; got 1.5"),
        ("poison.rate=1e-5", "rounds to no image"),
        ("poison.target=12", "poison.target: there is no class 12; the classes are 0..9"),
        ("poison.label=cleen", "poison.label: unknown value 'cleen'. Did you mean 'clean'?"),
        ("poison.trigger=channel", "poison.trigger: the channel trigger needs colour images (3 channels)"),
        ("poison.trigger.size=9", "poison.trigger: a 9 x 9 block with margin 0 does not fit images of 8 x 8"),
        ("poison.trigger={name: sticker, picture: no.png}", "cannot read the picture 'no.png'"),
        ("attack=[{name: pgd, eps: -0.1}]", "attack[0].eps: must be greater than or equal to 0; got -0.1"),
        ("attack=[{name: pgd, eps: 8}]", "attack[0].eps: pixels are in [0, 1], so that 1 reaches every image; got 8."),
        ("train.objective={name: trades, eps: 8}", "Is it 8/255?"),
        ("attack=[{name: pgd, eps: 0.1, norm: l3}]", "attack[0].norm: unknown value 'l3'"),
        ("attack=[{name: pgd, eps: 0.1, step: 3}]", "attack[0]: unknown key 'step'"),
        ("attack_precision=half", "attack_precision: unknown value 'half'"),
        ("attack=3", "expected a name or a mapping with the key 'name', got 3"),
        ("probe.images=0", "probe.images: must be greater than or equal to 1; got 0"),
        ("probe={every: 0.5}", "probe.every: "),
        ("probe.image=3", "probe: unknown key 'image'. Did you mean 'images'?"),
        ("probe=yes", "probe: "),
        ("seeds=0", "seeds"),
        ("seeds=[1, 1]", "expected 1 to 1000 different seeds"),
        ("measure=[acuracy]", "unknown measure name 'acuracy'. Did you mean 'accuracy'?"),
        ("vary.poison.rate=0.1", "vary.poison.rate: expected a list of values, got 0.1"),
        ("vary.poison.rat=[0.1]", "unknown key 'rat'. Did you mean 'rate'?"),
        ("rows.Adv. trainin.train.epochs=1", "unknown row 'Adv. trainin.train.epochs'"),
        ("nonsense", "expected key=value"),
        ("rows.Adv. training.train.objective=standard", "is the same as row 'None'"),
    ],
)
def test_wrong_requests_are_refused_with_place_and_reason(plan_of, change: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        plan_of(change)
    assert said in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_a_radius_in_l2_may_exceed_one(plan_of) -> None:
    plan = plan_of("attack=[{name: pgd, eps: 2, norm: l2}]", "curve=[3]")
    assert plan.rows[0].setup.attack[0].eps == 2


NETS = """
from torch import nn

class Wrapped(nn.Module):
    def __init__(self, net, wrap):
        super().__init__()
        self.net, self.wrap = net, wrap

    def forward(self, x):
        return self.wrap(self.net(x))

def made(size, classes, wrap):
    pixels = size[0] * size[1] * size[2]
    return Wrapped(nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes)), wrap)

def logits(size, classes): return made(size, classes, lambda found: found)
def log_softmax(size, classes): return made(size, classes, lambda found: found.log_softmax(1))
def softmax(size, classes): return made(size, classes, lambda found: found.softmax(1))
def pair(size, classes): return made(size, classes, lambda found: (found, None))
def broken(size, classes): return made(size, classes, lambda found: found.nothing)
"""


def test_a_network_must_answer_with_logits(plan_of, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    plan_of(f"model={tmp_path}/nets.py:logits")
    plan_of(f"model={tmp_path}/nets.py:log_softmax")
    plan_of(f"model={tmp_path}/nets.py:softmax")  # measured, and flagged
    for name, said in {
        "pair": "answers with tuple; expected a tensor of logits",
        "broken": "cannot take images of 1 x 8 x 8: AttributeError: 'Tensor' object has no attribute 'nothing'",
    }.items():
        with pytest.raises(RequestError) as caught:
            plan_of(f"model={tmp_path}/nets.py:{name}")
        assert said in str(caught.value)


def test_an_error_in_the_file_says_its_line(plan_of) -> None:

    base = "base:\n  data: digits\n  model: digits-cnn\n  train:\n    objective: standard\n    epochs: -1\n"
    text = base + "rows:\n  A: {}\n"
    with pytest.raises(RequestError, match=r"s\.yaml, line 6: base\.train\.epochs: must be greater"):
        make_plan(parse_study(text, name="s", source="s.yaml"))
    with pytest.raises(RequestError, match=r"s\.yaml, line 9: sedes: unknown key 'sedes'. Did you mean 'seeds'"):
        make_plan(parse_study(text + "sedes: 3\n", name="s", source="s.yaml"))


def test_missing_data_say_where_they_were_looked_for(tmp_path: Path, plan_of) -> None:
    with pytest.raises(RequestError, match="MNIST/raw") as caught:
        plan_of("data=mnist", roots=[tmp_path])
    assert str(tmp_path) in str(caught.value)
    assert "BASCULE_DATA" in str(caught.value)


def scales_of(name: str) -> list[str | None]:
    return list(read_study(name).content.get("scales", {})) or [None]


@pytest.fixture(scope="module")
def each_network_tried_once() -> Iterator[None]:
    """Of the studies of a module, which share their networks."""
    tried: dict[str, bool] = {}

    def once(model: Any, size: Any, classes: int, **how: bool) -> bool:
        key = f"{model!r} {size} {classes} {how}"
        if key not in tried:
            tried[key] = check_network(model, size, classes, **how)
        return tried[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "check_network", once)
        yield


@pytest.mark.data
@pytest.mark.usefixtures("each_network_tried_once")
@pytest.mark.parametrize(("name", "scale"), [(name, scale) for name in built_in_names() for scale in scales_of(name)])
def test_every_built_in_study_is_valid(name: str, scale: str | None, data_root: Path) -> None:
    # Ten classes of ImageNet stand in for a thousand.
    overrides = ["data.path=imagenette2-224"] if "imagenet" in name else []
    overrides += ["poison.rate=0.005"] if "imagenet-3" in name else []
    given = [parse_override(text) for text in overrides]
    plan = make_plan(read_study(name), scale=scale, overrides=given, roots=[data_root])
    assert plan.title != name
    assert plan.about
    # Table 3 of the paper leaves out half of the cross of labels and training.
    whole = len({row.name for row in plan.rows}) // (2 if "-3" in name else 1)
    assert len({row.published.row for row in plan.rows if row.published}) == (whole if "paper/" in name else 0)


SCALED = """
scales:
  fast: {}
  paper:
    base: {train: {epochs: 9}}
    rows: {Adv. training: {train: {objective: {steps: 7}}}}
    seeds: 3
published:
  - {row: None, metrics: {asr: 0.135}, printed: {asr: 0.172}, note: Table 1a}
"""


@pytest.fixture
def scaled_text(plan_of) -> str:
    return plan_of().document.text + SCALED


def test_a_scale_changes_what_it_names(plan_of, scaled_text: str) -> None:
    fast, paper = plan_of(text=scaled_text), plan_of(text=scaled_text, scale="paper")
    assert (fast.folder, paper.folder, paper.name) == ("tiny-fast", "tiny-paper", "tiny")
    assert [row.setup.train.epochs for row in (*fast.rows, *paper.rows)] == [2, 2, 9, 9]
    assert paper.rows[1].setup.train.objective.steps == 7
    assert paper.rows[1].setup.train.objective.eps == 0.1
    assert [len(row.cells) for row in paper.rows] == [3, 3]


@pytest.mark.parametrize(
    ("old", "new", "scale", "said"),
    [
        ("", "", "papr", "unknown scale 'papr'. Did you mean 'paper'?"),
        ("fast: {}", "fast: {title: x}", None, "scales.fast.title: unknown key 'title'"),
        ("epochs: 9", "epochs: -9", "paper", "scales.paper.base.train.epochs: must be greater"),
        ("row: None", "row: Nine", None, "published[0].row: unknown row 'Nine'. Did you mean 'None'?"),
        ("{asr: 0.135}", "{asrr: 0.135}", None, "unknown metric of this study 'asrr'. Did you mean 'asr'?"),
        ("{asr: 0.135}", "{asr: many}", None, "published[0].metrics.asr: must be a valid number"),
    ],
)
def test_wrong_scales_and_published_values_are_refused(
    plan_of, scaled_text: str, old: str, new: str, scale: str | None, said: str
) -> None:
    with pytest.raises(RequestError) as caught:
        plan_of(text=scaled_text.replace(old, new), scale=scale)
    assert said in str(caught.value)


def test_a_study_without_scales_has_none(plan_of) -> None:
    assert plan_of().folder == "tiny"
    with pytest.raises(RequestError, match="has no scales"):
        plan_of(scale="fast")


def test_published_values_stand_beside_their_row(plan_of, scaled_text: str) -> None:
    first, second = plan_of(text=scaled_text).recorded().as_dict()["rows"]
    assert first["published"]["metrics"] == {"asr": 0.135}
    assert first["published"]["printed"] == {"asr": 0.172}
    assert second["published"] is None


def test_a_metric_with_settings_is_refused(plan_of, tmp_path: Path) -> None:
    """A record keeps its name alone, and would read it back with other settings."""
    own = tmp_path / "own.py"
    own.write_text(
        "from bascule.core.catalog import component\n"
        "from bascule.metrics import Metric\n\n\n"
        "@component\n"
        "class Own(Metric):\n"
        "    title, better = 'Own', 'higher'\n"
        "    level: float = 1.0\n\n"
        "    def per_sample(self, outcomes):\n"
        "        return None\n"
    )
    with pytest.raises(RequestError, match=r"own.py:Own has settings \(level\), and a metric must have none"):
        plan_of(f"measure=[accuracy, {{name: '{own}:Own', level: 2.0}}]")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seeds: 1000000000", "expected 1 to 1000 different seeds, got 1000000000"),
        ("seeds: 1000\nvary: {train.epochs: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]}", "11,000 models"),
        (f"vary: {{train.epochs: {list(range(1, 1002))}}}", "1,001 rows of a table"),
        (
            f"vary: {{train.epochs: {list(range(1, 900))}, train.lr: {list(range(1, 900))}}}",
            "1 row x 899 values of train.epochs x 899 values of train.lr x 1 seed are 808,201 rows",
        ),
        ("scales: {'/../X': {}}", "'/../X': a run folder is called after its scale"),
        ("scales: {'..': {}}", "'..': a run folder is called after its scale"),
        ("title: {self: 1}", "title"),
        ("vary: {" + ".".join("a" * 100) + ": [1]}", "unknown key 'a'"),
    ],
)
def test_the_extent_of_a_study_is_known_before_work(change: str, said: str) -> None:
    text = (
        "base: {data: digits, model: digits-cnn, train: {objective: standard, epochs: 1, lr: 0.1}}\n"
        f"rows: {{A: {{}}}}\n{change}\n"
    )
    with pytest.raises(RequestError) as caught:
        make_plan(parse_study(text, name="s", source="s.yaml"))
    assert said in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("key", ["self", "__dataclass_self__", "cls"])
def test_a_key_that_python_knows_is_an_unknown_key(key: str) -> None:
    text = (
        "base: {data: digits, model: digits-cnn, train: {objective: standard, epochs: 1, lr: 0.1, KEY: 1}}\nrows: {A}"
    )
    with pytest.raises(RequestError, match=f"unknown key '{key}'"):
        make_plan(parse_study(text.replace("KEY", key), name="s", source="s.yaml"))


@pytest.mark.parametrize("change", ["scales={}", "scales.fast={seeds: 1}", "scales.fast.seeds=1"])
def test_scales_are_not_set(plan_of, change: str) -> None:
    text = plan_of().document.text + "scales: {fast: {seeds: 1}, slow: {seeds: 2}}\n"
    said = "the scales of a study stand in its file alone: choose one with `scale`, and change single settings"
    with pytest.raises(RequestError, match=f"^--set scales.*: {said}.*: about, base, measure, published, rows, seeds,"):
        plan_of(change, text=text)


def test_what_is_no_mapping_is_shown_as_it_was_written(plan_of) -> None:
    with pytest.raises(RequestError) as refused:
        plan_of("probe=[]")
    assert str(refused.value) == (
        "--set probe: in row 'None': probe: must be a mapping of settings (images, "
        "every, per_sample; {} for the default of each); got []"
    )
