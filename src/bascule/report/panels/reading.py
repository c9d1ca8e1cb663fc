"""How to read the page: what each metric is, in the words of its own documentation, and what intervals mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

from bascule.core.catalog import documentation, recorded_code
from bascule.core.errors import RequestError
from bascule.metrics.interval import CONFIDENCE
from bascule.report.view import View
from bascule.report.words import percent

TITLE = "How to read it"
PLACE = 150


def context(view: View) -> Mapping[str, Any]:
    """Each metric's title with the paragraphs of its definition."""
    names = {name.replace("-", "_"): name for run in view.runs for name in run.plan.metrics}
    metrics = [(metric.title, _paragraphs(names[key])) for key, metric in view.metrics.items()]
    return {"metrics": metrics, "confidence": percent(CONFIDENCE)}


def _paragraphs(name: str) -> list[Markup]:
    try:
        with recorded_code():
            text = documentation("measure", name).text
    except RequestError:  # someone's own metric, named by its module
        return []
    return [_marked_up(" ".join(part.split())) for part in text.split("\n\n")]


def _marked_up(text: str) -> Markup:
    """Words in backquotes as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
