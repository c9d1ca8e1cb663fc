"""One page for each kind of component: what every one is, its settings, its source."""

from __future__ import annotations

from bascule.core import catalog
from bascule.plan.document import built_in_names, read_study
from generators.markdown import code, escaped, paragraphs, table
from generators.offered import offered

TITLES = {
    "data": "Data",
    "models": "Networks",
    "poison": "Triggers and poison",
    "attack": "Evasion attacks",
    "certify": "Certified bounds",
    "explain": "Explanations",
    "train": "Training objectives",
    "filter": "Filters",
    "scan": "Model scanners",
    "detect": "Test-time detectors",
    "repair": "Repairs",
    "measure": "Metrics",
}
GUIDES = {
    "data": "data",
    "models": "models",
    "poison": "poison",
    "attack": "attacks",
    "certify": "study-files",
    "explain": "defences",
    "train": "training",
    "filter": "defences",
    "scan": "defences",
    "detect": "detectors",
    "repair": "repairs",
    "measure": "metrics",
}
"""The page of the guide that tells how a kind is used."""
WRITTEN = {"data": "data", "models": "model", "train": "train: {objective: NAME}", "measure": "measure: [NAME]"}
"""How a study file names one, where it is not `KIND: NAME`."""


def pages() -> dict[str, str]:
    """Pages by name: one for each kind, one for the built-in studies, and their list."""
    kinds = {kind: _page(kind) for kind in catalog.ROOMS}
    listed = [f"- [{TITLES.get(kind, kind)}]({kind}.md): {about}" for kind, about in catalog.ROOMS.items()]
    head = "# Components\n\nThe same as `bascule ls KIND` and `bascule show KIND/NAME`.\n\n"
    return {
        "index": head + "\n".join([*listed, "- [Built-in studies](studies.md): what `bascule run NAME` runs"]) + "\n",
        "studies": _studies(),
        **kinds,
    }


def names(kind: str) -> list[str]:
    """Every built-in name of a kind: components, and settings that stand in place of one."""
    own = [name for name in catalog.names(kind) if catalog.is_built_in(kind, name)]
    return sorted([*own, *catalog.named_settings(kind)])


def anchor(kind: str, name: str) -> str:
    """Where a component stands: `components/attack.md#attack-pgd`."""
    return f"{kind}-{name}"


def _page(kind: str) -> str:
    package = catalog.PACKAGES[kind]
    written = WRITTEN.get(kind, f"{kind}: NAME")
    guide = GUIDES.get(kind, "plug-ins")
    about = (
        f"{catalog.ROOMS[kind].capitalize()}; in a study file `{written}`, in Python `bascule.{package}`, "
        f"on the command line `bascule ls {kind}`. How they are used: [guide](../../guide/{guide}.md)."
    )
    lines = [(f"[{name}](#{anchor(kind, name)})", escaped(catalog.summary(kind, name))) for name in names(kind)]
    parts = [f"# {TITLES.get(kind, kind)}", about, table(("name", "what it is"), lines)]
    return "\n\n".join([*parts, *(_component(kind, name) for name in names(kind))]) + "\n"


def _component(kind: str, name: str) -> str:
    found = catalog.documentation(kind, name)
    parts = [f"({anchor(kind, name)})=\n## {name}", paragraphs(found.text)]
    if found.fields:
        lines = [
            (
                code(field.name),
                escaped(field.allowed),
                "required" if field.written is None else code(field.written),
                escaped(field.text),
            )
            for field in found.fields
        ]
        parts.append(table(("setting", "type and range", "default", "what it is"), lines))
    else:
        parts.append("No settings.")
    return "\n\n".join([*parts, _place(kind, name), *_elsewhere(kind, name)])


def _place(kind: str, name: str) -> str:
    """The name in Python and the file; settings in place of a component have only a file."""
    stem, package = name.replace("-", "_"), catalog.PACKAGES[kind]
    if name in catalog.named_settings(kind):
        return f"Written `{kind}: {{name: {name}, ...}}`. Source: `src/bascule/{package}/{stem}.py`."
    cls = next(cls for cls, module in offered(package).items() if module == stem)
    return f"In Python `bascule.{package}.{cls}`. Source: `src/bascule/{package}/{stem}.py`."


def _elsewhere(kind: str, name: str) -> list[str]:
    """What others call it."""
    told = [
        " ".join(filter(None, (", ".join(map(code, term.names)), f"({', '.join(term.used_by)})", escaped(term.about))))
        for terms in catalog.TERMS.values()
        for term in terms
        if term.is_here and f"{kind}/{name}" in term.here
    ]
    return [f"Called elsewhere: {'; '.join(told)}."] if told else []


def _studies() -> str:
    lines = [(code(name), escaped(str(read_study(name).content.get("title", "")))) for name in built_in_names()]
    head = "# Built-in studies\n\n`bascule run NAME` runs one, `bascule show studies/NAME` prints it."
    return f"{head}\n\n{table(('name', 'question'), lines)}\n"
