"""The doctor's answer on the terminal: overview, classes, objects, sizes, findings. Below 60 columns without bars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pixelwise.core.classes import Classes
from pixelwise.data.doctor.census import Census
from pixelwise.data.doctor.faults import Finding
from pixelwise.data.doctor.findings import Findings

SHOWN = 5  # file names of each finding
NARROW = 60  # columns of the screen; below it the tables lose what can be spared
MOST = 40  # classes in the table: the commonest and the rarest
BAR = 16
EIGHTHS = " ▏▎▍▌▋▊▉█"
MARKS = {"error": ("✗", "bold red"), "warning": ("!", "bold yellow"), "note": ("·", "cyan")}


def show(findings: Findings, console: Console) -> None:
    """Prints everything."""
    console.print(_overview(findings))
    if findings.classes is not None and findings.censuses:
        narrow = console.width < NARROW
        console.print(_classes(findings.classes, findings.censuses, findings.quick, narrow))
        objects = _objects(findings.censuses, narrow)
        if objects is not None:
            console.print(objects)
    _findings(findings, console)


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column.strip(), justify="right" if column.startswith(" ") else "left", no_wrap=True)
    return table


def _overview(f: Findings) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("data", f"{f.root}")
    table.add_row("format", f.format + (f", for {f.dataset.default_task} segmentation" if f.dataset else ""))
    total = sum(f.splits.values())
    table.add_row(
        "images", f"{total:,}: " + ", ".join(f"{split} {n:,}" for split, n in f.splits.items()) if total else "none"
    )
    table.add_row("pixels", _modes(f))
    table.add_row("sizes", _sizes(f))
    if f.classes is not None:
        things = len(f.classes.things)
        void = ", ".join(map(str, f.classes.void[:6])) + (", ..." if len(f.classes.void) > 6 else "")
        text = f"{len(f.classes)}" + (
            f", {'all' if things == len(f.classes) else f'{things} of them'} things" if things else ""
        )
        table.add_row(
            "classes", text + f"; void {void or 'none'}" + ("; other pixels are nothing" if f.classes.nothing else "")
        )
    return table


def _modes(f: Findings) -> str:
    modes = ", ".join(
        f"{mode} ({n:,})" if len(f.headers.modes) > 1 else mode for mode, n in f.headers.modes.most_common(5)
    )
    return f"{modes}; {', '.join(f.headers.formats)}" if modes else "unknown"


def _sizes(f: Findings) -> str:
    """Width x height, as people say it."""
    sizes = f.headers.sizes
    if not sizes:
        return "unknown"
    common = ", ".join(f"{w} x {h} ({n:,})" if len(sizes) > 1 else f"{w} x {h}" for (h, w), n in sizes.most_common(3))
    if len(sizes) <= 3:
        return common
    heights, widths = zip(*sizes)
    span = f"{min(widths)} to {max(widths)} wide, {min(heights)} to {max(heights)} high"
    return f"{len(sizes)} different, {span}; most are {common}"


def bar(share: float, width: int = BAR) -> str:
    """A share of 0..1 as blocks, at least one eighth where it is not 0."""
    eighths = max(round(share * width * 8), 1 if share > 0 else 0)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (EIGHTHS[rest] if rest else "")).ljust(width)


def percent(share: float) -> str:
    """Three figures where it is small: 31.7, 0.29, <0.01; a dash for 0."""
    if share == 0:
        return "-"
    value = 100 * share
    return "<0.01" if value < 0.01 else f"{value:.2f}" if value < 1 else f"{value:.1f}"


def _classes(classes: Classes, censuses: dict[str, Census], quick: bool, narrow: bool) -> Table:
    """A row per class: the training split's share as a bar, each split's share in %, images and objects."""
    splits = list(censuses)[:4]
    main = censuses["train"] if "train" in censuses else censuses[splits[0]]
    masks = sum(c.masks for c in censuses.values())
    objects = any(c.objects.any() for c in censuses.values()) and not narrow
    title = f"classes, % of known pixels, from {'a sample of ' if quick else ''}{masks:,} masks"
    spared = [] if narrow else [" images", *([" objects"] if objects else [])]
    table = _table("id", "class", *([] if narrow else [""]), *(f" {s}" for s in splits), *spared, title=title)
    shares = {split: censuses[split].shares for split in splits}
    top = max(float(main.shares.max(initial=0.0)), 1e-12)
    images = np.sum([c.images for c in censuses.values()], axis=0)
    things = np.sum([c.objects for c in censuses.values()], axis=0)
    rows = list(range(len(classes)))
    if len(rows) > MOST:
        order = np.argsort(-main.shares, kind="stable").tolist()
        rows = [*order[: MOST // 2], -1, *order[-MOST // 2 :]]
    for k in rows:
        if k < 0:
            table.add_row("", f"... {len(classes) - MOST} more", style="dim")
            continue
        name = Text(_short(classes.names[k], 10 if narrow else 20), style="" if main.pixels[k] else "yellow")
        blocks = Text(bar(main.shares[k] / top), style="rgb({},{},{})".format(*_visible(classes.colours[k])))
        counts = [f"{images[k]:,}"] + ([f"{things[k]:,}" if classes.is_thing[k] else ""] if objects else [])
        said = [percent(shares[split][k]) for split in splits]
        table.add_row(str(classes.ids[k]), name, *(said if narrow else [blocks, *said, *counts]))
    for word, attribute in (("(nothing)", "nothing"), ("(void)", "void")):
        if any(getattr(c, attribute) for c in censuses.values()):
            bars = [] if narrow else [""]
            table.add_row("", Text(word, style="dim"), *bars, *(_beside(censuses[s], attribute) for s in splits))
    return table


def _beside(census: Census, attribute: str) -> str:
    """Nothing is a share of the known pixels; void comes on top of them, as a share of all."""
    known = int(census.pixels.sum()) + census.nothing
    count = getattr(census, attribute)
    return percent(count / max(known + (census.void if attribute == "void" else 0), 1))


def _visible(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black would not be seen on a dark terminal."""
    lightest = max(max(colour), 1)
    r, g, b = (90, 90, 90) if lightest < 40 else colour
    return r, g, b


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"


