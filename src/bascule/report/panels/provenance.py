"""What was run: enough to run it again, and to find what a number rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bascule.core.catalog import BUILT_IN, codes_in, origin, origin_of_code
from bascule.core.errors import RequestError
from bascule.record.plan import came_as_it_is
from bascule.report.view import CellView, RowView, RunView, View
from bascule.report.words import count, duration, moment

TITLE = "What was run"
PLACE = 140


@dataclass(frozen=True)
class Line:
    """One model in the list of all models."""

    row: RowView
    cell: CellView
    kind: str
    training: str
    evaluation: str
    state: str


def context(view: View) -> Mapping[str, Any]:
    """For each run its facts with the values found in the record, the study's text, and the list of models."""
    return {
        "runs": [
            {
                "name": run.name,
                "facts": [(name, values) for name, values in _facts(run) if values],
                "text": run.plan.text,
                "lines": [_line(row, cell) for row, cell in run.cells()],
            }
            for run in view.runs
        ],
        "code": {"Command", "Settings changed"},
    }


def _facts(run: RunView) -> list[tuple[str, list[str]]]:
    infos = [cell.info for cell in run.models if cell.info]
    return [
        ("Study", [run.plan.study]),
        ("Command", _different(info.get("command") for info in infos)),
        ("Settings changed", list(run.plan.overrides)),
        ("Precision of attacks", _precisions(run)),
        ("Versions", _different(_pairs(info.get("versions")) for info in infos)),
        ("Parts from elsewhere", _elsewhere(run)),
        ("Weights from files", _weights(run)),
        ("Commit", _different(info.get("commit") for info in infos)),
        ("Machine", _different(_host(info.get("host")) for info in infos)),
        ("Followed by hooks", _different(", ".join(info["hooks"]) for info in infos if info.get("hooks"))),
        ("Started", _started(infos)),
        ("Time taken", _taken(run.models)),
    ]


def _precisions(run: RunView) -> list[str]:
    """Where it is not float32 throughout."""
    rows = [row.result for row in run.rows if row.result.settings.get("attack")]
    if all(row.attack_precision == "float32" for row in rows):
        return []
    counts = Counter(_PRECISIONS.get(row.attack_precision, row.attack_precision) for row in rows)
    return [text if len(counts) == 1 else f"{text}  ({count(number, 'row')})" for text, number in counts.items()]


_PRECISIONS = {"mixed": "mixed: gradients in bfloat16 where the attack can, success in float32"}


def _elsewhere(run: RunView) -> list[str]:
    """Parts that are not built in, and where they come from: as recorded, of metrics as it is now."""
    codes = codes_in([row.result.settings for row in run.rows])
    parts = {name: origin_of_code(name, code) for name, code in codes.items()}
    for metric in run.plan.metrics:
        try:
            parts.setdefault(metric, origin("measure", metric))
        except RequestError:
            parts.setdefault(metric, "no longer there")
    return [f"{name}: {place}" for name, place in parts.items() if place != BUILT_IN]


def _weights(run: RunView) -> list[str]:
    """Files that models came with or started from, with what identifies them."""
    networks = [(cell.info.get("settings") or {}).get("model") or {} for cell in run.models]
    files = {(str(one["weights"]), str(one.get("weights_sha256"))): None for one in networks if one.get("weights")}
    return [f"{file} (SHA-256 {digest})" for file, digest in files]


def _different(values: Iterable[Any]) -> list[str]:
    """Each value once; with the number of models it holds for when there are several."""
    counts = Counter(str(value) for value in values if value)
    if len(counts) == 1:
        return list(counts)
    return [f"{value}  ({count(number, 'model')})" for value, number in counts.items()]


def _pairs(versions: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{name} {version}" for name, version in (versions or {}).items())


def _host(host: Mapping[str, Any] | None) -> str:
    if not host:
        return ""
    parts = [str(host.get("system", "")), f"device {host.get('device', 'unknown')}"]
    parts += [f"{host['processes']} processes together"] if host.get("processes") else []
    parts += [count(int(host[key]), noun) for key, noun in (("cpus", "CPU"), ("threads", "thread")) if host.get(key)]
    parts += ["compiled training"] if host.get("compiled") else []
    cuda = host.get("cuda")
    parts += _cuda(cuda) if isinstance(cuda, Mapping) else []
    return ", ".join(filter(None, parts))


def _cuda(cuda: Mapping[str, Any]) -> list[str]:
    rounded = [word for key, word in _TF32.items() if cuda.get(key)]
    return [
        f"CUDA {cuda.get('version')}",
        f"cuDNN {cuda.get('cudnn')} ({'' if cuda.get('deterministic') else 'not '}deterministic)",
        f"TF32 in training: {' and '.join(rounded) or 'none'}",
    ]


_TF32 = {"tf32_matmul": "matrix products", "tf32_cudnn": "cuDNN"}


def _started(infos: list[dict[str, Any]]) -> list[str]:
    times = sorted(str(info["started"]) for info in infos if info.get("started"))
    if not times:
        return []
    first, last = moment(times[0]), moment(times[-1])
    return [first if first == last else f"{first}; the last model at {last}"]


def _taken(cells: Sequence[CellView]) -> list[str]:
    made = [cell for cell in cells if cell.info.get("seconds") is not None]
    given = [cell for cell in made if _is_given(cell)]
    if not made:
        return []
    seconds = {id(cell): float(cell.info["seconds"]) for cell in made}
    loading = sum(seconds[id(cell)] for cell in given)
    parts = [
        f"training {duration(sum(seconds.values()) - loading)}" if len(made) > len(given) else "",
        f"loading {duration(loading)}" if given else "",
        f"evaluation {duration(sum(map(_evaluation_seconds, cells)))}",
        f"over {count(len(made), 'model')}{f', {len(given)} of them given' if given else ''}",
    ]
    return [", ".join(filter(None, parts))]


def _is_given(cell: CellView) -> bool:
    """Whether the model came with its weights, and was loaded instead of trained."""
    return came_as_it_is(cell.info.get("settings") or {})


def _evaluation_seconds(cell: CellView) -> float:
    return sum(float(info.get("seconds", 0)) for info in cell.evaluations.values())


def _line(row: RowView, cell: CellView) -> Line:
    seconds = cell.info.get("seconds")
    return Line(
        row=row,
        cell=cell,
        kind="twin" if cell.twin else "row",
        training="" if seconds is None else "given" if _is_given(cell) else duration(float(seconds)),
        evaluation=duration(_evaluation_seconds(cell)) if cell.evaluations else "",
        state=_state(cell),
    )


def _state(cell: CellView) -> str:
    if cell.failure is not None:
        return f"failed: {cell.failure}"
    if cell.done:
        return "done"
    if cell.record.trained:
        done = f"{len(cell.evaluations)} of {count(len(cell.planned.keys), 'evaluation')} done"
        return f"{'given' if _is_given(cell) else 'trained'}; {done}"
    return "not trained yet"
