"""Coming back to a recorded run: its plan, with more asked of its models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bascule.core.errors import RequestError, placed
from bascule.plan.document import parse_study, parse_value
from bascule.plan.plan import Plan
from bascule.plan.resolve import make_plan
from bascule.record.plan import RecordedPlan
from bascule.record.run import RunRecord


def plan_again(
    run: RunRecord, roots: Sequence[Path], overrides: Sequence[str] = (), *, adding: str = "--set {}+="
) -> Plan:
    """The plan of a recorded run, with further overrides; errors name the option that adds to a list as in `adding`.

    Raises:
        RequestError: The plan is missing or damaged, or its data have gone.
    """
    known = run.plan()
    document = parse_study(known.text, name=known.study, source=str(run.plan_file))
    again = [text for text in overrides if text not in known.overrides]
    return make_plan(document, overrides=[*known.overrides, *again], scale=known.scale, roots=roots, adding=adding)


def more_asked(run: RunRecord, asked: Mapping[str, Sequence[str]], roots: Sequence[Path]) -> Plan:
    """The plan of a recorded run with more evaluations.

    Args:
        run: The run.
        asked: Names or YAML mappings to add to `attack`, `certify`, `curve` (numbers, separated by commas) and
            `measure`. An attack or certifier given by name alone gets the norm and eps of the study's attacks.
        roots: Folders searched for data.

    Raises:
        RequestError: Nothing asked, nothing trained, unknown names, or a name alone where the study has several balls.
    """
    if not any(asked.values()):
        raise RequestError("nothing to evaluate: give --attack, --certify, --curve or --measure")
    plan = run.plan()
    if not any(run.cell(seed.cell.fingerprint).trained for row in plan.rows for seed in row.seeds):
        raise RequestError(f"no model of {run.path} is trained yet. First: bascule run {plan.study}")
    added = []
    for key, texts in asked.items():
        for text in texts:
            with placed(f"--{key}"):
                value = parse_value(f"[{text}]" if key == "curve" else text)
            if key in ("attack", "certify"):
                value = _in_the_ball(plan, value, key)
            added.append(f"{key}+={json.dumps(value)}")
    return plan_again(run, roots, added, adding="--{}")


def _in_the_ball(plan: RecordedPlan, value: Any, key: str) -> Any:
    """A name alone gets the norm and radius of the study's attacks."""
    spec = {"name": value} if isinstance(value, str) else value
    if not isinstance(spec, Mapping) or "eps" in spec:
        return spec
    balls = {(a["norm"], a["eps"]) for row in plan.rows for a in row.settings["attack"]}
    if len(balls) != 1:
        raise RequestError(
            f"--{key} {value!r}: the study's attacks have {len(balls)} different balls; say which: "
            f"--{key} '{{name: {spec.get('name')}, norm: linf, eps: 0.1}}'"
        )
    ((norm, eps),) = balls
    return {"norm": norm, "eps": eps, **spec}
