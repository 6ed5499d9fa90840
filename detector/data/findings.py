"""What the doctor found: kinds of faults with their number, the first ones by file and line, and images to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from detector.tables import align

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
EXAMPLES = 5  # of each finding
CASES = 6  # likewise, of images to draw: three pairs of copies


@dataclass(frozen=True)
class Case:
    """An image that shows a finding.

    Attributes:
        path: of the image.
        boxes: the boxes at fault, cxcywh, normalised; none where the whole image is.
    """

    path: str
    boxes: tuple[tuple[float, float, float, float], ...] = ()


@dataclass(frozen=True)
class Finding:
    """One kind of fault, or of what is worth knowing.

    Attributes:
        severity: "error": training ends or its metrics mean nothing; "warning": probably a mistake; "note".
        kind: a word of its own, the same in every version: "image-unreadable".
        split: where it was found, or "" for all.
        what: a sentence.
        count: of files or boxes.
        examples: the first ones, with file and line.
        cases: the first ones, as they are drawn; none where there is no image to show.
    """

    severity: Severity
    kind: str
    split: str
    what: str
    count: int
    examples: list[str]
    cases: list[Case] = field(default_factory=list)


@dataclass
class Report:
    """What was found in a data set.

    Attributes:
        data: its description.
        splits: split -> images, boxes, boxes per class name.
        findings: errors first.
    """

    data: str
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def has_errors(self) -> bool:
        """Whether there is anything that a training would end with, or that makes its metrics mean nothing."""
        return any(finding.severity == "error" for finding in self.findings)

    def add(
        self,
        severity: Severity,
        kind: str,
        split: str,
        what: str,
        examples: Sequence[str],
        count: int | None = None,
        cases: Sequence[Case] = (),
    ) -> None:
        """Add a finding, unless there are no cases of it."""
        number = len(examples) if count is None else count
        if number:
            first = list(examples[:EXAMPLES])
            self.findings.append(Finding(severity, kind, split, what, number, first, list(cases[:CASES])))

    def sort(self) -> None:
        """Put errors first, then warnings; within these what was found first."""
        self.findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as `--json` prints it."""
        plain = asdict(self)
        for finding in plain["findings"]:
            del finding["cases"]
        return plain

    def table(self) -> str:
        """Return the splits and the findings as text."""
        rows = [["split", "images", "boxes"]]
        rows += [[split, str(found["images"]), str(found["boxes"])] for split, found in self.splits.items()]
        lines = [self.data, "", align(rows), ""]
        for finding in self.findings:
            where = f"{finding.split}: " if finding.split else ""
            lines.append(f"{finding.severity:<8} {finding.count:>7}  {where}{finding.what}")
            lines += [f"{'':<18}{example}" for example in finding.examples]
        if not self.findings:
            lines.append("nothing was found that is wrong")
        return "\n".join(lines)
