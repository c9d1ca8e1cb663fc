"""The report: one self-contained HTML page, rendered from the record of a run or of several."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bascule.core.files import write_atomically
from bascule.core.host import rarely_collecting
from bascule.record.plan import came_as_it_is
from bascule.record.run import RunRecord
from bascule.report import page, panels
from bascule.report.drawing import svg
from bascule.report.panels import Panel
from bascule.report.view import RunView, View, view_of
from bascule.report.words import count, joined


@dataclass(frozen=True)
class Section:
    """A rendered panel."""

    id: str
    title: str
    html: Markup


@dataclass(frozen=True)
class Live:
    """A page about runs that are being worked on; the browser loads it anew until it is replaced by one that is not."""

    written: datetime
    every: int
    """Seconds until the browser looks again."""


@dataclass(frozen=True)
class Heading:
    """What the page says of a run at its top."""

    name: str
    title: str
    about: str
    size: str
    status: str
    done: int
    models: int


def write_page(runs: Sequence[RunRecord], output: Path, *, live: Live | None = None) -> Path:
    """Write the report of one run or of several, finished or not, to `output`; the same records give the same bytes.

    Raises:
        RequestError: A record is missing or damaged.
    """
    with rarely_collecting(), svg.drawing():
        html = render(view_of(runs), live)
    # Half a surrogate pair, which JSON can hold, has no place in a file.
    write_atomically(output, lambda temporary: temporary.write_bytes(html.encode("utf-8", errors="replace")))
    return output


def render(view: View, live: Live | None = None) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader([*page.__path__, *panels.__path__]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = resources.files("bascule.report.page").joinpath("page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sections = [section for panel in panels.panels() if (section := _section(environment, panel, view)) is not None]
    names = [run.name for run in view.runs]
    return environment.get_template("page.jinja").render(
        title=f"{joined(names)}, side by side" if len(names) > 1 else view.runs[0].plan.title,
        headings=[_heading(run, running=live is not None) for run in view.runs],
        live=live,
        sections=sections,
        script=Markup(script),
        script_hash=f"sha256-{digest}",  # no other script may run
    )


def _section(environment: Environment, panel: Panel, view: View) -> Section | None:
    content = panel.context(view)
    if content is None:
        return None
    name = panels.name_of(panel)
    html = environment.get_template(f"{name}.jinja").render(content)
    return Section(name, panel.TITLE, Markup(html))


def _heading(run: RunView, *, running: bool) -> Heading:
    failed = sum(cell.failure is not None for cell in run.models)
    done = sum(cell.done and cell.failure is None for cell in run.models)
    return Heading(
        name=run.name,
        title=run.plan.title,
        about=run.plan.about.strip(),
        size=_size(run),
        status=_status(done, failed, run, running=running),
        done=done,
        models=len(run.models),
    )


def _size(run: RunView) -> str:
    """`digits · 2 rows · 5 seeds each`."""
    data = ", ".join(dict.fromkeys(row.result.data for row in run.rows))
    seeds = sorted({len(row.cells) for row in run.rows})
    each = f"{seeds[0]} to {count(seeds[-1], 'seed')}" if len(seeds) > 1 else count(seeds[0], "seed")
    return f"{data} · {count(len(run.rows), 'row')} · {each} each"


def _status(done: int, failed: int, run: RunView, *, running: bool) -> str:
    models = len(run.models)
    if done == models and not running:
        given = any(came_as_it_is(row.result.settings) for row in run.rows)
        return f"Finished: {count(done, 'model')} {'' if given else 'trained and '}evaluated."
    parts = [f"{done} of {count(models, 'model')} done", *([f"{failed} failed"] if failed else [])]
    if running:
        return f"Running: {', '.join(parts)}."
    return f"Not finished: {', '.join(parts)}. The same command again continues the run."
