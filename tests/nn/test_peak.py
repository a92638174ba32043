"""What a net takes is counted beside the net, which may be at work in another thread meanwhile."""

from __future__ import annotations

import torch
from torch import nn

from pixelwise.core.registry import create_model
from pixelwise.nn.peak import forward_bytes


class Watched(nn.Module):
    """Notes where the weights of `original` are while this, or a copy of it, runs."""

    original: Watched
    seen: list[str]

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        Watched.seen.append(Watched.original.conv.weight.device.type)
        return self.conv(images)


def test_the_net_is_left_alone_meanwhile() -> None:
    Watched.original, Watched.seen = Watched(), []
    assert forward_bytes(Watched.original, 3, (40, 50)) == 5 * 40 * 50 * 4
    assert Watched.seen == ["cpu"]


def test_no_weight_is_copied_and_shared_ones_stay_shared() -> None:
    net = create_model("unet", classes=3, width=8, depth=2).eval()
    before = {name: (t.data_ptr(), t.device.type) for name, t in net.state_dict().items()}
    taken = forward_bytes(net, 3, (64, 64))
    assert taken is not None
    assert taken >= 2 * 8 * 64 * 64 * 4
    assert {name: (t.data_ptr(), t.device.type) for name, t in net.state_dict().items()} == before
