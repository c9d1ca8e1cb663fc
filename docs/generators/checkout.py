"""Pages that lie outside of `docs/` in a checkout: the project's papers and the benchmarks."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]


def pages() -> dict[str, str]:
    """Text by name: each paper at the root but the README, each page of the benchmarks, and their list."""
    made = {_name(page): with_links(page, (ROOT / page).read_text(encoding="utf-8")) for page in _outside()}
    listed = [f"- [{_title(made[_name(page)])}]({_name(page)}.md)" for page in _outside()]
    return {"index": "# The project\n\n" + "\n".join(listed) + "\n", **made}


def with_links(page: str, text: str) -> str:
    """Links of a page between `docs/` and the rest of a checkout, as the site has them.

    Args:
        page: Its path in the checkout.
        text: Of it.
    """
    parts = re.split(r"(^ *```.*?^ *```)", text, flags=re.DOTALL | re.MULTILINE)
    parts[::2] = [re.sub(r"\]\(([^)#\s]+)(#[^)\s]+)?\)", lambda link: _link(page, link), part) for part in parts[::2]]
    return "".join(parts)


def _outside() -> list[str]:
    """Pages by their path in the checkout."""
    found = [path for path in sorted(ROOT.glob("*.md")) if path.name != "README.md"]
    found += sorted((ROOT / "benchmarks").rglob("*.md"))
    return [path.relative_to(ROOT).as_posix() for path in found]


def _name(page: str) -> str:
    """`benchmarks/gpu/README.md` is `benchmarks-gpu`."""
    return page.removesuffix(".md").removesuffix("/README").replace("/", "-").lower().replace("_", "-")


def _title(text: str) -> str:
    return re.findall(r"^# (.+)$", text, re.MULTILINE)[0]


def _link(page: str, link: re.Match[str]) -> str:
    target, anchor = link[1], link[2] or ""
    if re.match(r"[a-z]+:", target):
        return link[0]
    place = _resolved(PurePosixPath(page).parent, target)
    if (ROOT / place / "README.md").exists():  # a folder shows its README
        place = f"{place}/README.md"
    if place == "README.md":
        return f"](/index.md{anchor})"
    if place in _outside():
        return f"](/checkout/{_name(place)}.md{anchor})"
    if place.startswith("docs/"):
        return link[0] if page.startswith("docs/") else f"](/{place.removeprefix('docs/')}{anchor})"
    return link[0] if page.startswith("docs/") else "](" + "../" * 2 + f"{place}{anchor})"


def _resolved(folder: PurePosixPath, target: str) -> str:
    parts: list[str] = []
    for part in (folder / target).parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)
