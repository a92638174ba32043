"""The command line: `pixelwise check | convert | train | evaluate | predict | ...`. Heavy imports wait for use."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from pixelwise.complaints import complaint
from pixelwise.config import TrainSettings, parse_options
from pixelwise.errors import ConfigError, PixelwiseError

Positional = tyro.conf.Positional


@dataclass(frozen=True)
class Check:
    """Say what is in a data set and what is wrong with it. Exits with 1 when something is."""

    data: Annotated[Path, Positional]
    """The data set's folder."""
    format: str | None = None
    """Layout on disk; found by looking by default."""
    options: tuple[str, ...] = ()
    """Options of the format, such as annotations=both: see docs/data.md."""
    quick: bool = False
    """Only what needs no decoding of every image."""
    json: bool = False
    """JSON instead of tables."""


@dataclass(frozen=True)
class Evaluate:
    """Score a model on a split of a data set, at the images' original sizes."""

    model: Annotated[Path, Positional]
    """A model.safetensors."""
    data: Annotated[Path, Positional]
    """The data set's folder."""
    split: str = "test"
    """Which split."""
    task: Literal["auto", "semantic", "instance", "panoptic"] = "auto"
    """What to score; auto: what the model was trained for. A panoptic net answers all three."""
    score: float | None = None
    """Objects below this score are no answers (AP ranks all that is found); by default as chosen on validation."""
    out: Path | None = None
    """Folder for scores.json and report.html; by default evaluation-SPLIT beside the model."""
    also: Annotated[tuple[Path, ...], tyro.conf.arg(name="with")] = ()
    """Further models of the same task and classes, which answer together with the first: the mean of all."""
    tta: str | None = None
    """Test-time augmentation: flip, vflip, turn, dihedral, scale, or several joined as in flip+scale."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the net; auto: faster than float32 where the processor can and the answers stay alike."""
    engine: Literal["auto", "eager", "compiled", "onnx", "openvino"] = "auto"
    """What runs the net; auto: the net itself, or a faster engine where there is enough to do (pixelwise machine)."""
    exact: bool = False
    """The net itself in float32, whatever is faster."""
    format: str | None = None
    """Layout on disk; found by looking by default."""
    options: tuple[str, ...] = ()
    """Options of the format, such as missing=skip: see docs/data.md."""
    report: bool = True
    """Write report.html."""


@dataclass(frozen=True)
class Predict:
    """Segment images: files and folders, any size. The answers have the images' own sizes."""

    model: Annotated[Path, Positional]
    """A model.safetensors."""
    images: Annotated[tuple[Path, ...], Positional]
    """Image files and folders."""
    out: Path = Path("out")
    """Folder for the answers."""
    task: Literal["auto", "semantic", "instance", "panoptic"] = "auto"
    """What to answer; auto: what the model was trained for. A panoptic net answers all three."""
    score: float | None = None
    """Objects below this score are not answered; by default as chosen on validation."""
    overlay: bool = True
    """Write the answer over the image as well."""
    confidence: bool = False
    """Write how sure the net is, as 8-bit grey."""
    also: Annotated[tuple[Path, ...], tyro.conf.arg(name="with")] = ()
    """Further models of the same task and classes, which answer together with the first: the mean of all."""
    tta: str | None = None
    """Test-time augmentation: flip, vflip, turn, dihedral, scale, or several joined as in flip+scale."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the net; auto: faster than float32 where the processor can and the answers stay alike."""
    engine: Literal["auto", "eager", "compiled", "onnx", "openvino"] = "auto"
    """What runs the net; auto: the net itself, or a faster engine where there is enough to do (pixelwise machine)."""
    exact: bool = False
    """The net itself in float32, whatever is faster."""
    max_pixels: int = 300_000_000
    """Larger images are refused before they are decoded."""
    map: Literal["auto", "png", "tiff"] = "auto"
    """Files of the maps of ids; auto: TIFF for GeoTIFF images, whose place on the earth it keeps, else PNG."""
    tile: int | None = None
    """Images of more than TILE x TILE pixels are answered by tiles of about that side; by default those that would take
    too much memory at once."""
    resume: bool = False
    """Go on with what an interrupted run of the same words left, also within a large image."""
    save: tuple[str, ...] = ()
    """What to write: classes, instances, panoptic, objects (tables), or one of pixelwise list writers; by default one
    that is usual for the model's task."""


