"""Pages of the site that nobody writes by hand: made from what `bascule show`, `--help` and the docstrings know."""

from __future__ import annotations

from pathlib import Path

from generators import checkout, commands, components, python


def pages() -> dict[str, str]:
    """All generated pages: the text in Markdown by the path under `docs/`."""
    index = (
        "# Reference\n\nMade from the code, so that it cannot differ from it.\n\n"
        "- [Components](components/index.md): what a study file, a command or Python can name, with all settings\n"
        "- [Commands](commands.md): every command and option\n"
        "- [Python](python/index.md): functions, results, the packages and their contracts\n"
    )
    made = {"index": index, "commands": commands.page()}
    made |= {f"components/{name}": text for name, text in components.pages().items()}
    made |= {f"python/{name}": text for name, text in python.pages().items()}
    found = {f"reference/{name}.md": text for name, text in made.items()}
    return found | {f"checkout/{name}.md": text for name, text in checkout.pages().items()}


def write(docs: Path) -> None:
    """Write the pages under `docs`; one that is as it was is not touched, so that it is not built again."""
    made = pages()
    for old in (*(docs / "reference").rglob("*.md"), *(docs / "checkout").rglob("*.md")):
        if str(old.relative_to(docs)) not in made:
            old.unlink()
    for name, text in made.items():
        path = docs / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
