"""`evaluate_split`: pooled at the original size, the same in one process and in two."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional as F

from pixelwise.core.classes import Classes
from pixelwise.core.outputs import Dense
from pixelwise.core.registry import create_model
from pixelwise.core.sample import Preprocessing, Sample, image_tensor
from pixelwise.core.segments import UNKNOWN, Segments
from pixelwise.core.sizes import SizeRule
from pixelwise.errors import ConfigError, DataError, ImageError
from pixelwise.evaluation import evaluate_split
from pixelwise.evaluation.model import full_metrics
from pixelwise.evaluation.split import _is_looked_at
from pixelwise.metrics import ConfusionMatrix
from pixelwise.tasks import make_task
from pixelwise.views import View

CLASSES = Classes(names=["road", "person", "sky"], things=["person"])
PLAIN = Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3)
SIZES = [(16, 24), (16, 24), (16, 24), (9, 30), (16, 24), (3, 5), (16, 24), (20, 20), (20, 20)]


class Blocks:
    """A data set in memory: blocks of classes, some overlapped by persons, sizes as in SIZES."""

    def __init__(self):
        self.reads = []

    def read(self, number):
        self.reads.append(number)
        rng = np.random.default_rng(number)
        height, width = SIZES[number]
        labels = np.kron(rng.integers(0, 3, (3, 3)), np.ones((8, 10), int))[:height, :width].astype(np.uint8)
        labels[0, 0] = 255
        ground = Segments.from_class_map(labels, num_classes=3)
        pixels = (labels[..., None] * 60 + rng.integers(0, 60, (height, width, 3))).astype(np.uint8)
        return Sample(image_tensor(pixels), split_things(ground), f"image{number}")


def split_things(ground):
    """Every person pixel column-wise halves: two instances touch."""
    rows = ground.ids[0].long()
    right = (rows == 1) & (torch.arange(rows.shape[1]) >= rows.shape[1] // 2)
    return Segments(torch.where(right, 3, rows).to(torch.int8), [0, 1, 2, 1])


def make_net(channels=3):
    torch.manual_seed(0)
    net = create_model("unet", classes=channels, width=4, depth=2)
    nn.init.normal_(net.head.weight, std=2.0)
    return net.eval()


def task_and_net(name):
    task = make_task(name, CLASSES)
    return task, make_net(task.classes.channels)


def assert_same_scores(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(other[key]), err_msg=key)


def test_counts_are_pooled_at_the_original_size():
    task, net = task_and_net("semantic")
    data = Blocks()
    found = evaluate_split(net, data, range(len(SIZES)), task, PLAIN)
    expected = ConfusionMatrix(3)
    for number in range(len(SIZES)):
        sample = data.read(number)
        x = (sample.image[None].float() / 255 - 0.5) / 0.25
        height, width = sample.size
        pads = [(0, 0), (0, 0), *((0, max(0, 8 - n)) for n in sample.size)]
        padded = torch.from_numpy(np.pad(x.numpy(), pads, "reflect"))
        with torch.no_grad():
            labels = net(padded).logits[0].argmax(0)[:height, :width]
        expected.update(labels, sample.truth.class_map())
    assert np.array_equal(found["confusion"], expected.counts)
    assert found["miou"] == expected.compute()["miou"]
    assert found["images"] == len(SIZES)
    assert found["confusion"].sum() == sum(h * w - 1 for h, w in SIZES)


class Shrinking(nn.Module):
    """Answers at half the input's size, as most nets do: logits, not labels, must be enlarged."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, images, frames=None, truths=None):
        return Dense(F.avg_pool2d(images, 2) + self.bias, frames)


