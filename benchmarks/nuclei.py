"""Nuclei of the 2018 Data Science Bowl, from scratch: TP / (TP + FP + FN) at IoU 0.5, and its mean over 0.5 to 0.95.

    python benchmarks/nuclei.py DATA --minutes 30                                           StarDist, the recipe below
    python benchmarks/nuclei.py DATA --minutes 30 --model unet-folded --name components     U-Net, connected components
    python benchmarks/nuclei.py DATA --minutes 6 --name alike -- --dataset.percentiles None     one ingredient changed
    python benchmarks/nuclei.py DATA --trained                                  score the run that is there once more
    python benchmarks/nuclei.py --table                                                     results/nuclei.md

DATA is the set in the plain layout (images/, instances/, splits/, meta.csv with the kind of each image): 498 images to
train on, 66 to choose by, 100 to score, of which 82 are fluorescence (modality gray_dark) and the others stained. All
models have the same recipe. Weights are chosen on `val` by the training. So are, here, the least score of an object and
the share that StarDist's polygons may overlap: those with the best mean of TP / (TP + FP + FN) over IoU 0.3, 0.5 and
0.7, as the StarDist authors choose them; `test` is seen at the end. (The results `components` and `stardist-equal`, of
an equal budget, are from before: their thresholds are those that training chose, for the mean over 0.5 to 0.95.)

Scores are counted over all objects (pooled, as the StarDist authors' `matching_dataset` does by default), and also as
the mean over images (as the contest did).
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import measuring

from pixelwise import load
from pixelwise.core.modelfile import save_model
from pixelwise.data.dataset import DataSet, open_data
from pixelwise.evaluation import evaluate_split
from pixelwise.metrics import InstanceF1
from pixelwise.prediction import Predictor
from pixelwise.tasks.instance import Instance
from pixelwise.tasks.thresholds import InstanceThresholds

RECIPE = {
    "--model": "stardist",
    "--task": "instance",
    "--dataset.percentiles": "1 99.8",
    "--crop": "256",
    "--batch-size": "4",
    "--lr": "0.002",
    "--transforms.scale": "0.7 1.4",
    "--transforms.vertical-flip": "0.5",
    "--transforms.max-class-share": "1",
    "--seed": "0",
}
NMS = (0.3, 0.4, 0.5)  # those that the StarDist authors try
IOUS = (0.3, 0.5, 0.7)  # at which they choose
TITLE = "Nuclei (DSB 2018, 498 training images alone): TP / (TP + FP + FN) on the test split, in percent"
KINDS = {"fluorescence": "gray_dark", "colour": "color", "bright field": "gray_bright"}


def kinds_of(data: Path) -> dict[str, str]:
    """{image id: modality} from meta.csv."""
    with (data / "meta.csv").open(newline="") as file:
        return {row["id"]: row["modality"] for row in csv.DictReader(file)}


def look_at(predictor: Predictor, dataset: DataSet, split: str, *, choose: bool = False, **more: Any) -> dict[str, Any]:
    """The scores of a split, computed as training does."""
    return evaluate_split(predictor.net, dataset, dataset.records(split), predictor.task, predictor.card.preprocessing,
                          precision=predictor.precision, choose=choose, **more)  # fmt: skip


class ChosenAt(Instance):
    """The task, whose thresholds are chosen at `IOUS`."""

    def chooser(self) -> InstanceThresholds:
        return InstanceThresholds(len(self.classes), IOUS)


def choose(model: Path, out: Path, dataset: DataSet) -> dict[str, float]:
    """Writes the model to `out` with the thresholds, and of a StarDist the overlap, that do best on `val`:
    {overlap, or "" for other nets: score there}."""
    predictor = load(model)
    predictor.task = ChosenAt(predictor.task.classes)
    star = predictor.card.architecture.startswith("stardist")
    best, tried = -1.0, {}
    for nms in NMS if star else (None,):
        options = dict(predictor.card.options)
        if nms is not None:
            predictor.net.reading["nms"] = options["nms"] = nms
        choice = look_at(predictor, dataset, "val", choose=True)["choice"]
        tried["" if nms is None else f"{nms:g}"] = choice.score
        if choice.score > best:
            best = choice.score
            save_model(out, predictor.net, replace(predictor.card, options=options, thresholds=choice.thresholds))
    return tried


def score(model: Path, dataset: DataSet, kinds: dict[str, str]) -> dict[str, Any]:
    """{part of the test split: its scores}: all images, and each kind alone."""
    predictor = load(model)
    parts = {"all": set(kinds.values()), **{name: {kind} for name, kind in KINDS.items()}}
    meters = {(name, each): InstanceF1(1, per_image=each) for name in parts for each in (False, True)}
    images = dict.fromkeys(parts, 0)

    def count(index: int, record: Any, prediction: Any, truth: Any) -> None:
        for name, wanted in parts.items():
            if kinds[Path(record.image).stem] in wanted:
                images[name] += 1
                for each in (False, True):
                    meters[name, each].update(prediction, truth)

    found = look_at(predictor, dataset, "test", on_image=count)
    result: dict[str, Any] = {"thresholds": dict(predictor.card.thresholds), "options": dict(predictor.card.options),
                              "ap": float(found["ap"])}  # fmt: skip
    for name in parts:
        pooled, mean = (meters[name, each].compute() for each in (False, True))
        result[name] = {
            "images": images[name],
            "pooled": {key: float(pooled[key]) for key in ("accuracy_50", "accuracy_75", "accuracy", "f1_50")},
            "mean_over_images": {key: float(mean[key]) for key in ("accuracy_50", "accuracy_75", "accuracy")},
            "accuracy_per_threshold": [float(v) for v in pooled["accuracy_per_threshold"]],
            "counts_at_50": {key: int(pooled[key][0].sum()) for key in ("tp", "fp", "fn")},
        }
    return result


def measure(data: Path, out: Path, minutes: float, name: str, recipe: list[str], trained: bool) -> None:
    """Train, choose, score; results/NAME.json."""
    spent = measuring.elapsed(out) if trained else measuring.train(data, out, minutes, recipe)
    dataset, model = open_data(data), out / "chosen.safetensors"
    tried = choose(out / "model.safetensors", model, dataset)
    found = {**score(model, dataset, kinds_of(data)), "overlaps_on_val": tried}
    for part in ("all", *KINDS):
        pooled, mean = found[part]["pooled"], found[part]["mean_over_images"]
        print(f"{part:13} {found[part]['images']:4} images: at IoU 0.5 {pooled['accuracy_50']:.4f} pooled, "
              f"{mean['accuracy_50']:.4f} mean over images; over 0.5 to 0.95 {pooled['accuracy']:.4f} pooled, "
              f"{mean['accuracy']:.4f}", flush=True)  # fmt: skip
    measuring.write(name, out, spent, " ".join(["pixelwise train DATA --minutes", f"{minutes:g}", *recipe]), found)


def columns() -> dict[str, Any]:
    """What the table shows of a result: fluorescence and all images, pooled and as the mean over images."""
    wanted = {"at 0.5": "accuracy_50", "0.5 to 0.95": "accuracy"}
    return {
        f"{part}, {said} {how.replace('_', ' ')}": lambda found, keys=(part, how, key): found[keys[0]][keys[1]][keys[2]]
        for part in ("fluorescence", "all")
        for how in ("pooled", "mean_over_images")
        for said, key in wanted.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="the nuclei in the plain layout, with meta.csv")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--model", help="architecture, in place of the recipe's")
    parser.add_argument("--name", help="of the result's file; the model's by default")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder for the run")
    parser.add_argument("--trained", action="store_true", help="take the run as it is; --minutes are those it had")
    parser.add_argument("--table", action="store_true", help="only write results/nuclei.md")
    words, extra = measuring.split_words(sys.argv[1:])
    options = parser.parse_args(words)
    if not options.table:
        if options.data is None:
            parser.error("DATA is missing: the folder of the nuclei")
        recipe = {**RECIPE, **({"--model": options.model} if options.model else {})}
        recipe = {key: value for key, value in recipe.items() if key not in extra}
        flat = [part for key, value in recipe.items() for part in (key, *value.split())] + extra
        name = f"nuclei-{options.name or options.model or RECIPE['--model']}"
        measure(options.data, options.runs / name, options.minutes, name, flat, options.trained)
    measuring.table("nuclei", TITLE, columns())


if __name__ == "__main__":
    main()
