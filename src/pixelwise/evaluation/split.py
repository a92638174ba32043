"""Scores a net on a split: every image once, at its original size, counts pooled; exact in any number of processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.core.disagreement import count_objects
from pixelwise.core.outputs import Frame, Output
from pixelwise.core.sample import Preprocessing, Sample
from pixelwise.core.segments import UNKNOWN, Segments
from pixelwise.core.types import Metric, Task
from pixelwise.engines import open_engine
from pixelwise.errors import ConfigError, DataError, PixelwiseError
from pixelwise.prediction.ahead import ahead
from pixelwise.views import PLAIN, View, look, parse

Loss = Callable[[Output, tuple[Segments, ...]], Tensor | Mapping[str, Tensor]]
OnImage = Callable[[int, Any, Segments, Segments], None]


@dataclass
class Tally:
    """What one process has counted: metrics, and by the image's index the losses, names with scores, and objects."""

    metrics: list[Any]
    chooser: Any = None
    losses: dict[int, dict[str, float]] = field(default_factory=dict)
    per_image: dict[int, tuple[str, float]] = field(default_factory=dict)
    objects: dict[int, tuple[int, int]] = field(default_factory=dict)
    images: int = 0


# no_grad and not inference_mode: buffers that a net makes on the way must stay usable in the training that goes on
@torch.no_grad()
def evaluate_split(net: nn.Module, dataset: Any, records: Sequence[Any], task: Task, preprocessing: Preprocessing, *,
                   device: torch.device | str | None = None, batch_size: int = 1, workers: int = 2,
                   precision: str = "fp32", tta: str | Sequence[View] | None = None,
                   metrics: Sequence[Callable[[], Metric]] | None = None, rank: int = 0, world: int = 1,
                   on_image: OnImage | None = None, loss: Loss | None = None, per_image: bool = False,
                   choose: bool = False,
                   forward: Callable[[Tensor], Output] | None = None) -> dict[str, Any]:  # fmt: skip
    """Scores of the records in one flat dict, the same on every rank.

    dataset     anything with read(record) -> Sample with truth; `records` the images, in the same order on every rank
    device      where the net computes; None: where its parameters are
    batch_size  images that follow each other and have one size are computed together
    metrics     makers of what is counted; None: the task's own metric. Those that rank (see `Metric`) are shown all
                that was found, the others the task's answer
    on_image    called (index, record, prediction, truth as the task sees it) for this rank's images, in their order
    loss        (output, truths at the padded input's size) -> scalar or {name: scalar}; its mean over the images is
                "loss" (and "loss.NAME"); taken from the plain view
    per_image   whether "per_image" is there too: a list of (name, the task's primary score of that image alone); and
                "objects", for each of them how many are true and how many were answered (0 and 0 for class maps)
    choose      whether "choice" is there too: the task's thresholds that do best on these images, a `Choice`, or None
                for a task without any
    forward     what answers images [B, C, H, W] as stored, in place of the net, `preprocessing`, `precision` and `tta`:
                `Predictor.forward_batch`; there is no loss then
    rank, world this process and how many; images are dealt out by index, none twice, and counts merged in rank order.
                Nets whose parameters are sharded must be gathered before: ranks compute different numbers of batches.
    Raises DataError for records without truth or an empty list, and what reading raises.
    """
    if not len(records):
        raise DataError("There is no image to evaluate: the split is empty.")
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}.")
    views = parse(tta)
    if loss is not None and (views[0] != View() or forward is not None):
        raise ConfigError("The loss is that of the net's plain view: put View() first in tta, and leave out forward.")
    where = torch.device(device) if device is not None else next(net.parameters()).device
    tally = Tally([make() for make in (metrics or (task.metric,))], task.chooser() if choose else None)
    failure: PixelwiseError | None = None
    training = net.training
    engine = open_engine("eager", net, device=where, precision=precision)

    def answer(images: Tensor, views: Sequence[View]) -> Output:
        return look(engine, preprocessing(images.to(where)), views, preprocessing.size)

    try:
        for group in _groups(dataset, records, batch_size, workers, rank, world):
            images = torch.stack([sample.image for _, sample in group])
            output = answer(images, views) if forward is None else forward(images)
            truths = _count(tally, output, group, records, task, on_image, per_image)
            if loss is not None:  # joined views keep no output: the plain one is asked for again
                plain = output if len(views) == 1 else answer(images, PLAIN)
                _count_loss(tally, loss, plain, truths, [index for index, _ in group], where)
    except PixelwiseError as error:  # the other processes must hear of it, or they wait for this one's counts
        failure = error
    finally:
        net.train(training)
    scores = _summary(_gather(tally, failure, world), len(records))
    wanted = {"per_image": per_image, "objects": per_image, "choice": choose}
    return {k: v for k, v in scores.items() if wanted.get(k, True)}


def _count(tally: Tally, output: Output, group: Sequence[tuple[int, Sample]], records: Sequence[Any], task: Task,
           on_image: OnImage | None, per_image: bool) -> list[Segments]:  # fmt: skip
    """Counts each image of a batch; returns their truths as the task sees them."""
    truths = []
    for i, (index, sample) in enumerate(group):
        assert sample.truth is not None
        reading, truth = task.read(output, i), task.view(sample.truth)
        prediction = task.decide(reading).to("cpu")
        alone = [task.metric()] if per_image else []
        wanted = any(map(_ranks, (*tally.metrics, *alone)))
        everything = task.ranked(reading).to("cpu") if wanted else prediction
        for metric in (*tally.metrics, *alone):
            metric.update(everything if _ranks(metric) else prediction, truth, index)
        for metric in alone:
            tally.per_image[index] = sample.name, float(metric.compute()[task.primary])
            tally.objects[index] = count_objects(truth, task.classes), count_objects(prediction, task.classes)
        if tally.chooser is not None and _is_looked_at(index, len(records), tally.chooser.most):
            tally.chooser.update(reading, truth)
        if on_image is not None:
            on_image(index, records[index], prediction, truth)
        truths.append(truth)
    tally.images += len(group)
    return truths


