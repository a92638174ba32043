"""The doctor's answer: findings and tables, for people and for scripts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from pixelwise.core.classes import Classes
from pixelwise.data.dataset import DataSet
from pixelwise.data.doctor.census import Census
from pixelwise.data.doctor.faults import Finding
from pixelwise.data.doctor.headers import Headers
from pixelwise.data.doctor.kinds import Severity


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is in a data set and what is wrong with it.

    findings  the worst first
    notes     what was found by looking rather than told
    splits    {split: images}
    censuses  {split: Census}: of all masks, or of the sample that the quick part reads
    classes, dataset  None where the files do not make a data set; `dataset` leaves out files that cannot be read
    """

    root: Path
    format: str
    quick: bool
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    splits: dict[str, int]
    headers: Headers = field(repr=False)
    censuses: dict[str, Census] = field(repr=False)
    classes: Classes | None = field(repr=False)
    dataset: DataSet | None = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings and notes are no errors."""
        return not self.of("error")

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity == severity)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        headers = self.headers
        return {
            "root": str(self.root),
            "format": self.format,
            "quick": self.quick,
            "ok": self.ok,
            "splits": self.splits,
            "findings": [f.to_dict() for f in self.findings],
            "notes": list(self.notes),
            "classes": None if self.classes is None else self.classes.to_dict(),
            "task": None if self.dataset is None else self.dataset.default_task,
            "sizes": [[h, w, n] for (h, w), n in sorted(headers.sizes.items())],
            "modes": dict(headers.modes),
            "formats": dict(headers.formats),
            "statistics": {split: census.to_dict() for split, census in self.censuses.items()},
        }

    def print(self, console: Console | None = None) -> None:
        """Tables, then findings, on the terminal."""
        from pixelwise.data.doctor.screen import show

        show(self, console or Console())
