"""An audit as somebody reads it in Python: the verdict, what it rests on, and what was not looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from PIL import Image

from bascule.core import tiles
from bascule.core.shown import Lines, Part, Picture, Pictures, Shown
from bascule.record.agreement import Conclusion, Scanned, named_most
from bascule.record.run import RunRecord
from bascule.report.audited.facts import Facts, facts_of
from bascule.report.audited.plain import facts_as_dict
from bascule.report.audited.verdict import Verdict, verdict_of
from bascule.report.result import Run
from bascule.report.view import view_of

NOT_PASSED = 3
"""Exit code where there is reason to suspect a backdoor, or nobody can say: what cannot be told does not hold."""
_SHEET = 384
"""Pixels that the contact sheet is wide at most, so that it is no burden to a notebook."""


class Audit(Shown):
    """What an audit found, as it was when it was read."""

    def __init__(
        self, record: RunRecord, *, failed: Mapping[str, str] | None = None, files: Sequence[Path] = ()
    ) -> None:
        """Read the record.

        Args:
            record: Of the audit's run.
            failed: Models that could not be asked, with the reason; by default those that the record names.
            files: The ranking of the training images, where there is one.

        Raises:
            RequestError: The plan is missing or damaged.
        """
        self.run = Run(record, failed=failed)
        """Everything that was measured, as `bascule.load` gives it."""
        self.files = tuple(files)
        """Where the ranking of the training images and a sheet of the most suspicious ones lie."""
        self.facts: Facts | None = facts_of(view_of([record]).runs[0])
        """What the verdict rests on; None before the model has answered at all."""

    @property
    def path(self) -> Path:
        """The folder of its run."""
        return self.run.path

    @property
    def study(self) -> Path:
        """What was asked, and why, in a file that may be edited: the same audit again runs it as it stands."""
        return self.path / f"{self.path.name}.yaml"

    @property
    def failed(self) -> Mapping[str, str]:
        """What could not be done, and why."""
        return self.run.failed

    @cached_property
    def verdict(self) -> Verdict | None:
        """In plain words; None before the model has answered at all."""
        return None if self.facts is None else verdict_of(self.facts)

    @property
    def conclusion(self) -> Conclusion:
        """`suspicion`, `undecided`, `nothing found`, or `no answer` where no scanner has looked, not everything is
        answered or images alone were ranked."""
        said = "no answer" if self.verdict is None else self.verdict.conclusion
        return "no answer" if self.failed and said != "suspicion" else said

    @property
    def suspicious(self) -> bool | None:
        """Whether there is reason to suspect a backdoor; None where nobody can say: scanners leave it undecided, or
        have not answered. False never means that the model is clean."""
        return {"suspicion": True, "nothing found": False}.get(self.conclusion)

    @property
    def exit_code(self) -> int:
        """That of `bascule audit`: 3 with a suspicion and where it is undecided, 1 where something failed or no scanner
        could look, else 0."""
        if self.failed:
            return 1
        if self.conclusion in ("suspicion", "undecided"):
            return NOT_PASSED
        return int(self.facts is None or (self.facts.about == "model" and self.conclusion == "no answer"))

    def report(self, path: str | PathLike[str] | None = None) -> Path:
        """Write the page with the verdict, the figures and the evidence; by default `report.html` in the run's folder.

        Returns:
            The file.
        """
        return self.run.report(path)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `bascule audit --format json` prints them."""
        verdict = self.verdict
        topics = () if verdict is None else verdict.topics
        return {
            "run": str(self.path),
            "study": str(self.study),
            "conclusion": self.conclusion,
            "suspicious": self.suspicious,
            "headline": None if verdict is None else verdict.headline,
            "verdict": [{"title": topic.title, "sentences": list(topic.sentences)} for topic in topics],
            "facts": None if self.facts is None else facts_as_dict(self.facts),
            "failed": dict(self.failed),
            "files": [str(path) for path in self.files],
        }

    # --- to be read --------------------------------------------------------------------------------------------------

    def shown(self) -> Sequence[Part]:
        if self.verdict is None:
            said: list[Part] = [Lines([f"{self.path}: nothing is answered yet."])]
        else:
            said = [
                Lines([self.verdict.headline]),
                *(Lines(topic.sentences, topic.title) for topic in self.verdict.topics),
            ]
        failed = [f"failed: {label}: {why}" for label, why in self.failed.items()]
        return [*said, *([Lines(failed)] if failed else []), Pictures([*self._triggers(), *self._ranked()], "Pictures")]

    def _triggers(self) -> Iterator[Picture]:
        """The triggers that scanners recovered for the class that is suspected, or that they name."""
        for scan in () if self.facts is None else self.facts.scans:
            label = _shown_of(scan, self.facts)
            if label is not None and scan.pattern is not None and scan.mask is not None:
                assert self.facts is not None
                caption = f"trigger recovered by {scan.method} for class {self.facts.name_of(label)}"
                yield Picture(tiles.over_grey(scan.pattern[label], scan.mask[label]), caption)

    def _ranked(self) -> Iterator[Picture]:
        """The sheet of the most suspicious training images, as far as it can be read."""
        for path in self.files:
            if path.suffix == ".png":
                try:
                    with Image.open(path, formats=("PNG",)) as sheet:
                        small = sheet.convert("RGB")
                except OSError:
                    continue
                small.thumbnail((_SHEET, _SHEET))
                yield Picture(small, "most suspicious training images, first by row")


def _shown_of(scan: Scanned, facts: Facts | None) -> int | None:
    """The class whose recovered trigger is worth a look; None where there is none."""
    label, count = (None, 0) if facts is None else named_most(facts.scans)
    return label if count > 1 else next(iter(scan.suspects), None)