def _ranks(metric: Any) -> bool:
    return getattr(metric, "ranked", False)


def _is_looked_at(index: int, count: int, most: int | None) -> bool:
    """Whether the image is among `most` that are spread evenly over the split."""
    return most is None or index * most // count != (index - 1) * most // count


def _groups(dataset: Any, records: Sequence[Any], batch_size: int, workers: int, rank: int,
            world: int) -> Iterator[list[tuple[int, Sample]]]:  # fmt: skip
    """Runs of (index, sample) of one size, at most `batch_size` long, of this rank.

    The split is cut into chunks of `batch_size` before they are dealt out and a run never leaves its chunk: so which
    images share a batch, and with it the last bit of the net's answer, does not depend on the number of processes.
    """
    mine = [i for i in range(len(records)) if (i // batch_size) % world == rank]
    run: list[tuple[int, Sample]] = []
    for index, future in ahead(lambda i: dataset.read(records[i]), mine, workers):
        sample = future.result()
        if sample.truth is None:
            raise DataError(f"'{sample.name}' has no truth, so it cannot be evaluated; choose a split with masks.")
        same = run and run[-1][0] // batch_size == index // batch_size and run[-1][1].size == sample.size
        if run and not same:
            yield run
            run = []
        run.append((index, sample))
    if run:
        yield run


def _count_loss(tally: Tally, loss: Loss, plain: Any, truths: list[Segments], indexes: list[int],
                device: torch.device) -> None:  # fmt: skip
    padded = tuple(_place_truth(truth, frame).to(device) for truth, frame in zip(truths, plain.frames))
    found = loss(plain, padded)
    terms = dict(found) if isinstance(found, Mapping) else {"": found}
    values = {name: float(value) for name, value in terms.items()}
    for index in indexes:  # the mean over the batch stands for each of its images
        tally.losses[index] = values


def _place_truth(truth: Segments, frame: Frame) -> Segments:
    """The truth as the net's input shows it: resized with it (nearest), and unknown where the input was padded."""
    top, left, height, width = frame.window
    if (frame.padded, frame.window) == (truth.size, (0, 0, *truth.size)):
        return truth
    ids, boxes, areas = truth.ids.to(torch.int32), truth.given_boxes, truth.given_areas
    if (height, width) != truth.size:
        rows, columns = (_centres(there, here) for there, here in zip((height, width), truth.size))
        ids = ids[:, rows][:, :, columns]
        y, x = height / truth.size[0], width / truth.size[1]
        boxes = None if boxes is None else boxes * boxes.new_tensor([x, y, x, y])
        areas = None if areas is None else areas * (x * y)
    below, right = frame.padded[0] - top - height, frame.padded[1] - left - width
    ids = F.pad(ids, (left, right, top, below), value=UNKNOWN)
    return replace(truth, ids=ids, given_boxes=boxes, given_areas=areas)


def _centres(count: int, source: int) -> Tensor:
    """[count] the pixels of `source` that lie under the centres of `count` pixels over the same length."""
    return ((torch.arange(count) + 0.5) * (source / count)).floor().long().clamp(max=source - 1)


def _gather(tally: Tally, failure: PixelwiseError | None, world: int) -> Tally:
    """The counts of all ranks as one, the same everywhere; where a rank failed, all raise its error."""
    if world > 1:
        if not dist.is_initialized() or dist.get_world_size() != world:
            raise ConfigError(f"world={world} needs torch.distributed with as many processes; start with torchrun.")
        found: list[Any] = [None] * world
        dist.all_gather_object(found, failure or tally)
        failure = next((f for f in found if isinstance(f, PixelwiseError)), None)
    else:
        found = [tally]
    if failure is not None:
        raise failure
    total = found[0]
    for other in found[1:]:
        for mine, theirs in zip(total.metrics, other.metrics):
            mine.merge(theirs)
        if total.chooser is not None:
            total.chooser.merge(other.chooser)
        total.losses |= other.losses
        total.per_image |= other.per_image
        total.objects |= other.objects
        total.images += other.images
    return total


def _summary(tally: Tally, expected: int) -> dict[str, Any]:
    assert tally.images == expected, f"{tally.images} of {expected} images were counted"
    per_image = [tally.per_image[index] for index in sorted(tally.per_image)]
    choice = tally.chooser.compute() if tally.chooser is not None else None
    objects = [tally.objects[index] for index in sorted(tally.objects)]
    scores: dict[str, Any] = {"images": tally.images, "per_image": per_image, "objects": objects, "choice": choice}
    for metric in tally.metrics:
        found = metric.compute()
        twice = scores.keys() & found.keys()
        if twice:
            raise ConfigError(f"Two metrics give the scores {sorted(twice)}; choose one of them.")
        scores |= found
    if tally.losses:
        names = next(iter(tally.losses.values()))  # math.fsum is exact, so the order does not matter
        means = {n: math.fsum(v[n] for v in tally.losses.values()) / len(tally.losses) for n in names}
        scores["loss"] = math.fsum(means.values())
        scores |= {f"loss.{name}": value for name, value in means.items() if name}
    return scores