def test_logits_are_enlarged_and_not_labels():
    task = make_task("semantic", CLASSES)
    predictions = []
    evaluate_split(Shrinking(), Blocks(), [0], task, PLAIN, on_image=lambda i, r, p, t: predictions.append(p))
    x = PLAIN(Blocks().read(0).image[None])
    logits = F.interpolate(F.avg_pool2d(x, 2), size=(16, 24), mode="bilinear")
    assert torch.equal(predictions[0].class_map().long(), logits[0].argmax(0))
    coarse = F.interpolate(F.avg_pool2d(x, 2).argmax(1)[None].float(), size=(16, 24), mode="nearest")[0, 0]
    assert not torch.equal(predictions[0].class_map().long(), coarse.long())


@pytest.mark.parametrize("task_name", ["semantic", "instance", "panoptic"])
def test_batches_and_workers_change_nothing(task_name):
    task, net = task_and_net(task_name)
    results = [
        evaluate_split(net, Blocks(), range(len(SIZES)), task, PLAIN, batch_size=b, workers=w,
                       metrics=full_metrics(task), per_image=True)
        for b, w in ((1, 0), (1, 3), (4, 2))
    ]  # fmt: skip
    assert_same_scores(results[0], results[1])
    assert results[2][task.primary] == pytest.approx(results[0][task.primary], abs=1e-3)
    assert [name for name, _ in results[2]["per_image"]] == [f"image{i}" for i in range(len(SIZES))]


def test_batches_hold_neighbours_of_one_size():
    sizes = []

    class Watching(Shrinking):
        def forward(self, images, frames=None, truths=None):
            sizes.append(tuple(images.shape[0:1] + images.shape[2:]))
            return super().forward(images, frames)

    evaluate_split(Watching(), Blocks(), range(len(SIZES)), make_task("semantic", CLASSES), PLAIN, batch_size=4)
    assert sizes == [(3, 16, 24), (1, 9, 30), (1, 16, 24), (1, 8, 8), (1, 16, 24), (1, 20, 20), (1, 20, 20)]


