"""A row is about one set of seeds and one set of questions, and says what it leaves out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from bascule.record.plan import Reach, RecordedCell, RecordedSeed
from bascule.record.rows import RowResult, read_rows
from bascule.record.run import RunRecord
from bascule.report.compare.asked import asked_of
from records import ATTACK, asked, plan_of_rows, row_of, seed_of

LABELS = np.zeros(200, dtype=np.int64)
KEYS = ("clean:1", "attack:1", "attack:2")


def fooled(count: int) -> np.ndarray:
    """Predictions of which this many are wrong."""
    return np.where(np.arange(len(LABELS)) < count, 1, 0)


def add(run: RunRecord, seed: int, key: str, wrong: int, *, name: str = "fgsm") -> None:
    notes = {"kind": key.partition(":")[0], "settings": {"name": name}}
    run.cell(f"cell{seed}").add_outcomes(np.arange(len(LABELS)), LABELS, fooled(wrong), key=key, info=notes)


def run_of(folder: Path, seeds: int = 5, *, keys: tuple[str, ...] = KEYS) -> RunRecord:
    run = RunRecord(folder)
    row = row_of(*(seed_of(f"cell{seed}", *keys, seed=seed) for seed in range(seeds)))
    run.write_plan(plan_of_rows(row, metrics=("accuracy", "robust-accuracy", "certified-accuracy")))
    return run


def row_in(run: RunRecord) -> RowResult:
    return read_rows(RunRecord(run.path))[0]


def unfinished(row: RowResult) -> list[str]:
    return [flag for flag in row.flags if flag.startswith("unfinished")]


def test_an_attack_that_some_seeds_have_is_left_out_for_all(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    for seed in range(5):
        add(run, seed, "clean:1", 20)
        add(run, seed, "attack:1", 100 + 10 * seed)
    before = row_in(run).metrics["robust_accuracy"]
    assert before.value == 0.4
    for seed in range(2):
        add(run, seed, "attack:2", 200, name="square")
    row = row_in(run)
    assert row.metrics["robust_accuracy"] == before
    assert row.seeds == 5
    assert unfinished(row) == ["unfinished: attack square has answers for 2 of 5 seeds and is left out"]
    for seed in range(2, 5):
        add(run, seed, "attack:2", 200, name="square")
    assert row_in(run).metrics["robust_accuracy"].value == 0
    assert unfinished(row_in(run)) == []


def test_what_follows_an_attack_that_is_left_out_is_left_out_too(tmp_path: Path) -> None:
    run = run_of(tmp_path, seeds=2)
    for seed in range(2):
        add(run, seed, "clean:1", 20)
        add(run, seed, "attack:2", 60, name="pgd")
    add(run, 0, "attack:1", 50)
    assert row_in(run).metrics["robust_accuracy"].value is None
    assert unfinished(row_in(run)) == [
        "unfinished: attack fgsm has answers for 1 of 2 seeds and is left out",
        "unfinished: attack pgd has answers for 2 of 2 seeds and is left out",
    ]


def test_a_seed_on_its_way_for_the_first_time_does_not_count(tmp_path: Path) -> None:
    run = run_of(tmp_path, seeds=3)
    for seed in range(3):
        run.cell(f"cell{seed}").write_info({"seed": seed, "finished": "now" if seed < 2 else None})
        add(run, seed, "clean:1", 20 + 10 * seed)
        if seed < 2:
            add(run, seed, "attack:1", 50)
            add(run, seed, "attack:2", 60)
    row = row_in(run)
    assert row.seeds == 2
    assert row.metrics["accuracy"].value == 0.875
    assert unfinished(row) == ["unfinished: 2 of 3 seeds finished"]


def test_before_any_seed_is_finished_the_begun_ones_show(tmp_path: Path) -> None:
    run = run_of(tmp_path, seeds=2)
    run.cell("cell0").write_info({"seed": 0, "finished": None})
    add(run, 0, "clean:1", 20)
    row = row_in(run)
    assert (row.seeds, row.metrics["accuracy"].value, row.metrics["robust_accuracy"].value) == (1, 0.9, None)
    assert unfinished(row) == [
        "unfinished: 0 of 2 seeds finished; the numbers are of the answers so far, without attack"
    ]


def test_a_bound_that_some_seeds_have_is_left_out(tmp_path: Path) -> None:
    keys = ("clean:1", "certify:1", "certify:2")
    run = RunRecord(tmp_path)
    reach = {key: Reach(norm="linf", eps=0.1, of_model=True) for key in keys[1:]}
    seeds = [seed_of(f"cell{seed}", *keys, seed=seed) for seed in range(2)]
    seeds = [replace(seed, cell=replace(seed.cell, questions=asked(*keys, reaches=reach))) for seed in seeds]
    run.write_plan(plan_of_rows(row_of(*seeds), metrics=("certified-accuracy",)))
    for seed in range(2):
        add(run, seed, "clean:1", 0)
        for key, proved in (("certify:1", 50), ("certify:2", 150))[: 2 - seed]:
            radii = np.where(np.arange(len(LABELS)) < proved, 0.2, 0.0)
            run.cell(f"cell{seed}").add_outcomes(
                np.arange(len(LABELS)), LABELS, radii, key=key, info={"settings": {"name": "interval"}}
            )
    row = row_in(run)
    assert row.metrics["certified_accuracy"].value == 0.25
    assert unfinished(row) == [
        "unfinished: certify 1 of 2 interval (linf, eps 0.1) has answers for 1 of 2 seeds and is left out"
    ]


def test_a_security_curve_is_that_of_all_seeds_or_none(tmp_path: Path) -> None:
    keys = ("clean:1", "attack:1", "curve:1")
    run = RunRecord(tmp_path)
    questions = asked(*keys, reaches={"attack:1": Reach(norm="linf", eps=0.1)}, values={"curve:1": 0.2})
    seeds = [seed_of(f"cell{seed}", seed=seed) for seed in range(2)]
    seeds = [replace(seed, cell=replace(seed.cell, questions=questions)) for seed in seeds]
    run.write_plan(plan_of_rows(row_of(*seeds), metrics=("accuracy",)))
    for seed in range(2):
        add(run, seed, "clean:1", 0)
        add(run, seed, "attack:1", 50)
    add(run, 0, "curve:1", 60)
    assert row_in(run).curve == ()
    assert unfinished(row_in(run)) == ["unfinished: curve fgsm has answers for 1 of 2 seeds and is left out"]
    add(run, 1, "curve:1", 60)
    assert [measure.value for _, measure in row_in(run).curve] == [1.0, 0.75, 0.7]


def test_what_was_asked_since_is_named_until_all_seeds_have_it(tmp_path: Path) -> None:
    run = run_of(tmp_path, seeds=2, keys=KEYS[:2])
    for seed in range(2):
        add(run, seed, "clean:1", 20)
        add(run, seed, "attack:1", 50)
    plan = run.plan()
    row = row_of(*(seed_of(f"cell{seed}", *KEYS, seed=seed) for seed in range(2)))
    run.write_asked(replace(plan, rows=(row,), overrides=('attack+={"name": "square", "eps": 0.1}',)))
    add(run, 0, "attack:2", 200, name="square")
    assert unfinished(row_in(run)) == ["unfinished: attack square has answers for 1 of 2 seeds and is left out"]
    assert row_in(run).metrics["robust_accuracy"].value == 0.75
    run.write_plan(plan)
    assert unfinished(row_in(run)) == []
    assert not run.asked_file.exists()


def test_a_first_attack_alone_is_no_robust_accuracy_without_a_flag(tmp_path: Path) -> None:
    run = run_of(tmp_path, seeds=1)
    run.cell("cell0").write_info({"seed": 0, "finished": None})
    add(run, 0, "clean:1", 20)
    add(run, 0, "attack:1", 50)
    row = row_in(run)
    assert row.metrics["robust_accuracy"].value is not None
    assert unfinished(row) == [
        "unfinished: 0 of 1 seed finished; the numbers are of the answers so far, without attack"
    ]


def test_an_attack_that_nobody_has_answered_is_named(tmp_path: Path) -> None:
    run, attacks = run_of(tmp_path, seeds=1), [ATTACK, {"name": "pgd", "norm": "linf", "eps": 8 / 255}]
    plan = run.plan()
    run.write_plan(replace(plan, rows=(replace(plan.rows[0], settings={"attack": attacks}),)))
    named = run.plan().rows[0].seeds[0].cell.of("attack")
    assert [question.name for question in named] == ["fgsm", "pgd"]  # in a plan of version 0.2: as in the settings
    reach = Reach(norm="linf", eps=8 / 255)
    cell = RecordedCell(fingerprint="cell0", questions=(*asked("clean:1"), named[0], replace(named[1], reach=reach)))
    row = replace(plan.rows[0], seeds=(RecordedSeed(seed=0, cell=cell),), settings={"attack": attacks})
    run.write_plan(replace(plan, rows=(row,)))
    add(run, 0, "clean:1", 20)
    add(run, 0, "attack:1", 50)
    read = row_in(run)
    assert unfinished(read) == ["unfinished: attack pgd (linf, eps 8/255) has answers for 0 of 1 seed and is left out"]
    assert [question.key for question in read.counted("attack")] == ["attack:1"]
    assert asked_of([read]) == ["Attack: fgsm; not in it yet: pgd (linf, eps 8/255)"]
    add(run, 0, "attack:2", 60)
    assert asked_of([row_in(run)]) == [
        "Attacks: fgsm (linf, eps 0.3) and pgd (linf, eps 8/255), the worst of them for each image"
    ]


def test_parts_of_one_name_are_counted_where_only_some_have_answered(tmp_path: Path) -> None:
    run, reach = run_of(tmp_path, seeds=1), Reach(norm="linf", eps=0.1)
    parts = [replace(question, name="apgd", reach=reach) for question in asked("attack:1", "attack:2", "attack:3")]
    parts[2] = replace(parts[2], name="square")
    cell = RecordedCell(fingerprint="cell0", questions=(*asked("clean:1"), *parts))
    attacks = [{"name": "autoattack", "norm": "linf", "eps": 0.1}]
    plan = run.plan()
    row = replace(plan.rows[0], seeds=(RecordedSeed(seed=0, cell=cell),), settings={"attack": attacks})
    run.write_plan(replace(plan, rows=(row,)))
    run.cell("cell0").write_info({"seed": 0, "finished": None})
    add(run, 0, "clean:1", 20)
    add(run, 0, "attack:1", 50, name="apgd")
    ball = "(linf, eps 0.1)"
    one = f"1 of 2 apgd {ball}"
    assert unfinished(row_in(run))[0].endswith(f"without attack {one} and attack square {ball}")
    assert asked_of([row_in(run)]) == [f"Attack: {one}; not in it yet: {one} and square {ball}"]
    add(run, 0, "attack:2", 60, name="apgd")
    assert asked_of([row_in(run)]) == [f"Attack: apgd {ball}; not in it yet: square {ball}"]
