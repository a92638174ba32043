"""What can be said on the command line: a frozen dataclass for each command, whose docstrings are its help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pixelwise.config import TrainSettings

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


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How a model answers: what is asked of it, by how many looks and nets, and what computes."""

    model: Annotated[Path, Positional]
    """A model.safetensors."""
    task: Literal["auto", "semantic", "instance", "panoptic"] = "auto"
    """What to answer; auto: what the model was trained for. A panoptic net answers all three."""
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


@dataclass(frozen=True, kw_only=True)
class Evaluate(Answering):
    """Score a model on a split of a data set, at the images' original sizes."""

    data: Annotated[Path, Positional]
    """The data set's folder."""
    split: str = "test"
    """Which split."""
    score: float | None = None
    """Objects below this score are no answers (AP ranks all that is found); by default as chosen on validation."""
    out: Path | None = None
    """Folder for scores.json and report.html; by default evaluation-SPLIT beside the model."""
    format: str | None = None
    """Layout on disk; found by looking by default."""
    options: tuple[str, ...] = ()
    """Options of the format, such as missing=skip: see docs/data.md."""
    report: bool = True
    """Write report.html."""


@dataclass(frozen=True, kw_only=True)
class Predict(Answering):
    """Segment images: files and folders, any size. The answers have the images' own sizes."""

    images: Annotated[tuple[Path, ...], Positional]
    """Image files and folders."""
    out: Path = Path("out")
    """Folder for the answers."""
    score: float | None = None
    """Objects below this score are not answered; by default as chosen on validation."""
    overlay: bool = True
    """Write the answer over the image as well."""
    confidence: bool = False
    """Write how sure the net is, as 8-bit grey."""
    max_pixels: int = 300_000_000
    """Larger images are refused before they are decoded, unless their files can be read by windows."""
    map: Literal["auto", "png", "tiff"] = "auto"
    """Files of the maps of ids and confidence; auto: TIFF for GeoTIFF images, whose place on the earth it keeps, else
    PNG."""
    tile: int | None = None
    """Images of more than TILE x TILE pixels are answered by tiles of that side, or up to twice as large where that
    makes them exact; by default those that would take too much memory at once."""
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
