"""The order of the site: a page that lists others is followed by them, in the order of its links."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

START = "index"
LISTS = {
    "index": "",
    "guide": "guide/",
    "tutorials/index": "tutorials/",
    "results/README": "results/",
    "decisions/README": "decisions/",
    "reference/index": "reference/",
    "reference/components/index": "reference/components/",
    "reference/python/index": "reference/python/",
    "checkout/index": "checkout/",
}
"""Pages that list others, with the folder of those that they list; `index` lists what no other page does."""
GLOBS = {"decisions/README": "decisions/[0-9]*.md", "tutorials/index": "tutorials/*.ipynb"}
"""Pages that list all of a folder, so that a new one there is listed by itself; their list is shown."""


def contents(docs: Path, page: str, text: str) -> list[str]:
    """The pages that a page lists, without their endings, in the order in which they stand in it.

    Args:
        docs: The folder of the site's sources.
        page: The page, without its ending.
        text: Of the page.
    """
    if page in GLOBS:
        return [path.relative_to(docs).with_suffix("").as_posix() for path in sorted(docs.glob(GLOBS[page]))]
    folder = LISTS.get(page)
    if folder is None:
        return []
    links = re.findall(r"\]\(([\w./-]+)\.(?:md|ipynb)\)", text)
    found = dict.fromkeys(_beside(page, link) for link in links)
    of_others = [other for name, other in LISTS.items() if name not in (START, page) and other != folder]
    return [name for name in found if name != page and name.startswith(folder) and not _is_in(name, folder, of_others)]


def _beside(page: str, link: str) -> str:
    """A link as the page's neighbour means it: `../x` from `guide/y` is `x`."""
    parts: list[str] = []
    for part in (PurePosixPath(page).parent / link).parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


def _is_in(name: str, folder: str, others: list[str]) -> bool:
    """Whether a page belongs to a list below this folder, and does not lead it."""
    return any(other.startswith(folder) and name.startswith(other) and name not in LISTS for other in others)


def with_contents(docs: Path, page: str, text: str) -> str:
    """The page's text with the list of what follows it; hidden where the page itself shows the links."""
    listed = contents(docs, page, text)
    if not listed:
        return text
    hidden = "" if page in GLOBS else ":hidden:\n"
    return f"{text}\n\n```{{toctree}}\n{hidden}:maxdepth: 1\n\n" + "\n".join(f"/{name}" for name in listed) + "\n```\n"
