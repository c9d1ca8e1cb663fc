"""Coming back to a recorded run: its plan, with more asked of its models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from bascule.core.catalog import changed_in, load, names, names_in, recall, recorded_code
from bascule.core.errors import RequestError
from bascule.core.fingerprint import Kept, kept_files
from bascule.plan.document import parse_study
from bascule.plan.overrides import Override, parse_override
from bascule.plan.plan import Plan
from bascule.plan.resolve import make_plan
from bascule.record.plan import RecordedPlan, came_as_it_is
from bascule.record.run import RunRecord
from bascule.running.loss import refuse_loss


def more_asked(run: RunRecord, asked: Sequence[Override], roots: Sequence[Path], *, trust_code: bool = False) -> Plan:
    """The plan of a recorded run with more evaluations.

    Args:
        run: The run.
        asked: What is added to `attack`, `certify`, `curve` and `measure`. An attack or certifier given by name alone
            gets the norm and eps of the study's attacks.
        roots: Folders searched for data.
        trust_code: Whether code that only the record names may be imported.

    Raises:
        RequestError: Nothing asked, nothing trained, unknown names, a name alone where the study has several balls, or
            the plan or the data have gone or are damaged; or settings, data or code are not those that the run was made
            with any more, so that its table would lose what it has; or the record names code that the user does not.
    """
    if not asked:
        raise RequestError("nothing to evaluate: give `attack`, `certify`, `curve` or `measure`")
    plan = run.plan()
    if not any(run.cell(seed.cell.fingerprint).trained for row in plan.rows for seed in row.seeds):
        raise RequestError(f"no model of {run.path} is trained yet. First: bascule run {plan.study}")
    changed = changed_in([row.settings for row in plan.rows])
    if changed and not trust_code:
        raise RequestError(
            f"what {run.path} has recorded was made with other code: {', '.join(changed)} changed since, or is gone. "
            "Nothing was written. Bring that back; or make models anew in another folder, to be given with `runs`"
        )
    recall_codes(run)
    folder = Path(plan.folder) if plan.folder else None
    document = parse_study(plan.text, name=plan.study, source=str(run.plan_file), folder=folder)
    known = [parse_override(text, f"{run.plan_file}, override") for text in plan.overrides]
    whole = [_in_the_ball(plan, more) if more.path in ("attack", "certify") else more for more in asked]
    new = [more for more in whole if more.text not in plan.overrides]
    named = [name for more in asked for name in names_in(more.value)]
    with recorded_code(trust=trust_code, changed=True, named=named), kept_files(_kept_weights(run)):
        extended = make_plan(document, overrides=[*known, *new], scale=plan.scale, roots=roots, recorded=plan.metrics)
    refuse_loss(run, extended, roots)
    return extended


def _kept_weights(run: RunRecord) -> dict[str, Kept]:
    """The files of weights that the models of a run came with or started from, by name, and which of them it keeps."""
    kept: dict[str, Kept] = {}
    plan = run.plan()
    cells = [run.cell(cell.fingerprint) for cell in plan.cells()]
    for cell in [*cells, *(base for cell in cells if (base := cell.base()) is not None)]:
        settings = cell.info().get("settings") or {}
        network = settings.get("model") or {}
        file, digest = (network.get(key) for key in ("weights", "weights_sha256"))
        if isinstance(file, str) and isinstance(digest, str):
            copy = cell.model_file if came_as_it_is(settings) and cell.trained else None
            known = kept.setdefault(file, Kept(digest, copy))
            kept[file] = known if known.copy is not None else Kept(digest, copy)
    # One that lay beside the study is not found there any more, and so has its name as written.
    beside = [file for file in kept if plan.folder and Path(file).is_relative_to(plan.folder)]
    return {**kept, **{str(Path(file).relative_to(plan.folder)): kept[file] for file in beside}}


def recall_codes(run: RunRecord) -> bool:
    """Let users' code have the identity that a run of an earlier version recorded, where it is still good.

    To be called before the run's study is resolved. Says whether the run has any; one that cannot be read has none.
    """
    try:
        return recall([row.settings for row in run.plan().rows])
    except RequestError:
        return False


def _has_ball(room: str, name: object) -> bool:
    """Whether the component of this name takes a radius; what is no component is for the plan to refuse."""
    if not isinstance(name, str) or name not in names(room):
        return True
    return any(field.name == "eps" for field in fields(load(room, name)))


def _in_the_ball(plan: RecordedPlan, asked: Override) -> Override:
    """A name alone gets the norm and radius of the study's attacks."""
    spec = {"name": asked.value} if isinstance(asked.value, str) else asked.value
    if not isinstance(spec, Mapping) or "eps" in spec or not _has_ball(asked.path, spec.get("name")):
        return replace(asked, value=spec)
    attacks = [
        attack for row in plan.rows for attack in row.settings.get("attack") or () if isinstance(attack, Mapping)
    ]
    balls = {(str(a.get("norm")), a.get("eps")) for a in attacks if isinstance(a.get("eps"), int | float)}
    if len(balls) != 1:
        raise RequestError(
            f"{asked.origin} {asked.value!r}: the study's attacks have {len(balls)} different balls; say which: "
            f"{asked.origin} '{{name: {spec.get('name')}, norm: linf, eps: 0.1}}'"
        )
    ((norm, eps),) = balls
    return replace(asked, value={"norm": norm, "eps": eps, **spec})