@dataclass(frozen=True)
class Import:
    """Make a model file of weights that others trained: torchvision's, detectron2's and others' checkpoints."""

    checkpoint: Annotated[Path, Positional]
    """A .pth, .pt, .safetensors or .pkl file. Nothing in it is run."""
    out: Path = Path("model.safetensors")
    """The model file to write."""
    classes: Path | None = None
    """Class table (classes.txt) in the order of the net's labels; published label sets need none."""
    architecture: str | None = None
    """Which net it is of; found by its keys by default."""
    options: tuple[str, ...] = ()
    """Options of the net over those that the shapes tell, such as keep=300."""


@dataclass(frozen=True)
class Convert:
    """Write a data set in another format, and say what that format cannot hold."""

    data: Annotated[Path, Positional]
    """The data set's folder."""
    to: str
    """The format to write; see pixelwise list writers."""
    out: Path
    """Folder for it, new or empty."""
    format: str | None = None
    """Layout that is read; found by looking by default."""
    options: tuple[str, ...] = ()
    """Options of the format that is read, such as annotations=both: see docs/data.md."""
    to_options: tuple[str, ...] = ()
    """Options of the format that is written, such as masks=rle."""
    split: tuple[str, ...] = ()
    """Which splits; all by default."""
    images: Literal["copy", "link", "none"] = "copy"
    """Copy the images as they are, link to them, or write annotations alone."""


@dataclass(frozen=True)
class Export:
    """Write a model for another runtime, with its preprocessing inside, and hold the file against the net. Exits with 1
    where it answers otherwise; then no file is kept."""

    model: Annotated[Path, Positional]
    """A model.safetensors."""
    to: Literal["onnx", "openvino", "torch"]
    """An .onnx file, OpenVINO's .xml and .bin, or torch.export's .pt2."""
    out: Path | None = None
    """The file to write; by default beside the model."""
    images: Path | None = None
    """Folder of images to try the file on; by default drawn streets."""
    probabilities: bool = False
    """Give probabilities beside the labels, for nets that label pixels."""


@dataclass(frozen=True)
class List:
    """List what there is."""

    what: Annotated[Literal["models", "encoders", "formats", "writers", "losses", "metrics"], Positional]
    """Which of them."""


@dataclass(frozen=True)
class MachineReport:
    """Say what this machine has, what is chosen on it for training and prediction and why, and what would help."""

    model: Path | None = None
    """Time this model's net; by default half a second an image is assumed."""
    json: bool = False
    """JSON instead of text."""


Command = (
    Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Convert, tyro.conf.subcommand("convert")]
    | Annotated[TrainSettings, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Import, tyro.conf.subcommand("import")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[MachineReport, tyro.conf.subcommand("machine")]
)


def main(words: Sequence[str] | None = None) -> None:
    """Runs a command and exits: 0 fine, 1 done but something is wrong, 2 a setting or file that cannot be, 130 Ctrl-C.

    words   the command line's; None: those of the process
    """
    words = list(sys.argv[1:] if words is None else words)
    debug = "--debug" in words
    words = [w for w in words if w != "--debug"]
    try:
        command = parse(words)
        sys.exit(RUN[type(command)](command))
    except PixelwiseError as error:
        if debug:
            raise
        print(f"pixelwise: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("pixelwise: stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does: nothing more is to be flushed to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def parse(words: Sequence[str]) -> Any:
    """The command with its settings. Raises ConfigError for words that are none, naming the nearest."""
    args, said = list(words) or ["--help"], io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(Command, args=args, prog="pixelwise", description=DESCRIPTION, config=CONFIG)
    except SystemExit as end:
        if not end.code:  # --help
            raise
        raise complaint(said.getvalue()) from None


DESCRIPTION = (
    "A label for every pixel: semantic, instance and panoptic segmentation. --debug shows the traceback of an error."
)
CONFIG = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff)


def _check(command: Check) -> int:
    from pixelwise.data.doctor import examine

    options = parse_options(command.options)
    findings = examine(command.data, format=command.format, quick=command.quick, options=options)
    if command.json:
        print(json.dumps(findings.to_dict(), indent=1))
    else:
        findings.print()
    return 0 if findings.ok else 1


def _convert(command: Convert) -> int:
    from pixelwise.data.convert import convert

    options, to_options = parse_options(command.options), parse_options(command.to_options)
    done = convert(command.data, command.to, command.out, format=command.format, options=options, to_options=to_options,
                   splits=command.split, images=command.images)  # fmt: skip
    for split, count in done.written.items():
        print(f"{split or 'all'}: {count} image{'s' if count != 1 else ''}")
    how = {"copy": "images copied", "link": "images linked"}[command.images] if done.images else "annotations alone"
    print(f"{done.segments} segments written as {command.to}, {how}: {done.out}")
    for sentence in done.lost:
        print(f"lost: {sentence}")
    return 0


