"""The command line: `pixelwise check | convert | train | evaluate | predict | ...`. Heavy imports wait for use."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import tyro

from pixelwise.commands import Check, Command, Convert, Evaluate, Export, Import, List, MachineReport, Predict
from pixelwise.complaints import complaint
from pixelwise.config import TrainSettings, parse_options
from pixelwise.errors import ConfigError, PixelwiseError


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


def load_model(command: Evaluate | Predict, **further: Any) -> Any:
    """The Predictor that the words ask for."""
    from pixelwise.prediction import load

    return load((command.model, *command.also), command.device, command.tta, score=command.score,
                task=None if command.task == "auto" else command.task, precision=command.precision,
                engine=command.engine, exact=command.exact, **further)  # fmt: skip


def _evaluate(command: Evaluate) -> int:
    from rich.console import Console

    from pixelwise.core.atomic import check_writable
    from pixelwise.core.jsonfile import write_json
    from pixelwise.data.dataset import open_data
    from pixelwise.evaluation import evaluate

    out = command.out or command.model.parent / f"evaluation-{command.split}"
    model = load_model(command)
    data = open_data(command.data, command.format, **parse_options(command.options))
    check_writable(out)
    scores = replace(
        evaluate(model, data, split=command.split), model=" + ".join(map(str, (command.model, *command.also)))
    )
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
    from pixelwise.prediction import predict_folder
    from pixelwise.prediction.progress import Progress

    if not command.images:
        last = " --with takes all words after it for models: put it last." if command.also else ""
        raise ConfigError(f"There is nothing to predict: name at least one image or folder after the model.{last}")
    model = load_model(command, max_pixels=command.max_pixels)
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
