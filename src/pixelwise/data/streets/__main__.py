"""`python -m pixelwise.data.streets OUT` draws the street data set into a folder."""

import argparse
import sys

from pixelwise.data.streets import write_streets
from pixelwise.errors import PixelwiseError


def main(arguments: list[str] | None = None) -> int:
    """Draw as the command line says; the exit code is 0, or 2 where it could not be done."""
    parser = argparse.ArgumentParser(prog="python -m pixelwise.data.streets", description=__doc__)
    parser.add_argument("out", help="folder to draw into")
    for split, count in (("train", 48), ("val", 12), ("test", 12)):
        parser.add_argument(f"--{split}", type=int, default=count, help=f"scenes in {split} (default {count})")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 512), metavar=("H", "W"), help="default 256 512")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    counts = {"train": chosen.train, "val": chosen.val, "test": chosen.test}
    try:
        root = write_streets(chosen.out, **counts, size=tuple(chosen.size), seed=chosen.seed)
    except PixelwiseError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{sum(counts.values())} streets drawn in {root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
