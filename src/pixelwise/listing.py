"""What there is, for `pixelwise list`: read from the code itself, so that no list can be out of date."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pixelwise import losses, metrics
from pixelwise.core import registry
from pixelwise.core.classes import Classes
from pixelwise.core.segments import Segments
from pixelwise.errors import ConfigError, nearest
from pixelwise.nn import encoder

COUNTED_AT = 21  # classes: PASCAL VOC's, at which papers give parameters
THING = Classes(names=("cell",), things=("cell",))


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
        justify: Any = "right" if column == "parameters" else "left"
        grid.add_column(column, justify=justify, no_wrap=not last, overflow="fold", style="bold" if i == 0 else "")
    return grid


def parameters(name: str, classes: int = COUNTED_AT) -> int:
    """How many a net has, counted without allocating one."""
    with torch.device("meta"):
        net = registry.create_model(name, classes=classes)
    return sum(p.numel() for p in net.parameters())


def models() -> Table:
    """An architecture's own words and paper, then a row for each variant."""
    grid = _grid(
        "name", "parameters", "what", title=f"models (parameters with {COUNTED_AT} classes): train --model NAME"
    )
    for architecture in registry.modules("models"):
        module = registry.load("models", architecture)
        for variant, options in module.VARIANTS.items():
            name = f"{architecture}-{variant}" if variant else architecture
            told = ", ".join(f"{key}={value}" for key, value in options.items())
            what = _about(module) if not variant else Text(told)
            grid.add_row(name, f"{parameters(name):,}", what)
    return grid


def _about(module: Any) -> Text:
    """The first line of the module, and its paper where the line does not name it."""
    line = (module.__doc__ or "").strip().partition("\n")[0]
    paper = getattr(module, "PAPER", {})
    place = paper.get("arxiv") or paper.get("doi")  # a net that is on no arXiv
    if place and place not in line:
        line += f" {paper['title']} ({paper['year']}, {place})"
    return Text(line.strip())


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
