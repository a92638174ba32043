"""What bf16 changes in the answers of a finished net, written into its model file: prediction knows from then on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelwise.core.modelfile import load_model, read_card, save_model
from pixelwise.engines import open_engine
from pixelwise.prediction.chosen import equal_share
from pixelwise.views import look

IMAGES = 8  # that are looked at, spread evenly over the validation split
WAY = "eager bf16"


@torch.no_grad()
def note_agreement(path: Path, dataset: Any, records: Sequence[Any], device: torch.device,
                   say: Callable[[str], None]) -> float:  # fmt: skip
    """Share of pixels (0..1) that the net of a model file answers in bf16 as in float32, on some of these records.

    Said, and written into the file's header as `training["agreement"]`; a file that has it stays as it is. Raises what
    reading raises.
    """
    known = read_card(path).training.get("agreement", {})
    if WAY in known:
        return float(known[WAY])
    net, card = load_model(path, device)
    ways = [open_engine("eager", net, device=device, precision=precision) for precision in ("fp32", "bf16")]
    shares, pixels = [], []
    for i in np.linspace(0, len(records) - 1, min(IMAGES, len(records))).round().astype(int).tolist():
        image = dataset.read(records[i]).image
        images = card.preprocessing(image[None].to(device))
        exact, fast = (look(way, images, rule=card.preprocessing.size) for way in ways)
        shares.append(equal_share(exact, fast, 1))
        pixels.append(image[0].numel())
    share = float(np.average(shares, weights=pixels))
    say(f"bf16      answers {share:.2%} of the pixels of {len(shares)} validation images as float32 does")
    save_model(path, net, replace(card, training={**card.training, "agreement": {WAY: round(share, 5)}}))
    return share
