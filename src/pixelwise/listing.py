"""What there is, for `pixelwise list`: read from the code itself, so that no list can be out of date."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from pixelwise import losses, metrics
from pixelwise.core import registry
from pixelwise.core.classes import Classes
from pixelwise.core.segments import Segments
from pixelwise.errors import ConfigError, nearest
from pixelwise.nn import encoder
from pixelwise.nn.counting import Cost, cost

COUNTED_AT = 21  # classes: PASCAL VOC's, at which papers give parameters
THING = Classes(names=("cell",), things=("cell",))
PAGE_HEAD = f"""# Models

Written by `python docs/make_models.py` from the files in `src/pixelwise/models`; `pixelwise list models` prints the
same. Parameters and GFLOPs are counted with {COUNTED_AT} classes and 3 channels, GFLOPs for one image of 512 x 512 in
evaluation, where one multiplication with its addition is one FLOP, as in torchvision's tables; "-": it depends on what
the net finds in the image. Auxiliary heads count as parameters; in evaluation they do not run. Files that load are
named by whose code wrote them: `pixelwise import FILE` recognises them.
"""


def table(what: str, console: Console | None = None) -> None:
    """Prints models, encoders, formats, writers, losses or metrics. Raises ConfigError for another word."""
    if what not in MAKERS:
        raise ConfigError(f"There is no list of '{what}'; {nearest(what, MAKERS)}")
    (console or Console()).print(MAKERS[what]())


def _grid(*columns: str, title: str) -> Table:
    """Names stay whole, the last column is wrapped."""
    grid = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for i, column in enumerate(columns):
        last = i == len(columns) - 1
        grid.add_column(column, no_wrap=not last, overflow="fold", style="bold" if i == 0 else "")
    return grid


def architectures() -> Iterator[tuple[str, Any]]:
    """(name, module) of each file in models/."""
    for architecture in registry.modules("models"):
        yield architecture, registry.load("models", architecture)


@functools.cache
def costs(architecture: str) -> dict[str, Cost]:
    """{name: cost} of an architecture's variants, counted without allocating one."""
    module = registry.load("models", architecture)
    found: dict[str, Cost] = {}
    same: dict[str, Cost] = {}  # variants that are one net under two names
    for variant, options in module.VARIANTS.items():
        name, key = f"{architecture}-{variant}" if variant else architecture, repr(sorted(options.items()))
        if key not in same:
            same[key] = cost(functools.partial(registry.create_model, name, classes=COUNTED_AT))
        found[name] = same[key]
    return found