def test_thresholds_are_chosen_on_images_spread_evenly():
    for count, most in ((9, 4), (9, 9), (9, 20), (1, 3), (700, 500)):
        seen = [i for i in range(count) if _is_looked_at(i, count, most)]
        assert len(seen) == min(count, most)
        assert max(np.diff([0, *seen, count - 1])) <= -(-count // most)
    task, net = task_and_net("instance")
    found = evaluate_split(net, Blocks(), range(len(SIZES)), task, PLAIN, choose=True)["choice"]
    assert found.images == len(SIZES)
    assert found.thresholds.keys() == {"score", "min_area"}
    assert "choice" not in evaluate_split(net, Blocks(), [0], task, PLAIN)


def test_per_image_is_the_score_of_each_alone():
    task, net = task_and_net("semantic")
    data = Blocks()
    found = evaluate_split(net, data, range(4), task, PLAIN, per_image=True)
    for number, (name, score) in enumerate(found["per_image"]):
        alone = evaluate_split(net, data, [number], task, PLAIN)
        assert (name, score) == (f"image{number}", alone["miou"])
    assert "per_image" not in evaluate_split(net, data, range(4), task, PLAIN)


def test_loss_is_the_mean_over_images():
    task, net = task_and_net("semantic")

    def loss(output, truths):
        logits = output.full()
        target = torch.stack([t.class_map() for t in truths]).long()
        assert target.shape[1:] == logits.shape[2:]
        return {"ce": F.cross_entropy(logits, target, ignore_index=255), "size": 0.25 * logits.square().mean()}

    found = evaluate_split(net, Blocks(), range(len(SIZES)), task, PLAIN, loss=loss, tta="flip")
    expected = []
    for number in range(len(SIZES)):
        sample = Blocks().read(number)
        pads = [(0, max(0, 8 - n)) for n in sample.size]
        image = torch.from_numpy(np.pad(PLAIN(sample.image[None]).numpy(), [(0, 0), (0, 0), *pads], "reflect"))
        ids = np.pad(sample.truth.ids[0].numpy(), pads, constant_values=UNKNOWN)
        target = torch.from_numpy(np.array([0, 1, 2, 1, 255, 255])[ids])[None]
        with torch.no_grad():
            logits = net(image).logits
        ce = F.cross_entropy(logits, target, ignore_index=255)
        expected.append((ce.item(), 0.25 * logits.square().mean().item()))
    ce, size = np.mean(expected, axis=0)
    assert found["loss.ce"] == pytest.approx(ce, rel=1e-5)
    assert found["loss"] == pytest.approx(ce + size, rel=1e-5)
    with pytest.raises(ConfigError, match="plain view"):
        evaluate_split(net, Blocks(), [0], task, PLAIN, loss=loss, tta=[View(mirrored=True)])


def test_the_loss_under_a_size_rule_is_that_of_the_truth_at_the_nets_size():
    task, net = task_and_net("semantic")
    twice = replace(PLAIN, size=SizeRule(short=32, long=48))
    seen = []

    def loss(output, truths):
        seen.append((output.frames[0], truths[0]))
        return output.full().mean()

    evaluate_split(net, Blocks(), [0, 5], task, twice, loss=loss)
    truth = task.view(Blocks().read(0).truth)
    assert torch.equal(seen[0][1].ids.to(torch.int8), truth.ids.repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert seen[1][0].window == (0, 0, 29, 48)
    assert seen[1][1].size == seen[1][0].padded


def test_the_net_is_left_as_it_was():
    task, net = task_and_net("semantic")
    net.train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    evaluate_split(net, Blocks(), range(3), task, PLAIN)
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    with pytest.raises(IndexError):
        evaluate_split(net, Blocks(), [99], task, PLAIN)
    assert net.training


def test_what_cannot_be_evaluated():
    task, net = task_and_net("semantic")

    class Blind(Blocks):
        def read(self, number):
            return Sample(super().read(number).image, None, "dark")

    with pytest.raises(DataError, match="'dark' has no truth"):
        evaluate_split(net, Blind(), [0], task, PLAIN)
    with pytest.raises(DataError, match="empty"):
        evaluate_split(net, Blocks(), [], task, PLAIN)
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        evaluate_split(net, Blocks(), [0], task, PLAIN, batch_size=0)
    with pytest.raises(ConfigError, match="torchrun"):
        evaluate_split(net, Blocks(), [0, 1], task, PLAIN, world=2)
    with pytest.raises(ConfigError, match=r"miou"):
        evaluate_split(net, Blocks(), [0], task, PLAIN, metrics=[task.metric, task.metric])


def run_of(task_name, rank=0, world=1):
    torch.set_num_threads(1)
    task, net = task_and_net(task_name)
    data = Blocks()
    scores = evaluate_split(net, data, range(len(SIZES)), task, PLAIN, batch_size=2, metrics=full_metrics(task),
                            rank=rank, world=world, per_image=True, choose=True,
                            loss=lambda output, truths: output.full().square().mean())  # fmt: skip
    return scores, data.reads


class Damaged(Blocks):
    """Image 3, which only one of two processes reads, is broken."""

    def read(self, number):
        if number == 3:
            raise ImageError("b.png", "is truncated")
        return super().read(number)


def failing(rank, world):
    task, net = task_and_net("semantic")
    try:
        evaluate_split(net, Damaged(), range(len(SIZES)), task, PLAIN, rank=rank, world=world)
    except ImageError as error:
        return str(error)
    return "nothing was said"


def process(rank, world, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    found = {name: run_of(name, rank, world) for name in ("semantic", "instance", "panoptic")}
    found["error"] = failing(rank, world)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_are_exactly_one(tmp_path):
    mp.spawn(process, args=(2, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2)]
    # the image that one process could not read is said by both: none waits for counts that never come
    assert [found["error"] for found in ranks] == ["b.png: is truncated"] * 2
    for name in ("semantic", "instance", "panoptic"):
        scores, _ = run_of(name)
        for rank in range(2):
            assert_same_scores(ranks[rank][name][0], scores)
        reads = [set(ranks[rank][name][1]) for rank in range(2)]
        assert not reads[0] & reads[1]
        assert reads[0] | reads[1] == set(range(len(SIZES)))
