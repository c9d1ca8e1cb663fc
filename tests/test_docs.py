"""What the guide and the README show works as shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from bascule.study.document import parse_study
from bascule.study.record import RunRecord
from bascule.study.resolve import make_plan
from bascule.study.rows import read_rows
from bascule.study.run import run_plan

ROOT = Path(__file__).parents[1]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_guides_own_network_and_trigger_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks("docs/guide.md", "python"):
        name = block.splitlines()[0].removeprefix("# ")
        Path(name).write_text(block)
    text = """
base:
  data: {name: digits, max_train: 200, max_test: 40}
  poison: {trigger: {name: "stripes.py:Stripes", strength: 0.2}, target: 3, rate: 0.02}
  model: {name: "nets.py:small", width: 4}
  train: {objective: standard, epochs: 1}
  attack: {name: pgd, eps: 0.1, steps: 2}
rows: {None: {}}
"""
    run = RunRecord(tmp_path / "run")
    plan = make_plan(parse_study(text, name="own", source="own.yaml"))
    assert run_plan(plan, run, device=torch.device("cpu"), roots=()).failures == ()
    assert read_rows(run)[0].metrics["asr"].value is not None


@pytest.mark.data
def test_the_guides_study_is_valid(data_root: Path) -> None:
    (text,) = (block for block in blocks("docs/guide.md", "yaml") if block.startswith("title:"))
    plan = make_plan(parse_study(text, name="guide", source="guide"), roots=[data_root])
    assert [row.vary["poison.trigger.size"] for row in plan.rows] == [1, 2, 3, 1, 2, 3]


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"