def models() -> Group:
    """For each architecture its paper and whose files it reads, then a line for each variant with its options."""
    width = max(len(name) for architecture, _ in architectures() for name in costs(architecture))
    parts = [
        Text("models: train --model NAME", "bold"),
        Text(f"parameters and GFLOPs with {COUNTED_AT} classes, at 512 x 512; a multiply-add is one FLOP", "dim"),
    ]
    for architecture, module in architectures():
        paper, dialects = module.PAPER, sorted(getattr(module, "KEYS", {}))
        about = f"  {paper['year']}  {paper['title']} ({_where(paper)})"
        parts.append(Text.assemble("\n", (architecture, "bold"), about))
        if dialects:
            parts.append(Text(f"reads files of {', '.join(dialects)}", "green"))
        for name, counted in costs(architecture).items():
            told = _options(module.VARIANTS[registry.split_variant(name)[1]])
            line = f"{name:<{width}}  {counted.parameters:>11,}  {_giga(counted):>7}  "
            parts.append(Text.assemble(line, (told, "dim"), no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _giga(counted: Cost) -> str:
    """Multiply-adds in thousands of millions, or "-" where they depend on the image."""
    return "-" if counted.multiply_adds is None else f"{counted.multiply_adds / 1e9:,.1f}"


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items())


def _where(paper: Mapping[str, Any]) -> str:
    return paper.get("arxiv") or paper["doi"]


def page() -> str:
    """docs/models.md."""
    lines = [PAGE_HEAD, *_exports()]
    for architecture, module in architectures():
        paper = module.PAPER
        place = _where(paper)
        link = f"https://arxiv.org/abs/{place}" if paper.get("arxiv") else f"https://doi.org/{place}"
        dialects = ", ".join(sorted(getattr(module, "KEYS", {}))) or "none"
        lines += [f"## {architecture}", "", _first_line(module), "",
                  f"Paper: [{paper['title']}]({link}), {paper['year']}. Files that load: {dialects}.", "",
                  "| name | parameters | GFLOPs | options |", "|---|---:|---:|---|"]  # fmt: skip
        for name, counted in costs(architecture).items():
            told = _options(module.VARIANTS[registry.split_variant(name)[1]])
            cells = [f"`{name}`", f"{counted.parameters:,}", _giga(counted), f"`{told}`" if told else ""]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


RUNTIMES = ("torch", "onnx", "openvino")


def _exports() -> list[str]:
    """The table of what exports where; `tests/models/test_contract.py` holds every cell to it."""
    lines = ["## Export", "", "`pixelwise export MODEL --to ...`, and the engines of the same names: whether the net",
             "runs there as here, at any size, or which operator stops it.", "",
             "| architecture | " + " | ".join(RUNTIMES) + " |", "|---|---|---|---|"]  # fmt: skip
    for architecture, module in architectures():
        stopped: Mapping[str, str] = getattr(module, "NOT_EXPORTED", {})
        cells = [f"no: `{stopped[runtime]}`" if runtime in stopped else "yes" for runtime in RUNTIMES]
        lines.append(f"| {architecture} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _first_line(module: Any) -> str:
    """The first sentence of the module's docstring, which may go over two lines."""
    return " ".join((module.__doc__ or "").partition("\n\n")[0].split())


def encoders() -> Table:
    """timm's names, a row for each of its families."""
    grid = _grid("family", "encoders", title="encoders, by timm's names: train --options encoder=NAME")
    families: dict[str, list[str]] = {}
    for name in encoder.encoders():
        families.setdefault(encoder.family(name), []).append(name)
    for family, names in sorted(families.items()):
        grid.add_row(family, Text(" ".join(names)))
    return grid


def formats() -> Table:
    grid = _grid("name", "what", title="formats, found by looking, or said: --format NAME (train: --dataset.format)")
    for name in registry.modules("formats"):
        grid.add_row(name, Text(registry.load("formats", name).DESCRIPTION))
    return grid


def writers() -> Table:
    grid = _grid("name", "what", title="formats that are written: convert --to NAME, predict --save NAME")
    for name in registry.modules("writers"):
        grid.add_row(name, Text(registry.load("writers", name).DESCRIPTION))
    return grid


def loss_functions() -> Table:
    grid = _grid("name", "what and options", title='losses: train --loss "NAME+0.5*NAME(option=value)"')
    for name, options, what in losses.table():
        grid.add_row(name, Text.assemble(what, (f"\n{options}" if options else "", "dim")))
    return grid


def scores() -> Table:
    grid = _grid("name", "what and keys", title="metrics: pixelwise.metrics.NAME, update(prediction, truth), compute()")
    for name in metrics.__all__:
        metric = getattr(metrics, name)
        what = " ".join((inspect.getdoc(metric) or "").split("\n\n")[0].split())
        grid.add_row(name, Text.assemble(what, (f"\n{', '.join(keys(metric))}", "dim")))
    return grid


def keys(metric: Any) -> list[str]:
    """The keys of a metric, from a score of one object that is found."""
    first = next(iter(inspect.signature(metric).parameters))
    made = metric(THING) if first == "classes" else metric(len(THING))
    cell = torch.zeros(1, 8, 8, dtype=torch.bool)
    cell[:, 2:6, 2:6] = True
    found = Segments.from_masks(cell, [0])
    made.update(found, found)
    return list(made.compute())


MAKERS = {"models": models, "encoders": encoders, "formats": formats, "writers": writers, "losses": loss_functions,
          "metrics": scores}  # fmt: skip
