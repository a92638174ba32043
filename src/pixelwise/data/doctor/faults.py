"""Single faults, gathered into findings: one of each kind."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelwise.data.doctor.kinds import KINDS, Severity

LOOSE = 12  # details without a file that a message tells
ORDER: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One kind of fault, with all files that have it.

    severity  "error": training or scoring would stop, or learn what nobody meant. "warning": it runs, and is probably
              not what was meant. "note": worth knowing
    code      short name of the kind, for scripts
    message   what was found
    files     relative to the root, all of them
    details   what is wrong with each file, in the order of `files`; "" where the message says it all
    count     how many
    remedy    what to do, and `command` how, for the first of the files, where there is one
    """

    severity: Severity
    code: str
    message: str
    files: tuple[str, ...] = ()
    count: int = 1
    remedy: str = ""
    command: str = ""
    details: tuple[str, ...] = ()

    def line(self) -> str:
        """The finding in one line, with its first file."""
        if not self.files:
            return self.message
        detail = f": {self.details[0]}" if self.details[0] else ""
        more = ", ..." if len(self.files) > 1 else ""
        return f"{self.message} ({self.files[0]}{detail}{more})"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = [{"file": f, "detail": d} if d else {"file": f} for f, d in zip(self.files, self.details)]
        told = {key: getattr(self, key) for key in ("severity", "code", "message", "count", "remedy", "command")}
        return {**told, "files": rows}


@dataclass
class Faults:
    """Gathers single faults; `findings` makes one Finding of each kind, the worst first."""

    root: Path
    table: str = "classes.txt"
    _found: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    _words: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, code: str, path: Path | None = None, detail: str = "", **words: str) -> None:
        """`words` fill the remedy's blanks; the first fault of a kind gives them."""
        self._found.setdefault(code, []).append((self.name(path) if path else "", detail.rstrip(".")))
        self._words.setdefault(code, words)

    def name(self, path: Path) -> str:
        """Relative to the root where it lies below it."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def findings(self) -> tuple[Finding, ...]:
        made = [self._finding(code) for code in KINDS if code in self._found]
        return tuple(sorted(made, key=lambda f: ORDER.index(f.severity)))

    def _finding(self, code: str) -> Finding:
        kind, rows = KINDS[code], sorted(set(self._found[code]))
        files = [row for row in rows if row[0]]
        message = (kind.one if len(rows) == 1 else kind.many).format(n=f"{len(rows):,}")
        loose = [detail for name, detail in rows if not name and detail]
        message += f": {'; '.join(loose[:LOOSE])}" if loose else ""
        message += f"; and {len(loose) - LOOSE:,} more" if len(loose) > LOOSE else ""
        words = {"root": str(self.root), "table": str(self.root / self.table), "aside": f"{self.root}-aside",
                 "file": str(self.root / files[0][0]) if files else ""}  # fmt: skip
        words |= self._words[code]
        inside = not (files and Path(files[0][0]).is_absolute())  # nobody is told to remove what is not the data set's
        return Finding(
            kind.severity,
            code,
            message,
            files=tuple(name for name, _ in files),
            count=len(rows),
            remedy=kind.remedy.format(**words),
            command=kind.command.format(**{key: shlex.quote(word) for key, word in words.items()}) if inside else "",
            details=tuple(detail for _, detail in files),
        )

    def __contains__(self, code: str) -> bool:
        return code in self._found

    def files(self, codes: Iterable[str]) -> set[Path]:
        """The files that have one of these faults."""
        return {self.root / name for code in codes for name, _ in self._found.get(code, ()) if name}
