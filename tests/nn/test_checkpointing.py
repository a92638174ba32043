"""Gradient checkpointing changes memory and time, and nothing else: weights and statistics are equal to the bit."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from pixelwise.core.registry import create_model
from pixelwise.core.segments import Segments
from pixelwise.errors import ConfigError
from pixelwise.losses.criterion import Recipe, criterion
from pixelwise.losses.mix import parse
from pixelwise.nn.checkpointing import blocks, checkpoint_blocks
from pixelwise.tasks import make_task

NETS = {
    "unet": {"width": 4, "depth": 3, "dropout": 0.5},
    "panoptic_deeplab-small": {"width": 16, "things": [1, 2], "dropout": 0.5},
    "mask_rcnn-small": {"encoder": "resnet10t", "width": 16, "box_width": 16, "encoder_norm": "batch", "norm": "batch",
                        "drawn_boxes": 32},
}  # fmt: skip


def shapes() -> Segments:
    """Ground, a disc and a square."""
    ids = torch.zeros(64, 96, dtype=torch.int8)
    ids[10:30, 10:34], ids[36:60, 50:90] = 1, 2
    return Segments(ids, torch.tensor([0, 1, 2]))


def steps(net: nn.Module, name: str, count: int = 2) -> None:
    """Plain descent on two images."""
    from pixelwise.core.classes import Classes

    task = make_task("instance" if name.startswith("mask") else "panoptic",
                     Classes(names=["ground", "disc", "square"], things=["disc", "square"]))  # fmt: skip
    torch.manual_seed(5)
    truths = tuple(task.view(shapes()) for _ in range(2))
    images = torch.randn(2, 3, 64, 96)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.01, momentum=0.9)
    for _ in range(count):
        losses = criterion(net.train()(images, truths=truths), truths, task, Recipe(parse("ce+dice")))
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", NETS)
def test_steps_are_equal_to_the_bit(name):
    """Weights, statistics and counters; dropout draws the same, and the draws after it too."""
    torch.manual_seed(0)
    plain = create_model(name, classes=3, **NETS[name])
    saving = copy.deepcopy(plain)
    keys = list(saving.state_dict())
    assert checkpoint_blocks(saving) > 4
    assert list(saving.state_dict()) == keys
    states = []
    for net in (plain, saving):
        steps(net, name)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, saving.state_dict()[key]), key
    counters = [v for k, v in saving.state_dict().items() if k.endswith("num_batches_tracked")]
    assert counters
    assert all(m.momentum for m in saving.modules() if isinstance(m, nn.BatchNorm2d))


class Residual(nn.Module):
    """Takes more than tensors, by position and by name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.calls = 0

    def forward(self, maps: dict[str, Tensor], *, scale: float) -> list[Tensor]:
        self.calls += 1
        return [scale * self.second(self.first(maps["x"]).tanh())]


class Net(nn.Module):
    """Two blocks in a list, a block alone, a sequence that holds most of it, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.list = nn.ModuleList([Residual(), Residual()])
        self.alone = Residual()
        self.tail = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)) for _ in range(6)))
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        for block in (*self.list, self.alone):
            x = block({"x": x}, scale=0.5)[0]
        return self.head(self.tail(x))


def test_blocks_are_the_outermost_that_are_not_most_of_the_net():
    assert [name for name, _ in blocks(Net())] == ["list.0", "list.1", *(f"tail.{i}" for i in range(6))]


def test_blocks_compute_twice_in_training_alone():
    net = Net()
    checkpoint_blocks(net)
    x = torch.randn(2, 4, 8, 8)
    net(x).sum().backward()
    assert [b.calls for b in net.list] == [2, 2]
    assert net.alone.calls == 1
    with torch.no_grad():
        net(x)
    net.eval()(x).sum().backward()
    assert [b.calls for b in net.list] == [4, 4]


def test_less_is_kept():
    kept = {}
    for saves in (False, True):
        torch.manual_seed(0)
        net, total = create_model("unet", classes=3, width=4), []
        if saves:
            checkpoint_blocks(net)

        def count(tensor: Tensor, total: list[int] = total) -> Tensor:
            total.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            net(torch.randn(1, 3, 64, 64))
        kept[saves] = sum(total)
    assert kept[True] < 0.3 * kept[False]


def test_copies_pickles_and_exports_know_nothing_of_it():
    torch.manual_seed(0)
    net = Net()
    checkpoint_blocks(net)
    twin = copy.deepcopy(net)
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    x = torch.randn(2, 4, 8, 8)
    for other in (twin, again):
        with torch.no_grad():
            other.list[0].second.weight.fill_(torch.nan)  # its own, not the first net's
        other(x).sum().backward()
        assert other.list[0].calls == 2
        assert other.list[0].first.weight.grad.isnan().all()
    assert net.list[0].calls == 0
    assert net.list[0].second.weight.isfinite().all()
    net.eval()
    with torch.no_grad():
        exported = torch.export.export(net, (x,)).module()
        torch.testing.assert_close(exported(x), net(x))


def test_modules_that_are_listened_to_are_left_alone():
    net = Net()
    net.tail[2][1].register_forward_hook(lambda *_: None)
    assert "tail.2" not in [name for name, _ in blocks(net)]


def test_a_net_without_blocks_is_refused():
    with pytest.raises(ConfigError, match=r"no block in Residual.*leave --gradient-checkpointing out"):
        checkpoint_blocks(Residual())


def test_inputs_that_are_overwritten_are_told():
    """By PyTorch, which would compute the block again from other numbers."""

    class Overwrites(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = x.mul(2)
            y = self.tail[0](x)
            x += 1
            return self.head(y + x)

    net = Overwrites()
    checkpoint_blocks(net)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        net(torch.randn(2, 4, 8, 8)).sum().backward()
