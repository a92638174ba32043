"""What grouping costs beside the net: Panoptic-DeepLab's R50 on 1024 x 2048 pixels, then the way to 200 centres.

    python benchmarks/grouping.py [--size 1024 2048] [--centres 200] [--threads 1] [--repeat 3]

Prints seconds of the net, of grouping (finding the centres in the heat map and, for every pixel of the image as if all
were things, the nearest centre), of looking at every pair in strips, and of reading a whole panoptic answer, each as a
share of the net's time; and the most memory that grouping held.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pixelwise.core.centers import Centers, Grouping
from pixelwise.core.outputs import Frame
from pixelwise.core.registry import create_model
from pixelwise.kernels.grouping import NearestCentre, find_centres, nearest_in_strips
from pixelwise.losses.centers import bumps

THINGS = tuple(range(11, 19))


def scene(size: tuple[int, int], count: int) -> Centers:
    """Maps as the net answers them, a quarter of the size, with `count` centres; every pixel is a thing, which is the
    most work there can be."""
    draw = torch.Generator().manual_seed(0)
    height, width = (n // 4 for n in size)
    rows = max(1, int((count * height / width) ** 0.5))
    columns = -(-count // rows)
    y, x = torch.arange(count) // columns, torch.arange(count) % columns
    centres = torch.stack([(y + 0.5) * height / rows, (x + 0.5) * width / columns]).int()
    heat = bumps(centres, torch.full((count,), 2.0), (height, width))[None, None]
    grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")).flatten(1).float()
    nearest = nearest_in_strips(grid.T, centres.T)
    offsets = (centres[:, nearest] - grid).view(1, 2, height, width) * 4
    offsets += torch.randn(offsets.shape, generator=draw) * 6
    logits = torch.randn(1, 19, height, width, generator=draw)
    logits[:, THINGS[0] :] += 9
    return Centers(logits, heat, offsets, Grouping(THINGS, top_k=10 * count), (Frame.whole(*size),), align_corners=True)


def best(action: Callable[[], object], repeat: int) -> float:
    """Least seconds of several runs."""
    found = []
    for _ in range(repeat):
        start = time.perf_counter()
        action()
        found.append(time.perf_counter() - start)
    return min(found)


class Largest(TorchDispatchMode):
    """Notes the largest tensor made."""

    numbers = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):  # type: ignore[no-untyped-def]
        made = function(*arguments, **(keywords or {}))
        for tensor in made if isinstance(made, list | tuple) else [made]:
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return made


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 2048), metavar=("H", "W"))
    parser.add_argument("--centres", type=int, default=200)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    size = (chosen.size[0], chosen.size[1])
    output = scene(size, chosen.centres)
    heat, offsets = output.heat_map(0), output.offset_map(0)
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij"))
    votes = (grid + offsets).flatten(1).T.contiguous()  # [H W, 2]

    def centres() -> Tensor:
        return find_centres(heat, threshold=0.1, window=7, top_k=10 * chosen.centres)

    def grouped() -> Tensor:
        return NearestCentre(centres(), size)(votes)

    assert torch.equal(grouped(), nearest_in_strips(votes, centres()))
    net = create_model("panoptic_deeplab-r50", classes=19, things=list(THINGS)).eval()
    net = net.to(memory_format=torch.channels_last)
    image = torch.randn(1, 3, *size).contiguous(memory_format=torch.channels_last)
    whole = best(lambda: net(image), chosen.repeat)
    print(f"{size[0]} x {size[1]} pixels, {len(centres())} centres, {chosen.threads} threads, best of {chosen.repeat}")
    print(f"net (R50, output stride 32)      {whole:7.3f} s")
    actions = {"grouping": grouped, "  every pair, in strips": lambda: nearest_in_strips(votes, centres()),
               "whole panoptic reading": lambda: output.candidates(0)}  # fmt: skip
    for name, action in actions.items():
        seconds = best(action, chosen.repeat)
        print(f"{name:32s} {seconds:7.3f} s   ratio {seconds / whole:.3f}")
    with Largest() as watch:
        NearestCentre(centres(), size)(votes)
    pairs = chosen.centres * size[0] * size[1]
    print(f"largest tensor of grouping       {watch.numbers:,} numbers; centres x pixels would be {pairs:,}")


if __name__ == "__main__":
    main()