def _objects(censuses: dict[str, Census], narrow: bool) -> Table | None:
    if not any(any(c.per_image) for c in censuses.values()):
        return None
    columns = [" objects", " images", " least", " median", " mean", " most", " without"]
    kept = (0, 3, 5) if narrow else range(len(columns))
    table = _table("split", *(columns[i] for i in kept), title="objects per image")
    for split, census in censuses.items():
        n = np.array(census.per_image)
        row = [n.sum(), len(n), n.min(), int(np.median(n)), f"{n.mean():.1f}", n.max(), int((n == 0).sum())]
        said = [v if isinstance(v, str) else f"{v:,}" for v in row]
        table.add_row(split, *(said[i] for i in kept))
    return table


def _findings(f: Findings, console: Console) -> None:
    for finding in f.findings:
        _finding(finding, console)
    if f.notes:
        console.print(Text("found by looking", style="bold"))
        for note in f.notes:
            console.print(Padding(Text(note), (0, 0, 0, 2)))
    counts = [(s, len(f.of(s))) for s in ("error", "warning", "note")]
    said = ", ".join(f"{n} {s}{'s' if n != 1 else ''}" for s, n in counts if n) or "nothing is wrong"
    style = "bold red" if not f.ok else "bold yellow" if f.of("warning") else "bold green"
    console.print(Text(said + (" (quick: images were not decoded)" if f.quick else ""), style=style))


def _finding(finding: Finding, console: Console) -> None:
    mark, style = MARKS[finding.severity]
    console.print(Text.assemble((f"{mark} {finding.severity}: ", style), finding.message))
    for line in _lines(finding.files[:SHOWN], finding.details):
        console.print(Padding(Text(line), (0, 0, 0, 4)), soft_wrap=False)
    if len(finding.files) > SHOWN:
        console.print(Padding(Text(f"and {len(finding.files) - SHOWN:,} more"), (0, 0, 0, 4)), style="dim")
    if finding.remedy:
        console.print(Padding(Text.assemble(("→ ", style), finding.remedy), (0, 0, 0, 2)))
    if finding.command:  # never wrapped, so that it can be copied
        console.print(Text.assemble("    $ ", (finding.command, "bold")), soft_wrap=True)


def _lines(files: Sequence[str], details: Sequence[str]) -> list[str]:
    return [f"{name}: {detail}" if detail else name for name, detail in zip(files, details)]