def _train(command: TrainSettings) -> int:
    from pixelwise.training.loop import Training

    training = Training(command)
    run = training.run()
    training.world.close()
    if not run.complete:
        return 130
    if not training.world.first:
        return 0
    print(f"model     {run.model}")
    if run.report is not None:
        print(f"report    {run.report}")
    return 0


def _evaluate(command: Evaluate) -> int:
    from rich.console import Console

    from pixelwise.core.atomic import check_writable
    from pixelwise.core.jsonfile import write_json
    from pixelwise.data.dataset import open_data
    from pixelwise.evaluation import evaluate
    from pixelwise.prediction import load

    out = command.out or command.model.parent / f"evaluation-{command.split}"
    task = None if command.task == "auto" else command.task
    paths = command.model, *command.also
    model = load(paths, command.device, command.tta, task=task, score=command.score,
                 precision=command.precision, engine=command.engine, exact=command.exact)  # fmt: skip
    data = open_data(command.data, command.format, **parse_options(command.options))
    check_writable(out)
    scores = replace(evaluate(model, data, split=command.split), model=" + ".join(map(str, paths)))
    write_json(out / "scores.json", scores.to_dict(), indent=1)
    Console().print(scores)
    print(f"scores    {out / 'scores.json'}")
    if command.report:
        from pixelwise.data.statistics import statistics
        from pixelwise.report import examples_of_scores, write_evaluation_report

        about = {"training": model.card.training}
        pictures = examples_of_scores(scores, model, data)
        found = statistics(data, command.split)
        path = write_evaluation_report(scores, pictures, out / "report.html", about=about, statistics=found)
        print(f"report    {path}")
    return 0


def _predict(command: Predict) -> int:
    from pixelwise.prediction import load, predict_folder
    from pixelwise.prediction.progress import Progress

    if not command.images:
        last = " --with takes all words after it for models: put it last." if command.also else ""
        raise ConfigError(f"There is nothing to predict: name at least one image or folder after the model.{last}")
    task = None if command.task == "auto" else command.task
    model = load((command.model, *command.also), command.device, command.tta, task=task, score=command.score,
                 precision=command.precision, engine=command.engine, exact=command.exact,
                 max_pixels=command.max_pixels)  # fmt: skip
    if model.thresholds:
        print(f"thresholds  {model.thresholds}")
    with Progress() as progress:
        run = predict_folder(model, command.images, command.out, save=command.save or None, overlay=command.overlay,
                             confidence=command.confidence, maps=command.map, tile=command.tile,
                             resume=command.resume, on_image=progress.on_image, on_tile=progress.on_tile)  # fmt: skip
    for member in model.members:
        choice = member.choice
        print(f"computed    by {choice.engine} in {choice.precision} on {choice.device}: {choice.reasons['engine']}")
    print(f"{len(run.done)} image{'s' if len(run.done) != 1 else ''} segmented, answers in {command.out}")
    for sentence in run.lost:
        print(f"lost: {sentence}")
    for path, why in run.whole:
        print(f"decoded whole: {path}: {why}")
    for path, reason in run.failed:
        print(f"failed: {path}: {reason}", file=sys.stderr)
    return 1 if run.failed else 0


def _import(command: Import) -> int:
    from pixelwise.checkpoints import import_checkpoint

    options = parse_options(command.options)
    made = import_checkpoint(command.checkpoint, command.out, classes=command.classes,
                             architecture=command.architecture, **options)  # fmt: skip
    print("\n".join(made.lines()))
    return 0


def _export(command: Export) -> int:
    from pixelwise.errors import ExportError
    from pixelwise.export import export_model

    try:
        made = export_model(command.model, command.to, command.out, images=command.images,
                            probabilities=command.probabilities)  # fmt: skip
    except ExportError as error:
        print(f"pixelwise: {error}", file=sys.stderr)
        return 1
    for precision, agreement in made.agreement.items():
        print(f"{precision:<9} {agreement}")
    print(f"model     {made.path}")
    return 0


def _list(command: List) -> int:
    from pixelwise.listing import table

    table(command.what)
    return 0


def _machine(command: MachineReport) -> int:
    from pixelwise.advice import describe_machine, lines

    found = describe_machine(command.model)
    print(json.dumps(found, indent=1) if command.json else "\n".join(lines(found)))
    return 0


RUN: dict[type, Any] = {
    Check: _check,
    Convert: _convert,
    TrainSettings: _train,
    Evaluate: _evaluate,
    Predict: _predict,
    Import: _import,
    Export: _export,
    List: _list,
    MachineReport: _machine,
}
