"""What others call components leads to what they are here, and the page says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bascule.core import catalog
from bascule.core.catalog import TERMS, Term, build, construct
from bascule.core.catalog.terms import plain
from bascule.core.errors import RequestError
from bascule.plan.document import parse_study
from bascule.plan.origins import merge_values
from bascule.plan.schema import Setup

PAGE = Path(__file__).parents[3] / "docs" / "coming-from.md"
EVERY = [term for terms in TERMS.values() for term in terms]


def test_terms_lead_to_what_is_there_and_hide_nothing() -> None:
    own = {(room, plain(name)): f"{room}/{name}" for room in catalog.ROOMS for name in catalog.names(room)}
    for term in EVERY:
        rooms = {part.partition("/")[0] for part in term.here}
        for part in term.here:
            room, _, name = part.partition("/")
            assert name in catalog.names(room), part
        for name in term.names:
            assert all(own.get((room, plain(name)), part) in term.here for room in rooms for part in term.here), name
        assert term.is_here or term.about
        assert set(re.findall(r"\b(?:measure|repair)/[\w-]+", term.about)) <= {
            f"{room}/{name}" for room in ("measure", "repair") for name in catalog.names(room)
        }


def test_a_name_means_one_thing_of_a_kind() -> None:
    seen: set[tuple[str, str]] = set()
    for term in EVERY:
        for name in {plain(name) for name in term.names}:
            for room in {part.partition("/")[0] for part in term.here}:
                assert (room, name) not in seen, name
                seen.add((room, name))


@pytest.mark.parametrize(
    ("room", "name", "said"),
    [
        (
            "poison",
            "badnets",
            "'badnets'. 'badnets' is poison/sticker, with `label: dirty`. Allowed:",
        ),
        ("poison", "Blended", "is poison/watermark, with `mode: blend`"),
        ("poison", "lira", "'lira' is not here: its trigger comes out of a network"),
        ("poison", "trojannn", "Nearest: poison/sticker. Allowed: adaptive-blend,"),
        ("filter", "beatrix", "'beatrix' is filter/gram, which works in its manner."),
        ("filter", "scan", "'scan' is filter/two-component"),
        ("filter", "ABL", "'ABL' is train/abl"),
        ("filter", "ac", "is filter/activation-clustering."),
        ("filter", "ss", "is filter/spectral-signatures."),
        ("filter", "nc", "'nc' is scan/neural-cleanse"),
        ("scan", "tabor", "'tabor' is not here: this inversion is missing. Nearest: scan/neural-cleanse."),
        ("scan", "NeuralCleanse", "Did you mean 'neural-cleanse'?"),
        ("repair", "finepruning", "Did you mean 'fine-pruning'?"),
        ("repair", "I_BAU", "Did you mean 'i-bau'?"),
        ("train", "madry", "'madry' is train/pgd."),
        ("train", "at", "'at' is train/pgd."),
        ("attack", "aa", "'aa' is attack/autoattack."),
        ("attack", "AutoPGD", "'AutoPGD' is attack/apgd."),
        ("attack", "trades", "'trades' is train/trades."),
        ("attack", "hsja", "'hsja' is not here: attacks that see decisions alone are missing. Nearest: attack/square."),
        ("attack", "multiattack", "'multiattack' is a list: `attack: [...]`"),
        ("measure", "R-Acc", "is measure/triggered-accuracy, as BackdoorBench means it"),
        ("poison", "given", "'given' stands in place of one: `poison: {name: given, ...}`."),
    ],
)
def test_whoever_asks_by_another_name_is_told_the_one_here(room: str, name: str, said: str) -> None:
    with pytest.raises(RequestError) as refused:
        build(room, {"name": name})
    assert said in str(refused.value)


def line(term: Term) -> str:
    """A term in the page's table."""
    names = ", ".join(f"`{name}`" for name in term.names)
    here = " or ".join(f"`{part}`" for part in term.here)
    what = ", ".join(filter(None, (here, term.about)))
    lacking = f"not here: {term.about}{here and '; nearest: '}{here}"
    return f"| {names} | {what if term.is_here else lacking} | {', '.join(term.used_by)} |"


def test_the_page_has_every_term_under_its_heading_and_no_other() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## Names")[2].partition("\n## ")[0]
    parts = dict(
        zip(
            re.findall(r"^### (.+)$", text, re.MULTILINE),
            re.split(r"^### .+$", text, flags=re.MULTILINE)[1:],
            strict=True,
        )
    )
    assert list(parts) == list(TERMS)
    for heading, terms in TERMS.items():
        assert [row for row in parts[heading].splitlines() if row.startswith("| `")] == list(map(line, terms))


def test_the_names_that_the_page_speaks_of_are_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for room, name in re.findall(r"`([a-z]+)/([a-z0-9-]+)`", text):
        assert name in (*catalog.names(room), *catalog.named_settings(room)), f"{room}/{name}"


def test_the_studies_that_the_page_shows_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    studies = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert studies
    for text in studies:
        content = parse_study(text, name="page", source="page").content
        for row in content["rows"].values():
            assert construct(Setup, merge_values(content["base"], row)).attack
